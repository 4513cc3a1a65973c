"""The recall step: from the pages of one site to the topic on all sites, in rounds that can be interrupted."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from topic_pages import LAW_PLACES, is_law, topic_corpus

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.classify.settings import ExpandSettings, Selection, TextSettings, TrainingSettings
from diglot.steps import recall as module
from diglot.steps.ingest import STEP as INGEST
from diglot.steps.recall import STEP, Pool, RecallConfig
from handmade_corpus import run_step, selected

SETTINGS = {
    "positive": Selection(hosts=("law.org", "falv.cn")),
    "training": TrainingSettings(epochs=25, learning_rate=0.5, dimension=8, min_count=1, num_buckets=1 << 12),
    "pool": Pool(positive=Selection(url_patterns=LAW_PLACES)),
    "negatives_per_positive": 1.0,
    "threshold": 0.5,
    "expand": ExpandSettings(pattern_share=0.2),
    "validation_share": 0.2,
    "quantise_to": 256,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return selected(tmp_path_factory.mktemp("store"), topic_corpus())


@pytest.fixture(scope="module")
def recalled(corpus):
    return run_step(STEP, corpus.store / "recall" / "r", inputs={"from": corpus}, **SETTINGS)


def files_of(artifact):
    names = (path.relative_to(artifact.path) for path in artifact.path.rglob("*") if path.is_file())
    return {name: (artifact.path / name).read_bytes() for name in names if not name.name.startswith((".", "manifest"))}


def test_recall_grows_and_precision_holds(recalled):
    pool = recalled.counts["pool"]
    assert len(pool) >= 2
    assert pool[-1]["recall"] > pool[0]["recall"]
    assert min(found["precision"] for found in pool) >= 0.9
    assert recalled.counts["documents"] == 600 == recalled.counts["recalled"] + recalled.counts["not_recalled"]


def test_the_report_names_sites_and_prefixes_with_counts_that_the_table_confirms(recalled):
    table = pq.read_table(recalled.path / "recalled.parquet").to_pylist()
    assert len(table) == recalled.counts["recalled"]
    assert all(row["score"] >= recalled.counts["threshold"] for row in table)
    rounds = read_json(recalled.path / "report.json")["rounds"]
    places = {prefix["place"]: prefix for prefix in rounds[0]["prefixes"]}
    assert places["example.org/law/"]["pages"] == 30
    assert "example.org/trips/" not in places
    assert "example.org/" not in places  # half of the site is on travel
    assert sum(found["newly_recalled"] for found in rounds) >= len(table)
    assert rounds[1]["positives"] == rounds[0]["positives"] + rounds[0]["joined"]


def test_the_result_is_a_classifier_that_is_the_last_round_s(recalled):
    last = recalled.path / "rounds" / str(recalled.counts["rounds"])
    assert (recalled.path / "model.bin").read_bytes() == (last / "model.bin").read_bytes()
    assert (recalled.path / "model.ftz").stat().st_size < (recalled.path / "model.bin").stat().st_size
    assert read_json(recalled.path / "classifier.json") == read_json(last / "classifier.json")


def test_a_run_that_was_killed_goes_on_after_the_last_round_and_ends_with_the_same_bytes(
    corpus, recalled, tmp_path, monkeypatch
):
    out = corpus.store / "recall" / "killed"
    trained = []
    score, train = module._score, module._train

    def killed(context, pages, folder, key):
        if folder.name == "2":
            raise KeyboardInterrupt
        return score(context, pages, folder, key)

    def counted(*arguments, **settings):
        trained.append(arguments[4].name)
        return train(*arguments, **settings)

    monkeypatch.setattr(module, "_train", counted)
    monkeypatch.setattr(module, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        run_step(STEP, out, inputs={"from": corpus}, **SETTINGS)
    monkeypatch.setattr(module, "_score", score)
    again = run_step(STEP, out, workers=2, inputs={"from": corpus}, **SETTINGS)
    assert trained.count("1") == 1
    assert files_of(again) == files_of(recalled)


def test_people_override_what_is_found(corpus):
    expand = ExpandSettings(pattern_share=0.2, accept_patterns=("court.net/canteen",), deny_patterns=("anli.cn",))
    out = corpus.store / "recall" / "override"
    found = run_step(STEP, out, inputs={"from": corpus}, **{**SETTINGS, "num_rounds": 1, "expand": expand})
    (one,) = read_json(found.path / "report.json")["rounds"]
    assert one["denied"] == 30
    other = {prefix["place"]: prefix["pages"] for prefix in one["prefixes"]}
    assert one["joined"] == sum(other.values()) - other["anli.cn/"] - other["law.org/"] - other["falv.cn/"] + 30


def test_the_papers_join_only_what_was_not_recalled(corpus):
    out = corpus.store / "recall" / "papers"
    found = run_step(STEP, out, inputs={"from": corpus}, **{**SETTINGS, "num_rounds": 1, "join_recalled": False})
    both = run_step(STEP, corpus.store / "recall" / "both", inputs={"from": corpus}, **{**SETTINGS, "num_rounds": 1})
    joined, all_joined = (read_json(a.path / "report.json")["rounds"][0]["joined"] for a in (found, both))
    assert joined < all_joined


def test_dropped_documents_are_neither_read_nor_recalled(tmp_path):
    docs = topic_corpus()
    for doc in docs:
        if "example.org/law" in doc.url:
            doc.reason = 1
    found = run_step(STEP, tmp_path / "recall" / "r", inputs={"from": selected(tmp_path, docs)}, **SETTINGS)
    urls = pq.read_table(found.path / "recalled.parquet")["url"].to_pylist()
    assert found.counts["documents"] == 570
    assert not [url for url in urls if "example.org/law" in url]
    assert len([url for url in urls if is_law(url)]) > 60


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"positive": Selection()}, "Name the seeds"),
        ({"num_rounds": 0}, "one round is the least"),
        ({"stop_share": 1}, "stop_share = 1"),
        ({"threshold": 0}, "0.96"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        RecallConfig(from_="a", **{"positive": Selection(hosts=("a.org",)), **settings})


def test_bad_input_is_named(corpus, tmp_path):
    with pytest.raises(InputError, match="fits no document"):
        run_step(STEP, tmp_path / "r" / "a", inputs={"from": corpus}, positive=Selection(hosts=("nowhere.org",)))
    ids = tmp_path / "r" / "b" / "ids.txt"
    with pytest.raises(InputError, match="relative to the recipe"):
        run_step(STEP, ids.parent, inputs={"from": corpus}, positive=Selection(ids_file="ids.txt"))
    ids.write_text("https://law.org/civil/1\n")
    with pytest.raises(InputError, match="belong together"):
        run_step(STEP, ids.parent, inputs={"from": corpus}, positive=Selection(ids_file="ids.txt"))
    short = {**SETTINGS, "training": TrainingSettings(dimension=8, num_buckets=1 << 12), "threshold": 0.96}
    with pytest.raises(InputError, match=r"no document reaches the threshold 0\.960"):
        run_step(STEP, tmp_path / "r" / "d", inputs={"from": corpus}, **short)
    settings = {**SETTINGS, "pool": Pool(positive=SETTINGS["positive"])}
    with pytest.raises(InputError, match="no document beside the seeds"):
        run_step(STEP, tmp_path / "r" / "c", inputs={"from": corpus}, **settings)


def test_scores_of_another_model_in_the_folder_do_not_count(corpus, recalled):
    """A killed run over other seeds left scores; its records name another training set."""
    out = corpus.store / "recall" / "stale"
    shutil.copytree(recalled.path / "rounds", out / "rounds")
    record = out / "rounds" / "1" / ".round.done.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "key": "other"}))
    again = run_step(STEP, out, inputs={"from": corpus}, **SETTINGS)
    assert files_of(again) == files_of(recalled)


@pytest.mark.shared
def test_recall_of_real_pages_rises_each_round_and_precision_holds(shared, tmp_path):
    """A textbook on logic from one of its chapters, among a handbook, recipes and manuals; benchmarks/recall.py is the
    long version."""
    include = ["math/*", "zh/how_to_cook*", "zh/tidb_operator*", "en/tidb_operator*", "en/openstax*"]
    source = str(shared / "pretrain")
    pages = run_step(INGEST, tmp_path / "ingest" / "i", source=source, include=include)
    found = run_step(
        STEP,
        tmp_path / "recall" / "r",
        inputs={"from": pages},
        positive=Selection(url_patterns=("OpenLogic/.*/content/computability/",)),
        pool=Pool(positive=Selection(hosts=("github.com/OpenLogicProject",))),
        negatives_per_positive=4.0,
        threshold=0.96,
        expand=ExpandSettings(pattern_share=0.3),
        text=TextSettings(max_chars=500),
        training=TrainingSettings(epochs=20, learning_rate=0.5, dimension=8, num_buckets=1 << 14),
        quantise_to=None,
    )
    pool = found.counts["pool"]
    assert len(pool) >= 2
    assert [one["recall"] for one in pool] == sorted({one["recall"] for one in pool})
    assert pool[-1]["recall"] > 0.9
    assert min(one["precision"] for one in pool) >= 0.9
