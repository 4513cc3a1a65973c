"""The decoder's forward pass, arranged for writing one token at a time on a CPU.

With one new token per row the arithmetic is small, and a step's time goes into starting operations and reading
weights. So, against `model/decoder.py`, which is the definition (a test holds the logits equal to float32 rounding):
- the norm's weight is multiplied into the matrix behind it, and the norm's scale is applied to that matrix's result;
- channel pairs that RoPE turns together lie side by side, so that turning is one complex product, in place;
- matrices are stored input-major, which single-row products read faster, and add into the residual stream in place;
- keys and values share one cache, so that a step writes both with one copy.
About a third of the operations of the plain pass are left, and none goes through a module.

Shapes: B rows, T new tokens, S slots filled so far with these, D width, H query heads, KV key and value heads, Hd head
width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diglot.model.attention import Attention
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder, Layer
from diglot.model.feed_forward import ACTIVATIONS, FeedForward
from diglot.model.norm import RMSNorm


class LayerWeights(NamedTuple):
    """One layer, float32, ready for `x @ w`."""

    qkv: Tensor  # [D, (H + 2 KV) Hd]
    qkv_bias: Tensor | None
    q_norm: Tensor | None  # [Hd]
    k_norm: Tensor | None
    out: Tensor  # [H Hd, D]
    gate: Tensor  # [D, F]
    up: Tensor  # [D, F]
    down: Tensor  # [F, D]


def is_fusible(config: DecoderConfig) -> bool:
    """Whether this arrangement knows all that a model does; `generate/plain.py` writes with the others."""
    return not any(
        (
            config.sliding_window is not None,
            config.sandwich_norm,
            config.out_bias,
            config.ffn_bias,
            config.attention_softcap is not None,
            config.logit_softcap is not None,
            config.moe is not None,
        )
    )


class FusedWeights:
    """A model's weights rearranged: a copy, made once per call of `generate`."""

    @torch.no_grad()
    def __init__(self, model: Decoder) -> None:
        config = model.config
        self.config = config
        self.embed = model.embed.weight.detach().float()
        if config.embed_scale != 1:
            self.embed = self.embed * config.embed_scale
        self.act = ACTIVATIONS[config.activation]
        self.layers = [_layer_weights(layer) for layer in model.layers]
        self.head = _behind_norm(model.norm, model.lm_head.weight)  # [D, V]
        if config.mup_base_d_model:
            self.head /= config.width_multiplier
        self.turns = torch.complex(model.rope_cos.float(), model.rope_sin.float())  # [max_seq_len, Hd / 2]


