"""A tiny training run on several ranks, as a program for torchrun.

torchrun --nproc-per-node N many_ranks.py OUT [setting=value ...]

    optimizer, eps, shape, documents, compile, every (training steps between checkpoints)    of the run
    recompute (every n-th layer, for the gradients)
    replicate, tensor, context, pipeline, expert                              of the grid of ranks
    only=gradients  and no training
    bf16=1          all under autocast, with layers gathered as bfloat16
    spiky=1  with a hundredfold loss at some training steps, which a guard skips
    stop=N   rank 1, or the only one, is sent SIGTERM when it has read N microbatches
    die=N    rank 1 dies then, once
    clock=N  the time of rank 0 is over when it has read N microbatches
    place=URL  of the checkpoints
    breaks=NAME  the part of a file's name at which `faulty://` breaks off
    evaluate=1  bits per byte on some documents at every fourth training step

Every rank writes OUT/rows.<rank>.jsonl: a line of the rows with a target of each microbatch it read. Before training,
OUT/gradients.safetensors has the gradients of the summed loss of three unequal microbatches, gathered.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tiny_run
import torch
from faulty_store import FaultyStore
from safetensors.torch import save_file
from tiny_run import TOKENS_PER_STEP

from diglot.core import remote
from diglot.core.launch import launch_from
from diglot.evaluate import losses
from diglot.evaluate.bits_per_byte import language_bits_per_byte
from diglot.evaluate.heldout import Heldout
from diglot.model.config import MoEConfig
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train import stopping
from diglot.train.clock import STOP, Clock
from diglot.train.loop import IGNORE, Batch, ItemLosses
from diglot.train.microbatches import OneByOne
from diglot.train.objectives.next_token import next_token
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.pipeline import Pipelined
from diglot.train.parallel.ranks import ALONE, Ranks, joined
from diglot.train.parallel.sharding import shard
from diglot.train.parallel.whole_model import whole_tensors
from diglot.train.types import Evaluation

AXES = ("replicate", "tensor", "context", "pipeline", "expert")

# Widths that do not divide by 2 or 4, and norms of heads shorter than four ranks.
ODD = DecoderConfig(
    vocab_size=50,
    d_model=30,
    num_layers=3,
    num_heads=3,
    num_kv_heads=1,
    head_dim=2,
    ffn_dim=27,
    qk_norm=True,
    tie_embeddings=True,
)

# Experts that two ranks divide evenly and four do not; router losses that weigh as much as the cross-entropy.
EXPERTS = replace(
    tiny_run.CONFIG,
    moe=MoEConfig(num_experts=6, top_k=2, expert_dim=12, shared_dim=8, balance_weight=1.0, z_weight=0.5),
)


# Documents shorter and longer than a window of 16, so that the two shares have different numbers of batches.
LENGTHS = np.array([3, 40, 7, 16, 1])
HELDOUT = Heldout(
    tokens=np.random.default_rng(0).integers(1, 50, LENGTHS.sum()),
    starts=np.cumsum([0, *LENGTHS[:-1]]),
    num_bytes=4 * LENGTHS,
    ids=[str(i) for i in range(len(LENGTHS))],
    langs=["en", "zh-Hans", "zh-Hans", "en", "en"],
    sources=["pages"] * len(LENGTHS),
    clusters=[str(i) for i in range(len(LENGTHS))],
)

# With them, and a layer without experts: what a pipeline sends from stage to stage.
ROUTERS = replace(
    tiny_run.CONFIG,
    num_layers=3,
    moe=MoEConfig(num_experts=3, top_k=2, expert_dim=12, layers=(True, False, True), balance_weight=0.5, z_weight=0.1),
)
# All that ranks which share the matrices of a layer, or the tokens of a sequence, could do wrong: layers of several
# widths and views, fewer heads for keys than for queries, biases, norms of heads and behind the blocks.
RICH = DecoderConfig(
    vocab_size=50,
    d_model=32,
    num_layers=3,
    num_heads=(4, 8, 4),
    num_kv_heads=(2, 2, 4),
    head_dim=6,
    ffn_dim=(20, 44, 28),
    qk_norm=True,
    qkv_bias=True,
    out_bias=True,
    ffn_bias=True,
    sandwich_norm=True,
    sliding_window=6,
    sliding_layers=(True, False, False),
    local_rope_theta=100.0,
)
SHAPES = {
    "usual": tiny_run.CONFIG,
    "odd": ODD,
    "experts": EXPERTS,
    "routers": ROUTERS,
    "rich": RICH,
    "capped": replace(RICH, attention_softcap=3.0, logit_softcap=5.0),
}


def with_biases(model: Decoder) -> Decoder:
    """Biases start at 0, which would hide one that is added twice."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def ragged(batch: Batch, documents: bool = False) -> Batch:
    """With a number of targets that differs from row to row, from 1 to T, and perhaps several documents in a row."""
    kept = torch.arange(batch["targets"].shape[1])[None] < 1 + batch["input_ids"][:, :1] % batch["targets"].shape[1]
    cut = {"document_ids": (batch["input_ids"] % 5 == 0).cumsum(dim=1)} if documents else {}
    return {**batch, "targets": torch.where(kept, batch["targets"], IGNORE), **cut}


