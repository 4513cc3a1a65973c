"""Which n-grams to look for, and what it means to find them.

The length n of the n-grams of a text follows from its own length: a quarter of its units, but at least `min_words` and
at most `word_ngram` (for text that is mostly CJK, `min_characters` and `character_ngram`). A question of 20 words is
searched by 8-grams and still found when one word was changed, a passage of two hundred by 13-grams. A text shorter than
`word_ngram` is one n-gram as a whole, because "which of the following is an example of" would be eight of its nine
words; shorter than `min_words`, it is not searched. GPT-3 took one n between 8 and 13 for a whole data set (Brown et
al. 2020, arXiv 2005.14165, appendix C); MAP-Neo's protocol is 13-grams.

A part of an item is *covered* by the n-grams of it that stand in a document: coverage is the share of its units that
such n-grams cover, of the units that any n-gram to look for covers. That is kinder to edits than the share of n-grams:
one changed word in twenty destroys 13 of 20 13-grams and leaves 19 of 20 units covered.

An n-gram that stands in more than `common_items` items is an exam's phrase ("which of the following statements about
the passage is true"), not an item, and is not looked for.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from diglot.core.errors import InputError
from diglot.core.storage import atomic_path
from diglot.corpus.decontaminate.items import ANSWER, QUESTION, ItemText
from diglot.kernels.jit import text_buffers
from diglot.kernels.ngrams import ANCHOR, MAX_UNITS, NgramTable, build_table, count_units, covered_units, ngram_hashes

GAP = 1  # units between the texts of a part, so that coverage never runs from one into the next


@dataclass(frozen=True, kw_only=True)
class NgramLengths:
    """n for a text of u units: u below `longest`, else min(longest, max(shortest, u // 4)); both by script.

    The defaults are measured: docs/decontamination.md has recall and false hits for the alternatives.
    """

    word_ngram: int = 13
    min_words: int = 8
    character_ngram: int = 13
    min_characters: int = 10
    common_items: int = 10

    def __post_init__(self) -> None:
        for low, high in ((self.min_words, self.word_ngram), (self.min_characters, self.character_ngram)):
            assert ANCHOR <= low <= high <= MAX_UNITS, self  # the step's config refuses it

    def of(self, num_units: Any, num_cjk: Any) -> Any:
        """n of each text, int32 [N]; 0 for a text that is too short to be searched."""
        is_cjk = 2 * num_cjk >= num_units
        shortest = np.where(is_cjk, self.min_characters, self.min_words)
        longest = np.where(is_cjk, self.character_ngram, self.word_ngram)
        length = np.minimum(longest, np.maximum(shortest, num_units // 4))
        length = np.where(num_units < longest, num_units, length)
        return np.where(num_units >= shortest, length, 0).astype(np.int32)


class Part(NamedTuple):
    """What coverage is measured of: all texts of one part of one item."""

    benchmark: str
    item: str
    part: str


@dataclass(frozen=True)
class Index:
    """The n-grams to look for, and where each stands in the P parts.

    first: int64 [G + 1]; places first[g] : first[g + 1] are those of n-gram g. part, position: int32 [places].
    num_units: int32 [P], units that n-grams to look for cover; 0 where a part cannot be found.
    """

    table: NgramTable
    first: Any
    part: Any
    position: Any
    num_units: Any
    parts: tuple[Part, ...]
    num_common: int  # n-grams left out as phrases of many items

    def save(self, path: Path) -> None:
        """One file that workers read."""
        names = np.frombuffer(json.dumps(self.parts).encode(), np.uint8)
        with atomic_path(path) as partial, partial.open("wb") as stream:
            arrays = {"first": self.first, "part": self.part, "position": self.position, "num_units": self.num_units}
            np.savez(stream, **self.table._asdict(), **arrays, names=names, num_common=self.num_common)

    @classmethod
    @functools.lru_cache(maxsize=1)
    def load(cls, path: Path, key: str) -> Index:
        """Read what `save` wrote; kept in the process. key: digest of the file, so that another index is read anew."""
        with np.load(path, allow_pickle=False) as stored:
            table = NgramTable(*(stored[name] for name in NgramTable._fields))
            parts = tuple(Part(*names) for names in json.loads(stored["names"].tobytes()))
            first, part, position, num_units = (stored[name] for name in ("first", "part", "position", "num_units"))
            return cls(table, first, part, position, num_units, parts, int(stored["num_common"]))


def build_index(texts: Iterable[ItemText], lengths: NgramLengths) -> Index:
    """Index all parts that have a text. Raises InputError when nothing is long enough to be looked for."""
    groups = _groups(texts, lengths)
    parts, rows = tuple(groups), [text for members in groups.values() for text in members]
    part_of_text = np.repeat(np.arange(len(parts)), [len(members) for members in groups.values()])
    offsets, utf8 = text_buffers(pa.array(rows, pa.large_string()))
    num_units, num_cjk = count_units(offsets, utf8)
    length_of_text = lengths.of(num_units, num_cjk)
    starts, anchors, hashes = ngram_hashes(offsets, utf8, length_of_text)
    if not len(hashes):
        raise InputError(
            f"none of the {len(parts)} items has a text of {lengths.min_words} words or {lengths.min_characters} CJK "
            "characters, so nothing can be looked for. Look at the fields of the benchmark files."
        )
    counts = np.diff(starts)
    length = np.repeat(length_of_text, counts)
    part = np.repeat(part_of_text, counts)
    # Texts of a part stand one behind the other in its units.
    text_ends = np.cumsum(num_units.astype(np.int64) + GAP)
    first_text = np.searchsorted(part_of_text, np.arange(len(parts)))
    text_starts = text_ends - num_units - GAP - (text_ends - num_units - GAP)[first_text][part_of_text]
    position = np.repeat(text_starts, counts) + np.arange(len(hashes)) - np.repeat(starts[:-1], counts)

    # Equal n-grams side by side, each time in the order of the parts: sorts are stable.
    order = np.argsort(hashes + length.astype(np.uint64), kind="stable")
    anchors, length, hashes, part, position = (a[order] for a in (anchors, length, hashes, part, position))
    is_new = np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (length[1:] != length[:-1])])
    ngram = np.cumsum(is_new) - 1
    is_common = _in_many_items(ngram, part, parts, lengths.common_items)
    rare, kept = is_new & ~is_common[ngram], ~is_common[ngram]
    table, number = build_table(anchors[rare], length[rare], hashes[rare])
    ngram, part, position, length = number[(np.cumsum(rare) - 1)[kept]], part[kept], position[kept], length[kept]
    order = np.argsort(ngram, kind="stable")
    ngram, length = ngram[order], length[order]
    part, position = part[order].astype(np.int32), position[order].astype(np.int32)
    return Index(
        table=table,
        first=np.searchsorted(ngram, np.arange(len(table.anchors) + 1)).astype(np.int64),
        part=part,
        position=position,
        num_units=_coverable(part, position, length, len(parts)),
        parts=parts,
        num_common=int(is_common.sum()),
    )


class Coverage(NamedTuple):
    """K (document, part) pairs with at least one hit, by document and then by part."""

    document: Any  # int32 [K]
    part: Any  # int32 [K]
    matched_units: Any  # int64 [K]
    share: Any  # float32 [K], of the part's units


def coverage(index: Index, document: Any, ngram: Any) -> Coverage:
    """What the hits of some documents cover. document, ngram: int32 [H] as `kernels.ngrams.find` gives them."""
    counts = (index.first[ngram + 1] - index.first[ngram]).astype(np.int64)
    places = (
        np.repeat(index.first[ngram], counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    )
    rows, part, position = np.repeat(document, counts), index.part[places], index.position[places]
    length = np.repeat(index.table.lengths[ngram], counts)
    order = np.lexsort((position, part, rows))
    rows, part, position, length = rows[order], part[order], position[order], length[order]
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (rows[1:] != rows[:-1]) | (part[1:] != part[:-1])
    matched = covered_units((np.cumsum(is_new) - 1).astype(np.int64), position, length)
    share = matched / np.maximum(index.num_units[part[is_new]], 1)
    return Coverage(rows[is_new], part[is_new], matched, share.astype(np.float32))


def _in_many_items(ngram: Any, part: Any, parts: tuple[Part, ...], limit: int) -> Any:
    """Which n-grams stand in more than `limit` items: bool [N]. ngram, part: int64 [places], sorted by n-gram."""
    items: dict[tuple[str, str], int] = {}
    item_of_part = np.array([items.setdefault((one.benchmark, one.item), len(items)) for one in parts])
    pairs = np.unique(ngram * len(items) + item_of_part[part])
    return np.bincount(pairs // len(items), minlength=ngram[-1] + 1) > limit


def _coverable(part: Any, position: Any, length: Any, num_parts: int) -> Any:
    order = np.lexsort((position, part))
    part, position, length = part[order], position[order], length[order]
    covered = np.zeros(num_parts, np.int64)
    if len(part):
        present, group = np.unique(part, return_inverse=True)
        covered[present] = covered_units(group.astype(np.int64), position, length)
    return covered.astype(np.int32)


def _groups(texts: Iterable[ItemText], lengths: NgramLengths) -> dict[Part, list[str]]:
    """The texts of every part. A question too short to be searched is searched together with its answer."""
    texts = list(texts)
    long_enough = lengths.of(*count_units(*text_buffers(pa.array([one.text for one in texts], pa.large_string())))) > 0
    groups: dict[Part, list[str]] = {}
    searchable: set[Part] = set()
    for one, is_long in zip(texts, long_enough.tolist(), strict=True):
        key = Part(one.benchmark, one.item, one.part)
        groups.setdefault(key, []).append(one.text)
        if is_long:
            searchable.add(key)
    for key in [key for key in groups if key.part == QUESTION and key not in searchable]:
        if answer := groups.get(key._replace(part=ANSWER)):
            groups[key] = [" ".join([*groups[key], *answer])]
    return groups
