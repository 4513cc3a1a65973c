"""How many sequences of each stream a phase of pre-training reads.

A mixture maps patterns of stream names to weights, `{"*.zh-Hans": 2, "*": 1}`, or to budgets,
`{"wiki.*": {share: 0.2, max_epochs: 4}, "*.en": {tokens: 40M}, "*": 1}`. Of the patterns that fit a stream the most
specific takes it, the one with most characters outside wildcards; so the order in which they are written, which JSON
files and fingerprints do not keep, makes no difference. The streams of one pattern share what it gets in proportion to
their tokens; a stream that no pattern fits is not read.

Budgets are met first: `tokens` and `epochs` exactly, `share` of the phase. What is left of the phase goes to the
weights. More tokens than a stream holds are read by reading it again; `max_epochs` caps how often in this phase. A
budget or weight that would exceed its cap stops the run, or with `spill: redistribute` the surplus goes to the weights
and shares below their caps, in proportion to what they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diglot.core.errors import ConfigError
from diglot.core.patterns import most_specific

Counts = Literal["tokens", "epochs"]
UNITS = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the streams of one pattern get of a phase: exactly one of the first four, and a cap.

    tokens: so many tokens, also written 40M. share: of the phase's tokens, in [0, 1]. epochs: every stream so often.
    weight: as a bare number; of what budgets leave.
    max_epochs: no stream of the pattern is read more often in this phase.
    spill: what happens to tokens above the cap.
    """

    tokens: int | str | None = None
    share: float | None = None
    epochs: float | None = None
    weight: float | None = None
    max_epochs: float | None = None
    spill: Literal["error", "redistribute"] = "error"

    def __post_init__(self) -> None:
        given = [name for name in ("tokens", "share", "epochs", "weight") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"a mixture budget has {' and '.join(given) or 'no amount'}, but needs exactly one of tokens, share, "
                "epochs and weight, e.g. {tokens: 40M, max_epochs: 4}."
            )
        amount = self.num_tokens if given == ["tokens"] else getattr(self, given[0])
        if not 0 <= amount < float("inf") or (given == ["share"] and amount > 1):
            allowed = "a share from 0 to 1" if given == ["share"] else "a number from 0 up"
            raise ConfigError(f"mixture budget {given[0]} = {amount} is not {allowed}.")
        if self.max_epochs is not None and self.max_epochs <= 0:
            raise ConfigError(f"max_epochs = {self.max_epochs}, but a cap is above 0. Take the pattern out instead.")

    @property
    def num_tokens(self) -> int:
        """`tokens` as a number. Raises ConfigError for a text such as `40 MB`."""
        if self.tokens is None or isinstance(self.tokens, int):
            return self.tokens or 0
        number, unit = self.tokens.strip().replace("_", ""), 1
        if number and number[-1] in UNITS:
            number, unit = number[:-1], UNITS[number[-1]]
        try:
            return round(float(number) * unit)
        except (ValueError, OverflowError):
            raise ConfigError(f"tokens: '{self.tokens}' is not a number. Write 40000000, 40M, 1.5B or 300k.") from None

    @property
    def is_exact(self) -> bool:
        return self.tokens is not None or self.epochs is not None


Entry = float | Budget
MIN_REST = 1e-9  # share of a phase that budgets must leave for the weights; with less, those would read nothing


