"""Known n-grams in documents: the kernel against its definition, and what folding is meant to forgive."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from texts_to_try import batches

from diglot.kernels.jit import text_buffers
from diglot.kernels.ngrams import (
    ANCHOR,
    build_table,
    count_units,
    covered_units,
    find,
    find_oracle,
    ngram_hashes,
    ngrams_oracle,
)
from diglot.text.matching import fold, fold_table, match_units

WORDS = st.sampled_from(["a", "B", "c.", "字", "文", "é", "12", "x-y", "，", "\u200b", "Ｄ"])
REPEATING = st.lists(st.lists(WORDS, max_size=40).map(" ".join), max_size=4)


def buffers(texts: list[str]):
    return text_buffers(pa.array(texts, pa.large_string()))


def table_of(texts: list[str], num_units: list[int]):
    _, anchors, hashes = ngram_hashes(*buffers(texts), np.array(num_units, np.int32))
    lengths = [n for text, n in zip(texts, num_units, strict=True) for _ in ngrams_oracle(text, n)]
    keys = sorted(set(zip(anchors.tolist(), lengths, hashes.tolist(), strict=True)))
    columns = list(zip(*keys, strict=True)) or [(), (), ()]
    return build_table(np.array(columns[0], np.uint64), np.array(columns[1]), np.array(columns[2], np.uint64))[0]


@settings(max_examples=150, deadline=None)
@given(st.one_of(batches, REPEATING), st.sampled_from([8, 9, 13]))
def test_the_ngrams_of_a_text_are_those_of_the_definition(texts, num_units):
    starts, anchors, hashes = ngram_hashes(*buffers(texts), np.full(len(texts), num_units, np.int32))
    for number, text in enumerate(texts):
        expected = ngrams_oracle(text, num_units)
        mine = slice(starts[number], starts[number + 1])
        assert anchors[mine].tolist() == [anchor for anchor, *_ in expected]
        assert hashes[mine].tolist() == [whole for _, whole, *_ in expected]
    total, cjk = count_units(*buffers(texts))
    assert total.tolist() == [len(list(match_units(text))) for text in texts]
    assert cjk.tolist() == [sum(unit.is_cjk for unit in match_units(text)) for text in texts]


@settings(max_examples=150, deadline=None)
@given(REPEATING, REPEATING)
def test_hits_are_those_of_the_definition(known, documents):
    table = table_of(known, [(8, 10, 13)[n % 3] for n in range(len(known))])
    documents = documents + known
    hits = find(*buffers(documents), table)
    for number, text in enumerate(documents):
        mine = hits.document == number
        found = zip(hits.ngram[mine].tolist(), hits.start[mine].tolist(), hits.stop[mine].tolist(), strict=True)
        assert sorted(found) == sorted(find_oracle(text, table))


def test_every_text_is_found_in_itself_also_from_a_slice_of_a_larger_array():
    text = (
        "Which of these materials conducts electricity best at room temperature? 下列材料中室温下导电性最好的是哪一种？"
    )
    table = table_of([text], [10])
    whole = pa.array(["something in front", text], pa.large_string())
    hits = find(*text_buffers(whole.slice(1)), table)
    assert len(hits.ngram) == len(ngrams_oracle(text, 10)) > 10
    assert (hits.start[0], hits.stop[-1]) == (0, len(text.encode()) - len("？".encode()))


def test_case_width_punctuation_and_spacing_do_not_matter_and_a_changed_word_does():
    text = "A robe takes 2 bolts of blue fiber, and half that much white fiber (don't cut it)."
    table = table_of([text], [13])
    same = "a ROBE takes ２ bolts of «blue» fiber and half\nthat much white fiber; Don’t cut it"
    assert len(find(*buffers([same]), table).ngram) == len(ngrams_oracle(text, 13))
    assert len(find(*buffers([text.replace("blue", "red")]), table).ngram) < len(ngrams_oracle(text, 13))
    assert [u.folded for u in match_units("Ｖ1.２ ÉTÉ\u200bS，你好")] == ["v1", "2", "étés", "你", "好"]


def test_the_fold_table_equals_its_definition_on_every_code_point():
    table = fold_table()
    for code in [*range(0x3000), *range(0xF900, 0x20000), *range(0x1D400, 0x1F200), 0x4E00, 0xAC00, 0x2F800, 0x10FFFF]:
        if not 0xD800 <= code < 0xE000:
            assert table[code] == ord(fold(chr(code))), hex(code)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(ANCHOR, 13)), max_size=20))
def test_covered_units_counts_the_union(spans):
    numbers = {group: n for n, group in enumerate(sorted({group for group, *_ in spans}))}
    spans = sorted((numbers[group], position, length) for group, position, length in spans)
    group, position, length = (np.array([span[i] for span in spans], np.int64) for i in range(3))
    found = covered_units(group, position.astype(np.int32), length.astype(np.int32))
    expected = [set() for _ in numbers]
    for g, p, n in spans:
        expected[g] |= set(range(p, p + n))
    assert found.tolist() == [len(units) for units in expected]
