"""What `diglot plan` says of a step `pretrain`: the model's size, cost and memory, and what each phase reads."""

from __future__ import annotations

from diglot.core.storage import read_json
from diglot.model.accounting import size_lines
from diglot.model.config import DecoderConfig
from diglot.model.huggingface.config import decoder_config
from diglot.steps.context import Planned
from diglot.steps.pretrain_config import PretrainConfig, plan, with_found_mixture
from diglot.train.memory import memory_line, train_memory
from diglot.train.mixture_table import MixtureRow, mixture_lines, mixture_rows


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
