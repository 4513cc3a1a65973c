"""Deletes passages that a document with a smaller id has too, wherever they begin, over the whole corpus.

A passage is every byte that lies in a window of `min_bytes` bytes which an earlier document has: the union of these
windows is the union of all maximal matches of at least that length. Hashing every window of a corpus would take 32
bytes a byte, so it is done in two rounds. First each document writes some fingerprints, 2 % of all positions, chosen so
that two equal windows always share one (`diglot.kernels.windows`). Then only windows around a fingerprint that two
documents have are hashed, with 125 bits, and the document with the smallest id is found for each.

Cuts are drawn inward to the borders of sentences and lines, and what is then shorter than half of `min_bytes` stays.
MAP-Neo's released code cuts in the middle of words, forgets the last window of each document, and keeps another copy
for each window, so that both copies of a passage lose pieces. Repetition in one document is left to `similar_lines`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from diglot.corpus.edits import SUBSTRINGS
from diglot.corpus.edits.code_blocks import code_ranges
from diglot.corpus.edits.exchange import KEY
from diglot.corpus.edits.settings import SubstringsEdit
from diglot.corpus.edits.spans import Span, within_line
from diglot.corpus.edits.texts import Texts
from diglot.corpus.ranges import Range

MIN_KEPT = 2  # a cut that sentence borders leave shorter than min_bytes / MIN_KEPT is not made


def fingerprint_width(min_bytes: int) -> int:
    """Bytes of a fingerprinted window: a third of a passage, so that 3 / min_bytes of all positions are chosen."""
    return max(8, min_bytes // 3)


def fingerprints(texts: Texts, min_bytes: int) -> tuple[Any, Any, Any]:
    """row, start and hash of the chosen windows: every passage of `min_bytes` bytes holds one of its own."""
    from diglot.kernels import windows

    width = fingerprint_width(min_bytes)
    return windows.fingerprints(texts.offsets, texts.utf8, width, min_bytes - width + 1)


def window_keys(texts: Texts, ranks: Any, shared: Any, min_bytes: int) -> Any:
    """KEY of every window of `min_bytes` bytes that holds a fingerprint of several documents.

    Args:
        ranks: int64 [N], places of the documents in the order of their ids.
        shared: uint64, sorted: the fingerprints that several documents have.
    """
    from diglot.kernels.windows import hash_windows

    row, start, hashes = fingerprints(texts, min_bytes)
    if len(shared) == 0 or len(row) == 0:
        return np.zeros(0, KEY)
    place = np.minimum(np.searchsorted(shared, hashes), len(shared) - 1)
    hit = shared[place] == hashes
    row, start = row[hit], start[hit]
    parts = []
    for first, last, document in _stretches(row, start, np.diff(texts.offsets), min_bytes):
        begin = int(texts.offsets[document])
        low, high = np.zeros(last - first + 1, np.uint64), np.zeros(last - first + 1, np.uint64)
        hash_windows(texts.utf8, begin + first, begin + last, min_bytes, low, high)
        part = np.zeros(len(low), KEY)
        part["low"], part["high"], part["rank"] = low, high, ranks[document]
        part["start"] = np.arange(first, last + 1)
        part["stop"] = part["start"] + min_bytes
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, KEY)


def _stretches(row: Any, start: Any, sizes: Any, min_bytes: int) -> list[tuple[int, int, int]]:
    """(first, last, document): windows to hash, joined where they overlap; `row` and `start` ascend together."""
    firsts = np.maximum(start + fingerprint_width(min_bytes) - min_bytes, 0)
    lasts = np.minimum(start, sizes[row] - min_bytes)
    joined: list[tuple[int, int, int]] = []
    for first, last, document in zip(firsts.tolist(), lasts.tolist(), row.tolist(), strict=True):
        if joined and joined[-1][2] == document and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]), document)
        else:
            joined.append((first, last, document))
    return joined


def passages(
    read: Callable[[], Iterable[Any]], texts: Texts, ranks: Any, min_bytes: int
) -> list[tuple[int, int, int, int]]:
    """(row, start, stop, first): copied windows joined where they overlap or touch, in the order of the texts.

    Args:
        read: gives the COPY records of these documents, some at a time; it is asked twice, so that they need not be
            in memory together.
        ranks: int64 [N], of the documents.
    Returns: with the rank of the document that has the first window of the passage.
    """
    by_rank = np.argsort(ranks)
    sorted_ranks, base = ranks[by_rank], int(texts.offsets[0])

    def places(copies: Any) -> Any:
        rows = by_rank[np.searchsorted(sorted_ranks, copies["rank"])]
        return texts.offsets[rows] - base + copies["start"]

    is_start = np.zeros(int(texts.offsets[-1]) - base, np.bool_)
    for copies in read():
        is_start[places(copies)] = True
    starts = np.flatnonzero(is_start)
    if len(starts) == 0:
        return []
    rows = texts.rows_at(starts + base)
    begins = np.concatenate([[True], (np.diff(starts) > min_bytes) | (np.diff(rows) > 0)])
    ends = np.concatenate([begins[1:], [True]])
    first_starts, last_starts, rows = starts[begins], starts[ends], rows[begins]
    first = np.zeros(len(first_starts), np.int64)
    for copies in read():
        at = places(copies)
        passage = np.minimum(np.searchsorted(first_starts, at), len(first_starts) - 1)
        hit = first_starts[passage] == at
        first[passage[hit]] = copies["first"][hit]
    shift = texts.offsets[rows] - base
    columns = (rows, first_starts - shift, last_starts + min_bytes - shift, first)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def cuts(
    text: bytes, found: list[tuple[int, int, int]], begins: Any, min_bytes: int, kept: Sequence[Range] = ()
) -> list[tuple[int, int, int]]:
    """The passages drawn inward to whole sentences and lines.

    Args:
        found: (start, stop, first), sorted, disjoint.
        begins: int64 [S], bytes at which the sentences of the text begin (`diglot.text.sentences`).
        kept: sorted, disjoint ranges that stay, however often they were copied.
    """
    borders = np.append(begins, len(text))
    drawn = []
    for start, stop, first in _without(found, kept):
        inner = int(borders[np.searchsorted(borders, start)])
        # A sentence whose line feed is not part of the copy is a whole sentence all the same.
        outer = int(borders[np.searchsorted(borders, stop + (text[stop : stop + 1] == b"\n"), side="right") - 1])
        if outer - inner >= min_bytes / MIN_KEPT:
            drawn.append((*within_line(text, inner, outer), first))
    return drawn


def _without(found: list[tuple[int, int, int]], kept: Sequence[Range]) -> Iterator[tuple[int, int, int]]:
    """The parts of the passages outside the ranges that stay."""
    for start, stop, first in found:
        for begin, end in kept:
            if begin < stop and end > start:
                if begin > start:
                    yield start, begin, first
                start = max(start, end)
        if start < stop:
            yield start, stop, first


def substrings(
    read: Callable[[], Iterable[Any]], texts: Texts, ranks: Any, edit: SubstringsEdit, id_of: Callable[[int], str]
) -> Iterator[tuple[int, list[Span]]]:
    """(row, spans) of every document that loses a passage. id_of: rank -> id; the others as in `passages`."""
    from diglot.kernels.jit import classes
    from diglot.kernels.sentences import sentence_starts

    found = passages(read, texts, ranks, edit.min_bytes)
    for row, mine in itertools.groupby(found, key=lambda passage: passage[0]):
        text = texts.text(row)
        begins, _ = sentence_starts(texts.offsets[row : row + 2], texts.utf8, classes())
        kept = code_ranges(text) if edit.keep_code else ()
        drawn = cuts(text, [passage[1:] for passage in mine], begins, edit.min_bytes, kept)
        if drawn:
            yield row, [Span(start, stop, SUBSTRINGS, first_in=id_of(first)) for start, stop, first in drawn]
