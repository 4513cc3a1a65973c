"""`diglot watch`: a training run in the terminal, from its logs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diglot.core.errors import InputError, unknown
from diglot.core.storage import read_json
from diglot.ledger.artifact import Artifact
from diglot.recipe.run import Places
from diglot.train.log import TRAIN
from diglot.train.run_state import RunState, Watcher

SECONDS_BETWEEN_LOOKS = 1.0
SILENT_SECONDS = 120.0  # without a line for so long, a run is likely to be stopped, evaluating or compiling
BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_CHARS = 40
CURVE_LINES = 400  # of the log that a curve shows: the recent past
MAX_STREAMS = 12


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A folder with logs, what to call it, and the artifact it belongs to (None for a folder outside of a store)."""

    folder: Path
    name: str
    artifact: Artifact | None

    def is_over(self, state: RunState) -> bool:
        return self.artifact.is_complete if self.artifact else state.is_done


def find_training(places: Places, run_name: str, step: str | None) -> Watched:
    """The training of a run that wrote last, running or finished.

    Args:
        run_name: name of a run; or a folder with train.jsonl in it.
        step: of this recipe step; None takes whichever wrote last.
    Raises: InputError when there is no such run, or nothing of it has begun to train.
    """
    folder = places.run_folder(run_name)
    if not (folder / "plan.json").exists():
        if (Path(run_name) / TRAIN).exists():
            return Watched(folder=Path(run_name), name=run_name, artifact=None)
        known = [str(p.parent.relative_to(places.runs)) for p in sorted(places.runs.rglob("plan.json"))]
        raise InputError(
            f"no run called '{run_name}' in {places.runs}, and no folder with a {TRAIN}. "
            f"Runs here: {', '.join(known) or 'none'}."
        )
    steps = read_json(folder / "plan.json")["steps"]
    if step is not None and step not in steps:
        raise unknown("step", step, steps, f"run {run_name}")
    newest: tuple[float, Watched] | None = None
    for name in [step] if step else steps:
        artifact = Artifact(places.store.resolve() / steps[name]["kind"] / steps[name]["fingerprint"])
        for log in artifact.path.rglob(TRAIN):  # a preference step has a folder for each round
            below = log.parent.relative_to(artifact.path)
            found = Watched(folder=log.parent, name=f"{run_name} / {Path(name) / below}", artifact=artifact)
            if newest is None or log.stat().st_mtime >= newest[0]:
                newest = log.stat().st_mtime, found
    if newest is None:
        what = f"step '{step}' of run {run_name}" if step else f"run {run_name}"
        raise InputError(
            f"{what} has not begun to train: no {TRAIN} lies in its folders under {places.store}. "
            f"`diglot show {run_name}` tells how far it is."
        )
    return newest[1]


def follow(find: Callable[[], Watched], console: Console) -> None:
    """Show the run until it is over or the user leaves. find: asked again each time, as a step may train in rounds."""
    watched = find()
    watcher = Watcher(watched.folder)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            state = watcher.look()
            live.update(panel(watched, state), refresh=True)
            if watched.is_over(state):
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
            watched = find()
            if watched.folder != watcher.folder:
                watcher = Watcher(watched.folder)


