"""Where did the model read this? The longest stretches of a text that stand verbatim in the training tokens.

As OLMoTrace (Liu et al. 2025, arXiv 2504.07096) does it for English on a cluster: for every place where a stretch may
start, one binary search in a suffix array gives the longest match; of overlapping matches the longest stays. Differs:
no span is required to be unusual, and borders of tokens are not taken for borders of text. The same words have other
tokens when a space stands before them, or in Chinese other characters. So starts between tokens are tried with the
tokens that the text has from there on, starts without a space also as if one stood there, and an end is tried inside
the next token.

What may still be lost at either end is a part of one piece of the training text. A count is the number of places with
exactly these tokens; the same characters under other tokens are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from diglot.core.errors import ConfigError
from diglot.text.units import CJK, class_of
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.trace.training_index import TrainingIndex

WINDOW_CHARS = 32  # twice the longest piece: after so many characters both ways to cut a text have met, or never will


class OrderPhase(Protocol):
    """What is asked of a phase: how many of its sequences make one of the run's longest."""

    @property
    def pieces_per_block(self) -> int: ...


class DataOrder(Protocol):
    """What is asked of `diglot.train.order.DataOrder`, which defines its words."""

    @property
    def phases(self) -> Sequence[OrderPhase]: ...

    def num_sequences(self, stream: str, phase: int) -> int: ...

    def train_steps(self, stream: str, sequence_index: int, phase: int) -> Sequence[int]: ...


