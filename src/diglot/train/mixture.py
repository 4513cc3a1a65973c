"""How many sequences of each stream a phase of pre-training reads.

A mixture maps patterns of stream names to weights: `{"*.zh-Hans": 2, "*": 1}`. The first pattern that fits a stream
takes it; the streams of one pattern share its weight in proportion to their tokens; a stream that no pattern fits is
not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from diglot.core.errors import ConfigError

Counts = Literal["tokens", "epochs"]


def quotas(
    mixture: Mapping[str, float], sizes: Mapping[str, int], num_sequences: int, counts: Counts = "tokens"
) -> dict[str, int]:
    """Whole numbers of sequences by stream that add up to `num_sequences`, as near to the weights as they can be.

    Args:
        mixture: pattern -> weight, >= 0. Empty means every stream in proportion to its tokens.
        sizes: stream -> number of sequences it holds.
        counts: what a weight counts. `tokens`: the share of the phase's tokens that the pattern gets. `epochs`: how
        often
            its streams are read relative to the others; weights of 1 keep the natural proportions.
    Raises: ConfigError for a pattern that fits no stream, or when no stream is left.
    """
    names = sorted(name for name, size in sizes.items() if size > 0)
    groups: dict[str, list[str]] = {pattern: [] for pattern in (mixture or {"*": 1.0})}
    for name in names:
        pattern = next((p for p in groups if fnmatchcase(name, p)), None)
        if pattern is not None:
            groups[pattern].append(name)
    shares: dict[str, float] = {}
    for pattern, members in groups.items():
        weight = mixture.get(pattern, 1.0)
        if not members:
            raise ConfigError(
                f"mixture pattern '{pattern}' fits no stream that an earlier pattern left. Streams: {', '.join(names)}."
            )
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"mixture weight {weight} of '{pattern}' is not a number from 0 up.")
        held = sum(sizes[name] for name in members)
        for name in members:
            shares[name] = weight * sizes[name] / (held if counts == "tokens" else 1)
    total = sum(shares.values())
    if total <= 0:
        raise ConfigError(f"mixture {dict(mixture)} gives every stream weight 0. Give at least one a positive weight.")
    return largest_remainder({name: share / total for name, share in shares.items() if share > 0}, num_sequences)


def largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Split `total` into whole numbers nearest to the shares (which sum to 1); ties go to the first name."""
    whole = {name: int(share * total) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (whole[name] - shares[name] * total, name))
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def epochs_read(phase_quotas: Sequence[Mapping[str, int]], sizes: Mapping[str, int]) -> dict[str, float]:
    """How many times each stream is read over all phases."""
    return {name: sum(q.get(name, 0) for q in phase_quotas) / size for name, size in sizes.items() if size > 0}
