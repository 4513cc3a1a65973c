"""The chat template: how a conversation becomes token ids, and which of them the model learns to write.

    <s> <|user|> content <|end|> <|assistant|> content <|end|> ...

Each role marker and `<|end|>` is one special token, and contents are encoded on their own. So the ids of a message do
not depend on its neighbours, the border of the loss mask is exact, and a user who types "<|assistant|>" gets the ids
of those ordinary characters, not the marker. `tokenizer/chat_template.jinja` says the same for other libraries, with
generation marks around what the model writes; a test renders both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from diglot.core.errors import ConfigError
from diglot.tokenizer.export import write_chat_template

Message = Mapping[str, str]  # role, content

ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
BOS = "<s>"
END = "<|end|>"


class ChatTokenizer(Protocol):
    """What rendering needs of a tokenizer."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def special_id(self, name: str) -> int: ...


class RenderedChat(NamedTuple):
    """Token ids of a conversation and, for each, whether the model is to learn to write it."""

    ids: list[int]
    is_response: list[bool]  # assistant contents and the <|end|> behind them


def render_chats(
    tokenizer: ChatTokenizer, conversations: Sequence[Sequence[Message]], *, ask: bool = False
) -> list[RenderedChat]:
    """Ids and loss mask of each conversation; with `ask`, each ends with the marker after which the model answers.

    Raises: ConfigError for an unknown role.
    """
    contents = iter(tokenizer.encode_batch([m["content"] for messages in conversations for m in messages]))
    bos, end = tokenizer.special_id(BOS), tokenizer.special_id(END)
    markers = {role: tokenizer.special_id(name) for role, name in ROLES.items()}
    rendered = []
    for messages in conversations:
        ids, is_response = [bos], [False]
        for message in messages:
            role = message["role"]
            if role not in markers:
                raise ConfigError(f"a message has the role {role!r}, but a chat knows {', '.join(ROLES)}.")
            content = [*next(contents), end]
            ids += [markers[role], *content]
            is_response += [False] + [role == "assistant"] * len(content)
        if ask:
            ids.append(markers["assistant"])
            is_response.append(False)
        rendered.append(RenderedChat(ids, is_response))
    return rendered


def render_chat(tokenizer: ChatTokenizer, messages: Sequence[Message], *, ask: bool = False) -> RenderedChat:
    """`render_chats` for one conversation."""
    return render_chats(tokenizer, [messages], ask=ask)[0]


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids after which the model writes the next assistant message."""
    return render_chat(tokenizer, messages, ask=True).ids


def stop_ids(tokenizer: ChatTokenizer) -> tuple[int, ...]:
    """Tokens that close an answer: the turn's end, and the end of a document."""
    return (tokenizer.special_id(END), tokenizer.special_id("</s>"))


def write_template(model_folder: Path) -> None:
    """Put the template beside a model, where transformers and inference servers look for it."""
    write_chat_template(model_folder)
