"""Ranks that share a sequence hold each of its tokens once, and look from them as one rank would."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diglot.core.errors import ConfigError
from diglot.model.attention import Mask, Sight
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.spread import Spread

T = 24
CPU = torch.device("cpu")


def ranks_of(context: int, tensor: int = 1) -> list[Spread]:
    return [Spread(context, c, tensor, t) for c in range(context) for t in range(tensor)]


@pytest.mark.parametrize(("context", "tensor"), [(1, 1), (1, 3), (2, 1), (3, 2), (2, 6)])
def test_every_token_is_held_once(context: int, tensor: int) -> None:
    held = [spread.held(T) for spread in ranks_of(context, tensor)]
    assert {len(slots) for slots in held} == {T // (context * tensor)}
    assert sorted(torch.cat(held).tolist()) == list(range(T))


def test_the_ranks_that_share_matrices_hold_what_all_of_them_look_from() -> None:
    ranks = ranks_of(2, 3)
    for context_rank in range(2):
        mine = [spread for spread in ranks if spread.context_rank == context_rank]
        assert torch.cat([spread.held(T) for spread in mine]).tolist() == mine[0].queries(T).tolist()


def test_the_causal_rule_gives_all_ranks_the_same_work() -> None:
    work = [int((spread.queries(T) + 1).sum()) for spread in ranks_of(3)]
    assert set(work) == {T * (T + 1) // 2 // 3}


def test_pieces_are_the_causal_rule() -> None:
    for spread in ranks_of(3):
        seen = torch.zeros(T // 3, T, dtype=torch.bool)
        for start, stop, keys in spread.pieces(T):
            seen[start:stop, :keys] = torch.ones(stop - start, keys, dtype=torch.bool).tril(keys - (stop - start))
        assert torch.equal(seen, spread.queries(T)[:, None] >= torch.arange(T))


@pytest.mark.parametrize("rule", ["documents", "window", "prefix", "padding", "bidirectional"])
def test_a_rank_has_its_rows_of_the_mask(rule: str) -> None:
    masks = {
        "documents": {"document_ids": torch.arange(2 * T).view(2, T) // 7},
        "window": {},
        "prefix": {"prefix_lengths": torch.tensor([5, 13])},
        "padding": {"attention_mask": torch.arange(T)[None] >= torch.tensor([[0], [9]])},
        "bidirectional": {"bidirectional": True},
    }
    window = 5 if rule == "window" else None
    whole = Sight(0, T, CPU, **masks[rule]).mask(window).dense
    assert whole is not None
    for spread in ranks_of(2):
        mine = Sight(0, T, CPU, **masks[rule], spread=spread).mask(window)
        assert mine.dense is not None
        assert torch.equal(mine.dense, whole[..., spread.queries(T), :])


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attention_of_pieces_is_that_of_the_whole_sequence(softcap: float | None) -> None:
    config = DecoderConfig(
        vocab_size=9,
        d_model=8,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        ffn_dim=8,
        attention_softcap=softcap,
    )
    attention = Decoder(config, seed=1).layers[0].attention
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, T, 6), torch.randn(2, 2, T, 6), torch.randn(2, 2, T, 6)
    whole = attention._attend(q, k, v, Mask(None, causal=True))
    if softcap is None:
        expected = F.scaled_dot_product_attention(q, *(x.repeat_interleave(2, dim=1) for x in (k, v)), is_causal=True)
        torch.testing.assert_close(whole, expected)
    for spread in ranks_of(3):
        slots = spread.queries(T)
        mask = Sight(0, T, CPU, spread=spread).mask(None)
        assert mask.dense is None  # kernels that know the causal rule can be used
        torch.testing.assert_close(attention._attend(q[:, :, slots], k, v, mask), whole[:, :, slots])


def test_flex_attention_has_a_rank_look_from_its_own_tokens() -> None:
    config = DecoderConfig(vocab_size=9, d_model=8, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=8)
    attention = Decoder(config, seed=1).layers[0].attention
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 2, T, 8), torch.randn(2, 1, T, 8), torch.randn(2, 1, T, 8)
    documents = torch.arange(2 * T).view(2, T) // 7
    whole = attention._attend(q, k, v, Sight(0, T, CPU, documents).mask(9))
    for spread in ranks_of(2):
        slots = spread.queries(T)
        blocks = Sight(0, T, CPU, documents, spread=spread).mask(9, flex=True)
        assert blocks.blocks is not None
        torch.testing.assert_close(attention._attend(q[:, :, slots], k, v, blocks), whole[:, :, slots])


def test_keys_and_values_are_gathered_in_the_precision_of_autocast() -> None:
    """Turned heads come out in float32, which few kernels take and which is twice as much to send."""
    config = DecoderConfig(
        vocab_size=9, d_model=8, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=8, qk_norm=True
    )
    model, seen = Decoder(config, seed=1), set[torch.dtype]()

    def all_keys(k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.update((k.dtype, v.dtype))
        return k, v

    model.layers[0].attention.all_keys = all_keys
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.arange(8)[None])
    assert seen == {torch.bfloat16}
    seen.clear()
    model(torch.arange(8)[None])
    assert seen == {torch.float32}


def test_positions_are_those_of_the_whole_sequence() -> None:
    """The layers see the angles of their tokens, also where padding moves the positions."""
    config = DecoderConfig(
        vocab_size=9, d_model=8, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=4, ffn_dim=8, max_seq_len=T
    )
    model = Decoder(config, seed=1)
    padded = torch.tensor([[0, 0, 0, 0, 0, *range(T - 5)], list(range(T))])
    for positions in (None, padded):
        whole, _ = model._views(Sight(0, T, CPU), positions)[False]
        for spread in ranks_of(2, 2):
            mine, _ = model._views(Sight(0, T, CPU, spread=spread), positions)[False]
            assert torch.equal(mine.cos, whole.cos[..., spread.queries(T), :, :])


@pytest.mark.parametrize(("context", "tensor", "parts"), [(1, 5, "5"), (3, 2, "12"), (2, 3, "12")])
def test_a_length_that_the_ranks_do_not_divide_is_refused(context: int, tensor: int, parts: str) -> None:
    with pytest.raises(ConfigError, match=f"multiple of {parts}"):
        Spread(context, 0, tensor, 0).held(T + 2)
