"""Where a run trains and in which precision; that nothing of a training step is left behind on the CPU.

No GPU is needed: torch's fake tensors carry a device and no contents, and refuse to be mixed with those of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from diglot.core.errors import ConfigError
from diglot.core.launch import Launch
from diglot.core.peaks import Peak, save_peaks
from diglot.core.storage import read_json
from diglot.model.config import MoEConfig
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train import backend as backend_module
from diglot.train import device as device_module
from diglot.train import loop
from diglot.train.backend import Backend, agreed_backend, choose_backend, chosen_precision
from diglot.train.device import CUBLAS_WORKSPACE, chosen_device, fp32_products, on_device
from diglot.train.log import read_lines
from diglot.train.objectives.dpo import dpo_objective
from diglot.train.objectives.next_token import _LinearCrossEntropy, next_token
from diglot.train.objectives.sft import sft
from diglot.train.optimizers import Optimizer, OptimizerConfig
from diglot.train.parallel.ranks import Ranks
from diglot.train.speed import Speedometer, no_peak
from diglot.train.types import Objective

GPU = torch.device("cuda", 0)


def gpu_of(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None) -> None:
    """As if torch saw a GPU of this capability; None for no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")


def test_auto_takes_a_gpu_where_torch_sees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    gpu_of(monkeypatch, None)
    assert chosen_device("auto").type == chosen_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        chosen_device("cuda")
    assert "CUBLAS_WORKSPACE_CONFIG" not in device_module.os.environ
    gpu_of(monkeypatch, (9, 0))
    assert chosen_device("cpu").type == "cpu"
    assert chosen_device("auto") == chosen_device("cuda") == GPU
    assert device_module.os.environ["CUBLAS_WORKSPACE_CONFIG"] == CUBLAS_WORKSPACE


def test_a_cublas_workspace_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    gpu_of(monkeypatch, (9, 0))
    chosen_device("auto")
    assert device_module.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_ranks_train_where_they_met_or_on_their_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_of(monkeypatch, (9, 0))
    launch = Launch(rank=0, world_size=2, local_rank=0, local_world_size=2, address="x", port=1)
    met_on_gpus, met_on_cpus = Ranks(launch, "cuda"), Ranks(launch, "cpu")
    assert chosen_device("auto", met_on_gpus) == GPU
    assert chosen_device("auto", met_on_cpus).type == "cpu"
    with pytest.raises(ConfigError, match="device: cuda"):
        chosen_device("cuda", met_on_cpus)
    assert met_on_gpus.on(chosen_device("cpu", met_on_gpus)).device == "cpu"


@pytest.mark.parametrize(
    ("setting", "capability", "found"),
    [("auto", (9, 0), "bf16"), ("auto", (7, 5), "fp32"), ("fp32", (9, 0), "fp32"), ("fp8", (8, 9), "fp8")],
)
def test_the_precision_is_one_that_the_gpu_multiplies(
    monkeypatch: pytest.MonkeyPatch, setting: Any, capability: tuple[int, int], found: str
) -> None:
    gpu_of(monkeypatch, capability)
    assert chosen_precision(setting, GPU) == found


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"8\.9 or above .* trains on a CPU"):
        chosen_precision("fp8", torch.device("cpu"))
    gpu_of(monkeypatch, (8, 0))
    with pytest.raises(ConfigError, match=r"Some GPU has 8\.0"):
        chosen_precision("fp8", GPU)
    gpu_of(monkeypatch, (7, 5))
    with pytest.raises(ConfigError, match="bf16 needs compute capability"):
        chosen_precision("bf16", GPU)


def test_long_runs_on_a_gpu_are_compiled_without_a_cxx_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_of(monkeypatch, (9, 0))
    monkeypatch.setattr(backend_module, "host", lambda: SimpleNamespace(cxx_compiler=None, has_native_bf16=False))
    monkeypatch.setattr(backend_module, "_missing_for_triton", lambda: None)
    auto = tiny_run.settings(compile="auto")
    short, long = (choose_backend(auto, flops, GPU) for flops in (1e15, 1e18))
    assert (short.compiled, long.compiled) == (False, True)
    assert (long.device, long.precision, long.on_gpu) == ("Some GPU", "bf16", True)
    monkeypatch.setattr(backend_module, "_missing_for_triton", lambda: "Triton")
    assert not choose_backend(auto, 1e18, GPU).compiled
    with pytest.raises(ConfigError, match="Triton"):
        choose_backend(tiny_run.settings(compile="always"), 1e18, GPU)


