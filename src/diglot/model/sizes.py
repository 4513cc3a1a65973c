"""Shapes by name: the published models that Diglot rebuilds, and a ladder of miniatures.

Every entry says where its shape comes from, because some papers give none:

    published       the released configuration (MAP-Neo 7B and 2B, CT-LLM 2B)
    ours            the paper names the size alone; the shape counts to it with MAP-Neo's proportions: feed-forward of
                    8 x width, heads of 128, untied
    reconstruction  features from the paper, numbers ours; pre-norm where MindLLM has DeepNorm
    miniature       MAP-Neo's shape at a width for a laptop, feed-forward of 4 x width so that depth is useful;
                    `faithful` takes MAP-Neo's 8 x, which about doubles the count

A model's vocabulary is its tokenizer's; `vocab_size` here is the published one, padded as it was trained, for counting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from diglot.core.errors import ConfigError, unknown
from diglot.model.config import Activation, DecoderConfig, MoEConfig, RopeScaling

Origin = Literal["published", "ours", "reconstruction", "miniature"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A shape. None: as many key and value heads as query heads, heads of the width over them, feed-forward of 4 x."""

    origin: Origin
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int | None = None
    head_dim: int | None = None
    ffn_dim: int | None = None
    max_seq_len: int = 2048
    vocab_size: int = 64_128
    tie_embeddings: bool = False
    activation: Activation = "silu"


def _map_neo(origin: Origin, d_model: int, num_layers: int, num_heads: int, **changed: int) -> Size:
    size = Size(
        origin=origin,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        ffn_dim=8 * d_model,
        max_seq_len=8192,
    )
    return replace(size, **changed)  # type: ignore[arg-type]


def _miniature(d_model: int, num_layers: int, num_heads: int) -> Size:
    return Size(origin="miniature", d_model=d_model, num_layers=num_layers, num_heads=num_heads)


SIZES = {
    "nano": _miniature(128, 4, 4),
    "micro": _miniature(192, 6, 6),
    "mini": _miniature(256, 8, 8),
    "small": _miniature(384, 10, 6),
    "base": _miniature(512, 12, 8),
    "map-neo-250m": _map_neo("ours", 768, 9, 6),
    "map-neo-460m": _map_neo("ours", 1024, 11, 8),
    "map-neo-980m": _map_neo("ours", 1536, 12, 12),
    "map-neo-2b": _map_neo("published", 2048, 18, 8, num_kv_heads=1, head_dim=256),
    "map-neo-7b": _map_neo("published", 3072, 28, 16, head_dim=192, vocab_size=64_256),
    "ct-llm-2b": Size(
        origin="published",
        d_model=2048,
        num_layers=32,
        num_heads=16,
        ffn_dim=5504,
        max_seq_len=4096,
        vocab_size=125_696,
    ),
    "mindllm-1.3b": Size(
        origin="reconstruction",
        d_model=2048,
        num_layers=24,
        num_heads=16,
        ffn_dim=4352,
        vocab_size=125_696,
        tie_embeddings=True,
        activation="gelu_tanh",
    ),
    "mindllm-3b": Size(
        origin="reconstruction",
        d_model=2560,
        num_layers=32,
        num_heads=20,
        ffn_dim=7680,
        vocab_size=125_696,
        tie_embeddings=True,
        activation="gelu_tanh",
    ),
}


def sized(name: str) -> Size:
    """Raises ConfigError with the nearest name for an unknown one."""
    if name not in SIZES:
        raise unknown("model size", name, SIZES)
    return SIZES[name]


def ladder_config(
    name: str,
    *,
    vocab_size: int | None = None,
    max_seq_len: int | None = None,
    faithful: bool = False,
    multi_query: bool = False,
    qk_norm: bool = False,
) -> DecoderConfig:
    """The shape of a size by name; vocabulary and context are the size's own where they are not given.

    faithful: a miniature with MAP-Neo's feed-forward of 8 x width. multi_query: one key and value head, as in its 2B.
    Raises ConfigError with the nearest name for an unknown one.
    """
    size = sized(name)
    return DecoderConfig(
        vocab_size=vocab_size or size.vocab_size,
        d_model=size.d_model,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        num_kv_heads=1 if multi_query else size.num_kv_heads or size.num_heads,
        head_dim=size.head_dim or size.d_model // size.num_heads,
        ffn_dim=size.ffn_dim or (8 if faithful else 4) * size.d_model,
        max_seq_len=max_seq_len or size.max_seq_len,
        tie_embeddings=size.tie_embeddings,
        activation=size.activation,
        qk_norm=qk_norm,
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A recipe's model: a size by name, and whatever differs from it. None takes the size's own."""

    size: str = "nano"
    d_model: int | None = None
    num_layers: int | None = None
    num_heads: int | tuple[int, ...] | None = None
    num_kv_heads: int | tuple[int, ...] | None = None
    head_dim: int | None = None
    ffn_dim: int | tuple[int, ...] | None = None
    max_seq_len: int | None = None
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    moe: MoEConfig | None = None
    mup_base_d_model: int | None = None
    faithful: bool = False  # MAP-Neo's feed-forward of 8 x width, for miniatures
    multi_query: bool = False  # one key and value head, as in MAP-Neo's 2B

    def __post_init__(self) -> None:
        for name in ("d_model", "num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_dim", "max_seq_len"):
            if getattr(self, name) == 0:
                raise ConfigError(f"{name} = 0, but sizes are at least 1. Leave it out for the usual one.")

    @property
    def context(self) -> int:
        """Tokens that the model may read at once."""
        return self.max_seq_len or sized(self.size).max_seq_len

    def decoder(self, vocab_size: int) -> DecoderConfig:
        """The whole shape. Numbers that follow from others do so: heads keep their share of a changed width."""
        base = ladder_config(
            self.size, vocab_size=vocab_size, max_seq_len=self.context, faithful=self.faithful, qk_norm=self.qk_norm
        )
        width, heads = self.d_model or base.d_model, self.num_heads or base.num_heads
        head_dim = self.head_dim
        if head_dim is None and width == base.d_model and heads == base.num_heads:
            head_dim = base.head_dim
        if head_dim is None:
            if isinstance(heads, tuple):
                raise ConfigError("num_heads lists one number per layer, which leaves head_dim open. Set head_dim.")
            if width % heads:
                raise ConfigError(
                    f"d_model = {width} does not divide into {heads} heads. Set head_dim, or another number."
                )
            head_dim = width // heads
        return replace(
            base,
            d_model=width,
            num_layers=self.num_layers or base.num_layers,
            num_heads=heads,
            num_kv_heads=self._kv_heads(base, heads),
            head_dim=head_dim,
            ffn_dim=self.ffn_dim or (base.ffn_dim if width == base.d_model else (8 if self.faithful else 4) * width),
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
            tie_embeddings=base.tie_embeddings if self.tie_embeddings is None else self.tie_embeddings,
            qkv_bias=self.qkv_bias,
            sliding_window=self.sliding_window,
            sliding_layers=self.sliding_layers,
            moe=self.moe,
            mup_base_d_model=self.mup_base_d_model,
        )

    def _kv_heads(self, base: DecoderConfig, heads: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if self.num_kv_heads is not None:
            return self.num_kv_heads
        if self.multi_query:
            return 1
        return heads if base.num_kv_heads == base.num_heads else base.num_kv_heads
