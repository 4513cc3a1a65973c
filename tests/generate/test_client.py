"""The client: answers are cached by everything that determines them, survive a kill, and cost what the budget
allows."""

from __future__ import annotations

import copy

import pytest
import torch

from diglot.generate.client import BudgetExceededError, Generator
from diglot.generate.sampling import Sampling

CHATS = [[{"role": "user", "content": text}] for text in ("What is a package?", "什么是软件包？", "Hello")]
REQUEST = {"n": 3, "max_new_tokens": 6, "sampling": Sampling(temperature=1.0), "seed": 4}


def test_each_chat_gets_n_answers_with_text_and_logprobs(model, tokenizer):
    found = Generator(model, tokenizer).complete(CHATS, **REQUEST)
    assert [len(answers) for answers in found] == [3, 3, 3]
    for answer in (a for answers in found for a in answers):
        assert answer.text == tokenizer.decode(answer.ids)
        assert len(answer.logprobs) == len(answer.ids)
        assert all(p <= 0 for p in answer.logprobs)
    assert len({tuple(a.ids) for a in found[0]}) > 1


def test_a_second_client_reads_the_cache_and_generates_nothing(model, tokenizer, tmp_path):
    cache = tmp_path / "cache.jsonl"
    first, second = (Generator(model, tokenizer, cache=cache) for _ in range(2))
    found = first.complete(CHATS, **REQUEST)
    second = Generator(model, tokenizer, cache=cache)
    assert second.complete(CHATS, **REQUEST) == found
    assert (first.num_tokens > 0, second.num_tokens) == (True, 0)


def test_other_weights_other_seeds_and_other_sampling_are_asked_anew(model, tokenizer, tmp_path):
    cache = tmp_path / "cache.jsonl"
    Generator(model, tokenizer, cache=cache).complete(CHATS, **REQUEST)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.norm.weight[0] += 1e-3
    for client, request in (
        (Generator(other, tokenizer, cache=cache), REQUEST),
        (Generator(model, tokenizer, cache=cache), REQUEST | {"seed": 5}),
        (Generator(model, tokenizer, cache=cache), REQUEST | {"sampling": Sampling(temperature=0.5)}),
    ):
        client.complete(CHATS, **request)
        assert client.num_tokens > 0


def test_a_cache_cut_in_the_middle_of_a_line_gives_the_same_answers_and_the_same_file(
    model, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("diglot.generate.client.GROUP_ANSWERS", 3)  # one chat a group
    cache = tmp_path / "cache.jsonl"
    found = Generator(model, tokenizer, cache=cache).complete(CHATS, **REQUEST)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])
    assert Generator(model, tokenizer, cache=cache).complete(CHATS, **REQUEST) == found
    assert cache.read_bytes() == whole


def test_the_budget_stops_before_it_is_exceeded_and_keeps_what_was_paid(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("diglot.generate.client.GROUP_ANSWERS", 3)
    cache = tmp_path / "cache.jsonl"
    poor = Generator(model, tokenizer, cache=cache, max_tokens=30)
    with pytest.raises(BudgetExceededError, match="budget is 30"):
        poor.complete(CHATS, **REQUEST)
    assert 0 < poor.num_tokens <= 30
    assert len(cache.read_text().splitlines()) >= 1
