"""Sentences of one document that repeat an earlier one: the compiled form of `corpus.edits.similar_lines`.

Comparing all pairs of a book would take minutes, so a pair is compared only when it shares enough runs of q characters
at nearly the same place. Two texts of n characters at most with an edit distance of k share at least n + 1 - q - kq of
them, none shifted by more than k (Jokinen and Ukkonen 1991), so this loses no pair; `run_chars` chooses q so that the
number is at least 1. Only where a document has one run more than MAX_CHAIN times are the earliest places of it not
looked at, and a pair may be missed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from diglot.kernels.jit import classes, kernel
from diglot.kernels.sentences import IS_CLOSER, IS_STOP
from diglot.kernels.units import FNV_OFFSET, FNV_PRIME, decode, mix
from diglot.text.units import CJK, DIGIT, LETTER, SPACE

MAX_CHAIN = 2048  # places of one run that are looked at, the latest first: a guard against texts of one repeated letter


@functools.cache
def number_marks(numerals: str) -> Any:
    """uint8 [0x110000]: 1 for digits and for the characters of `numerals`."""
    table = (classes() == DIGIT).astype(np.uint8)
    table[[ord(character) for character in numerals]] = 1
    return table


def run_chars(max_share: float, min_chars: int, exact_below: int) -> int:
    """q: the longest run length for which no similar pair shares less than one run."""
    return max(1, min(int(exact_below / (1 + max_share * exact_below)), min_chars))


@kernel
def repeated(
    utf8, start, stop, starts, skip, classes, marks, numerals, max_share, min_chars, exact_below, exact_above, run
):
    """Which sentences repeat an earlier one that stays: bool [S].

    Args:
        utf8[start:stop]: the document.
        starts: int64 [S], bytes from `start` at which its sentences begin.
        skip: bool [S], sentences that are left alone and that no other one is compared with.
        marks: uint8 [0x10000], `sentences.MARKS`. numerals: uint8 [0x110000], `number_marks`.
        max_share, min_chars, exact_below, exact_above: as in `similar_lines.is_similar`.
        run: `run_chars` of them.
    """
    num_sentences = len(starts)
    removed = np.zeros(num_sentences, np.bool_)
    codes = np.zeros(stop - start, np.int32)
    begins, lengths = np.zeros(num_sentences, np.int64), np.zeros(num_sentences, np.int64)
    num_codes = 0
    for sentence in range(num_sentences):
        position = start + starts[sentence]
        end = start + starts[sentence + 1] if sentence + 1 < num_sentences else stop
        begin, last, num_cjk, has_stop = num_codes, num_codes, 0, False
        has_word = False
        while position < end:
            code, width = decode(utf8, position)
            position += width
            kind = classes[code]
            if kind == SPACE and begin == num_codes:
                continue
            codes[num_codes] = code
            num_codes += 1
            if kind != SPACE:
                last = num_codes
                num_cjk += kind == CJK
                has_word |= kind >= LETTER or kind == CJK
                mark = marks[code] if code < 0x10000 else 0
                has_stop = mark & IS_STOP != 0 or (has_stop and mark & IS_CLOSER != 0)
        num_codes = last
        begins[sentence] = begin
        is_prose = has_word and (has_stop or 2 * num_cjk >= last - begin)
        lengths[sentence] = last - begin if is_prose and last - begin >= min_chars and not skip[sentence] else 0
    num_slots = 64
    while num_slots < 2 * num_codes:
        num_slots *= 2
    mask = np.uint64(num_slots - 1)
    heads = np.full(num_slots, -1, np.int64)
    following, keys = np.zeros(num_codes + 1, np.int64), np.zeros(num_codes + 1, np.uint64)
    owner, place = np.zeros(num_codes + 1, np.int32), np.zeros(num_codes + 1, np.int32)
    num_entries = 0
    shared, touched = np.zeros(num_sentences, np.int32), np.zeros(num_sentences, np.int64)
    for sentence in range(num_sentences):
        length, begin = lengths[sentence], begins[sentence]
        if length == 0:
            continue
        exact = length < exact_below or length > exact_above
        width = length if exact else run
        num_touched = 0
        for at in range(length - width + 1):
            key = _hash(codes, begin + at, width)
            entry, steps = heads[np.int64(key & mask)], 0
            while entry >= 0 and steps < MAX_CHAIN:
                other = owner[entry]
                if keys[entry] == key:
                    gap = abs(length - lengths[other])
                    limit = 0 if exact else np.int64(max_share * max(length, lengths[other]))
                    if gap <= limit and abs(place[entry] - at) <= limit:
                        if shared[other] == 0:
                            touched[num_touched] = other
                            num_touched += 1
                        shared[other] += 1
                entry = following[entry]
                steps += 1
        for number in range(num_touched):
            other = touched[number]
            longer = max(length, lengths[other])
            limit = 0 if exact else np.int64(max_share * longer)
            enough = shared[other] >= longer + 1 - width - limit * width
            shared[other] = 0
            if enough and not removed[sentence]:
                second, size = begins[other], lengths[other]
                removed[sentence] = limit == 0 or _same_numbers(codes, begin, length, second, size, numerals)
                removed[sentence] &= within(codes, begin, length, second, size, limit)
        if removed[sentence]:
            continue
        for at in range(length - width + 1):
            key = _hash(codes, begin + at, width)
            slot = np.int64(key & mask)
            keys[num_entries], owner[num_entries], place[num_entries] = key, sentence, at
            following[num_entries], heads[slot] = heads[slot], num_entries
            num_entries += 1
    return removed


@kernel
def _same_numbers(codes, first, first_length, second, second_length, numerals):
    """Whether the two ranges hold the same digits and numerals in the same order."""
    i, j = 0, 0
    while True:
        while i < first_length and not numerals[codes[first + i]]:
            i += 1
        while j < second_length and not numerals[codes[second + j]]:
            j += 1
        if i == first_length or j == second_length:
            return i == first_length and j == second_length
        if codes[first + i] != codes[second + j]:
            return False
        i, j = i + 1, j + 1


@kernel
def _hash(codes, begin, width):
    state = FNV_OFFSET ^ np.uint64(width)
    for position in range(begin, begin + width):
        state = (state ^ np.uint64(codes[position])) * FNV_PRIME
    return mix(state)


@kernel
def within(codes, first, first_length, second, second_length, limit):
    """Whether the edit distance of codes[first:first + first_length] and the second is at most `limit`.

    Only the cells at most `limit` off the diagonal are filled (Ukkonen 1985).
    """
    if abs(first_length - second_length) > limit:
        return False
    size = 2 * limit + 1
    before, row = np.zeros(size, np.int64), np.zeros(size, np.int64)
    far = limit + 1
    for column in range(size):  # cell `column` of row i stands for character i + column - limit of the second
        before[column] = column - limit if column >= limit else far
    for i in range(1, first_length + 1):
        best = far
        for column in range(size):
            j = i + column - limit
            if j < 0 or j > second_length:
                row[column] = far
                continue
            if j == 0:
                row[column] = i
            else:
                cost = before[column] + (codes[first + i - 1] != codes[second + j - 1])
                if column + 1 < size:
                    cost = min(cost, before[column + 1] + 1)
                if column > 0:
                    cost = min(cost, row[column - 1] + 1)
                row[column] = min(cost, far)
            best = min(best, row[column])
        if best >= far:
            return False
        before, row = row, before
    return before[second_length - first_length + limit] <= limit
