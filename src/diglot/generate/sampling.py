"""Choosing the next token from logits: temperature, top-k, top-p and min-p, row by row, from one uniform number each.

A row's token is a function of its own logits and its own uniform number (inverse of the cumulative distribution), so
what else is in the batch cannot change it. Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. The filters apply in the order written here, each to what the earlier ones left.

    temperature: 0 takes the most likely token and ignores the filters.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: keep the smallest set of most likely tokens with at least this probability (Holtzman et al. 2020).
    min_p: keep tokens at least this many times as likely as the most likely one (Nguyen et al. 2024).
    no_repeat_ngram: forbid a token that would complete an n-gram already written in this answer; 0 allows all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"temperature = {self.temperature}, but it must be >= 0. Use 0 for the likeliest token.")
        if self.top_k < 0:
            raise ConfigError(f"top_k = {self.top_k}, but it must be >= 0. Use 0 to keep all tokens.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p} is not in (0, 1]. Use 1 to keep all tokens.")
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p = {self.min_p} is not in [0, 1]. Use 0 to keep all tokens.")
        if self.no_repeat_ngram < 0:
            raise ConfigError(f"no_repeat_ngram = {self.no_repeat_ngram}, but it must be >= 0. Use 0 to allow all.")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


GREEDY = Sampling(temperature=0.0)


def uniforms(seed: int, num_tokens: int) -> np.ndarray:
    """The uniform numbers in [0, 1) of one answer, float64 [num_tokens]; the same for a seed on every machine."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, "tokens"))).random(num_tokens)


def choose(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> Tensor:
    """Token ids [B] for float32 logits and one uniform number per row; rows do not influence each other."""
    if sampling.is_greedy:
        return logits_BV.argmax(dim=-1)
    num_candidates = min(sampling.top_k or logits_BV.shape[-1], logits_BV.shape[-1])
    # Sorted, so that top-p is a prefix; ties resolve the same way for a row in any batch because sorting is stable.
    if num_candidates < logits_BV.shape[-1]:
        values_BK, ids_BK = logits_BV.topk(num_candidates, dim=-1)
    else:
        values_BK, ids_BK = logits_BV.sort(dim=-1, descending=True, stable=True)
    probs_BK = torch.softmax(values_BK.double() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        before_BK = probs_BK.cumsum(dim=-1) - probs_BK
        probs_BK = probs_BK.masked_fill(before_BK >= sampling.top_p, 0.0)
    if sampling.min_p > 0:
        probs_BK = probs_BK.masked_fill(probs_BK < sampling.min_p * probs_BK[:, :1], 0.0)
    cumulative_BK = probs_BK.cumsum(dim=-1)
    threshold_B1 = uniform_B.double()[:, None] * cumulative_BK[:, -1:]
    chosen_B1 = (cumulative_BK <= threshold_B1).sum(dim=-1, keepdim=True)
    last_B1 = (probs_BK > 0).sum(dim=-1, keepdim=True) - 1  # a uniform number of almost 1 can round onto the total
    return ids_BK.gather(-1, torch.minimum(chosen_B1, last_B1))[:, 0]


def repeated(answer: list[int], n: int) -> list[int]:
    """Tokens that would complete an n-gram already in `answer`.

    >>> repeated([5, 6, 7, 5, 6], 3)
    [7]
    """
    if n < 1 or len(answer) < n:
        return []
    tail = answer[len(answer) - n + 1 :]
    return [answer[i + n - 1] for i in range(len(answer) - n + 1) if answer[i : i + n - 1] == tail]
