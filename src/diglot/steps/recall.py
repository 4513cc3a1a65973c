"""Recipe step `recall`: find the pages of a topic in a corpus, from a few seeds, in rounds.

    math:
      kind: recall
      from: distinct
      positive: {hosts: [d2l.ai]}
      expand: {deny_patterns: ["/login"]}

Each round: train a classifier on the positives against random other documents, score every document, find the topic's
sites and path prefixes in what was recalled, and let the pages under them join the positives. It ends when a round
recalls little that is new, when nothing joins, or after num_rounds.

    rounds/<n>/                model.bin, classifier.json and scores/<source>/<shard>.parquet (`id`, `scores`)
    model.bin, classifier.json the last round's classifier; model.ftz its quantised form
    recalled.parquet           id, source, url, score in the last round, first round that recalled it
    report.json                every round: positives, threshold, recalled, sites and prefixes with counts, the pool

MAP-Neo and DeepSeekMath describe the procedure; see `diglot.corpus.classify.recalling`. After a kill, the next run goes
on after the last finished round, and in a round after the last scored shard.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.classify.settings import ExpandSettings, Selection, TextSettings, TrainingSettings
from diglot.steps.context import StepContext, StepKind, input_step
from diglot.steps.train_classifier import (
    CORPUS_KINDS,
    NEGATIVE,
    POSITIVE,
    check_quantise_to,
    check_shares,
    make_plan,
    observe_selections,
)

if TYPE_CHECKING:
    from diglot.corpus.classify.pages import Pages
    from diglot.corpus.classify.recalling import Expansion, Tally
    from diglot.corpus.classify.training import Plan

NUM_LISTED = 100  # sites and prefixes of a round in the report; their number is given in full


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Documents whose label is known, to measure each round on. Seeds are not counted, nor what is in neither part.

    negative: everything that is not positive, when it has no limits.
    """

    positive: Selection
    negative: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if self.positive.takes_all:
            raise ConfigError(
                "pool.positive takes every document. Narrow it by sources, hosts, url_patterns or ids_file."
            )


