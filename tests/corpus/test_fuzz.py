"""Mutated input of every format: nothing crashes, hangs or is lost. `python -m benchmarks.fuzz` runs many more."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from diglot.corpus.read.formats import READERS, format_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout, which holds benchmarks/

from benchmarks.fuzz import FORMATS, case, fuzz


def test_a_case_is_the_same_every_time_and_all_formats_are_drawn():
    assert case(7, seed=3) == case(7, seed=3) != case(8, seed=3)
    drawn = Counter(case(number, seed=0)[0] for number in range(400))
    assert set(drawn) == set(FORMATS)
    assert {format_of(name) for name in FORMATS} == set(READERS)


@pytest.mark.slow
def test_some_thousand_mutated_records_are_all_accounted_for(tmp_path):
    found = fuzz(3000, seed=20, folder=tmp_path)
    assert found["failures"] == []
    assert sum(tally.records for tally in found["formats"].values()) >= 3000
    assert found["measured"] > 1000


@pytest.mark.slow
def test_a_case_that_kills_its_process_or_raises_is_reported(tmp_path, monkeypatch):
    """Otherwise a green run would prove nothing."""
    import os

    from benchmarks import fuzz as module

    original = module.run_case

    def deadly(number, seed, folder):
        if number == 3:
            os._exit(9)
        if number == 5:
            raise ValueError("a broken reader")
        return original(number, seed, folder)

    monkeypatch.setattr(module, "run_case", deadly)
    found = fuzz(1000, cases=10, folder=tmp_path)
    assert len(found["failures"]) == 2
    assert "case 3: the process died with status 9" in found["failures"][0] + found["failures"][1]
    assert any("a broken reader" in failure for failure in found["failures"])
    assert sum(tally.inputs for tally in found["formats"].values()) == 8
