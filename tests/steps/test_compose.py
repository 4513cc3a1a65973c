"""The compose step on a small split corpus."""

from __future__ import annotations

import pytest

from compose_pages import page_docs
from diglot.core.errors import ConfigError, InputError
from diglot.corpus.compose.conversation import FILE, read_conversations
from diglot.corpus.splits import split_documents
from diglot.steps.compose import STEP
from diglot.steps.split import STEP as SPLIT
from handmade_corpus import Doc, run_step, selected


def split_corpus(store, docs, **settings):
    return run_step(SPLIT, store / "split" / "split-0", inputs={"from": selected(store, docs)}, **settings)


def many_pages():
    """Enough pages that some are held out; each names its number, so that no two agree."""
    german = Doc(
        "# Seite\n\nDas ist ein Satz auf einer Seite.", source="guide", lang="de", url="file:///guide/de/a.html"
    )
    docs = [german]
    for number in range(12):
        for doc in page_docs():
            text = doc.text.replace("\n\n", f" {number}\n\n", 1)
            for word in ("brings", "Specifies whether", "divided", "排列成", "指定是否", "检查它的"):
                text = text.replace(word, f"{word} {number}" if word.isascii() else f"{word}{number}")
            docs.append(Doc(text, source=doc.source, lang=doc.lang, url=doc.url.replace(".html", f"{number}.html")))
    return docs


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    split = split_corpus(store, many_pages(), share_heldout=0.2)
    return run_step(STEP, store / "compose" / "compose-0", inputs={"from": split})


def test_every_conversation_names_documents_of_its_split(composed):
    ids = {
        split: {i for _, table in split_documents(composed, split, ["id"]) for i in table["id"].to_pylist()}
        for split in ("train", "heldout")
    }
    assert ids["heldout"]
    for split in ("train", "heldout"):
        for conversation in read_conversations(composed.path, split):
            assert conversation.documents[-1] in ids[split]  # the answer's
            if split == "train":
                assert set(conversation.documents) <= ids["train"]


def test_the_answer_stands_in_its_document(composed):
    texts = {
        row["id"]: " ".join(row["text"].split())
        for split in ("train", "heldout")
        for _, table in split_documents(composed, split, ["id", "text"])
        for row in table.to_pylist()
    }
    for conversation in read_conversations(composed.path, "train"):
        if conversation.kind != "topics":
            assert " ".join(conversation.answer.split()) in texts[conversation.documents[-1]]


def test_counts_add_up_and_say_what_was_left_out(composed):
    counts = composed.counts
    by_kind = sum(n for kinds in counts["by_kind"].values() for languages in kinds.values() for n in languages.values())
    assert counts["conversations"] == sum(counts["by_split"].values()) == by_kind
    assert counts["pages"] == 48
    assert counts["pages_skipped"] == {"language": 1}
    assert set(counts["by_kind"]["train"]["en"]) >= {"definition", "purpose", "steps", "translation"}


def test_the_same_inputs_give_the_same_bytes(composed, tmp_path):
    again = run_step(STEP, tmp_path / "compose" / "compose-0", inputs={"from": composed.inputs()[0]})
    assert (again.path / FILE).read_bytes() == (composed.path / FILE).read_bytes()
    other = run_step(STEP, tmp_path / "compose" / "compose-1", inputs={"from": composed.inputs()[0]}, seed=1)
    assert (other.path / FILE).read_bytes() != (composed.path / FILE).read_bytes()


def test_a_corpus_without_usable_pages_is_refused_with_the_reason(tmp_path):
    docs = [Doc(f"# Seite {i}\n\nEin Satz auf Seite {i}.", lang="de") for i in range(4)]
    split = split_corpus(tmp_path, docs)
    with pytest.raises(InputError, match="en, zh-Hans"):
        run_step(STEP, tmp_path / "compose" / "compose-0", inputs={"from": split})


def test_impossible_bounds_are_refused():
    with pytest.raises(ConfigError, match="min_units"):
        STEP.config(from_="split", min_units=50, max_units=10)
