"""llama.cpp computes with a written file what the decoder computes, and what it cannot is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shapes import GGUF, LAYOUTS, NO_GGUF, NO_LAYOUT, PLAIN, VOCAB, ids, rough

from diglot.core.errors import ConfigError
from diglot.model.gguf import gguf_layout, neighbours, write_gguf
from diglot.model.rope import rope_tables

gguf = pytest.importorskip("gguf")
TOKENS = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(VOCAB)],
    "tokenizer.ggml.scores": [-float(i) for i in range(VOCAB)],
    "tokenizer.ggml.token_type": [1] * VOCAB,
    "tokenizer.ggml.add_bos_token": False,
}


@pytest.mark.parametrize("name", GGUF)
def test_llama_cpp_agrees(name: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, in diglot[llama]")
    from diglot.evaluate import llama_process

    model = rough(LAYOUTS[name][0])
    layout = write_gguf(model, tmp_path / "model.gguf", TOKENS, dtype="f32")
    assert layout.architecture == GGUF[name]
    llama_process.open_file(str(tmp_path / "model.gguf"), 160)
    tokens = ids(1, 100)
    with torch.no_grad():
        ours = model(tokens).logits[0].numpy()
    theirs = llama_process.logits(tokens[0].tolist())
    # llama.cpp looks Gemma's activation up in a table of float16.
    limit = 1e-3 * np.abs(ours).max() if "gemma" in layout.architecture else 1e-4
    assert np.abs(theirs - ours).max() < limit
    assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.99


@pytest.mark.parametrize(("dtype", "limit"), [("f16", 1e-2), ("bf16", 5e-2), ("q8_0", 0.5)])
def test_rounded_weights_stay_close(dtype: str, limit: float, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, in diglot[llama]")
    from diglot.evaluate import llama_process

    model = rough(replace(PLAIN, d_model=64, ffn_dim=96))
    write_gguf(model, tmp_path / "model.gguf", TOKENS, dtype=dtype)
    llama_process.open_file(str(tmp_path / "model.gguf"), 160)
    tokens = ids(1, 60)
    with torch.no_grad():
        ours = model(tokens).logits[0].numpy()
    assert 0 < np.abs(llama_process.logits(tokens[0].tolist()) - ours).max() < limit


@pytest.mark.parametrize("name", NO_GGUF)
def test_what_llama_cpp_does_not_compute_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"does not compute: {NO_GGUF[name]}"):
        write_gguf(rough(LAYOUTS[name][0]), tmp_path / "model.gguf", TOKENS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in NO_LAYOUT if name != "qk-norm with bias"])
def test_shapes_of_our_own_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="does not compute"):
        gguf_layout(NO_LAYOUT[name][0])


def test_a_file_holds_every_tensor_in_its_format(tmp_path: Path) -> None:
    model = rough(PLAIN)
    write_gguf(model, tmp_path / "model.gguf", TOKENS, dtype="f16")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert len(tensors) == 3 + 9 * PLAIN.num_layers
    assert {t.tensor_type.name for t in tensors.values() if len(t.shape) > 1} == {"F16"}
    assert {t.tensor_type.name for t in tensors.values() if len(t.shape) == 1} == {"F32"}
    down = model.layers[2].ffn.down.weight.detach().half().numpy()  # type: ignore[union-attr]
    assert np.array_equal(np.asarray(tensors["blk.2.ffn_down.weight"].data).reshape(down.shape), down)


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_gguf(rough(PLAIN), tmp_path / name, TOKENS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_float16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    model = rough(PLAIN)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e6
    with pytest.raises(ConfigError, match=r"output\.weight holds 1e\+06"):
        write_gguf(model, tmp_path / "model.gguf", TOKENS, dtype="f16")
    with pytest.raises(ConfigError, match="'f8' is no format"):
        write_gguf(model, tmp_path / "model.gguf", TOKENS, dtype="f8")
    assert not list(tmp_path.iterdir())


def test_turning_neighbours_of_reordered_rows_is_turning_halves() -> None:
    """The scores between turned queries and keys are what must not change."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 3 * 8, generator=generator).unbind()
    cos, sin = rope_tables(replace(PLAIN, head_dim=8))

    def halves(x: torch.Tensor, position: int) -> torch.Tensor:
        first, second = x.view(3, 2, 4).unbind(1)
        c, s = cos[position], sin[position]
        return torch.cat((first * c - second * s, second * c + first * s), -1)

    def pairs(x: torch.Tensor, position: int) -> torch.Tensor:
        even, odd = x.view(3, 4, 2).unbind(2)
        c, s = cos[position], sin[position]
        return torch.stack((even * c - odd * s, odd * c + even * s), -1).view(3, 8)

    expected = halves(q, 5) @ halves(k, 2).T
    torch.testing.assert_close(pairs(neighbours(q, 3), 5) @ pairs(neighbours(k, 3), 2).T, expected)
    assert not torch.allclose(pairs(q, 5) @ pairs(k, 2).T, expected, atol=0.1)
