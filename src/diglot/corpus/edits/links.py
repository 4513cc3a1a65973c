"""Deletes web addresses and keeps what was written for readers.

MAP-Neo's released code for Chinese (rule U2) deletes any ASCII run with a dot before two to six letters, and with it
`readme.txt`, `node.js`, addresses of machines and the words around a full stop without a space. Here an address begins
with http://, https:// or www. and ends before white space, quotes, angle brackets and anything that is not ASCII; so a
file name or a version is never one, and Chinese text that follows an address without a space stays.
"""

from __future__ import annotations

import re

from diglot.corpus.edits import LINKS
from diglot.corpus.edits.code_blocks import code_ranges
from diglot.corpus.edits.spans import Span
from diglot.corpus.ranges import Range, inside

MAX_ADDRESS = 8192  # bytes; a list of addresses without white space is cut into pieces of that size
RUN = re.compile(rb"[!#-;=?-_a-z~{|}]*")  # the bytes of addresses
SIGNS = (b"://", b"www.", b"Www.", b"WWW.")  # an address has one of them: found much faster than a pattern is
SCHEMES = (b"https", b"http")
DEFINITION = re.compile(rb"[ \t]*(?:\[[^\]\n]+\]:|\.\. _[^:\n]+:)[ \t]+<?")  # [name]: or .. _name: at a line's start
DEFINED = re.compile(rb"[^\s]+[ \t]*(?:\"[^\"\n]*\")?[ \t\r]*(?:\n|\Z)")
OPENING = re.compile(rb"\]\([ \t]*<?$")
CLOSING = re.compile(  # the rest of (address "title"): the address may hold pairs of brackets
    rb"(?:[^()\s<>]|\([^()\s]*\))*>?(?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'))?[ \t]*\)"
)
BRACKETS = {b"(": b")", b"<": b">", b"[": b"]", "（".encode(): "）".encode(), "【".encode(): "】".encode()}
TRAILING = b".,;:!?'*_\""  # closes the sentence rather than the address
MIN_ADDRESS = len("www.a.b")
MAX_NAME, MAX_WORDS = 300, 2000  # bytes of a link's name and words, so that a page on one line takes linear time


def links(text: bytes, keep_code: bool = True) -> list[Span]:
    """Spans of the addresses of one document and of what stood only for them; see the module.

    A Markdown link keeps its words, a definition of a link goes with its line, brackets that hold only the address go
    with it, and so does one of two spaces around it.
    """
    addresses = _addresses(text)
    if not addresses:
        return []
    kept = code_ranges(text, backticks=True) if keep_code else []
    found: list[Range] = []
    end = 0  # an address inside another one, or in the title of a link, is gone already
    for start, stop in addresses:
        if start < end or inside(kept, start, start + 1):
            continue
        ranges = _definition(text, start) or _markdown(text, start) or _bare(text, start, stop)
        found += ranges
        end = max([end, *(stop for _, stop in ranges)])
    return [Span(start, stop, LINKS) for start, stop in sorted(found)]


def _addresses(text: bytes) -> list[Range]:
    """Where addresses stand, sorted."""
    found = []
    for sign in SIGNS:
        at, run_end = text.find(sign), 0
        while at >= 0:
            start = at
            if sign == b"://":
                before = text[max(at - 5, 0) : at].lower()
                start -= next((len(scheme) for scheme in SCHEMES if before.endswith(scheme)), 0)
                fits = start < at
            else:
                before = text[max(at - 1, 0) : at]
                fits = not (before.isalnum() or before in (b".", b"@", b"/", b"_", b"-"))
            after = at + len(sign)
            if after >= run_end:  # looked for once a run: many addresses may stand in one
                run = RUN.match(text, after)
                assert run is not None  # it may be empty
                run_end = run.end()
            stop = min(run_end, start + MAX_ADDRESS)
            if fits and stop > after:
                found.append((start, stop))
            at = text.find(sign, after)
    return sorted(found)


def _definition(text: bytes, start: int) -> list[Range]:
    """The line of a definition whose address begins at `start`; empty when it is none."""
    floor = max(start - MAX_NAME, 0)
    line = text.rfind(b"\n", floor, start) + 1
    if line == 0 and floor > 0:
        return []
    rest = DEFINED.match(text, start) if DEFINITION.fullmatch(text, line, start) else None
    return [(line, rest.end())] if rest else []


def _markdown(text: bytes, start: int) -> list[Range]:
    """What stands around the words of a Markdown link or picture whose address begins at `start`."""
    opening = OPENING.search(text, max(start - 8, 0), start)
    closing = CLOSING.match(text, start) if opening else None
    if opening is None or closing is None:
        return []
    depth, place = 1, opening.start()
    floor = max(place - MAX_WORDS, 0)
    while depth and place > floor:
        place -= 1
        byte = text[place]
        if byte == 10:
            return []
        depth += (byte == 93) - (byte == 91)  # ] and [
    if depth:
        return []
    words = place + 1
    place -= text[place - 1 : place] == b"!"
    return [(place, words), (opening.start(), closing.end())]


def _bare(text: bytes, start: int, stop: int) -> list[Range]:
    """An address that stands in the text as it is, with the marks that go along."""
    stop = _end(text, start, stop)
    if stop - start < MIN_ADDRESS:
        return []
    for opening, closing in BRACKETS.items():
        if text.endswith(opening, 0, start) and text.startswith(closing, stop):
            start, stop = start - len(opening), stop + len(closing)
            break
    before, after = text[start - 1 : start], text[stop : stop + 1]
    if before == b" " and (after in (b" ", b"\n", b"") or after in b".,;:!?)`"):
        start -= 1
    elif before in (b"", b"\n") and after == b" ":
        stop += 1
    return [(start, stop)]


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
