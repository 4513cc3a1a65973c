"""Recipe step `mixture_search`: which weights to give groups of streams, from many small pre-training runs. Writes

    mixture.json       pattern -> weight: what a pretrain step takes by `mixture_from`
    search.json        every run with its weights and held-out bits per byte, the fit, the proposal and its error
    runs/<number>/     train.jsonl of each run

Every run trains the same tiny decoder from the same seed for the same number of tokens; only the mixture differs. A run
that is finished is not done again after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diglot.core.errors import ConfigError, InputError
from diglot.model.config import InitConfig
from diglot.model.sizes import ModelConfig
from diglot.steps.context import StepContext, StepKind, input_step, runtime
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.schedules import ScheduleConfig

if TYPE_CHECKING:
    from diglot.corpus.pack import PackedTokens, Stream
    from diglot.train.mixture_search import Fit, Floats
    from diglot.train.order import DataOrder


@dataclass(frozen=True, kw_only=True)
class MixtureSearchConfig:
    """Groups of streams, the candidate weights, the proxy runs and what is minimised.

    groups: patterns of stream names; the most specific that fits a stream takes it, streams without one are left out.
    candidates: `dirichlet` draws num_candidates weightings (the natural proportions and equal weights are the first
        two); `grid` tries every weighting in steps of 1 / grid_parts.
    concentration: of the Dirichlet distribution, for every group; 1 is uniform.
    max_epochs: a candidate that would read a stream more often in its run is left out and counted.
    tokens: of each run. heldout_tokens: scored for each group, whole documents.
    aim: `mean` minimises the mean loss of the groups, weighted by loss_weights (a weight for each group, in order;
        empty: equal); `worst` the loss of the group that is farthest above its best.
    form: of the fit; null takes the one with the smallest leave-one-out error.
    """

    from_: str = input_step("pack")
    tokenizer: str = input_step("train_tokenizer", "import_model")
    groups: tuple[str, ...]
    candidates: Literal["dirichlet", "grid"] = "dirichlet"
    num_candidates: int = 12
    grid_parts: int = 4
    concentration: float = 1.0
    max_epochs: float = 8.0
    tokens: int = 200_000
    heldout_tokens: int = 20_000
    aim: Literal["mean", "worst"] = "mean"
    loss_weights: tuple[float, ...] = ()
    form: Literal["linear", "quadratic", "log"] | None = None
    model: ModelConfig = field(default_factory=lambda: ModelConfig(d_model=96, num_layers=2, num_heads=2))
    init: InitConfig = field(default_factory=InitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    learning_rate: float = 3e-3
    sequence_length: int = 128
    batch_tokens: int = 2048
    num_threads: int | None = runtime(None)

    def __post_init__(self) -> None:
        if len(self.groups) < 2 or len(set(self.groups)) < len(self.groups):
            raise ConfigError(
                f"groups = {list(self.groups)}, but a mixture needs at least two different patterns of streams, "
                "e.g. ['*.en', '*.zh-Hans']."
            )
        if self.loss_weights and (
            len(self.loss_weights) != len(self.groups) or min(self.loss_weights) < 0 or not sum(self.loss_weights)
        ):
            raise ConfigError(
                f"loss_weights = {list(self.loss_weights)}, but there are {len(self.groups)} groups: give each a "
                "weight from 0 up, not all 0, in the order of groups."
            )
        if self.num_candidates < 3 or self.grid_parts < 1 or self.concentration <= 0 or self.max_epochs <= 0:
            raise ConfigError(
                "mixture_search needs num_candidates >= 3, grid_parts >= 1, concentration > 0 and max_epochs > 0."
            )
        if self.heldout_tokens < 1 or self.learning_rate <= 0:
            raise ConfigError("mixture_search needs heldout_tokens >= 1 and learning_rate > 0.")
        if self.sequence_length % 2 or not 2 <= self.sequence_length <= self.model.context:
            raise ConfigError(
                f"sequence_length = {self.sequence_length} must be even and at most max_seq_len = {self.model.context}."
            )
        if self.batch_tokens % self.sequence_length or self.tokens < self.batch_tokens:
            raise ConfigError(
                f"batch_tokens = {self.batch_tokens} must be a multiple of sequence_length = {self.sequence_length} "
                f"and at most tokens = {self.tokens}."
            )


def mixture_search(config: MixtureSearchConfig, context: StepContext) -> dict[str, Any]:
    """Run the candidates, fit, propose; see the module for the files."""
    import numpy as np

    from diglot.core.seeds import derive_seed
    from diglot.core.storage import write_json
    from diglot.corpus.pack import PackedTokens
    from diglot.train.mixture_search import aim_of, fit, proposal

    started = time.monotonic()
    packed = PackedTokens.open(context.input().path)
    streams = {stream.stream: stream for stream in packed.streams("train")}
    weights, orders, num_left_out = _candidates(config, streams, context.seed)
    heldout = {group: _heldout(config, packed, group, context.seed) for group in config.groups}
    losses = np.empty_like(weights)
    for number, order in enumerate(orders):
        losses[number] = _run(config, context, number, order, streams, heldout)
        shown = "  ".join(
            f"{group} {weight:.2f} -> {loss:.3f}"
            for group, weight, loss in zip(config.groups, weights[number], losses[number], strict=True)
        )
        context.progress.say(f"{context.step}: run {number + 1} of {len(orders)}: {shown}")

    fitted = fit(weights, losses, config.form)
    loss_weights = np.array(config.loss_weights or [1.0] * len(config.groups))
    loss_weights /= loss_weights.sum()
    chosen = proposal(
        fitted, weights, losses, loss_weights, config.aim, derive_seed(context.seed, "mixture_search", "proposal")
    )
    measured = aim_of(losses, losses.min(axis=0), loss_weights, config.aim)
    report = _report(config, weights, losses, measured, fitted, chosen, loss_weights)
    write_json(context.out / "search.json", report | {"left_out_for_max_epochs": num_left_out})
    write_json(context.out / "mixture.json", report["proposal"]["weights"])
    return {
        "runs": len(orders),
        "left_out_for_max_epochs": num_left_out,
        **{name: report[name] for name in ("form", "leave_one_out", "proposal", "best_run", "is_told_apart")},
        "seconds": round(time.monotonic() - started, 3),
    }


def _candidates(
    config: MixtureSearchConfig, streams: Mapping[str, Stream], seed: int
) -> tuple[Floats, list[DataOrder], int]:
    """Weights [R, K] and the data order of each run; those that read a stream too often are left out and counted."""
    import numpy as np

    from diglot.core.seeds import derive_seed
    from diglot.train.mixture import pattern_members
    from diglot.train.mixture_search import draws, grid
    from diglot.train.order import PhaseMix, plan_order
    from diglot.train.sequences import num_sequences

    sizes = {name: num_sequences(stream.num_tokens, config.sequence_length) for name, stream in streams.items()}
    members = pattern_members(dict.fromkeys(config.groups, 1.0), sizes)
    held = np.array([sum(sizes[name] for name in members[group]) for group in config.groups], np.float64)
    num_groups = len(config.groups)
    if config.candidates == "grid":
        proposed, wanted = grid(num_groups, config.grid_parts), None
    else:
        drawn = draws(num_groups, 64 * config.num_candidates, config.concentration, derive_seed(seed, "mixture_search"))
        proposed = np.vstack([held / held.sum(), np.full(num_groups, 1 / num_groups), drawn])
        wanted = config.num_candidates
    num_train_steps = max(1, round(config.tokens / config.batch_tokens))
    num_drawn = num_train_steps * (config.batch_tokens // config.sequence_length)
    fits = (proposed * num_drawn / held).max(axis=1) <= config.max_epochs
    chosen = np.flatnonzero(fits)[:wanted]
    if len(chosen) < 3 or (wanted and len(chosen) < wanted):
        raise ConfigError(
            f"only {len(chosen)} candidates read no stream more than max_epochs = {config.max_epochs:g} times in a run "
            f"of {config.tokens:,} tokens. Lower tokens or raise max_epochs."
        )
    orders = [
        plan_order(
            [
                PhaseMix(
                    name="proxy",
                    num_train_steps=num_train_steps,
                    sequences_per_train_step=config.batch_tokens // config.sequence_length,
                    mixture=dict(zip(config.groups, row.tolist(), strict=True)),
                )
            ],
            sizes,
            seed,
            None,
        )
        for row in proposed[chosen]
    ]
    num_left_out = int((~fits[: chosen[-1] + 1 if wanted else None]).sum())
    return proposed[chosen], orders, num_left_out


@dataclass(frozen=True)
class _Heldout:
    """Held-out documents of one group: tokens [T] end to end, starts [D], and the UTF-8 bytes of all."""

    tokens: Any
    starts: Any
    num_bytes: int


def _heldout(config: MixtureSearchConfig, packed: PackedTokens, group: str, seed: int) -> _Heldout:
    """Whole held-out documents of a group's streams, in a seeded order of their ids, up to heldout_tokens."""
    import numpy as np

    from diglot.core.patterns import most_specific
    from diglot.core.seeds import derive_seed

    held = {stream.stream: stream for stream in packed.streams("heldout") if stream.num_tokens}
    mine = [name for name in held if most_specific(name, config.groups) == group]
    if not mine:
        raise InputError(
            f"no held-out document fits the group '{group}', so its loss cannot be measured. Raise share_heldout or "
            "min_heldout_documents of the split step, or join groups."
        )
    ranked = sorted(
        (derive_seed(seed, "mixture_search", row["id"]), name, row["start"], row["num_tokens"], row["num_bytes"])
        for name in mine
        for row in held[name].documents.to_pylist()
    )
    tokens: list[Any] = []
    num_bytes = total = 0
    for _, name, start, length, size in ranked:
        if total >= config.heldout_tokens:
            break
        tokens.append(np.asarray(held[name].tokens[start : start + length]).astype(np.int64))
        num_bytes, total = num_bytes + size, total + length
    lengths = [len(one) for one in tokens]
    return _Heldout(np.concatenate(tokens), np.cumsum([0, *lengths[:-1]]).astype(np.int64), num_bytes)


