"""The memory that training will take on one rank, foretold from the shape.

Shape legend: N tokens of a microbatch, V vocabulary, D width.

Weights and optimizer state lie there all the time. Beside them, activations go while gradients come, so the most of all
at once is found by walking through a training step: the loss, which turns chunks of logits into gradients, and then the
layers from the last to the first. `benchmarks/train_memory.py` holds it to what training takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from diglot.model.accounting import (
    BF16_BYTES,
    FP32_BYTES,
    activation_bytes,
    layer_activation_bytes,
    layer_parameters,
    parameter_counts,
    spoken,
)
from diglot.model.config import DecoderConfig
from diglot.train.objectives.chunks import CHUNK_LOGITS, CHUNK_LOGITS_ON_A_GPU
from diglot.train.optimizer_config import Kind

EIGHT_BIT_BLOCK = 256  # numbers that share a scale in AdamW's 8-bit moments


@dataclass(frozen=True)
class TrainMemory:
    """Bytes of one rank.

    gradients: of all weights, when a training step ends. activations: of a microbatch, when its forward pass ends.
    peak: the most of everything at once; less than the sum where gradients come while activations go.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int


def train_memory(
    config: DecoderConfig,
    *,
    microbatch_tokens: int,
    num_microbatches: int = 1,
    num_ranks: int = 1,
    bf16: bool = False,
    recompute_every: int = 0,
    optimizer: Kind = "adamw",
    on_gpu: bool = False,
) -> TrainMemory:
    """Tensors of one rank while it trains, without the allocator's rounding and the libraries themselves.

    Weights, gradients and optimizer state are float32 and divided over the ranks, as FSDP2's full sharding does; what
    it gathers meanwhile is not counted. Activations belong to the microbatch that the rank reads.

    Args:
        num_microbatches: of a training step; from the second on, the gradients of the first are there.
        recompute_every: as `Decoder.recompute_every`: of such a layer only its input is kept, and one layer's
            activations exist while it is computed again.
    """
    share = -(-parameter_counts(config).total // num_ranks)
    weights, gradients, state = (
        share * FP32_BYTES,
        share * FP32_BYTES,
        round(share * optimizer_bytes(config, optimizer)),
    )
    kept = activation_bytes(config, microbatch_tokens, bf16=bf16, recompute_every=recompute_every)
    final_norm = 2 * FP32_BYTES * config.d_model * microbatch_tokens
    earlier = gradients if num_microbatches > 1 else 0
    # Products under autocast keep what they multiplied with, a copy of the layers' matrices too.
    copies = BF16_BYTES * parameter_counts(config).without_embeddings if bf16 else 0
    beside = copies + max(
        sum(kept) + final_norm + _loss_bytes(config, microbatch_tokens, bf16=bf16, on_gpu=on_gpu) + earlier,
        _most_of_backward(config, kept, microbatch_tokens, num_ranks, bf16=bf16, earlier=earlier),
        gradients,
    )
    return TrainMemory(weights, gradients, state, sum(kept) + final_norm, weights + state + beside)


def _loss_bytes(config: DecoderConfig, microbatch_tokens: int, *, bf16: bool, on_gpu: bool) -> int:
    """What `linear_cross_entropy` works with: chunks of logits, the gradients of hidden states and output matrix."""
    N, V, D = microbatch_tokens, config.vocab_size, config.d_model
    small = BF16_BYTES if bf16 else FP32_BYTES
    logits = min(CHUNK_LOGITS_ON_A_GPU if on_gpu else CHUNK_LOGITS, N * V)
    chunk = logits * (2 * FP32_BYTES + (small if on_gpu else 0))  # float32 twice, on a GPU the gradient beside them
    rounded = BF16_BYTES * D * (V + N) if bf16 else 0  # matrix and hidden states in bfloat16
    in_forward = chunk + rounded + small * N * D + FP32_BYTES * V * D
    in_backward = 2 * (small * N * D + FP32_BYTES * V * D)  # each gradient, and the same scaled
    return max(in_forward, in_backward)


def _most_of_backward(
    config: DecoderConfig, kept: list[int], microbatch_tokens: int, num_ranks: int, *, bf16: bool, earlier: int
) -> int:
    """The most activations and gradients at once while the layers are walked back."""
    N, D = microbatch_tokens, config.d_model
    small = BF16_BYTES if bf16 else FP32_BYTES
    streams = 2 * FP32_BYTES * N * D  # the gradient that comes in, and the one that goes out
    gradients, most = earlier or FP32_BYTES * config.vocab_size * D // num_ranks, 0
    for index in reversed(range(config.num_layers)):
        whole = layer_activation_bytes(config, index, bf16) * N
        again = whole if kept[index] < whole else 0
        inner = small * N * 2 * config.ffn_dims[index]  # gradients of gate and up, before what they were made of goes
        most = max(most, sum(kept[: index + 1]) + again + gradients + streams + inner)
        if not earlier:
            gradients += FP32_BYTES * layer_parameters(config, index)[0] // num_ranks
    return most


def optimizer_bytes(config: DecoderConfig, optimizer: Kind) -> float:
    """Of state for one parameter, in the mean."""
    if optimizer == "muon":
        return _muon_bytes(config)
    if optimizer == "adamw8bit":
        embeddings = config.vocab_size * config.d_model / parameter_counts(config).total
        return 2 * (FP32_BYTES * embeddings + (1 + FP32_BYTES / EIGHT_BIT_BLOCK) * (1 - embeddings))
    # Adafactor keeps a number for each row and column: far below a byte for a parameter.
    return {"adamw": 2.0 * FP32_BYTES, "adafactor": 0.0}[optimizer]


def _muon_bytes(config: DecoderConfig) -> float:
    """Of state for one parameter, in the mean: one moment in the layers, AdamW's two of embeddings and experts.

    Norms, biases and routers, too few to matter, are counted with the layers.
    """
    counts, moe = parameter_counts(config), config.moe
    experts = 0 if moe is None else sum(config.has_experts) * moe.num_experts * 3 * config.d_model * moe.expert_dim
    return FP32_BYTES * (2 - (counts.without_embeddings - experts) / counts.total)


def memory_line(memory: TrainMemory, microbatch_tokens: int) -> str:
    """What `diglot plan` says of one rank's memory."""
    return (
        f"memory of one rank: {spoken(memory.peak)}B at most, of weights {spoken(memory.weights)}B, gradients "
        f"{spoken(memory.gradients)}B, optimizer {spoken(memory.optimizer)}B, activations of {microbatch_tokens:,} "
        f"tokens {spoken(memory.activations)}B; full sharding divides all but the last by the ranks"
    )
