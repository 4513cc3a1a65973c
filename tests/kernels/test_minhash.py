"""MinHash signatures and shingle sets, against their definitions and against the true Jaccard similarity."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.kernels.jit import text_buffers
from diglot.kernels.minhash import (
    EMPTY,
    agreements,
    overlaps,
    permutations,
    shingle_sets,
    shingles_oracle,
    signature_oracle,
    signatures,
)
from diglot.kernels.union_find import components_oracle, forest, roots, unite

EN = "The apt program reads its list of repositories from one file, and every line of it names a mirror."
ZH = "软件包管理器从一个文件中读取软件源的列表，文件里的每一行都给出一个镜像站点的地址。"
ALPHABET = "aB é'-.,\n 1２中国，。ー゛́🙂नि"


def signed(texts: list[str], **settings: int):
    return signatures(*text_buffers(pa.array(texts, pa.large_string())), **settings)


def sets(texts: list[str]) -> list[list[int]]:
    starts, hashes = shingle_sets(*text_buffers(pa.array(texts, pa.large_string())))
    return [hashes[a:b].tolist() for a, b in itertools.pairwise(starts)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.sampled_from(ALPHABET), max_size=60), min_size=1, max_size=4))
def test_kernels_equal_their_definitions_on_any_text(texts):
    signature, num_shingles = signed(texts, num_permutations=6, seed=3)
    assert num_shingles.tolist() == [len(shingles_oracle(text)) for text in texts]
    assert signature.tolist() == [signature_oracle(text, num_permutations=6, seed=3) for text in texts]
    assert sets(texts) == [sorted(set(shingles_oracle(text))) for text in texts]


@pytest.mark.parametrize("text", [EN, ZH, EN + ZH, "", "four units only here"])
def test_full_signature_of_real_sentences_equals_its_definition(text):
    assert signed([text])[0][0].tolist() == signature_oracle(text)


def test_a_text_cut_from_a_larger_arrow_array_has_the_same_signature():
    whole = pa.array(["something else in front", EN, ZH], pa.large_string())
    assert np.array_equal(signatures(*text_buffers(whole.slice(1)))[0], signed([EN, ZH])[0])


def test_case_of_ascii_white_space_and_outer_punctuation_do_not_matter():
    assert sets(["The apt program, it reads\nits list."]) == sets(["the APT   program it reads (its list)"])
    assert sets(["你好，世界很大。"]) == sets(["你好世界 很大"])
    assert sets(["one two three four five"]) != sets(["one two three four five5"])


def test_a_text_with_fewer_units_than_a_shingle_has_the_empty_signature():
    signature, num_shingles = signed(["one two three four", "你好世界"])
    assert num_shingles.tolist() == [0, 0]
    assert (signature == EMPTY).all()


def test_chinese_is_shingled_by_character_without_white_space():
    assert [len(one) for one in sets(["天地玄黄宇宙洪荒"])] == [4]  # 8 characters, 5 at a time


def test_the_first_permutations_do_not_depend_on_their_number():
    few, many = permutations(8, seed=1), permutations(112, seed=1)
    assert np.array_equal(few[0], many[0][:8])
    assert np.array_equal(few[1], many[1][:8])
    assert (many[0] % 2 == 1).all()
    assert not np.array_equal(many[0], permutations(112, seed=2)[0])


def test_share_of_agreeing_places_estimates_the_jaccard_similarity():
    rng = np.random.default_rng(0)
    for changed in (10, 40, 120):
        left, right = [], []
        for _ in range(60):
            words = rng.integers(0, 10**9, 400)
            other = words.copy()
            other[rng.choice(400, changed, replace=False) // 4 * 4] += 1
            left.append(" ".join(f"w{w}" for w in words))
            right.append(" ".join(f"w{w}" for w in other))
        truth = np.mean([len(a & b) / len(a | b) for a, b in _set_pairs(left, right)])
        places = np.vstack([signed(left)[0], signed(right)[0]])
        pairs = np.arange(60)
        estimate = agreements(places, pairs, pairs + 60).mean() / 112
        # 60 * 112 places; their correlation inside one pair doubles the standard error of 0.006.
        assert estimate == pytest.approx(truth, abs=0.03)


def test_overlaps_equal_set_intersections():
    rng = np.random.default_rng(1)
    parts = [np.unique(rng.integers(0, 200, size).astype(np.uint64)) for size in (0, 5, 80, 150)]
    ends = np.cumsum([len(part) for part in parts])
    starts = ends - [len(part) for part in parts]
    left, right = (side.ravel() for side in np.meshgrid(np.arange(4), np.arange(4)))
    expected = [len(set(parts[a]) & set(parts[b])) for a, b in zip(left, right, strict=True)]
    assert overlaps(starts, ends, np.concatenate(parts), left, right).tolist() == expected


edges_of_a_graph = st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=15))
)


@settings(max_examples=200, deadline=None)
@given(edges_of_a_graph)
def test_union_find_names_every_component_by_its_smallest_node(graph):
    num_nodes, edges = graph
    parents = forest(num_nodes)
    left, right = np.array(edges, np.int64).reshape(-1, 2).T.copy()
    unite(parents, left, right)
    assert roots(parents).tolist() == components_oracle(num_nodes, edges)


def _set_pairs(left: list[str], right: list[str]) -> list[tuple[set[int], set[int]]]:
    return [(set(a), set(b)) for a, b in zip(sets(left), sets(right), strict=True)]
