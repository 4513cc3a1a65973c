"""Does deduplication find what it should, drop nothing else, and how fast, in how much memory?

Run:      python -m benchmarks.dedup --out dedup.json                       (all; some minutes on two quiet cores)
          python -m benchmarks.dedup --only accuracy chinese lsh            (one minute)
          python -m benchmarks.dedup --only linear --base-mb 250 --copies 1 3 10    (2.5 GB)
Needs:    the shared data folder beside the checkout (accuracy, chinese, speed, linear).
Reports:
  accuracy  real versions of documents with their true similarities: recall of pairs at Jaccard >= 0.8 by three measures
            (found: not both are kept), precision of what is dropped, hard negatives.
  chinese   600 pieces of Chinese prose and copies with deleted characters: how many copies are proposed and dropped at
            each rate, beside the mean of 1 - (1 - s^r)^b over their true similarities s.
  lsh       synthetic pairs of known Jaccard similarity: share proposed against the S-curve, largest deviation with its
            95 % interval.
  speed     the prose of the shared data, hashes, signatures and deduplication together and apart, at 1 and 2 workers:
            MB of UTF-8 text per CPU second (all processes) and per second of wall time, median of the repeats.
  linear    a part of the prose and rewritten copies of it that share nothing (see dedup_store.rewritten): CPU seconds
            and peak memory against megabytes, with slope and R^2.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.dedup_store import SHARED, deduplicated, finished, ingested, prose, records, rewritten, run
from diglot.core.hardware import host
from diglot.corpus.dedup.lsh import Bands, band_keys
from diglot.kernels.jit import text_buffers
from diglot.kernels.minhash import shingle_sets, signatures
from diglot.ledger.artifact import Artifact
from diglot.steps import annotate, deduplicate

BANDS = Bands(14, 8)
LIMIT = 0.8
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3, help="of each speed")
    parser.add_argument("--base-mb", type=int, default=25, help="megabytes of the single copy of `linear`")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--pairs", type=int, default=4000, help="pairs for each similarity of `lsh`")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("STORE", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        store, workers = arguments.measure
        print(json.dumps(measure(Path(store), int(workers))))
        return
    result: dict[str, Any] = {"host": host().to_dict()}
    for name in arguments.only:
        result[name] = PARTS[name](arguments)
        print_table(name, result[name]["rows"])
        for fact, value in result[name].items():
            if fact != "rows":
                print(f"{fact}: {value}")
    print(f"\n{host().cpu}, {host().num_cores} cores")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))


def accuracy(arguments: argparse.Namespace) -> Row:
    """With the default settings, and with those for a limit of 0.7, which is about 0.8 in character 5-grams."""
    versions = list(records(SHARED / "dedup" / "versions.jsonl.zst"))
    pairs = list(records(SHARED / "dedup" / "pairs.jsonl.zst"))
    ids = {v["doc_id"]: xxhash.xxh3_128_hexdigest(v["doc_id"].encode()) for v in versions}
    family = {ids[v["doc_id"]]: v["family"] for v in versions}
    documents = [
        {"id": ids[v["doc_id"]], "text": v["text"], "source": v["source"].replace("/", "-"), "lang": v["lang"]}
        for v in sorted(versions, key=lambda v: v["source"])
    ]
    sets = dict(zip(ids.values(), hashed_sets([v["text"] for v in versions]), strict=True))
    truths: dict[str, Callable[[Row], float | None]] = {
        "unit 5-grams": lambda pair: jaccard(sets[ids[pair["a"]]], sets[ids[pair["b"]]]),
        "character 5-grams": lambda pair: pair["jaccard_char5"],
        "word 5-grams": lambda pair: pair["jaccard_word5"],
    }
    rows: list[Row] = []
    facts: Row = {}
    for name, settings in {"default": {}, "at 0.7": {"threshold": 0.7, "verify_jaccard": 0.7}}.items():
        with tempfile.TemporaryDirectory() as folder:
            artifact = deduplicated(Path(folder), ingested(Path(folder), documents)[0], **settings)
            verdicts = decisions(artifact)
            compared = pq.read_table(artifact.path / "pairs.parquet").to_pylist()
        dropped = {one for one, row in verdicts.items() if not row["keep"]}
        for lang, (measure_name, truth) in itertools.product(("en", "zh"), truths.items()):
            similar = [pair for pair in pairs if pair["lang"] == lang and (truth(pair) or 0.0) >= LIMIT]
            found = sum(ids[pair["a"]] in dropped or ids[pair["b"]] in dropped for pair in similar)
            if similar:
                low, high = wilson(found, len(similar))
                rows.append(
                    {"settings": name, "language": lang, "similarity": measure_name, "pairs": len(similar),
                     "found": found, "recall": found / len(similar), "low": low, "high": high}
                )  # fmt: skip
        right = sum(
            family[one] == family[verdicts[one]["duplicate_of"]]
            or jaccard(sets[one], sets[verdicts[one]["duplicate_of"]]) >= LIMIT
            for one in dropped
        )
        hard = [p for p in pairs if not p["same_family"] and jaccard(*(sets[ids[p[side]]] for side in "ab")) < LIMIT]
        joined = sum(
            verdicts[ids[a]]["duplicate_of"] == ids[b]
            for pair in hard
            for a, b in itertools.permutations((pair["a"], pair["b"]))
        )
        facts[name] = (
            f"{len(dropped)} dropped, precision {right / len(dropped):.4f}; {joined} of {len(hard)} pairs of different "
            f"documents joined; {len(compared)} candidates, {sum(not p['accepted'] for p in compared)} rejected"
        )
    return {"rows": rows, **facts}


def chinese(arguments: argparse.Namespace) -> Row:
    """A rate of deletions p leaves a shingle of five characters whole with (1 - p)^5."""
    pieces = list(itertools.islice(_pieces(), 600))
    rows = []
    for rate in (0.0018, 0.005, 0.01, 0.0195):
        draw = random.Random(17)
        edited = ["".join(c for c in text if draw.random() >= rate) for text in pieces]
        both = hashed_sets([*pieces, *edited])
        true = [jaccard(a, b) for a, b in zip(both[: len(pieces)], both[len(pieces) :], strict=True)]
        signature = signed([*pieces, *edited])
        proposed = hits(signature, len(pieces), BANDS)
        names = [xxhash.xxh3_128_hexdigest(f"{side} {i}".encode()) for side in "ab" for i in range(len(pieces))]
        documents = [
            {"id": name, "text": text, "source": "prose", "lang": "zh-Hans"}
            for name, text in zip(names, (*pieces, *edited), strict=True)
        ]
        with tempfile.TemporaryDirectory() as folder:
            verdicts = decisions(deduplicated(Path(folder), ingested(Path(folder), documents)[0]))
        keep = [verdicts[name]["keep"] for name in names]
        found = [not (a and b) for a, b in zip(keep[: len(pieces)], keep[len(pieces) :], strict=True)]
        similar = [one >= LIMIT for one in true]
        rows.append(
            {
                "deleted": rate,
                "mean_jaccard": statistics.mean(true),
                "lowest": min(true),
                "theory": statistics.mean(BANDS.probability(one) for one in true),
                "proposed": float(proposed.mean()),
                "dropped": statistics.mean(found),
                "at_least_0.8": sum(similar),
                "dropped_of_those": statistics.mean(itertools.compress(found, similar)),
            }
        )
    return {"rows": rows}


def lsh(arguments: argparse.Namespace) -> Row:
    """Sets of 200 random words; of |A| = |B| = 200, `shared` words are common, so s = shared / (400 - shared)."""
    size, num_pairs, rng = 200, arguments.pairs, np.random.default_rng(17)
    rows: list[Row] = []
    for wanted in np.arange(0.30, 0.985, 0.02):
        shared = round(2 * size * wanted / (1 + wanted))
        words = rng.integers(97, 123, (num_pairs, 2 * size - shared, 12), np.uint8)
        words[:, :, -1] = 32
        texts = np.concatenate([words[:, :size], words[:, size - shared :]]).reshape(2 * num_pairs, -1)
        offsets = np.arange(2 * num_pairs + 1, dtype=np.int64) * texts.shape[1]
        signature, _ = signatures(offsets, texts.ravel(), num_permutations=128, shingle_units=1)
        for bands in (Bands(14, 8), Bands(9, 13), Bands(28, 4)):
            found = int(hits(signature, num_pairs, bands).sum())
            expected = bands.probability(shared / (2 * size - shared))
            low, high = wilson(found, num_pairs)
            rows.append(
                {
                    "bands": f"{bands.num_bands} x {bands.rows_per_band}",
                    "jaccard": shared / (2 * size - shared),
                    "expected": expected,
                    "found": found / num_pairs,
                    "low": low,
                    "high": high,
                    "deviation_points": 100 * (found / num_pairs - expected),
                }
            )
    rows.sort(key=lambda row: (row["bands"], row["jaccard"]))
    worst = max(rows, key=lambda row: abs(row["deviation_points"]))
    inside = sum(row["low"] <= row["expected"] <= row["high"] for row in rows)
    return {
        "rows": rows,
        "largest deviation, points": round(worst["deviation_points"], 2),
        "at": f"{worst['bands']}, jaccard {worst['jaccard']:.3f}",
        "95 % interval there": f"{worst['low']:.4f} to {worst['high']:.4f}, expected {worst['expected']:.4f}",
        "expected value inside the 95 % interval": f"{inside} of {len(rows)}",
    }


def speed(arguments: argparse.Namespace) -> Row:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        _, size = ingested(store, prose())
        measured(store, 2)  # compiles the kernels
        for workers in (1, 2):
            repeats = [measured(store, workers) for _ in range(arguments.repeats)]
            for part in ("annotate", "deduplicate", "all"):
                cpu = [one[part]["cpu"] for one in repeats]
                wall = [one[part]["wall"] for one in repeats]
                rows.append(
                    {
                        "part": part,
                        "workers": workers,
                        "mb": size / 1e6,
                        "mb_per_core_s": size / 1e6 / statistics.median(cpu),
                        "slowest": size / 1e6 / max(cpu),
                        "fastest": size / 1e6 / min(cpu),
                        "mb_per_s": size / 1e6 / statistics.median(wall),
                        "peak_mb": max(one["peak_mb"] for one in repeats),
                    }
                )
    return {"rows": rows}


def linear(arguments: argparse.Namespace) -> Row:
    rows: list[Row] = []
    base = list(_some_prose(arguments.base_mb * 1_000_000))
    for copies in arguments.copies:
        with tempfile.TemporaryDirectory() as folder:
            documents = (
                {**one, "text": rewritten(one["text"], copy), "source": f"{one['source']}-{copy:03d}"}
                for copy in range(copies)
                for one in base
            )
            _, size = ingested(Path(folder), documents)
            counts = measured(Path(folder), 1)
            rows.append(
                {
                    "copies": copies,
                    "mb": size / 1e6,
                    "documents": counts["documents"],
                    "dropped": counts["dropped"],
                    "cpu_s": counts["all"]["cpu"],
                    "deduplicate_cpu_s": counts["deduplicate"]["cpu"],
                    "peak_mb": counts["peak_mb"],
                }
            )
    result: Row = {"rows": rows}
    if len(rows) > 2:  # a line through two points fits whatever was measured
        for what in ("cpu_s", "deduplicate_cpu_s", "peak_mb"):
            slope, r_squared = line([row["mb"] for row in rows], [row[what] for row in rows])
            result[f"{what} for a megabyte"] = f"{slope:.4f} (R^2 {r_squared:.4f} over {len(rows)} sizes)"
    return result


PARTS: Mapping[str, Callable[[argparse.Namespace], Row]] = {
    "accuracy": accuracy,
    "chinese": chinese,
    "lsh": lsh,
    "speed": speed,
    "linear": linear,
}


def measure(store: Path, workers: int) -> Row:
    """Annotate and deduplicate an ingested store in this process: CPU and wall seconds of each, and peak memory."""
    ingest, times = Artifact(store / "ingest" / "i"), {}

    def timed(name: str, work: Callable[[], Artifact]) -> Artifact:
        wall, cpu = time.perf_counter(), _cpu_seconds()
        done = work()
        times[name] = {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}
        return done

    families = ("hashes", "minhash")
    for kind in ("annotate", "deduplicate"):
        shutil.rmtree(store / kind, ignore_errors=True)
    signed = timed(
        "annotate",
        lambda: run(annotate.STEP, store / "annotate" / "a", {"from": ingest}, workers, families=families),
    )
    kept = finished(store / "select" / "s", {"from": signed})
    done = timed("deduplicate", lambda: run(deduplicate.STEP, store / "deduplicate" / "d", {"from": kept}, workers))
    times["all"] = {unit: sum(one[unit] for one in times.values()) for unit in ("wall", "cpu")}
    counts = done.counts
    return {
        **times,
        "peak_mb": max(_peak_kb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024,
        "documents": counts["documents"],
        "dropped": sum(counts["dropped"].values()),
        "seconds": counts["seconds"],
    }


def measured(store: Path, workers: int) -> Row:
    """`measure` in a process of its own, so that memory and start-up are those of one run."""
    command = [sys.executable, "-m", "benchmarks.dedup", "--measure", str(store), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def decisions(artifact: Artifact) -> dict[str, Row]:
    files = sorted((artifact.path / "decisions").rglob("*.parquet"))
    return {row["id"]: row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()}


def signed(texts: list[str]) -> Any:
    return signatures(*text_buffers(pa.array(texts, pa.large_string())))[0]


def hits(signature: Any, num_pairs: int, bands: Bands) -> Any:
    """Which of the pairs (i, num_pairs + i) share a band, bool [num_pairs]."""
    shared = np.zeros(num_pairs, bool)
    for keys in band_keys(signature, bands):
        shared |= keys[:num_pairs] == keys[num_pairs:]
    return shared


def hashed_sets(texts: list[str]) -> list[set[int]]:
    starts, hashes = shingle_sets(*text_buffers(pa.array(texts, pa.large_string())))
    return [set(hashes[a:b].tolist()) for a, b in itertools.pairwise(starts)]


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / max(len(a | b), 1)


def wilson(found: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, scale = found / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z * ((share * (1 - share) + z * z / (4 * total)) / total) ** 0.5 / scale
    return middle - half, middle + half


def line(x: list[float], y: list[float]) -> tuple[float, float]:
    """Slope of the least-squares line and R^2."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.asarray(y) - (slope * np.asarray(x) + intercept)
    spread = np.var(y)
    return float(slope), float(1 - np.var(residual) / spread) if spread else 1.0


def print_table(name: str, rows: list[Row]) -> None:
    print(f"\n{name}\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_kb() -> int:
    """Peak memory of this process. Not ru_maxrss, which begins with the memory of whoever started the process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _pieces() -> Iterator[str]:
    """Pieces of 800 to 1,600 Chinese characters without white space."""
    draw = random.Random(5)
    for record in records(SHARED / "pretrain" / "zh" / "cn_novels.jsonl.zst"):
        text, first = "".join(record["text"].split()), 0
        while len(text) - first > 1600:
            length = draw.randint(800, 1600)
            yield text[first : first + length]
            first += 40 * length  # few pieces of each chapter


def _some_prose(num_bytes: int) -> Iterator[Row]:
    """Every n-th document of the prose, so that all sources are in it, up to about so many bytes."""
    everything, total = list(prose()), 0
    size = sum(len(one["text"].encode()) for one in everything)
    every = max(1, round(size / num_bytes))
    for one in everything[::every]:
        total += len(one["text"].encode())
        if total > 1.2 * num_bytes and every > 1:
            return
        yield one


if __name__ == "__main__":
    main()