def _run(
    config: MixtureSearchConfig,
    context: StepContext,
    number: int,
    order: DataOrder,
    streams: Mapping[str, Stream],
    heldout: Mapping[str, _Heldout],
) -> list[float]:
    """Bits per byte of each group after one proxy run, now or as recorded before a kill."""
    from diglot.corpus.finished import once

    folder = context.out / "runs" / f"{number:03d}"

    def work() -> tuple[list[Path], list[float]]:
        return [folder / "train.jsonl"], _train_and_score(config, context, folder, order, streams, heldout)

    found: list[float] = once(folder / ".done.json", order.mixture_fingerprint, work)
    return found


def _train_and_score(
    config: MixtureSearchConfig,
    context: StepContext,
    folder: Path,
    order: DataOrder,
    streams: Mapping[str, Stream],
    heldout: Mapping[str, _Heldout],
) -> list[float]:
    import math
    import shutil

    from diglot.evaluate.bits_per_byte import document_nats
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.loader import batches_of
    from diglot.train.loop import LoopSettings, Phase, train
    from diglot.train.objectives.next_token import next_token

    tokenizer = Tokenizer.load(context.input("tokenizer").path)
    model = Decoder(config.model.decoder(tokenizer.vocab_size), seed=context.seed, init=config.init)
    tokens = {name: stream.tokens for name, stream in streams.items()}
    phase = Phase(
        name="proxy",
        num_train_steps=order.num_train_steps,
        batch_at=batches_of(order, 0, tokens, sequence_length=config.sequence_length),
        schedule=schedule_of(config, order.num_train_steps),
        optimizer=config.optimizer,
    )
    train(
        model,
        phases=[phase],
        objective=next_token(),
        out=folder,
        seed=context.seed,
        settings=LoopSettings(
            order_fingerprint=order.mixture_fingerprint,
            label=f"{context.step} {folder.name}",
            compile="never",
            num_threads=config.num_threads,
            loggers=(),
        ),
        progress=context.progress,
    )
    losses = []
    for group in config.groups:
        held = heldout[group]
        nats = document_nats(
            model, held.tokens, held.starts, end_id=tokenizer.eos_id, context=config.sequence_length
        ).sum()
        losses.append(float(nats) / math.log(2) / held.num_bytes)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return losses


