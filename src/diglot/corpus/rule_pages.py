"""The pages of docs/rules, written from the policies, the signals' definitions and the record of benchmarks/rules_fire.

    python -m diglot.corpus.rule_pages docs/rules            write them
    python -m diglot.corpus.rule_pages docs/rules --check    tell whether they are current, for the tests

Nothing on these pages is typed by hand, so a limit, a reason or a count is changed where it stands and the pages are
written again.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diglot.core.errors import ConfigError
from diglot.core.storage import write_text
from diglot.corpus.policy import Policy, Rule, load_policy, policy_names
from diglot.corpus.signals import BROUGHT, FAMILIES, RPS_NAMES, SIGNALS, definition, family
from diglot.corpus.signals.brought import meta_number
from diglot.corpus.signals.url_lists import listed
from diglot.corpus.signals.word_lists import occurrences

RECORD = "fired.json"
GENERATED = (
    "<!-- Written by `python -m diglot.corpus.rule_pages docs/rules`; edit the policy or the signal instead. -->\n"
)

# Rules that no document of the shared corpora sets off, and why. Rules on metadata explain themselves.
_CHARACTERS = "The released code divides by characters, and natural text stays far below the limit."
_SAMPLE = "No document of the sample has such a value."
_SHORT = "Only texts below about 300 characters can exceed the limit, and these have no repeats of that length."
SILENT = {
    "javascript_line_share": "Shared pages are manuals and articles; none is made of requests to allow scripts.",
    "read_more_share": "The shared English pages are articles, manuals and books, and no indexes of articles.",
    "num_punctuation": "Every shared English document has a mark; word lists are not among the sources.",
    "lorem_ipsum": "No shared Chinese page is an unfinished template; in English one is, and the rule finds it.",
    "symbol_ratio": "Values above Gopher's 0.1 occur, but none above 0.5, which is a page of little but hashtags.",
    "released_num_lines": "Every text has a line, so the released rule cannot fire on one; only an empty text would.",
    "released_ellipses_per_char": _CHARACTERS,
    "released_letterless_per_char": _CHARACTERS,
    "released_digit_words_per_char": _CHARACTERS,
    "released_hashes_per_char": _CHARACTERS,
    "released_bullet_lines": "Blank lines count and `-` is no bullet there; no sampled page reaches the limit.",
    "released_greedy_sentences": "The sample leaves out texts of more than 60 kB; shorter ones have fewer.",
    "released_unique_words": _SAMPLE,
    "released_read_more": "A sentence keeps its stop there; only the last piece of a text can end so.",
    "released_ascii_punctuation": _SAMPLE,
    "released_zh_brackets": _SAMPLE,
    "released_zh_read_more": _SAMPLE,
    **{f"released_duplicate_{n}gram": _SHORT for n in range(5, 9)},
}


def pages(record: Mapping[str, Any]) -> dict[str, str]:
    """File name -> content, for every policy and the index."""
    found = {f"{name}.md": _policy_page(load_policy(name), record["policies"].get(name)) for name in policy_names()}
    return {"index.md": _index(record), **found, "signals.md": _signals()}


def silent_rules(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(policy, rule, why) of every rule that dropped nothing; `why` is empty where nobody knows."""
    found = []
    for name in policy_names():
        fired = record["policies"].get(name, {"rules": {}})["rules"]
        for rule in load_policy(name).rules:
            if not fired.get(rule.name, {"dropped": 0})["dropped"]:
                found.append((name, rule.name, _why_silent(rule)))
    return found


def _why_silent(rule: Rule) -> str:
    if rule.signal.startswith("meta."):
        return "The documents of the shared corpora do not have this number among their metadata."
    return SILENT.get(rule.name, "")


