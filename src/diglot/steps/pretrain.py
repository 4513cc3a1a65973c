"""Recipe step `pretrain`: packed tokens -> a language model, in phases with their own mixture and schedule.

Writes model/ (Hugging Face layout with the tokenizer's files), checkpoints/, the logs of `train/log.py`, and plan.json,
from which `diglot batch` and `diglot seen` work out the order of the data without torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.model.accounting import parameter_counts, size_lines, train_flops_per_token
from diglot.model.config import DecoderConfig, InitConfig
from diglot.model.huggingface.config import decoder_config
from diglot.model.sizes import ModelConfig
from diglot.steps.context import Planned, StepContext, StepKind, input_step, runtime
from diglot.train.loggers import check_loggers
from diglot.train.memory import memory_line, train_memory
from diglot.train.mixture_table import MixtureRow, mixture_lines, mixture_rows
from diglot.train.optimizer_config import ONE_RANK_ONLY, OptimizerConfig
from diglot.train.order import DataOrder, PhaseMix, plan_order
from diglot.train.parallel.config import ParallelConfig
from diglot.train.phases import PhaseConfig, expand_phases
from diglot.train.saving import check_saving, place_of_run
from diglot.train.schedules import ScheduleConfig, schedule
from diglot.train.sequences import num_sequences, num_unused_tokens
from diglot.train.spike_guard import SpikeGuardConfig

if TYPE_CHECKING:
    from diglot.corpus.pack import PackedTokens, Stream
    from diglot.ledger.artifact import Artifact
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.parallel.ranks import Ranks
    from diglot.train.types import Evaluation

__all__ = ["DEFAULT_PHASES", "STEP", "PhaseConfig", "PretrainConfig", "plan", "pretrain", "with_found_mixture"]

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


def pretrain(config: PretrainConfig, context: StepContext) -> dict[str, Any]:
    from diglot.corpus.pack import PackedTokens
    from diglot.ledger.unchanged import check_unchanged
    from diglot.model.decoder import Decoder
    from diglot.model.files import save_model
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.backend import chosen_precision
    from diglot.train.device import chosen_device
    from diglot.train.fp8 import use_fp8_products
    from diglot.train.loader import batches_of
    from diglot.train.loop import LoopSettings, Phase, train
    from diglot.train.objectives.next_token import next_token
    from diglot.train.parallel.ranks import ALONE
    from diglot.train.parallel.sharding import shard
    from diglot.train.parallel.whole_model import whole_model

    ranks = context.ranks or ALONE
    _check_optimizers(config, ranks)
    device = chosen_device(config.device, ranks)
    ranks = ranks.on(device).arranged(config.parallel)
    precision = ranks.from_main(lambda: chosen_precision(config.precision, device))
    config = with_found_mixture(config, context.inputs)
    artifact, tokenizer_folder = context.input("from"), context.input("tokenizer").path
    packed = PackedTokens.open(artifact.path)
    streams = {stream.stream: stream for stream in packed.streams("train")}
    check_unchanged(artifact, [stream.token_file for stream in streams.values()])
    tokenizer = Tokenizer.load(tokenizer_folder)
    order = plan(config, {name: stream.num_tokens for name, stream in streams.items()}, context.seed)
    start = _starting_model(config, context, tokenizer)
    shape = start.config if start else config.model.decoder(tokenizer.vocab_size)
    if ranks.is_main:
        write_json(context.out / "plan.json", _plan_record(config, order, streams, shape))

    phases, first = [], 0
    for phase, ordered in zip(config.phases, order.phases, strict=True):
        phases.append(
            Phase(
                name=phase.name,
                num_train_steps=ordered.num_train_steps,
                batch_at=batches_of(
                    order,
                    first,
                    {name: stream.tokens for name, stream in streams.items()},
                    sequence_length=config.length_of(phase),
                    microbatch_sequences=_microbatch_sequences(config, phase, ranks),
                    mask_after=tokenizer.eos_id if config.mask_after_eos else None,
                    document_end=tokenizer.eos_id if config.attention == "document" else None,
                    vocab_size=tokenizer.vocab_size,
                ),
                num_tokens=ordered.num_sequences * config.length_of(phase),
                reads=functools.partial(_reads, order, first),
                schedule=schedule(phase.schedule, phase.learning_rate, ordered.num_train_steps),
                optimizer=phase.optimizer or config.optimizer,
                reset_optimizer=phase.reset_optimizer,
                flops_per_token=train_flops_per_token(shape, config.length_of(phase)),
            )
        )
        first += ordered.num_train_steps
    model = start or Decoder(shape, seed=context.seed, init=config.init)
    model.recompute_every = config.recompute_every
    if precision == "fp8":
        use_fp8_products(model)
    if ranks.grid is None:
        model.to(device)  # `shard` sends each rank its part alone: the whole may not fit
    # On a CPU, whose gathers are copies in memory, nothing is gained by rounding them first.
    gather_bf16 = ranks.grid is not None and device.type == "cuda" and precision != "fp32"
    shard(model, ranks, gather_bf16=gather_bf16)
    report = train(
        model,
        phases=phases,
        objective=next_token(z_loss=config.z_loss),
        out=context.out,
        seed=context.seed,
        settings=LoopSettings(
            order_fingerprint=order.mixture_fingerprint,
            label=context.step,
            stream_names=order.stream_names,
            precision=precision,
            compile=config.compile,
            deterministic=config.deterministic,
            clip_norm=config.clip_norm,
            spike_guard=config.spike_guard,
            checkpoint_every_tokens=config.checkpoint_every_tokens,
            keep_rolling=config.keep_rolling,
            checkpoint_every_minutes=config.checkpoint_every_minutes,
            checkpoint_dir=place_of_run(config.checkpoint_dir, context.out.name),
            time_limit_minutes=config.time_limit_minutes,
            num_threads=config.num_threads or ranks.num_threads,
            loggers=config.loggers,
        ),
        progress=context.progress,
        evaluation=_evaluation(config, packed, tokenizer, context, ranks, bf16=gather_bf16),
        ranks=ranks,
    )
    trained = whole_model(model, ranks)
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    if trained is not None:
        save_model(trained, context.out / "model", tokenizer_folder, token_ids=ids)
    parameters = parameter_counts(shape)
    return {
        "parameters": parameters.total,
        "parameters_without_embeddings": parameters.without_embeddings,
        "flops": sum(
            ordered.num_sequences * config.length_of(phase) * train_flops_per_token(shape, config.length_of(phase))
            for phase, ordered in zip(config.phases, order.phases, strict=True)
        ),
        "mixture_fingerprint": order.mixture_fingerprint,
        **{name: value for name, value in asdict(report).items() if name != "resumed_from"},
    }


def _evaluation(
    config: PretrainConfig,
    packed: PackedTokens,
    tokenizer: Tokenizer,
    context: StepContext,
    ranks: Ranks,
    *,
    bf16: bool,
) -> Evaluation | None:
    """Bits per byte of each language on a fixed sample of the held-out documents; None where ranks share a sequence or
    layers, which the measurement does not know how to do."""
    from diglot.core.seeds import derive_seed
    from diglot.evaluate.bits_per_byte import language_bits_per_byte
    from diglot.evaluate.heldout import heldout_documents
    from diglot.train.types import Evaluation

    if config.evaluate_every_tokens is None:
        return None
    if ranks.num_readers < ranks.count:
        context.progress.say(
            f"{context.step}: warning: evaluate_every_tokens has no effect with parallel: tensor, context or pipeline "
            "above 1. A step evaluate scores the model afterwards."
        )
        return None
    seed = derive_seed(context.seed, "evaluate")
    heldout = heldout_documents(packed, None, max_tokens=config.evaluate_tokens, seed=seed)
    window = max(2, config.longest // 2 * 2)

    def measure(model: Decoder) -> dict[str, dict[str, float]]:
        found = language_bits_per_byte(model, heldout, end_id=tokenizer.eos_id, context=window, ranks=ranks)
        return {"bits_per_byte": found}

    return Evaluation(measure=measure, every_tokens=config.evaluate_every_tokens, bf16=bf16)


def describe(now: Planned, last: Planned | None) -> list[str]:
    """The model's size and cost, and the mixture by phase and stream, beside the last run's where it differs."""
    rows = _mixture_rows(now)
    if rows is None:
        mixture = ["the mixture is known when its inputs are built (run as far as the pack step first)"]
    else:
        mixture = list(mixture_lines(rows, _mixture_rows(last) if last else None))
    return [*_model_lines(now), *mixture]


def _model_lines(planned: Planned) -> list[str]:
    """Parameters, operations and memory; without the vocabulary's share while the tokenizer is not built."""
    from diglot.tokenizer.tokenizer import Tokenizer

    config: PretrainConfig = planned.config
    artifact = planned.inputs["tokenizer"]
    vocab_size = Tokenizer.load(artifact.path).vocab_size if artifact.is_complete else None
    shape = config.model.decoder(vocab_size or 1)
    if (start := planned.inputs.get("init_from")) is not None:
        if not start.is_complete:
            return ["the model is known when the step it starts from is built"]
        shape = decoder_config(read_json(start.path / "model" / "config.json"))
    lines = size_lines(shape, config.longest, knows_vocabulary=vocab_size is not None)
    if vocab_size is None:
        return lines
    return [*lines, _memory_line(config, shape)]


