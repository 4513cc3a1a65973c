"""The kernels of the edits equal their plain definitions, on random and on awkward texts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts_to_try import PIECES, batches, texts

from diglot.corpus.edits.settings import SimilarLinesEdit
from diglot.corpus.edits.similar_lines import EXACT_ABOVE, NUMERALS, edit_distance, repeated_sentences
from diglot.corpus.edits.texts import Texts
from diglot.kernels.byte_runs import byte_table, runs
from diglot.kernels.jit import classes
from diglot.kernels.sentences import MARKS, line_facts, sentence_starts
from diglot.kernels.similar_sentences import number_marks, repeated, run_chars, within
from diglot.kernels.windows import PRIME_61, _times, fingerprints, hash_windows
from diglot.text import sentences
from diglot.text.lines import ends_with_stop
from diglot.text.units import units


def starts_of(batch):
    found = Texts.of(batch)
    starts, first = sentence_starts(found.offsets, found.utf8, classes())
    return [starts[first[row] : first[row + 1]].tolist() for row in range(len(batch))]


def defined_starts(text):
    return [len(text[:start].encode()) for start in sentences.sentence_starts(text)]


@settings(max_examples=400, deadline=None)
@given(batch=batches)
def test_sentence_starts_equal_the_definition(batch):
    assert starts_of(batch) == [defined_starts(text) for text in batch]


def test_sentence_starts_equal_the_definition_on_every_pair_of_awkward_pieces():
    batch = [f"{left}{right}a" for left in PIECES for right in PIECES[::5]]
    assert starts_of(batch) == [defined_starts(text) for text in batch]


def test_sentences_begin_where_a_reader_sees_them():
    text = "1. One (v1.2). Two?! 三。“四。”五\n\n.. six [seven.](x) 八"
    starts = sentences.sentence_starts(text)
    pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert pieces == ["1. One (v1.2).", " Two?!", " 三。", "“四。”", "五\n", "\n", ".. six [seven.](x) 八"]


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_line_facts_equal_the_definitions(text):
    found, lines = Texts.of([text]), text.split("\n")
    starts, num_units, has_stop = (np.zeros(len(lines), dtype) for dtype in (np.int64, np.int64, np.bool_))
    count = line_facts(found.utf8, found.offsets[0], found.offsets[1], classes(), MARKS, starts, num_units, has_stop)
    assert count == len(lines)
    assert num_units.tolist() == [len(units(line)) for line in lines]
    assert has_stop.tolist() == [ends_with_stop(line) for line in lines]
    assert starts.tolist() == np.cumsum([0, *(len(line.encode()) + 1 for line in lines[:-1])]).tolist()


@settings(max_examples=300, deadline=None)
@given(a=st.text("ab字", max_size=14), b=st.text("ab字", max_size=14), limit=st.integers(0, 5))
def test_the_banded_distance_knows_what_is_within_a_limit(a, b, limit):
    codes = np.array([ord(c) for c in a + b] or [0], np.int32)
    assert within(codes, 0, len(a), len(a), len(b), limit) == (edit_distance(a, b) <= limit)


def repeated_by_kernel(pieces, edit):
    found = Texts.of(["".join(pieces)])
    ends = np.cumsum([len(piece.encode()) for piece in pieces])
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    run = run_chars(edit.max_share, edit.min_chars, edit.exact_below)
    limits = (edit.max_share, edit.min_chars, edit.exact_below, EXACT_ABOVE, run)
    skip = np.zeros(len(pieces), np.bool_)
    return repeated(
        found.utf8, found.offsets[0], found.offsets[1], starts, skip, classes(), MARKS, number_marks(NUMERALS), *limits
    ).tolist()


@st.composite
def sentences_that_resemble(draw):
    """Some sentences and versions of them with a few letters changed, put in or taken out, at any place."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    alphabet = draw(st.sampled_from(("ab", "abcdefgh ", "天地玄黄宇宙洪荒日月盈昃一3")))
    pieces = []
    for _ in range(draw(st.integers(1, 5))):
        original = [rng.choice(alphabet) for _ in range(rng.choice((6, 10, 15, 16, 17, 20, 30, 45)))]
        for _ in range(rng.randint(1, 4)):
            version = list(original)
            for _ in range(rng.randint(0, 5)):
                place, kind = rng.randrange(len(version)), rng.randrange(3)
                version[place : place + (kind != 1)] = [rng.choice(alphabet)] if kind != 2 else []
                version = version or ["a"]
            pieces.append("".join(version) + rng.choice(("。", ".", ".)", "")) + "\n")
    rng.shuffle(pieces)
    return pieces


