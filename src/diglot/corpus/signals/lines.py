"""How the lines of a text begin and end. Shares are of the lines that are not blank, 0 without lines."""

from __future__ import annotations

from collections.abc import Callable

from diglot.text.lines import ends_with_ellipsis, ends_with_read_more, ends_with_stop, lines, starts_with_bullet


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

    Low where lines are headings, menu entries, code. The basis of C4's line filter; no rule of ours uses it yet.
    Source: C4 (Raffel et al. 2020); FineWeb drops documents below 0.12.
    """
    return _share(text, ends_with_stop)


def _share(text: str, holds: Callable[[str], bool]) -> float:
    found = lines(text)
    return sum(map(holds, found)) / max(len(found), 1)
