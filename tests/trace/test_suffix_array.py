"""A suffix array finds what a search from left to right finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diglot.core.errors import InputError
from diglot.trace.suffix_array import SuffixArray, sort_suffixes

SMALL = st.lists(st.integers(0, 3), max_size=40)  # few ids, so that much repeats
LARGE = st.lists(st.sampled_from([0, 1, 255, 256, 257, 65_535]), max_size=40)  # both bytes matter
TOKENS = SMALL | LARGE


def occurrences(tokens: list[int], sought: list[int]) -> list[int]:
    return [at for at in range(len(tokens)) if tokens[at : at + len(sought)] == sought]


@given(tokens=TOKENS)
def test_suffixes_are_in_the_order_of_their_tokens(tokens: list[int]) -> None:
    order = sort_suffixes(np.array(tokens, ">u2"))
    assert order.tolist() == sorted(range(len(tokens)), key=lambda at: tokens[at:])


@given(tokens=TOKENS, sought=st.lists(st.sampled_from([0, 1, 2, 256, 65_535]), min_size=1, max_size=4))
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_every_occurrence_is_found(tokens: list[int], sought: list[int], dtype: str) -> None:
    array = SuffixArray.build(np.array(tokens, dtype))
    lo, hi = array.find(sought)
    assert array.positions(lo, hi) == occurrences(tokens, sought)
    assert array.count(sought) == hi - lo


@given(tokens=TOKENS, data=st.data())
def test_stretches_of_the_tokens_are_found_where_they_stand(tokens: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens)))
    sought = tokens[start : start + data.draw(st.integers(1, 8))]
    array = SuffixArray.build(np.array(tokens, np.uint16))
    assert array.positions(*array.find(sought)) == occurrences(tokens, sought)[: len(tokens) if sought else None]


@given(tokens=TOKENS, sought=TOKENS)
def test_the_longest_prefix_is_the_longest_that_occurs(tokens: list[int], sought: list[int]) -> None:
    array = SuffixArray.build(np.array(tokens, np.uint16))
    lengths = [length for length in range(1, len(sought) + 1) if occurrences(tokens, sought[:length])]
    assert array.longest_prefix(sought) == max(lengths, default=0)


def test_positions_are_the_smallest_ones_in_order() -> None:
    array = SuffixArray.build(np.array([7, 8] * 50, np.uint16))
    lo, hi = array.find([7, 8])
    assert (hi - lo, array.positions(lo, hi, 3)) == (50, [0, 2, 4])


def test_an_empty_array_finds_nothing() -> None:
    array = SuffixArray.build(np.array([], np.uint16))
    assert array.find([1]) == (0, 0)
    assert array.longest_prefix([1]) == 0


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_a_saved_array_is_mapped_and_answers_alike(tmp_path: Path, dtype: str) -> None:
    tokens = np.random.default_rng(0).integers(0, 300, 5000).astype(dtype)
    built = SuffixArray.build(tokens)
    built.save(tmp_path)
    opened = SuffixArray.open(tmp_path)
    assert isinstance(opened.order, np.memmap)
    for start in range(0, 5000, 250):
        sought = tokens[start : start + 3].tolist()
        assert opened.find(sought) == built.find(sought)
        assert start in opened.positions(*opened.find(sought))


def test_the_same_tokens_give_the_same_files(tmp_path: Path) -> None:
    tokens = np.random.default_rng(1).integers(0, 5, 3000).astype(np.uint16)
    for name in ("one", "two"):
        SuffixArray.build(tokens).save(tmp_path / name)
    for file in ("tokens.npy", "suffix_array.npy"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_missing_damaged_and_unfitting_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no index"):
        SuffixArray.open(tmp_path)
    SuffixArray.build(np.arange(100, dtype=np.uint16)).save(tmp_path)
    np.save(tmp_path / "tokens.npy", np.arange(99, dtype=">u2"))
    with pytest.raises(InputError, match="100 suffixes for 99 tokens"):
        SuffixArray.open(tmp_path)
    content = (tmp_path / "suffix_array.npy").read_bytes()
    (tmp_path / "suffix_array.npy").write_bytes(content[:-9])
    with pytest.raises(InputError, match="is damaged"):
        SuffixArray.open(tmp_path)


def test_an_id_that_the_tokens_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"3\.\.70000 do not fit"):
        SuffixArray.build(np.arange(9, dtype=np.uint16)).find([3, 70_000])
