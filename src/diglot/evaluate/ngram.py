"""The opponent: interpolated modified Kneser-Ney n-gram models, a strong baseline wherever text is scarce.

Variant: Chen & Goodman (1998), modified Kneser-Ney with three discounts per order (for counts 1, 2 and 3 or more), all
orders interpolated, the unigram with the uniform distribution over the whole vocabulary:

    p_n(w | h) = (a(h w) - D_n(a(h w))) / A(h) + gamma_n(h) * p_{n-1}(w | h without its first token)
    gamma_n(h) = (D_n(1) N_1(h) + D_n(2) N_2(h) + D_n(3+) N_3+(h)) / A(h),      A(h) = sum over w of a(h w)
    p_0(w) = 1 / vocab_size;   p_n(w | h) = p_{n-1}(w | ...) where h was never continued

`a` is the count for the highest order, and the number of distinct tokens seen before the n-gram for lower ones; n-grams
that open a document have nothing before them and keep their counts, as in KenLM (Heafield et al. 2013). N_i(h) is the
number of tokens w with a(h w) = i. Discounts follow from the number t_i of n-grams with a = i:

    Y = t_1 / (t_1 + 2 t_2),   D(i) = i - (i + 1) Y t_{i+1} / t_i
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diglot.evaluate.ngram_counts import Ints, NgramCounts

VARIANT = "interpolated modified Kneser-Ney (Chen & Goodman 1998), 3 discounts per order, unigram over uniform"
FALLBACK = (0.5, 1.0, 1.5)  # where counts of counts are too few to estimate discounts from (KenLM's choice as well)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Discounts:
    """What is taken off adjusted counts of 1, 2 and 3 or more. `estimated`: from the counts, not `FALLBACK`."""

    one: float
    two: float
    three: float
    estimated: bool

    @classmethod
    def estimate(cls, adjusted: Ints) -> Discounts:
        """Discounts from the counts of counts, or `FALLBACK` where those give a negative or undefined one."""
        t = np.bincount(np.minimum(adjusted, 5), minlength=6)[:5].tolist()
        if all(t[1:]):
            y = t[1] / (t[1] + 2 * t[2])
            values = [i - (i + 1) * y * t[i + 1] / t[i] for i in (1, 2, 3)]
            if all(0 <= value <= i for i, value in enumerate(values, start=1)):
                return cls(one=values[0], two=values[1], three=values[2], estimated=True)
        return cls(one=FALLBACK[0], two=FALLBACK[1], three=FALLBACK[2], estimated=False)

    def of(self, adjusted: Ints) -> Floats:
        return np.array([0.0, self.one, self.two, self.three])[np.minimum(adjusted, 3)]


@dataclass(frozen=True)
class Order:
    """One order of a model, ready to score: per n-gram its own share, per context what is left for the lower order.

    Both have one entry more, for row -1: what was never counted has no share and leaves all to the lower order.
    """

    discounts: Discounts
    own: Floats  # [n-grams + 1] (a - D(a)) / A(context)
    gamma: Floats  # [contexts + 1] weight of the lower order; 1 where the context was never continued


class KneserNey:
    """An interpolated modified Kneser-Ney model of one order over counted n-grams. Several may share the counts."""

    def __init__(self, counts: NgramCounts, order: int) -> None:
        if not 2 <= order <= counts.max_order:
            raise ValueError(f"order = {order}, but n-grams were counted for orders 2 to {counts.max_order}.")
        self.counts, self.order = counts, order
        self.orders = [self._order(n) for n in range(1, order + 1)]

    def nats(self, tokens: Ints, starts: Ints) -> Floats:
        """-log p of every token given the up to order - 1 tokens before it in its document, [T], in nats.

        Args:
            tokens: [T], documents laid end to end, each closed by the document-end token. starts: [D].
        """
        rows = self.counts.rows(tokens, starts)[: self.order]
        uniform = 1.0 / self.counts.vocab_size
        probability = self.orders[0].own[rows[0][1:]] + self.orders[0].gamma[0] * uniform
        for lower, own_rows, order in zip(rows, rows[1:], self.orders[1:], strict=False):
            # A context that ends in the document before this one ends with the document-end token and is longer than
            # it: never continued, so its gamma is 1 and the lower order stands as it is.
            probability = order.own[own_rows[1:]] + order.gamma[lower[:-1]] * probability
        nats: Floats = -np.log(probability)
        return nats

    def describe(self) -> dict[str, object]:
        """What a reader needs to rebuild the model: variant, discounts and number of n-grams by order."""
        return {
            "order": self.order,
            "variant": VARIANT,
            "num_ngrams": [int((self.adjusted(n) > 0).sum()) for n in range(1, self.order + 1)],
            "discounts": [[o.discounts.one, o.discounts.two, o.discounts.three] for o in self.orders],
            "discounts_estimated": [o.discounts.estimated for o in self.orders],
        }

    def adjusted(self, n: int) -> Ints:
        """Adjusted counts `a` of the n-grams of order n in this model."""
        if n == self.order:
            return self.counts.table(n).count
        extensions = self.counts.left_extensions(n)
        if n == 1:
            return extensions
        table = self.counts.table(n)
        return np.where(table.opens_document, table.count, extensions)

    def _order(self, n: int) -> Order:
        adjusted = self.adjusted(n)
        discounts = Discounts.estimate(adjusted)
        taken = discounts.of(adjusted)
        if n == 1:
            context, num_contexts = np.zeros(len(adjusted), dtype=np.int64), 1
        else:
            context = self.counts.table(n).keys // self.counts.vocab_size
            num_contexts = self.counts.num_rows(n - 1)
        total = np.bincount(context, weights=adjusted, minlength=num_contexts)
        left = np.bincount(context, weights=taken, minlength=num_contexts)
        continued = total > 0
        gamma = np.divide(left, total, out=np.ones(num_contexts), where=continued)
        own = (adjusted - taken) / total[context]
        return Order(discounts=discounts, own=np.append(own, 0.0), gamma=np.append(gamma, 1.0))
