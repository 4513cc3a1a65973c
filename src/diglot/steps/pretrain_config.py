"""The settings of the step `pretrain`, and the data order that they ask for; readable without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.model.config import InitConfig
from diglot.model.sizes import ModelConfig
from diglot.steps.context import input_step, runtime
from diglot.train.loggers import check_loggers
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.order import DataOrder, PhaseMix, plan_order
from diglot.train.parallel.config import ParallelConfig
from diglot.train.phases import PhaseConfig, expand_phases
from diglot.train.saving import check_saving
from diglot.train.schedules import ScheduleConfig
from diglot.train.sequences import num_sequences
from diglot.train.spike_guard import SpikeGuardConfig

if TYPE_CHECKING:
    from diglot.ledger.artifact import Artifact

DEFAULT_PHASES = (
    PhaseConfig(name="fundamental", epochs=0.8, schedule=ScheduleConfig(shape="cosine")),
    PhaseConfig(
        name="decay",
        epochs=0.2,
        schedule=ScheduleConfig(shape="exponential", warmup_share=0.0, half_life_share=0.5, floor_share=0.1),
    ),
)


PhasesInput = tuple[PhaseConfig, ...] | str | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pre-training after MAP-Neo: a fundamental phase on a cosine, then a decay phase on an exponential.

    init_from: start from the weights of this step; the shape is theirs, so `model` and `init` are left out.
    mixture_from: a mixture_search step; its mixture is that of every phase that names none.
    phases: a list, or `map-neo` or `{preset: map-neo, epochs: 2, batch_tokens: 16384}` for MAP-Neo's two.
    max_epochs: stop before training when the mixture reads a stream more often than this; None allows any number.
    microbatch_tokens: tokens of one forward pass of one rank; None takes a whole training step at once.
    attention: `document` keeps every token from seeing other documents of its sequence; `all` lets it, as MAP-Neo
        does. Positions count through the sequence either way.
    mask_after_eos: leave out the targets whose input is the document end, as MAP-Neo does: the first token of a
        document is then not learned from the document before it.
    z_loss: weight of log(sum exp logits)^2 in the loss; 0 leaves it out.
    spike_guard: skip updates whose gradient norm (or loss) stands far above those before; None takes every one.
    recompute_every: compute every n-th layer again in the backward pass instead of keeping its activations; 0 for none.
    checkpoint_every_tokens, checkpoint_every_minutes: a rolling checkpoint whenever so many tokens were read, or so
        much time has passed since the last; null for never. keep_rolling: how many of them stay; null for all.
    checkpoint_dir: where checkpoints go instead of the step's folder: an absolute path, or an fsspec address such as
        s3://bucket/runs. Each artifact has a folder of its own in it.
    time_limit_minutes: save and stop before training took so long; the same command goes on. The end of a Slurm job is
        seen without it.
    evaluate_every_tokens: measure bits per byte on held-out documents whenever so many tokens were read, and at the end
        of each phase; None never does, and neither does a run whose ranks share sequences or layers (parallel: tensor,
        context, pipeline). Training itself is not touched.
    loggers: any of tensorboard, wandb, trackio.
    evaluate_tokens: held-out tokens of each language that are measured then, in whole documents: the first of those
        that a step `evaluate` of the recipe scores.
    precision: `auto` takes bf16 where the device multiplies it in hardware, fp32 elsewhere; `fp8` needs an NVIDIA GPU
        from Ada or Hopper on, and torchao.
    device: where it trains; `auto` takes a GPU where torch sees one.
    deterministic: the same bits in every run on the same devices; without, a GPU may be faster.
    parallel: how ranks share the work where several were started; changes nothing but rounding.
    """

    from_: str = input_step("pack")
    tokenizer: str = input_step("train_tokenizer", "import_model")
    mixture_from: str | None = input_step("mixture_search", optional=True)
    init_from: str | None = input_step("import_model", "pretrain", "finetune", optional=True)
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    phases: Annotated[tuple[PhaseConfig, ...], BeforeValidator(expand_phases, json_schema_input_type=PhasesInput)] = (
        DEFAULT_PHASES
    )
    sequence_length: int = 256
    microbatch_tokens: int | None = None
    max_epochs: float | None = 16.0
    attention: Literal["all", "document"] = "all"
    mask_after_eos: bool = False
    z_loss: float = 0.0
    spike_guard: SpikeGuardConfig | None = None
    clip_norm: float | None = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp8"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = runtime("auto")
    deterministic: bool = runtime(True)
    compile: Literal["auto", "always", "never"] = runtime("auto")
    recompute_every: int = runtime(0)
    num_threads: int | None = runtime(None)
    checkpoint_every_tokens: int | None = runtime(500_000)
    checkpoint_every_minutes: float | None = runtime(None)
    keep_rolling: int | None = runtime(2)
    checkpoint_dir: str | None = runtime(None)
    time_limit_minutes: float | None = runtime(None)
    evaluate_every_tokens: int | None = runtime(None)
    evaluate_tokens: int = runtime(4096)
    loggers: tuple[str, ...] = runtime(("tensorboard",))
    parallel: ParallelConfig = runtime(default_factory=ParallelConfig)  # noqa: RUF009

    def __post_init__(self) -> None:
        check_loggers(self.loggers)
        check_saving(
            checkpoint_dir=self.checkpoint_dir,
            checkpoint_every_minutes=self.checkpoint_every_minutes,
            time_limit_minutes=self.time_limit_minutes,
        )
        if min(self.evaluate_tokens, 1 if self.evaluate_every_tokens is None else self.evaluate_every_tokens) < 1:
            raise ConfigError(
                "evaluate_every_tokens and evaluate_tokens count from 1. Leave the former out to measure nothing."
            )
        for name in ("microbatch_tokens", "num_threads", "checkpoint_every_tokens", "keep_rolling"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} = {value}, but it counts from 1. Set it to 1 or more, or to null.")
        if (self.clip_norm is not None and not self.clip_norm > 0) or not self.z_loss >= 0:
            raise ConfigError(
                f"clip_norm = {self.clip_norm} and z_loss = {self.z_loss}, but the former lies above 0, or is null, "
                "and the latter is at least 0."
            )
        if not self.phases:
            raise ConfigError("pretrain has no phases. Give at least one.")
        if self.mixture_from and all(phase.mixture for phase in self.phases):
            raise ConfigError(
                f"mixture_from: {self.mixture_from}, but every phase has a mixture of its own. Take one of them out."
            )
        if self.precision == "fp8" and self.parallel.tensor > 1:
            raise ConfigError(
                "parallel: tensor divides matrices, and precision: fp8 scales each as a whole. Set tensor: 1, or bf16."
            )
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ConfigError(f"phases {names} do not have names of their own. Rename one.")
        self._check_start()
        if self.recompute_every < 0:
            raise ConfigError(f"recompute_every = {self.recompute_every} counts layers. Set 1 for all, 0 for none.")
        for phase in self.phases:
            length = self.length_of(phase)
            if length < 1 or (length > self.model.context and not self.init_from):
                raise ConfigError(f"sequence_length = {length} lies outside 1 .. max_seq_len = {self.model.context}.")
            if self.longest % length:
                raise ConfigError(
                    f"phase '{phase.name}': sequence_length = {length} does not divide the longest, {self.longest}. "
                    "Phases of several lengths need multiples, e.g. 1024 and 4096."
                )
            phase.check_lengths(length)
        kinds = [(phase.optimizer or self.optimizer).kind for phase in self.phases]
        for phase, before, kind in zip(self.phases[1:], kinds, kinds[1:], strict=False):
            if kind != before and not phase.reset_optimizer:
                raise ConfigError(
                    f"phase '{phase.name}': {kind} cannot go on with the state of {before}. Set reset_optimizer: true, "
                    f"or take {before}."
                )

    def length_of(self, phase: PhaseConfig) -> int:
        """Inputs in one sequence of a phase."""
        return phase.sequence_length or self.sequence_length

    @property
    def longest(self) -> int:
        """Inputs in one of the longest sequences: the data order's block."""
        return max(map(self.length_of, self.phases))

    def _check_start(self) -> None:
        if self.init_from and (self.model != ModelConfig() or self.init != InitConfig()):
            raise ConfigError(
                f"init_from: {self.init_from} brings a shape and weights of its own, so model and init have no effect. "
                "Take them out of the step, or take out init_from to start from random weights."
            )