def write_gradients(
    out: Path, ranks: Ranks, config: DecoderConfig, *, bf16: bool, documents: bool, recompute: int
) -> None:
    model = with_biases(Decoder(config, seed=3))
    model.recompute_every = recompute
    shard(model, ranks, gather_bf16=bf16)
    dtypes = set[torch.dtype]()
    _, first = next(model.layers.numbered())
    first.attention_norm.register_forward_pre_hook(lambda module, _: dtypes.add(module.weight.dtype))
    split = (3, 2, 1) if config is not ROUTERS else (3, 3)  # a row that a pipeline adds would count in the balance
    batches = ranks.rows([ragged(batch, documents) for batch in tiny_run.batch_at(0, split)])

    def losses(part: Decoder, batch: Batch) -> ItemLosses:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return next_token()(part, batch)

    is_divided = ranks.grid is not None and ranks.grid.shape.pipeline > 1
    microbatches = Pipelined(model, losses, ranks) if is_divided else OneByOne(partial(losses, model))
    list(microbatches.run(batches))
    assert dtypes == {torch.bfloat16 if bf16 and ranks.count > 1 else torch.float32}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = dict(whole_tensors(gradients, ranks))
    if ranks.is_main:
        save_file(gradients, out / "gradients.safetensors")


def run(out: Path, ranks: Ranks, options: Mapping[str, str]) -> None:
    torch.set_num_threads(1)
    rank = ranks.launch.rank if ranks.launch else 0
    config, documents = SHAPES[options.get("shape", "usual")], bool(options.get("documents"))
    parallel = ParallelConfig(**{axis: int(options.get(axis, 1)) for axis in AXES})
    write_gradients(
        out,
        ranks.arranged(parallel),
        config,
        bf16=bool(options.get("bf16")),
        documents=documents,
        recompute=int(options.get("recompute", 0)),
    )
    if options.get("only") == "gradients":
        return
    spiky = bool(options.get("spiky"))
    optimizer = {"kind": options.get("optimizer", "adamw"), "eps": float(options.get("eps", 1e-8))}
    phases = tiny_run.spiky_phases() if spiky else tiny_run.phases(**optimizer)
    seen = (out / f"rows.{rank}.jsonl").open("a")
    number = 0

    def objective(model: Any, batch: Batch) -> ItemLosses:
        nonlocal number
        if rank == ranks.count - 1 and number == int(options.get("stop", -1)):
            os.kill(os.getpid(), signal.SIGTERM)
        if rank == 1 and number == int(options.get("die", -1)) and not (out / "died").exists():
            (out / "died").touch()
            os._exit(9)
        number += 1
        rows = [
            row.tolist()
            for row, targets in zip(batch["input_ids"], batch["targets"], strict=True)
            if bool((targets != IGNORE).any())
        ]
        seen.write(json.dumps(rows) + "\n")
        seen.flush()
        return tiny_run.spiky_objective(model, batch) if spiky else next_token()(model, batch)

    def with_ragged(phase: tiny_run.Phase) -> tiny_run.Phase:
        return replace(phase, batch_at=lambda n: [ragged(batch, documents) for batch in phase.batch_at(n)])

    ranks = ranks.arranged(parallel)
    bf16 = bool(options.get("bf16"))

    def measure(model: Decoder) -> dict[str, dict[str, float]]:
        found = language_bits_per_byte(model, HELDOUT, end_id=0, context=16, ranks=None if ranks is ALONE else ranks)
        return {"bits_per_byte": found}

    class OverAtN(Clock):
        def asks(self, checkpoint_seconds: float) -> int:
            return STOP if number >= int(options["clock"]) else super().asks(checkpoint_seconds)

    if "clock" in options:
        stopping.Clock = OverAtN  # type: ignore[misc]
    remote.WAIT_S = 0.0
    losses.MAX_BATCH_TOKENS = 32  # several batches, and not equally many for each rank
    FaultyStore.fails_at = options.get("breaks")
    evaluation = Evaluation(measure=measure, every_tokens=4 * TOKENS_PER_STEP, bf16=bf16 and ranks.count > 1)
    goes_on = (out / "train.jsonl").exists()
    report = tiny_run.run(
        out,
        run_phases=[with_ragged(phase) for phase in phases],
        objective=objective,
        ranks=ranks,
        parallel=parallel,
        config=config,
        precision="bf16" if bf16 else "fp32",
        gather_bf16=bf16,
        compile=options.get("compile", "never"),
        spike_guard=tiny_run.GUARD if spiky else None,
        checkpoint_every_tokens=int(options.get("every", 2)) * TOKENS_PER_STEP,
        checkpoint_dir=options.get("place"),
        time_limit_minutes=600.0,
        evaluation=evaluation if options.get("evaluate") else None,
    )
    # Else a run that began anew would pass for one that went on: it finds the same losses.
    assert (report.resumed_from is not None) == goes_on


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    options = dict(argument.split("=") for argument in sys.argv[2:])
    launch = launch_from(os.environ)
    if launch is None:
        run(out, ALONE, options)
    else:
        with joined(launch) as ranks:
            run(out, ranks, options)
