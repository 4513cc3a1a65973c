"""A training run small enough for a test, as a function and as a program that can be killed.

python tiny_run.py OUT [compile always/never] [pause in seconds before each training step] [spiky]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diglot.core.progress import Progress
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.model.files import save_model
from diglot.train.loop import LoopSettings, Objective, Phase, TrainReport, train
from diglot.train.objectives.next_token import next_token
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.parallel.sharding import shard
from diglot.train.parallel.whole_model import whole_model
from diglot.train.schedules import ScheduleConfig, schedule
from diglot.train.spike_guard import SpikeGuardConfig
from diglot.train.types import Batch, Evaluation, ItemLosses

CONFIG = DecoderConfig(vocab_size=50, d_model=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48)
STEPS = (9, 6)
TOKENS_PER_STEP = 4 * 16
SPIKES = (5, 6, 13)
GUARD = SpikeGuardConfig(window=3, factor=10.0, max_in_a_row=2)


def batch_at(train_step: int, split: tuple[int, ...] = (2, 2), seed: int = 0) -> list[Batch]:
    """Four sequences that count upwards from a random start, in microbatches of the given sizes."""
    generator = torch.Generator().manual_seed(1000 * seed + train_step)
    starts = torch.randint(50, (sum(split), 1), generator=generator)
    rows = (starts + torch.arange(17)) % 50
    return [{"input_ids": part[:, :-1].contiguous(), "targets": part[:, 1:].contiguous()} for part in rows.split(split)]


def phases(pause: float = 0.0, reset: bool = True, **optimizer: Any) -> list[Phase]:
    def slow_batch_at(train_step: int, seed: int) -> list[Batch]:
        time.sleep(pause)
        return batch_at(train_step, seed=seed)

    config = OptimizerConfig(**{"kind": "muon", **optimizer})
    shapes = (ScheduleConfig(shape="cosine"), ScheduleConfig(shape="exponential", warmup_share=0.0))
    return [
        Phase(
            name=("fundamental", "decay")[i],
            num_train_steps=STEPS[i],
            batch_at=lambda n, i=i: slow_batch_at(n, seed=i),  # type: ignore[misc]
            schedule=schedule(shapes[i], 1e-2, STEPS[i]),
            optimizer=config,
            reset_optimizer=reset,
        )
        for i in range(2)
    ]


def spiky_phases(pause: float = 0.0) -> list[Phase]:
    """The same phases with a hundredfold loss at the training steps SPIKES; for `spiky_objective`."""

    def spiky(phase: Phase, first: int) -> Phase:
        def batch_at(n: int) -> list[Batch]:
            scale = torch.tensor(100.0 if first + n in SPIKES else 1.0)
            return [{**batch, "scale": scale} for batch in phase.batch_at(n)]

        return replace(phase, batch_at=batch_at)

    return [spiky(phase, (0, STEPS[0])[i]) for i, phase in enumerate(phases(pause))]


def spiky_objective(model: Decoder, batch: Batch) -> ItemLosses:
    losses = next_token()(model, batch)
    return losses._replace(total=losses.total * batch["scale"])


def settings(**changes: Any) -> LoopSettings:
    usual = {"order_fingerprint": "tiny", "compile": "never", "num_threads": 1, "log_every": 1, "loggers": ()}
    return LoopSettings(**{**usual, "checkpoint_every_tokens": 2 * TOKENS_PER_STEP, **changes})


def run(
    out: Path,
    *,
    pause: float = 0.0,
    run_phases: list[Phase] | None = None,
    objective: Objective | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    parallel: ParallelConfig | None = None,
    config: DecoderConfig = CONFIG,
    evaluation: Evaluation | None = None,
    device: torch.device | None = None,
    gather_bf16: bool = False,
    **changes: Any,
) -> TrainReport:
    """Train, save the model, and return the report; `changes` are settings of the loop."""
    model = Decoder(config, seed=3).to(device)
    ranks = ranks.arranged(parallel or ParallelConfig())
    shard(model, ranks, gather_bf16=gather_bf16)
    report = train(
        model,
        phases=run_phases or phases(pause),
        objective=objective or next_token(),
        out=out,
        seed=3,
        settings=settings(**changes),
        progress=progress or Progress(quiet=True),
        evaluation=evaluation,
        ranks=ranks,
    )
    trained = whole_model(model, ranks)
    if trained is not None:
        save_model(trained, out / "model")
    return report


if __name__ == "__main__":
    run_settings: dict[str, Any] = {"compile": sys.argv[2], "pause": float(sys.argv[3])}
    if sys.argv[4:] == ["spiky"]:
        run_settings |= {"run_phases": spiky_phases(run_settings["pause"]), "objective": spiky_objective}
        run_settings |= {"spike_guard": GUARD}
    run(Path(sys.argv[1]), **run_settings)