def _memory_line(config: PretrainConfig, shape: DecoderConfig) -> str:
    """Of the phase that takes the most; in fp32 where the precision is not known before the run."""
    found = []
    for phase in config.phases:
        largest = max(stretch.tokens for stretch in phase.stretches)
        tokens = min(max(config.microbatch_tokens or largest, config.length_of(phase)), largest)
        memory = train_memory(
            shape,
            microbatch_tokens=tokens,
            num_microbatches=-(-largest // tokens),
            optimizer=(phase.optimizer or config.optimizer).kind,
            bf16=config.precision in ("bf16", "fp8"),
            recompute_every=config.recompute_every,
            on_gpu=config.device == "cuda",
        )
        found.append((memory.peak, memory_line(memory, tokens)))
    assumed = "; as in fp32, which precision: auto takes where bf16 is not native" if config.precision == "auto" else ""
    return max(found)[1] + assumed


def _mixture_rows(planned: Planned) -> list[MixtureRow] | None:
    """None while an input is not built."""
    from diglot.corpus.pack import PackedTokens

    if not all(
        artifact.is_complete for slot, artifact in planned.inputs.items() if slot not in ("tokenizer", "init_from")
    ):
        return None
    streams = PackedTokens.open(planned.inputs["from"].path).streams("train")
    config = with_found_mixture(planned.config, planned.inputs)
    order = plan(config, {stream.stream: stream.num_tokens for stream in streams}, planned.seed)
    return mixture_rows(order, config.longest)


def _check_optimizers(config: PretrainConfig, ranks: Ranks) -> None:
    """Before hours of reading and building; the optimizers themselves refuse what is divided too."""
    kinds = {(phase.optimizer or config.optimizer).kind for phase in config.phases}
    if alone := sorted(kinds & ONE_RANK_ONLY if ranks.count > 1 else ()):
        raise ConfigError(
            f"optimizer {alone[0]} runs on one rank only, and {ranks.count} were started. Take adamw or muon, whose "
            "state is divided among the ranks, or start one process."
        )


def _starting_model(config: PretrainConfig, context: StepContext, tokenizer: Tokenizer) -> Decoder | None:
    """The model of `init_from`. Raises InputError or ConfigError where it fits neither tokenizer nor sequences."""
    from diglot.model.files import load_model
    from diglot.tokenizer.tokenizer import check_fits

    if config.init_from is None:
        return None
    folder = context.input("init_from").path / "model"
    model = load_model(folder)
    if note := check_fits(tokenizer, model.config.vocab_size):
        context.progress.say(note)
    if config.longest > model.config.max_seq_len:
        raise ConfigError(
            f"sequence_length = {config.longest}, but the model of init_from reads {model.config.max_seq_len} "
            "tokens at most. Set it to that or less."
        )
    return model.train()


def _reads(order: DataOrder, first_train_step: int, train_step: int) -> str:
    """What a phase-local training step reads: sequences by stream, as `diglot batch` counts them."""
    found: dict[str, list[str]] = {}
    for stream, sequence in order.sequences(first_train_step + train_step):
        found.setdefault(stream, []).append(str(sequence))
    return "; ".join(f"{stream}, sequences {', '.join(numbers)}" for stream, numbers in sorted(found.items()))


def _microbatch_sequences(config: PretrainConfig, phase: PhaseConfig, ranks: Ranks) -> int | None:
    """Of all ranks together, each of which takes its share of a microbatch's rows."""
    if config.microbatch_tokens is None:
        return None
    return ranks.num_readers * max(1, config.microbatch_tokens // config.length_of(phase))


def _plan_record(
    config: PretrainConfig, order: DataOrder, streams: Mapping[str, Stream], shape: DecoderConfig
) -> dict[str, Any]:
    """plan.json: `DataOrder.from_plan` reads `order`; the rest is for people and for the report. Its `sequence_length`
    is the longest: the order counts blocks of it, and a phase says how many of its sequences make one."""
    epochs = order.epochs()
    return {
        "order": order.to_plan(),
        "mixture_fingerprint": order.mixture_fingerprint,
        "sequence_length": config.longest,
        "streams": [
            {
                "stream": name,
                "source": stream.source,
                "lang": stream.lang,
                "num_tokens": stream.num_tokens,
                "num_sequences": order.sizes[name],
                "tokens_unused": num_unused_tokens(stream.num_tokens, config.longest),
                "epochs": epochs.get(name, 0.0),
            }
            for name, stream in sorted(streams.items())
        ],
        "phases": [
            {
                **asdict(phase),
                "sequence_length": config.length_of(phase),
                "num_train_steps": ordered.num_train_steps,
                "num_tokens": ordered.num_sequences * config.length_of(phase),
            }
            for phase, ordered in zip(config.phases, order.phases, strict=True)
        ],
        "model": asdict(shape),
        "parameters": asdict(parameter_counts(shape)),
    }


STEP = StepKind(
    kind="pretrain",
    version=2,
    config=PretrainConfig,
    run=pretrain,
    draws_random_numbers=True,
    joins_ranks=True,
    describe=describe,
)
