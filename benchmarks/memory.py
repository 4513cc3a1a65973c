"""Is the memory of the corpus engine bounded, and is its time linear in the input?

Run:      python -m benchmarks.memory --out memory.json                (--megabytes 25 250 2500; --workers 2)
Workload: real English and Chinese prose of the shared data, replicated to N MB of JSON lines. Of the replicas 5 % are
          near-copies (one word in fifty changed) and 2 % exact copies; the others have the words of each line shuffled
          in threes, so that they keep their length, characters and line structure and are no duplicates. Seed 0.
          ingest -> annotate -> select -> deduplicate through the command line, in a fresh store for each size.
Reports:  peak of the resident memory of the whole process tree, sampled 20 times a second, in all and by step;
          seconds and CPU seconds by step; for each step slope (s/MB) and R^2 of time against input.
Target:   2.5 GB of input in at most 1.5 GB.

Resident sizes are added up, so what processes share is counted once for each: the truth is a little lower.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from diglot.core.hardware import host

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "pretrain"
PROSE = (
    "en/python_docs", "en/us_speeches_shakespeare", "en/reviews", "en/openstax_political_science", "en/hf_course",
    "zh/cn_laws", "zh/oi_wiki", "zh/cn_novels", "zh/hf_course", "zh/how_to_cook",
)  # fmt: skip
RECIPE = """
recipe: memory
seed: 1
steps:
  pages: {kind: ingest, source: SOURCE}
  signals: {kind: annotate, from: pages}
  kept: {kind: select, from: signals}
  distinct: {kind: deduplicate, from: kept}
"""
FILE_BYTES = 16 << 20
SECONDS_BETWEEN_SAMPLES = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[25, 250, 2500])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; needs about twice the largest size")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            runs.append(measure(Path(folder), megabytes, arguments.workers))
        print(json.dumps(runs[-1]), flush=True)
    report = {"host": host().to_dict(), "workers": arguments.workers, "runs": runs, "fits": fits(runs)}
    for name, fit in report["fits"].items():
        print(f"{name:<10} {fit['seconds_per_megabyte']:.5f} s/MB + {fit['seconds_at_0']:.1f} s, R^2 {fit['r2']:.4f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, megabytes: int, workers: int) -> dict[str, Any]:
    """One run over `megabytes` of input."""
    documents = write_input(folder / "source", megabytes * 1_000_000)
    recipe = folder / "memory.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(folder / "source")))
    process = subprocess.Popen(
        [sys.executable, "-m", "diglot", "run", str(recipe), "--workers", str(workers)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    tree = Tree(process.pid)
    tree.start()
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if match := re.match(r" +(\w+) +builds", line):
            tree.step = match[1]
    assert process.wait() == 0, "".join(said)
    tree.join()
    steps = {}
    for step in ("pages", "signals", "kept", "distinct"):
        manifest = json.loads((folder / "runs" / "memory" / step / "manifest.json").read_text())
        steps[step] = {"seconds": manifest["seconds"], **tree.peaks[step]}
    return {
        "input_megabytes": megabytes,
        "documents": documents,
        "peak_megabytes": max(step["peak_megabytes"] for step in steps.values()),
        "seconds": round(sum(step["seconds"] for step in steps.values()), 2),
        "steps": steps,
    }


class Tree(threading.Thread):
    """Samples the resident memory and the CPU time of a process and all below it, by the step that is running."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.step = root, "start"
        self.peaks: dict[str, dict[str, float]] = {}

    def run(self) -> None:
        page, tick = os.sysconf("SC_PAGE_SIZE") / 1e6, os.sysconf("SC_CLK_TCK")
        seen: dict[int, float] = {}  # process -> CPU seconds already counted
        while members := self._members():
            peak = self.peaks.setdefault(self.step, {"peak_megabytes": 0, "peak_of_parent": 0, "cpu_seconds": 0})
            sizes = {process: int(fields[21]) * page for process, fields in members.items()}
            peak["peak_megabytes"] = max(peak["peak_megabytes"], round(sum(sizes.values())))
            peak["peak_of_parent"] = max(peak["peak_of_parent"], round(sizes[self.root]))
            for process, fields in members.items():
                used = (int(fields[11]) + int(fields[12])) / tick
                peak["cpu_seconds"] = round(peak["cpu_seconds"] + used - seen.get(process, 0.0), 3)
                seen[process] = used
            time.sleep(SECONDS_BETWEEN_SAMPLES)

    def _members(self) -> dict[int, list[str]]:
        """Living processes of the tree with the fields of /proc/N/stat behind the name; empty when the root ended."""
        stats = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
        if self.root not in stats or stats[self.root][0] == "Z":
            return {}
        found, border = {self.root}, {self.root}
        while border:
            border = {process for process, fields in stats.items() if int(fields[1]) in border} - found
            found |= border
        return {process: stats[process] for process in found}


