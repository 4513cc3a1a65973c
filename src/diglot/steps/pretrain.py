"""Recipe step `pretrain`: packed tokens -> a language model, in phases with their own mixture and schedule.

Writes model/ (Hugging Face layout with the tokenizer's files), checkpoints/, train.jsonl, timing.jsonl, tensorboard/
and plan.json, from which `diglot batch` and `diglot seen` work out the order of the data without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.model.accounting import memory_line, parameter_counts, size_lines, train_flops_per_token
from diglot.model.config import DecoderConfig, InitConfig
from diglot.model.huggingface.config import decoder_config
from diglot.model.sizes import ModelConfig
from diglot.steps.context import Planned, StepContext, StepKind, input_step, runtime
from diglot.train.mixture import Budget, Counts, epochs_read
from diglot.train.mixture_table import MixtureRow, mixture_lines, mixture_rows
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.order import DataOrder, PhaseMix, plan_order
from diglot.train.schedules import ScheduleConfig, schedule
from diglot.train.sequences import num_sequences, num_unused_tokens

if TYPE_CHECKING:
    from diglot.corpus.pack import Stream
    from diglot.ledger.artifact import Artifact
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One phase. Its length is `tokens`, or `epochs` of all training tokens, or what the budgets of its mixture sum to.

    mixture: pattern of stream names -> weight or budget (`train/mixture.py`); empty reads every stream by its tokens.
    weights_count: what a weight counts: a share of the phase's `tokens`, or `epochs` relative to the other streams.
    batch_tokens: tokens of one training step.
    optimizer: None takes the step's.
    """

    name: str
    tokens: int | None = None
    epochs: float | None = None
    mixture: Mapping[str, float | Budget] = field(default_factory=dict)
    weights_count: Counts = "tokens"
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    learning_rate: float = 2e-4
    batch_tokens: int = 8192
    optimizer: OptimizerConfig | None = None
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        if self.budgeted_tokens is not None:
            return self._check_rates()
        if (self.tokens is None) == (self.epochs is None):
            raise ConfigError(f"phase '{self.name}' needs either tokens or epochs, and not both.")
        if (self.tokens or 0) < 0 or (self.epochs or 0) < 0 or not (self.tokens or self.epochs):
            raise ConfigError(
                f"phase '{self.name}' has no length. Set tokens or epochs above 0, or leave the phase out."
            )
        self._check_rates()

    @property
    def budgeted_tokens(self) -> int | None:
        """The phase's length where neither tokens nor epochs say it: every pattern has a budget in tokens."""
        budgets = [entry for entry in self.mixture.values() if isinstance(entry, Budget) and entry.tokens is not None]
        if self.tokens is not None or self.epochs is not None or not budgets or len(budgets) < len(self.mixture):
            return None
        return sum(budget.num_tokens for budget in budgets) or None

    def num_tokens(self, available: int) -> float:
        """The phase's length, before it is rounded to whole training steps. available: all training tokens."""
        return self.tokens or self.budgeted_tokens or (self.epochs or 0) * available

    def _check_rates(self) -> None:
        if self.batch_tokens < 1 or self.learning_rate <= 0:
            raise ConfigError(f"phase '{self.name}': batch_tokens is at least 1 and learning_rate above 0.")


