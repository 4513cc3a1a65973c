"""`words.<list>`: how often the words of a list occur. Diglot ships no list; a recipe names its files.

A list is a text file with an entry a line, as LDNOOBW and most others are; blank lines and lines with a `#` in front do
not count. What an entry matches follows from its units (`diglot.text.units`), letters in any case:

    shell, e-mail      the whole unit: `shell` is not found in `shells`
    two words          these units one after the other, whatever white space and marks stand between
    毒品, 卡拉OK       an entry with CJK characters and without white space: the same characters touching each other,
                       wherever they stand in a sentence; its Latin parts are whole units

An entry that is more than its units (`a$$`, an emoji) would match something else and is left out; `WordList.unusable`
lists those.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from diglot.core.errors import ConfigError, InputError
from diglot.text.units import CJK, class_of, units


@dataclass(frozen=True, kw_only=True)
class WordList:
    """Entries as tuples of folded units: `loose` ones may have other characters between them, `tight` ones touch."""

    name: str
    loose: frozenset[tuple[str, ...]]
    tight: frozenset[tuple[str, ...]]
    unusable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loose) + len(self.tight)


def parse_word_list(name: str, content: str) -> WordList:
    """A word list from the text of its file."""
    loose: set[tuple[str, ...]] = set()
    tight: set[tuple[str, ...]] = set()
    unusable = []
    for line in content.removeprefix("\ufeff").splitlines():
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        pieces = entry.split()
        if any("".join(units(piece)) != piece for piece in pieces):
            unusable.append(entry)
            continue
        folded = tuple(fold(unit) for unit in units(entry))
        is_tight = len(pieces) == 1 and any(class_of(character) == CJK for character in entry)
        (tight if is_tight else loose).add(folded)
    return WordList(name=name, loose=frozenset(loose), tight=frozenset(tight), unusable=tuple(unusable))


@functools.lru_cache(maxsize=8)
def load_word_list(name: str, path: Path, digest: str = "") -> WordList:
    """The list in the file at `path`, kept for the next call with the same digest of its content.

    Raises InputError when the file cannot be read as UTF-8, ConfigError when it holds no entry that can match.
    """
    try:
        found = parse_word_list(name, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"word_lists.{name} names {path}, which does not exist. Paths are relative to the recipe. "
            "Diglot ships no list."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} (word_lists.{name}) is not UTF-8: {error}. Convert it, e.g. with iconv.") from error
    except OSError as error:
        raise InputError(f"{path} (word_lists.{name}) cannot be read: {error.strerror}.") from error
    if not found:
        raise ConfigError(f"{path} (word_lists.{name}) has no entry that can match. It needs one word a line.")
    return found


def occurrences(text: str, words: WordList) -> float:
    """How often entries of `words` occur in `text`; entries inside one another all count.

    Catches: pornography, hate, spam, whatever the list is of. Wrongly catches: medicine, law, news, names; one hit is
    no verdict, so a limit is best set on a count that grows with the length.
    Source: C4 and MAP-Neo (S8) drop a page for one hit of a published list.
    """
    found, begins, ends, position = [], [], [], 0
    for unit in units(text):
        position = text.index(unit, position)  # only characters that start no unit lie in between
        found.append(fold(unit))
        begins.append(position)
        position += len(unit)
        ends.append(position)
    count = 0
    for length in {len(entry) for entry in (*words.loose, *words.tight)}:
        for first in range(len(found) - length + 1):
            window = tuple(found[first : first + length])
            touching = all(begins[i + 1] == ends[i] for i in range(first, first + length - 1))
            count += window in words.loose
            count += touching and window in words.tight
    return float(count)


def fold(unit: str) -> str:
    """Lower case, where it is a single character, so that a fold never changes how many characters there are."""
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in unit)
