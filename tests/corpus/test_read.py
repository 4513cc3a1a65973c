"""Readers and sources: what becomes a record, what is refused and why, and how inputs are named and ordered."""

from __future__ import annotations

import base64
import doctest
import gzip
import importlib
import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from diglot.core.errors import ConfigError, InputError
from diglot.core.progress import Progress
from diglot.corpus.read import debian
from diglot.corpus.read.formats import READERS, SUFFIXES, read
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile
from diglot.corpus.read.sources import Found, Selection, find

LIMITS = Limits(max_document_bytes=1000)
QUIET = Progress(quiet=True)
PAGE = "<html><p>page 页面</p></html>".encode()


def read_path(path: Path, kind: str) -> list[Record | Refused]:
    return list(read(SourceFile(source="s", path=str(path), container=path.name, format=kind), LIMITS))


def outcomes(path: Path, kind: str) -> list[bytes | str]:
    """Contents of records, reasons of refusals."""
    return [entry.content if isinstance(entry, Record) else entry.reason for entry in read_path(path, kind)]


def sources(*specs: str, base: Path, **selection: tuple[str, ...]) -> Found:
    return find(specs, bases=[base], selection=Selection(**selection), progress=QUIET)


def listed(found: Found) -> list[tuple[str, str, str]]:
    return [(file.source, file.container, file.format) for file in found.files]


@pytest.mark.parametrize("module", ["declared", "formats", "sources", "debian"])
def test_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(importlib.import_module(f"diglot.corpus.read.{module}")).failed == 0


def test_every_format_has_a_reader_that_can_be_imported():
    assert set(SUFFIXES.values()) == set(READERS)
    for target in READERS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_files_are_read_whole_and_damaged_empty_and_huge_ones_are_refused(tmp_path, suffix):
    def pack(content: bytes) -> bytes:
        return {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix](content)

    path = tmp_path / f"page.html{suffix}"
    path.write_bytes(pack(PAGE))
    assert outcomes(path, "html") == [PAGE]
    path.write_bytes(pack(b" \n"))
    assert outcomes(path, "html") == ["empty"]
    path.write_bytes(pack(b"<p>" * 1000))
    assert outcomes(path, "html") == ["too_large"]
    if suffix:
        path.write_bytes(pack(PAGE)[:-6])
        assert outcomes(path, "html") == ["truncated"]
        path.write_bytes(b"no " + pack(PAGE))
        assert outcomes(path, "html") == ["corrupt"]


def test_members_of_a_gzip_file_follow_each_other(tmp_path):
    path = tmp_path / "page.html.gz"
    path.write_bytes(gzip.compress(PAGE[:10]) + gzip.compress(PAGE[10:]) + b"\0" * 512)
    assert outcomes(path, "html") == [PAGE]


LINES = [
    {"text": "one", "url": "http://example.org/1", "lang": "zh", "license": "CC0-1.0", "id": "a", "gold": "x" * 999},
    {"content": "two", "language": "en", "date": "2024-01-02", "score": 0.5},
    {"html_b64": base64.b64encode(PAGE).decode()},
]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_are_read_under_the_names_that_datasets_use(tmp_path, suffix):
    content = "".join(json.dumps(line) + "\n" for line in LINES).encode()
    path = tmp_path / f"d.jsonl{suffix}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix](content))
    first, second, third = read(
        SourceFile(source="s", path=str(path), container="d", format="jsonl"), Limits(max_document_bytes=5000)
    )
    assert (first.content, first.url, first.lang, first.license) == ("one", "http://example.org/1", "zh", "CC0-1.0")
    assert first.meta == {"id": "a"}
    assert (second.content, second.lang, second.date, second.meta) == ("two", "en", "2024-01-02", {"score": 0.5})
    assert (third.content, third.is_html) == (PAGE, True)
    assert content[second.offset :].startswith(b'{"content"')


