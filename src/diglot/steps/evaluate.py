"""evaluate: score the models on held-out documents and conversations, beside n-gram models of the same tokens.

Writes
    scores.json   ledger `eval_result` records, one per task, model, language and source
    ngram.json    the n-gram models: variant, orders, discounts, sizes
    samples.json  answers to held-out questions and continuations of held-out documents, with their seeds
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.core.storage import read_json, write_json
from diglot.steps.context import StepContext, StepKind, input_step, runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diglot.corpus.pack import PackedTokens
    from diglot.evaluate.heldout import Heldout
    from diglot.evaluate.results import EvalResult
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is scored, and how much of it.

    from_: the pre-trained model; chat: the model that answers; conversations: where its held-out questions come from.
    against: another pre-trained model with the same tokenizer, scored on the same documents; the paired differences to
        it have intervals, by language and by source.
    ngram_orders: n-gram models to compare with, over the same training tokens.
    max_tokens: held-out tokens scored per language; whole documents, so the last one may exceed it.
    context: tokens per window; null takes the sequence length of pre-training.
    max_answers: held-out questions answered per language. num_continuations: held-out documents continued per language.
    temperature, top_p, no_repeat_ngram: how answers and continuations are drawn.
    """

    from_: str = input_step("pretrain", "import_model")
    tokens: str = input_step("pack")
    chat: str | None = input_step("prefer", "finetune", optional=True)
    conversations: str | None = input_step("compose", optional=True)
    against: str | None = input_step("pretrain", optional=True)
    ngram_orders: tuple[int, ...] = (2, 3, 5)
    max_tokens: int = 30_000
    context: int | None = None
    max_answers: int = 24
    max_new_tokens: int = 80
    num_continuations: int = 3
    prefix_tokens: int = 32
    temperature: float = 0.3
    top_p: float = 0.9
    no_repeat_ngram: int = 6
    num_threads: int | None = runtime(None)  # of the processor; null leaves PyTorch's choice

    def __post_init__(self) -> None:
        if not self.ngram_orders or min(self.ngram_orders) < 2 or max(self.ngram_orders) > 9:
            raise ConfigError(f"ngram_orders = {self.ngram_orders}; give at least one order from 2 to 9.")
        counts = {
            name: getattr(self, name)
            for name in ("max_tokens", "max_answers", "max_new_tokens", "num_continuations", "prefix_tokens")
        }
        if low := [name for name, value in counts.items() if value < 1]:
            raise ConfigError(f"{low[0]} = {counts[low[0]]}, but it must be at least 1.")
        if self.context is not None and (self.context < 2 or self.context % 2):
            raise ConfigError(f"context = {self.context} must be even and at least 2: windows overlap by half.")
        if (self.chat is None) != (self.conversations is None):
            raise ConfigError("chat and conversations belong together: one answers what the other asks. Set both.")