def quotas(
    mixture: Mapping[str, Entry],
    sizes: Mapping[str, int],
    num_sequences: int,
    counts: Counts = "tokens",
    *,
    sequence_length: int = 1,
    slack: int = 0,
) -> dict[str, int]:
    """Whole numbers of sequences by stream that add up to `num_sequences`, as near to the mixture as they can be.

    Args:
        mixture: pattern -> weight, >= 0, or budget. Empty means every stream in proportion to its tokens.
        sizes: stream -> number of sequences it holds.
        counts: what a weight counts. `tokens`: the share that the pattern gets. `epochs`: how often its streams are
            read relative to the others; weights of 1 keep the natural proportions.
        sequence_length: tokens of a sequence, for budgets in tokens.
        slack: by how many sequences exact budgets without weights may miss the phase's length; they are scaled to it.
    Raises: ConfigError for a pattern that fits no stream, budgets that do not fit the phase, a cap that is exceeded, or
        when no stream is left.
    """
    groups = pattern_members(mixture, sizes)
    total = float(num_sequences)
    weights = {p: w for p in groups if (w := _weight(mixture.get(p, 1.0))) is not None}
    budgets = {p: b for p in groups if isinstance(b := mixture.get(p, 1.0), Budget) and b.weight is None}
    wanted: dict[str, float] = {}
    for pattern, budget in budgets.items():
        held = sum(sizes[name] for name in groups[pattern])
        amount = budget.num_tokens / sequence_length if budget.tokens is not None else held * (budget.epochs or 0.0)
        amount = total * budget.share if budget.share is not None else amount
        wanted |= {name: amount * sizes[name] / held for name in groups[pattern]}
    rest = total - sum(wanted.values())
    shares: dict[str, float] = {}
    for pattern, weight in weights.items():
        held = sum(sizes[name] for name in groups[pattern])
        for name in groups[pattern]:
            shares[name] = weight * sizes[name] / (held if counts == "tokens" else 1)
    whole = sum(shares.values())
    if not any(isinstance(entry, Budget) for entry in mixture.values()):
        if whole <= 0:
            raise ConfigError(
                f"mixture {dict(mixture)} gives every stream weight 0. Give at least one a positive weight."
            )
        return largest_remainder({name: share / whole for name, share in shares.items() if share > 0}, num_sequences)
    if whole > 0:
        if rest < MIN_REST * total:
            raise ConfigError(_misfit(total - rest, total, sequence_length, "Lower a budget, or take the weights out"))
        wanted |= {name: share / whole * rest for name, share in shares.items()}
    elif abs(rest) > max(slack, 1):
        way_out = "Give one pattern a weight to take the rest" if rest > 0 else "Lower a budget"
        raise ConfigError(_misfit(total - rest, total, sequence_length, way_out))
    summed = sum(wanted.values())
    wanted = {name: want * total / summed for name, want in wanted.items()}  # what is read, so that caps hold for it
    wanted = _capped(wanted, mixture, groups, sizes)
    summed = sum(wanted.values())
    return largest_remainder({name: want / summed for name, want in wanted.items() if want > 0}, num_sequences)


def pattern_members(mixture: Mapping[str, Entry], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """The streams that each pattern takes. Raises ConfigError for a pattern without any."""
    names = sorted(name for name, size in sizes.items() if size > 0)
    groups: dict[str, list[str]] = {pattern: [] for pattern in sorted(mixture or ("*",))}
    for name in names:
        pattern = most_specific(name, groups)
        if pattern is not None:
            groups[pattern].append(name)
    for pattern, members in groups.items():
        if not members:
            raise ConfigError(
                f"mixture pattern '{pattern}' fits no stream that a more specific pattern left. Streams: "
                f"{', '.join(names)}."
            )
        weight = _weight(mixture.get(pattern, 1.0))
        if weight is not None and not 0 <= weight < float("inf"):
            raise ConfigError(f"mixture weight {weight} of '{pattern}' is not a number from 0 up.")
    return groups


def _weight(entry: Entry) -> float | None:
    return entry.weight if isinstance(entry, Budget) else entry


def _misfit(budgeted: float, total: float, sequence_length: int, way_out: str) -> str:
    return (
        f"the budgets of the mixture add up to {round(budgeted * sequence_length):,} tokens, but the phase has "
        f"{round(total * sequence_length):,}. {way_out}, or set the phase's tokens to fit."
    )


def _capped(
    wanted: Mapping[str, float],
    mixture: Mapping[str, Entry],
    groups: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
) -> dict[str, float]:
    """`wanted` with no stream above its cap; the sum stays. Raises ConfigError when a cap is exceeded for good."""
    entry = {name: mixture.get(pattern, 1.0) for pattern, members in groups.items() for name in members}
    caps = {
        name: float(int(one.max_epochs * sizes[name] + 1e-9))
        for name, one in entry.items()
        if isinstance(one, Budget) and one.max_epochs is not None
    }
    found = dict(wanted)
    while over := sorted(name for name, cap in caps.items() if found.get(name, 0.0) > cap + 1):
        for name in over:
            one = entry[name]
            assert isinstance(one, Budget)
            if one.spill == "error":
                raise ConfigError(_over_cap(name, found[name] / sizes[name], one))
        surplus = sum(found[name] - caps[name] for name in over)
        found |= {name: caps[name] for name in over}
        takers = [
            name
            for name, one in entry.items()
            if not (isinstance(one, Budget) and one.is_exact) and found.get(name, 0.0) < caps.get(name, float("inf"))
        ]
        if not (held := sum(found.get(name, 0.0) for name in takers)):
            name = over[0]
            one = entry[name]
            assert isinstance(one, Budget)
            raise ConfigError(
                f"{_over_cap(name, wanted[name] / sizes[name], one)} spill: redistribute finds no weight or share "
                "below its cap to give the rest to."
            )
        found |= {name: found[name] * (1 + surplus / held) for name in takers if name in found}
    return found


def _over_cap(name: str, epochs: float, budget: Budget) -> str:
    return (
        f"the mixture needs {epochs:.2f} epochs of '{name}', more than its max_epochs = {budget.max_epochs:g}. "
        "Lower its budget or the phase's tokens, or raise max_epochs; spill: redistribute gives the rest to other "
        "streams."
    )


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
