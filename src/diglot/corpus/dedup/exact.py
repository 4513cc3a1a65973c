"""Exact duplicates: documents whose normalised texts have the same 128-bit hash."""

from __future__ import annotations

from typing import Any

import numpy as np


def exact_duplicates(content: Any) -> Any:
    """For every document the smallest-numbered one with the same hash, -1 for that one itself.

    content: uint64 [N, 2], high and low half. Returns int64 [N]. With 128 bits two different texts share a hash with
    probability 1e-19 in a corpus of ten billion, so nothing is compared.
    """
    num_documents = len(content)
    duplicate_of = np.full(num_documents, -1, np.int64)
    if num_documents == 0:
        return duplicate_of
    order = np.lexsort((np.arange(num_documents), content[:, 1], content[:, 0]))
    ordered = content[order]
    is_first = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    first = order[np.maximum.accumulate(np.where(is_first, np.arange(num_documents), 0))]
    duplicate_of[order[~is_first]] = first[~is_first]
    return duplicate_of
