"""One document's life, and one training step's documents, read from the artifacts of a run.

Pure functions of what the steps wrote: nothing is indexed beforehand and nothing imports torch. Each takes the finished
artifacts of a run by recipe step name, as `diglot.recipe.run.run_artifacts` gives them, and answers as far as the run
has come: before training there are no training steps to name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from diglot.core.errors import InputError, unknown
from diglot.core.storage import read_json
from diglot.corpus.pack import PackedTokens
from diglot.corpus.tables import decisions_of, read_table, shards
from diglot.ledger.artifact import Artifact
from diglot.trace.attribution import Reads
from diglot.trace.lineage_reports import (
    BatchReport,
    ConversationUse,
    Cut,
    ReadDocument,
    Reading,
    ReadSequence,
    Resemblance,
    SeenReport,
    TokenSpan,
    WhyReport,
)
from diglot.trace.objections import objections
from diglot.trace.place import Artifacts, Place, addresses, finite, locate, made_from, of_kind
from diglot.train.order import DataOrder

BEGINNING_CHARS = 160
CUT_CHARS = 80  # of a text that an edit took out


def why(artifacts: Artifacts, document_id: str) -> WhyReport:
    """Everything that happened to one document.

    Args:
        document_id: its id, the beginning of its id, or its address.
    Raises: InputError when no document or more than one fits.
    """
    place = locate(artifacts, document_id)
    document, verdict, signals = place.document(), place.verdict(), place.signals()
    text, keep = document["text"], verdict.get("keep")
    return WhyReport(
        id=place.id,
        source=document["source"],
        url=document["url"],
        origin=document["origin"],
        license=document["license"],
        date=document["date"],
        declared_lang=document["lang"],
        lang=verdict.get("lang"),
        num_bytes=len(text.encode()),
        beginning=" ".join(text[: 2 * BEGINNING_CHARS].split())[:BEGINNING_CHARS],
        signals=signals,
        keep=keep,
        objections=objections(place.decider, verdict, signals, place.shard) if place.decider else (),
        cuts=tuple(_cuts(place, text)),
        duplicate_of=_duplicate_of(place, verdict),
        dropped_for_this=_dropped_for(place) if keep else (),
        cluster=verdict.get("cluster"),
        num_in_cluster=_num_in_cluster(place, verdict.get("cluster")),
        seen=_seen(artifacts, place, document["url"], verdict),
    )


def seen(artifacts: Artifacts, document_id: str) -> SeenReport:
    """Every training step that read a document. Arguments and errors as of `why`."""
    place = locate(artifacts, document_id)
    return _seen(artifacts, place, place.document(["url"])["url"], place.verdict())


def batch(artifacts: Artifacts, train_step: int, step: str | None = None) -> BatchReport:
    """The documents of one training step.

    Args:
        train_step: counted from 0 over all phases.
        step: name of the pretrain step of the recipe; needed when a run has several.
    Raises: InputError when the run has no finished pre-training; ConfigError for an unknown step or train step.
    """
    name, run = _pretrain(artifacts, step)
    (order, longest), packed = _order(run), PackedTokens.open(run.upstream("pack").path)
    sequences = order.sequences(train_step)
    sequence_length = longest // order.phases[order.phase_index(train_step)].pieces_per_block
    read = [_sequence(packed, stream, sequence, sequence_length) for stream, sequence in sequences]
    phase, phase_start = _phase_at(order, train_step)
    return BatchReport(
        step=name,
        train_step=train_step,
        num_train_steps=order.num_train_steps,
        phase=phase,
        phase_train_step=train_step - phase_start,
        sequences=_with_addresses(run, packed, read),
    )


def _pretrain(artifacts: Artifacts, step: str | None) -> tuple[str, Artifact]:
    runs = of_kind(artifacts, "pretrain")
    if not runs:
        raise InputError("this run has no finished pretrain step yet. Finish it with `diglot run`, then ask again.")
    if step is None and len(runs) > 1:
        raise InputError(f"this run pre-trains in several steps: {', '.join(runs)}. Say which one is meant.")
    name = step if step is not None else next(iter(runs))
    if name not in runs:
        raise unknown("pretrain step", name, runs)
    return name, runs[name]


def _sequence(packed: PackedTokens, stream_name: str, number: int, sequence_length: int) -> ReadSequence:
    """What sequence `number` of a stream holds; addresses come later, for the whole batch at once."""
    stream = packed.stream("train", stream_name)
    start = number * sequence_length
    stop = min(start + sequence_length + 1, stream.num_tokens)
    documents = tuple(
        ReadDocument(
            id=document.id,
            url=None,
            start=max(start - document.start, 0),
            stop=min(stop - document.start, document.num_tokens),
            num_tokens=document.num_tokens,
        )
        for document in stream.documents_between(start, stop)
    )
    return ReadSequence(stream=stream_name, sequence=number, start=start, stop=stop, documents=documents)


def _with_addresses(run: Artifact, packed: PackedTokens, read: list[ReadSequence]) -> tuple[ReadSequence, ...]:
    names = {sequence.stream for sequence in read}
    sources = {stream.source for stream in packed.streams("train") if stream.stream in names}
    ids = {document.id for sequence in read for document in sequence.documents}
    url = addresses(run.upstream("ingest"), ids, sources)
    return tuple(
        dataclasses.replace(
            sequence,
            documents=tuple(dataclasses.replace(one, url=url.get(one.id)) for one in sequence.documents),
        )
        for sequence in read
    )


def _seen(artifacts: Artifacts, place: Place, url: str | None, verdict: Mapping[str, Any]) -> SeenReport:
    span, runs, readings = None, {}, []
    for pack in made_from(of_kind(artifacts, "pack").values(), place.ingest):
        if hit := PackedTokens.open(pack.path).find(place.id):
            stream, document = hit
            span = TokenSpan(
                split=stream.split, stream=stream.stream, start=document.start, num_tokens=document.num_tokens
            )
            runs = {name: run for name, run in of_kind(artifacts, "pretrain").items() if run.upstream("pack") == pack}
            break
    if span is not None and span.split == "train":
        readings = [reading for name, run in runs.items() for reading in _readings(name, run, span)]
    return SeenReport(
        id=place.id,
        url=url,
        keep=verdict.get("keep"),
        split=_split(artifacts, place) if verdict.get("keep") else None,
        span=span,
        readings=tuple(readings),
        conversations=tuple(_conversations(artifacts, place.id)),
        finished_runs=tuple(runs),
    )


def _readings(name: str, run: Artifact, span: TokenSpan) -> Iterator[Reading]:
    """What each phase of a run read of these tokens."""
    order, sequence_length = _order(run)
    reads = Reads(order, sequence_length)
    by_phase: dict[str, list[int]] = {}
    for train_step in reads.train_steps(span.stream, span.start, span.start + span.num_tokens):
        by_phase.setdefault(_phase_at(order, train_step)[0], []).append(train_step)
    for phase, found in by_phase.items():
        yield Reading(step=name, phase=phase, train_steps=tuple(found))


def _split(artifacts: Artifacts, place: Place) -> str | None:
    """`train` or `heldout`; None before the split."""
    for split in made_from(of_kind(artifacts, "split").values(), place.ingest):
        held_out = read_table(split.path / "heldout" / place.shard.file, ["held_out"])["held_out"][place.row]
        return "heldout" if held_out.as_py() else "train"
    return None


def _conversations(artifacts: Artifacts, document: str) -> Iterator[ConversationUse]:
    """Conversations that were composed from a document, and who uses them."""
    for compose in of_kind(artifacts, "compose").values():
        table = read_table(compose.path / "conversations.parquet", ["id", "kind", "lang", "split", "documents"])
        documents = table["documents"].combine_chunks()
        mine = pc.list_parent_indices(documents).filter(pc.equal(pc.list_flatten(documents), document))
        finetuned = [name for name, run in of_kind(artifacts, "finetune").items() if compose in run.inputs()]
        preferred = {
            name: set(read_table(run.path / "pairs.parquet", ["conversation"])["conversation"].to_pylist())
            for name, run in of_kind(artifacts, "prefer").items()
            if compose in run.inputs()
        }
        for row in table.take(pc.unique(mine)).drop_columns("documents").to_pylist():
            used_by = list(finetuned) if row["split"] == "train" else []
            used_by += [name for name, conversations in preferred.items() if row["id"] in conversations]
            yield ConversationUse(**row, used_by=tuple(used_by))


def _cuts(place: Place, original: str) -> Iterator[Cut]:
    """What the edit steps took out of a document, in the order in which they did."""
    for step, text, spans in place.edits(original):
        content = text.encode()
        for span in spans:
            cut = content[span.start : span.stop].decode()
            shown = cut if len(cut) <= CUT_CHARS else f"{cut[:CUT_CHARS]} ..."
            yield Cut(step=step.manifest.step, text=shown, **span._asdict())


def _duplicate_of(place: Place, verdict: Mapping[str, Any]) -> Resemblance | None:
    original = verdict.get("duplicate_of")
    if original is None:
        return None
    url = addresses(place.ingest, [original]).get(original)
    return _resemblance(original, url, verdict)


def _dropped_for(place: Place) -> tuple[Resemblance, ...]:
    """The documents that were dropped in favour of this one, most similar first."""
    if place.decider is None:
        return ()
    found = []
    for shard in shards(place.ingest):
        table = decisions_of(place.decider, shard, ["id", "duplicate_of", "jaccard", "containment"])
        found += table.filter(pc.equal(table["duplicate_of"], place.id)).to_pylist()
    url = addresses(place.ingest, [row["id"] for row in found])
    found.sort(key=lambda row: (-row["jaccard"], row["id"]))
    return tuple(_resemblance(row["id"], url.get(row["id"]), row) for row in found)


def _resemblance(document: str, url: str | None, evidence: Mapping[str, Any]) -> Resemblance:
    return Resemblance(
        id=document, url=url, jaccard=finite(evidence["jaccard"]), containment=finite(evidence["containment"])
    )


def _num_in_cluster(place: Place, cluster: str | None) -> int:
    """How many kept documents the cluster has."""
    if cluster is None or place.decider is None:
        return 0
    total = 0
    for shard in shards(place.ingest):
        table = decisions_of(place.decider, shard, ["keep", "cluster"])
        total += len(table.filter(pc.and_(table["keep"], pc.equal(table["cluster"], cluster))))
    return total


def _order(run: Artifact) -> tuple[DataOrder, int]:
    """The data order of a pre-training run, and the inputs in one of its longest sequences."""
    plan = read_json(run.path / "plan.json")
    return DataOrder.from_plan(plan), plan["sequence_length"]


def _phase_at(order: DataOrder, train_step: int) -> tuple[str, int]:
    """The phase of a training step, and the phase's first step."""
    start = 0
    for phase in order.phases:
        if train_step < start + phase.num_train_steps:
            return phase.name, start
        start += phase.num_train_steps
    raise AssertionError(f"the order has no train step {train_step}")
