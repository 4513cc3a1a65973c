"""SFT: loss on the assistant's tokens exactly, whatever padding and neighbours there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.objectives.next_token import next_token
from diglot.train.objectives.sft import collate, sft, target_logprobs
from diglot.train.types import IGNORE

PAD = 3
SHAPE = DecoderConfig(
    vocab_size=37, d_model=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=24, max_seq_len=32
)
MASKS = [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 1, 1], [0, 1, 1]]  # whether a token is part of a response


@pytest.fixture
def model() -> Decoder:
    return Decoder(SHAPE, seed=1)


@pytest.fixture
def rows() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(4, 37, len(mask)).tolist() for mask in MASKS]


def batch(rows, masks=MASKS, **settings):
    return collate(rows, [[bool(m) for m in mask] for mask in masks], pad_id=PAD, **({"max_tokens": 30} | settings))


def by_hand(model, row, mask) -> float:
    """Sum of -log p over response tokens, in float64 from the full logits of one sequence alone."""
    with torch.no_grad():
        logits = model(torch.tensor([row])).logits[0].double().numpy()
    total = 0.0
    for t, (token, learned) in enumerate(zip(row, mask, strict=True)):
        if learned:
            total += np.logaddexp.reduce(logits[t - 1]) - logits[t - 1][token]
    return total


def test_targets_are_the_response_tokens_one_to_the_left(rows):
    found = batch(rows)
    assert found["input_ids"][0].tolist() == rows[0][:-1] + [PAD] * 3
    assert found["targets"][0].tolist() == [IGNORE, IGNORE, *rows[0][3:]] + [IGNORE] * 3
    a, b = rows[1][2:4], rows[1][7:]
    assert found["targets"][1].tolist() == [IGNORE, *a, IGNORE, IGNORE, IGNORE, *b]
    assert found["targets"][2].tolist() == rows[2][1:] + [IGNORE] * 6
    assert found["attention_mask"].sum(1).tolist() == [len(row) - 1 for row in rows]


def test_loss_is_the_sum_over_response_tokens_worked_by_hand(model, rows):
    losses = sft(model, batch(rows))
    expected = sum(by_hand(model, row, mask) for row, mask in zip(rows, MASKS, strict=True))
    assert losses.total.item() == pytest.approx(expected, rel=1e-5)
    assert losses.count == sum(map(sum, MASKS))


def test_padding_and_neighbours_change_nothing(model, rows):
    together = sft(model, batch(rows)).total
    alone = sum(sft(model, batch([row], [mask])).total for row, mask in zip(rows, MASKS, strict=True))
    torch.testing.assert_close(together, alone)
    other_padding = batch(rows)
    other_padding["input_ids"][other_padding["input_ids"] == PAD] = 30
    torch.testing.assert_close(sft(model, other_padding).total, together)


def test_it_equals_next_token_when_every_token_is_a_target(model, rows):
    whole = batch([rows[1]], [[0] + [1] * (len(rows[1]) - 1)])
    ours, theirs = sft(model, whole), next_token()(model, whole)
    torch.testing.assert_close(ours.total, theirs.total)
    assert int(ours.count) == int(theirs.count) == len(rows[1]) - 1


def test_gradient_does_not_depend_on_the_microbatch_split(model, rows):
    def gradient(parts):
        model.zero_grad()
        for part in parts:
            sft(model, batch([rows[i] for i in part], [MASKS[i] for i in part])).total.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.testing.assert_close(gradient([[0, 1, 2]]), gradient([[0], [1, 2]]), rtol=1e-4, atol=1e-6)


def test_logprobs_one_by_one_sum_to_the_loss_of_their_row(model, rows):
    found = target_logprobs(model, batch(rows)["input_ids"], batch(rows)["targets"])
    for i, (row, mask) in enumerate(zip(rows, MASKS, strict=True)):
        assert -found.logprobs[found.rows == i].sum().item() == pytest.approx(by_hand(model, row, mask), rel=1e-5)


def test_a_long_conversation_is_cut_at_its_end_and_one_without_an_answer_is_refused(rows):
    found = batch([rows[1]], [MASKS[1]], max_tokens=4)
    assert found["input_ids"].tolist() == [rows[1][:4]]
    assert found["targets"].tolist() == [[IGNORE, *rows[1][2:4], IGNORE]]
    with pytest.raises(ConfigError, match="max_tokens = 2"):
        batch([rows[0]], [MASKS[0]], max_tokens=2)
