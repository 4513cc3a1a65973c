"""RoPE in config.json: `rope_theta` and `rope_scaling` of old, or `rope_parameters` of transformers 5.

The new form may hold one set for all layers, or one for each layer type. Written in the old form, which every version
reads, as long as that can say it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from diglot.core.errors import ConfigError
from diglot.model.config import DecoderConfig, RopeScaling
from diglot.model.huggingface.families import Family
from diglot.model.huggingface.json_fields import Fields

FULL, SLIDING = "full_attention", "sliding_attention"
LATER = {
    "dynamic": "its angles change with the length of the text",
    "longrope": "it has a factor for each channel",
    "proportional": "it turns a part of each head",
}


class RopeFields(NamedTuple):
    theta: float
    scaling: RopeScaling | None
    local_theta: float | None  # None: sliding layers turn as all others


def read_rope(fields: Fields, family: Family, max_seq_len: int) -> RopeFields:
    """What config.json says about RoPE. Raises ConfigError for a kind that the decoder does not compute."""
    parameters = fields.inside("rope_parameters")
    by_layer = {kind: parameters.inside(kind) for kind in (FULL, SLIDING) if kind in parameters.fields}
    if by_layer:
        full, sliding = (
            _read_one(by_layer.get(kind) or next(iter(by_layer.values())), fields, max_seq_len)
            for kind in (FULL, SLIDING)
        )
        if full == sliding:
            return RopeFields(*full, None)
        if sliding[1] is not None:
            raise ConfigError(
                f"{fields.where} scales RoPE in sliding layers otherwise than in the others ({parameters.fields}); "
                "here they turn without scaling, or as all layers do."
            )
        return RopeFields(*full, sliding[0])
    scaling = parameters if parameters.fields else fields.inside("rope_scaling")
    theta, scaled = _read_one(scaling, fields, max_seq_len)
    return RopeFields(theta, scaled, fields.number("rope_local_base_freq") if family.local_theta else None)


def write_rope(config: DecoderConfig, family: Family) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling`, and where the family has it the base of sliding layers."""
    fields: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": _write_one(config.rope_scaling)}
    if not family.local_theta:
        return fields
    if config.local_rope_theta is None and config.rope_scaling is not None:  # only the new form can say this
        same = {"rope_theta": config.rope_theta, **(fields["rope_scaling"] or {})}
        return {"rope_parameters": {FULL: same, SLIDING: dict(same)}}
    return {**fields, "rope_local_base_freq": config.local_rope_theta or config.rope_theta}


def _read_one(rope: Fields, fields: Fields, max_seq_len: int) -> tuple[float, RopeScaling | None]:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    theta = (rope if rope.get("rope_theta") is not None else fields).positive("rope_theta") or 10_000.0
    share = (rope if "partial_rotary_factor" in rope.fields else fields).get("partial_rotary_factor")
    if share not in (None, 1, 1.0):
        raise ConfigError(f"{fields.where} turns {share} of each head by RoPE; this decoder turns all of it.")
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=rope.number("factor"))
    if kind not in ("yarn", "llama3"):
        why = f", for {LATER[kind]}" if kind in LATER else ""
        raise ConfigError(f"RoPE scaling '{kind}' is not supported{why}. Known: linear, yarn, llama3.")
    trained = Fields(rope.fields, rope.where, {"original_max_position_embeddings": max_seq_len})
    original = trained.whole("original_max_position_embeddings")
    if kind == "llama3":
        return theta, RopeScaling(
            kind="llama3",
            factor=rope.number("factor"),
            original_seq_len=original,
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
        )
    if rope.get("truncate") is False:
        raise ConfigError(f"{rope.where} has truncate = false; YaRN rounds its channels outwards here.")
    factor = rope.positive("factor") or max_seq_len / original
    attention = rope.positive("attention_factor")
    numerator, denominator = rope.positive("mscale"), rope.positive("mscale_all_dim")
    if attention is None and numerator and denominator:
        attention = (0.1 * numerator * math.log(factor) + 1) / (0.1 * denominator * math.log(factor) + 1)
    return theta, RopeScaling(
        kind="yarn",
        factor=factor,
        original_seq_len=original,
        beta_fast=rope.positive("beta_fast") or 32.0,
        beta_slow=rope.positive("beta_slow") or 1.0,
        attention_factor=attention,
    )


def _write_one(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    fields: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("yarn", "llama3"):
        fields["original_max_position_embeddings"] = scaling.original_seq_len
    if scaling.kind == "llama3":
        fields |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.kind == "yarn":
        fields |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:
            fields["attention_factor"] = scaling.attention_factor
    return fields
