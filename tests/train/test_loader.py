"""A training step's batches hold the tokens that the order names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diglot.core.errors import InputError
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.loader import batches_of, sequence
from diglot.train.objectives.next_token import next_token
from diglot.train.order import DataOrder, PhaseMix, plan_order
from diglot.train.sequences import num_sequences
from diglot.train.types import IGNORE

T = 8
STREAMS = {"a.en": np.arange(100, 150, dtype=np.uint16), "b.zh": np.arange(500, 505, dtype=np.uint32)}


def order() -> DataOrder:
    sizes = {name: num_sequences(len(tokens), T) for name, tokens in STREAMS.items()}
    mix = PhaseMix(name="one", num_train_steps=3, sequences_per_train_step=4, mixture={"a.*": 2, "*": 1})
    return plan_order([mix], sizes, 0, max_epochs=None)


def test_rows_are_the_sequences_of_the_order_and_targets_lie_one_further() -> None:
    batch_at = batches_of(order(), 0, STREAMS, sequence_length=T)
    for train_step in range(3):
        (batch,) = batch_at(train_step)
        for row, (stream, index) in enumerate(order().sequences(train_step)):
            tokens = STREAMS[stream][index * T : index * T + T + 1]
            assert batch["input_ids"][row, : len(tokens) - 1].tolist() == tokens[:-1].tolist()
            assert batch["targets"][row, : len(tokens) - 1].tolist() == tokens[1:].tolist()
            assert set(batch["targets"][row, len(tokens) - 1 :].tolist()) <= {IGNORE}
        assert batch["input_ids"].min() >= 0


def test_microbatches_are_the_same_rows_cut() -> None:
    whole = batches_of(order(), 0, STREAMS, sequence_length=T)(1)[0]
    parts = batches_of(order(), 0, STREAMS, sequence_length=T, microbatch_sequences=3)(1)
    assert [len(part["input_ids"]) for part in parts] == [3, 1]
    assert [row for part in parts for row in part["targets"].tolist()] == whole["targets"].tolist()


def test_a_phase_starts_where_it_is_told() -> None:
    later = batches_of(order(), 2, STREAMS, sequence_length=T)(0)[0]
    assert later["input_ids"].tolist() == batches_of(order(), 0, STREAMS, sequence_length=T)(2)[0]["input_ids"].tolist()


def test_targets_behind_a_document_end_are_masked_on_request() -> None:
    tokens = {"a.en": np.array([5, 6, 2, 7, 8, 2, 9, 3, 4], dtype=np.uint16)}
    mix = PhaseMix(name="one", num_train_steps=1, sequences_per_train_step=1, mixture={})
    batch_at = batches_of(plan_order([mix], {"a.en": 1}, 0, None), 0, tokens, sequence_length=T, mask_after=2)
    assert batch_at(0)[0]["targets"].tolist() == [[6, 2, IGNORE, 8, 2, IGNORE, 3, 4]]


def test_document_numbers_change_behind_a_document_end() -> None:
    tokens = {"a.en": np.array([5, 6, 2, 7, 8, 2, 2, 3, 4], dtype=np.uint16)}
    mix = PhaseMix(name="one", num_train_steps=1, sequences_per_train_step=1, mixture={})
    order = plan_order([mix], {"a.en": 1}, 0, None)
    (batch,) = batches_of(order, 0, tokens, sequence_length=T, document_end=2)(0)
    assert batch["document_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 2, 3]]
    assert "document_ids" not in batches_of(order, 0, tokens, sequence_length=T)(0)[0]


def test_a_packed_document_is_learned_as_if_it_stood_alone() -> None:
    config = DecoderConfig(vocab_size=50, d_model=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=24)
    model, ids = Decoder(config, seed=1), [5, 6, 9, 2, 7, 8, 11, 2, 3]
    mix = PhaseMix(name="one", num_train_steps=1, sequences_per_train_step=1, mixture={})
    order, tokens = plan_order([mix], {"a.en": 1}, 0, None), {"a.en": np.array(ids, dtype=np.uint16)}

    def loss(**settings: int) -> float:
        (batch,) = batches_of(order, 0, tokens, sequence_length=T, mask_after=2, **settings)(0)
        return next_token()(model, batch).total.item()

    def alone(document: list[int], first_position: int) -> float:
        inputs, targets = torch.tensor([document[:-1]]), torch.tensor([document[1:]])
        positions = torch.arange(first_position, first_position + inputs.shape[1])[None]
        logits = model(inputs, positions_BT=positions).logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()

    apart = alone([5, 6, 9, 2], 0) + alone([7, 8, 11, 2], 4)
    assert loss(document_end=2) == pytest.approx(apart, rel=1e-5)
    assert abs(loss() - apart) > 2e-3  # the second document sees the first


def test_an_id_outside_the_vocabulary_names_stream_and_training_step() -> None:
    tokens = {"a.en": np.array([5, 6, 2, 7, 8, 50, 9, 3, 4], dtype=np.uint16)}
    mix = PhaseMix(name="one", num_train_steps=3, sequences_per_train_step=1, mixture={})
    order = plan_order([mix], {"a.en": 1}, 0, None)
    with pytest.raises(InputError, match=r"training step 2 reads token id 50 in stream 'a\.en', sequence 0.*0\.\.49"):
        batches_of(order, 2, tokens, sequence_length=T, vocab_size=50)(0)
    batches_of(order, 2, tokens, sequence_length=T, vocab_size=51)(0)
    short = {"a.en": np.array([5, 6], dtype=np.uint16)}  # padding is no id
    batches_of(order, 0, short, sequence_length=T, vocab_size=51)(0)


def test_sequences_cover_a_stream_without_overlap_of_targets() -> None:
    tokens = STREAMS["a.en"]
    targets = [t for k in range(num_sequences(len(tokens), T)) for t in sequence(tokens, "a.en", k, T)[1:].tolist()]
    assert targets == tokens[1 : 1 + len(targets)].tolist()


def test_a_stream_that_shrank_is_reported() -> None:
    with pytest.raises(InputError, match=r"'a\.en' ends before sequence 6"):
        sequence(STREAMS["a.en"][:50], "a.en", 6, T)
