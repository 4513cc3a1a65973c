"""How often each document is shown to the tokenizer's training, so that no language takes the vocabulary for itself.

A language with b bytes gets a share of the sample in proportion to b ** alpha: 1 leaves the corpus as it is, 0 gives
all languages the same number of bytes, 0.3 is what XLM-R used (Conneau et al. 2020, arXiv 1911.02116). Bytes and not
documents or characters, because bytes are what a token has to cover.

Inside a language a source with b bytes and weight w gets a share in proportion to w * b ** source_alpha, so that code,
mathematics and academic text can be shown more often than web pages, as MAP-Neo did (arXiv 2405.19327).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from diglot.core.errors import ConfigError, InputError
from diglot.core.patterns import most_specific

Name = TypeVar("Name", bound=Hashable)


class Stratum(NamedTuple):
    """What the sample is balanced over: the documents of one source that are in one language."""

    lang: str
    source: str


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
        without_text, without_share = sorted(set(shares) - present), sorted(present - set(shares))
        wrong = [
            *([f"{', '.join(without_text)} has no training text"] if without_text else []),
            *([f"{', '.join(without_share)} has no share"] if without_share else []),
        ]
        raise ConfigError(
            f"shares name {', '.join(sorted(shares))}, but the training documents are in {', '.join(sorted(present))}: "
            f"{'; '.join(wrong)}. Give every language a share, or leave shares out."
        )
    return {lang: share / math.fsum(shares.values()) for lang, share in shares.items()}


def source_weights(weights: Mapping[str, float], sources: Iterable[str]) -> dict[str, float]:
    """The weight of each source: that of the most specific pattern, 1 where none fits.

    Raises: ConfigError for a pattern that is left without a source.
    """
    names = sorted(set(sources))
    chosen = {name: most_specific(name, weights) for name in names}
    if idle := sorted(set(weights) - set(chosen.values())):
        raise ConfigError(
            f"no source takes its weight from the pattern {', '.join(map(repr, idle))}. Sources with training text: "
            f"{', '.join(names)}. The most specific pattern that fits a source counts."
        )
    return {name: 1.0 if pattern is None else weights[pattern] for name, pattern in chosen.items()}


def copies_per_document(
    num_bytes: Mapping[Stratum, int],
    shares: Mapping[str, float],
    *,
    sample_bytes: int,
    max_copies: float,
    weights: Mapping[str, float] | None = None,
    source_alpha: float = 1.0,
) -> dict[Stratum, float]:
    """Mean number of times a document of each stratum is shown.

    The sample is as large as the corpus, at most `sample_bytes`; `max_copies` keeps a few small documents from being
    all that the vocabulary knows of a language or a source, so that these may stay below their share.

    Args:
        shares: of each language; they sum to 1.
        weights: of each source; 1 for those that are not named.
    """
    strata = {stratum: size for stratum, size in num_bytes.items() if size and stratum.lang in shares}
    size = min(sample_bytes, sum(strata.values()))
    # Times a document is shown relative to others of its language. Exactly 1 in the neutral setting, and so is `level`.
    relative = {
        stratum: (weights or {}).get(stratum.source, 1.0) * bytes_ ** (source_alpha - 1)
        for stratum, bytes_ in strata.items()
    }
    copies = {}
    for lang, share in shares.items():
        mine = [stratum for stratum in strata if stratum.lang == lang]
        total = sum(strata[stratum] for stratum in mine)
        shown = math.fsum(strata[stratum] * relative[stratum] for stratum in mine)
        if not shown:
            raise ConfigError(f"all sources of {lang} have weight 0. Give one of them a weight, or drop the language.")
        level = total / shown
        for stratum in mine:
            copies[stratum] = min(max_copies, size * share / total * (relative[stratum] * level))
    return copies


def num_copies(mean: float, lot: float) -> int:
    """A whole number with this mean, given the document's lot in [0, 1)."""
    return math.floor(mean + lot)


def even_budgets(num_bytes: Mapping[Name, int], total: int) -> dict[Name, int]:
    """At most `total` bytes over all names: all of the small ones, the same number of each that is larger."""
    budgets: dict[Name, int] = {}
    left = total
    for rank, (name, size) in enumerate(sorted(num_bytes.items(), key=lambda item: item[1])):
        budgets[name] = min(size, left // (len(num_bytes) - rank))
        left -= budgets[name]
    return budgets
