"""Encoding is exact, adds nothing, obeys nobody, and is the same in every library that reads our files."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import InputError
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from diglot.tokenizer.vocabulary import FIRST_PIECE, LAYOUT_PIECES, SPECIAL_TOKENS, encode_oracle

AWKWARD = [
    "",
    " ",
    "\0",
    "a\0b",
    "\r\n\r\n\n\r",
    "\t\tif x:\n\t\t\treturn  \n",
    "    four,        eight,                 seventeen",
    "one\u2581two \u2581\u2581 \u2585",  # what SentencePiece writes for a space and for an unknown character
    "<0x0A><0xE4>",
    "<s></s><unk><pad><|system|><|user|>hi<|end|>",
    "e\u0301 \u200b\ufeff\ufffd\ufffe\U0010ffff",  # no normalisation, and non-characters
    "𠮷野家 👩‍👩‍👧 ﷽",
    "１２３ 123 ⅷ",
]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
FROM_THE_TEXTS = st.lists(
    st.sampled_from(
        ["package", " package", "s", " ", "  ", "\n", "\t", "\r\n", "软件包", "列表", "，", "7", "(", "--", "<s>"]
    )
).map("".join)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=UNICODE | FROM_THE_TEXTS)
def test_every_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=UNICODE | FROM_THE_TEXTS)
def test_ids_equal_those_of_the_slow_definition(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text) == encode_oracle(text, tokenizer.vocabulary.ids)


@settings(max_examples=300, deadline=None)
@given(text=UNICODE | FROM_THE_TEXTS)
def test_ids_equal_those_of_sentencepiece_with_our_model_file(trained: Path, tokenizer: Tokenizer, text: str) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    assert tokenizer.encode(text) == reference.encode(text)
    assert reference.decode(reference.encode(text)) == text


@pytest.mark.parametrize("text", [t for t in AWKWARD if "<s>" not in t])
def test_auto_tokenizer_gives_the_same_ids_and_text(trained: Path, tokenizer: Tokenizer, text: str) -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(trained)
    assert auto(text)["input_ids"] == tokenizer.encode(text)
    assert auto.decode(tokenizer.encode(text)) == text


def test_auto_tokenizer_knows_the_special_tokens(trained: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(trained)
    assert (auto.unk_token_id, auto.bos_token_id, auto.eos_token_id, auto.pad_token_id) == (0, 1, 2, 3)
    assert auto("<|user|>")["input_ids"] == [tokenizer.special_id("<|user|>")]  # chat templates rely on it
    assert len(auto) == tokenizer.vocab_size


def test_special_tokens_have_the_first_ids(trained: Path, tokenizer: Tokenizer) -> None:
    names = json.loads((trained / "special_tokens.json").read_text())
    assert names == {
        "<unk>": 0,
        "<s>": 1,
        "</s>": 2,
        "<pad>": 3,
        "<|system|>": 4,
        "<|user|>": 5,
        "<|assistant|>": 6,
        "<|end|>": 7,
    }
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 3)
    with pytest.raises(InputError, match="no special token '<eos>'"):
        tokenizer.special_id("<eos>")


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_text_cannot_forge_a_special_token(tokenizer: Tokenizer, name: str) -> None:
    for text in (name, f"before {name} after", f"{name}\n{name}"):
        for ids in (tokenizer.encode(text), *tokenizer.encode_batch([text])):
            assert min(ids) >= len(SPECIAL_TOKENS)


def test_nothing_is_added_around_a_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("package")
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"package"


def test_special_tokens_are_written_only_when_asked_for(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode("软件包"), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "软件包"
    assert tokenizer.decode(ids, skip_special=False) == "<s>软件包</s>"


def test_half_a_character_is_written_as_a_replacement(tokenizer: Tokenizer) -> None:
    first_byte_of_three = tokenizer.encode("𠮷")[0]
    assert tokenizer.decode([first_byte_of_three]) == "\ufffd"


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    for token in (tokenizer.vocab_size, -1, -100):
        with pytest.raises(InputError, match=f"token {token} is outside the vocabulary"):
            tokenizer.decode([5, token])


def test_lone_surrogates_are_refused_with_advice(tokenizer: Tokenizer) -> None:
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_arrays([text])):
        with pytest.raises(InputError, match="lone surrogates"):
            encode("a\ud800")


def test_threads_and_batches_do_not_change_ids(tokenizer: Tokenizer) -> None:
    texts = [*AWKWARD, *(f"软件包 {n}\tpackage {n}" for n in range(50))]
    one_by_one = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == one_by_one
    assert tokenizer.encode_batch(texts, threads=False) == one_by_one


def test_tokens_may_be_numpy_integers(tokenizer: Tokenizer) -> None:
    ids = np.array(tokenizer.encode("a list of packages"), np.uint16)
    assert tokenizer.decode(ids) == "a list of packages"


@pytest.mark.parametrize("piece", LAYOUT_PIECES)
def test_layout_is_one_token(tokenizer: Tokenizer, piece: str) -> None:
    assert len(tokenizer.encode(piece)) == 1
    assert tokenizer.encode(piece)[0] >= FIRST_PIECE


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([token]) for token in tokenizer.encode("2023.11")] == list("2023.11")


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(FROM_THE_TEXTS.map(lambda text: text.replace("\n", " ").replace("\r", " ")), max_size=5))
def test_the_tokens_of_a_line_do_not_depend_on_other_lines(tokenizer: Tokenizer, lines: list[str]) -> None:
    end = tokenizer.encode("\n")
    apart = [token for line in lines for token in (*tokenizer.encode(f"x{line}x"), *end)]
    assert tokenizer.encode("".join(f"x{line}x\n" for line in lines)) == apart


def test_saved_copies_and_pickles_encode_alike(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "model")
    for copy in (Tokenizer.load(tmp_path / "model"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.encode("软件包 list") == tokenizer.encode("软件包 list")
        assert copy.vocab_size == tokenizer.vocab_size


def test_missing_damaged_and_unknown_files_are_named(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    content = (trained / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content[: len(content) // 2])
    with pytest.raises(InputError, match="is damaged"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    with pytest.raises(InputError, match="not supported"):
        Tokenizer.load(tmp_path)


def test_real_text_in_both_languages_is_exact_and_equal_to_sentencepiece(shared: Path, tmp_path: Path) -> None:
    texts = real_texts(shared, "en/vue_docs", 30) + real_texts(shared, "zh/vue_docs", 30)
    texts += real_texts(shared, "en/us_speeches_shakespeare", 2) + real_texts(shared, "zh/zh_wikipedia_paragraphs", 60)
    write_tokenizer(tmp_path, *train_vocabulary(texts[::2], TrainingSettings(vocab_size=6000)))
    tokenizer = Tokenizer.load(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    encoded = tokenizer.encode_batch(texts)
    assert encoded == reference.encode(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts


def real_texts(shared: Path, name: str, count: int) -> list[str]:
    with (shared / "pretrain" / f"{name}.jsonl.zst").open("rb") as stream:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(stream)
        lines = io.TextIOWrapper(reader, encoding="utf-8")
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]
