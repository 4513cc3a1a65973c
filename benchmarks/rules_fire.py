"""Does every rule of every policy fire on real pages, and would anything else have dropped what it drops?

Run:      python -m benchmarks.rules_fire --data ../shared/data --out docs/rules/fired.json   (two minutes of CPU)
Workload: every raw document of the shared corpora: prose, manuals, reviews, laws, poems, LaTeX and web pages in
          English, Chinese and other languages; web pages as `diglot.corpus.extract` reads them. The slow family
          `as_released` is measured on a sample: documents of up to 60 kB, at most 40 a file, evenly spread.
Judged:   by a policy the documents identified as one of its languages; by a policy for `*` all documents.
Reports:  for each rule documents dropped, dropped by this rule alone, and the first two ids with what was measured.
          With --show also the beginnings of their texts. docs/rules is written from the record:
          python -m diglot.corpus.rule_pages docs/rules
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from diglot.corpus.extract import extract
from diglot.corpus.policy import Policy, load_policy, policy_names
from diglot.corpus.signals.attributes import measure

FOLDERS = ("en", "zh", "math", "other", "html")
SKIPPED = ("udhr_raw_encodings",)  # bytes in old charsets, for another question
BATCH, BATCH_CHARS = 2000, 20_000_000
Row = tuple[str, str]  # id and text
SAMPLE_BYTES, SAMPLE_DOCUMENTS = 60_000, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the shared data folder")
    parser.add_argument("--out", type=Path, required=True, help="the record, JSON")
    parser.add_argument("--show", action="store_true", help="print the beginnings of the examples")
    arguments = parser.parse_args()
    policies = {name: load_policy(name) for name in policy_names()}
    tallies = {name: Tally(policy) for name, policy in policies.items()}
    sources: dict[str, dict[str, int]] = {}
    started = time.process_time()
    for path in source_files(arguments.data):
        source = f"{path.parent.name}/{path.name.removesuffix('.jsonl.zst')}"
        counts = {"documents": 0, "bytes": 0}
        rows = list(documents(path))
        for batch in batches(rows):
            texts = pa.array([text for _, text in batch], pa.large_string())
            columns = general(texts)
            counts["documents"] += len(batch)
            counts["bytes"] += int(columns["num_bytes"].sum())
            for tally in tallies.values():
                if not tally.as_released:
                    tally.add(source, batch, columns)
        sample = sampled(rows)
        columns = measured(
            pa.array([text for _, text in sample], pa.large_string()), "language", "as_released", "quality"
        )
        for tally in tallies.values():
            if tally.as_released:
                tally.add(source, sample, columns)
        sources[source] = counts
        print(f"{source}: {counts['documents']} documents, {time.process_time() - started:.0f} CPU s", flush=True)
    record = {
        "sources": sources,
        "policies": {name: tally.record() for name, tally in tallies.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, tally in tallies.items():
        print(f"\n{name}: {tally.dropped} of {tally.documents} documents dropped")
        for rule, number, alone in zip(tally.policy.rules, tally.by_rule, tally.alone, strict=True):
            print(f"  {number:7d} {alone:7d} alone  {rule.name}: {rule.limits()}{'' if number else '  NEVER'}")
            if arguments.show:
                for example, text in tally.examples[rule.name]:
                    print(f"            {example['source']} {example['id']} {example['value']:g}: {text!r}")


class Tally:
    """What one policy says of the documents of its languages."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.as_released = any(signal.startswith("released_") for signal in policy.signals())
        self.documents = self.dropped = 0
        self.by_rule = [0] * len(policy.rules)
        self.alone = [0] * len(policy.rules)
        self.examples: dict[str, list[tuple[dict[str, Any], str]]] = {rule.name: [] for rule in policy.rules}

    def add(self, source: str, batch: list[Row], columns: dict[str, Any]) -> None:
        everyone = self.policy.languages == ("*",)
        mine = np.flatnonzero([everyone or lang in self.policy.languages for lang in columns["lang"]])
        nothing = np.full(len(batch), np.nan, np.float32)  # metadata that no document here has
        found = {signal: columns.get(signal, nothing)[mine] for signal in self.policy.signals()}
        objections = self.policy.objections(found)
        number = objections.sum(axis=0)
        self.documents += len(mine)
        self.dropped += int((number > 0).sum())
        for i, rule in enumerate(self.policy.rules):
            self.by_rule[i] += int(objections[i].sum())
            self.alone[i] += int((objections[i] & (number == 1)).sum())
            room = 2 - len(self.examples[rule.name])
            for row in np.flatnonzero(objections[i])[:room]:
                name, text = batch[mine[row]]
                value = float(found[rule.signal][row])
                self.examples[rule.name].append(({"source": source, "id": name, "value": value}, text[:100]))

    def record(self) -> dict[str, Any]:
        rules = {
            rule.name: {
                "limits": rule.limits(),
                "dropped": self.by_rule[i],
                "alone": self.alone[i],
                "examples": [example for example, _ in self.examples[rule.name]],
            }
            for i, rule in enumerate(self.policy.rules)
        }
        return {"sampled": self.as_released, "documents": self.documents, "dropped": self.dropped, "rules": rules}


def source_files(data: Path) -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((data / "pretrain" / folder).glob("*.jsonl.zst"))]
    return [path for path in found if path.name.removesuffix(".jsonl.zst") not in SKIPPED]


def documents(path: Path) -> Iterator[Row]:
    """(id, text) of every record; a page is read as the ingest step reads it."""
    with path.open("rb") as stream:
        content = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(stream)
        for line in io.TextIOWrapper(content, encoding="utf-8"):
            record = json.loads(line)
            if "text" in record:
                yield record["id"], record["text"]
            else:
                page = record.get("html") or base64.b64decode(record["html_b64"]).decode("utf-8", "replace")
                yield record["id"], extract(page).text


def batches(rows: list[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[1])
        if len(batch) == BATCH or size > BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def sampled(rows: list[Row]) -> list[Row]:
    fitting = [row for row in rows if len(row[1].encode()) <= SAMPLE_BYTES]
    step = max(1, len(fitting) // SAMPLE_DOCUMENTS)
    return fitting[::step][:SAMPLE_DOCUMENTS]


def general(texts: pa.Array) -> dict[str, Any]:
    return measured(texts, "quality", "repetition", "language")


def measured(texts: pa.Array, *families: str) -> dict[str, Any]:
    tables = [measure(texts, family) for family in families]
    return {name: column.to_numpy(zero_copy_only=False) for table in tables for name, column in table.items()}


if __name__ == "__main__":
    main()
