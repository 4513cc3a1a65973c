"""The stages of a pipeline: which layers are where.

Each stage holds layers that follow one another, the first also the embedding, the last also final norm and output
matrix. A matrix that is embedding and output matrix at once is held by both. Weights keep the names that they have in
the whole model, so that a checkpoint does not show where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from diglot.core.errors import ConfigError
from diglot.model.accounting import layer_flops_per_token
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.parallel.grid import Grid

TIED = "embed.weight"


@dataclass(frozen=True)
class Stage:
    """One of `count` stages, `number` from 0; `layers` are numbers in the whole model."""

    number: int
    count: int
    layers: range

    @property
    def is_first(self) -> bool:
        return self.number == 0

    @property
    def is_last(self) -> bool:
        return self.number == self.count - 1

    def copies(self, config: DecoderConfig) -> frozenset[str]:
        """Names of weights here that count where an earlier stage holds them."""
        return frozenset({TIED} if config.tie_embeddings and self.is_last and not self.is_first else ())


def stage_of(config: DecoderConfig, grid: Grid) -> Stage:
    """The stage of this rank. Raises ConfigError for more stages than layers."""
    number, count = grid.place.pipeline, grid.shape.pipeline
    if count > config.num_layers:
        raise ConfigError(
            f"parallel: pipeline = {count} asks for more stages than the model has layers ({config.num_layers}). Take "
            f"at most {config.num_layers}, and shard or replicate for the other ranks."
        )
    costs = [layer_flops_per_token(config, index, config.max_seq_len) for index in range(config.num_layers)]
    costs[-1] += 6 * config.vocab_size * config.d_model  # the output matrix, which is on the last layer's stage
    return Stage(number, count, divided(costs, count)[number])


def divided(costs: Sequence[float], num_stages: int) -> list[range]:
    """Layers of these costs in stages of at least one, so that the dearest stage, for which all wait, is the cheapest
    possible. Of equal divisions that with short first stages: they keep the activations of the most microbatches."""
    sums = [0.0, *accumulate(costs)]
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, (0,))}  # layers -> dearest stage, where stages end
    for number in range(num_stages):
        last_end = len(costs) - (num_stages - number - 1)
        best = {
            end: min(
                (max(dearest, sums[end] - sums[start]), (*ends, end))
                for start, (dearest, ends) in best.items()
                if start < end
            )
            for end in range(number + 1, last_end + 1)
        }
    return [range(start, end) for start, end in pairwise(best[len(costs)][1])]


def check_microbatches(num_microbatches: int, num_stages: int, where: str) -> None:
    """Raises ConfigError for fewer microbatches than stages. where: `a training step`, or which."""
    if num_microbatches < num_stages:
        raise ConfigError(
            f"{where} has too few microbatches ({num_microbatches}) for {num_stages} stages of a pipeline, which would "
            "mostly wait for each other: of m microbatches over p stages, the share (p - 1) / (m + p - 1) of the time "
            f"is lost. Set microbatch_tokens so small that a training step has at least {num_stages} microbatches, "
            f"better {4 * num_stages}, or take fewer stages."
        )


def keep_stage(model: Decoder, grid: Grid) -> None:
    """Forget what other stages hold of `model`, which is whole. Nothing happens where there is one stage."""
    if grid.shape.pipeline == 1:
        return
    stage = stage_of(model.config, grid)
    model.layers.keep(stage.layers)
    model.is_last_stage = stage.is_last
    is_tied = model.config.tie_embeddings
    if not stage.is_last:
        del model.norm, model.lm_head
    if not stage.is_first and not (stage.is_last and is_tied):
        del model.embed
