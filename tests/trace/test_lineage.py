"""A document's life and a training step's documents, over a small store with real split, pack and data order."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pyarrow as pa
import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import write_json
from diglot.corpus.edits.settings import Edits, FullWidthEdit, LinksEdit, PiiEdit
from diglot.corpus.pack import PackedTokens
from diglot.corpus.tables import Shard, write_table
from diglot.ledger.artifact import Artifact
from diglot.steps.deduplicate import STEP as DEDUPLICATE
from diglot.steps.edit import STEP as EDIT
from diglot.steps.pack import STEP as PACK
from diglot.steps.split import STEP as SPLIT
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from diglot.trace.lineage import batch, seen, why
from diglot.trace.objections import objections
from diglot.train.order import PhaseMix, plan_order
from diglot.train.sequences import num_sequences
from handmade_corpus import Doc, finish, run_step, selected

SEQUENCE_LENGTH = 32
WORDS = ("disk", "machine", "program", "system", "menu", "package", "mirror", "kernel", "user", "file", "network")


def english(seed: int, num_words: int = 70) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + draw.choice(("", "s", "ing")) for _ in range(num_words))


DOCS = [Doc(english(n), source=("guide", "handbook")[n % 2], shard=str(n % 3)) for n in range(30)]
COPY = Doc(english(0) + " end", source="mirror")
FOREIGN = Doc("Das Paket enthält das Programm.", source="guide", lang="de", reason=0)
SHORT = Doc("a short page", source="guide", reason=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict[str, Artifact]:
    """Finished artifacts by recipe step name, from ingest to a fine-tuned model."""
    store: Path = tmp_path_factory.mktemp("store")
    kept = selected(store, [*DOCS, COPY, FOREIGN, SHORT])
    distinct = run_step(DEDUPLICATE, store / "deduplicate" / "d", inputs={"from": kept})
    held = run_step(SPLIT, store / "split" / "s", inputs={"from": distinct}, share_heldout=0.1)
    folder = store / "train_tokenizer" / "t"
    write_tokenizer(folder, *train_vocabulary([doc.text for doc in DOCS], TrainingSettings(vocab_size=360)))
    tokenizer = finish(folder, {}, {"from": held}, {})
    tokens = run_step(PACK, store / "pack" / "p", inputs={"from": held, "tokenizer": tokenizer})
    base = pretrained(store, tokens)
    composed = store / "compose" / "c"
    conversations = [
        {"id": "c1", "lang": "en", "kind": "definition", "messages": "[]", "documents": [DOCS[1].id], "split": "train"},
        {
            "id": "c3",
            "lang": "en",
            "kind": "title",
            "messages": "[]",
            "documents": [DOCS[4].id, DOCS[1].id],
            "split": "train",
        },
        {"id": "c2", "lang": "en", "kind": "heading", "messages": "[]", "documents": [DOCS[2].id], "split": "heldout"},
    ]
    write_table(composed / "conversations.parquet", pa.Table.from_pylist(conversations))
    chats = finish(composed, {}, {"from": tokens}, {})
    write_json(store / "finetune" / "f" / "plan.json", {})
    tuned = finish(store / "finetune" / "f", {}, {"from": base, "conversations": chats}, {})
    pairs = store / "prefer" / "r"
    write_table(pairs / "pairs.parquet", pa.table({"conversation": ["c1"], "documents": [[DOCS[1].id]]}))
    preferred = finish(pairs, {}, {"from": tuned, "conversations": chats}, {})
    return {
        "pages": kept.upstream("ingest"),
        "signals": kept.upstream("annotate"),
        "kept": kept,
        "distinct": distinct,
        "held": held,
        "tokens": tokens,
        "base": base,
        "chats": chats,
        "tuned": tuned,
        "preferred": preferred,
    }


def pretrained(store: Path, tokens: Artifact) -> Artifact:
    """What a pretrain step leaves for these questions: its plan of two phases."""
    sizes = {
        stream.stream: num_sequences(stream.num_tokens, SEQUENCE_LENGTH)
        for stream in PackedTokens.open(tokens.path).streams("train")
    }
    phases = [
        PhaseMix(name="fundamental", num_train_steps=40, sequences_per_train_step=4, mixture={"*": 1.0}),
        PhaseMix(name="decay", num_train_steps=10, sequences_per_train_step=4, mixture={"guide.*": 1.0}),
    ]
    order = plan_order(phases, sizes, seed=5, max_epochs=None)
    write_json(store / "pretrain" / "b" / "plan.json", {"order": order.to_plan(), "sequence_length": SEQUENCE_LENGTH})
    return finish(store / "pretrain" / "b", {}, {"from": tokens}, {})


def test_seen_and_batch_are_inverse_to_each_other(run):
    read_by_step = {n: {d.id for s in batch(run, n).sequences for d in s.documents} for n in range(50)}
    for doc in DOCS:
        report = seen(run, doc.id)
        steps = {n for reading in report.readings for n in reading.train_steps}
        assert steps == {n for n, ids in read_by_step.items() if doc.id in ids}
        assert {r.phase for r in report.readings if max(r.train_steps) < 40} <= {"fundamental"}
        assert {r.phase for r in report.readings if min(r.train_steps) >= 40} <= {"decay"}
    assert len(read_by_step[0]) > 1


def test_the_documents_of_a_batch_are_those_whose_tokens_it_holds(run):
    report = batch(run, 43)
    assert (report.step, report.phase, report.phase_train_step, report.num_train_steps) == ("base", "decay", 3, 50)
    assert len(report.sequences) == 4
    packed = PackedTokens.open(run["tokens"].path)
    url = {doc.id: doc.url for doc in DOCS}
    for sequence in report.sequences:
        stream = packed.stream("train", sequence.stream)
        assert sequence.start == sequence.sequence * SEQUENCE_LENGTH
        assert (
            sum(d.stop - d.start for d in sequence.documents) == sequence.stop - sequence.start == SEQUENCE_LENGTH + 1
        )
        position = sequence.start
        for document in sequence.documents:
            assert stream.document_at(position).id == document.id
            assert position - stream.document_at(position).start == document.start
            assert document.url == url[document.id]
            position += document.stop - document.start


def test_a_near_duplicate_names_the_kept_document_with_its_jaccard(run):
    first, second = why(run, DOCS[0].id), why(run, COPY.id)
    kept, dropped = (first, second) if first.keep else (second, first)
    assert kept.keep
    assert not dropped.keep
    assert dropped.duplicate_of.id == kept.id
    assert dropped.duplicate_of.url == kept.url
    assert 0.9 < dropped.duplicate_of.jaccard < 1
    assert [one.id for one in kept.dropped_for_this] == [dropped.id]
    objection = dropped.objections[0]
    assert objection.rule == "near_duplicate"
    assert objection.value == pytest.approx(dropped.duplicate_of.jaccard)
    assert objection.limit == "Jaccard >= 0.8 or containment >= 0.95"
    assert dropped.seen.readings == ()
    assert "it was dropped" in dropped.to_text()


def test_a_dropped_document_names_its_rule_its_measure_and_the_limit(run, tmp_path):
    policies = {
        "en": {
            "rules": [
                {"name": "matrix-en/num_units", "signal": "num_units", "limits": "num_units < 50", "why": "stubs"}
            ]
        }
    }
    write_json(run["kept"].path / "policies.json", policies)
    report = why(run, SHORT.id)
    assert [(o.rule, o.value, o.limit, o.why) for o in report.objections] == [
        ("matrix-en/num_units", 3.0, "num_units < 50", "stubs")
    ]
    assert report.signals["quality"]["num_units"] == 3
    assert "dropped by matrix-en/num_units" in report.to_text()
    assert "num_units < 50" in report.to_text()
    foreign = why(run, FOREIGN.id)
    assert foreign.objections[0].rule == "language"
    assert foreign.objections[0].limit.startswith("identified as de")
    assert foreign.lang == "de"


def test_a_policy_for_any_language_describes_its_rules(tmp_path):
    doc = Doc("eine kurze Seite", lang="de", reason=1)
    kept = selected(tmp_path, [doc])
    rules = [{"name": "matrix-en/num_units", "signal": "num_units", "limits": "num_units < 20", "why": "stubs"}]
    write_json(kept.path / "policies.json", {"en": {"rules": [{**rules[0], "why": "another"}]}, "*": {"rules": rules}})
    (objection,) = why({"pages": kept.upstream("ingest"), "kept": kept}, doc.id).objections
    assert (objection.limit, objection.why) == ("num_units < 20", "stubs")


def test_of_several_edit_steps_the_one_that_dropped_a_document_says_its_limit(tmp_path):
    docs = [Doc("words and https://example.org/a-long-address-of-a-page", id="1" * 32), Doc("ＡＢＣ stay", id="2" * 32)]
    edits = (Edits(full_width=FullWidthEdit()), Edits(links=LinksEdit()), Edits(pii=PiiEdit()))
    artifacts = {"kept": selected(tmp_path, docs)}
    for number, (share, chosen) in enumerate(zip((0.1, 0.5, 0.9), edits, strict=True)):
        last = artifacts[list(artifacts)[-1]]
        out = tmp_path / "edit" / f"e{number}"
        artifacts[f"e{number}"] = run_step(
            EDIT, out, inputs={"from": last}, edits=chosen, min_kept_share=share, min_chars=1
        )
    (objection,) = why({**artifacts, "pages": last.upstream("ingest")}, "1" * 32).objections
    assert objection.limit == "at least 50% of the characters and 1 of them left by the edits"


def test_every_objection_is_listed_the_first_reason_first(run):
    verdict = {"reasons": 0b1011, "first_reason": 3, "value": 0.9, "jaccard": 0.9, "containment": 0.9, "lang": "fr"}
    signals = {"quality": {"matrix-en/num_units": 12.0}, "language": {"lang_score": 0.7}}
    found = objections(run["held"], verdict, signals, Shard("handbook", "0"))
    assert [objection.rule for objection in found] == ["near_duplicate", "language", "matrix-en/num_units"]
    assert [objection.value for objection in found] == [0.9, 0.7, 12.0]


def test_a_kept_document_tells_source_signals_split_and_tokens(run):
    split = {doc.id: seen(run, doc.id).split for doc in DOCS[1:]}
    assert set(split.values()) == {"train", "heldout"}
    for name in ("train", "heldout"):
        doc = next(doc for doc in DOCS[1:] if split[doc.id] == name)
        report = why(run, doc.id)
        assert (report.source, report.url, report.keep, report.objections) == (doc.source, doc.url, True, ())
        assert report.origin["container"] == "handmade.tar"
        assert report.seen.span.split == name
        assert report.seen.span.stream == f"{doc.source}.en"
        assert bool(report.seen.readings) == (name == "train")
        assert ("it is held out" in report.to_text()) == (name == "heldout")
    json.dumps(why(run, DOCS[1].id).to_dict(), allow_nan=False)


def test_conversations_name_the_steps_that_use_them(run):
    first = seen(run, DOCS[1].id)
    assert [(c.id, c.used_by) for c in first.conversations] == [("c1", ("tuned", "preferred")), ("c3", ("tuned",))]
    assert "definition conversation c1 (en, train), used by tuned, preferred" in first.to_text()
    assert [(c.id, c.used_by) for c in seen(run, DOCS[2].id).conversations] == [("c2", ())]
    assert seen(run, DOCS[3].id).conversations == ()


def test_a_document_is_found_by_the_beginning_of_its_id_or_by_its_address(run):
    assert seen(run, DOCS[4].id[:10]).id == DOCS[4].id
    assert seen(run, DOCS[4].id[:10].upper()).id == DOCS[4].id
    assert seen(run, DOCS[4].url).id == DOCS[4].id
    shortest = next(d for d in "0123456789abcdef" if sum(doc.id.startswith(d) for doc in DOCS) > 1)
    with pytest.raises(InputError, match="Give more digits"):
        seen(run, shortest)
    for nonsense in ("xyz", "", "https://example.org/nowhere"):
        with pytest.raises(InputError, match="no document of this run"):
            seen(run, nonsense)


def test_an_unfinished_run_answers_as_far_as_it_has_come(run):
    names = ["pages", "signals", "kept", "distinct", "held", "tokens", "base"]
    for done in range(1, len(names)):
        part = {name: run[name] for name in names[:done]}
        report = why(part, DOCS[4].id)
        assert report.keep is (True if done >= 3 else None)
        assert bool(report.signals) == (done >= 2)
        assert report.seen.readings == ()
        assert report.to_text()
        with pytest.raises(InputError, match="no finished pretrain step"):
            batch(part, 0)
    with pytest.raises(InputError, match="no finished ingest step"):
        why({}, DOCS[4].id)


def test_a_train_step_outside_the_run_is_refused(run):
    with pytest.raises(ConfigError, match="50"):
        batch(run, 50)
    with pytest.raises(ConfigError, match="did you mean 'base'"):
        batch(run, 0, step="bass")
    with pytest.raises(InputError, match="base, second"):
        batch({**run, "second": run["base"]}, 0)


def test_answers_come_in_a_second(run):
    started = time.monotonic()
    why(run, DOCS[5].id)
    batch(run, 7)
    assert time.monotonic() - started < 1
