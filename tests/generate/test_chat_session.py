"""A chat session keeps the conversation, repeats itself exactly, and forgets the oldest turns when the context is
full."""

from __future__ import annotations

import pytest

from diglot.core.errors import ConfigError
from diglot.generate.chat import prompt_ids
from diglot.generate.chat_session import ChatSession
from diglot.generate.sampling import Sampling


def test_two_sessions_with_one_seed_say_the_same(model, tokenizer):
    settings = {"sampling": Sampling(temperature=1.0), "max_new_tokens": 8, "seed": 3}
    told = [[session.answer(q) for q in ("Hello", "您好")] for session in
            (ChatSession(model, tokenizer, **settings) for _ in range(2))]  # fmt: skip
    assert told[0] == told[1]


def test_the_conversation_is_kept_in_order(model, tokenizer):
    session = ChatSession(model, tokenizer, max_new_tokens=4)
    answers = [session.answer("Hello"), session.answer("您好")]
    assert [(m["role"], m["content"]) for m in session.messages] == [
        ("user", "Hello"), ("assistant", answers[0]), ("user", "您好"), ("assistant", answers[1]),
    ]  # fmt: skip


def test_a_long_conversation_goes_on_without_its_oldest_turns(model, tokenizer):
    session = ChatSession(model, tokenizer, system="Be brief.", max_new_tokens=20)
    for _ in range(6):
        session.answer("Hello")
    assert len(prompt_ids(tokenizer, session.messages)) > model.config.max_seq_len
    assert len(session.messages) == 13


def test_a_question_longer_than_the_context_is_refused(model, tokenizer):
    with pytest.raises(ConfigError, match="reads 96 at most"):
        ChatSession(model, tokenizer).answer("字" * 200)
