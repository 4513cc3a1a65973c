"""The deduplicate step: verdicts, evidence, alarms, independence of order and workers, accuracy on real versions."""

from __future__ import annotations

import io
import itertools
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json
from diglot.corpus.dedup import keys
from diglot.corpus.dedup.lsh import Bands, search_bands
from diglot.corpus.tables import rule_names
from diglot.kernels.jit import text_buffers
from diglot.kernels.minhash import shingle_sets
from diglot.ledger.artifact import Artifact
from diglot.steps.deduplicate import STEP, BestBySignal, DeduplicateConfig
from handmade_corpus import RULES, Doc, finish, run_step, selected

WORDS = ("disk", "machine", "program", "system", "menu", "package", "mirror", "kernel", "user", "file", "network")
PROSE = (
    "安装程序首先检测计算机的硬件设备然后询问用户希望使用哪一种语言接着它会划分磁盘空间并且建立文件系统最后把基本系统复制到硬盘"
    "上面如果网络连接可用安装程序还会从镜像站点下载最新的软件包用户可以在安装过程中随时返回上一步修改自己的选择所有步骤完成以后"
    "计算机将会重新启动进入新的系统登录界面管理员需要设置一个足够复杂的密码并且定期备份重要的数据以防止意外的损失发生"
)


def english(seed: int, num_words: int = 200) -> str:
    draw = random.Random(seed)
    return " ".join(f"{draw.choice(WORDS)}{draw.randint(0, 40)}" for _ in range(num_words))


def changed(text: str, num_words: int, seed: int = 0) -> str:
    """`text` with `num_words` words replaced."""
    draw, words = random.Random(seed), text.split()
    for place in draw.sample(range(len(words)), num_words):
        words[place] = f"changed{draw.randint(0, 10**6)}"
    return " ".join(words)


def verdicts(artifact: Artifact) -> dict[str, dict]:
    files = sorted((artifact.path / "decisions").rglob("*.parquet"))
    return {row["id"]: row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()}


def deduplicated(store: Path, docs: list[Doc], name: str = "d", **settings) -> tuple[Artifact, dict[str, dict]]:
    artifact = run_step(STEP, store / "deduplicate" / name, inputs={"from": selected(store, docs)}, **settings)
    return artifact, verdicts(artifact)


def test_each_kind_of_document_gets_its_verdict(tmp_path):
    original, other = english(1), english(2)
    docs = {
        "original": Doc(original + " and it is a little longer than its copies"),
        "near": Doc(changed(original, 3)),
        "other": Doc(other, source="mirror"),
        "exact": Doc(other.replace(" ", "\n"), source="mirror", url="https://example.org/copy"),
        "dropped": Doc(other + " ", reason=1),
        "short": Doc("two words"),
        "short_too": Doc("Two words"),
    }
    artifact, rows = deduplicated(tmp_path, list(docs.values()))
    verdict = {name: rows[doc.id] for name, doc in docs.items()}
    assert rule_names(artifact) == [*RULES, "exact_duplicate", "near_duplicate"]
    assert {name for name, row in verdict.items() if row["keep"]} >= {"original", "short", "short_too"}

    near = verdict["near"]
    assert (near["first_reason"], near["reasons"]) == (3, 1 << 3)
    assert near["duplicate_of"] == docs["original"].id
    assert 0.8 <= near["jaccard"] < 1
    assert near["jaccard"] < near["containment"] <= 1
    assert near["value"] == near["jaccard"]

    first, second = sorted((verdict["other"], verdict["exact"]), key=lambda row: row["keep"], reverse=True)
    assert first["keep"]
    assert (second["first_reason"], second["jaccard"], second["duplicate_of"]) == (2, 1, first["id"])
    assert second["cluster"] == first["cluster"]

    before = verdict["dropped"]  # of the same text, but no reason to drop a kept one, and its old verdict stands
    assert (before["first_reason"], before["reasons"], before["cluster"]) == (1, 1 << 1, None)
    assert artifact.counts["documents"] == 6
    assert artifact.counts["dropped"] == {"exact_duplicate": 1, "near_duplicate": 1}
    assert artifact.counts["kept"] == 4
    for counts in artifact.counts["languages"].values():
        assert counts["documents"] == counts["kept"] + counts["exact_duplicate"] + counts["near_duplicate"]


