"""Where a document is in the tables of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from diglot.core.errors import InputError
from diglot.corpus.edits.spans import Span, apply
from diglot.corpus.tables import (
    DECIDING,
    Shard,
    attributes_of,
    decisions_of,
    documents_of,
    edit_steps,
    raw_documents_of,
    read_table,
    shards,
)
from diglot.ledger.artifact import Artifact

Artifacts = Mapping[str, Artifact]  # recipe step name -> finished artifact
Signals = dict[str, dict[str, Any]]  # family -> signal -> value

NOT_SIGNALS = {"id", "signature", "content_hi", "content_lo"}
NUM_CANDIDATES = 5  # named when an id is ambiguous


@dataclass(frozen=True)
class Place:
    """One document: its row in every table of its shard. decider, annotate: None before those steps are finished."""

    id: str
    ingest: Artifact
    shard: Shard
    row: int
    decider: Artifact | None
    annotate: Artifact | None
    classifies: tuple[Artifact, ...] = ()

    def document(self, columns: list[str] | None = None) -> dict[str, Any]:
        """The document as it was ingested."""
        return _row(raw_documents_of(self.ingest, self.shard, columns), self.row)

    def edits(self, text: str) -> list[tuple[Artifact, str, list[Span]]]:
        """What each edit step did, first applied first: the step, the text it found, its spans. text: the original."""
        found = []
        for step in edit_steps(self.decider) if self.decider is not None else []:
            row = _row(read_table(step.path / "edits" / self.shard.file, ["spans"]), self.row)
            spans = [Span(**span) for span in row["spans"]]
            found.append((step, text, spans))
            text = apply(text, spans)
        return found

    def verdict(self) -> dict[str, Any]:
        """The last decision; empty before any step decided."""
        return {} if self.decider is None else _row(decisions_of(self.decider, self.shard), self.row)

    def signals(self) -> Signals:
        """Everything that was measured, except hashes."""
        if self.annotate is None:
            return {}
        folders = [
            (step, path.name)
            for step in (self.annotate, *self.classifies)
            for path in sorted((step.path / "attributes").iterdir())
            if path.is_dir()
        ]
        found = {}
        for step, family in folders:
            row = _row(attributes_of(step, family, self.shard), self.row)
            signals = {name: finite(value) for name, value in row.items() if name not in NOT_SIGNALS}
            if signals:
                found[family] = signals
        return found


def locate(artifacts: Artifacts, asked: str) -> Place:
    """Find a document by its id, the beginning of its id, or its address.

    Raises: InputError when no document or more than one fits.
    """
    ingests = of_kind(artifacts, "ingest").values()
    if not ingests:
        raise InputError("this run has no finished ingest step yet. Finish it with `diglot run`, then ask again.")
    asked, found = asked.strip(), []
    for ingest in ingests if asked else []:
        for shard in shards(ingest):
            table = documents_of(ingest, shard, ["id", "url"])
            same_url = pc.fill_null(pc.equal(table["url"], asked), False)
            fits = pc.or_(pc.starts_with(table["id"], asked.lower()), same_url)
            for row in pc.indices_nonzero(fits).to_pylist():
                found.append((table["id"][row].as_py(), table["url"][row].as_py(), ingest, shard, row))
    if not found:
        raise InputError(
            f"no document of this run has an id that begins with '{asked}', or this address. Ids are 32 hex digits; "
            "`diglot batch` and `diglot trace` print them."
        )
    if len(found) > 1:
        some = "; ".join(f"{one[0]} {one[1] or ''}" for one in found[:NUM_CANDIDATES])
        raise InputError(f"'{asked}' fits {len(found)} documents, such as {some}. Give more digits of the id.")
    document, _, ingest, shard, row = found[0]
    annotates = list(made_from(of_kind(artifacts, "annotate").values(), ingest))
    classifies = tuple(made_from(of_kind(artifacts, "classify").values(), ingest))
    decider, annotate = _last_decider(artifacts, ingest), next(iter(annotates), None)
    return Place(document, ingest, shard, row, decider, annotate, classifies)


def _last_decider(artifacts: Artifacts, ingest: Artifact) -> Artifact | None:
    """The finished step whose verdicts went through most others: they tell the whole story."""
    deciders = [a for kind in DECIDING for a in made_from(of_kind(artifacts, kind).values(), ingest)]
    return max(deciders, key=lambda a: sum(one.kind in DECIDING for one in a.ancestors()), default=None)


def addresses(ingest: Artifact, ids: Iterable[str], sources: Iterable[str] = ()) -> dict[str, str | None]:
    """Addresses of documents. Shards of the named sources are read first, and none after the last id was found."""
    found: dict[str, str | None] = {}
    missing, likely = set(ids), set(sources)
    for shard in sorted(shards(ingest), key=lambda shard: (shard.source not in likely, shard)):
        if not missing:
            break
        table = documents_of(ingest, shard, ["id", "url"])
        table = table.filter(pc.is_in(table["id"], pa.array(sorted(missing))))
        found |= dict(zip(table["id"].to_pylist(), table["url"].to_pylist(), strict=True))
        missing -= found.keys()
    return found


def of_kind(artifacts: Artifacts, kind: str) -> dict[str, Artifact]:
    return {name: artifact for name, artifact in artifacts.items() if artifact.kind == kind}


def made_from(candidates: Iterable[Artifact], ingest: Artifact) -> Iterator[Artifact]:
    """Those of the candidates whose documents are these."""
    return (artifact for artifact in candidates if artifact.upstream("ingest") == ingest)


def finite(value: Any) -> Any:
    """None for a value that is not a number, as JSON has none for it."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _row(table: pa.Table, row: int) -> dict[str, Any]:
    values: dict[str, Any] = table.slice(row, 1).to_pylist()[0]
    return values
