"""Writing one token at a time with the decoder as it stands: every model can, and `generate/fused.py` is faster.

Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diglot.model.cache import KVCache
from diglot.model.decoder import Decoder


class PlainDecoder:
    """Rows being written and their cache, with the methods of `FusedDecoder`."""

    def __init__(self, model: Decoder, pads_B: Tensor, slots: int) -> None:
        self.model = model.eval()
        weight = model.embed.weight
        self.pads_B = pads_B.to(weight.device)
        self.is_padded = bool(pads_B.any())
        self.cache = KVCache.allocate(model.config, len(pads_B), slots, weight.dtype, weight.device)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.pads_B, self.cache = self.pads_B[rows], self.cache.select(rows)

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Logits of the token after the last of `ids_BT`, which is appended to the cache: float32 [B, V]."""
        mask = None
        if self.is_padded:
            slots = torch.arange(self.cache.length + ids_BT.shape[1], device=self.pads_B.device)
            mask = slots >= self.pads_B[:, None]
        hidden_BTD = self.model.hidden(ids_BT, attention_mask_BT=mask, cache=self.cache)
        return self.model.logits(hidden_BTD[:, -1]).float()
