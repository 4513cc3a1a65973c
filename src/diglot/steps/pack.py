"""Recipe step `pack`: documents to token streams (`diglot.corpus.pack` describes the files).

Shards are encoded in parallel into parts; then the parts of each stream are joined in shard order, so the number of
workers changes nothing. A run that was killed goes on with the shards that have no part yet.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diglot.core.errors import ConfigError, InputError
from diglot.steps.context import StepContext, StepKind, input_step

if TYPE_CHECKING:
    from diglot.corpus.tables import Shard
    from diglot.ledger.artifact import Artifact
    from diglot.tokenizer.encoding import TokenArrays
    from diglot.tokenizer.tokenizer import Tokenizer

ROWS_PER_BATCH = 256  # documents encoded at once


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Which documents become tokens, and with which tokenizer."""

    from_: str = input_step("split", "decontaminate")
    tokenizer: str = input_step("train_tokenizer", "import_model")
    check_every: int = 16  # every n-th document of a shard is decoded and compared with its text

    def __post_init__(self) -> None:
        if self.check_every < 1:
            raise ConfigError(f"check_every = {self.check_every}; set 1 to compare every document, or a larger number.")


def pack(config: PackConfig, context: StepContext) -> dict[str, Any]:
    """Encode every kept document into the streams of its split."""
    from diglot.core.storage import write_json
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import shards

    corpus, tokenizer = context.input(), context.input("tokenizer")
    parts, documents = context.out / "parts", corpus.upstream("ingest").path / "documents"
    tasks = [
        PackTask(corpus=corpus, shard=shard, tokenizer=tokenizer.path, parts=parts, check_every=config.check_every)
        for shard in shards(corpus.upstream("ingest"))
    ]
    started = time.monotonic()
    found = [
        part
        for shard_parts in map_shards(
            pack_shard,
            tasks,
            workers=context.workers,
            progress=context.progress,
            label=context.step,
            num_bytes=lambda task: (documents / task.shard.file).stat().st_size,
        )
        for part in shard_parts
    ]
    seconds_encoding = time.monotonic() - started
    streams = [
        _join(context.out, parts, key, members) for key, members in sorted(_by_stream(Part(**p) for p in found).items())
    ]
    write_json(context.out / "streams.json", streams)
    shutil.rmtree(parts, ignore_errors=True)
    num_checked = sum(part["num_checked"] for part in found)
    return _counts(streams) | {
        "round_trip": {"checked_documents": num_checked, "mismatches": sum(part["num_changed"] for part in found)},
        "seconds": {
            "encode": round(seconds_encoding, 3),
            "join": round(time.monotonic() - started - seconds_encoding, 3),
        },
    }


class StreamKey(NamedTuple):
    """What names a stream; in this order streams are listed."""

    split: str
    source: str
    lang: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """The documents of one shard that belong to one stream."""

    split: str
    source: str
    lang: str
    file: str  # relative to the parts folder, without suffix
    dtype: str
    vocab_size: int
    num_documents: int
    num_checked: int
    num_changed: int  # of those checked, by a tokenizer that others made and that normalises; ours changes none


@dataclass(frozen=True, kw_only=True)
class PackTask:
    """One shard to encode."""

    corpus: Artifact
    shard: Shard
    tokenizer: Path
    parts: Path
    check_every: int


def pack_shard(task: PackTask) -> list[dict[str, Any]]:
    """Write the parts of one shard, or find them written; returns their `Part` fields."""
    from diglot.corpus.finished import once

    record = task.parts / task.shard.source / f".{task.shard.name}.done.json"
    result: list[dict[str, Any]] = once(record, task.tokenizer.name, lambda: _encode_shard(task))
    return result


