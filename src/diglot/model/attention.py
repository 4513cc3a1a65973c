"""Grouped-query attention and who may look at whom.

Shape legend: B sequences, T new tokens, S tokens attended to (cached and new), D width, H query heads, KV key and value
heads, Hd head width.

A layer's mask is described once (`Sight`) and made in the form that the device is fastest with: nothing at all where
the plain causal rule says it, a bool tensor for SDPA, or FlexAttention's block mask on a GPU, which skips the blocks
that nobody looks at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diglot.core.errors import ConfigError
from diglot.model.cache import LayerCache
from diglot.model.config import DecoderConfig
from diglot.model.norm import RMSNorm
from diglot.model.rope import Rope, rotate
from diglot.model.spread import Piece, Spread

Backend = Literal["auto", "sdpa", "flex"]


class Mask(NamedTuple):
    """One layer's mask: `dense` bool [B or 1, 1, T, S], or a block mask, or neither and `causal`.

    Under the causal rule the last query sees all keys, and the one before it all but one. Where a rank looks from two
    places of a sequence, that is true of each of the `pieces`.
    """

    dense: Tensor | None
    causal: bool
    blocks: Any = None
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Sight:
    """Who may look at whom in a forward pass of T tokens behind `start` cached ones.

    document_ids [B, T]: only tokens with the same id. attention_mask [B, S]: false for padding. prefix_lengths [B]: so
    many tokens of each row see each other both ways. bidirectional: all see each other both ways. spread: this rank
    looks only from some of the T tokens, which the others are all of.
    """

    start: int
    T: int
    device: torch.device
    document_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    prefix_lengths: Tensor | None = None
    bidirectional: bool = False
    spread: Spread | None = None

    def __post_init__(self) -> None:
        if self.start and any((self.document_ids is not None, self.prefix_lengths is not None, self.bidirectional)):
            raise ConfigError(
                "documents, prefixes and bidirectional attention cannot be used with a cache that holds tokens: what "
                "is cached has been computed without seeing the new ones. Pass one of the two."
            )

    @property
    def slots(self) -> Tensor | None:
        """int64, the slots of the tokens that are looked from; None for all new ones."""
        if self.spread is None or self.spread.context == 1:
            return None
        return self.spread.queries(self.T, self.device)

    def is_plain(self, window: int | None) -> bool:
        """Whether the causal rule alone says it all."""
        if any(x is not None for x in (self.document_ids, self.attention_mask, self.prefix_lengths)):
            return False
        cut = window is not None and self.start + self.T > window
        return not cut and not self.bidirectional and (self.start == 0 or self.T == 1)

    def mask(self, window: int | None, *, flex: bool = False) -> Mask:
        """The mask of a layer that looks back on `window` tokens, itself included; None for all."""
        if self.is_plain(window):
            return Mask(None, causal=self.T > 1, pieces=self.spread.pieces(self.T) if self.spread else ())
        return Mask(None, False, self._blocks(window)) if flex else Mask(self.dense(window), False)

    def dense(self, window: int | None) -> Tensor:
        """bool [B or 1, 1, T, S]. A padded position may look at itself, so that its softmax is not empty."""
        slots = self.slots
        q = (torch.arange(self.start, self.start + self.T, device=self.device) if slots is None else slots)[:, None]
        k = torch.arange(self.start + self.T, device=self.device)
        if self.document_ids is None and self.attention_mask is None and self.prefix_lengths is None:
            return self._sees(window, None, q, k)[None, None]
        B = next(len(x) for x in (self.document_ids, self.attention_mask, self.prefix_lengths) if x is not None)
        return self._sees(window, torch.arange(B, device=self.device)[:, None, None], q, k)[:, None]

    def _sees(self, window: int | None, b: Tensor | None, q: Tensor, k: Tensor) -> Tensor:
        """Whether the token in slot q may look at the one in slot k, in row b; the rule that all forms share."""
        if self.bidirectional:
            seen = (q >= 0) & (k >= 0)
        else:
            seen = k <= q
            if self.prefix_lengths is not None:
                seen = seen | ((q < self.prefix_lengths[b]) & (k < self.prefix_lengths[b]))
        if window is not None:
            seen = seen & ((q - k).abs() < window)
        if self.document_ids is not None:
            seen = seen & (self.document_ids[b, q] == self.document_ids[b, k])
        if self.attention_mask is not None:
            seen = seen & self.attention_mask[b, k]
        return seen | (q == k) if self.attention_mask is not None else seen

    def _blocks(self, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        slots = self.slots

        def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return self._sees(window, b, q + self.start if slots is None else slots[q], k)

        rows = (self.document_ids, self.attention_mask, self.prefix_lengths)
        B = next((len(x) for x in rows if x is not None), None)
        num_queries = self.T if slots is None else len(slots)
        return create_block_mask(rule, B, None, num_queries, self.start + self.T, device=str(self.device))


class Attention(nn.Module):
    """Grouped-query attention of one layer (Ainslie et al. 2023): MHA where KV = H, MQA where KV = 1.

    Query, key and value projections are one matrix: on a CPU one product of [D, 3D] is faster than three of [D, D].
    all_keys: where ranks share a sequence, what makes keys and values of all its tokens out of this rank's.
    """

    all_keys: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.heads[index], config.kv_heads[index]
        self.head_dim, self.scale, self.softcap = config.head_dim, config.score_scale, config.attention_softcap
        width = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        self.qkv = nn.Linear(config.d_model, width, bias=config.qkv_bias)
        self.out = nn.Linear(self.num_heads * self.head_dim, config.d_model, bias=config.out_bias)
        self.q_norm = RMSNorm.of_heads(config) if config.qk_norm else None
        self.k_norm = RMSNorm.of_heads(config) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, rope: Rope, mask: Mask, cache: LayerCache | None) -> Tensor:
        H, KV = self.num_heads, self.num_kv_heads
        qkv = self.qkv(x_BTD)
        B, T, _ = qkv.shape  # more tokens than in x where ranks share the matrices
        qkv = qkv.view(B, T, H + 2 * KV, self.head_dim)
        qk, v = qkv[:, :, : H + KV], qkv[:, :, H + KV :]
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat((self.q_norm(qk[:, :, :H]), self.k_norm(qk[:, :, H:])), dim=2)
        qk = rotate(qk, rope).transpose(1, 2)
        q, k = qk[:, :H], qk[:, H:]
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)
        if self.all_keys is not None:
            q, k, v = _as_multiplied(q), *self.all_keys(_as_multiplied(k), _as_multiplied(v))
        y = self._attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(B, T, H * self.head_dim))  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        if mask.pieces:
            plain = mask._replace(pieces=())
            cut = [(q[:, :, start:stop], k[:, :, :seen], v[:, :, :seen]) for start, stop, seen in mask.pieces]
            return torch.cat([self._attend(*piece, plain) for piece in cut], dim=2)
        grouped = self.num_heads != self.num_kv_heads
        if mask.blocks is not None:
            capped = None if self.softcap is None else functools.partial(_cap_score, self.softcap)
            return _flex()(  # type: ignore[no-any-return]
                q, k, v, score_mod=capped, block_mask=mask.blocks, scale=self.scale, enable_gqa=grouped
            )
        if self.softcap is not None:
            return _capped_attention(q, k, v, mask, self.scale, self.softcap)
        if mask.causal and q.shape[2] < k.shape[2]:
            bias = _lower_right()(q.shape[2], k.shape[2])
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale, enable_gqa=grouped)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask.dense, is_causal=mask.causal, scale=self.scale, enable_gqa=grouped
        )


def _capped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, cap: float) -> Tensor:
    """softmax(cap tanh(scale q k / cap)) v, which SDPA has no kernel for (Gemma 2)."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = cap * torch.tanh(q @ k.transpose(-1, -2) * (scale / cap))
    seen = mask.dense
    if mask.causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.float().softmax(dim=-1).to(v.dtype) @ v


def _cap_score(cap: float, score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return cap * torch.tanh(score / cap)


def _as_multiplied(x: Tensor) -> Tensor:
    """In the precision that attention multiplies in under autocast: half of what travels, and what kernels ask for."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _lower_right() -> Callable[[int, int], Any]:
    """The causal rule for the last of more keys than queries, by a kernel that knows it where there is one."""
    from torch.nn.attention.bias import causal_lower_right  # imports the compiler: seconds

    return causal_lower_right


@functools.cache
def _flex() -> Callable[..., Any]:
    """FlexAttention, compiled where that makes a kernel of it; on a CPU it runs as written, for tests."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled if torch.cuda.is_available() else flex_attention  # type: ignore[return-value]
