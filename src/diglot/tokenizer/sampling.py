"""How often each document is shown to the tokenizer's training, so that no language takes the vocabulary for itself.

A language with b bytes gets a share of the sample in proportion to b ** alpha: 1 leaves the corpus as it is, 0 gives
all languages the same number of bytes, 0.3 is what XLM-R used (Conneau et al. 2020, arXiv 1911.02116). Bytes and not
documents or characters, because bytes are what a token has to cover.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from diglot.core.errors import ConfigError, InputError


def language_shares(num_bytes: Mapping[str, int], alpha: float) -> dict[str, float]:
    """Share of each language in the sample, by `bytes ** alpha`; the shares sum to 1."""
    weights = {lang: size**alpha for lang, size in num_bytes.items() if size}
    if not weights:
        raise InputError("there is no text to train a tokenizer on: every document was dropped or held out.")
    return {lang: weight / math.fsum(weights.values()) for lang, weight in weights.items()}


def checked_shares(shares: Mapping[str, float], num_bytes: Mapping[str, int]) -> dict[str, float]:
    """A recipe's shares, made to sum to 1. Raises ConfigError unless they name exactly the languages there are."""
    present = {lang for lang, size in num_bytes.items() if size}
    if set(shares) != present:
        raise ConfigError(
            f"shares name {', '.join(sorted(shares))}, but the training documents are in {', '.join(sorted(present))}. "
            "Give every language a share, or leave shares out."
        )
    return {lang: share / math.fsum(shares.values()) for lang, share in shares.items()}


def copies_per_document(
    num_bytes: Mapping[str, int], shares: Mapping[str, float], *, sample_bytes: int, max_copies: float
) -> dict[str, float]:
    """Mean number of times a document of each language is shown.

    The sample is as large as the corpus, at most `sample_bytes`; `max_copies` keeps a few small documents from being
    all that the vocabulary knows of a language.
    """
    size = min(sample_bytes, sum(num_bytes.values()))
    return {lang: min(max_copies, size * share / num_bytes[lang]) for lang, share in shares.items()}


def num_copies(mean: float, lot: float) -> int:
    """A whole number with this mean, given the document's lot in [0, 1)."""
    return math.floor(mean + lot)
