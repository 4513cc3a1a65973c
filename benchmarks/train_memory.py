"""Is the memory that `diglot plan` foretells the memory that training takes?

Run:      python -m benchmarks.train_memory --out train_memory.json              (two minutes on two cores)
Workload: four shapes on the CPU in fp32, each in a process of its own: 3 training steps of random tokens through
          `diglot.train.loop.train`, with clipping, eager.
Reports:  the most resident memory of the process less what it held before the model was built (torch, its thread pools
          and product buffers: a small training run of another shape comes first), beside `train_memory(...)`.
Target:   within 5 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diglot.core.hardware import host, resident_peak_bytes
from diglot.model.accounting import train_memory
from diglot.model.config import DecoderConfig, MoEConfig

NUM_TRAIN_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A shape and how it is trained."""

    config: DecoderConfig
    sequence_length: int
    microbatch_tokens: int
    num_microbatches: int = 1
    optimizer: str = "adamw"
    recompute_every: int = 0


CASES = {
    "20 M, 1 microbatch of 4,096": Case(
        config=DecoderConfig(
            vocab_size=16_384, d_model=384, num_layers=8, num_heads=6, num_kv_heads=6, head_dim=64, ffn_dim=1024,
            tie_embeddings=True,
        ),
        sequence_length=512,
        microbatch_tokens=4096,
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
        microbatch_tokens=4096,
        optimizer="muon",
        recompute_every=2,
    ),
    "48 M with 8 experts, 2 for a token": Case(
        config=DecoderConfig(
            vocab_size=16_384, d_model=384, num_layers=6, num_heads=6, num_kv_heads=2, head_dim=64, ffn_dim=1024,
            tie_embeddings=True, moe=MoEConfig(num_experts=8, top_k=2, expert_dim=640),
        ),
        sequence_length=512,
        microbatch_tokens=4096,
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
    print("| shape | planned | taken | taken / planned |\n|---|--:|--:|--:|")
    for row in rows:
        planned, taken = row["planned_bytes"], row["taken_bytes"]
        print(f"| {row['case']} | {planned / 1e6:,.0f} MB | {taken / 1e6:,.0f} MB | {taken / planned:.3f} |")


def in_processes() -> Iterator[dict[str, Any]]:
    for name in CASES:
        command = [sys.executable, "-m", "benchmarks.train_memory", "--case", name]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        yield {"case": name, **json.loads(found.stdout.splitlines()[-1])}


def measure(case: Case) -> dict[str, int]:
    small = DecoderConfig(
        vocab_size=512, d_model=64, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=64, ffn_dim=64
    )
    run(Case(config=small, sequence_length=64, microbatch_tokens=128, optimizer=case.optimizer))
    before = forget_peak()
    run(case)
    memory = train_memory(
        case.config,
        microbatch_tokens=case.microbatch_tokens,
        sequence_length=case.sequence_length,
        num_microbatches=case.num_microbatches,
        optimizer=case.optimizer,
        recompute_every=case.recompute_every,
    )
    return {"planned_bytes": memory.total, "taken_bytes": resident_peak_bytes() - before}


def forget_peak() -> int:
    """Start counting the peak afresh; returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak_bytes()


def run(case: Case) -> None:
    import torch

    from diglot.core.progress import Progress
    from diglot.model.decoder import Decoder
    from diglot.train.loop import Batch, LoopSettings, Phase, train
    from diglot.train.objectives.next_token import next_token
    from diglot.train.optimizer_config import OptimizerConfig

    T = case.sequence_length
    model = Decoder(case.config, seed=0)
    model.recompute_every = case.recompute_every

    def batch_at(train_step: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(train_step)
        shape = (case.microbatch_tokens // T, T)
        ids = [torch.randint(case.config.vocab_size, shape, generator=generator) for _ in range(case.num_microbatches)]
        return [{"input_ids": part, "targets": part} for part in ids]

    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            phases=[
                Phase(
                    name="memory",
                    num_train_steps=NUM_TRAIN_STEPS,
                    batch_at=batch_at,
                    schedule=lambda n: 1e-4,
                    optimizer=OptimizerConfig(kind=case.optimizer),  # type: ignore[arg-type]
                )
            ],
            objective=next_token(),
            out=Path(folder),
            seed=0,
            settings=LoopSettings(order_fingerprint="memory", compile="never", precision="fp32", loggers=()),
            progress=Progress(quiet=True),
        )


if __name__ == "__main__":
    main()
