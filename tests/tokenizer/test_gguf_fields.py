"""The tokenizer in a GGUF file gives the ids that the original gives, in llama.cpp."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jinja2
import pytest
from bilingual_texts import TEXTS

from diglot.core.errors import InputError
from diglot.core.storage import write_json, write_text
from diglot.evaluate.agreement import TRICKY
from diglot.generate.chat import write_template
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.gguf import write_gguf
from diglot.tokenizer.export import CHAT_TEMPLATE
from diglot.tokenizer.gguf import PRE_TOKENIZERS, plain_template, shadowed_names, tokenizer_fields
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.vocabulary import SPECIAL_TOKENS, Vocabulary

SAMPLES = [*TEXTS, *TRICKY, "", "a", " ", "   x", "\t\t\n", "软件包 and package 123", "ß€𝄞", "don't stop: it's 2023!"]


def in_llama_cpp(fields: dict[str, Any], num_rows: int, tmp_path: Path) -> Any:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, in diglot[llama]")
    from diglot.evaluate import llama_process

    shape = DecoderConfig(
        vocab_size=num_rows, d_model=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, ffn_dim=8
    )
    write_gguf(Decoder(shape), tmp_path / "model.gguf", fields)
    llama_process.open_file(str(tmp_path / "model.gguf"), 64)
    return llama_process


def test_our_own_vocabulary_gives_the_same_ids(trained: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    llama = in_llama_cpp(tokenizer_fields(trained, tokenizer.vocab_size + 3), tokenizer.vocab_size + 3, tmp_path)
    for text in SAMPLES:
        assert llama.encode(text) == tokenizer.encode(text), text


def test_the_one_character_on_which_ids_differ_is_the_mark_of_spaces(
    trained: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    llama = in_llama_cpp(tokenizer_fields(trained, tokenizer.vocab_size), tokenizer.vocab_size, tmp_path)
    assert llama.encode("a\u2581b") == tokenizer.encode("a b") != tokenizer.encode("a\u2581b")


def test_special_tokens_rows_to_spare_and_the_template_are_written(trained: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_text(tmp_path / "chat_template.jinja", "{{- bos_token -}}{%- generation -%}x{%- endgeneration -%}")
    size = Tokenizer.load(tmp_path).vocab_size
    fields = tokenizer_fields(tmp_path, size + 2)
    assert fields["tokenizer.ggml.tokens"][:8] == list(SPECIAL_TOKENS)
    assert fields["tokenizer.ggml.tokens"][-2:] == [f"[PAD{size}]", f"[PAD{size + 1}]"]
    assert len(fields["tokenizer.ggml.scores"]) == len(fields["tokenizer.ggml.token_type"]) == size + 2
    assert fields["tokenizer.ggml.eos_token_id"] == SPECIAL_TOKENS.index("</s>")
    assert fields["tokenizer.ggml.eot_token_id"] == SPECIAL_TOKENS.index("<|end|>")
    assert fields["tokenizer.chat_template"] == "{{- bos_token -}}x"
    with pytest.raises(InputError, match="embedding has 100 rows"):
        tokenizer_fields(tmp_path, 100)


def test_the_chat_template_without_marks_renders_the_same(tmp_path: Path) -> None:
    write_template(tmp_path)
    template = plain_template((tmp_path / CHAT_TEMPLATE).read_text(encoding="utf-8"))
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    text = (
        jinja2.Environment()
        .from_string(template)
        .render(messages=messages, bos_token="<s>", add_generation_prompt=True)
    )
    assert text == "<s><|user|>Hi<|end|><|assistant|>Hello<|end|><|assistant|>"


def test_pieces_that_form_the_name_of_a_special_token_are_known() -> None:
    pieces = ("<s", "/s", "<", "s", ">", "/", *(c for c in "\t\n\r "))
    assert shadowed_names(Vocabulary(pieces)) == ["<s>"]
    assert shadowed_names(Vocabulary(("<", "s", ">"))) == []


@pytest.mark.parametrize("expression", PRE_TOKENIZERS)
def test_a_byte_level_tokenizer_gives_the_same_ids(expression: str | None, tmp_path: Path) -> None:
    theirs = byte_level(expression, tmp_path)
    fields = tokenizer_fields(tmp_path, 600)
    assert fields["tokenizer.ggml.pre"] == PRE_TOKENIZERS[expression]
    assert fields["tokenizer.ggml.eos_token_id"] == theirs.token_to_id("<|endoftext|>")
    llama = in_llama_cpp(fields, 600, tmp_path)
    for text in SAMPLES:
        if "<s>" not in text:
            assert llama.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text


def test_a_byte_level_tokenizer_that_cuts_otherwise_is_refused(tmp_path: Path) -> None:
    byte_level(r"\w+|\s", tmp_path)
    with pytest.raises(InputError, match="none of the ways known here: gpt-2, llama-bpe, qwen2"):
        tokenizer_fields(tmp_path, 600)


def test_a_sentencepiece_model_of_others_gives_the_same_ids(tmp_path: Path) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXTS for line in text.splitlines()]),
        model_writer=model,
        model_type="bpe",
        vocab_size=520,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    llama = in_llama_cpp(tokenizer_fields(tmp_path, 520), 520, tmp_path)
    for text in SAMPLES:
        if text and "<s>" not in text:
            assert llama.encode(text) == theirs.encode(text), text


def test_folders_without_a_tokenizer_that_llama_cpp_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no tokenizer that llama.cpp can have"):
        tokenizer_fields(tmp_path, 10)
    write_json(tmp_path / "tokenizer.json", {"model": {"type": "WordPiece", "vocab": {}}})
    with pytest.raises(InputError, match=r"holds no tokenizer that llama.cpp can have"):
        tokenizer_fields(tmp_path, 10)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        tokenizer_fields(tmp_path, 10)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(InputError, match="no SentencePiece model"):
        tokenizer_fields(tmp_path, 10)


def byte_level(expression: str | None, folder: Path) -> Any:
    """A byte-level BPE over the small texts, as Hugging Face's library saves one."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=expression is None)
    cut = [] if expression is None else [pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")]
    made.pre_tokenizer = pre_tokenizers.Sequence([*cut, level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=590, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet),
    )
    made.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "bos_token": None})
    return made
