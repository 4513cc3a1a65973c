"""Every tokenizer folder has the chat template, and `transformers` renders with it what this project renders."""

from __future__ import annotations

from pathlib import Path

import pytest

from diglot.generate.chat import prompt_ids, render_chat
from diglot.tokenizer.tokenizer import Tokenizer

CHATS = [
    [
        {"role": "system", "content": "Answer in the language of the question."},
        {"role": "user", "content": "What is a package?\n\n  A short answer, please."},
        {"role": "assistant", "content": " A package is a file.\n- with programs\n"},
        {"role": "user", "content": "什么是软件包？"},
        {"role": "assistant", "content": "软件包是一个文件，其中包含一个软件的程序和文档。"},
    ],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": "\t"}],
]


@pytest.mark.parametrize("chat", CHATS)
def test_auto_tokenizer_renders_the_same_ids_and_marks_the_same_tokens(
    trained: Path, tokenizer: Tokenizer, chat: list[dict[str, str]]
) -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(trained)
    ours = render_chat(tokenizer, chat)
    found = auto.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert list(found["input_ids"]) == ours.ids
    assert [bool(learned) for learned in found["assistant_masks"]] == ours.is_response
    asked = auto.apply_chat_template(chat[:-1], tokenize=True, return_dict=True, add_generation_prompt=True)
    assert list(asked["input_ids"]) == prompt_ids(tokenizer, chat[:-1])


def test_an_unknown_role_is_refused_by_the_template(trained: Path) -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(trained)
    with pytest.raises(Exception, match="role tool, but a chat knows system, user, assistant"):
        auto.apply_chat_template([{"role": "tool", "content": "x"}])
