"""How much of a GPU does pre-training of 1B and 2B models use, beside Hugging Face on the same shapes?

Run:      python -m benchmarks.pretrain_gpu --out pretrain_gpu.json      (one H100 or H200, under ten minutes)
          python -m benchmarks.pretrain_gpu --dry-run                    (the whole script on a CPU, with a tiny shape)
Workload: MAP-Neo's 2B (`map-neo-2b`, published) and a 1B of its proportions (`map-neo-980m`), sequences of 4,096 and
          8,192 random tokens, 65,536 tokens a training step in microbatches, AdamW, gradient clipping; two training
          steps of warm-up, then five.
Compared: ours through `diglot.train.loop.train`: compiled and eager, bf16 and fp8, deterministic (as runs are) and not;
          transformers' LlamaForCausalLM of the same shape (bf16 autocast, SDPA, fused AdamW), compiled and eager.
          The microbatch is the largest that our loss, which never holds all logits, should leave room for; where
          transformers runs out of memory with it, the next smaller one is tried, and the row says so.
Reports:  tokens/s over the five training steps, and of the slowest and the fastest; MFU against the bf16 product peak
          that the script measures itself, for fp8 too; peak memory beside what `train/memory.py` predicts.
MFU:      FLOPs per token = 6 (matrices of the layers + output matrix) + 12 (T / 2) H Hd per layer, with recomputation
          not counted (`model/accounting.train_flops_per_token`), times tokens/s over the peak.
Limits:   each case runs in a process of its own, which is ended when its time is over; the most important come first,
          and the results are written after each. What cannot run has a row that says why.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F

from diglot.core.errors import ConfigError
from diglot.core.progress import Progress
from diglot.core.storage import write_json
from diglot.model.accounting import parameter_counts, train_flops_per_token
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.sizes import ladder_config
from diglot.train.device import CUBLAS_WORKSPACE
from diglot.train.fp8 import use_fp8_products
from diglot.train.loop import Batch, ItemLosses, LoopSettings, Phase, train
from diglot.train.memory import train_memory
from diglot.train.objectives.next_token import next_token
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.peak_measurement import CUDA_WIDTH, measure_product

WARMUP, TIMED = 2, 5  # training steps
TOKENS_PER_STEP = 65_536
TRIES = ((16_384, 0), (8192, 0), (8192, 4), (8192, 3), (8192, 2), (8192, 1))  # microbatch tokens, recompute_every
BUDGET_S = 560.0  # of the whole script
CASE_BUDGET_S = 150.0
PEAK_S = 3.0
TINY = DecoderConfig(
    vocab_size=256, d_model=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=32, ffn_dim=128, max_seq_len=64
)
# Read when the GPU is first touched. Segments that grow leave fewer pieces that nothing fits in.
ENVIRONMENT = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "CUBLAS_WORKSPACE_CONFIG": CUBLAS_WORKSPACE}


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    size: str
    sequence_length: int
    engine: Literal["diglot", "hugging face", "torchtitan"] = "diglot"
    precision: Literal["bf16", "fp8"] = "bf16"
    compiled: bool = True
    deterministic: bool = True


CASES = (
    Case("1B, 4,096", "map-neo-980m", 4096),
    Case("2B, 4,096", "map-neo-2b", 4096),
    Case("Hugging Face 1B, 4,096", "map-neo-980m", 4096, engine="hugging face"),
    Case("2B, 8,192", "map-neo-2b", 8192),
    Case("2B, 4,096, fp8", "map-neo-2b", 4096, precision="fp8"),
    Case("1B, 4,096, eager", "map-neo-980m", 4096, compiled=False),
    Case("2B, 4,096, not deterministic", "map-neo-2b", 4096, deterministic=False),
    Case("Hugging Face 2B, 4,096", "map-neo-2b", 4096, engine="hugging face"),
    Case("1B, 8,192", "map-neo-980m", 8192),
    Case("Hugging Face 1B, 4,096, eager", "map-neo-980m", 4096, engine="hugging face", compiled=False),
    Case("torchtitan 2B, 4,096", "map-neo-2b", 4096, engine="torchtitan"),
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file, written after each case")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU with a tiny shape, nothing compiled")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    parser.add_argument("--case", choices=[case.name for case in CASES], help="run this one here; its row as JSON")
    asked = parser.parse_args(arguments)
    if asked.case:
        row = measured(next(case for case in CASES if case.name == asked.case))
        print(json.dumps(row))
        return row
    started = time.monotonic()
    if not asked.dry_run and not torch.cuda.is_available():
        parser.error("torch sees no GPU. --dry-run runs the script on a CPU, for its own sake.")
    result: dict[str, Any] = {
        "machine": "CPU, a dry run: its numbers say nothing" if asked.dry_run else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "peak_flops_bf16": None if asked.dry_run else measured_peak(),
        "rows": [],
    }
    for case in CASES:
        left = asked.budget_s - (time.monotonic() - started)
        if asked.dry_run:
            row = measured(replace(case, compiled=False), TINY)
        elif left < 30:
            row = {"outcome": "not run: the script's time was over"}
        else:
            row = in_a_process(case, min(left, CASE_BUDGET_S))
        if result["peak_flops_bf16"] and "tokens_per_second" in row:
            row["mfu"] = row["tokens_per_second"] * row["flops_per_token"] / result["peak_flops_bf16"]
        result["rows"].append({**asdict(case), **row})
        print(table_row(result["rows"][-1]), file=sys.stderr, flush=True)
        if asked.out:
            write_json(asked.out, result)
    print(table(result))
    return result


def in_a_process(case: Case, timeout_s: float) -> dict[str, Any]:
    """The row of a case, from a process of its own: an error on a GPU leaves its process useless."""
    command = [sys.executable, "-m", "benchmarks.pretrain_gpu", "--case", case.name]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=Path(__file__).resolve().parents[1],
            env={**ENVIRONMENT, **os.environ},
        )
    except subprocess.TimeoutExpired:
        return {"outcome": f"not finished in {timeout_s:.0f} s"}
    if done.returncode:
        return {"outcome": f"failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def measured(case: Case, shape: DecoderConfig | None = None) -> dict[str, Any]:
    """What one case gives here; its `outcome` says why where it gives nothing. shape: another than the case's."""
    length = case.sequence_length if shape is None else shape.max_seq_len
    shape = shape or ladder_config(case.size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if case.engine == "torchtitan":
        there = importlib.util.find_spec("torchtitan") is not None
        return {"outcome": f"not run: {'it starts by its own command' if there else 'torchtitan is not installed'}"}
    if case.engine == "hugging face" and importlib.util.find_spec("transformers") is None:
        return {"outcome": "not run: transformers is not installed"}
    row: dict[str, Any] = {
        "parameters": parameter_counts(shape).total,
        "flops_per_token": train_flops_per_token(shape, length),
    }
    run, fits = ours, [fitting(shape, length, device)]
    if case.engine == "hugging face":
        run, fits = hugging_face, [*fits, *smaller(fits[0], shape)]
    too_large, seconds = list[str](), None
    for fit in fits:
        row |= asdict(fit)
        try:
            seconds = run(case, shape, length, fit, device)
            break
        except torch.OutOfMemoryError:
            too_large.append(cut_of(row))
        except ConfigError as error:
            return {"outcome": f"not run: {error}"}
        forget(device)
    row["too_large"] = too_large
    if seconds is None:
        return {**row, "outcome": "out of memory"}
    speeds = [fit.tokens_per_step / second for second in seconds]
    return {
        **row,
        "outcome": "measured",
        "tokens_per_second": fit.tokens_per_step / statistics.fmean(seconds),
        "low": min(speeds),
        "high": max(speeds),
        "memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


@dataclass(frozen=True)
class Fit:
    """How a training step is cut so that it fits, and what memory that should take.

    recompute_every: as `Decoder.recompute_every`; Hugging Face recomputes every layer or none.
    """

    tokens_per_step: int
    microbatch_tokens: int
    recompute_every: int
    predicted_bytes: int


def fitting(shape: DecoderConfig, length: int, device: torch.device) -> Fit:
    """The largest microbatch with the least recomputation that should leave a tenth of the memory free."""
    if device.type != "cuda":
        return Fit(4 * length, 2 * length, 0, predicted_bytes(shape, 2 * length, 0))
    total = torch.cuda.get_device_properties(device).total_memory
    for microbatch, every in TRIES:
        needed = predicted_bytes(shape, microbatch, every)
        if needed < 0.9 * total:
            break
    return Fit(TOKENS_PER_STEP, microbatch, every, needed)


def smaller(fit: Fit, shape: DecoderConfig) -> list[Fit]:
    """What is left of TRIES behind `fit` and is another way for transformers, largest first."""
    cut = (fit.microbatch_tokens, fit.recompute_every)
    left = TRIES[TRIES.index(cut) + 1 :] if cut in TRIES else ()
    ways = {(microbatch, min(every, 1)) for microbatch, every in left} - {(cut[0], min(cut[1], 1))}
    return [
        Fit(fit.tokens_per_step, microbatch, every, predicted_bytes(shape, microbatch, every))
        for microbatch, every in sorted(ways, key=lambda way: (-way[0], way[1]))
    ]


def forget(device: torch.device) -> None:
    """Give back what a run that broke off has left on the GPU."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def predicted_bytes(shape: DecoderConfig, microbatch_tokens: int, recompute_every: int) -> int:
    return train_memory(
        shape,
        microbatch_tokens=microbatch_tokens,
        num_microbatches=2,
        bf16=True,
        recompute_every=recompute_every,
        on_gpu=True,
    ).peak


def batches(shape: DecoderConfig, length: int, fit: Fit, train_step: int) -> list[Batch]:
    """Random tokens of a training step, in microbatches."""
    generator = torch.Generator().manual_seed(train_step)
    rows = torch.randint(shape.vocab_size, (fit.tokens_per_step // length, length + 1), generator=generator)
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    size = fit.microbatch_tokens // length
    return [{"input_ids": inputs[i : i + size], "targets": targets[i : i + size]} for i in range(0, len(inputs), size)]


class EnoughError(Exception):
    """Raised at the end of the measurement: the loop would go on, and write a checkpoint of 27 GB."""


class Clock:
    """Seconds of each training step after the warm-up; the first and the last mark wait for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.marks = device, list[float]()
        self.num_steps = 0

    def step_begins(self) -> None:
        self.num_steps += 1
        if self.num_steps in (WARMUP + 1, WARMUP + TIMED + 1) and self.device.type == "cuda":
            torch.cuda.synchronize()
        if self.num_steps > WARMUP:
            self.marks.append(time.perf_counter())
        if self.num_steps > WARMUP + TIMED:
            raise EnoughError

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.marks)]