def test_every_rank_does_what_rank_0_decided_with_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    of_rank_0 = Backend("cpu", 64, "bf16", True, True, ())
    other = one_of_two(1, of_rank_0)
    monkeypatch.setattr(backend_module, "host", lambda: SimpleNamespace(cxx_compiler="g++", has_native_bf16=False))
    found = agreed_backend(tiny_run.settings(num_threads=3), 0.0, torch.device("cpu"), other)
    assert found == replace(of_rank_0, num_threads=3)
    monkeypatch.setattr(backend_module, "host", lambda: SimpleNamespace(cxx_compiler=None, has_native_bf16=False))
    with pytest.raises(ConfigError, match=r"rank 1 cannot .* its machine lacks a C\+\+ compiler"):
        agreed_backend(tiny_run.settings(), 0.0, torch.device("cpu"), other)


def one_of_two(rank: int, chosen: Backend, said_by_other: str | None = None) -> Any:
    """A rank that is told what rank 0 chose and what the other one objects to."""
    return SimpleNamespace(
        is_main=rank == 0,
        from_main=lambda work: chosen,
        of_each=lambda said: [said, said_by_other] if rank == 0 else [said_by_other, said],
    )


@pytest.mark.parametrize(("precision", "capability"), [("bf16", (7, 5)), ("fp8", (8, 0))])
def test_a_rank_whose_gpu_lacks_the_precision_stops_all_and_is_named(
    monkeypatch: pytest.MonkeyPatch, precision: Any, capability: tuple[int, int]
) -> None:
    settings, chosen = tiny_run.settings(), Backend("Some GPU", 1, precision, False, True, ())
    gpu_of(monkeypatch, capability)
    with pytest.raises(ConfigError, match=rf"rank 1 cannot .* precision: {precision} needs") as here:
        agreed_backend(settings, 0.0, GPU, one_of_two(1, chosen))
    gpu_of(monkeypatch, (9, 0))
    said = str(here.value).partition("decided: ")[2]
    with pytest.raises(ConfigError) as there:
        agreed_backend(settings, 0.0, GPU, one_of_two(0, chosen, said))
    assert str(there.value) == str(here.value)


def test_a_run_on_a_gpu_tells_its_name_and_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own part: the model stays on the CPU here, and the GPU's functions are stand-ins."""
    monkeypatch.setenv("DIGLOT_CACHE", str(tmp_path / "cache"))
    asked = list[str]()
    monkeypatch.setattr(loop, "agreed_backend", lambda *_: Backend("Some GPU", 1, "fp32", False, True, ()))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append("thread"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_200_000_000)
    save_peaks([peak_of_gpu()])
    phases = [replace(phase, flops_per_token=1e3) for phase in tiny_run.phases()]
    report = tiny_run.run(tmp_path, run_phases=phases)
    assert sorted(asked) == ["reset", "thread"]
    assert (report.device, report.device_peak_bytes) == ("Some GPU", 3_200_000_000)
    assert report.peak == "fp32, Some GPU: 1 GFLOP/s (1 to 1, median of 7)"
    assert report.mfu is not None
    assert all(line["device_peak_bytes"] == 3_200_000_000 for line in read_lines(tmp_path / "timing.jsonl"))
    assert read_json(tmp_path / "run.json")["device"] == "Some GPU"
    speed = Speedometer(None, device_peak_bytes=lambda: 3_200_000_000)
    assert speed.note().endswith(", 3.2 GB of the GPU")
    assert "bf16 on Some GPU was measured" in no_peak("bf16", 1, "Some GPU")


def peak_of_gpu() -> Peak:
    return Peak(
        quantity="product",
        device="Some GPU",
        precision="fp32",
        num_threads=None,
        median=1e9,
        low=1e9,
        high=1e9,
        num_repeats=7,
    )


def test_fp8_is_told_against_the_peak_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_of(monkeypatch, (9, 0))
    found = choose_backend(tiny_run.settings(precision="fp8"), 0.0, GPU)
    assert (found.precision, found.peak_precision) == ("fp8", "bf16")


def test_float32_products_are_exact_or_rough_and_restored() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    for rough in (True, False):
        with fp32_products(GPU, rough=rough):
            assert matmul.allow_tf32 is rough
    with fp32_products(torch.device("cpu"), rough=not before):
        assert matmul.allow_tf32 is before, "a CPU has no such products, and its own must not change"
    assert matmul.allow_tf32 is before


