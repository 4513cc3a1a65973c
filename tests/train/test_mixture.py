"""Weights and budgets of a mixture become whole numbers of sequences, within caps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError
from diglot.core.storage import write_json
from diglot.ledger.artifact import Artifact
from diglot.model.sizes import ModelConfig
from diglot.steps.pretrain_config import PhaseConfig, PretrainConfig, plan, with_found_mixture
from diglot.train.mixture import Budget, quotas

SIZES = {"wiki.en": 100, "web.en": 600, "web.zh": 300, "books.zh": 50}


def test_a_share_and_tokens_are_met_exactly_and_weights_take_the_rest():
    mixture = {"wiki.*": Budget(share=0.2), "books.*": Budget(tokens=6400), "*.en": 3.0, "*": 1.0}
    found = quotas(mixture, SIZES, 1000, sequence_length=64)
    assert found == {"wiki.en": 200, "books.zh": 100, "web.en": 525, "web.zh": 175}


def test_epochs_read_each_stream_so_often_and_a_pattern_shares_by_tokens():
    found = quotas({"books.*": Budget(epochs=2), "*": Budget(weight=1)}, SIZES, 600)
    assert found["books.zh"] == 100
    assert (found["wiki.en"], found["web.en"], found["web.zh"]) == (50, 300, 150)


def test_the_most_specific_pattern_takes_a_stream_in_whatever_order_they_are_written():
    written = {"*": 1.0, "wiki.*": 2.0, "*.zh": 1.0}
    found = quotas(written, SIZES, 400)
    assert found == {"wiki.en": 200, "web.en": 100, "web.zh": 86, "books.zh": 14}
    assert quotas(dict(sorted(written.items(), reverse=True)), SIZES, 400) == found


def test_a_cap_that_is_exceeded_names_stream_epochs_and_both_ways_out():
    with pytest.raises(ConfigError) as error:
        quotas({"wiki.*": Budget(share=0.5, max_epochs=4), "*": 1.0}, SIZES, 1000)
    assert "needs 5.00 epochs of 'wiki.en', more than its max_epochs = 4" in str(error.value)
    assert "raise max_epochs" in str(error.value)
    assert "spill: redistribute" in str(error.value)


def test_what_spills_goes_to_weights_and_shares_in_proportion_and_never_to_exact_budgets():
    wiki = Budget(share=0.5, max_epochs=4, spill="redistribute")
    mixture = {"wiki.*": wiki, "books.*": Budget(tokens=100), "*.en": 3.0, "*": 1.0}
    found = quotas(mixture, SIZES, 1000)
    assert found == {"wiki.en": 400, "books.zh": 100, "web.en": 375, "web.zh": 125}
    twice = {**mixture, "*.en": Budget(weight=3, max_epochs=0.5, spill="redistribute")}
    assert quotas(twice, SIZES, 1000) == {"wiki.en": 400, "books.zh": 100, "web.en": 300, "web.zh": 200}
    with pytest.raises(ConfigError, match="finds no weight or share below its cap"):
        quotas({"wiki.*": wiki, "*": Budget(weight=1, max_epochs=0.1, spill="redistribute")}, SIZES, 1000)


def test_a_cap_holds_for_what_is_read_after_budgets_are_scaled_to_the_phase():
    """950 sequences are asked for and the phase has 1000, so each stream is read 1000 / 950 times as often."""
    mixture = {"wiki.*": Budget(epochs=1.9, max_epochs=1.95), "web.en": Budget(epochs=1), "books.*": Budget(tokens=160)}
    with pytest.raises(ConfigError, match=r"needs 2\.00 epochs of 'wiki\.en'"):
        quotas(mixture, SIZES, 1000, slack=60)
    enough = {**mixture, "wiki.*": Budget(epochs=1.9, max_epochs=2)}
    assert quotas(enough, SIZES, 1000, slack=60)["wiki.en"] == 200


def test_budgets_that_do_not_fit_the_phase_are_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"add up to 1,100 tokens, but the phase has 1,000. Lower a budget"):
        quotas({"*.en": Budget(tokens=1100), "*": 1.0}, SIZES, 1000)
    with pytest.raises(ConfigError, match=r"add up to 900 tokens.* a weight to take the rest"):
        quotas({"*.en": Budget(tokens=900)}, SIZES, 1000)
    with pytest.raises(ConfigError, match="take the weights out"):
        quotas({"*.en": Budget(share=0.5), "web.*": Budget(share=0.5), "*": 1.0}, SIZES, 1000)
    assert quotas({"*.en": Budget(tokens=996)}, SIZES, 1000, slack=8) == {"wiki.en": 143, "web.en": 857}


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.floats(0.1, 5), st.builds(Budget, share=st.floats(0, 0.3))), min_size=3, max_size=3),
    st.integers(1, 5000),
)
def test_quotas_always_fill_the_phase(entries, num_sequences):
    mixture = dict(zip(("wiki.*", "*.en", "*"), [*entries[:2], 1.0], strict=True))
    assert sum(quotas(mixture, SIZES, num_sequences).values()) == num_sequences


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "has no amount"),
        ({"tokens": 5, "share": 0.2}, "tokens and share"),
        ({"share": 20}, "share from 0 to 1"),
        ({"tokens": "40 MB"}, "'40 MB' is not a number. Write 40000000, 40M"),
        ({"tokens": -1}, "number from 0 up"),
        ({"weight": 1, "max_epochs": 0}, "a cap is above 0"),
    ],
)
def test_impossible_budgets_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Budget(**settings)


def test_a_mixture_that_was_searched_counts_tokens_whatever_the_phase_counts(tmp_path):
    write_json(tmp_path / "mixture.json", {"*.en": 0.25, "*.zh": 0.75})
    written = PhaseConfig(name="two", epochs=1, mixture={"*": 1.0}, weights_count="epochs")
    config = PretrainConfig(
        from_="p",
        tokenizer="t",
        mixture_from="s",
        phases=(PhaseConfig(name="one", epochs=1, weights_count="epochs"), written),
    )
    one, two = with_found_mixture(config, {"mixture_from": Artifact(tmp_path)}).phases
    assert (one.mixture, one.weights_count) == ({"*.en": 0.25, "*.zh": 0.75}, "tokens")
    assert two == written


def test_token_budgets_are_written_with_units_and_make_the_length_of_a_phase():
    assert [Budget(tokens=t).num_tokens for t in ("40M", "1.5B", "300k", "12_000", 7)] == [
        40_000_000, 1_500_000_000, 300_000, 12_000, 7,
    ]  # fmt: skip
    phase = PhaseConfig(name="one", batch_tokens=640, mixture={"*.en": Budget(tokens="9.6k"), "*": Budget(tokens=3200)})
    config = PretrainConfig(
        from_="p", tokenizer="t", phases=(phase,), sequence_length=64, model=ModelConfig(max_seq_len=64)
    )
    order = plan(config, {name: 64 * size + 1 for name, size in SIZES.items()}, seed=0)
    assert order.num_train_steps == 20
    assert order.phases[0].quotas["web.en"] + order.phases[0].quotas["wiki.en"] == 150
    with pytest.raises(ConfigError, match="needs either tokens or epochs"):
        PhaseConfig(name="one", mixture={"*.en": Budget(tokens=5), "*": 1.0})
