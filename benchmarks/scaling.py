"""How does training scale with ranks, model size and sequence length on this CPU?

Run:      python -m benchmarks.scaling --out scaling.json        (under ten minutes on two quiet cores)
Workload: decoders of four sizes (vocabulary 8,192, tied), AdamW with clipping, not compiled, random tokens, seed 0;
          through `diglot.train.loop.train`, every run in processes of its own.
Ranks:    one rank with one thread is the baseline of a core. Beside it one rank with two threads and two ranks (FSDP,
          gloo) with one thread each: strong scaling with the same tokens a training step, weak with the same for each.
Cost:     one process with a thread a core: the four sizes at one sequence length, and one size at three more.
Reports:  tokens/s, median and range over rounds of alternating runs, of which each gives the median of its training
          steps after the first; ratios to the baseline; operations/s by `train_flops_per_token`; most memory of a
          process (of rank 0).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.timed_run import train_step_seconds
from diglot.core.hardware import host, resident_peak_bytes
from diglot.core.launch import launch_from
from diglot.model.accounting import parameter_counts, train_flops_per_token
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.loop import Batch, LoopSettings
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.ranks import ALONE, Ranks, joined
from diglot.train.parallel.sharding import shard

SHAPES = ((192, 4), (256, 6), (384, 8), (512, 8))  # width, layers
MIDDLE = 1  # the shape that ranks and lengths are compared on
LENGTH = 512
LENGTHS = (128, 1024, 2048)  # the size at LENGTH stands in the table of sizes
TABLES = ("ranks", "model size", "sequence length")


@dataclass(frozen=True)
class Case:
    """One run. tokens: of a training step, over all ranks."""

    table: str
    name: str
    ranks: int
    threads: int
    tokens: int
    length: int = LENGTH
    shape: int = MIDDLE

    @property
    def config(self) -> DecoderConfig:
        width, layers = SHAPES[self.shape]
        return DecoderConfig(
            vocab_size=8192, d_model=width, num_layers=layers, num_heads=width // 64, num_kv_heads=width // 64,
            head_dim=64, ffn_dim=width * 8 // 3 // 64 * 64, max_seq_len=max(LENGTHS), tie_embeddings=True,
        )  # fmt: skip


def cases(tokens: int, cores: int) -> list[Case]:
    found = [
        Case("ranks", "1 rank, 1 thread (the baseline)", 1, 1, tokens),
        Case("ranks", "1 rank, 2 threads", 1, 2, tokens),
        Case("ranks", "2 ranks, 1 thread each, strong", 2, 1, tokens),
        Case("ranks", "2 ranks, 1 thread each, weak", 2, 1, 2 * tokens),
    ]
    for number in range(len(SHAPES)):
        case = Case("model size", "", 1, cores, tokens, shape=number)
        found.append(replace(case, name=f"{parameter_counts(case.config).total / 1e6:.1f} M"))
    return found + [Case("sequence length", f"{n:,}", 1, cores, tokens, length=n) for n in LENGTHS if n <= tokens]


def measured(case: Case, num_train_steps: int) -> dict[str, Any]:
    """Run a case in processes of its own."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={case.ranks}"] if case.ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [sys.executable, *start, "-m", "benchmarks.scaling", "--case", json.dumps(asdict(case)), "--train-steps",
             str(num_train_steps), "--out", f"{folder}/found.json"],
            env={**os.environ, "OMP_NUM_THREADS": str(case.threads)}, capture_output=True, text=True,
        )  # fmt: skip
        if found.returncode:
            raise SystemExit(f"{case.name}: {found.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(Path(folder, "found.json").read_text())
        return answer


def run(case: Case, num_train_steps: int, ranks: Ranks) -> dict[str, Any]:
    rows = case.tokens // case.length
    ids = torch.randint(8192, (rows, case.length + 1), generator=torch.Generator().manual_seed(0))
    fed: Batch = {"input_ids": ids[:, :-1].contiguous(), "targets": ids[:, 1:].contiguous()}
    model = Decoder(case.config)
    ranks = ranks.arranged(ParallelConfig())
    shard(model, ranks)
    settings = LoopSettings(
        order_fingerprint="benchmark", compile="never", num_threads=case.threads, loggers=(), log_every=1000
    )
    seconds = train_step_seconds(model, fed, num_train_steps, settings, ranks)
    return {"tokens_per_second": rows * case.length / statistics.median(seconds), "peak_bytes": resident_peak_bytes()}


def row(case: Case, found: list[dict[str, Any]], baseline: float) -> dict[str, Any]:
    speeds = [one["tokens_per_second"] for one in found]
    speed, flops = statistics.median(speeds), train_flops_per_token(case.config, case.length)
    return {
        **asdict(case),
        "parameters": parameter_counts(case.config).total,
        "tokens_per_second": speed,
        "low": min(speeds),
        "high": max(speeds),
        "ratio_to_baseline": speed / baseline,
        "ratio_per_core": speed / baseline / (case.ranks * case.threads),
        "flops_per_token": flops,
        "gflops": speed * flops / 1e9,
        "peak_bytes_of_a_process": max(one["peak_bytes"] for one in found),
    }


def print_tables(rows: list[dict[str, Any]]) -> None:
    for table in dict.fromkeys(row["table"] for row in rows):
        print(
            f"\n| {table} | tokens a step | tokens/s, median (range) | to one core | a core | GFLOP/s | MB a process |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|")
        for found in rows:
            if found["table"] == table:
                print(
                    f"| {found['name']} | {found['tokens']:,} | {found['tokens_per_second']:,.0f} "
                    f"({found['low']:,.0f}–{found['high']:,.0f}) | {found['ratio_to_baseline']:.2f} "
                    f"| {found['ratio_per_core']:.2f} | {found['gflops']:,.0f} "
                    f"| {found['peak_bytes_of_a_process'] / 1e6:,.0f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-steps", type=int, default=3, help="timed training steps of one run")
    parser.add_argument("--tokens", type=int, default=2048, help="of a training step; weak scaling has twice as many")
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--threads", type=int, default=host().num_cores, help="of the tables model size and length")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help="one run, as JSON; what this program starts itself with")
    arguments = parser.parse_args()
    if arguments.case:
        case, launch = Case(**json.loads(arguments.case)), launch_from(os.environ)
        torch.set_num_threads(case.threads)
        if launch is None:
            found = run(case, arguments.train_steps, ALONE)
        else:
            with joined(launch) as ranks:
                found = run(case, arguments.train_steps, ranks)
        if launch is None or launch.is_main:
            arguments.out.write_text(json.dumps(found))
        return

    if arguments.tokens % LENGTH or arguments.tokens < 2 * LENGTH:
        parser.error(f"--tokens {arguments.tokens} is not a multiple of {LENGTH} with a sequence for each of two ranks")
    everything = cases(arguments.tokens, arguments.threads)
    todo = [everything[0]] + [case for case in everything[1:] if case.table in arguments.tables]
    answers: dict[Case, list[dict[str, Any]]] = {case: [] for case in todo}
    for number, case in itertools.product(range(arguments.rounds), todo):
        answers[case].append(measured(case, arguments.train_steps))
        speed = answers[case][-1]["tokens_per_second"]
        print(
            f"round {number + 1}/{arguments.rounds}  {case.table:<16} {case.name:<32} {speed:8,.0f} tokens/s",
            flush=True,
        )
    baseline = statistics.median(one["tokens_per_second"] for one in answers[todo[0]])
    rows = [row(case, found, baseline) for case, found in answers.items()]
    if arguments.out:
        result = {"host": host().to_dict(), "torch": torch.__version__, "rounds": arguments.rounds, "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1))
    print(f"\n{host().cpu}, {host().num_cores} cores, torch {torch.__version__}")
    print_tables(rows)


if __name__ == "__main__":
    main()