def panel(watched: Watched, state: RunState) -> RenderableType:
    """What is shown at one moment."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    if total := state.num_train_steps:
        rows.add_row("", ProgressBar(total=total, completed=state.train_steps_done, width=CURVE_CHARS))
    for name, *texts in _rows(watched, state):
        rows.add_row(Text(name), Text("  ".join(texts)))
    head = Text.assemble((watched.name, "bold"), "  ", _progress_text(watched, state))
    return Group(head, rows)


def sparkline(values: Sequence[float], width: int = CURVE_CHARS) -> str:
    """A curve in a line of text, from the lowest value to the highest; longer curves are averaged into `width` places.

    >>> sparkline([3, 2, 1, 1, 2])
    '█▅▁▁▅'
    """
    if not values:
        return ""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in values)


def _progress_text(watched: Watched, state: RunState) -> str:
    phase = f"{state.train[-1]['phase']}, " if state.train else ""
    done, total = state.train_steps_done, state.num_train_steps
    steps = f"training step {done:,}" + (f" of {total:,} ({done / total:.0%})" if total else "")
    text = f"{phase}{steps}, {state.num_tokens:,} tokens"
    if watched.is_over(state):
        return f"{text}, finished"
    if state.is_done:
        return f"{text}, trained; the step is not finished yet"
    left = state.seconds_left
    return f"{text}, {_duration(left)} left" if left is not None else text


def _rows(watched: Watched, state: RunState) -> list[tuple[str, ...]]:
    """Name and texts of each row; what the logs do not hold has none."""
    recent = state.train[-CURVE_LINES:]
    rows: list[tuple[str, ...]] = []
    if recent:
        now = recent[-1]
        losses = [line["loss"] for line in recent]
        rows.append(("loss", f"{now['loss']:.3f}", sparkline(losses), f"{min(losses):.3f} to {max(losses):.3f}"))
        rows += _metric_rows(now)
        rows.append(("gradient norm", f"{now['grad_norm']:.3g}", sparkline([line["grad_norm"] for line in recent])))
        rows.append(("learning rate", f"{now['learning_rate']:.3g}"))
    if state.timing:
        speeds, now = [line["tokens_per_second"] for line in state.timing[-CURVE_LINES:]], state.timing[-1]
        rows.append(("tokens/s", f"{now['tokens_per_second']:,.0f}", sparkline(speeds)))
        if "mfu" in now:
            rows.append(("MFU", f"{now['mfu']:.1%}", f"of {state.run.get('peak')}"))
        if "resident_peak_bytes" in now:
            rows.append(("memory, most", f"{now['resident_peak_bytes'] / 1e9:.2f} GB"))
        if "device_peak_bytes" in now:
            rows.append(("GPU memory, most", f"{now['device_peak_bytes'] / 1e9:.2f} GB"))
    rows += _evaluation_rows(state)
    rows += _stream_rows(recent)
    rows.append(("checkpoint", state.checkpoint or state.run.get("checkpoint_dir") or "none yet"))
    ago = f"last line {_duration(state.seconds_since_written)} ago"
    if state.seconds_since_written > SILENT_SECONDS and not watched.is_over(state):
        ago += ": it may be stopped. The command that started it goes on from the checkpoint."
    rows.append(("logs", f"{watched.folder}", ago))
    return rows


def _metric_rows(line: dict[str, Any]) -> list[tuple[str, ...]]:
    """Numbers that only some objectives have."""
    usual = ("train_step", "num_tokens", "num_items", "loss", "learning_rate", "grad_norm")
    return [
        (name.replace("_", " "), f"{value:.4g}")
        for name, value in line.items()
        if isinstance(value, int | float) and name not in usual
    ]


def _evaluation_rows(state: RunState) -> list[tuple[str, ...]]:
    if not state.evaluation:
        return []
    now = state.evaluation[-1]
    rows: list[tuple[str, ...]] = []
    for metric, groups in ((name, value) for name, value in now.items() if isinstance(value, dict)):
        for group, value in groups.items():
            curve = sparkline([line[metric][group] for line in state.evaluation if group in line.get(metric, {})])
            rows.append(
                (f"{metric.replace('_', ' ')} {group}", f"{value:.3f}", curve, f"at {now['num_tokens']:,} tokens")
            )
    return rows


def _stream_rows(recent: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Loss by language, then by stream, those with the most tokens first."""
    told = [line for line in recent if "stream_losses" in line]
    if not told:
        return []
    items: dict[str, int] = {}
    for line in told:
        for name, num in line["stream_items"].items():
            items[name] = items.get(name, 0) + num
    rows = [_curve_row(f"loss {name}", told, "language_losses", name) for name in told[-1]["language_losses"]]
    names = sorted(items, key=lambda name: (-items[name], name))
    rows += [_curve_row(f"loss {name}", told, "stream_losses", name) for name in names[:MAX_STREAMS]]
    if len(names) > MAX_STREAMS:
        rows.append(("", f"and {len(names) - MAX_STREAMS} streams more, in {TRAIN}"))
    return rows


def _curve_row(title: str, lines: Sequence[dict[str, Any]], key: str, name: str) -> tuple[str, ...]:
    values = [line[key][name] for line in lines if name in line[key]]
    return title, f"{values[-1]:.3f}", sparkline(values)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
