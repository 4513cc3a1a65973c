"""Does any input crash, hang or get lost? Mutated records through every reader and every text kernel.

Run:      python -m benchmarks.fuzz --records 100000
Workload: containers of every format, each of a few records; records and then containers are mutated (bytes flipped,
          cut, repeated, inserted; damaged headers and numbers; invalid UTF-8, half characters, zero bytes, very long
          lines, deeply nested tags), seeded, so that a case can be repeated with --first N --cases 1. What is read is
          decoded, extracted and written as ingest does it, and measured by every family of signals.
Reports:  a line a format: inputs, records, documents, refusals by reason, CPU seconds; then every failure.
Fails:    when a case kills or hangs its process, raises, or when records are not documents + refused.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import mmap
import os
import random
import re
import shutil
import signal
import struct
import tarfile
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from diglot.corpus.ingestion import IngestTask, ingest_shard, refusals_path
from diglot.corpus.read.formats import format_of
from diglot.corpus.read.record import Limits, SourceFile
from diglot.corpus.signals.attributes import measure

FAMILIES = ("quality", "repetition", "language", "hashes", "minhash")
CHUNK = 50  # cases of one child process
LIMIT_S = 60.0  # wall time of one case; the slowest takes a second on an idle core
LIMITS = Limits(max_document_bytes=200_000)
PLACE = struct.Struct("<q")

ENGLISH = (
    "<html lang='en'><head><title>Clock</title><meta charset='utf-8'></head><body><nav><a href='/'>Home</a></nav>"
    "<h1>The clock</h1><p>A clock should agree with a server that knows the time, and most programs believe it.</p>"
    "<ul><li>one"
    "<li>two</ul><pre>if x &lt; 1:\n    stop()</pre><table><tr><td>a<td>b</table></body></html>"
)
CHINESE = (
    "<html lang='zh-CN'><head><title>时钟</title></head><body><h1>时钟</h1><p>机器的时钟应当与知道准确时间的服务器保持"
    "一致，大多数程序都相信它所说的时间。</p><p>请选择一个别人想不到的密码。</p><ol><li>第一<li>第二</ol></body></html>"
)
TEXTS = [
    "A clock should agree with a server that knows the time. " * 8 + "\n\n- one\n- two\n# heading\n",
    "机器的时钟应当与知道准确时间的服务器保持一致。\n" * 6 + "请选择一个别人想不到的密码：１２３ＡＢＣ。\n",
    "",
    "x",
]
LATEX = (
    r"\documentclass{article}\begin{document}\section{One}Text \emph{here} $x^2$ and \[y\]. \begin{itemize}\item a"
    r" \item b\end{itemize}\begin{verbatim}code\end{verbatim}\begin{tabular}{ll}a&b\\c&d\end{tabular}\end{document}"
)
WIKI = (
    "{{Infobox|a=b}}'''Clock''' is a [[machine|device]]. == History == \n* one\n** two\n{|\n|x\n|}\n"
    "&lt;ref&gt;n&lt;/ref&gt;-{zh-hans:时钟;zh-hant:時鐘}- &lt;math&gt;x&lt;/math&gt; [[File:a.jpg|a [[b]]]]"
)
INSERTED = [
    b"\0", b"\0" * 300, b"\xff\xfe", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\ud800", b"\xc3", b"\r", b"\r\n\r\n",
    b"\n" * 500, b"<div>" * 3000, b"<b><i><span hidden>" * 400, b"</div>" * 500, b"a" * 60_000, "字".encode() * 20_000,
    b" " * 30_000, b"{{" * 2000, b"[[" * 2000, b"{" * 5000, b"\\begin{x}" * 500, b"$" * 999, b'"', b'""', b"<!--",
    b"<![CDATA[", b"<script>", b"&#x110000;", b"&#xD800;", b"&amp;" * 500, b"\x1f\x8b\x08\x00", b"WARC/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n", b"<page>", b"</page>", b"Content-Length: -1\r\n", b"\xe2\x80\xae",
    "\u0300".encode() * 3000, "\U0001f3f3\ufe0f\u200d\U0001f308".encode() * 500, b"9" * 5000, b"1e999",
]  # fmt: skip
CONTENT_TYPES = {"response": "application/http", "conversion": "text/plain", "metadata": "application/json"}
NUMBERS = [b"-1", b"0", b"99999999999999999999", b"4294967296", b"7", b"abc", b""]


def mutated(draw: random.Random, content: bytes, most: int = 4) -> bytes:
    """`content` with up to `most` mutations, at most about a megabyte."""
    for _ in range(draw.randint(0, most)):
        if len(content) > 1 << 20:
            return content[: 1 << 20]
        at = draw.randrange(len(content) + 1)
        span = min(draw.choice([1, 2, 7, 40, 400, 4000]), len(content) - at)
        kind = draw.randrange(8)
        if kind == 0 and content:
            changed = bytearray(content)
            for _ in range(draw.randint(1, 12)):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
            content = bytes(changed)
        elif kind == 1:
            content = content[:at] + content[at + span :]
        elif kind == 2:
            content = content[:at] + content[at : at + span] * draw.choice([2, 3, 50]) + content[at + span :]
        elif kind == 3:
            content = content[:at]
        elif kind == 4:
            content = content[:at] + draw.randbytes(span) + content[at:]
        elif kind == 5:
            numbers = list(re.finditer(rb"\d+", content[:5000]))
            if numbers:
                found = draw.choice(numbers)
                content = content[: found.start()] + draw.choice(NUMBERS) + content[found.end() :]
        else:
            content = content[:at] + draw.choice(INSERTED) + content[at:]
    return content


def warc(bodies: list[bytes], draw: random.Random, pack: Callable[[bytes], bytes], kind: str = "response") -> bytes:
    records = []
    for number, body in enumerate(bodies):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" if kind == "response" else b""
        block = mutated(draw, head, 1) + body
        record = (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.org/{number}\r\n"
            f"WARC-Date: 2024-05-06T07:08:09Z\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>\r\n"
            f"Content-Type: {CONTENT_TYPES[kind]}\r\nContent-Length: {len(block)}\r\n\r\n"
        ).encode()
        records.append(pack(mutated(draw, record, 1) + block + b"\r\n\r\n"))
    return b"".join(records)


def arc(bodies: list[bytes], draw: random.Random, pack: Callable[[bytes], bytes]) -> bytes:
    records = [pack(b"filedesc://x.arc 0.0.0.0 20010203040506 text/plain 9\n1 0 test\n\n")]
    for number, body in enumerate(bodies):
        block = mutated(draw, b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n", 1) + body
        head = f"http://a.org/{number} 1.2.3.4 20010203040506 text/html {len(block)}\n".encode()
        records.append(pack(mutated(draw, head, 1) + block + b"\n"))
    return b"".join(records)


def json_lines(bodies: list[bytes], draw: random.Random) -> bytes:
    lines = []
    for number, body in enumerate(bodies):
        fields = {"text": body.decode("utf-8", "surrogateescape"), "url": f"http://a.org/{number}", "date": "\ud800"}
        line = json.dumps(fields, ensure_ascii=draw.random() < 0.5)
        lines.append(mutated(draw, line.encode("utf-8", "surrogatepass"), 1))
    return b"\n".join(lines)


def table(bodies: list[bytes], draw: random.Random) -> bytes:
    rows = [b'"' + body.replace(b'"', b'""') + b'",http://a.org' for body in bodies]
    return b"\n".join([b"text,url", *(mutated(draw, row, 1) for row in rows)])


def parquet(bodies: list[bytes], draw: random.Random) -> bytes:
    packed = io.BytesIO()
    texts = [body.decode("utf-8", "replace") for body in bodies]
    pq.write_table(pa.table({"text": texts, "url": ["u"] * len(texts)}), packed, row_group_size=2)
    return packed.getvalue()


def wiki(bodies: list[bytes], draw: random.Random) -> bytes:
    pages = [
        mutated(draw, b"<page><title>T</title><ns>0</ns><revision><model>wikitext</model><text>", 1)
        + body
        + b"</text></revision></page>\n"
        for body in bodies
    ]
    return b'<mediawiki xml:lang="en"><base>http://a.org/w/M</base>' + b"".join(pages) + b"</mediawiki>"


def tar(bodies: list[bytes], draw: random.Random) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number, body in enumerate(bodies):
            member = tarfile.TarInfo(f"{number}.{draw.choice(['html', 'txt', 'tex', 'png'])}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return packed.getvalue()


def single(bodies: list[bytes], draw: random.Random) -> bytes:
    return bodies[0]


Build = Callable[[list[bytes], random.Random], bytes]
WAT = json.dumps(
    {
        "Envelope": {
            "WARC-Header-Metadata": {"WARC-Type": "response"},
            "Payload-Metadata": {"HTTP-Response-Metadata": {}},
        }
    }
)
PAGES = [page.encode() for page in (ENGLISH, CHINESE)] + [CHINESE.encode("gb18030")]
PROSE = [text.encode() for text in TEXTS] + ["第一行\r\n第二行\u2028第三行".encode()]

# file name -> (what its records are made of, how they are put together, how the whole is packed)
FORMATS: dict[str, tuple[list[bytes], Build, Callable[[bytes], bytes]]] = {
    "a.warc": (PAGES, lambda b, d: warc(b, d, bytes), bytes),
    "a.warc.gz": (PAGES, lambda b, d: warc(b, d, gzip.compress), bytes),
    "a.wet": (PROSE, lambda b, d: warc(b, d, bytes, "conversion"), bytes),
    "a.wat.gz": ([WAT.encode()], lambda b, d: warc(b, d, gzip.compress, "metadata"), bytes),
    "a.arc": (PAGES, lambda b, d: arc(b, d, bytes), bytes),
    "a.arc.gz": (PAGES, lambda b, d: arc(b, d, gzip.compress), bytes),
    "a.jsonl": (PROSE, json_lines, bytes),
    "a.jsonl.gz": (PROSE, json_lines, gzip.compress),
    "a.jsonl.zst": (PROSE, json_lines, lambda content: zstandard.ZstdCompressor().compress(content)),
    "a.jsonl.bz2": (PROSE, json_lines, bz2.compress),
    "a.jsonl.xz": (PROSE, json_lines, lambda content: lzma.compress(content, preset=0)),
    "a.csv": (PROSE, table, bytes),
    "a.tsv.gz": (PROSE, lambda b, d: table(b, d).replace(b",", b"\t"), gzip.compress),
    "a.parquet": (PROSE, parquet, bytes),
    "a.xml": ([WIKI.encode()], wiki, bytes),
    "a.xml.bz2": ([WIKI.encode()], wiki, bz2.compress),
    "a.tar": ([*PAGES, *PROSE, LATEX.encode()], tar, bytes),
    "a.tar.zst": ([*PAGES, LATEX.encode()], tar, lambda content: zstandard.ZstdCompressor().compress(content)),
    "a.html": (PAGES, single, bytes),
    "a.txt": (PROSE, single, bytes),
    "a.tex": ([LATEX.encode()], single, bytes),
}
RECORDS_OF = {name: 1 if build is single else 6 for name, (_, build, _) in FORMATS.items()}


def case(number: int, seed: int) -> tuple[str, bytes]:
    """(file name, content) of one mutated input."""
    draw = random.Random(f"{seed}:{number}")
    name = draw.choice(list(FORMATS))
    seeds, build, pack = FORMATS[name]
    bodies = [mutated(draw, draw.choice(seeds)) for _ in range(RECORDS_OF[name])]
    content = build(bodies, draw)
    if draw.random() < 0.5:
        content = mutated(draw, content, 2)
    content = pack(content)
    return name, mutated(draw, content, 2) if draw.random() < 0.3 else content


@dataclass
class Tally:
    """What came of the cases of one format, or of all."""

    inputs: int = 0
    documents: int = 0
    seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        return self.documents + self.refused.total()


def run_case(number: int, seed: int, folder: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Ingest one input. Returns its name, the counts and its texts; raises when something is wrong."""
    name, content = case(number, seed)
    path = folder / name
    path.write_bytes(content)
    kind = format_of(name)
    assert kind is not None
    out = folder / "documents" / "0.parquet"
    shutil.rmtree(out.parent, ignore_errors=True)
    file = SourceFile(source="s", path=str(path), container=name, format=kind, size=len(content))
    task = IngestTask(source="s", license=None, files=(file,), out=out, limits=LIMITS, part_bytes=1 << 20)
    result = ingest_shard(task)
    texts = [text for part in result["files"] for text in pq.read_table(out.parent / part)["text"].to_pylist()]
    lines = refusals_path(out).read_text().splitlines()
    assert len(texts) == result["documents"], "documents in the table are not those counted"
    assert len(lines) == sum(result["refused"].values()), "refusals listed are not those counted"
    if RECORDS_OF[name] == 1:
        assert len(texts) + len(lines) == 1, "a file of one document has not one fate"
    return name, result, texts


