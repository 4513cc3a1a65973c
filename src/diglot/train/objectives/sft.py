"""Supervised fine-tuning: next-token loss on what the assistant says, and on nothing else.

Sequences are padded on the right. Under a causal mask no real token sees padding, so a batch needs no attention mask
and a conversation's loss does not depend on its neighbours; the mask in the batch only counts real tokens. Only
positions with a target pay for the output projection.
Shapes: B sequences, T tokens, N positions with a target, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder
from diglot.model.experts import RouterStats
from diglot.train.objectives.next_token import linear_cross_entropy
from diglot.train.objectives.router import with_router_losses
from diglot.train.types import IGNORE, Batch, ItemLosses


class TargetLogprobs(NamedTuple):
    logprobs: Tensor  # [N], log p(target) in nats, in reading order
    rows: Tensor  # [N], the sequence each belongs to


def sft(model: Decoder, batch: Batch) -> ItemLosses:
    """Summed loss in nats over assistant tokens; an item is a token. Equals `next_token()` where no target is
    ignored."""
    hidden_ND, targets_N, _, routers = _at_targets(model, batch["input_ids"], batch["targets"])
    total, _ = linear_cross_entropy(hidden_ND, model.lm_head.weight, targets_N, softcap=model.config.logit_softcap)
    total, stats = with_router_losses(total, len(targets_N), routers, model, batch)
    return ItemLosses(total, len(targets_N), stats)


def target_logprobs(model: Decoder, input_ids_BT: Tensor, targets_BT: Tensor) -> TargetLogprobs:
    """Log-probabilities of the targets that are not ignored, one by one."""
    hidden_ND, targets_N, rows_N, _ = _at_targets(model, input_ids_BT, targets_BT)
    logits_NV = model.logits(hidden_ND).float()
    return TargetLogprobs(-F.cross_entropy(logits_NV, targets_N, reduction="none"), rows_N)


def collate(
    ids: Sequence[Sequence[int]], is_response: Sequence[Sequence[bool]], *, pad_id: int, max_tokens: int
) -> dict[str, Tensor]:
    """Rendered conversations -> a batch padded on the right to the longest: `input_ids`, `targets`, `attention_mask`.

    A target is the next token where that token is part of a response, else IGNORE. Conversations longer than
    `max_tokens` are cut at the end.
    Raises: ConfigError when a conversation keeps no target, as an answer that starts behind the cut does.
    """
    lengths = [min(len(row), max_tokens + 1) - 1 for row in ids]
    input_ids = torch.full((len(ids), max(lengths)), pad_id, dtype=torch.int64)
    targets = torch.full_like(input_ids, IGNORE)
    is_real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    for i, (row, mask, length) in enumerate(zip(ids, is_response, lengths, strict=True)):
        input_ids[i, :length] = torch.tensor(row[:length])
        learned = torch.tensor(mask[1 : length + 1])
        if not learned.any():
            raise ConfigError(
                f"a conversation of {len(row)} tokens has no answer within max_tokens = {max_tokens}. "
                "Leave it out or raise max_tokens."
            )
        targets[i, :length] = torch.where(learned, torch.tensor(row[1 : length + 1]), IGNORE)
    return {"input_ids": input_ids, "targets": targets, "attention_mask": is_real}


def _at_targets(
    model: Decoder, input_ids_BT: Tensor, targets_BT: Tensor
) -> tuple[Tensor, Tensor, Tensor, tuple[RouterStats, ...]]:
    """Hidden states [N, D] where there is a target, the targets [N], the row of each [N], and what routers did."""
    rows_N, columns_N = torch.nonzero(targets_BT != IGNORE, as_tuple=True)
    trunk = model.trunk(input_ids_BT)
    return trunk.hidden[rows_N, columns_N], targets_BT[rows_N, columns_N], rows_N, trunk.routers