def _index(record: Mapping[str, Any]) -> str:
    documents, size = (sum(source[key] for source in record["sources"].values()) for key in ("documents", "bytes"))
    lines = [
        "# Policies and their rules",
        "",
        GENERATED,
        "A policy is an ordered list of rules on signals. Every rule is asked about every document. The counts come",
        f"from {documents:,} raw documents ({size / 1e6:,.0f} MB), each judged by the policies of its language",
        "(`benchmarks/rules_fire.py`); policies that reproduce released code were asked about a sample.",
        "`books` and `code` were asked about everything, though little of it is a book and nothing a source file.",
        "",
        "| policy | languages | rules | judged | dropped | for |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name in policy_names():
        policy, fired = load_policy(name), record["policies"].get(name, {"documents": 0, "dropped": 0})
        share = f"{fired['dropped'] / fired['documents']:.0%}" if fired["documents"] else ""
        about = policy.about.split(". ")[0].rstrip(".")
        languages = ", ".join("any" if language == "*" else language for language in policy.languages)
        numbers = f"{len(policy.rules)} | {fired['documents']:,} | {share}"
        lines.append(f"| [{name}]({name}.md) | {languages} | {numbers} | {_cell(about)} |")
    lines += ["", "What the signals measure: [signals](signals.md).", ""]
    return "\n".join(lines)


def _policy_page(policy: Policy, fired: Mapping[str, Any] | None) -> str:
    counts = fired["rules"] if fired else {}
    lines = [f"# {policy.policy}", "", GENERATED, policy.about, "", f"Source: {policy.source}.", ""]
    if fired:
        judged = "of the sample" if fired["sampled"] else "of the shared corpora"
        lines += [
            f"Dropped {fired['dropped']:,} of {fired['documents']:,} raw documents {judged} in its languages.",
            "",
        ]
    lines += ["| rule | drops | documents | by it alone |", "|---|---|---:|---:|"]
    for rule in policy.rules:
        own = counts.get(rule.name, {"dropped": 0, "alone": 0})
        lines.append(
            f"| [{rule.name}](#{_anchor(rule.name)}) | {_cell(rule.limits())} | {own['dropped']:,} | {own['alone']:,} |"
        )
    for rule in policy.rules:
        lines += ["", f"## {rule.name}", "", *_rule_lines(rule, counts.get(rule.name))]
    if policy.deviations:
        lines += ["", "## What this policy leaves out or does otherwise", ""]
        lines += [f"- {deviation}" for deviation in policy.deviations]
    return "\n".join(lines) + "\n"


def _rule_lines(rule: Rule, own: Mapping[str, Any] | None) -> list[str]:
    facts = [("Drops", f"`{rule.limits()}`"), ("Why", rule.why), ("Source of the limit", rule.source)]
    facts += [("Differs", rule.differs)] * bool(rule.differs) + [("Known victims", rule.victims)] * bool(rule.victims)
    aliases = [alias for alias, signal in RPS_NAMES.items() if signal == rule.signal]
    facts += [("RedPajama-V2", ", ".join(f"`{alias}`" for alias in aliases))] * bool(aliases)
    if own and own["dropped"]:
        places = "; ".join(f"{e['source']} `{e['id']}` ({e['value']:.4g})" for e in own["examples"])
        facts += [("Fired on", f"{own['dropped']:,} documents, on {own['alone']:,} alone. First: {places}")]
    else:
        facts += [("Fired on", f"no document. {_why_silent(rule)}".strip())]
    lines = [f"- {label}: {text}" for label, text in facts]
    return [*lines, "", "Signal: " + _doc(rule.signal)]


def _signals() -> str:
    lines = ["# Signals", "", GENERATED, "Text units, lines and sentences are those of `diglot.text`.", ""]
    for table, signals in FAMILIES.items():
        lines += [f"## Family `{table}`", ""]
        for name in signals:
            aliases = [alias for alias, signal in RPS_NAMES.items() if signal == name]
            known = f" (RedPajama-V2: {', '.join(f'`{alias}`' for alias in aliases)})" if aliases else ""
            lines += [f"### {name}", "", _doc(name) + known, ""]
    lines += ["## Brought by a recipe", ""]
    for prefix, about in BROUGHT.items():
        lines += [f"- `{prefix}.NAME`: {about}."]
    lines += [
        "",
        "## Names of RedPajama-V2",
        "",
        "Policies may use either name.",
        "",
        "| RedPajama-V2 | here |",
        "|---|---|",
    ]
    lines += [f"| `{alias}` | `{signal}` |" for alias, signal in RPS_NAMES.items()]
    return "\n".join(lines) + "\n"


def _doc(signal: str) -> str:
    """The docstring of a signal's definition, its sentences on `Catches` and the rest in lines of their own."""
    if signal in SIGNALS:
        function: Any = definition(signal)
    else:
        by_prefix: dict[str, Any] = {"words": occurrences, "url": listed, "meta": meta_number}
        function = by_prefix.get(family(signal))
        if function is None:
            return f"{BROUGHT[signal.partition('.')[0]]}."
    text = inspect.cleandoc(getattr(function, "func", function).__doc__)
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n\n".join(paragraphs)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(name: str) -> str:
    """As Python-Markdown's table of contents makes it."""
    return "".join(c for c in name.lower() if c.isalnum() or c in "_-")


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; 1 when --check finds one that is not current."""
    parser = argparse.ArgumentParser(
        prog="python -m diglot.corpus.rule_pages", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help=f"where the pages are, with {RECORD} of benchmarks/rules_fire")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a page is not current")
    options = parser.parse_args(arguments)
    record = options.folder / RECORD
    if not record.is_file():
        raise ConfigError(
            f"no {record}. Write it with: python -m benchmarks.rules_fire --data shared/data --out {record}"
        )
    stale = []
    for name, content in pages(json.loads(record.read_text(encoding="utf-8"))).items():
        path = options.folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(name)
        if not options.check:
            write_text(path, content)
    if stale:
        print(f"{'not current' if options.check else 'written'}: {', '.join(stale)}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
