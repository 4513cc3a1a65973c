"""All repetition signals of a batch of documents: unit statistics, repeated lines, Gopher's n-grams.

The columns are `diglot.corpus.signals.REPETITION`, whose functions define them. Units and n-grams are compared by
64-bit hashes: one wrong match in 10^10 documents of 10^4 units. An (n+1)-gram can only repeat where its n-gram does, so
the positions still looked at shrink with n, and nine n-gram sizes cost little more than one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diglot.kernels.jit import kernel
from diglot.kernels.units import FNV_OFFSET, MARKS, mix, scan_text

COLUMNS = (
    "unique_unit_share",
    "unit_entropy",
    "duplicate_line_share",
    "duplicate_line_char_share",
    "top_2gram_share",
    "top_3gram_share",
    "top_4gram_share",
    "duplicate_5gram_share",
    "duplicate_6gram_share",
    "duplicate_7gram_share",
    "duplicate_8gram_share",
    "duplicate_9gram_share",
    "duplicate_10gram_share",
    "duplicate_sentence_share",
    "duplicate_sentence_char_share",
)
FIRST_TOP, LAST_TOP, LAST_DUPLICATE = 2, 4, 10
NGRAM_PRIME = np.uint64(0x9E3779B97F4A7C15)
FILTER_SHIFT = np.uint64(32)  # other bits than those that find a slot in the table


def repetition(offsets: Any, utf8: Any, classes: Any) -> Any:
    """The repetition signals of N documents: float32 [N, len(COLUMNS)]. Arguments as in `diglot.kernels.quality`."""
    return _repetition(offsets, utf8, classes, MARKS, len(COLUMNS))


@kernel
def _repetition(offsets, utf8, classes, marks, num_columns):
    num_documents = len(offsets) - 1
    out = np.zeros((num_documents, num_columns), np.float32)
    longest = 0
    for document in range(num_documents):
        longest = max(longest, offsets[document + 1] - offsets[document])
    # A document of b bytes has at most b units; tables stay at most half full.
    capacity = 32  # twice this is the smallest table of _drop_unique
    while capacity < 2 * longest:
        capacity *= 2
    hashes, grams = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    lengths, slots, places = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    starts = np.empty(longest, np.uint8)
    seen = np.empty(2 * capacity, np.uint8)
    table, counts = np.empty(capacity, np.uint64), np.zeros(capacity, np.int32)
    for document in range(num_documents):
        start, stop = offsets[document], offsets[document + 1]
        row = out[document]

        # `grams` and `places` are free until the n-grams: they hold lines, then sentences.
        num_units, num_lines = scan_text(utf8, start, stop, classes, marks, hashes, lengths, starts, grams, places)
        if num_lines:
            mask = _clear(counts, num_lines)
            num_chars = repeated = repeated_chars = 0
            for i in range(num_lines):
                num_chars += places[i]
                if counts[_count(table, counts, mask, grams[i])] > 1:
                    repeated += 1
                    repeated_chars += places[i]
            row[2], row[3] = repeated / num_lines, repeated_chars / num_chars

        if num_units == 0:
            continue
        num_chars = 0
        for i in range(num_units):
            num_chars += lengths[i]
        num_sentences = _sentences(hashes, lengths, starts, num_units, grams, places)
        mask = _clear(counts, num_sentences)
        repeated = repeated_chars = 0
        for i in range(num_sentences):
            if counts[_count(table, counts, mask, grams[i])] > 1:
                repeated += 1
                repeated_chars += places[i]
        row[13], row[14] = repeated / num_sentences, repeated_chars / num_chars

        mask = _clear(counts, num_units)
        for i in range(num_units):
            slots[i] = _count(table, counts, mask, hashes[i])
        # -sum c/n log(c/n) = log n - sum c log c / n, where most counts are 1 and need no logarithm
        distinct, weighted_logs = 0, 0.0
        for slot in range(mask + 1):
            count = counts[slot]
            distinct += count > 0
            if count > 1:
                weighted_logs += count * np.log(count)
        row[0] = distinct / num_units
        row[1] = np.log(num_units) - weighted_logs / num_units

        # `places`: where an n-gram starts that may repeat; `grams`: its hash, at the same index.
        num_places = 0
        for i in range(num_units):
            if counts[slots[i]] > 1:
                places[num_places], grams[num_places] = i, hashes[i]
                num_places += 1
        for n in range(FIRST_TOP, LAST_DUPLICATE + 1):
            num_places = _extend(places, grams, num_places, n, hashes, num_units)
            num_places = _drop_unique(places, grams, num_places, seen)
            mask = _clear(counts, num_places)
            most = 0
            for k in range(num_places):
                slots[k] = _count(table, counts, mask, grams[k])
                most = max(most, counts[slots[k]])
            num_places, top_chars = _keep_repeated(places, grams, slots, num_places, counts, most, n, lengths)
            if n <= LAST_TOP:
                row[2 + n] = min(1.0, most * top_chars / num_chars)
            else:
                row[2 + n] = _covered(places, num_places, n, lengths) / num_chars
    return out


@kernel
def _sentences(hashes, lengths, starts, num_units, sentence_hashes, sentence_chars):
    """Hash of the units and number of their characters for each sentence; the number of sentences."""
    num_sentences = 0
    state, chars = FNV_OFFSET, 0
    for i in range(num_units):
        if starts[i] and i:
            sentence_hashes[num_sentences], sentence_chars[num_sentences] = mix(state), chars
            num_sentences += 1
            state, chars = FNV_OFFSET, 0
        state = state * NGRAM_PRIME + hashes[i]
        chars += lengths[i]
    sentence_hashes[num_sentences], sentence_chars[num_sentences] = mix(state), chars
    return num_sentences + 1


@kernel
def _clear(counts, num_keys):
    """Empty the part of the table that `num_keys` keys use; its size minus one, for masking."""
    size = 16
    while size < 2 * num_keys:
        size *= 2
    counts[:size] = 0
    return size - 1


@kernel
def _count(table, counts, mask, key):
    """Count `key` in an open-addressing table; its slot."""
    slot = np.int64(key) & mask
    while counts[slot] and table[slot] != key:
        slot = (slot + 1) & mask
    table[slot] = key
    counts[slot] += 1
    return slot


@kernel
def _extend(places, grams, num_places, n, hashes, num_units):
    """Hashes of n-grams from those of (n-1)-grams; places too near the end fall out. The number that stays."""
    kept = 0
    for k in range(num_places):
        place = places[k]
        if place + n <= num_units:
            places[kept], grams[kept] = place, grams[k] * NGRAM_PRIME + hashes[place + n - 1]
            kept += 1
    return kept


@kernel
def _drop_unique(places, grams, num_places, seen):
    """Drop places whose n-gram surely occurs once, as most do, without a look into the table; the number that stays.

    seen: uint8, scratch; how often each of a few bits of the hashes occurred, up to twice. It fits the nearest cache.
    """
    size = 64
    while size < 4 * num_places:
        size *= 2
    seen[:size] = 0
    mask = np.uint64(size - 1)
    for k in range(num_places):
        slot = np.int64(grams[k] >> FILTER_SHIFT & mask)
        seen[slot] += seen[slot] < 2
    kept = 0
    for k in range(num_places):
        places[kept], grams[kept] = places[k], grams[k]
        kept += seen[np.int64(grams[k] >> FILTER_SHIFT & mask)] > 1
    return kept


@kernel
def _keep_repeated(places, grams, slots, num_places, counts, most, n, lengths):
    """Keep the places whose n-gram occurs more than once. Their number, and the characters of the longest n-gram among
    those that occur most often (`most` times)."""
    kept, top_chars = 0, 0
    for k in range(num_places):
        count = counts[slots[k]]
        if count > 1:
            if count == most:
                chars = 0
                for i in range(places[k], places[k] + n):
                    chars += lengths[i]
                top_chars = max(top_chars, chars)
            places[kept], grams[kept] = places[k], grams[k]
            kept += 1
    return kept, top_chars


@kernel
def _covered(places, num_places, n, lengths):
    """Characters of the units that lie in any of the n-grams, which start at `places` in rising order."""
    chars, done = 0, 0
    for k in range(num_places):
        for i in range(max(done, places[k]), places[k] + n):
            chars += lengths[i]
        done = places[k] + n
    return chars
