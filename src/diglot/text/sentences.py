"""Where sentences begin: the cuts at which a text may lose a piece without leaving half a sentence.

`diglot.kernels.sentences` does the same over bytes; this is the definition.
"""

from __future__ import annotations

from diglot.text.lines import CLOSERS, STOPS, WIDE_STOPS
from diglot.text.units import CJK, LETTER, SPACE, class_of


def sentence_starts(text: str) -> list[int]:
    """Characters at which a line or a sentence begins, the first included; none for an empty text.

    A sentence ends behind its stops and closing marks, as in `text.lines.num_sentences`: always after a wide stop, and
    after the others where white space or a CJK character follows. The white space belongs to the sentence after it, the
    line feed to the one before it. Without a letter or a CJK character there is no sentence yet: the number of a list
    entry belongs to the entry. The words of a Markdown link are not parted from its address.
    """
    starts = [0] if text else []
    pending = strong = has_word = False
    for position, character in enumerate(text):
        kind = class_of(character)
        if pending and character not in STOPS and character not in CLOSERS:
            is_link = character == "(" and text[position - 1] == "]"
            if character != "\n" and not is_link and has_word and (strong or kind in (SPACE, CJK)):
                starts.append(position)
                has_word = False
            pending = strong = False
        has_word |= kind >= LETTER or kind == CJK
        if character in STOPS:
            pending, strong = True, strong or character in WIDE_STOPS
        elif character == "\n":
            if position + 1 < len(text):
                starts.append(position + 1)
            has_word = False
    return starts
