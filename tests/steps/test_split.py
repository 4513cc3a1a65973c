"""The split step: whole clusters, every language, nothing lost."""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.splits import split_documents
from diglot.steps.deduplicate import STEP as DEDUPLICATE
from diglot.steps.split import STEP, SplitConfig
from handmade_corpus import Doc, run_step, selected


def english(seed: int, num_words: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(f"word{draw.randint(0, 10**6)}" for _ in range(num_words))


def corpus(num_clusters: int) -> list[Doc]:
    """Clusters of 1-3 pages that share a frame, over two sources and languages, some dropped before."""
    docs = []
    for c in range(num_clusters):
        frame = english(c)
        for page in range(1 + c % 3):
            docs.append(
                Doc(
                    f"{frame} {english(1000 * c + page + 1, 20)}",
                    source="guide" if c % 4 else "handbook",
                    shard=f"{page}",
                    lang="en" if c % 5 else "zh-Hans",
                    url=f"https://example.org/{c}/{page}",
                    reason=1 if c % 17 == 3 else -1,
                )
            )
    return docs


def held_out(artifact) -> dict[str, bool]:
    files = sorted((artifact.path / "heldout").rglob("*.parquet"))
    return {row["id"]: row["held_out"] for f in files for row in pq.read_table(f, partitioning=None).to_pylist()}


@pytest.fixture
def deduplicated(tmp_path):
    return run_step(DEDUPLICATE, tmp_path / "deduplicate" / "d", inputs={"from": selected(tmp_path, corpus(120))})


def test_clusters_are_held_out_whole(deduplicated, tmp_path):
    artifact = run_step(STEP, tmp_path / "split" / "s", inputs={"from": deduplicated}, share_heldout=0.1)
    chosen = held_out(artifact)
    by_cluster: dict[str, set[bool]] = {}
    num_dropped = 0
    for file in (artifact.path / "decisions").rglob("*.parquet"):
        for row in pq.read_table(file, partitioning=None).to_pylist():
            if row["keep"]:
                by_cluster.setdefault(row["cluster"], set()).add(chosen[row["id"]])
            else:
                num_dropped += 1
                assert not chosen[row["id"]]
    assert num_dropped > 0
    assert len(by_cluster) < len(chosen) / 1.5  # there are clusters of several pages
    assert all(len(splits) == 1 for splits in by_cluster.values())


def test_both_splits_together_are_the_kept_documents_in_order(deduplicated, tmp_path):
    artifact = run_step(STEP, tmp_path / "split" / "s", inputs={"from": deduplicated}, share_heldout=0.1)
    parts = {
        split: [
            (shard, row["id"], row["url"], row["decided_lang"])
            for shard, table in split_documents(artifact, split, ["id", "url"])
            for row in table.to_pylist()
        ]
        for split in ("train", "heldout")
    }
    kept = [doc.id for doc in corpus(120) if doc.reason < 0]
    assert sorted(row[1] for part in parts.values() for row in part) == sorted(kept)
    assert artifact.counts["heldout"]["documents"] == len(parts["heldout"]) > 0
    assert artifact.counts["train"]["documents"] == len(parts["train"])
    assert {row[3] for row in parts["heldout"]} == {"en", "zh-Hans"}
    with pytest.raises(ConfigError, match="did you mean 'heldout'"):
        next(split_documents(artifact, "held_out", ["id"]))


def test_every_source_and_language_has_held_out_text_even_with_share_0(deduplicated, tmp_path):
    artifact = run_step(
        STEP, tmp_path / "split" / "s", inputs={"from": deduplicated}, share_heldout=0.0, min_heldout_documents=3
    )
    strata = artifact.counts["strata"]
    assert set(strata) == {"guide.en", "guide.zh-Hans", "handbook.en", "handbook.zh-Hans"}
    for counts in strata.values():
        assert 1 <= counts["heldout"]["documents"] <= 5  # 3, and what comes along with a cluster
        assert counts["heldout"]["documents"] <= 0.2 * (counts["heldout"]["documents"] + counts["train"]["documents"])


def test_the_verdicts_are_those_of_deduplication(deduplicated, tmp_path):
    artifact = run_step(STEP, tmp_path / "split" / "s", inputs={"from": deduplicated})
    for path in sorted((deduplicated.path / "decisions").rglob("*.*")):
        copy = artifact.path / "decisions" / path.relative_to(deduplicated.path / "decisions")
        assert copy.read_bytes() == path.read_bytes()


def test_the_seed_decides_and_the_order_of_shards_does_not(deduplicated, tmp_path):
    def chosen(name, **settings):
        return held_out(run_step(STEP, tmp_path / "split" / name, inputs={"from": deduplicated}, **settings))

    assert chosen("a", seed=1) == chosen("b", seed=1) != chosen("c", seed=2)
    moved = [Doc(d.text, d.source, f"z{i % 2}", d.lang, d.url, d.reason, d.id) for i, d in enumerate(corpus(120)[::-1])]
    again = run_step(
        DEDUPLICATE, tmp_path / "moved" / "deduplicate" / "d", inputs={"from": selected(tmp_path / "moved", moved)}
    )
    assert held_out(run_step(STEP, tmp_path / "moved" / "split" / "a", inputs={"from": again}, seed=1)) == chosen(
        "a", seed=1
    )


def test_a_selected_corpus_can_be_split_without_deduplication(tmp_path):
    artifact = run_step(STEP, tmp_path / "split" / "s", inputs={"from": selected(tmp_path, corpus(60))})
    assert artifact.counts["heldout"]["documents"] == artifact.counts["heldout_clusters"] > 0


def test_a_corpus_without_kept_documents_is_refused(tmp_path):
    with pytest.raises(InputError, match="no document is left"):
        run_step(STEP, tmp_path / "split" / "s", inputs={"from": selected(tmp_path, [Doc(english(1), reason=0)])})


def test_a_share_above_the_limit_is_refused():
    with pytest.raises(ConfigError, match=r"share_heldout = 0\.5"):
        SplitConfig(from_="distinct", share_heldout=0.5)
