"""Benchmark files of many layouts as items, and real items found in real prose."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from diglot.corpus.decontaminate.index import NgramLengths, build_index, coverage
from diglot.corpus.decontaminate.items import benchmark_files, benchmark_name, read_benchmark
from diglot.corpus.decontaminate.report import excerpt
from diglot.corpus.ranges import joined
from diglot.kernels.jit import text_buffers
from diglot.kernels.ngrams import find


def items(tmp_path: Path, record: dict, **options) -> list[tuple[str, str, str]]:
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(record))
    return [(one.item, one.part, one.text) for one in read_benchmark(path, **options)]


def test_the_name_of_a_field_says_what_its_strings_are(tmp_path):
    record = {
        "id": 3,
        "lang": "en",
        "question_id": "q",
        "context": {"title": "t", "text": "about this"},
        "turns": ["first", "second"],
        "choices": ["one", {"text": "two"}],
        "answers": [{"text": "x", "start": 5}],
    }
    assert items(tmp_path, record) == [
        ("3", "passage", "about this"),
        ("3", "question", "first"),
        ("3", "question", "second"),
        ("3", "answer", "one"),
        ("3", "answer", "two"),
        ("3", "answer", "x"),
    ]
    assert items(tmp_path, record, fields={"b*": ["choices"]}) == [("3", "question", "one"), ("3", "question", "two")]


def test_each_language_is_an_item_and_repeated_ids_stay_two(tmp_path):
    record = {"answer": "1", "langs": {"en": {"sentence": "hello"}, "zh": "你好"}}
    assert items(tmp_path, record) == [("line-1#en", "question", "hello"), ("line-1#zh", "question", "你好")]
    path = tmp_path / "b.jsonl"
    path.write_text('{"id": "a", "q": "one"}\n{"id": "a", "q": "two"}\n')
    assert [one.item for one in read_benchmark(path)] == ["a", "a~2"]


def test_the_length_of_ngrams_follows_the_text_and_its_script():
    lengths = NgramLengths()
    num_units = np.array([7, 8, 12, 13, 40, 60, 9, 10, 12, 13, 400])
    num_cjk = np.array([0, 0, 0, 0, 0, 0, 9, 10, 8, 9, 400])
    assert lengths.of(num_units, num_cjk).tolist() == [0, 8, 12, 8, 10, 13, 0, 10, 12, 10, 13]


def test_spans_that_touch_are_one_and_an_excerpt_shows_the_longest():
    assert joined([(4, 9), (0, 5), (12, 15), (15, 16)]) == [(0, 9), (12, 16)]
    text = "前面的话 one two three 後面".encode()
    start = text.index(b"one")
    assert excerpt(text, [[0, 3], [start, start + 13]]) == "前面的话 [one two three] 後面"


@pytest.mark.shared
def test_real_items_are_found_in_real_prose_and_nothing_in_the_prose_alone(shared):
    names = ("mmlu_test", "gsm8k_test", "cmath", "drcd_test")
    files = [file for file in benchmark_files([str(shared / "benchmarks")], []) if benchmark_name(file) in names]
    texts = [text for file in files for text in read_benchmark(file)]
    index = build_index(texts, NgramLengths())
    prose = []
    for name in ("en/openstax_political_science", "zh/how_to_cook"):
        with (shared / "pretrain" / f"{name}.jsonl.zst").open("rb") as stream:
            content = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(stream).read()
        prose += [json.loads(line)["text"] for line in content.splitlines()[:60]]
    draw = random.Random(0)
    long_enough = [one for one in texts if one.part != "answer" and len(one.text) > 80]
    planted = draw.sample(long_enough, 40)
    documents = [*prose, *(draw.choice(prose) + "\n" + one.text + "\n" + draw.choice(prose) for one in planted)]
    hits = find(*text_buffers(pa.array(documents, pa.large_string())), index.table)
    found = coverage(index, hits.document, hits.ngram)
    full = {
        (int(d), index.parts[p].item)
        for d, p, s in zip(found.document, found.part, found.share, strict=True)
        if s > 0.99
    }
    assert all((len(prose) + number, one.item) in full for number, one in enumerate(planted))
    is_answer = np.array([index.parts[part].part == "answer" for part in found.part])
    assert not ((found.document < len(prose)) & (found.share >= 0.65) & ~is_answer).any()


@pytest.mark.shared
def test_every_shared_benchmark_file_gives_a_question_or_passage_for_its_items(shared):
    for file in benchmark_files([str(shared / "benchmarks")], []):
        texts = read_benchmark(file)
        with_question = {one.item for one in texts if one.part != "answer" and one.text.strip()}
        without = {one.item for one in texts} - with_question
        # In xlinghealth one question is null in English, with five candidate answers.
        assert {item.rpartition("/")[0] for item in without} <= {"LiveQA/67"}, file.name
