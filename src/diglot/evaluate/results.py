"""The ledger's `eval_result` record: a score, its interval and the string that makes it comparable with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from diglot.evaluate.statistics import Estimate

DIGITS = 6  # decimals kept: below them lies the noise of float32 sums


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """One score of one model on one group of items.

    model: who was scored: `base`, `chat`, `ngram-3`; for a difference, `base - ngram-3`.
    language, source: the group of items, BCP 47 and source name; None means all.
    low, high: 95 % bootstrap interval over clusters of items; None where there were fewer than two clusters.
    num_few_shot: solved examples shown before each item.
    signature: two scores with equal signatures were measured on the same items in the same way.
    """

    task: str
    version: int
    model: str
    language: str | None
    source: str | None
    metric: str
    value: float
    low: float | None
    high: float | None
    num_items: int
    num_clusters: int
    signature: str
    num_few_shot: int = 0

    def to_record(self) -> dict[str, Any]:
        return {"record": "eval_result", **asdict(self)}


def result(estimate: Estimate, **names: Any) -> EvalResult:
    """An EvalResult from an estimate; `names` are the fields that the estimate does not have."""
    return EvalResult(
        value=_rounded(estimate.value),
        low=None if estimate.low is None else _rounded(estimate.low),
        high=None if estimate.high is None else _rounded(estimate.high),
        num_items=estimate.num_items,
        num_clusters=estimate.num_clusters,
        **names,
    )


def signature(task: str, version: int, items: Sequence[str], **conditions: object) -> str:
    """`bits_per_byte:1|items:0c1d2e3f|context:512|...`: what two comparable scores have in common.

    items: identifiers of the scored items; their order does not matter.
    """
    digest = xxhash.xxh3_64_hexdigest("\n".join(sorted(items)).encode())[:12]
    parts = [f"{task}:{version}", f"items:{digest}", *(f"{name}:{conditions[name]}" for name in conditions)]
    return "|".join(parts)


def _rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0  # no negative zero
