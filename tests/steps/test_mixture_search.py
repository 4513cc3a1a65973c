"""The mixture_search step: real tiny runs, resumed where they were killed, whose mixture pretrain takes."""

from __future__ import annotations

from typing import Any

import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.ledger.artifact import Artifact
from diglot.model.sizes import ModelConfig
from diglot.steps import mixture_search
from diglot.steps.mixture_search import STEP, MixtureSearchConfig
from diglot.steps.pretrain import STEP as PRETRAIN
from diglot.steps.pretrain_config import PhaseConfig, PretrainConfig
from handmade_corpus import finish, run_step
from small_store import packed

GROUPS = ("*.en", "*.zh-Hans")
SETTINGS: dict[str, Any] = {
    "groups": GROUPS,
    "num_candidates": 5,
    "tokens": 4096,
    "heldout_tokens": 600,
    "model": ModelConfig(d_model=16, num_layers=1, num_heads=2, max_seq_len=64),
    "sequence_length": 32,
    "batch_tokens": 256,
    "learning_rate": 1e-2,
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    pack, tokenizer = packed(tmp_path_factory.mktemp("store"))
    return {"from": pack, "tokenizer": tokenizer}


@pytest.fixture(scope="module")
def searched(inputs: dict[str, Artifact]) -> Artifact:
    return run_step(STEP, inputs["from"].store / "mixture_search" / "one", inputs=inputs, **SETTINGS)


def test_each_run_has_weights_and_losses_and_more_of_a_language_helps_it(searched: Artifact) -> None:
    report = read_json(searched.path / "search.json")
    assert len(report["runs"]) == 5
    for run in report["runs"]:
        assert sum(run["weights"].values()) == pytest.approx(1, abs=1e-5)
    for group in GROUPS:
        ordered = sorted(report["runs"], key=lambda run: run["weights"][group])
        assert ordered[0]["bits_per_byte"][group] > ordered[-1]["bits_per_byte"][group]
    assert report["runs"][1]["weights"] == dict.fromkeys(GROUPS, 0.5)
    assert read_json(searched.path / "mixture.json") == report["proposal"]["weights"]
    best = min(report["runs"], key=lambda run: sum(run["bits_per_byte"].values()))
    assert report["best_run"]["run"] == best["run"]
    assert searched.counts["runs"] == 5


def test_a_killed_search_goes_on_after_its_last_run_and_ends_the_same(
    searched: Artifact, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = inputs["from"].store / "mixture_search" / "two", []
    train = mixture_search._train_and_score

    def dies_in_the_third_run(*arguments: Any) -> list[float]:
        calls.append(arguments[2].name)
        if len(calls) == 3:
            raise InputError("killed")
        return train(*arguments)

    monkeypatch.setattr(mixture_search, "_train_and_score", dies_in_the_third_run)
    with pytest.raises(InputError, match="killed"):
        run_step(STEP, out, inputs=inputs, **SETTINGS)
    again = run_step(STEP, out, inputs=inputs, **SETTINGS)
    assert calls == ["000", "001", "002", "002", "003", "004"]
    for name in ("search.json", "mixture.json"):
        assert (again.path / name).read_bytes() == (searched.path / name).read_bytes()


def test_pretrain_reads_what_was_found(inputs: dict[str, Artifact]) -> None:
    folder = inputs["from"].store / "mixture_search" / "found"
    write_json(folder / "mixture.json", {"*.en": 0.1, "*.zh-Hans": 0.9})
    searched = finish(folder, {}, inputs, {})
    phase = PhaseConfig(name="one", tokens=6400, batch_tokens=640)
    artifact = run_step(
        PRETRAIN,
        inputs["from"].store / "pretrain" / "found",
        inputs={**inputs, "mixture_from": searched},
        phases=(phase,),
        model=SETTINGS["model"],
        sequence_length=32,
        compile="never",
        loggers=(),
        num_threads=1,
    )
    quotas = read_json(artifact.path / "plan.json")["order"]["phases"][0]["quotas"]
    english = sum(quota for stream, quota in quotas.items() if stream.endswith(".en"))
    assert english == 20  # of 200 sequences
    with pytest.raises(ConfigError, match="every phase has a mixture of its own"):
        PretrainConfig(
            from_="p", tokenizer="t", mixture_from="s", phases=(PhaseConfig(name="one", tokens=5, mixture={"*": 1.0}),)
        )


def test_what_cannot_work_is_refused(inputs: dict[str, Artifact]) -> None:
    for change, message in (
        ({"groups": ("*.en",)}, "at least two different patterns"),
        ({"loss_weights": (1.0,)}, "there are 2 groups"),
        ({"sequence_length": 33}, "must be even"),
        ({"batch_tokens": 100}, "a multiple of sequence_length"),
        ({"num_candidates": 2}, "num_candidates >= 3"),
        ({"heldout_tokens": 0}, "heldout_tokens >= 1"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            MixtureSearchConfig(**{"from_": "p", "tokenizer": "t", **SETTINGS, **change})
    out = inputs["from"].store / "mixture_search" / "refused"
    with pytest.raises(ConfigError, match="Lower tokens or raise max_epochs"):
        run_step(STEP, out, inputs=inputs, **{**SETTINGS, "max_epochs": 0.01})
    with pytest.raises(ConfigError, match=r"'\*\.ja' fits no stream"):
        run_step(STEP, out, inputs=inputs, **{**SETTINGS, "groups": ("*.en", "*.ja")})
