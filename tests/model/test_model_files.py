"""A saved model is the same model, here and in transformers, and the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_decoder import SHAPES, SMALL, decoder, tokens

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.model.decoder import Decoder
from diglot.model.files import load_model, save_model


@pytest.mark.parametrize("shape", [*SHAPES, "uneven"])
def test_a_saved_model_comes_back_with_equal_logits(shape: str, tmp_path: Path) -> None:
    model = decoder(SHAPES.get(shape, replace(SMALL, ffn_dim=(16, 64, 8))))
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(tokens(2, 20)).logits, model(tokens(2, 20)).logits)


@pytest.mark.parametrize("shape", ["grouped-query", "tied", "qk-norm", "qkv bias"])
def test_transformers_opens_the_folder_and_agrees(shape: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = decoder(SHAPES[shape])
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens(2, 20)).logits, model(tokens(2, 20)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ["grouped-query", "tied", "qk-norm"])
def test_a_folder_written_by_transformers_opens_here(shape: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from test_decoder import huggingface

    model = decoder(SHAPES[shape])
    huggingface(model).save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(tokens(2, 20)).logits, model(tokens(2, 20)).logits)


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(Decoder(SMALL, seed=5), tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    save_model(Decoder(SMALL, seed=6), tmp_path / "three")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "three")]
    assert weights[0] != weights[1]


def test_the_tokenizer_travels_with_the_model(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer" / "tokenizer.json", {"made": "up"})
    write_json(tmp_path / "tokenizer" / "manifest.json", {})
    save_model(Decoder(SMALL), tmp_path / "model", tmp_path / "tokenizer")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_model(tmp_path)
    save_model(Decoder(SMALL), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)
    weights.write_bytes(whole)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), "num_hidden_layers": 4})
    with pytest.raises(InputError, match="missing"):
        load_model(tmp_path)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), "model_type": "mamba"})
    with pytest.raises(ConfigError, match="mamba"):
        load_model(tmp_path)


def test_qk_norm_with_bias_has_no_layout(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Hugging Face layout"):
        save_model(Decoder(replace(SMALL, qk_norm=True, qkv_bias=True)), tmp_path)
