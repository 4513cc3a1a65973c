"""The edit step: spans and verdicts on disk, what later steps read, what `why` says, and independence of the run."""

from __future__ import annotations

import io
import itertools
import json
import random
from pathlib import Path

import pytest
import zstandard

from diglot.core.errors import ConfigError
from diglot.core.storage import read_json
from diglot.corpus.edits.settings import (
    Edits,
    FullWidthEdit,
    LinesEdit,
    LinksEdit,
    ParagraphsEdit,
    PiiEdit,
    SimilarLinesEdit,
    SubstringsEdit,
)
from diglot.corpus.edits.spans import Span, apply
from diglot.corpus.edits.texts import Texts
from diglot.corpus.splits import split_documents
from diglot.corpus.tables import (
    decisions_of,
    documents_of,
    edit_steps,
    kept_documents,
    raw_documents_of,
    read_table,
    rule_names,
    shards,
)
from diglot.ledger.artifact import Artifact
from diglot.steps.deduplicate import STEP as DEDUPLICATE
from diglot.steps.edit import STEP, EditConfig
from diglot.steps.pack import STEP as PACK
from diglot.steps.report_page.corpus_facts import funnel
from diglot.steps.split import STEP as SPLIT
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from diglot.trace.lineage import why
from few_files import few_files
from handmade_corpus import RULES, Doc, finish, run_step, selected

NOTICE = "This notice stands on every page of the site, and it is long enough to count as a paragraph of its own."
STORY = (
    "The lamp had burned all night above the harbour, and nobody remembered who had lit it. A ship came in at dawn. "
    "Its captain asked for water, bread and a pilot, and paid for none of them."
)
ALL = Edits(
    lines=LinesEdit(lorem_ipsum=True),
    similar_lines=SimilarLinesEdit(),
    paragraphs=ParagraphsEdit(),
    substrings=SubstringsEdit(),
    links=LinksEdit(),
    pii=PiiEdit(),
    full_width=FullWidthEdit(),
)
DOCS = [
    Doc(f"First page. {STORY}\n{NOTICE}\nIt ends here, with words of its own.", id="0" * 32, shard="b"),
    Doc(f"Second page begins. {STORY} And it ends.\nMail jane@mail.org, see https://a.org/x.\n{NOTICE}", id="1" * 32),
    Doc(f"{NOTICE}\nok", id="2" * 32, shard="b"),
    Doc(f"{NOTICE}\ndropped before by a rule, so nobody edits it", id="3" * 32, reason=1),
    Doc("第１页如下。该程序首先检测计算机的硬件设备。该程序首先检测计算机里硬件设备。", id="4" * 32, lang="zh-Hans"),
    Doc("A short page that has nothing to lose.", id="5" * 32, shard="b", source="other"),
    Doc("lorem ipsum dolor\nThis line of the page stays as it was.", id="6" * 32),
]  # fmt: skip
LEFT = {
    "0": DOCS[0].text,
    "1": "Second page begins. And it ends.\nMail <email>, see.\n",
    "2": "ok",
    "3": DOCS[3].text,
    "4": "第1页如下。该程序首先检测计算机的硬件设备。",
    "5": DOCS[5].text,
    "6": "This line of the page stays as it was.",
}


def edit(store: Path, docs=DOCS, name="e", edits=ALL, kept=None, **settings) -> Artifact:
    kept = kept or selected(store, docs)
    settings = {"min_kept_share": 0.1, **settings}
    return run_step(STEP, store / "edit" / name, inputs={"from": kept}, edits=edits, **settings)


def texts_of(artifact: Artifact) -> dict[str, str]:
    tables = [documents_of(artifact, shard, ["id", "text"]) for shard in shards(artifact.upstream("ingest"))]
    return {row["id"]: row["text"] for table in tables for row in table.to_pylist()}


def by_digit(texts: dict[str, str]) -> dict[str, str]:
    return {name[0]: text for name, text in texts.items()}


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Artifact:
    return edit(tmp_path_factory.mktemp("store"))


