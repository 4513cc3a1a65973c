"""Batched decoding: equal to reading the whole text anew for every token, whatever stands in the batch beside it."""

from __future__ import annotations

import pytest
import torch

from diglot.core.errors import ConfigError
from diglot.generate import engine
from diglot.generate.engine import generate
from diglot.generate.sampling import GREEDY, Sampling, choose, uniforms

PROMPTS = [[1, 5, 40, 41, 42], [1, 9], [1, 5, 77, 78, 79, 80, 81, 82, 83], [1, 100, 200], [1, 9]]
SAMPLING = Sampling(temperature=0.9, top_p=0.95)


def slowly(model, prompt, max_new_tokens, sampling, seed, stops=()):
    """The definition: no cache, no batch, no padding."""
    ids, logprobs = [], []
    numbers = torch.from_numpy(uniforms(seed, max_new_tokens))
    for n in range(max_new_tokens):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids])).logits[:, -1]
        token = choose(logits, numbers[n : n + 1], sampling).item()
        if token in stops:
            return ids, logprobs, "stop"
        ids.append(token)
        logprobs.append(torch.log_softmax(logits, -1)[0, token].item())
    return ids, logprobs, "length"


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLING])
def test_a_batch_of_ragged_prompts_equals_one_full_pass_per_token(model, sampling):
    seeds = [11, 12, 13, 14, 15]
    found = generate(model, PROMPTS, max_new_tokens=12, sampling=sampling, seed=seeds, stop_ids=[])
    for prompt, seed, completion in zip(PROMPTS, seeds, found, strict=True):
        ids, logprobs, reason = slowly(model, prompt, 12, sampling, seed)
        assert completion.ids == ids
        assert completion.finish_reason == reason
        assert completion.logprobs == pytest.approx(logprobs, abs=1e-4)


def test_stopped_rows_leave_the_batch_and_the_others_are_not_disturbed(model):
    seeds = [11, 12, 13, 14, 15]
    free = generate(model, PROMPTS, max_new_tokens=16, sampling=SAMPLING, seed=seeds, stop_ids=[])
    stops = {free[0].ids[2], free[1].ids[4], free[2].ids[1]}
    found = generate(model, PROMPTS, max_new_tokens=16, sampling=SAMPLING, seed=seeds, stop_ids=stops)
    assert sum(c.finish_reason == "stop" for c in found) >= 3
    for before, after in zip(free, found, strict=True):
        end = next((i for i, token in enumerate(before.ids) if token in stops), 16)
        assert after.ids == before.ids[:end]
        assert after.finish_reason == ("stop" if end < 16 else "length")


def test_an_answer_does_not_depend_on_order_batch_size_or_company(model, monkeypatch):
    found = generate(model, PROMPTS, max_new_tokens=10, sampling=SAMPLING, seed=7, stop_ids=[])
    assert found[1].ids != found[4].ids  # equal prompts, own random numbers
    backwards = generate(model, PROMPTS[::-1], max_new_tokens=10, sampling=SAMPLING, seed=7, stop_ids=[])
    assert [c.ids for c in backwards[1:3]] == [c.ids for c in found[2:4]][::-1]
    assert {tuple(backwards[i].ids) for i in (0, 3)} == {tuple(found[i].ids) for i in (1, 4)}
    alone = [
        generate(model, [prompt], max_new_tokens=10, sampling=SAMPLING, seed=7, stop_ids=[])[0]
        for prompt in PROMPTS[:4]
    ]
    assert [c.ids for c in alone] == [c.ids for c in found[:4]]
    monkeypatch.setattr(engine, "MAX_BATCH", 2)
    in_twos = generate(model, PROMPTS, max_new_tokens=10, sampling=SAMPLING, seed=7, stop_ids=[])
    assert [c.ids for c in in_twos] == [c.ids for c in found]


def test_a_repeated_call_gives_the_same_bits(model):
    twice = [generate(model, PROMPTS, max_new_tokens=10, sampling=SAMPLING, seed=1, stop_ids=[]) for _ in range(2)]
    assert twice[0] == twice[1]


def test_no_ngram_is_written_twice_when_that_is_forbidden(model):
    guard = Sampling(temperature=0.0, no_repeat_ngram=2)
    (found,) = generate(model, [[1, 9]], max_new_tokens=60, sampling=guard, seed=0, stop_ids=[])
    bigrams = list(zip(found.ids, found.ids[1:], strict=False))
    assert len(set(bigrams)) == len(bigrams)


def test_writing_stops_at_the_end_of_the_context_and_says_so(model):
    (found,) = generate(model, [[1] * 90], max_new_tokens=50, sampling=GREEDY, seed=0, stop_ids=[])
    assert (len(found.ids), found.finish_reason) == (6, "context")


def test_a_batch_is_not_cut_short_by_a_longer_prompt_in_it(model):
    short, long = generate(model, [[1, 9], [1] * 90], max_new_tokens=20, sampling=GREEDY, seed=0, stop_ids=[])
    assert (len(short.ids), short.finish_reason) == (20, "length")
    assert (len(long.ids), long.finish_reason) == (6, "context")


def test_tokens_are_counted_as_they_are_written(model):
    counts: list[int] = []
    generate(model, PROMPTS, max_new_tokens=5, sampling=GREEDY, seed=0, stop_ids=[], on_tokens=counts.append)
    assert sum(counts) == 25


@pytest.mark.parametrize("prompt", [[], [1] * 96])
def test_a_prompt_that_leaves_no_room_is_refused(model, prompt):
    with pytest.raises(ConfigError, match="at most 95"):
        generate(model, [prompt], max_new_tokens=5, sampling=GREEDY, seed=0, stop_ids=[])