@dataclass(frozen=True, kw_only=True)
class RecallConfig:
    """Seeds, rounds, and when a place belongs to the topic.

    positive: the seeds. Its max_documents and balance_hosts also limit what each round trains on.
    negative: what negatives are drawn from; what is positive or was recalled in a round before is left out.
    negatives_on_positive_sites: whether pages of sites that have positive pages can be negatives. Ours is no: most of
        them belong to the topic, and a classifier that learned them as negatives tells seeds from their neighbours.
    negatives_per_positive: how many are drawn where `negative` has no max_documents. MAP-Neo pairs one to one.
    num_rounds: at most; DeepSeekMath stopped after four.
    stop_share: it ends when fewer of a round's recalled documents than this are new. DeepSeekMath: 0.02.
    join_recalled: pages under accepted prefixes join also where they were recalled; the papers add only the others.
    threshold: a fixed one (MAP-Neo: 0.96); None takes in each round the lowest with wanted_precision on validation.
    """

    from_: str = input_step(*CORPUS_KINDS)
    positive: Selection
    negative: Selection = field(default_factory=Selection)
    negatives_per_positive: float = 1.0
    negatives_on_positive_sites: bool = False
    expand: ExpandSettings = field(default_factory=ExpandSettings)
    num_rounds: int = 4
    stop_share: float = 0.02
    join_recalled: bool = True
    pool: Pool | None = None
    text: TextSettings = field(default_factory=TextSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    threshold: float | None = None
    wanted_precision: float = 0.95
    validation_share: float = 0.1
    quantise_to: int | None = 20_000

    def __post_init__(self) -> None:
        if self.positive.takes_all:
            raise ConfigError(
                "positive: takes every document. Name the seeds: sources, hosts, url_patterns or ids_file."
            )
        if self.num_rounds < 1:
            raise ConfigError(f"num_rounds = {self.num_rounds}, but one round is the least.")
        if not 0 <= self.stop_share < 1:
            raise ConfigError(f"stop_share = {self.stop_share}, outside [0, 1). 0 goes on until nothing joins.")
        check_shares(self.threshold, self.wanted_precision, self.validation_share, self.negatives_per_positive)
        check_quantise_to(self.quantise_to)


def recall(config: RecallConfig, context: StepContext) -> dict[str, Any]:
    """Run the rounds; see the module for the files."""
    import numpy as np

    from diglot.core.storage import write_json
    from diglot.corpus.classify.pages import choose, load_pages
    from diglot.corpus.classify.recalling import expand

    started = time.monotonic()
    pages = load_pages(context.input())
    seeds = _mask(pages, choose(pages, config.positive, folder=context.recipe_dir, seed=_seed(context, "seeds")))
    if not seeds.any():
        raise InputError("positive: fits no document that was kept. Look at its hosts, sources and patterns.")
    pool = _pool(config, pages, seeds, context.recipe_dir)
    positives, first_round = seeds.copy(), np.zeros(len(pages), np.int32)
    rounds: list[dict[str, Any]] = []
    stopped = "num_rounds"
    for number in range(1, config.num_rounds + 1):
        numbers = _training_set(config, context, pages, positives, first_round > 0)
        trained = _round(config, context, pages, numbers, number)
        scores = _scores(context.out / "rounds" / str(number), pages)
        recalled = scores >= np.float32(trained["threshold"])
        if not recalled.any():
            raise InputError(
                f"round {number}: no document reaches the threshold {trained['threshold']:.3f}; the highest score is "
                f"{scores.max():.3f}. Train longer (training: {{epochs: 25, learning_rate: 0.5}}), give more seeds, or "
                "leave threshold out."
            )
        is_new = recalled & (first_round == 0)
        first_round[is_new] = number
        expansion = expand(pages, recalled, config.expand)
        joins = expansion.taken & ~positives & (config.join_recalled | ~recalled)
        found = {
            "round": number,
            "positives": int(positives.sum()),
            "trained_on": {label: len(mine) for label, mine in numbers.items()},
            **trained,
            "recalled": int(recalled.sum()),
            "newly_recalled": int(is_new.sum()),
            "joined": int(joins.sum()),
            **_places(expansion),
            **_on_pool(pool, recalled),
        }
        rounds.append(found)
        context.progress.say(f"  {context.step}: {_sentence(found)}")
        if found["newly_recalled"] < config.stop_share * found["recalled"] and number > 1:
            stopped = "few_new"
            break
        if not found["joined"]:
            stopped = "nothing_joined"
            break
        if number < config.num_rounds:
            positives |= joins
    last = _finish(config, context, pages, numbers)
    _write_recalled(context.out, pages, scores, recalled, first_round)
    write_json(context.out / "report.json", {"rounds": rounds, "stopped": stopped, "last": last})
    counts = {
        "documents": len(pages),
        "seeds": int(seeds.sum()),
        "positives": int(positives.sum()),
        "recalled": int(recalled.sum()),
        "not_recalled": int((~recalled).sum()),
        "rounds": len(rounds),
        "stopped": stopped,
        "threshold": rounds[-1]["threshold"],
        "recalled_by_round": [found["recalled"] for found in rounds],
        "model_bytes": last["model_bytes"],
        "quantised_bytes": last.get("quantised", {}).get("model_bytes"),
        **({"pool": [found["pool"] for found in rounds]} if pool else {}),
        "seconds": round(time.monotonic() - started, 3),
    }
    assert counts["documents"] == counts["recalled"] + counts["not_recalled"]
    return counts


def _seed(context: StepContext, *names: str) -> int:
    from diglot.core.seeds import derive_seed

    return derive_seed(context.seed, "recall", *names)


def _mask(pages: Pages, numbers: Any) -> Any:
    import numpy as np

    mask = np.zeros(len(pages), bool)
    mask[numbers] = True
    return mask


def _pool(config: RecallConfig, pages: Pages, seeds: Any, folder: Path) -> tuple[Any, Any] | None:
    """bool [N] each: documents known to be of the topic and known not to be; seeds are neither."""
    from diglot.corpus.classify.pages import choose

    if config.pool is None:
        return None
    positive = _mask(pages, choose(pages, config.pool.positive, folder=folder, seed=0))
    negative = _mask(pages, choose(pages, config.pool.negative, folder=folder, seed=0, without=positive))
    if not (positive & ~seeds).any():
        raise InputError("pool.positive has no document beside the seeds, so recall cannot be measured. Widen it.")
    return positive & ~seeds, negative & ~seeds


def _training_set(
    config: RecallConfig, context: StepContext, pages: Pages, positives: Any, seen: Any
) -> dict[str, Any]:
    """label -> document numbers of one round."""
    import dataclasses

    import numpy as np

    from diglot.corpus.classify.pages import choose, on_sites, sample

    positive = sample(pages, np.flatnonzero(positives), config.positive, _seed(context, POSITIVE))
    limit = config.negative.max_documents or max(1, round(len(positive) * config.negatives_per_positive))
    without = positives | seen
    if not config.negatives_on_positive_sites:
        without |= on_sites(pages, positives)
    negative = choose(
        pages,
        dataclasses.replace(config.negative, max_documents=limit),
        folder=context.recipe_dir,
        seed=_seed(context, NEGATIVE),
        without=without,
    )
    if not len(negative):
        raise InputError(
            "negative: leaves no document that is neither positive nor recalled nor on a site with positive ones. "
            "Widen it, raise the threshold, or set negatives_on_positive_sites: true."
        )
    return {NEGATIVE: negative, POSITIVE: positive}


def _round(
    config: RecallConfig, context: StepContext, pages: Pages, numbers: dict[str, Any], number: int
) -> dict[str, Any]:
    """Train and score, or find it done. Returns threshold, validation, and counts of the split."""
    import xxhash

    from diglot.corpus.classify.model import FACTS, MODEL
    from diglot.corpus.finished import once

    folder = context.out / "rounds" / str(number)
    digest = xxhash.xxh3_64()
    for label, mine in numbers.items():
        digest.update(f"{label}\0{len(mine)}\0".encode())
        digest.update("\n".join(pages.ids[mine].tolist()).encode())

    def work() -> tuple[list[Path], dict[str, Any]]:
        trained = _train(config, context, pages, numbers, folder, quantise_to=None)
        if trained["threshold"] is None:
            raise InputError(
                f"round {number}: no score has precision {config.wanted_precision} on validation (ROC-AUC "
                f"{trained['validation']['roc_auc']}). Give more seeds, train longer, or lower wanted_precision."
            )
        score_files = _score(context, pages, folder, digest.hexdigest())
        return [folder / MODEL, folder / FACTS, *score_files], trained

    result: dict[str, Any] = once(folder / ".round.done.json", digest.hexdigest(), work)
    return result


def _train(
    config: RecallConfig,
    context: StepContext,
    pages: Pages,
    numbers: dict[str, Any],
    folder: Path,
    quantise_to: int | None,
) -> dict[str, Any]:
    import dataclasses

    from diglot.corpus.classify.examples import labelled_pages
    from diglot.corpus.classify.training import few_updates, train

    plan: Plan = dataclasses.replace(
        make_plan(config, [NEGATIVE, POSITIVE], POSITIVE, _seed(context, "train")), quantise_to=quantise_to
    )
    examples, held = labelled_pages(
        pages, numbers, text=config.text, validation_share=config.validation_share, seed=_seed(context, "split")
    )
    found = train(examples, plan, folder)
    if warning := few_updates(found, plan):
        context.progress.say(f"{context.step}: {warning}")
    validation = found["validation"][POSITIVE]
    return {
        "threshold": validation["threshold"],
        "validation": {**validation, "groups": held.num_groups},
        "model_bytes": found["model_bytes"],
        **({"quantised": found["quantised"]} if "quantised" in found else {}),
    }


def _score(context: StepContext, pages: Pages, folder: Path, key: str) -> list[Path]:
    from diglot.corpus.classify.model import load
    from diglot.corpus.classify.scoring import ScoreTask, score_shard
    from diglot.corpus.executor import map_shards
    from diglot.corpus.tables import decider

    kept_only = decider(pages.corpus) is not None
    tasks = [
        ScoreTask(
            corpus=pages.corpus,
            shard=shard,
            out=folder,
            model=folder,
            quantised=False,
            columns=((POSITIVE, "scores"),),
            key=key,
            kept_only=kept_only,
        )
        for shard in pages.shards
    ]
    label = f"{context.step} round {folder.name}"
    map_shards(score_shard, tasks, workers=context.workers, progress=context.progress, label=label)
    load.cache_clear()
    return [task.out / "scores" / task.shard.file for task in tasks]


def _scores(folder: Path, pages: Pages) -> Any:
    """float32 [N], of the kept documents."""
    import numpy as np

    from diglot.corpus.tables import read_table

    parts = []
    for number, shard in enumerate(pages.shards):
        column = read_table(folder / "scores" / shard.file, ["scores"])["scores"].to_numpy()
        parts.append(column[pages.row[pages.shard == number]])
    return np.concatenate(parts)


def _places(expansion: Expansion) -> dict[str, Any]:
    def listed(tallies: list[Tally]) -> list[dict[str, Any]]:
        return [tally._asdict() for tally in tallies[:NUM_LISTED]]

    return {
        "num_sites": len(expansion.sites),
        "num_prefixes": len(expansion.prefixes),
        "denied": expansion.denied,
        "sites": listed(expansion.sites),
        "prefixes": listed(expansion.prefixes),
    }


def _on_pool(pool: tuple[Any, Any] | None, recalled: Any) -> dict[str, Any]:
    if pool is None:
        return {}
    positive, negative = pool
    hits, wrong, all_positive = int((recalled & positive).sum()), int((recalled & negative).sum()), int(positive.sum())
    precision = round(hits / (hits + wrong), 4) if hits + wrong else None
    return {
        "pool": {
            "positive": all_positive,
            "negative": int(negative.sum()),
            "recalled_positive": hits,
            "recalled_negative": wrong,
            "precision": precision,
            "recall": round(hits / all_positive, 4),
        }
    }


def _sentence(found: dict[str, Any]) -> str:
    pool = found.get("pool")
    measured = f"; pool precision {pool['precision']}, recall {pool['recall']}" if pool else ""
    return (
        f"round {found['round']}: {found['positives']:,} positives, threshold {found['threshold']:.3f}, "
        f"{found['recalled']:,} recalled ({found['newly_recalled']:,} new), {found['joined']:,} join from "
        f"{found['num_prefixes']:,} prefixes on {found['num_sites']:,} sites{measured}"
    )


def _finish(config: RecallConfig, context: StepContext, pages: Pages, numbers: dict[str, Any]) -> dict[str, Any]:
    """The last round's model at the top of the artifact: trained again, to the same bytes, for its quantised form."""
    return _train(config, context, pages, numbers, context.out, quantise_to=config.quantise_to)


def _write_recalled(out: Path, pages: Pages, scores: Any, recalled: Any, first_round: Any) -> None:
    import numpy as np
    import pyarrow as pa

    from diglot.corpus.tables import write_table

    mine = np.flatnonzero(recalled)
    sources = [pages.shards[number].source for number in pages.shard[mine].tolist()]
    table = pa.table(
        {
            "id": pa.array(pages.ids[mine], pa.string()),
            "source": pa.array(sources, pa.string()),
            "url": pa.array([pages.urls[number] for number in mine.tolist()], pa.string()),
            "score": pa.array(scores[mine], pa.float32()),
            "first_round": pa.array(first_round[mine], pa.int32()),
        }
    )
    write_table(out / "recalled.parquet", table)


def observe(config: RecallConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """What ids_files hold, for the fingerprint."""
    pool = (config.pool.positive, config.pool.negative) if config.pool else ()
    return observe_selections(recipe_dir, config.positive, config.negative, *pool)


STEP = StepKind(kind="recall", version=1, config=RecallConfig, run=recall, draws_random_numbers=True, observe=observe)
