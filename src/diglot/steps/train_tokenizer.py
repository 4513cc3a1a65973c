"""Recipe step `train_tokenizer`: learn vocabularies from the training documents and say how well each fits.

Writes a tokenizer folder (tokenizer.json, tokenizer_config.json, special_tokens.json, chat_template.jinja, and
tokenizer.model for SentencePiece), `sizes/<n>/` with one for every other size, `baseline/<n>/` where one is asked for,
and tokenizer_report.json.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError, unknown
from diglot.core.progress import Bar
from diglot.steps.context import Planned, StepContext, StepKind, input_step, runtime
from diglot.tokenizer.presets import overrides, preset
from diglot.tokenizer.training import TrainingSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diglot.corpus.parallel import Parallel
    from diglot.ledger.artifact import Artifact
    from diglot.tokenizer.measure import Encode
    from diglot.tokenizer.sampling import Stratum
    from diglot.tokenizer.sweep import Decode, Workload
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.tokenizer.training import Trained

BYTES_PER_BATCH = 4 << 20  # encoded at once while tokens are counted
SECONDS_BETWEEN_BEATS = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig:
    """The vocabularies and the sample that they are learned from.

    preset: `diglot`, `map-neo` or `map-neo-as-released`; gives the five settings below it their defaults.
    vocab_size: of the tokenizer that the following steps use. vocab_sizes: others to be written and compared.
    alpha: a language's share of the sample goes with its bytes ** alpha. shares: language -> share, instead.
    sources: glob over source names -> weight of the sources it fits, in their languages; the most specific counts, 1
        where none fits. source_alpha: a source's share goes with its weight * bytes ** source_alpha.
    sample_bytes: more text changes the merges of 64,000 pieces little and takes memory. max_copies: how often a
        document may be shown to lift a small language or source.
    report_bytes: of each language's documents, even over its sources, to measure the fit on.
    parallel: sentences with one meaning, a file or a file for each language (see `corpus.parallel`). parallel_fields:
        language -> its field or column.
    baseline: a language; vocabularies of the same sizes are learned from it alone, and compared.
    d_model: width of the model that the report counts embedding parameters for.
    """

    from_: str = input_step("split", "decontaminate")
    preset: str = "diglot"
    vocab_size: int | None = None
    character_coverage: float | None = None
    max_piece_chars: int | None = None
    max_sentence_bytes: int | None = None
    whitespace_pieces: bool | None = None
    vocab_sizes: tuple[int, ...] = ()
    alpha: float = 0.3  # XLM-R
    shares: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, float] = field(default_factory=dict)
    source_alpha: float = 1.0
    sample_bytes: int = 256_000_000
    max_copies: float = 8.0
    report_bytes: int = 2_000_000
    parallel: str | Mapping[str, str] = field(default="", metadata={"result": False})  # its content counts: `observe`
    parallel_fields: Mapping[str, str] = field(default_factory=dict)
    baseline: str | None = None
    d_model: int = runtime(512)

    def __post_init__(self) -> None:
        settings = self.settings()
        for size in self.vocab_sizes:
            replace(settings, vocab_size=size)
        if self.vocab_sizes and self.vocab_size is None:
            raise ConfigError(
                f"vocab_sizes are {_listed(self.vocab_sizes)}, but vocab_size does not say which one the following "
                f"steps use. Set vocab_size, for example to {self.vocab_sizes[-1]}."
            )
        if list(self.vocab_sizes) != sorted(set(self.vocab_sizes)):
            raise ConfigError(
                f"vocab_sizes = {_listed(self.vocab_sizes)}, but sizes must rise, each once. "
                f"Write {_listed(sorted(set(self.vocab_sizes)))}."
            )
        for name in ("alpha", "source_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}, outside [0, 1]: 0 gives all the same bytes, 1 changes nothing."
                )
        if bad := [lang for lang, share in self.shares.items() if not share > 0]:
            raise ConfigError(
                f"shares of {', '.join(sorted(bad))} are not above 0. Leave shares out, or make them positive."
            )
        if bad := [pattern for pattern, weight in self.sources.items() if not 0 <= weight < float("inf")]:
            raise ConfigError(
                f"weights of sources {', '.join(sorted(bad))} are below 0 or no numbers. 0 leaves a source out."
            )
        if min(self.sample_bytes, self.report_bytes, self.d_model) < 1 or self.max_copies < 1:
            raise ConfigError("sample_bytes, report_bytes, d_model and max_copies must be at least 1.")
        if self.parallel_fields and not isinstance(self.parallel, str):
            raise ConfigError("parallel_fields name fields of one file, but parallel has a file for each language.")
        if self.parallel_fields and not self.parallel:
            raise ConfigError("parallel_fields name fields of a file, but parallel is not set.")

    def settings(self) -> TrainingSettings:
        """The preset's settings with those that the recipe sets. Raises ConfigError for an unknown preset."""
        chosen = preset(self.preset).settings
        given = {f.name: getattr(self, f.name, None) for f in fields(chosen)}
        return replace(chosen, **{name: value for name, value in given.items() if value is not None})

    def sizes(self) -> list[int]:
        return sorted({self.settings().vocab_size, *self.vocab_sizes})


