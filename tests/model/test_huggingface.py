"""Every family and option computes in transformers what it computes here, and comes back the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shapes import LAYOUTS, NO_LAYOUT, PLAIN, ids, rough

from diglot.core.errors import ConfigError
from diglot.core.storage import read_json
from diglot.model.cache import KVCache
from diglot.model.decoder import Decoder
from diglot.model.files import load_model, save_model
from diglot.model.huggingface.config import decoder_config, huggingface_config, layout, plain, stored_token_ids

MOST = 1e-4  # largest difference of two float32 logits


def transformers_model(folder: Path, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings).eval()


@torch.no_grad()
def continued(model: Decoder, tokens: torch.Tensor, num_new: int) -> torch.Tensor:
    """Each row with its greedy continuation."""
    cache = KVCache.allocate(model.config, len(tokens), tokens.shape[1] + num_new)
    new = tokens
    for _ in range(num_new):
        new = model(new, cache=cache).logits[:, -1].argmax(dim=-1, keepdim=True)
        tokens = torch.cat((tokens, new), dim=1)
    return tokens


@pytest.mark.parametrize("name", LAYOUTS)
def test_transformers_opens_what_is_written_and_agrees(name: str, tmp_path: Path) -> None:
    config, model_type = LAYOUTS[name]
    model = rough(config)
    save_model(model, tmp_path)
    assert read_json(tmp_path / "config.json")["model_type"] == model_type
    theirs, tokens = transformers_model(tmp_path, attn_implementation="eager"), ids(2, 100)
    with torch.no_grad():
        ours = model(tokens).logits
        assert (theirs(tokens).logits - ours).abs().max().item() < MOST
        assert (load_model(tmp_path)(tokens).logits - ours).abs().max().item() < MOST
    theirs.generation_config.eos_token_id = None
    greedy = theirs.generate(tokens[:, :8], attention_mask=torch.ones(2, 8), do_sample=False, max_new_tokens=64)
    assert torch.equal(greedy, continued(model, tokens[:, :8], 64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "mixtral", "qwen2-moe", "qwen3-moe, some layers"])
def test_a_folder_of_transformers_comes_back_bit_by_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save_model(rough(LAYOUTS[name][0]), tmp_path / "first")
    theirs = transformers_model(tmp_path / "first").to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    save_model(model, tmp_path / "ours", dtype=dtype)
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert set(before) == set(after)
    assert all(before[key].dtype == after[key].dtype and torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        again = transformers_model(tmp_path / "ours")
        difference = again(ids(2, 40)).logits - model(ids(2, 40)).logits
    assert difference.abs().max().item() < MOST


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_reads_back_as_the_same_shape(name: str) -> None:
    config, model_type = LAYOUTS[name]
    fields = huggingface_config(config, {}, torch.float32)
    assert fields["model_type"] == model_type
    assert decoder_config(fields) == layout(config).config
    if config.mup_base_d_model is None and config.embed_scale in (1.0, 48**0.5):
        assert plain(config) in (layout(config).config, replace(layout(config).config, embed_scale=1.0))


@pytest.mark.parametrize("name", NO_LAYOUT)
def test_a_shape_without_a_layout_is_ours_alone(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config, field = NO_LAYOUT[name]
    with pytest.raises(ConfigError, match=f"no Hugging Face layout.*{field}"):
        layout(config)
    model = rough(config)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == config
    with torch.no_grad():
        assert torch.equal(again(ids(2, 40)).logits, model(ids(2, 40)).logits)
    with pytest.raises(ValueError, match="diglot"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_the_order_of_magnitude_of_rough_weights_is_that_of_a_model() -> None:
    """Else the differences above would mean nothing."""
    with torch.no_grad():
        logits = rough(PLAIN)(ids(2, 100)).logits
    assert 0.5 < logits.std().item() < 20


def test_token_ids_of_a_model_of_images_stand_with_its_text_model() -> None:
    fields = {
        "model_type": "gemma3",
        "eos_token_id": [1, 106],
        "text_config": {"bos_token_id": 2, "pad_token_id": None},
    }
    assert stored_token_ids(fields) == {"bos": 2, "eos": [1, 106]}
    assert stored_token_ids({"bos_token_id": 5}) == {"bos": 5}
