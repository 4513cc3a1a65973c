"""Recipe step `pretrain`: packed tokens -> a language model, in phases with their own mixture and schedule.

Writes model/ (Hugging Face layout with the tokenizer's files), checkpoints/, the logs of `train/log.py`, and plan.json,
from which `diglot batch` and `diglot seen` work out the order of the data without torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError
from diglot.core.storage import write_json
from diglot.model.accounting import parameter_counts, train_flops_per_token
from diglot.model.config import DecoderConfig
from diglot.steps.context import StepContext, StepKind
from diglot.steps.pretrain_config import PretrainConfig, plan, with_found_mixture
from diglot.steps.pretrain_preview import describe
from diglot.train.optimizer_config import check_one_rank
from diglot.train.order import DataOrder
from diglot.train.parallel.config import ParallelConfig
from diglot.train.phases import PhaseConfig
from diglot.train.saving import place_of_run
from diglot.train.schedules import schedule
from diglot.train.sequences import num_unused_tokens

if TYPE_CHECKING:
    from diglot.corpus.pack import PackedTokens, Stream
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.parallel.ranks import Ranks
    from diglot.train.types import Evaluation


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
    for phase in config.phases:  # before hours of reading and building
        check_one_rank((phase.optimizer or config.optimizer).kind, is_alone=ranks.count == 1)
    if ranks.count == 1 and config.parallel != ParallelConfig():
        context.progress.say(f"{context.step}: parallel has no effect, as this is the only process.")
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
