"""Short texts without the kernel, long ones with it, on any number of threads: the same tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from bilingual_texts import CHINESE, CODE, ENGLISH
from hypothesis import given, settings
from hypothesis import strategies as st

import diglot
from diglot.core.errors import InputError
from diglot.tokenizer import encoder as encoder_module
from diglot.tokenizer.encoder import SLOWLY, VocabularyEncoder
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.vocabulary import encode_oracle

LONG = (ENGLISH + CHINESE + CODE) * 10


def loaded(tokenizer: Tokenizer) -> VocabularyEncoder:
    """One that has its kernel already."""
    encoder = VocabularyEncoder(tokenizer.vocabulary)
    _ = encoder._tables
    return encoder


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from([ENGLISH, CHINESE, CODE, " " * 300, ""])
    )
)
def test_both_ways_give_the_same_tokens(tokenizer: Tokenizer, texts: list[str]) -> None:
    slowly, fast = VocabularyEncoder(tokenizer.vocabulary), loaded(tokenizer)
    assert slowly.encode_batch(texts, threads=False) == fast.encode_batch(texts, threads=False)
    lists, (tokens, offsets) = fast.encode_batch(texts, threads=False), slowly.encode_arrays(texts, threads=False)
    assert [tokens[start:stop].tolist() for start, stop in pairwise(offsets)] == lists


def test_the_kernel_is_loaded_for_much_text_and_for_stretches_without_a_cut(tokenizer: Tokenizer) -> None:
    encoder = VocabularyEncoder(tokenizer.vocabulary)
    for _ in range(SLOWLY // len(LONG)):
        expected = encoder.encode_batch([LONG], threads=False)
    assert "_tables" not in vars(encoder)
    assert encoder.encode_batch([LONG], threads=False) == expected
    assert "_tables" in vars(encoder)
    encoder = VocabularyEncoder(tokenizer.vocabulary)
    assert encoder.encode_batch([" " * 101], threads=False) == [encode_oracle(" " * 101, tokenizer.vocabulary.ids)]
    assert "_tables" in vars(encoder)


def test_a_chat_loads_neither_numba_nor_other_encoders(trained: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from diglot.tokenizer.tokenizer import Tokenizer\n"
        f"Tokenizer.load(Path({str(trained)!r})).encode('How do I install a package? 如何安装软件包？')\n"
        "print([name for name in ('numba', 'tokenizers', 'sentencepiece', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(diglot.__file__).parents[1])}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("num_cores", [1, 2, 3, 7])
def test_threads_change_nothing(tokenizer: Tokenizer, num_cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", "", *(f"{LONG[n:]} {n}" for n in range(60)), "", "", LONG * 20, "a", "", ""]
    expected = [tokens for text in texts for tokens in loaded(tokenizer).encode_batch([text], threads=False)]
    monkeypatch.setattr(encoder_module, "host", lambda: type("Host", (), {"num_cores": num_cores}))
    encoder = loaded(tokenizer)
    for _ in range(2):
        assert encoder.encode_batch(texts, threads=True) == expected
    tokens, offsets = encoder.encode_arrays(texts, threads=True)
    assert len(offsets) == len(texts) + 1
    assert [tokens[start:stop].tolist() for start, stop in pairwise(offsets)] == expected


@pytest.mark.parametrize("wrong", ["a\ud800", None, b"bytes"])
def test_what_is_no_text_is_refused_by_both_ways(tokenizer: Tokenizer, wrong: str) -> None:
    for encoder in (VocabularyEncoder(tokenizer.vocabulary), loaded(tokenizer)):
        for encode in (encoder.encode_batch, encoder.encode_arrays):
            with pytest.raises(InputError, match="lone surrogates"):
                encode(["fine", wrong], threads=False)
