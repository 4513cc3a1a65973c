"""What a shape costs before anything is built: parameters, floating-point operations and activations.

Shape legend: D width, H query heads, KV key and value heads, Hd head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from diglot.model.config import DecoderConfig
from diglot.model.sizes import SIZES, ladder_config

FP32_BYTES, BF16_BYTES = 4, 2


@dataclass(frozen=True)
class ParameterCounts:
    """`without_embeddings` leaves out both the input and the output matrix: the N of scaling laws.

    active: as `total`, with only the experts that a token is sent to.
    """

    total: int
    without_embeddings: int
    active: int


def parameter_counts(config: DecoderConfig) -> ParameterCounts:
    """How many numbers a decoder of this shape learns."""
    layers = [layer_parameters(config, index) for index in range(config.num_layers)]
    without = sum(held for held, _ in layers) + config.d_model
    embeddings = config.vocab_size * config.d_model * (1 if config.tie_embeddings else 2)
    active = sum(used for _, used in layers) + config.d_model + embeddings
    return ParameterCounts(without + embeddings, without, active)


def train_flops_per_token(config: DecoderConfig, sequence_length: int) -> float:
    """Floating-point operations to learn from one token: 6 per weight of a product, and the attention between tokens.

    6 (matrices of the layers + output matrix) + 12 S H Hd for each layer, where S is how many tokens one looks back on
    in the mean: about T / 2 under the causal mask, less with a sliding window. The last term counts scores and mix,
    each 2 H Hd operations a pair of tokens, three times: forward once, backward twice. Of the experts of a layer, those
    that a token is sent to count. Looking up an embedding costs no product.
    """
    matrices, pairs = config.vocab_size * config.d_model, 0.0
    for index in range(config.num_layers):
        matrices += _layer_matrices(config, index)
        pairs += _layer_pairs(config, index, sequence_length)
    return float(6 * matrices + pairs)


def layer_flops_per_token(config: DecoderConfig, index: int, sequence_length: int) -> float:
    """The part of one layer in `train_flops_per_token`."""
    return 6 * _layer_matrices(config, index) + _layer_pairs(config, index, sequence_length)


def activation_bytes(
    config: DecoderConfig,
    microbatch_tokens: int,
    *,
    bf16: bool = False,
    recompute_every: int = 0,
) -> list[int]:
    """What each layer keeps of a microbatch for the backward pass; `tests/model/test_accounting.py` holds it to it.

    Of a layer that is computed again, its input. Under bfloat16 autocast this is an estimate: norms keep float32, and
    what products and attention read takes two bytes.
    """
    kept = [layer_activation_bytes(config, index, bf16) * microbatch_tokens for index in range(config.num_layers)]
    stream = FP32_BYTES * config.d_model * microbatch_tokens
    return [stream if recompute_every and i % recompute_every == 0 else found for i, found in enumerate(kept)]


def layer_activation_bytes(config: DecoderConfig, index: int, bf16: bool) -> int:
    """Bytes of one token in one layer, term by term as `model/decoder.py` computes them."""
    D, H, KV, Hd = config.d_model, config.heads[index], config.kv_heads[index], config.head_dim
    small = BF16_BYTES if bf16 else FP32_BYTES
    norm = 2 * FP32_BYTES * D + FP32_BYTES + small * D  # what it reads, that over its size, its size; what it writes
    attention = norm + small * (H + 2 * KV) * Hd  # q, k, v in one piece
    attention += small * (H + KV) * Hd  # q and k, turned
    attention += small * H * Hd + FP32_BYTES * H  # the mix of values, and each head's log of sums
    attention += FP32_BYTES * (H + KV) * (Hd + 1) if config.qk_norm else 0
    attention += norm if config.sandwich_norm else 0
    feed_forward = 2 * norm if config.sandwich_norm else norm
    if not config.has_experts[index]:
        return attention + feed_forward + small * 4 * config.ffn_dims[index]  # gate and up; act(gate); what down reads
    moe = config.moe
    assert moe is not None
    copies = moe.top_k * (small * (D + 4 * moe.expert_dim) + 2 * FP32_BYTES * D)  # rows, and results with weights
    return attention + feed_forward + copies + small * 4 * moe.shared_dim + 3 * FP32_BYTES * moe.num_experts


def layer_parameters(config: DecoderConfig, index: int) -> tuple[int, int]:
    """Parameters of a layer: all, and those that one token uses."""
    D, H, KV, Hd = config.d_model, config.heads[index], config.kv_heads[index], config.head_dim
    inner, F = (H + 2 * KV) * Hd, config.ffn_dims[index]
    shared = D * inner + H * Hd * D
    shared += inner * config.qkv_bias + D * config.out_bias + 2 * Hd * config.qk_norm
    shared += D * (4 if config.sandwich_norm else 2)
    if not config.has_experts[index]:
        shared += 3 * D * F + (2 * F + D) * config.ffn_bias
        return shared, shared
    moe = config.moe
    assert moe is not None
    shared += D * moe.num_experts + 3 * D * moe.shared_dim + D * moe.shared_gate
    expert = 3 * D * moe.expert_dim
    return shared + moe.num_experts * expert, shared + moe.top_k * expert


def _layer_matrices(config: DecoderConfig, index: int) -> int:
    """Weights of the products that one token takes part in."""
    D, H, KV, Hd = config.d_model, config.heads[index], config.kv_heads[index], config.head_dim
    attention = D * (2 * H + 2 * KV) * Hd
    if not config.has_experts[index]:
        return attention + 3 * D * config.ffn_dims[index]
    moe = config.moe
    assert moe is not None
    return attention + D * moe.num_experts + 3 * D * (moe.top_k * moe.expert_dim + moe.shared_dim) + D * moe.shared_gate


def _layer_pairs(config: DecoderConfig, index: int, sequence_length: int) -> float:
    """Operations between tokens to learn from one of them."""
    window = config.sliding_window if config.slides[index] else None
    return 12 * _mean_sight(sequence_length, window) * config.heads[index] * config.head_dim


def _mean_sight(sequence_length: int, window: int | None) -> float:
    """Tokens that a token looks back on in the mean, with T / 2 for (T + 1) / 2 as is usual."""
    if window is None or window >= sequence_length:
        return sequence_length / 2
    return window - window**2 / (2 * sequence_length)  # the first `window` tokens see fewer


def size_lines(config: DecoderConfig, sequence_length: int, *, knows_vocabulary: bool = True) -> list[str]:
    """What `diglot plan` says of a shape's size. Without the vocabulary, of the layers alone."""
    counts = parameter_counts(config)
    shape = f"{config.num_layers} layers of width {config.d_model:,}"
    if not knows_vocabulary:
        return [
            f"model: {shape}, {counted(counts.without_embeddings)} parameters without embeddings; the rest is known "
            "when the tokenizer is built"
        ]
    active = f", {counted(counts.active)} of them used by a token" if counts.active < counts.total else ""
    flops = train_flops_per_token(config, sequence_length)
    return [
        f"model: {shape}, {counted(counts.total)} parameters ({counted(counts.without_embeddings)} without embeddings)"
        f"{active}, {spoken(flops)}FLOP to learn from a token at {sequence_length:,}"
    ]