def test_later_steps_read_the_edited_text_and_the_original_stays(edited):
    assert by_digit(texts_of(edited)) == LEFT
    for shard in shards(edited.upstream("ingest")):
        raw = raw_documents_of(edited, shard, ["id", "text"]).to_pylist()
        assert all(row["text"] == next(doc.text for doc in DOCS if doc.id == row["id"]) for row in raw)
        assert documents_of(edited.upstream("select"), shard, ["text"]) == raw_documents_of(edited, shard, ["text"])
        assert documents_of(edited, shard, ["url"]).column_names == ["url"]
        assert documents_of(edited, shard).schema == raw_documents_of(edited, shard).schema
    kept = {row["id"][0]: row["text"] for _, t in kept_documents(edited, ["id", "text"]) for row in t.to_pylist()}
    assert kept == {digit: LEFT[digit] for digit in "01456"}


def test_spans_stand_beside_the_documents_with_rule_and_first_copy(edited):
    rows = {}
    for shard in shards(edited.upstream("ingest")):
        table = read_table(edited.path / "edits" / shard.file)
        assert table["id"].equals(raw_documents_of(edited, shard, ["id"])["id"])
        rows |= {row["id"][0]: [Span(**span) for span in row["spans"]] for row in table.to_pylist()}
    for doc in DOCS:
        spans = rows[doc.id[0]]
        assert apply(doc.text, spans) == LEFT[doc.id[0]]
        assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))
    assert [(span.rule, span.first_in) for span in rows["1"]] == [
        ("substrings", "0" * 32), ("pii/email", None), ("links", None), ("paragraphs", "0" * 32),
    ]  # fmt: skip
    assert [span.rule for span in rows["4"]] == ["full_width", "similar_lines"]
    assert [span.rule for span in rows["6"]] == ["lines/lorem_ipsum"]


def test_what_lost_too_much_is_dropped_and_everything_is_counted(edited):
    verdicts = {
        row["id"][0]: row
        for shard in shards(edited.upstream("ingest"))
        for row in decisions_of(edited, shard).to_pylist()
    }
    assert rule_names(edited) == [*RULES, "edited_away"]
    assert {name for name, row in verdicts.items() if row["keep"]} == set("01456")
    gone = verdicts["2"]
    assert (gone["first_reason"], gone["reasons"]) == (2, 4)
    assert gone["value"] == pytest.approx(2 / len(DOCS[2].text))
    assert gone["num_bytes"] == len(DOCS[2].text)
    assert verdicts["3"]["first_reason"] == 1
    counts = edited.counts
    assert (counts["documents"], counts["kept"], counts["dropped"]) == (6, 5, {"edited_away": 1})
    assert counts["bytes"] == sum(len(doc.text.encode()) for doc in DOCS if doc.reason < 0)
    assert counts["bytes_after"] == sum(len(LEFT[digit].encode()) for digit in "01456")
    assert set(counts["languages"]) == {"en", "zh-Hans"}
    assert counts["sources"]["other"]["edited"] == 0
    for group in (counts["languages"], counts["sources"]):
        for name in ("documents", "kept", "edited", "bytes", "bytes_after"):
            assert sum(one[name] for one in group.values()) == counts[name]
    rule = counts["rules"]["paragraphs"]
    assert (rule["spans"], rule["documents"]) == (2, 2)
    assert rule["bytes_cut"] == 2 * len(NOTICE) + 1


def test_examples_show_what_each_rule_did(edited):
    examples = read_json(edited.path / "examples.json")
    assert set(examples) == set(edited.counts["rules"])
    (email,) = examples["pii/email"]
    assert "⟦jane@mail.org⟧" in email["before"]
    assert "Mail <email>, see" in email["after"]
    assert examples["substrings"][0]["first_in"] == "0" * 32


def test_a_document_that_loses_nothing_is_never_dropped_for_its_length(tmp_path):
    done = edit(tmp_path, [Doc("tiny"), Doc("Ａ")], min_chars=50, edits=Edits(full_width=FullWidthEdit()))
    assert done.counts["kept"] == 2


@pytest.mark.slow
def test_processes_give_the_same_bytes(tmp_path, edited, monkeypatch):
    monkeypatch.setattr("diglot.corpus.edits.rounds.BYTES_PER_WORKER", 1)
    again = edit(tmp_path, workers=2)
    for path in sorted(edited.path.rglob("*.parquet")):
        assert path.read_bytes() == (again.path / path.relative_to(edited.path)).read_bytes()
    assert (edited.path / "examples.json").read_bytes() == (again.path / "examples.json").read_bytes()
    assert not (again.path / "work").exists()


def test_the_order_of_shards_and_sources_changes_no_text(tmp_path):
    shuffled = [Doc(d.text, id=d.id, lang=d.lang, reason=d.reason, source="s", shard=d.id[0]) for d in DOCS[::-1]]
    assert by_digit(texts_of(edit(tmp_path, shuffled))) == LEFT


