"""Tensors of a decoder under their Hugging Face names, written with their folds and read one at a time.

A fused matrix is named by its parts, which are views: reading writes into them, and nothing is held twice. Experts are
one tensor here and one per expert in files; transformers 5 also stacks them, and both are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from diglot.core.errors import InputError
from diglot.model.attention import Attention
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.experts import Experts
from diglot.model.feed_forward import FeedForward
from diglot.model.huggingface.config import Folds

IGNORED = ("rotary_emb.inv_freq",)  # buffers that old files hold
IMAGE_PARTS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
TEXT_PREFIXES = ("language_model.model.", "model.language_model.")  # of a model of text and images


class Part(NamedTuple):
    """A tensor as it is written: (offset + view) * factor - offset, where offset is 1 for norms that add 1."""

    view: Tensor
    factor: float = 1.0
    offset: float = 0.0

    def value(self) -> Tensor:
        if self.factor == 1.0:
            return self.view
        return (self.offset + self.view.float()) * self.factor - self.offset


class Stacked(NamedTuple):
    """Another spelling: one tensor that holds several named ones."""

    view: Tensor
    names: tuple[str, ...]


@torch.no_grad()
def huggingface_weights(model: Decoder, model_type: str, folds: Folds) -> dict[str, Part]:
    """Every tensor of `model` as its folder holds it, in the names of a family."""
    config = model.config
    offset = 1.0 if config.unit_offset_norm else 0.0
    parts = {
        "model.embed_tokens.weight": Part(model.embed.weight, folds.embeddings),
        "model.norm.weight": Part(model.norm.weight, folds.final_norm, offset),
    }
    if not config.tie_embeddings:
        parts["lm_head.weight"] = Part(model.lm_head.weight)
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}."
        norms = {"input_layernorm": layer.attention_norm, "post_attention_layernorm": layer.ffn_norm}
        if layer.attention_post_norm is not None and layer.ffn_post_norm is not None:
            norms |= {
                "post_attention_layernorm": layer.attention_post_norm,
                "pre_feedforward_layernorm": layer.ffn_norm,
                "post_feedforward_layernorm": layer.ffn_post_norm,
            }
        parts |= {f"{prefix}{name}.weight": Part(norm.weight) for name, norm in norms.items()}
        parts |= {
            f"{prefix}self_attn.{name}": part
            for name, part in _attention(layer.attention, _qkv_rows(config, index), folds, offset)
        }
        if isinstance(layer.ffn, Experts):
            place = "block_sparse_moe." if model_type == "mixtral" else "mlp."
            parts |= {f"{prefix}{place}{name}": Part(view) for name, view in _experts(layer.ffn, model_type)}
        else:
            parts |= {f"{prefix}mlp.{name}": Part(view) for name, view in _feed_forward(layer.ffn)}
    return {name: part._replace(view=part.view.detach()) for name, part in parts.items()}


@torch.no_grad()
def load_huggingface_weights(model: Decoder, model_type: str, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy named tensors into `model`, one at a time.

    Raises: InputError for a missing, unexpected or misshapen one, or one that does not hold floating-point numbers.
    """
    own = {name: part.view for name, part in huggingface_weights(model, model_type, Folds()).items()}
    stacked = _stacked(model)
    missing, unexpected = set(own), set()
    for written_name, tensor in weights:
        name = _text_name(written_name)
        if name is None or (name == "lm_head.weight" and model.config.tie_embeddings):
            continue
        covered: tuple[str, ...] = (name,)
        if name in own:
            target = own[name]
        elif name in stacked:
            target, covered = stacked[name]
        else:
            unexpected.add(written_name)
            continue
        if tensor.shape != target.shape:
            raise InputError(
                f"{written_name} has shape {_shape(tensor)}, but config.json makes it {_shape(target)}. "
                "Check that config.json belongs to these weights."
            )
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise InputError(
                f"{written_name} holds {str(tensor.dtype).removeprefix('torch.')}, so the model is quantised; only "
                "float32, float16 and bfloat16 weights are read. Take the unquantised model."
            )
        target.copy_(tensor)
        missing -= {*covered}
    if missing or unexpected:
        raise InputError(
            f"the weights do not fit config.json: {_some('missing', missing)}{_some('not expected', unexpected)}"
            "check that config.json belongs to these weights, and that all their files are there."
        )


