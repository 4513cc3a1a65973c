"""The annotate step: one pass over each shard, the same bytes for any number of workers, nothing lost in a crash."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

import annotated_pages
from annotated_pages import DEADLY, TEXTS, ingested
from diglot.core.errors import ConfigError, InputError
from diglot.corpus.decide import signal_columns
from diglot.corpus.policy import Policy, Rule
from diglot.corpus.signals import FAMILIES
from diglot.corpus.tables import attributes_of, documents_of, shards
from diglot.steps import annotate
from diglot.steps.annotate import STEP, AnnotateConfig, ShardTask, annotate_shard
from handmade_corpus import run_step

CONFIG = AnnotateConfig(from_="pages", families=("quality", "hashes"), num_permutations=8)


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The corpus of `annotated_pages`, annotated by one worker."""
    store = tmp_path_factory.mktemp("store")
    return run_step(STEP, store / "annotate" / "one", inputs={"from": ingested(store)})


def test_every_family_has_the_rows_of_the_documents_in_their_order(done):
    for shard in shards(done.upstream("ingest")):
        ids = documents_of(done, shard, ["id"])["id"]
        for family in annotate.FAMILIES:
            table = attributes_of(done, family, shard)
            assert table["id"].equals(ids)
            assert table.column_names[0] == "id"
            assert set(FAMILIES.get(family, ())) <= set(table.column_names)


def test_counts_tell_documents_and_bytes_by_identified_language(done):
    languages = {tag: counts["documents"] for tag, counts in done.counts["languages"].items()}
    assert languages == {"en": 2, "und": 2, "de": 1, "zh-Hans": 1, "zh-Hant": 1}
    assert done.counts["documents"] == 7
    assert done.counts["bytes"] == sum(len(text.encode()) for rows in TEXTS.values() for text in rows)
    assert sum(counts["bytes"] for counts in done.counts["languages"].values()) == done.counts["bytes"]


def test_columns_have_the_types_that_the_later_steps_read(done):
    shard = shards(done.upstream("ingest"))[0]
    schemas = {family: attributes_of(done, family, shard).schema for family in annotate.FAMILIES}
    assert str(schemas["quality"].field("num_bytes").type) == "int64"
    assert str(schemas["quality"].field("curly_share").type) == "float"
    assert str(schemas["language"].field("lang").type) == "string"
    assert [str(schemas["hashes"].field(name).type) for name in ("content_hi", "content_lo")] == ["uint64", "uint64"]
    assert schemas["minhash"].field("signature").type.list_size == 112


def test_any_number_of_workers_gives_the_same_bytes(done):
    pages = done.upstream("ingest")
    two, four = (
        files(run_step(STEP, done.store / "annotate" / str(n), inputs={"from": pages}, workers=n).path) for n in (2, 4)
    )
    assert files(done.path) == two == four
    assert len(two) == len(shards(pages)) * len(annotate.FAMILIES)


def test_finished_shards_are_not_measured_again_and_damaged_ones_are(tmp_path):
    pages = ingested(tmp_path)
    tasks = [
        ShardTask(documents=pages.path / "documents" / s.file, file=s.file, out=tmp_path / "a", config=CONFIG)
        for s in shards(pages)
    ]
    counts = [annotate_shard(task) for task in tasks]
    before = files(tmp_path / "a")
    whole, damaged = (tmp_path / "a" / path for path in (min(before), max(before)))
    stamp = whole.stat().st_mtime_ns
    damaged.write_bytes(b"half a fi")
    assert [annotate_shard(task) for task in tasks] == counts
    assert files(tmp_path / "a") == before
    assert whole.stat().st_mtime_ns == stamp


def test_a_document_that_kills_its_worker_is_set_aside_and_named(tmp_path, monkeypatch):
    texts = {"web": ["A first page. It is fine.", DEADLY, "A third page. It is fine, too.", "Last one."]}
    pages = ingested(tmp_path, texts, rows_per_shard=4)
    monkeypatch.setattr(annotate, "annotate_shard", annotated_pages.annotate_shard)
    monkeypatch.setattr(annotate, "probe", annotated_pages.probe)
    done = run_step(STEP, tmp_path / "annotate" / "a", inputs={"from": pages}, families=("quality",))
    assert done.counts["quarantined"] == ["web-1"]
    assert done.counts["documents"] == 4
    quality = attributes_of(done, "quality", shards(pages)[0]).to_pylist()
    assert [math.isnan(row["num_units"]) for row in quality] == [False, True, False, False]
    assert quality[2]["num_units"] == 7


def test_documents_set_aside_are_counted_over_all_chunks_of_a_shard(tmp_path):
    texts = pa.chunked_array([["one two", "one", None], [DEADLY, "one two three"]], pa.large_string())
    task = ShardTask(documents=tmp_path, file="s/0.parquet", out=tmp_path, config=CONFIG)
    quality = annotate._measure(task, pa.table({"text": texts}), (3,))["quality"]
    np.testing.assert_equal(quality["num_units"].to_pylist(), [2, 1, 0, math.nan, 3])
    assert quality["num_bytes"].to_pylist() == [7, 3, 0, 0, 13]


def test_unknown_and_repeated_families_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'quality'"):
        AnnotateConfig(from_="pages", families=("qualty",))
    with pytest.raises(ConfigError, match="named once"):
        AnnotateConfig(from_="pages", families=("quality", "quality"))


def test_lists_and_metadata_that_a_recipe_brings_become_tables_of_their_own(tmp_path):
    pages = ingested(tmp_path, {"web": ["a shell and a shell", "nothing here"]})
    (tmp_path / "strict.txt").write_text("shell\n", encoding="utf-8")
    done = run_step(
        STEP,
        tmp_path / "annotate" / "a",
        inputs={"from": pages},
        families=("quality", "language"),
        word_lists={"strict": str(tmp_path / "strict.txt")},
        meta_fields=("perplexity",),
    )
    (shard,) = shards(pages)
    assert attributes_of(done, "words", shard)["words.strict"].to_pylist() == [2, 0]
    assert np.isnan(attributes_of(done, "meta", shard)["meta.perplexity"].to_numpy()).all()
    assert done.counts["lists"] == {"words.strict": {"entries": 1, "unusable": []}}
    policy = Policy(
        policy="p",
        languages=("en",),
        about="a",
        source="s",
        rules=(Rule(signal="words.strict", drop_above=1, why="w", source="s"),),
    )
    columns = signal_columns(done, shard, [policy])
    assert columns["words.strict"].to_pylist() == [2, 0]
    other = dataclasses.replace(policy, rules=(dataclasses.replace(policy.rules[0], signal="words.other"),))
    with pytest.raises(InputError, match=r"policies read 'words\.other'"):
        signal_columns(done, shard, [other])
