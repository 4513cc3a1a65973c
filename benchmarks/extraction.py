"""How close is main text from HTML to gold text, and how fast is it, beside resiliparse and trafilatura?

Run:      python -m benchmarks.extraction --data ../shared/data --out extraction.json  (five minutes on one core)
Workload: pretrain/html of the shared data: OI-wiki (Chinese; 260 pages), inspect (English documentation; 82),
          readability (articles and fixtures; 29), cc_licensed_pages (25, labelled segments). One process.
Compared: ours (`diglot.corpus.extract`), resiliparse main content with its defaults, trafilatura with its defaults and
          with fast=True.
Reports:  precision, recall and F1 of unit 4-grams against the gold (text units, so that Chinese counts characters;
          marks of Markdown are no units), pooled over the pages of a set, and by language; shares of the labelled
          segments that were kept and of the unwanted ones that were left; MB of HTML per CPU
          second, best of the repeats.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zstandard

from diglot.core.hardware import host
from diglot.corpus.charset import decode
from diglot.corpus.extract import extract
from diglot.text.units import units

Extractor = Callable[[str], str]
LANGUAGE = {"oi_wiki_html_md": "zh", "inspect_site_html_md": "en", "readability_open_pages": "en"}
FENCE = re.compile(r"^\s*(```|~~~|:::|\?\?\?|!!!|===).*$", re.M)  # lines that only Markdown has
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
ATTRIBUTES = re.compile(r"\{[:#.][^}]*\}")
TAG = re.compile(r"<[^>]+>")
NGRAM = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pages", type=int, help="of each set, for a quick look")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of extractors")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sets = {name: pages(arguments.data, name)[: arguments.pages] for name in LANGUAGE}
    labelled = pages(arguments.data, "cc_licensed_pages")[: arguments.pages]
    rows: list[dict[str, Any]] = []
    for name, run in contenders().items():
        if arguments.only and name not in arguments.only:
            continue
        run("<p>once, so that what is compiled or loaded is not timed</p>")
        row: dict[str, Any] = {"extractor": name}
        pooled: dict[str, list[int]] = {"zh": [0, 0, 0], "en": [0, 0, 0]}
        size, seconds = 0, 0.0
        for of_set, records in sets.items():
            counts = [0, 0, 0]
            for record in records:
                text, spent = timed(run, record["page"], arguments.repeats)
                size, seconds = size + len(record["page"].encode()), seconds + spent
                for i, count in enumerate(overlap(text, record["gold"])):
                    counts[i] += count
                    pooled[LANGUAGE[of_set]][i] += count
            row[of_set] = scores(counts)
        row["zh"], row["en"] = scores(pooled["zh"]), scores(pooled["en"])
        kept = wanted = left = unwanted = 0
        for record in labelled:
            text, spent = timed(run, record["page"], arguments.repeats)
            size, seconds = size + len(record["page"].encode()), seconds + spent
            text = " ".join(text.split())
            wanted += len(record["must_contain"])
            kept += sum(" ".join(part.split()) in text for part in record["must_contain"])
            unwanted += len(record["must_not_contain"])
            left += sum(" ".join(part.split()) in text for part in record["must_not_contain"])
        row["segments"] = {"kept": kept / max(wanted, 1), "left": left / max(unwanted, 1)}
        row["megabytes_per_cpu_second"] = size / 1e6 / seconds
        rows.append(row)
        print(table([row], header=len(rows) == 1), flush=True)
    result = {
        "host": host().to_dict(),
        "versions": {n: version(n) for n in ("resiliparse", "trafilatura")},
        "rows": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))


def contenders() -> dict[str, Extractor]:
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    return {
        "diglot": lambda page: extract(page).text,
        "resiliparse": lambda page: extract_plain_text(page, main_content=True),
        "trafilatura": lambda page: trafilatura.extract(page) or "",
        "trafilatura fast": lambda page: trafilatura.extract(page, fast=True) or "",
    }


def pages(data: Path, name: str) -> list[dict[str, Any]]:
    with (data / "pretrain" / "html" / f"{name}.jsonl.zst").open("rb") as stream:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), encoding="utf-8")
        records = [json.loads(line) for line in lines]
    for record in records:
        content = record.get("html")
        record["page"] = content if content is not None else decode(base64.b64decode(record["html_b64"])).text
        if "gold_markdown" in record:
            record["gold"] = record["gold_markdown"]
        elif "gold_html" in record:
            record["gold"] = html.unescape(TAG.sub(" ", record["gold_html"]))
    return [record for record in records if "gold" not in record or len(record["page"]) > 5000 or name[:2] == "re"]


def timed(run: Extractor, page: str, repeats: int) -> tuple[str, float]:
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        text = run(page)
        best = min(best, time.process_time() - started)
    return text, best


def plain(text: str) -> str:
    """The text without the marks of Markdown: the same for the gold and for every extractor."""
    return TAG.sub(" ", ATTRIBUTES.sub(" ", LINK.sub(r"\1", FENCE.sub("", text))))


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    """4-grams of lower-case text units; units without a letter, digit or CJK character (`|`, `#`, `-`) do not count."""
    found = [unit.lower() for unit in units(plain(text)) if any(c.isalnum() for c in unit)]
    return Counter(zip(*(found[i:] for i in range(NGRAM)), strict=False))


def overlap(text: str, gold: str) -> tuple[int, int, int]:
    """4-grams in both, in the text, and in the gold."""
    ours, theirs = ngrams(text), ngrams(gold)
    return (ours & theirs).total(), ours.total(), theirs.total()


def scores(counts: list[int]) -> dict[str, float]:
    both, ours, theirs = counts
    precision, recall = both / max(ours, 1), both / max(theirs, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-12)}


def table(rows: list[dict[str, Any]], header: bool) -> str:
    names = [*LANGUAGE, "en"]
    lines = []
    if header:
        lines.append(f"{host().cpu}; precision / recall / F1 of 4-grams")
        lines.append("| extractor | " + " | ".join(names) + " | segments kept / left | MB/CPU-s |")
        lines.append("|---|" + "---|" * (len(names) + 2))
    for row in rows:
        cells = [" / ".join(f"{row[name][key]:.3f}" for key in ("precision", "recall", "f1")) for name in names]
        segments = f"{row['segments']['kept']:.3f} / {row['segments']['left']:.3f}"
        lines.append(
            f"| {row['extractor']} | {' | '.join(cells)} | {segments} | {row['megabytes_per_cpu_second']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
