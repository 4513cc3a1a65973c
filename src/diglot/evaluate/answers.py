"""What the model really writes: answers to held-out questions and continuations of held-out pages, with their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diglot.core.seeds import derive_seed
from diglot.corpus.compose.conversation import Conversation
from diglot.evaluate.heldout import Heldout
from diglot.evaluate.losses import NOT_SCORED, sequence_nats
from diglot.generate.chat import prompt_ids, render_chat, stop_ids
from diglot.generate.engine import Completion, generate
from diglot.generate.sampling import Sampling
from diglot.train.rewards import RewardWeights, reward

if TYPE_CHECKING:
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How texts are drawn; every prompt gets a seed of its own from `seed`, its content and its documents."""

    max_new_tokens: int
    sampling: Sampling
    seed: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text written by a model, exactly as it came, and everything needed to write it again.

    kind: `question` (prompt is a user's message) or `continuation` (prompt is how a held-out document begins).
    reference: what stands in the conversation or in the document.
    reward: the programmatic reward of an answer and its parts (`train/rewards.py`); None for a continuation.
    documents: where question or prefix come from.
    """

    kind: str
    model: str
    lang: str
    topic: str
    prompt: str
    answer: str
    reference: str
    reward: dict[str, float] | None
    num_tokens: int
    mean_logprob: float | None  # nats per token under the model; None for an empty answer
    finish_reason: str
    seed: int
    sampling: Sampling
    documents: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def choose(conversations: Sequence[Conversation], *, per_language: int, seed: int) -> list[Conversation]:
    """A uniform sample of the conversations in each language, in a seeded order of their ids."""
    ranked = sorted(conversations, key=lambda c: (c.lang, derive_seed(seed, "conversation", c.id), c.id))
    chosen: list[Conversation] = []
    for conversation in ranked:
        if sum(c.lang == conversation.lang for c in chosen) < per_language:
            chosen.append(conversation)
    return chosen


def response_nats(model: Decoder, tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> NDArray[np.float64]:
    """-log p of the assistant's messages and their end marks given all before them, [conversations], in nats.

    A conversation longer than the model's context is cut on the right; what is cut is not scored.
    """
    inputs, targets = [], []
    for conversation in conversations:
        chat = render_chat(tokenizer, conversation.messages)
        ids = np.array(chat.ids[: model.config.max_seq_len + 1], dtype=np.int64)
        is_response = np.array(chat.is_response[: len(ids)])
        inputs.append(ids[:-1])
        targets.append(np.where(is_response[1:], ids[1:], NOT_SCORED))
    return sequence_nats(model, inputs, targets)


def answer(
    model: Decoder,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    decoding: Decoding,
) -> list[Sample]:
    """The model's own answer to the last question of each conversation; questions beyond the context are left out."""
    longest = model.config.max_seq_len - decoding.max_new_tokens
    prompts = [prompt_ids(tokenizer, conversation.prompt) for conversation in conversations]
    fitting = [(c, p) for c, p in zip(conversations, prompts, strict=True) if len(p) <= longest]
    return _write(
        model,
        tokenizer,
        [ids for _, ids in fitting],
        [
            {
                "kind": "question",
                "lang": c.lang,
                "topic": c.kind,
                "prompt": c.prompt[-1]["content"],
                "reference": c.answer,
                "documents": c.documents,
            }
            for c, _ in fitting
        ],
        decoding,
        stop_ids(tokenizer),
    )


def continue_documents(
    model: Decoder,
    tokenizer: Tokenizer,
    heldout: Heldout,
    *,
    per_language: int,
    prefix_tokens: int,
    decoding: Decoding,
) -> list[Sample]:
    """Free continuations of how held-out documents begin, for the first `per_language` long enough in each language."""
    prompts: list[list[int]] = []
    about: list[dict[str, Any]] = []
    for document, length in enumerate(heldout.lengths.tolist()):
        lang = heldout.langs[document]
        if length > 2 * prefix_tokens and sum(a["lang"] == lang for a in about) < per_language:
            ids = heldout.tokens[heldout.starts[document] :][:length].tolist()
            following = ids[prefix_tokens : prefix_tokens + decoding.max_new_tokens]
            prompts.append([tokenizer.eos_id, *ids[:prefix_tokens]])
            about.append(
                {
                    "kind": "continuation",
                    "lang": lang,
                    "topic": heldout.sources[document],
                    "prompt": tokenizer.decode(ids[:prefix_tokens]),
                    "reference": tokenizer.decode(following),
                    "documents": (heldout.ids[document],),
                }
            )
    return _write(
        model,
        tokenizer,
        prompts,
        about,
        decoding,
        (tokenizer.eos_id,),
    )


def _write(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    about: list[dict[str, Any]],
    decoding: Decoding,
    stops: tuple[int, ...],
) -> list[Sample]:
    if not prompts:
        return []
    seeds = [derive_seed(decoding.seed, fields["kind"], *fields["documents"], fields["prompt"]) for fields in about]
    completions = generate(
        model,
        prompts,
        max_new_tokens=decoding.max_new_tokens,
        sampling=decoding.sampling,
        seed=seeds,
        stop_ids=stops,
    )
    samples = []
    for fields, completion, own_seed in zip(about, completions, seeds, strict=True):
        text = tokenizer.decode(completion.ids)
        num_tokens = len(completion.ids)
        samples.append(
            Sample(
                **fields,
                model="chat" if fields["kind"] == "question" else "base",
                answer=text,
                reward=_reward(text, fields, completion) if fields["kind"] == "question" else None,
                num_tokens=num_tokens,
                mean_logprob=round(sum(completion.logprobs) / num_tokens, 4) if num_tokens else None,
                finish_reason=completion.finish_reason,
                seed=own_seed,
                sampling=decoding.sampling,
            )
        )
    return samples


def _reward(text: str, about: dict[str, Any], completion: Completion) -> dict[str, float]:
    found = reward(
        text,
        lang=about["lang"],
        passage=about["reference"],
        finished=completion.finish_reason == "stop",
        weights=RewardWeights(),
    )
    return {part: round(value, 6) for part, value in found._asdict().items()}
