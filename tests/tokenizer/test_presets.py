"""A preset is the published settings, and says by name where it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diglot.core.errors import ConfigError
from diglot.tokenizer.presets import PRESETS, overrides, preset
from diglot.tokenizer.training import TrainingSettings


def test_map_neo_has_the_settings_of_the_paper() -> None:
    assert preset("map-neo").settings == TrainingSettings(
        vocab_size=64_000,
        character_coverage=0.9999,
        max_piece_chars=16,
        max_sentence_bytes=64_000,
        whitespace_pieces=False,
        dummy_prefix=False,
    )


def test_the_released_file_differs_from_the_paper_by_its_prefix_alone() -> None:
    paper, file = preset("map-neo"), preset("map-neo-as-released")
    assert replace(file.settings, dummy_prefix=False) == paper.settings
    assert {d.name for d in file.deviations} - {d.name for d in paper.deviations} == {"prefix_at_run_time"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_that_is_not_the_papers_is_a_named_deviation(name: str) -> None:
    chosen = preset(name)
    names = [deviation.name for deviation in chosen.deviations]
    assert len(names) == len(set(names))
    differing = {key for key in overrides("map-neo", chosen.settings) if key != "dummy_prefix"}
    assert differing <= set(names)
    assert overrides(name, chosen.settings) == {}


def test_an_override_is_told_with_both_values() -> None:
    settings = replace(preset("map-neo").settings, vocab_size=4096)
    assert overrides("map-neo", settings) == {"vocab_size": (4096, 64_000)}


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'map-neo'"):
        preset("mapneo")
