"""The report: facts that add up, a page that stands alone, and nothing on it for a step that was not run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from diglot.core.storage import read_json, write_json
from diglot.corpus.dedup.lsh import Bands
from diglot.ledger.artifact import Artifact
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.model.files import save_model
from diglot.steps.deduplicate import STEP as DEDUPLICATE
from diglot.steps.evaluate import STEP as EVALUATE
from diglot.steps.index import STEP as INDEX
from diglot.steps.report import STEP as REPORT
from diglot.steps.report_page import charts, corpus_facts, duplicates, model_facts
from diglot.steps.report_page.charts import Dot, Line
from diglot.steps.report_page.page import bytes_text, render
from diglot.steps.report_page.training_view import training_view
from diglot.steps.train_tokenizer import STEP as TOKENIZER
from handmade_corpus import Doc, run_step, selected
from small_store import conversations, finetuned, packed, pretrained

EVALUATION = {
    "max_answers": 3,
    "max_new_tokens": 8,
    "num_continuations": 1,
    "max_tokens": 1500,
    "context": 64,
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def inputs(store):
    """An evaluation of everything and an index."""
    pack, tokenizer = packed(store)
    base, dialogues = pretrained(store, pack, tokenizer), conversations(store, pack)
    chat = finetuned(store, base, dialogues)
    given = {"from": base, "tokens": pack, "chat": chat, "conversations": dialogues}
    evaluation = run_step(EVALUATE, store / "evaluate" / "evaluate-0", inputs=given, **EVALUATION)
    # What a random model writes stands nowhere; a sentence of the corpus does, so that traces are seen on the page.
    samples = read_json(evaluation.path / "samples.json")
    samples[0]["answer"] = "A package is a file that holds the programs. <script>alert(1)</script>"
    write_json(evaluation.path / "samples.json", samples)
    return {"from": evaluation, "index": run_step(INDEX, store / "index" / "index-0", inputs={"from": pack})}


@pytest.fixture(scope="module")
def report(store, inputs):
    return run_step(REPORT, store / "report" / "report-0", inputs=inputs, title="A small recipe")


@pytest.fixture(scope="module")
def facts(report):
    return read_json(report.path / "report.json")


@pytest.fixture(scope="module")
def page(report):
    return (report.path / "report.html").read_text()


class Tags(HTMLParser):
    """Every start tag with its attributes, and a check that tags are closed in order."""

    VOID = ("meta", "br", "link", "img", "hr", "input", "path", "rect", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(page):
    parser = Tags()
    parser.feed(page)
    assert not parser.open
    return parser.found


def test_the_funnel_sums_exactly_in_every_language_and_the_page_says_so(facts, page):
    funnel = facts["funnel"]
    assert funnel["total"]["ingested"] == 126
    for counts in [*funnel["languages"].values(), funnel["total"]]:
        assert counts["ingested"] == counts["kept"] + sum(counts[stage] for stage in corpus_facts.STAGES)
    assert "126 ingested = 120 kept + 6 in other languages" in page


def test_the_page_needs_no_other_file_host_or_script(page):
    for tag, attributes in tags(page):
        assert tag not in ("script", "link", "img", "iframe", "object", "embed")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page
    assert "@import" not in page


def test_links_on_the_page_lead_to_places_that_exist(page):
    found = tags(page)
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    inside = {attributes["href"][1:] for _, attributes in found if attributes.get("href", "").startswith("#")}
    assert inside
    assert inside <= set(ids)


def test_what_a_model_writes_is_text_and_not_markup(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_traced_sentence_names_its_document_address_and_training_steps(facts, page):
    sample = facts["samples"][0]
    assert "".join(piece["text"] for piece in sample["pieces"]) == sample["answer"]
    (span,) = [span for span in sample["spans"] if "package is a file that holds" in span["text"]]
    document = span["documents"][0]
    assert document["url"].startswith("file:///usr/share/doc/")
    assert document["train_steps"]
    assert f'<a href="{document["url"]}">' in page
    assert f"read at training step {document['train_steps'][0]}" in page
    assert sample["traced_share"] > 0.4


def test_sizes_of_the_tokenizer_are_compared_where_there_are_several(store, inputs, facts, page, tmp_path):
    (tmp_path / "pairs.tsv").write_text("en\tzh\nA package is a file.\t软件包是一个文件。\n")
    settings = {"vocab_size": 440, "vocab_sizes": (420, 430), "baseline": "en", "parallel": str(tmp_path / "pairs.tsv")}
    corpus = {"from": inputs["from"].upstream("split")}
    swept = run_step(TOKENIZER, store / "train_tokenizer" / "swept", inputs=corpus, **settings)
    found = model_facts.tokenizer(swept)
    compared = render({**facts, "tokenizer": found})
    assert "Sizes compared" in compared
    assert "Sizes compared" not in page
    assert "× English-only:" in compared
    assert "vocab size 440 for 8192" in compared
    for size in found["sweep"]:
        assert (
            f"With {size['vocab_size']} tokens, Simplified Chinese takes {size['parity'][0]['ratio']:.2f}" in compared
        )
    for deviation in found["preset"]["deviations"]:
        assert deviation["name"].replace("_", " ") in page
    tags(compared)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "doc/page.html"])
def test_an_address_that_is_no_web_or_file_address_is_shown_and_not_linked(facts, address):
    reason = {**facts["funnel"]["reasons"][0]}
    reason["example"] = {**reason["example"], "url": address}
    page = render({**facts, "funnel": {**facts["funnel"], "reasons": [reason]}})
    assert address in page
    assert not any(attributes.get("href") == address for _, attributes in tags(page))


def test_control_characters_are_shown_and_not_sent(facts):
    changed = {**facts, "title": "bell\x07 and return\r"}
    page = render(changed)
    assert "bell␇ and return␍" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", page)


def test_chinese_text_is_marked_as_chinese(page):
    assert any(attributes.get("lang") == "zh-Hans" for _, attributes in tags(page))


def test_scores_stand_beside_the_ngram_models_with_their_intervals(facts, page):
    english = facts["scores"]["bits_per_byte"]["en"]
    assert {record["model"] for record in english} == {"base", "chat", "ngram-2", "ngram-3", "ngram-5"}
    assert all(record["low"] <= record["value"] <= record["high"] for record in english)
    assert "trigram" in page


def test_tokens_read_by_each_phase_are_those_of_the_plan(facts, store):
    tokens = facts["tokens"]
    assert [phase["name"] for phase in tokens["phases"]] == ["fundamental", "decay"]
    log = read_json(store / "pretrain" / "base" / "plan.json")["phases"]
    for number, phase in enumerate(log):
        assert sum(stream["phases"][number] for stream in tokens["streams"]) == phase["num_tokens"] > 0


def test_cost_covers_every_step_and_every_training_run(facts):
    steps = [node["step"] for node in facts["lineage"]["nodes"]]
    assert len(steps) == len(set(steps)) == 11
    base, tuned = facts["training"]
    assert facts["cost"]["flops"] == base["counts"]["flops"] + 6 * tuned["num_parameters"] * tuned["counts"]["tokens"]


def test_fine_tuning_is_shown_with_its_held_out_loss_before_and_after(facts, page):
    counts = facts["training"][1]["counts"]
    assert f"{counts['heldout_loss_before']:.3f} before, {counts['heldout_loss_after']:.3f} after" in page


def test_pre_training_has_curves_by_language_stream_and_evaluation(facts, page):
    base = facts["training"][0]
    assert base["evaluation"][-1]["bits_per_byte"].keys() == {"en", "zh-Hans"}
    for label in (
        "loss, nats per token over tokens: en, zh-Hans",
        "loss, en over tokens: handbook, guide",
        "loss, zh-Hans over tokens: handbook-zh, guide-zh",
        "bits per byte over tokens: en, zh-Hans",
    ):
        assert f'aria-label="{label}"' in page or f'aria-label="{swapped(label)}"' in page, label


def swapped(label: str) -> str:
    """Streams come by their tokens, which are nearly the same here."""
    head, _, names = label.partition(": ")
    return f"{head}: {', '.join(reversed(names.split(', ')))}"


def test_mfu_is_told_with_the_peak_it_is_measured_against(facts):
    base = facts["training"][0]
    assert "MFU" not in training_view({**base, "counts": {**base["counts"], "mfu": None}})["text"]
    told = {"mfu": 0.412, "peak": "fp32, 2 threads: 120 GFLOP/s (115 to 122, median of 7)"}
    timing = [{**line, "mfu": 0.4} for line in base["timing"]]
    shown = training_view({**base, "counts": {**base["counts"], **told}, "timing": timing})
    assert "MFU 41.2% of the measured peak: fp32, 2 threads: 120 GFLOP/s (115 to 122, median of 7)." in shown["text"]
    assert sum("MFU, share of the measured peak over tokens" in chart for chart in shown["charts"]) == 1


def test_the_parameters_of_a_model_in_several_files_are_counted(tmp_path: Path) -> None:
    model = Decoder(
        DecoderConfig(vocab_size=50, d_model=16, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=8, ffn_dim=24)
    )
    save_model(model, tmp_path / "model", max_shard_bytes=2000)
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    assert model_facts.num_parameters(Artifact(tmp_path)) == sum(p.numel() for p in model.parameters())


def test_many_streams_are_drawn_a_few_in_a_chart_and_the_smallest_not_at_all():
    names = [f"a-source-with-a-long-name-{n:02d}.en" for n in range(20)]
    line = {
        "loss": 3.0,
        "stream_losses": dict.fromkeys(names, 3.0),
        "stream_items": {name: 100 - n for n, name in enumerate(names)},
        "language_losses": {"en": 3.0},
    }
    run = {"kind": "pretrain", "num_parameters": 1, "seconds": 1.0, "counts": {}, "timing": [], "evaluation": []}
    run["log"] = [{**line, "train_step": n, "num_tokens": 10 * n + 10} for n in range(3)]
    drawn = [chart for chart in training_view(run)["charts"] if "loss, en over" in chart]
    assert len(drawn) == 12 / 3
    assert all(chart.count("<polyline") == 3 for chart in drawn)


def test_lineage_lists_inputs_before_results(facts):
    order = [node["id"] for node in facts["lineage"]["nodes"]]
    assert facts["lineage"]["edges"]
    for above, below in facts["lineage"]["edges"]:
        assert order.index(above) < order.index(below)


def test_the_page_is_drawn_from_report_json_alone(report, page):
    assert render(read_json(report.path / "report.json")) == page


def test_sections_of_steps_that_were_not_run_are_absent(store, inputs):
    base = Artifact(store / "pretrain" / "base")
    pack = Artifact(store / "pack" / "pack-0")
    evaluation = run_step(EVALUATE, store / "evaluate" / "alone", inputs={"from": base, "tokens": pack}, **EVALUATION)
    alone = run_step(REPORT, store / "report" / "alone", inputs={"from": evaluation})
    page = (alone.path / "report.html").read_text()
    assert "Fine-tuning" not in page
    assert "chat model" not in page
    assert "verbatim" not in page  # nothing is said about traces without an index
    tags(page)


def test_near_copies_are_shown_with_their_s_curve_and_what_was_removed(facts, tmp_path):
    words = " ".join(f"word{number}" for number in range(80))
    old = selected(tmp_path, [Doc(words + " old", source="archive")], "old")
    docs = [Doc(words + " new"), Doc(words[::-1]), Doc(words[::-1] + " end")]
    found = run_step(
        DEDUPLICATE, tmp_path / "deduplicate" / "d", inputs={"from": selected(tmp_path, docs), "against": old}
    )
    shown = {**facts, "duplicates": duplicates.facts(found)}
    assert duplicates.view(shown["duplicates"])["groups"][0]["num_dropped"] == 1
    page = render(shown)
    assert "14 bands of 8 rows propose half of the pairs at Jaccard 0.68" in page
    assert "Held against 1 documents of another corpus; dropped for one of them: 1." in page
    for row in duplicates.view(shown["duplicates"])["rows"]:
        assert row["proposed"] == pytest.approx(Bands(14, 8).probability(float(row["jaccard"])), abs=1e-4)
    assert "Near copies" not in render(facts)


def test_empty_pages_and_policy_rules_have_stages_of_their_own():
    rules = ("unmeasured", "empty", "language", "num_units", "near_duplicate", "edited_away", "contaminated")
    stages = [corpus_facts._stage(rule, of_policies={"language", "num_units"}) for rule in rules]
    assert stages == ["empty", "empty", "language", "rules", "near_duplicate", "later", "later"]


def test_a_line_chart_draws_every_point_inside_its_frame():
    svg = charts.line_chart(
        [Line(name="loss", css="en", x=[0, 5, 10], y=[3.0, 2.0, 1.5])], x_label="tokens", y_label="loss"
    )
    points = re.search(r'points="([^"]+)"', svg).group(1).split()
    places = [tuple(map(float, point.split(","))) for point in points]
    assert len(places) == 3
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= 220 for x, y in places)
    assert places[0][1] < places[1][1] < places[2][1]  # a falling loss goes down on the page


def test_dots_lie_on_their_axis_and_whiskers_around_them():
    dot = Dot(label="trigram", css="", value=1.5, low=1.2, high=1.8)
    svg = charts.dot_whisker([dot], x_label="bits per byte", low=1.0, high=2.0)
    x = float(re.search(r'cx="([\d.]+)"', svg).group(1))
    left, right = map(float, re.search(r'class="whisker " d="M([\d.]+) [\d.]+H([\d.]+)"', svg).groups())
    assert left < x < right
    assert x - left == pytest.approx(right - x, abs=0.2)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (69_000, "69 kB"), (138e6, "138 MB")]
)
def test_bytes_are_written_for_people(count, text):
    assert bytes_text(count) == text


def test_the_facts_are_plain_json(facts):
    assert json.loads(json.dumps(facts)) == facts


def test_a_corpus_without_a_model_has_a_report_too(store, inputs):
    split = inputs["index"].upstream("split")
    report = run_step(REPORT, store / "report" / "corpus", inputs={"from": split})
    facts = read_json(report.path / "report.json")
    assert "scores" not in facts
    assert facts["training"] == []
    assert (
        "Scores"
        not in dict(re.findall(r'<a href="#(\w+)">(\w+)</a>', (report.path / "report.html").read_text())).values()
    )
    for source in facts["sources"]:
        documents = source["documents"]
        stages = sum(documents.get(stage, 0) for stage in corpus_facts.STAGES)
        assert documents["ingested"] == documents["kept"] + stages
    assert any(source["documents"].get("language") for source in facts["sources"])
