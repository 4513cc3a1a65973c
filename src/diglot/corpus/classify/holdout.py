"""Validation documents of a classifier: whole sites, so that it cannot pass by knowing a site's furniture.

MAP-Neo's validation hosts differ from its training hosts because its positives are in order of host; here that is the
rule. A site that holds much of a label is divided by folder, and a folder by near-duplicate cluster, or validation
would get all of the label or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from diglot.core.errors import InputError
from diglot.core.seeds import derive_seed

MAX_GROUP_SHARE = 0.25  # of a label's documents; ours: a larger group is divided


class Holdout(NamedTuple):
    """validation: bool [N]. num_groups: groups that were drawn from. num_divided: groups that were too large."""

    validation: Any
    num_groups: int
    num_divided: int


def hold_out(
    levels: Sequence[tuple[str, ...]], labels: Any, label_names: Sequence[str], *, share: float, seed: int
) -> Holdout:
    """Draw about `share` of the groups, at least one with each label, by a hash of their names.

    Args:
        levels: of each document the groups it belongs to, from coarse to fine, at least one.
        labels: int [N], into label_names.
    Raises: InputError when all documents of a label are one group, or its groups are too few for both sides.
    """
    groups, num_divided = _divided(levels, labels, len(label_names))
    names = sorted(set(groups))
    lots = {name: derive_seed(seed, "validation", name) / 2**63 for name in names}
    chosen = {name for name in names if lots[name] < share}
    of_label: list[set[str]] = [set() for _ in label_names]
    for group, label in zip(groups, labels.tolist(), strict=True):
        of_label[label].add(group)
    for label, mine in zip(label_names, of_label, strict=True):
        if not mine:
            raise InputError(f"no document is labelled '{label}'. Give some, or take the label out.")
        if len(mine) == 1:
            raise InputError(
                f"all documents labelled '{label}' belong together ({next(iter(mine))}), so none can be held out to "
                "measure the classifier on. Give documents of more places."
            )
    for mine in of_label:  # the luck of few groups: at least one on each side
        ordered = sorted(mine, key=lambda name: (lots[name], name))
        if not mine & chosen:
            chosen.add(ordered[0])
        if mine <= chosen:
            chosen.discard(ordered[-1])
    for label, mine in zip(label_names, of_label, strict=True):  # what one label needs, another may have undone
        if not mine & chosen or mine <= chosen:
            raise InputError(
                f"'{label}' shares its few places with other labels, so that none can be held out apart. "
                "Give documents of more places."
            )
    validation = np.array([group in chosen for group in groups], bool)
    return Holdout(validation, len(names), num_divided)


def _divided(levels: Sequence[tuple[str, ...]], labels: Any, num_labels: int) -> tuple[list[str], int]:
    """The group of each document: the coarsest that holds at most MAX_GROUP_SHARE of every label, or its finest."""
    totals = np.bincount(labels, minlength=num_labels)
    depth = np.zeros(len(levels), np.int64)
    divided: set[str] = set()
    while True:
        counts = Counter((levels[n][depth[n]], label) for n, label in enumerate(labels.tolist()))
        large = {group for (group, label), count in counts.items() if count > MAX_GROUP_SHARE * totals[label]}
        deeper = [n for n, level in enumerate(levels) if level[depth[n]] in large and depth[n] + 1 < len(level)]
        if not deeper:
            return [level[d] for level, d in zip(levels, depth.tolist(), strict=True)], len(divided)
        divided |= {levels[n][depth[n]] for n in deeper}
        depth[deeper] += 1
