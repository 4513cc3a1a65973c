"""config.json <-> DecoderConfig, for the families of `families.py`.

A layout fits a shape if reading back what is written gives the same shape; `layout` finds the first that fits. Before
that, what is only another way to say the same is put in one form (`plain`), and what only scales is folded into weights
(`Folds`), so that a model trained with maximal-update parametrisation is written as an ordinary one:

    logits / k                  final norm's weight / k
    score scale s               queries (or their norm's weight) * s sqrt(head_dim), where no field holds s
    embeddings * e              embeddings * e, and, where they are also the output matrix, final norm's weight / e
    RoPE scaling ntk            the base that it puts in place of rope_theta, which is the same function

A shape without a layout (widths that differ by layer, ...) is written as `model_type: diglot` with all its fields:
transformers then refuses the folder by that name, instead of computing something else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from diglot.core.errors import ConfigError, unknown
from diglot.model.config import DecoderConfig, MoEConfig, RopeScaling
from diglot.model.huggingface.families import COMMON_DEFAULTS, FAMILIES, Family
from diglot.model.huggingface.json_fields import Fields
from diglot.model.huggingface.rope import FULL, SLIDING, read_rope, write_rope

OWN = "diglot"  # model_type of shapes that no family has
WHERE = "config.json"
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
WRAPPED = {"gemma3": "text_config"}  # a model of text and images -> where its text model's fields are


class Folds(NamedTuple):
    """What weights are multiplied by when they are written."""

    scores: float = 1.0  # queries
    final_norm: float = 1.0
    embeddings: float = 1.0


@dataclass(frozen=True)
class Layout:
    """How a shape is written. config: as it reads back."""

    model_type: str
    config: DecoderConfig
    folds: Folds = field(default_factory=Folds)


def layout(config: DecoderConfig) -> Layout:
    """The family that computes this shape. Raises ConfigError naming the fields that have no layout."""
    nearest: tuple[int, str, list[str]] | None = None
    for model_type, family in FAMILIES.items():
        wanted, scaled = folded(config, family)
        try:
            found = plain(_read(Fields(_write(wanted, family), WHERE), family))
        except ConfigError:
            continue
        differing = [f.name for f in dataclasses.fields(wanted) if getattr(wanted, f.name) != getattr(found, f.name)]
        if family.whole_heads and config.d_model % max(config.heads):
            differing.append("d_model")  # transformers refuses to build it
        if not differing:
            return Layout(model_type, wanted, scaled)
        if nearest is None or len(differing) < nearest[0]:
            nearest = (len(differing), model_type, differing)
    assert nearest is not None
    _, model_type, differing = nearest
    values = ", ".join(f"{name} = {getattr(config, name)}" for name in differing)
    raise ConfigError(
        f"this shape has no Hugging Face layout. The nearest is {model_type} "
        f"({FAMILIES[model_type].architecture}), which has no {values} beside the rest. Change that and train again, "
        "or use the model here, where it keeps model_type: diglot."
    )


def layout_or_own(config: DecoderConfig) -> Layout:
    """As `layout`; shapes without one keep their own."""
    try:
        return layout(config)
    except ConfigError:
        return Layout(OWN, config)


def huggingface_config(config: DecoderConfig, token_ids: Mapping[str, Any], dtype: object) -> dict[str, Any]:
    """config.json for this shape; `token_ids` are bos, eos, pad. Shapes without a layout: see the top of the file."""
    return written(layout_or_own(config), token_ids, dtype)


def written(layout: Layout, token_ids: Mapping[str, Any], dtype: object) -> dict[str, Any]:
    """config.json for a layout."""
    if layout.model_type == OWN:
        fields = {"architectures": ["DiglotDecoder"], "decoder": dataclasses.asdict(layout.config)}
    else:
        fields = _write(layout.config, FAMILIES[layout.model_type])
    return {
        **fields,
        "model_type": layout.model_type,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **{f"{name}_token_id": number for name, number in token_ids.items()},
    }


def decoder_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """The shape that a config.json describes. Raises ConfigError for what this decoder cannot do."""
    kind, inner = unwrapped(fields)
    if kind == OWN:
        return config_from_json(inner.get("decoder"))
    if kind not in FAMILIES:
        known = ", ".join([*FAMILIES, *WRAPPED])
        custom = " It brings its own code (auto_map), which is never run." if fields.get("auto_map") else ""
        raise ConfigError(
            f"model_type '{kind}' is not known here.{custom} Known: {known}. Another one needs a row in "
            "model/huggingface/families.py, and the decoder needs to compute what its class computes."
        )
    if fields.get("quantization_config"):
        raise ConfigError(
            f"this model is quantised ({fields['quantization_config'].get('quant_method', 'unknown method')}); only "
            "float32, float16 and bfloat16 weights are read. Take the unquantised model."
        )
    return plain(_read(Fields(inner, WHERE), FAMILIES[kind]))


def notes(fields: Mapping[str, Any]) -> list[str]:
    """What in a config.json has no effect here, in sentences."""
    found = []
    if fields.get("auto_map"):
        found.append(f"auto_map names code of the model's authors, which is not run: {fields['model_type']} is known.")
    if fields.get("model_type") in WRAPPED:
        found.append("only the text model is read; the parts for images are left out.")
    return found


def stored_token_ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    """bos, eos and pad of a config.json, as far as it has them; models of images too may keep them with the text's."""
    text = fields.get("text_config") or fields
    ids = {key: text.get(f"{key}_token_id", fields.get(f"{key}_token_id")) for key in ("bos", "eos", "pad")}
    return {key: value for key, value in ids.items() if value is not None}


