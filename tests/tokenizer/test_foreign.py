"""Tokenizers of others give the ids of their own libraries, forge nothing, and say what they lack."""

from __future__ import annotations

import json
import pickle
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from bilingual_texts import CHINESE, CODE, ENGLISH
from foreign_tokenizers import EMOJI, byte_level, like_gemma, like_llama, like_map_neo
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from diglot.core.errors import InputError
from diglot.tokenizer.tokenizer import Tokenizer, check_fits

REAL = [
    ENGLISH,
    CHINESE,
    CODE,
    EMOJI,
    "",
    " ",
    "a",
    "x  y   z\t\tq\r\n\r\n\n  \n",
    "２０２３ é e\u0301 \0",
    "𠮷 \u2581 ﷽",
]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MIXED = st.lists(st.sampled_from(["package", " the", "  ", "\n", "\n\n", "\t\t", "软件", "😀", "7", "<0x0A>"])).map(
    "".join
)
KINDS: dict[str, Callable[[Path], Path]] = {
    "byte-level": byte_level,
    "byte-level-nfc": lambda folder: byte_level(folder, normalizer=normalizers.NFC()),
    "llama": like_llama,
    "metaspace": lambda folder: like_llama(folder, metaspace=True),
    "gemma": like_gemma,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: make(tmp_path_factory.mktemp(name)) for name, make in KINDS.items()}
    return made | {"sentencepiece": like_map_neo(tmp_path_factory.mktemp("sentencepiece"))}


@pytest.fixture(scope="module")
def map_neo(folders: dict[str, Path]) -> Path:
    return folders["sentencepiece"]


def loaded(folder: Path):
    transformers = pytest.importorskip("transformers")
    return Tokenizer.load(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_text_equal_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    ours, theirs = loaded(folders[kind])

    @settings(max_examples=60, deadline=None)
    @given(text=st.sampled_from(REAL) | UNICODE | MIXED)
    def equal(text: str) -> None:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    equal()
    assert ours.encode_batch(REAL) == [ours.encode(text) for text in REAL]
    assert ours.encode_arrays(REAL).tokens.tolist() == [t for text in REAL for t in ours.encode(text)]
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize("kind", ["byte-level", "gemma", "llama"])
@settings(max_examples=60, deadline=None)
@given(text=st.sampled_from(REAL) | UNICODE | MIXED)
def test_token_bytes_are_what_tokens_write(folders: dict[str, Path], kind: str, text: str) -> None:
    ours = Tokenizer.load(folders[kind])
    written = b"".join(map(ours.token_bytes, ours.encode(text)))
    in_front = " " if kind == "llama" and text else ""
    expected = text.replace("▁", " ") if kind != "byte-level" else text  # their file cannot tell the two apart
    assert written.decode() == in_front + expected


def test_single_bytes_and_spaces_are_read_from_either_spelling(folders: dict[str, Path]) -> None:
    for kind, spelling in (("byte-level", "Ġ"), ("llama", "▁"), ("gemma", "▁")):
        ours = Tokenizer.load(folders[kind])
        ids = json.loads((folders[kind] / "tokenizer.json").read_text())["model"]["vocab"]
        assert ours.token_bytes(ids[spelling]) == b" "
    assert Tokenizer.load(folders["llama"]).token_bytes(3 + 0xE4) == b"\xe4"
    byte = json.loads((folders["byte-level"] / "tokenizer.json").read_text())["model"]["vocab"]["ä"]
    assert Tokenizer.load(folders["byte-level"]).token_bytes(byte) == b"\xe4"


@settings(max_examples=60, deadline=None)
@given(text=st.sampled_from(REAL) | UNICODE | MIXED)
def test_a_bare_sentencepiece_file_gives_the_ids_of_its_library(map_neo: Path, text: str) -> None:
    ours = Tokenizer.load(map_neo)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(map_neo / "tokenizer.model"))
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids)
    written = b"".join(map(ours.token_bytes, ids)).decode()
    assert written == (" " + text.replace("▁", " ") if text else "")