def test_a_second_step_keeps_what_the_first_found_and_shares_its_rules(tmp_path):
    text, other = english(1), english(2)
    texts = (text, changed(text, 2), changed(text, 14), other, other.replace(" ", "\n"))
    docs = [Doc(text, id=f"{n:032x}", url=f"https://example.org/{n}") for n, text in enumerate(texts)]
    original, near, far, _, exact = (doc.id for doc in docs)
    strict = {"verify_jaccard": 0.8, "verify_containment": None, "survivor": "first"}
    first, before = deduplicated(tmp_path, docs, **strict)
    assert {row["id"]: row["first_reason"] for row in before.values() if not row["keep"]} == {near: 3, exact: 2}
    loose = {"threshold": 0.3, "verify_jaccard": 0.3, "survivor": "first"}
    second = run_step(STEP, tmp_path / "deduplicate" / "again", inputs={"from": first}, **loose)
    after = verdicts(second)
    assert rule_names(second) == rule_names(first) == [*RULES, "exact_duplicate", "near_duplicate"]
    for dropped in (near, exact):
        assert after[dropped] == before[dropped]
    found = after[far]
    assert (found["keep"], found["first_reason"], found["reasons"]) == (False, 3, 1 << 3)
    assert (found["duplicate_of"], found["cluster"]) == (original, after[original]["cluster"])


def test_the_longest_or_the_smallest_id_survives_as_configured(tmp_path):
    text = english(3)
    short, long = Doc(text, id="0" * 32), Doc(changed(text, 2) + " with an end of its own", id="f" * 32)
    for survivor, kept in (("longest", long), ("first", short)):
        _, rows = deduplicated(tmp_path / survivor, [short, long], survivor=survivor)
        assert [doc_id for doc_id, row in rows.items() if row["keep"]] == [kept.id]


def test_of_untranslated_copies_the_page_in_its_declared_language_survives(tmp_path):
    text = english(9)
    docs = [
        Doc(text + " дальше назад", declared="ru", url="https://example.org/ru/page"),
        Doc(text, declared="en-US", url="https://example.org/en/page"),
        Doc(text + " somewhat longer", declared=None, url="https://example.org/page"),
    ]
    for survivor, kept in (("declared", docs[1]), ("longest", docs[0])):
        _, rows = deduplicated(tmp_path / survivor, docs, survivor=survivor)
        assert [doc_id for doc_id, row in rows.items() if row["keep"]] == [kept.id]


def test_a_chain_of_versions_loses_only_what_resembles_a_kept_version(tmp_path):
    versions = [english(4, 300)]
    for step in range(12):
        versions.append(changed(versions[-1], 6, seed=step))
    docs = [Doc(text, url=f"https://example.org/{i}") for i, text in enumerate(versions)]
    _, rows = deduplicated(tmp_path, docs)
    shingles = {doc.id: _five_grams(doc.text) for doc in docs}
    kept = [doc_id for doc_id, row in rows.items() if row["keep"]]
    assert 2 <= len(kept) < len(docs)
    for row in rows.values():
        if not row["keep"]:
            a, b = shingles[row["id"]], shingles[row["duplicate_of"]]
            assert row["duplicate_of"] in kept
            assert row["jaccard"] == pytest.approx(len(a & b) / len(a | b), abs=1e-6)
            assert row["jaccard"] >= 0.8 or row["containment"] >= 0.95


def test_chinese_prose_without_white_space_finds_its_near_duplicates(tmp_path):
    edited = "".join(c for i, c in enumerate(PROSE) if i not in (40, 41, 120))
    docs = [Doc(PROSE, lang="zh-Hans"), Doc(edited, lang="zh-Hans"), Doc(PROSE[::-1], lang="zh-Hans")]
    _, rows = deduplicated(tmp_path, docs)
    assert rows[docs[1].id]["duplicate_of"] == docs[0].id
    assert rows[docs[2].id]["keep"]