def counted(number: float) -> str:
    """Parameters as the field counts them: 7.79 B, 16.2 M."""
    return spoken(number).replace("G", "B")


def spoken(number: float) -> str:
    """Three digits and a prefix of the SI: 7.79 G, 16.2 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            value = number / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{number:.0f} "


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """One line of `diglot sizes`. Bytes are of one rank without activations."""

    name: str
    config: DecoderConfig
    parameters: ParameterCounts
    train_flops_per_token: float
    weight_bytes: int
    train_bytes: int
    origin: str

    def line(self) -> str:
        """As a row of a Markdown table."""
        shape = self.config
        numbers = (
            shape.num_layers,
            shape.d_model,
            shape.heads[0],
            shape.kv_heads[0],
            shape.head_dim,
            shape.ffn_dims[0],
        )
        cells = [self.name, *(f"{n:,}" for n in (*numbers, shape.max_seq_len, shape.vocab_size))]
        cells += [counted(self.parameters.total), counted(self.parameters.without_embeddings)]
        cells += [spoken(self.train_flops_per_token), f"{spoken(self.weight_bytes)}B", f"{spoken(self.train_bytes)}B"]
        return "| " + " | ".join(cell.strip() for cell in (*cells, self.origin)) + " |"


def size_table(vocab_size: int | None = None, sequence_length: int | None = None) -> list[SizeRow]:
    """Every size by name. None: each size's own vocabulary and context."""
    rows = []
    for name, size in SIZES.items():
        config = ladder_config(name, vocab_size=vocab_size)
        length = min(sequence_length or config.max_seq_len, config.max_seq_len)
        rows.append(
            SizeRow(
                name=name,
                config=config,
                parameters=parameter_counts(config),
                train_flops_per_token=train_flops_per_token(config, length),
                weight_bytes=FP32_BYTES * parameter_counts(config).total,
                train_bytes=4 * FP32_BYTES * parameter_counts(config).total,
                origin=size.origin,
            )
        )
    return rows
