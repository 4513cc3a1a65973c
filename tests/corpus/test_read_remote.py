"""Remote sources: connections that break, datasets of a hub, path lists of Common Crawl, object stores."""

from __future__ import annotations

import gzip
import io
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diglot.core.errors import InputError
from diglot.core.progress import Progress
from diglot.corpus.read.formats import read
from diglot.corpus.read.record import Limits, Record, SourceFile
from diglot.corpus.read.remote import TRIES, Resumed, UnreadableError
from diglot.corpus.read.sources import CommonCrawl, Selection, find

LIMITS = Limits(max_document_bytes=1 << 20)
QUIET = Progress(quiet=True)
LINES = "".join(json.dumps({"text": f"line {n} 第{n}行"}) + "\n" for n in range(1000)).encode()


class Flaky(io.BytesIO):
    """A stream whose reads fail at the positions that are left in `breaks`, once each."""

    def __init__(self, content: bytes, breaks: list[int]) -> None:
        super().__init__(content)
        self.breaks = breaks

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        start = self.tell()
        for at in self.breaks:
            if start <= at < start + max(size, 1):
                self.breaks.remove(at)
                raise ConnectionResetError("connection reset by peer")
        return super().read(size)


def test_a_connection_that_breaks_is_resumed_at_its_byte():
    breaks = [0, 5000, 5001, 20_000]
    opened = []

    def open_again() -> Flaky:
        opened.append(1)
        return Flaky(LINES, breaks)

    waits: list[float] = []
    stream = io.BufferedReader(Resumed(open_again, waits.append), 1000)
    assert stream.read() == LINES
    assert len(opened) == 5
    assert sorted(set(waits)) == [0.5, 1.0, 2.0]
    stream.seek(100)
    assert stream.read(10) == LINES[100:110]


def test_tries_are_bounded_and_the_error_says_where():
    stream = Resumed(lambda: Flaky(LINES, [10, 10, 10, 10, 10, 10]), lambda seconds: None)
    with pytest.raises(UnreadableError, match=f"{TRIES} tries failed at byte 0: connection reset"):
        io.BufferedReader(stream, 100).read()


@pytest.fixture
def flaky_store(monkeypatch) -> Iterator[dict[str, int]]:
    """An fsspec file system in memory whose reads behind a byte always fail: {"behind": byte}."""
    import fsspec
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

    settings = {"behind": 1 << 60}

    class Broken(MemoryFile):
        def read(self, size: int | None = -1) -> bytes:
            start = self.tell()
            content = super().read(-1 if size is None else size)
            if start + len(content) > settings["behind"]:
                self.seek(start)
                raise OSError("the store does not answer")
            return content

    class Store(MemoryFileSystem):
        protocol = ("flaky",)
        store: dict[str, object] = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        def _open(self, path: str, mode: str = "rb", **settings: object) -> object:
            opened = super()._open(path, mode, **settings)
            if mode == "rb":
                opened.__class__ = Broken
            return opened

    fsspec.register_implementation("flaky", Store, clobber=True)
    monkeypatch.setattr("diglot.corpus.read.remote.WAIT_S", 0.0)
    yield settings
    Store.store.clear()


def put(url: str, content: bytes) -> None:
    import fsspec

    with fsspec.open(url, "wb") as stream:
        stream.write(content)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.warc", "a.csv", "a.parquet", "a.html", "a.tar", "a.xml"])
def test_a_store_that_stops_answering_costs_the_rest_of_the_file_and_says_so(flaky_store, name):
    content = LINES * 100
    put(f"flaky://set/{name}", gzip.compress(content, 0) if name.endswith(".gz") else content)
    flaky_store["behind"] = 2_500_000 if name.startswith(("a.j", "a.w", "a.c")) else 0
    (file,) = find([f"flaky://set/{name}"], bases=[], selection=Selection(), progress=QUIET).files
    *before, last = read(file, LIMITS)
    assert (last.reason, "does not answer" in last.detail) == ("unreadable", True)
    if "jsonl" in name:
        assert len(before) > 50_000
        assert all(isinstance(entry, Record) for entry in before)


