"""What Hugging Face's classes for decoders compute, as differences from Llama: one row per `model_type`.

Read in transformers 5.24. A row says what its class can vary and what it cannot; `config.py` reads and writes by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type`.

    bias: of attention. `none`; `attention_bias` is a field for q, k, v and output alike; `qkv` are always there, and
        none of the output; `qkv_bias` is a field for them.
    mlp_bias: a field for the three feed-forward matrices.
    sliding: `none`; `every` layer by the field sliding_window; `switched`: every layer, if use_sliding_window;
        `by_layer`: by layer_types; `switched_by_layer`: by layer_types, if use_sliding_window.
    window_pattern: without layer_types, every so-manieth layer of `by_layer` does not slide.
    activation: name of that field.
    gemma: norms multiply by 1 + weight, and embeddings are multiplied by sqrt(hidden_size).
    scale: the field query_pre_attn_scalar is there. local_theta: sliding layers have a RoPE base of their own.
    experts: how fields and tensors of experts are named. shared: a gated feed-forward stands beside them.
    whole_heads: hidden_size must be a multiple of the number of heads.
    defaults: of fields that a config.json may leave out.
    """

    architecture: str
    bias: Literal["none", "attention_bias", "qkv", "qkv_bias"] = "none"
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding: Literal["none", "every", "switched", "by_layer", "switched_by_layer"] = "none"
    window_pattern: int = 0
    activation: str = "hidden_act"
    gemma: bool = False
    sandwich_norm: bool = False
    attention_softcap: bool = False
    logit_softcap: bool = False
    scale: bool = False
    local_theta: bool = False
    experts: Literal["none", "mixtral", "qwen"] = "none"
    shared: bool = False
    whole_heads: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


COMMON_DEFAULTS: Mapping[str, Any] = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
_GEMMA: Mapping[str, Any] = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
}
_QWEN: Mapping[str, Any] = {"max_position_embeddings": 32_768, "sliding_window": 4096, "max_window_layers": 28}

# In the order in which a layout is looked for: the plainest first.
FAMILIES: Mapping[str, Family] = {
    "llama": Family(architecture="LlamaForCausalLM", bias="attention_bias", mlp_bias=True, whole_heads=True),
    "mistral": Family(
        architecture="MistralForCausalLM",
        sliding="every",
        defaults={"sliding_window": 4096, "num_key_value_heads": 8, "max_position_embeddings": 131_072},
    ),
    "qwen2": Family(architecture="Qwen2ForCausalLM", bias="qkv", sliding="switched_by_layer", defaults=_QWEN),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        bias="attention_bias",
        qk_norm=True,
        sliding="switched_by_layer",
        defaults={**_QWEN, "head_dim": 128},
    ),
    "gemma": Family(architecture="GemmaForCausalLM", bias="attention_bias", gemma=True, defaults=_GEMMA),
    "gemma2": Family(
        architecture="Gemma2ForCausalLM",
        bias="attention_bias",
        sliding="by_layer",
        window_pattern=2,
        activation="hidden_activation",
        gemma=True,
        sandwich_norm=True,
        attention_softcap=True,
        logit_softcap=True,
        scale=True,
        whole_heads=True,
        defaults={
            **_GEMMA,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3_text": Family(
        architecture="Gemma3ForCausalLM",
        bias="attention_bias",
        qk_norm=True,
        sliding="by_layer",
        window_pattern=6,
        activation="hidden_activation",
        gemma=True,
        sandwich_norm=True,
        logit_softcap=True,
        scale=True,
        local_theta=True,
        whole_heads=True,
        defaults={
            **_GEMMA,
            "sliding_window": 4096,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "max_position_embeddings": 131_072,
        },
    ),
    "mixtral": Family(
        architecture="MixtralForCausalLM",
        sliding="every",
        experts="mixtral",
        defaults={
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "max_position_embeddings": 131_072,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    "qwen2_moe": Family(
        architecture="Qwen2MoeForCausalLM",
        bias="qkv_bias",
        sliding="switched_by_layer",
        experts="qwen",
        shared=True,
        defaults={**_QWEN, "qkv_bias": True},
    ),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM",
        bias="attention_bias",
        qk_norm=True,
        sliding="switched",
        experts="qwen",
        defaults={**_QWEN, "num_key_value_heads": 4},
    ),
}
