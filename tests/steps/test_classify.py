"""Classifiers as recipe steps: trained from labels or from the corpus, applied to all documents, judged by a policy."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pyarrow as pa
import pytest
import yaml
from topic_pages import WORDS, is_law, topic_corpus

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.classify.model import load
from diglot.corpus.classify.scoring import ScoreTask, score_shard
from diglot.corpus.classify.settings import Selection, TextSettings, TrainingSettings
from diglot.corpus.edits.settings import Edits, LinksEdit
from diglot.corpus.tables import (
    attribute_folder,
    attributes_of,
    decisions_of,
    documents_of,
    read_table,
    rule_names,
    shards,
)
from diglot.ledger.artifact import Artifact
from diglot.steps.annotate import STEP as ANNOTATE
from diglot.steps.classify import STEP as CLASSIFY
from diglot.steps.classify import ClassifyConfig
from diglot.steps.edit import STEP as EDIT
from diglot.steps.select import STEP as SELECT
from diglot.steps.train_classifier import STEP as TRAIN
from diglot.steps.train_classifier import TrainClassifierConfig, observe
from diglot.trace.lineage import why
from handmade_corpus import Doc, run_step, selected

TRAINING = TrainingSettings(epochs=25, learning_rate=0.5, dimension=8, min_count=1, num_buckets=1 << 12)
LAW = Selection(hosts=("law.org",), url_patterns=("falv", "court.net/cases"))
POLICY = {
    "policy": "law-only",
    "languages": ["en"],
    "about": "pages on law",
    "source": "ours",
    "rules": [
        {"signal": "num_units", "drop_below": 1, "why": "empty", "source": "ours"},
        {"signal": "score.law", "drop_below": 0.8, "why": "not about law", "source": "ours"},
    ],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return selected(tmp_path_factory.mktemp("store"), topic_corpus())


@pytest.fixture(scope="module")
def model(corpus):
    return run_step(
        TRAIN,
        corpus.store / "train_classifier" / "m",
        inputs={"from": corpus},
        positive=LAW,
        negative=Selection(url_patterns=("food", "trips")),
        training=TRAINING,
        quantise_to=256,
    )


@pytest.fixture(scope="module")
def scored(corpus, model):
    ingest = corpus.upstream("ingest")
    families = ("quality", "language")
    annotate = run_step(ANNOTATE, corpus.store / "annotate" / "real", inputs={"from": ingest}, families=families)
    out = corpus.store / "classify" / "c"
    return run_step(CLASSIFY, out, inputs={"from": annotate, "model": model}, name="law")


def all_scores(artifact, family="score.law"):
    found = {}
    for shard in shards(artifact.upstream("ingest")):
        urls = documents_of(artifact, shard, ["url"])["url"].to_pylist()
        column = attributes_of(artifact, family, shard)[family].to_pylist()
        found |= dict(zip(urls, column, strict=True))
    return found


def test_a_classifier_of_parts_of_the_corpus_says_how_good_it_is_on_unseen_places(model):
    assert model.counts["labels"] == {"negative": 150, "positive": 150}
    assert model.counts["train"] + model.counts["validation"] == 300
    assert model.counts["roc_auc"] > 0.98
    assert 0 < model.counts["quantised_bytes"] < model.counts["model_bytes"]
    report = read_json(model.path / "report.json")
    assert report["read"] == {"documents": 600, "positive": 150, "negative": 150}
    assert report["validation"]["positive"]["calibration"]


def test_scores_are_co_partitioned_and_know_law_from_cooking(corpus, scored):
    assert attribute_folder(scored, "score.law") == scored.path / "attributes" / "score.law"
    for shard in shards(corpus.upstream("ingest")):
        table = attributes_of(scored, "score.law", shard)
        assert table["id"].equals(documents_of(corpus, shard, ["id"])["id"])
        assert str(table["score.law"].type) == "float"
    found = all_scores(scored)
    assert (
        min(score for url, score in found.items() if is_law(url) and "example" not in url and "anli" not in url) > 0.8
    )
    assert max(score for url, score in found.items() if "food" in url or "trips" in url) < 0.8
    assert sum(scored.counts["tenths"]["score.law"]) == scored.counts["documents"] == 600


def test_a_policy_judges_by_the_score_and_why_tells_it(tmp_path, corpus, scored):
    out = corpus.store / "select" / "law"
    out.mkdir(parents=True, exist_ok=True)
    (out / "law.yaml").write_text(yaml.safe_dump(POLICY), encoding="utf-8")
    policies = {"en": "law.yaml", "zh-Hans": "law.yaml"}
    chosen = run_step(SELECT, out, inputs={"from": scored}, policies=policies)
    kept = {}
    for shard in shards(corpus.upstream("ingest")):
        urls = documents_of(corpus, shard, ["url"])["url"].to_pylist()
        kept |= dict(zip(urls, decisions_of(chosen, shard)["keep"].to_pylist(), strict=True))
    assert kept["https://law.org/civil/3"]
    assert not kept["https://food.cn/3"]
    assert rule_names(chosen)[-1] == "score.law"
    artifacts = {a.kind: a for a in (corpus.upstream("ingest"), scored.upstream("annotate"), scored, chosen)}
    answer = why(artifacts, "https://food.com/3")
    (objection,) = answer.objections
    assert objection.rule == "score.law"
    assert objection.limit == "score.law < 0.8"
    assert objection.value == pytest.approx(all_scores(scored)["https://food.com/3"])


def test_workers_and_a_kill_do_not_change_a_byte(corpus, model, scored):
    out = corpus.store / "classify" / "again"
    shutil.copytree(scored.path, out)
    (out / "manifest.json").unlink()
    killed = out / "attributes" / "score.law" / "pages" / "00001.parquet"
    killed.write_bytes(killed.read_bytes()[:100])
    inputs = {"from": corpus.upstream("annotate"), "model": model}
    again = run_step(CLASSIFY, out, workers=2, inputs=inputs, name="law")
    for path in (scored.path / "attributes").rglob("*.parquet"):
        assert path.read_bytes() == (again.path / path.relative_to(scored.path)).read_bytes()


def test_scores_below_an_edit_are_of_the_edited_text_and_only_of_what_is_kept(tmp_path, model):
    law, food = (" ".join([WORDS[topic]] * 2) for topic in ("law", "cooking"))
    docs = [
        Doc(f"{food} https://example.org/{'-'.join(law.split() * 3)}/x {food}", url="https://a.org/1"),
        Doc(law, url="https://a.org/2"),
        Doc(law, url="https://a.org/3", reason=1),
    ]
    chosen = selected(tmp_path, docs)
    edited = run_step(EDIT, tmp_path / "edit" / "e", inputs={"from": chosen}, edits=Edits(links=LinksEdit()))
    (shard,) = shards(chosen.upstream("ingest"))
    task = ScoreTask(
        corpus=edited,
        shard=shard,
        out=tmp_path / "scores",
        model=model.path,
        quantised=False,
        columns=(("positive", "score"),),
        key="k",
        kept_only=True,
    )
    counts = score_shard(task)
    scores = read_table(tmp_path / "scores" / "score" / shard.file)["score"].to_pylist()
    left = [f"{food} {food}", law]
    classifier = load(model.path, False)
    alone = classifier.probabilities(pa.array(left, pa.large_string()), ["positive"])[:, 0]
    assert scores[:2] == pytest.approx(alone.tolist())
    assert scores[2] == 0
    assert counts["bytes"] == sum(map(len, left))
    whole = score_shard(dataclasses.replace(task, corpus=chosen, out=tmp_path / "whole", kept_only=False))
    assert whole["bytes"] == sum(len(doc.text) for doc in docs)


def test_a_classifier_from_labelled_lines_has_a_column_for_each_label(tmp_path, corpus):
    topics = {"law": ["law.org", "cases"], "food": ["food.com", "canteen"], "trips": ["trips"]}
    lines = []
    for doc in topic_corpus(seed=1):
        label = next((topic for topic, parts in topics.items() if any(part in doc.url for part in parts)), None)
        lines.append({"text": doc.text, "url": doc.url, **({"label": label} if label else {})})
    (tmp_path / "labelled.jsonl").write_text("\n".join([*map(json.dumps, lines), "{broken"]), encoding="utf-8")
    settings = {"labels": str(tmp_path / "labelled.jsonl"), "positive_label": "law", "training": TRAINING}
    before = observe(TrainClassifierConfig(**settings), tmp_path, tmp_path)
    model = run_step(TRAIN, corpus.store / "train_classifier" / "three", **settings)
    assert set(model.counts["labels"]) == {"law", "food", "trips"}
    report = read_json(model.path / "report.json")
    assert report["read"] == {"labelled": 420, "refused": {"invalid_json": 1, "no_label": 180}}
    inputs = {"from": corpus.upstream("annotate"), "model": model}
    out = corpus.store / "classify" / "three"
    found = run_step(CLASSIFY, out, inputs=inputs, name="topic", labels=("food", "trips"), quantised=False)
    food, trips = (all_scores(found, f"score.topic.{label}") for label in ("food", "trips"))
    assert food["https://food.com/7"] > 0.7 > 0.2 > trips["https://food.com/7"]
    (tmp_path / "labelled.jsonl").write_text(json.dumps(lines[0]), encoding="utf-8")
    assert observe(TrainClassifierConfig(**settings), tmp_path, tmp_path) != before


def test_documents_come_down_the_line_of_the_corpus_and_not_through_the_classifier(corpus, tmp_path_factory, model):
    """Two scores in a row, the second by a classifier of another corpus: ingest is still the first corpus's."""
    other = selected(tmp_path_factory.mktemp("other"), topic_corpus(seed=5))
    for kind in ("ingest", "annotate", "select"):
        shutil.copytree(other.store / kind / f"{kind}-0", corpus.store / kind / "other", dirs_exist_ok=True)
    rename = corpus.store / "select" / "other" / "manifest.json"
    content = json.loads(rename.read_text())
    content["fingerprint"], content["inputs"] = "other", {"from": "other"}
    content["input_kinds"] = {"other": "ingest"}
    rename.write_text(json.dumps(content))
    trained = run_step(
        TRAIN, corpus.store / "train_classifier" / "o", inputs={"from": Artifact(rename.parent)}, positive=LAW,
        training=TRAINING,
    )  # fmt: skip
    annotate = corpus.upstream("annotate")
    one = run_step(CLASSIFY, corpus.store / "classify" / "one", inputs={"from": annotate, "model": model}, name="a")
    two = run_step(CLASSIFY, corpus.store / "classify" / "two", inputs={"from": one, "model": trained}, name="b")
    assert two.upstream("ingest") == corpus.upstream("ingest")
    assert attribute_folder(two, "score.a") == one.path / "attributes" / "score.a"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "either labels"),
        ({"labels": "x.jsonl", "positive": LAW}, "either labels"),
        ({"labels": (), "from_": "kept"}, "either labels"),
        ({"labels": "x.jsonl", "from_": "kept"}, "from: would do nothing"),
        ({"positive": LAW}, "Name the step that has them"),
        ({"from_": "kept", "positive": Selection()}, "takes every document"),
        ({"labels": "x.jsonl", "threshold": 96}, "0.96"),
        ({"labels": "x.jsonl", "validation_share": 0}, "validation_share = 0"),
        ({"labels": "x.jsonl", "quantise_to": 10}, "256 features"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        TrainClassifierConfig(**settings)


def test_a_name_that_a_policy_cannot_say_is_refused():
    with pytest.raises(ConfigError, match=r"policies say score\.NAME"):
        ClassifyConfig(from_="a", model="m", name="my score")


def test_bad_input_is_named(tmp_path, corpus, model):
    with pytest.raises(InputError, match="fits no document"):
        run_step(TRAIN, tmp_path / "t" / "a", inputs={"from": corpus}, positive=Selection(hosts=("nowhere.org",)))
    with pytest.raises(InputError, match="no source fits elsewhere"):
        run_step(TRAIN, tmp_path / "t" / "b", inputs={"from": corpus}, positive=Selection(sources=("elsewhere",)))
    (tmp_path / "bare.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="has a text and a label"):
        run_step(TRAIN, tmp_path / "t" / "c", labels=str(tmp_path / "bare.jsonl"))
    (tmp_path / "one.jsonl").write_text('{"text": "a", "label": "x y"}\n')
    with pytest.raises(ConfigError, match="cannot be a label"):
        run_step(TRAIN, tmp_path / "t" / "d", labels=str(tmp_path / "one.jsonl"))
    inputs = {"from": corpus.upstream("annotate"), "model": model}
    with pytest.raises(ConfigError, match="did you mean 'positive'"):
        run_step(CLASSIFY, tmp_path / "c" / "a", inputs=inputs, name="x", labels=("positiv",))


def test_white_space_units_read_chinese_as_one_word_a_line(corpus):
    """The released pipeline's reading: without segmentation no two Chinese pages share a word."""
    chinese = {"positive": Selection(hosts=("falv.cn",)), "negative": Selection(hosts=("food.cn",))}
    auc = {}
    for units in ("characters", "white_space"):
        out = corpus.store / "train_classifier" / units
        settings = {"text": TextSettings(units=units), "training": TRAINING}
        found = run_step(TRAIN, out, inputs={"from": corpus}, validation_share=0.3, **chinese, **settings)
        auc[units] = found.counts["roc_auc"]
    assert auc["characters"] > 0.98
    assert auc["white_space"] < 0.8
