"""The words between the training loop, its objectives and its phases.

Shape legend: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder
from diglot.train.loggers import check_loggers
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.saving import check_saving
from diglot.train.spike_guard import SpikeGuardConfig

IGNORE = -100  # a target that is not learned from: prompt, padding
SPARE = "spare"  # key of a batch that a rank reads for company, all targets masked, having no row of its own

Batch = Mapping[str, Tensor]
"""One microbatch: at least `input_ids` int64 [B, T] and `targets` int64 [B, T] with IGNORE; objectives may add keys.
Where rows are padded, `attention_mask` bool [B, T] is true for real tokens. `streams` int64 [B] numbers the stream that
each row comes from, after `LoopSettings.stream_names`."""


class RowLosses(NamedTuple):
    """Cross-entropy by sequence of a microbatch, detached: sums in nats, and over how many targets."""

    losses: Tensor  # [B]
    counts: Tensor  # [B]


class ItemLosses(NamedTuple):
    """What an objective found in one microbatch. Sums, never means: the loop divides by the whole batch's count."""

    total: Tensor  # scalar, sum of the losses of all items in nats, differentiable
    # How many items (tokens, pairs) the sum is over. The name hides tuple.count, which nobody asks.
    count: int | Tensor  # type: ignore[assignment]
    stats: Mapping[str, Tensor]  # further sums for the log, detached; logged divided by the same count
    rows: RowLosses | None = None  # for the loss of each stream; objectives whose items are not tokens have none


Objective = Callable[[Decoder, Batch], ItemLosses]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with its own batches, schedule and optimizer.

    batch_at: phase-local training step n -> its microbatches; a pure function, so that a resumed run reads the same.
    schedule: phase-local training step -> learning rate.
    reset_optimizer: start with fresh optimizer state; otherwise the state of the phase before goes on.
    num_tokens: what it reads, where that is known; otherwise its first batch stands for all.
    reads: what a phase-local training step reads, in words, for the error that has to name it.
    flops_per_token: floating-point operations to learn from a token, for the MFU; None where nobody counted them.
    """

    name: str
    num_train_steps: int
    batch_at: Callable[[int], list[Batch]]
    schedule: Callable[[int], float]
    optimizer: OptimizerConfig
    reset_optimizer: bool = True
    num_tokens: int | None = None
    reads: Callable[[int], str] | None = None
    flops_per_token: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Something to measure beside training.

    measure: model in evaluation mode -> metric -> group -> value, for example bits_per_byte -> en -> 1.31. It must draw
        no random numbers and leave the weights alone. Layers are not compiled in it: its batches have their own shapes.
        All ranks call it together, and each runs as many forward passes as the others; rank 0's answer is logged.
    every_tokens: measured when training crosses a multiple of it, and at the end of each phase.
    bf16: under autocast. Needed where ranks gather layers as bfloat16, which take no products with float32.
    """

    measure: Callable[[Decoder], Mapping[str, Mapping[str, float]]]
    every_tokens: int
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.every_tokens < 1:
            raise ConfigError(f"every_tokens = {self.every_tokens}, but it counts from 1. Leave the evaluation out.")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a run is carried out. `clip_norm` and `spike_guard` decide the result; of the others only `precision`,
    `compile`, `deterministic` and `num_threads` can touch its last bits.

    order_fingerprint: names the data and its order; a checkpoint with another one is refused.
    stream_names: what `streams` of the batches numbers, for the loss of each; empty where batches say no stream.
    precision: `auto` takes bfloat16 autocast where the device multiplies it in hardware, float32 elsewhere; `fp8` is of
        a model that `train/fp8.py` has prepared.
    compile: `auto` compiles when the run is long enough to win back the compiler's time and a compiler is there.
    deterministic: the same bits in every run on the same devices; without, a GPU may add in any order, and be faster.
    checkpoint_every_tokens, checkpoint_every_minutes: a rolling checkpoint whenever so much was read, or so much time
        has passed since the last one. With neither, only the ends of phases are saved, and what stops the run.
    time_limit_minutes: save and stop before so much time has passed; see `clock.py`.
    checkpoint_dir: a folder of this run's own for checkpoints, local or an fsspec address; None for `out/checkpoints`.
    keep_rolling: keep this many of the newest rolling checkpoints; None deletes nothing.
    loggers: names from `train/loggers.py`, beside the files with lines of JSON.
    release_tokens: the first checkpoint at or after each of these token counts is never deleted.
    """

    order_fingerprint: str
    label: str = "train"
    stream_names: tuple[str, ...] = ()
    precision: Literal["auto", "fp32", "bf16", "fp8"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    deterministic: bool = True
    clip_norm: float | None = 1.0
    spike_guard: SpikeGuardConfig | None = None
    log_every: int = 10
    checkpoint_every_tokens: int | None = None
    checkpoint_every_minutes: float | None = None
    time_limit_minutes: float | None = None
    checkpoint_dir: str | None = None
    keep_rolling: int | None = None
    release_tokens: tuple[int, ...] = field(default=())
    num_threads: int | None = None
    loggers: tuple[str, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        check_loggers(self.loggers)
        check_saving(
            checkpoint_dir=self.checkpoint_dir,
            checkpoint_every_minutes=self.checkpoint_every_minutes,
            time_limit_minutes=self.time_limit_minutes,
        )
        if self.precision not in ("auto", "fp32", "bf16", "fp8"):
            raise ConfigError(f"precision '{self.precision}' is not known. Known: auto, fp32, bf16, fp8.")
        if self.compile not in ("auto", "always", "never"):
            raise ConfigError(f"compile '{self.compile}' is not known. Known: auto, always, never.")
        if self.log_every < 1 or (self.checkpoint_every_tokens is not None and self.checkpoint_every_tokens < 1):
            raise ConfigError(
                "log_every and checkpoint_every_tokens count from 1. Leave the latter out to switch it off."
            )
        if self.keep_rolling is not None and self.keep_rolling < 1:
            raise ConfigError(
                "keep_rolling is at least 1: with none, a kill would lose the run. Leave it out to keep all."
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm = {self.clip_norm} would stop all learning. Set it above 0, or to null.")


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a run did. Times and speeds cover this process only, not the part before a resume."""

    num_train_steps: int
    num_tokens: int
    final_loss: float  # mean of the last tenth of the logged losses, nats per item
    phase_losses: Mapping[str, float]  # loss of the last training step of each phase
    resumed_from: str | None  # name of the checkpoint
    seconds: float
    first_train_step_seconds: float  # with the compiler's time, where it compiled
    evaluation_seconds: float  # of `seconds`
    tokens_per_second: float  # over all seconds but those of evaluation
    mfu: float | None  # of all training steps but the first, against `peak`
    peak: str | None  # the measured peak of this machine; None where none was measured
    resident_peak_bytes: int  # the most memory the process has held, also before training
    device_peak_bytes: int | None  # the most that tensors of training took on the GPU; None on a CPU
    loader_wait_share: float  # of the time after the first training step: waiting for batches
    num_skipped: int  # training steps whose update the spike guard left out, of the whole run
    device: str  # cpu, or the GPU's name
    num_threads: int
    precision: str
    compiled: bool
    notes: tuple[str, ...]  # decisions a reader should know, for example why nothing was compiled
