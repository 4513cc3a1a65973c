"""The ladder of model sizes, with counts of parameters and of floating-point operations.

Miniatures of MAP-Neo's shape (SwiGLU, RMSNorm, RoPE, untied, no biases): `7b`-like ones have a key and value head for
each query head, `2b`-like ones a single pair (`multi_query`). The ladder takes a feed-forward of 4 x width so that
depth is useful at these widths; `faithful` takes MAP-Neo's 8 x width, which about doubles the count.
"""

from __future__ import annotations

from dataclasses import dataclass

from diglot.core.errors import unknown
from diglot.model.config import DecoderConfig


@dataclass(frozen=True)
class Size:
    d_model: int
    num_layers: int
    num_heads: int


SIZES = {
    "nano": Size(128, 4, 4),
    "micro": Size(192, 6, 6),
    "mini": Size(256, 8, 8),
    "small": Size(384, 10, 6),
    "base": Size(512, 12, 8),
}


def ladder_config(
    name: str,
    *,
    vocab_size: int,
    max_seq_len: int,
    faithful: bool = False,
    multi_query: bool = False,
    tie_embeddings: bool = False,
    qk_norm: bool = False,
) -> DecoderConfig:
    """The shape of a size by name. Raises ConfigError with the nearest name for an unknown one."""
    if name not in SIZES:
        raise unknown("model size", name, SIZES)
    size = SIZES[name]
    return DecoderConfig(
        vocab_size=vocab_size,
        d_model=size.d_model,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        num_kv_heads=1 if multi_query else size.num_heads,
        head_dim=size.d_model // size.num_heads,
        ffn_dim=(8 if faithful else 4) * size.d_model,
        max_seq_len=max_seq_len,
        tie_embeddings=tie_embeddings,
        qk_norm=qk_norm,
    )


@dataclass(frozen=True)
class ParameterCounts:
    """`without_embeddings` leaves out both the input and the output matrix: the N of scaling laws."""

    total: int
    without_embeddings: int


def parameter_counts(config: DecoderConfig) -> ParameterCounts:
    """How many numbers a decoder of this shape learns."""
    inner = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    attention = config.d_model * inner + config.num_heads * config.head_dim * config.d_model
    attention += inner if config.qkv_bias else 0
    attention += 2 * config.head_dim if config.qk_norm else 0
    layers = sum(attention + 3 * config.d_model * ffn + 2 * config.d_model for ffn in config.ffn_dims)
    without = layers + config.d_model
    embeddings = config.vocab_size * config.d_model * (1 if config.tie_embeddings else 2)
    return ParameterCounts(without + embeddings, without)


def train_flops_per_token(config: DecoderConfig, sequence_length: int) -> float:
    """Floating-point operations to learn from one token: 6 per weight of a product, and the attention between tokens.

    6 (matrices of the layers + output matrix) + 6 L T H Hd. The last term counts scores and mix, each 2 H Hd
    operations a pair of tokens, over the (T + 1) / 2 tokens that the causal mask leaves on average (rounded to T / 2),
    three times: forward once, backward twice. Looking up an embedding costs no product.
    """
    inner = config.num_heads * config.head_dim
    attention = config.d_model * (2 * inner + 2 * config.num_kv_heads * config.head_dim)
    matrices = sum(attention + 3 * config.d_model * ffn for ffn in config.ffn_dims)
    pairs = 6 * config.num_layers * sequence_length * inner
    return float(6 * (matrices + config.vocab_size * config.d_model) + pairs)
