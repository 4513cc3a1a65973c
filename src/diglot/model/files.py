"""Models as folders in the Hugging Face layout: config.json and model.safetensors, with equal logits there and here.

    plain                     -> LlamaForCausalLM
    qkv_bias                  -> Qwen2ForCausalLM
    qk_norm                   -> Qwen3ForCausalLM

Loads Llama, Mistral, Qwen2 and Qwen3 folders. The bytes of model.safetensors are a pure function of the weights:
tensors are written in name order with no date and no library version.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import atomic_path, read_json, write_bytes, write_json
from diglot.model.decoder import Decoder, DecoderConfig

WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens.json", "tokenizer.model")
TOKEN_IDS = {"bos": 1, "eos": 2, "pad": 3}  # the ids of every tokenizer that the train_tokenizer step makes


def save_model(
    model: Decoder,
    folder: Path,
    tokenizer_folder: Path | None = None,
    *,
    token_ids: dict[str, int] = TOKEN_IDS,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `model` to `folder`, and beside it a copy of the tokenizer's files. Weights are stored as `dtype`."""
    tensors = {name: t.to(dtype).contiguous() for name, t in huggingface_weights(model).items()}
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    if tokenizer_folder is not None:
        for path in (p for name in TOKENIZER_FILES if (p := tokenizer_folder / name).exists()):
            with atomic_path(folder / path.name) as partial:
                shutil.copyfile(path, partial)
    write_json(folder / "config.json", huggingface_config(model.config, token_ids, dtype))


def load_model(folder: Path) -> Decoder:
    """Read a model folder; float32 weights, evaluation mode. Raises InputError when a file is missing or damaged."""
    try:
        config = decoder_config(read_json(folder / "config.json"))
        model = Decoder(config)
        load_huggingface_weights(model, _read_weights(folder))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing, so {folder} is no model folder. Check the path.") from None
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder} is a damaged or incomplete model ({error}). Write or download it again.") from error
    return model.eval()


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"  # large models come in several files
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else [WEIGHTS]
    weights: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).exists():
            raise InputError(f"{folder / name} is missing, so {folder} is no complete model folder. Write it again.")
        with safe_open(folder / name, framework="pt") as opened:
            weights.update({key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
    return weights


def huggingface_config(config: DecoderConfig, token_ids: dict[str, int], dtype: torch.dtype) -> dict[str, Any]:
    """config.json for this shape. Widths that differ by layer go into `ffn_dims`, which only Diglot reads."""
    if config.qk_norm and config.qkv_bias:
        raise ConfigError("qk_norm with qkv_bias has no Hugging Face layout. Switch one of the two off.")
    kind = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else "llama"
    fields: dict[str, Any] = {
        "architectures": [
            {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[kind]
        ],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": max(config.ffn_dims),
        "max_position_embeddings": config.max_seq_len,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_cache": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **{f"{name}_token_id": number for name, number in token_ids.items()},
    }
    if kind != "qwen2":
        fields["attention_bias"] = False
    if kind == "llama":
        fields["mlp_bias"] = False
    if isinstance(config.ffn_dim, tuple):
        fields["ffn_dims"] = list(config.ffn_dim)
    return fields


def decoder_config(fields: dict[str, Any]) -> DecoderConfig:
    """The shape that a config.json describes. Raises ConfigError for what this decoder cannot do."""
    kind = fields.get("model_type")
    if kind not in ("llama", "mistral", "qwen2", "qwen3"):
        raise ConfigError(f"model_type '{kind}' is not known here. Known: llama, mistral, qwen2, qwen3.")
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ConfigError(f"RoPE scaling {rope} is not supported. Use a model without it.")
    if fields.get("attention_bias") or fields.get("mlp_bias"):
        raise ConfigError("attention_bias and mlp_bias are not supported; Qwen2's bias of q, k and v alone is.")
    if fields.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"hidden_act '{fields['hidden_act']}' is not supported; this decoder computes SwiGLU (silu).")
    heads = fields["num_attention_heads"]
    return DecoderConfig(
        vocab_size=fields["vocab_size"],
        d_model=fields["hidden_size"],
        num_layers=fields["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=fields.get("num_key_value_heads") or heads,
        head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
        ffn_dim=tuple(fields["ffn_dims"]) if "ffn_dims" in fields else fields["intermediate_size"],
        max_seq_len=fields["max_position_embeddings"],
        rope_theta=float(fields.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
        norm_eps=fields["rms_norm_eps"],
        tie_embeddings=bool(fields.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    )


@torch.no_grad()
def huggingface_weights(model: Decoder) -> dict[str, Tensor]:
    """The weights under their Hugging Face names; views where a fused matrix is split."""
    config = model.config
    weights = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm.weight}
    if not config.tie_embeddings:
        weights["lm_head.weight"] = model.lm_head.weight
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        for kind in ["weight", "bias"] if config.qkv_bias else ["weight"]:
            q, k, v = torch.split(getattr(layer.attention.qkv, kind), _qkv_sizes(config))
            for name, part in (("q", q), ("k", k), ("v", v)):
                weights[f"{prefix}.self_attn.{name}_proj.{kind}"] = part
        gate, up = layer.ffn.gate_up.weight.chunk(2)
        weights |= {
            f"{prefix}.self_attn.o_proj.weight": layer.attention.out.weight,
            f"{prefix}.mlp.gate_proj.weight": gate,
            f"{prefix}.mlp.up_proj.weight": up,
            f"{prefix}.mlp.down_proj.weight": layer.ffn.down.weight,
            f"{prefix}.input_layernorm.weight": layer.attention_norm.weight,
            f"{prefix}.post_attention_layernorm.weight": layer.ffn_norm.weight,
        }
        if layer.attention.q_norm is not None and layer.attention.k_norm is not None:
            weights[f"{prefix}.self_attn.q_norm.weight"] = layer.attention.q_norm.weight
            weights[f"{prefix}.self_attn.k_norm.weight"] = layer.attention.k_norm.weight
    return {name: weight.detach() for name, weight in weights.items()}


@torch.no_grad()
def load_huggingface_weights(model: Decoder, weights: dict[str, Tensor]) -> None:
    """Copy weights with Hugging Face names into `model`. Raises InputError on a missing, spare or misshapen one."""
    own = huggingface_weights(model)  # views: writing to them writes to the model
    spare = {n for n in set(weights) - set(own) if not n.endswith("rotary_emb.inv_freq")}
    if model.config.tie_embeddings:
        spare.discard("lm_head.weight")
    missing = set(own) - set(weights)
    if missing or spare:
        raise InputError(
            f"weights do not fit the config: missing {sorted(missing)[:3]}, not expected {sorted(spare)[:3]}. "
            "Check that config.json belongs to these weights."
        )
    for name, target in own.items():
        if target.shape != weights[name].shape:
            raise InputError(f"{name} has shape {tuple(weights[name].shape)}, config.json says {tuple(target.shape)}.")
        target.copy_(weights[name])


def _qkv_sizes(config: DecoderConfig) -> list[int]:
    return [config.num_heads * config.head_dim] + [config.num_kv_heads * config.head_dim] * 2
