"""How good a classifier is: precision, recall, ROC-AUC, a threshold for a wanted precision, calibration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

NUM_BINS = 10


class Judged(NamedTuple):
    """Of documents that score at least the threshold. Shares are NaN where nothing is divided."""

    precision: float
    recall: float
    f1: float


def judged(scores: Any, positive: Any, threshold: float) -> Judged:
    """Args: scores: float [N]; positive: bool [N]."""
    recalled = scores >= np.float32(threshold)
    hits = int((recalled & positive).sum())
    return _judged(hits, int(recalled.sum()), int(positive.sum()))


def roc_auc(scores: Any, positive: Any) -> float:
    """Probability that a positive document scores above a negative one, ties counting half (Mann-Whitney U)."""
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return float("nan")
    _, rank_of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_rank = ends - (counts - 1) / 2  # of ties
    u = mean_rank[rank_of][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(u / (num_positive * num_negative))


def threshold_for(scores: Any, positive: Any, precision: float) -> float | None:
    """Where the documents from the lowest score with at least this precision begin; None when no score has it.

    Half way to the next lower score: every value of the gap has the same precision, and where labels are told apart
    without error, the lowest positive score itself may be 1.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(positive[order])
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)
    enough = np.flatnonzero(last_of_ties & (hits >= precision * np.arange(1, len(ordered) + 1)))
    if not len(enough):
        return None
    lowest, below = ordered[enough[-1]], ordered[min(enough[-1] + 1, len(ordered) - 1)]
    middle = np.float32((float(lowest) + float(below)) / 2)
    return float(middle if middle > below else lowest)


def calibration(scores: Any, positive: Any) -> list[dict[str, float]]:
    """For each tenth of the scale that has documents: how many, their mean score, and the share that is positive."""
    bins = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    table = []
    for number in range(NUM_BINS):
        mine = bins == number
        if mine.any():
            table.append(
                {
                    "from": number / NUM_BINS,
                    "to": (number + 1) / NUM_BINS,
                    "documents": int(mine.sum()),
                    "mean_score": round(float(scores[mine].mean()), 4),
                    "positive_share": round(float(positive[mine].mean()), 4),
                }
            )
    return table


def report(scores: Any, positive: Any, threshold: float | None, wanted_precision: float) -> dict[str, Any]:
    """Everything above as JSON. threshold: None takes the one for wanted_precision, where there is one."""
    for_precision = threshold_for(scores, positive, wanted_precision)
    used = threshold if threshold is not None else for_precision
    found: dict[str, Any] = {
        "documents": len(scores),
        "positive": int(positive.sum()),
        "roc_auc": _rounded(roc_auc(scores, positive)),
        "threshold_for_precision": {"precision": wanted_precision, "threshold": for_precision},
        "calibration": calibration(scores, positive),
        "threshold": used,
    }
    if used is not None:
        found |= {name: _rounded(value) for name, value in judged(scores, positive, used)._asdict().items()}
    return found


def _judged(hits: int, num_recalled: int, num_positive: int) -> Judged:
    precision = hits / num_recalled if num_recalled else float("nan")
    recall = hits / num_positive if num_positive else float("nan")
    f1 = 2 * hits / (num_recalled + num_positive) if num_recalled + num_positive else float("nan")
    return Judged(precision, recall, f1)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
