"""Which of several globs speaks for a name: the most specific, so that no result depends on their order.

Recipes are mappings, and fingerprints sort their keys: a rule by which the first one wins would give two recipes with
different results one fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def most_specific(name: str, patterns: Iterable[str]) -> str | None:
    """The fitting pattern with most characters that are no `*` or `?`; among equals the first in alphabetical order.

    >>> most_specific("wiki.en", ["*", "*.en", "wiki.*"])
    'wiki.*'
    """
    fitting = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
    return min(fitting, key=lambda pattern: (-len(pattern.replace("*", "").replace("?", "")), pattern), default=None)
