"""What is measured beside training: when, in what state, and without a trace in the weights, the logs or the speed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch

from diglot.core.errors import ConfigError
from diglot.core.progress import Progress
from diglot.evaluate.losses import sequence_nats
from diglot.model.decoder import Decoder
from diglot.model.files import save_model
from diglot.train.backend import uncompiled
from diglot.train.checkpoints import checkpoints, delete_checkpoint
from diglot.train.log import read_lines
from diglot.train.loop import train
from diglot.train.objectives.next_token import next_token
from diglot.train.types import Evaluation, TrainReport

Measure = Callable[[Decoder], dict[str, dict[str, float]]]


def size_of_weights(model: Decoder) -> dict[str, dict[str, float]]:
    with torch.inference_mode():
        model(torch.arange(20)[None] % 50)  # longer than a training sequence
    assert not model.training
    return {"size": {"all": sum(p.detach().abs().sum().item() for p in model.parameters())}}


def run(
    out: Path,
    measure: Measure = size_of_weights,
    every_steps: float = 4,
    compile: str = "never",
    bf16: bool = False,
    precision: str = "fp32",
) -> TrainReport:
    model = Decoder(tiny_run.CONFIG, seed=3)
    report = train(
        model,
        phases=tiny_run.phases(),
        objective=next_token(),
        out=out,
        seed=3,
        settings=tiny_run.settings(compile=compile, precision=precision),
        progress=Progress(quiet=True),
        evaluation=Evaluation(measure=measure, every_tokens=int(every_steps * tiny_run.TOKENS_PER_STEP), bf16=bf16),
    )
    save_model(model, out / "model")
    return report


def test_it_happens_when_tokens_cross_a_multiple_and_at_the_end_of_each_phase(tmp_path: Path) -> None:
    run(tmp_path)
    lines = read_lines(tmp_path / "eval.jsonl")
    assert [line["train_step"] for line in lines] == [3, 7, 8, 11, 14]  # phases end after steps 8 and 14
    assert [line["num_tokens"] for line in lines] == [(n + 1) * tiny_run.TOKENS_PER_STEP for n in (3, 7, 8, 11, 14)]
    assert lines[2]["phase"] == "fundamental"
    assert len({line["size"]["all"] for line in lines}) == 5, "each sees other weights"


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "without")
    run(tmp_path / "with")
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert not (tmp_path / "without" / "eval.jsonl").exists()


@pytest.mark.parametrize("bf16", [False, True])
def test_layers_run_under_autocast_where_it_is_told_and_the_output_matrix_never(bf16: bool, tmp_path: Path) -> None:
    def dtypes(model: Decoder) -> dict[str, dict[str, float]]:
        found = dict[str, torch.dtype]()
        hooks = [
            module.register_forward_hook(lambda _, __, y, name=name: found.update({name: y.dtype}))
            for name, module in (("layer", model.layers[0].ffn.down), ("logits", model.lm_head))
        ]
        ids = np.arange(9)
        nats.append(sequence_nats(model, [ids], [ids])[0])
        for hook in hooks:
            hook.remove()
        assert found == {"layer": torch.bfloat16 if bf16 else torch.float32, "logits": torch.float32}
        with torch.autocast("cpu", enabled=False):
            assert nats[-1] == pytest.approx(sequence_nats(model, [ids], [ids])[0], rel=1e-2 if bf16 else 0)
        return {}

    nats = list[float]()
    run(tmp_path, dtypes, bf16=bf16, precision="bf16")
    assert len(nats) == 5


@pytest.mark.parametrize("kept", [2, 4, 8, 12])
def test_a_killed_run_measures_what_an_undisturbed_one_does(kept: int, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole)
    run(broken)
    for checkpoint in checkpoints(broken / "checkpoints"):
        if checkpoint.counters.train_steps_done > kept:
            delete_checkpoint(checkpoint.path)
    run(broken)
    assert (whole / "eval.jsonl").read_bytes() == (broken / "eval.jsonl").read_bytes()


def test_its_seconds_count_in_no_speed(tmp_path: Path) -> None:
    def slow(model: Decoder) -> dict[str, dict[str, float]]:
        time.sleep(0.4)
        return {"size": {"all": 0.0}}

    report = run(tmp_path, slow, every_steps=2)
    assert report.evaluation_seconds > 8 * 0.4
    assert report.seconds > report.evaluation_seconds
    counted = report.num_tokens / report.tokens_per_second
    assert counted == pytest.approx(report.seconds - report.evaluation_seconds, rel=1e-6)
    for line in read_lines(tmp_path / "timing.jsonl"):
        assert line["tokens_per_second"] > 2 * report.num_tokens / report.seconds


def test_layers_are_not_compiled_in_it_and_are_afterwards() -> None:
    model = Decoder(tiny_run.CONFIG)
    for number, layer in enumerate(model.layers):
        layer._compiled_call_impl = number
    with uncompiled(model):
        assert all(layer._compiled_call_impl is None for layer in model.layers)
    assert [layer._compiled_call_impl for layer in model.layers] == [0, 1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_a_compiled_run_is_the_same_with_and_without_and_is_not_compiled_again(tmp_path: Path) -> None:
    lengths = iter(range(5, 40))

    def many_shapes(model: Decoder) -> dict[str, dict[str, float]]:
        with torch.inference_mode():
            model(torch.arange(next(lengths))[None] % 50)
        return {"size": {"all": 0.0}}

    tiny_run.run(tmp_path / "without", compile="always")
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    run(tmp_path / "with", many_shapes, every_steps=1, compile="always")
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before <= before


def test_it_cannot_be_due_all_the_time() -> None:
    with pytest.raises(ConfigError, match="every_tokens = 0"):
        Evaluation(measure=size_of_weights, every_tokens=0)