@settings(max_examples=250, deadline=None)
@given(
    pieces=sentences_that_resemble(),
    max_share=st.sampled_from((0.0, 0.1, 0.2, 0.5)),
    min_chars=st.sampled_from((2, 8, 10)),
    exact_below=st.sampled_from((2, 16)),
)
def test_similar_sentences_are_those_of_comparing_all_pairs(pieces, max_share, min_chars, exact_below):
    edit = SimilarLinesEdit(max_share=max_share, min_chars=min_chars, exact_below=exact_below)
    assert repeated_by_kernel(pieces, edit) == repeated_sentences(pieces, edit)


def test_a_very_long_line_repeats_only_an_equal_one():
    line = "".join(random.Random(0).choices("abcdefgh", k=EXACT_ABOVE + 1)) + ".\n"
    assert repeated_by_kernel([line, line, "x" + line[1:]], SimilarLinesEdit()) == [False, True, False]
    assert repeated_sentences([line, line, "x" + line[1:]], SimilarLinesEdit()) == [False, True, False]


def test_products_modulo_the_prime_equal_those_of_python():
    prime = int(PRIME_61)
    edge = [0, 1, 2, prime - 1, prime - 2, (1 << 32) - 1, 1 << 32, 1 << 60, (1 << 61) - 2]
    draw = random.Random(0)
    for a in [*edge, *(draw.randrange(prime) for _ in range(50))]:
        for b in edge:
            assert int(_times(np.uint64(a), np.uint64(b))) == a * b % prime


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=30, max_size=60), width=st.integers(1, 20))
def test_equal_windows_have_equal_hashes_and_others_do_not(data, width):
    whole = np.frombuffer(data, np.uint8)
    count = len(data) - width + 1
    low, high = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    hash_windows(whole, 0, count - 1, width, low, high)
    windows = [data[i : i + width] for i in range(count)]
    for hashes in (low, high):
        assert len(set(hashes.tolist())) == len(set(windows))
        assert len(set(zip(windows, hashes.tolist(), strict=True))) == len(set(windows))
    alone = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    hash_windows(whole[count - 1 :].copy(), 0, 0, width, *alone)
    assert (alone[0][0], alone[1][0]) == (low[-1], high[-1])  # whatever stands before


@settings(max_examples=200, deadline=None)
@given(
    first=st.binary(max_size=20), second=st.binary(max_size=20),
    common=st.binary(min_size=24, max_size=40), width=st.integers(2, 12),
)  # fmt: skip
def test_two_equal_passages_choose_the_same_window(first, second, common, width):
    span = 24 - width + 1
    documents = [first + common + second, second + common + first]
    offsets = np.cumsum([0, *map(len, documents)])
    row, start, hashes = fingerprints(offsets, np.frombuffer(b"".join(documents), np.uint8), width, span)
    for place in range(len(common) - 24 + 1):
        chosen = []
        for document, before in ((0, len(first)), (1, len(second))):
            inside = (row == document) & (start >= before + place) & (start + width <= before + place + 24)
            chosen.append(set(hashes[inside].tolist()))
        assert chosen[0] & chosen[1]


@settings(max_examples=200, deadline=None)
@given(batch=st.lists(st.text("1 2-x字", max_size=12), max_size=4), at_least=st.integers(1, 3))
def test_runs_of_digits_are_those_of_a_loop(batch, at_least):
    found = Texts.of(batch)
    expected = []
    for row, text in enumerate(batch):
        start, content = 0, [*text.encode(), 0]
        for position, byte in enumerate(content):
            if byte in b"12 -":
                continue
            if sum(b in b"12" for b in content[start:position]) >= at_least:
                expected.append([row, start, position])
            start = position + 1
    assert runs(found.offsets, found.utf8, byte_table(b" -", b"12"), at_least).tolist() == expected


@pytest.mark.parametrize("max_share", [0.0, 0.1, 0.3, 0.5])
def test_similar_sentences_always_share_a_run(max_share):
    run = run_chars(max_share, 10, 16)
    assert all(n + 1 - run - int(max_share * n) * run >= 1 for n in range(16, 2000))
