"""Bits per byte: the one loss that does not depend on the tokenizer.

    bits per byte = sum over tokens of -log2 p(token | tokens before it in the document) / UTF-8 bytes of the document

Each document stands alone, behind one document-end token as in packing, and its own document-end token is predicted as
well. Documents longer than the model's context are read in windows that overlap by half, so that every token is scored
exactly once and with at least half a window before it wherever the document has that much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diglot.evaluate.losses import NOT_SCORED, sequence_nats
from diglot.evaluate.ngram_counts import Ints

if TYPE_CHECKING:
    from diglot.evaluate.heldout import Heldout
    from diglot.model.decoder import Decoder
    from diglot.train.parallel.ranks import Ranks


@dataclass(frozen=True)
class Window:
    """One pass over part of a document. Input p is the token before the document's token p, and predicts it."""

    document: int
    start: int  # the inputs are start ... end - 1
    end: int
    scored_to: int  # tokens scored_to ... end - 1 are new; earlier windows scored the others


def windows_of(document: int, num_tokens: int, context: int) -> list[Window]:
    """Windows over one document of `num_tokens` > 0 tokens, closing token included.

    >>> [(w.start, w.end, w.scored_to) for w in windows_of(0, 10, context=4)]
    [(0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    """
    windows = [Window(document, 0, min(context, num_tokens), 0)]
    while windows[-1].end < num_tokens:
        start = windows[-1].start + context // 2
        windows.append(Window(document, start, min(start + context, num_tokens), windows[-1].end))
    return windows


def document_nats(
    model: Decoder,
    tokens: Ints,
    starts: Ints,
    *,
    end_id: int,
    context: int,
    advance: Callable[[int], None] = lambda num_tokens: None,
    ranks: Ranks | None = None,
) -> NDArray[np.float64]:
    """Total -log p of each document under `model`, [D], in nats.

    Args:
        tokens: [T], documents laid end to end, each with its closing document-end token. starts: [D].
        context: tokens per window, even, at most the model's max_seq_len.
        advance: called after each batch with the number of tokens read (windows overlap, so more than T in all).
        ranks: as in `sequence_nats`, which divides the windows among them.
    """
    if context < 2 or context % 2 or context > model.config.max_seq_len:
        raise ValueError(f"context = {context} must be even and in 2 ... {model.config.max_seq_len} (max_seq_len).")
    lengths = np.diff(np.append(starts, len(tokens)))
    windows = [w for d, n in enumerate(lengths.tolist()) for w in windows_of(d, n, context)]
    inputs, targets = [], []
    for window in windows:
        document = tokens[starts[window.document] :][: window.end]
        inputs.append(np.concatenate([[end_id], document])[window.start : window.end])
        following = document[window.start :].copy()
        following[: window.scored_to - window.start] = NOT_SCORED
        targets.append(following)
    nats = np.zeros(len(starts))
    np.add.at(nats, [w.document for w in windows], sequence_nats(model, inputs, targets, advance, ranks))
    return nats


def language_bits_per_byte(
    model: Decoder, heldout: Heldout, *, end_id: int, context: int, ranks: Ranks | None = None
) -> dict[str, float]:
    """Bits per byte of each language: the nats of all its documents over all their bytes. `ranks` as in
    `sequence_nats`."""
    nats = document_nats(model, heldout.tokens, heldout.starts, end_id=end_id, context=context, ranks=ranks)
    found = {}
    for lang in sorted(set(heldout.langs)):
        of_lang = np.array([other == lang for other in heldout.langs])
        found[lang] = float(nats[of_lang].sum() / math.log(2) / heldout.num_bytes[of_lang].sum())
    return found
