"""The shape of a decoder and the rule for its first weights, readable without loading torch."""

from __future__ import annotations

from dataclasses import dataclass

from diglot.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The shape of a decoder. `ffn_dim` is one width for all layers or a tuple with one per layer."""

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_dim: int | tuple[int, ...]
    max_seq_len: int = 2048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.ffn_dim, list):  # a recipe or a JSON file holds a list
            object.__setattr__(self, "ffn_dim", tuple(self.ffn_dim))
        sizes = [self.vocab_size, self.d_model, self.num_layers, self.num_heads, self.num_kv_heads, self.head_dim]
        if min(*sizes, self.max_seq_len, *self.ffn_dims) < 1:
            raise ConfigError(f"every size of a decoder is at least 1, but this one is {self}.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_heads = {self.num_heads} is no multiple of num_kv_heads = {self.num_kv_heads}; each key and "
                "value head serves the same number of query heads. Set num_kv_heads to a divisor of num_heads."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim = {self.head_dim} is odd, and RoPE turns pairs of channels. Set an even one.")
        if isinstance(self.ffn_dim, tuple) and len(self.ffn_dim) != self.num_layers:
            raise ConfigError(
                f"ffn_dim lists {len(self.ffn_dim)} widths for num_layers = {self.num_layers}. "
                "Give one width per layer, or one number for all."
            )

    @property
    def ffn_dims(self) -> tuple[int, ...]:
        """The feed-forward width of each layer."""
        return self.ffn_dim if isinstance(self.ffn_dim, tuple) else (self.ffn_dim,) * self.num_layers


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
