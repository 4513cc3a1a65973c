"""From losses and answers to `eval_result` records: grouped by language and source, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from diglot.core.seeds import derive_seed
from diglot.corpus.compose.conversation import Conversation
from diglot.evaluate.answers import Sample
from diglot.evaluate.heldout import Heldout
from diglot.evaluate.results import EvalResult, result, signature
from diglot.evaluate.statistics import ratio_of_sums

ANSWER_TASKS = {  # part of the reward -> task
    "language": "answer_language",
    "form": "answer_form",
    "overlap": "answer_overlap",
    "total": "answer_reward",
}
VERSIONS = {"bits_per_byte": 1, "response_bits_per_byte": 1, **dict.fromkeys(ANSWER_TASKS.values(), 1)}

AGAINST = "against"  # a pre-trained model to compare with

Floats = NDArray[np.float64]


def is_ngram(model: str) -> bool:
    return model.startswith("ngram-")


def document_scores(
    nats: Mapping[str, Floats], heldout: Heldout, *, context: int, tokenizer: str, seed: int
) -> list[EvalResult]:
    """Bits per byte of every model by language and by source, with paired differences: by language to every n-gram, and
    by both to the model `against`.

    Args:
        nats: model name -> nats per document, [D] in heldout's order.
        context: tokens per window of the models that have one. tokenizer: its fingerprint.
    """
    bits = {name: values / math.log(2) for name, values in nats.items()}
    neural, ngrams = [n for n in nats if not is_ngram(n)], [n for n in nats if is_ngram(n)]
    rivals = {f"{n} - {AGAINST}": bits[n] - bits[AGAINST] for n in neural if AGAINST in nats and n != AGAINST}
    paired = {f"{name} - {ngram}": bits[name] - bits[ngram] for name in neural for ngram in ngrams} | rivals
    langs, sources = np.array(heldout.langs), np.array(heldout.sources)
    found = []
    for lang in sorted(set(heldout.langs)):
        rows = np.flatnonzero(langs == lang)
        found += [_document_score(n, v, rows, lang, None, heldout, context, tokenizer, seed) for n, v in bits.items()]
        found += [_document_score(n, v, rows, lang, None, heldout, context, tokenizer, seed) for n, v in paired.items()]
        for source in sorted(set(sources[rows])):
            part = rows[sources[rows] == source]
            found += [
                _document_score(n, v, part, lang, str(source), heldout, context, tokenizer, seed)
                for n, v in (bits | rivals).items()
            ]
    return found


def _document_score(
    model: str,
    bits: Floats,
    rows: NDArray[np.intp],
    lang: str,
    source: str | None,
    heldout: Heldout,
    context: int,
    tokenizer: str,
    seed: int,
) -> EvalResult:
    task = "bits_per_byte"
    window = {} if is_ngram(model) else {"context": context, "stride": context // 2}
    # One seed per group of documents and not per model, so that all models are compared on the same draws.
    estimate = ratio_of_sums(
        bits[rows],
        heldout.num_bytes[rows],
        [heldout.clusters[i] for i in rows],
        seed=derive_seed(seed, task, lang, source or ""),
    )
    return result(
        estimate,
        task=task,
        version=VERSIONS[task],
        model=model,
        language=lang,
        source=source,
        metric="bits per byte",
        signature=signature(task, VERSIONS[task], [heldout.ids[i] for i in rows], tokenizer=tokenizer, **window),
    )


def response_scores(
    model: str, nats: Floats, conversations: Sequence[Conversation], *, tokenizer: str, seed: int
) -> list[EvalResult]:
    """Bits per byte of the reference answers given their questions, by language. nats: [conversations]."""
    bits = nats / math.log(2)
    num_bytes = np.array([len(c.answer.encode()) for c in conversations], dtype=np.float64)
    langs = [c.lang for c in conversations]
    groups = [(c.id, c.documents[0]) for c in conversations]
    return _by_language(
        "response_bits_per_byte", "bits per byte", model, langs, groups, bits, num_bytes, seed, tokenizer=tokenizer
    )


def answer_scores(model: str, samples: Sequence[Sample], *, seed: int) -> list[EvalResult]:
    """Means of the programmatic reward and its parts over a model's answers, all in [0, 1], by language asked for."""
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    if not rewards:
        return []
    groups = [(f"{s.prompt}\n{s.reference}", s.documents[0]) for s in samples]
    sampling = samples[0].sampling
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    return [
        found
        for part, task in ANSWER_TASKS.items()
        for found in _by_language(
            task,
            "mean",
            model,
            [s.lang for s in samples],
            groups,
            np.array([r[part] for r in rewards]),
            np.ones(len(rewards)),
            seed,
            **drawn,
        )
    ]


def _by_language(
    task: str,
    metric: str,
    model: str,
    langs: Sequence[str],
    groups: Sequence[tuple[str, str]],
    numerator: Floats,
    denominator: Floats,
    seed: int,
    **conditions: object,
) -> list[EvalResult]:
    """groups: per item its identifier and its cluster, the document it was made from."""
    found = []
    for lang in sorted(set(langs)):
        rows = [i for i, name in enumerate(langs) if name == lang]
        estimate = ratio_of_sums(
            numerator[rows], denominator[rows], [groups[i][1] for i in rows], seed=derive_seed(seed, task, lang)
        )
        found.append(
            result(
                estimate,
                task=task,
                version=VERSIONS[task],
                model=model,
                language=lang,
                source=None,
                metric=metric,
                signature=signature(task, VERSIONS[task], [groups[i][0] for i in rows], **conditions),
            )
        )
    return found
