"""The finetune step on a small random model."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.generate.chat_session import chat
from diglot.model.files import load_model
from diglot.steps.finetune import STEP
from diglot.train.conversation_order import ConversationOrder
from handmade_corpus import run_step
from small_store import CHINESE, conversations, packed, random_model

SETTINGS = {
    "num_train_steps": 80,
    "conversations_per_train_step": 4,
    "max_tokens": 96,
    "learning_rate": 1e-2,
    "num_threads": 1,
    "checkpoint_every_tokens": 2000,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    pack, tokenizer = packed(store, num_per_language=20)
    return {
        "from": random_model(store, "pretrain", {"tokens": pack}, tokenizer, seed=1),
        "conversations": conversations(store, pack),
    }


@pytest.fixture(scope="module")
def tuned(inputs, tmp_path_factory):
    return run_step(STEP, tmp_path_factory.mktemp("runs") / "finetune" / "f-0", inputs=inputs, **SETTINGS)


def test_a_random_model_starts_at_the_logarithm_of_its_vocabulary(tuned):
    counts = tuned.counts
    vocab_size = load_model(tuned.path / "model").config.vocab_size
    assert counts["heldout_loss_before"] == pytest.approx(math.log(vocab_size), rel=0.05)
    assert counts["heldout_loss_after"] != counts["heldout_loss_before"]
    assert (counts["conversations"], counts["heldout_conversations"], counts["epochs"]) == (8, 8, 40)


def test_the_model_folder_is_complete_and_holds_the_new_weights(tuned, inputs):
    folder = tuned.path / "model"
    base = inputs["from"].path / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        p.name for p in folder.iterdir()
    }
    assert (folder / "model.safetensors").read_bytes() != (base / "model.safetensors").read_bytes()
    assert load_model(folder).config == load_model(base).config


def test_the_model_gives_back_an_answer_that_it_was_taught(tuned):
    answers = {chat(tuned).answer(f"什么是软件包？ ({number})") for number in (0, 2, 4, 6)}
    assert answers & set(CHINESE)


def test_every_training_step_is_logged_with_its_loss(tuned):
    lines = [json.loads(line) for line in (tuned.path / "train.jsonl").read_text().splitlines()]
    assert lines[-1]["train_step"] == 79
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]


def test_a_killed_run_goes_on_to_the_same_bytes(tuned, inputs, tmp_path):
    out = tmp_path / "finetune" / "f-0"
    checkpoints = sorted((tuned.path / "checkpoints").iterdir())
    assert len(checkpoints) >= 2
    shutil.copytree(checkpoints[0], out / "checkpoints" / checkpoints[0].name)
    again = run_step(STEP, out, inputs=inputs, **SETTINGS)
    weights = "model/model.safetensors"
    assert (again.path / weights).read_bytes() == (tuned.path / weights).read_bytes()


def test_conversations_that_are_too_long_are_left_out_and_counted(inputs, tmp_path):
    with pytest.raises((ConfigError, InputError), match="max_tokens"):
        run_step(STEP, tmp_path / "finetune" / "f-1", inputs=inputs, **(SETTINGS | {"max_tokens": 4}))


def test_an_order_reads_every_conversation_once_an_epoch_and_is_a_function_of_seed_and_step():
    lengths = [5 + (i * 7) % 40 for i in range(32)]
    order = ConversationOrder(lengths, 4, seed=1)
    steps = [order.items(n) for n in range(16)]
    assert sorted(i for items in steps[:8] for i in items) == list(range(32))
    assert sorted(i for items in steps[8:] for i in items) == list(range(32))
    assert steps[:8] != steps[8:]
    assert [ConversationOrder(lengths, 4, seed=1).items(n) for n in reversed(range(16))] == steps[::-1]
    assert [ConversationOrder(lengths, 4, seed=2).items(n) for n in range(8)] != steps[:8]


def test_batches_hold_conversations_of_similar_length():
    lengths = [10 + (i * 37) % 100 for i in range(200)]
    order = ConversationOrder(lengths, 10, seed=1)
    padded = sum(10 * max(lengths[i] for i in order.items(n)) for n in range(20))
    assert padded < 1.1 * sum(lengths)


def test_impossible_settings_are_refused():
    for wrong in ({"num_train_steps": 0}, {"learning_rate": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            STEP.config(from_="a", conversations="b", **wrong)
