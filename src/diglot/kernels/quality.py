"""All quality signals of a batch of documents in one pass over its bytes.

The columns are `diglot.corpus.signals.QUALITY`, whose functions define them. Letters take the short way through the
loop; marks, line ends and unit ends take the long one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from diglot.kernels.jit import kernel
from diglot.kernels.units import (
    IS_BULLET,
    IS_BULLET_BEFORE_SPACE,
    IS_CLOSER,
    IS_DOT,
    IS_JOINER,
    IS_STOP,
    IS_WIDE_STOP,
    MARKS,
    decode,
)
from diglot.text.lines import (
    JAVASCRIPT,
    POLICY_PHRASES,
    READ_MORE,
    SHORT_LINE_CHARS,
)
from diglot.text.stop_words import STOP_WORDS_EN
from diglot.text.units import CJK, DIGIT, FIRST_CORE, LAST_BORDER, LETTER, MARK, PUNCTUATION, SPACE, UPPER, WIDE

COLUMNS = (
    "num_chars",
    "num_units",
    "num_lines",
    "num_sentences",
    "mean_unit_chars",
    "letterless_share",
    "mixed_unit_share",
    "number_unit_share",
    "all_caps_share",
    "stop_words_en",
    "cjk_share",
    "hash_ratio",
    "ellipsis_ratio",
    "curly_share",
    "bracket_share",
    "digit_share",
    "num_punctuation",
    "lorem_ipsum",
    "ellipsis_line_share",
    "bullet_line_share",
    "read_more_share",
    "stop_line_share",
    "stop_word_share",
    "symbol_ratio",
    "alphanumeric_share",
    "alphabetic_share",
    "max_unit_chars",
    "lines_per_unit",
    "short_line_share",
    "mean_line_chars",
    "max_line_chars",
    "javascript_line_share",
    "policy_line_share",
)

PHRASES = np.frombuffer(b"".join(READ_MORE), np.uint8)
PHRASE_ENDS = np.cumsum([0, *map(len, READ_MORE)])
LOREM_IPSUM = np.frombuffer(b"lorem ipsum", np.uint8)
JAVASCRIPT_BYTES = np.frombuffer(JAVASCRIPT.encode(), np.uint8)
# Words that are looked up at the end of every unit: the eight stop words, and those that phrases are made of.
WATCHED = (*STOP_WORDS_EN, *sorted({word for phrase in POLICY_PHRASES for word in phrase} - set(STOP_WORDS_EN)))
WATCHED_SLOTS, WATCHED_MULTIPLIER = 64, 43

ELLIPSIS, DOT, IDEOGRAPHIC_STOP, HASH, LOWER_M = ord("…"), ord("."), ord("。"), ord("#"), ord("m")
OPEN_CURLY, CLOSE_CURLY, OPEN_LENTICULAR, CLOSE_LENTICULAR = ord("{"), ord("}"), ord("【"), ord("】")


def quality(offsets: Any, utf8: Any, classes: Any) -> Any:
    """The quality signals of N documents: float32 [N, len(COLUMNS)].

    Args:
        offsets: int64 [N + 1], where documents begin and end in `utf8`.
        utf8: uint8, valid UTF-8.
        classes: uint8 [0x110000], `diglot.kernels.jit.classes()`.
    """
    return _quality(offsets, utf8, classes, MARKS, PHRASES, PHRASE_ENDS, LOREM_IPSUM, *_watched(), len(COLUMNS))


@kernel
def _slot(letters):
    """A slot of the table of watched words; the multiplier is one that gives each of them its own."""
    return (letters * WATCHED_MULTIPLIER >> 16) & (WATCHED_SLOTS - 1)


@functools.cache
def _watched():
    """Letters of the watched word in each slot (the last eight, one a byte; 0: none), the bits of the slots that hold a
    stop word, and the policy phrases: the slots of a phrase's words plus one, one a byte, the last word lowest."""
    table = np.zeros(WATCHED_SLOTS, np.int64)
    slots: dict[str, int] = {}
    for word in (*WATCHED, JAVASCRIPT):
        letters = int.from_bytes(word.encode()[-8:], "big")
        slots[word] = _slot.py_func(letters)
        assert table[slots[word]] == 0, "two watched words share a slot: search another WATCHED_MULTIPLIER"
        table[slots[word]] = letters
    stop_slots = np.zeros(WATCHED_SLOTS, np.uint8)
    stop_slots[[slots[word] for word in STOP_WORDS_EN]] = 1
    phrases = [int.from_bytes(bytes(slots[word] + 1 for word in phrase), "big") for phrase in POLICY_PHRASES]
    return table, stop_slots, slots[JAVASCRIPT], np.array(phrases, np.int64)


