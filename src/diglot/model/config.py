"""The shape of a decoder and the rule for its first weights, readable without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from diglot.core.errors import ConfigError

Activation = Literal["silu", "gelu_tanh"]
PerLayer = int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How RoPE's angles are changed, so that a model reads further than it was trained (formulas: `model/rope.py`).

    kind: `linear` (Chen et al. 2023), `ntk` (the static form of the NTK-aware rule), `yarn` (Peng et al. 2023) or
        `llama3` (Llama 3.1's rule by wavelength).
    factor: how many times further.
    original_seq_len: tokens that the model was trained on; `yarn` and `llama3` need it.
    low_freq_factor, high_freq_factor: of `llama3`, the wavelengths between which it blends.
    beta_fast, beta_slow: of `yarn`, the rotations over `original_seq_len` between which it blends.
    attention_factor: of `yarn`, on cosines and sines; None means 0.1 ln(factor) + 1.
    """

    kind: Literal["linear", "ntk", "yarn", "llama3"]
    factor: float
    original_seq_len: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "ntk", "yarn", "llama3"):
            raise ConfigError(f"rope_scaling kind '{self.kind}' is not known. Known: linear, ntk, yarn, llama3.")
        if not self.factor >= 1:
            raise ConfigError(f"rope_scaling factor = {self.factor}, but it stretches: set 1 or more.")
        if self.kind in ("yarn", "llama3") and (self.original_seq_len or 0) < 1:
            raise ConfigError(f"rope_scaling {self.kind} needs original_seq_len, the tokens it was trained on.")
        if self.kind == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ConfigError("rope_scaling llama3 needs 0 < low_freq_factor < high_freq_factor.")
        if self.kind == "yarn" and not 0 < self.beta_slow < self.beta_fast:
            raise ConfigError("rope_scaling yarn needs 0 < beta_slow < beta_fast.")


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """Mixture-of-experts feed-forwards: a router sends each token to `top_k` of `num_experts` (`model/experts.py`).

    expert_dim: feed-forward width of one expert.
    shared_dim: width of a feed-forward beside them that reads every token; 0 for none. shared_gate: scale its result
        by a learned sigmoid (Qwen2-MoE).
    score: how router logits become weights, over all experts before the choice.
    normalise_top_k: weights of the chosen experts sum to 1. route_scale: and are multiplied by this.
    layers: which layers have experts; the others have a dense feed-forward of `ffn_dim`. None means all.
    balance_weight, z_weight: of the two losses that keep the router sound; see `model/experts.py`.
    """

    num_experts: int
    top_k: int
    expert_dim: int
    shared_dim: int = 0
    shared_gate: bool = False
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalise_top_k: bool = True
    route_scale: float = 1.0
    layers: tuple[bool, ...] | None = None
    balance_weight: float = 0.01
    z_weight: float = 0.001

    def __post_init__(self) -> None:
        _tuple_fields(self, "layers")
        if min(self.num_experts, self.expert_dim) < 1 or not 1 <= self.top_k <= self.num_experts:
            raise ConfigError(
                f"experts need num_experts and expert_dim of at least 1 and top_k in 1 .. num_experts, not {self}."
            )
        if self.score not in ("softmax", "sigmoid"):
            raise ConfigError(f"router score '{self.score}' is not known. Known: softmax, sigmoid.")
        if self.shared_dim < 0 or (self.shared_gate and not self.shared_dim):
            raise ConfigError("shared_gate scales a shared expert, so it needs shared_dim of at least 1.")
        if self.balance_weight < 0 or self.z_weight < 0 or self.route_scale <= 0:
            raise ConfigError("balance_weight and z_weight are at least 0, and route_scale is above 0.")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The shape of a decoder. Widths that may be a tuple are one number for all layers, or one per layer.

    sliding_window: tokens that a sliding layer looks back on, itself included. sliding_layers: which layers slide; None
        means all, where there is a window. local_rope_theta: sliding layers turn by this base, without scaling; None
        means as all.
    qkv_bias, out_bias: of attention. ffn_bias: of all three feed-forward matrices.
    qk_norm: RMSNorm on queries and keys of each head, before RoPE.
    unit_offset_norm: norms multiply by 1 + weight, so that weight decay pulls to 1 (Gemma).
    sandwich_norm: a norm also behind attention and feed-forward (Gemma 2).
    embed_scale: the embeddings are multiplied by it. attention_scale: of scores; None means 1 / sqrt(head_dim).
    attention_softcap, logit_softcap: cap * tanh(x / cap) on scores and on logits (Gemma 2).
    mup_base_d_model: maximal-update parametrisation (Yang et al. 2022): widths are multiples k = d_model / this of a
        narrow model whose learning rate they share. Logits are divided by k, scores by head_dim; `InitConfig` and the
        optimizer do their parts.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: PerLayer
    num_kv_heads: PerLayer
    head_dim: int
    ffn_dim: PerLayer
    max_seq_len: int = 2048
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    qk_norm: bool = False
    activation: Activation = "silu"
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    local_rope_theta: float | None = None
    unit_offset_norm: bool = False
    sandwich_norm: bool = False
    embed_scale: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    mup_base_d_model: int | None = None
    moe: MoEConfig | None = None

    def __post_init__(self) -> None:
        _tuple_fields(self, "num_heads", "num_kv_heads", "ffn_dim", "sliding_layers")
        for name in ("num_heads", "num_kv_heads", "ffn_dim"):
            self._check_length(name, getattr(self, name))
        self._check_length("sliding_layers", self.sliding_layers)
        self._check_length("moe.layers", self.moe.layers if self.moe else None)
        sizes = [self.vocab_size, self.d_model, self.num_layers, self.head_dim, self.max_seq_len]
        if min(*sizes, *self.heads, *self.kv_heads, *self.ffn_dims) < 1:
            raise ConfigError(f"every size of a decoder is at least 1, but this one is {self}.")
        for heads, kv_heads in zip(self.heads, self.kv_heads, strict=True):
            if heads % kv_heads:
                raise ConfigError(
                    f"num_heads = {heads} is no multiple of num_kv_heads = {kv_heads}; each key and "
                    "value head serves the same number of query heads. Set num_kv_heads to a divisor of num_heads."
                )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim = {self.head_dim} is odd, and RoPE turns pairs of channels. Set an even one.")
        if self.activation not in ("silu", "gelu_tanh"):
            raise ConfigError(f"activation '{self.activation}' is not known. Known: silu, gelu_tanh.")
        if self.sliding_window is None and (self.sliding_layers is not None or self.local_rope_theta is not None):
            raise ConfigError("sliding_layers and local_rope_theta say which layers slide and how. Set sliding_window.")
        for name in ("sliding_window", "attention_softcap", "logit_softcap", "attention_scale", "mup_base_d_model"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ConfigError(f"{name} = {value}, but it is above 0, or left out.")

    def _check_length(self, name: str, value: object) -> None:
        if isinstance(value, tuple) and len(value) != self.num_layers:
            raise ConfigError(
                f"{name} lists {len(value)} entries for num_layers = {self.num_layers}. "
                "Give one per layer, or one for all."
            )

    def _per_layer(self, value: PerLayer) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * self.num_layers

    @property
    def heads(self) -> tuple[int, ...]:
        """Query heads of each layer."""
        return self._per_layer(self.num_heads)

    @property
    def kv_heads(self) -> tuple[int, ...]:
        """Key and value heads of each layer."""
        return self._per_layer(self.num_kv_heads)

    @property
    def ffn_dims(self) -> tuple[int, ...]:
        """The dense feed-forward's width in each layer; layers with experts do not use it."""
        return self._per_layer(self.ffn_dim)

    @property
    def slides(self) -> tuple[bool, ...]:
        """Which layers look back on `sliding_window` tokens alone."""
        return self.sliding_layers or (self.sliding_window is not None,) * self.num_layers

    @property
    def has_experts(self) -> tuple[bool, ...]:
        """Which layers have a mixture of experts."""
        if self.moe is None:
            return (False,) * self.num_layers
        return self.moe.layers or (True,) * self.num_layers

    @property
    def score_scale(self) -> float:
        """What attention scores are multiplied by."""
        if self.attention_scale is not None:
            return self.attention_scale
        return 1 / self.head_dim if self.mup_base_d_model else self.head_dim**-0.5

    @property
    def width_multiplier(self) -> float:
        """k of maximal-update parametrisation; 1 without it."""
        return self.d_model / self.mup_base_d_model if self.mup_base_d_model else 1.0

    def changed(self, **fields: object) -> DecoderConfig:
        """A copy with some fields set."""
        return replace(self, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """How first weights are drawn.

    std: of every matrix; None means 1 / sqrt(fan-in), which suits any width (0.02 is that for 2,500 inputs).
    embed_std: of the token embeddings; None means `std`, or 0.02 where that is None.
    zero_outputs: output projections start at zero, so that every layer starts as the identity.
    """

    std: float | None = 0.02
    embed_std: float | None = None
    zero_outputs: bool = False

    def __post_init__(self) -> None:
        for name in ("std", "embed_std"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 10:
                raise ConfigError(f"{name} = {value}, but a standard deviation of first weights lies in (0, 10).")


def _tuple_fields(config: object, *names: str) -> None:
    """Lists, as a recipe or a JSON file holds them, become tuples."""
    for name in names:
        if isinstance(value := getattr(config, name), list):
            object.__setattr__(config, name, tuple(value))
