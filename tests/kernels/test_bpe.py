"""The kernel equals the definition, for any vocabulary, any bytes, and in n log n steps."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.kernels import bpe
from diglot.tokenizer.encoder import VocabularyEncoder
from diglot.tokenizer.vocabulary import Vocabulary, encode_oracle

ALPHABET = "ab \n字𠮷é"


@st.composite
def vocabularies(draw):
    """Pieces that cross every border a trained vocabulary respects, in any order."""
    pieces = list(draw(st.permutations(ALPHABET)))[draw(st.integers(0, 3)) :]
    for _ in range(draw(st.integers(0, 25))):
        piece = draw(st.sampled_from(pieces)) + draw(st.sampled_from(pieces))
        if piece not in pieces and len(piece) <= 16:
            pieces.append(piece)
    return Vocabulary(tuple(draw(st.permutations(pieces))))


texts = st.text(ALPHABET + "zü", max_size=40) | st.text(ALPHABET[:2], min_size=bpe.FEW - 2, max_size=3 * bpe.FEW)


def by_kernel(encoder, batch):
    encoded = [text.encode() for text in batch]
    ends = np.cumsum([0, *map(len, encoded)])
    tokens, offsets = encoder.encode_utf8(ends, np.frombuffer(b"".join(encoded), np.uint8))
    return [tokens[offsets[row] : offsets[row + 1]].tolist() for row in range(len(batch))]


@settings(max_examples=150, deadline=None)
@given(vocabulary=vocabularies(), batch=st.lists(texts, max_size=4))
def test_tokens_equal_the_definition_for_any_vocabulary(vocabulary, batch):
    encoder, expected = VocabularyEncoder(vocabulary), [encode_oracle(text, vocabulary.ids) for text in batch]
    assert by_kernel(encoder, batch) == expected
    assert by_kernel(encoder, batch) == expected, "what was kept of the first time is the same"
    assert encoder.encode_batch(batch, threads=False) == expected
    assert VocabularyEncoder(vocabulary).encode_batch(batch, threads=False) == expected, "without the kernel"


def test_equal_neighbours_join_from_the_left_whatever_forms_the_piece():
    vocabulary = Vocabulary(("aa", "aaa", "aaaa", "a"))
    for length in range(200):
        text = "a" * length
        assert by_kernel(VocabularyEncoder(vocabulary), [text]) == [encode_oracle(text, vocabulary.ids)]


@settings(max_examples=150, deadline=None)
@given(content=st.lists(st.binary(max_size=3) | texts.map(str.encode), max_size=8).map(b"".join))
def test_bytes_that_are_no_utf8_become_byte_tokens(content):
    vocabulary = Vocabulary((*ALPHABET, "ab", "字字", " a"))
    encoder = VocabularyEncoder(vocabulary)
    utf8 = np.frombuffer(content, np.uint8)
    tokens, _ = encoder.encode_utf8(np.array([0, len(content)]), utf8)
    assert tokens.tolist() == encode_oracle(content.decode(errors="surrogateescape"), vocabulary.ids)
    assert b"".join(vocabulary.token_bytes[token] for token in tokens) == content


@pytest.mark.parametrize(
    "content",
    [b"\xc1\xa1", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe5\xad", b"\xf0\x82\x82\xac", b"\xff\xe5\xad\x97"],
)
def test_overlong_and_impossible_sequences_are_not_read_as_characters(content):
    vocabulary = Vocabulary((*ALPHABET, "ab"))
    tokens, _ = VocabularyEncoder(vocabulary).encode_utf8(np.array([0, len(content)]), np.frombuffer(content, np.uint8))
    assert tokens.tolist() == encode_oracle(content.decode(errors="surrogateescape"), vocabulary.ids)


def test_documents_are_encoded_apart():
    vocabulary = Vocabulary(("ab", "a", "b"))
    assert by_kernel(VocabularyEncoder(vocabulary), ["a", "b", "", "ab"]) == [[265], [266], [], [264]]


@pytest.mark.parametrize("unit", ["a", "ab", "abb a"])
def test_a_megabyte_without_a_cut_takes_a_few_seconds(unit):
    vocabulary = Vocabulary(("ab", "aa", "ba", "abab", "b ", " a", "aaaa", "abababab", "a", "b", " "))
    encoder = VocabularyEncoder(vocabulary)
    by_kernel(encoder, [unit])
    text = unit * (1_000_000 // len(unit))
    before = time.process_time()
    (tokens,) = by_kernel(encoder, [text])
    assert time.process_time() - before < 10, "a quadratic search takes hours"
    assert b"".join(vocabulary.token_bytes[token] for token in tokens).decode() == text


def test_stretches_that_share_a_slot_are_told_apart():
    letters = "abcdefgh"
    pairs = [f"{a}{b}" for a in f" {letters}" for b in letters]  # any two may join, so words are cut at spaces alone
    vocabulary = Vocabulary((*pairs, *(a + b for a in pairs[1::3] for b in pairs[40::5]), *f" {letters}"))
    encoder = VocabularyEncoder(vocabulary)
    drawn = np.random.default_rng(0).integers(0, len(letters), (1 << bpe.SLOT_BITS, 6))
    words = ["".join(letters[i] for i in word) for word in drawn]
    expected = [encode_oracle(f" {word}", vocabulary.ids) for word in words[:2000]]
    alone = by_kernel(encoder, [f" {word}" for word in words])
    assert alone[:2000] == expected
    assert by_kernel(encoder, [f" {word}" for word in words[:2000]]) == expected, "others have taken their slots"
