"""How long does training wait for a checkpoint that is written while it goes on?

Run:      torchrun --nproc-per-node 2 -m benchmarks.checkpoints --out checkpoints.json
          python -m benchmarks.checkpoints --out one.json
Workload: a model of `--millions` parameters without embeddings, with AdamW (three float32 a parameter); training steps
          of `--tokens` tokens over all ranks, a checkpoint at every `--every`-th; `--threads` threads a rank.
Reports:  MB of a checkpoint; seconds that one takes from its start to its name while nothing is trained; seconds that
          training waits for one; seconds of a training step beside a checkpoint and without; medians and ranges.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diglot.core.hardware import host
from diglot.core.launch import launch_from
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.checkpoint_files import CheckpointWriter
from diglot.train.checkpoints import Counters
from diglot.train.objectives.next_token import next_token
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.optimizers import Optimizer
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.parts import settle
from diglot.train.parallel.ranks import ALONE, Ranks, joined
from diglot.train.parallel.sharding import shard

SEQUENCE = 256
WIDTH = 384


def measure(ranks: Ranks, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(arguments.threads)
    layers = max(1, round(arguments.millions * 1e6 / (12 * WIDTH**2)))
    shape = DecoderConfig(
        vocab_size=8192, d_model=WIDTH, num_layers=layers, num_heads=6, num_kv_heads=6, head_dim=64, ffn_dim=1024
    )
    model = Decoder(shape).train()
    ranks = ranks.arranged(ParallelConfig())
    shard(model, ranks)
    optimizer = Optimizer(model, OptimizerConfig())
    ids = torch.randint(8192, (max(ranks.count, arguments.tokens // SEQUENCE), SEQUENCE))
    (batch,) = ranks.rows([{"input_ids": ids, "targets": ids}])
    objective = next_token()

    def train_step() -> float:
        started = time.perf_counter()
        objective(model, batch).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step(1e-4)
        for parameter in model.parameters():
            parameter.grad = None
        return time.perf_counter() - started

    def save(writer: CheckpointWriter, folder: Path, number: int) -> float:
        settle(model)
        tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()}
        before = writer.seconds_blocked
        counters = Counters(train_steps_done=number, num_tokens=1000 * number)
        kept: dict[str, Any] = {"retention": "rolling", "order_fingerprint": "benchmark", "facts": {}}
        writer.write(folder, f"{number:09d}K", tensors, keep_rolling=1, counters=counters, **kept)
        return writer.seconds_blocked - before

    with tempfile.TemporaryDirectory() as made, CheckpointWriter(ranks) as writer:
        folder = Path(ranks.from_main(lambda: made))
        train_step()
        whole, waited, beside, without = [], [], [], []
        for number in range(arguments.repeats):  # alone on the machine
            started = time.perf_counter()
            save(writer, folder, 1 + number)
            checkpoint = writer.finished()
            whole.append(time.perf_counter() - started)
        size = sum(file["bytes"] for file in checkpoint.manifest["files"].values()) if checkpoint is not None else 0
        for number in range(arguments.repeats):
            before = writer.seconds_blocked
            save(writer, folder, 100 + number)
            beside.append(train_step())
            without += [train_step() for _ in range(arguments.every - 1)][-1:]
            writer.finished()
            waited.append(writer.seconds_blocked - before)
        ranks.sums([0.0])  # rank 0 deletes the folder
    return {
        "machine": host().to_dict(),
        "ranks": ranks.count,
        "backend": dist.get_backend() if ranks.count > 1 else None,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "checkpoint_mb": size / 1e6,
        "seconds_of_a_checkpoint": spread(whole),
        "seconds_training_waited": spread(waited),
        "seconds_of_a_train_step_beside_it": spread(beside),
        "seconds_of_a_train_step": spread(without),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--millions", type=float, default=20.0)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    launch = launch_from(os.environ)
    if launch is None:
        found = measure(ALONE, arguments)
    else:
        with joined(launch) as ranks:
            found = measure(ranks, arguments)
    if launch is None or launch.is_main:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
        print(json.dumps({key: value for key, value in found.items() if key != "machine"}, indent=2))


if __name__ == "__main__":
    main()
