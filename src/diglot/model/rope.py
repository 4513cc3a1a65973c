"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) and the four ways to stretch it.

Shape legend: B sequences, T tokens, N heads, Hd head width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diglot.model.config import DecoderConfig, RopeScaling


class Rope(NamedTuple):
    cos: Tensor  # [T, 1, Hd / 2], or [B, T, 1, Hd / 2] where sequences have their own positions
    sin: Tensor


def rope_tables(config: DecoderConfig, *, local: bool = False) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position * frequency_i, i < Hd / 2: two float32 tensors [max_seq_len, Hd / 2].

    local: the tables of sliding layers, where these have a base of their own.
    """
    if local:
        frequencies, factor = _frequencies(config.local_rope_theta or config.rope_theta, config.head_dim), 1.0
    else:
        frequencies, factor = scaled_frequencies(config.rope_theta, config.head_dim, config.rope_scaling)
    angles = torch.outer(torch.arange(config.max_seq_len, dtype=torch.float64), frequencies)
    return (angles.cos() * factor).float(), (angles.sin() * factor).float()


def rotate(x_BTNH: Tensor, rope: Rope) -> Tensor:
    """Turn channel pairs (i, i + Hd / 2) of each head by their angle."""
    first, second = x_BTNH.chunk(2, dim=-1)
    cos, sin = rope
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def scaled_frequencies(theta: float, head_dim: int, scaling: RopeScaling | None) -> tuple[Tensor, float]:
    """float64 [Hd / 2] in radians per token, and what cosines and sines are multiplied by.

    linear: f / s (Chen et al. 2023, arXiv 2306.15595).
    ntk: theta' = theta s^(Hd / (Hd - 2)), which leaves the fastest channel alone and divides the slowest by s.
    """
    if scaling is None:
        return _frequencies(theta, head_dim), 1.0
    if scaling.kind == "linear":
        return _frequencies(theta, head_dim) / scaling.factor, 1.0
    if scaling.kind == "ntk":
        return _frequencies(ntk_theta(theta, head_dim, scaling.factor), head_dim), 1.0
    if scaling.kind == "llama3":
        return _llama3(_frequencies(theta, head_dim), scaling), 1.0
    factor = scaling.attention_factor
    return _yarn(theta, head_dim, scaling), 0.1 * math.log(scaling.factor) + 1 if factor is None else factor


def ntk_theta(theta: float, head_dim: int, factor: float) -> float:
    """The base that the static NTK-aware rule puts in place of `theta`."""
    return float(theta * factor ** (head_dim / max(head_dim - 2, 1)))


def _frequencies(theta: float, head_dim: int) -> Tensor:
    """theta^(-2i / Hd)."""
    return theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: f / s above the longest wavelength, f below the shortest, a straight blend between them.

    With w = 2 pi / f and L trained tokens: share of f kept = (L / w - low) / (high - low), held in [0, 1].
    """
    assert scaling.original_seq_len is not None
    turns = scaling.original_seq_len * frequencies / (2 * math.pi)  # L / w
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn(theta: float, head_dim: int, scaling: RopeScaling) -> Tensor:
    """YaRN (Peng et al. 2023, arXiv 2309.00071), eq. 23: channels that turn often keep f, those that turn seldom f / s.

    The blend runs over channel numbers, between those that turn `beta_fast` and `beta_slow` times over the trained
    length, rounded outwards, as the released code has it.
    """
    assert scaling.original_seq_len is not None

    def channel(rotations: float) -> float:
        return head_dim * math.log(scaling.original_seq_len / (rotations * 2 * math.pi)) / (2 * math.log(theta))  # type: ignore[operator]

    low = max(math.floor(channel(scaling.beta_fast)), 0)
    high = min(math.ceil(channel(scaling.beta_slow)), head_dim - 1)
    width = high - low if high != low else 0.001
    slow = ((torch.arange(head_dim // 2, dtype=torch.float64) - low) / width).clamp(0, 1)
    frequencies = _frequencies(theta, head_dim)
    return slow * frequencies / scaling.factor + (1 - slow) * frequencies