def test_a_killed_run_goes_on_and_gives_the_same(tmp_path, edited, monkeypatch):
    from diglot.steps import edit as step

    kept, calls = selected(tmp_path, DOCS), []
    original = step._edit_shard

    def dies(task):
        calls.append(task.number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(task)

    monkeypatch.setattr(step, "_edit_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        edit(tmp_path, kept=kept)
    again = edit(tmp_path, kept=kept)
    assert calls == [0, 1, 1, 2]
    assert texts_of(again) == texts_of(edited)
    assert {k: v for k, v in again.counts.items() if k != "seconds"} == {
        k: v for k, v in edited.counts.items() if k != "seconds"
    }


def test_two_edit_steps_apply_one_after_the_other(tmp_path):
    docs = [Doc("Ａ page with ｊａｎｅ@mail.org in it, and more words.", id="0" * 32)]
    first = edit(tmp_path, docs, edits=Edits(full_width=FullWidthEdit()))
    second = edit(tmp_path, name="second", kept=first, edits=Edits(pii=PiiEdit()))
    assert [step.fingerprint for step in edit_steps(second)] == ["e", "second"]
    assert texts_of(first)["0" * 32] == "A page with jane@mail.org in it, and more words."
    assert texts_of(second)["0" * 32] == "A page with <email> in it, and more words."
    assert rule_names(second) == [*RULES, "edited_away"]
    cuts = why({"pages": second.upstream("ingest"), "a": first, "b": second}, "0" * 8).cuts
    assert [(cut.text, cut.replacement) for cut in cuts] == [
        ("Ａ", "A"),
        ("ｊａｎｅ", "jane"),
        ("jane@mail.org", "<email>"),
    ]


def test_split_tokenizer_and_pack_see_the_edited_text_and_why_names_the_cuts(tmp_path, edited):
    store, distinct = edited.store, run_step(DEDUPLICATE, edited.store / "deduplicate" / "d", inputs={"from": edited})
    held = run_step(SPLIT, store / "split" / "s", inputs={"from": distinct}, share_heldout=0.0, min_heldout_documents=0)
    read = {
        row["id"][0]: row["text"] for _, t in split_documents(held, "train", ["id", "text"]) for row in t.to_pylist()
    }
    assert read == {digit: LEFT[digit] for digit in "01456"}
    folder = store / "train_tokenizer" / "t"
    write_tokenizer(folder, *train_vocabulary(list(LEFT.values()), TrainingSettings(vocab_size=380)))
    tokenizer = finish(folder, {}, {"from": held}, {})
    packed = run_step(PACK, store / "pack" / "p", inputs={"from": held, "tokenizer": tokenizer}, check_every=1)
    assert packed.counts["train"]["bytes"] == sum(len(text.encode()) for text in read.values())
    from diglot.corpus.pack import PackedTokens

    loaded = Tokenizer.load(folder)
    stream, document = PackedTokens.open(packed.path).find("1" * 32)
    tokens = stream.tokens[document.start : document.start + document.num_tokens - 1].tolist()
    assert loaded.decode(tokens) == LEFT["1"]

    run = {"pages": held.upstream("ingest"), "signals": held.upstream("annotate"), "edited": edited, "held": held}
    report = why(run, "1" * 32)
    assert report.num_bytes == len(DOCS[1].text)  # the original is what `why` describes
    assert [(cut.rule, cut.replacement) for cut in report.cuts] == [
        ("substrings", ""), ("pii/email", "<email>"), ("links", ""), ("paragraphs", ""),
    ]  # fmt: skip
    text = report.to_text()
    assert "jane@mail.org -> <email>" in text
    assert f"(first in {'0' * 32})" in text
    (objection,) = why(run, "2" * 32).objections
    assert objection.rule == "edited_away"
    assert "20 of them" in objection.limit
    assert "dropped by edited_away" in why(run, "2" * 32).to_text()


def test_the_funnel_counts_rules_of_any_later_step(edited):
    facts = funnel(edited)
    assert facts["total"]["later"] == 1
    assert facts["total"]["ingested"] == 7 == facts["total"]["kept"] + 1 + facts["total"]["rules"]
    assert {reason["rule"]: reason["stage"] for reason in facts["reasons"]} == {
        "matrix-en/num_units": "rules", "edited_away": "later",
    }  # fmt: skip


def test_a_rule_of_an_unknown_step_does_not_break_why(tmp_path):
    """As a step between select and split would leave it: a bit that no policy describes."""
    kept = selected(tmp_path, [Doc("A page of words.", id="a" * 32, reason=2), Doc("Another page.", id="b" * 32)])
    rules = kept.path / "decisions" / "rules.json"
    rules.write_text(json.dumps([*RULES, "a_later_rule"]))
    report = why({"pages": kept.upstream("ingest"), "kept": kept}, "a" * 32)
    assert [one.rule for one in report.objections] == ["a_later_rule"]
    assert "dropped by a_later_rule" in report.to_text()
    assert report.cuts == ()


def test_paragraphs_and_passages_of_a_large_copy_are_cut_from_all_but_the_first(tmp_path):
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(rng.choice(("lamp", "harbour", "ship", "bread", "pilot", "water")) + str(rng.randint(0, 99))
                        for _ in range(9)) + "."  # fmt: skip

    common = " ".join(sentence() for _ in range(6))
    docs = [
        Doc(f"{sentence()} {common} {sentence()}", id=f"{n:032x}", shard=str(n % 3), source=f"s{n % 2}")
        for n in range(12)
    ]
    done = edit(tmp_path, docs, edits=Edits(substrings=SubstringsEdit()))
    texts = texts_of(done)
    assert texts[docs[0].id] == docs[0].text
    for doc in docs[1:]:
        own = doc.text.split(common)
        assert texts[doc.id] == own[0].rstrip() + own[1]
    assert done.counts["rules"]["substrings"]["documents"] == 11


def test_copies_of_many_shards_are_found_with_few_files_open(tmp_path):
    docs = [Doc(f"page {n}\n{NOTICE}\nits end", id=f"{n:032x}", shard=f"{n:02d}") for n in range(40)]
    kept = selected(tmp_path, docs)
    with few_files(25):
        done = edit(tmp_path, kept=kept, edits=Edits(paragraphs=ParagraphsEdit()))
    texts = texts_of(done)
    assert texts[docs[0].id] == docs[0].text
    assert all(texts[doc.id] == f"page {n}\nits end" for n, doc in enumerate(docs) if n)


@pytest.mark.parametrize(
    ("settings", "message"), [({"min_chars": 0}, "min_chars"), ({"min_kept_share": 1.5}, "min_kept_share")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        EditConfig(from_="x", edits=ALL, **settings)


def test_a_recipe_names_its_edits(tmp_path):
    from diglot.recipe.schema import load_recipe

    path = tmp_path / "r.yaml"
    text = (
        "recipe: r\nsteps:\n  pages: {kind: ingest, source: x}\n  signals: {kind: annotate, from: pages}\n"
        "  kept: {kind: select, from: signals}\n  edited: {kind: edit, from: kept, edits: EDITS}\n"
    )
    path.write_text(text.replace("EDITS", "{links: {}, pii: {kinds: [email]}, paragraphs: {min_chars: 40}}"))
    config = load_recipe(path).step("edited").config
    assert list(config.edits.chosen()) == ["paragraphs", "links", "pii"]
    assert config.edits.pii.kinds == ("email",)
    path.write_text(text.replace("EDITS", "{link: {}}"))
    with pytest.raises(ConfigError, match="links"):
        load_recipe(path)
    path.write_text(text.replace("EDITS", "{}"))
    with pytest.raises(ConfigError, match="names none"):
        load_recipe(path)


@pytest.mark.shared
def test_prose_of_three_centuries_holds_next_to_no_personal_data(shared):
    """False positives: novels, speeches, laws and poems name no mailbox and no telephone."""
    from diglot.corpus.edits.pii import pii

    texts, size = [], 0
    for name in ("en/us_speeches_shakespeare", "zh/cn_laws", "zh/cn_poetry", "zh/zh_wikipedia_paragraphs"):
        with (shared / "pretrain" / f"{name}.jsonl.zst").open("rb") as stream:
            reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(stream)
            for line in io.TextIOWrapper(reader, encoding="utf-8"):
                texts.append(json.loads(line)["text"])
                size += len(texts[-1].encode())
                if size > 4_000_000:
                    break
        size = 0
    found = [span for _, spans in pii(Texts.of(texts), PiiEdit()) for span in spans]
    assert len(found) <= 5, found
