"""The items of a benchmark folder as texts to look for, whatever the layout of each file.

A benchmark is a file of JSON lines (also .gz and .zst); its name is the file's name. Every string of an item counts,
and the name of the field that holds it says what it is:

    question   what is asked; every field that is none of the others
    passage    what the question is about: context, passage, article ...
    answer     choices, answers, solutions, explanations, tests
    (nothing)  ids, languages, sources, categories, settings: IGNORED, and fields whose name ends in `_id`

Below `langs` each language is an item of its own, `<id>#<language>`, so that one leaked translation is a whole item. A
recipe can name the fields of a file instead: `fields: {gsm8k*: [question]}`; the most specific pattern counts.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import xxhash

from diglot.core.errors import ConfigError, InputError
from diglot.core.patterns import most_specific
from diglot.corpus.read.compression import decompressed

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
MAX_DEPTH = 8  # of nested fields; deeper ones are ignored

QUESTION, PASSAGE, ANSWER = "question", "passage", "answer"
PARTS = (QUESTION, PASSAGE, ANSWER)
LANGUAGE_MAPS = ("langs", "languages", "translations")
IDS = ("id", "key", "context_id", "task", "name")
PASSAGES = {"context", "contexts", "passage", "article", "document", "paragraph", "story"}
ANSWERS = {
    *("answer", "answers", "target", "targets", "solution", "rationale", "reasoning", "explanation", "analysis"),
    *("choices", "options", "option1", "option2", "choice1", "choice2", "endings", "output", "response", "reference"),
    *("best_answer", "correct_answers", "incorrect_answers", "canonical_solution", "code", "test", "tests"),
    *("test_list", "challenge_test_list", "test_setup_code"),
}
IGNORED = {
    *("id", "key", "lang", "language", "programming_language", "split", "subset", "dataset", "source", "license"),
    *(
        "url",
        "link",
        "title",
        "category",
        "type",
        "level",
        "year",
        "grade",
        "domain",
        "domain_en",
        "domain_zh",
        "label",
    ),
    *("name", "task", "entry_point", "instruction_id_list", "kwargs", "metadata", "meta", "canary"),
}


@dataclass(frozen=True, slots=True)
class ItemText:
    """One string of an item. `item` is its id in its benchmark, `part` one of PARTS."""

    benchmark: str
    item: str
    part: str
    text: str


def benchmark_files(paths: Sequence[str], bases: Sequence[Path]) -> list[Path]:
    """The files of a recipe's `benchmarks`: folders with everything below them, or single files, in order of name.

    Args:
        bases: folders in which a relative path is looked for; the first that has it wins.
    Raises: ConfigError for a path that is nowhere, a folder without items, or two files of one name.
    """
    found: dict[str, Path] = {}
    for given in paths:
        places = [Path(given).expanduser()] if Path(given).expanduser().is_absolute() else [b / given for b in bases]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            tried = ", ".join(map(str, places))
            raise ConfigError(f"benchmarks: '{given}' is not there (tried {tried}). Name a folder of .jsonl files.")
        files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.name.endswith(SUFFIXES))
        if not files:
            raise ConfigError(f"benchmarks: {place} holds no {', '.join(SUFFIXES)} file.")
        for file in files:
            name = benchmark_name(file)
            if found.setdefault(name, file) != file:
                raise ConfigError(f"benchmarks: {found[name]} and {file} have the same name. Rename one.")
    return [found[name] for name in sorted(found)]


def benchmark_name(file: Path) -> str:
    """`gsm8k_test.jsonl.zst` -> `gsm8k_test`."""
    return next((file.name.removesuffix(s) for s in SUFFIXES if file.name.endswith(s)), file.stem)


def check_fields(fields: Mapping[str, Sequence[str]], files: Sequence[Path]) -> None:
    """Raises ConfigError for a pattern that no benchmark goes by: its fields would silently not be chosen."""
    names = [benchmark_name(file) for file in files]
    for pattern in sorted(set(fields) - {most_specific(name, fields) for name in names}):
        close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
        fits = any(fnmatchcase(name, pattern) for name in names)
        found = "only benchmarks that another pattern fits better" if fits else "no benchmark"
        hint = f"The nearest is '{close[0]}'" if close else "There are none"
        raise ConfigError(f"fields: '{pattern}' fits {found}. {hint}; name another pattern or take it out.")


def observe_benchmarks(files: Sequence[Path]) -> dict[str, str]:
    """Benchmark -> digest of its file's bytes, for the fingerprint."""
    return {benchmark_name(file): xxhash.xxh3_128_hexdigest(file.read_bytes()) for file in files}


