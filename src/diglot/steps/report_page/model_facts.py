"""Tokenizer, tokens and training runs, as the steps recorded them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact
from diglot.tokenizer.sweep import parity

MAX_POINTS = 400  # of a curve; more would only make the page heavier
FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward 2, backward 4 (Kaplan et al. 2020, arXiv 2001.08361); attention left out


def tokenizer(artifact: Artifact) -> dict[str, Any]:
    """Vocabulary, fit per language and the sweep over sizes, from tokenizer_report.json."""
    report = read_json(artifact.path / "tokenizer_report.json")
    return {
        "vocab_size": report["vocab_size"],
        "preset": report["preset"],
        "baseline": report["baseline"],
        "sweep": [_size(entry) for entry in report["sweep"]],
        "num_unused_pieces": report["num_unused_pieces"],
        "vocabulary_by_script": report["vocabulary_by_script"],
        "languages": [
            {"lang": lang, "share": report["sample"].get(lang, {}).get("share"), **found}
            for lang, found in report["languages"].items()
        ],
    }


def _size(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One size of the sweep, with what the page shows of it."""
    return {
        **{name: entry[name] for name in ("vocab_size", "unused_share", "d_model", "embedding_parameters")},
        "vocabulary_by_script": entry["vocabulary_by_script"],
        "parity": [
            {"lang": lang, "against": other, "ratio": ratio} for lang, other, ratio in parity(entry["parallel"])
        ],
        "languages": [
            {
                "lang": lang,
                "fit": found["fit"],
                "tokens_per_sentence": entry["parallel"].get(lang, {}).get("tokens_per_sentence"),
                "against_baseline": entry["against_baseline"].get(lang),
            }
            for lang, found in entry["languages"].items()
        ],
    }


def tokens(pack: Artifact, pretrain: Artifact | None) -> dict[str, Any]:
    """Documents and tokens of every stream, and how many tokens of it each phase of pre-training read."""
    records = read_json(pack.path / "streams.json")
    heldout = {r["stream"]: r["num_tokens"] for r in records if r["split"] == "heldout"}
    phases: list[dict[str, Any]] = []
    longest = 0
    if pretrain is not None:
        plan = read_json(pretrain.path / "plan.json")
        phases, longest = plan["order"]["phases"], plan["sequence_length"]
    streams = []
    for record in records:
        if record["split"] == "train":
            read = [
                phase["quotas"].get(record["stream"], 0) * (longest // phase.get("pieces_per_block", 1))
                for phase in phases
            ]
            streams.append(
                {
                    "stream": record["stream"],
                    "lang": record["lang"],
                    "num_documents": record["num_documents"],
                    "num_tokens": record["num_tokens"],
                    "heldout_tokens": heldout.get(record["stream"], 0),
                    "phases": read,
                    "epochs": sum(read) / record["num_tokens"] if phases and record["num_tokens"] else None,
                }
            )
    return {"streams": streams, "phases": [{"name": phase["name"]} for phase in phases]}


def training(run: Artifact) -> dict[str, Any]:
    """One training run: its counts, and its logs thinned to at most MAX_POINTS points a curve.

    A preference run has logs per round; they are joined, and training steps and tokens count on.
    """
    return {
        "kind": run.kind,
        "step": run.manifest.step,
        "counts": run.counts,
        "seconds": run.manifest.seconds,
        "num_parameters": num_parameters(run),
        "log": thinned(_joined(run, "train.jsonl")),
        "timing": thinned(_joined(run, "timing.jsonl")),
        "evaluation": thinned(_joined(run, "eval.jsonl")),
    }


def _joined(run: Artifact, name: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted([*run.path.glob(name), *run.path.glob(f"round-*/{name}")]):
        before = lines[-1] if lines else {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            for key in ("train_step", "num_tokens"):
                if key in record and key in before:
                    record[key] += before[key]
            lines.append(record)
    return lines


def thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evenly spaced lines of a log, with its first and its last."""
    if len(lines) <= MAX_POINTS:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def num_parameters(run: Artifact) -> int:
    """Weights of the model, counted from the headers of its safetensors files without loading them."""
    total = 0
    for path in (run.path / "model").glob("model*.safetensors"):
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total


def num_tokens(run: Mapping[str, Any]) -> int | None:
    """Tokens that a run was trained on, as it counted or as its log ends; None where neither says."""
    counted: int | None = run["counts"].get("tokens", run["counts"].get("num_tokens"))
    if counted is None and run["log"]:
        counted = run["log"][-1].get("num_tokens")
    return counted


def flops(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all training runs that say it or say their tokens. Empty without any."""
    counted = {run["step"]: found for run in runs if (found := _flops(run))}
    if not counted:
        return {}
    total = sum(counted.values())
    return {
        "flops": total,
        "flops_note": f"About {total:.2g} floating-point operations of training, summed over {', '.join(counted)}. "
        "Evaluation and generation are not counted.",
    }


def _flops(run: Mapping[str, Any]) -> float | None:
    """As the run itself counted, else 6 * parameters * tokens."""
    if "flops" in run["counts"]:
        return float(run["counts"]["flops"])
    tokens = num_tokens(run)
    return None if tokens is None else float(FLOPS_PER_PARAMETER_AND_TOKEN * run["num_parameters"] * tokens)
