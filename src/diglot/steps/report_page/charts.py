"""Charts as inline SVG. Colours come from the page's style sheet by class, so they follow its light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 480  # of every chart's own coordinates, which are those of half the page; elsewhere it is scaled


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart: name for the legend, CSS class for the colour."""

    name: str
    css: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    height: int = 220,
    zero: bool = False,
) -> str:
    """Lines over a common x axis. marks: named x positions, drawn as dashed lines. zero: the y axis starts at 0."""
    lines = [line for line in lines if line.x]
    if not lines:
        return ""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(0 if zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-12)
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)
    left, right, top, bottom = 48, WIDTH - 10, 34, height - 36

    def place_x(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (right - left)

    def place_y(y: float) -> float:
        return bottom - (y - y_low) / ((y_high - y_low) or 1) * (bottom - top)

    parts = [_open(height, f"{y_label} over {x_label}: {', '.join(line.name for line in lines)}")]
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{left} {place_y(y):.1f}H{right}"/>')
        parts.append(_text(left - 6, place_y(y) + 4, short(y), "end"))
    for x in x_ticks:
        if x_low <= x <= x_high:
            parts.append(_text(place_x(x), bottom + 16, short(x), "middle"))
    for x, name in ((max(x, x_low), name) for x, name in marks if x <= x_high):
        parts.append(f'<path class="mark" d="M{place_x(x):.1f} {top}V{bottom}"/>')
        parts.append(_text(place_x(x) + 4, top - 4, name, "start", "note"))
    for line in lines:
        points = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        parts.append(f'<polyline class="line {line.css}" points="{points}"/>')
    parts.append(_text(0, 12, y_label, "start", "label"))
    parts.append(_text(right, height - 4, x_label, "end", "note"))
    if len(lines) > 1:
        parts += _legend([(line.name, line.css) for line in lines], right, 12)
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval (None where there is none); `note` is printed behind it."""

    label: str
    css: str
    value: float
    low: float | None
    high: float | None


def dot_whisker(dots: Sequence[Dot], *, x_label: str, low: float, high: float) -> str:
    """One row per dot on a common axis from `low` to `high`, so that charts of two languages can be compared."""
    row, top = 26, 6
    height = top + row * len(dots) + 34
    left, right = 96, WIDTH - 66
    bottom = top + row * len(dots)
    x_ticks = ticks(low, high)
    low, high = x_ticks[0], x_ticks[-1]

    def place(x: float) -> float:
        return left + (x - low) / ((high - low) or 1) * (right - left)

    parts = [_open(height, f"{x_label}: " + ", ".join(f"{d.label} {d.value:.3f}" for d in dots), width=WIDTH)]
    for x in x_ticks:
        parts.append(f'<path class="grid" d="M{place(x):.1f} {top}V{bottom}"/>')
        parts.append(_text(place(x), bottom + 14, short(x), "middle"))
    for index, dot in enumerate(dots):
        y = top + row * index + row / 2
        parts.append(_text(left - 10, y + 4, dot.label, "end", "label"))
        if dot.low is not None and dot.high is not None:
            parts.append(f'<path class="whisker {dot.css}" d="M{place(dot.low):.1f} {y}H{place(dot.high):.1f}"/>')
        parts.append(f'<circle class="dot {dot.css}" cx="{place(dot.value):.1f}" cy="{y}" r="5"/>')
        parts.append(_text(right + 12, y + 4, f"{dot.value:.3f}", "start", f"value {dot.css}"))
    parts.append(_text(right, height - 4, x_label, "end", "note"))
    return "".join([*parts, "</svg>"])


BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, LANE = 138, 44, 18, 24, 9


def lineage_diagram(nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, str]]) -> str:
    """Artifacts as boxes in rows by depth, with a line from each down to what was made from it.

    A line that skips a row runs in a lane of its own at the right, clear of the boxes between.

    nodes: each with `id`, `step`, `fingerprint`, `seconds`. edges: (id of the input, id of the result).
    """
    depth = _depths([node["id"] for node in nodes], edges)
    rows: dict[int, list[str]] = {}
    for node in nodes:
        rows.setdefault(depth[node["id"]], []).append(node["id"])
    far = sorted((e for e in edges if depth[e[1]] - depth[e[0]] > 1), key=lambda e: (depth[e[1]] - depth[e[0]], e))
    inner = max(len(row) for row in rows.values()) * (BOX_WIDTH + GAP_X) - GAP_X
    place = {}
    for level, row in rows.items():
        left = (inner - len(row) * (BOX_WIDTH + GAP_X) + GAP_X) / 2
        for index, name in enumerate(row):
            place[name] = (1 + left + index * (BOX_WIDTH + GAP_X), 1 + level * (BOX_HEIGHT + GAP_Y))
    height = len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2
    parts = [_open(height, "which artifact was made from which", width=inner + 16 + LANE * len(far), css="lineage")]
    for above, below in edges:
        if (above, below) in far:
            lane = inner + 12 + LANE * far.index((above, below))
            path = _detour(place[above], place[below], lane)
        else:
            x1, y1 = place[above][0] + BOX_WIDTH / 2, place[above][1] + BOX_HEIGHT
            x2, y2 = place[below][0] + BOX_WIDTH / 2, place[below][1]
            path = f"M{x1} {y1}C{x1} {y1 + GAP_Y / 2} {x2} {y2 - GAP_Y / 2} {x2} {y2}"
        parts.append(f'<path class="edge" d="{path}"/>')
    for node in nodes:
        x, y = place[node["id"]]
        parts.append(f'<rect class="box" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7"/>')
        parts.append(_text(x + 10, y + 18, node["step"], "start", "label"))
        parts.append(_text(x + 10, y + 34, node["fingerprint"][:8], "start", "note mono"))
        parts.append(_text(x + BOX_WIDTH - 10, y + 34, duration(node["seconds"]), "end", "note"))
    return "".join([*parts, "</svg>"])


def _depths(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Longest way to each node from one without inputs. `names` lists inputs before results."""
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = 1 + max((depth[above] for above, below in edges if below == name), default=-1)
    return depth


def _detour(above: tuple[float, float], below: tuple[float, float], lane: float) -> str:
    """Out of one box at the bottom, along the gap under its row to a lane, down, and into another box from the top."""
    x1, y1 = above[0] + BOX_WIDTH - 16, above[1] + BOX_HEIGHT
    x2, y2 = below[0] + BOX_WIDTH - 16, below[1]
    out, back, r = y1 + GAP_Y / 2, y2 - GAP_Y / 2, 6
    return (
        f"M{x1} {y1}V{out - r}Q{x1} {out} {x1 + r} {out}H{lane - r}Q{lane} {out} {lane} {out + r}"
        f"V{back - r}Q{lane} {back} {lane - r} {back}H{x2 + r}Q{x2} {back} {x2} {back + r}V{y2}"
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`.

    >>> ticks(1.13, 2.38)
    [1.0, 1.5, 2.0, 2.5]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / about
    unit = 10 ** math.floor(math.log10(raw))
    size = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(i * size, 10) for i in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: 1500000 -> 1.5M, 0.0006 -> 6e-4.

    >>> [short(v) for v in (0, 0.5, 1500, 2_000_000, 0.0006)]
    ['0', '0.5', '1.5k', '2M', '6e-4']
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    if value and abs(value) < 1e-2:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min.

    >>> [duration(s) for s in (0.42, 12.3, 200, 7500)]
    ['0.4 s', '12 s', '3 min 20 s', '2 h 05 min']
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _open(height: int, description: str, *, width: int = WIDTH, css: str = "chart") -> str:
    size = f' style="max-width:{width}px"' if css == "lineage" else ""
    return f'<svg class="{css}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}"{size}>'


def _text(x: float, y: float, text: str, anchor: str, css: str = "tick") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(entries: Sequence[tuple[str, str]], right: float, y: float) -> list[str]:
    parts = []
    for name, css in reversed(entries):
        right -= 7 * len(name) + 22
        parts.append(f'<path class="line {css}" d="M{right:.0f} {y - 4:.1f}h14"/>')
        parts.append(_text(right + 18, y, name, "start", "note"))
    return parts
