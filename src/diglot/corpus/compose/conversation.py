"""A conversation with its provenance, and the table it is kept in."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import xxhash

from diglot.core.errors import InputError
from diglot.corpus.tables import read_table, write_table

FILE = "conversations.parquet"

CONVERSATION = pa.schema(
    [
        ("id", pa.string()),  # xxh3-128 of everything below, 32 hex digits
        ("lang", pa.string()),  # of the answer, BCP 47
        ("kind", pa.string()),  # heading, steps, definition, purpose, translation, topics, title
        ("messages", pa.string()),  # JSON list of {"role", "content"}
        ("documents", pa.list_(pa.string())),  # ids of the documents that question and answer were taken from
        ("split", pa.string()),  # train | heldout
    ]
)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Alternating user and assistant messages; the last one is the assistant's."""

    lang: str
    kind: str
    messages: tuple[dict[str, str], ...]
    documents: tuple[str, ...]
    split: str

    @functools.cached_property
    def id(self) -> str:
        content = json.dumps([self.lang, self.kind, self.messages, self.documents, self.split], ensure_ascii=False)
        return xxhash.xxh3_128_hexdigest(content.encode())

    @property
    def prompt(self) -> tuple[dict[str, str], ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]


def ask(question: str, answer: str) -> tuple[dict[str, str], ...]:
    """One question with its answer."""
    return ({"role": "user", "content": question}, {"role": "assistant", "content": answer})


def write_conversations(folder: Path, conversations: Iterable[Conversation]) -> None:
    """Write the table of `compose`, ordered by id: an order that says nothing about language, kind or page."""
    rows = [
        {
            "id": c.id,
            "lang": c.lang,
            "kind": c.kind,
            "messages": json.dumps(c.messages, ensure_ascii=False),
            "documents": list(c.documents),
            "split": c.split,
        }
        for c in sorted(conversations, key=lambda c: c.id)
    ]
    write_table(folder / FILE, pa.Table.from_pylist(rows, schema=CONVERSATION))


def read_conversations(folder: Path, split: str) -> list[Conversation]:
    """The conversations of one split, by id. Raises InputError when there are none."""
    found = [
        Conversation(
            lang=row["lang"],
            kind=row["kind"],
            messages=tuple(json.loads(row["messages"])),
            documents=tuple(row["documents"]),
            split=split,
        )
        for row in read_table(folder / FILE).to_pylist()
        if row["split"] == split
    ]
    if not found:
        raise InputError(f"{folder / FILE} has no {split} conversations. Give the compose step more documents.")
    return found