def test_pages_that_resemble_each_other_share_a_cluster_and_stay(tmp_path):
    frame = english(5, 150)
    pages = [Doc(f"{frame} {english(100 + i, 60)}", url=f"https://example.org/{i}") for i in range(4)]
    alone = Doc(english(6))
    artifact, rows = deduplicated(tmp_path, [*pages, alone])
    assert all(row["keep"] for row in rows.values())
    assert {rows[page.id]["cluster"] for page in pages} == {min(page.id for page in pages)}
    assert rows[alone.id]["cluster"] == alone.id
    report = read_json(artifact.path / "clusters.json")
    assert report["largest_clusters"][0]["num_documents"] == 4
    assert {page["url"] for page in report["largest_clusters"][0]["documents"]} == {page.url for page in pages}


def test_a_source_that_loses_too_much_raises_an_alarm_with_its_groups(tmp_path):
    original = english(7)
    docs = [Doc(changed(original, 1, seed=i), source="mirror", url=f"https://mirror.example/{i}") for i in range(25)]
    docs += [Doc(english(50 + i)) for i in range(5)]
    docs += [Doc(docs[0].text, source="single", url="https://single.example/")]
    artifact, _ = deduplicated(tmp_path, docs)
    report = read_json(artifact.path / "clusters.json")
    assert len(report["alarms"]) == 1
    assert "source mirror lost 96%" in report["alarms"][0]
    assert report["by_source"]["mirror"]["near_duplicate"] >= 23
    assert report["by_source"]["pages"]["dropped_share"] == 0
    group = report["largest_duplicate_groups"][0]
    assert group["num_dropped"] == 25
    assert group["dropped"][0]["url"].startswith("https://")
    assert report["near_curve"]["half_at_jaccard"] == pytest.approx(Bands(14, 8).threshold(), abs=1e-4)
    assert deduplicated(tmp_path, docs, "quiet", alarm_share=0.97)[0].counts["alarms"] == []


def test_every_compared_pair_is_kept_as_evidence(tmp_path):
    original = english(8)
    docs = [Doc(original + " end"), Doc(changed(original, 2)), Doc(changed(original, 5, seed=1))]
    artifact, rows = deduplicated(tmp_path, docs)
    pairs = pq.read_table(artifact.path / "pairs.parquet").to_pylist()
    assert {pair["accepted"] for pair in pairs} == {True, False}
    for pair in pairs:
        assert pair["accepted"] == (pair["jaccard"] >= 0.8 or pair["containment"] >= 0.95)
    dropped = {(row["duplicate_of"], row["id"]) for row in rows.values() if not row["keep"]}
    assert dropped <= {(pair["better"], pair["other"]) for pair in pairs if pair["accepted"]}


def test_neither_workers_nor_the_order_of_shards_and_rows_change_a_verdict(tmp_path):
    base = [english(seed) for seed in range(12)]
    texts = [changed(text, k, seed=k) for text in base for k in (0, 1, 4, 9)]
    docs = [Doc(t, shard=f"{i % 3}", url=f"https://example.org/{i}") for i, t in enumerate(texts)]
    inputs = {"from": selected(tmp_path, docs)}
    results = [
        run_step(STEP, tmp_path / "deduplicate" / f"w{workers}", inputs=inputs, workers=workers, memory_mb=memory_mb)
        for workers, memory_mb in ((1, 1024), (2, 1024), (4, 1))
    ]
    files = [{record.path: record.sha256 for record in result.manifest.files} for result in results]
    assert files[0] == files[1] == files[2]
    shuffled = [Doc(doc.text, shard=f"{i % 5}", url=doc.url, id=doc.id) for i, doc in enumerate(reversed(docs))]
    again, first = deduplicated(tmp_path / "again", shuffled)[1], verdicts(results[0])
    assert {doc: _without_nan(row) for doc, row in again.items()} == {
        doc: _without_nan(row) for doc, row in first.items()
    }


def test_corpora_with_one_document_or_none_pass(tmp_path):
    one, none = Doc(english(1)), Doc(english(2), reason=1)
    artifact, rows = deduplicated(tmp_path / "one", [one])
    assert rows[one.id]["cluster"] == one.id
    assert artifact.counts["kept"] == 1
    artifact, rows = deduplicated(tmp_path / "none", [none])
    assert rows[none.id]["reasons"] == 1 << 1
    assert (artifact.counts["documents"], artifact.counts["languages"]) == (0, {})
    assert pq.read_table(artifact.path / "pairs.parquet").num_rows == 0


