"""The prefer step on a small random model, and the reward it follows."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.compose.conversation import read_conversations
from diglot.steps.finetune import STEP as FINETUNE
from diglot.steps.prefer import STEP
from diglot.train import backend
from diglot.train.rewards import RewardWeights, distinct_share, reward, unit_f1
from handmade_corpus import run_step
from small_store import CHINESE, ENGLISH, conversations, packed, random_model

SETTINGS = {
    "num_prompts": 8,
    "num_answers": 4,
    "max_new_tokens": 24,
    "temperature": 1.0,
    "min_margin": 0.02,
    "epochs": 4,
    "pairs_per_train_step": 4,
    "learning_rate": 3e-3,
    "num_heldout_prompts": 8,
    "num_threads": 1,
}
WEIGHTS = RewardWeights()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    pack, tokenizer = packed(store, num_per_language=20)
    composed = conversations(store, pack)
    base = random_model(store, "pretrain", {"tokens": pack}, tokenizer, seed=1)
    tuned = run_step(
        FINETUNE,
        store / "finetune" / "f-0",
        inputs={"from": base, "conversations": composed},
        num_train_steps=20,
        conversations_per_train_step=4,
        max_tokens=96,
        learning_rate=1e-2,
        num_threads=1,
    )
    return {"from": tuned, "conversations": composed}


@pytest.fixture(scope="module")
def preferred(inputs, tmp_path_factory):
    return run_step(STEP, tmp_path_factory.mktemp("runs") / "prefer" / "p-0", inputs=inputs, num_rounds=1, **SETTINGS)


def test_the_policy_learns_to_tell_the_pairs_apart(preferred):
    (counts,) = preferred.counts["rounds"]
    assert counts["pairs"] >= 4
    assert counts["loss"] < math.log(2)
    assert counts["margin"] > 0
    assert counts["accuracy"] > 0.5
    assert counts["chosen_reward"] > counts["rejected_reward"]


def test_every_pair_names_its_conversation_and_documents_and_is_better_where_it_says_so(preferred, inputs):
    asked = {c.id: c for c in read_conversations(inputs["conversations"].path, "train")}
    rows = pq.read_table(preferred.path / "pairs.parquet").to_pylist()
    assert len(rows) == preferred.counts["pairs"]
    for row in rows:
        conversation = asked[row["conversation"]]
        assert row["documents"] == list(conversation.documents)
        assert json.loads(row["prompt"]) == list(conversation.prompt)
        for answer, recorded in ((row["chosen"], row["chosen_reward"]), (row["rejected"], row["rejected_reward"])):
            assert unit_f1(answer, conversation.answer) == pytest.approx(recorded["overlap"], abs=1e-6)
        assert row["chosen_reward"]["total"] - row["rejected_reward"]["total"] >= 0.02 - 1e-6


def test_a_run_that_was_killed_during_training_goes_on_to_the_same_bytes(preferred, inputs, tmp_path):
    out = tmp_path / "prefer" / "p-0"
    out.mkdir(parents=True)
    rollouts = (preferred.path / "rollouts.jsonl").read_bytes()
    (out / "rollouts.jsonl").write_bytes(rollouts[: int(len(rollouts) * 0.7)])
    again = run_step(STEP, out, inputs=inputs, num_rounds=1, **SETTINGS)
    for name in ("model/model.safetensors", "pairs.parquet", "rollouts.jsonl"):
        assert (again.path / name).read_bytes() == (preferred.path / name).read_bytes()


def test_a_finished_round_is_not_trained_again(preferred, inputs, tmp_path):
    out = tmp_path / "prefer" / "p-0"
    shutil.copytree(preferred.path, out)
    shutil.rmtree(out / "model")
    again = run_step(STEP, out, inputs=inputs, num_rounds=1, **SETTINGS)
    weights = "model/model.safetensors"
    assert (again.path / weights).read_bytes() == (preferred.path / weights).read_bytes()


def test_the_second_round_samples_from_the_policy_of_the_first(preferred, inputs, tmp_path):
    two = run_step(STEP, tmp_path / "prefer" / "p-2", inputs=inputs, num_rounds=2, **(SETTINGS | {"num_prompts": 4}))
    first, second = two.counts["rounds"]
    assert first["prompts"] == second["prompts"] == 4
    rows = pq.read_table(two.path / "pairs.parquet").to_pylist()
    asked = [{r["conversation"] for r in rows if r["round"] == number} for number in (0, 1)]
    assert not asked[0] & asked[1]


@pytest.mark.parametrize("has_bf16", [False, True])
def test_policy_and_reference_are_one_model_before_the_first_update(inputs, tmp_path, monkeypatch, has_bf16):
    monkeypatch.setattr(backend, "host", lambda: SimpleNamespace(has_native_bf16=has_bf16, cxx_compiler=None))
    found = run_step(STEP, tmp_path / "prefer" / "p-4", inputs=inputs, num_rounds=1, **(SETTINGS | {"epochs": 1}))
    first, *others = [json.loads(line) for line in (found.path / "round-0" / "train.jsonl").read_text().splitlines()]
    assert abs(first["chosen_gain"]) < 5e-4  # not 0: the two are measured in batches of other pairs
    assert abs(first["reward_margin"]) < 1e-4
    assert all(abs(line["chosen_gain"]) > 5e-2 for line in others)


def test_answers_without_a_difference_in_reward_stop_the_step_with_the_way_out(inputs, tmp_path):
    with pytest.raises(InputError, match="Lower min_margin"):
        run_step(STEP, tmp_path / "prefer" / "p-3", inputs=inputs, **(SETTINGS | {"min_margin": 0.99}))


@pytest.mark.parametrize(
    "wrong", [{"num_answers": 1}, {"temperature": 0}, {"min_margin": 1}, {"num_rounds": 0}, {"epochs": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        STEP.config(from_="a", conversations="b", **wrong)


@pytest.mark.parametrize(("lang", "passage"), [("en", ENGLISH[0]), ("zh-Hans", CHINESE[0])])
def test_the_passage_itself_has_the_full_reward(lang, passage):
    assert reward(passage, lang=lang, passage=passage, finished=True, weights=WEIGHTS) == (1, 1, 1, 1)


def test_each_fault_costs_its_own_part():
    good = {"lang": "en", "passage": ENGLISH[0], "finished": True, "weights": WEIGHTS}
    best = reward(ENGLISH[0], **good)
    assert reward(CHINESE[0], **good)[:3:2] == (0, 0)  # another language shares no unit either
    assert reward(ENGLISH[0], **(good | {"finished": False})).form == pytest.approx(0.75)
    assert reward(ENGLISH[0] + "<|user|>", **good).form == 0
    assert reward(ENGLISH[0] + "\ufffd", **good).form == 0
    assert reward("", **good).total == 0
    assert reward(" ".join([ENGLISH[0]] * 5), **good).total < best.total - 0.3
    assert reward(ENGLISH[1], **good).overlap < 0.3


def test_unit_f1_is_the_mean_of_unigrams_and_bigrams_worked_by_hand():
    # a b c d against a b d: unigrams 2*3/7; bigrams {ab, bc, cd} against {ab, bd}: 2*1/5
    assert unit_f1("a b c d", "A b d") == pytest.approx((6 / 7 + 2 / 5) / 2)
    assert unit_f1("软件包", "软件") == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert unit_f1("x", "x") == 1


def test_distinct_share_counts_trigrams():
    assert distinct_share(["a", "b", "c", "a", "b", "c", "a", "b", "c"]) == pytest.approx(3 / 7)
    assert distinct_share(["a"]) == 1


def test_reward_weights_sum_to_one():
    with pytest.raises(ConfigError, match="sum to 1"):
        RewardWeights(language=0.5)