def train_tokenizer(config: TrainTokenizerConfig, context: StepContext) -> dict[str, Any]:
    """Sample the training documents, train, write the files, measure."""
    from diglot.core.storage import write_json

    started = time.monotonic()
    corpus, settings = context.input(), config.settings()
    with context.progress.bar(f"{context.step}: count text", unit="shards") as bar:
        num_bytes = _bytes_by_stratum(corpus, "train", bar)
    copies, sample = _balanced(config, num_bytes)
    parallel = _parallel(config, context, sample)
    trained = _train(context, copies, num_bytes, settings, config.sizes())
    folders = {size: _folder(context.out, size, settings.vocab_size) for size in trained}
    for size, one in trained.items():
        _write(folders[size], one, settings.dummy_prefix)
    baselines = _train_baseline(config, context, num_bytes) if config.baseline else {}
    seconds_training = time.monotonic() - started

    workload = _workload(config, context, num_bytes, parallel)
    sweep = [
        _measure(config, context, workload, copies, size, folder, baselines.get(size))
        for size, folder in folders.items()
    ]
    main = sweep[config.sizes().index(settings.vocab_size)]
    report = {
        "vocab_size": settings.vocab_size,
        "preset": _preset_record(config),
        "sample": sample,
        **{name: main[name] for name in MAIN},
        "parallel_left_out": parallel.num_left_out if parallel else 0,
        "baseline": config.baseline,
        "sweep": [{name: value for name, value in entry.items() if name != "unused_pieces"} for entry in sweep],
    }
    write_json(context.out / "tokenizer_report.json", report)
    _say_table(config, context, report["sweep"])
    return {
        "vocab_size": settings.vocab_size,
        "vocab_sizes": config.sizes(),
        "languages": {lang: entry["fit"] for lang, entry in main["languages"].items()},
        "num_unused_pieces": main["num_unused_pieces"],
        "tokens_against": {lang: found["tokens_against"] for lang, found in main["parallel"].items()},
        "against_baseline": main["against_baseline"],
        "seconds": {
            "train": round(seconds_training, 3),
            "measure": round(time.monotonic() - started - seconds_training, 3),
        },
    }


# What the report says of the size that the following steps use, besides the sweep.
MAIN = ("languages", "parallel", "vocabulary_by_script", "num_unused_pieces", "unused_pieces")


