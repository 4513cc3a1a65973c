"""How much faster are two workers than one, from raw prose to measured documents?

Run:      python -m benchmarks.workers --out workers.json              (--megabytes 500 --workers 1 2 --rounds 3)
Workload: the input of `benchmarks.memory`: English and Chinese prose as JSON lines in files of 16 MB. ingest ->
          annotate through the command line in a fresh store; a warm-up run of one file fills the caches.
Reports:  seconds of each step, median and range over the rounds, which alternate between the numbers of workers; input
          MB/s; ratio to the first number. Workers take about a second to load the kernels, which is part of the time,
          so the ratio grows with the input.
Target:   two workers at least 1.8 times one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import FILE_BYTES, RECIPE, write_input
from diglot.core.hardware import host

STEPS = ("pages", "signals")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; needs about three times the input")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seconds: dict[int, dict[str, list[float]]] = {n: {step: [] for step in STEPS} for n in arguments.workers}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_input(Path(folder, "warm-up"), FILE_BYTES)
        write_input(Path(folder, "source"), arguments.megabytes * 1_000_000)
        run(Path(folder), "warm-up", 1)
        for number in range(arguments.rounds):
            for workers in arguments.workers if number % 2 == 0 else reversed(arguments.workers):
                for step, value in run(Path(folder), "source", workers).items():
                    seconds[workers][step].append(value)
    report = {}
    for step in STEPS:
        first = statistics.median(seconds[arguments.workers[0]][step])
        for workers in arguments.workers:
            values = seconds[workers][step]
            median = statistics.median(values)
            report[f"{step} {workers}"] = {
                "seconds": median,
                "range": [min(values), max(values)],
                "megabytes_per_second": arguments.megabytes / median,
                "ratio": first / median,
            }
            print(f"{step:<8} {workers} workers  {median:7.2f} s ({min(values):.2f}-{max(values):.2f})"
                  f"  {arguments.megabytes / median:6.1f} MB/s  x {first / median:.2f}")  # fmt: skip
    if arguments.out:
        result = {"host": host().to_dict(), "megabytes": arguments.megabytes, "results": report}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def run(folder: Path, source: str, workers: int) -> dict[str, float]:
    """Seconds of each step of one run in a fresh store."""
    recipe = folder / "memory.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(folder / source)))
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, "-m", "diglot", "run", str(recipe), "--until", STEPS[-1], "--workers", str(workers)]
        subprocess.run(command, cwd=work, check=True, stderr=subprocess.DEVNULL)
        manifests = {step: Path(work, "runs", "memory", step, "manifest.json") for step in STEPS}
        return {step: json.loads(path.read_text())["seconds"] for step, path in manifests.items()}


if __name__ == "__main__":
    main()
