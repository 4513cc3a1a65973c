"""`url.<category>`: whether the address of a document is on a block-list.

Diglot ships no list; a recipe names its files.

A category is a folder in the layout of the UT1 lists (`adult/domains`, `adult/urls`), or one file. Every category is
named in the recipe, none is taken because it lies in the same archive: there are white lists among them.

    domains   a host, and all hosts below it: `bad.example` matches `www.bad.example`, not `notbad.example`
    urls      a host and a path: `site.example/~bad` matches `site.example/~bad/x`, not `site.example/~badminton`

In a single file, an entry with a slash is a `urls` entry and any other a `domains` entry. Blank lines and lines that
start with `#` do not count.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diglot.core.errors import ConfigError, InputError

FILES = ("domains", "urls")


@dataclass(frozen=True, kw_only=True)
class UrlList:
    """Hosts, and prefixes of addresses without scheme, in the form that `address` gives."""

    name: str
    domains: frozenset[str]
    prefixes: frozenset[str]

    def __len__(self) -> int:
        return len(self.domains) + len(self.prefixes)


def files_of(path: Path) -> list[Path]:
    """The files of a category. Raises ConfigError when there are none."""
    found = [path] if path.is_file() else [path / name for name in FILES if (path / name).is_file()]
    if not found:
        raise ConfigError(
            f"{path} is neither a file nor a folder with {' or '.join(FILES)}. Paths are relative to the recipe; name "
            "one category, e.g. adult: blacklists/adult. Diglot ships no list."
        )
    return found


@functools.lru_cache(maxsize=8)
def load_url_list(name: str, path: Path, digest: str = "") -> UrlList:
    """The category at `path`, kept for the next call with the same digest of its content."""
    domains: set[str] = set()
    prefixes: set[str] = set()
    for file in files_of(path):
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                for entry in _entries(lines):
                    host, rest = address(entry)
                    if file.name == "urls" or (file.name != "domains" and rest):
                        prefixes.add((host + rest).rstrip("/"))
                    else:
                        domains.add(host)
        except OSError as error:
            raise InputError(f"{file} (url_lists.{name}) cannot be read: {error.strerror}.") from error
    domains.discard("")
    prefixes.discard("")
    if not domains and not prefixes:
        raise ConfigError(f"{path} (url_lists.{name}) has no entries. It needs one host or address a line.")
    return UrlList(name=name, domains=frozenset(domains), prefixes=frozenset(prefixes))


def listed(url: str | None, urls: UrlList) -> float:
    """1 where `url` is on the list, 0 where it is not, NaN without an address, to which no rule objects.

    Catches: what the category is of. Wrongly catches: good pages of a listed host.
    Source: UT1 lists of the Toulouse university; RefinedWeb and MAP-Neo (U1).
    Differs from MAP-Neo (D8): its code takes the `urls` files of 63 categories, white lists among them, ignores all
    `domains` files and compares by characters, so that a listed `a.example/b` blocks `a.example/bread`.
    """
    if not url:
        return float("nan")
    host, rest = address(url)
    if any(domain in urls.domains for domain in _parents(host)):
        return 1.0
    bare = host.removeprefix("www.")
    return float(any(bare + start in urls.prefixes or host + start in urls.prefixes for start in _starts(rest)))


def address(url: str) -> tuple[str, str]:
    """Host (lower case, without user, port and final dot) and the rest from its first `/`, `?` or `#` on."""
    scheme, separator, after = url.strip().partition("://")
    remainder = after if separator and not set("/?#") & set(scheme) else url.strip().removeprefix("//")
    cut = min((place for mark in "/?#" if (place := remainder.find(mark)) >= 0), default=len(remainder))
    host, rest = remainder[:cut].rpartition("@")[2].lower(), remainder[cut:]
    if not host.startswith("["):  # an IPv6 address has colons of its own
        host = host.partition(":")[0]
    return host.rstrip("."), rest


def _entries(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry


def _parents(host: str) -> Iterator[str]:
    """The host and every domain above it."""
    while host:
        yield host
        host = host.partition(".")[2]


def _starts(rest: str) -> Iterator[str]:
    """What may be listed of an address behind its host: nothing, each whole path segment, all of it."""
    yield ""
    yield rest.rstrip("/")
    for place, mark in enumerate(rest):
        if mark in "/?#" and place:
            yield rest[:place].rstrip("/")
        if mark in "?#":
            return
