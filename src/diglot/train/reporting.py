"""What a run says of itself: when it begins, in `run.json`, in its checkpoints, and when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from diglot.core.hardware import resident_peak_bytes
from diglot.core.peaks import Peak
from diglot.model.accounting import parameter_counts
from diglot.model.config import DecoderConfig
from diglot.train.backend import Backend
from diglot.train.checkpoints import Counters
from diglot.train.parallel.ranks import Ranks
from diglot.train.speed import Speedometer, no_peak
from diglot.train.spike_guard import SpikeGuard
from diglot.train.types import LoopSettings, Phase, TrainReport


def opening(
    config: DecoderConfig, phases: Sequence[Phase], num_tokens: int, backend: Backend, peak: Peak | None
) -> Iterator[str]:
    """The sentences with which a run begins."""
    yield from backend.notes
    counts = parameter_counts(config)
    yield (
        f"{counts.total:,} parameters ({counts.without_embeddings:,} without embeddings), "
        f"{sum(phase.num_train_steps for phase in phases):,} training steps, {num_tokens:,} tokens, "
        f"{backend.precision}, " + (backend.device if backend.on_gpu else f"{backend.num_threads} threads")
    )
    if peak is None and any(phase.flops_per_token for phase in phases):
        yield f"no MFU: {no_peak(backend.peak_precision, backend.num_threads, backend.device)}"


def description(
    config: DecoderConfig,
    phases: Sequence[Phase],
    num_tokens: int,
    settings: LoopSettings,
    peak: Peak | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """`run.json`: what `diglot watch` shows beside the logs."""
    return {
        "label": settings.label,
        "phases": [{"name": phase.name, "num_train_steps": phase.num_train_steps} for phase in phases],
        "num_tokens": num_tokens,
        "parameters": parameter_counts(config).total,
        **({"checkpoint_dir": settings.checkpoint_dir} if settings.checkpoint_dir else {}),
        "peak": _spoken(peak),
        **facts,
    }


def facts_of(backend: Backend, ranks: Ranks) -> dict[str, Any]:
    """What can change the last bits of a result. `grid`: the axes that have several ranks."""
    axes = {} if ranks.grid is None else {**ranks.grid.shape._asdict(), "expert": ranks.grid.expert}
    grid = {axis: size for axis, size in axes.items() if size > 1}
    return {
        "device": backend.device,
        "precision": backend.precision,
        "compiled": backend.compiled,
        "deterministic": backend.deterministic,
        "num_threads": backend.num_threads,
        "num_ranks": ranks.count,
        **({"grid": grid} if grid else {}),
        "torch": torch.__version__,
    }


def changed_facts(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Those of a checkpoint's `facts_of` that are others now. On a GPU the threads of the CPU change no bit."""
    harmless = {"num_threads"} if before.get("device") == now["device"] != "cpu" else set[str]()
    return {
        name: (value, now.get(name))
        for name, value in before.items()
        if now.get(name) != value and name not in harmless
    }


def report(
    *,
    lines: Sequence[Mapping[str, Any]],
    done: Counters,
    resumed_from: str | None,
    seconds: float,
    num_tokens: int,
    speed: Speedometer,
    wait_share: float,
    device_peak_bytes: int | None,
    guard: SpikeGuard | None,
    backend: Backend,
) -> TrainReport:
    """lines: of the whole log of training steps. num_tokens: that this process has trained on, in `seconds`."""
    lines = [line for line in lines if not line.get("skipped")]
    losses = [line["loss"] for line in lines]
    tail = losses[-max(1, len(losses) // 10) :]
    return TrainReport(
        num_train_steps=done.train_steps_done,
        num_tokens=done.num_tokens,
        final_loss=sum(tail) / len(tail),
        phase_losses={line["phase"]: line["loss"] for line in lines},
        resumed_from=resumed_from,
        seconds=seconds,
        first_train_step_seconds=speed.first_seconds,
        evaluation_seconds=speed.paused_seconds,
        tokens_per_second=num_tokens / (seconds - speed.paused_seconds) if num_tokens else 0.0,
        mfu=speed.mfu,
        peak=_spoken(speed.peak),
        resident_peak_bytes=resident_peak_bytes(),
        device_peak_bytes=device_peak_bytes,
        loader_wait_share=wait_share,
        num_skipped=guard.num_skipped if guard is not None else 0,
        device=backend.device,
        num_threads=backend.num_threads,
        precision=backend.precision,
        compiled=backend.compiled,
        notes=backend.notes,
    )


def _spoken(peak: Peak | None) -> str | None:
    return f"{peak.subject}: {peak.text}" if peak else None
