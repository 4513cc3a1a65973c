"""The step learns from training documents only, balances languages, and says how well the vocabulary fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError
from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact
from diglot.steps.split import STEP as SPLIT
from diglot.steps.train_tokenizer import STEP, TrainTokenizerConfig, _sample
from diglot.tokenizer.tokenizer import Tokenizer
from handmade_corpus import Doc, run_step, selected

ENGLISH = "The list of packages is kept on the server, and a copy of the list is kept here for number {n}."
CHINESE = "软件包列表保存在服务器上，本地也保存一份列表，编号为 {n}。"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """30 English documents for 10 Chinese ones, in two shards, with a dropped one that has words of its own."""
    store = tmp_path_factory.mktemp("store")
    docs = [
        Doc((ENGLISH if n % 4 else CHINESE).format(n=n), shard=f"0000{n % 2}", lang="en" if n % 4 else "zh-Hans")
        for n in range(40)
    ]
    docs.append(Doc("dropped zyzzyva " * 50, shard="00000", reason=0))
    corpus = selected(store, docs)
    return run_step(SPLIT, store / "split" / "split-0", inputs={"from": corpus}, share_heldout=0.2)


@pytest.fixture(scope="module")
def trained(split: Artifact) -> Artifact:
    return run_step(STEP, split.store / "train_tokenizer" / "t-0", inputs={"from": split}, vocab_size=400)


def test_the_step_writes_a_tokenizer_of_the_size_asked_for(trained: Artifact) -> None:
    tokenizer = Tokenizer.load(trained.path)
    assert tokenizer.vocab_size == trained.counts["vocab_size"] == 400
    assert tokenizer.decode(tokenizer.encode(ENGLISH + CHINESE)) == ENGLISH + CHINESE


def test_a_second_run_gives_the_same_bytes(trained: Artifact, split: Artifact) -> None:
    again = run_step(STEP, split.store / "train_tokenizer" / "t-1", inputs={"from": split}, vocab_size=400, workers=2)
    assert digests(again.path) == digests(trained.path)


def test_dropped_and_held_out_documents_are_not_learned_from(split: Artifact, trained: Artifact) -> None:
    assert not any("zyzz" in piece for piece in Tokenizer.load(trained.path).vocabulary.pieces)
    texts = list(_sample(split, {"en": 1.0, "zh-Hans": 1.0}, seed=0))
    assert len(texts) == len(set(texts)) == split.counts["train"]["documents"]


def test_the_report_measures_held_out_documents(trained: Artifact, split: Artifact) -> None:
    report = read_json(trained.path / "tokenizer_report.json")
    for lang, entry in report["languages"].items():
        assert entry["measured_on"] == "heldout"
        assert entry["fit"]["num_documents"] == split.counts["languages"][lang]["heldout"]["documents"] > 0
        assert entry["fit"]["chars_per_token"] > 1
        assert entry["fit"] == trained.counts["languages"][lang]
    assert report["num_unused_pieces"] == len(report["unused_pieces"])
    assert sum(report["vocabulary_by_script"].values()) == pytest.approx(1, abs=1e-4)


def test_without_held_out_documents_the_training_documents_are_measured(split: Artifact) -> None:
    corpus = split.upstream("select")
    whole = run_step(
        SPLIT, split.store / "split" / "split-1", inputs={"from": corpus}, share_heldout=0.0, min_heldout_documents=0
    )
    trained = run_step(STEP, split.store / "train_tokenizer" / "t-2", inputs={"from": whole}, vocab_size=400)
    report = read_json(trained.path / "tokenizer_report.json")
    assert {entry["measured_on"] for entry in report["languages"].values()} == {"train"}


def test_documents_are_shown_as_often_as_their_language_asks_for(split: Artifact) -> None:
    texts = list(_sample(split, {"en": 0.5, "zh-Hans": 3.0}, seed=0))
    chinese = [text for text in texts if "软件包" in text]
    assert len(chinese) == 3 * len(set(chinese))
    assert 0 < len(texts) - len(chinese) < split.counts["languages"]["en"]["train"]["documents"]
    assert texts == list(_sample(split, {"en": 0.5, "zh-Hans": 3.0}, seed=0))
    assert texts != list(_sample(split, {"en": 0.5, "zh-Hans": 3.0}, seed=1))


def test_shares_decide_how_much_of_each_language_is_shown(split: Artifact) -> None:
    shares = {"en": 1.0, "zh-Hans": 4.0}
    out = split.store / "train_tokenizer" / "t-3"
    sample = read_json(
        run_step(STEP, out, inputs={"from": split}, vocab_size=400, shares=shares).path / "tokenizer_report.json"
    )
    assert sample["sample"]["zh-Hans"]["share"] == 0.8
    assert sample["sample"]["zh-Hans"]["copies"] > 1 > sample["sample"]["en"]["copies"]


@pytest.mark.parametrize(
    "settings",
    [{"vocab_size": 100}, {"alpha": 1.5}, {"shares": {"en": 0.0}}, {"sample_bytes": 0}, {"max_copies": 0.5}],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TrainTokenizerConfig(from_="split", **settings)


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
