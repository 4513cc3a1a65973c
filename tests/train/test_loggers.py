"""Loggers get every curve, are imported only when asked for, stay offline, and are named when they are missing."""

from __future__ import annotations

import doctest
import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny_run
from stand_in_loggers import stand_in

from diglot.core.errors import ConfigError
from diglot.steps.pretrain_config import PretrainConfig
from diglot.train import log as log_module
from diglot.train.log import TrainLog, read_lines


@pytest.fixture(params=["wandb", "trackio"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = stand_in(request.param)
    found.__spec__ = importlib.machinery.ModuleSpec(request.param, None)
    monkeypatch.setitem(sys.modules, request.param, found)
    monkeypatch.setenv("WANDB_API_KEY", "not-for-any-log")
    monkeypatch.setenv("HF_TOKEN", "not-for-any-log")
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_run_hands_over_every_curve_and_closes(
    module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run.run(tmp_path, loggers=(module.__name__,), log_every=4)
    (run,) = module.runs
    assert run.is_finished
    told = {}
    for values, step in run.logged:
        if "train/loss" in values:
            told[int(values["train_step"]) if step is None else step] = values["train/loss"]
    assert told == {line["train_step"]: line["loss"] for line in read_lines(tmp_path / "train.jsonl")}
    assert any("speed/tokens_per_second" in values for values, _ in run.logged)
    if module.__name__ == "trackio":
        assert capsys.readouterr().out == "", "standard output is for results"


def test_it_is_offline_and_gets_no_setting_and_no_secret(module: ModuleType, tmp_path: Path) -> None:
    with TrainLog(tmp_path / "bb", 7, [module.__name__], "base"):
        pass
    (run,) = module.runs
    assert (run.settings["project"], run.settings["group"]) == ("diglot", "bb")
    assert run.settings["config"] == {"first_train_step": 7}
    assert "not-for-any-log" not in str(run.settings)
    if module.__name__ == "wandb":
        assert run.settings["mode"] == "offline"
        assert run.settings["dir"] == str(tmp_path / "bb")
        assert run.axes == [("*", "train_step")], "a resumed run goes back to steps that were logged"
        for switched_off in ("disable_git", "disable_code", "x_disable_meta"):
            assert run.settings["settings"][switched_off] is True
        assert run.settings["settings"]["console"] == "off"


def test_a_nested_line_becomes_curves_with_names(module: ModuleType, tmp_path: Path) -> None:
    with TrainLog(tmp_path, 0, [module.__name__]) as log:
        log.evaluation({"train_step": 3, "phase": "decay", "num_tokens": 64, "bits_per_byte": {"en": 1.5}})
    ((values, _),) = module.runs[0].logged
    assert {name: value for name, value in values.items() if name != "train_step"} == {
        "evaluation/bits_per_byte/en": 1.5
    }


def test_a_missing_package_is_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"loggers: wandb needs the package wandb, which is not installed\. pip install"
    ):
        tiny_run.run(tmp_path, loggers=("wandb",))
    assert read_lines(tmp_path / "train.jsonl") == []


def test_an_unknown_logger_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match="unknown logger 'wandbb'; did you mean 'wandb'"):
        PretrainConfig(from_="tokens", tokenizer="tokenizer", loggers=("tensorboard", "wandbb"))
    with pytest.raises(ConfigError, match="unknown logger 'mlflow'"):
        tiny_run.settings(loggers=("mlflow",))


def test_none_is_imported_unless_it_is_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, tiny_run\n"
        "tiny_run.run(pathlib.Path(sys.argv[1]))\n"
        "assert not {'wandb', 'trackio', 'tensorboard'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_real_package_takes_a_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip(name)
    tiny_run.run(tmp_path, loggers=(name,))
    assert list((tmp_path / name).rglob("*.wandb" if name == "wandb" else "*.db"))


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(log_module).failed == 0