def run_chunk(first: int, stop: int, seed: int, folder: Path, place: mmap.mmap, log: Path) -> None:
    """The life of a child: cases first..stop-1, their counts and failures as lines of `log`."""
    gathered: list[str] = []
    with log.open("a") as stream:

        def say(line: dict[str, Any]) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        for number in range(first, stop):
            place[:8] = PLACE.pack(number)
            started = time.process_time()
            try:
                name, result, texts = run_case(number, seed, folder)
            except Exception:
                say({"case": number, "failure": traceback.format_exc()[-1500:]})
                continue
            seconds = time.process_time() - started
            say({"case": number, "name": name, "seconds": seconds, **{k: result[k] for k in ("documents", "refused")}})
            gathered += texts
        started = time.process_time()
        try:
            for family in FAMILIES:
                columns = _measured(gathered, family)
                assert all(len(values) == len(gathered) for values in columns.values()), family
        except Exception:
            say({"case": stop - 1, "failure": f"measuring cases {first}..{stop - 1}: {traceback.format_exc()[-1500:]}"})
        say({"measured": len(gathered), "seconds": time.process_time() - started})


def _measured(texts: list[str], family: str) -> dict[str, Any]:
    settings = {"num_permutations": 112, "seed": 0} if family == "minhash" else {}
    return measure(pa.array(texts, pa.large_string()), family, **settings)