def test_bad_json_lines_are_refused_one_by_one(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(
        b'{"text": "good"}\n{"text": \n[1]\n{"title": "no text"}\n{"text": " "}\n\n'
        + b'{"html_b64": "?"}\n{"text": "'
        + b"x" * 2000
        + b'"}\n{"text": "bad \xff byte"}\n{"text": "last"}'
    )
    assert outcomes(path, "jsonl") == [
        "good", "invalid_json", "invalid_json", "no_text", "empty", "invalid_base64", "too_large", "bad \ufffd byte",
        "last",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_of_a_truncated_dataset_the_lines_before_the_end_are_kept(tmp_path, suffix):
    content = b"".join(json.dumps({"text": os.urandom(300).hex()}).encode() + b"\n" for _ in range(2000))
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    path = tmp_path / f"d.jsonl{suffix}"
    path.write_bytes(pack(content)[: len(pack(content)) // 2])
    *records, end = read_path(path, "jsonl")
    assert end.reason == "truncated"
    assert 500 < len(records) < 1500
    assert all(isinstance(record, Record) for record in records)


def test_parquet_rows_are_read_as_json_lines_are_and_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(
        pa.table({"text": ["one", None, "x" * 2000], "url": ["u", "v", "w"], "tokens": [[1], [2], [3]]}), path
    )
    assert outcomes(path, "parquet") == ["one", "no_text", "too_large"]
    pq.write_table(pa.table({"text": ["字" * 333, "字" * 334]}), tmp_path / "zh.parquet")
    assert outcomes(tmp_path / "zh.parquet", "parquet") == ["字" * 333, "too_large"]  # the limit counts bytes
    assert read_path(path, "parquet")[0].url == "u"
    path.write_bytes(path.read_bytes()[:-20])
    assert outcomes(path, "parquet") == ["corrupt"]


def test_dates_that_python_cannot_hold_do_not_stop_a_table_and_others_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = pa.array([0, 2**61], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["one", "two"], "date": times}), tmp_path / "d.parquet")
    first, second = read_path(tmp_path / "d.parquet", "parquet")
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.date or "").startswith("1970-01-01")
    assert second.content == "two"


def test_a_byte_order_mark_costs_no_document_and_numbers_that_json_lacks_no_metadata(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one", "score": NaN, "rank": 2.5}\n')
    (record,) = read_path(path, "jsonl")
    assert isinstance(record, Record)
    assert record.meta == {"rank": 2.5}


def test_hidden_folders_are_no_source(tmp_path):
    tree(tmp_path, "a/b.txt", ".git/notes.txt", "a/.cache/c.txt")
    assert [file.container for file in sources(str(tmp_path), base=tmp_path).files] == ["b.txt"]


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PAGE)
    return root


def test_top_folders_and_container_files_are_sources_and_other_files_together_are_one(tmp_path):
    root = tree(tmp_path / "pages", "b/z.html", "b/deep/a.htm.gz", "a/x.txt", "top.md", "crawl-7.warc.gz", "logo.png")
    assert listed(sources("pages", base=tmp_path)) == [
        ("a", "x.txt", "text"),
        ("b", "deep/a.htm.gz", "html"),
        ("b", "z.html", "html"),
        ("crawl-7", "crawl-7.warc.gz", "warc"),
        ("pages", "logo.png", "unsupported_type"),
        ("pages", "top.md", "text"),
    ]
    assert sources(str(root), base=Path("/")).sources["crawl-7"].acquisition == "crawl"


def test_names_do_not_depend_on_where_the_folder_is(tmp_path):
    names = ("en/a.html", "zh/b.html")
    tree(tmp_path / "here" / "pages", *names)
    tree(tmp_path / "there" / "far" / "pages", *names)
    assert listed(sources("here/pages", base=tmp_path)) == listed(sources("there/far/pages", base=tmp_path))


def test_include_and_exclude_are_globs_below_the_source(tmp_path):
    tree(tmp_path / "pages", "en/a.html", "en/old/b.html", "en/c.txt", "zh/a.html")
    found = sources("pages", base=tmp_path, include=("*.html",), exclude=("en/old/*",))
    assert [file.container for file in found.files] == ["a.html", "a.html"]


def test_link_loops_end_and_links_to_files_that_are_read_anyway_are_refused(tmp_path):
    root = tree(tmp_path / "pages", "en/a.html", "en/deep/c.html")
    (root / "shortcut").symlink_to("en/deep")
    (root / "en" / "loop").symlink_to("..")
    (root / "en" / "self").symlink_to(".")
    (root / "en" / "again.html").symlink_to("a.html")
    (root / "en" / "broken.html").symlink_to("nothing.html")
    os.mkfifo(root / "en" / "pipe.html")
    outside = tree(tmp_path / "outside", "b.html")
    (root / "zh").symlink_to(outside)
    (outside / "back").symlink_to(root)
    assert listed(sources("pages", base=tmp_path)) == [
        ("en", "a.html", "html"),
        ("en", "again.html", "link"),
        ("en", "broken.html", "broken_link"),
        ("en", "deep/c.html", "html"),
        ("en", "pipe.html", "no_file"),
        ("zh", "b.html", "html"),
    ]


def test_globs_and_single_files_are_sources_by_their_name(tmp_path):
    tree(tmp_path, "data/part-0.jsonl.zst", "data/part-1.jsonl.zst", "data/x.txt")
    assert listed(sources("data/*.jsonl.zst", base=tmp_path)) == [
        ("part-0", "part-0.jsonl.zst", "jsonl"),
        ("part-1", "part-1.jsonl.zst", "jsonl"),
    ]


def test_remote_files_are_found_and_read_through_fsspec():
    import fsspec

    with fsspec.open("memory://set/d.jsonl", "wb") as stream:
        stream.write(b'{"text": "far"}\n')
    found = find(["memory://set/*.jsonl"], bases=[], selection=Selection(), progress=QUIET)
    assert [(file.source, file.format, file.size) for file in found.files] == [("d", "jsonl", 16)]
    assert [entry.content for entry in read(found.files[0], LIMITS)] == ["far"]


def test_a_source_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"'nowhere' names no file or folder .*--set steps.pages.source="):
        sources("nowhere", base=tmp_path)
    with pytest.raises(InputError, match="cannot be opened"):
        sources("nosuchprotocol://x/d.jsonl", base=tmp_path)