def test_globs_folders_and_sizes_of_an_object_store(flaky_store):
    put("flaky://bucket/en/b.jsonl", LINES)
    put("flaky://bucket/en/deep/a.jsonl.gz", gzip.compress(LINES))
    put("flaky://bucket/en/c.html", b"<p>x</p>")

    def listed(spec: str) -> list[tuple[str, int]]:
        files = find([spec], bases=[], selection=Selection(), progress=QUIET).files
        return [(file.container, file.size) for file in files]

    assert listed("flaky://bucket/en/*.jsonl") == [("b.jsonl", len(LINES))]
    assert listed("flaky://bucket/**/*.jsonl.gz") == [("a.jsonl.gz", len(gzip.compress(LINES)))]
    assert [name for name, _ in listed("flaky://bucket/en")] == ["a.jsonl.gz", "b.jsonl", "c.html"]
    with pytest.raises(InputError, match="matches nothing"):
        listed("flaky://bucket/zh/*.jsonl")


def test_files_of_a_store_are_not_asked_one_by_one_for_what_their_listing_says(flaky_store, monkeypatch):
    import fsspec

    for number in range(30):
        put(f"flaky://bucket/en/{number}.jsonl", LINES[:number])
    asked: list[str] = []
    store = fsspec.get_filesystem_class("flaky")
    info = store.info
    monkeypatch.setattr(
        store, "info", lambda self, path, **settings: asked.append(path) or info(self, path, **settings)
    )
    for spec in ("flaky://bucket/en/*.jsonl", "flaky://bucket/en"):
        asked.clear()
        files = find([spec], bases=[], selection=Selection(), progress=QUIET).files
        assert sorted(file.size for file in files) == list(range(30))
        assert len(asked) <= 3  # of the folder


# ---------------------------------------------------------------- Common Crawl


def test_a_path_list_of_common_crawl_names_the_first_files_below_its_base(tmp_path):
    crawl = "crawl-data/CC-MAIN-2024-22/segments/1715971057216.39/warc/CC-MAIN-20240517233122-20240518023122-"
    paths = [f"{crawl}{number:05}.warc.gz" for number in range(3)]
    record = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ntext\r\n\r\n"
    for path in paths[:2]:
        target = tmp_path / "mirror" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(record))
    (tmp_path / "warc.paths.gz").write_bytes(gzip.compress("".join(f"{path}\n" for path in paths).encode()))
    found = find(
        ["cc:warc.paths.gz"],
        bases=[tmp_path],
        selection=Selection(),
        progress=QUIET,
        common_crawl=CommonCrawl(base="mirror", max_files=2),
    )
    assert [file.container for file in found.files] == paths[:2]
    assert [file.size for file in found.files] == [len(gzip.compress(record))] * 2
    (source,) = found.sources.values()
    assert (source.name, source.acquisition) == ("CC-MAIN-2024-22", "crawl")
    assert [entry.content for file in found.files for entry in read(file, LIMITS)] == [b"text"] * 2
    everything = find(["cc:warc.paths.gz"], bases=[tmp_path], selection=Selection(), progress=QUIET)
    assert [file.path for file in everything.files] == [f"https://data.commoncrawl.org/{path}" for path in paths]


def test_a_path_list_that_leads_elsewhere_or_nowhere_is_an_error(tmp_path):
    (tmp_path / "paths").write_text("../../etc/passwd\n")
    with pytest.raises(InputError, match="leads out of its base"):
        find(["cc:paths"], bases=[tmp_path], selection=Selection(), progress=QUIET)
    (tmp_path / "paths").write_text("\n")
    with pytest.raises(InputError, match="names no file"):
        find(["cc:paths"], bases=[tmp_path], selection=Selection(), progress=QUIET)


# ---------------------------------------------------------------- hub