def fuzz(records: int, *, seed: int = 0, first: int = 0, cases: int | None = None, folder: Path) -> dict[str, Any]:
    """Run cases until `records` records were read (or `cases` cases were run)."""
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    failures: list[str] = []
    measured, measuring_s = 0, 0.0
    for family in FAMILIES:  # compile before forking, once
        _measured(["warm"], family)
    number = first
    while sum(tally.records for tally in tallies.values()) < records and (cases is None or number < first + cases):
        stop = number + CHUNK if cases is None else min(number + CHUNK, first + cases)
        reached = number
        log = folder / "log.jsonl"
        log.unlink(missing_ok=True)
        while reached < stop:
            ended, died_at = _forked(reached, stop, seed, folder, log)
            if not ended:
                break
            failures.append(f"case {died_at}: {ended}")
            reached = died_at + 1
        for line in map(json.loads, log.read_text().splitlines()):
            if "failure" in line:
                failures.append(f"case {line['case']}: {line['failure']}")
            elif "measured" in line:
                measured += line["measured"]
                measuring_s += line["seconds"]
            else:
                tally = tallies[line["name"]]
                tally.inputs += 1
                tally.documents += line["documents"]
                tally.refused.update(line["refused"])
                tally.seconds += line["seconds"]
        number = stop
    return {
        "formats": dict(sorted(tallies.items())),
        "failures": failures,
        "measured": measured,
        "measuring_s": measuring_s,
        "cases": number - first,
    }