def test_a_bare_file_of_the_unigram_kind_is_run_by_its_library_as_well(tmp_path: Path) -> None:
    ours = Tokenizer.load(like_map_neo(tmp_path, model_type="unigram"))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert ours.encode_batch(REAL) == theirs.encode(REAL)
    assert [ours.decode(ids) for ids in theirs.encode(REAL)] == theirs.decode(theirs.encode(REAL))


def test_a_bare_file_without_any_configuration_names_its_own_tokens(tmp_path: Path) -> None:
    (like_map_neo(tmp_path) / "tokenizer_config.json").unlink()
    ours = Tokenizer.load(tmp_path)
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.vocab_size) == (1, 2, 0, 480)


def test_documents_of_map_neo_end_with_its_own_token(map_neo: Path) -> None:
    ours = Tokenizer.load(map_neo)
    assert (ours.eos_id, ours.special_id("<|EOD|>"), ours.vocab_size) == (482, 482, 483)
    assert (ours.bos_id, ours.pad_id) == (1, 0)
    assert ours.decode([482], skip_special=False) == "<|EOD|>"
    assert ours.token_bytes(482) == b""


@pytest.mark.parametrize("kind", [*KINDS, "sentencepiece"])
def test_text_cannot_forge_a_special_token(folders: dict[str, Path], kind: str) -> None:
    ours = Tokenizer.load(folders[kind])
    special = {"<|endoftext|>", "<|im_end|>", "<s>", "</s>", "<start_of_turn>", "<|EOD|>", "<|turn|>"}
    names = [name for name in special if ours._parts.special_ids.get(name) is not None]
    assert names
    for name in names:
        for ids in (ours.encode(name), ours.encode(f"a{name} b"), *ours.encode_batch([name] * 2, threads=False)):
            assert ours.special_id(name) not in ids
            assert name in ours.decode(ids)


def test_a_special_token_that_merges_would_form_is_spelled_out(tmp_path: Path) -> None:
    spellings = ["<", "s", ">", "<s", "<s>", "</s>"]
    model = models.BPE({spelling: i for i, spelling in enumerate(spellings)}, [("<", "s"), ("<s", ">")])
    backend = Backend(model)
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    ours = Tokenizer.load(tmp_path)
    assert ours.encode("s<s>s") == [1, 0, 1, 2, 1]
    assert ours.encode_pair("s<s>", "s") == ([1, 0, 1, 2], [1])


def test_length_limits_padding_and_dropout_of_the_file_are_not_applied(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    before = Tokenizer.load(folder).encode_batch([ENGLISH, "a"])
    content = json.loads((folder / "tokenizer.json").read_text())
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(5)
    backend.enable_padding(length=600)
    limited = json.loads(backend.to_str())
    assert limited["truncation"] != content["truncation"]
    limited["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(limited))
    assert Tokenizer.load(folder).encode_batch([ENGLISH, "a"]) == before


def test_roles_come_from_the_configuration_files_in_order(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, bos_token=None, pad_token={"content": "<|im_start|>"})
    end = Tokenizer.load(folder).special_id("<|endoftext|>")
    assert Tokenizer.load(folder).eos_id == end
    assert Tokenizer.load(folder).bos_id == end, "as in GPT-2"
    assert Tokenizer.load(folder).pad_id == end + 1
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="which token ends a document"):
        Tokenizer.load(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end + 2, end], "pad_token_id": -1}))
    assert Tokenizer.load(folder).eos_id == end + 2
    (folder / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": end}, "bos_token_id": end + 1}))
    assert Tokenizer.load(folder).eos_id == end
    assert Tokenizer.load(folder).pad_id == Tokenizer.load(folder).bos_id == end + 1


def test_a_pad_token_of_its_own_is_never_the_document_end_while_there_is_another(folders: dict[str, Path]) -> None:
    ours = Tokenizer.load(folders["llama"])
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)


def test_unknown_special_names_are_refused_with_those_there_are(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"no special token '<pad>'\. Known: <\|endoftext\|>, <\|im_start\|>"):
        Tokenizer.load(folders["byte-level"]).special_id("<pad>")
    assert Tokenizer.load(folders["byte-level"]).special_id("<think>") > 0


