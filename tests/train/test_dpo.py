"""DPO against float64, its gradient at the start, and the sums of a batch of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.train.objectives.dpo import PairLogprobs, dpo, dpo_objective, pair_logprobs
from diglot.train.preferences import TokenPair, best_and_worst, collate_pairs, reference_logprobs

SHAPE = DecoderConfig(
    vocab_size=37, d_model=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=24, max_seq_len=32
)
PAIRS = [TokenPair([1, 5, 9], [10, 11, 7], [12, 7]), TokenPair([1, 6], [20, 7], [21, 22, 23, 24, 7])]


def random_pairs(seed: int, num_pairs: int) -> PairLogprobs:
    generator = torch.Generator().manual_seed(seed)
    return PairLogprobs(*(-20 * torch.rand(2, num_pairs, generator=generator)))


def batch(pairs, reference: Decoder):
    logprobs = reference_logprobs(reference, pairs, pad_id=3)
    return collate_pairs(pairs, pad_id=3) | {
        "reference_chosen": logprobs.chosen,
        "reference_rejected": logprobs.rejected,
    }


def test_dpo_agrees_with_numpy_in_float64():
    policy, reference = random_pairs(seed=0, num_pairs=5), random_pairs(seed=1, num_pairs=5)
    difference = [np.asarray(p.chosen, np.float64) - np.asarray(p.rejected, np.float64) for p in (policy, reference)]
    expected = np.logaddexp(0.0, -0.3 * (difference[0] - difference[1]))  # independent of logsigmoid
    np.testing.assert_allclose(np.asarray(dpo(policy, reference, beta=0.3)), expected, rtol=1e-5)


def test_dpo_is_log_two_where_policy_and_reference_agree():
    pairs = random_pairs(seed=0, num_pairs=3)
    np.testing.assert_allclose(dpo(pairs, pairs, beta=0.7), np.log(2), rtol=1e-6)


def test_dpo_gradient_where_policy_equals_reference_is_half_beta():
    policy = PairLogprobs(torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True))
    dpo(policy, PairLogprobs(torch.zeros(1), torch.zeros(1)), beta=0.4).sum().backward()
    assert policy.chosen.grad.item() == pytest.approx(-0.2)
    assert policy.rejected.grad.item() == pytest.approx(0.2)


def test_dpo_gradient_agrees_with_finite_differences():
    policy = tuple(x.double().requires_grad_() for x in random_pairs(seed=2, num_pairs=4))
    reference = PairLogprobs(*(x.double() for x in random_pairs(seed=3, num_pairs=4)))
    assert torch.autograd.gradcheck(lambda c, r: dpo(PairLogprobs(c, r), reference, beta=0.2), policy)


@pytest.mark.parametrize("beta", [0.0, -0.1])
def test_beta_must_be_positive(beta):
    with pytest.raises(ConfigError, match="beta > 0"):
        dpo(random_pairs(0, 1), random_pairs(1, 1), beta=beta)


def test_pair_logprobs_sum_over_the_answers_alone():
    model = Decoder(SHAPE, seed=1)
    found = pair_logprobs(model, collate_pairs(PAIRS, pad_id=3))
    for i, pair in enumerate(PAIRS):
        for answer, value in ((pair.chosen, found.chosen[i]), (pair.rejected, found.rejected[i])):
            ids = pair.prompt + answer
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
            expected = sum(logprobs[t - 1, ids[t]].item() for t in range(len(pair.prompt), len(ids)))
            assert value.item() == pytest.approx(expected, rel=1e-5)


def test_the_reference_is_the_same_in_any_batch_size():
    model = Decoder(SHAPE, seed=1)
    whole, single = (reference_logprobs(model, PAIRS, pad_id=3, batch=b) for b in (8, 1))
    torch.testing.assert_close(whole.chosen, single.chosen)
    torch.testing.assert_close(whole.rejected, single.rejected)


def test_objective_sums_over_pairs_and_does_not_depend_on_their_split():
    policy, reference = Decoder(SHAPE, seed=1), Decoder(SHAPE, seed=2)
    objective = dpo_objective(beta=0.3)
    whole = objective(policy, batch(PAIRS, reference))
    parts = [objective(policy, batch([pair], reference)) for pair in PAIRS]
    assert whole.count == 2
    torch.testing.assert_close(whole.total, parts[0].total + parts[1].total)
    for name in ("reward_margin", "accuracy", "chosen_gain"):
        torch.testing.assert_close(whole.stats[name], parts[0].stats[name] + parts[1].stats[name])
    ours, theirs = (reference_logprobs(m, PAIRS, pad_id=3) for m in (policy, reference))
    margin = 0.3 * ((ours.chosen - ours.rejected) - (theirs.chosen - theirs.rejected))
    torch.testing.assert_close(whole.stats["reward_margin"], margin.sum())
    assert whole.stats["accuracy"].item() == (margin > 0).sum().item()


def test_sft_weight_adds_the_mean_loss_of_the_chosen_answer():
    policy, reference = Decoder(SHAPE, seed=1), Decoder(SHAPE, seed=2)
    pairs = batch(PAIRS, reference)
    plain, mixed = (dpo_objective(0.3, weight)(policy, pairs).total for weight in (0.0, 0.5))
    chosen = reference_logprobs(policy, PAIRS, pad_id=3).chosen
    torch.testing.assert_close(mixed - plain, -0.5 * (chosen[0] / 3 + chosen[1] / 2), rtol=1e-4, atol=1e-5)


def test_a_few_steps_raise_the_margin():
    policy, reference = Decoder(SHAPE, seed=1), Decoder(SHAPE, seed=1)
    pairs, objective = batch(PAIRS, reference), dpo_objective(beta=0.5)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        losses = objective(policy, pairs)
        (losses.total / losses.count).backward()
        optimizer.step()
    after = objective(policy, pairs)
    assert after.stats["accuracy"] == 2
    assert after.total.item() < 2 * np.log(2) * 0.8


def test_ties_and_small_margins_give_no_pair():
    assert best_and_worst([0.5, 0.5], 0.0) is None
    assert best_and_worst([0.5, 0.58, 0.51], 0.1) is None
    assert best_and_worst([0.5, 0.7, 0.7, 0.1, 0.1], 0.1) == (1, 3)