@dataclass(frozen=True)
class Reads:
    """Which training steps of a run read a token: its order, and the number of inputs in its longest sequences."""

    order: DataOrder
    sequence_length: int

    def train_steps(self, stream: str, start: int, stop: int) -> tuple[int, ...]:
        """Every training step with a sequence that holds one of the tokens [start, stop) of a stream.

        Sequence k covers the tokens k * T .. k * T + T, so a token at a border is read with two. T is the phase's.
        """
        found: set[int] = set()
        for number, phase in enumerate(self.order.phases):
            length = self.sequence_length // phase.pieces_per_block
            last = min((stop - 1) // length, self.order.num_sequences(stream, number) - 1)
            for index in range(max(0, start - 1) // length, last + 1):
                found.update(self.order.train_steps(stream, index, number))
        return tuple(sorted(found))


@dataclass(frozen=True, kw_only=True)
class SpanDocument:
    """A training document that holds a span. `position`: of the span's first token in the stream."""

    id: str
    source: str
    url: str | None
    lang: str
    stream: str
    position: int
    train_steps: tuple[int, ...] | None  # None where no run was given


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch text[start:end] of a text that stands verbatim in the training tokens, `count` times."""

    text: str
    start: int
    end: int
    num_tokens: int
    count: int
    num_documents: int
    documents: tuple[SpanDocument, ...]  # the first ones in the order of the corpus

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def attribute(
    text: str,
    tokenizer: Tokenizer,
    index: TrainingIndex,
    *,
    min_tokens: int = 6,
    min_chars: int = 8,
    max_documents: int = 5,
    reads: Reads | None = None,
) -> list[Span]:
    """Spans of `text` found in the training tokens, longest first, none overlapping another.

    Args:
        min_tokens, min_chars: shorter matches are not reported; white space at the ends does not count as characters.
        max_documents: how many of the documents that hold a span are named.
        reads: the run whose training steps are to be named.
    """
    if min(min_tokens, min_chars, max_documents) < 1:
        raise ConfigError("min_tokens, min_chars and max_documents must be at least 1.")
    if not text:
        return []
    cut = _Cut(text, tokenizer)
    matches = [_longest_match(cut, reading, index) for reading in cut.readings()]
    chosen, gaps = [], [(0, cut.num_bytes)]
    while gaps:
        start, stop = gaps.pop()
        inside = (_until(cut, match, stop) for match in matches if start <= match.start < stop)
        best = max(inside, key=lambda match: (len(match.ids), match.stop - match.start, -match.start), default=None)
        if best is None or not best.ids:
            continue
        best = _extended(cut, best, stop, index)
        if len(best.ids) >= min_tokens:  # if the best is too short, so are all others in this gap
            chosen.append(best)
            gaps += [(start, best.start), (best.stop, stop)]
    spans = [_span(cut, match, index, max_documents, reads) for match in chosen]
    spans = [span for span in spans if len(span.text) >= min_chars]
    return sorted(spans, key=lambda span: (-span.num_tokens, span.start))


@dataclass(frozen=True)
class _Match:
    """Tokens of the index that write the bytes [start, stop) of a text, and `lead` bytes before it."""

    start: int
    stop: int
    ids: list[int]
    lead: int


@dataclass(frozen=True)
class _Reading:
    """Tokens from byte `start` of a text to its end: `head`, then those of the whole text from number `after` on."""

    start: int
    head: list[int]
    after: int
    lead: int  # bytes of the first token that stand before the text


class _Cut:
    """A text and the tokens that it may be cut into. Positions are bytes, since a token may end within a character."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.text, self.tokenizer = text, tokenizer
        self.byte_of = [0, *accumulate(len(character.encode()) for character in text)]
        self.char_of = {position: number for number, position in enumerate(self.byte_of)}
        self.num_bytes = self.byte_of[-1]
        self.base = tokenizer.encode(text)
        in_word = [False, *(character.isalnum() and class_of(character) != CJK for character in text), False]
        # where a span may start or end: not within a word or a number, but anywhere in Chinese
        self.borders = [b for i, b in enumerate(self.byte_of) if not (in_word[i] and in_word[i + 1])]
        self.is_border = set(self.borders)

    def readings(self) -> list[_Reading]:
        """The ways to read the text from each border on."""
        after = {0: 0} | {end: number for number, end in enumerate(self.ends(self.base, 0), 1)}
        found = [_Reading(start, [], after[start], 0) for start in self.borders[:-1] if start in after]
        shifted = [(self.char_of[start], "") for start in self.borders if start not in after]
        shifted += [(i, " ") for i in map(self.char_of.__getitem__, self.borders) if self._may_follow_space(i)]
        windows = [lead + self.text[i : i + WINDOW_CHARS] for i, lead in shifted]
        for (i, lead), ids in zip(shifted, self.tokenizer.encode_batch(windows, threads=False), strict=True):
            start = self.byte_of[i]
            if lead and self.tokenizer.token_bytes(ids[0]) == b" ":
                continue  # the space is a token of its own: no other reading than without it
            ends = self.ends(ids, start - len(lead))
            met = next((number for number, end in enumerate(ends) if end > start and end in after), len(ids) - 1)
            found.append(_Reading(start, ids[: met + 1], after.get(ends[met], len(self.base)), len(lead)))
        return found

    def tokens(self, reading: _Reading, num_tokens: int) -> list[int]:
        """The first tokens of a reading."""
        rest = max(0, num_tokens - len(reading.head))
        return reading.head[:num_tokens] + self.base[reading.after : reading.after + rest]

    def ends(self, ids: Sequence[int], start: int) -> list[int]:
        """The byte at which each token ends, when the first starts at `start`."""
        return list(accumulate((len(self.tokenizer.token_bytes(token)) for token in ids), initial=start))[1:]

    def _may_follow_space(self, i: int) -> bool:
        """True for the first letter after something that is no space, such as a quote or the start of the text."""
        return self.text[i : i + 1].isalnum() and not (i and (self.text[i - 1] == " " or self.text[i - 1].isalnum()))


def _longest_match(cut: _Cut, reading: _Reading, index: TrainingIndex) -> _Match:
    """The longest beginning of a reading that stands in the index and ends at a border."""
    asked, length = 0, 0
    while length == asked:  # few matches are long, so a short beginning is asked for first
        asked = 4 * asked or WINDOW_CHARS
        ids = cut.tokens(reading, asked)
        length = index.suffixes.longest_prefix(ids)
    return _until(cut, _Match(reading.start, cut.num_bytes, ids[:length], reading.lead), cut.num_bytes)


def _until(cut: _Cut, match: _Match, limit: int) -> _Match:
    """The longest beginning of a match that ends at a border, at most at `limit`: a part of a match is a match."""
    ends = cut.ends(match.ids, match.start - match.lead)
    keep = len(ends)
    while keep and (ends[keep - 1] > limit or ends[keep - 1] not in cut.is_border):
        keep -= 1
    return _Match(match.start, ends[keep - 1] if keep else match.start, match.ids[:keep], match.lead)


def _extended(cut: _Cut, match: _Match, limit: int, index: TrainingIndex) -> _Match:
    """The match with as much of what follows as stands in the index under tokens of its own, up to one window."""
    first = cut.char_of[match.stop]
    ends = [
        i for i in range(first + 1, first + WINDOW_CHARS // 2 + 1) if i < len(cut.byte_of) and cut.byte_of[i] <= limit
    ]
    ends = [i for i in ends if cut.byte_of[i] in cut.is_border]
    tails = cut.tokenizer.encode_batch([cut.text[first:i] for i in ends], threads=False)
    for i, tail in sorted(zip(ends, tails, strict=True), reverse=True):
        ids = match.ids + tail
        if index.suffixes.longest_prefix(ids) == len(ids):
            return _Match(match.start, cut.byte_of[i], ids, match.lead)
    return match


def _span(cut: _Cut, match: _Match, index: TrainingIndex, max_documents: int, reads: Reads | None) -> Span:
    """Look up the documents; white space at the ends is left out of the reported text."""
    lo, hi = index.suffixes.find(match.ids)
    positions = np.array(index.suffixes.positions(lo, hi))
    rows, first = np.unique(index.rows_of(positions), return_index=True)
    covered = cut.text[cut.char_of[match.start] : cut.char_of[match.stop]]
    start = cut.char_of[match.start] + len(covered) - len(covered.lstrip())
    documents = []
    for row, position in zip(rows[:max_documents].tolist(), positions[first[:max_documents]].tolist(), strict=True):
        document = index.document(row)
        place = document.position + position - document.start
        documents.append(
            SpanDocument(
                id=document.id,
                source=document.source,
                url=document.url,
                lang=document.lang,
                stream=document.stream,
                position=place,
                train_steps=reads.train_steps(document.stream, place, place + len(match.ids)) if reads else None,
            )
        )
    return Span(
        text=covered.strip(),
        start=start,
        end=start + len(covered.strip()),
        num_tokens=len(match.ids),
        count=hi - lo,
        num_documents=len(rows),
        documents=tuple(documents),
    )
