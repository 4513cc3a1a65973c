"""How fast is the corpus engine, beside datatrove on the same input?

Run:      python -m benchmarks.corpus --data ../shared/data --peer-python peer/bin/python --out corpus.json
Workload: the shared prose, English and Chinese, 237 MB of UTF-8 text in Parquet, and its WARC file (51 MB of HTML). The
          peer takes minutes for what takes us a second, so ratios are measured on a sample that both read: documents in
          order of their ids, which are hashes, until `--sample-mb` of text in each language; none above 200 kB, because
          spaCy refuses long texts.
Jobs:     quality       Gopher's quality rules, Parquet to Parquet; ours writes all 22 or more signals and no text
          all_signals   quality, repetition and MinHash signatures of every document
          dedup         signatures, search, comparison of texts (ours only), and the kept documents written anew
          warc          WARC to annotated Parquet: extraction, language, every signal; the peer's filters stop early
          sift          the corpus decided again by a policy of 30 rules, from its attributes
Reports:  MB per core-second (CPU time of the process and its children), median and range of `--rounds` alternating
          rounds after one warm-up of ours; numba's compilation and both programs' imports are not counted.
Baseline: `benchmarks/corpus_datatrove.py` in an environment of its own. Without --peer-python only ours is measured.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diglot.core.hardware import host
from diglot.core.progress import Progress
from diglot.corpus.ingestion import ingest_shard
from diglot.corpus.sift import SiftTask, run_policies, sift_shard, with_limit
from diglot.corpus.tables import kept_documents, shards, write_table
from diglot.ledger.artifact import Artifact
from diglot.recipe.run import Places, run_recipe
from diglot.recipe.schema import load_recipe
from diglot.steps.annotate import AnnotateConfig, ShardTask, annotate_shard
from diglot.steps.context import StepContext
from diglot.steps.deduplicate import DeduplicateConfig, deduplicate
from diglot.steps.ingest import IngestConfig, plan

LANGUAGES = {"en": "eng", "zh": "zho"}
MAX_SAMPLE_DOCUMENT = 200_000  # characters
SIFT_DOCUMENTS = 1_000_000
RECIPE = """
recipe: benchmark-{name}
steps:
  pages: {{kind: ingest, source: "{source}", languages_declared: false}}
  signals: {{kind: annotate, from: pages}}
  kept: {{kind: select, from: signals}}
"""


@dataclass(frozen=True)
class Row:
    """One line of the table. megabytes: of UTF-8 text, of HTML for `warc`, and millions of documents for `sift`."""

    job: str
    input: str
    megabytes: float
    cpu_s: list[float]
    wall_s: list[float]
    peer_cpu_s: list[float]

    def to_dict(self) -> dict[str, Any]:
        rate, peer = self.megabytes / statistics.median(self.cpu_s), None
        if self.peer_cpu_s:
            peer = self.megabytes / statistics.median(self.peer_cpu_s)
        return {
            **vars(self),
            "per_core_second": round(rate, 2),
            "range": [round(self.megabytes / max(self.cpu_s), 2), round(self.megabytes / min(self.cpu_s), 2)],
            "peer_per_core_second": peer and round(peer, 3),
            "ratio": peer and round(rate / peer, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shared data folder")
    parser.add_argument("--peer-python", type=Path, help="a Python that has datatrove")
    parser.add_argument("--sample-mb", type=float, default=5.0, help="text of each language that both read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where to keep the corpora; default: a temporary folder")
    parser.add_argument("--jobs", nargs="*", default=["quality", "all_signals", "dedup", "warc", "sift"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        rows = list(_rows(arguments, work))
    table = {"host": vars(host()) if hasattr(host(), "__dict__") else str(host()), "rows": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(table, indent=1, default=str) + "\n", encoding="utf-8")
    print(_markdown(rows))


def _rows(arguments: argparse.Namespace, work: Path) -> Any:
    data = arguments.data.resolve()
    whole = {lang: _built(work, lang, f"{data}/pretrain/{lang}") for lang in LANGUAGES}
    samples = {lang: _sample(work, lang, whole[lang], arguments.sample_mb) for lang in LANGUAGES}
    jobs: dict[str, Callable[[Artifact, Path], None]] = {
        "quality": _quality,
        "all_signals": _all_signals,
        "dedup": _dedup,
    }
    for name in (job for job in arguments.jobs if job in jobs):
        for lang, language in LANGUAGES.items():
            yield _compare(name, f"{lang}, both", samples[lang], jobs[name], arguments, work, language)
        for lang in LANGUAGES:
            yield _compare(name, f"{lang}, whole", whole[lang], jobs[name], arguments, work, None)
    if "warc" in arguments.jobs:
        yield _warc(data / "pretrain" / "warc" / "mixed-00000.warc.gz", arguments, work)
    if "sift" in arguments.jobs:
        yield _sift(whole["zh"], arguments.rounds)


def _built(work: Path, name: str, source: str) -> Artifact:
    """The select artifact of a corpus; ingest and annotate lie above it."""
    recipe = work / f"{name}.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE.format(name=name, source=source), encoding="utf-8")
    places = Places(store=work / "store", runs=work / "runs")
    return run_recipe(load_recipe(recipe), places, workers=host().num_cores, progress=Progress())["kept"]


def _sample(work: Path, name: str, corpus: Artifact, megabytes: float) -> Artifact:
    folder = work / f"sample-{name}"
    if not folder.exists():
        rows: list[tuple[str, str]] = []
        ingest = corpus.upstream("ingest").path / "documents"
        for path in sorted(ingest.rglob("*.parquet")):
            table = pq.read_table(path, columns=["id", "text"], partitioning=None)
            pairs = zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)
            rows += [(key, text) for key, text in pairs if len(text) <= MAX_SAMPLE_DOCUMENT]
        taken, size = [], 0
        for key, text in sorted(rows):
            if size >= megabytes * 1e6:
                break
            taken.append({"id": key, "text": text})
            size += len(text.encode())
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(taken), folder / "sample.parquet", compression="zstd")
    return _built(work, f"sample-{name}", str(folder))


def _compare(
    job: str,
    label: str,
    corpus: Artifact,
    ours: Callable[[Artifact, Path], None],
    arguments: argparse.Namespace,
    work: Path,
    language: str | None,
) -> dict[str, Any]:
    megabytes = corpus.upstream("ingest").counts["bytes"] / 1e6
    peer_input = work / f"sample-{label[:2]}"
    cpu, wall, peer = [], [], []
    for round_number in range(arguments.rounds + 1):
        seconds = _timed(lambda: ours(corpus, work / "out"))
        if round_number:  # the first one loads or compiles the kernels
            cpu.append(seconds[0])
            wall.append(seconds[1])
            if language and arguments.peer_python:
                peer.append(_peer(arguments.peer_python, job, peer_input, work, language))
    return _say(Row(job, label, megabytes, cpu, wall, peer))


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of this process and its ended children, and wall seconds."""
    cpu, children, started = time.process_time(), os.times(), time.perf_counter()
    work()
    ended = os.times()
    of_children = ended.children_user + ended.children_system - children.children_user - children.children_system
    return time.process_time() - cpu + of_children, time.perf_counter() - started


