"""One shard of ingestion: input files in, rows of the documents table and a list of refusals out.

Every record that is read has one fate: a row, or a line in the refusals with its reason. A page without main text
is a row too; dropping it is a later decision, with its reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from diglot.core.storage import atomic_path, write_text
from diglot.corpus.charset import decode
from diglot.corpus.executor import Quarantine
from diglot.corpus.extractors import DEFAULT, extractor
from diglot.corpus.finished import once, record_path
from diglot.corpus.read.declared import language_in_path, language_tag
from diglot.corpus.read.formats import READERS, read
from diglot.corpus.read.record import Limits, Reached, Record, Refused, SourceFile
from diglot.corpus.tables import COMPRESSION, DOCUMENT, ROW_GROUP

BATCH_BYTES = 64 << 20  # text held in memory before a row group is written, however few documents it is
PLACE = struct.Struct("<qq")  # number of a file, records read of it
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell half a character; no file can hold it


@dataclass(frozen=True, kw_only=True)
class IngestTask:
    """One shard: its input files, and where its documents go.

    out: `documents/<source>/<name>.parquet`; further parts, when the text exceeds `part_bytes`, are `<name>-001` ...
    last_id: documents with a larger id are left out (a deterministic subset); None keeps all.
    skip: numbers of the records that kill a worker; they are refused.
    cut: (number of a file, how many of its records to take) where reading the next one kills a worker; what is left of
        the file is one refusal.
    extractor: of the main text of HTML pages, see `diglot.corpus.extractors`.
    """

    source: str
    license: str | None
    files: tuple[SourceFile, ...]
    out: Path
    limits: Limits
    part_bytes: int
    declared_languages: bool = True
    last_id: str | None = None
    skip: tuple[int, ...] = ()
    cut: tuple[tuple[int, int], ...] = ()
    extractor: str = DEFAULT


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A record or refusal with the file it is from and the id that it has as a document."""

    id: str
    file: SourceFile
    content: Record | Refused


def document_id(source: str, container: str, offset: int, repetition: int = 0) -> str:
    """xxh3-128 of a document's place: 32 hex digits that do not depend on where the source's folder is.

    repetition: 0, 1, ... for records at the same offset (of one compressed block).
    """
    key = "\0".join([source, container, str(offset), *([str(repetition)] if repetition else [])])
    return xxhash.xxh3_128_hexdigest(key.encode("utf-8", "surrogateescape"))


def entries(task: IngestTask, reached: list[Reached] | None = None) -> Iterator[Entry]:
    """Everything that is read for this shard, in order, without the documents beyond `last_id`.

    reached: is given what the readers of spans say of their borders.
    """
    for index, file in enumerate(task.files):
        seen: Counter[int] = Counter()
        for content in _contents(task, index):
            if isinstance(content, Reached):
                if reached is not None:
                    reached.append(content)
                continue
            number = seen[content.offset]
            seen[content.offset] += 1
            id = document_id(file.source, file.container, content.offset, number)
            if isinstance(content, Refused) or task.last_id is None or id <= task.last_id:
                yield Entry(id=id, file=file, content=content)


def _contents(task: IngestTask, index: int) -> Iterator[Record | Refused | Reached]:
    """What the reader of one file says, up to where it is cut."""
    contents = read(task.files[index], task.limits)
    limit = min((records for file, records in task.cut if file == index), default=None)
    if limit is None:
        yield from contents
        return
    offset = 0
    for content in itertools.islice(contents, limit):
        offset = offset if isinstance(content, Reached) else content.offset
        yield content
    yield Refused(
        reason="crash", offset=offset, url=task.files[index].url, detail="reading on kills the worker; the rest is lost"
    )


def ingest_shard(task: IngestTask) -> dict[str, Any]:
    """Read the shard's files and write its documents and refusals, unless that is done. Returns counts."""
    inputs = [
        (file.container, file.size, file.format, *((file.span, file.exact) if file.span else ()), *file.fields)
        for file in task.files
    ]
    settings = (inputs, task.last_id, task.skip, task.cut, task.extractor)
    key = xxhash.xxh3_64_hexdigest(repr(settings).encode("utf-8", "surrogateescape"))
    result: dict[str, Any] = once(record_path(task.out), key, lambda: _write(task))
    return result


