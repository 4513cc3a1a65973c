"""A decoder as a GGUF file, for llama.cpp: one file with shape, tokenizer and weights.

Which architecture computes a shape was read in llama.cpp's source (as of llama-cpp-python 0.3.36). What its classes do
not do is refused by name. Differences from the Hugging Face layout:

- `llama` turns neighbouring channels by RoPE, so rows of q and k are reordered: channel i of the first half goes to 2i,
  of the second to 2i + 1;
- norms that multiply by 1 + weight are written as 1 + weight;
- scores are multiplied by 1 / sqrt(head width), or what an architecture fixes; another scale is folded into queries;
- Llama 3's RoPE is a tensor of factors; all experts of a layer are one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diglot.core.errors import ConfigError, DiglotError
from diglot.core.storage import atomic_path
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.huggingface.config import Folds, folds, plain
from diglot.model.huggingface.weights import Part, huggingface_weights
from diglot.model.rope import scaled_frequencies

if TYPE_CHECKING:
    import gguf

DTYPES = ("f32", "f16", "bf16", "q8_0")
_GEMMA_27B = {"gemma2": 46, "gemma3": 62}  # layers by which llama.cpp knows the one Gemma with another score scale


@dataclass(frozen=True)
class GgufLayout:
    """How a shape is written: llama.cpp's name of its class, and what is folded into weights."""

    architecture: str
    config: DecoderConfig
    folds: Folds


class _Tensor(NamedTuple):
    shape: tuple[int, ...]
    value: Callable[[], NDArray[np.float32]]


