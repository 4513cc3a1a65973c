"""Is the memory that `diglot plan` foretells the memory that training takes?

Run:      python -m benchmarks.train_memory --out train_memory.json              (two minutes on two cores)
Workload: four shapes on the CPU in fp32, each in a process of its own: three training steps of random tokens by our
          objective and optimizer, eager.
Reports:  `train_memory(...).peak` beside the most bytes of tensors at once, by what torch allocates and frees; and by
          how much the resident memory of the process grew, which also holds the products' buffers, the pages of the
          libraries' code that are used first, and what the allocator has not handed back.
Target:   tensors within 5 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diglot.core.hardware import host, resident_peak_bytes
from diglot.model.config import DecoderConfig, MoEConfig
from diglot.train.memory import train_memory
from diglot.train.optimizer_config import Kind


@dataclass(frozen=True, kw_only=True)
class Case:
    """A shape and how it is trained."""

    config: DecoderConfig
    sequence_length: int
    microbatch_tokens: int
    num_microbatches: int = 1
    optimizer: Kind = "adamw"
    recompute_every: int = 0


CASES = {
    "19 M, one microbatch of 2,048": Case(
        config=DecoderConfig(
            vocab_size=16_384, d_model=384, num_layers=8, num_heads=6, num_kv_heads=6, head_dim=64, ffn_dim=1024,
            tie_embeddings=True,
        ),
        sequence_length=512,
        microbatch_tokens=2048,
    ),
    "99 M, 4 microbatches of 1,024": Case(
        config=DecoderConfig(
            vocab_size=32_000, d_model=768, num_layers=8, num_heads=12, num_kv_heads=4, head_dim=64, ffn_dim=2048,
        ),
        sequence_length=1024,
        microbatch_tokens=1024,
        num_microbatches=4,
    ),
    "40 M, Muon, every 2nd layer computed again": Case(
        config=DecoderConfig(
            vocab_size=16_384, d_model=512, num_layers=10, num_heads=8, num_kv_heads=8, head_dim=64, ffn_dim=1536,
            tie_embeddings=True, qk_norm=True,
        ),
        sequence_length=512,
        microbatch_tokens=2048,
        optimizer="muon",
        recompute_every=2,
    ),
    "48 M with 8 experts, 2 for a token": Case(
        config=DecoderConfig(
            vocab_size=16_384, d_model=384, num_layers=6, num_heads=6, num_kv_heads=2, head_dim=64, ffn_dim=1024,
            tie_embeddings=True, moe=MoEConfig(num_experts=8, top_k=2, expert_dim=640),
        ),
        sequence_length=512,
        microbatch_tokens=2048,
        num_microbatches=2,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(CASES[arguments.case])))
        return
    rows = list(in_processes())
    if arguments.out:
        arguments.out.write_text(json.dumps({"host": host().to_dict(), "rows": rows}, indent=1))
    print("| shape | planned | tensors | planned / tensors | resident |\n|---|--:|--:|--:|--:|")
    for row in rows:
        planned, taken, resident = (row[f"{which}_bytes"] / 1e6 for which in ("planned", "taken", "resident"))
        print(f"| {row['case']} | {planned:,.0f} MB | {taken:,.0f} MB | {planned / taken:.3f} | {resident:,.0f} MB |")


def in_processes() -> Iterator[dict[str, Any]]:
    for name in CASES:
        command = [sys.executable, "-m", "benchmarks.train_memory", "--case", name]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        yield {"case": name, **json.loads(found.stdout.splitlines()[-1])}


def measure(case: Case) -> dict[str, int]:
    """Of the third training step; the first fills the optimizer's state."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from diglot.model.decoder import Decoder
    from diglot.train.objectives.next_token import next_token
    from diglot.train.optimizer_config import OptimizerConfig
    from diglot.train.optimizers import Optimizer
    from diglot.train.parallel.gradient_norm import gradient_norm
    from diglot.train.parallel.ranks import ALONE

    before = forget_peak()
    model, objective = Decoder(case.config, seed=0).train(), next_token()
    model.recompute_every = case.recompute_every
    updates = Optimizer(model, OptimizerConfig(kind=case.optimizer))
    shape = case.microbatch_tokens // case.sequence_length, case.sequence_length
    ids = torch.randint(case.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))

    def train_step() -> None:
        for _ in range(case.num_microbatches):
            objective(model, {"input_ids": ids, "targets": ids}).total.backward()  # type: ignore[no-untyped-call]
        gradient_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None], ALONE)
        updates.step(1e-4)
        for parameter in model.parameters():
            parameter.grad = None

    train_step()
    train_step()
    resident = resident_peak_bytes() - before
    held = sum(tensor.nbytes for tensor in [*model.parameters(), *updates.state().values()])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        train_step()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    memory = train_memory(
        case.config,
        microbatch_tokens=case.microbatch_tokens,
        num_microbatches=case.num_microbatches,
        optimizer=case.optimizer,
        recompute_every=case.recompute_every,
    )
    return {"planned_bytes": memory.peak, "taken_bytes": held + most, "resident_bytes": resident}


def forget_peak() -> int:
    """Start counting the peak afresh; returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak_bytes()


if __name__ == "__main__":
    main()