def evaluate(config: EvaluateConfig, context: StepContext) -> dict[str, Any]:
    """Score the base model, and the chat model where there is one. Counts hold the main scores and seconds by part."""
    import torch

    from diglot.corpus.compose.conversation import read_conversations
    from diglot.corpus.pack import PackedTokens
    from diglot.evaluate import answers, scores
    from diglot.evaluate.heldout import heldout_documents
    from diglot.generate.sampling import Sampling
    from diglot.model.files import load_model
    from diglot.tokenizer.tokenizer import Tokenizer

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    seed = derive_seed(context.seed, "evaluate")
    seconds: dict[str, float] = {}
    decoding = answers.Decoding(
        max_new_tokens=config.max_new_tokens,
        sampling=Sampling(temperature=config.temperature, top_p=config.top_p, no_repeat_ngram=config.no_repeat_ngram),
        seed=seed,
    )
    with _timed(seconds, "load"):
        packed = PackedTokens.open(context.input("tokens").path)
        heldout = heldout_documents(packed, context.input("tokens"), max_tokens=config.max_tokens, seed=seed)
        tokenizer_artifact = context.input("tokens").upstream("train_tokenizer", "import_model")
        tokenizer = Tokenizer.load(tokenizer_artifact.path)
        base = load_model(context.input().path / "model")
    with _timed(seconds, "ngram"):
        nats, description = _ngrams(config.ngram_orders, packed, heldout, tokenizer)
        write_json(context.out / "ngram.json", description)
    with _timed(seconds, "base"):
        window = config.context or _trained_context(context.input().path, base)
        nats["base"] = _model_nats(base, "base", heldout, tokenizer, window, context)
    if config.against is not None:
        with _timed(seconds, "against"):
            other = load_model(context.input("against").path / "model")
            _check_same_vocabulary(base, other, config.against)
            nats["against"] = _model_nats(other, "other", heldout, tokenizer, window, context)
    with _timed(seconds, "continuations"):
        continuations = answers.continue_documents(
            base,
            tokenizer,
            heldout,
            per_language=config.num_continuations,
            prefix_tokens=config.prefix_tokens,
            decoding=decoding,
        )
    answered: list[answers.Sample] = []
    results: list[EvalResult] = []
    if config.chat is not None:
        with _timed(seconds, "chat"):
            chat = load_model(context.input("chat").path / "model")
            nats["chat"] = _model_nats(chat, "chat", heldout, tokenizer, window, context)
        with _timed(seconds, "answers"):
            asked = answers.choose(
                read_conversations(context.input("conversations").path, "heldout"),
                per_language=config.max_answers,
                seed=seed,
            )
            response_nats = answers.response_nats(chat, tokenizer, asked)
            answered = answers.answer(chat, tokenizer, asked, decoding)
            fingerprint = tokenizer_artifact.fingerprint
            results += scores.response_scores("chat", response_nats, asked, tokenizer=fingerprint, seed=seed)
            results += scores.answer_scores("chat", answered, seed=seed)
    with _timed(seconds, "intervals"):
        results = [
            *scores.document_scores(nats, heldout, context=window, tokenizer=tokenizer_artifact.fingerprint, seed=seed),
            *results,
        ]
    write_json(context.out / "scores.json", [result.to_record() for result in results])
    write_json(context.out / "samples.json", [sample.to_record() for sample in [*answered, *continuations]])
    return {
        "num_heldout_documents": len(heldout.ids),
        "num_heldout_tokens": len(heldout.tokens),
        "num_heldout_bytes": int(heldout.num_bytes.sum()),
        "num_samples": len(answered) + len(continuations),
        "scores": _headline(results),
        "seconds": seconds,
    }


def _check_same_vocabulary(base: Decoder, other: Decoder, name: str) -> None:
    sizes = base.config.vocab_size, other.config.vocab_size
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"against: {name} has a vocabulary of {sizes[1]:,} tokens and the model {sizes[0]:,}, so they do not read "
            "the same tokens. Compare models of one tokenizer."
        )


def _trained_context(pretrained: Path, model: Decoder) -> int:
    """The longest even context that pre-training showed the model: positions beyond it are unknown to it."""
    plan = pretrained / "plan.json"
    length: int = read_json(plan)["sequence_length"] if plan.exists() else model.config.max_seq_len
    return length // 2 * 2


def _ngrams(
    orders: Sequence[int], packed: PackedTokens, heldout: Heldout, tokenizer: Tokenizer
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Nats per document of each n-gram model, and the content of ngram.json."""
    from diglot.evaluate.heldout import training_tokens
    from diglot.evaluate.ngram import VARIANT, KneserNey
    from diglot.evaluate.ngram_counts import count_ngrams

    tokens, starts = training_tokens(packed)
    counts = count_ngrams(
        tokens, starts, vocab_size=tokenizer.vocab_size, end_id=tokenizer.eos_id, max_order=max(orders)
    )
    nats, models = {}, {}
    for order in sorted(set(orders)):
        model = KneserNey(counts, order)
        nats[f"ngram-{order}"] = heldout.per_document(model.nats(heldout.tokens, heldout.starts))
        models[f"ngram-{order}"] = model.describe()
    return nats, {
        "variant": VARIANT,
        "vocab_size": counts.vocab_size,
        "num_training_tokens": counts.num_tokens,
        "num_training_documents": counts.num_documents,
        "models": models,
    }


def _model_nats(
    model: Decoder, name: str, heldout: Heldout, tokenizer: Tokenizer, window: int, context: StepContext
) -> NDArray[np.float64]:
    from diglot.evaluate.bits_per_byte import document_nats

    with context.progress.bar(f"{context.step}: {name} model on held-out documents", unit="tokens") as bar:
        return document_nats(
            model, heldout.tokens, heldout.starts, end_id=tokenizer.eos_id, context=window, advance=bar.advance
        )


def _headline(results: Sequence[EvalResult]) -> dict[str, dict[str, float]]:
    """Task and language -> model -> value, over all sources."""
    found: dict[str, dict[str, float]] = {}
    for result in results:
        if result.source is None:
            found.setdefault(f"{result.task}.{result.language}", {})[result.model] = result.value
    return found


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - started, 2)


STEP = StepKind(kind="evaluate", version=1, config=EvaluateConfig, run=evaluate, draws_random_numbers=True)
