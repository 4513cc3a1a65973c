"""Readers of tables, LaTeX, wiki dumps, ARC, WAT and tar archives: what becomes a document and what is refused."""

from __future__ import annotations

import bz2
import doctest
import gzip
import importlib
import io
import json
import lzma
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from diglot.corpus.charset import decode
from diglot.corpus.read.formats import READERS, format_of, read
from diglot.corpus.read.latex import latex_text
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile
from diglot.corpus.read.wikitext import wiki_text

LIMITS = Limits(max_document_bytes=100_000)
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def entries(path: Path, limits: Limits = LIMITS, **facts: object) -> list[Record | Refused]:
    kind = format_of(path.name)
    assert kind is not None
    file = SourceFile(source="s", path=str(path), container=path.name, format=kind, **facts)
    return list(read(file, limits))


def fates(path: Path, limits: Limits = LIMITS) -> list[str]:
    return [entry.reason if isinstance(entry, Refused) else "document" for entry in entries(path, limits)]


@pytest.mark.parametrize("module", ["latex", "wikitext", "arc", "jsonl"])
def test_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(importlib.import_module(f"diglot.corpus.read.{module}")).failed == 0


@pytest.mark.parametrize("suffix", list(PACK))
def test_every_compression_is_read_whole_and_a_cut_or_damaged_file_says_so(tmp_path, suffix):
    path = tmp_path / f"d.jsonl{suffix}"
    lines = b"".join(json.dumps({"text": f"line {n} " + "字" * (n % 500)}).encode() + b"\n" for n in range(3_000))
    packed = PACK[suffix](lines)
    path.write_bytes(packed)
    assert fates(path) == ["document"] * 3_000
    if suffix:
        path.write_bytes(packed[: len(packed) // 2])
        assert fates(path)[-1] == "truncated"
        path.write_bytes(packed + b"no frame follows")
        assert fates(path)[-1] in ("corrupt", "truncated")
        assert fates(path)[:-1] == ["document"] * 3_000


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_in_bounded_memory(tmp_path, suffix):
    """Peak memory is asked of a child, since it never falls; of the kernel, as getrusage starts at the parent's."""
    import subprocess
    import sys

    piece = PACK[suffix](b"\0" * (128 << 20))
    path = tmp_path / f"bomb.txt{suffix}"
    path.write_bytes(piece * 4)
    code = (
        "import re; from diglot.corpus.read.compression import read_all;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); base = peak();"
        f"assert read_all({str(path)!r}, 1 << 20) == (b'', 'too_large');"
        "print(peak() - base)"
    )
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 100_000  # kB


# ---------------------------------------------------------------- CSV


def test_rows_of_a_table_are_documents_under_the_names_of_json_lines(tmp_path):
    path = tmp_path / "d.csv"
    content = 'id,text,url,lang\r\n1,"two\nlines, ""quoted""",http://a.org/1,en\r\n\r\n2,中文,http://a.org/2,zh\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    first, second = entries(path)
    assert (first.content, first.url, first.lang) == ('two\nlines, "quoted"', "http://a.org/1", "en")
    assert first.meta == {"id": "1"}
    assert second.content == "中文"
    assert path.read_bytes()[second.offset :].startswith(b"2,")


@pytest.mark.parametrize(("name", "mark"), [("d.tsv", "\t"), ("d.csv", ";"), ("d.csv", "|"), ("d.tsv.gz", "\t")])
def test_the_header_says_what_parts_the_fields(tmp_path, name, mark):
    path = tmp_path / name
    content = f"text{mark}title\na, b{mark}T\n".encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (entry,) = entries(path)
    assert (entry.content, entry.meta) == ("a, b", {"title": "T"})


def test_bad_rows_are_refused_one_by_one_and_a_stray_quote_costs_its_line_only(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(
        'text,title\ngood,1\ntoo,many,fields\nfew\n ,empty\n5" pipe,an inch sign\n"never closed,3\nfine,4\n'
        + "x" * 200_000
        + ',large\nlast,9\n"too,9'
    )
    assert fates(path) == [
        "document", "wrong_fields", "wrong_fields", "empty", "document", "unclosed_quote", "document", "too_large",
        "document", "unclosed_quote",
    ]  # fmt: skip
    assert entries(path)[4].content == '5" pipe'


def test_a_row_above_the_limit_is_one_refusal_and_not_a_document_for_each_of_its_lines(tmp_path):
    path = tmp_path / "d.csv"
    long = "\n".join(f"prose line {n}, with one comma" for n in range(5_000))
    path.write_text(f'text,url\n"{long}",u\nlast,v\n')
    assert len(long) > LIMITS.max_document_bytes
    assert fates(path) == ["too_large", "document"]


def test_the_header_says_where_quotes_open_and_stray_ones_take_linear_time(tmp_path):
    import time

    path = tmp_path / "d.csv"
    path.write_text('text,url\nHe said;"hello,http://a\nnext,http://b\nthird,http://c\n')
    assert fates(path) == ["document"] * 3
    path.write_text("text,url\n" + '"a","b\n' * 20_000)
    started = time.process_time()
    assert set(fates(path)) <= {"unclosed_quote", "wrong_fields", "document"}
    assert time.process_time() - started < 5


def test_tables_in_a_legacy_encoding_are_decoded_and_utf_16_is_refused(tmp_path):
    path = tmp_path / "d.csv"
    table = "text,title\n" + "".join(f"第{n}段：这是一篇用国标编码保存的中文文章。,题目\n" for n in range(50))
    path.write_bytes(table.encode("gb18030"))
    assert [entry.content for entry in entries(path)][3].startswith("第3段：这是一篇用国标编码")
    path.write_bytes("text,title\na,b\n".encode("utf-16"))
    assert fates(path) == ["utf_16"]
    path.write_bytes(b"")
    assert fates(path) == ["empty"]


def test_a_map_of_fields_names_what_is_what_and_nothing_else_is_tried(tmp_path):
    names = (("text", "body.main"), ("url", "link"), ("lang", "locale"))
    path = tmp_path / "d.jsonl"
    lines = [
        {"body": {"main": "one"}, "link": "http://a.org", "locale": "zh", "text": "a summary", "id": 7},
        {"text": "has only the usual name"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = entries(path, fields=names)
    assert (first.content, first.url, first.lang, first.meta) == ("one", "http://a.org", "zh", {"id": 7})
    assert second.reason == "no_text"
    table = tmp_path / "d.csv"
    table.write_text("main,link\none,http://a.org\n")
    (row,) = entries(table, fields=(("text", "main"), ("url", "link")))
    assert (row.content, row.url) == ("one", "http://a.org")


# ---------------------------------------------------------------- LaTeX

ARTICLE = r"""
\documentclass{article} % a comment \section{not one}
\newcommand{\tool}{Diglot}
\title{On \emph{Nothing}}
\begin{document}
\maketitle
\section*{Über \textbf{Köln} \& G\"ottingen}
Words that
wrap over lines~and ``quotes'' --- with \tool, 100\% of them. See \cite{knuth} and \ref{fig:one}.% gone
\input{/etc/passwd}

\begin{itemize}
  \item First $a_1 < b$ \item[second] thing
  \begin{enumerate}\item deeper\item still\end{enumerate}
\end{itemize}
\begin{equation}
  E = mc^2 % energy
\end{equation}
\begin{verbatim}
def f(x):  # 100%
    return x
\end{verbatim}
\begin{tikzpicture} \draw (0,0) -- (1,1); \end{tikzpicture}
\begin{tabular}{ll} a & b \\ c & d \\ \end{tabular}
\begin{thm}[Zorn] 中文的
换行不留空格。\end{thm}
\href{http://a.org}{a link}\footnote{a note}
\end{document}
never shown
"""


def test_latex_becomes_readable_text_with_its_math(tmp_path):
    path = tmp_path / "a.tex"
    path.write_text(ARTICLE)
    (entry,) = entries(path)
    assert entry.content == (
        "## Über Köln & Göttingen\n\n"
        "Words that wrap over lines and “quotes” — with Diglot, 100% of them. See and .\n\n"
        "- First $a_1 < b$\n- second thing\n\n"
        "  1. deeper\n  2. still\n\n"
        "\\begin{equation}\nE = mc^2 % energy\n\\end{equation}\n\n"
        "    def f(x):  # 100%\n        return x\n\n"
        "a | b\nc | d\n\n"
        "Theorem (Zorn). 中文的换行不留空格。\n\n"
        "a link (a note)"
    )
    assert entry.meta["title"] == "On Nothing"
    assert (entry.meta["latex_inputs"], entry.meta["latex_tikzpicture"]) == (1, 1)


@pytest.mark.parametrize(
    "source",
    ["{" * 50_000, "\\begin{equation}" * 60_000, "$a\n\n" * 20_000, "\\[" * 20_000, "$" * 30_001, "\\begin{x}[" * 9_000,
     "\\textbf{" * 20_000, "\\footnote{" * 20_000 + "}" * 20_000, "\\" * 50_001, "\\verb|" * 20_000, "%" * 50_000],
)  # fmt: skip
def test_malformed_latex_takes_linear_time(source):
    import time

    started = time.process_time()
    latex_text(source)
    assert time.process_time() - started < 2


@pytest.mark.shared
def test_the_open_logic_text_reads_as_prose(shared):
    with (shared / "pretrain" / "math" / "open_logic_tex.jsonl.zst").open("rb") as stream:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream))
        sources = [json.loads(line)["text"] for line in lines][:200]
    texts = [latex_text(source) for source in sources]
    assert all(text.text for text in texts)
    assert not any("\\begin{document}" in text.text or "\\olsection" in text.text for text in texts)
    assert sum(text.text.startswith("#") for text in texts) > 120
    kept = sum(len(text.text) for text in texts) / sum(map(len, sources))
    assert 0.75 < kept < 1


# ---------------------------------------------------------------- MediaWiki

WIKI = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="zh">
 <siteinfo><sitename>Wiki</sitename><base>https://zh.wikipedia.org/wiki/Wikipedia:首页</base></siteinfo>
{pages}</mediawiki>
"""
PAGE = """ <page><title>{title}</title><ns>{ns}</ns><id>7</id>{extra}<revision><id>9</id>
 <timestamp>2024-05-06T07:08:09Z</timestamp><model>{model}</model><format>text/x-wiki</format>
 <text bytes="5" xml:space="preserve">{text}</text></revision></page>
"""


def wiki_page(text: str, title: str = "Page", ns: int = 0, extra: str = "", model: str = "wikitext") -> str:
    return PAGE.format(title=title, ns=ns, extra=extra, model=model, text=text)


MARKUP = (
    "{{Infobox|a={{nested|b}}}}\n'''计算机'''（{{lang|en|computer}}）是-{zh-hans:软件;zh-hant:軟體}-。&lt;ref&gt;note&lt;/ref&gt;\n"
    "== 历史 ==\n[[File:a.jpg|thumb|a [[link]]]]见[[目标|文字]]和[https://a.org 外部]。\n* one\n** two\n# three\n"
    "{|\n|cell\n|}\n&lt;math&gt;x^2&lt;/math&gt; [[Category:计算机]] [[de:Rechner]]"
)


def test_pages_of_a_wiki_dump_become_text(tmp_path):
    path = tmp_path / "zhwiki-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(WIKI.format(pages=wiki_page(MARKUP, title="计算 机")).encode()))
    (entry,) = entries(path)
    assert entry.content == "计算机是软件。\n\n## 历史\n\n见文字和外部。\n\n- one\n  - two\n1. three\n\n$x^2$"
    assert entry.url == "https://zh.wikipedia.org/wiki/%E8%AE%A1%E7%AE%97_%E6%9C%BA"
    assert (entry.lang, entry.date) == ("zh", "2024-05-06T07:08:09Z")
    assert entry.meta["wiki_templates"] == 3
    assert (entry.meta["wiki_tables"], entry.meta["wiki_files"], entry.meta["categories"]) == (1, 1, "计算机")


def test_what_is_no_article_is_refused_with_its_reason(tmp_path):
    path = tmp_path / "dump.xml"
    pages = [
        wiki_page("text"),
        wiki_page("t", title="Template:X", ns=10),
        wiki_page("#REDIRECT [[Page]]", extra='<redirect title="Page" />'),
        wiki_page("{}", model="json"),
        wiki_page("{{only|templates}}"),
        wiki_page(""),
        wiki_page("x" * 150_000),
        wiki_page("x" * 500_000),
        wiki_page("bad & xml"),
        wiki_page("open").replace("</page>", ""),
        wiki_page("last"),
    ]
    path.write_text(WIKI.format(pages="".join(pages)))
    assert fates(path) == [
        "document", "namespace_10", "redirect", "model_json", "empty", "empty", "too_large", "too_large",
        "invalid_xml", "corrupt", "document",
    ]  # fmt: skip
    assert path.read_bytes()[entries(path)[-1].offset :].startswith(b"<page><title>Page")
    path.write_bytes(path.read_bytes()[:-60])
    assert fates(path)[-1] == "truncated"
    path.write_text("<html><page>x</page></html>")
    assert fates(path) == ["not_mediawiki"]


def test_a_page_that_declares_entities_is_refused_and_does_not_grow(tmp_path):
    path = tmp_path / "dump.xml"
    path.write_text(WIKI.format(pages="<page><!DOCTYPE x [<!ENTITY a 'aaaa'>]><title>&a;</title></page>"))
    assert fates(path) == ["invalid_xml"]


@pytest.mark.parametrize(
    "source",
    ["{{" * 50_000, "[[" * 50_000, "<ref>" * 20_000, "{|" * 50_000, "<!--" * 50_000, "-{" * 50_000, "<math>" * 20_000,
     "[http://" + "a" * 200_000, "[mailto:" + "a" * 200_000, "<ref>/>" * 20_000, "<ref></x>" * 20_000,
     "[http://a " * 20_000, "'" * 50_000, "=" * 50_000, "(" * 50_000, "<" * 50_000, "[[a|" * 20_000 + "]]" * 20_000],
)  # fmt: skip
def test_malformed_wikitext_takes_linear_time(source):
    import time

    started = time.process_time()
    wiki_text(source)
    assert time.process_time() - started < 2


# ---------------------------------------------------------------- ARC, WAT, tar


@pytest.fixture
def fixtures(shared, tmp_path) -> Path:
    with (
        (shared / "pretrain" / "warc" / "warcio_fixtures.tar.zst").open("rb") as stream,
        tarfile.open(fileobj=zstandard.ZstdDecompressor().stream_reader(stream), mode="r|") as archive,
    ):
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.shared
@pytest.mark.parametrize("name", ["example.arc", "example.arc.gz"])
def test_arc_files_of_other_tools_are_read(fixtures, name):
    (entry,) = entries(fixtures / name)
    assert isinstance(entry, Record)
    assert b"Example Domain" in entry.content
    assert entry.content.lstrip().startswith(b"<!doctype html>")
    assert entry.date == "2014-02-16T05:02:21Z"
    assert entry.url == "http://example.com/"


@pytest.mark.shared
def test_spaces_in_an_arc_url_belong_to_it(fixtures):
    """The file's line ends were changed, so its record is 12 bytes shorter than its header says."""
    (entry,) = entries(fixtures / "example-space-in-url.arc")
    assert entry.url.endswith("EmailTitle=Examples From The Live Web&IsPopUp=False")
    assert (entry.reason, entry.detail) == ("truncated", "1579 of 1591 bytes")


@pytest.mark.shared
def test_bad_arc_records_are_refused_one_by_one(fixtures):
    assert fates(fixtures / "bad.arc") == ["corrupt", "corrupt", "empty", "corrupt"]


def arc_record(url: str, body: bytes, kind: str = "text/html") -> bytes:
    return f"{url} 1.2.3.4 20010203040506 {kind} {len(body)}\n".encode() + body + b"\n"


def test_arc_responses_get_the_fates_of_warc_responses(tmp_path):
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/html; charset=gb2312\r\n\r\n"
    chinese = "<html><p>这是一个网页</p></html>".encode("gb18030")
    records = [
        b"filedesc://x.arc 0.0.0.0 20010203040506 text/plain 9\n1 0 test\n\n",
        arc_record("http://a.org/1", head + chinese),
        arc_record("http://a.org/2", b"HTTP/1.0 404 Not Found\r\n\r\ngone"),
        arc_record("http://a.org/robots.txt", head + b"User-agent: *"),
        arc_record("http://a.org/3.png", b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG", "image/png"),
        b"\x00garbage\nmore garbage\n",
        arc_record("ftp://a.org/4.txt", b"plain text without headers", "text/plain"),
        arc_record("http://a.org/5", head + b"<p>x</p>" * 30_000),
        arc_record("http://a.org/6", head + b"<html>cut</html>")[:-30],
    ]
    path = tmp_path / "a.arc"
    path.write_bytes(b"".join(records))
    found = entries(path)
    assert [entry.reason if isinstance(entry, Refused) else "document" for entry in found] == [
        "document", "http_404", "robots", "type_image/png", "corrupt", "document", "too_large", "truncated",
    ]  # fmt: skip
    assert "这是一个网页" in decode(found[0].content, found[0].label).text
    path.with_suffix(".arc.gz").write_bytes(b"".join(gzip.compress(record) for record in records[:-1]))
    assert len(fates(path.with_suffix(".arc.gz"))) == 7


@pytest.mark.shared
def test_wat_records_describe_pages_and_are_refused_as_what_they_describe(shared):
    (entry,) = entries(shared / "pretrain" / "warc" / "whirlwind.warc.wat.gz")
    assert (entry.reason, entry.url) == ("wat_request", "https://an.wikipedia.org/wiki/Escopete")


@pytest.mark.parametrize("suffix", list(PACK))
def test_members_of_a_tar_archive_are_read_as_files_and_no_name_leads_out(tmp_path, suffix):
    members = {
        "zh-CN/a.html": "<html><p>页面</p></html>".encode(),
        "../../escape.txt": b"a text",
        "b.tex": rb"\section{One} text",
        "c.jsonl": b'{"text": "x"}\n',
        "d.txt.gz": gzip.compress(b"x"),
        "e.png": b"\x89PNG",
        "f.txt": b"x" * 200_000,
        "g.txt": b" ",
        "h.txt": b"last",
    }
    path = tmp_path / "here" / f"pages.tar{suffix}"
    path.parent.mkdir()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    path.write_bytes(PACK[suffix](packed.getvalue()))
    assert fates(path) == [
        "document", "document", "document", "container_in_archive", "container_in_archive", "unsupported_type",
        "too_large", "empty", "document", "link",
    ]  # fmt: skip
    first = entries(path)[0]
    assert packed.getvalue()[first.offset :].startswith(members["zh-CN/a.html"])
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {path.name}
    path.write_bytes(PACK[suffix](packed.getvalue()[:2000]))
    assert fates(path)[-1] in ("truncated", "corrupt")
    damaged = bytearray(packed.getvalue())
    damaged[1024 + 150] ^= 1  # the checksum of the second member, which tarfile takes for the end
    path.write_bytes(PACK[suffix](bytes(damaged)))
    assert fates(path) == ["document", "corrupt"]
    path.write_bytes(PACK[suffix](packed.getvalue()[: 1024 + 300]))  # inside that header
    assert fates(path)[-1] in ("truncated", "corrupt")


def test_a_chain_of_tar_headers_is_damage(tmp_path):
    """Each header of a long name says that another one follows; tarfile calls itself for it."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "a.tar").write_bytes((member.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 5_000)
    assert fates(tmp_path / "a.tar") == ["corrupt"]


@pytest.mark.parametrize("name", ["a.warc.bz2", "a.wat.xz", "a.parquet.gz"])
def test_a_compression_that_a_reader_does_not_know_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert fates(tmp_path / name) == ["unsupported_compression"]


def test_every_reader_refuses_an_empty_file_or_says_nothing_but_never_fails(tmp_path):
    suffixes = {"html": "html", "text": "txt", "latex": "tex", "mediawiki": "xml"}
    for kind in READERS:
        path = tmp_path / f"empty.{suffixes.get(kind, kind)}"
        path.write_bytes(b"")
        assert all(fate != "document" for fate in fates(path)), kind


def test_a_local_disk_that_fails_in_the_middle_costs_the_rest_of_the_file(tmp_path, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 1_500_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    lines = b'{"text": "one"}\n' * 200_000
    (tmp_path / "a.jsonl").write_bytes(lines)
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(lines))
    *before, last = entries(tmp_path / "a.jsonl")
    assert (last.reason, last.detail) == ("unreadable", "Input/output error")
    assert len(before) > 60_000


def test_a_file_that_vanished_is_refused_as_unreadable(tmp_path):
    for kind in sorted(READERS):
        file = SourceFile(source="s", path=str(tmp_path / "gone"), container="gone", format=kind)
        assert Counter(entry.reason for entry in read(file, LIMITS)) == {"unreadable": 1}, kind


def test_wherever_a_dataset_is_cut_its_parts_hold_each_line_once(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n{"text": "a longer line, two"}\nno json\n{"text": "four"}')
    size = path.stat().st_size
    whole = entries(path)
    assert len(whole) == 4
    for cut in range(1, size):
        assert entries(path, span=(0, cut)) + entries(path, span=(cut, size)) == whole, cut
