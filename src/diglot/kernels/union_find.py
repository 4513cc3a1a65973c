"""Union-find over numbered nodes. The root of a component is its smallest node, whatever the order of the edges."""

from __future__ import annotations

import numpy as np

from diglot.kernels.jit import kernel


def forest(num_nodes: int) -> np.ndarray:
    """Every node alone: int64 [num_nodes], each its own parent."""
    return np.arange(num_nodes, dtype=np.int64)


@kernel
def unite(parents, left, right):
    """Join the components of left[e] and right[e] for every edge e, in place."""
    for e in range(left.shape[0]):
        a, b = _root(parents, left[e]), _root(parents, right[e])
        if a < b:
            parents[b] = a
        elif b < a:
            parents[a] = b


@kernel
def roots(parents):
    """The root of every node, int64 [N]: `parents` itself, flattened."""
    for node in range(parents.shape[0]):  # a parent is never larger than its child, so one pass in order is enough
        parents[node] = parents[parents[node]]
    return parents


@kernel
def _root(parents, node):
    while parents[node] != node:
        parents[node] = parents[parents[node]]  # halve the path
        node = parents[node]
    return node


def components_oracle(num_nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """The smallest node of every node's component, by spreading labels until nothing changes: the definition."""
    label = list(range(num_nodes))
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            smallest = min(label[a], label[b])
            changed |= label[a] != smallest or label[b] != smallest
            label[a] = label[b] = smallest
    return label
