"""What deduplication says about every document, and how it is added to the verdicts of the steps before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from diglot.corpus.decide import next_rule
from diglot.corpus.dedup.keys import DocumentKeys
from diglot.corpus.dedup.near import NearDuplicates
from diglot.corpus.tables import DECISION

EXACT_RULE, NEAR_RULE = "exact_duplicate", "near_duplicate"


@dataclass(frozen=True)
class Verdicts:
    """One row for each of the N documents of the keys, in their order.

    exact: dropped because of an equal text; near: because of a similar one. duplicate_of int64 numbers the kept
    document, -1 where kept. jaccard, containment float32, measured against it, NaN where kept. cluster bytes.
    """

    exact: Any
    near: Any
    duplicate_of: Any
    jaccard: Any
    containment: Any
    cluster: Any

    @property
    def keep(self) -> Any:
        return self.duplicate_of < 0


def combine(exact_of: Any, taking_part: Any, near: NearDuplicates, cluster: Any) -> Verdicts:
    """Join the two stages.

    An exact copy of a document that was itself dropped as a near-duplicate points at the one that is kept, with the
    similarity measured there: their texts are equal up to what shingles do not see.

    Args:
        exact_of: int64 [N], from `exact_duplicates`.
        taking_part: int64 [M], which of the N documents the second stage saw.
        near: of those M.
        cluster: bytes [N], cluster of every kept document; a dropped one takes that of the document it points at.
    """
    num_documents = len(exact_of)
    near_of = np.full(num_documents, -1, np.int64)
    jaccard, containment = np.full(num_documents, np.nan, np.float32), np.full(num_documents, np.nan, np.float32)
    near_of[taking_part] = np.where(near.duplicate_of >= 0, taking_part[near.duplicate_of], -1)
    jaccard[taking_part], containment[taking_part] = near.jaccard, near.containment
    exact = exact_of >= 0
    first = np.where(exact, exact_of, np.arange(num_documents))  # the copy that stood for it in the second stage
    duplicate_of = np.where(near_of[first] >= 0, near_of[first], exact_of)
    jaccard = np.where(near_of[first] >= 0, jaccard[first], np.where(exact, np.float32(1), np.float32(np.nan)))
    containment = np.where(near_of[first] >= 0, containment[first], np.where(exact, np.float32(1), np.float32(np.nan)))
    kept = np.where(duplicate_of >= 0, duplicate_of, np.arange(num_documents))
    return Verdicts(exact, near_of >= 0, duplicate_of, jaccard, containment, cluster[kept])


def add_rules(rules: list[str]) -> list[str]:
    """The rules of the steps before with ours behind them; several deduplicate steps share them.

    Raises InputError when the bits do not suffice.
    """
    for rule in (EXACT_RULE, NEAR_RULE):
        rules = rules if rule in rules else next_rule(rules, rule)
    return rules


def decide(
    decisions: pa.Table, rows: Any, numbers: Any, verdicts: Verdicts, keys: DocumentKeys, rules: list[str]
) -> pa.Table:
    """The verdicts of one shard with those of deduplication added; of documents dropped before, nothing changes.

    Args:
        decisions: of the step before, the whole shard.
        rows, numbers: which rows of it take part, and as which documents of the keys; int64 [K].
        rules: from `add_rules`.
    """
    columns = {name: decisions[name] for name in DECISION.names}
    dropped = ~verdicts.keep[numbers]
    bit = np.where(verdicts.exact[numbers], rules.index(EXACT_RULE), rules.index(NEAR_RULE))
    row, number = rows[dropped], numbers[dropped]

    def edited(name: str, at: Any, values: Any) -> Any:
        array = decisions[name].to_numpy(zero_copy_only=False).copy()
        array[at] = values
        return pa.array(array, DECISION.field(name).type)

    objections = decisions["reasons"].to_numpy()[row] | (np.uint64(1) << bit[dropped].astype(np.uint64))
    original, cluster = (decisions[name].to_numpy(zero_copy_only=False).copy() for name in ("duplicate_of", "cluster"))
    original[row] = keys.ids[verdicts.duplicate_of[number]].astype(str)
    cluster[rows] = verdicts.cluster[numbers].astype(str)
    columns |= {
        "keep": edited("keep", row, False),
        "reasons": edited("reasons", row, objections),
        "first_reason": edited("first_reason", row, bit[dropped]),
        "value": edited("value", row, verdicts.jaccard[number]),
        "duplicate_of": pa.array(original, pa.string()),
        "jaccard": edited("jaccard", row, verdicts.jaccard[number]),
        "containment": edited("containment", row, verdicts.containment[number]),
        "cluster": pa.array(cluster, pa.string()),
    }
    return pa.table(columns, schema=DECISION)
