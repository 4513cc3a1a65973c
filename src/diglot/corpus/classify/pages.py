"""The documents of a corpus by place, without their texts: what selections, host rates and patterns work on."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diglot.core.errors import InputError
from diglot.core.seeds import derive_seed
from diglot.corpus.classify.settings import Selection
from diglot.corpus.classify.sites import Place, on_host, place_of
from diglot.corpus.tables import Shard, decider, decisions_of, documents_of, shards
from diglot.ledger.artifact import Artifact


@dataclass(frozen=True, kw_only=True)
class Pages:
    """N documents in the order of shards and rows; those that a step above dropped are left out.

    shard, row: int32 [N], where each stands. ids: object [N]. urls, places: lists, None without an address.
    cluster: object [N], the near-duplicate cluster or, before deduplication, the id.
    """

    corpus: Artifact
    shards: tuple[Shard, ...]
    shard: Any
    row: Any
    ids: Any
    urls: list[str | None]
    places: list[Place | None]
    cluster: Any

    def __len__(self) -> int:
        return len(self.ids)

    def sites(self) -> list[str | None]:
        return [place.site if place else None for place in self.places]

    def groups(self, number: int) -> tuple[str, ...]:
        """What a document must not be parted from in a split, from coarse to fine: site, folders, cluster."""
        cluster = f"cluster:{self.cluster[number]}"
        place = self.places[number]
        if place is None:
            return (cluster,)
        levels = ["/".join([place.site, *place.folders[:depth]]) for depth in range(len(place.folders) + 1)]
        return (*levels, cluster)

    def texts(self, numbers: Any) -> Iterator[tuple[Any, pa.LargeStringArray]]:
        """(document numbers int64 [K], their texts) a shard at a time, for the documents in `numbers`, ascending."""
        numbers = np.sort(np.asarray(numbers, np.int64))
        ends = np.searchsorted(self.shard[numbers], np.arange(len(self.shards)), side="right")
        start = 0
        for shard, end in zip(self.shards, ends.tolist(), strict=True):
            mine = numbers[start:end]
            start = end
            if len(mine):
                table = documents_of(self.corpus, shard, ["text"])
                texts = table["text"].take(pa.array(self.row[mine])).combine_chunks()
                yield mine, pc.fill_null(texts.cast(pa.large_string()), "")


def load_pages(corpus: Artifact) -> Pages:
    """Raises InputError for a corpus without documents."""
    decided = decider(corpus) is not None
    found = tuple(shards(corpus.upstream("ingest")))
    parts = []
    for number, shard in enumerate(found):
        table = documents_of(corpus, shard, ["id", "url"])
        cluster = table["id"]
        rows = np.arange(len(table), dtype=np.int32)
        if decided:
            decisions = decisions_of(corpus, shard, ["keep", "cluster"])
            cluster = pc.coalesce(decisions["cluster"], table["id"])
            keep = decisions["keep"].to_numpy(zero_copy_only=False)
            table, cluster, rows = table.filter(decisions["keep"]), cluster.filter(decisions["keep"]), rows[keep]
        parts.append((np.full(len(rows), number, np.int32), rows, table, cluster))
    urls = [url for _, _, table, _ in parts for url in table["url"].to_pylist()]
    if not urls:
        raise InputError("no document is left to learn from: all were dropped. The counts of the select step say why.")
    return Pages(
        corpus=corpus,
        shards=found,
        shard=np.concatenate([shard for shard, *_ in parts]),
        row=np.concatenate([rows for _, rows, *_ in parts]),
        ids=np.concatenate([table["id"].to_numpy(zero_copy_only=False) for _, _, table, _ in parts]),
        urls=urls,
        places=[place_of(url) for url in urls],
        cluster=np.concatenate([cluster.to_numpy(zero_copy_only=False) for *_, cluster in parts]),
    )


def choose(pages: Pages, selection: Selection, *, folder: Path, seed: int, without: Any = None) -> Any:
    """The numbers of the selected documents, ascending: int64 [K].

    Args:
        folder: where a relative ids_file starts.
        seed: draws the subset of max_documents; of one seed, a smaller subset is part of a larger one.
        without: bool [N], documents that are not selected.
    """
    taken = np.ones(len(pages), bool) if selection.takes_all else _fitting(pages, selection, folder)
    if without is not None:
        taken &= ~without
    return sample(pages, np.flatnonzero(taken), selection, seed)


def sample(pages: Pages, numbers: Any, selection: Selection, seed: int) -> Any:
    """At most selection.max_documents of `numbers`, ascending, with its balance of hosts."""
    limit = selection.max_documents
    if limit is None or len(numbers) <= limit:
        return numbers
    lots = np.array([derive_seed(seed, document) for document in pages.ids[numbers].tolist()])
    order = numbers[np.argsort(lots, kind="stable")]
    if selection.balance_hosts:
        order = _balanced(pages, order, limit)
    return np.sort(order[:limit])


def _fitting(pages: Pages, selection: Selection, folder: Path) -> Any:
    sources = {
        number
        for number, shard in enumerate(pages.shards)
        if any(fnmatch.fnmatchcase(shard.source, pattern) for pattern in selection.sources)
    }
    if selection.sources and not sources:
        known = sorted({shard.source for shard in pages.shards})
        raise InputError(f"no source fits {', '.join(selection.sources)}. Sources here: {', '.join(known)}.")
    taken = np.isin(pages.shard, list(sources))
    if selection.hosts:
        sites = {place.site for place in pages.places if place}
        wanted = {site for site in sites if any(on_host(site, host) for host in selection.hosts)}
        taken |= np.array([place is not None and place.site in wanted for place in pages.places], bool)
    if selection.url_patterns:
        taken |= matching(pages, selection.url_patterns)
    if selection.ids_file:
        names = read_names(folder / selection.ids_file)
        by_name = zip(pages.ids.tolist(), pages.urls, strict=True)
        taken |= np.array([id in names or url in names for id, url in by_name], bool)
    return taken


def on_sites(pages: Pages, chosen: Any) -> Any:
    """Documents on the sites of the chosen ones: bool [N] -> bool [N]."""
    own = pages.sites()
    sites = {own[number] for number in np.flatnonzero(chosen).tolist()} - {None}
    return np.array([site in sites for site in own], bool)


def matching(pages: Pages, patterns: tuple[str, ...]) -> Any:
    """Documents whose address fits any of the regular expressions: bool [N]."""
    if not patterns:
        return np.zeros(len(pages), bool)
    searched = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return np.array([url is not None and searched.search(url) is not None for url in pages.urls], bool)


def read_names(path: Path) -> frozenset[str]:
    """The lines of an ids_file. Raises InputError for a file that is missing or empty."""
    try:
        names = frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"ids_file {path} cannot be read ({error}). It is relative to the recipe.") from error
    if not names:
        raise InputError(f"ids_file {path} is empty. Write one document id or address a line.")
    return names


def _balanced(pages: Pages, order: Any, limit: int) -> Any:
    """`order` without what a host has more than ceil(limit / H). A document without address is a host of its own."""
    own = pages.sites()
    sites = [own[number] or pages.ids[number] for number in order.tolist()]
    quota = -(-limit // len(set(sites)))
    given: dict[str, int] = {}
    kept = []
    for number, site in zip(order.tolist(), sites, strict=True):
        given[site] = given.get(site, 0) + 1
        if given[site] <= quota:
            kept.append(number)
    return np.array(kept, np.int64)
