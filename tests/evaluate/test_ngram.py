"""Kneser-Ney against a slow dictionary version written from the formulas, and against numbers worked by hand."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.evaluate.ngram import FALLBACK, Discounts, KneserNey
from diglot.evaluate.ngram_counts import count_ngrams

END = 0


def laid_out(documents):
    """Documents without their end token -> (tokens, starts)."""
    closed = [[*document, END] for document in documents]
    lengths = np.array([0, *map(len, closed)])
    return np.concatenate(closed).astype(np.int64), np.cumsum(lengths)[:-1].astype(np.int64)


class SlowKneserNey:
    """The definition: dictionaries, tuples, one probability at a time."""

    def __init__(self, documents, order, vocab_size):
        self.order, self.vocab_size = order, vocab_size
        counts = [Counter() for _ in range(order + 2)]
        for document in documents:
            padded = [END, *document, END]
            for end in range(1, len(padded)):
                for n in range(1, order + 2):
                    if end - n + 1 >= 0:
                        counts[n][tuple(padded[end - n + 1 : end + 1])] += 1
        self.adjusted = {order: dict(counts[order])}
        for n in range(1, order):
            before = defaultdict(set)
            for gram in counts[n + 1]:
                before[gram[1:]].add(gram[0])
            self.adjusted[n] = {g: len(before[g]) if g in before else counts[n][g] for g in counts[n]}
        self.discounts = {n: self.estimate(a.values()) for n, a in self.adjusted.items()}

    @staticmethod
    def estimate(values):
        t = Counter(values)
        if all(t[i] for i in (1, 2, 3, 4)):
            y = t[1] / (t[1] + 2 * t[2])
            discounts = [i - (i + 1) * y * t[i + 1] / t[i] for i in (1, 2, 3)]
            if all(0 <= d <= i for i, d in zip((1, 2, 3), discounts, strict=True)):
                return discounts
        return list(FALLBACK)

    def probability(self, word, context, n=None):
        """p(word | context); context = all tokens of the document so far, behind one END."""
        n = min(self.order, len(context) + 1) if n is None else n
        if n == 0:
            return 1 / self.vocab_size
        history = tuple(context[len(context) - n + 1 :])
        following = {g[-1]: a for g, a in self.adjusted[n].items() if g[:-1] == history}
        lower = self.probability(word, context, n - 1)
        if not following:
            return lower
        total = sum(following.values())
        discount = self.discounts[n]
        left = sum(discount[min(a, 3) - 1] for a in following.values())
        a = following.get(word, 0)
        own = a - discount[min(a, 3) - 1] if a else 0.0
        return own / total + left / total * lower


def fast(documents, order, vocab_size, max_order=5):
    tokens, starts = laid_out(documents)
    return KneserNey(count_ngrams(tokens, starts, vocab_size=vocab_size, end_id=END, max_order=max_order), order)


texts = st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(train=texts, heldout=texts, order=st.sampled_from([2, 3, 5]))
def test_nats_equal_the_dictionary_definition(train, heldout, order):
    vocab_size = 7
    slow = SlowKneserNey(train, order, vocab_size)
    expected = []
    for document in heldout:
        padded = [END, *document, END]
        expected += [-math.log(slow.probability(padded[i], padded[:i])) for i in range(1, len(padded))]
    got = fast(train, order, vocab_size).nats(*laid_out(heldout))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_sum_to_one_over_the_vocabulary_in_any_context(order):
    rng = np.random.default_rng(0)
    vocab_size = 40
    train = [rng.zipf(1.4, size=30).clip(1, vocab_size - 2).tolist() for _ in range(200)]
    model = fast(train, order, vocab_size)
    assert model.orders[-1].discounts.estimated
    for length in (0, 1, 2, 3, 6):
        context = rng.integers(1, vocab_size - 1, size=length).tolist()  # token vocab_size - 1 was never seen
        # every continuation; the one without a word is the end of the document
        tokens, starts = laid_out([context, *([*context, word] for word in range(1, vocab_size))])
        last = model.nats(tokens, starts)[starts + length]
        assert np.exp(-last).sum() == pytest.approx(1.0, abs=1e-12)


def test_a_bigram_model_of_one_tiny_text_matches_the_sum_by_hand():
    # Documents "1 2 1 2" and "1 3"; bigrams: END-1 x2, 1-2 x2, 2-1, 2-END, 1-3, 3-END.
    # Predecessors: 1 after {END, 2} = 2, 2 after {1} = 1, 3 after {1} = 1, END after {2, 3} = 2; together 6.
    # Too few counts of counts, so the discounts are 0.5, 1, 1.5.
    model = fast([[1, 2, 1, 2], [1, 3]], 2, 5)
    unigram_left = (1.0 + 0.5 + 0.5 + 1.0) / 6
    p_2 = (1 - 0.5) / 6 + unigram_left / 5
    # context 1: 2 twice, 3 once
    p_2_after_1 = (2 - 1.0) / 3 + (1.0 + 0.5) / 3 * p_2
    p_4 = unigram_left / 5  # never seen
    p_4_after_1 = (1.0 + 0.5) / 3 * p_4
    nats = model.nats(*laid_out([[1, 2], [1, 4, 2]]))
    assert nats[1] == pytest.approx(-math.log(p_2_after_1), abs=1e-12)
    assert nats[4] == pytest.approx(-math.log(p_4_after_1), abs=1e-12)
    assert nats[5] == pytest.approx(-math.log(p_2), abs=1e-12)  # context 4 was never continued: the unigram alone


def test_discounts_are_those_of_chen_and_goodman():
    # t = 8, 4, 2, 1: Y = 8 / 16; D1 = 1 - 2 * .5 * 4 / 8, D2 = 2 - 3 * .5 * 2 / 4, D3 = 3 - 4 * .5 * 1 / 2
    adjusted = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 3])
    assert Discounts.estimate(adjusted) == Discounts(one=0.5, two=1.25, three=2.0, estimated=True)


def test_no_ngram_crosses_a_document_border():
    # In training 3 always follows 2, but only across a border; the model must not know it.
    apart = fast([[1, 2], [3, 1]] * 20, 2, 5)
    joined = fast([[1, 2, 3, 1]] * 20, 2, 5)
    heldout = laid_out([[1, 2, 3]])
    assert apart.nats(*heldout)[2] > joined.nats(*heldout)[2] + 1


def test_a_higher_order_is_better_on_text_with_long_dependencies():
    rng = np.random.default_rng(1)
    phrases = [rng.integers(1, 20, size=6).tolist() for _ in range(30)]
    documents = [[t for i in rng.integers(0, 30, size=10) for t in phrases[i]] for _ in range(60)]
    nats = [fast(documents[:50], order, 21).nats(*laid_out(documents[50:])).mean() for order in (2, 3, 5)]
    assert nats[0] > nats[1] > nats[2]


def test_orders_outside_the_counted_ones_are_refused():
    with pytest.raises(ValueError, match="orders 2 to 3"):
        fast([[1, 2]], 4, 5, max_order=3)