@pytest.fixture
def fake() -> Iterator[FakeTensorMode]:
    with FakeTensorMode() as mode:
        yield mode


EXPERTS = MoEConfig(num_experts=4, top_k=2, expert_dim=16, shared_dim=16)
SHAPES: dict[str, DecoderConfig] = {
    "plain": tiny_run.CONFIG,
    "gemma": replace(
        tiny_run.CONFIG, logit_softcap=5.0, attention_softcap=9.0, sandwich_norm=True, embed_scale=2.0, qk_norm=True
    ),
    "tied": replace(tiny_run.CONFIG, tie_embeddings=True, sliding_window=4),
    "experts": replace(tiny_run.CONFIG, moe=EXPERTS),
}


def model_on_gpu(config: DecoderConfig) -> Decoder:
    with GPU:
        model = Decoder(config, seed=None)
    model.attention_backend = "sdpa"  # FlexAttention is compiled, which needs a real GPU
    return model


def batch_on_gpu(**more: Tensor) -> dict[str, Tensor]:
    ids = torch.zeros(2, 16, dtype=torch.int64)
    return dict(on_device({"input_ids": ids, "targets": ids, **more}, GPU))


@pytest.mark.parametrize("documents", [False, True], ids=["all", "documents"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_found_where_the_model_lies(fake: FakeTensorMode, shape: str, documents: bool) -> None:
    model = model_on_gpu(SHAPES[shape])
    batch = batch_on_gpu(**({"document_ids": torch.zeros(2, 16, dtype=torch.int64)} if documents else {}))
    losses = next_token(z_loss=1e-4)(model, batch)
    assert losses.rows is not None
    found = [losses.total, losses.count, *losses.stats.values(), *losses.rows]
    assert {tensor.device for tensor in found if isinstance(tensor, Tensor)} == {GPU}
    assert losses.total.requires_grad


def test_autocast_of_the_gpu_decides_and_gradients_of_weights_stay_float32(fake: FakeTensorMode) -> None:
    model, batch = model_on_gpu(tiny_run.CONFIG), batch_on_gpu()
    torch.set_autocast_enabled("cuda", True)  # torch.autocast would find no GPU and switch itself off
    try:
        losses = next_token()(model, batch)
    finally:
        torch.set_autocast_enabled("cuda", False)
    node: Any = losses.total.grad_fn
    hidden, weight = node.saved_tensors
    assert (hidden.dtype, weight.dtype) == (torch.bfloat16, torch.float32)
    assert hidden.device == weight.device == GPU
    scale = torch.ones((), device=GPU)
    gradients = _LinearCrossEntropy.backward(
        SimpleNamespace(saved_tensors=(hidden, weight), dtypes=torch.float32), scale
    )
    assert [gradient.device for gradient in gradients if gradient is not None] == [GPU, GPU]


@pytest.mark.parametrize("objective", [sft, dpo_objective(0.1, 0.2)], ids=["sft", "dpo"])
def test_other_objectives_find_their_loss_there_too(
    fake: FakeTensorMode, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = torch.zeros(5, dtype=torch.int64, device=GPU)  # of targets: fakes do not know how many there are
    monkeypatch.setattr(torch, "nonzero", lambda found, as_tuple: (places, places) if found.device == GPU else None)
    reference = {name: torch.zeros(1) for name in ("reference_chosen", "reference_rejected")}
    losses = objective(model_on_gpu(tiny_run.CONFIG), batch_on_gpu(**reference))
    assert losses.total.device == GPU
    assert {value.device for value in losses.stats.values()} <= {GPU}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_optimizer_keeps_its_state_beside_the_weights(fake: FakeTensorMode, kind: Any) -> None:
    model = model_on_gpu(tiny_run.CONFIG)
    optimizer = Optimizer(model, OptimizerConfig(kind=kind))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1e-3)
    assert {tensor.device for tensor in optimizer.state().values()} == {GPU}


def test_a_tensor_on_the_wrong_device_is_found(fake: FakeTensorMode) -> None:
    model, batch = model_on_gpu(tiny_run.CONFIG), batch_on_gpu()
    with pytest.raises(RuntimeError, match="same device"):
        next_token()(model, {**batch, "targets": batch["targets"].cpu()})
    model.norm.weight = torch.nn.Parameter(torch.ones(32))
    with pytest.raises(RuntimeError, match="same device"):
        next_token()(model, batch)
