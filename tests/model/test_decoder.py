"""The decoder computes what Hugging Face's classes compute, and what its masks and cache promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from diglot.core.errors import ConfigError
from diglot.model.cache import KVCache
from diglot.model.decoder import Decoder, DecoderConfig, InitConfig
from diglot.model.huggingface.config import Folds, huggingface_config
from diglot.model.huggingface.weights import as_tensors, huggingface_weights

SMALL = DecoderConfig(
    vocab_size=97, d_model=48, num_layers=3, num_heads=6, num_kv_heads=6, head_dim=8, ffn_dim=80, max_seq_len=64
)
ROUGH = InitConfig(std=0.2)  # far from zero, so that softmax and RoPE have something to get wrong
SHAPES = {
    "multi-head": SMALL,
    "grouped-query": replace(SMALL, num_kv_heads=2),
    "multi-query": replace(SMALL, num_kv_heads=1),
    "tied": replace(SMALL, tie_embeddings=True),
    "wide heads": replace(SMALL, head_dim=16, num_kv_heads=3),
    "other theta": replace(SMALL, rope_theta=500_000.0, norm_eps=1e-6),
    "qk-norm": replace(SMALL, qk_norm=True, num_kv_heads=2),
    "qk-norm, tied": replace(SMALL, qk_norm=True, tie_embeddings=True),
    "qkv bias": replace(SMALL, qkv_bias=True, num_kv_heads=2),
}


def decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    """Random weights everywhere, norms and biases too."""
    model = Decoder(config, seed=seed, init=ROUGH)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def huggingface(model: Decoder) -> Any:
    transformers = pytest.importorskip("transformers")
    fields = huggingface_config(model.config, {}, torch.float32)
    kind = getattr(transformers, fields.pop("architectures")[0])
    fields.pop("model_type")
    config = kind.config_class(**fields, attn_implementation="eager")
    theirs = kind(config).eval()
    missing = theirs.load_state_dict(as_tensors(huggingface_weights(model, "llama", Folds())), strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    theirs.tie_weights()
    return theirs


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_hugging_face(shape: str) -> None:
    model = decoder(SHAPES[shape])
    theirs = huggingface(model)
    ids = tokens(2, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ["multi-head", "qk-norm"])
def test_gradients_equal_hugging_face(shape: str) -> None:
    model = decoder(SHAPES[shape])
    theirs = huggingface(model)
    ids, push = tokens(2, 20), torch.randn(2, 20, SMALL.vocab_size, generator=torch.Generator().manual_seed(3))
    (model(ids).logits * push).sum().backward()
    (theirs(ids).logits * push).sum().backward()
    embeddings, down = theirs.model.embed_tokens.weight.grad, theirs.model.layers[1].mlp.down_proj.weight.grad
    torch.testing.assert_close(model.embed.weight.grad, embeddings, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(list(model.layers)[1].ffn.down.weight.grad, down, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", ["multi-head", "multi-query", "qk-norm"])
@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 1, 5], [12], [4, 8]])
def test_reading_through_a_cache_equals_reading_at_once(shape: str, pieces: list[int]) -> None:
    model, ids = decoder(SHAPES[shape]), tokens(2, 12)
    cache = KVCache.allocate(model.config, batch=2, max_len=16)
    with torch.no_grad():
        parts = [model(part, cache=cache).logits for part in ids.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits, rtol=1e-5, atol=1e-5)
    assert cache.length == 12


def test_left_padding_changes_no_logits_with_and_without_a_cache() -> None:
    model = decoder(SHAPES["grouped-query"])
    short, long = tokens(1, 5), tokens(1, 9, seed=2)
    padded = torch.cat((torch.zeros(1, 4, dtype=torch.int64), short), dim=1)
    ids = torch.cat((padded, long))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :4] = False
    cache = KVCache.allocate(model.config, batch=2, max_len=10)
    with torch.no_grad():
        at_once = model(ids, attention_mask_BT=mask).logits
        torch.testing.assert_close(at_once[0, 4:], model(short).logits[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(at_once[1], model(long).logits[0], rtol=1e-5, atol=1e-5)
        model(ids[:, :8], attention_mask_BT=mask[:, :8], cache=cache)
        last = model(ids[:, 8:], attention_mask_BT=mask, cache=cache).logits
        torch.testing.assert_close(last[:, 0], at_once[:, 8], rtol=1e-5, atol=1e-5)


def test_a_cache_with_chosen_rows_goes_on_as_if_the_others_had_never_been_there() -> None:
    model, ids = decoder(SMALL), tokens(3, 8)
    cache = KVCache.allocate(SMALL, batch=3, max_len=8)
    with torch.no_grad():
        model(ids[:, :6], cache=cache)
        rows = torch.tensor([2, 0])
        rest = model(ids[rows, 6:], cache=cache.select(rows)).logits
        torch.testing.assert_close(rest, model(ids[rows]).logits[:, 6:], rtol=1e-5, atol=1e-5)


def test_a_later_token_changes_no_earlier_logits() -> None:
    model, ids = decoder(SMALL), tokens(1, 10)
    other = ids.clone()
    other[0, 7] = (ids[0, 7] + 1) % SMALL.vocab_size
    with torch.no_grad():
        difference = (model(ids).logits - model(other).logits).abs().amax(dim=-1)[0]
    assert difference[:7].max() == 0
    assert difference[7:].min() > 1e-3


def test_document_ids_keep_documents_apart() -> None:
    model = decoder(SMALL)
    first, second = tokens(1, 5), tokens(1, 7, seed=2)
    packed, documents = torch.cat((first, second), dim=1), torch.tensor([[0] * 5 + [1] * 7])
    with torch.no_grad():
        apart = model(packed, document_ids_BT=documents).logits
        torch.testing.assert_close(apart[:, :5], model(first).logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(apart[:, 5:], model(second).logits, rtol=1e-4, atol=1e-4)
        assert (apart[:, 5:] - model(packed).logits[:, 5:]).abs().max() > 1e-2


def test_attention_depends_on_distances_and_not_on_places() -> None:
    model, ids = decoder(SMALL), tokens(1, 6)
    with torch.no_grad():
        shifted = model(ids, positions_BT=torch.arange(20, 26)[None]).logits
        torch.testing.assert_close(shifted, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_embeddings_may_take_the_place_of_ids_and_hidden_states_come_on_request() -> None:
    model, ids = decoder(SMALL), tokens(2, 6)
    with torch.no_grad():
        output = model(embeddings_BTD=model.embed(ids), return_hidden=True)
        torch.testing.assert_close(output.logits, model(ids).logits)
        torch.testing.assert_close(model.lm_head(output.hidden), output.logits)
        assert model(ids).hidden is None


def test_layers_may_differ_in_width() -> None:
    config = replace(SMALL, ffn_dim=(16, 64, 8))
    assert [layer.ffn.down.in_features for layer in Decoder(config).layers] == [16, 64, 8]
    with pytest.raises(ConfigError, match="one per layer"):
        replace(SMALL, ffn_dim=(16, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_kv_heads": 4}, "divisor"), ({"head_dim": 7}, "even"), ({"vocab_size": 0}, "at least 1")],
)
def test_impossible_shapes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


def test_more_tokens_than_the_model_or_the_cache_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_seq_len = 64"):
        decoder(SMALL)(tokens(1, 65))
    with pytest.raises(ConfigError, match="larger max_len"):
        decoder(SMALL)(tokens(1, 5), cache=KVCache.allocate(SMALL, batch=1, max_len=4))
