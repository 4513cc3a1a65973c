"""Pairs for preference training: the best and the worst of several answers to one prompt, and their batches.

Shapes: P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diglot.model.decoder import Decoder
from diglot.train.device import device_of, on_device
from diglot.train.objectives.dpo import PairLogprobs, pair_logprobs
from diglot.train.objectives.sft import collate


@dataclass(frozen=True)
class TokenPair:
    """Token ids; the answers include the token that ends them, if they ended."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def best_and_worst(rewards: Sequence[float], min_margin: float) -> tuple[int, int] | None:
    """Indices of the highest and the lowest reward; None for ties and for margins below `min_margin`.

    >>> best_and_worst([0.2, 0.9, 0.4], min_margin=0.1)
    (1, 0)
    """
    best = max(range(len(rewards)), key=lambda i: (rewards[i], -i))
    worst = min(range(len(rewards)), key=lambda i: (rewards[i], i))
    margin = rewards[best] - rewards[worst]
    return (best, worst) if margin > 0 and margin >= min_margin else None


def collate_pairs(pairs: Sequence[TokenPair], *, pad_id: int) -> dict[str, Tensor]:
    """The chosen answers' rows, then the rejected ones', with targets on the answers."""
    answers = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    ids = [prompt + answer for prompt, answer in answers]
    is_response = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in answers]
    return collate(ids, is_response, pad_id=pad_id, max_tokens=max(map(len, ids)))


def reference_logprobs(model: Decoder, pairs: Sequence[TokenPair], *, pad_id: int, batch: int = 8) -> PairLogprobs:
    """What the reference model says of every pair, without gradient, float32 [P] each on the CPU; computed once before
    training, where the model lies."""
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i].length, i))
    chosen, rejected = torch.zeros(len(pairs)), torch.zeros(len(pairs))
    with torch.no_grad():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            batch_of_rows = on_device(collate_pairs([pairs[i] for i in rows], pad_id=pad_id), device_of(model))
            found = pair_logprobs(model, batch_of_rows)
            chosen[rows], rejected[rows] = found.chosen.cpu(), found.rejected.cpu()
    return PairLogprobs(chosen, rejected)