def test_two_documents_with_one_id_are_refused(tmp_path):
    docs = [Doc(english(1), id="a" * 32), Doc(english(2), id="a" * 32)]
    with pytest.raises(InputError, match="more than once"):
        deduplicated(tmp_path, docs)


def test_more_bands_than_places_are_refused_with_the_numbers(tmp_path):
    with pytest.raises(ConfigError, match="160 exceeds the 112 places"):
        deduplicated(tmp_path, [Doc(english(1))], num_bands=20)


@pytest.mark.parametrize(
    "setting",
    [
        {"verify_jaccard": 0.0},
        {"alarm_share": 1.5},
        {"num_bands": 0},
        {"threshold": 0.8, "num_bands": 14},
        {"threshold": 0.8, "bands": "map-neo"},
        {"bands": "map-noe"},
        {"threshold": 1.2},
        {"false_negative_weight": 1.0},
        {"survivor": "longset"},
        {"partitions": 0},
    ],
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ConfigError):
        DeduplicateConfig(from_="kept", **setting)


def test_a_survivor_rule_names_only_signals_that_can_be_measured():
    with pytest.raises(ConfigError, match="did you mean 'lang_score'"):
        BestBySignal(signal="lang_scor")


def test_the_date_or_a_signal_decides_who_survives(tmp_path):
    text = english(12)
    docs = [
        Doc(text, id="a" * 32, date="2021-05-01"),
        Doc(changed(text, 1), id="b" * 32, date="2023"),
        Doc(changed(text, 2), id="c" * 32, date=None),
    ]
    score = BestBySignal(signal="num_units", best="lowest")
    for survivor, kept in (("newest", "b"), ("oldest", "a"), ("first", "a"), (score, "a")):
        _, rows = deduplicated(tmp_path / str(survivor)[:6], docs, survivor=survivor)
        assert [doc_id[0] for doc_id, row in rows.items() if row["keep"]] == [kept]


def test_documents_of_a_preferred_source_survive_and_an_unknown_source_is_named(tmp_path, capsys):
    text = english(13)
    docs = [Doc(text + " longer", source="mirror"), Doc(text, source="origin"), Doc(english(14), source="mirror")]
    artifact, rows = deduplicated(tmp_path, docs, survivor="longest", prefer_sources=("origin", "elsewhere"))
    assert [rows[doc.id]["keep"] for doc in docs] == [False, True, True]
    assert artifact.counts["survivor"].startswith("sources origin, elsewhere first")


def test_bands_are_searched_for_a_threshold_and_stand_in_the_report(tmp_path):
    artifact, _ = deduplicated(tmp_path, [Doc(english(1))], threshold=0.6)
    curve = read_json(artifact.path / "clusters.json")["near_curve"]
    found = search_bands(0.6, 112)
    assert (curve["num_bands"], curve["rows_per_band"]) == found
    assert curve["probability"]["0.60"] == pytest.approx(found.probability(0.6), abs=1e-4)
    with pytest.raises(ConfigError, match="num_permutations: 117"):
        deduplicated(tmp_path, [Doc(english(1))], "neo", bands="map-neo")


def test_what_was_removed_at_which_similarity_stands_in_the_report(tmp_path):
    original = english(15)
    docs = [Doc(original + " end"), Doc(changed(original, 2)), Doc(changed(original, 5, seed=1)), Doc(original)]
    artifact, rows = deduplicated(tmp_path, docs)
    table = read_json(artifact.path / "clusters.json")["removed_by_jaccard"]
    near = [row["jaccard"] for row in rows.values() if row["first_reason"] == 3]
    for line in table:
        assert line["removed"] == sum(jaccard >= line["jaccard_at_least"] for jaccard in near)
    assert table[0]["compared"] == artifact.counts["pairs"]["candidates"]
    assert table[0]["accepted"] == artifact.counts["pairs"]["verified"]


def against(tmp_path: Path, old: list[Doc], docs: list[Doc], **settings) -> tuple[Artifact, dict[str, dict]]:
    """Deduplicate `docs` against the kept ones of `old`, both ingested into one store."""
    inputs = {"from": selected(tmp_path, docs, "young"), "against": selected(tmp_path, old, "old")}
    artifact = run_step(STEP, tmp_path / "deduplicate" / "d", inputs=inputs, **settings)
    return artifact, verdicts(artifact)


