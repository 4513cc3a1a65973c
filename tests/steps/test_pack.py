"""Packing keeps every document, in order, under any number of workers, and goes on after a kill."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.corpus.pack import PackedTokens
from diglot.ledger.artifact import Artifact
from diglot.steps import pack as pack_module
from diglot.steps.pack import STEP, PackConfig
from diglot.steps.split import STEP as SPLIT
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from handmade_corpus import Doc, finish, run_step, selected

SENTENCES = {
    "en": [
        "The list of packages is kept on the server.",
        "A copy of the list is kept here.",
        "\tIndented\r\n  text\0!",
    ],
    "zh-Hans": ["软件包列表保存在服务器上。", "本地也保存一份列表，▁以备不时之需。", "版本 2.36 于 2011 年发布。"],
}


def documents() -> list[Doc]:
    """Three shards of two sources, with both languages mixed in each, dropped documents and an empty one."""
    docs = [Doc("", lang="en", url="file:///empty")]
    for number in range(40):
        lang = ("en", "zh-Hans")[number % 2]
        text = "\n".join(SENTENCES[lang][(number + k) % 3] for k in range(1 + number % 4)) + f" {number}"
        source, shard = ("guide", "faq")[number % 3 == 0], f"0000{number // 20}"
        docs.append(Doc(text, source=source, shard=shard, lang=lang, reason=0 if number % 7 == 6 else -1))
    return docs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    store = tmp_path_factory.mktemp("store")
    corpus = selected(store, documents())
    split = run_step(SPLIT, store / "split" / "split-0", inputs={"from": corpus}, share_heldout=0.1)
    folder = store / "train_tokenizer" / "tokenizer-0"
    texts = [text for texts in SENTENCES.values() for text in texts]
    write_tokenizer(folder, *train_vocabulary([*texts, *texts], TrainingSettings(vocab_size=420)))
    return {"from": split, "tokenizer": finish(folder, {}, {"from": split}, {})}


@pytest.fixture(scope="module")
def packed(inputs: dict[str, Artifact]) -> Artifact:
    return run_step(STEP, inputs["from"].store / "pack" / "pack-0", inputs=inputs)


def test_streams_hold_exactly_the_kept_documents_in_order(packed: Artifact, inputs: dict[str, Artifact]) -> None:
    tokenizer = Tokenizer.load(inputs["tokenizer"].path)
    kept = [doc for doc in documents() if doc.reason < 0]
    found: dict[str, list[str]] = {}
    for split in ("train", "heldout"):
        for stream in PackedTokens.open(packed.path).streams(split):
            texts = []
            for row in stream.documents.to_pylist():
                tokens = stream.tokens[row["start"] : row["start"] + row["num_tokens"]]
                assert tokens[-1] == tokenizer.eos_id
                assert tokenizer.eos_id not in tokens[:-1]
                texts.append(tokenizer.decode(tokens))
                assert row["num_bytes"] == len(texts[-1].encode())
                (document,) = [doc for doc in kept if doc.id == row["id"]]
                assert (document.text, document.source, document.lang) == (texts[-1], stream.source, stream.lang)
            order = [doc.text for doc in sorted(kept, key=lambda d: (d.source, d.shard)) if doc.text in texts]
            assert texts == [text for text in order if text in texts]
            found.setdefault(split, []).extend(texts)
    assert sorted(found["train"] + found["heldout"]) == sorted(doc.text for doc in kept)
    assert found["heldout"]


def test_streams_are_named_after_source_and_language(packed: Artifact) -> None:
    streams = PackedTokens.open(packed.path).streams("train")
    assert [s.stream for s in streams] == ["faq.en", "faq.zh-Hans", "guide.en", "guide.zh-Hans", "pages.en"]
    assert {(s.dtype, s.vocab_size) for s in streams} == {("uint16", 420)}


def test_counts_are_those_of_the_files(packed: Artifact) -> None:
    counts = packed.counts
    for split in ("train", "heldout"):
        streams = PackedTokens.open(packed.path).streams(split)
        assert counts[split]["tokens"] == sum(len(s.tokens) for s in streams)
        assert counts[split]["documents"] == sum(len(s.documents) for s in streams)
        assert counts[split]["bytes"] == sum(lang["bytes"] for lang in counts[split]["languages"].values())
    assert counts["train"]["documents"] + counts["heldout"]["documents"] == sum(d.reason < 0 for d in documents())
    assert counts["round_trip"]["mismatches"] == 0
    assert counts["round_trip"]["checked_documents"] >= len(counts["train"]["languages"])


@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_no_byte(packed: Artifact, inputs: dict[str, Artifact], workers: int) -> None:
    again = run_step(STEP, packed.store / "pack" / f"pack-{workers}", inputs=inputs, workers=workers)
    assert digests(again.path) == digests(packed.path)


def test_a_killed_run_goes_on_with_the_shards_that_are_missing(
    packed: Artifact, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    original = pack_module._encode_shard

    def dies_at_the_third(task: Any) -> Any:
        if len(encoded) == 3:
            raise KeyboardInterrupt
        encoded.append(task.shard.file)
        return original(task)

    out = packed.store / "pack" / "killed"
    monkeypatch.setattr(pack_module, "_encode_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_step(STEP, out, inputs=inputs)
    first = list(encoded)
    encoded.clear()
    resumed = run_step(STEP, out, inputs=inputs)
    assert not set(first) & set(encoded)
    assert digests(resumed.path) == digests(packed.path)
    assert not (out / "parts").exists()


def test_a_tokenizer_of_ours_that_changes_text_stops_the_step(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: decode(self, ids).lower())
    with pytest.raises(InputError, match=r"does not survive encoding: at character 0 '[A-Z].* came back as '[a-z]"):
        run_step(STEP, tmp_path / "pack" / "p", inputs=inputs, check_every=1)


def test_what_a_normalising_tokenizer_of_others_changes_is_counted(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    foreign = tmp_path / "train_tokenizer" / "foreign"
    shutil.copytree(inputs["tokenizer"].path, foreign)
    content = read_json(foreign / "tokenizer.json")
    write_json(foreign / "tokenizer.json", content | {"normalizer": {"type": "Lowercase"}})
    tokenizer = {"tokenizer": Artifact(foreign)}
    packed = run_step(STEP, tmp_path / "pack" / "p", inputs=inputs | tokenizer, check_every=1)
    english = sum(
        record["num_documents"] for record in read_json(packed.path / "streams.json") if record["lang"] == "en"
    )
    counted = packed.counts["round_trip"]
    assert 0 < counted["mismatches"] <= english < counted["checked_documents"]


def test_ids_beyond_the_vocabulary_are_refused_and_not_wrapped() -> None:
    with pytest.raises(InputError, match="ids from 1 to 70000, but it has 420"):
        pack_module._as_bytes(np.array([1, 70_000]), "uint16", 420)
    assert pack_module._as_bytes(np.array([1, 419, 256]), "uint16", 420) == np.array([1, 419, 256], "<u2").tobytes()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="check_every"):
        PackConfig(from_="a", tokenizer="b", check_every=0)


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
