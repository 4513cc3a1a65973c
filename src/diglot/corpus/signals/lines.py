"""How the lines of a text begin and end, and how long they are. Blank lines do not count; 0 without lines."""

from __future__ import annotations

from collections.abc import Callable

from diglot.text.lines import (
    SHORT_LINE_CHARS,
    ends_with_ellipsis,
    ends_with_read_more,
    ends_with_stop,
    lines,
    names_javascript,
    names_policy,
    starts_with_bullet,
)


def ellipsis_line_share(text: str) -> float:
    """Share of lines that end with an ellipsis.

    Catches: teaser lists, truncated search results. Wrongly catches: lists of menu commands (`Save As...`).
    Source: Gopher, 0.3; MAP-Neo, rule G2 (0.2), whose code divides by characters and so never fires.
    """
    return _share(text, ends_with_ellipsis)


def bullet_line_share(text: str) -> float:
    """Share of lines that start with a bullet.

    Catches: menus and sitemaps that survive HTML extraction. Wrongly catches: glossaries, release notes.
    Source: Gopher, 0.9; MAP-Neo, G3 and Z9. Differs from MAP-Neo's code, which neither strips lines nor counts `- `.
    """
    return _share(text, starts_with_bullet)


def read_more_share(text: str) -> float:
    """Share of lines that end with `read more`, `更多`, `展开` and the like.

    Catches: blog indexes, news front pages. Wrongly catches: none known above the limit.
    Source: MAP-Neo, S2 (0.1 of sentences) and Z8 (0.3 of lines).
    """
    return _share(text, ends_with_read_more)


def stop_line_share(text: str) -> float:
    """Share of lines that end with a full stop, `!`, `?`, an ellipsis or their wide forms.

    Catches, at low values: headings, menu entries, code. Wrongly catches: verse, tables.
    Source: C4 (Raffel et al. 2020), which deletes all other lines; FineWeb drops documents at 0.12 and below.
    """
    return _share(text, ends_with_stop)


def short_line_share(text: str) -> float:
    """Share of lines of fewer than 30 characters, white space at their ends aside.

    Catches: menus, lists of tags, forms. Wrongly catches: verse, vocabularies, Chinese, whose lines are shorter.
    Source: FineWeb (arXiv 2406.17557), 0.67.
    """
    return _share(text, lambda line: len(line) < SHORT_LINE_CHARS)


def mean_line_chars(text: str) -> float:
    """Mean number of characters of a line, white space at its ends aside.

    Catches, in source files: minified and generated code, data. Wrongly catches: comments without line breaks.
    Source: Codex (Chen et al. 2021) and StarCoder (arXiv 2305.06161), 100.
    Differs: blank lines and indentation do not count.
    """
    found = lines(text)
    return sum(map(len, found)) / max(len(found), 1)


def max_line_chars(text: str) -> float:
    """Characters of the longest line, white space at its ends aside.

    Catches, in source files: minified code, embedded data. Wrongly catches: notebooks with pictures, tables of strings.
    Source: Codex (Chen et al. 2021) and StarCoder (arXiv 2305.06161), 1,000.
    """
    return float(max(map(len, lines(text)), default=0))


def javascript_line_share(text: str) -> float:
    """Share of lines with the word `javascript`, in any ASCII case.

    Catches: pages that only say that scripts are switched off. Wrongly catches: programming tutorials.
    Source: C4, which deletes such lines. Differs: a unit of its own, so `text/javascript` and `javascript:void` pass.
    """
    return _share(text, names_javascript)


def policy_line_share(text: str) -> float:
    """Share of lines with `terms of use`, `privacy policy`, `cookie policy`, `uses cookies`, `use (of) cookies`.

    Catches: small print and cookie banners. Wrongly catches: texts on privacy.
    Source: C4, which deletes such lines. Differs: consecutive units, whatever marks stand between them.
    """
    return _share(text, names_policy)


def _share(text: str, holds: Callable[[str], bool]) -> float:
    found = lines(text)
    return sum(map(holds, found)) / max(len(found), 1)
