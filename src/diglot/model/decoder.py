"""A decoder-only language model: pre-norm RMSNorm, RoPE, SwiGLU, grouped-query attention, no biases by default.

Shape legend: B sequences, T new tokens, S tokens attended to (cached and new), V vocabulary, D width, H query heads,
KV key and value heads, Hd head width, F feed-forward width.

Query, key and value projections are one matrix, and so are gate and up: on a CPU one product of [D, 3D] is faster than
three of [D, D]. `model/files.py` splits them into the Hugging Face layout on the way out. Attention heads may be wider
or narrower in sum than the model, and every layer may have its own feed-forward width (pruning and growth need both).

Papers: RMSNorm (Zhang and Sennrich 2019), RoPE (Su et al. 2021), SwiGLU (Shazeer 2020), GQA (Ainslie et al. 2023),
QK-norm (Dehghani et al. 2023, in the form of Qwen3: per head, before RoPE).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diglot.core.errors import ConfigError
from diglot.model.cache import KVCache, LayerCache
from diglot.model.config import DecoderConfig, InitConfig
from diglot.model.initialise import initialise

__all__ = ["Decoder", "DecoderConfig", "DecoderOutput", "InitConfig", "RMSNorm"]


class DecoderOutput(NamedTuple):
    logits: Tensor  # [B, T, V]
    hidden: Tensor | None  # [B, T, D] after the final norm; only on request


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_tables(config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position * theta^(-2i / Hd), i < Hd / 2: two float32 tensors [max_seq_len, Hd / 2]."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    angles = torch.outer(torch.arange(config.max_seq_len, dtype=torch.float64), config.rope_theta**-exponents)
    return angles.cos().float(), angles.sin().float()


def rotate(x_BTNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + Hd / 2) of each head by their angle; cos and sin broadcast to [B, T, N, Hd / 2]."""
    first, second = x_BTNH.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Causal grouped-query attention of one layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.qkv = nn.Linear(
            config.d_model, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim, bias=config.qkv_bias
        )
        self.out = nn.Linear(self.num_heads * self.head_dim, config.d_model, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, rope: Rope, mask: Tensor | None, causal: bool, cache: LayerCache | None) -> Tensor:
        B, T, _ = x_BTD.shape
        H, KV = self.num_heads, self.num_kv_heads
        qkv = self.qkv(x_BTD).view(B, T, H + 2 * KV, self.head_dim)
        qk, v = qkv[:, :, : H + KV], qkv[:, :, H + KV :]
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat((self.q_norm(qk[:, :, :H]), self.k_norm(qk[:, :, H:])), dim=2)
        qk = rotate(qk, rope.cos, rope.sin).transpose(1, 2)
        q, k = qk[:, :H], qk[:, H:]
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=H != KV)
        return self.out(y.transpose(1, 2).reshape(B, T, H * self.head_dim))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, d_model: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * ffn_dim, bias=False)
        self.down = nn.Linear(ffn_dim, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: DecoderConfig, ffn_dim: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.d_model, config.norm_eps)
        self.ffn = FeedForward(config.d_model, ffn_dim)

    def forward(self, x_BTD: Tensor, rope: Rope, mask: Tensor | None, causal: bool, cache: LayerCache | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rope, mask, causal, cache)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))  # type: ignore[no-any-return]


class LayerList(nn.ModuleList):
    """A list of layers that says so to the type checker."""

    def __iter__(self) -> Iterator[Layer]:
        return super().__iter__()  # type: ignore[return-value]


class Rope(NamedTuple):
    cos: Tensor  # [T, 1, Hd / 2], or [B, T, 1, Hd / 2] where sequences have their own positions
    sin: Tensor