def num_input_bytes(task: IngestTask) -> int:
    """Bytes that the shard's files take, as they are stored."""
    return sum(_size(file) for file in task.files)


def refusals_path(out: Path) -> Path:
    """Where a shard keeps its refusals until they are gathered; hidden, so it is not a file of the artifact."""
    return out.with_name(f".{out.stem}.refused.jsonl")


def row_of(
    entry: Entry,
    record: Record,
    license: str | None,
    declared_languages: bool = True,
    extractor_name: str = DEFAULT,
) -> dict[str, Any]:
    """A record as a row of the documents table: decoded, extracted, with what it says about itself.

    `meta` names the extractor where it is not the default.
    """
    meta: dict[str, Any] = dict(record.meta)
    text, charset, undecodable = _text(record)
    lang = language_tag(record.lang)
    if record.is_html:
        page = extractor(extractor_name)(text if text.isascii() else SURROGATE.sub("\ufffd", text))
        text = page.text
        meta |= {"title": page.title, "charset": charset, "html_lang": page.lang, "dropped_chars": page.dropped_chars}
        if extractor_name != DEFAULT:
            meta |= {"extractor": extractor_name, "extraction": page.note}
        lang = language_tag(page.lang) or lang
    elif charset:
        meta["charset"] = charset
    if undecodable:
        meta["undecodable_bytes"] = undecodable
    lang = lang or language_in_path(record.url or entry.file.container) or language_in_path(entry.file.source + "/")
    return {
        "id": entry.id,
        "text": sound(text),
        "url": _sound(record.url),
        "source": entry.file.source,
        "lang": lang if declared_languages else None,
        "date": _sound(record.date),
        "license": _sound(record.license or license),
        "origin": {"container": sound(entry.file.container), "offset": record.offset, "length": record.length},
        "meta": sound(json.dumps({k: v for k, v in meta.items() if v is not None}, ensure_ascii=False, sort_keys=True)),
    }


