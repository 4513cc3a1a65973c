"""Keys and values of tokens already read, so that each new token costs one column of attention and not a whole pass.

Every row of a batch fills the same slots: shorter prompts are padded on the left, and `attention_mask_BT` says which
slots hold real tokens. That keeps the write a plain slice copy; rows with their own write positions would need a
scatter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diglot.core.errors import ConfigError

if TYPE_CHECKING:
    from diglot.model.config import DecoderConfig


class LayerCache:
    """One layer's keys and values, [B, KV, max_len, Hd] each; slots from `length` on are free."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v, self.length = k, v, 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v [B, KV, T, Hd] behind what is there; return all keys and values so far."""
        start, stop = self.length, self.length + k.shape[2]
        if stop > self.k.shape[2]:
            raise ConfigError(f"{stop} tokens do not fit a cache of {self.k.shape[2]}. Allocate a larger max_len.")
        self.k[:, :, start:stop] = k
        self.v[:, :, start:stop] = v
        self.length = stop
        return self.k[:, :, :stop], self.v[:, :, :stop]


class KVCache:
    """The caches of all layers. `length` counts the slots filled by each row, padding included."""

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers, self.length = layers, 0

    @classmethod
    def allocate(
        cls,
        config: DecoderConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """An empty cache for `batch` rows of at most `max_len` tokens, prompt, padding and answer together."""
        shapes = [(batch, heads, max_len, config.head_dim) for heads in config.kv_heads]
        return cls(
            [
                LayerCache(
                    torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device)
                )
                for shape in shapes
            ]
        )

    def select(self, rows: Tensor) -> KVCache:
        """A copy with only these rows (int64 indices), in this order: to drop finished answers or to branch."""
        chosen = KVCache([LayerCache(layer.k[rows], layer.v[rows]) for layer in self.layers])
        chosen.truncate(self.length)
        return chosen

    def truncate(self, length: int) -> None:
        """Forget everything from slot `length` on."""
        self.length = length
        for layer in self.layers:
            layer.length = length