def observe(config: TrainTokenizerConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """Digests of the parallel sentences, for the fingerprint."""
    from diglot.corpus.parallel import observe_parallel

    return {"parallel": observe_parallel(config.parallel, [recipe_dir, Path.cwd()]) if config.parallel else {}}


def describe(now: Planned, last: Planned | None) -> list[str]:
    """The preset, what the recipe sets otherwise, and the names of the points in which the preset is not MAP-Neo's."""
    config: TrainTokenizerConfig = now.config
    chosen = preset(config.preset)
    lines = [f"preset {config.preset}: {chosen.about}"]
    lines += [
        f"not the preset's {name}: {here} (preset: {there})"
        for name, (here, there) in overrides(config.preset, config.settings()).items()
    ]
    names = ", ".join(deviation.name for deviation in chosen.deviations)
    return [*lines, f"not as MAP-Neo's: {names} (docs/tokenizer.md and tokenizer_report.json say what and why)"]


def _listed(sizes: Iterable[int]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


def _folder(out: Path, size: int, main: int) -> Path:
    return out if size == main else out / "sizes" / str(size)


def _preset_record(config: TrainTokenizerConfig) -> dict[str, Any]:
    chosen = preset(config.preset)
    return {
        "name": config.preset,
        "about": chosen.about,
        "settings": asdict(config.settings()),
        "overrides": [
            {"name": name, "here": here, "preset": there}
            for name, (here, there) in overrides(config.preset, config.settings()).items()
        ],
        "deviations": [asdict(deviation) for deviation in chosen.deviations],
    }


def _bytes_by_stratum(corpus: Artifact, split: str, bar: Bar) -> dict[Stratum, int]:
    """UTF-8 bytes of a split's documents."""
    import pyarrow.compute as pc

    totals: dict[Stratum, int] = {}
    for stratum, table in _texts(corpus, split):
        totals[stratum] = totals.get(stratum, 0) + (pc.sum(pc.binary_length(table["text"])).as_py() or 0)
        bar.advance()
    return totals


def _texts(corpus: Artifact, split: str) -> Iterator[tuple[Stratum, Any]]:
    """(language and source, table of `id` and `text`) for each shard and language of a split, in a fixed order."""
    import pyarrow.compute as pc

    from diglot.corpus.splits import split_documents
    from diglot.tokenizer.sampling import Stratum

    for shard, table in split_documents(corpus, split, ["id", "text"]):
        lang = pc.fill_null(table["decided_lang"], "und")
        for name in sorted(pc.unique(lang).to_pylist()):
            yield Stratum(name, shard.source), table.filter(pc.equal(lang, name)).select(["id", "text"])


def _balanced(
    config: TrainTokenizerConfig, num_bytes: Mapping[Stratum, int]
) -> tuple[dict[Stratum, float], dict[str, Any]]:
    """Copies of a document by language and source, and what the report says of the sample."""
    from diglot.tokenizer.sampling import checked_shares, copies_per_document, language_shares

    by_language: dict[str, int] = {}
    for stratum, size in num_bytes.items():
        by_language[stratum.lang] = by_language.get(stratum.lang, 0) + size
    shares = checked_shares(config.shares, by_language) if config.shares else language_shares(by_language, config.alpha)
    weights = _weights(config, num_bytes)
    copies = copies_per_document(
        num_bytes,
        shares,
        sample_bytes=config.sample_bytes,
        max_copies=config.max_copies,
        weights=weights,
        source_alpha=config.source_alpha,
    )
    shown = {stratum: copies[stratum] * num_bytes[stratum] for stratum in copies}
    sample = {
        lang: {
            "bytes": by_language[lang],
            "share": round(shares[lang], 6),
            "copies": round(sum(shown[s] for s in shown if s.lang == lang) / by_language[lang], 6),
            "sources": {
                stratum.source: {
                    "bytes": num_bytes[stratum],
                    "weight": weights[stratum.source],
                    "copies": round(copies[stratum], 6),
                    "share": round(shown[stratum] / sum(shown.values()), 6),  # of the whole sample, after max_copies
                }
                for stratum in sorted(copies)
                if stratum.lang == lang
            },
        }
        for lang in sorted(shares)
    }
    return copies, sample


def _weights(config: TrainTokenizerConfig, num_bytes: Mapping[Stratum, int]) -> dict[str, float]:
    from diglot.tokenizer.sampling import source_weights

    return source_weights(config.sources, (stratum.source for stratum, size in num_bytes.items() if size))


def _parallel(config: TrainTokenizerConfig, context: StepContext, sample: Mapping[str, Any]) -> Parallel | None:
    """Read before anything is trained, so that a wrong file is known at once."""
    from diglot.corpus.parallel import read_parallel

    if config.baseline and config.baseline not in sample:
        raise unknown("baseline", config.baseline, sample)
    if not config.parallel:
        return None
    languages = sorted(sample, key=lambda lang: (-sample[lang]["bytes"], lang))
    bases = [context.recipe_dir, Path.cwd()]
    return read_parallel(config.parallel, config.parallel_fields, languages, bases)


def _train(
    context: StepContext,
    copies: Mapping[Stratum, float],
    num_bytes: Mapping[Stratum, int],
    settings: TrainingSettings,
    sizes: list[int],
    what: str = "",
) -> dict[int, Trained]:
    from diglot.tokenizer.training import train_vocabularies

    shown = sum(mean * num_bytes[stratum] for stratum, mean in copies.items())
    context.progress.say(f"  {context.step}: {what}{', '.join(f'{n:,}' for n in sizes)} tokens from {shown:,.0f} bytes")
    with context.progress.bar(f"{context.step}: learn", round(shown), "bytes") as bar, _beating(bar) as finished:
        texts = _counted(_sample(context.input(), copies, context.seed), bar, finished)
        return train_vocabularies(texts, settings, sizes)


def _counted(texts: Iterable[str], bar: Bar, finished: Callable[[], None]) -> Iterator[str]:
    for text in texts:
        yield text
        bar.advance(min(len(text.encode()), (bar.total or 0) - bar.done))  # the drawn sample may be a little larger
    finished()


@contextmanager
def _beating(bar: Bar) -> Iterator[Callable[[], None]]:
    """Keeps the bar alive while the trainer joins pieces, of which it says nothing. Yields what tells that it began."""
    began, done = threading.Event(), threading.Event()

    def beat() -> None:
        began.wait()
        start = time.monotonic()
        while not done.wait(SECONDS_BETWEEN_BEATS):
            bar.advance(0, note=f"all text read; joining pieces, {time.monotonic() - start:.0f} s")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield began.set
    finally:
        done.set()
        began.set()
        thread.join()


def _sample(corpus: Artifact, copies: Mapping[Stratum, float], seed: int) -> Iterator[str]:
    """The texts to train on, each as often as its stratum and its lot say; a pure function of the ids and the seed."""
    for text, times in _shown(corpus, copies, seed):
        for _ in range(times):
            yield text


def _shown(corpus: Artifact, copies: Mapping[Stratum, float], seed: int) -> Iterator[tuple[str, int]]:
    """Each text that is shown at all, and how often."""
    from diglot.core.seeds import derive_seed
    from diglot.tokenizer.sampling import num_copies

    for stratum, table in _texts(corpus, "train"):
        if stratum not in copies:  # empty documents, or a language that is not wanted
            continue
        for row, document in enumerate(table["id"].to_pylist()):
            times = num_copies(copies[stratum], derive_seed(seed, "train_tokenizer", document) / 2**63)
            if times:
                yield table["text"][row].as_py(), times


def _write(folder: Path, trained: Trained, dummy_prefix: bool) -> None:
    from diglot.core.storage import write_bytes
    from diglot.tokenizer.export import write_tokenizer

    if dummy_prefix:
        write_bytes(folder / "as_trained.model", trained.as_trained)
    write_tokenizer(folder, trained.vocabulary, trained.model)


def _train_baseline(
    config: TrainTokenizerConfig, context: StepContext, num_bytes: Mapping[Stratum, int]
) -> dict[int, Path]:
    """Folders of vocabularies learned from one language alone, from a sample as large as it allows; by size."""
    from diglot.tokenizer.sampling import copies_per_document

    lang = str(config.baseline)
    copies = copies_per_document(
        {stratum: size for stratum, size in num_bytes.items() if stratum.lang == lang},
        {lang: 1.0},
        sample_bytes=config.sample_bytes,
        max_copies=config.max_copies,
        weights=_weights(config, num_bytes),
        source_alpha=config.source_alpha,
    )
    try:
        trained = _train(context, copies, num_bytes, config.settings(), config.sizes(), f"{lang} alone, ")
    except InputError as error:
        raise InputError(f"baseline {lang}: {error}") from error
    folders = {size: context.out / "baseline" / str(size) for size in trained}
    for size, one in trained.items():
        _write(folders[size], one, config.settings().dummy_prefix)
    return folders


def _workload(
    config: TrainTokenizerConfig, context: StepContext, num_bytes: Mapping[Stratum, int], parallel: Parallel | None
) -> Workload:
    """Held-out documents where a language has some, else training documents."""
    from diglot.tokenizer.sweep import Workload

    corpus = context.input()
    with context.progress.bar(f"{context.step}: choose texts to measure", unit="shards") as bar:
        heldout = _bytes_by_stratum(corpus, "heldout", bar)
        sizes = {"heldout": heldout, "train": num_bytes}
        languages = {stratum.lang for found in sizes.values() for stratum, size in found.items() if size}
        measured_on = {
            lang: "heldout" if any(size for stratum, size in heldout.items() if stratum.lang == lang) else "train"
            for lang in sorted(languages)
        }
        texts: dict[Stratum, list[str]] = {}
        for split, found in sizes.items():
            wanted = {stratum: size for stratum, size in found.items() if measured_on.get(stratum.lang) == split}
            texts |= _first_texts(corpus, split, wanted, config.report_bytes)
    return Workload(texts=texts, measured_on=measured_on, sentences=parallel.sentences if parallel else {})


def _first_texts(
    corpus: Artifact, split: str, num_bytes: Mapping[Stratum, int], max_bytes: int
) -> dict[Stratum, list[str]]:
    """The beginning of each stratum, `max_bytes` for each language, even over its sources; the last text may be cut."""
    from diglot.tokenizer.sampling import even_budgets

    left: dict[Stratum, int] = {}
    for lang in {stratum.lang for stratum in num_bytes}:
        left |= even_budgets({s: size for s, size in num_bytes.items() if s.lang == lang}, max_bytes)
    texts: dict[Stratum, list[str]] = {}
    for stratum, table in _texts(corpus, split):
        for text in table["text"]:
            if left.get(stratum, 0) <= 0:
                break
            utf8 = text.as_py().encode()
            texts.setdefault(stratum, []).append(utf8[: left[stratum]].decode(errors="ignore"))
            left[stratum] -= len(utf8)
    return texts


def _measure(
    config: TrainTokenizerConfig,
    context: StepContext,
    workload: Workload,
    copies: Mapping[Stratum, float],
    size: int,
    folder: Path,
    baseline: Path | None,
) -> dict[str, Any]:
    """One entry of the sweep."""
    from diglot.tokenizer.measure import unused_pieces, vocabulary_by_script
    from diglot.tokenizer.sweep import against
    from diglot.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    found = _measured(context, workload, f"measure {size:,}", tokenizer.encode_batch, tokenizer.decode)
    theirs = None
    if baseline:
        alone = Tokenizer.load(baseline)
        theirs = _measured(context, workload, f"measure {config.baseline} {size:,}", alone.encode_batch, alone.decode)
    unused = unused_pieces(tokenizer.vocabulary, _counts(context, copies, tokenizer))
    return {
        "vocab_size": size,
        "folder": str(folder.relative_to(context.out)),
        **found,
        "vocabulary_by_script": {s: round(share, 6) for s, share in vocabulary_by_script(tokenizer.vocabulary).items()},
        "num_unused_pieces": len(unused),
        "unused_share": round(len(unused) / size, 6),
        "unused_pieces": unused,  # in the documents that were learned from
        "d_model": config.d_model,
        "embedding_parameters": size * config.d_model,
        "baseline": theirs,
        "against_baseline": against(found, theirs) if theirs else {},
        "as_trained": _measure_as_trained(context, workload, folder) if config.settings().dummy_prefix else None,
    }


def _counts(context: StepContext, copies: Mapping[Stratum, float], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """How often each token occurs in the documents that were learned from, each read once."""
    import numpy as np

    from diglot.tokenizer.measure import token_counts

    counts = np.zeros(tokenizer.vocab_size, np.int64)
    with context.progress.bar(f"{context.step}: use of {tokenizer.vocab_size:,} tokens", unit="documents") as bar:
        for texts in _batches(text for text, _ in _shown(context.input(), copies, context.seed)):
            counts += token_counts(tokenizer.encode_batch(texts), tokenizer.vocab_size)
            bar.advance(len(texts))
    return counts


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_bytes = 0
    for text in texts:
        batch.append(text)
        num_bytes += len(text.encode())
        if num_bytes >= BYTES_PER_BATCH:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _measure_as_trained(context: StepContext, workload: Workload, folder: Path) -> dict[str, Any]:
    """The model as the trainer wrote it, which adds a space before every text, run by SentencePiece."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "as_trained.model"))
    found = _measured(context, workload, "measure as trained", model.encode, model.decode)
    return {"file": "as_trained.model", **found}


def _measured(context: StepContext, workload: Workload, what: str, encode: Encode, decode: Decode) -> dict[str, Any]:
    from diglot.tokenizer.sweep import measured

    with context.progress.bar(f"{context.step}: {what}", unit="texts") as bar:

        def counted(texts: Sequence[str]) -> Sequence[Sequence[int]]:
            encoded = encode(texts)
            bar.advance(len(texts))
            return encoded

        return measured(workload, counted, decode)


def _say_table(config: TrainTokenizerConfig, context: StepContext, sweep: list[dict[str, Any]]) -> None:
    from diglot.tokenizer.sweep import table

    for line in table(sweep, config.baseline):
        context.progress.say(line)


STEP = StepKind(
    kind="train_tokenizer",
    version=2,
    config=TrainTokenizerConfig,
    run=train_tokenizer,
    draws_random_numbers=True,
    observe=observe,
    describe=describe,
)
