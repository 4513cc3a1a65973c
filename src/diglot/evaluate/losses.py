"""The loss of given token sequences under a model, batched by length for the CPU.

Shape legend: N sequences, B sequences of a batch, T tokens, K scored positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from diglot.evaluate.ngram_counts import Ints

if TYPE_CHECKING:
    from diglot.model.decoder import Decoder
    from diglot.train.parallel.ranks import Ranks

NOT_SCORED = -1
MAX_BATCH_TOKENS = 4096
LOGIT_ROWS = 1024  # positions whose logits exist at a time: 1024 x 32k floats are 128 MB


def sequence_nats(
    model: Decoder,
    inputs: Sequence[Ints],
    targets: Sequence[Ints],
    advance: Callable[[int], None] = lambda num_tokens: None,
    ranks: Ranks | None = None,
) -> NDArray[np.float64]:
    """Sum of -log p(target) over each sequence's scored positions, [N], in nats; sums in float64.

    Products are those of the model's weights: float32 as a rule. Under autocast layers take its precision, and the
    output matrix keeps that of its weights, as rounded logits would be the larger part of the error.

    Args:
        inputs: N arrays [T_i] of token ids, each at most the model's max_seq_len.
        targets: N arrays [T_i], what follows each input, or NOT_SCORED.
        advance: called after each batch with the number of input tokens read.
        ranks: those among whom the model is divided; all of them call this with the same sequences, of which each
            takes its share, and all get the result. N is at least 1 then.
    """
    assert ranks is None or ranks.num_readers == ranks.count, "ranks that read the same would count it twice"
    nats = np.zeros(len(inputs))
    lengths = [len(ids) for ids in inputs]
    order = sorted(range(len(inputs)), key=lambda i: (-lengths[i], i))
    num_shares, share = (1, 0) if ranks is None else (ranks.num_readers, ranks.reader)
    shares = [_batches(order[first::num_shares], lengths) for first in range(num_shares)]
    model.eval()
    # What FSDP gathers in inference mode cannot be used in training afterwards.
    with torch.inference_mode() if ranks is None or ranks.count == 1 else torch.no_grad():
        for batch in shares[share]:
            nats[batch] = _batch_nats(model, [inputs[i] for i in batch], [targets[i] for i in batch])
            advance(sum(len(inputs[i]) for i in batch))
        for _ in range(max(map(len, shares)) - len(shares[share])):  # the others gather weights from this rank too
            shortest = order[-1]
            _batch_nats(model, [inputs[shortest]], [targets[shortest]])
    return nats if ranks is None else np.array(ranks.sums(nats.tolist()))


def _batches(order: list[int], lengths: list[int]) -> list[list[int]]:
    """Sequences in this order, longest first, in groups of at most MAX_BATCH_TOKENS tokens with padding (or of one)."""
    batches: list[list[int]] = []
    for index in order:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > MAX_BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def _batch_nats(model: Decoder, inputs: list[Ints], targets: list[Ints]) -> NDArray[np.float64]:
    """[B] for sequences of which the first is the longest. Padding on the right needs no mask: attention is causal."""
    input_ids_BT = np.zeros((len(inputs), len(inputs[0])), dtype=np.int64)
    targets_BT = np.full_like(input_ids_BT, NOT_SCORED)
    for row, (ids, following) in enumerate(zip(inputs, targets, strict=True)):
        input_ids_BT[row, : len(ids)] = ids
        targets_BT[row, : len(ids)] = following
    row_K, column_K = np.nonzero(targets_BT != NOT_SCORED)
    device = model.embed.weight.device
    hidden_BTD = model.hidden(torch.from_numpy(input_ids_BT).to(device))
    hidden_KD = hidden_BTD[torch.from_numpy(row_K).to(device), torch.from_numpy(column_K).to(device)]
    targets_K = torch.from_numpy(targets_BT[row_K, column_K]).to(device)
    losses_K = np.zeros(len(row_K))
    for start in range(0, len(row_K), LOGIT_ROWS):  # not all logits at once
        part = slice(start, start + LOGIT_ROWS)
        with torch.autocast(device.type, enabled=False):
            logits_KV = model.logits(hidden_KD[part]).float()
        losses = cross_entropy(logits_KV, targets_K[part], reduction="none")
        losses_K[part] = losses.cpu().numpy()
    return np.bincount(row_K, weights=losses_K, minlength=len(inputs)).astype(np.float64)
