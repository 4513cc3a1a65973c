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
from diglot.corpus.dedup.lsh import Bands
from diglot.corpus.tables import rule_names
from diglot.kernels.jit import text_buffers
from diglot.kernels.minhash import shingle_sets
from diglot.ledger.artifact import Artifact
from diglot.steps.deduplicate import STEP, DeduplicateConfig
from handmade_corpus import RULES, Doc, run_step, selected

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


@pytest.mark.parametrize("setting", [{"verify_jaccard": 0.0}, {"alarm_share": 1.5}, {"num_bands": 0}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ConfigError):
        DeduplicateConfig(from_="kept", **setting)


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
