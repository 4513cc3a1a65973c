"""Deletes web addresses and keeps what was written for readers.

MAP-Neo's released code for Chinese (rule U2) deletes any ASCII run with a dot before two to six letters, and with it
`readme.txt`, `node.js`, addresses of machines and the words around a full stop without a space. Here an address begins
with http://, https:// or www. and ends before white space, quotes, angle brackets and anything that is not ASCII; so a
file name or a version is never one, and Chinese text that follows an address without a space stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diglot.corpus.edits import LINKS
from diglot.corpus.edits.code_blocks import code_ranges, inside
from diglot.corpus.edits.spans import Span

ADDRESS = re.compile(rb"(?:https?://|(?<![A-Za-z0-9.@/_-])www\.)[!#-;=?-_a-z~{|}]+", re.IGNORECASE)
# [words](address "title"), also of a picture; the words may hold one pair of brackets.
MARKDOWN = re.compile(
    rb"!?\[((?:[^\[\]\n]|\[[^\[\]\n]*\])*)\]"
    rb"\([ \t]*<?(?:https?://|www\.)(?:[^()\s<>]|\([^()\s]*\))*>?(?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'))?[ \t]*\)",
    re.IGNORECASE,
)
DEFINITION = re.compile(  # a line of its own: [name]: address, of reStructuredText also .. _name: address
    rb"^[ \t]*(?:\[[^\]\n]+\]:|\.\. _[^:\n]+:)[ \t]+<?(?:https?://|www\.)[^\s]+[ \t]*"
    rb"(?:\"[^\"\n]*\")?[ \t\r]*(?:\n|\Z)",
    re.MULTILINE | re.IGNORECASE,
)
BRACKETS = {b"(": b")", b"<": b">", b"[": b"]", "（".encode(): "）".encode(), "【".encode(): "】".encode()}
TRAILING = b".,;:!?'*_\""  # closes the sentence rather than the address
MIN_ADDRESS = len("www.a.b")


def links(text: bytes, keep_code: bool = True) -> list[Span]:
    """Spans of the addresses of one document and of what stood only for them; see the module.

    A Markdown link keeps its words, a definition of a link goes with its line, brackets that hold only the address go
    with it, and so does one of two spaces around it.
    """
    lowered_signs = b"://" in text or b"www." in text or b"WWW." in text
    if not lowered_signs:
        return []
    kept = code_ranges(text, backticks=True) if keep_code else []
    ranges: list[tuple[int, int]] = []
    for match in DEFINITION.finditer(text):
        ranges.append(match.span())
    for match in MARKDOWN.finditer(text):
        ranges += [(match.start(), match.start(1)), (match.end(1), match.end())]
    taken = sorted(ranges)
    found = [one for one in ranges if not inside(kept, *one)]
    found += (one for one in _bare(text) if not inside(taken, *one) and not inside(kept, *one))
    return [Span(start, stop, LINKS) for start, stop in sorted(found)]


def _bare(text: bytes) -> Iterator[tuple[int, int]]:
    """Addresses that stand in the text as they are, with the marks that go along."""
    for match in ADDRESS.finditer(text):
        start, stop = match.start(), _end(text, match.start(), match.end())
        if stop - start < MIN_ADDRESS:
            continue
        for opening, closing in BRACKETS.items():
            if text.endswith(opening, 0, start) and text.startswith(closing, stop):
                start, stop = start - len(opening), stop + len(closing)
                break
        before, after = text[start - 1 : start], text[stop : stop + 1]
        if before == b" " and (after in (b" ", b"\n", b"") or after in b".,;:!?)`"):
            start -= 1
        elif before in (b"", b"\n") and after == b" ":
            stop += 1
        yield start, stop


def _end(text: bytes, start: int, stop: int) -> int:
    """The end of an address without the marks of the sentence and without a bracket that was opened before it."""
    while stop > start:
        last = text[stop - 1 : stop]
        if last in TRAILING:
            stop -= 1
        elif last in b")]}":
            opening = {b")": b"(", b"]": b"[", b"}": b"{"}[last]
            if text.count(last, start, stop) <= text.count(opening, start, stop):
                break
            stop -= 1
        else:
            break
    return stop