@kernel
def _quality(
    offsets,
    utf8,
    classes,
    marks,
    phrases,
    phrase_ends,
    lorem_ipsum,
    watched,
    stop_slots,
    javascript,
    policy,
    num_columns,
):
    out = np.zeros((len(offsets) - 1, num_columns), np.float32)
    for document in range(len(offsets) - 1):
        start, stop = offsets[document], offsets[document + 1]
        position = start
        num_chars = num_punctuation = num_digits = num_letters = num_curly = num_lorem = 0
        num_units = num_unit_chars = num_cjk = num_symbol_runs = num_numbers = num_mixed = num_caps = 0
        watched_bits, num_stop_words = 0, 0
        recent = 0  # slots plus one of the last units, one a byte; 0 where a unit is no watched word
        has_javascript, has_policy, num_javascript_lines, num_policy_lines = False, False, 0, 0
        num_spaces, longest_unit = 0, 0
        num_short_lines, num_line_chars, longest_line = 0, 0, 0
        num_hash_runs = num_ellipses = 0
        num_bracketed, bracket_start = 0, -1
        num_sentences, has_unit, pending, strong = 0, False, False, False
        num_lines = num_ellipsis_lines = num_bullet_lines = num_more_lines = num_stop_lines = 0
        # of the current run: characters since its first core character, of them up to the last one, and their kinds
        in_run, left_is_space, after_core, has_letter = False, True, False, False
        run = core = odd = core_odd = upper = 0
        letters = core_letters = 0  # the last eight characters, lower case, one a byte; 0xFF for all but ASCII
        # of the current line
        line_chars, line_start, word_end, tail, last, last_dots = 0, position, position, 0, 0, 0
        line_spaces, line_length, chars_then = 0, 0, 0  # white space in it; its length up to the last other character
        before, dots = 0, 0  # the character before, and how many equal dots end there
        at_end = False
        while not at_end:
            if position < stop:
                code, width = decode(utf8, position)
                kind = int(classes[code])
                position += width
            else:  # a line feed behind the text closes everything that is open
                code, width, kind, at_end = 10, 0, SPACE, True

            if pending:
                mark = marks[code] if code < 0x10000 else 0
                if not mark & (IS_STOP | IS_CLOSER):
                    if has_unit and (strong or kind in (SPACE, CJK)):
                        num_sentences += 1
                        has_unit = False
                    pending = strong = False

            if 0 < kind <= LAST_BORDER:
                if core:
                    num_units += 1
                    num_unit_chars += core
                    num_numbers += not has_letter
                    num_mixed += core_odd > 0
                    num_caps += (core > 1) & (upper == core)  # `&`: a branch here would be mispredicted
                    longest_unit = max(longest_unit, core)
                    slot = _slot(core_letters)
                    is_watched = watched[slot] == core_letters
                    watched_bits |= np.int64(is_watched) << slot
                    num_stop_words += is_watched & stop_slots[slot]
                    recent = recent << 8 | (slot + 1 if is_watched else 0)
                    if is_watched and not stop_slots[slot]:
                        if slot == javascript:
                            begin = word_end - len(JAVASCRIPT_BYTES)
                            has_javascript |= core == len(JAVASCRIPT_BYTES) and _same(utf8, begin, JAVASCRIPT_BYTES)
                        else:
                            has_policy |= _ends_with_policy(recent, policy)
                    run = core = odd = core_odd = upper = letters = 0
                    has_letter = False
                elif in_run and left_is_space and kind == SPACE:
                    num_symbol_runs += 1
                in_run, after_core = False, False
                left_is_space = kind == SPACE

            if kind == SPACE:
                num_spaces += 1
                if line_chars != chars_then:
                    chars_then, line_length = line_chars, line_chars + line_spaces
                line_spaces += line_chars > 0
                if code == 10:
                    recent = 0
                    if line_chars:
                        num_short_lines += line_length < SHORT_LINE_CHARS
                        num_line_chars += line_length
                        longest_line = max(longest_line, line_length)
                        num_javascript_lines += has_javascript
                        num_policy_lines += has_policy
                        has_javascript = has_policy = False
                        num_lines += 1
                        num_ellipsis_lines += last == ELLIPSIS or last_dots >= 3
                        num_stop_lines += tail < 0x10000 and (marks[tail] & IS_STOP) != 0
                        num_more_lines += _ends_with_phrase(utf8, line_start, word_end, phrases, phrase_ends)
                    line_chars, line_start, word_end, tail, last, last_dots = 0, position, position, 0, 0, 0
                    line_spaces, line_length, chars_then = 0, 0, 0
                elif code == 32 and before | 0x20 == LOWER_M and position - 6 >= start and position + 5 <= stop:
                    num_lorem += _same(utf8, position - 6, lorem_ipsum)
                before = code
                continue

            num_chars += 1
            line_chars += 1
            num_hash_runs += (before == HASH) & (code != HASH)
            last, last_dots = code, 0
            if kind >= FIRST_CORE or (kind == MARK and after_core):
                after_core = in_run = True
                run += 1
                letters = letters << 8 | (code | 0x20 if code < 0x80 else 0xFF)
                if kind >= LETTER:
                    has_letter = True
                    num_letters += 1
                    upper += kind == UPPER
                elif kind == DIGIT:
                    num_digits += 1
                    odd += 1
                core, core_odd, core_letters = run, odd, letters
                if kind != MARK:
                    word_end, tail, has_unit = position, code, True
                else:
                    tail = code
                if line_chars == 1:
                    line_start = position - width
                before = code
                if kind < LETTER:
                    continue
                first = position  # the rest of an ASCII word, where most of the time is spent
                while position < stop and utf8[position] < 0x80 and classes[utf8[position]] >= LETTER:
                    upper += classes[utf8[position]] == UPPER
                    letters = letters << 8 | int(utf8[position]) | 0x20
                    position += 1
                if position > first:
                    num_more = position - first
                    num_chars += num_more
                    line_chars += num_more
                    num_letters += num_more
                    run += num_more
                    core, core_odd, core_letters, word_end = run, odd, letters, position
                    tail = last = before = int(utf8[position - 1])
                continue

            mark = marks[code] if code < 0x10000 else 0
            after_core = False
            if not mark & IS_CLOSER:
                tail = code
            if kind == CJK:
                num_units += 1
                num_unit_chars += 1
                num_cjk += 1
                recent = 0
                longest_unit = max(longest_unit, 1)
                word_end, has_unit = position, True
            else:
                if kind != WIDE:
                    in_run = True
                    if core:
                        run += 1
                        odd += kind != MARK and not mark & IS_JOINER
                        letters = letters << 8 | 0xFF
                num_punctuation += kind in (PUNCTUATION, WIDE)
                if mark & IS_STOP:
                    pending = True
                    strong |= mark & IS_WIDE_STOP != 0
                if mark & IS_DOT:
                    dots = dots + 1 if before == code else 1
                    num_ellipses += (code == ELLIPSIS and dots == 1) or (code != ELLIPSIS and dots == 3)
                    last_dots = dots
                elif code in (OPEN_CURLY, CLOSE_CURLY):
                    num_curly += 1
                elif code == OPEN_LENTICULAR and bracket_start < 0:
                    bracket_start = num_chars
                elif code == CLOSE_LENTICULAR and bracket_start >= 0:
                    num_bracketed += num_chars - 1 - bracket_start
                    bracket_start = -1
            if line_chars == 1:
                line_start = position - width
                if mark & IS_BULLET:
                    num_bullet_lines += 1
                elif mark & IS_BULLET_BEFORE_SPACE:
                    if position == stop:
                        num_bullet_lines += 1
                    else:
                        following, _ = decode(utf8, position)
                        num_bullet_lines += classes[following] == SPACE
            before = code

        lines, units = max(num_lines, 1), max(num_units, 1)
        chars, pieces = max(num_chars, 1), max(num_units + num_symbol_runs, 1)
        num_distinct_stop_words = 0
        for i in range(WATCHED_SLOTS):
            num_distinct_stop_words += (watched_bits >> i & 1) & stop_slots[i]
        all_chars = max(num_chars + num_spaces - 1, 1)  # less the line feed that closed the text
        row = out[document]
        row[0] = num_chars
        row[1] = num_units
        row[2] = num_lines
        row[3] = num_sentences + has_unit
        row[4] = num_unit_chars / units
        row[5] = (num_numbers + num_symbol_runs) / pieces
        row[6] = num_mixed / units
        row[7] = num_numbers / units
        row[8] = num_caps / units
        row[9] = num_distinct_stop_words
        row[10] = num_cjk / units
        row[11] = num_hash_runs / units
        row[12] = num_ellipses / units
        row[13] = num_curly / chars
        row[14] = num_bracketed / chars
        row[15] = num_digits / max(num_digits + num_letters + num_cjk, 1)
        row[16] = num_punctuation
        row[17] = num_lorem
        row[18] = num_ellipsis_lines / lines
        row[19] = num_bullet_lines / lines
        row[20] = num_more_lines / lines
        row[21] = num_stop_lines / lines
        row[22] = num_stop_words / units
        row[23] = (num_hash_runs + num_ellipses) / units
        row[24] = (num_digits + num_letters + num_cjk) / all_chars
        row[25] = (num_letters + num_cjk) / all_chars
        row[26] = longest_unit
        row[27] = num_lines / units
        row[28] = num_short_lines / lines
        row[29] = num_line_chars / lines
        row[30] = longest_line
        row[31] = num_javascript_lines / lines
        row[32] = num_policy_lines / lines
    return out


@kernel
def _same(utf8, position, lower_case):
    """Whether the bytes from `position` are those of `lower_case`, capitals of ASCII folded."""
    for i in range(len(lower_case)):
        byte = utf8[position + i]
        if 65 <= byte <= 90:
            byte |= 0x20
        if byte != lower_case[i]:
            return False
    return True


@kernel
def _ends_with_phrase(utf8, start, stop, phrases, phrase_ends):
    """`ends_with_read_more` for the line from `start` whose last letter, digit or ideograph ends at `stop`."""
    for k in range(len(phrase_ends) - 1):
        begin = stop - (phrase_ends[k + 1] - phrase_ends[k])
        if begin >= start and _same(utf8, begin, phrases[phrase_ends[k] : phrase_ends[k + 1]]):
            byte = utf8[begin - 1] if begin > start else 0
            if not (48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122):
                return True
    return False


@kernel
def _ends_with_policy(recent, policy):
    """Whether the last units are one of the phrases, both given as slots, one a byte."""
    for phrase in policy:
        width = np.int64(0xFF)
        while width < phrase:
            width = width << 8 | 0xFF
        if recent & width == phrase:
            return True
    return False