def read_benchmark(file: Path, fields: Mapping[str, Sequence[str]] | None = None) -> list[ItemText]:
    """Every text of every item of one file. An item without an id is called by its line, `line-17`.

    Args:
        fields: pattern of benchmark names -> names of the fields that hold the item's question; others are left out.
    Raises: InputError for a line that is no JSON object, naming file and line.
    """
    benchmark = benchmark_name(file)
    pattern = most_specific(benchmark, fields or {})
    wanted = (fields or {})[pattern] if pattern is not None else None
    texts: list[ItemText] = []
    ids: dict[str, int] = {}
    for number, record in _records(file):
        given = next((str(record[name]) for name in IDS if isinstance(record.get(name), str | int)), None)
        item = given or f"line-{number}"
        ids[item] = ids.get(item, 0) + 1
        if ids[item] > 1:
            item = f"{item}~{ids[item]}"  # two items of one id stay two
        for variant, part, text in _texts(record, wanted):
            text = text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair, which is no text
            texts.append(ItemText(benchmark, f"{item}#{variant}" if variant else item, part, text))
    if not texts:
        names = f" of the fields {', '.join(wanted)}" if wanted else ""
        raise InputError(f"benchmark {file} holds no text{names}. Set fields: {{{benchmark}: [...]}} or take it out.")
    return texts


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with decompressed(str(file)) as stream:
        content = b"".join(stream.chunks())
        if stream.damage:
            raise InputError(f"benchmark {file} is {stream.damage}. Fetch it again.")
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise InputError(f"benchmark {file}, line {number} is not JSON ({error}). Repair or remove it.") from None
        if not isinstance(record, dict):
            raise InputError(f"benchmark {file}, line {number} is a {type(record).__name__}, not an object of fields.")
        yield number, record


def _texts(record: Mapping[str, Any], wanted: Sequence[str] | None) -> Iterator[tuple[str, str, str]]:
    """(language variant or "", part, text) of every string of an item."""
    has_variants = any(isinstance(record.get(name), dict) for name in LANGUAGE_MAPS)
    for name, value in record.items():
        if name in LANGUAGE_MAPS and isinstance(value, dict):
            for language, fields in value.items():
                for part, text in _leaves(fields, QUESTION, wanted, is_wanted=wanted is None, depth=0):
                    yield str(language), part, text
        else:
            for part, text in _leaves({name: value}, QUESTION, wanted, is_wanted=False, depth=0):
                if not (has_variants and part == ANSWER):  # the number of the right answer, in every language
                    yield "", part, text


def _leaves(
    value: Any, part: str, wanted: Sequence[str] | None, *, is_wanted: bool, depth: int
) -> Iterator[tuple[str, str]]:
    """(part, text) of the strings below `value`; with `wanted`, only those below a field of one of these names."""
    if isinstance(value, str):
        if is_wanted or wanted is None:
            yield part, value
    elif depth < MAX_DEPTH and isinstance(value, list):
        for one in value:
            yield from _leaves(one, part, wanted, is_wanted=is_wanted, depth=depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, dict):
        for name, below in value.items():
            if wanted is not None:
                yield from _leaves(below, QUESTION, wanted, is_wanted=is_wanted or name in wanted, depth=depth + 1)
            elif not (name in IGNORED or name.endswith("_id")):
                yield from _leaves(below, part_of(name, part), wanted, is_wanted=True, depth=depth + 1)


def part_of(field: str, above: str = QUESTION) -> str:
    """The part that a field's name says; below an answer or a passage everything belongs to it."""
    if above != QUESTION:
        return above
    return PASSAGE if field in PASSAGES else ANSWER if field in ANSWERS else QUESTION
