"""Training runs for the page: curves over tokens with the phases marked, and the facts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from diglot.steps.report_page.charts import Line, duration, line_chart, short
from diglot.steps.report_page.model_facts import num_tokens

NAMES = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "prefer": "Preference training"}
CURVES = (  # key in the log, label, starts at zero
    ("loss", "loss, nats per {item}", False),
    ("learning_rate", "learning rate", True),
    ("grad_norm", "gradient norm", True),
    ("reward_margin", "reward margin", False),
    ("accuracy", "chosen preferred, share", False),
)


def training_view(run: Mapping[str, Any]) -> dict[str, Any]:
    """Charts and facts of one run. A curve that the log does not hold is not drawn."""
    log = run["log"]
    axis = "num_tokens" if log and "num_tokens" in log[0] else "train_step"
    marks = _phase_starts(log, axis)
    charts, item = [], "pair" if run["kind"] == "prefer" else "token"
    curves = [(log, *curve) for curve in CURVES] + [(run["timing"], "tokens_per_second", "tokens per second", True)]
    for lines, key, label, zero in curves:
        points = [(line[axis], line[key]) for line in lines if line.get(key) is not None]
        if len(points) > 1:
            line = Line(name=label, css="accent", x=[x for x, _ in points], y=[y for _, y in points])
            charts.append(
                Markup(
                    line_chart(
                        [line],
                        x_label=axis.removeprefix("num_").replace("_", " "),
                        y_label=label.format(item=item),
                        marks=marks,
                        zero=zero,
                    )
                )
            )
    return {
        "id": run["kind"],
        "name": NAMES.get(run["kind"], run["kind"]),
        "text": _text(run),
        "charts": charts,
        "facts": _facts(run["counts"]),
    }


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
    return ", ".join(parts) + "." + _before_and_after(run["counts"])


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