def unwrapped(fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The family's name, and the fields of the text model."""
    kind = fields.get("model_type")
    if kind in WRAPPED:
        inner = Fields(fields, WHERE).inside(WRAPPED[kind]).fields
        return str(inner.get("model_type", f"{kind}_text")), {"tie_word_embeddings": True, **inner}
    return str(kind), fields


def config_from_json(fields: object) -> DecoderConfig:
    """What `dataclasses.asdict` of a DecoderConfig became in JSON."""
    if not isinstance(fields, Mapping):
        raise ConfigError("config.json of model_type diglot has no object `decoder`. Restore the file.")
    values = dict(fields)
    for name, part in (("rope_scaling", RopeScaling), ("moe", MoEConfig)):
        if isinstance(values.get(name), Mapping):
            values[name] = _checked(part, values[name], name)
    return _checked(DecoderConfig, values, "decoder")  # type: ignore[no-any-return]


def folded(config: DecoderConfig, family: Family) -> tuple[DecoderConfig, Folds]:
    """The plain shape whose family-fields hold as much as they can, and what then goes into weights."""
    own_scale = config.head_dim**-0.5
    kept = _query_scalar(config.score_scale) ** -0.5 if family.scale else own_scale
    if not math.isclose(kept, config.score_scale, rel_tol=1e-12):
        kept = own_scale
    embed = math.sqrt(config.d_model) if family.gemma else 1.0
    shape = replace(config, attention_scale=kept, embed_scale=embed, mup_base_d_model=None)
    return plain(shape), folds(config, score_scale=kept, embed_scale=embed)


def folds(config: DecoderConfig, *, score_scale: float, embed_scale: float) -> Folds:
    """What goes into weights where the other side scales scores and embeddings by these numbers."""
    extra = config.embed_scale / embed_scale
    final_norm = 1 / config.width_multiplier / (extra if config.tie_embeddings else 1.0)
    return Folds(config.score_scale / score_scale, final_norm, extra)


def plain(config: DecoderConfig) -> DecoderConfig:
    """The same function, said in one way."""
    moe, slides = config.moe, config.slides
    if moe is not None:
        moe = replace(moe, layers=None if all(config.has_experts) else moe.layers)
    widths = [width for width, experts in zip(config.ffn_dims, config.has_experts, strict=True) if not experts]
    spare = widths[0] if widths else moe.expert_dim if moe else 1
    ffn_dims = [spare if experts else width for width, experts in zip(config.ffn_dims, config.has_experts, strict=True)]
    scaling, theta = config.rope_scaling, config.rope_theta
    if scaling is not None and scaling.kind == "ntk":
        from diglot.model.rope import ntk_theta  # loads torch, which reading a shape is worth only here

        theta = ntk_theta(theta, config.head_dim, scaling.factor)
        scaling = None
    elif scaling is not None and scaling.kind == "linear":
        scaling = RopeScaling(kind="linear", factor=scaling.factor) if scaling.factor != 1 else None
    local = config.local_rope_theta
    if not any(slides) or (local == theta and scaling is None):
        local = None
    return replace(
        config,
        num_heads=_one_or_all(config.heads),
        num_kv_heads=_one_or_all(config.kv_heads),
        ffn_dim=_one_or_all(ffn_dims),
        rope_theta=theta,
        rope_scaling=scaling,
        local_rope_theta=local,
        sliding_window=config.sliding_window if any(slides) else None,
        sliding_layers=None if all(slides) or not any(slides) else slides,
        attention_scale=None
        if config.mup_base_d_model is None and config.attention_scale == config.head_dim**-0.5
        else config.attention_scale,
        moe=moe,
    )


def _read(fields: Fields, family: Family) -> DecoderConfig:
    fields = Fields(fields.fields, fields.where, {**COMMON_DEFAULTS, **family.defaults})
    d_model, heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    num_layers, max_seq_len = fields.whole("num_hidden_layers"), fields.whole("max_position_embeddings")
    window, slides = _read_sliding(fields, family, num_layers)
    rope = read_rope(fields, family, max_seq_len)
    bias = {"none": False, "qkv": True}.get(family.bias)
    bias = fields.flag(family.bias) if bias is None else bias
    scalar = fields.positive("query_pre_attn_scalar") if family.scale else None
    if fields.flag("use_bidirectional_attention"):
        raise ConfigError(f"{fields.where} has use_bidirectional_attention, but this decoder reads from left to right.")
    return DecoderConfig(
        vocab_size=fields.whole("vocab_size"),
        d_model=d_model,
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=fields.whole("num_key_value_heads") if fields.get("num_key_value_heads") is not None else heads,
        head_dim=fields.whole("head_dim") if fields.get("head_dim") is not None else d_model // heads,
        ffn_dim=fields.whole("intermediate_size"),
        max_seq_len=max_seq_len,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        local_rope_theta=rope.local_theta if any(slides) else None,
        norm_eps=fields.number("rms_norm_eps"),
        tie_embeddings=fields.flag("tie_word_embeddings"),
        qkv_bias=bias,
        out_bias=bias and family.bias == "attention_bias",
        ffn_bias=family.mlp_bias and fields.flag("mlp_bias"),
        qk_norm=family.qk_norm,
        activation=_read_activation(fields, family),  # type: ignore[arg-type]
        sliding_window=window if any(slides) else None,
        sliding_layers=slides if any(slides) else None,
        unit_offset_norm=family.gemma,
        sandwich_norm=family.sandwich_norm,
        embed_scale=math.sqrt(d_model) if family.gemma else 1.0,
        attention_scale=None if scalar is None else scalar**-0.5,
        attention_softcap=fields.positive("attn_logit_softcapping") if family.attention_softcap else None,
        logit_softcap=fields.positive("final_logit_softcapping") if family.logit_softcap else None,
        moe=_read_experts(fields, family, num_layers),
    )


def _write(config: DecoderConfig, family: Family) -> dict[str, Any]:
    """The fields of this family for a shape, as far as it has them."""
    fields: dict[str, Any] = {
        "architectures": [family.architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": max(config.heads),
        "num_key_value_heads": max(config.kv_heads),
        "head_dim": config.head_dim,
        "intermediate_size": max(config.ffn_dims),
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        family.activation: next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation),
        "attention_dropout": 0.0,
        "use_cache": True,
        **write_rope(config, family),
        **_write_sliding(config, family),
        **_write_experts(config, family),
    }
    if family.bias in ("attention_bias", "qkv_bias"):
        fields[family.bias] = config.qkv_bias
    if family.mlp_bias:
        fields["mlp_bias"] = config.ffn_bias
    if family.attention_softcap:
        fields["attn_logit_softcapping"] = config.attention_softcap
    if family.logit_softcap:
        fields["final_logit_softcapping"] = config.logit_softcap
    if family.scale:
        fields["query_pre_attn_scalar"] = _query_scalar(config.score_scale)
    return fields


def _read_activation(fields: Fields, family: Family) -> str:
    name = fields.get(family.activation) or fields.get("hidden_act")
    if family.gemma and name == "gelu":  # what early Gemma files say for the tanh form
        name = "gelu_pytorch_tanh"
    if name not in ACTIVATIONS:
        raise ConfigError(f"{family.activation} '{name}' is not supported. Known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _read_sliding(fields: Fields, family: Family, num_layers: int) -> tuple[int | None, tuple[bool, ...]]:
    """The window, and which layers have it."""
    none = (None, (False,) * num_layers)
    if family.sliding == "none" or (family.sliding.startswith("switched") and not fields.flag("use_sliding_window")):
        return none
    if not fields.get("sliding_window"):  # Qwen2-MoE writes 0 for none
        return none
    window = fields.whole("sliding_window")
    types = fields.get("layer_types")
    if types is not None:
        if len(types) != num_layers or not set(types) <= {FULL, SLIDING}:
            raise ConfigError(f"layer_types {types} are not {num_layers} times {FULL} or {SLIDING}.")
        if family.sliding in ("every", "switched") and len(set(types)) > 1:
            raise ConfigError(f"layer_types differ, but {family.architecture} computes every layer alike.")
        return window, tuple(kind == SLIDING for kind in types)
    if family.sliding in ("every", "switched"):
        return window, (True,) * num_layers
    if family.sliding == "by_layer":
        pattern = Fields(fields.fields, fields.where, {"sliding_window_pattern": family.window_pattern})
        every = pattern.whole("sliding_window_pattern")
        return window, tuple(bool((i + 1) % every) for i in range(num_layers))
    first = fields.whole("max_window_layers", least=0)
    if family.experts == "qwen":
        return window, tuple(bool((i + 1) % 2) and i < first for i in range(num_layers))
    return window, tuple(i >= first for i in range(num_layers))


def _write_sliding(config: DecoderConfig, family: Family) -> dict[str, Any]:
    slides = config.slides
    if family.sliding == "none":
        return {}
    fields: dict[str, Any] = {"sliding_window": config.sliding_window}
    if family.sliding.startswith("switched"):
        fields["use_sliding_window"] = any(slides)
    if family.sliding.endswith("by_layer"):
        fields["layer_types"] = [SLIDING if slide else FULL for slide in slides]
        fields["sliding_window"] = config.sliding_window or config.max_seq_len  # the classes want a number
    if family.sliding == "switched_by_layer":
        fields["max_window_layers"] = config.num_layers
    return fields


def _read_experts(fields: Fields, family: Family, num_layers: int) -> MoEConfig | None:
    if family.experts == "none":
        return None
    losses: dict[str, Any] = {
        ours: fields.number(theirs)
        for ours, theirs in (("balance_weight", "router_aux_loss_coef"), ("z_weight", "router_z_loss_coef"))
        if fields.get(theirs) is not None
    }
    count = next((name for name in ("num_local_experts", "num_experts") if name in fields.fields), "num_local_experts")
    if family.experts == "mixtral":
        return MoEConfig(
            num_experts=fields.whole(count),
            top_k=fields.whole("num_experts_per_tok"),
            expert_dim=fields.whole("intermediate_size"),
            **losses,
        )
    every = Fields(fields.fields, fields.where, {"decoder_sparse_step": 1}).whole("decoder_sparse_step")
    dense = fields.wholes("mlp_only_layers")
    return MoEConfig(
        num_experts=fields.whole(count),
        top_k=fields.whole("num_experts_per_tok"),
        expert_dim=fields.whole("moe_intermediate_size"),
        shared_dim=fields.whole("shared_expert_intermediate_size") if family.shared else 0,
        shared_gate=family.shared,
        normalise_top_k=fields.flag("norm_topk_prob"),
        layers=tuple(i not in dense and (i + 1) % every == 0 for i in range(num_layers)),
        **losses,
    )


def _write_experts(config: DecoderConfig, family: Family) -> dict[str, Any]:
    moe = config.moe
    if moe is None or family.experts == "none":
        return {}
    fields: dict[str, Any] = {
        "num_experts_per_tok": moe.top_k,
        "router_aux_loss_coef": moe.balance_weight,
        "router_z_loss_coef": moe.z_weight,  # only Diglot reads it
    }
    if family.experts == "mixtral":
        return {**fields, "num_local_experts": moe.num_experts, "intermediate_size": moe.expert_dim}
    fields |= {
        "num_experts": moe.num_experts,
        "moe_intermediate_size": moe.expert_dim,
        "norm_topk_prob": moe.normalise_top_k,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, experts in enumerate(config.has_experts) if not experts],
    }
    return {**fields, "shared_expert_intermediate_size": moe.shared_dim} if family.shared else fields


def _query_scalar(scale: float) -> int:
    """Gemma's way to say a score scale: scale = this ** -0.5."""
    return max(1, round(scale**-2))


def _one_or_all(values: tuple[int, ...] | list[int]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else tuple(values)


def _checked(part: type, values: Mapping[str, Any], where: str) -> Any:
    names = [f.name for f in dataclasses.fields(part)]
    for name, value in values.items():
        if name not in names:
            raise unknown(
                "field", name, names, f"{where} of config.json; a newer version of Diglot may have written it"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"config.json has {name} = {value}, but it must be a finite number. Restore the file.")
    try:
        return part(**values)
    except TypeError as error:
        raise ConfigError(f"{where} of config.json is no whole {part.__name__}: {error}. Restore the file.") from error
