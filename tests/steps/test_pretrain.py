"""The step pretrain: from packed tokens to a model folder, with a plan that tells what was read when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.pack import PackedTokens
from diglot.ledger.artifact import Artifact
from diglot.model.files import load_model
from diglot.model.sizes import ModelConfig
from diglot.steps.context import Planned
from diglot.steps.pretrain import STEP, PhaseConfig, PretrainConfig, describe, plan
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.train.loader import batches_of
from diglot.train.log import read_lines
from diglot.train.mixture import Budget
from diglot.train.order import DataOrder
from diglot.train.schedules import ScheduleConfig
from handmade_corpus import run_step
from small_store import packed

TINY = ModelConfig(d_model=32, num_layers=2, num_heads=4, max_seq_len=128)
PHASES = (
    PhaseConfig(name="fundamental", epochs=1.0, batch_tokens=1024, learning_rate=5e-3),
    PhaseConfig(
        name="decay",
        tokens=6 * 1024,
        batch_tokens=1024,
        learning_rate=2e-3,
        mixture={"*.zh-Hans": 2.0, "*": 1.0},
        schedule=ScheduleConfig(shape="exponential", warmup_share=0.0),
    ),
)
SETTINGS: dict[str, Any] = {
    "model": TINY,
    "phases": PHASES,
    "sequence_length": 64,
    "compile": "never",
    "tensorboard": False,
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    pack, tokenizer = packed(tmp_path_factory.mktemp("store"))
    return {"from": pack, "tokenizer": tokenizer}


@pytest.fixture(scope="module")
def pretrained(inputs: dict[str, Artifact]) -> Artifact:
    return run_step(STEP, inputs["from"].store / "pretrain" / "one", inputs=inputs, **SETTINGS)


def test_the_model_learns_both_languages_and_opens_with_its_tokenizer(pretrained: Artifact) -> None:
    lines = read_lines(pretrained.path / "train.jsonl")
    assert lines[0]["loss"] == pytest.approx(np.log(500), rel=0.02)
    assert lines[-1]["loss"] < 0.75 * lines[0]["loss"]
    model, tokenizer = load_model(pretrained.path / "model"), Tokenizer.load(pretrained.path / "model")
    assert model.config.vocab_size == tokenizer.vocab_size
    ids = torch.tensor([tokenizer.encode("The package manager")])
    assert torch.isfinite(model(ids).logits).all()


def test_transformers_opens_the_model(pretrained: Artifact) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pretrained.path / "model", dtype=torch.float32)
    tokenizer = Tokenizer.load(pretrained.path / "model")
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    ids = torch.tensor([tokenizer.encode("软件包 and package")])
    with torch.no_grad():
        ours = load_model(pretrained.path / "model")(ids).logits
        torch.testing.assert_close(theirs(ids).logits, ours, rtol=1e-4, atol=1e-4)


def test_the_plan_names_the_tokens_that_every_training_step_read(
    pretrained: Artifact, inputs: dict[str, Artifact]
) -> None:
    plan_record = read_json(pretrained.path / "plan.json")
    order = DataOrder.from_plan(plan_record)
    lines = read_lines(pretrained.path / "train.jsonl")
    assert order.num_train_steps == lines[-1]["train_step"] + 1 == pretrained.counts["num_train_steps"]
    assert order.mixture_fingerprint == plan_record["mixture_fingerprint"] == pretrained.counts["mixture_fingerprint"]
    streams = {s.stream: s.tokens for s in PackedTokens.open(inputs["from"].path).streams("train")}
    stream, index = order.sequences(3)[0]
    batch = batches_of(order, 0, streams, sequence_length=64)(3)[0]
    assert batch["input_ids"][0].tolist() == streams[stream][index * 64 : index * 64 + 64].tolist()
    assert 3 in order.train_steps(stream, index)


def test_the_decay_phase_has_its_own_mixture(pretrained: Artifact) -> None:
    order = DataOrder.from_plan(read_json(pretrained.path / "plan.json"))
    decay = order.phases[1]
    by_lang: Counter[str] = Counter()
    for stream, quota in decay.quotas.items():
        by_lang[stream.rpartition(".")[2]] += quota
    assert by_lang["zh-Hans"] / decay.num_sequences == pytest.approx(2 / 3, abs=0.01)
    phases = read_json(pretrained.path / "plan.json")["phases"]
    assert [phase["num_train_steps"] for phase in phases] == [order.phases[0].num_train_steps, 6]


def test_every_token_is_counted_as_read_or_unused(pretrained: Artifact) -> None:
    for stream in read_json(pretrained.path / "plan.json")["streams"]:
        assert stream["num_sequences"] * 64 + stream["tokens_unused"] + 1 == stream["num_tokens"]
        assert 1.0 < stream["epochs"] < 2.5


def test_the_same_step_gives_the_same_model_bytes(pretrained: Artifact, inputs: dict[str, Artifact]) -> None:
    again = run_step(STEP, inputs["from"].store / "pretrain" / "two", inputs=inputs, **SETTINGS)
    files = [(artifact.path / "model" / "model.safetensors").read_bytes() for artifact in (pretrained, again)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": ()}, "at least one"),
        ({"phases": (PHASES[0], PHASES[0])}, "names of their own"),
        ({"sequence_length": 65}, "Set 975"),
        ({"sequence_length": 4096}, "max_seq_len = 128"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**{"from_": "pack", "tokenizer": "tok", **SETTINGS, **change})


def test_a_phase_has_one_length() -> None:
    for lengths in ({}, {"tokens": 5, "epochs": 1.0}, {"tokens": 0}):
        with pytest.raises(ConfigError, match="phase 'one'"):
            PhaseConfig(name="one", **lengths)  # type: ignore[arg-type]


def test_a_mixture_for_a_language_that_is_not_there_is_refused_before_training() -> None:
    config = PretrainConfig(
        from_="pack",
        tokenizer="tok",
        model=TINY,
        sequence_length=64,
        phases=(PhaseConfig(name="one", epochs=1.0, mixture={"*.ja": 1.0}),),
    )
    with pytest.raises(ConfigError, match=r"'\*\.ja' fits no stream.*guide\.en"):
        plan(config, {"guide.en": 10_000}, seed=0)
    with pytest.raises(InputError, match="no training tokens"):
        plan(config, {}, seed=0)


def test_model_settings_start_from_a_size_and_change_what_they_name() -> None:
    shape = ModelConfig(size="micro", num_layers=3, multi_query=True, qk_norm=True).decoder(1000)
    assert (shape.d_model, shape.num_layers, shape.num_heads, shape.num_kv_heads) == (192, 3, 6, 1)
    assert shape.ffn_dim == 768
    assert ModelConfig(size="micro", faithful=True).decoder(1000).ffn_dim == 8 * 192
    with pytest.raises(ConfigError, match="does not divide"):
        ModelConfig(size="nano", num_heads=3).decoder(1000)


def test_plan_shows_the_mixture_and_what_changed_beside_it(inputs: dict[str, Artifact]) -> None:
    config = PretrainConfig(from_="from", tokenizer="tokenizer", **SETTINGS)
    now = Planned(config=config, inputs=inputs, seed=0)
    lines = describe(now, None)
    order = plan(config, {s.stream: s.num_tokens for s in PackedTokens.open(inputs["from"].path).streams("train")}, 0)
    assert lines[0].startswith("model: 2 layers of width 32, ")
    assert lines[1].startswith("memory of one rank: ")
    assert len(lines) == 3 + 2 * len(order.sizes)
    quota = order.phases[1].quotas["guide-zh.zh-Hans"]
    [line] = [line for line in lines if line.startswith("decay") and "guide-zh.zh-Hans" in line]
    assert line.split()[2:] == [
        f"{quota * 64:,}",
        f"{quota / 96:.4f}",
        f"{quota / order.sizes['guide-zh.zh-Hans']:.2f}",
    ]
    assert describe(now, now) == lines

    budget = replace(PHASES[1], mixture={"*.zh-Hans": Budget(share=0.25), "*": 1.0})
    after = Planned(config=replace(config, phases=(PHASES[0], budget)), inputs=inputs, seed=0)
    changed = describe(after, now)
    assert next(line for line in changed if line.startswith("fundamental")).count("->") == 0
    [line] = [line for line in changed if line.startswith("decay") and "guide-zh.zh-Hans" in line]
    assert f"{quota * 64:,} -> " in line
    nowhere = Artifact(inputs["from"].path.parent / "not-built")
    size, mixture = describe(replace(now, inputs={"from": nowhere, "tokenizer": nowhere}), None)
    assert "32.9 k parameters without embeddings; the rest is known when the tokenizer is built" in size
    assert "when its inputs are built" in mixture
