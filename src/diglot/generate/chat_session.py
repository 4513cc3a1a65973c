"""Talking with a model: the conversation so far, and the next answer."""

from __future__ import annotations

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.generate.chat import prompt_ids, stop_ids
from diglot.generate.engine import generate
from diglot.generate.sampling import GREEDY, Sampling
from diglot.ledger.artifact import Artifact
from diglot.model.decoder import Decoder
from diglot.model.files import load_model
from diglot.tokenizer.tokenizer import Tokenizer


class ChatSession:
    """A conversation with one model. The same questions with the same seed get the same answers."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        system: str = "",
        sampling: Sampling = GREEDY,
        max_new_tokens: int = 128,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.sampling, self.max_new_tokens, self.seed = sampling, max_new_tokens, seed
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []

    def answer(self, question: str) -> str:
        """The model's answer; both stay in the conversation. The oldest turns are left out when the context is full.

        Raises: ConfigError when the question alone does not fit.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        sent = asked
        while len(prompt := prompt_ids(self.tokenizer, sent)) + self.max_new_tokens > self.model.config.max_seq_len:
            first = 1 if sent[0]["role"] == "system" else 0
            if len(sent) - first < 3:
                break
            sent = [*sent[:first], *sent[first + 2 :]]
        if len(prompt) >= self.model.config.max_seq_len:
            raise ConfigError(
                f"the question has {len(prompt)} tokens with its markers, and this model reads "
                f"{self.model.config.max_seq_len} at most. Ask more briefly."
            )
        (completion,) = generate(
            self.model,
            [prompt],
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            seed=derive_seed(self.seed, "turn", len(asked)),
            stop_ids=stop_ids(self.tokenizer),
        )
        text = self.tokenizer.decode(completion.ids)
        self.messages = [*asked, {"role": "assistant", "content": text}]
        return text


def chat(run: Artifact, **settings: object) -> ChatSession:
    """A session with the model of a finetune or prefer artifact; settings as in `ChatSession`."""
    folder = run.path / "model"
    return ChatSession(load_model(folder), Tokenizer.load(folder), **settings)  # type: ignore[arg-type]
