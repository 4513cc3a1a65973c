"""The data half of a recipe on every back end: workers, shares of a batch scheduler, a Ray cluster.

Same bytes from all, also when processes are killed and a node is lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from diglot.core.storage import sha256_file
from ray_on_loopback import ray_cluster

RECIPE = """
recipe: cleaning
seed: 5
steps:
  pages: {kind: ingest, source: SOURCE, shard_bytes: 120000}
  signals: {kind: annotate, from: pages}
  kept: {kind: select, from: signals}
  distinct: {kind: deduplicate, from: kept}
  corpus: {kind: split, from: distinct, share_heldout: 0.1}
  tokenizer: {kind: train_tokenizer, from: corpus, vocab_size: 3000}
  tokens: {kind: pack, from: corpus, tokenizer: tokenizer}
"""
FILES = {
    "en": ("hf_course", "python_docs", "us_speeches_shakespeare"),
    "zh": ("hf_course", "how_to_cook", "d2l_book"),
}
FILE_BYTES = 600_000  # of JSON taken from the beginning of each

pytestmark = [pytest.mark.slow, pytest.mark.shared, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Real documentation, speeches and recipes in both languages, with copies of some of them; and the recipe file."""
    folder = tmp_path_factory.mktemp("corpus")
    for lang, names in FILES.items():
        for name in names:
            lines, size = [], 0
            with (
                (shared / "pretrain" / lang / f"{name}.jsonl.zst").open("rb") as packed,
                zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as stream,
            ):
                for line in io.BufferedReader(stream):
                    size += len(line)
                    if size > FILE_BYTES and lines:
                        break
                    lines.append(line)
            for part in range(0, len(lines), 20):
                path = folder / "source" / lang / f"{name}-{part:04}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"".join(lines[part : part + 20]))
            (folder / "source" / lang / f"{name}-copies.jsonl").write_bytes(b"".join(lines[:5]))
    (folder / "cleaning.yaml").write_text(RECIPE.replace("SOURCE", str(folder / "source")))
    return folder


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of every file that one process writes."""
    folder = tmp_path_factory.mktemp("one")
    diglot(corpus, folder, "--workers", "1")
    found = hashes(folder)
    assert sum(name.startswith("ingest/") for name in found) > 20
    return found


def start(corpus: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "diglot", "run", str(corpus / "cleaning.yaml"), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def diglot(corpus: Path, folder: Path, *arguments: str, **environment: str) -> str:
    process = start(corpus, folder, *arguments, **environment)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def hashes(folder: Path) -> dict[str, str]:
    """Every file of every artifact but the manifests, which hold times."""
    store = folder / "store"
    files = [p for p in store.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "manifest.json"]
    return {str(path.relative_to(store)): sha256_file(path) for path in sorted(files)}


def kill(process: subprocess.Popen[str]) -> bool:
    """With its workers, as the kernel would. False when it had finished."""
    running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


@pytest.mark.parametrize("workers", ["2", "4"])
def test_two_and_four_workers_write_the_same_bytes(corpus: Path, undisturbed: dict[str, str], tmp_path: Path, workers):
    diglot(corpus, tmp_path, "--workers", workers)
    assert hashes(tmp_path) == undisturbed


def shares(corpus: Path, folder: Path, until: str) -> list[subprocess.Popen[str]]:
    return [start(corpus, folder, "--until", until, "--shard", f"{i}/3", "--workers", "1") for i in range(3)]


def test_three_shares_side_by_side_write_the_same_bytes(corpus: Path, undisturbed: dict[str, str], tmp_path: Path):
    for until, divided in (("signals", ("pages", "signals")), ("kept", ("kept",)), ("tokens", ("tokens",))):
        for step in divided:
            processes = shares(corpus, tmp_path, until)
            said = [process.communicate(timeout=300)[0] for process in processes]
            assert [process.returncode for process in processes] == [0, 0, 0], said
            assert all(f"{step} " in text and "shards are finished" in text for text in said), said
            assert (tmp_path / "runs" / "cleaning" / step / "manifest.json").exists(), said
        if until == "kept":
            diglot(corpus, tmp_path, "--until", "tokenizer")
    assert "tokens       reused" in diglot(corpus, tmp_path)
    assert hashes(tmp_path) == undisturbed
    assert not list((tmp_path / "store").rglob(".shares"))


def test_what_a_killed_share_leaves_undone_the_run_without_shares_makes_up_for(
    corpus: Path, undisturbed: dict[str, str], tmp_path: Path
):
    chance = random.Random(4)
    for until in ("pages", "signals"):
        processes = shares(corpus, tmp_path, until)
        time.sleep(chance.uniform(1.0, 4.0))
        kill(processes[1])  # early or late: it may have done its part, and then the others completed the step
        for process in (processes[0], processes[2]):
            process.communicate(timeout=300)
            assert process.returncode == 0
        said = diglot(corpus, tmp_path, "--until", until)
        assert f"{until:<12} done" in said or f"{until:<12} reused" in said
    diglot(corpus, tmp_path)
    assert hashes(tmp_path) == undisturbed


def test_a_pooled_run_killed_again_and_again_ends_in_the_same_bytes(
    corpus: Path, undisturbed: dict[str, str], tmp_path: Path
):
    chance, killed = random.Random(7), 0
    for _ in range(5):
        process = start(corpus, tmp_path, "--workers", "2")
        time.sleep(chance.uniform(1.5, 7.0))
        killed += kill(process)
    assert killed >= 2
    diglot(corpus, tmp_path, "--workers", "2")
    assert hashes(tmp_path) == undisturbed
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_a_ray_cluster_that_loses_its_driver_and_then_a_node_writes_the_same_bytes(
    corpus: Path, undisturbed: dict[str, str], tmp_path: Path
):
    with ray_cluster(2) as (cluster, nodes):
        process = start(corpus, tmp_path, "--cluster", cluster.address)
        wait_for_a_shard_of("ingest", process, tmp_path)
        assert kill(process)
        process = start(corpus, tmp_path, "--cluster", cluster.address)
        finished = wait_for_a_shard_of("annotate", process, tmp_path)
        cluster.remove_node(nodes[1], allow_graceful=False)
        assert process.poll() is None
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "2 nodes with 2 CPUs" in said
    assert finished < 20, "the node was lost too late to prove anything"
    assert hashes(tmp_path) == undisturbed


def wait_for_a_shard_of(kind: str, process: subprocess.Popen[str], folder: Path) -> int:
    """Until a step of this kind has finished a shard; how many it had then."""
    end = time.monotonic() + 120
    while not (finished := list((folder / "store" / kind).rglob(".*.done.json"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{kind} finished no shard in two minutes"
        time.sleep(0.02)
    return len(finished)