def write_input(folder: Path, num_bytes: int) -> int:
    """JSON lines of `num_bytes` in files of 16 MB. Returns the number of documents."""
    folder.mkdir()
    written = documents = 0
    lines = replicas()
    for number in itertools.count():
        if written >= num_bytes:
            return documents
        with (folder / f"{number:05}.jsonl").open("wb") as stream:
            while stream.tell() < FILE_BYTES and written + stream.tell() < num_bytes:
                stream.write(next(lines))
                documents += 1
            written += stream.tell()
    raise AssertionError


def replicas() -> Iterator[bytes]:
    """Lines without end: the real documents, then replica after replica."""
    chance = random.Random(0)
    originals = [document for name in PROSE for document in read_prose(SHARED / f"{name}.jsonl.zst")]
    for number in itertools.count():
        for document in chance.sample(originals, len(originals)):
            draw = chance.random() if number else 0.0
            text = document["text"]
            if draw >= 0.07:
                text = shuffled(text, chance)
            elif draw >= 0.02:
                text = retouched(text, chance)
            line = {"text": text, "url": f"{document['url']}?replica={number}"}
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def read_prose(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as packed:
        for line in io.BufferedReader(zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed)):
            yield json.loads(line)


def shuffled(text: str, chance: random.Random) -> str:
    """The lines of a text with their words, or characters where there are no spaces, shuffled in threes."""
    lines = []
    for line in text.split("\n"):
        glue = " " if line.count(" ") * 12 > len(line) else ""
        words = line.split(" ") if glue else list(line)
        threes = [glue.join(words[i : i + 3]) for i in range(0, len(words), 3)]
        chance.shuffle(threes)
        lines.append(glue.join(threes))
    return "\n".join(lines)


def retouched(text: str, chance: random.Random) -> str:
    """A near-copy: one word in fifty, or character where there are no spaces, is another one of the same text."""
    glue = " " if text.count(" ") * 12 > len(text) else ""
    words = text.split(" ") if glue else list(text)
    for _ in range(len(words) // 50):
        words[chance.randrange(len(words))] = words[chance.randrange(len(words))]
    return glue.join(words)


def fits(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Least squares of seconds against megabytes, for each step and for all; empty for fewer than three sizes."""
    if len(runs) < 3:
        return {}
    size = np.array([run["input_megabytes"] for run in runs], float)
    found = {}
    for name in (*runs[0]["steps"], "all"):
        seconds = np.array([run["seconds"] if name == "all" else run["steps"][name]["seconds"] for run in runs])
        slope, start = np.polyfit(size, seconds, 1)
        rest = seconds - (slope * size + start)
        r2 = 1 - float(rest @ rest) / float(((seconds - seconds.mean()) ** 2).sum())
        found[name] = {"seconds_per_megabyte": float(slope), "seconds_at_0": float(start), "r2": r2}
    return found


if __name__ == "__main__":
    main()
