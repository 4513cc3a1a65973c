"""The seconds of training steps in our own loop, for the benchmarks that compare them."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

from diglot.core.progress import Progress
from diglot.model.decoder import Decoder
from diglot.train.loop import Batch, ItemLosses, LoopSettings, Phase, train
from diglot.train.objectives.next_token import next_token
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.parallel.ranks import ALONE, Ranks


def train_step_seconds(
    model: Decoder, fed: Batch, num_train_steps: int, settings: LoopSettings, ranks: Ranks = ALONE
) -> list[float]:
    """Of each training step on one microbatch after the first, from one forward pass to the next, on this rank."""
    starts: list[float] = []
    objective = next_token()

    def timed(model: Decoder, batch: Batch) -> ItemLosses:
        starts.append(time.perf_counter())
        return objective(model, batch)

    phase = Phase(
        name="benchmark",
        num_train_steps=num_train_steps + 2,
        batch_at=lambda n: [fed],
        schedule=lambda n: 1e-4,
        optimizer=OptimizerConfig(),
    )
    with tempfile.TemporaryDirectory() as made:
        train(
            model,
            phases=[phase],
            objective=timed,
            out=Path(ranks.from_main(lambda: made)),
            seed=0,
            settings=settings,
            progress=Progress(quiet=True),
            ranks=ranks,
        )
        ranks.sums([0.0])  # rank 0 deletes the folder
    return [after - before for before, after in itertools.pairwise(starts[1:])]