@pytest.mark.parametrize("kind", [*KINDS, "sentencepiece"])
def test_saved_copies_and_pickles_are_alike(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    ours = Tokenizer.load(folders[kind])
    ours.save(tmp_path / "model")
    for copy in (Tokenizer.load(tmp_path / "model"), pickle.loads(pickle.dumps(ours))):
        assert copy.encode_batch(REAL) == ours.encode_batch(REAL)
        assert (copy.vocab_size, copy.bos_id, copy.eos_id, copy.pad_id) == (
            ours.vocab_size,
            ours.bos_id,
            ours.eos_id,
            ours.pad_id,
        )


@pytest.mark.parametrize("kind", [*KINDS, "sentencepiece"])
def test_lone_surrogates_and_what_is_no_text_are_refused(folders: dict[str, Path], kind: str) -> None:
    with pytest.raises(InputError, match="lone surrogates"):
        Tokenizer.load(folders[kind]).encode("a\ud800")


@pytest.mark.parametrize("kind", [*KINDS, "sentencepiece"])
@settings(max_examples=60, deadline=None)
@given(context=st.sampled_from(REAL) | UNICODE | MIXED, continuation=UNICODE | MIXED)
def test_pairs_are_split_without_changing_a_token(
    folders: dict[str, Path], kind: str, context: str, continuation: str
) -> None:
    ours = Tokenizer.load(folders[kind])
    if not continuation:
        return
    before, after = ours.encode_pair(context, continuation)
    assert before + after == ours.encode(context + continuation)
    assert after


def test_a_normalised_border_goes_to_the_continuation(folders: dict[str, Path]) -> None:
    ours = Tokenizer.load(folders["byte-level-nfc"])
    before, after = ours.encode_pair("cafe", "\u0301")
    assert ours.decode(before) == "caf"
    assert ours.decode(after) == unicodedata.normalize("NFC", "e\u0301")


def test_spaces_at_the_end_of_a_token_count_for_the_border(tmp_path: Path) -> None:
    backend = Backend(models.BPE({"a": 0, "Ġ": 1, "aĠ": 2, "</s>": 3}, [("a", "Ġ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    assert Tokenizer.load(tmp_path).encode_pair("a", " a") == ([], [2, 0])


def test_others_are_not_called_exact_and_have_no_vocabulary_of_ours(map_neo: Path, tokenizer: Tokenizer) -> None:
    assert tokenizer.is_exact
    assert not Tokenizer.load(map_neo).is_exact
    with pytest.raises(InputError, match="others made"):
        _ = Tokenizer.load(map_neo).vocabulary


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "WordLevel"])
def test_other_kinds_are_named_with_what_they_would_need(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": kind, "vocab": {"a": 0}}}))
    with pytest.raises(InputError, match=f"of kind {kind}, which is not supported: it would need"):
        Tokenizer.load(tmp_path)


def test_borders_of_words_that_lose_spaces_are_refused(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a</w>": 0}, "merges": [], "end_of_word_suffix": "</w>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(InputError, match="end_of_word_suffix = '</w>'"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', '{"model": {"type": "BPE", "vocab": ["a"]}}'])
def test_damaged_files_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged"):
        Tokenizer.load(tmp_path)


def test_merges_that_do_not_fit_the_vocabulary_are_noticed_at_the_first_text(tmp_path: Path) -> None:
    content = {"model": {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": [["a", "b"]]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged"):
        Tokenizer.load(tmp_path).encode("a")


@pytest.mark.parametrize("content", [b"", b"not a model", b"IQ== 0\nIg== 1\n"])
def test_a_model_file_that_is_no_sentencepiece_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match="no SentencePiece model"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_larger_than_the_embedding_is_refused(map_neo: Path) -> None:
    ours = Tokenizer.load(map_neo)
    assert check_fits(ours, 483) is None
    assert "29 pad the embedding" in str(check_fits(ours, 512))
    with pytest.raises(InputError, match=r"483 tokens, but the model's embedding has 480 rows"):
        check_fits(ours, 480)