def _peer(python: Path, job: str, folder: Path, work: Path, language: str) -> float:
    script = Path(__file__).with_name("corpus_datatrove.py")
    command = [str(python), str(script), job, str(folder), str(work / "peer"), "--language", language]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["cpu_s"])


def _annotate(corpus: Artifact, out: Path, families: tuple[str, ...]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    config = AnnotateConfig(from_="pages", families=families)
    ingest = corpus.upstream("ingest")
    for shard in shards(ingest):
        path = ingest.path / "documents" / shard.file
        annotate_shard(ShardTask(documents=path, file=shard.file, out=out, config=config))


def _quality(corpus: Artifact, out: Path) -> None:
    _annotate(corpus, out, ("quality",))


def _all_signals(corpus: Artifact, out: Path) -> None:
    _annotate(corpus, out, ("quality", "repetition", "minhash"))


def _dedup(corpus: Artifact, out: Path) -> None:
    """Signatures, then the deduplicate step over every document that select kept, then the kept text written."""
    _annotate(corpus, out, ("hashes", "minhash"))
    step = out / "store" / "deduplicate" / "bench"
    step.mkdir(parents=True)
    context = StepContext(
        step="dedup",
        out=step,
        inputs={"from": corpus},
        seed=0,
        workers=1,
        progress=Progress(),
        recipe_dir=Path(),
    )
    deduplicate(DeduplicateConfig(from_="kept"), context)
    for shard, table in kept_documents(corpus, ["id", "text"]):
        write_table(out / "kept" / shard.file, table)


def _warc(path: Path, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    from diglot.corpus.read.sources import Selection, find

    config = IngestConfig(source=str(path))
    found = find([str(path)], bases=[Path()], selection=Selection(), progress=Progress())
    folder = work / "warc"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / path.name).exists():
        shutil.copy(path, folder / path.name)

    def ours() -> None:
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        for task in plan(found, config, out / "documents"):
            ingest_shard(task)
            file = str(task.out.relative_to(out / "documents"))
            annotate_shard(ShardTask(documents=task.out, file=file, out=out, config=AnnotateConfig(from_="pages")))

    with gzip.open(path) as stream:
        megabytes = len(stream.read()) / 1e6
    cpu, wall, peer = [], [], []
    for round_number in range(arguments.rounds + 1):
        seconds = _timed(ours)
        if round_number:
            cpu.append(seconds[0])
            wall.append(seconds[1])
            if arguments.peer_python:
                peer.append(_peer(arguments.peer_python, "warc", folder, work, "eng"))
    return _say(Row("warc", path.name, megabytes, cpu, wall, peer))


def _sift(corpus: Artifact, rounds: int) -> dict[str, Any]:
    """Shards judged again and again until a million documents have been."""
    old = run_policies(corpus)
    new = with_limit(old, "en.duplicate_5gram_share=off")
    tasks = [
        SiftTask(select=corpus, shard=shard, old=old, new=new, shown=(), num_examples=0)
        for shard in shards(corpus.upstream("ingest"))
    ]
    documents = corpus.upstream("ingest").counts["documents"]
    repeats = max(1, round(SIFT_DOCUMENTS / documents))
    cpu, wall = [], []
    for round_number in range(rounds + 1):
        seconds = _timed(lambda: [sift_shard(task) for _ in range(repeats) for task in tasks])  # type: ignore[func-returns-value, arg-type]
        if round_number:
            cpu.append(seconds[0])
            wall.append(seconds[1])
    return _say(Row("sift", "millions of documents", documents * repeats / 1e6, cpu, wall, []))


def _say(row: Row) -> dict[str, Any]:
    result = row.to_dict()
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| job | input | MB | ours, MB per core-second (range) | datatrove | ratio |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, high = row["range"]
        peer = row["peer_per_core_second"]
        lines.append(
            f"| {row['job']} | {row['input']} | {row['megabytes']:.1f} | {row['per_core_second']} ({low}–{high}) | "
            f"{'' if peer is None else peer} | {'' if peer is None else row['ratio']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