class FusedDecoder:
    """Rows being written and their cache. `logits(ids)` appends tokens to every row.

    Args:
        pads_B: how many padding tokens stand left of each row's first token.
        slots: the most tokens a row may have, padding included.
    """

    def __init__(self, weights: FusedWeights, pads_B: Tensor, slots: int) -> None:
        self.weights, self.length = weights, 0
        config, device = weights.config, weights.head.device
        self.pads_B = pads_B.to(device)
        self.is_padded = bool(pads_B.any())
        self.caches = [
            torch.zeros((len(pads_B), 2 * heads, slots, config.head_dim), device=device) for heads in config.kv_heads
        ]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.pads_B = self.pads_B[rows]
        self.is_padded = bool(self.pads_B.any())
        self.caches = [cache[rows] for cache in self.caches]

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Logits of the token after the last of `ids_BT`: float32 [B, V]."""
        weights, config = self.weights, self.weights.config
        B, T = ids_BT.shape
        start, stop = self.length, self.length + T
        Hd = config.head_dim
        turn, mask = self._turn(start, stop), self._mask(start, stop)
        x = weights.embed[ids_BT].view(B * T, config.d_model)
        for layer, cache, H, KV in zip(weights.layers, self.caches, config.heads, config.kv_heads, strict=True):
            qkv = (x @ layer.qkv).mul_(_scale(x, config.norm_eps))
            if layer.qkv_bias is not None:
                qkv += layer.qkv_bias
            qkv = qkv.view(B, T, H + 2 * KV, Hd)
            if layer.q_norm is not None and layer.k_norm is not None:
                qkv[:, :, :H] = F.rms_norm(qkv[:, :, :H], (Hd,), layer.q_norm, config.norm_eps)
                qkv[:, :, H : H + KV] = F.rms_norm(qkv[:, :, H : H + KV], (Hd,), layer.k_norm, config.norm_eps)
            torch.view_as_complex(qkv.view(B, T, H + 2 * KV, Hd // 2, 2))[:, :, : H + KV].mul_(turn)
            heads = qkv.transpose(1, 2)
            cache[:, :, start:stop] = heads[:, H:]
            y = F.scaled_dot_product_attention(
                heads[:, :H],
                cache[:, :KV, :stop],
                cache[:, KV:, :stop],
                attn_mask=mask,
                is_causal=mask is None and T > 1,
                scale=config.score_scale,
                enable_gqa=H != KV,
            )
            x = x.addmm_(y.transpose(1, 2).reshape(B * T, H * Hd), layer.out)
            scale = _scale(x, config.norm_eps)
            gate = (x @ layer.gate).mul_(scale)
            gate = F.silu(gate, inplace=True) if config.activation == "silu" else weights.act(gate)
            x = x.addmm_(gate.mul_((x @ layer.up).mul_(scale)), layer.down)
        self.length = stop
        last = x.view(B, T, config.d_model)[:, -1]
        return (last @ weights.head).mul_(_scale(last, config.norm_eps))

    def _turn(self, start: int, stop: int) -> Tensor:
        """RoPE's complex factors, broadcast to [B, T, heads, Hd / 2]."""
        if not self.is_padded:
            return self.weights.turns[start:stop, None]
        positions_BT = torch.arange(start, stop, device=self.pads_B.device) - self.pads_B[:, None]
        return self.weights.turns[positions_BT.clamp_min(0)][:, :, None]

    def _mask(self, start: int, stop: int) -> Tensor | None:
        """Who may look at whom, bool [B, 1, T, S]; None where the causal rule says it all. Padding looks at itself."""
        if not self.is_padded and (start == 0 or stop - start == 1):
            return None
        slots = torch.arange(stop, device=self.pads_B.device)
        new = slots[start:]
        is_real_BS = slots >= self.pads_B[:, None]
        visible = (slots <= new[:, None]) & (is_real_BS[:, None, :] | (slots == new[:, None]))
        return visible[:, None]


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) of each row, [rows, 1]."""
    return (x * x).mean(dim=-1, keepdim=True).add_(eps).rsqrt_()


def _layer_weights(layer: Layer) -> LayerWeights:
    attention, ffn = layer.attention, layer.ffn
    assert isinstance(ffn, FeedForward)
    gate, up = ffn.gate_up.weight.chunk(2)
    pairs = _pairs_side_by_side(attention)
    bias = attention.qkv.bias
    within = pairs[: attention.head_dim]
    return LayerWeights(
        qkv=_behind_norm(layer.attention_norm, attention.qkv.weight[pairs]),
        qkv_bias=None if bias is None else bias.detach()[pairs].float(),
        q_norm=None if attention.q_norm is None else attention.q_norm.factor.detach()[within].float(),
        k_norm=None if attention.k_norm is None else attention.k_norm.factor.detach()[within].float(),
        out=attention.out.weight.detach().float().t().contiguous(),
        gate=_behind_norm(layer.ffn_norm, gate),
        up=_behind_norm(layer.ffn_norm, up),
        down=ffn.down.weight.detach().float().t().contiguous(),
    )


def _behind_norm(norm: RMSNorm, weight: Tensor) -> Tensor:
    """A matrix [N, D] that reads the norm's result -> [D, N] that reads its input, before scaling."""
    return (weight.detach().float() * norm.factor.detach().float()).t().contiguous()


def _pairs_side_by_side(attention: Attention) -> Tensor:
    """The order of the qkv matrix's rows in which channels i and i + Hd / 2 of each query and key head are neighbours.

    Values keep their order: they are not turned, and the output matrix expects it.
    """
    Hd, turned = attention.head_dim, attention.num_heads + attention.num_kv_heads
    within = torch.arange(Hd).view(2, Hd // 2).t().reshape(-1)
    heads = torch.arange(turned)[:, None] * Hd + within
    values = torch.arange(turned * Hd, (turned + attention.num_kv_heads) * Hd)
    return torch.cat((heads.reshape(-1), values))
