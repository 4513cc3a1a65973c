"""The write step: what was kept, all of it, in files that other tools and our own reader read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from diglot.core.errors import ConfigError
from diglot.corpus.read.formats import format_of, read
from diglot.corpus.read.record import Limits, SourceFile
from diglot.corpus.splits import split_documents
from diglot.ledger.artifact import Artifact
from diglot.steps.deduplicate import STEP as DEDUPLICATE
from diglot.steps.split import STEP as SPLIT
from diglot.steps.write import FORMATS, STEP, WriteConfig
from handmade_corpus import Doc, run_step, selected
from small_store import documents

DOCS = documents(12)
KEPT = [doc for doc in DOCS if doc.reason < 0]


@pytest.fixture
def corpus(tmp_path) -> Artifact:
    return selected(tmp_path, DOCS)


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path, partitioning=None).to_pylist()
    content = path.read_bytes()
    if path.suffix == ".zst":
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    elif path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.decode().splitlines()]


@pytest.mark.parametrize("form", FORMATS)
def test_the_kept_documents_are_written_by_source_and_language(corpus, tmp_path, form):
    written = run_step(STEP, tmp_path / "write" / "w", inputs={"from": corpus}, format=form)
    files = sorted((written.path / "output").rglob(f"*.{form}"))
    found = {row["text"]: row for path in files for row in rows(path)}
    assert sorted(found) == sorted(doc.text for doc in KEPT)
    for path in files:
        for row in rows(path):
            assert path.relative_to(written.path / "output").parts[:2] == (row["source"], row["lang"])
    for doc in KEPT:
        assert found[doc.text]["url"] == doc.url
    report = json.loads((written.path / "report.json").read_text())
    assert (report["kept"], report["dropped"]) == (len(KEPT), len(DOCS) - len(KEPT))
    assert sum(report["documents_by_language"].values()) == sum(report["documents_by_source"].values()) == len(KEPT)
    assert report["bytes"] == sum(len(doc.text.encode()) for doc in KEPT)


def test_what_is_written_is_read_again_as_the_same_documents(corpus, tmp_path):
    written = run_step(STEP, tmp_path / "write" / "w", inputs={"from": corpus})
    texts = []
    for path in (written.path / "output").rglob("*.jsonl.zst"):
        file = SourceFile(source="s", path=str(path), container=path.name, format=format_of(path.name))
        texts += [record.content for record in read(file, Limits(max_document_bytes=1 << 20))]
    assert sorted(texts) == sorted(doc.text for doc in KEPT)


def test_worker_counts_1_and_2_write_the_same_bytes(corpus, tmp_path):
    written = [
        run_step(STEP, tmp_path / "write" / str(n), inputs={"from": corpus}, workers=n, format="jsonl.gz")
        for n in (1, 2)
    ]
    one, two = ({p.relative_to(w.path): p.read_bytes() for p in (w.path / "output").rglob("*.gz")} for w in written)
    assert one == two
    assert one


@pytest.mark.parametrize("form", ["jsonl.zst", "parquet"])
def test_below_a_split_each_row_says_whether_it_is_held_out(corpus, tmp_path, form):
    settings = {"share_heldout": 0.3, "max_heldout_share": 0.6, "min_heldout_documents": 1}
    split = run_step(SPLIT, tmp_path / "split" / "s", inputs={"from": corpus}, **settings)
    written = run_step(STEP, tmp_path / "write" / "w", inputs={"from": split}, format=form)
    found = {row["id"]: row["held_out"] for path in written.path.rglob(f"*.{form}") for row in rows(path)}
    heldout = {i for _, table in split_documents(split, "heldout", ["id"]) for i in table["id"].to_pylist()}
    assert found == {doc.id: doc.id in heldout for doc in KEPT}
    assert 0 < len(heldout) < len(KEPT)
    above = run_step(STEP, tmp_path / "write" / "above", inputs={"from": corpus}, format=form)
    assert all("held_out" not in row for path in above.path.rglob(f"*.{form}") for row in rows(path))


def test_the_split_of_an_older_corpus_says_nothing_of_the_new_one(corpus, tmp_path):
    older = selected(tmp_path, DOCS[:10], "older")
    split = run_step(SPLIT, tmp_path / "split" / "s", inputs={"from": older}, min_heldout_documents=1)
    distinct = run_step(DEDUPLICATE, tmp_path / "deduplicate" / "d", inputs={"from": corpus, "against": split})
    written = run_step(STEP, tmp_path / "write" / "w", inputs={"from": distinct})
    assert written.counts["kept"] > 0
    assert all("held_out" not in row for path in written.path.rglob("*.jsonl.zst") for row in rows(path))


def test_documents_without_a_licence_are_counted_as_unknown(tmp_path):
    docs = [Doc("a page that may be copied"), Doc("a page that says nothing", license=None)]
    written = run_step(STEP, tmp_path / "write" / "w", inputs={"from": selected(tmp_path, docs)})
    assert written.counts["documents_by_license"] == {"CC0-1.0": 1, "unknown": 1}


def test_an_unknown_format_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"did you mean 'parquet'"):
        WriteConfig(from_="x", format="parket")
