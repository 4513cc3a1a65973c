"""A GGUF file in llama.cpp: what the process of `agreement.LlamaEngine` runs. Loads no torch."""

from __future__ import annotations

import atexit
from typing import Any

import numpy as np
from numpy.typing import NDArray

_opened: Any = None  # the model of this process


def open_file(path: str, context: int) -> None:
    """Called when the process starts; a second call closes the first file."""
    import llama_cpp

    global _opened
    close()
    _opened = llama_cpp.Llama(
        model_path=path,
        n_ctx=context,
        n_batch=context,
        logits_all=True,
        n_gpu_layers=0,
        type_k=llama_cpp.GGML_TYPE_F32,  # the file is checked, not its rounded cache of keys and values
        type_v=llama_cpp.GGML_TYPE_F32,
        swa_full=True,
        verbose=False,
    )


@atexit.register  # while the interpreter still stands, which llama_cpp's own clean-up needs
def close() -> None:
    global _opened
    if _opened is not None:
        _opened.close()
    _opened = None


def encode(text: str, special: bool = False) -> list[int]:
    """special: names of special tokens in the text stand for these."""
    return list(_opened.tokenize(text.encode(), add_bos=False, special=special))


def logits(ids: list[int]) -> NDArray[np.float32]:
    """[T, V]"""
    _opened.reset()
    _opened.eval(ids)
    return np.array(_opened.scores[: len(ids)], dtype=np.float32)


def greedy(ids: list[int], num_new: int) -> list[int]:
    _opened.reset()
    _opened.eval(ids)
    written: list[int] = []
    while len(written) < num_new:
        written.append(int(np.argmax(_opened.scores[_opened.n_tokens - 1])))
        if len(written) < num_new:
            _opened.eval(written[-1:])
    return written
