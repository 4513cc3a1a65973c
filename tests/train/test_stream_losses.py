"""Every stream's loss is the mean over its own tokens since the last line, also across a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch

from diglot.corpus.pack import language_of
from diglot.train.checkpoints import checkpoints, delete_checkpoint
from diglot.train.log import read_lines
from diglot.train.objectives.next_token import next_token
from diglot.train.stream_losses import StreamLosses
from diglot.train.types import IGNORE, Batch, ItemLosses, Phase, RowLosses

NAMES = ("docs.en", "faq.en", "faq.zh-Hans")


def losses(per_row: list[float], counts: list[int]) -> ItemLosses:
    rows = RowLosses(torch.tensor(per_row), torch.tensor(counts))
    return ItemLosses(torch.tensor(sum(per_row)), sum(counts), {}, rows)


def test_means_by_hand_over_microbatches_and_a_fresh_start_after_a_line() -> None:
    streams = StreamLosses(NAMES)
    streams.add({"streams": torch.tensor([1, 2, 1])}, losses([6.0, 9.0, 2.0], [3, 3, 1]))
    streams.close_step(streams.of_step())
    streams.add({"streams": torch.tensor([2, 0])}, losses([1.0, 8.0], [1, 4]))
    streams.close_step(streams.of_step())
    assert streams.take() == {
        "stream_losses": {"docs.en": 8 / 4, "faq.en": 8 / 4, "faq.zh-Hans": 10 / 4},
        "stream_items": {"docs.en": 4, "faq.en": 4, "faq.zh-Hans": 4},
        "language_losses": {"en": 16 / 8, "zh-Hans": 10 / 4},
    }
    assert streams.take() == {}
    streams.add({"streams": torch.tensor([0])}, losses([3.0], [2]))
    streams.close_step([2 * value for value in streams.of_step()])  # two ranks that read the same
    assert streams.take()["stream_losses"] == {"docs.en": 1.5}, "a stream that was not read has no loss"


def test_what_has_no_rows_or_no_streams_logs_none() -> None:
    streams = StreamLosses(NAMES)
    streams.add({"streams": torch.tensor([0])}, losses([3.0], [2])._replace(rows=None))
    streams.add({}, losses([3.0], [2]))
    streams.close_step(streams.of_step())
    assert streams.take() == {}
    assert StreamLosses(()).state() == {}


def test_languages_are_what_stands_behind_the_last_dot() -> None:
    assert [language_of(n) for n in ("a.b.en", "x.zh-Hans")] == ["en", "zh-Hans"]


def labelled_phases() -> list[Phase]:
    """Rows 0 and 3 of each training step from one stream, rows 1 and 2 from two others, and some targets masked."""

    def labelled(inner: Any, n: int) -> list[Batch]:
        first, second = inner(n)
        masked = second["targets"].clone()
        masked[0, : n % 5] = IGNORE
        return [
            {**first, "streams": torch.tensor([0, 1])},
            {**second, "targets": masked, "streams": torch.tensor([2, 0])},
        ]

    return [
        Phase(**{**vars(phase), "batch_at": lambda n, inner=phase.batch_at: labelled(inner, n)})
        for phase in tiny_run.phases()
    ]


def run(out: Path, **changes: Any) -> list[dict[str, Any]]:
    tiny_run.run(out, run_phases=labelled_phases(), stream_names=NAMES, log_every=4, **changes)
    return read_lines(out / "train.jsonl")


def test_a_line_covers_every_training_step_since_the_line_before(tmp_path: Path) -> None:
    seen: list[ItemLosses] = []
    objective = next_token()

    def noted(model: tiny_run.Decoder, batch: Batch) -> ItemLosses:
        seen.append(objective(model, batch))
        return seen[-1]

    lines = run(tmp_path, objective=noted)
    assert [line["train_step"] for line in lines] == [0, 4, 8, 12, 14]
    assert [line["stream_items"]["faq.en"] for line in lines] == [16, 4 * 16, 4 * 16, 4 * 16, 2 * 16]
    assert [line["stream_items"]["faq.zh-Hans"] for line in lines] == [16, 64 - 10, 64 - 6, 64 - 6, 32 - 4]
    for line, (start, stop) in zip(lines, ((0, 1), (1, 5), (5, 9), (9, 13), (13, 15)), strict=True):
        whole = sum(item.total.item() for item in seen[2 * start : 2 * stop])
        parts = sum(line["stream_losses"][name] * line["stream_items"][name] for name in NAMES)
        assert parts == pytest.approx(whole, rel=1e-5)


def test_a_run_killed_between_two_lines_logs_the_same_means(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole)
    run(broken)
    for checkpoint in checkpoints(broken / "checkpoints"):
        if checkpoint.counters.train_steps_done > 6:  # two of the four training steps that line 8 tells of
            delete_checkpoint(checkpoint.path)
    run(broken)
    assert (whole / "train.jsonl").read_bytes() == (broken / "train.jsonl").read_bytes()
