"""Web archives: every record of real and damaged files gets the fate that it should."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from diglot.corpus.charset import decode
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile
from diglot.corpus.read.warc import read_warc

LIMITS = Limits(max_document_bytes=16 << 20)


def read(path: Path, limits: Limits = LIMITS) -> list[Record | Refused]:
    file = SourceFile(source="s", path=str(path), container=path.name, format="warc")
    return list(read_warc(file, limits))


def fates(path: Path) -> list[str]:
    return [entry.reason if isinstance(entry, Refused) else "document" for entry in read(path)]


def warc_record(url: str, http: bytes, kind: str = "response", content_type: str = "application/http") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-06T07:08:09Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{len(http):012}>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def page(number: int, headers: str = "Content-Type: text/html; charset=utf-8", status: str = "200 OK") -> bytes:
    body = f"<html><body><p>page {number} 页面 {'text ' * 200}</p></body></html>".encode()
    return warc_record(f"http://example.org/{number}", f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body)


def write(path: Path, records: list[bytes], compress: bool) -> list[int]:
    """Returns where each record starts."""
    parts = [gzip.compress(record, mtime=0) if compress else record for record in records]
    path.write_bytes(b"".join(parts))
    return [sum(map(len, parts[:number])) for number in range(len(parts))]


@pytest.fixture(params=["gz", "plain"])
def archive(request, tmp_path) -> tuple[Path, list[int]]:
    """Ten pages, and where they start."""
    compress = request.param == "gz"
    path = tmp_path / ("a.warc.gz" if compress else "a.warc")
    return path, write(path, [page(number) for number in range(10)], compress)


def test_every_record_of_the_mixed_archive_gets_the_fate_of_its_truth(shared):
    folder = shared / "pretrain" / "warc"
    with (folder / "mixed-00000.truth.jsonl.zst").open("rb") as stream:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream))
        truths = [json.loads(line) for line in lines]
    entries = read(folder / "mixed-00000.warc.gz")
    assert len(entries) == len(truths) == 299
    charsets = Counter()
    for entry, truth in zip(entries, truths, strict=True):
        assert entry.url == truth["url"]
        kind = truth["content_type"].split(";")[0]
        if truth["status"] != 200:
            assert isinstance(entry, Refused)
            assert entry.reason == f"http_{truth['status']}"
        elif truth["url"].endswith("/robots.txt"):
            assert isinstance(entry, Refused)
            assert entry.reason == "robots"
        elif kind != "text/html":
            assert isinstance(entry, Refused)
            assert entry.reason == f"type_{kind}"
        else:
            assert isinstance(entry, Record)
            decoded = decode(entry.content, entry.label)
            charsets[decoded.charset] += 1
            assert (decoded.charset, decoded.undecodable) == (truth["charset"], 0)
    assert charsets == {"utf-8": 244, "gb18030": 20}


def test_offsets_of_a_compressed_archive_lead_back_to_the_record(shared):
    path = shared / "pretrain" / "warc" / "mixed-00000.warc.gz"
    entry = read(path)[100]
    with path.open("rb") as stream:
        stream.seek(entry.offset)
        assert entry.url.encode() in gzip.GzipFile(fileobj=stream).read(2000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.warc", ["document", "revisit"]),
        ("example.warc.gz", ["document", "revisit"]),
        ("example-bad.warc.gz.bad", ["document", "revisit", "http_302"]),
        ("example-bad-non-chunked.warc.gz", ["document", "revisit"]),
        ("example-iana.org-chunked.warc", ["document"]),
        ("example-wrong-chunks.warc.gz", ["document"]),
        ("example-resource.warc.gz", ["document"]),
        ("example-space-in-target-uri.warc.gz", ["type_image/png"]),
        ("example-trunc.warc", ["document", "corrupt"]),
        ("example-wget-bad-target-uri.warc.gz", ["document", "document", "document"]),
        ("post-test.warc.gz", ["type_application/json"] * 3),
        ("example-digest.warc", []),
    ],
)
def test_edge_cases_of_other_tools_are_read(shared, tmp_path, name, expected):
    with (
        (shared / "pretrain" / "warc" / "warcio_fixtures.tar.zst").open("rb") as stream,
        tarfile.open(fileobj=zstandard.ZstdDecompressor().stream_reader(stream), mode="r|") as archive,
    ):
        archive.extractall(tmp_path, filter="data")
    assert fates(tmp_path / name) == expected
    if name.startswith("example-wget"):
        assert read(tmp_path / name)[0].url == "http://example.com/"  # without the angle brackets


def test_pages_of_a_whole_archive_are_all_read(archive):
    path, starts = archive
    entries = read(path)
    assert [entry.offset for entry in entries] == starts
    assert all(isinstance(entry, Record) and entry.date == "2024-05-06T07:08:09Z" for entry in entries)


def test_an_archive_of_zstandard_frames_is_read_to_its_end_and_said_to_be_whole(tmp_path):
    path = tmp_path / "a.warc.zst"
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(page(number)) for number in range(10)))
    assert fates(path) == ["document"] * 10


def test_a_truncated_archive_keeps_what_stands_before_and_says_so(archive):
    path, starts = archive
    whole = path.read_bytes()
    for cut in (starts[6] + 3, starts[6] + 60, starts[6] + 500, starts[7] - 3):
        path.write_bytes(whole[:cut])
        assert fates(path)[:6] == ["document"] * 6, cut
        assert fates(path)[-1] in ("truncated", "corrupt"), cut
        assert len(fates(path)) <= 8


def test_damage_in_the_middle_costs_the_damaged_record_only(archive):
    path, starts = archive
    content = bytearray(path.read_bytes())
    content[starts[4] : starts[4] + 40] = b"\xff" * 40
    path.write_bytes(content)
    assert fates(path) == ["document"] * 4 + ["corrupt"] + ["document"] * 5
    assert [entry.offset for entry in read(path) if isinstance(entry, Record)] == starts[:4] + starts[5:]


def test_damage_inside_a_body_costs_that_record_only(tmp_path):
    path = tmp_path / "a.warc.gz"
    starts = write(path, [page(number) for number in range(10)], compress=True)
    content = bytearray(path.read_bytes())
    middle = (starts[4] + starts[5]) // 2
    content[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(content)
    outcome = fates(path)
    assert outcome[:4] == ["document"] * 4
    assert outcome[-5:] == ["document"] * 5
    assert set(outcome[4:-5]) <= {"corrupt", "truncated"}
    assert len(outcome) > 9


def test_garbage_between_records_is_stepped_over(archive):
    path, starts = archive
    content = path.read_bytes()
    path.write_bytes(content[: starts[4]] + b"\0garbage\r\n" * 30 + content[starts[4] :])
    assert Counter(fates(path)) == {"document": 10, "corrupt": 1}


def test_one_gzip_stream_over_all_records_is_read_and_offsets_repeat(tmp_path):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(b"".join(page(number) for number in range(10))))
    assert fates(path) == ["document"] * 10


@pytest.mark.parametrize(
    ("http", "fate"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<html>gone</html>", "http_404"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", "http_301"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n%PDF", "type_application/pdf"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "empty"),
        (b"HTTP/1.1 200 OK\r\n\r\n<!doctype html><html><p>no type</p></html>", "document"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x89PNG\r\n", "type_unknown"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"<p>x</p>" * 1000, "too_large"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain text", "document"),
    ],
)
def test_responses_that_are_no_pages_are_refused_with_their_reason(tmp_path, http, fate):
    path = tmp_path / "a.warc"
    write(path, [warc_record("http://example.org/", http)], compress=False)
    (entry,) = read(path, Limits(max_document_bytes=4000))
    assert (entry.reason if isinstance(entry, Refused) else "document") == fate


def test_encoded_bodies_are_decoded_and_bodies_stored_decoded_are_taken_as_they_are(tmp_path):
    body = b"<html><p>hello</p></html>"
    chunked = b"5\r\n<html\r\n14\r\n><p>hello</p></html>\r\n0\r\n\r\n"
    headers = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    transfer, coding = b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"
    records = [
        warc_record("http://example.org/", headers + extra + b"\r\n" + content)
        for extra, content in [
            (transfer, chunked),
            (transfer, body),
            (coding, gzip.compress(body)),
            (coding, body),
        ]
    ]
    path = tmp_path / "a.warc"
    write(path, records, compress=False)
    assert [entry.content for entry in read(path)] == [body] * 4


def test_a_page_that_unpacks_to_more_than_the_limit_is_refused_without_unpacking_it_all(tmp_path):
    bomb = gzip.compress(b"<p>" + b"a" * (64 << 20))
    headers = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    path = tmp_path / "a.warc.gz"
    write(path, [warc_record("http://example.org/", headers + bomb), page(1)], compress=True)
    assert [
        e.reason if isinstance(e, Refused) else "document" for e in read(path, Limits(max_document_bytes=1 << 20))
    ] == [
        "too_large",
        "document",
    ]


def test_texts_of_a_wet_file_are_documents(shared):
    (entry,) = read(shared / "pretrain" / "warc" / "whirlwind.warc.wet.gz")
    assert isinstance(entry, Record)
    assert not entry.is_html
    assert "Wikipedia" in decode(entry.content, entry.label).text