DEFAULT_PHASES = (
    PhaseConfig(name="fundamental", epochs=0.8, schedule=ScheduleConfig(shape="cosine")),
    PhaseConfig(
        name="decay",
        epochs=0.2,
        schedule=ScheduleConfig(shape="exponential", warmup_share=0.0, half_life_share=0.5, floor_share=0.1),
    ),
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pre-training after MAP-Neo: a fundamental phase on a cosine, then a decay phase on an exponential.

    init_from: start from the weights of this step; the shape is theirs, so `model` and `init` are left out.
    mixture_from: a mixture_search step; its mixture is that of every phase that names none.
    max_epochs: stop before training when the mixture reads a stream more often than this; None allows any number.
    microbatch_tokens: tokens of one forward pass; None takes a whole training step at once.
    mask_after_eos: do not learn the first token of a document from the one before it.
    z_loss: weight of log(sum exp logits)^2 in the loss; 0 leaves it out.
    """

    from_: str = input_step("pack")
    tokenizer: str = input_step("train_tokenizer", "import_model")
    mixture_from: str | None = input_step("mixture_search", optional=True)
    init_from: str | None = input_step("import_model", "pretrain", "finetune", optional=True)
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    phases: tuple[PhaseConfig, ...] = DEFAULT_PHASES
    sequence_length: int = 256
    microbatch_tokens: int | None = None
    max_epochs: float | None = 16.0
    mask_after_eos: bool = False
    z_loss: float = 0.0
    clip_norm: float | None = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "always", "never"] = runtime("auto")
    num_threads: int | None = runtime(None)
    checkpoint_every_tokens: int | None = runtime(500_000)
    keep_rolling: int | None = runtime(2)
    tensorboard: bool = runtime(True)

    def __post_init__(self) -> None:
        if not self.phases:
            raise ConfigError("pretrain has no phases. Give at least one.")
        if self.mixture_from and all(phase.mixture for phase in self.phases):
            raise ConfigError(
                f"mixture_from: {self.mixture_from}, but every phase has a mixture of its own. Take one of them out."
            )
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ConfigError(f"phases {names} do not have names of their own. Rename one.")
        self._check_start()
        if not 1 <= self.sequence_length <= self.model.context and not self.init_from:
            raise ConfigError(
                f"sequence_length = {self.sequence_length} lies outside 1 .. max_seq_len = {self.model.context}."
            )
        for phase in self.phases:
            if phase.batch_tokens % self.sequence_length:
                nearest = max(1, phase.batch_tokens // self.sequence_length) * self.sequence_length
                raise ConfigError(
                    f"phase '{phase.name}': batch_tokens = {phase.batch_tokens} is no multiple of sequence_length = "
                    f"{self.sequence_length}. Set {nearest}."
                )

    def _check_start(self) -> None:
        if self.init_from and (self.model != ModelConfig() or self.init != InitConfig()):
            raise ConfigError(
                f"init_from: {self.init_from} brings a shape and weights of its own, so model and init have no effect. "
                "Take them out of the step, or take out init_from to start from random weights."
            )


def plan(config: PretrainConfig, streams: Mapping[str, int], seed: int) -> DataOrder:
    """The data order of a run over streams of so many tokens."""
    sizes = {name: num_sequences(tokens, config.sequence_length) for name, tokens in streams.items()}
    available = sum(sizes.values()) * config.sequence_length
    if available == 0:
        raise InputError("the pack step holds no training tokens. Look at what select and split left of the corpus.")
    mixes = [
        PhaseMix(
            name=phase.name,
            num_train_steps=max(1, round(phase.num_tokens(available) / phase.batch_tokens)),
            sequences_per_train_step=phase.batch_tokens // config.sequence_length,
            mixture=phase.mixture,
            counts=phase.weights_count,
            sequence_length=config.sequence_length,
        )
        for phase in config.phases
    ]
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
    from diglot.model.decoder import Decoder
    from diglot.model.files import save_model
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.loader import batches_of
    from diglot.train.loop import LoopSettings, Phase, train
    from diglot.train.objectives.next_token import next_token

    config = with_found_mixture(config, context.inputs)
    packed, tokenizer_folder = context.input("from"), context.input("tokenizer").path
    streams = {stream.stream: stream for stream in PackedTokens.open(packed.path).streams("train")}
    tokenizer = Tokenizer.load(tokenizer_folder)
    order = plan(config, {name: stream.num_tokens for name, stream in streams.items()}, context.seed)
    start = _starting_model(config, context, tokenizer)
    shape = start.config if start else config.model.decoder(tokenizer.vocab_size)
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
                    sequence_length=config.sequence_length,
                    microbatch_sequences=_microbatch_sequences(config),
                    mask_after=tokenizer.eos_id if config.mask_after_eos else None,
                ),
                schedule=schedule(phase.schedule, phase.learning_rate, ordered.num_train_steps),
                optimizer=phase.optimizer or config.optimizer,
                reset_optimizer=phase.reset_optimizer,
            )
        )
        first += ordered.num_train_steps
    model = start or Decoder(shape, seed=context.seed, init=config.init)
    report = train(
        model,
        phases=phases,
        objective=next_token(z_loss=config.z_loss),
        out=context.out,
        seed=context.seed,
        settings=LoopSettings(
            order_fingerprint=order.mixture_fingerprint,
            label=context.step,
            precision=config.precision,
            compile=config.compile,
            clip_norm=config.clip_norm,
            checkpoint_every_tokens=config.checkpoint_every_tokens,
            keep_rolling=config.keep_rolling,
            num_threads=config.num_threads,
            tensorboard=config.tensorboard,
        ),
        progress=context.progress,
    )
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    save_model(model, context.out / "model", tokenizer_folder, token_ids=ids)
    parameters = parameter_counts(shape)
    return {
        "parameters": parameters.total,
        "parameters_without_embeddings": parameters.without_embeddings,
        "flops": report.num_tokens * train_flops_per_token(shape, config.sequence_length),
        "mixture_fingerprint": order.mixture_fingerprint,
        **{name: value for name, value in asdict(report).items() if name != "resumed_from"},
    }


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
    lines = size_lines(shape, config.sequence_length, knows_vocabulary=vocab_size is not None)
    if vocab_size is None:
        return lines
    tokens = min(config.microbatch_tokens or 2**62, max(phase.batch_tokens for phase in config.phases))
    muon = config.optimizer.kind == "muon"
    return [*lines, memory_line(shape, tokens, config.sequence_length, muon=muon, bf16=config.precision == "bf16")]


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
    return mixture_rows(order, config.sequence_length)


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
    if config.sequence_length > model.config.max_seq_len:
        raise ConfigError(
            f"sequence_length = {config.sequence_length}, but the model of init_from reads {model.config.max_seq_len} "
            "tokens at most. Set it to that or less."
        )
    return model.train()


def _microbatch_sequences(config: PretrainConfig) -> int | None:
    if config.microbatch_tokens is None:
        return None
    return max(1, config.microbatch_tokens // config.sequence_length)


def _plan_record(
    config: PretrainConfig, order: DataOrder, streams: Mapping[str, Stream], shape: DecoderConfig
) -> dict[str, Any]:
    """plan.json: `DataOrder.from_plan` reads `order`; the rest is for people and for the report."""
    epochs = epochs_read([phase.quotas for phase in order.phases], order.sizes)
    return {
        "order": order.to_plan(),
        "mixture_fingerprint": order.mixture_fingerprint,
        "sequence_length": config.sequence_length,
        "streams": [
            {
                "stream": name,
                "source": stream.source,
                "lang": stream.lang,
                "num_tokens": stream.num_tokens,
                "num_sequences": order.sizes[name],
                "tokens_unused": num_unused_tokens(stream.num_tokens, config.sequence_length),
                "epochs": epochs.get(name, 0.0),
            }
            for name, stream in sorted(streams.items())
        ],
        "phases": [
            {
                **asdict(phase),
                "num_train_steps": ordered.num_train_steps,
                "num_tokens": ordered.num_sequences * config.sequence_length,
            }
            for phase, ordered in zip(config.phases, order.phases, strict=True)
        ],
        "model": asdict(shape),
        "parameters": asdict(parameter_counts(shape)),
    }


STEP = StepKind(
    kind="pretrain", version=1, config=PretrainConfig, run=pretrain, draws_random_numbers=True, describe=describe
)
