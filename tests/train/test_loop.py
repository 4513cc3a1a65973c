"""The loop learns, divides by global counts, refuses what is not finite, and keeps the checkpoints it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch

from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.hardware import host
from diglot.core.progress import Progress
from diglot.core.storage import read_json
from diglot.model.decoder import Decoder
from diglot.train import backend as backend_module
from diglot.train.backend import choose_backend
from diglot.train.checkpoints import checkpoint_name, checkpoints
from diglot.train.log import read_lines
from diglot.train.loop import IGNORE, Batch, ItemLosses, Phase, train
from diglot.train.objectives.next_token import next_token
from diglot.train.optimizer_config import OptimizerConfig


def one_step(split: tuple[int, ...], **changes: Any) -> tuple[Decoder, dict[str, Any]]:
    """A model after one training step on four sequences of unequal length, in microbatches of the given sizes."""
    rows = tiny_run.batch_at(0, (4,))[0]
    targets = rows["targets"].clone()
    for row, kept in enumerate((16, 3, 9, 1)):
        targets[row, kept:] = IGNORE
    parts = zip(rows["input_ids"].split(list(split)), targets.split(list(split)), strict=True)
    batches: list[Batch] = [{"input_ids": ids, "targets": t} for ids, t in parts]
    phase = Phase(
        name="one",
        num_train_steps=1,
        batch_at=lambda n: batches,
        schedule=lambda n: 1.0,
        optimizer=OptimizerConfig(eps=1.0, weight_decay=0.0),  # so large an eps makes the update follow the gradient
    )
    model, out = Decoder(tiny_run.CONFIG, seed=3), changes.pop("out")
    settings = tiny_run.settings(**changes)
    run: dict[str, Any] = {"objective": next_token(), "seed": 0, "settings": settings, "progress": Progress(quiet=True)}
    train(model, phases=[phase], out=out, **run)
    return model, read_lines(out / "train.jsonl")[0]


@pytest.mark.parametrize("split", [(4,), (1, 1, 1, 1), (1, 3)])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_the_microbatch_split_changes_neither_loss_nor_update(
    split: tuple[int, ...], clip: float | None, tmp_path: Path
) -> None:
    reference, line = one_step((2, 2), clip_norm=clip, out=tmp_path / "reference")
    model, same_line = one_step(split, clip_norm=clip, out=tmp_path / "split")
    assert line["num_items"] == same_line["num_items"] == 16 + 3 + 9 + 1
    assert same_line["loss"] == pytest.approx(line["loss"], rel=1e-6)
    assert same_line["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-5)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_norm_is_that_of_the_mean_loss_and_clipping_shrinks_the_update_to_it(tmp_path: Path) -> None:
    _, line = one_step((4,), clip_norm=None, out=tmp_path / "plain")
    norm = line["grad_norm"]
    start = Decoder(tiny_run.CONFIG, seed=3)
    rows = tiny_run.batch_at(0, (4,))[0]
    kept = torch.arange(16)[None] < torch.tensor([16, 3, 9, 1])[:, None]
    losses = next_token()(start, {**rows, "targets": torch.where(kept, rows["targets"], IGNORE)})
    (losses.total / losses.count).backward()  # type: ignore[no-untyped-call]
    assert norm == pytest.approx(torch.nn.utils.get_total_norm([p.grad for p in start.parameters()]).item(), rel=1e-5)
    # With eps = 1 in AdamW an update is g / (|g| + 1): nearly g where gradients are small.
    clipped, _ = one_step((4,), clip_norm=norm / 1000, out=tmp_path / "clipped")
    update = [a.detach() - b.detach() for a, b in zip(start.parameters(), clipped.parameters(), strict=True)]
    assert torch.nn.utils.get_total_norm(update).item() == pytest.approx(norm / 1000, rel=1e-2)


def test_a_run_learns_and_reports_it(tmp_path: Path) -> None:
    report = tiny_run.run(tmp_path)
    lines = read_lines(tmp_path / "train.jsonl")
    assert [line["train_step"] for line in lines] == list(range(15))
    assert lines[0]["loss"] == pytest.approx(3.91, abs=0.05)  # log 50: nothing is known yet
    assert lines[-1]["loss"] < 2.0
    assert [line["phase"] for line in lines] == ["fundamental"] * 9 + ["decay"] * 6
    assert lines[-1]["num_tokens"] == report.num_tokens == 15 * tiny_run.TOKENS_PER_STEP
    assert report.phase_losses["decay"] == lines[-1]["loss"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny_run.run(tmp_path / name)
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(tmp_path: Path) -> None:
    model = Decoder(tiny_run.CONFIG, seed=3)
    weights = {name: p.clone() for name, p in model.named_parameters()}

    def broken(model: Decoder, batch: Batch) -> ItemLosses:
        losses = next_token()(model, batch)
        return losses._replace(total=losses.total * float("inf"))

    settings = tiny_run.settings()
    run: dict[str, Any] = {"out": tmp_path, "seed": 0, "settings": settings, "progress": Progress(quiet=True)}
    first, second = tiny_run.phases()
    phases = [replace(first, reads=lambda n: f"guide.en, sequence {n}"), second]
    message = (
        r"training step 0 of phase 'fundamental' has loss inf.*it was 0\.01.*\(microbatch 0, 1 of 0\.\.1\): "
        r"guide\.en, sequence 0\. Last checkpoint: none"
    )
    with pytest.raises(DiglotError, match=message):
        train(model, phases=phases, objective=broken, **run)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


def test_a_spike_leaves_weights_and_optimizer_alone_and_is_written_down(tmp_path: Path) -> None:
    spiky: dict[str, Any] = {"objective": tiny_run.spiky_objective, "run_phases": tiny_run.spiky_phases()}
    report = tiny_run.run(tmp_path / "guarded", **spiky, spike_guard=tiny_run.GUARD, log_every=100)
    lines = {line["train_step"]: line for line in read_lines(tmp_path / "guarded" / "train.jsonl")}
    assert [n for n, line in lines.items() if line.get("skipped")] == [5, 6, 13]  # written though log_every is 100
    assert lines[5]["why"].startswith(f"grad_norm {lines[5]['grad_norm']:.4g} is above 10 x ")
    assert report.num_skipped == 3
    assert report.final_loss < 10 < lines[13]["loss"]
    states = [c.tensors() for c in checkpoints(tmp_path / "guarded" / "checkpoints")]
    after_4, after_6 = states[1], states[2]  # of the steps 4 and 5, the latter was skipped
    name = "optimizer.adamw.embed.weight.num_updates"
    assert (after_4[name], after_6[name]) == (4, 5)
    assert states[3][name] == 6  # step 6 was skipped, step 7 was not
    unguarded = tiny_run.run(tmp_path / "unguarded", **spiky)
    assert unguarded.num_skipped == 0
    assert not any("skipped" in line for line in read_lines(tmp_path / "unguarded" / "train.jsonl"))


def test_another_level_in_another_phase_is_no_spike(tmp_path: Path) -> None:
    first, second = tiny_run.phases()

    def scaled(scale: float, phase: Phase) -> Phase:
        scales = {"scale": torch.tensor(scale)}
        return replace(phase, batch_at=lambda n: [{**batch, **scales} for batch in phase.batch_at(n)])

    report = tiny_run.run(
        tmp_path,
        run_phases=[scaled(1.0, first), scaled(100.0, second)],
        objective=tiny_run.spiky_objective,
        spike_guard=tiny_run.GUARD,
    )
    assert report.num_skipped == 0


def test_a_guard_that_meets_no_spike_changes_nothing(tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "without")
    tiny_run.run(tmp_path / "with", spike_guard=replace(tiny_run.GUARD, factor=1000.0))
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("without", "with")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": torch.full((1, 4), 50)}, r"training step 3 holds token ids 50 to 50.*ids 0\.\.49"),
        ({"input_ids": torch.full((1, 4), -1)}, "training step 3 holds token ids -1"),
        ({"weights": torch.tensor([1.0, float("nan")])}, "'weights' of microbatch 0 of training step 3"),
    ],
)
def test_a_batch_that_no_model_can_read_is_refused_with_its_training_step(
    change: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    first, second = tiny_run.phases()

    def batch_at(n: int) -> list[Batch]:
        return [{**batch, **(change if n == 3 else {})} for batch in first.batch_at(n)]

    with pytest.raises(InputError, match=message):
        tiny_run.run(tmp_path, run_phases=[replace(first, batch_at=batch_at), second])
    assert len(read_lines(tmp_path / "train.jsonl")) == 3  # those before it were trained on


def test_waiting_for_batches_is_measured(tmp_path: Path) -> None:
    slow = tiny_run.run(tmp_path / "slow", pause=0.4)
    assert slow.loader_wait_share > 0.2  # nearly 1 on a quiet machine
    lines = read_lines(tmp_path / "slow" / "timing.jsonl")
    assert lines[-1]["loader_wait_share"] == pytest.approx(slow.loader_wait_share, abs=0.05)
    assert tiny_run.run(tmp_path / "fast").loader_wait_share < slow.loader_wait_share / 2


def test_a_training_step_without_a_single_target_is_refused(tmp_path: Path) -> None:
    batch = {"input_ids": torch.zeros(1, 4, dtype=torch.int64), "targets": torch.full((1, 4), IGNORE)}
    phase = Phase(
        name="one", num_train_steps=1, batch_at=lambda n: [batch], schedule=lambda n: 1e-3, optimizer=OptimizerConfig()
    )
    with pytest.raises(InputError, match="no item to learn from"):
        tiny_run.run(tmp_path, run_phases=[phase])


def test_rolling_checkpoints_are_pruned_and_release_ones_stay(tmp_path: Path) -> None:
    tiny_run.run(tmp_path, keep_rolling=2, release_tokens=(3 * tiny_run.TOKENS_PER_STEP,))
    found = {c.counters.train_steps_done: c.retention for c in checkpoints(tmp_path / "checkpoints")}
    # rolling ones at 2, 4, 6, 8, 10, 12, 14; release ones as asked and at the end of each phase
    assert found == {3: "release", 9: "release", 12: "rolling", 14: "rolling", 15: "release"}


def test_nothing_is_deleted_by_default(tmp_path: Path) -> None:
    tiny_run.run(tmp_path)
    done = [c.counters.train_steps_done for c in checkpoints(tmp_path / "checkpoints")]
    assert done == [2, 4, 6, 8, 9, 10, 12, 14, 15]


def test_checkpoint_names_carry_tokens_and_sort() -> None:
    assert checkpoint_name(33_550_000_000, 3_700_000_000_000) == "0000033.5B"
    assert checkpoint_name(2_457_600, 2_500_000) == "0002457.6K"
    assert checkpoint_name(960, 960) == "0000001.0K"
    names = [checkpoint_name(tokens, 2_500_000) for tokens in range(0, 2_500_000, 100_000)]
    assert names == sorted(names)


def test_a_checkpoint_says_what_could_change_its_last_bits(tmp_path: Path) -> None:
    tiny_run.run(tmp_path)
    manifest = read_json(checkpoints(tmp_path / "checkpoints")[-1].path / "manifest.json")
    assert (
        manifest["facts"]
        == {
            "device": "cpu",
            "precision": "fp32",
            "compiled": False,
            "deterministic": True,
            "num_threads": 1,
            "num_ranks": 1,
            "torch": torch.__version__,
        }
        or host().has_native_bf16
    )


def test_torch_is_left_as_it_was_found(tmp_path: Path) -> None:
    tiny_run.run(tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_tensorboard_files_are_written_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tiny_run.run(tmp_path, loggers=("tensorboard",))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_short_runs_and_runs_without_a_compiler_are_not_compiled_and_say_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auto = tiny_run.settings(compile="auto", num_threads=2, precision="fp32")
    monkeypatch.setattr(backend_module, "host", lambda: FakeHost("/usr/bin/g++"))
    short, long = choose_backend(auto, total_flops=1e12), choose_backend(auto, total_flops=1e15)
    assert not short.compiled
    assert "would save" in short.notes[-1]
    assert long.compiled
    assert "wins back" in long.notes[-1]
    monkeypatch.setattr(backend_module, "host", lambda: FakeHost(None))
    without = choose_backend(auto, total_flops=1e15)
    assert not without.compiled
    assert "no C++ compiler" in without.notes[-1]
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        choose_backend(tiny_run.settings(compile="always"), total_flops=1e15)


class FakeHost:
    """A machine with or without a compiler; what the tests run on has only one of the two."""

    has_native_bf16 = False

    def __init__(self, cxx_compiler: str | None) -> None:
        self.cxx_compiler = cxx_compiler


def test_bf16_autocast_trains_close_to_fp32(tmp_path: Path) -> None:
    exact, rough = (tiny_run.run(tmp_path / p, precision=p) for p in ("fp32", "bf16"))
    assert rough.precision == "bf16"
    assert rough.final_loss == pytest.approx(exact.final_loss, rel=0.1)
    assert rough.final_loss != exact.final_loss