def test_new_documents_that_resemble_old_ones_are_dropped_and_old_ones_stay(tmp_path):
    base, other = english(20), english(21)
    old = [
        Doc(base, source="archive"),
        Doc(changed(base, 1), source="archive"),  # a near-duplicate that the older corpus kept
        Doc(other, source="archive", reason=1),  # dropped there, so nothing is dropped for it
        Doc(base, source="archive", url="https://example.org/again"),
    ]
    docs = {
        "copy": Doc(base.replace(" ", "\n"), source="pages"),
        "near": Doc(changed(base, 3) + " and a much longer end than the old page has", source="pages"),
        "fresh": Doc(other, source="pages"),
        "fresh_near": Doc(changed(other, 2), source="pages"),
    }
    artifact, rows = against(tmp_path, old, list(docs.values()))
    assert rows.keys() == {doc.id for doc in docs.values()}
    verdict = {name: rows[doc.id] for name, doc in docs.items()}
    old_ids = {doc.id for doc in old}
    assert verdict["copy"]["first_reason"] == 2
    assert verdict["copy"]["duplicate_of"] in old_ids
    assert verdict["near"]["first_reason"] == 3
    assert verdict["near"]["duplicate_of"] in old_ids
    assert sorted((verdict["fresh"]["keep"], verdict["fresh_near"]["keep"])) == [False, True]
    assert artifact.counts["documents"] == 4
    assert artifact.counts["against"] == {
        "documents": 3,
        "dropped_for_them": {"exact_duplicate": 1, "near_duplicate": 1},
    }
    pairs = pq.read_table(artifact.path / "pairs.parquet").to_pylist()
    assert not any(pair["better"] in old_ids and pair["other"] in old_ids for pair in pairs)
    assert set(artifact.counts["sources"]) == {"pages"}


def test_a_page_fetched_again_is_a_duplicate_of_its_own_older_self(tmp_path):
    page = Doc(english(22), id="a" * 32)
    again = Doc(changed(page.text, 2), id="a" * 32)
    _, rows = against(tmp_path, [page], [again])
    assert rows[again.id]["duplicate_of"] == page.id
    assert not rows[again.id]["keep"]


def test_what_comes_after_is_made_from_the_new_corpus_and_not_from_the_old(tmp_path):
    old, docs = [Doc(english(23))], [Doc(english(24)), Doc(english(25))]
    artifact, _ = against(tmp_path, old, docs)
    assert artifact.upstream("ingest").fingerprint == "ingest-young"
    assert artifact.upstream("select").fingerprint == "select-young"
    assert {one.fingerprint for one in artifact.ancestors()} >= {"ingest-old", "annotate-old"}
    again = run_step(STEP, tmp_path / "deduplicate" / "again", inputs={"from": artifact})
    assert again.counts["documents"] == 2


def test_corpora_that_were_signed_with_different_seeds_are_not_compared(tmp_path):
    young, old = selected(tmp_path, [Doc(english(1))], "young"), selected(tmp_path, [Doc(english(2))], "old")
    annotate = old.upstream("annotate")
    finish(annotate.path, {"minhash_seed": 5}, {"from": old.upstream("ingest")}, {})
    with pytest.raises(InputError, match="seed 0 and the one it is held against with 5"):
        run_step(STEP, tmp_path / "deduplicate" / "d", inputs={"from": young, "against": Artifact(old.path)})


@pytest.mark.parametrize("with_old", [False, True])
def test_partitions_on_disk_give_the_same_files(tmp_path, with_old):
    base = [english(seed) for seed in range(10)]
    texts = [changed(text, k, seed=k) for text in base for k in (0, 1, 4, 60)]
    docs = [Doc(t, shard=f"{i % 3}", url=f"https://example.org/{i}") for i, t in enumerate(texts)]
    inputs = {"from": selected(tmp_path, docs, "young")}
    if with_old:
        old = [Doc(changed(text, 2, seed=9), source="archive", shard=f"{i % 2}") for i, text in enumerate(base[:5])]
        inputs["against"] = selected(tmp_path, old, "old")
    files = []
    for name, settings in {"memory": {"partitions": 1}, "disk": {"partitions": 3}}.items():
        result = run_step(STEP, tmp_path / "deduplicate" / name, inputs=inputs, **settings)
        assert result.counts["dropped"]["near_duplicate"] > 5
        assert not (result.path / ".exchange").exists()
        files.append({record.path: record.sha256 for record in result.manifest.files})
    assert files[0] == files[1]


