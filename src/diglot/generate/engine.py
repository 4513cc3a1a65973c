"""Batched decoding with a key-value cache.

Prompts of similar length share a batch, padded on the left; rows that have finished leave it when half of them have.
Every prompt has its own stream of random numbers, so an answer does not depend on what else was asked, on the batch
size or on the order of prompts. One caveat: matrix products of different heights may differ in the last bit of a
float32, so an answer can change in the rare case that its random number falls within that bit of the border between
two tokens.

Shapes: B rows still writing, T prompt tokens with padding, N tokens of an answer, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.generate.fused import FusedDecoder, FusedWeights, is_fusible
from diglot.generate.plain import PlainDecoder
from diglot.generate.sampling import Sampling, choose, repeated, uniforms
from diglot.model.decoder import Decoder

MAX_BATCH = 64
MAX_BATCH_TOKENS = 16_384  # prompt and answer slots of a batch: 64 rows of 256; bounds the cache's memory


@dataclass(frozen=True)
class Completion:
    """An answer.

    ids: the tokens written, without the stop token that ended them.
    logprobs: of each id under the model itself, in nats: temperature 1, nothing filtered out.
    finish_reason: `stop` (a stop token), `length` (max_new_tokens) or `context` (the model's max_seq_len).
    """

    ids: list[int]
    logprobs: list[float]
    finish_reason: str


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int | Sequence[int],
    stop_ids: Iterable[int],
    on_tokens: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Continue each prompt; completions in the order of `prompts`.

    Args:
        seed: one for all, from which each prompt's is derived by its content (and its number among equal prompts), or
            one
            per prompt.
        stop_ids: tokens that end an answer.
        on_tokens: called after each step with the number of tokens just written, for progress and speed.
    Raises: ConfigError for an empty prompt or one that leaves no room in the model's context.
    """
    limit = model.config.max_seq_len
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) < limit:
            raise ConfigError(
                f"prompt {index} has {len(prompt)} tokens; a prompt has at least 1 and at most {limit - 1}, "
                "one less than the model's max_seq_len. Shorten it."
            )
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens = {max_new_tokens}, but an answer has at least 1 token.")
    seeds = prompt_seeds(seed, prompts) if isinstance(seed, int) else list(seed)
    stops = frozenset(stop_ids)
    done: dict[int, Completion] = {}
    with torch.inference_mode():
        weights = FusedWeights(model) if is_fusible(model.config) else model
        for rows in _batches([len(p) for p in prompts], max_new_tokens, limit):
            batch = _Batch(
                weights, [prompts[i] for i in rows], [seeds[i] for i in rows], max_new_tokens, sampling, stops
            )
            done.update(zip(rows, batch.run(on_tokens), strict=True))
    return [done[i] for i in range(len(prompts))]


def prompt_seeds(seed: int, prompts: Sequence[Sequence[int]]) -> list[int]:
    """A seed per prompt: a function of its content and of how many equal prompts stand before it."""
    seen: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for prompt in map(tuple, prompts):
        seeds.append(derive_seed(seed, "prompt", seen[prompt], *prompt))
        seen[prompt] += 1
    return seeds


def _batches(lengths: Sequence[int], max_new_tokens: int, limit: int) -> Iterable[list[int]]:
    """Rows of similar prompt length, longest first, within the bounds above.

    Padding fills the context too, so rows share a batch only if it leaves them as much room as they have alone.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batch[0] if batch else row]
        room = min(max_new_tokens, limit - longest)
        is_full = len(batch) == MAX_BATCH or (longest + room) * (len(batch) + 1) > MAX_BATCH_TOKENS
        if batch and (is_full or min(max_new_tokens, limit - lengths[row]) > room):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class _Batch:
    """The rows of one batch."""

    def __init__(
        self,
        weights: FusedWeights | Decoder,
        prompts: list[Sequence[int]],
        seeds: list[int],
        max_new_tokens: int,
        sampling: Sampling,
        stops: frozenset[int],
    ) -> None:
        longest = max(map(len, prompts))
        self.num_new = min(max_new_tokens, weights.config.max_seq_len - longest)
        self.cut_reason = "length" if self.num_new == max_new_tokens else "context"
        self.sampling, self.stops = sampling, stops
        pads = [longest - len(p) for p in prompts]
        self.prompt_BT = torch.tensor([[0] * pad + list(p) for pad, p in zip(pads, prompts, strict=True)])
        self.decoder: FusedDecoder | PlainDecoder = (
            FusedDecoder(weights, torch.tensor(pads), longest + self.num_new)
            if isinstance(weights, FusedWeights)
            else PlainDecoder(weights, torch.tensor(pads), longest + self.num_new)
        )
        self.device = self.decoder.pads_B.device
        self.seeds = seeds

    def run(self, on_tokens: Callable[[int], None] | None) -> list[Completion]:
        num_rows = len(self.seeds)
        ids: list[list[int]] = [[] for _ in range(num_rows)]
        logprobs: list[list[float]] = [[] for _ in range(num_rows)]
        stopped = [False] * num_rows
        active = list(range(num_rows))  # the rows in the cache, in its order
        uniform_BN = self._uniforms()
        next_BT = self.prompt_BT
        for n in range(self.num_new):
            logits_BV = self.decoder.logits(next_BT.to(self.device))
            chosen_B = choose(self._allowed(logits_BV, [ids[row] for row in active]), uniform_BN[:, n], self.sampling)
            logprobs_B = logits_BV.gather(-1, chosen_B[:, None])[:, 0] - logits_BV.logsumexp(dim=-1)
            writing = []
            for place, (row, token, logprob) in enumerate(
                zip(active, chosen_B.tolist(), logprobs_B.tolist(), strict=True)
            ):
                stopped[row] = stopped[row] or token in self.stops
                if not stopped[row]:
                    ids[row].append(token)
                    logprobs[row].append(logprob)
                    writing.append(place)
            if on_tokens is not None:
                on_tokens(len(writing))
            if not writing:
                break
            if len(writing) <= len(active) // 2:  # copying the cache costs less than carrying the finished rows
                kept = torch.tensor(writing)
                self.decoder.keep(kept)
                active, chosen_B, uniform_BN = [active[place] for place in writing], chosen_B[kept], uniform_BN[kept]
            next_BT = chosen_B[:, None]
        return [
            Completion(ids[row], logprobs[row], "stop" if stopped[row] else self.cut_reason) for row in range(num_rows)
        ]

    def _uniforms(self) -> Tensor:
        """One uniform number per row and token, float64 [B, N]; a greedy choice needs none."""
        if self.sampling.is_greedy:
            return torch.zeros(len(self.seeds), self.num_new, dtype=torch.float64, device=self.device)
        return torch.from_numpy(np.stack([uniforms(seed, self.num_new) for seed in self.seeds])).to(self.device)

    def _allowed(self, logits_BV: Tensor, answers: list[list[int]]) -> Tensor:
        if not self.sampling.no_repeat_ngram:
            return logits_BV
        allowed_BV = logits_BV.clone()
        for place, answer in enumerate(answers):
            allowed_BV[place, repeated(answer, self.sampling.no_repeat_ngram)] = -torch.inf
        return allowed_BV
