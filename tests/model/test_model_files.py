"""A saved model is the same model and the same bytes, in one file or many, and a bad folder is named."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shapes import GEMMA_3, LAYOUTS, PLAIN, ids, rough

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.model.decoder import Decoder
from diglot.model.files import load_model, save_model
from diglot.model.huggingface.config import decoder_config
from diglot.model.shards import INDEX, WEIGHTS, split_names

MAP_NEO_7B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 24576,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 16,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 64256,
}
CT_LLM = {**MAP_NEO_7B, "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 32, "vocab_size": 125696}
CT_LLM |= {"max_position_embeddings": 4096}


def test_the_released_map_neo_and_ct_llm_layouts_are_read() -> None:
    neo, ct = decoder_config(MAP_NEO_7B), decoder_config(CT_LLM)
    assert (neo.d_model, neo.num_layers, neo.num_heads, neo.num_kv_heads, neo.head_dim) == (3072, 28, 16, 16, 192)
    assert (neo.ffn_dim, neo.vocab_size, neo.max_seq_len, neo.norm_eps, neo.tie_embeddings) == (
        24576,
        64256,
        8192,
        1e-5,
        False,
    )
    assert (ct.d_model, ct.num_layers, ct.ffn_dim, ct.head_dim, ct.vocab_size) == (2048, 32, 5504, 128, 125696)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}, (5e5, "linear")),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, (5e5, None)),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 7e4, "factor": 4.0}}, (7e4, "yarn")),
        ({"rope_theta": None, "rope_scaling": None}, (1e4, None)),
    ],
)
def test_old_and_new_ways_to_write_rope_are_read(fields: dict[str, object], expected: tuple[float, str | None]) -> None:
    config = decoder_config({**MAP_NEO_7B, **fields})
    assert (config.rope_theta, config.rope_scaling and config.rope_scaling.kind) == expected


def test_old_gemma_3_files_say_their_windows_by_a_pattern() -> None:
    fields = {
        "model_type": "gemma3_text",
        "vocab_size": 97,
        "hidden_size": 48,
        "num_hidden_layers": 7,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 80,
        "sliding_window": 9,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 8,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    }
    config = decoder_config(fields)
    assert config.sliding_layers == (True, True, False, True, True, False, True)
    assert (config.rope_theta, config.local_rope_theta, config.rope_scaling and config.rope_scaling.factor) == (
        1e6,
        1e4,
        8.0,
    )
    assert (config.tie_embeddings, config.max_seq_len, config.attention_scale) == (True, 131_072, None)
    wrapped = {"model_type": "gemma3", "text_config": fields, "vision_config": {}}
    assert decoder_config(wrapped) == config


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2-moe"])
def test_a_saved_model_comes_back_with_equal_logits(name: str, tmp_path: Path) -> None:
    model = rough(LAYOUTS[name][0])
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(ids(2, 20)).logits, model(ids(2, 20)).logits)


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(Decoder(PLAIN, seed=5), tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    save_model(Decoder(PLAIN, seed=6), tmp_path / "three")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "three")]
    assert weights[0] != weights[1]


def test_the_tokenizer_travels_with_the_model(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer" / "tokenizer.json", {"made": "up"})
    write_json(tmp_path / "tokenizer" / "manifest.json", {})
    save_model(Decoder(PLAIN), tmp_path / "model", tmp_path / "tokenizer")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


# --- shards


def test_shards_hold_the_same_tensors_and_open_everywhere(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = rough(PLAIN)
    save_model(model, tmp_path / "one")
    save_model(model, tmp_path / "many", max_shard_bytes=30_000)
    names = sorted(p.name for p in (tmp_path / "many").glob("*.safetensors"))
    assert len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    merged = {key: t for name in names for key, t in load_file(tmp_path / "many" / name).items()}
    whole = load_file(tmp_path / "one" / WEIGHTS)
    assert set(merged) == set(whole)
    assert all(torch.equal(merged[key], whole[key]) for key in whole)
    index = read_json(tmp_path / "many" / INDEX)
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in whole.values())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "many", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "many")(ids(1, 20)).logits, model(ids(1, 20)).logits)
        torch.testing.assert_close(theirs(ids(1, 20)).logits, model(ids(1, 20)).logits, rtol=1e-4, atol=1e-4)


def test_writing_again_leaves_no_shard_of_before(tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path, max_shard_bytes=30_000)
    save_model(rough(PLAIN, seed=3), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", WEIGHTS]
    assert torch.equal(load_model(tmp_path).embed.weight, rough(PLAIN, seed=3).embed.weight)


def test_a_shard_is_full_or_holds_one_tensor() -> None:
    assert split_names({"a": 4, "b": 4, "c": 9, "d": 1, "e": 5}, 8) == [["a", "b"], ["c"], ["d", "e"]]
    with pytest.raises(ConfigError, match="at least 1 byte"):
        split_names({"a": 4}, 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("shard gone", "00002.*is missing"),
        ("index names another", "does not hold model.norm.weight"),
        ("index broken", "index.json is damaged"),
        ("index points outside", "is not beside it"),
    ],
)
def test_damaged_shards_are_named(damage: str, message: str, tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path, max_shard_bytes=30_000)
    index = read_json(tmp_path / INDEX)
    files = sorted(tmp_path.glob("*.safetensors"))
    if damage == "shard gone":
        files[1].unlink()
    elif damage == "index broken":
        (tmp_path / INDEX).write_text('{"weight_map": [1, 2]}')
    else:
        index["weight_map"]["model.norm.weight"] = files[0].name if damage == "index names another" else "../x"
        write_json(tmp_path / INDEX, index)
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


# --- weights that do not fit


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path)
    change_config(tmp_path, intermediate_size=64)
    with pytest.raises(InputError, match=r"down_proj.weight has shape \[48, 80\], but config.json makes it \[48, 64\]"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.norm.weight": None}, r"missing: model\.norm\.weight; check"),
        ({"model.layers.9.extra": torch.zeros(3)}, r"not expected: model\.layers\.9\.extra; check"),
        ({"model.norm.weight": torch.zeros(48, dtype=torch.int8)}, "holds int8, so the model is quantised"),
        ({"model.norm.weight": torch.zeros(48).to(torch.float8_e4m3fn)}, "quantised"),
    ],
)
def test_weights_whose_names_or_numbers_do_not_fit_are_named(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    save_model(rough(PLAIN), tmp_path)
    tensors = {**load_file(tmp_path / WEIGHTS), **change}
    save_file({name: t for name, t in tensors.items() if t is not None}, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_buffers_of_old_files_and_a_second_copy_of_tied_weights_are_left_out(tmp_path: Path) -> None:
    model = rough(replace(PLAIN, tie_embeddings=True))
    save_model(model, tmp_path)
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "lm_head.weight": model.embed.weight.detach(),
    }
    save_file({**load_file(tmp_path / WEIGHTS), **extra}, tmp_path / WEIGHTS)
    assert torch.equal(load_model(tmp_path).embed.weight, model.embed.weight)


def test_experts_stacked_in_one_tensor_are_read_too(tmp_path: Path) -> None:
    model = rough(LAYOUTS["qwen2-moe"][0])
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for i in (0, 2, 3):
        place = f"model.layers.{i}.mlp.experts"
        taken = [[tensors.pop(f"{place}.{e}.{part}_proj.weight") for e in range(5)] for part in ("gate", "up", "down")]
        tensors[f"{place}.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(*taken[:2], strict=True)])
        tensors[f"{place}.down_proj"] = torch.stack(taken[2])
    save_file(tensors, tmp_path / WEIGHTS)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids(1, 20)).logits, model(ids(1, 20)).logits)


def test_the_text_model_of_gemma_3_is_read_without_its_images(tmp_path: Path) -> None:
    model = rough(GEMMA_3)
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    renamed = {f"language_model.{name}": t for name, t in tensors.items()}
    save_file({**renamed, "vision_tower.patch.weight": torch.zeros(2)}, tmp_path / WEIGHTS)
    write_json(tmp_path / "config.json", {"model_type": "gemma3", "text_config": read_json(tmp_path / "config.json")})
    with pytest.warns(UserWarning, match="only the text model"):
        again = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids(1, 20)).logits, model(ids(1, 20)).logits)


# --- damaged files


def test_a_cut_or_scrambled_safetensors_file_is_named(tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path)
    weights = tmp_path / WEIGHTS
    whole = weights.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    offsets = whole[8 : 8 + header].replace(b'"data_offsets":[0,', b'"data_offsets":[8,', 1)
    for damaged in (
        whole[: len(whole) // 2],
        whole[:5],
        whole[: 8 + header // 2],
        (2**40).to_bytes(8, "little") + whole[8:],
        whole[:8] + offsets + whole[8 + header :],
        b"",
    ):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
            load_model(tmp_path)


def test_pickled_weights_are_refused_unless_allowed(tmp_path: Path) -> None:
    model = rough(PLAIN)
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        load_model(tmp_path)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"can run any code.*allow_pickle"):
        load_model(tmp_path)
    assert torch.equal(load_model(tmp_path, allow_pickle=True).embed.weight, model.embed.weight)


def test_a_pickle_that_holds_code_is_not_run_even_where_pickle_is_allowed(tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path)
    (tmp_path / WEIGHTS).unlink()
    torch.save({"model.norm.weight": Trap(tmp_path / "sprung")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        load_model(tmp_path, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


# --- config.json


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path)
    (tmp_path / "modeling.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    change_config(tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    with pytest.warns(UserWarning, match="auto_map.*is not run"):
        load_model(tmp_path)
    change_config(tmp_path, model_type="their_own")
    with pytest.raises(ConfigError, match=r"'their_own' is not known here.*never run.*Known: llama"):
        load_model(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not known here.*families.py"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan, but it must be a finite number"),
        ({"rope_theta": float("inf")}, "rope_theta = inf"),
        ({"rope_scaling": {"rope_type": "linear", "factor": float("nan")}}, "factor = nan"),
        ({"hidden_size": "48"}, "hidden_size = '48', but it must be a whole number"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"num_key_value_heads": 4}, "divisor"),
        ({"hidden_act": "relu"}, "'relu' is not supported. Known: silu"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is not supported, for its angles change"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "'longrope' is not supported"),
        ({"rope_scaling": [2]}, "must be an object"),
        ({"partial_rotary_factor": 0.5}, r"turns 0\.5 of each head"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantised \(awq\)"),
        ({"use_bidirectional_attention": True}, "left to right"),
    ],
)
def test_a_config_that_cannot_be_computed_is_explained(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_model(rough(PLAIN), tmp_path)
    change_config(tmp_path, **change)
    with pytest.raises((ConfigError, InputError), match=message):
        load_model(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_model(tmp_path)
    for content in ('{"model_type": ', "[1]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=r"config\.json"):
            load_model(tmp_path)


def test_our_own_config_is_checked_field_by_field(tmp_path: Path) -> None:
    save_model(rough(replace(PLAIN, ffn_dim=(16, 64, 8, 32))), tmp_path)
    fields = read_json(tmp_path / "config.json")
    for change, message in (
        ({"widht": 3}, "unknown field 'widht'"),
        ({"rope_theta": float("nan")}, "rope_theta = nan"),
    ):
        write_json(tmp_path / "config.json", {**fields, "decoder": {**fields["decoder"], **change}})
        with pytest.raises(ConfigError, match=message):
            load_model(tmp_path)
    del fields["decoder"]["d_model"]
    write_json(tmp_path / "config.json", fields)
    with pytest.raises(ConfigError, match="no whole DecoderConfig"):
        load_model(tmp_path)


# --- numbers


def test_float16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    model = rough(PLAIN)
    with torch.no_grad():
        model.layers[1].ffn.down.weight[0, 0] = 1e6
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.down_proj\.weight holds 1e\+06, and float16 ends"):
        save_model(model, tmp_path, dtype=torch.float16)


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**read_json(path), **fields}))  # not write_json, which would sort


@pytest.fixture(autouse=True)
def no_silent_warnings() -> None:
    warnings.simplefilter("default")