def _forked(first: int, stop: int, seed: int, folder: Path, log: Path) -> tuple[str | None, int]:
    """(what went wrong, at which case): None when the child came to its end."""
    place = mmap.mmap(-1, 8)
    place[:8] = PLACE.pack(first)
    child = os.fork()
    if child == 0:
        try:
            run_chunk(first, stop, seed, folder, place, log)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    seen, since = first, time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        (at,) = PLACE.unpack(place[:8])
        if pid:
            return (None if status == 0 else f"the process died with status {os.waitstatus_to_exitcode(status)}"), at
        if at != seen:
            seen, since = at, time.monotonic()
        elif time.monotonic() - since > LIMIT_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"no end within {LIMIT_S:.0f} s", at
        time.sleep(0.01)


def _row(name: str, tally: Tally) -> str:
    columns = (name, tally.inputs, tally.records, tally.documents, tally.refused.total(), f"{tally.seconds:.1f}")
    return f"| {' | '.join(map(str, columns))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, help="run so many cases, however many records they hold")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        found = fuzz(
            arguments.records, seed=arguments.seed, first=arguments.first, cases=arguments.cases, folder=Path(folder)
        )
    print("| input | inputs | records | documents | refused | CPU s |\n|---|---:|---:|---:|---:|---:|")
    total = Tally()
    for name, tally in found["formats"].items():
        print(_row(name[2:], tally))
        total.inputs += tally.inputs
        total.documents += tally.documents
        total.refused += tally.refused
        total.seconds += tally.seconds
    print(
        f"{_row('all', total)}\n\nrefused: {dict(total.refused.most_common())}\nmeasured: {found['measured']} texts in "
        f"{found['measuring_s']:.1f} CPU s\ncases: {found['cases']}, failures: {len(found['failures'])}"
    )
    for failure in found["failures"]:
        print(failure)
    raise SystemExit(bool(found["failures"]))


if __name__ == "__main__":
    main()
