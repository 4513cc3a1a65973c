"""Recipe step `train_tokenizer`: learn a vocabulary from the training documents and say how well it fits each language.

Writes tokenizer.json, tokenizer_config.json, special_tokens.json, tokenizer.model (SentencePiece) and
tokenizer_report.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError
from diglot.steps.context import StepContext, StepKind, input_step
from diglot.tokenizer.training import TrainingSettings

if TYPE_CHECKING:
    from diglot.ledger.artifact import Artifact
    from diglot.tokenizer.tokenizer import Tokenizer

ROWS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig:
    """The vocabulary and the sample that it is learned from. Defaults are MAP-Neo's except for the size."""

    from_: str = input_step("split", "decontaminate")
    vocab_size: int = 8192
    character_coverage: float = 0.9999
    max_piece_chars: int = 16
    max_sentence_bytes: int = 64_000
    alpha: float = 0.3  # a language's share of the sample goes with its bytes ** alpha; XLM-R
    shares: Mapping[str, float] = field(default_factory=dict)  # language -> share of the sample; replaces alpha
    sample_bytes: int = 256_000_000  # ours: more text changes the merges of 64,000 pieces little and takes memory
    max_copies: float = 8.0  # ours: how often a document may be shown to lift a small language
    report_bytes: int = 2_000_000  # of each language's documents, to measure the fit on

    def __post_init__(self) -> None:
        self.settings()
        if not 0 <= self.alpha <= 1:
            raise ConfigError(
                f"alpha = {self.alpha}, outside [0, 1]: 0 gives all languages the same bytes, 1 changes nothing."
            )
        if bad := [lang for lang, share in self.shares.items() if not share > 0]:
            raise ConfigError(
                f"shares of {', '.join(sorted(bad))} are not above 0. Leave shares out, or make them positive."
            )
        if min(self.sample_bytes, self.report_bytes) < 1 or self.max_copies < 1:
            raise ConfigError("sample_bytes, report_bytes and max_copies must be at least 1.")

    def settings(self) -> TrainingSettings:
        return TrainingSettings(
            vocab_size=self.vocab_size,
            character_coverage=self.character_coverage,
            max_piece_chars=self.max_piece_chars,
            max_sentence_bytes=self.max_sentence_bytes,
        )


def train_tokenizer(config: TrainTokenizerConfig, context: StepContext) -> dict[str, Any]:
    """Sample the training documents, train, write the files, measure."""
    from diglot.core.storage import write_json
    from diglot.tokenizer.export import write_tokenizer
    from diglot.tokenizer.sampling import checked_shares, copies_per_document, language_shares
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.tokenizer.training import train_vocabulary

    corpus, started = context.input(), time.monotonic()
    num_bytes = _bytes_by_language(corpus)
    shares = checked_shares(config.shares, num_bytes) if config.shares else language_shares(num_bytes, config.alpha)
    copies = copies_per_document(num_bytes, shares, sample_bytes=config.sample_bytes, max_copies=config.max_copies)
    context.progress.say(
        f"  {context.step}: {config.vocab_size:,} tokens from {sum(num_bytes.values()):,} bytes of text"
    )
    vocabulary, model = train_vocabulary(_sample(corpus, copies, context.seed), config.settings())
    write_tokenizer(context.out, vocabulary, model)
    seconds_training = time.monotonic() - started

    report = {
        "vocab_size": len(vocabulary),
        "sample": {
            lang: {"bytes": num_bytes[lang], "share": round(shares[lang], 6), "copies": round(copies[lang], 6)}
            for lang in sorted(shares)
        },
        **_measure(Tokenizer.load(context.out), corpus, config.report_bytes),
    }
    write_json(context.out / "tokenizer_report.json", report)
    return {
        "vocab_size": len(vocabulary),
        "languages": {lang: entry["fit"] for lang, entry in report["languages"].items()},
        "num_unused_pieces": report["num_unused_pieces"],
        "seconds": {
            "train": round(seconds_training, 3),
            "measure": round(time.monotonic() - started - seconds_training, 3),
        },
    }


def _bytes_by_language(corpus: Artifact) -> dict[str, int]:
    """UTF-8 bytes of the training documents, by identified language."""
    import pyarrow.compute as pc

    totals: dict[str, int] = {}
    for lang, texts in _texts(corpus, "train"):
        totals[lang] = totals.get(lang, 0) + (pc.sum(pc.binary_length(texts["text"])).as_py() or 0)
    return totals


def _texts(corpus: Artifact, split: str) -> Iterator[tuple[str, Any]]:
    """(language, table of `id` and `text`) for each shard and language of a split, in a fixed order."""
    import pyarrow.compute as pc

    from diglot.corpus.splits import split_documents

    for _, table in split_documents(corpus, split, ["id", "text"]):
        lang = pc.fill_null(table["decided_lang"], "und")
        for name in sorted(pc.unique(lang).to_pylist()):
            yield name, table.filter(pc.equal(lang, name)).select(["id", "text"])


def _sample(corpus: Artifact, copies: Mapping[str, float], seed: int) -> Iterator[str]:
    """The texts to train on, each as often as its language and its lot say; a pure function of the ids and the seed."""
    from diglot.core.seeds import derive_seed
    from diglot.tokenizer.sampling import num_copies

    for lang, table in _texts(corpus, "train"):
        if lang not in copies:  # a language of empty documents
            continue
        for row, document in enumerate(table["id"].to_pylist()):
            lot = derive_seed(seed, "train_tokenizer", document) / 2**63
            for _ in range(num_copies(copies[lang], lot)):
                yield table["text"][row].as_py()


def _measure(tokenizer: Tokenizer, corpus: Artifact, report_bytes: int) -> dict[str, Any]:
    """The fit per language, on held-out documents where it has some; the vocabulary's scripts and its unused pieces."""
    from diglot.tokenizer.measure import fit, token_counts, unused_pieces, vocabulary_by_script

    heldout, train = (_first_texts(corpus, split, report_bytes) for split in ("heldout", "train"))
    languages = {}
    for lang in sorted(train.keys() | heldout.keys()):
        split = "heldout" if heldout.get(lang) else "train"
        texts = (heldout if split == "heldout" else train)[lang]
        languages[lang] = {"measured_on": split, "fit": fit(texts, tokenizer.encode_batch(texts)).to_dict()}
    unused = unused_pieces(tokenizer.vocabulary, token_counts(tokenizer, _batches(corpus)))
    return {
        "languages": languages,
        "vocabulary_by_script": {s: round(share, 6) for s, share in vocabulary_by_script(tokenizer.vocabulary).items()},
        "num_unused_pieces": len(unused),
        "unused_pieces": unused,  # in the training documents
    }


def _first_texts(corpus: Artifact, split: str, max_bytes: int) -> dict[str, list[str]]:
    """Each language's first documents, until they have `max_bytes`."""
    found: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for lang, table in _texts(corpus, split):
        for text in table["text"]:
            if sizes.get(lang, 0) >= max_bytes:
                break
            found.setdefault(lang, []).append(text.as_py())
            sizes[lang] = sizes.get(lang, 0) + len(found[lang][-1].encode())
    return found


def _batches(corpus: Artifact) -> Iterator[list[str]]:
    for _, table in _texts(corpus, "train"):
        for first in range(0, len(table), ROWS_PER_BATCH):
            yield table["text"].slice(first, ROWS_PER_BATCH).to_pylist()


STEP = StepKind(
    kind="train_tokenizer", version=1, config=TrainTokenizerConfig, run=train_tokenizer, draws_random_numbers=True
)
