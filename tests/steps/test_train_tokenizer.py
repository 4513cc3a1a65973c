"""The step learns from training documents only, balances languages, and says how well the vocabulary fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact
from diglot.steps.context import Planned
from diglot.steps.split import STEP as SPLIT
from diglot.steps.train_tokenizer import STEP, TrainTokenizerConfig, _sample
from diglot.tokenizer.sampling import Stratum
from diglot.tokenizer.tokenizer import Tokenizer
from handmade_corpus import Doc, run_step, selected

ENGLISH = "The list of packages is kept on the server, and a copy of the list is kept here for number {n}."
CHINESE = "软件包列表保存在服务器上，本地也保存一份列表，编号为 {n}。"
EN, ZH = Stratum("en", "pages"), Stratum("zh-Hans", "pages")

FOLDER = {"tokenizer.json", "tokenizer_config.json", "special_tokens.json", "tokenizer.model", "chat_template.jinja"}


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
    texts = list(_sample(split, {EN: 1.0, ZH: 1.0}, seed=0))
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
    texts = list(_sample(split, {EN: 0.5, ZH: 3.0}, seed=0))
    chinese = [text for text in texts if "软件包" in text]
    assert len(chinese) == 3 * len(set(chinese))
    assert 0 < len(texts) - len(chinese) < split.counts["languages"]["en"]["train"]["documents"]
    assert texts == list(_sample(split, {EN: 0.5, ZH: 3.0}, seed=0))
    assert texts != list(_sample(split, {EN: 0.5, ZH: 3.0}, seed=1))


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
    [
        {"vocab_size": 100},
        {"vocab_size": 400, "vocab_sizes": (100, 400)},
        {"alpha": 1.5},
        {"source_alpha": -0.1},
        {"shares": {"en": 0.0}},
        {"sources": {"web": -1.0}},
        {"sample_bytes": 0},
        {"max_copies": 0.5},
        {"parallel_fields": {"en": "src", "zh": "tgt"}},
        {"parallel_fields": {"en": "src", "zh": "tgt"}, "parallel": {"en": "a", "zh": "b"}},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TrainTokenizerConfig(from_="split", **settings)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"vocab_size": 400, "vocab_sizes": (500, 450)}, r"Write \[450, 500\]"),
        ({"vocab_size": 400, "vocab_sizes": (450, 450)}, r"Write \[450\]"),
        ({"vocab_sizes": (450, 500)}, "Set vocab_size, for example to 500"),
        ({"preset": "map_neo"}, "did you mean 'map-neo'"),
    ],
)
def test_a_refusal_says_what_to_write(settings: dict[str, object], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        TrainTokenizerConfig(from_="split", **settings)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text(
        "".join(f'{{"en": "{ENGLISH}", "zh": "{CHINESE}", "i": {n}}}\n'.replace("{n}", str(n)) for n in range(5))
    )
    return file


@pytest.fixture(scope="module")
def swept(split: Artifact, pairs: Path) -> Artifact:
    settings = {"vocab_size": 380, "vocab_sizes": (370, 390), "parallel": str(pairs), "baseline": "en", "d_model": 64}
    return run_step(STEP, split.store / "train_tokenizer" / "sweep", inputs={"from": split}, **settings)


def test_each_size_is_a_complete_tokenizer_and_the_same_as_if_trained_alone(swept: Artifact, split: Artifact) -> None:
    for size in (370, 380, 390):
        alone = run_step(
            STEP, split.store / "train_tokenizer" / f"alone-{size}", inputs={"from": split}, vocab_size=size
        )
        files = {name: found for name, found in digests(alone.path).items() if name != "tokenizer_report.json"}
        assert set(files) == FOLDER
        folder = swept.path if size == 380 else swept.path / "sizes" / str(size)
        assert {name: digest for name, digest in digests(folder).items() if name in files} == files


def test_the_sweep_measures_every_size_on_the_same_texts(swept: Artifact) -> None:
    report = read_json(swept.path / "tokenizer_report.json")
    assert [entry["vocab_size"] for entry in report["sweep"]] == [370, 380, 390]
    for entry in report["sweep"]:
        tokenizer = Tokenizer.load(swept.path / entry["folder"])
        assert tokenizer.vocab_size == entry["vocab_size"]
        sentences = [CHINESE.format(n=n) for n in range(5)]
        counted = sum(map(len, tokenizer.encode_batch(sentences)))
        assert entry["parallel"]["zh-Hans"]["num_tokens"] == counted
        assert entry["embedding_parameters"] == 64 * entry["vocab_size"]
        assert entry["round_trip"]["changed"] == 0
        assert entry["languages"].keys() == {"en", "zh-Hans"}
        assert entry["languages"]["en"]["fit"]["num_bytes"] == report["languages"]["en"]["fit"]["num_bytes"]
        # An English vocabulary has no Chinese characters; it writes them as bytes.
        assert entry["against_baseline"]["zh-Hans"] > 1.8
    tokens = [entry["languages"]["zh-Hans"]["fit"]["num_tokens"] for entry in report["sweep"]]
    assert tokens == sorted(tokens, reverse=True)
    assert report["parallel"] == report["sweep"][1]["parallel"]


def test_a_map_neo_tokenizer_says_by_name_where_it_differs(split: Artifact, trained: Artifact) -> None:
    given = {"preset": "map-neo", "vocab_size": 400}
    run = run_step(STEP, split.store / "train_tokenizer" / "neo", inputs={"from": split}, **given)
    record = read_json(run.path / "tokenizer_report.json")["preset"]
    assert record["overrides"] == [{"name": "vocab_size", "here": 400, "preset": 64_000}]
    assert {"sample", "special_tokens"} <= {deviation["name"] for deviation in record["deviations"]}
    planned = Planned(config=TrainTokenizerConfig(from_="split", **given), inputs={"from": split}, seed=0)
    lines = "\n".join(STEP.describe(planned, None))
    for name in ("vocab_size: 400 (preset: 64000)", *(deviation["name"] for deviation in record["deviations"])):
        assert name in lines


def test_the_model_as_released_is_measured_beside_the_one_without_a_prefix(split: Artifact) -> None:
    given = {"preset": "map-neo-as-released", "vocab_size": 400}
    run = run_step(STEP, split.store / "train_tokenizer" / "neo-file", inputs={"from": split}, **given)
    (entry,) = read_json(run.path / "tokenizer_report.json")["sweep"]
    assert (run.path / "as_trained.model").is_file()
    assert entry["as_trained"]["languages"]["en"]["fit"]["num_bytes"] == entry["languages"]["en"]["fit"]["num_bytes"]
    assert entry["round_trip"]["changed"] == 0


def test_a_source_with_more_weight_is_shown_more_often(split: Artifact) -> None:
    given = {"vocab_size": 400, "sources": {"pag*": 3.0}}
    run = run_step(STEP, split.store / "train_tokenizer" / "weighed", inputs={"from": split}, **given)
    sample = read_json(run.path / "tokenizer_report.json")["sample"]
    assert sample["en"]["sources"]["pages"]["weight"] == 3
    assert sample["en"]["sources"]["pages"]["copies"] == sample["en"]["copies"]
    assert sum(found["sources"]["pages"]["share"] for found in sample.values()) == pytest.approx(1, abs=1e-5)
    given["sources"] = {"paper*": 3.0}
    with pytest.raises(ConfigError, match="no source takes its weight"):
        run_step(STEP, split.store / "train_tokenizer" / "unknown", inputs={"from": split}, **given)


def test_wrong_inputs_are_refused_before_anything_is_trained(split: Artifact, tmp_path: Path, pairs: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.zh").write_text("一\n")
    wrong = [
        ({"parallel": {"en": str(tmp_path / "a.en"), "zh-Hans": str(tmp_path / "a.zh")}}, InputError, "unequal"),
        ({"parallel": str(tmp_path / "none.tsv")}, InputError, "no file of parallel sentences"),
        ({"baseline": "fr"}, ConfigError, "unknown baseline 'fr'"),
        ({"vocab_size": 4000}, InputError, r"vocab_size to at most \d+"),
    ]
    for settings, error, message in wrong:
        with pytest.raises(error, match=message):
            run_step(STEP, tmp_path / "out", inputs={"from": split}, **{"vocab_size": 400} | settings)
        assert not (tmp_path / "out" / "tokenizer.json").exists()


def test_a_baseline_whose_language_has_too_little_text_is_named(split: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"baseline en: .* vocab_size to at most \d+"):
        run_step(STEP, tmp_path / "out", inputs={"from": split}, vocab_size=430, baseline="en")


def test_other_sentences_are_another_tokenizer_report_and_another_fingerprint(pairs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved.jsonl"
    copy.write_text(pairs.read_text())
    here, moved = (
        STEP.observe(TrainTokenizerConfig(from_="split", parallel=str(file)), tmp_path, tmp_path)
        for file in (pairs, copy)
    )
    assert here == moved
    copy.write_text(pairs.read_text() + pairs.read_text())
    assert STEP.observe(TrainTokenizerConfig(from_="split", parallel=str(copy)), tmp_path, tmp_path) != here


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
