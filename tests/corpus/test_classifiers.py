"""The parts of classifiers: places, held-out sites, measures, and a training that repeats itself byte for byte."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.classify.holdout import hold_out
from diglot.corpus.classify.model import MODEL, PREFIX, QUANTISED, floret, load
from diglot.corpus.classify.quality import calibration, judged, roc_auc, threshold_for
from diglot.corpus.classify.recalling import topic_prefixes, topic_sites
from diglot.corpus.classify.settings import ExpandSettings, Selection, TextSettings, TrainingSettings
from diglot.corpus.classify.sites import on_host, place_of
from diglot.corpus.classify.training import Example, Plan, train

ENGLISH = "the court may order a party to pay the costs of the case under this act"
CHINESE = "人民法院应当依照本法规定审理案件当事人"


@pytest.mark.parametrize(
    ("url", "site", "folders"),
    [
        ("https://www.Example.org:8080/a/b/page.html?x=/c/#/d/", "example.org", ("a", "b")),
        ("https://example.org", "example.org", ()),
        ("https://github.com/owner/repo/blob/main/docs/a.md", "github.com/owner/repo", ("blob", "main", "docs")),
        ("https://github.com/owner", "github.com", ()),
        ("https://zh.wikipedia.org/wiki/%E6%95%B0%E5%AD%A6/x", "zh.wikipedia.org", ("wiki", "数学")),
    ],
)
def test_a_place_is_a_site_and_folders(url, site, folders):
    assert place_of(url) == (site, folders)


@pytest.mark.parametrize("url", [None, "", "file:page.html", "page.html", "http://[::1/x", "mailto:a@b.c"])
def test_an_address_without_a_host_has_no_place(url):
    assert place_of(url) is None


def test_a_host_stands_for_what_is_under_it_and_for_nothing_else():
    assert on_host("zh.d2l.ai", "d2l.ai")
    assert on_host("github.com/owner/repo", "github.com/Owner")
    assert not on_host("mathd2l.ai", "d2l.ai")
    assert not on_host("github.com/owner2/repo", "github.com/owner")


scored = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=30)


@settings(deadline=None)
@given(scored)
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(pairs):
    scores, positive = np.array([s for s, _ in pairs], np.float32), np.array([p for _, p in pairs])
    wins = [float(p > n) + 0.5 * float(p == n) for p in scores[positive] for n in scores[~positive]]
    if wins:
        assert roc_auc(scores, positive) == pytest.approx(np.mean(wins))
    else:
        assert np.isnan(roc_auc(scores, positive))


@settings(deadline=None)
@given(scored, st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_the_threshold_is_the_lowest_score_with_the_precision(pairs, wanted):
    scores, positive = np.array([s for s, _ in pairs], np.float32), np.array([p for _, p in pairs])
    fitting = [t for t in scores if judged(scores, positive, t).precision >= wanted]
    found = threshold_for(scores, positive, wanted)
    if fitting:
        assert judged(scores, positive, found) == judged(scores, positive, min(fitting))
        assert found <= min(fitting)
    else:
        assert found is None


def test_the_threshold_lies_in_the_gap_between_labels_that_are_told_apart():
    scores = np.array([1, 1, 0.2, 0.1], np.float32)
    assert threshold_for(scores, np.array([True, True, False, False]), 0.95) == pytest.approx(0.6)


def test_precision_recall_and_f1_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.2], np.float32)
    assert judged(scores, np.array([True, False, True, True]), 0.7) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_a_calibration_table_counts_every_document_once():
    scores = np.array([0.0, 0.05, 0.95, 1.0], np.float32)
    table = calibration(scores, np.array([False, True, True, True]))
    assert [(row["from"], row["documents"], row["positive_share"]) for row in table] == [(0, 2, 0.5), (0.9, 2, 1)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(0, 1)), min_size=20, max_size=200))
def test_no_group_is_on_both_sides_and_each_label_is_on_each(rows):
    levels = [(f"site{s}", f"site{s}/folder{f}", f"cluster{n}") for n, (s, f, _) in enumerate(rows)]
    labels = np.array([label for *_, label in rows])
    if min(np.bincount(labels, minlength=2)) < 2:
        return
    held = hold_out(levels, labels, ["no", "yes"], share=0.2, seed=3).validation
    for label in (0, 1):
        assert held[labels == label].any()
    sites = np.array([level[0] for level in levels])
    for site in set(sites.tolist()):
        mine = held[sites == site]
        large = any((labels[sites == site] == label).sum() > 0.25 * (labels == label).sum() for label in (0, 1))
        assert large or mine.all() or not mine.any()  # a site that is not too large stays whole


def test_a_label_that_cannot_be_held_out_is_an_error():
    with pytest.raises(InputError, match="labelled 'yes' belong together"):
        hold_out([("a",), ("b",), ("c",)], np.array([0, 0, 1]), ["no", "yes"], share=0.5, seed=0)


def test_labels_whose_few_places_leave_no_way_to_divide_them_are_an_error():
    """Of three places that three labels share two by two, none can be on one side without a label missing there."""
    levels = [(place,) for place in "abbcca"]
    with pytest.raises(InputError, match="shares its few places with other labels"):
        hold_out(levels, np.array([0, 0, 1, 1, 2, 2]), ["x", "y", "z"], share=0.3, seed=0)


def examples(seed=0, number=240):
    """Law against cooking, in English and Chinese."""
    rng = np.random.default_rng(seed)
    for n in range(number):
        law = bool(n % 2)
        english = ENGLISH if law else "boil the rice add some salt and oil then stir until it is soft"
        chinese = CHINESE if law else "把米放进锅里加水煮熟再放盐和油翻炒几分钟"
        words = rng.choice(english.split() if n % 4 < 2 else list(chinese), 30).tolist()
        yield Example(f"doc{n}", "law" if law else "other", " ".join(words) + "\n", n % 10 in (0, 1))


def plan(**changes):
    settings = {
        "labels": ("other", "law"),
        "positive_label": "law",
        "text": TextSettings(),
        "training": TrainingSettings(epochs=5, learning_rate=0.5, dimension=8, min_count=1, num_buckets=1 << 12),
        "threshold": None,
        "wanted_precision": 0.9,
        "quantise_to": 512,
        "seed": 11,
    }
    return Plan(**{**settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    return folder, train(examples(), plan(), folder)


def test_it_learns_and_says_how_well(trained):
    _, found = trained
    law = found["validation"]["law"]
    assert law["roc_auc"] > 0.99
    assert law["precision"] >= 0.9
    assert found["examples"]["law"] == {"train": 96, "validation": 24, "without_tokens": 0}


def test_the_same_examples_in_any_order_give_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    train(reversed(list(examples())), plan(), tmp_path)
    for name in (MODEL, QUANTISED):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    train(examples(), plan(seed=12), tmp_path)
    assert (folder / MODEL).read_bytes() != (tmp_path / MODEL).read_bytes()


def test_the_quantised_model_is_smaller_and_about_as_good(trained):
    _, found = trained
    assert found["quantised"]["model_bytes"] < found["model_bytes"]
    assert found["quantised"]["validation"]["law"]["roc_auc"] > 0.98


@pytest.mark.parametrize("quantised", [False, True])
def test_probabilities_are_those_of_the_model_for_each_label(trained, quantised):
    folder, _ = trained
    classifier = load(folder, quantised)
    texts = pa.array(["The court may order", "把米放进锅里", "", "人民法院 rice"], pa.large_string())
    found = classifier.probabilities(texts, ["law", "other"])
    model = floret().load_model(str(folder / (QUANTISED if quantised else MODEL))).f
    for row, line in ((0, "the court may order\n"), (1, "把 米 放 进 锅 里\n")):
        asked = {label: p for p, label in model.predict(line, 2, 0.0, "strict")}
        expected = [asked[PREFIX + label] for label in ("law", "other")]
        assert found[row] == pytest.approx(expected, abs=3e-5)
    assert found[0, 0] > 0.5 > found[1, 0]
    assert (found[2] == 0).all()  # no token, no evidence


def test_more_than_two_labels_have_a_probability_each(tmp_path):
    three = [one if n % 3 else one._replace(label="third", line="zebra lion\n") for n, one in enumerate(examples())]
    train(three, plan(labels=("other", "law", "third"), quantise_to=None), tmp_path)
    found = load(tmp_path).of_lines(["zebra lion\n", "court order case\n"], ["law", "other", "third"])
    assert found.sum(axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert found.argmax(axis=1).tolist() == [2, 0]


def test_a_label_without_text_and_an_unknown_label_are_named(trained, tmp_path):
    folder, _ = trained
    empty = [one._replace(line="\n") if one.label == "law" else one for one in examples()]
    with pytest.raises(InputError, match="no text to train the label 'law' on"):
        train(empty, plan(), tmp_path)
    assert not (tmp_path / ".training").exists()
    with pytest.raises(ConfigError, match="did you mean 'law'"):
        load(folder).of_lines(["x\n"], ["laws"])


def test_without_floret_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "floret", None)
    with pytest.raises(ConfigError, match=r"pip install 'diglot\[classify\]'"):
        floret()


PLACES = [place_of(url) for url in (
    *(f"https://m.org/math/{n}" for n in range(10)),
    *(f"https://m.org/mathew/{n}" for n in range(30)),
    *(f"https://n.org/{n}" for n in range(10)),
    "https://o.org/one",
)] + [None]  # fmt: skip
RECALLED = np.array([True] * 9 + [False] * 31 + [True] + [False] * 9 + [True, True])


def test_a_topic_site_has_more_than_a_tenth_recalled_and_enough_pages():
    sites = topic_sites(PLACES, RECALLED, ExpandSettings())
    assert [tuple(site) for site in sites] == [("m.org", 40, 9)]  # n.org has exactly a tenth, o.org one page


def test_prefixes_are_the_shortest_with_the_share_and_end_at_a_slash():
    found = topic_prefixes(PLACES, RECALLED, {"m.org"}, ExpandSettings())
    assert [tuple(prefix) for prefix in found] == [("m.org/math/", 10, 9)]
    low = ExpandSettings(pattern_share=0.2)
    half = topic_prefixes(PLACES, RECALLED, {"m.org"}, low)
    assert [tuple(prefix) for prefix in half] == [("m.org/math/", 10, 9)]  # m.org has the share, /mathew/ has not
    whole = topic_prefixes(PLACES, np.ones(len(PLACES), bool), {"m.org"}, low)
    assert [tuple(prefix) for prefix in whole] == [("m.org/", 40, 40)]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (lambda: ExpandSettings(host_share=10), "the papers have 0.1"),
        (lambda: ExpandSettings(accept_patterns=("a(",)), "no regular expression"),
        (lambda: Selection(url_patterns=("[",)), "no regular expression"),
        (lambda: Selection(balance_hosts=True), "set max_documents too"),
        (lambda: TrainingSettings(epochs=0), "epochs = 0"),
        (lambda: TrainingSettings(learning_rate=5), "outside"),
    ],
)
def test_impossible_settings_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        settings()
