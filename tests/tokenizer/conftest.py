"""A small vocabulary over small real texts in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from bilingual_texts import TEXTS, VOCAB_SIZE

from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of VOCAB_SIZE tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, *train_vocabulary(TEXTS, TrainingSettings(vocab_size=VOCAB_SIZE)))
    return folder


@pytest.fixture(scope="session")
def tokenizer(trained: Path) -> Tokenizer:
    return Tokenizer.load(trained)
