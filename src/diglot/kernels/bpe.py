"""Byte-pair encoding of whole batches, equal to `diglot.tokenizer.vocabulary.encode_oracle`, the definition.

Three things make it fast, and none of them can change a token:
- A text is cut wherever its next two characters stand side by side in no piece, for no joined piece can cross that
  place. Cutting too rarely is harmless, so the pairs that occur in pieces are bits of a table that may collide.
- What a short stretch between two cuts became is kept in a table with room for one stretch per slot; the newest wins.
- Other stretches are joined pair by pair: short ones by looking for the smallest id, long ones with a heap, so that a
  megabyte without a cut takes n log n steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diglot.kernels.jit import kernel

NONE = np.int32((1 << 31) - 1)  # above every id: two neighbours that form no piece
NO_KEY = np.uint64((1 << 64) - 1)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
SHIFT_32, SHIFT_6, LOW_6, ONE = np.uint64(32), np.uint64(6), np.uint64(63), np.uint64(1)
NUM_CODES = 0x110000
BITS_PER_PAIR = 16  # of the table of neighbours: one pair in sixteen that is in no piece looks as if it were
FEW = 48  # characters of a stretch that is joined without a heap
SLOT_BITS, SLOT_BYTES = 17, 64  # a slot is a cache line: lengths of both, bytes of the stretch, its tokens as int32
KEY_BYTES, FIRST_WORD, KEPT_TOKENS = 30, 8, 8
SLOT_SHIFT = np.uint64(64 - SLOT_BITS)


class Tables(NamedTuple):
    """A vocabulary, for the kernel."""

    characters: Any  # int32 [NUM_CODES]: the token of a character, -1 where bytes have to write it
    neighbours: Any  # uint64: a bit for every two characters, set when they stand side by side in a piece
    join_keys: Any  # uint64 [2 ** k]: left token << 32 | right token, NO_KEY in empty slots
    join_tokens: Any  # int32 [2 ** k]: the token that the two form
    neighbours_shift: Any  # uint64: by how much a hash is shifted to become a place of `neighbours`
    join_shift: Any  # the same for a slot of `join_keys`
    first_byte: int  # the token of byte 0


class Kept(NamedTuple):
    """What stretches became. One thread at a time may use it."""

    slots: Any  # uint8 [2 ** SLOT_BITS, SLOT_BYTES], 0 where empty
    words: Any  # int32: the same memory


def tables(
    characters: Mapping[str, int],
    neighbours: Iterable[tuple[str, str]],
    joins: Iterable[tuple[int, int, int]],
    first_byte: int,
) -> Tables:
    """Args: tokens of single characters; characters side by side in a piece; (left, right, joined) tokens."""
    of_code = np.full(NUM_CODES, -1, np.int32)
    of_code[[ord(character) for character in characters]] = list(characters.values())
    pairs = np.array([(characters[a], characters[b]) for a, b in neighbours], np.uint64).reshape(-1, 2)
    joined = np.array(list(joins), np.int64).reshape(-1, 3)
    num_bits, num_slots = (max(count - 1, 63).bit_length() for count in (BITS_PER_PAIR * len(pairs), 2 * len(joined)))
    found = Tables(
        characters=of_code,
        neighbours=np.zeros(1 << (num_bits - 6), np.uint64),
        join_keys=np.full(1 << num_slots, NO_KEY, np.uint64),
        join_tokens=np.zeros(1 << num_slots, np.int32),
        neighbours_shift=np.uint64(64 - num_bits),
        join_shift=np.uint64(64 - num_slots),
        first_byte=first_byte,
    )
    _fill(pairs, joined, found)
    return found


def kept() -> Kept:
    """Room for what stretches become, 8 MB."""
    slots = np.zeros((1 << SLOT_BITS, SLOT_BYTES), np.uint8)
    return Kept(slots, slots.view(np.int32))


def encode(offsets: Any, utf8: Any, tables: Tables, kept: Kept) -> tuple[Any, Any]:
    """Tokens of N documents: offsets int64 [N + 1] in bytes, utf8 uint8 -> tokens int32 [T], offsets int64 [N + 1].

    Bytes that are no UTF-8 become byte tokens, so that decoding gives them back.
    """
    tokens = np.empty(int(offsets[-1] - offsets[0]), np.int32)  # a token stands for one byte at least
    token_offsets = np.zeros(len(offsets), np.int64)
    _encode(offsets, utf8, tables, kept, tokens, token_offsets)
    return tokens[: token_offsets[-1]], token_offsets


@kernel
def _encode(offsets, utf8, tables, kept, tokens, token_offsets):
    # Arrays by name, and few calls: numba counts references to every array that a call is given.
    characters, neighbours, neighbours_shift = tables.characters, tables.neighbours, tables.neighbours_shift
    join_keys, join_tokens, join_shift = tables.join_keys, tables.join_tokens, tables.join_shift
    slots, words = kept.slots, kept.words
    pairs = np.empty(FEW, np.int32)
    count = 0
    for document in range(len(offsets) - 1):
        position, stop = offsets[document], offsets[document + 1]
        start, first, state = position, count, MULTIPLIER  # of the open stretch: utf8[start:], tokens[first:]
        before = np.int64(-1)
        while True:
            token, code, width = np.int64(-1), np.int64(-1), 1
            if position < stop:
                code = np.int64(utf8[position])
                if code >= 0x80:
                    code, width = _decode(utf8, position, stop)
                if code >= 0:
                    token = np.int64(characters[code])
            if before >= 0:
                bit = _key(before, token) * MULTIPLIER >> neighbours_shift
                if token < 0 or neighbours[bit >> SHIFT_6] >> (bit & LOW_6) & ONE == 0:
                    size = position - start
                    if count - first > 1:
                        slot, same = state >> SLOT_SHIFT, np.int64(0)
                        if slots[slot, 0] == size:
                            while same < size and slots[slot, 2 + same] == utf8[start + same]:
                                same += 1
                        if same == size:
                            count = first + np.int64(slots[slot, 1])
                            for i in range(count - first):
                                tokens[first + i] = words[slot, FIRST_WORD + i]
                        else:
                            if count - first <= FEW:
                                count = _join_few(tokens, first, count, pairs, join_keys, join_tokens, join_shift)
                            else:
                                count = _join_many(tokens, first, count, join_keys, join_tokens, join_shift)
                            if size <= KEY_BYTES and count - first <= KEPT_TOKENS:
                                slots[slot, 0], slots[slot, 1] = size, count - first
                                for i in range(size):
                                    slots[slot, 2 + i] = utf8[start + i]
                                for i in range(count - first):
                                    words[slot, FIRST_WORD + i] = tokens[first + i]
                    start, first, state = position, count, MULTIPLIER
            if position >= stop:
                break
            if token >= 0:
                tokens[count] = token
                count += 1
                position += width
                state = (state ^ np.uint64(token)) * MULTIPLIER
            else:
                for _ in range(width):
                    tokens[count] = tables.first_byte + utf8[position]
                    count += 1
                    position += 1
                start, first = position, count
            before = token
        token_offsets[document + 1] = count


@kernel
def _decode(utf8, position, stop):
    """The code point at `position` and its length; -1 and 1 for a byte that begins none."""
    first = np.int64(utf8[position])
    if 0xC2 <= first < 0xE0:
        if stop - position >= 2 and utf8[position + 1] & 0xC0 == 0x80:
            return (first & 0x1F) << 6 | (np.int64(utf8[position + 1]) & 0x3F), 2
    elif 0xE0 <= first < 0xF0:
        if stop - position >= 3 and utf8[position + 1] & 0xC0 == 0x80 and utf8[position + 2] & 0xC0 == 0x80:
            low = (np.int64(utf8[position + 1]) & 0x3F) << 6 | (np.int64(utf8[position + 2]) & 0x3F)
            code = (first & 0x0F) << 12 | low
            if code >= 0x800:  # half a surrogate pair has no token, and becomes bytes as it should
                return code, 3
    elif (
        0xF0 <= first < 0xF5
        and stop - position >= 4
        and utf8[position + 1] & 0xC0 == 0x80
        and utf8[position + 2] & 0xC0 == 0x80
        and utf8[position + 3] & 0xC0 == 0x80
    ):
        low = (np.int64(utf8[position + 2]) & 0x3F) << 6 | (np.int64(utf8[position + 3]) & 0x3F)
        code = (first & 0x07) << 18 | (np.int64(utf8[position + 1]) & 0x3F) << 12 | low
        if 0x10000 <= code < NUM_CODES:
            return code, 4
    return np.int64(-1), 1


@kernel
def _key(left, right):
    return np.uint64(left) << SHIFT_32 | np.uint64(right)


@kernel
def _joined(left, right, join_keys, join_tokens, shift):
    """The token that two tokens form, or NONE."""
    key = _key(left, right)
    mask = np.uint64(len(join_keys) - 1)
    slot = key * MULTIPLIER >> shift
    while join_keys[slot] != NO_KEY:
        if join_keys[slot] == key:
            return join_tokens[slot]
        slot = (slot + ONE) & mask
    return NONE


@kernel
def _join_few(tokens, first, stop, pairs, join_keys, join_tokens, shift):
    """Join tokens[first:stop] in place; returns where they then end. pairs: int32, as long at least, overwritten."""
    count = stop - first
    for i in range(count - 1):
        pairs[i] = _joined(tokens[first + i], tokens[first + i + 1], join_keys, join_tokens, shift)
    while True:
        smallest, at = NONE, -1
        for i in range(count - 1):
            if pairs[i] < smallest:
                smallest, at = pairs[i], i
        if at < 0:
            return first + count
        count -= 1
        tokens[first + at] = smallest
        for i in range(at + 1, count):
            tokens[first + i] = tokens[first + i + 1]
            pairs[i - 1] = pairs[i]
        if at > 0:
            pairs[at - 1] = _joined(tokens[first + at - 1], smallest, join_keys, join_tokens, shift)
        if at + 1 < count:
            pairs[at] = _joined(smallest, tokens[first + at + 1], join_keys, join_tokens, shift)


@kernel
def _join_many(tokens, first, stop, join_keys, join_tokens, shift):
    """As `_join_few` in n log n steps: parts are a linked list, and a heap holds joined token << 32 | place of left.

    An entry is out of date when the part at its place forms another token by now, and is then passed over.
    """
    size = stop - first
    parts = tokens[first:stop]
    before, after, pairs = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int32)
    heap, length = np.empty(3 * size, np.int64), 0
    for i in range(size):
        before[i], after[i], pairs[i] = i - 1, i + 1, NONE
        if i + 1 < size:
            pairs[i] = _joined(parts[i], parts[i + 1], join_keys, join_tokens, shift)
        if pairs[i] != NONE:
            length = _push(heap, length, np.int64(pairs[i]) << 32 | i)
    while length:
        token, at = np.int32(heap[0] >> 32), heap[0] & 0xFFFFFFFF
        length = _pop(heap, length)
        if pairs[at] != token:
            continue
        right = after[at]
        parts[at], parts[right], pairs[right] = token, -1, NONE
        after[at] = after[right]
        pairs[at] = NONE
        if after[at] < size:
            before[after[at]] = at
        for left in (before[at], at):
            if left >= 0 and after[left] < size:
                pairs[left] = _joined(parts[left], parts[after[left]], join_keys, join_tokens, shift)
                if pairs[left] != NONE:
                    length = _push(heap, length, np.int64(pairs[left]) << 32 | left)
    count = 0
    for i in range(size):
        if parts[i] >= 0:
            parts[count] = parts[i]
            count += 1
    return first + count


@kernel
def _push(heap, length, entry):
    child = length
    while child > 0 and heap[(child - 1) >> 1] > entry:
        heap[child] = heap[(child - 1) >> 1]
        child = (child - 1) >> 1
    heap[child] = entry
    return length + 1


@kernel
def _pop(heap, length):
    """Take out the smallest entry, heap[0]."""
    length -= 1
    entry, parent = heap[length], 0
    while True:
        child = 2 * parent + 1
        if child >= length:
            break
        if child + 1 < length and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = entry
    return length


@kernel
def _fill(pairs, joined, tables):
    """Set the bits of neighbours, and put every join into its slot."""
    for i in range(len(pairs)):
        bit = _key(pairs[i, 0], pairs[i, 1]) * MULTIPLIER >> tables.neighbours_shift
        tables.neighbours[bit >> SHIFT_6] |= ONE << (bit & LOW_6)
    mask = np.uint64(len(tables.join_keys) - 1)
    for i in range(len(joined)):
        key = _key(joined[i, 0], joined[i, 1])
        slot = key * MULTIPLIER >> tables.join_shift
        while tables.join_keys[slot] != NO_KEY:
            slot = (slot + ONE) & mask
        tables.join_keys[slot], tables.join_tokens[slot] = key, joined[i, 2]
