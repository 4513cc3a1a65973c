"""A decoder-only language model: pre-norm RMSNorm, RoPE, SwiGLU, grouped-query attention, no biases by default.

Shape legend: B sequences, T new tokens, S tokens attended to (cached and new), V vocabulary, D width, L layers.

One class for every model that Diglot trains or reads. What a family adds (QK-norm, biases, sliding windows, Gemma's
norms and caps, experts) is a field of `DecoderConfig`; a field that is not set costs nothing. `model/files.py` reads
and writes other libraries' layouts. Every layer may have its own widths (pruning and growth need that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diglot.core.errors import ConfigError
from diglot.model.attention import Attention, Backend, Mask, Sight
from diglot.model.cache import KVCache, LayerCache
from diglot.model.config import DecoderConfig, InitConfig
from diglot.model.experts import Experts, RouterStats
from diglot.model.feed_forward import FeedForward
from diglot.model.initialise import initialise
from diglot.model.norm import RMSNorm
from diglot.model.rope import Rope, rope_tables
from diglot.model.spread import Spread

__all__ = ["Decoder", "DecoderConfig", "DecoderOutput", "InitConfig", "RMSNorm", "Trunk"]


class Trunk(NamedTuple):
    """What a forward pass knows before the output matrix.

    hidden: [B, T, D] after the final norm; `Decoder.logits(hidden)` are the logits.
    states: on request the embeddings and every layer's result, L + 1 tensors [B, T, D], before the final norm.
    routers: one of each layer with experts.
    """

    hidden: Tensor
    states: tuple[Tensor, ...] | None
    routers: tuple[RouterStats, ...]


class DecoderOutput(NamedTuple):
    logits: Tensor  # [B, T, V]
    hidden: Tensor | None  # [B, T, D] after the final norm; only on request
    states: tuple[Tensor, ...] | None  # as in Trunk; only on request


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); Gemma 2 normalises both results once more."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm.of_width(config)
        self.attention = Attention(config, index)
        self.attention_post_norm = RMSNorm.of_width(config) if config.sandwich_norm else None
        self.ffn_norm = RMSNorm.of_width(config)
        self.ffn: FeedForward | Experts
        if config.has_experts[index]:
            self.ffn = Experts(config)
        else:
            self.ffn = FeedForward(
                config.d_model, config.ffn_dims[index], bias=config.ffn_bias, activation=config.activation
            )
        self.ffn_post_norm = RMSNorm.of_width(config) if config.sandwich_norm else None

    def forward(
        self, x_BTD: Tensor, rope: Rope, mask: Mask, cache: LayerCache | None
    ) -> tuple[Tensor, RouterStats | None]:
        y = self.attention(self.attention_norm(x_BTD), rope, mask, cache)
        x_BTD = x_BTD + (y if self.attention_post_norm is None else self.attention_post_norm(y))
        y, router = self.ffn(self.ffn_norm(x_BTD)), None
        if isinstance(self.ffn, Experts):
            y, router = y
        return x_BTD + (y if self.ffn_post_norm is None else self.ffn_post_norm(y)), router


class LayerList(nn.ModuleList):
    """A list of layers that says so to the type checker, and can do without some of them."""

    def __iter__(self) -> Iterator[Layer]:
        return super().__iter__()  # type: ignore[return-value]

    def numbered(self) -> Iterator[tuple[int, Layer]]:
        """Each layer that is here, with its number in the whole model."""
        for name, layer in self.named_children():
            yield int(name), layer  # type: ignore[misc]

    def keep(self, numbers: range) -> None:
        """Forget all other layers. Those that stay keep their numbers, also in the names of their weights."""
        for number in [number for number, _ in self.numbered() if number not in numbers]:
            del self._modules[str(number)]


class Decoder(nn.Module):
    """Ids (or embeddings) in, logits out; weights drawn from `seed` by the rule in `model/initialise.py`.

    Without a seed they are unset, for whoever reads every one of them from a file.

    Five attributes say how it is computed, and by whom:

    recompute_every: the backward pass computes every n-th layer again in place of keeping its activations; 0 for none.
    attention_backend: `auto` takes FlexAttention on a GPU wherever the plain causal rule is not all, SDPA everywhere
        else.
    spread: which tokens of each sequence this rank reads, None for all; see `model/spread.py`.
    sum_over_ranks: adds a tensor, in place, over the ranks that read other tokens of the same microbatch; for losses
        that see a microbatch as a whole. None where this process reads all of it.
    is_last_stage: false for the first part of a model whose layers are divided (`train/parallel/stages.py`): its
        `trunk(...).hidden` is what the next part begins with.
    """

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: DecoderConfig, *, seed: int | None = 0, init: InitConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.recompute_every = 0
        self.attention_backend: Backend = "auto"
        self.spread: Spread | None = None
        self.sum_over_ranks: Callable[[Tensor], None] | None = None
        self.is_last_stage = True
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = LayerList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm.of_width(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed.weight
        for prefix, local in (("rope", False), ("local_rope", True)):
            cos, sin = rope_tables(config, local=local) if not local or config.local_rope_theta else (None, None)
            self.register_buffer(f"{prefix}_cos", cos, persistent=False)
            self.register_buffer(f"{prefix}_sin", sin, persistent=False)
        if seed is not None:
            initialise(self, init or InitConfig(), seed)

    def forward(
        self,
        input_ids_BT: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        attention_mask_BT: Tensor | None = None,
        prefix_lengths_B: Tensor | None = None,
        bidirectional: bool = False,
        cache: KVCache | None = None,
        embeddings_BTD: Tensor | None = None,
        return_hidden: bool = False,
        return_states: bool = False,
    ) -> DecoderOutput:
        """Logits of the next token at every position; arguments as in `trunk`."""
        trunk = self.trunk(
            input_ids_BT,
            positions_BT=positions_BT,
            document_ids_BT=document_ids_BT,
            attention_mask_BT=attention_mask_BT,
            prefix_lengths_B=prefix_lengths_B,
            bidirectional=bidirectional,
            cache=cache,
            embeddings_BTD=embeddings_BTD,
            return_states=return_states,
        )
        return DecoderOutput(self.logits(trunk.hidden), trunk.hidden if return_hidden else None, trunk.states)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] after the final norm -> [..., V]."""
        logits: Tensor = self.lm_head(hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

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
        """`trunk(...).hidden`."""
        return self.trunk(
            input_ids_BT,
            positions_BT=positions_BT,
            document_ids_BT=document_ids_BT,
            attention_mask_BT=attention_mask_BT,
            cache=cache,
            embeddings_BTD=embeddings_BTD,
        ).hidden

    def trunk(
        self,
        input_ids_BT: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        attention_mask_BT: Tensor | None = None,
        prefix_lengths_B: Tensor | None = None,
        bidirectional: bool = False,
        cache: KVCache | None = None,
        embeddings_BTD: Tensor | None = None,
        return_states: bool = False,
    ) -> Trunk:
        """Everything but the output matrix.

        With a `spread`, ids (or embeddings) and the result are those of this rank's tokens, everything else is of the
        whole sequence.

        Args:
            input_ids_BT: int64 [B, T]; or give `embeddings_BTD` [B, T, D], which `embed_scale` does not touch.
            positions_BT: RoPE positions; by default the number of real tokens before each token.
            document_ids_BT: tokens of one row attend only to tokens with the same id. Not with a cache.
            attention_mask_BT: [B, S], true for real tokens, false for (left) padding, over cached and new tokens.
            prefix_lengths_B: so many first tokens of each row see each other both ways (prefix language model).
            bidirectional: all tokens see each other both ways (an encoder).
            cache: holds the keys and values of earlier tokens; the new ones are appended.
        Raises: ConfigError for more tokens than `max_seq_len`, or a mask that a filled cache cannot have.
        """
        x_BTD = self._embedded(input_ids_BT) if embeddings_BTD is None else embeddings_BTD
        T, start = x_BTD.shape[1], cache.length if cache is not None else 0
        T *= self.spread.num_parts if self.spread is not None else 1
        if start + T > self.config.max_seq_len:
            raise ConfigError(
                f"{start + T} tokens exceed the model's max_seq_len = {self.config.max_seq_len}. "
                "Shorten the input, or build the model with a larger max_seq_len."
            )
        if positions_BT is None and attention_mask_BT is not None:
            positions_BT = (attention_mask_BT.long().cumsum(dim=1) - 1).clamp_min(0)[:, start:]
        seen = None if attention_mask_BT is None else attention_mask_BT.bool()
        sight = Sight(start, T, x_BTD.device, document_ids_BT, seen, prefix_lengths_B, bidirectional, self.spread)
        views = self._views(sight, positions_BT)
        states, routers = [x_BTD], []
        for index, layer in self.layers.numbered():
            rope, mask = views[self.config.slides[index]]
            layer_cache = cache.layers[index] if cache is not None else None
            if self._recomputes(index, cache):
                x_BTD, router = checkpoint(layer, x_BTD, rope, mask, None, use_reentrant=False)
            else:
                x_BTD, router = layer(x_BTD, rope, mask, layer_cache)
            if return_states:
                states.append(x_BTD)
            if router is not None:
                routers.append(router)
        if cache is not None:
            cache.length += T
        hidden = self._final(x_BTD) if self.is_last_stage else x_BTD
        return Trunk(hidden, tuple(states) if return_states else None, tuple(routers))

    def _embedded(self, input_ids_BT: Tensor | None) -> Tensor:
        x_BTD: Tensor = self.embed(input_ids_BT)
        scale = self.config.embed_scale
        # Rounded to the weights' precision first, as Gemma's own code has it.
        return x_BTD if scale == 1 else x_BTD * torch.tensor(scale, dtype=x_BTD.dtype, device=x_BTD.device)

    def _final(self, x_BTD: Tensor) -> Tensor:
        hidden: Tensor = self.norm(x_BTD)
        return hidden / self.config.width_multiplier if self.config.mup_base_d_model else hidden

    def _views(self, sight: Sight, positions_BT: Tensor | None) -> dict[bool, tuple[Rope, Mask]]:
        """Angles and mask of sliding layers (True) and of the others (False), each made once."""
        config = self.config
        flex = self.attention_backend == "flex" or (self.attention_backend == "auto" and sight.device.type == "cuda")
        views = {}
        for slides in set(config.slides):
            local = slides and config.local_rope_theta is not None
            cos, sin = (self.local_rope_cos, self.local_rope_sin) if local else (self.rope_cos, self.rope_sin)
            rows = _rotations(sight, positions_BT)
            rope = Rope(cos[rows].unsqueeze(-2), sin[rows].unsqueeze(-2))  # type: ignore[index]
            views[slides] = rope, sight.mask(config.sliding_window if slides else None, flex=flex and not sight.start)
        return views

    def _recomputes(self, index: int, cache: KVCache | None) -> bool:
        every = self.recompute_every
        return bool(every and index % every == 0 and cache is None and self.training and torch.is_grad_enabled())


def _rotations(sight: Sight, positions_BT: Tensor | None) -> slice | Tensor:
    """The rows of the RoPE tables for the tokens that are looked from."""
    slots = sight.slots
    if positions_BT is not None:
        return positions_BT if slots is None else positions_BT[:, slots]
    return slice(sight.start, sight.start + sight.T) if slots is None else slots
