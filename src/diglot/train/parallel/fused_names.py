"""The names of fused parameters and of their parts, readable without torch."""

from __future__ import annotations

PARTS = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
"""Fused linear layer -> the matrices in it, from the first row on."""


def fused_name(name: str) -> str | None:
    """`layers.0.attention.qkv.weight` of `layers.0.attention.qkv.k.weight`, also inside the names of an optimizer's
    state; None for what is no part."""
    words = name.split(".")
    for i in range(len(words) - 1):
        if words[i + 1] in PARTS.get(words[i], ()):
            return ".".join(words[: i + 1] + words[i + 2 :])
    return None


def part_names(name: str) -> list[str]:
    """The names of the parts of a fused one, in order; of any other name none. Inverse of `fused_name`."""
    words = name.split(".")
    found = [i for i, word in enumerate(words) if word in PARTS and i + 1 < len(words)]
    return [".".join([*words[: i + 1], part, *words[i + 1 :]]) for i in found for part in PARTS[words[i]]]
