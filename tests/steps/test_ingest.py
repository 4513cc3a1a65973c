"""The ingest step on small pages and on real ones: every record has one fate, and the bytes depend on nothing else."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.progress import Progress
from diglot.corpus.finished import record_path
from diglot.corpus.ingestion import IngestTask, document_id, entries, ingest_shard, num_records, probe, sound, without
from diglot.corpus.read.record import Limits, SourceFile
from diglot.corpus.tables import DOCUMENT
from diglot.steps.context import StepContext
from diglot.steps.ingest import STEP, IngestConfig, ingest

ENGLISH = "Debian is a complete operating system that is made of free software only."
CHINESE = "Debian 是一个完全由自由软件组成的操作系统，任何人都可以使用、学习和修改它。"


def page(body: str, lang: str | None = None, charset: str = "utf-8") -> bytes:
    attribute = f' lang="{lang}"' if lang else ""
    return f"<html{attribute}><title>T</title><body><h1>Title</h1><p>{body}</p></body></html>".encode(charset)


@pytest.fixture
def pages(tmp_path) -> Path:
    """Twelve inputs in three sources: nine that can be read, three that cannot."""
    contents = {
        "en/a.html": page(ENGLISH, "en-US"),
        "en/b.html": page(ENGLISH + " Twice."),
        "en/empty-main.html": b"<html><body><nav>menu</nav></body></html>",
        "en/nothing.html": b"",
        "en/logo.png": b"\x89PNG",
        "en/cut.html.gz": gzip.compress(page(ENGLISH))[:-9],
        "zh/zh_CN/a.html": page(CHINESE),
        "zh/b.html": page(CHINESE, "zh-TW", "gb18030"),
        "zh/invalid.html": page(CHINESE * 3, "zh").replace(b"</p>", b"\xff\xff</p>"),
        "zh/c.txt.gz": gzip.compress(CHINESE.encode()),
        "zh/more.jsonl": b'{"text": "one", "lang": "zh", "date": "2024-02-01", "license": "CC0-1.0"}\n'
        b'{"text": "two"}\n',
    }
    for name, content in contents.items():
        path = tmp_path / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "pages"


def context(out: Path, workers: int = 1) -> StepContext:
    out.mkdir(parents=True, exist_ok=True)
    return StepContext(
        step="pages", out=out, inputs={}, seed=0, workers=workers, progress=Progress(quiet=True), recipe_dir=out.parent
    )


def run(source: Path | str, out: Path, workers: int = 1, **settings: Any) -> dict[str, Any]:
    return ingest(IngestConfig(source=str(source), **settings), context(out, workers))


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def refused(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_input_has_one_fate_and_the_counts_add_up(pages, tmp_path):
    counts = run(pages, tmp_path / "out")
    assert counts["records_read"] == 12 == counts["documents"] + sum(counts["refused"].values())
    assert counts["refused"] == {"empty": 1, "truncated": 1, "unsupported_type": 1}
    assert Counter(line["reason"] for line in refused(tmp_path / "out")) == counts["refused"]
    assert counts["documents_by_source"] == {"en": 3, "zh": 6}
    assert counts["documents"] == len(rows(tmp_path / "out"))
    assert counts["bytes"] == sum(len(row["text"].encode()) for row in rows(tmp_path / "out"))


def test_documents_have_text_language_place_and_facts(pages, tmp_path):
    run(pages, tmp_path / "out", license="CC-BY-4.0")
    by_place = {
        (row["source"], row["origin"]["container"], row["origin"]["offset"]): row for row in rows(tmp_path / "out")
    }
    row = by_place["en", "a.html", 0]
    assert row["text"] == f"# Title\n\n{ENGLISH}"
    assert (row["lang"], row["url"], row["license"]) == ("en", "file:en/a.html", "CC-BY-4.0")
    assert json.loads(row["meta"])["title"] == "T"
    assert by_place["en", "empty-main.html", 0]["text"] == ""
    assert by_place["zh", "zh_CN/a.html", 0]["lang"] == "zh-Hans"  # by its folder
    legacy = by_place["zh", "b.html", 0]
    assert (CHINESE in legacy["text"], legacy["lang"]) == (True, "zh-Hant")
    assert json.loads(legacy["meta"])["charset"] == "gb18030"
    damaged = by_place["zh", "invalid.html", 0]
    assert "\ufffd\ufffd" in damaged["text"]
    assert json.loads(damaged["meta"])["undecodable_bytes"] == 2
    assert by_place["zh", "c.txt.gz", 0]["text"] == CHINESE
    line = by_place["zh", "more.jsonl", 0]
    assert (line["text"], line["date"], line["license"], line["lang"]) == ("one", "2024-02-01", "CC0-1.0", "zh-Hans")
    assert pq.read_schema(tmp_path / "out" / "documents" / "en" / "00000.parquet").equals(DOCUMENT)


def test_sources_are_ledger_records_with_their_counts(pages, tmp_path):
    run(pages, tmp_path / "out")
    english, chinese = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert (english["id"], english["documents"], english["license"], english["acquisition"]) == ("en", 3, None, "other")
    assert chinese["period"] == ["2024-02-01", "2024-02-01"]
    assert chinese["bytes"] == sum(len(row["text"].encode()) for row in rows(tmp_path / "out") if row["source"] == "zh")


def test_worker_counts_1_2_4_write_the_same_bytes(pages, tmp_path):
    for workers in (1, 2, 4):
        run(pages, tmp_path / f"out{workers}", workers, shard_bytes=200)
    assert len(list((tmp_path / "out1").rglob("*.parquet"))) >= 6
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2") == contents(tmp_path / "out4")


def test_neither_the_place_of_the_folder_nor_the_shard_size_changes_an_id(pages, tmp_path):
    run(pages, tmp_path / "out")
    shutil.copytree(pages, tmp_path / "elsewhere" / "deep" / "pages")
    run(tmp_path / "elsewhere" / "deep" / "pages", tmp_path / "other", shard_bytes=100)
    assert sorted(row["id"] for row in rows(tmp_path / "out")) == sorted(row["id"] for row in rows(tmp_path / "other"))
    assert len({row["id"] for row in rows(tmp_path / "out")}) == 9


def test_the_subset_is_the_smallest_ids_whatever_the_shards(pages, tmp_path):
    run(pages, tmp_path / "all")
    for number, settings in enumerate([{}, {"shard_bytes": 100}]):
        counts = run(pages, tmp_path / f"some{number}", max_documents=4, **settings)
        kept = sorted(row["id"] for row in rows(tmp_path / f"some{number}"))
        readable = sorted([row["id"] for row in rows(tmp_path / "all")])
        assert set(kept) <= set(readable[:4])
        assert counts["left_out"] == 5


def test_a_second_run_over_finished_shards_writes_nothing_and_gives_the_same(pages, tmp_path):
    first = run(pages, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    second = run(pages, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == before
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_lost_a_truncated_and_a_stale_shard_are_noticed(pages, tmp_path):
    run(pages, tmp_path / "out")
    whole = contents(tmp_path / "out")
    folder = tmp_path / "out" / "documents"
    (folder / "en" / "00000.parquet").unlink()
    (folder / "zh" / "00000.parquet").write_bytes(b"PAR1")
    (folder / "zh" / "00007.parquet").write_bytes(whole["documents/zh/00000.parquet"])
    run(pages, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_a_page_that_kills_its_worker_is_refused_as_crash(pages, tmp_path):
    file = SourceFile(source="s", path=str(pages / "zh" / "more.jsonl"), container="more.jsonl", format="jsonl")
    task = IngestTask(
        source="s",
        license=None,
        files=(file,),
        out=tmp_path / "0.parquet",
        limits=Limits(max_document_bytes=99),
        part_bytes=9,
    )
    assert num_records(task) == 2
    probe(task, 0, 2)
    result = ingest_shard(without(task, (0,)))
    assert (result["documents"], result["refused"]) == (1, {"crash": 1})


def test_text_beyond_the_part_size_goes_into_further_parts(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(5000)))
    run(path, tmp_path / "out", shard_bytes=20_000)
    folder = tmp_path / "out" / "documents" / "d"
    names = sorted(part.name for part in folder.glob("*.parquet"))
    assert names == ["00000-001.parquet", "00000-002.parquet", "00000.parquet"]
    assert sum(pq.read_metadata(folder / name).num_rows for name in names) == 5000
    assert record_path(folder / "00000.parquet").exists()


def test_half_characters_zero_bytes_and_other_line_ends_do_not_reach_the_table(tmp_path):
    (tmp_path / "d.jsonl").write_text(r'{"text": "a\ud800b\u0000c\r\nd", "title": "\udfff"}' + "\n")
    run(tmp_path / "d.jsonl", tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert row["text"] == "a\ufffdbc\nd"
    assert sound("a\rb") == "a\nb"


def test_records_of_one_compressed_block_have_different_ids(tmp_path, shared):
    path = shared / "pretrain" / "warc" / "mixed-00000.warc.gz"
    small = tmp_path / "a.warc.gz"
    small.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:3_000_000]))
    file = SourceFile(source="s", path=str(small), container="a.warc.gz", format="warc")
    task = IngestTask(
        source="s",
        license=None,
        files=(file,),
        out=tmp_path / "0",
        limits=Limits(max_document_bytes=1 << 24),
        part_bytes=9,
    )
    ids = [entry.id for entry in entries(task)]
    assert len(set(ids)) == len(ids) > 5
    assert document_id("s", "c", 0) == document_id("s", "c", 0, 0) != document_id("s", "c", 0, 1)


def test_the_mixed_archive_is_ingested_as_its_truth_says(tmp_path, shared):
    counts = run(shared / "pretrain" / "warc" / "mixed-00000.warc.gz", tmp_path / "out", workers=2)
    assert (counts["records_read"], counts["documents"]) == (299, 264)
    assert counts["refused"] == {"http_301": 8, "http_404": 11, "robots": 7, "type_application/json": 9}
    found = rows(tmp_path / "out")
    assert Counter(json.loads(row["meta"])["charset"] for row in found) == {"utf-8": 244, "gb18030": 20}
    assert not any("undecodable_bytes" in json.loads(row["meta"]) for row in found)
    assert len({row["id"] for row in found}) == 264
    (record,) = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert (record["id"], record["acquisition"]) == ("mixed-00000", "crawl")


def test_an_empty_folder_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "pages").mkdir()
    with pytest.raises(InputError, match=r"holds no files.*--set steps.pages.source=") as caught:
        run(tmp_path / "pages", tmp_path / "out")
    assert caught.value.exit_code == 1


def test_a_folder_without_anything_readable_is_an_error_that_says_why(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"no readable document \(unsupported_type 1\)"):
        run(tmp_path / "pages", tmp_path / "out")


@pytest.mark.parametrize("settings", [{"source": ""}, {"source": []}, {"source": "x", "max_documents": 0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        IngestConfig(**settings)


def test_a_full_disk_is_an_error_with_a_next_action_and_leaves_nothing_half(pages, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        (pages / "en" / "big.txt").write_text(os.urandom(200_000).hex())
        with pytest.raises(DiglotError, match=r"no space left .*run the same command again"):
            run(pages, disk / "out")
        assert not list(disk.rglob("*.partial"))
        assert not (disk / "out" / "documents" / "en" / "00000.parquet").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_runtime_facts_are_no_part_of_the_result():
    """Where the pages lie is none either: their content is observed instead."""
    places = ("source", "cc_base")
    assert STEP.result_fields() == [f.name for f in dataclasses.fields(IngestConfig) if f.name not in places]
    assert STEP.observe is not None
    assert not STEP.draws_random_numbers