def test_two_inputs_of_one_name_are_an_error(tmp_path):
    tree(tmp_path, "one/pages/a.html", "two/pages/a.html")
    with pytest.raises(InputError, match=r"both called a\.html in source pages"):
        sources("one/pages", "two/pages", base=tmp_path)


@pytest.fixture
def package(tmp_path) -> Path:
    """The cache with one real package in it, built with the system's own tool."""
    if not Path("/usr/bin/dpkg-deb").exists():
        pytest.skip("needs dpkg-deb")
    root = tree(tmp_path / "root", "usr/share/doc/tiny-doc/html/en/index.html", "usr/share/doc/tiny-doc/logo.png")
    (root / "usr/share/doc/tiny-doc/copyright").write_text("Files: *\nCopyright: 2024 A\nLicense: CC-BY-SA-4.0\n")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: tiny-doc\nVersion: 1.2-3\nArchitecture: all\nMaintainer: A <a@example.org>\n"
        "Homepage: http://example.org\nDescription: a tiny manual\n"
    )
    archive = tmp_path / "tiny-doc_1.2-3_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(archive)], check=True, capture_output=True)
    (tmp_path / "cache").mkdir()
    debian._unpack(archive, tmp_path / "cache")
    return tmp_path / "cache"


def test_a_package_in_the_cache_is_used_without_the_network(package, monkeypatch):
    monkeypatch.setenv("DIGLOT_CACHE", str(package.parent / "own"))
    (package.parent / "own").mkdir()
    package.rename(package.parent / "own" / "debian")
    monkeypatch.setenv("PATH", "/nowhere")
    found = find(["debian:tiny-doc"], bases=[], selection=Selection(include=("*.html",)), progress=QUIET)
    (file,) = found.files
    assert file.url == "debian://tiny-doc/usr/share/doc/tiny-doc/html/en/index.html"
    source = found.sources["tiny-doc"]
    assert (source.version, source.license, source.title) == ("1.2-3", "CC-BY-SA-4.0", "a tiny manual")
    assert (source.acquisition, source.address) == ("public", "http://example.org")


def test_where_there_is_no_apt_the_error_shows_how_to_use_other_pages(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"needs apt-get, which this machine lacks\. .*--set steps\.pages\.source="):
        debian.fetch(["debian-faq"], tmp_path, QUIET)


def test_where_apt_fails_its_own_words_are_shown(tmp_path, monkeypatch):
    for name in ("apt-get", "dpkg-deb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'E: Unable to connect to the mirror' >&2\nexit 100\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(InputError, match=r"lists: Unable to connect to the mirror .*--set steps\.pages\.source="):
        debian.fetch(["debian-faq"], tmp_path / "cache", QUIET)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "-o=x"])
def test_what_is_no_package_name_is_never_given_to_apt(name, tmp_path):
    with pytest.raises(ConfigError, match="no Debian package name"):
        debian.fetch([name], tmp_path, QUIET)


def test_licences_are_quoted_and_never_guessed():
    assert (
        debian.license_of("Files: debian/*\nLicense: GPL-3\n\nFiles: *\nCopyright: A\nLicense: MIT or BSD\n")
        == "MIT or BSD"
    )
    assert debian.license_of("License: MIT\n text\n\nLicense: GPL-2+\n") == "MIT, GPL-2+"
    assert debian.license_of("Permission is granted to copy this document.") is None
