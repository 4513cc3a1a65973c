"""The facts of the loop, once more on a GPU: near the CPU's numbers, and the same bytes when it is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from test_next_token import case

from diglot.core.errors import DiglotError
from diglot.model.config import MoEConfig
from diglot.model.decoder import Decoder
from diglot.train.device import chosen_device
from diglot.train.fp8 import use_fp8_products
from diglot.train.log import read_lines
from diglot.train.loop import TrainReport, train
from diglot.train.objectives.dpo import dpo_objective
from diglot.train.objectives.next_token import linear_cross_entropy, next_token
from diglot.train.objectives.sft import sft
from diglot.train.types import Batch, ItemLosses, Objective

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch sees none"),
]
EXPERTS = replace(tiny_run.CONFIG, moe=MoEConfig(num_experts=4, top_k=2, expert_dim=16, shared_dim=16))


def losses_of(out: Path) -> list[float]:
    return [line["loss"] for line in read_lines(out / "train.jsonl")]


def run_on_gpu(out: Path, **changes: Any) -> TrainReport:
    return tiny_run.run(out, device=chosen_device("cuda"), **changes)


def test_float32_on_a_gpu_finds_the_losses_of_the_cpu(tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "cpu", precision="fp32")
    report = run_on_gpu(tmp_path / "gpu", precision="fp32")
    assert losses_of(tmp_path / "gpu") == pytest.approx(losses_of(tmp_path / "cpu"), rel=1e-3)
    assert report.device == torch.cuda.get_device_name()
    assert report.device_peak_bytes is not None
    assert report.device_peak_bytes > 0


@pytest.mark.parametrize("compile", ["never", "always"])
@pytest.mark.parametrize("kind", ["adamw", "muon", "adamw8bit"])
@pytest.mark.parametrize("shape", ["plain", "experts"])
def test_a_run_broken_off_ends_in_the_same_bytes(tmp_path: Path, shape: str, kind: str, compile: str) -> None:
    config = EXPERTS if shape == "experts" else tiny_run.CONFIG
    number = 0

    def breaks(model: Decoder, batch: Batch) -> ItemLosses:
        nonlocal number
        number += 1
        if number == 12:
            raise DiglotError("broken off")
        return next_token()(model, batch)

    usual = {"run_phases": tiny_run.phases(kind=kind), "config": config, "compile": compile}
    run_on_gpu(tmp_path / "whole", **usual)
    with pytest.raises(DiglotError, match="broken off"):
        run_on_gpu(tmp_path / "broken", objective=breaks, **usual)
    assert run_on_gpu(tmp_path / "broken", **usual).resumed_from is not None
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name


@pytest.mark.parametrize("objective", [sft, dpo_objective(0.1, 0.2)], ids=["sft", "dpo"])
def test_alignment_trains_with_deterministic_algorithms_and_finds_the_losses_of_the_cpu(
    tmp_path: Path, objective: Objective
) -> None:
    nothing = {name: torch.zeros(1) for name in ("reference_chosen", "reference_rejected")}
    phases = [
        replace(phase, batch_at=lambda n, phase=phase: [{**batch, **nothing} for batch in phase.batch_at(n)])
        for phase in tiny_run.phases()
    ]
    usual: dict[str, Any] = {"objective": objective, "run_phases": phases, "precision": "fp32", "deterministic": True}
    tiny_run.run(tmp_path / "cpu", **usual)
    for name in ("gpu", "again"):
        run_on_gpu(tmp_path / name, **usual)
    assert losses_of(tmp_path / "gpu") == pytest.approx(losses_of(tmp_path / "cpu"), rel=1e-3)
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("gpu", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("bf16", [False, True])
def test_documents_keep_to_themselves_in_flex_attention_as_in_sdpa(bf16: bool) -> None:
    device = chosen_device("cuda")
    model = Decoder(tiny_run.CONFIG, seed=0).to(device)
    ids = torch.randint(50, (2, 16), device=device)
    documents = (torch.arange(16, device=device) // 5).expand(2, -1)
    found = {}
    for backend in ("sdpa", "flex"):
        model.attention_backend = backend  # type: ignore[assignment]
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
            found[backend] = model.hidden(ids, document_ids_BT=documents)
    limit = 0.03 if bf16 else 1e-3
    torch.testing.assert_close(found["flex"], found["sdpa"], rtol=limit, atol=limit)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_chunked_loss_is_that_of_the_cpu(bf16: bool) -> None:
    device = chosen_device("cuda")
    hidden, weight, targets = case()
    total, each = linear_cross_entropy(hidden, weight, targets, z_loss=0.01)
    expected = torch.autograd.grad(total, (hidden, weight))
    moved = [tensor.detach().to(device).requires_grad_() for tensor in (hidden, weight)]
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
        there, each_there = linear_cross_entropy(*moved, targets.to(device), z_loss=0.01)
    found = torch.autograd.grad(there, moved)
    limit = 0.02 if bf16 else 1e-4
    assert (each_there.cpu() - each).norm() < limit * each.norm()
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.cpu() - theirs).norm() < limit * theirs.norm()


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="fp8 needs capability 8.9"
)
def test_fp8_learns_what_bf16_learns(tmp_path: Path) -> None:
    device = chosen_device("cuda")
    finals = []
    for precision in ("bf16", "fp8"):
        model = Decoder(tiny_run.CONFIG, seed=3).to(device)
        if precision == "fp8":
            use_fp8_products(model)
        report = train(
            model,
            phases=tiny_run.phases(kind="adamw"),
            objective=next_token(),
            out=tmp_path / precision,
            seed=3,
            settings=tiny_run.settings(precision=precision),
            progress=tiny_run.Progress(quiet=True),
        )
        assert report.precision == precision
        finals.append(report.final_loss)
    assert finals[1] == pytest.approx(finals[0], rel=0.05)
