"""Parallel sentences: the same meaning in several languages, from one file or from aligned files.

    pairs.jsonl (.gz, .zst)   a field for each language: `en`, `zh`, or `text.eng` where fields are named
    pairs.tsv                 the first line names the languages
    {en: a.en, zh-Hans: a.zh} text files; line n of one says the same as line n of every other

Sentences that are missing or empty in a language are left out in all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.read.compression import decompressed


class Parallel(NamedTuple):
    """sentences: language -> its sentences, of equal number; num_left_out: where one language has none."""

    sentences: dict[str, list[str]]
    num_left_out: int


def read_parallel(
    source: str | Mapping[str, str], fields: Mapping[str, str], languages: Sequence[str], bases: Sequence[Path]
) -> Parallel:
    """Read all sentences.

    Args:
        source: one file, or a file for each language.
        fields: language -> name of its field or column; dots go into nested fields. Without it, each of `languages` is
            looked for under its own name and then under its primary subtag (`zh` for `zh-Hans`).
        languages: those of the corpus; a field that fits two of them goes to the first.
        bases: folders where relative paths may start.
    Raises: InputError for a file that is missing, damaged or unequal to its sister; ConfigError for unknown fields.
    """
    if isinstance(source, str):
        path = _found(source, bases)
        rows = _tsv_rows(path) if _suffix(path) == "tsv" else _json_rows(path)
        columns = _columns(path, next(rows), fields, languages)
        lines = [[_field(row, name) for name in columns.values()] for row in rows]
    else:
        paths = {lang: _found(one, bases) for lang, one in source.items()}
        texts = {lang: _lines(path) for lang, path in paths.items()}
        counts = {lang: len(found) for lang, found in texts.items()}
        if len(set(counts.values())) > 1:
            raise InputError(
                "the parallel files have unequal numbers of lines: "
                f"{', '.join(f'{paths[lang]} {number:,}' for lang, number in counts.items())}. "
                "Line n of one must say the same as line n of every other; align them again."
            )
        columns, lines = {lang: lang for lang in texts}, [list(row) for row in zip(*texts.values(), strict=True)]
    whole = [row for row in lines if all(text.strip() for text in row)]
    if not whole:
        raise InputError(f"no sentence of {source} is there in all of {', '.join(columns)}.")
    return Parallel({lang: [row[at] for row in whole] for at, lang in enumerate(columns)}, len(lines) - len(whole))


def observe_parallel(source: str | Mapping[str, str], bases: Sequence[Path]) -> dict[str, str]:
    """Digests of the files, for a fingerprint."""
    files = {"": source} if isinstance(source, str) else source
    return {lang: xxhash.xxh3_128_hexdigest(_found(path, bases).read_bytes()) for lang, path in sorted(files.items())}


def _found(path: str, bases: Sequence[Path]) -> Path:
    for base in bases:
        if (base / path).is_file():
            return base / path
    raise InputError(
        f"there is no file of parallel sentences {path} below {' or '.join(map(str, bases))}. Check parallel:."
    )


def _suffix(path: Path) -> str:
    return next((s[1:] for s in reversed(path.suffixes) if s not in (".gz", ".zst", ".bz2", ".xz")), "")


def _lines(path: Path) -> list[str]:
    with decompressed(str(path)) as stream:
        content = b"".join(stream.chunks())
        if stream.damage:
            raise InputError(f"{path} is {stream.damage}. Fetch it again.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error}). Convert it.") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The first record twice: once to find the columns."""
    first = True
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number} is not JSON ({error}). Repair or remove it.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is a {type(row).__name__}, not an object of fields.")
        if first:
            yield row
        first = False
        yield row
    if first:
        raise InputError(f"{path} is empty. Give a file with parallel sentences.")


def _tsv_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The names of the columns, then every row under them."""
    lines = _lines(path)
    if not lines:
        raise InputError(f"{path} is empty. Give a file with parallel sentences.")
    names = lines[0].split("\t")
    yield dict.fromkeys(names, "")
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(names):
            raise InputError(
                f"{path}, line {number} has {len(cells)} columns, but the first line names {len(names)}: "
                f"{', '.join(names)}."
            )
        yield dict(zip(names, cells, strict=True))


def _columns(path: Path, row: Mapping[str, Any], fields: Mapping[str, str], languages: Sequence[str]) -> dict[str, str]:
    """Language -> field. Raises ConfigError when fewer than two languages are there."""
    columns, lost = dict(fields), [name for name in fields.values() if not isinstance(_value(row, name), str)]
    for lang in () if fields else languages:
        for name in (lang, lang.partition("-")[0]):
            if lang not in columns and name not in columns.values() and isinstance(_value(row, name), str):
                columns[lang] = name
    if len(columns) < 2 or lost:
        raise ConfigError(
            f"{path} has the fields {', '.join(map(str, row))}, but parallel sentences are wanted in "
            f"{', '.join(fields or languages)}{f' (no text in {lost[0]})' if lost else ''}. "
            "Name at least two with parallel_fields: {en: FIELD, zh-Hans: FIELD}."
        )
    return columns


def _field(row: Mapping[str, Any], name: str) -> str:
    value = _value(row, name)
    return value if isinstance(value, str) else ""


def _value(row: Any, name: str) -> Any:
    if isinstance(row, Mapping) and name in row:
        return row[name]
    head, _, rest = name.partition(".")
    return _value(row[head], rest) if rest and isinstance(row, Mapping) and head in row else None
