"""The texts that an edit looks at: some documents of a shard, as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Texts:
    """N documents side by side. offsets int64 [N + 1] into utf8, uint8; both as kernels take them."""

    offsets: Any
    utf8: Any

    @staticmethod
    def of(texts: Sequence[str] | Any) -> Texts:
        """From a list of strings or a pyarrow large_string array without nulls."""
        from diglot.kernels.jit import text_buffers

        array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
        return Texts(*text_buffers(array))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, row: int) -> bytes:
        """The bytes of one document."""
        return bytes(self.utf8[self.offsets[row] : self.offsets[row + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return map(self.text, range(len(self)))

    def rows_at(self, positions: Any) -> Any:
        """Which document each byte position of utf8 belongs to, int64."""
        return np.searchsorted(self.offsets, positions, side="right") - 1

    def batches(self, max_bytes: int) -> Iterator[tuple[int, Texts]]:
        """(first row, texts): runs of documents of about so many bytes, at least one document each."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + max_bytes, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            yield first, Texts(self.offsets[first : last + 1], self.utf8)
            first = last