def _attention(attention: Attention, rows: list[int], folds: Folds, offset: float) -> Iterator[tuple[str, Part]]:
    on_norm = attention.q_norm is not None  # behind a norm, scaling queries has no effect
    for kind in ["weight"] if attention.qkv.bias is None else ["weight", "bias"]:
        split = torch.split(getattr(attention.qkv, kind), rows)
        for name, view in zip(("q", "k", "v"), split, strict=True):
            yield f"{name}_proj.{kind}", Part(view, folds.scores if name == "q" and not on_norm else 1.0)
    yield "o_proj.weight", Part(attention.out.weight)
    if attention.out.bias is not None:
        yield "o_proj.bias", Part(attention.out.bias)
    if attention.q_norm is not None and attention.k_norm is not None:
        yield "q_norm.weight", Part(attention.q_norm.weight, folds.scores, offset)
        yield "k_norm.weight", Part(attention.k_norm.weight)


def _feed_forward(ffn: FeedForward) -> Iterator[tuple[str, Tensor]]:
    for kind in ["weight"] if ffn.down.bias is None else ["weight", "bias"]:
        gate, up = getattr(ffn.gate_up, kind).chunk(2)
        yield f"gate_proj.{kind}", gate
        yield f"up_proj.{kind}", up
        yield f"down_proj.{kind}", getattr(ffn.down, kind)


def _experts(ffn: Experts, model_type: str) -> Iterator[tuple[str, Tensor]]:
    gate_name, up_name, down_name = ("w1", "w3", "w2") if model_type == "mixtral" else _EXPERT_NAMES
    yield "gate.weight", ffn.router.weight
    for expert, (gate_up, down) in enumerate(zip(ffn.gate_up, ffn.down, strict=True)):
        gate, up = gate_up.chunk(2)
        yield f"experts.{expert}.{gate_name}.weight", gate
        yield f"experts.{expert}.{up_name}.weight", up
        yield f"experts.{expert}.{down_name}.weight", down
    if ffn.shared is not None:
        for name, view in _feed_forward(ffn.shared):
            yield f"shared_expert.{name}", view
    if ffn.shared_gate is not None:
        yield "shared_expert_gate.weight", ffn.shared_gate.weight


_EXPERT_NAMES = ("gate_proj", "up_proj", "down_proj")


def _stacked(model: Decoder) -> dict[str, Stacked]:
    """The names that transformers 5 has for the experts of a layer, beside what each stands for."""
    found = {}
    for index, layer in enumerate(model.layers):
        if isinstance(layer.ffn, Experts):
            for place, names in (("mlp", _EXPERT_NAMES), ("block_sparse_moe", ("w1", "w3", "w2"))):
                prefix, experts = f"model.layers.{index}.{place}.", range(len(layer.ffn.down))
                gate_up = tuple(f"{prefix}experts.{e}.{name}.weight" for e in experts for name in names[:2])
                down = tuple(f"{prefix}experts.{e}.{names[2]}.weight" for e in experts)
                found[f"{prefix}experts.gate_up_proj"] = Stacked(layer.ffn.gate_up.detach(), gate_up)
                found[f"{prefix}experts.down_proj"] = Stacked(layer.ffn.down.detach(), down)
    return found


def _text_name(name: str) -> str | None:
    """The name within the text model; None for what is not part of it."""
    if name.endswith(IGNORED) or name.startswith(IMAGE_PARTS):
        return None
    for prefix in TEXT_PREFIXES:
        if name.startswith(prefix):
            return f"model.{name.removeprefix(prefix)}"
    return name.removeprefix("language_model.")


def _qkv_rows(config: DecoderConfig, index: int) -> list[int]:
    return [config.heads[index] * config.head_dim] + [config.kv_heads[index] * config.head_dim] * 2


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def _some(what: str, names: set[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:3])
    return f"{what}: {shown}{f' and {len(names) - 3} more' if len(names) > 3 else ''}; "


def as_tensors(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """The values of all parts, for models that fit twice into memory."""
    return {name: part.value() for name, part in parts.items()}
