"""Models as folders: config.json, safetensors files and a tokenizer, in the Hugging Face layout where there is one.

Which shapes have one, and what is folded into weights on the way, says `model/huggingface/config.py`. A model read and
written again in the number format it was stored in has the same bits, tensor by tensor.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diglot.core.errors import InputError
from diglot.core.storage import atomic_path, read_json, write_json
from diglot.model.decoder import Decoder
from diglot.model.huggingface.config import Layout, decoder_config, layout_or_own, notes, unwrapped, written
from diglot.model.huggingface.weights import huggingface_weights, load_huggingface_weights
from diglot.model.shards import MAX_SHARD_BYTES, read_shards, write_shards

CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
TOKEN_IDS = {"bos": 1, "eos": 2, "pad": 3}  # the ids of every tokenizer that the train_tokenizer step makes


def save_model(
    model: Decoder,
    folder: Path,
    tokenizer_folder: Path | None = None,
    *,
    token_ids: Mapping[str, Any] = TOKEN_IDS,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    layout: Layout | None = None,
) -> None:
    """Write `model` to `folder`, and beside it a copy of the tokenizer's files. Weights are stored as `dtype`.

    layout: how, where the caller has asked for one; None takes the first that fits, or our own.
    """
    layout = layout or layout_or_own(model.config)
    write_shards(folder, huggingface_weights(model, layout.model_type, layout.folds), dtype, max_shard_bytes)
    if tokenizer_folder is not None:
        copy_tokenizer(tokenizer_folder, folder)
    write_json(folder / CONFIG, written(layout, token_ids, dtype))


def load_model(folder: Path, *, allow_pickle: bool = False) -> Decoder:
    """Read a model folder; float32 weights, evaluation mode.

    Raises: InputError when a file is missing, damaged or of another model; ConfigError for a shape that the decoder
        cannot compute.
    """
    fields = read_config(folder)
    config, (model_type, _) = decoder_config(fields), unwrapped(fields)
    for note in notes(fields):
        warnings.warn(f"{folder / CONFIG}: {note}", stacklevel=2)
    model = Decoder(config, seed=None)
    load_huggingface_weights(model, model_type, read_shards(folder, allow_pickle=allow_pickle))
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises InputError when it is missing or damaged."""
    path = folder / CONFIG
    try:
        fields = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing, so {folder} is no model folder. Check the path.") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Write or download it again.") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path} holds no object. Write or download it again.")
    return fields


def copy_tokenizer(tokenizer_folder: Path, folder: Path) -> None:
    """The files by which a tokenizer and its chat template are read, here and elsewhere."""
    for path in (p for name in TOKENIZER_FILES if (p := tokenizer_folder / name).exists()):
        with atomic_path(folder / path.name) as partial:
            shutil.copyfile(path, partial)
