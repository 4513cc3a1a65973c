"""The normalised text of `diglot.text.normalize` over UTF-8 bytes, and its hash.

Most texts are in canonical composition (NFC) already, and that shows in their characters: none that composes with the
one before it, has a combining class or is written otherwise when composed. A text with such a character is only marked
here; the plain function does it. So no rule of composition is written twice.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

import numpy as np
import xxhash

from diglot.kernels.jit import kernel
from diglot.kernels.units import decode
from diglot.text.normalize import content_hash

PLAIN, SPACE, COMPOSING = 0, 1, 2

# Where characters that compose, or white space, are: the rest is ideographs, Hangul syllables, private and unassigned.
_LOOKED_AT = (
    (0, 0x3400),
    (0xA000, 0xAC00),
    (0xD7B0, 0xD800),
    (0xF900, 0x20000),
    (0x2F800, 0x2FA20),
    (0xE0000, 0xE0200),
)
_JAMO = ((0x1161, 0x1176), (0x11A8, 0x11C3))  # vowels and finals compose with what is before them by arithmetic
_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH = 0xE4, 0xE9  # first bytes of U+4000 to U+9FFF


def content_hashes(offsets: Any, utf8: Any) -> tuple[Any, Any]:
    """`diglot.text.normalize.content_hash` of N documents: upper and lower halves, uint64 [N] each.

    offsets int64 [N + 1] in bytes, utf8 uint8 [offsets[-1]].
    """
    offsets = np.asarray(offsets, np.int64)
    ends, content, composing = _collapse(offsets, utf8, character_kinds())
    high, low = np.zeros(len(ends), np.uint64), np.zeros(len(ends), np.uint64)
    begin, bytes_of_all = 0, memoryview(content)
    for document, (end, is_composing) in enumerate(zip(ends.tolist(), composing.tolist(), strict=True)):
        if is_composing:
            text = bytes(utf8[offsets[document] : offsets[document + 1]]).decode()
            digest = content_hash(text)
        else:
            digest = xxhash.xxh3_128_intdigest(bytes_of_all[begin:end])
        high[document], low[document] = digest >> 64, digest & 0xFFFFFFFFFFFFFFFF
        begin = end
    return high, low


@functools.cache
def character_kinds() -> Any:
    """PLAIN, SPACE or COMPOSING for every code point: uint8 [0x110000]."""
    kinds = np.zeros(0x110000, np.uint8)
    for first, last in _LOOKED_AT:
        for code in range(first, last):
            character = chr(code)
            if character.isspace():
                kinds[code] = SPACE
            if unicodedata.combining(character) or unicodedata.normalize("NFC", character) != character:
                kinds[code] = COMPOSING
            parts = unicodedata.decomposition(character).split()
            if len(parts) == 2 and not parts[0].startswith("<"):
                kinds[int(parts[1], 16)] = COMPOSING
    for first, last in _JAMO:
        kinds[first:last] = COMPOSING
    return kinds


@kernel
def _collapse(offsets, utf8, kinds):
    """Ends int64 [N] of the collapsed texts, their bytes one after the other, and which texts must be composed."""
    num_documents = offsets.shape[0] - 1
    ends = np.zeros(num_documents, np.int64)
    composing = np.zeros(num_documents, np.bool_)
    content = np.empty(offsets[num_documents] - offsets[0], np.uint8)
    out = 0
    for d in range(num_documents):
        position, stop, begin = offsets[d], offsets[d + 1], out
        waiting = False  # white space that becomes one space if something follows
        while position < stop:
            first = utf8[position]
            if first < 0x80:
                kind, width = kinds[first], 1
            elif _FIRST_IDEOGRAPH <= first <= _LAST_IDEOGRAPH:
                kind, width = np.uint8(PLAIN), 3
            else:
                code, width = decode(utf8, position)
                kind = kinds[code]
                if kind == COMPOSING:
                    composing[d] = True
                    break
            if kind == SPACE:
                waiting = True
            else:
                if waiting and out > begin:
                    content[out] = 32
                    out += 1
                waiting = False
                for k in range(width):
                    content[out + k] = utf8[position + k]
                out += width
            position += width
        if composing[d]:
            out = begin
        ends[d] = out
    return ends, content, composing
