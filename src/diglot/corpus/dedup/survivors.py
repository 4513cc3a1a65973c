"""The survivor rule: of two documents that are duplicates of each other, which one stays.

The rule orders all documents, best first, and the order depends on what documents are and never on where they stand:
neither shards nor workers can change it. What the rule leaves undecided the smaller id decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

SURVIVORS = {
    "declared": "the page that declares the language it is written in, then as `longest`",
    "longest": "most UTF-8 bytes, then the smallest id",
    "first": "the smallest id",
    "newest": "the latest date, documents without one last, then the smallest id",
    "oldest": "the earliest date, documents without one last, then the smallest id",
}
BY_DATE = ("newest", "oldest")


@dataclass(frozen=True, kw_only=True)
class SurvivorRule:
    """How documents are ordered: the preferred sources in their order, then all others; within that by the rule.

    rule: one of SURVIVORS, or `signal`. signal: name of the attribute column for that. highest: of the signal.
    """

    rule: str = "declared"
    signal: str | None = None
    highest: bool = True
    prefer_sources: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The rule in a sentence, for the report."""
        if self.rule == "signal":
            said = f"the {'highest' if self.highest else 'lowest'} {self.signal}, unmeasured last, then the smallest id"
        else:
            said = SURVIVORS[self.rule]
        return (
            f"sources {', '.join(self.prefer_sources)} first in this order; then {said}"
            if self.prefer_sources
            else said
        )


def survival_order(
    rule: SurvivorRule, *, ids: Any, num_bytes: Any, estranged: Any, merit: Any, sources: Sequence[str], source: Any
) -> Any:
    """Numbers of N documents, best survivor first: int64 [N].

    Args:
        ids: bytes [N], each once.
        num_bytes: int64 [N].
        estranged: int8 [N], 0 where the declared language is that of the text, 1 where none is declared, 2 otherwise.
        merit: float64 [N], the signal or the date; NaN where there is none. Read for `signal`, `newest` and `oldest`.
        sources, source: names, and which of them each document has, int [N].
    """
    criteria: dict[str, tuple[Any, ...]] = {
        "declared": (ids, -num_bytes, estranged),
        "longest": (ids, -num_bytes),
        "first": (ids,),
    }
    if rule.rule in criteria:
        chosen = criteria[rule.rule]
    else:
        upwards = rule.rule == "oldest" or (rule.rule == "signal" and not rule.highest)
        chosen = (ids, merit if upwards else -merit)  # NaN sorts last either way
    if rule.prefer_sources:
        place = {name: number for number, name in enumerate(rule.prefer_sources)}
        rank = np.array([place.get(name, len(place)) for name in sources], np.int64)
        chosen = (*chosen, rank[source])
    return np.lexsort(chosen)  # the last criterion counts first


def instants(dates: Sequence[str | None]) -> Any:
    """Seconds since 1970 of each date, float64; NaN for a missing one and for what is no date.

    Understands ISO 8601, also cut to the year or the month (its first day), and dates of HTTP and mail headers. Without
    a zone a date is taken as UTC.
    """
    known: dict[str | None, float] = {None: np.nan}
    return np.array([known[d] if d in known else known.setdefault(d, _instant(d)) for d in dates], np.float64)


def _instant(date: str | None) -> float:
    text = (date or "").strip()
    if re.fullmatch(r"\d{4}(-\d{2})?", text):
        text += "-01" if len(text) == 7 else "-01-01"
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return float("nan")
