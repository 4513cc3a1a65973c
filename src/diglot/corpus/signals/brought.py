"""Signals that a recipe brings with it: word lists, block-lists of addresses, numbers in the documents' metadata.

words   words.<list>      occurrences of the list's words           `word_lists.occurrences`
url     url.<category>    1 where the address is listed, else 0     `url_lists.listed`
meta    meta.<field>      the number under <field>, NaN without     `meta_number`
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.signals.url_lists import FILES as URL_FILES
from diglot.corpus.signals.url_lists import files_of, listed, load_url_list
from diglot.corpus.signals.word_lists import load_word_list

if TYPE_CHECKING:
    import pyarrow as pa

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A list by its name in the recipe, its place and the digest of its content."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What a recipe brings. `columns` measures it; families without a setting are absent."""

    word_lists: tuple[Named, ...] = ()
    url_lists: tuple[Named, ...] = ()
    meta_fields: tuple[str, ...] = ()

    def reads(self) -> tuple[str, ...]:
        """Columns of the documents table, besides `text`."""
        return ("url",) * bool(self.url_lists) + ("meta",) * bool(self.meta_fields)

    def families(self) -> tuple[str, ...]:
        settings = {"words": self.word_lists, "url": self.url_lists, "meta": self.meta_fields}
        return tuple(family for family, setting in settings.items() if setting)

    def columns(self, family: str, documents: pa.Table) -> dict[str, Any]:
        """The columns of `family` for documents whose texts are large strings without nulls: float32 arrays by name."""
        if family == "words":
            return {f"words.{named.name}": _words(documents["text"], named) for named in self.word_lists}
        if family == "url":
            return {f"url.{named.name}": _urls(documents["url"], named) for named in self.url_lists}
        return _meta(documents["meta"], self.meta_fields)

    def entries(self) -> dict[str, Any]:
        """For the counts of a step: how many entries each list has, and those that cannot match."""
        words = {named.name: load_word_list(named.name, named.path, named.digest) for named in self.word_lists}
        urls = {named.name: load_url_list(named.name, named.path, named.digest) for named in self.url_lists}
        return {
            **{
                f"words.{name}": {"entries": len(found), "unusable": list(found.unusable)}
                for name, found in words.items()
            },
            **{f"url.{name}": {"entries": len(found)} for name, found in urls.items()},
        }


def named_lists(lists: Mapping[str, str], folder: Path, setting: str) -> tuple[Named, ...]:
    """The lists of a setting with their digests; relative paths start at `folder`. Raises ConfigError, InputError."""
    found = []
    for name, path in sorted(lists.items()):
        place = folder / path
        if setting == "url_lists":
            files = files_of(place)
        else:
            load_word_list(name, place)  # raises with the remedy
            files = [place]
        found.append(Named(name=name, path=place, digest=_digest(files)))
    return tuple(found)


def check_names(names: Any, setting: str) -> None:
    """Raises ConfigError for a name that no signal can bear."""
    for name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(f"{setting} has the name '{name}', but a name is made of letters, digits, '_' and '-'.")


def meta_number(meta: str | None, name: str) -> float:
    """The number that a document's metadata hold under `name`; NaN where there is none, to which no rule objects.

    Catches: whatever was measured before, such as a perplexity that a corpus publishes. Wrongly catches: as that does.
    Source: RedPajama-V2 (Together 2023), whose published signals policies may use.
    """
    return _number(_fields(meta), name)


def _fields(meta: str | None) -> dict[str, Any]:
    fields = json.loads(meta) if meta else {}
    return fields if isinstance(fields, dict) else {}


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    try:
        return float(value) if isinstance(value, int | float) else float("nan")
    except OverflowError:  # JSON has whole numbers of any length
        return float("nan")


def _words(texts: pa.ChunkedArray, named: Named) -> Any:
    import numpy as np
    import pyarrow as pa

    from diglot.kernels.jit import classes, text_buffers
    from diglot.kernels.word_lists import occurrences

    tables = _tables(named)
    parts = [occurrences(*text_buffers(chunk), classes(), tables) for chunk in texts.chunks]
    return pa.array(np.concatenate(parts) if parts else np.zeros(0, np.float32))


@functools.lru_cache(maxsize=8)
def _tables(named: Named) -> Any:
    from diglot.kernels.word_lists import word_tables

    found = load_word_list(named.name, named.path, named.digest)
    return word_tables(found.loose, found.tight)


def _urls(urls: pa.ChunkedArray, named: Named) -> Any:
    import pyarrow as pa

    found = load_url_list(named.name, named.path, named.digest)
    return pa.array([listed(url, found) for url in urls.to_pylist()], pa.float32())


def _meta(metas: pa.ChunkedArray, names: Sequence[str]) -> dict[str, Any]:
    import pyarrow as pa

    try:
        found = [_fields(meta) for meta in metas.to_pylist()]
        return {f"meta.{name}": pa.array([_number(fields, name) for fields in found], pa.float32()) for name in names}
    except ValueError as error:
        raise InputError(f"the metadata of a document are not JSON: {error}. Ingest the source again.") from error


def _digest(files: list[Path]) -> str:
    import xxhash

    digest = xxhash.xxh3_128()
    for file in files:
        if file.name in URL_FILES:  # where the name says what the entries are; that of a word list says nothing
            digest.update(f"{file.name}\0".encode())
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
