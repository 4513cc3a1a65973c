"""A small bilingual tokenizer and a small random model to chat with."""

from __future__ import annotations

import pytest
import torch

from diglot.model.decoder import Decoder, DecoderConfig
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from small_store import CHINESE, ENGLISH


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, *train_vocabulary([*ENGLISH, *CHINESE] * 3, TrainingSettings(vocab_size=420)))
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Decoder:
    """Random weights, scaled up so that the next token is no lottery among equals."""
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        ffn_dim=48,
        max_seq_len=96,
    )
    decoder = Decoder(config, seed=3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(8.0 if parameter.dim() > 1 else 1.0)
    return decoder.eval()