class Hub(BaseHTTPRequestHandler):
    """The few addresses of a dataset hub that listing and reading need; `files`: path -> content."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012
    commit = "0123456789abcdef0123456789abcdef01234567"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.commit)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def entry(self, path: str) -> dict[str, object]:
        return {"type": "file", "path": path, "size": len(self.files[path]), "oid": "0" * 40}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("Content-Type", "").startswith("application/json"):
            wanted = json.loads(body)["paths"]
        else:
            wanted = urllib.parse.parse_qs(body)["paths"]
        found: list[dict[str, object]] = []
        for path in wanted:
            if path in self.files:
                found.append(self.entry(path))
            elif any(name.startswith(path + "/") for name in self.files):
                found.append({"type": "directory", "path": path, "oid": "0" * 40})
        self.answer(json.dumps(found).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        self.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}")
        if "/tree/" in path:
            below = path.partition("/tree/")[2].partition("/")[2]
            prefix = below + "/" if below else ""
            recursive = "recursive=true" in self.path.lower()
            entries = [self.entry(name) for name in self.files if name.startswith(prefix)]
            if not recursive:
                entries = [entry for entry in entries if "/" not in str(entry["path"])[len(prefix) :]]
            folders = {name[:at] for name in self.files for at in range(len(name)) if name[at] == "/"}
            tops = [f for f in folders if f.startswith(prefix) and (recursive or "/" not in f[len(prefix) :])]
            entries += [{"type": "directory", "path": folder, "oid": "0" * 40} for folder in tops]
            self.answer(json.dumps(entries).encode(), Content_Type="application/json")
        elif "/resolve/" in path:
            name = path.partition("/resolve/")[2].partition("/")[2]
            if name not in self.files:
                self.answer(b"", 404, X_Error_Code="EntryNotFound")
                return
            content, status, extra = self.files[name], 200, {}
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                stop = int(last) + 1 if last else len(content)
                extra = {"Content_Range": f"bytes {first}-{stop - 1}/{len(content)}"}
                content, status = content[int(first) : stop], 206
            self.answer(content, status, ETag='"0"', Accept_Ranges="bytes", **extra)
        elif path.startswith("/api/datasets/"):
            facts = {"id": "org/name", "sha": self.commit, "siblings": [{"rfilename": name} for name in self.files]}
            self.answer(json.dumps(facts).encode(), Content_Type="application/json")
        else:
            self.answer(b"{}", 404)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    import fsspec

    pytest.importorskip("huggingface_hub")
    table = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {n} 行" for n in range(50)], "url": ["u"] * 50}), table)
    Hub.files = {
        "README.md": b"# a dataset",
        "data/train-00000-of-00002.parquet": table.getvalue(),
        "data/train-00001-of-00002.parquet": table.getvalue(),
        "extra/zh.jsonl.gz": gzip.compress(LINES),
    }
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": address, "token": False, "skip_instance_cache": True})
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield Hub
    server.shutdown()
    server.server_close()


def test_files_of_a_hub_dataset_are_found_by_glob_and_streamed(hub):
    found = find(["hf://datasets/org/name/data/*.parquet"], bases=[], selection=Selection(), progress=QUIET)
    assert [(file.source, file.container, file.format) for file in found.files] == [
        ("org-name", "data/train-00000-of-00002.parquet", "parquet"),
        ("org-name", "data/train-00001-of-00002.parquet", "parquet"),
    ]
    assert found.files[0].size == len(hub.files["data/train-00000-of-00002.parquet"])
    source = found.sources["org-name"]
    assert (source.title, source.acquisition) == ("org/name", "public")
    entries = [entry for file in found.files for entry in read(file, LIMITS)]
    assert [entry.content for entry in entries] == [f"row {n} 行" for n in range(50)] * 2
    assert any("/resolve/" in line and "bytes=" in line for line in hub.asked)  # ranges, not whole files


def test_a_revision_of_a_hub_dataset_is_its_version(hub):
    found = find(["hf://datasets/org/name@v1.2/**/*.jsonl.gz"], bases=[], selection=Selection(), progress=QUIET)
    (file,) = found.files
    assert (file.container, found.sources["org-name"].version) == ("extra/zh.jsonl.gz", "v1.2")
    assert len(list(read(file, LIMITS))) == 1000
    assert any("/v1.2/" in line for line in hub.asked)


def test_an_unknown_file_of_a_hub_is_an_error_that_says_so(hub):
    with pytest.raises(InputError, match=r"matches nothing|cannot be reached"):
        find(["hf://datasets/org/name/nothing/*.parquet"], bases=[], selection=Selection(), progress=QUIET)


def test_the_same_dataset_gives_the_same_names_wherever_it_is_read_from(hub, tmp_path):
    local = SourceFile(source="s", path=str(Path(tmp_path / "a.jsonl")), container="a.jsonl", format="jsonl")
    Path(local.path).write_bytes(LINES)
    far = find(["hf://datasets/org/name/extra/*.gz"], bases=[], selection=Selection(), progress=QUIET).files[0]
    assert [e.content for e in read(far, LIMITS)] == [e.content for e in read(local, LIMITS)]