def sound(text: str) -> str:
    """Text that every file can hold: without zero bytes and half characters, with line feeds as line ends."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        text = text.replace("\0", "")
    text = text.removeprefix("\ufeff")  # a byte order mark that a container kept
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


def _sound(text: str | None) -> str | None:
    return None if text is None else sound(text)


def num_records(task: IngestTask) -> int:
    """How many there are; notes its place on the way, for `cut_off` when reading itself kills this process."""
    place = _place(task)
    place.parent.mkdir(parents=True, exist_ok=True)
    total = 0
    with place.open("wb", buffering=0) as note:
        for index in range(len(task.files)):
            note.seek(0)
            note.write(PLACE.pack(index, 0))
            for number, content in enumerate(_contents(task, index)):
                note.seek(0)
                note.write(PLACE.pack(index, number + 1))
                total += not isinstance(content, Reached)
    place.unlink()
    return total if task.last_id is None else sum(1 for _ in entries(task))


def cut_off(task: IngestTask) -> IngestTask | None:
    """The task without what stands behind the place where `num_records` died; None when nobody knows the place."""
    try:
        index, records = PLACE.unpack(_place(task).read_bytes())
        _place(task).unlink()
    except (OSError, struct.error):
        return None
    if any(file == index and records >= limit for file, limit in task.cut):
        return None
    return dataclasses.replace(task, cut=(*task.cut, (index, records)))


def _place(task: IngestTask) -> Path:
    return task.out.with_name(f".{task.out.stem}.reading")


def probe(task: IngestTask, start: int, stop: int) -> None:
    """Do the work of the records [start, stop) and throw it away, to see whether it survives."""
    for number, entry in enumerate(entries(task)):
        if number >= stop:
            return
        if number >= start and number not in task.skip and isinstance(entry.content, Record):
            row_of(entry, entry.content, None, extractor_name=task.extractor)


def without(task: IngestTask, numbers: tuple[int, ...]) -> IngestTask:
    return dataclasses.replace(task, skip=(*task.skip, *numbers))


QUARANTINE = Quarantine(num_documents=num_records, probe=probe, without=without, cut_off=cut_off)


def list_ids(task: IngestTask) -> list[str]:
    """Ids of what may become documents, without decoding or extracting; for choosing a subset."""
    return [entry.id for entry in entries(task) if isinstance(entry.content, Record)]


def _text(record: Record) -> tuple[str, str | None, int]:
    if isinstance(record.content, str):
        return record.content, None, 0
    decoded = decode(record.content, record.label)
    return decoded.text, decoded.charset, decoded.undecodable


def _write(task: IngestTask) -> tuple[list[Path], dict[str, Any]]:
    refused: list[dict[str, Any]] = []
    declared: Counter[str] = Counter()
    first_date = last_date = None
    reached: list[Reached] = []
    num_documents = num_bytes = 0
    with _PartWriter(task.out, task.part_bytes) as writer:
        for number, entry in enumerate(entries(task, reached)):
            content = entry.content
            if number in task.skip:
                content = Refused(reason="crash", offset=content.offset, detail="killed the worker that read it")
            if isinstance(content, Refused):
                refused.append(_refusal(entry.file, content))
                continue
            row = row_of(entry, content, task.license, task.declared_languages, task.extractor)
            num_documents += 1
            num_bytes += writer.add(row)
            declared[row["lang"] or "none"] += 1
            if date := row["date"]:
                first_date, last_date = min(first_date or date, date), max(last_date or date, date)
    refusals = refusals_path(task.out)
    write_text(refusals, "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in refused))
    return [*writer.paths, refusals], {
        "documents": num_documents,
        "bytes": num_bytes,
        "input_bytes": sum(_size(file) for file in task.files if file.format in READERS),
        "refused": dict(sorted(Counter(line["reason"] for line in refused).items())),
        "declared_languages": dict(sorted(declared.items())),
        "period": [first_date, last_date] if first_date else None,
        "files": [path.name for path in writer.paths],
        "reached": [[place.start, place.end] for place in reached],
    }


def _size(file: SourceFile) -> int:
    """Bytes of the file that are read."""
    return file.span[1] - file.span[0] if file.span else file.size


class _PartWriter:
    """Writes rows to `out`, and to `-001`, `-002` ... beside it when a part holds `part_bytes` of text.

    Memory holds one row group. No row, no file.
    """

    def __init__(self, out: Path, part_bytes: int) -> None:
        self.paths: list[Path] = []
        self._out, self._part_bytes = out, part_bytes
        self._rows: list[dict[str, Any]] = []
        self._in_batch = self._in_part = 0
        self._open = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        with self._open:  # on an error, in here or before, it removes the unfinished part
            if error is not None:
                raise error
            self._flush()
            self._close()

    def add(self, row: dict[str, Any]) -> int:
        """Returns the UTF-8 bytes of the row's text."""
        size = len(row["text"].encode())
        self._rows.append(row)
        self._in_batch += size
        self._in_part += size
        if len(self._rows) == ROW_GROUP or self._in_batch >= BATCH_BYTES:
            self._flush()
            if self._in_part >= self._part_bytes:
                self._close()
        return size

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            suffix = f"-{len(self.paths):03}" if self.paths else ""
            self.paths.append(self._out.with_stem(self._out.stem + suffix))
            self._writer = pq.ParquetWriter(
                self._open.enter_context(atomic_path(self.paths[-1])), DOCUMENT, **COMPRESSION
            )
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=DOCUMENT), row_group_size=ROW_GROUP)
        self._rows, self._in_batch = [], 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._open.close()
            self._writer, self._in_part = None, 0


def _refusal(file: SourceFile, refused: Refused) -> dict[str, Any]:
    fields = {
        "source": file.source,
        "container": file.container,
        "offset": refused.offset,
        "url": refused.url,
        "reason": refused.reason,
        "detail": refused.detail,
    }
    return {key: sound(value) if isinstance(value, str) else value for key, value in fields.items()}
