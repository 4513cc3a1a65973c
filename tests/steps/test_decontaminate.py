"""The decontaminate step: planted items are found and named, common phrases are not, nothing is lost."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import zstandard

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.decontaminate import scan
from diglot.corpus.splits import split_documents
from diglot.corpus.tables import decisions_of, read_table, rule_names, shards
from diglot.steps.decontaminate import STEP, DecontaminateConfig, observe
from diglot.steps.deduplicate import STEP as DEDUPLICATE
from diglot.steps.split import STEP as SPLIT
from diglot.trace.lineage import why
from handmade_corpus import RULES, Doc, run_step, selected

QUESTION_EN = (
    "A bakery sells forty loaves every weekday and twice as many on Saturday; how many loaves does the bakery sell in "
    "three weeks if it is closed on Sunday?"
)
QUESTION_ZH = "一列火车以每小时九十公里的速度从甲地开往乙地，途中停车两次，每次停留十五分钟，到达时一共用了多少时间？"
PASSAGE = (
    "The lighthouse keeper wrote down the hour at which every vessel passed the northern cape, and the harbour office "
    "compared his list with the papers of the captains at the end of each month."
)
PHRASE = "Choose the one answer that best completes the following sentence about the passage"
FILLER_EN = "The committee met in the spring to speak about the roads of the valley and the price of timber. " * 4
FILLER_ZH = "本手册介绍系统的安装方法和日常维护工作，管理员应当定期检查磁盘空间并备份重要文件。" * 4

SHIPPING = ("harbour", "lamp", "ship", "pilot", "water", "bread", "captain", "dawn", "cape", "list")
STORIES = [" ".join(random.Random(n).choices(SHIPPING, k=40)) for n in range(10)]

ITEMS = {
    "bakery_test": [
        {"id": "b/1", "question": QUESTION_EN, "answer": "880", "url": "https://example.org/never looked at"},
        {"id": "b/2", "question": "Who was it?", "choices": ["nobody that anyone in town had ever seen", "Ann"]},
        {"id": "b/3", "question": "What?", "answer": "1"},
    ],
    "trains": [{"id": 7, "langs": {"zh": {"question": QUESTION_ZH}, "en": {"question": "When does the train come?"}}}],
    "reading": [{"id": f"r{n}", "context": PASSAGE if n == 0 else "", "question": f"{PHRASE} {n}"} for n in range(12)],
}

DOCS = {
    "verbatim": FILLER_EN + QUESTION_EN + FILLER_EN,
    "shouted": "QUIZ!\n" + QUESTION_EN.upper().replace(";", " --").replace(",", "") + "\nANSWER: 880",
    "chinese": FILLER_ZH + QUESTION_ZH.replace("，", "").replace("火车", "火 车") + FILLER_ZH,
    "passage": FILLER_EN + PASSAGE.replace("northern", "southern") + FILLER_EN,
    "joined": "Who was it? nobody that anyone in town had ever seen, Ann",
    "phrase": FILLER_EN + PHRASE + ". " + FILLER_EN,
    "half": FILLER_EN + QUESTION_EN[: len(QUESTION_EN) // 2] + FILLER_EN,
    "clean": FILLER_EN,
    "clean-zh": FILLER_ZH,
}


@pytest.fixture
def benchmarks(tmp_path):
    folder = tmp_path / "benchmarks"
    (folder / "more").mkdir(parents=True)
    for name, records in ITEMS.items():
        lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()
        if name == "trains":
            (folder / "more" / "trains.jsonl.zst").write_bytes(zstandard.compress(lines))
        else:
            (folder / f"{name}.jsonl").write_bytes(lines + b"\n\n")
    return folder


def corpus(store, docs=None):
    rows = [
        Doc(text, url=f"https://example.org/{name}", lang="zh-Hans" if "火" in text or "手册" in text else "en",
            shard=f"{number // 4:05d}")
        for number, (name, text) in enumerate((docs or DOCS).items())
    ]  # fmt: skip
    dropped = Doc(QUESTION_EN, url="https://example.org/dropped", reason=1, shard="00009")
    return selected(store, [*rows, dropped])


def decontaminated(store, folder, name="d", workers=1, **settings):
    inputs = {"from": settings.pop("corpus", None) or corpus(store)}
    settings.setdefault("benchmarks", str(folder))
    return run_step(STEP, store / "decontaminate" / name, inputs=inputs, workers=workers, **settings)


def dropped_by(artifact):
    """name of the document -> the rule that dropped it."""
    rules, found = rule_names(artifact), {}
    for shard in shards(artifact.upstream("ingest")):
        urls = read_table(artifact.upstream("ingest").path / "documents" / shard.file, ["url"])["url"].to_pylist()
        for url, row in zip(urls, decisions_of(artifact, shard).to_pylist(), strict=True):
            if not row["keep"]:
                found[url.rpartition("/")[2]] = rules[row["first_reason"]]
    return found


def hits_of(artifact):
    return [row for path in sorted((artifact.path / "hits").rglob("*.parquet")) for row in read_table(path).to_pylist()]


def test_documents_that_hold_an_item_are_dropped_and_others_are_not(tmp_path, benchmarks):
    artifact = decontaminated(tmp_path, benchmarks)
    planted = ("verbatim", "shouted", "chinese", "passage", "joined")
    assert dropped_by(artifact) == {**dict.fromkeys(planted, "contaminated"), "dropped": RULES[1]}
    counts = artifact.counts
    assert (counts["documents"], counts["kept"], counts["dropped"]) == (9, 4, {"contaminated": 5})
    assert counts["ngrams"]["in_too_many_items"] > 0
    bakery = counts["benchmarks"]["bakery_test"]
    assert (bakery["items"], bakery["searchable_items"], bakery["found_items"], bakery["full_items"]) == (3, 2, 2, 2)
    assert (bakery["dropped_documents"], bakery["touched_documents"]) == (3, 4)
    assert counts["benchmarks"]["trains"]["found_items"] == counts["benchmarks"]["reading"]["found_items"] == 1


def test_hits_name_item_part_coverage_and_the_bytes_that_match(tmp_path, benchmarks):
    artifact = decontaminated(tmp_path, benchmarks)
    hits = {(row["item"], row["part"]): row for row in hits_of(artifact) if row["drops"]}
    assert set(hits) == {("b/1", "question"), ("b/2", "question"), ("7#zh", "question"), ("r0", "passage")}
    whole = [row for row in hits_of(artifact) if row["item"] == "b/1" and row["coverage"] == 1]
    verbatim = next(row for row in whole if row["spans"][0][0] == len(FILLER_EN))
    assert DOCS["verbatim"].encode()[slice(*verbatim["spans"][0])].decode() == QUESTION_EN.rstrip("?")
    assert verbatim["num_units"] == len(QUESTION_EN.split())
    edited = hits["r0", "passage"]
    assert len(edited["spans"]) == 2
    assert 0.9 < edited["coverage"] < 1
    half = [row for row in hits_of(artifact) if row["item"] == "b/1" and not row["drops"]]
    assert len(half) == 1
    assert 0.3 < half[0]["coverage"] < 0.6


def test_why_names_benchmark_and_item(tmp_path, benchmarks):
    artifact = decontaminated(tmp_path, benchmarks)
    text = why({"clean": artifact, "pages": artifact.upstream("ingest")}, "https://example.org/chinese").to_text()
    assert "verdict    dropped by contaminated" in text
    assert "trains 7#zh (1.00)" in text
    assert "at least 0.65 of one item" in text


def test_a_later_deduplication_has_the_last_word(tmp_path, benchmarks):
    clean = decontaminated(tmp_path, benchmarks, corpus=corpus(tmp_path, {**DOCS, "twin": DOCS["clean"]}))
    distinct = run_step(DEDUPLICATE, tmp_path / "deduplicate" / "d", inputs={"from": clean})
    artifacts = {"pages": clean.upstream("ingest"), "clean": clean, "distinct": distinct}
    [twin] = dropped_by(distinct).keys() - dropped_by(clean).keys()
    assert why(artifacts, f"https://example.org/{twin}").objections[0].rule == "exact_duplicate"
    assert why(artifacts, "https://example.org/passage").objections[0].rule == "contaminated"


def test_the_report_shows_the_matched_text(tmp_path, benchmarks):
    report = read_json(decontaminated(tmp_path, benchmarks).path / "contamination.json")["benchmarks"]
    example = report["trains"]["examples"][0]
    assert example["item"] == "7#zh"
    assert "[一列火 车以每小时" in example["excerpt"]
    assert report["reading"]["examples"][0]["part"] == "passage"


def test_n_grams_of_many_documents_count_for_nothing(tmp_path, benchmarks):
    docs = {f"copy-{n}": f"{n} {FILLER_EN} {QUESTION_EN}" for n in range(5)}
    artifact = decontaminated(tmp_path, benchmarks, corpus=corpus(tmp_path, docs), common_documents=4)
    assert set(dropped_by(artifact)) == {"dropped"}
    phrases = read_json(artifact.path / "contamination.json")["common_phrases"]
    assert phrases[0]["documents"] == 5
    assert phrases[0]["items"] == ["bakery_test/b/1"]
    assert "loaves" in " ".join(phrase["text"] for phrase in phrases)


def test_workers_and_a_restart_change_no_byte(tmp_path, benchmarks, monkeypatch):
    one = decontaminated(tmp_path, benchmarks)
    half = tmp_path / "decontaminate" / "half"
    calls = []

    def dies_at_the_second_shard(task, scan_one=scan._scan):
        calls.append(task.shard)
        if len(calls) == 2:
            raise InputError("killed")
        return scan_one(task)

    monkeypatch.setattr(scan, "_scan", dies_at_the_second_shard)
    with pytest.raises(InputError, match="killed"):
        decontaminated(tmp_path, benchmarks, name="half")
    decontaminated(tmp_path, benchmarks, name="half")
    assert len(calls) == 5
    assert len(set(calls)) == 4
    monkeypatch.undo()
    four = decontaminated(tmp_path, benchmarks, name="four", workers=2)
    for path in sorted(p for p in one.path.rglob("*") if p.is_file() and p.name != "manifest.json"):
        for other in (half, four.path):
            assert path.read_bytes() == (other / path.relative_to(one.path)).read_bytes(), path
    assert not (half / "places").exists()
    assert not (half / "index.npz").exists()


def test_held_out_documents_are_found_in_training_documents(tmp_path, benchmarks):
    shared = (
        "Every second winter the river froze so hard that carts could cross it between the mill and the old ferry. "
    )
    docs = {f"page-{n}": f"{n}. {shared if n % 2 else ''} {PASSAGE[: 20 + n]} number {n} " * 3 for n in range(10)}
    split = run_step(
        SPLIT, tmp_path / "split" / "s", inputs={"from": corpus(tmp_path, docs)}, share_heldout=0.3,
        min_heldout_documents=3, max_heldout_share=0.6, seed=4,
    )  # fmt: skip
    artifact = decontaminated(tmp_path, benchmarks, corpus=split, benchmarks="", heldout=True)
    heldout = {i for _, t in split_documents(split, "heldout", ["id"]) for i in t["id"].to_pylist()}
    still = {i for _, t in split_documents(artifact, "heldout", ["id"]) for i in t["id"].to_pylist()}
    assert still == heldout
    assert heldout
    overlap = dropped_by(artifact)
    assert set(overlap.values()) == {"heldout_overlap", RULES[1]}
    assert len(overlap) > 2
    assert {hit["item"] for hit in hits_of(artifact)} <= heldout
    assert not {hit["id"] for hit in hits_of(artifact)} & heldout
    report = why({"c": artifact, "pages": artifact.upstream("ingest")}, f"https://example.org/{min(overlap)}")
    assert report.keep is False


def test_benchmarks_and_held_out_documents_can_be_looked_for_one_after_the_other(tmp_path, benchmarks):
    docs = {
        **{name: DOCS[name] for name in ("chinese", "joined")},
        **{f"page-{n}": f"{n}. {STORIES[n // 2]} The end of page {n}." for n in range(20)},
    }
    first = decontaminated(tmp_path, benchmarks / "more", corpus=corpus(tmp_path, docs))
    split = run_step(
        SPLIT, tmp_path / "split" / "s", inputs={"from": first}, share_heldout=0.3, min_heldout_documents=3,
        max_heldout_share=0.6, seed=4,
    )  # fmt: skip
    second = decontaminated(tmp_path, benchmarks, name="second", corpus=split, benchmarks="", heldout=True)
    third = decontaminated(tmp_path, benchmarks, name="third", corpus=second)
    rules = [*RULES, "contaminated", "heldout_overlap"]
    assert rule_names(second) == rule_names(third) == rules
    planted, found = dropped_by(first), dropped_by(second)
    assert planted == {"chinese": "contaminated", "dropped": RULES[1]}
    assert planted.items() < found.items()
    overlap = found.keys() - planted.keys()
    assert {found[name] for name in overlap} == {"heldout_overlap"}
    assert dropped_by(third) == {**found, "joined": "contaminated"}
    artifacts = {"pages": first.upstream("ingest"), "first": first, "held": split, "second": second, "third": third}
    for name, item in {"chinese": "trains 7#zh", "joined": "bakery_test b/2"}.items():
        (objection,) = why(artifacts, f"https://example.org/{name}").objections
        assert (objection.rule, objection.why) == ("contaminated", f"holds {item} (1.00)")
    (objection,) = why(artifacts, f"https://example.org/{min(overlap)}").objections
    assert (objection.rule, objection.limit) == ("heldout_overlap", "at least 0.3 of one held-out document")
    assert objection.why.startswith("holds held-out documents ")
    assert objection.value > 0.3


def test_fields_of_a_benchmark_can_be_named(tmp_path, benchmarks):
    artifact = decontaminated(tmp_path, benchmarks, fields={"bak*": ("choices",), "*": ("question",)})
    found = artifact.counts["benchmarks"]
    assert found["bakery_test"]["items"] == 1  # the others have no choices
    assert found["reading"]["found_items"] == 0
    assert found["trains"]["found_items"] == 1


def test_of_two_patterns_of_fields_the_more_specific_counts_and_each_must_fit(tmp_path, benchmarks):
    artifacts = corpus(tmp_path)
    for number, fields in enumerate(
        ({"*": ("question",), "bak*": ("choices",)}, {"bak*": ("choices",), "*": ("question",)})
    ):
        found = decontaminated(tmp_path, benchmarks, name=str(number), corpus=artifacts, fields=fields)
        assert found.counts["benchmarks"]["bakery_test"]["items"] == 1
    for fields, message in (
        ({"bakry*": ("choices",)}, r"'bakry\*' fits no benchmark. The nearest is 'bakery_test'"),
        (
            {"trains": ("question",), "tr*": ("question",)},
            r"'tr\*' fits only benchmarks that another pattern fits better",
        ),
    ):
        config = DecontaminateConfig(from_="kept", benchmarks=str(benchmarks), fields=fields)
        with pytest.raises(ConfigError, match=message):
            observe(config, tmp_path, tmp_path)


def test_the_fingerprint_follows_the_items(tmp_path, benchmarks):
    assert "benchmarks" not in STEP.result_fields()  # the name of the folder
    config = DecontaminateConfig(from_="kept", benchmarks="benchmarks")
    before = observe(config, tmp_path, tmp_path)
    shutil.move(benchmarks, tmp_path / "elsewhere")
    assert observe(DecontaminateConfig(from_="kept", benchmarks="elsewhere"), tmp_path, tmp_path) == before
    with (tmp_path / "elsewhere" / "reading.jsonl").open("a") as stream:
        stream.write('{"question": "one more"}\n')
    assert observe(DecontaminateConfig(from_="kept", benchmarks="elsewhere"), tmp_path, tmp_path) != before


def test_what_cannot_work_is_refused_with_the_way_out(tmp_path, benchmarks):
    with pytest.raises(ConfigError, match="nothing to look for"):
        DecontaminateConfig(from_="kept")
    with pytest.raises(ConfigError, match="drop_coverage = 65"):
        DecontaminateConfig(from_="kept", benchmarks="b", drop_coverage=65)
    with pytest.raises(ConfigError, match="8 <= min_words <= word_ngram <= 64"):
        DecontaminateConfig(from_="kept", benchmarks="b", min_words=3)
    with pytest.raises(ConfigError, match="'missing' is not there"):
        observe(DecontaminateConfig(from_="kept", benchmarks="missing"), tmp_path, tmp_path)
    (benchmarks / "broken.jsonl").write_text('{"question": "fine"}\n["not an object"]\n')
    with pytest.raises(InputError, match="line 2 is a list"):
        decontaminated(tmp_path, benchmarks)
    (benchmarks / "broken.jsonl").write_text('{"question": "fi')
    with pytest.raises(InputError, match="line 1 is not JSON"):
        decontaminated(tmp_path, benchmarks)
    (benchmarks / "broken.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(InputError, match="line 1 is not JSON"):
        decontaminated(tmp_path, benchmarks)
    (benchmarks / "broken.jsonl").write_text('{"question": "half a pair \\ud83d", "answer": null, "n": [[1.5]]}')
    assert decontaminated(tmp_path, benchmarks).counts["benchmarks"]["broken"]["items"] == 1
    (benchmarks / "broken.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds no text of the fields nothing.*fields: \{trains"):
        decontaminated(tmp_path, benchmarks, fields={"trains": ("nothing",)})
    whole = (benchmarks / "more" / "trains.jsonl.zst").read_bytes()
    (benchmarks / "more" / "trains.jsonl.zst").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"trains\.jsonl\.zst is truncated"):
        decontaminated(tmp_path, benchmarks)
