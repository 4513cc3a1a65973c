"""What was found of each benchmark: counts, and the clearest cases with the matched text to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from diglot.corpus.decontaminate.index import Index
from diglot.corpus.decontaminate.items import ANSWER
from diglot.corpus.decontaminate.scan import ShardTask
from diglot.corpus.tables import documents_of, read_table

FULL = 0.999  # coverage from which an item stands in a document as a whole
NUM_EXAMPLES = 5  # of each benchmark
AROUND_BYTES, EXCERPT_CHARS = 60, 400


def by_benchmark(index: Index, tasks: Iterable[ShardTask]) -> dict[str, dict[str, Any]]:
    """For every benchmark, also those of which nothing was found:

    items, searchable_items: how many it has, and how many have a question or passage long enough to be looked for;
    found_items: stand in a document well enough to drop it; full_items: as a whole; touched_items: by any n-gram;
    dropped_documents, touched_documents; examples: the fullest hits, longest first, each with an excerpt.
    """
    sums: dict[str, dict[str, set[str]]] = {}
    for part, num_units in zip(index.parts, index.num_units.tolist(), strict=True):
        mine = sums.setdefault(part.benchmark, {name: set() for name in (*_ITEM_SETS, *_DOCUMENT_SETS)})
        mine["items"].add(part.item)
        if num_units and part.part != ANSWER:
            mine["searchable_items"].add(part.item)
    best: dict[str, list[tuple[tuple[float, int, str, str], ShardTask, dict[str, Any]]]] = {name: [] for name in sums}
    for task in tasks:
        for hit in read_table(task.hits).to_pylist():
            mine = sums[hit["benchmark"]]
            if hit["part"] == ANSWER:
                continue
            mine["touched_items"].add(hit["item"])
            mine["touched_documents"].add(hit["id"])
            if hit["drops"]:
                mine["found_items"].add(hit["item"])
                mine["dropped_documents"].add(hit["id"])
            if hit["coverage"] >= FULL:
                mine["full_items"].add(hit["item"])
            place = (-hit["coverage"], -hit["num_units"], hit["id"], hit["item"])
            best[hit["benchmark"]] = sorted([*best[hit["benchmark"]], (place, task, hit)], key=lambda one: one[0])
            del best[hit["benchmark"]][NUM_EXAMPLES:]
    return {
        name: {
            **{key: len(members) for key, members in mine.items()},
            "examples": [_example(task, hit) for _, task, hit in best[name]],
        }
        for name, mine in sorted(sums.items())
    }


_ITEM_SETS = ("items", "searchable_items", "found_items", "full_items", "touched_items")
_DOCUMENT_SETS = ("dropped_documents", "touched_documents")


def _example(task: ShardTask, hit: dict[str, Any]) -> dict[str, Any]:
    table = documents_of(task.corpus, task.shard, ["id", "url", "text"])
    row = table["id"].index(pa.scalar(hit["id"])).as_py()
    text = table["text"][row].as_py().encode()
    return {
        "document": hit["id"],
        "url": table["url"][row].as_py(),
        "source": task.shard.source,
        "item": hit["item"],
        "part": hit["part"],
        "coverage": round(hit["coverage"], 4),
        "num_units": hit["num_units"],
        "drops": hit["drops"],
        "excerpt": excerpt(text, hit["spans"]),
    }


def excerpt(text: bytes, spans: list[list[int]]) -> str:
    """The longest matched span in [brackets] with what stands around it; white space made single."""
    start, stop = max(spans, key=lambda span: span[1] - span[0])
    before, inside, after = (
        part.decode("utf-8", "ignore")
        for part in (text[max(0, start - AROUND_BYTES) : start], text[start:stop], text[stop : stop + AROUND_BYTES])
    )
    shown = inside if len(inside) <= EXCERPT_CHARS else f"{inside[:EXCERPT_CHARS]} ..."
    return " ".join(f"{before}[{shown}]{after}".split())
