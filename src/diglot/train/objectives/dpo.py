"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

Shapes: P pairs, B = 2P sequences (the chosen ones first, then the rejected ones in the same order), T tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder
from diglot.train.objectives.sft import target_logprobs
from diglot.train.types import IGNORE, Batch, ItemLosses, Objective


class PairLogprobs(NamedTuple):
    chosen: Tensor  # [P], log p(response | prompt) in nats, summed over response tokens
    rejected: Tensor  # [P]


def dpo(policy: PairLogprobs, reference: PairLogprobs, *, beta: float) -> Tensor:
    """Direct preference optimisation, one loss per pair.

    -log sigmoid(beta * ((chosen - rejected) of policy - (chosen - rejected) of reference))
    Args:
        policy: from the model being trained; prompt and padding tokens already left out.
        reference: from the frozen reference model, without gradient.
        beta: > 0, per nat. Smaller lets the policy move further from the reference.
    Returns: [P], nats, not reduced. Equals log 2 where policy and reference agree.
    Raises: ConfigError if beta is not positive.
    """
    if beta <= 0:
        raise ConfigError(f"beta = {beta}, but DPO needs beta > 0; to train without preferences use kind: finetune.")
    margin_P = (policy.chosen - policy.rejected) - (reference.chosen - reference.rejected)
    return -F.logsigmoid(beta * margin_P)


def pair_logprobs(model: Decoder, batch: Batch) -> PairLogprobs:
    """Summed response log-probabilities of each pair of a batch made by `collate` from chosen, then rejected."""
    found = target_logprobs(model, batch["input_ids"], batch["targets"])
    sums_B = torch.zeros(len(batch["input_ids"]), device=found.logprobs.device).index_add(0, found.rows, found.logprobs)
    return PairLogprobs(*sums_B.chunk(2))


def dpo_objective(beta: float, sft_weight: float = 0.0) -> Objective:
    """The loop's objective for pair batches that also hold `reference_chosen` and `reference_rejected` [P].

    An item is a pair. The stats are sums over pairs: `reward_margin` (beta times nats), `accuracy` (1 where the policy
    prefers the chosen answer by more than the reference does), `chosen_gain` (nats by which the chosen answer became
    likelier).

    Args:
        sft_weight: adds this many times the chosen answer's mean loss per token (Pang et al. 2024, arXiv 2404.19733),
            which keeps good answers from becoming less likely together with bad ones. 0 is plain DPO.
    """
    if sft_weight < 0:
        raise ConfigError(f"sft_weight = {sft_weight}, but a weight is >= 0. Use 0 for plain DPO.")

    def objective(model: Decoder, batch: Batch) -> ItemLosses:
        policy = pair_logprobs(model, batch)
        reference = PairLogprobs(batch["reference_chosen"], batch["reference_rejected"])
        losses_P = dpo(policy, reference, beta=beta)
        if sft_weight:
            num_tokens_P = (batch["targets"].chunk(2)[0] != IGNORE).sum(dim=-1)
            losses_P = losses_P - sft_weight * policy.chosen / num_tokens_P
        with torch.no_grad():
            chosen_gain_P = policy.chosen - reference.chosen
            margin_P = beta * (chosen_gain_P - (policy.rejected - reference.rejected))
            stats = {
                "reward_margin": margin_P.sum(),
                "accuracy": (margin_P > 0).float().sum(),
                "chosen_gain": chosen_gain_P.sum(),
            }
        return ItemLosses(losses_P.sum(), len(losses_P), stats)

    return objective
