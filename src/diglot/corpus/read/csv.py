"""CSV and TSV, also compressed: one document a row, the first row names the fields as those of JSON lines.

Rows are found here and only then given to Python's csv module, so that offsets are bytes and a quote that nobody closes
costs its own line and not the rest of the file.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator

from diglot.corpus.charset import decode
from diglot.corpus.read.compression import decompressed
from diglot.corpus.read.jsonl import UTF8_MARK, record_of, renamed
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile

SAMPLE = 1 << 16  # bytes that show the encoding: UTF-8, or a legacy one in which ASCII stays ASCII
DELIMITERS = (",", "\t", ";", "|")
MAX_LOOK_AHEAD = 4  # times the limit, of all looks for the end of a stray quote in a file


def read_csv(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record a row. Offsets count decompressed bytes. Refuses rows with more or fewer fields than the header."""
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_document_bytes))
    header: list[str] = []
    end = 0
    with decompressed(file.path) as stream:
        reader = stream.reader()
        sample = reader.peek(SAMPLE)[:SAMPLE]
        if sample.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in sample[:200]:
            yield Refused(reason="utf_16", detail="save the table as UTF-8")
            return
        charset = decode(sample[: sample.rfind(b"\n") + 1] or sample, None).charset
        delimiter = "\t" if ".tsv" in file.container.lower() else ""
        limit = limits.max_document_bytes
        for offset, row, problem in _rows(_lines(reader, limit), limit, delimiter.encode()):
            end = offset + len(row)
            if problem:
                yield Refused(reason=problem, offset=offset)
                continue
            text = row.removeprefix(UTF8_MARK if offset == 0 else b"").decode(charset, "replace")
            if not header:
                delimiter = delimiter or _delimiter(text)
            try:
                cells = next(csv.reader([text], delimiter=delimiter), [])
            except csv.Error as error:
                yield Refused(reason="invalid_csv", offset=offset, detail=str(error)[:200])
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            elif len(cells) != len(header):
                yield Refused(reason="wrong_fields", offset=offset, detail=f"{len(cells)}, not {len(header)}")
            else:
                fields = dict(zip(header, cells, strict=True))
                yield record_of(renamed(fields, file.fields), offset, len(row))
        if stream.damage:
            yield Refused(reason=stream.damage, offset=end, detail="rows from here on cannot be read")
        elif not header:
            yield Refused(reason="empty", detail="no header")


def _delimiter(header: str) -> str:
    """The one that the header is parted by: a comma wherever there is one."""
    return next((delimiter for delimiter in DELIMITERS if delimiter in header), ",")


def _rows(lines: Iterator[tuple[bytes, int]], limit: int, delimiter: bytes) -> Iterator[tuple[int, bytes, str | None]]:
    """(offset, row, problem) of every row that is not blank; a quoted field may hold line ends.

    A row whose quoted field ends within twice the limit is refused as one. A quote that is not closed by then is taken
    for a stray one: its line is refused and the next one starts a row. Each stray quote costs a look ahead; when
    those have read MAX_LOOK_AHEAD times the limit, rows are single lines. delimiter: empty until a row shows it.
    """
    waiting: deque[tuple[bytes, int]] = deque()
    offset = looked_at = 0
    opening = [mark + b'"' for mark in ([delimiter] if delimiter else [d.encode() for d in DELIMITERS])]

    def next_line() -> tuple[bytes, int]:
        return waiting.popleft() if waiting else next(lines, (b"", 0))

    while (read := next_line())[0]:
        parts, size = [read], read[1]
        quoted = _ends_quoted(read[0], opening, False)
        while quoted and size <= 2 * limit and looked_at <= MAX_LOOK_AHEAD * limit and (read := next_line())[0]:
            parts.append(read)
            size += read[1]
            quoted = _ends_quoted(read[0], opening, True)
        if quoted:
            looked_at += size
            waiting.extendleft(reversed(parts[1:]))
            yield offset, parts[0][0], "unclosed_quote" if parts[0][1] <= limit else "too_large"
            offset += parts[0][1]
            continue
        row = b"".join(line for line, _ in parts)
        if size > limit:
            yield offset, row[:limit], "too_large"
        elif row.strip():
            yield offset, row, None
            if not delimiter:
                delimiter = _delimiter(row.decode("utf-8", "replace")).encode()
                opening = [delimiter + b'"']
        offset += size


def _lines(stream: io.BufferedReader, limit: int) -> Iterator[tuple[bytes, int]]:
    """(line, its bytes): of a line longer than `limit` the start only."""
    while line := stream.readline(limit + 1):
        size = len(line)
        piece = line
        while len(piece) > limit and not piece.endswith(b"\n"):
            piece = stream.readline(limit + 1)
            size += len(piece)
        yield line, size


def _ends_quoted(line: bytes, opening: list[bytes], quoted: bool) -> bool:
    """Whether a quoted field is open at the end of the line; a quote opens one only at the start of a field."""
    position = 0
    if not quoted and line.startswith((b'"', UTF8_MARK + b'"')):
        position, quoted = line.index(b'"') + 1, True
    while True:
        if quoted:
            end = line.find(b'"', position)
            if end < 0:
                return True
            doubled = line[end + 1 : end + 2] == b'"'
            position, quoted = end + 1 + doubled, doubled
            continue
        starts = [at for mark in opening if (at := line.find(mark, position)) >= 0]
        if not starts:
            return False
        position, quoted = min(starts) + 2, True