def plan(config: PretrainConfig, streams: Mapping[str, int], seed: int) -> DataOrder:
    """The data order of a run over streams of so many tokens."""
    sizes = {name: num_sequences(tokens, config.longest) for name, tokens in streams.items()}
    available = sum(sizes.values()) * config.longest
    if available == 0:
        raise InputError("the pack step holds no training tokens. Look at what select and split left of the corpus.")
    mixes = []
    for phase in config.phases:
        length = config.length_of(phase)
        batches, pieces = phase.batches(phase.num_tokens(available), length), config.longest // length
        held = {name: num_sequences(tokens, length) for name, tokens in streams.items() if tokens <= config.longest}
        mixes.append(
            PhaseMix(
                name=phase.name,
                **batches._asdict(),
                mixture=phase.mixture,
                counts=phase.weights_count,
                sequence_length=length,
                pieces_per_block=pieces,
                short={name: count for name, count in held.items() if 0 < count < pieces},
            )
        )
    return plan_order(mixes, sizes, seed, config.max_epochs)


def with_found_mixture(config: PretrainConfig, inputs: Mapping[str, Artifact]) -> PretrainConfig:
    """The config with the mixture of `mixture_from` in every phase that names none."""
    if "mixture_from" not in inputs:
        return config
    found = read_json(inputs["mixture_from"].path / "mixture.json")
    phases = tuple(
        phase if phase.mixture else replace(phase, mixture=found, weights_count="tokens") for phase in config.phases
    )
    return replace(config, phases=phases, mixture_from=None)