class Decoder(nn.Module):
    """Ids (or embeddings) in, logits out; weights drawn from `seed` by the rule in `model/initialise.py`."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: DecoderConfig, *, seed: int = 0, init: InitConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = LayerList(Layer(config, ffn_dim) for ffn_dim in config.ffn_dims)
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed.weight
        cos, sin = rope_tables(config)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)
        initialise(self, init or InitConfig(), seed)

    def forward(
        self,
        input_ids_BT: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        attention_mask_BT: Tensor | None = None,
        cache: KVCache | None = None,
        embeddings_BTD: Tensor | None = None,
        return_hidden: bool = False,
    ) -> DecoderOutput:
        """Logits of the next token at every position; arguments as in `hidden`."""
        hidden_BTD = self.hidden(
            input_ids_BT,
            positions_BT=positions_BT,
            document_ids_BT=document_ids_BT,
            attention_mask_BT=attention_mask_BT,
            cache=cache,
            embeddings_BTD=embeddings_BTD,
        )
        return DecoderOutput(self.lm_head(hidden_BTD), hidden_BTD if return_hidden else None)

    def hidden(
        self,
        input_ids_BT: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        attention_mask_BT: Tensor | None = None,
        cache: KVCache | None = None,
        embeddings_BTD: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [B, T, D]; `lm_head(hidden)` are the logits.

        Args:
            input_ids_BT: int64 [B, T]; or give `embeddings_BTD` [B, T, D].
            positions_BT: RoPE positions; by default the number of real tokens before each token.
            document_ids_BT: tokens of one row attend only to tokens with the same id. Not with a cache.
            attention_mask_BT: [B, S], true for real tokens, false for (left) padding, over cached and new tokens.
            cache: holds the keys and values of earlier tokens; the new ones are appended.
        """
        x_BTD = self.embed(input_ids_BT) if embeddings_BTD is None else embeddings_BTD
        T = x_BTD.shape[1]
        start = cache.length if cache is not None else 0
        if start + T > self.config.max_seq_len:
            raise ConfigError(
                f"{start + T} tokens exceed the model's max_seq_len = {self.config.max_seq_len}. "
                "Shorten the input, or build the model with a larger max_seq_len."
            )
        if positions_BT is None and attention_mask_BT is not None:
            positions_BT = (attention_mask_BT.long().cumsum(dim=1) - 1).clamp_min(0)[:, start:]
        if positions_BT is None:
            cos, sin = self.rope_cos[start : start + T], self.rope_sin[start : start + T]
        else:
            cos, sin = self.rope_cos[positions_BT], self.rope_sin[positions_BT]
        rope = Rope(cos.unsqueeze(-2), sin.unsqueeze(-2))
        mask = attention_mask(start, T, document_ids_BT, attention_mask_BT, x_BTD.device)
        causal = mask is None and T > 1
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, rope, mask, causal, cache.layers[index] if cache is not None else None)
        if cache is not None:
            cache.length += T
        return self.norm(x_BTD)  # type: ignore[no-any-return]


def attention_mask(
    start: int, T: int, document_ids_BT: Tensor | None, attention_mask_BT: Tensor | None, device: torch.device
) -> Tensor | None:
    """Who may look at whom: bool [B or 1, 1, T, S], S = start + T; None where the plain causal rule says it all.

    A padded position may look at itself, so that its row of the softmax is not empty; nobody looks at it.
    """
    if document_ids_BT is None and attention_mask_BT is None and (start == 0 or T == 1):
        return None
    causal_TS = torch.ones(T, start + T, dtype=torch.bool, device=device).tril(diagonal=start)
    mask = causal_TS[None, None]
    if attention_mask_BT is not None:
        itself_TS = torch.eye(T, dtype=torch.bool, device=device)
        itself_TS = F.pad(itself_TS, (start, 0))
        mask = mask & (attention_mask_BT.bool()[:, None, None, :] | itself_TS)
    if document_ids_BT is not None:
        if start:
            raise ConfigError("document_ids_BT cannot be used with a cache that holds tokens. Pass one of the two.")
        mask = mask & (document_ids_BT[:, None, :, None] == document_ids_BT[:, None, None, :])
    return mask
