"""A client for text generation over our own engine: chats in, answers out, with a cache on disk and a budget.

What was generated once is read back from the cache: a job that was killed goes on where it stopped, and an answer
keeps its text for ever. The cache is a JSON-lines file; a line is the answers to one request, keyed by everything that
determines them. Requests are generated in fixed groups, so that a resumed job computes the same batches as an
undisturbed one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from diglot.core.errors import DiglotError
from diglot.core.seeds import derive_seed
from diglot.core.storage import write_text
from diglot.generate.chat import Message, render_chats, stop_ids
from diglot.generate.engine import Completion, generate
from diglot.generate.sampling import Sampling
from diglot.model.decoder import Decoder
from diglot.tokenizer.tokenizer import Tokenizer

GROUP_ANSWERS = 64  # answers generated between two writes of the cache: one full batch of the engine


class BudgetExceededError(DiglotError):
    """The next request could cost more tokens than are left."""


@dataclass(frozen=True)
class Answer:
    """ids and logprobs as in `Completion`."""

    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: str


class Generator:
    """`complete` chats with one model.

    Args:
        cache: file of answers; None keeps nothing.
        max_tokens: budget of newly generated tokens over the client's life; cached answers cost nothing. None: no
            bound.
    Attributes:
        num_tokens: newly generated so far.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, *, cache: Path | None = None, max_tokens: int | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.fingerprint = model_fingerprint(model)
        self.num_tokens, self.max_tokens = 0, max_tokens
        self._path = cache
        self._known = _read_cache(cache) if cache is not None else {}

    def complete(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        n: int = 1,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """n answers to each chat, which ends with a user's message.

        Raises: BudgetExceededError before anything is generated that could exceed the budget.
        """
        prompts = [chat.ids for chat in render_chats(self.tokenizer, chats, ask=True)]
        keys = [self._key(prompt, n, max_new_tokens, sampling, seed) for prompt in prompts]
        size = max(1, GROUP_ANSWERS // n)
        for start in range(0, len(prompts), size):
            group = slice(start, start + size)
            if all(key in self._known for key in keys[group]):
                continue
            self._spend(len(prompts[group]) * n * max_new_tokens)
            completions = generate(
                self.model,
                [prompt for prompt in prompts[group] for _ in range(n)],
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                seed=[derive_seed(seed, "answer", i, *prompt) for prompt in prompts[group] for i in range(n)],
                stop_ids=stop_ids(self.tokenizer),
                on_tokens=on_tokens,
            )
            self.num_tokens += sum(len(c.ids) for c in completions)
            self._keep({key: completions[i * n : (i + 1) * n] for i, key in enumerate(keys[group])})
        return [[self._answer(c) for c in self._known[key]] for key in keys]

    def _key(self, prompt: list[int], n: int, max_new_tokens: int, sampling: Sampling, seed: int) -> str:
        request = [self.fingerprint, prompt, n, max_new_tokens, asdict(sampling), seed]
        return xxhash.xxh3_128_hexdigest(json.dumps(request, sort_keys=True).encode())

    def _spend(self, most: int) -> None:
        if self.max_tokens is not None and self.num_tokens + most > self.max_tokens:
            raise BudgetExceededError(
                f"{self.num_tokens:,} tokens were generated and the next group may take {most:,}, but the budget is "
                f"{self.max_tokens:,}. Raise it and run again: what was generated is kept."
            )

    def _keep(self, answers: dict[str, list[Completion]]) -> None:
        # Rounded before anyone sees them, so that a cached answer equals a new one; a float32 means no more digits.
        added = {
            key: [Completion(c.ids, [round(p, 5) for p in c.logprobs], c.finish_reason) for c in value]
            for key, value in answers.items()
            if key not in self._known
        }
        self._known.update(added)
        if self._path is not None:
            with self._path.open("a") as stream:
                stream.writelines(_line(key, value) for key, value in added.items())

    def _answer(self, completion: Completion) -> Answer:
        return Answer(
            self.tokenizer.decode(completion.ids), completion.ids, completion.logprobs, completion.finish_reason
        )


def model_fingerprint(model: Decoder) -> str:
    """A hash of the shape and every weight, 32 hex digits."""
    digest = xxhash.xxh3_128(repr(model.config).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _line(key: str, completions: list[Completion]) -> str:
    rows = [[c.ids, c.logprobs, c.finish_reason] for c in completions]
    return json.dumps([key, rows], separators=(",", ":")) + "\n"


def _read_cache(path: Path) -> dict[str, list[Completion]]:
    """What the file holds; a last line that a kill cut short is removed from it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return {}
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(path, whole)
    return {key: [Completion(*row) for row in rows] for key, rows in map(json.loads, whole.splitlines())}
