"""Windows over documents, and document losses against one forward pass in plain float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diglot.evaluate import losses
from diglot.evaluate.bits_per_byte import document_nats, windows_of
from diglot.model.decoder import Decoder, DecoderConfig

END = 2


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products gain nothing from a second thread and wait long for one on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@given(num_tokens=st.integers(1, 300), half=st.integers(1, 20))
def test_every_token_is_scored_once_with_half_a_window_before_it(num_tokens, half):
    windows = windows_of(0, num_tokens, 2 * half)
    scored = [p for w in windows for p in range(w.scored_to, w.end)]
    assert scored == list(range(num_tokens))
    for window in windows:
        assert window.end - window.start <= 2 * half
        for p in range(window.scored_to, window.end):
            assert p - window.start >= min(half, p)  # tokens before it in the window


def tiny_model():
    config = DecoderConfig(
        vocab_size=50, d_model=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=64, max_seq_len=64
    )
    return Decoder(config, seed=3).eval()


def some_documents(lengths, seed=0):
    rng = np.random.default_rng(seed)
    documents = [[*rng.integers(4, 50, size=n - 1), END] for n in lengths]
    starts = np.cumsum([0, *lengths])[:-1]
    return documents, np.concatenate(documents).astype(np.int64), starts.astype(np.int64)


def nats_of_one_pass(model, document):
    """The whole document in one window, softmax in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([[END, *document[:-1]]])).logits[0].double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(document)), document].sum()


def test_short_documents_equal_one_pass_each():
    model = tiny_model()
    documents, tokens, starts = some_documents([1, 7, 30, 64, 12, 30])
    expected = [nats_of_one_pass(model, document) for document in documents]
    np.testing.assert_allclose(document_nats(model, tokens, starts, end_id=END, context=64), expected, rtol=1e-5)


def test_long_documents_equal_windows_worked_one_by_one():
    model = tiny_model()
    documents, tokens, starts = some_documents([50, 21])
    expected = []
    for document in documents:
        padded, total = [END, *document], 0.0
        for window in windows_of(0, len(document), 16):
            with torch.no_grad():
                logits = model(torch.tensor([padded[window.start : window.end]])).logits[0].double()
            log_p = torch.log_softmax(logits, dim=-1)
            total -= sum(log_p[p - window.start, padded[p + 1]].item() for p in range(window.scored_to, window.end))
        expected.append(total)
    np.testing.assert_allclose(document_nats(model, tokens, starts, end_id=END, context=16), expected, rtol=1e-5)


def test_batching_does_not_change_a_document(monkeypatch):
    model = tiny_model()
    _, tokens, starts = some_documents([5, 40, 64, 100, 3, 17, 90])
    together = document_nats(model, tokens, starts, end_id=END, context=32)
    monkeypatch.setattr(losses, "MAX_BATCH_TOKENS", 1)
    monkeypatch.setattr(losses, "LOGIT_ROWS", 7)
    alone = document_nats(model, tokens, starts, end_id=END, context=32)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_a_uniform_model_needs_log_of_the_vocabulary_for_every_token():
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    _, tokens, starts = some_documents([10, 70])
    nats = document_nats(model, tokens, starts, end_id=END, context=32)
    np.testing.assert_allclose(nats, np.log(50) * np.array([10, 70]), rtol=1e-6)


@pytest.mark.parametrize("context", [0, 3, 128])
def test_an_odd_or_too_long_context_is_refused(context):
    _, tokens, starts = some_documents([5])
    with pytest.raises(ValueError, match="must be even"):
        document_nats(tiny_model(), tokens, starts, end_id=END, context=context)
