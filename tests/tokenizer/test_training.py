"""Training gives the same bytes every time, the size asked for, and pieces that obey the module's rules."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sentencepiece
from bilingual_texts import CHINESE, CODE, ENGLISH, TEXTS, VOCAB_SIZE

from diglot.core.errors import ConfigError, InputError
from diglot.tokenizer.export import tokenizer_json
from diglot.tokenizer.training import SPACE_MARK, TrainingSettings, train_vocabularies, train_vocabulary
from diglot.tokenizer.vocabulary import FIRST_BYTE, FIRST_PIECE, LAYOUT_PIECES, Vocabulary, with_layout


def test_the_same_texts_give_the_same_bytes() -> None:
    (one, model), (two, again) = (train_vocabulary(TEXTS, TrainingSettings(vocab_size=VOCAB_SIZE)) for _ in range(2))
    assert (one, model) == (two, again)
    assert tokenizer_json(one) == tokenizer_json(two)


@pytest.mark.parametrize("vocab_size", [540, 560, 600])
def test_the_vocabulary_has_the_size_asked_for(vocab_size: int) -> None:
    vocabulary, _ = train_vocabulary(TEXTS, TrainingSettings(vocab_size=vocab_size))
    assert len(vocabulary) == vocab_size == len(vocabulary.token_bytes)


@pytest.mark.parametrize("settings", [{}, {"whitespace_pieces": False}, {"dummy_prefix": True}, {"max_piece_chars": 4}])
def test_a_size_cut_out_of_a_larger_one_is_that_size_trained_alone(settings: dict[str, int]) -> None:
    base, sizes = TrainingSettings(**settings), (530, 560, 640)
    together = train_vocabularies(TEXTS, base, sizes)
    assert list(together) == list(sizes)
    for size in sizes:
        assert together[size] == train_vocabularies(TEXTS, replace(base, vocab_size=size), [size])[size]
        assert len(together[size].vocabulary) == size


def test_without_whitespace_pieces_a_space_is_a_token_and_line_ends_are_bytes() -> None:
    vocabulary, model = train_vocabulary(
        [CODE * 20, ENGLISH], TrainingSettings(vocab_size=400, whitespace_pieces=False)
    )
    assert [piece for piece in vocabulary.pieces if piece.isspace()] == [" "]
    encoder = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert encoder.encode("    a\n")[:3] == encoder.encode(" ") * 3
    assert encoder.encode("\n") == [FIRST_BYTE + 0x0A]


def test_a_prefix_in_training_makes_pieces_with_a_space_of_words_that_begin_a_line() -> None:
    texts = ["Package manager\nPackage server\nPackage terminal\n" * 9]
    with_prefix, without = (
        train_vocabularies(texts, TrainingSettings(dummy_prefix=dummy_prefix), [300])[300]
        for dummy_prefix in (True, False)
    )
    assert any(piece.startswith(" P") for piece in with_prefix.vocabulary.pieces)
    assert not any(piece.startswith(" P") for piece in without.vocabulary.pieces)
    encode = [sentencepiece.SentencePieceProcessor(model_proto=m).encode for m in with_prefix[1:]]
    assert encode[0](" Package") == encode[1]("Package"), "the trainer's model adds the space that ours does not"


def test_learned_pieces_obey_the_rules() -> None:
    vocabulary, _ = train_vocabulary(TEXTS, TrainingSettings(vocab_size=700))
    for piece in vocabulary.pieces:
        assert len(piece) <= 16
        assert SPACE_MARK not in piece
        assert piece in LAYOUT_PIECES or not set(piece) & set("\n\r\t"), "line ends and tabs join with nothing"
        assert len(piece) == 1 or not any(character.isdigit() for character in piece)
        assert piece.isspace() or " " not in piece[1:], "a space stands only at the beginning of a piece"
    assert " package" in vocabulary.pieces
    assert "软件包" in vocabulary.pieces


def test_indentation_is_learned_as_pieces_of_several_spaces() -> None:
    vocabulary, _ = train_vocabulary([CODE * 20, ENGLISH], TrainingSettings(vocab_size=400))
    assert "    " in vocabulary.pieces


def test_characters_with_a_meaning_to_the_trainer_are_left_out_of_training() -> None:
    settings = TrainingSettings(vocab_size=400)
    marked = [ENGLISH.replace("\n", mark) for mark in ("\0", "\u2581", "\u2585\t\r")]
    assert train_vocabulary(marked, settings) == train_vocabulary([ENGLISH] * 3, settings)


def test_long_lines_are_cut_and_not_skipped() -> None:
    line = ENGLISH.replace("\n", " ") * 20
    vocabulary, _ = train_vocabulary([line], TrainingSettings(vocab_size=400, max_sentence_bytes=256))
    assert len(line) > 10_000
    assert " package" in vocabulary.pieces


def test_too_little_text_is_refused_with_the_largest_size_it_allows() -> None:
    with pytest.raises(InputError, match=r"vocab_size to at most \d+") as refused:
        train_vocabulary([ENGLISH], TrainingSettings(vocab_size=5000))
    largest = int(re.search(r"at most (\d+)", str(refused.value))[1])
    assert len(train_vocabulary([ENGLISH], TrainingSettings(vocab_size=largest))[0]) == largest


def test_a_size_that_is_too_small_is_refused_with_one_that_is_not() -> None:
    for sizes in ([400], [400, 900]):
        with pytest.raises(ConfigError, match=r"400 has no room.* Raise it to \d+") as refused:
            train_vocabularies(TEXTS, TrainingSettings(), sizes)
        enough = int(re.search(r"Raise it to (\d+)", str(refused.value))[1])
        assert 400 < enough < 420
        assert len(train_vocabularies(TEXTS, TrainingSettings(), [enough])[enough].vocabulary) == enough


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    every_character = "".join(map(chr, range(0x4E00, 0x4E00 + 900)))
    for text, vocab_size in ((every_character, 600), ("ab" * 9, FIRST_PIECE + 3)):
        with pytest.raises(ConfigError, match="no room for the texts' characters"):
            train_vocabulary([text], TrainingSettings(vocab_size=vocab_size))


def test_no_text_is_refused() -> None:
    with pytest.raises(InputError):
        train_vocabulary([], TrainingSettings(vocab_size=600))


@pytest.mark.parametrize(
    "settings",
    [{"vocab_size": 264}, {"character_coverage": 0.5}, {"max_piece_chars": 0}, {"max_sentence_bytes": 70_000}],
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TrainingSettings(**settings)


def test_layout_pieces_take_the_places_of_the_pieces_joined_last() -> None:
    joined = [first + second for first in "abcd" for second in "abcd"]
    learned = [*joined, "  ", "a", "b", "c", "d", " "]
    num_missing = len(LAYOUT_PIECES) - 2
    pieces = with_layout(learned)
    assert pieces[:-num_missing] == (*joined[:-num_missing], "  ", "a", "b", "c", "d", " ")
    assert pieces[-num_missing:] == tuple(piece for piece in LAYOUT_PIECES if piece not in (" ", "  "))


def test_a_vocabulary_with_equal_or_unreachable_pieces_is_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        Vocabulary(("a", "b", "a"))
    with pytest.raises(InputError, match="'abc'"):
        Vocabulary(("a", "b", "c", "abc"))


def test_every_way_to_form_a_piece_is_a_join_in_the_order_of_the_pieces() -> None:
    joins = Vocabulary(("ab", "bc", "abc", "a", "b", "c")).joins()
    assert joins == [("a", "b", "ab"), ("b", "c", "bc"), ("a", "bc", "abc"), ("ab", "c", "abc")]


def test_chinese_takes_fewer_tokens_than_characters() -> None:
    _, model = train_vocabulary(TEXTS, TrainingSettings(vocab_size=VOCAB_SIZE))

    ids = sentencepiece.SentencePieceProcessor(model_proto=model).encode(CHINESE)
    assert len(ids) < 0.8 * len(CHINESE)
    assert all(token >= FIRST_PIECE or token < FIRST_BYTE for token in ids), "no byte fallback on the training text"
