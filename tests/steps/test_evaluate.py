"""The evaluate step on a small store with random models."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.pack import PackedTokens
from diglot.evaluate.heldout import heldout_documents, training_tokens
from diglot.steps.evaluate import STEP, EvaluateConfig
from diglot.tokenizer.tokenizer import Tokenizer
from handmade_corpus import run_step
from small_store import conversations, packed, random_model

SETTINGS = {
    "max_answers": 3,
    "max_new_tokens": 8,
    "num_continuations": 1,
    "max_tokens": 1500,
    "context": 64,
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def inputs(store):
    pack, tokenizer = packed(store)
    base = random_model(store, "pretrain", {"tokens": pack}, tokenizer, seed=1)
    chat = random_model(store, "finetune", {"from": base}, tokenizer, seed=2)
    return {"from": base, "tokens": pack, "chat": chat, "conversations": conversations(store, pack)}


@pytest.fixture(scope="module")
def evaluated(store, inputs):
    return run_step(STEP, store / "evaluate" / "evaluate-0", inputs=inputs, **SETTINGS)


def scores(artifact, **wanted):
    return [r for r in read_json(artifact.path / "scores.json") if all(r[k] == v for k, v in wanted.items())]


def test_every_model_is_scored_in_every_language_with_an_interval(evaluated):
    for model in ("base", "chat", "ngram-2", "ngram-3", "ngram-5"):
        for language in ("en", "zh-Hans"):
            (record,) = scores(evaluated, task="bits_per_byte", model=model, language=language, source=None)
            assert record["record"] == "eval_result"
            assert record["low"] < record["value"] < record["high"]


def test_a_random_model_needs_about_the_logarithm_of_the_vocabulary(evaluated, inputs):
    packed_tokens = PackedTokens.open(inputs["tokens"].path)
    vocab_size = Tokenizer.load(inputs["from"].path / "model").vocab_size
    for language in ("en", "zh-Hans"):
        (record,) = scores(evaluated, task="bits_per_byte", model="base", language=language, source=None)
        streams = [s for s in packed_tokens.streams("heldout") if s.lang == language]
        tokens_per_byte = sum(s.num_tokens for s in streams) / sum(s.num_bytes for s in streams)
        assert record["value"] == pytest.approx(math.log2(vocab_size) * tokens_per_byte, rel=0.15)


def test_paired_differences_are_those_of_the_scores(evaluated):
    for language in ("en", "zh-Hans"):
        (model,) = scores(evaluated, model="base", language=language, source=None)
        (ngram,) = scores(evaluated, model="ngram-3", language=language, source=None)
        (difference,) = scores(evaluated, model="base - ngram-3", language=language, source=None)
        assert difference["value"] == pytest.approx(model["value"] - ngram["value"], abs=2e-6)


def test_sources_add_up_to_their_language(evaluated):
    for model in ("base", "ngram-5"):
        by_source = [r for r in scores(evaluated, task="bits_per_byte", model=model, language="en") if r["source"]]
        (whole,) = scores(evaluated, task="bits_per_byte", model=model, language="en", source=None)
        assert {r["source"] for r in by_source} == {"handbook", "guide"}
        assert sum(r["num_items"] for r in by_source) == whole["num_items"]


def test_scores_of_the_same_documents_and_window_have_one_signature(evaluated):
    (base,) = scores(evaluated, task="bits_per_byte", model="base", language="en", source=None)
    (chat,) = scores(evaluated, task="bits_per_byte", model="chat", language="en", source=None)
    (ngram,) = scores(evaluated, task="bits_per_byte", model="ngram-2", language="en", source=None)
    (other,) = scores(evaluated, task="bits_per_byte", model="base", language="zh-Hans", source=None)
    assert base["signature"] == chat["signature"]
    assert "context:64|stride:32" in base["signature"]
    assert "context" not in ngram["signature"]
    assert ngram["signature"].split("|")[1] == base["signature"].split("|")[1] != other["signature"].split("|")[1]


def test_samples_hold_a_question_and_a_continuation_in_each_language(evaluated):
    samples = read_json(evaluated.path / "samples.json")
    found = {(s["kind"], s["lang"], s["model"]) for s in samples}
    assert found == {
        (k, lang, m) for k, m in (("question", "chat"), ("continuation", "base")) for lang in ("en", "zh-Hans")
    }
    assert all(s["documents"] and s["prompt"] and s["reference"] for s in samples)
    assert len([s for s in samples if s["kind"] == "question"]) == 6


def test_answers_are_scored_by_the_reward_that_preferences_are_made_from(evaluated):
    samples = [s for s in read_json(evaluated.path / "samples.json") if s["kind"] == "question" and s["lang"] == "en"]
    for part, task in (("language", "answer_language"), ("overlap", "answer_overlap"), ("total", "answer_reward")):
        (record,) = scores(evaluated, task=task, language="en")
        assert record["value"] == pytest.approx(np.mean([s["reward"][part] for s in samples]), abs=1e-6)
        assert record["num_items"] == len(samples) == 3


def test_two_runs_write_the_same_bytes(evaluated, store, inputs):
    again = run_step(STEP, store / "evaluate" / "evaluate-1", inputs=inputs, workers=2, **SETTINGS)
    for name in ("scores.json", "samples.json", "ngram.json"):
        assert (again.path / name).read_bytes() == (evaluated.path / name).read_bytes()


def test_a_base_model_alone_can_be_evaluated(store, inputs):
    only = {name: inputs[name] for name in ("from", "tokens")}
    alone = run_step(STEP, store / "evaluate" / "evaluate-2", inputs=only, **SETTINGS)
    assert not scores(alone, model="chat")
    assert {s["kind"] for s in read_json(alone.path / "samples.json")} == {"continuation"}


def test_a_model_is_compared_with_another_on_the_same_documents(store, inputs):
    pack = inputs["tokens"]
    other = random_model(store, "pretrain", {"tokens": pack}, pack.upstream("train_tokenizer"), seed=7, name="other")
    only = {"from": inputs["from"], "tokens": pack, "against": other}
    compared = run_step(STEP, store / "evaluate" / "evaluate-3", inputs=only, **SETTINGS)
    for source in {r["source"] for r in scores(compared, language="en", model="base")}:
        base, against, difference = (
            scores(compared, language="en", source=source, model=name)[0]
            for name in ("base", "against", "base - against")
        )
        assert difference["value"] == pytest.approx(base["value"] - against["value"], abs=2e-6)
        assert difference["value"] != 0
        assert base["signature"] == against["signature"] == difference["signature"]


def first_of(heldout, language):
    return heldout.ids[heldout.langs.index(language)]


def test_a_larger_budget_only_adds_documents(inputs):
    packed_tokens = PackedTokens.open(inputs["tokens"].path)
    few = heldout_documents(packed_tokens, inputs["tokens"], max_tokens=200, seed=5)
    more = heldout_documents(packed_tokens, inputs["tokens"], max_tokens=800, seed=5)
    assert set(few.ids) < set(more.ids)
    for language in ("en", "zh-Hans"):
        assert first_of(more, language) == first_of(few, language)


def test_heldout_documents_are_whole_and_absent_from_training(inputs):
    packed_tokens = PackedTokens.open(inputs["tokens"].path)
    tokenizer = Tokenizer.load(inputs["from"].path / "model")
    heldout = heldout_documents(packed_tokens, inputs["tokens"], max_tokens=10_000, seed=5)
    tokens, starts = training_tokens(packed_tokens)
    trained = {d for s in packed_tokens.streams("train") for d in s.documents["id"].to_pylist()}
    assert not trained & set(heldout.ids)
    assert len(starts) == len(trained)
    assert (tokens[np.append(starts[1:], len(tokens)) - 1] == tokenizer.eos_id).all()
    for row, length in enumerate(heldout.lengths):
        document = heldout.tokens[heldout.starts[row] :][:length]
        assert document[-1] == tokenizer.eos_id
        assert len(tokenizer.decode(document.tolist()).encode()) == heldout.num_bytes[row]


def test_nothing_held_out_is_said_and_not_divided_by(store, inputs):
    empty = PackedTokens(inputs["tokens"].path, ())
    with pytest.raises(InputError, match="no document is held out"):
        heldout_documents(empty, inputs["tokens"], max_tokens=10, seed=0)
    with pytest.raises(InputError, match="no training tokens"):
        training_tokens(empty)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngram_orders": (1,)}, "order from 2 to 9"),
        ({"context": 7}, "even"),
        ({"max_tokens": 0}, "at least 1"),
        ({"chat": "aligned"}, "Set both"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig(from_="base", tokens="packed", **settings)
