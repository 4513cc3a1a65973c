"""Where sentences begin: the cuts at which a text may lose a piece without leaving half a sentence.

`diglot.kernels.sentences` does the same over bytes; this is the definition.
"""

from __future__ import annotations

from diglot.text.lines import CLOSERS, STOPS, WIDE_STOPS
from diglot.text.units import CJK, SPACE, class_of


def sentence_starts(text: str) -> list[int]:
    """Characters at which a line or a sentence begins, the first included; none for an empty text.

    A sentence ends behind its stops and closing marks, as in `text.lines.num_sentences`: always after a wide stop, and
    after the others where white space or a CJK character follows. The white space belongs to the sentence after it, the
    line feed to the one before it.
    """
    starts = [0] if text else []
    pending = strong = False
    for position, character in enumerate(text):
        if pending and character not in STOPS and character not in CLOSERS:
            if character != "\n" and (strong or class_of(character) in (SPACE, CJK)):
                starts.append(position)
            pending = strong = False
        if character in STOPS:
            pending, strong = True, strong or character in WIDE_STOPS
        elif character == "\n" and position + 1 < len(text):
            starts.append(position + 1)
    return starts
