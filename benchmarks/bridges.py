"""How far apart are our logits and those of transformers and llama.cpp, for every family and option?

Run:      python -m benchmarks.bridges --out bridges.json              (--seeds 3 --only "gemma3")
Workload: the tiny shapes of tests/model/shapes.py with rough random weights (4 layers, width 48, 97 tokens); texts of
          100 random tokens, and the greedy continuation of 8 of them by 64; one thread, float32.
Reports:  for each shape and program the largest difference of two logits, median and range over the seeds, beside the
          largest logit; in how many of the texts the greedy continuation is the same; for llama.cpp also with float16
          weights, and the share of positions with the same likeliest token. Prints the table of docs/exports.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diglot.core.errors import ConfigError
from diglot.core.hardware import host
from diglot.evaluate import llama_process
from diglot.evaluate.agreement import TransformersEngine, needed
from diglot.generate.engine import generate
from diglot.generate.sampling import GREEDY
from diglot.model.decoder import Decoder
from diglot.model.files import save_model
from diglot.model.gguf import write_gguf
from diglot.model.huggingface.config import layout

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "model"))  # the shapes that the tests assert on
from shapes import LAYOUTS, VOCAB, ids, rough

NUM_NEW = 64
TOKENS = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(VOCAB)],
    "tokenizer.ggml.scores": [-float(i) for i in range(VOCAB)],
    "tokenizer.ggml.token_type": [1] * VOCAB,
    "tokenizer.ggml.add_bos_token": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="shapes whose name holds this")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = {name: needed(name, "export").__version__ for name in ("torch", "transformers")}
    versions["llama-cpp-python"] = needed("llama_cpp", "llama").__version__
    found: dict[str, Any] = {}
    print(f"{host().cpu}; {versions}")
    print("| shape | model_type | transformers | greedy | llama.cpp | float32 | float16 | top-1 |")
    print("|---|---|---|---|---|---|---|---|")
    for name in (name for name in LAYOUTS if not arguments.only or arguments.only in name):
        found[name] = [measure(name, seed) for seed in range(arguments.seeds)]
        print(row(name, found[name]), flush=True)
    if arguments.out:
        arguments.out.write_text(
            json.dumps({"host": host().to_dict(), "versions": versions, "shapes": found}, indent=1)
        )


def measure(name: str, seed: int) -> dict[str, Any]:
    """One shape with one seed, in both programs."""
    model, text = rough(LAYOUTS[name][0], seed), ids(1, 100, seed)[0].tolist()
    with torch.inference_mode():
        logits = model(torch.tensor([text])).logits[0].numpy()
    found: dict[str, Any] = {"model_type": layout(model.config).model_type, "largest": float(np.abs(logits).max())}
    with tempfile.TemporaryDirectory() as folder:
        found["transformers"] = _transformers(model, text, logits, Path(folder))
        try:
            found["llama.cpp"] = {
                dtype: _llama(model, text, logits, Path(folder, f"{dtype}.gguf"), dtype) for dtype in ("f32", "f16")
            }
        except ConfigError as refused:
            found["refused"] = str(refused).rpartition("compute: ")[2].rstrip(".")
    return found


def _transformers(model: Decoder, text: list[int], logits: Any, folder: Path) -> dict[str, Any]:
    save_model(model, folder)
    engine = TransformersEngine.__new__(TransformersEngine)  # these shapes have no tokenizer
    transformers = needed("transformers", "export")
    engine.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    (ours,) = generate(model, [text[:8]], max_new_tokens=NUM_NEW, sampling=GREEDY, seed=0, stop_ids=())
    return {
        "difference": float(np.abs(engine.logits(text) - logits).max()),
        "same_greedy": engine.greedy([text[:8]], NUM_NEW) == [ours.ids],
    }


def _llama(model: Decoder, text: list[int], logits: Any, path: Path, dtype: str) -> dict[str, Any]:
    written = write_gguf(model, path, TOKENS, dtype=dtype)
    llama_process.open_file(str(path), 160)
    theirs = llama_process.logits(text)
    return {
        "architecture": written.architecture,
        "difference": float(np.abs(theirs - logits).max()),
        "top1": float((theirs.argmax(1) == logits.argmax(1)).mean()),
    }


def row(name: str, runs: list[dict[str, Any]]) -> str:
    greedy = sum(run["transformers"]["same_greedy"] for run in runs)
    cells = [name, runs[0]["model_type"], _spread([r["transformers"]["difference"] for r in runs])]
    cells.append(f"{greedy}/{len(runs)}")
    if "refused" in runs[0]:
        return "| " + " | ".join([*cells, f"refused: {runs[0]['refused']}", "", "", ""]) + " |"
    cells.append(runs[0]["llama.cpp"]["f32"]["architecture"])
    cells += [_spread([r["llama.cpp"][dtype]["difference"] for r in runs]) for dtype in ("f32", "f16")]
    cells.append(f"{min(r['llama.cpp']['f16']['top1'] for r in runs):.2f}")
    return "| " + " | ".join(cells) + " |"


def _spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.1e} ({min(values):.0e}-{max(values):.0e})"


if __name__ == "__main__":
    main()
