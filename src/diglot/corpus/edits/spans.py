"""Spans: how an edit is recorded, how proposals that overlap become one list, and how a text is read with them applied.

Offsets are UTF-8 bytes of the text that the edit step read, which is the original when no other edit step stands above
it. The spans of a document are sorted and do not overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

SPAN = pa.struct(
    [
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("rule", pa.string()),  # the edit, or edit/kind: `links`, `pii/email`, `lines/javascript`
        ("replacement", pa.string()),  # empty: deleted
        ("first_in", pa.string()),  # id of the document that has the same text first; null for other edits
    ]
)
EDITED = pa.schema([("id", pa.string()), ("spans", pa.list_(SPAN))])
MAX_TEXT_BYTES = 2**31 - 1  # what an offset can count


class Span(NamedTuple):
    """Bytes [start, stop) of one document that are replaced."""

    start: int
    stop: int
    rule: str
    replacement: str = ""
    first_in: str | None = None


def merge(proposals: Sequence[Span], num_bytes: int) -> list[Span]:
    """One list of spans from the proposals of all edits: sorted, not overlapping, joined where they touch.

    A deletion outranks a replacement, so that a paragraph that goes does not leave a placeholder behind; among equals
    the proposal that stands first gets the bytes and the credit. Of a replacement that is partly deleted the rest is
    still replaced: half a telephone number is not left standing.

    Args:
        proposals: in the order of `EDITS`; each inside [0, num_bytes) and not empty.
        num_bytes: of the text.
    """
    if not proposals:
        return []
    ranked = sorted(range(len(proposals)), key=lambda number: (proposals[number].replacement != "", number))
    owner = np.full(num_bytes, -1, np.int32)
    for number in reversed(ranked):  # what ranks higher is painted over what ranks lower
        owner[proposals[number].start : proposals[number].stop] = number
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(owner)) + 1, [num_bytes]]).tolist()
    merged: list[Span] = []
    placed: set[int] = set()
    for start, stop in itertools.pairwise(cuts):
        number = int(owner[start]) if start < num_bytes else -1
        if number < 0:
            continue
        span = proposals[number]._replace(start=start, stop=stop)
        if number in placed:  # its replacement stands already, before a deletion in its middle
            span = span._replace(replacement="")
        placed.add(number)
        last = merged[-1] if merged else None
        if last and last.stop == start and (last.rule, last.first_in) == (span.rule, span.first_in):
            merged[-1] = last._replace(stop=stop, replacement=last.replacement + span.replacement)
        else:
            merged.append(span)
    return merged


def within_line(text: bytes, start: int, stop: int) -> tuple[int, int]:
    """The range without the line feed at its end, unless it begins a line: what stays must not join the next line."""
    if start > 0 and text[start - 1] != 10 and text[stop - 1] == 10:
        stop -= 1
    return start, stop


def apply(text: str, spans: Iterable[Span]) -> str:
    """The edited text of one document. The definition of `apply_to_column`."""
    content, parts, end = text.encode(), [], 0
    for span in spans:
        parts += [content[end : span.start], span.replacement.encode()]
        end = span.stop
    return b"".join([*parts, content[end:]]).decode()


def apply_to_column(texts: Any, spans: Any) -> Any:
    """Texts with their spans applied: large_string array [N], list<SPAN> array [N] -> large_string array [N]."""
    lists, values = spans.offsets.to_numpy(), spans.values
    first, last = int(lists[0]), int(lists[-1])
    if first == last:
        return texts
    offsets, buffer = _buffers(texts)
    row = np.repeat(np.arange(len(texts)), np.diff(lists))
    at = offsets[row]
    starts = at + values.field("start").to_numpy()[first:last]
    stops = at + values.field("stop").to_numpy()[first:last]
    replacements = [text.encode() for text in values.field("replacement").slice(first, last - first).to_pylist()]
    parts, end = [], int(offsets[0])
    for start, stop, replacement in zip(starts.tolist(), stops.tolist(), replacements, strict=True):
        parts += [buffer[end:start], replacement]
        end = stop
    parts.append(buffer[end : int(offsets[-1])])
    growth = np.fromiter(map(len, replacements), np.int64, len(replacements)) - (stops - starts)
    sizes = np.diff(offsets) + np.bincount(row, growth, len(texts)).astype(np.int64)
    edited = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(edited), pa.py_buffer(b"".join(parts)))


def edited_table(ids: Any, spans: Sequence[Sequence[Span]]) -> pa.Table:
    """EDITED from ids [N] and the spans of each document."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in spans])]).astype(np.int32)
    flat = [span for one in spans for span in one]
    columns = [[span[number] for span in flat] for number in range(len(Span._fields))]
    values = pa.StructArray.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SPAN, strict=True)], fields=list(SPAN)
    )
    return pa.table({"id": ids, "spans": pa.ListArray.from_arrays(pa.array(offsets), values)}, schema=EDITED)


def _buffers(texts: Any) -> tuple[Any, memoryview]:
    _, offsets, content = texts.buffers()
    return np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8), memoryview(content or b"")