def gguf_layout(config: DecoderConfig) -> GgufLayout:
    """The architecture that computes this shape. Raises ConfigError naming what none does."""
    moe = config.moe
    if config.unit_offset_norm:
        name = "gemma3" if config.sandwich_norm and config.qk_norm else "gemma2" if config.sandwich_norm else "gemma"
    elif moe is not None:
        name = "qwen3moe" if config.qk_norm else "qwen2moe" if moe.shared_dim else "llama"
    else:
        name = "qwen3" if config.qk_norm else "llama"
        plain_biases = (config.qkv_bias, config.out_bias, config.ffn_bias) == (True, False, False)
        if name == "llama" and plain_biases and max(config.heads) * config.head_dim == config.d_model:
            name = "qwen2"
    if refused := list(_refused(config, name)):
        raise ConfigError(
            f"llama.cpp has no architecture for this shape. The nearest is {name}, which does not compute: "
            f"{'; '.join(refused)}."
        )
    scale = config.head_dim**-0.5
    if config.num_layers == _GEMMA_27B.get(name):
        scale = (config.d_model // max(config.heads)) ** -0.5
    embed = math.sqrt(config.d_model) if config.unit_offset_norm else 1.0
    return GgufLayout(name, config, folds(config, score_scale=scale, embed_scale=embed))


def write_gguf(
    model: Decoder, path: Path, tokenizer: Mapping[str, Any], *, dtype: str = "f16", name: str = "diglot"
) -> GgufLayout:
    """Write one file. Matrices are stored as `dtype`, vectors as float32; a tensor at a time is in memory.

    tokenizer: GGUF fields from `tokenizer/gguf.py`.
    Raises: ConfigError for a shape or a format without a counterpart.
    """
    gguf = _library()
    if dtype not in DTYPES:
        raise ConfigError(f"dtype '{dtype}' is no format of a GGUF file here. Known: {', '.join(DTYPES)}.")
    layout = gguf_layout(plain(model.config))
    tensors = gguf_tensors(model, layout)
    with atomic_path(path) as partial:
        writer = gguf.GGUFWriter(partial, layout.architecture)
        writer.add_name(name)
        writer.add_file_type(int(gguf.LlamaFileType[_FILE_TYPES[dtype]]))
        for key, value in {**_shape_fields(layout), **tokenizer}.items():
            _add(writer, key, value)
        kinds = {key: _kind(gguf, tensor.shape, dtype, key) for key, tensor in tensors.items()}
        for key, tensor in tensors.items():
            nbytes = math.prod(gguf.quant_shape_to_byte_shape(tensor.shape, kinds[key]))
            writer.add_tensor_info(key, tensor.shape, np.dtype(np.float32), nbytes, raw_dtype=kinds[key])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for key, tensor in tensors.items():
            value = tensor.value()
            if kinds[key] == gguf.GGMLQuantizationType.F16 and np.abs(value).max() > 65504:
                raise ConfigError(f"{key} holds {np.abs(value).max():g}, and float16 ends at 65504. Write bf16 or f32.")
            writer.write_tensor_data(gguf.quants.quantize(value, kinds[key]))
        writer.close()
    return layout


@torch.no_grad()
def gguf_tensors(model: Decoder, layout: GgufLayout) -> dict[str, _Tensor]:
    """Every tensor of the file by its name there, made when it is asked for."""
    config = model.config
    parts = huggingface_weights(model, "qwen", layout.folds)
    tensors: dict[str, _Tensor] = {}
    if (scaling := config.rope_scaling) is not None and scaling.kind == "llama3":
        tensors["rope_freqs.weight"] = _Tensor((config.head_dim // 2,), lambda: _rope_factors(config))
    stacked: dict[str, list[Part]] = {}
    for name, part in parts.items():
        key = _gguf_name(name, config)
        if ".experts." in name:
            stacked.setdefault(key, []).append(part)
            continue
        turned = 0
        if layout.architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            index = int(name.split(".")[2])
            turned = config.heads[index] if "q_proj" in name else config.kv_heads[index]
        shape = tuple(part.view.shape)
        if name.endswith("shared_expert_gate.weight"):
            shape = shape[1:]  # [1, D] here, a vector there
        tensors[key] = _Tensor(
            shape, _value(part, shape, turned, config.unit_offset_norm and name.endswith("norm.weight"))
        )
    for key, experts in stacked.items():
        tensors[key] = _Tensor((len(experts), *experts[0].view.shape), _stack(experts))
    return tensors


def _refused(config: DecoderConfig, name: str) -> Iterator[str]:
    """What `name` does not compute, in words."""
    gemma = name.startswith("gemma")
    for field in ("num_heads", "num_kv_heads", "ffn_dim"):
        if isinstance(getattr(config, field), tuple):
            yield f"{field} by layer"
    if config.activation != ("gelu_tanh" if gemma else "silu"):
        yield f"activation {config.activation}"
    if config.sandwich_norm and not gemma:
        yield "sandwich_norm without unit_offset_norm"
    if (
        config.sliding_window is not None
        and name not in ("gemma2", "gemma3")
        and config.max_seq_len > config.sliding_window
    ):
        yield "sliding_window"
    if config.attention_softcap is not None and name != "gemma2":
        yield "attention_softcap"
    if config.logit_softcap is not None and name not in ("gemma2", "gemma3"):
        yield "logit_softcap"
    if name == "gemma2" and (config.attention_softcap is None or config.logit_softcap is None):
        yield "attention without both soft caps"
    if name in ("gemma", "gemma2") and not config.tie_embeddings:
        yield "an output matrix of its own"
    if name == "qwen2moe" and config.tie_embeddings:
        yield "tied embeddings"
    if config.qkv_bias and name in ("gemma", "gemma2", "gemma3", "qwen3", "qwen3moe"):
        yield "qkv_bias"
    if config.out_bias and name != "llama":
        yield "out_bias"
    if config.ffn_bias and (name != "llama" or config.moe is not None):
        yield "ffn_bias"
    if config.qk_norm and name not in ("qwen3", "qwen3moe", "gemma3"):
        yield "qk_norm"
    if config.moe is not None:
        yield from _refused_experts(config, name)
    if (scaling := config.rope_scaling) is not None:
        if scaling.kind == "llama3" and name != "llama":
            yield "RoPE scaling llama3"
        if scaling.kind == "yarn" and (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
            yield "YaRN with other betas than 32 and 1"
        if any(config.slides) and config.local_rope_theta is None:
            yield "RoPE scaling in sliding layers"
        if gemma and scaling.kind == "yarn" and any(config.slides):
            yield "YaRN beside sliding layers"


def _refused_experts(config: DecoderConfig, name: str) -> Iterator[str]:
    moe = config.moe
    assert moe is not None
    if name.startswith("gemma"):
        yield "experts"
    if not all(config.has_experts):
        yield "experts in some layers only"
    if moe.score != "softmax":
        yield f"router score {moe.score}"
    if moe.route_scale != 1:
        yield "route_scale"
    if moe.normalise_top_k != (name != "qwen2moe"):
        yield f"normalise_top_k = {moe.normalise_top_k}"
    if bool(moe.shared_dim) != (name == "qwen2moe") or moe.shared_gate != (name == "qwen2moe"):
        yield "this shared expert"
    if name == "qwen2moe" and max(config.heads) * config.head_dim != config.d_model:
        yield "heads that are not as wide as the model"


def _shape_fields(layout: GgufLayout) -> dict[str, Any]:
    config, name = layout.config, layout.architecture
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_len,
        "embedding_length": config.d_model,
        "block_count": config.num_layers,
        "feed_forward_length": max(config.ffn_dims),
        "attention.head_count": max(config.heads),
        "attention.head_count_kv": max(config.kv_heads),
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_theta),
    }
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind in ("linear", "yarn"):
        fields |= {"rope.scaling.type": scaling.kind, "rope.scaling.factor": float(scaling.factor)}
    if scaling is not None and scaling.kind == "yarn":
        fields["rope.scaling.original_context_length"] = scaling.original_seq_len
        if scaling.attention_factor is not None:  # llama.cpp multiplies this with 0.1 ln(factor) + 1
            fields["rope.scaling.attn_factor"] = scaling.attention_factor / (0.1 * math.log(scaling.factor) + 1)
    if name == "gemma2" or (name == "gemma3" and any(config.slides)):
        fields |= {
            # gemma2 wants a window somewhere; one as long as the context cuts nothing.
            "attention.sliding_window": config.sliding_window or config.max_seq_len,
            "attention.sliding_window_pattern": list(config.slides)
            if any(config.slides)
            else [True] * config.num_layers,
            "rope.freq_base_swa": float(config.local_rope_theta or config.rope_theta),
        }
    if config.attention_softcap is not None:
        fields["attn_logit_softcapping"] = float(config.attention_softcap)
    if config.logit_softcap is not None:
        fields["final_logit_softcapping"] = float(config.logit_softcap)
    if (moe := config.moe) is not None:
        fields |= {
            "expert_count": moe.num_experts,
            "expert_used_count": moe.top_k,
            "expert_feed_forward_length": moe.expert_dim,
        }
        if name == "llama":
            fields["feed_forward_length"] = moe.expert_dim
        if moe.shared_dim:
            fields["expert_shared_feed_forward_length"] = moe.shared_dim
    return {f"{name}.{key}": value for key, value in fields.items()}


_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
_TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def _gguf_name(name: str, config: DecoderConfig) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _TOP_NAMES:
        return f"{_TOP_NAMES[stem]}.{kind}"
    _, _, index, *inner = stem.split(".")
    within = ".".join(part for part in inner if not part.isdigit())
    if config.sandwich_norm and within == "post_attention_layernorm":
        return f"blk.{index}.post_attention_norm.{kind}"
    return f"blk.{index}.{_LAYER_NAMES[within]}.{kind}"


def _value(part: Part, shape: tuple[int, ...], turned: int, offset: bool) -> Callable[[], NDArray[np.float32]]:
    def value() -> NDArray[np.float32]:
        tensor = part.value().float().reshape(shape)
        if turned:
            tensor = neighbours(tensor, turned)
        return (tensor + 1 if offset else tensor).cpu().contiguous().numpy()

    return value


def _stack(parts: list[Part]) -> Callable[[], NDArray[np.float32]]:
    return lambda: torch.stack([part.value().float() for part in parts]).cpu().numpy()


def neighbours(rows: Tensor, num_heads: int) -> Tensor:
    """Rows of q or k, reordered from pairs (i, i + Hd / 2) of each head to neighbours (2i, 2i + 1)."""
    halves = rows.reshape(num_heads, 2, rows.shape[0] // num_heads // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def _rope_factors(config: DecoderConfig) -> NDArray[np.float32]:
    """What each frequency is divided by."""
    scaled, _ = scaled_frequencies(config.rope_theta, config.head_dim, config.rope_scaling)
    whole, _ = scaled_frequencies(config.rope_theta, config.head_dim, None)
    return (whole / scaled).float().numpy()


def _kind(library: Any, shape: tuple[int, ...], dtype: str, name: str) -> Any:
    kinds = library.GGMLQuantizationType
    if len(shape) < 2 or "ffn_gate_inp" in name or dtype == "f32":  # as llama.cpp's own converter has it
        return kinds.F32
    if dtype == "q8_0" and shape[-1] % 32:
        return kinds.F16  # its blocks have 32 numbers
    return kinds[dtype.upper()]


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value:
        writer.add_array(key, value)


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise DiglotError("writing GGUF needs the package gguf: pip install 'diglot[export]'") from None
    return gguf


__all__ = ["DTYPES", "GgufLayout", "gguf_layout", "gguf_tensors", "neighbours", "write_gguf"]
