"""From recalled pages to the places of a topic: sites with a high share of them, then path prefixes inside these sites.

DeepSeekMath (arXiv 2402.03300, section 2.1) and MAP-Neo (arXiv 2405.19327): a host where more than a tenth of the
pages is recalled is a topic host; the paths that belong to the topic are annotated by people. Here a prefix is accepted
when enough of its pages are recalled, and people override: accept_patterns always join, deny_patterns never.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from diglot.corpus.classify.pages import Pages, matching
from diglot.corpus.classify.settings import ExpandSettings
from diglot.corpus.classify.sites import Place


class Tally(NamedTuple):
    """How many pages a place has and how many of them are recalled."""

    place: str
    pages: int
    recalled: int


class Expansion(NamedTuple):
    """sites, prefixes: what was accepted, largest first. taken: bool [N], pages under the prefixes or an accept
    pattern. denied: how many of those a deny pattern took out again."""

    sites: list[Tally]
    prefixes: list[Tally]
    taken: Any
    denied: int


def expand(pages: Pages, recalled: Any, settings: ExpandSettings) -> Expansion:
    """The places of the topic, from the pages that a classifier recalled: bool [N]."""
    sites = topic_sites(pages.places, recalled, settings)
    prefixes = topic_prefixes(pages.places, recalled, {tally.place for tally in sites}, settings)
    accepted = {tally.place for tally in prefixes}
    taken = np.array([place is not None and not accepted.isdisjoint(_prefixes(place)) for place in pages.places], bool)
    taken |= matching(pages, settings.accept_patterns)
    denied = taken & matching(pages, settings.deny_patterns)
    return Expansion(sites, prefixes, taken & ~denied, int(denied.sum()))


def topic_sites(places: Iterable[Place | None], recalled: Any, settings: ExpandSettings) -> list[Tally]:
    """Sites with min_pages or more, more than host_share of them recalled."""
    found = [(place.site, bool(hit)) for place, hit in zip(places, recalled, strict=True) if place]
    total, hits = Counter(site for site, _ in found), Counter(site for site, hit in found if hit)
    return _largest_first(
        Tally(site, count, hits[site])
        for site, count in total.items()
        if count >= settings.min_pages and hits[site] > settings.host_share * count
    )


def topic_prefixes(
    places: Iterable[Place | None], recalled: Any, sites: set[str], settings: ExpandSettings
) -> list[Tally]:
    """The shortest prefixes inside `sites` with min_pages or more, at least pattern_share of them recalled.

    A prefix stands for all its folders only when each that has min_pages fits too; else its folders are looked at one
    by one, so that the half of a site on law does not take the other half on travel along.
    """
    total: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    below: dict[str, set[str]] = {}
    for place, hit in zip(places, recalled, strict=True):
        if place is None or place.site not in sites:
            continue
        prefixes = _prefixes(place)
        total.update(prefixes)
        if hit:
            hits.update(prefixes)
        for upper, lower in itertools.pairwise(prefixes):
            below.setdefault(upper, set()).add(lower)

    def fits(prefix: str) -> bool:
        folders = [folder for folder in below.get(prefix, ()) if total[folder] >= settings.min_pages]
        return hits[prefix] >= settings.pattern_share * total[prefix] and all(map(fits, folders))

    accepted, queue = [], [f"{site}/" for site in sites]
    while queue:
        prefix = queue.pop()
        if total[prefix] < settings.min_pages or not hits[prefix]:
            continue
        if fits(prefix):
            accepted.append(Tally(prefix, total[prefix], hits[prefix]))
        else:
            queue.extend(below.get(prefix, ()))
    return _largest_first(accepted)


def _prefixes(place: Place) -> list[str]:
    """`d2l.ai/`, `d2l.ai/chapter_linear-regression/`, ...: the slash keeps `/math` from fitting `/mathew`."""
    found = [f"{place.site}/"]
    for folder in place.folders:
        found.append(f"{found[-1]}{folder}/")
    return found


def _largest_first(tallies: Iterable[Tally]) -> list[Tally]:
    return sorted(tallies, key=lambda tally: (-tally.recalled, tally.place))
