"""A suffix array over tokens: where does this sequence of tokens occur, and how long a piece of it occurs at all.

`order` lists the positions of all suffixes in lexicographic order of their tokens, so the occurrences of a sequence are
neighbours and two binary searches find them (Manber and Myers 1990). Tokens are stored big-endian: then the order of
the bytes is the order of the tokens, comparing is one `memcmp`, and libdivsufsort, which sorts bytes, can be used.
Measured on 3.07 M tokens of the quickstart: libdivsufsort over the bytes, odd positions thrown away afterwards, 0.7 s;
prefix doubling in NumPy 9.1 s. Building takes 14 bytes of memory per token of two bytes.

A folder holds `tokens.npy` and `suffix_array.npy`; both are mapped, not loaded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diglot.core.errors import DiglotError, InputError
from diglot.core.storage import atomic_path

TOKENS, ORDER = "tokens.npy", "suffix_array.npy"


@dataclass(frozen=True)
class SuffixArray:
    """tokens: unsigned, big-endian, [N]; order: positions of the suffixes, [N]."""

    tokens: NDArray[Any]
    order: NDArray[Any]

    @classmethod
    def build(cls, tokens: NDArray[Any]) -> SuffixArray:
        """Sort the suffixes of some tokens, of any unsigned type."""
        stored = np.ascontiguousarray(tokens, dtype=tokens.dtype.newbyteorder(">"))
        return cls(stored, sort_suffixes(stored))

    @classmethod
    def open(cls, folder: Path) -> SuffixArray:
        """Map a saved array. Raises InputError when files are missing, damaged or of different lengths."""
        try:
            tokens, order = (np.load(folder / name, mmap_mode="r") for name in (TOKENS, ORDER))
        except FileNotFoundError as error:
            raise InputError(
                f"{folder} holds no index ({error.filename} is missing). Run the recipe's index step."
            ) from None
        except (ValueError, OSError, EOFError) as error:
            raise InputError(
                f"the index in {folder} is damaged ({error}). Delete it and run the recipe again."
            ) from error
        if len(tokens) != len(order) or tokens.dtype.newbyteorder(">") != tokens.dtype:
            raise InputError(
                f"the index in {folder} is damaged: {len(order):,} suffixes for {len(tokens):,} tokens "
                f"of type {tokens.dtype}. Delete it and run the recipe again."
            )
        return cls(tokens, order)

    def save(self, folder: Path) -> None:
        for name, array in ((TOKENS, self.tokens), (ORDER, self.order)):
            with atomic_path(folder / name) as partial, partial.open("wb") as stream:
                np.save(stream, array)

    def __len__(self) -> int:
        return len(self.order)

    def find(self, ids: Sequence[int]) -> tuple[int, int]:
        """The interval [lo, hi) of `order` whose suffixes start with `ids`; empty, lo == hi, when there is none."""
        sought = self._bytes_of(ids)
        prefix = self._prefixes(len(sought))
        lo = bisect_left(range(len(self)), sought, key=prefix)
        return lo, bisect_right(range(len(self)), sought, lo=lo, key=prefix)

    def count(self, ids: Sequence[int]) -> int:
        """How often `ids` occur; occurrences may overlap."""
        lo, hi = self.find(ids)
        return hi - lo

    def positions(self, lo: int, hi: int, limit: int | None = None) -> list[int]:
        """Where the suffixes of an interval start, smallest first, at most `limit`."""
        found: list[int] = np.sort(self.order[lo:hi])[:limit].tolist()
        return found

    def longest_prefix(self, ids: Sequence[int]) -> int:
        """How many of the first `ids` occur together somewhere.

        The place where `ids` would be sorted in has the longest match on one of its two sides.
        """
        sought = self._bytes_of(ids)
        prefix = self._prefixes(len(sought))
        place = bisect_left(range(len(self)), sought, key=prefix)
        sides = [prefix(i) for i in (place - 1, place) if 0 <= i < len(self)]
        return max((_common_bytes(sought, side) for side in sides), default=0) // self.tokens.itemsize

    def _bytes_of(self, ids: Sequence[int]) -> bytes:
        """The ids as they are stored. Raises InputError for an id that the type of the tokens cannot hold."""
        try:
            return np.array(ids, dtype=self.tokens.dtype).tobytes()
        except OverflowError:
            raise InputError(f"token ids {min(ids)}..{max(ids)} do not fit the index's {self.tokens.dtype}.") from None

    def _prefixes(self, length: int) -> Any:
        """A function: place in `order` -> the first `length` bytes of that suffix."""
        # memoryviews: one item of a mapped NumPy array costs ten times as much
        stored, order, width = self.tokens.view(np.uint8).data, self.order.data, self.tokens.itemsize

        def prefix(place: int) -> bytes:
            start = order[place] * width
            return bytes(stored[start : start + length])

        return prefix


def sort_suffixes(tokens: NDArray[Any]) -> NDArray[Any]:
    """Positions of the suffixes of big-endian `tokens` in order: uint32, or int64 for more than 4 G of them."""
    import pydivsufsort

    width = tokens.dtype.itemsize
    if not len(tokens):
        return np.empty(0, np.uint32)
    try:
        by_byte = pydivsufsort.divsufsort(tokens.view(np.uint8).copy())  # a copy: it refuses memory that is read-only
    except MemoryError as error:
        raise DiglotError(
            f"not enough memory to sort {len(tokens):,} tokens, which takes about {14 * len(tokens) / 1e9:.1f} GB. "
            "Index fewer streams, or use a machine with more memory."
        ) from error
    aligned = by_byte[by_byte % width == 0] // width
    return np.asarray(aligned, np.uint32 if len(tokens) <= 1 << 32 else np.int64)


def _common_bytes(left: bytes, right: bytes) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:  # halving: long equal stretches are compared by memcmp
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle - 1)
    return low