def _encode_shard(task: PackTask) -> tuple[list[Path], list[dict[str, Any]]]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from diglot.core.storage import atomic_path
    from diglot.corpus.pack import token_dtype
    from diglot.corpus.tables import write_table

    tokenizer = _tokenizer(task.tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    files, parts = [], []
    for (split, lang), table in sorted(_documents(task.corpus, task.shard).items()):
        name = f"{task.shard.source}/{task.shard.name}.{split}.{lang}"
        tokens, documents = task.parts / f"{name}.bin", task.parts / f"{name}.parquet"
        lengths: list[int] = []
        num_changed = 0
        with atomic_path(tokens) as partial, partial.open("wb") as stream:
            for first in range(0, len(table), ROWS_PER_BATCH):
                batch = table.slice(first, ROWS_PER_BATCH)
                encoded, changed = _encode(tokenizer, batch, first, task.check_every)
                num_changed += changed
                lengths.extend(np.diff(encoded.offsets).tolist())
                stream.write(_as_bytes(encoded.tokens, dtype, tokenizer.vocab_size))
        num_bytes = pc.cast(pc.binary_length(table["text"]), pa.int64())
        write_table(documents, pa.table({"id": table["id"], "num_tokens": lengths, "num_bytes": num_bytes}))
        files += [tokens, documents]
        parts.append(
            {
                "split": split,
                "source": task.shard.source,
                "lang": lang,
                "file": name,
                "dtype": dtype,
                "vocab_size": tokenizer.vocab_size,
                "num_documents": len(table),
                "num_checked": len(range(0, len(table), task.check_every)),
                "num_changed": num_changed,
            }
        )
    return files, parts


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    """Once for a process: its tables take as long to make as some megabytes to encode."""
    from diglot.tokenizer.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def _documents(corpus: Artifact, shard: Shard) -> dict[tuple[str, str], Any]:
    """(split, language) -> table of `id` and `text`, the kept documents of one shard in order."""
    import pyarrow.compute as pc

    from diglot.corpus.tables import decisions_of, documents_of, read_table

    verdicts = decisions_of(corpus, shard, ["keep", "lang"])
    held_out = read_table(corpus.upstream("split").path / "heldout" / shard.file, ["held_out"])["held_out"]
    lang = pc.fill_null(verdicts["lang"], "und")  # BCP 47: undetermined
    table = documents_of(corpus, shard, ["id", "text"])
    found = {}
    for split, chosen in (("train", pc.invert(held_out)), ("heldout", held_out)):
        mine = pc.and_(verdicts["keep"], chosen)
        for name in pc.unique(lang.filter(mine)).to_pylist():
            found[split, name] = table.filter(pc.and_(mine, pc.equal(lang, name)))
    return found


def _encode(tokenizer: Tokenizer, batch: Any, first_row: int, check_every: int) -> tuple[TokenArrays, int]:
    """The tokens of each document with the document end, and how many of those decoded again differ from their text.

    Raises: InputError when one differs and the tokenizer is our own, which never changes a text.
    """
    import numpy as np

    from diglot.tokenizer.encoding import TokenArrays

    texts, num_changed = batch["text"].to_pylist(), 0
    tokens, offsets = tokenizer.encode_arrays(texts, threads=False)  # there is a process per core already
    for row in range(-first_row % check_every, len(texts), check_every):
        decoded = tokenizer.decode(tokens[offsets[row] : offsets[row + 1]].tolist())
        if decoded == texts[row]:
            continue
        num_changed += 1
        if tokenizer.is_exact:
            at = next((i for i, (a, b) in enumerate(zip(decoded, texts[row], strict=False)) if a != b), len(decoded))
            raise InputError(
                f"document {batch['id'][row]} does not survive encoding: at character {at} "
                f"{texts[row][at : at + 20]!r} came back as {decoded[at : at + 20]!r}. "
                "Delete the tokenizer's artifact and run the recipe again."
            )
    ended = np.insert(tokens, offsets[1:], tokenizer.eos_id)
    return TokenArrays(ended, offsets + np.arange(len(offsets))), num_changed


def _as_bytes(tokens: Any, dtype: str, vocab_size: int) -> bytes:
    """Token ids in the files' type. Raises InputError for an id that the vocabulary does not have."""
    import numpy as np

    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise InputError(
            f"the tokenizer gave ids from {tokens.min()} to {tokens.max()}, but it has {vocab_size}. "
            "Its files do not belong together: delete its artifact and run the recipe again."
        )
    written: bytes = tokens.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return written


def _by_stream(parts: Iterable[Part]) -> dict[StreamKey, list[Part]]:
    """The parts of each stream, in shard order, which is the order they come in."""
    found: dict[StreamKey, list[Part]] = {}
    for part in parts:
        found.setdefault(StreamKey(part.split, part.source, part.lang), []).append(part)
    return found


def _join(out: Path, parts: Path, key: StreamKey, members: Sequence[Part]) -> dict[str, Any]:
    """Write one stream's two files from its parts; returns its record for streams.json."""
    import numpy as np
    import pyarrow as pa

    from diglot.core.storage import atomic_path
    from diglot.corpus.pack import DOCUMENTS, document_file, stream_name, token_file
    from diglot.corpus.tables import read_table, write_table

    name = stream_name(key.source, key.lang)
    table = pa.concat_tables(read_table(parts / f"{part.file}.parquet") for part in members)
    num_tokens = table["num_tokens"].to_numpy()
    starts = pa.array(np.cumsum(num_tokens) - num_tokens)
    write_table(document_file(out, key.split, name), table.append_column("start", starts).select(DOCUMENTS.names))
    with atomic_path(token_file(out, key.split, name)) as partial, partial.open("wb") as stream:
        for part in members:
            with (parts / f"{part.file}.bin").open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)
    return {
        "split": key.split,
        "stream": name,
        "source": key.source,
        "lang": key.lang,
        "num_tokens": int(num_tokens.sum()),
        "num_documents": len(table),
        "num_bytes": int(table["num_bytes"].to_numpy().sum()),
        "dtype": members[0].dtype,
        "vocab_size": members[0].vocab_size,
    }


def _counts(streams: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Documents, bytes and tokens by split and language."""
    counts: dict[str, Any] = {"streams": len(streams)}
    for split in ("train", "heldout"):
        by_lang: dict[str, dict[str, Any]] = {}
        for record in (record for record in streams if record["split"] == split):
            total = by_lang.setdefault(record["lang"], {"documents": 0, "bytes": 0, "tokens": 0})
            for field in total:
                total[field] += record[f"num_{field}"]
        counts[split] = {
            field: sum(total[field] for total in by_lang.values()) for field in ("documents", "bytes", "tokens")
        }
        counts[split]["languages"] = by_lang
    if not counts["train"]["documents"]:
        raise InputError("no document is left to train on: every one was dropped or held out. Look at the report.")
    return counts


STEP = StepKind(kind="pack", version=1, config=PackConfig, run=pack, shards_divide=True)
