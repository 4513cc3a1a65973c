"""Batched decoding with a key-value cache.

Prompts of similar length share a batch, padded on the left; rows that have finished leave it when half of them have.
Every prompt has its own stream of random numbers, so an answer does not depend on what else was asked, on the batch
size or on the order of prompts. One caveat: matrix products of different heights may differ in the last bit of a
float32, so an answer can change in the rare case that its random number falls within that bit of the border between
two tokens.

Shapes: B rows still writing, T prompt tokens with padding, S cache slots, V vocabulary.
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
from diglot.generate.sampling import Sampling, choose, repeated, uniforms
from diglot.model.cache import KVCache
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
    stops = torch.tensor(sorted(set(stop_ids)), dtype=torch.int64)
    done: dict[int, Completion] = {}
    with torch.inference_mode():
        for rows in _batches([len(p) for p in prompts], max_new_tokens, limit):
            batch = _Batch(model, [prompts[i] for i in rows], [seeds[i] for i in rows], max_new_tokens, sampling, stops)
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
    """The rows of one batch and their shared cache."""

    def __init__(
        self,
        model: Decoder,
        prompts: list[Sequence[int]],
        seeds: list[int],
        max_new_tokens: int,
        sampling: Sampling,
        stops: Tensor,
    ) -> None:
        self.model, self.sampling, self.stops = model, sampling, stops
        longest = max(map(len, prompts))
        self.num_new = min(max_new_tokens, model.config.max_seq_len - longest)
        self.cut_reason = "length" if self.num_new == max_new_tokens else "context"
        weight = model.lm_head.weight
        self.slots = longest + self.num_new
        self.cache = KVCache.allocate(model.config, len(prompts), self.slots, weight.dtype, weight.device)
        self.pads_B = torch.tensor([longest - len(p) for p in prompts])
        self.prompt_BT = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
        self.is_padded = bool(self.pads_B.any())
        self.is_real_BS = torch.arange(self.slots) >= self.pads_B[:, None]
        self.uniform_BN = torch.from_numpy(
            np.zeros((len(prompts), self.num_new))
            if sampling.is_greedy
            else np.stack([uniforms(s, self.num_new) for s in seeds])
        )
        self.ids_BN = torch.zeros(len(prompts), self.num_new, dtype=torch.int64)
        self.logprobs_BN = torch.zeros(len(prompts), self.num_new)
        self.lengths = [self.num_new] * len(prompts)  # tokens before the stop token
        self.stopped = [False] * len(prompts)

    def run(self, on_tokens: Callable[[int], None] | None) -> list[Completion]:
        active = torch.arange(len(self.prompt_BT))  # numbers of the rows that are still in the cache
        logits_BV = self._prefill()
        for n in range(self.num_new):
            ids_B, logprobs_B = self._choose(logits_BV, active, n)
            self.ids_BN[active, n], self.logprobs_BN[active, n] = ids_B, logprobs_B
            for row in active[torch.isin(ids_B, self.stops)].tolist():
                if not self.stopped[row]:
                    self.stopped[row], self.lengths[row] = True, n
            if on_tokens is not None:
                on_tokens(sum(not self.stopped[row] for row in active.tolist()))
            writing = [i for i, row in enumerate(active.tolist()) if not self.stopped[row]]
            if not writing or n + 1 == self.num_new:
                break
            if len(writing) <= len(active) // 2:  # copying the cache costs less than carrying the finished rows
                kept = torch.tensor(writing)
                active, ids_B, self.cache = active[kept], ids_B[kept], self.cache.select(kept)
            logits_BV = self._step(ids_B, active)
        ids, logprobs = self.ids_BN.tolist(), self.logprobs_BN.tolist()
        return [
            Completion(ids[i][:length], logprobs[i][:length], "stop" if self.stopped[i] else self.cut_reason)
            for i, length in enumerate(self.lengths)
        ]

    def _prefill(self) -> Tensor:
        mask_BT = self.is_real_BS[:, : self.prompt_BT.shape[1]] if self.is_padded else None
        hidden_BTD = self.model.hidden(self.prompt_BT, attention_mask_BT=mask_BT, cache=self.cache)
        return self.model.lm_head(hidden_BTD[:, -1]).float()  # type: ignore[no-any-return]

    def _step(self, ids_B: Tensor, active: Tensor) -> Tensor:
        position = self.cache.length
        mask_BS, positions_B1 = None, None
        if self.is_padded:
            mask_BS = self.is_real_BS[active, : position + 1]
            positions_B1 = (position - self.pads_B[active])[:, None]
        hidden_B1D = self.model.hidden(
            ids_B[:, None], positions_BT=positions_B1, attention_mask_BT=mask_BS, cache=self.cache
        )
        return self.model.lm_head(hidden_B1D[:, -1]).float()  # type: ignore[no-any-return]

    def _choose(self, logits_BV: Tensor, active: Tensor, n: int) -> tuple[Tensor, Tensor]:
        allowed_BV = logits_BV
        if self.sampling.no_repeat_ngram:
            allowed_BV = logits_BV.clone()
            for i, row in enumerate(active.tolist()):
                allowed_BV[i, repeated(self.ids_BN[row, :n].tolist(), self.sampling.no_repeat_ngram)] = -torch.inf
        ids_B = choose(allowed_BV, self.uniform_BN[active, n], self.sampling)
        chosen_B = logits_BV.gather(-1, ids_B[:, None])[:, 0]
        return ids_B, chosen_B - logits_BV.logsumexp(dim=-1)