def test_a_killed_exchange_goes_on_with_the_shards_that_are_finished(tmp_path, monkeypatch):
    docs = [Doc(english(seed), shard=f"{seed % 4}") for seed in range(12)]
    inputs, out = {"from": selected(tmp_path, docs)}, tmp_path / "deduplicate" / "d"
    read, seen = keys.kept_signatures, []

    def killed_at_the_third(artifact, shard, num_places):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(shard.name)
        return read(artifact, shard, num_places)

    monkeypatch.setattr(keys, "kept_signatures", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_step(STEP, out, inputs=inputs, partitions=2)
    assert not (out / "manifest.json").exists()
    seen.clear()
    monkeypatch.setattr(keys, "kept_signatures", lambda *arguments: seen.append(arguments[1].name) or read(*arguments))
    resumed = run_step(STEP, out, inputs=inputs, partitions=2)
    assert seen == ["2", "3"]
    whole = run_step(STEP, tmp_path / "deduplicate" / "whole", inputs=inputs, partitions=1)
    assert {f.path: f.sha256 for f in resumed.manifest.files} == {f.path: f.sha256 for f in whole.manifest.files}


@pytest.fixture
def versions(shared: Path) -> tuple[list[dict], list[dict]]:
    return _read(shared / "dedup" / "versions.jsonl.zst"), _read(shared / "dedup" / "pairs.jsonl.zst")


@pytest.mark.shared
def test_real_versions_are_found_and_real_neighbours_stay(versions, tmp_path):
    records, pairs = versions
    docs = {
        record["doc_id"]: Doc(
            record["text"], source=record["source"].replace("/", "-"), lang=record["lang"], url=record["doc_id"]
        )
        for record in records
    }
    artifact, rows = deduplicated(tmp_path, list(docs.values()))
    compared = pq.read_table(artifact.path / "pairs.parquet").to_pylist()
    rejected = sum(not pair["accepted"] for pair in compared)
    truth = _similarities(pairs, docs)
    for lang, least in (("en", 150), ("zh", 300)):
        similar = [pair for pair, jaccard in zip(pairs, truth, strict=True) if pair["lang"] == lang and jaccard >= 0.8]
        both_stay = [pair for pair in similar if rows[docs[pair["a"]].id]["keep"] and rows[docs[pair["b"]].id]["keep"]]
        assert len(similar) > least
        assert len(both_stay) <= 0.05 * len(similar)
    neighbours = [pair for pair in pairs if not pair["same_family"]]
    joined = [
        pair
        for pair in neighbours
        if rows[docs[pair["a"]].id]["duplicate_of"] == docs[pair["b"]].id
        or rows[docs[pair["b"]].id]["duplicate_of"] == docs[pair["a"]].id
    ]
    assert len(neighbours) > 500
    assert joined == []
    assert 0 < rejected < len(compared) / 2
    for row in rows.values():
        assert row["keep"] or rows[row["duplicate_of"]]["keep"]


def _without_nan(row: dict) -> dict:
    return {name: None if value != value else value for name, value in row.items()}


def _five_grams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def _similarities(pairs: list[dict], docs: dict[str, Doc]) -> list[float]:
    """True Jaccard similarity of the shingle sets of each pair."""
    number = {name: position for position, name in enumerate(docs)}
    starts, hashes = shingle_sets(*text_buffers(pa.array([doc.text for doc in docs.values()], pa.large_string())))
    sets = [set(hashes[a:b].tolist()) for a, b in itertools.pairwise(starts)]
    sides = [(sets[number[pair["a"]]], sets[number[pair["b"]]]) for pair in pairs]
    return [len(a & b) / max(len(a | b), 1) for a, b in sides]


def _read(path: Path) -> list[dict]:
    with path.open("rb") as stream:
        text = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(stream)
        return [json.loads(line) for line in io.TextIOWrapper(text, "utf-8")]
