"""The fused forward pass says what the decoder says, in every shape it may have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diglot.generate.engine import generate
from diglot.generate.fused import FusedDecoder, FusedWeights, is_fusible
from diglot.generate.plain import PlainDecoder
from diglot.generate.sampling import Sampling
from diglot.model.config import MoEConfig, RopeScaling
from diglot.model.decoder import Decoder, DecoderConfig

PLAIN = DecoderConfig(
    vocab_size=61, d_model=24, num_layers=3, num_heads=4, num_kv_heads=4, head_dim=6, ffn_dim=40, max_seq_len=32
)
SHAPES = {
    "plain": PLAIN,
    "grouped": replace(PLAIN, num_kv_heads=2),
    "multi_query": replace(PLAIN, num_kv_heads=1),
    "wide_heads": replace(PLAIN, head_dim=10),
    "tied": replace(PLAIN, tie_embeddings=True),
    "qkv_bias": replace(PLAIN, qkv_bias=True),
    "qk_norm": replace(PLAIN, qk_norm=True, num_kv_heads=2),
    "own_width_per_layer": replace(PLAIN, ffn_dim=(16, 40, 8)),
    "own_heads_per_layer": replace(PLAIN, num_heads=(4, 2, 6), num_kv_heads=(2, 2, 1)),
    "unit_offset_geglu": replace(PLAIN, unit_offset_norm=True, qk_norm=True, embed_scale=2.0, activation="gelu_tanh"),
    "own_score_scale": replace(PLAIN, attention_scale=0.9),
    "mup": replace(PLAIN, mup_base_d_model=8),
    "yarn": replace(PLAIN, rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_seq_len=8)),
}
PLAINLY_WRITTEN = {
    "experts": replace(PLAIN, moe=MoEConfig(num_experts=4, top_k=2, expert_dim=16)),
    "sliding": replace(PLAIN, sliding_window=4, sliding_layers=(True, False, True), local_rope_theta=50.0),
    "caps": replace(PLAIN, attention_softcap=4.0, logit_softcap=6.0, sandwich_norm=True),
    "biases": replace(PLAIN, qkv_bias=True, out_bias=True, ffn_bias=True),
}


def random_decoder(config: DecoderConfig) -> Decoder:
    """Every parameter random, norms and biases too, so that none can be left out unnoticed."""
    model = Decoder(config, seed=5)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_logits_equal_those_of_the_decoder_token_by_token(name):
    model = random_decoder(SHAPES[name])
    ids = torch.randint(0, 61, (3, 14), generator=torch.Generator().manual_seed(1))
    fused = FusedDecoder(FusedWeights(model), torch.zeros(3, dtype=torch.int64), 14)
    found = [fused.logits(ids[:, :5])] + [fused.logits(ids[:, n : n + 1]) for n in range(5, 14)]
    expected = model(ids).logits[:, 4:]
    torch.testing.assert_close(torch.stack(found, dim=1), expected, rtol=2e-4, atol=2e-4)


@torch.inference_mode()
def test_padding_on_the_left_changes_nothing_and_rows_can_leave():
    model = random_decoder(SHAPES["grouped"])
    rows = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]
    pads = torch.tensor([0, 4, 2])
    prompt = torch.tensor([[0] * int(pad) + row for pad, row in zip(pads, rows, strict=True)])
    fused = FusedDecoder(FusedWeights(model), pads, 10)
    expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(fused.logits(prompt), torch.stack(expected), rtol=2e-4, atol=2e-4)
    fused.keep(torch.tensor([2, 1]))
    expected = [model(torch.tensor([[*rows[i], 20 + i]])).logits[0, -1] for i in (2, 1)]
    torch.testing.assert_close(fused.logits(torch.tensor([[22], [21]])), torch.stack(expected), rtol=2e-4, atol=2e-4)
    assert len(fused.caches[0]) == 2


@pytest.mark.parametrize("name", PLAINLY_WRITTEN)
@torch.inference_mode()
def test_what_the_fused_pass_does_not_know_is_written_by_the_decoder_itself(name):
    model = random_decoder(PLAINLY_WRITTEN[name])
    assert not is_fusible(model.config)
    rows = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]
    pads = torch.tensor([0, 4, 2])
    prompt = torch.tensor([[0] * int(pad) + row for pad, row in zip(pads, rows, strict=True)])
    plain = PlainDecoder(model, pads, 10)
    expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(plain.logits(prompt), torch.stack(expected), rtol=2e-4, atol=2e-4)
    plain.keep(torch.tensor([2, 1]))
    expected = [model(torch.tensor([[*rows[i], 20 + i]])).logits[0, -1] for i in (2, 1)]
    torch.testing.assert_close(plain.logits(torch.tensor([[22], [21]])), torch.stack(expected), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["experts", "sliding"])
def test_answers_are_the_models_likeliest_tokens_one_by_one(name):
    model = random_decoder(PLAINLY_WRITTEN[name])
    ids = [3, 1, 4, 1, 5]
    (answer,) = generate(model, [ids], max_new_tokens=9, sampling=Sampling(temperature=0.0), seed=0, stop_ids=[])
    for token in answer.ids:
        with torch.no_grad():
            assert token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
        ids = [*ids, token]
    assert len(answer.ids) == 9
