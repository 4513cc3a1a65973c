"""Training runs for the page: curves over tokens with the phases marked, and the facts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from diglot.corpus.pack import language_of
from diglot.steps.report_page.charts import Line, duration, line_chart, short
from diglot.steps.report_page.corpus_view import css_of
from diglot.steps.report_page.model_facts import num_tokens

NAMES = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "prefer": "Preference training"}
CURVES = (  # key in the log, label, starts at zero
    ("loss", "loss, nats per {item}", False),
    ("learning_rate", "learning rate", True),
    ("grad_norm", "gradient norm", True),
    ("reward_margin", "reward margin", False),
    ("accuracy", "chosen preferred, share", False),
)
SPEEDS = (("tokens_per_second", "tokens per second", True), ("mfu", "MFU, share of the measured peak", True))
STREAM_CSS = ("accent", "second", "")  # of the lines of one chart; more would not fit its legend
MAX_STREAMS = 12  # in charts; train.jsonl has them all
NAME_CHARS = 14


def training_view(run: Mapping[str, Any]) -> dict[str, Any]:
    """Charts and facts of one run. A curve that the log does not hold is not drawn."""
    log = run["log"]
    axis = "num_tokens" if log and "num_tokens" in log[0] else "train_step"
    marks = _phase_starts(log, axis)
    item = "pair" if run["kind"] == "prefer" else "token"
    curves = [(log, *curve) for curve in CURVES] + [(run["timing"], *curve) for curve in SPEEDS]
    drawn = []
    for lines, key, label, zero in curves:
        found = [_line([(line[axis], line[key]) for line in lines if line.get(key) is not None], label, "accent")]
        drawn.append((found, label.format(item=item), zero))
    drawn += [
        (lines, label, False) for lines, label in [*_stream_lines(log, axis), *_measured(run["evaluation"], axis)]
    ]
    charts = [
        Markup(
            line_chart(
                lines,
                x_label=axis.removeprefix("num_").replace("_", " "),
                y_label=label,
                marks=marks,
                zero=zero,
            )
        )
        for lines, label, zero in drawn
        if any(len(line.x) > 1 for line in lines)
    ]
    return {
        "id": run["kind"],
        "name": NAMES.get(run["kind"], run["kind"]),
        "text": _text(run),
        "charts": charts,
        "facts": _facts(run["counts"]),
    }


def _line(points: Sequence[tuple[float, float]], name: str, css: str) -> Line:
    return Line(name=name, css=css, x=[x for x, _ in points], y=[y for _, y in points])


def _stream_lines(log: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[list[Line], str]]:
    """Charts of the loss by language, and of the streams with the most tokens, a few of a language in each."""
    told = [line for line in log if "stream_losses" in line]
    tokens: dict[str, int] = {}
    for line in told:
        for name, num in line["stream_items"].items():
            tokens[name] = tokens.get(name, 0) + num
    shown = sorted(tokens, key=lambda name: (-tokens[name], name))[:MAX_STREAMS]
    charts = [(_group_lines(told, "language_losses", axis), "loss, nats per token")] if told else []
    for lang in sorted({language_of(name) for name in shown}):
        names = [name for name in shown if language_of(name) == lang]
        for some in _parts(names, len(STREAM_CSS)):
            lines = [
                _line(
                    [(line[axis], line["stream_losses"][name]) for line in told if name in line["stream_losses"]],
                    _fitting(name.removesuffix(f".{lang}")),
                    css,
                )
                for name, css in zip(some, STREAM_CSS, strict=False)
            ]
            charts.append((lines, f"loss, {lang}"))
    return charts


def _measured(evaluation: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[list[Line], str]]:
    """A chart for each metric that was measured beside training, with a line for each language."""
    metrics = sorted({key for line in evaluation for key, value in line.items() if isinstance(value, Mapping)})
    return [(_group_lines(evaluation, metric, axis), metric.replace("_", " ")) for metric in metrics]


def _group_lines(lines: Sequence[Mapping[str, Any]], key: str, axis: str) -> list[Line]:
    """One line for each language of a nested value."""
    groups = sorted({group for line in lines for group in line.get(key, {})})
    return [
        _line([(line[axis], line[key][group]) for line in lines if group in line.get(key, {})], group, css_of(group))
        for group in groups
    ]


def _parts(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def _fitting(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"


def _phase_starts(log: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[float, str]]:
    marks: list[tuple[float, str]] = []
    for line in log:
        if "phase" in line and (not marks or marks[-1][1] != line["phase"]):
            marks.append((line[axis], line["phase"]))
    return marks if len(marks) > 1 else []


def _text(run: Mapping[str, Any]) -> str:
    parts = [f"{short(run['num_parameters'])} parameters"]
    if steps := run["counts"].get("train_steps", run["counts"].get("num_train_steps")):
        parts.append(f"{steps:,} training steps")
    if tokens := num_tokens(run):
        parts.append(f"{tokens:,} tokens")
    parts.append(duration(run["seconds"]))
    return ", ".join(parts) + "." + _speed(run["counts"]) + _before_and_after(run["counts"])


def _speed(counts: Mapping[str, Any]) -> str:
    """Where a peak of the machine was measured, how much of it was reached."""
    if counts.get("mfu") is None:
        return ""
    return f" MFU {counts['mfu']:.1%} of the measured peak: {counts['peak']}."


def _before_and_after(counts: Mapping[str, Any]) -> str:
    """What fine-tuning or preference training changed on held-out conversations, where the step measured it."""
    if counts.get("heldout_loss_before") is not None and counts.get("heldout_loss_after") is not None:
        before, after = counts["heldout_loss_before"], counts["heldout_loss_after"]
        return f" Loss on held-out answers: {before:.3f} before, {after:.3f} after, nats per token."
    if "heldout_before" in counts and "heldout_after" in counts:
        before, after = counts["heldout_before"], counts["heldout_after"]
        return (
            f" {counts['pairs']:,} pairs of answers. Reward on {after['prompts']:,} held-out questions: "
            f"{before['total']:.3f} before, {after['total']:.3f} after."
        )
    return ""


def _facts(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run's own counts, one per row; nested ones with a dotted name."""
    rows: list[tuple[str, str]] = []

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key in value:
                add(f"{prefix}.{key}" if prefix else str(key), value[key])
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                add(f"{prefix}.{number}", item)
        elif isinstance(value, list | tuple):
            if value:
                rows.append((prefix.replace("_", " "), "; ".join(map(_shown, value))))
        elif value is not None:
            rows.append((prefix.replace("_", " "), _shown(value)))

    add("", counts)
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
