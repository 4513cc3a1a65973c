"""What a mixture comes to, as a table for people: tokens, share and epochs of every stream in every phase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from diglot.train.order import DataOrder

CHANGE = " -> "


class MixtureRow(NamedTuple):
    """What one phase reads of one stream. epochs: of the stream, in this phase."""

    phase: str
    stream: str
    tokens: int
    share: float
    epochs: float


def mixture_rows(order: DataOrder, longest: int) -> list[MixtureRow]:
    """Every phase and stream, those that are not read included, in the order of the phases and by name.

    longest: inputs in one of the run's longest sequences.
    """
    return [
        MixtureRow(
            phase=phase.name,
            stream=stream,
            tokens=phase.quotas.get(stream, 0) * (longest // phase.pieces_per_block),
            share=phase.quotas.get(stream, 0) / phase.num_sequences,
            epochs=phase.quotas.get(stream, 0) / (size * phase.pieces(stream)) if size else 0.0,
        )
        for phase in order.phases
        for stream, size in sorted(order.sizes.items())
    ]


def mixture_lines(rows: Sequence[MixtureRow], before: Sequence[MixtureRow] | None = None) -> Iterator[str]:
    """The table; with `before`, every number that changed stands as `old -> new`, and streams that went as well."""
    last = {(row.phase, row.stream): row for row in before or ()}
    gone = [row for key, row in last.items() if key not in {(row.phase, row.stream) for row in rows}]
    shown = [(row, last.get((row.phase, row.stream))) for row in rows]
    shown += [(row._replace(tokens=0, share=0.0, epochs=0.0), row) for row in gone]
    cells = [("phase", "stream", "tokens", "share", "epochs")]
    for row, old in shown:
        none = MixtureRow(row.phase, row.stream, 0, 0.0, 0.0) if before is not None else row
        tokens, share, epochs = map(_changed, _written(old or none), _written(row))
        cells.append((row.phase, row.stream, tokens, share, epochs))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    for line in cells:
        yield "  ".join(
            [line[0].ljust(widths[0]), line[1].ljust(widths[1]), *(line[n].rjust(widths[n]) for n in (2, 3, 4))]
        )


def _written(row: MixtureRow) -> tuple[str, str, str]:
    return f"{row.tokens:,}", f"{row.share:.4f}", f"{row.epochs:.2f}"


def _changed(old: str, new: str) -> str:
    return new if old == new else f"{old}{CHANGE}{new}"
