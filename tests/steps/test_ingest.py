"""The ingest step on small pages and on real ones: every record has one fate, and the bytes depend on nothing else."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import gzip
import io
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.progress import Progress
from diglot.corpus.extract import extract
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


def large_archive(path: Path, pages: int = 60) -> None:
    """A gzip member a record; every fifth record is no page, one quotes a whole WARC file, one is damaged."""
    quoted = gzip.compress(warc_record("http://inside.org/", page("a page inside a page")))
    records = []
    for number in range(pages):
        body = page(f"{ENGLISH} {number} " + os.urandom(300).hex())
        status = 404 if number % 5 == 4 else 200
        records.append(gzip.compress(warc_record(f"http://example.org/{number}", body, status)))
    for at in (7, 23, 41):  # stored, so that the quoted members stand in the file as they are
        records[at] = gzip.compress(warc_record(f"http://example.org/{at}", quoted * 40), 0)
    cut = bytearray(records[31])
    cut[100:140] = b"\xff" * 40
    records[31] = bytes(cut)
    path.write_bytes(b"".join(records))


def warc_record(url: str, body: bytes, status: int = 200) -> bytes:
    http = f"HTTP/1.1 {status} X\r\nContent-Type: text/html\r\n\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Type: application/http\r\n"
        f"WARC-Date: 2024-05-06T07:08:09Z\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def fates(out: Path) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
    kept = [(row["id"], row["text"]) for row in rows(out)]
    return sorted(kept), [(line["offset"], line["reason"], line.get("url")) for line in refused(out)]


@pytest.fixture
def in_this_process(monkeypatch) -> list[str]:
    """Shards without worker processes, whose start takes longer than small shards. Gives the labels of the calls."""
    labels: list[str] = []

    def map_shards(function: Any, tasks: Any, *, label: str, **_: Any) -> list[Any]:
        labels.append(label)
        return [function(task) for task in tasks]

    monkeypatch.setattr("diglot.corpus.executor.map_shards", map_shards)
    return labels


@pytest.mark.parametrize("span_bytes", [3_000, 20_000])
@pytest.mark.parametrize("compress", [True, False])
def test_parts_of_a_large_archive_are_read_as_the_whole_is(tmp_path, in_this_process, span_bytes, compress):
    path = tmp_path / ("a.warc.gz" if compress else "a.warc")
    large_archive(tmp_path / "a.warc.gz")
    if not compress:
        path.write_bytes(
            b"".join(warc_record(f"http://a.org/{n}", page(ENGLISH) + b"\nWARC/1.0\r\n" * 3) for n in range(60))
        )
    whole = run(path, tmp_path / "whole")
    parts = run(path, tmp_path / "parts", span_bytes=span_bytes)
    assert parts["shards"] > 1 == whole["shards"]
    assert parts["input_bytes"] == whole["input_bytes"]
    assert fates(tmp_path / "parts") == fates(tmp_path / "whole")
    assert parts["records_read"] == whole["records_read"]


def test_a_part_that_starts_in_a_quoted_archive_is_read_again(tmp_path, in_this_process):
    """The test above would not notice if none did."""
    large_archive(tmp_path / "a.warc.gz")
    run(tmp_path / "a.warc.gz", tmp_path / "out", span_bytes=3_000)
    assert "ingest, a part again" in in_this_process


@pytest.mark.slow
def test_parts_of_damaged_archives_are_read_as_the_whole_is(tmp_path, in_this_process, monkeypatch):
    """Mutated archives of the fuzz benchmark, in parts of every size."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    fuzz = pytest.importorskip("benchmarks.fuzz")
    checked = 0
    for number in range(900):
        name, content = fuzz.case(number, seed=5)
        if name not in ("a.warc", "a.warc.gz", "a.wet", "a.wat.gz", "a.jsonl") or len(content) < 200:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        fate = []
        for span_bytes in (1 << 30, max(100, len(content) // (2 + number % 5))):
            out = folder / str(span_bytes)
            with contextlib.suppress(InputError):  # no readable document
                run(folder / name, out, span_bytes=span_bytes)
            fate.append(fates(out))
        assert fate[0] == fate[1], f"case {number} of seed 5, {name}"
        checked += 1
    assert checked > 100


@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet"])
def test_parts_of_a_large_dataset_are_read_as_the_whole_is(tmp_path, in_this_process, name):
    import pyarrow as pa

    texts = [f"text {n} " + "字" * (n % 97) for n in range(700)]
    if name == "d.jsonl":
        lines = [json.dumps({"text": text}) if n % 50 else "no json" for n, text in enumerate(texts)]
        (tmp_path / name).write_text("\n".join(lines))
    else:
        pq.write_table(pa.table({"text": texts}), tmp_path / name, row_group_size=64)
    whole = run(tmp_path / name, tmp_path / "whole")
    for span_bytes in (1_500, 4_000):
        parts = run(tmp_path / name, tmp_path / f"parts{span_bytes}", span_bytes=span_bytes)
        assert parts["shards"] > 1
        assert fates(tmp_path / f"parts{span_bytes}") == fates(tmp_path / "whole")
        assert parts["records_read"] == whole["records_read"] == 700


def test_worker_counts_1_2_4_write_the_same_bytes_from_parts_of_one_file(tmp_path):
    large_archive(tmp_path / "a.warc.gz")
    for workers in (1, 2, 4):
        run(tmp_path / "a.warc.gz", tmp_path / f"out{workers}", workers, span_bytes=9_000)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2") == contents(tmp_path / "out4")


def test_a_file_below_the_span_size_is_one_shard_as_ever(tmp_path, in_this_process):
    large_archive(tmp_path / "a.warc.gz")
    size = (tmp_path / "a.warc.gz").stat().st_size
    run(tmp_path / "a.warc.gz", tmp_path / "out", span_bytes=size)
    assert [path.name for path in (tmp_path / "out" / "documents").rglob("*.parquet")] == ["00000.parquet"]


def test_a_record_that_kills_its_reader_costs_the_rest_of_its_file_and_is_counted(tmp_path, monkeypatch):
    import deadly_reader

    from diglot.corpus import ingestion

    (tmp_path / "pages").mkdir()
    for name, deadly in (("a", False), ("b", True), ("c", False)):
        lines = [{"text": f"{name}{n}"} for n in range(4)]
        if deadly:
            lines[2]["text"] = deadly_reader.DEADLY
        (tmp_path / "pages" / f"{name}.html").write_bytes(page(ENGLISH))
        (tmp_path / "pages" / f"x{name}").mkdir()
        (tmp_path / "pages" / f"x{name}" / f"{name}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
    monkeypatch.setattr(ingestion, "ingest_shard", deadly_reader.ingest_shard)
    monkeypatch.setattr(ingestion, "QUARANTINE", deadly_reader.QUARANTINE)
    counts = run(tmp_path / "pages", tmp_path / "out", workers=2)
    assert counts["refused"] == {"crash": 1}
    assert counts["documents"] == 3 + 4 + 2 + 4
    (line,) = refused(tmp_path / "out")
    assert (line["source"], line["reason"]) == ("xb", "crash")
    assert counts["records_read"] == counts["documents"] + 1
    assert not list((tmp_path / "out").rglob("*.reading"))


def test_fields_are_mapped_by_source(tmp_path, in_this_process):
    (tmp_path / "pages" / "news").mkdir(parents=True)
    (tmp_path / "pages" / "books").mkdir()
    (tmp_path / "pages" / "news" / "a.jsonl").write_text('{"story": {"body": "one"}, "link": "http://a.org"}\n')
    (tmp_path / "pages" / "books" / "b.csv").write_text("text,id\ntwo,7\n")
    fields = {"news": {"text": "story.body", "url": "link"}}
    run(tmp_path / "pages", tmp_path / "out", fields=fields)
    assert [(row["text"], row["url"]) for row in rows(tmp_path / "out")] == [("two", None), ("one", "http://a.org")]


@pytest.mark.parametrize("fields", [{"txet": "body"}, {"text": "body", "x": {"text": "y"}}, {"*": {"titel": "x"}}])
def test_impossible_field_maps_are_refused(fields):
    with pytest.raises(ConfigError):
        IngestConfig(source="x", fields=fields)


def test_half_characters_in_addresses_and_names_do_not_stop_the_run(tmp_path, in_this_process):
    line = r'{"text": "one", "url": "http://a.org/\ud800", "date": "\udfff", "license": "\ud83d", "lang": "\ud800"}'
    (tmp_path / "d.jsonl").write_text(line + "\n")
    run(tmp_path / "d.jsonl", tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert (row["url"], row["date"], row["license"], row["lang"]) == ("http://a.org/\ufffd", "\ufffd", "\ufffd", None)


def test_every_record_of_the_mixed_archive_has_the_fate_of_its_truth(tmp_path, shared):
    """Status, type, charset and the text itself; duplicates are the same text under another address."""
    folder = shared / "pretrain" / "warc"
    truths = {truth["url"]: truth for truth in lines_of(folder / "mixed-00000.truth.jsonl.zst")}
    pages_of = {
        row["id"]: row for path in sorted((shared / "pretrain" / "html").glob("*.zst")) for row in lines_of(path)
    }
    run(folder / "mixed-00000.warc.gz", tmp_path / "out", workers=2, span_bytes=1 << 20)
    documents = {row["url"]: row for row in rows(tmp_path / "out")}
    reasons = {line["url"]: line["reason"] for line in refused(tmp_path / "out")}
    assert not documents.keys() & reasons.keys()
    assert documents.keys() | reasons.keys() == truths.keys()
    num_transcoded = num_copies = 0
    for url, truth in truths.items():
        kind = truth["content_type"].split(";")[0]
        if truth["status"] != 200:
            assert reasons[url] == f"http_{truth['status']}"
        elif url.endswith("/robots.txt"):
            assert reasons[url] == "robots"
        elif kind != "text/html":
            assert reasons[url] == f"type_{kind}"
        else:
            row = documents[url]
            assert json.loads(row["meta"])["charset"] == truth["charset"]
            source = pages_of[truth["page_id"]]
            html = source.get("html") or base64.b64decode(source["html_b64"]).decode(truth["charset"], "replace")
            assert row["text"] == sound(extract(html).text), url
            num_transcoded += bool(truth.get("transcoded"))
            if original := truth.get("duplicate_of"):
                num_copies += 1
                assert row["text"] == documents[original]["text"]
                assert row["id"] != documents[original]["id"]
    assert num_transcoded == 20
    assert num_copies >= 8


def lines_of(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as stream:
        reader = io.TextIOWrapper(zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(stream), "utf-8")
        return [json.loads(line) for line in reader]


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


def test_a_disk_that_fills_up_keeps_the_finished_shards_and_the_next_run_goes_on(
    tmp_path, in_this_process, monkeypatch
):
    from diglot.corpus import ingestion

    (tmp_path / "pages").mkdir()
    for number in range(4):
        (tmp_path / "pages" / f"s{number}").mkdir()
        (tmp_path / "pages" / f"s{number}" / "a.html").write_bytes(page(f"{ENGLISH} {number}"))
    run(tmp_path / "pages", tmp_path / "whole")
    written: list[int] = []
    writer = pq.ParquetWriter.write_table

    def full(self: Any, table: Any, **settings: Any) -> None:
        written.append(1)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        writer(self, table, **settings)

    monkeypatch.setattr(ingestion.pq.ParquetWriter, "write_table", full)
    with pytest.raises(DiglotError, match=r"no space left .*Finished shards .*run the same command again"):
        run(tmp_path / "pages", tmp_path / "out")
    folder = tmp_path / "out" / "documents"
    assert sorted(path.parent.name for path in folder.rglob("*.parquet")) == ["s0", "s1"]
    assert not list(folder.rglob("*.partial"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    run(tmp_path / "pages", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_runtime_facts_are_no_part_of_the_result():
    """Where the pages lie is none either: their content is observed instead."""
    places = ("source", "cc_base")
    assert STEP.result_fields() == [f.name for f in dataclasses.fields(IngestConfig) if f.name not in places]
    assert STEP.observe is not None
    assert not STEP.draws_random_numbers


def test_half_a_character_in_a_page_stops_no_run(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"html": "<p>half \\ud800 a character, and a sentence after it.</p>"}\n')
    for extractor in ("diglot", "resiliparse", "trafilatura"):
        run(tmp_path / "d.jsonl", tmp_path / extractor, extractor=extractor)
        assert len(rows(tmp_path / extractor)) == 1


def test_html_in_base64_may_have_another_name(tmp_path):
    page = base64.b64encode(b"<p>A sentence of the page, long enough to stay.</p>").decode()
    (tmp_path / "d.jsonl").write_text(json.dumps({"page": page, "text": "not this"}) + "\n")
    run(tmp_path / "d.jsonl", tmp_path / "out", fields={"html_b64": "page"})
    assert [row["text"].strip() for row in rows(tmp_path / "out")] == ["A sentence of the page, long enough to stay."]


def test_of_two_maps_of_fields_the_more_specific_counts_whatever_the_order():
    maps = {"*": {"text": "post"}, "news*": {"text": "body"}}
    for fields in (maps, dict(reversed(maps.items()))):
        assert IngestConfig(source="x", fields=fields).fields_of("news-1") == (("text", "body"),)


def test_named_sources_tell_files_of_one_name_apart(tmp_path):
    for lang, text in (("en", "one"), ("zh", "一")):
        (tmp_path / lang).mkdir()
        (tmp_path / lang / "manual.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    both = {lang: str(tmp_path / lang) for lang in ("en", "zh")}
    with pytest.raises(InputError, match=r"source: \{en: PATH, zh: PATH\}"):
        ingest(IngestConfig(source=list(both.values())), context(tmp_path / "list"))
    counts = ingest(IngestConfig(source=both), context(tmp_path / "map"))
    assert counts["documents_by_source"] == {"en-manual": 1, "zh-manual": 1}
    assert {row["source"]: row["text"] for row in rows(tmp_path / "map")} == {"en-manual": "one", "zh-manual": "一"}