def schedule_of(config: MixtureSearchConfig, num_train_steps: int) -> Any:
    """The learning rate of each training step of a proxy run."""
    from diglot.train.schedules import schedule

    return schedule(config.schedule, config.learning_rate, num_train_steps)


def _report(
    config: MixtureSearchConfig,
    weights: Floats,
    losses: Floats,
    measured: Floats,
    fitted: Fit,
    chosen: Floats,
    loss_weights: Floats,
) -> dict[str, Any]:
    """search.json. `is_told_apart`: the proposal beats the best run by more than the fit is wrong about runs it has not
    seen; where it does not, the best run's weights are as good a choice.
    """
    import numpy as np

    from diglot.train.mixture_search import aim_of

    lowest, best = losses.min(axis=0), int(np.argmin(measured))

    def named(values: Floats) -> dict[str, float]:
        return {group: round(float(value), 6) for group, value in zip(config.groups, values, strict=True)}

    predicted = fitted.predict(chosen[None])
    value = float(aim_of(predicted, lowest, loss_weights, config.aim)[0])
    error = fitted.leave_one_out if config.aim == "mean" else fitted.leave_one_out / lowest
    return {
        "groups": list(config.groups),
        "aim": config.aim,
        "loss_weights": named(loss_weights),
        "form": fitted.form,
        "leave_one_out": named(fitted.leave_one_out),
        "proposal": {"weights": named(chosen), "predicted": named(predicted[0]), "aim": round(value, 6)},
        "best_run": {
            "run": best,
            "weights": named(weights[best]),
            "bits_per_byte": named(losses[best]),
            "aim": round(float(measured[best]), 6),
        },
        "is_told_apart": bool(float(measured[best]) - value > float(np.dot(error, loss_weights))),
        "runs": [
            {"run": n, "weights": named(weights[n]), "bits_per_byte": named(losses[n]), "aim": round(float(m), 6)}
            for n, m in enumerate(measured)
        ],
        "model": asdict(config.model),
        "tokens": config.tokens,
    }


STEP = StepKind(
    kind="mixture_search", version=1, config=MixtureSearchConfig, run=mixture_search, draws_random_numbers=True
)