def ours(case: Case, shape: DecoderConfig, length: int, fit: Fit, device: torch.device) -> list[float]:
    """Seconds of the timed training steps in Diglot's own loop."""
    with device:
        model = Decoder(shape, seed=None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02)
    model.recompute_every = fit.recompute_every
    if case.precision == "fp8" and device.type == "cuda":  # the loop says what a CPU lacks
        use_fp8_products(model)
    clock, objective = Clock(device), next_token()
    microbatches, calls = fit.tokens_per_step // fit.microbatch_tokens, itertools.count()

    def timed(model: Decoder, batch: Batch) -> ItemLosses:
        if next(calls) % microbatches == 0:
            clock.step_begins()
        return objective(model, batch)

    phase = Phase(
        name="benchmark",
        num_train_steps=WARMUP + TIMED + 2,
        batch_at=lambda n: batches(shape, length, fit, n),
        schedule=lambda n: 1e-4,
        optimizer=OptimizerConfig(),
    )
    settings = LoopSettings(
        order_fingerprint="benchmark",
        precision=case.precision,
        compile="always" if case.compiled else "never",
        deterministic=case.deterministic,
        loggers=(),
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
        train(
            model,
            phases=[phase],
            objective=timed,
            out=Path(folder),
            seed=0,
            settings=settings,
            progress=Progress(quiet=True),
        )
    return clock.seconds


def hugging_face(case: Case, shape: DecoderConfig, length: int, fit: Fit, device: torch.device) -> list[float]:
    """Seconds of the timed training steps of transformers' Llama, trained the plain way."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with device:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocab_size,
                hidden_size=shape.d_model,
                num_hidden_layers=shape.num_layers,
                num_attention_heads=shape.heads[0],
                num_key_value_heads=shape.kv_heads[0],
                head_dim=shape.head_dim,
                intermediate_size=shape.ffn_dims[0],
                max_position_embeddings=shape.max_seq_len,
                tie_word_embeddings=shape.tie_embeddings,
                attn_implementation="sdpa",
            )
        ).train()
    if fit.recompute_every:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    called = torch.compile(model) if case.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    clock = Clock(device)
    with contextlib.suppress(EnoughError):
        for train_step in itertools.count():
            clock.step_begins()
            for batch in batches(shape, length, fit, train_step):
                ids, targets = batch["input_ids"].to(device), batch["targets"].to(device)
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    logits = called(input_ids=ids, use_cache=False).logits
                    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
                (loss / fit.tokens_per_step).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return clock.seconds


def measured_peak() -> float:
    """bf16 products a second on the GPU, kept up for a few seconds, in FLOP/s: the median."""
    started, found = time.monotonic(), list[float]()
    while not found or time.monotonic() - started < PEAK_S:
        found.append(measure_product("cuda", "bf16", CUDA_WIDTH, None).median)
    return statistics.median(found)


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    peak = result["peak_flops_bf16"]
    measured_peak = f", measured bf16 product peak {peak / 1e12:,.0f} TFLOP/s" if peak else ""
    head = (
        f"{result['machine']}, torch {result['torch']}{measured_peak}\n\n"
        "| run | tokens/s (range) | MFU | memory | predicted | microbatch tokens, recompute every |\n"
        "|---|--:|--:|--:|--:|--:|"
    )
    return "\n".join([head, *map(table_row, result["rows"])])


def table_row(row: dict[str, Any]) -> str:
    if row["outcome"] != "measured":
        return f"| {row['name']} | {row['outcome']} | | | | |"
    mfu = f"{row['mfu']:.1%}" if "mfu" in row else ""
    memory = "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e9:.1f} GB"
    failed = f"; out of memory with {'; '.join(row['too_large'])}" if row["too_large"] else ""
    return (
        f"| {row['name']} | {row['tokens_per_second']:,.0f} ({row['low']:,.0f}-{row['high']:,.0f}) | {mfu} "
        f"| {memory} | {row['predicted_bytes'] / 1e9:.1f} GB | {cut_of(row)}{failed} |"
    )


def cut_of(row: dict[str, Any]) -> str:
    return f"{row['microbatch_tokens']:,}, {row['recompute_every']}"


if __name__ == "__main__":
    main()
