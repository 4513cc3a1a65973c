"""How many tokens per second does pre-training read on this CPU, beside Hugging Face on the same shape and data?

Run:      python -m benchmarks.pretrain_cpu --out pretrain_cpu.json        (ten minutes on two quiet cores)
Workload: 20 M parameters (vocabulary 16,384 tied, width 384, 8 layers, 6 heads, SwiGLU 1,024), sequence 512,
          batch 8, AdamW, gradient clipping; random tokens, seed 0; all cores.
Compared: ours through `diglot.train.loop.train` in the precision chosen for this machine, eager and compiled,
          with transformers' LlamaForCausalLM in fp32 eager, and compiled in this machine's precision (bf16 autocast
          where the CPU has bf16 units), and with litgpt's GPT compiled in the same precision where litgpt is installed
          (`pip install litgpt`, tried with 0.5.13; with tied weights, as the others).
Reports:  tokens/s, median and range over rounds of alternating runs, each after one step of warm-up; ratios to
          fp32 eager and to Hugging Face compiled, medians of the rounds' own ratios, since other work on a machine
          comes and goes; share of the measured GEMM peak by 6 N FLOPs per token.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timed_run import train_step_seconds
from diglot.core.hardware import host
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.loop import LoopSettings

SHAPE = DecoderConfig(
    vocab_size=16_384, d_model=384, num_layers=8, num_heads=6, num_kv_heads=6, head_dim=64, ffn_dim=1024,
    max_seq_len=512, tie_embeddings=True,
)  # fmt: skip
EAGER = "Hugging Face fp32 eager"
BATCH, LENGTH = 8, 512
TOKENS = BATCH * LENGTH

Logits = tuple[torch.nn.Module, Callable[[Any, Tensor], Tensor]]
"""A model, and how it (or what the compiler made of it) is asked for the logits of ids [B, T]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-steps", type=int, default=4, help="timed training steps of one run")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(host().num_cores)

    num_parameters = sum(p.numel() for p in Decoder(SHAPE).parameters())
    bf16 = host().has_native_bf16
    precision = "bf16 autocast" if bf16 else "fp32"
    contenders = {EAGER: Peer(hugging_face(), bf16=False, compiled=False)}
    if host().cxx_compiler:
        contenders[f"Hugging Face {precision} compiled"] = Peer(hugging_face(), bf16=bf16, compiled=True)
        if importlib.util.find_spec("litgpt"):
            contenders[f"litgpt {precision} compiled"] = Peer(litgpt(), bf16=bf16, compiled=True)
    runs: dict[str, Callable[[int], list[float]]] = {name: peer.run for name, peer in contenders.items()}
    runs[f"Diglot {precision} eager"] = lambda n: ours(n, compiled=False)
    if host().cxx_compiler:
        runs[f"Diglot {precision} compiled"] = lambda n: ours(n, compiled=True)

    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds):
        for name, run in runs.items():
            seconds = statistics.median(run(arguments.train_steps))
            speeds[name].append(TOKENS / seconds)
            print(f"round {number + 1}/{arguments.rounds}  {name:<38} {speeds[name][-1]:8,.0f} tokens/s", flush=True)

    peak = gemm_peak()
    compiled = next(
        (found for name, found in speeds.items() if name.startswith("Hugging Face") and name != EAGER), None
    )
    rows = [
        {
            "run": name,
            "tokens_per_second": statistics.median(found),
            "low": min(found),
            "high": max(found),
            "ratio_to_hf_fp32_eager": ratio(found, speeds[EAGER]),
            "ratio_to_hf_compiled": ratio(found, compiled) if compiled else None,
            "share_of_gemm_peak": statistics.median(found) * 6 * num_parameters / peak,
        }
        for name, found in speeds.items()
    ]
    result = {
        "parameters": num_parameters,
        "host": host().to_dict(),
        "torch": torch.__version__,
        "gemm_peak_flops": peak,
        "rounds": arguments.rounds,
        "rows": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))
    print(f"\n{host().cpu}, {host().num_cores} cores, torch {torch.__version__}, GEMM peak {peak / 1e9:,.0f} GFLOP/s")
    print("| run | tokens/s, median (range) | to eager | to compiled | share of GEMM peak |\n|---|---:|---:|---:|---:|")
    for row in rows:
        to_compiled = "" if row["ratio_to_hf_compiled"] is None else f"{row['ratio_to_hf_compiled']:.2f}"
        print(
            f"| {row['run']} | {row['tokens_per_second']:,.0f} ({row['low']:,.0f}–{row['high']:,.0f}) "
            f"| {row['ratio_to_hf_fp32_eager']:.2f} | {to_compiled} | {row['share_of_gemm_peak']:.0%} |"
        )


def ratio(found: list[float], peer: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(ours / theirs for ours, theirs in zip(found, peer, strict=True))


def batch() -> dict[str, Tensor]:
    tokens = torch.randint(0, SHAPE.vocab_size, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}


def ours(num_train_steps: int, *, compiled: bool) -> list[float]:
    """Seconds of each training step after the first."""
    settings = LoopSettings(
        order_fingerprint="benchmark", compile="always" if compiled else "never", num_threads=host().num_cores
    )
    return train_step_seconds(Decoder(SHAPE), batch(), num_train_steps, settings)


def hugging_face() -> Logits:
    """transformers' Llama of the same shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SHAPE.vocab_size,
            hidden_size=SHAPE.d_model,
            num_hidden_layers=SHAPE.num_layers,
            num_attention_heads=SHAPE.num_heads,
            num_key_value_heads=SHAPE.num_kv_heads,
            intermediate_size=SHAPE.ffn_dims[0],
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
        )
    ).train()
    return model, lambda compiled, ids: compiled(input_ids=ids, use_cache=False).logits


def litgpt() -> Logits:
    """litgpt's GPT with the parts of a Llama, of the same shape."""
    from litgpt.config import Config
    from litgpt.model import GPT

    torch.manual_seed(0)
    model = GPT(
        Config(
            block_size=LENGTH,
            vocab_size=SHAPE.vocab_size,
            padded_vocab_size=SHAPE.vocab_size,
            n_layer=SHAPE.num_layers,
            n_head=SHAPE.num_heads,
            n_embd=SHAPE.d_model,
            intermediate_size=SHAPE.ffn_dims[0],
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
        )
    ).train()
    model.lm_head.weight = model.transformer.wte.weight
    return model, lambda compiled, ids: compiled(ids)


class Peer:
    """Another library's model, trained the plain way: cross-entropy of all logits, clipping, AdamW."""

    def __init__(self, model: Logits, *, bf16: bool, compiled: bool) -> None:
        self.bf16 = bf16
        self.parameters, self.logits = list(model[0].parameters()), model[1]
        self.model = torch.compile(model[0]) if compiled else model[0]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.1)
        self.fed = batch()

    def run(self, num_train_steps: int) -> list[float]:
        """Seconds of each training step after the first."""
        seconds = []
        for _ in range(num_train_steps + 1):
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                logits = self.logits(self.model, self.fed["input_ids"])
                loss = F.cross_entropy(logits.flatten(0, 1).float(), self.fed["targets"].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - start)
        return seconds[1:]


def gemm_peak() -> float:
    """Best operations per second of several 1024 x 1024 products, in the precision that is trained in."""
    dtype = torch.bfloat16 if host().has_native_bf16 else torch.float32
    left, right = torch.randn(1024, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


if __name__ == "__main__":
    main()
