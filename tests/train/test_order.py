"""The order of the data is exact, random, readable at any place and in both directions."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError
from diglot.train.mixture import epochs_read, largest_remainder, quotas
from diglot.train.order import DataOrder, PhaseMix, plan_order
from diglot.train.permutation import permute, permute_back
from diglot.train.sequences import num_sequences, num_unused_tokens

SIZES = {"faq.en": 20, "guide.en": 3, "handbook.zh-Hans": 11}


def two_phases(seed: int = 0) -> DataOrder:
    return plan_order(
        [
            PhaseMix(name="one", num_train_steps=7, sequences_per_train_step=8, mixture={"*.en": 1, "*": 2}),
            PhaseMix(name="two", num_train_steps=3, sequences_per_train_step=5, mixture={}),
        ],
        SIZES,
        seed,
        max_epochs=None,
    )


def readers(order: DataOrder) -> dict[tuple[str, int], list[int]]:
    """Which training steps read each sequence, by asking every step."""
    found = defaultdict(list)
    for train_step in range(order.num_train_steps):
        for sequence in order.sequences(train_step):
            found[sequence].append(train_step)
    return found


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_one_and_can_be_undone(n: int, seed: int) -> None:
    indices = np.arange(n)
    image = permute(indices, n, seed)
    assert sorted(image) == list(range(n))
    assert (permute_back(image, n, seed) == indices).all()
    assert permute(np.array([n // 2]), n, seed)[0] == image[n // 2]


def test_permutations_are_stable_across_versions() -> None:
    assert permute(np.arange(10), 10, 7).tolist() == [0, 2, 9, 8, 1, 4, 3, 5, 7, 6]


def test_permutations_of_many_seeds_put_every_value_everywhere_equally_often() -> None:
    n, trials = 7, 2100
    counts = np.zeros((n, n))
    for seed in range(trials):
        counts[np.arange(n), permute(np.arange(n), n, seed)] += 1
    chi_square = ((counts - trials / n) ** 2 / (trials / n)).sum()
    assert chi_square < 65  # 36 degrees of freedom: 65 is passed by chance once in 400 such tests


@pytest.mark.parametrize("seed", [0, 1])
def test_asking_every_step_and_asking_every_sequence_agree(seed: int) -> None:
    order = two_phases(seed)
    found = readers(order)
    for stream, size in SIZES.items():
        for index in range(size):
            assert order.train_steps(stream, index) == found.get((stream, index), [])


sizes = st.dictionaries(st.sampled_from(["a.en", "b.en", "c.zh", "d.zh", "e.zh"]), st.integers(1, 40), min_size=1)
shape = st.tuples(st.integers(1, 12), st.integers(1, 9))


@given(sizes, st.lists(shape, min_size=1, max_size=3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_any_order_fills_every_step_meets_its_quotas_and_inverts(
    sizes: dict[str, int], shapes: list[tuple[int, int]], seed: int
) -> None:
    mixes = [
        PhaseMix(name=str(i), num_train_steps=steps, sequences_per_train_step=batch, mixture={})
        for i, (steps, batch) in enumerate(shapes)
    ]
    order = plan_order(mixes, sizes, seed, max_epochs=None)
    first = 0
    for phase in order.phases:
        batches = [order.sequences(first + n) for n in range(phase.num_train_steps)]
        assert {len(batch) for batch in batches} == {phase.sequences_per_train_step}
        read = Counter(stream for batch in batches for stream, _ in batch)
        assert dict(read) == {name: quota for name, quota in phase.quotas.items() if quota}
        first += phase.num_train_steps
    found = readers(order)
    assert all(order.train_steps(*sequence) == train_steps for sequence, train_steps in found.items())


LENGTHS = {"faq.en": 20, "guide.en": 1, "handbook.zh-Hans": 11}  # blocks; guide.en does not fill its one


def three_lengths(seed: int = 0) -> DataOrder:
    """Phases of sequences of a quarter of a block, a half and a whole, of which two let their batches grow."""
    return plan_order(
        [
            PhaseMix(
                name="short",
                num_train_steps=9,
                sequences_per_train_step=8,
                mixture={},
                ramp=((3, 2), (2, 5)),
                pieces_per_block=4,
                short={"guide.en": 3},
            ),
            PhaseMix(
                name="middle",
                num_train_steps=6,
                sequences_per_train_step=11,
                mixture={"*.en": 2, "*": 1},
                pieces_per_block=2,
                short={"guide.en": 1},
            ),
            PhaseMix(name="long", num_train_steps=5, sequences_per_train_step=6, mixture={}, ramp=((2, 3),)),
        ],
        LENGTHS,
        seed,
        max_epochs=None,
    )


def test_phases_of_several_lengths_and_growing_batches_fill_their_steps_and_invert() -> None:
    order = three_lengths()
    sizes = [len(order.sequences(n)) for n in range(order.num_train_steps)]
    assert sizes == [2, 2, 2, 5, 5, 8, 8, 8, 8, *[11] * 6, 3, 3, 6, 6, 6]
    found: dict[tuple[int, str, int], list[int]] = defaultdict(list)
    for train_step in range(order.num_train_steps):
        for stream, index in order.sequences(train_step):
            found[order.phase_index(train_step), stream, index].append(train_step)
    for phase in range(3):
        for stream in LENGTHS:
            read = range(order.num_sequences(stream, phase))
            for index in read:
                assert order.train_steps(stream, index, phase) == found[phase, stream, index]
            quota = order.phases[phase].quotas.get(stream, 0)
            assert sum(len(found[phase, stream, index]) for index in read) == quota
    for stream, size in LENGTHS.items():
        for block in range(size):
            pieces = [
                steps
                for (phase, name, index), steps in found.items()
                if name == stream and index // order.phases[phase].pieces(stream) == block
            ]
            assert order.train_steps(stream, block) == sorted(itertools.chain(*pieces))
    assert DataOrder.from_plan(json.loads(json.dumps(order.to_plan()))) == order


@st.composite
def mixes_of_several_lengths(draw: st.DrawFn) -> tuple[dict[str, int], list[PhaseMix]]:
    """Blocks of each stream, and phases of any length, batch and ramp; streams of one block may not fill it."""
    held = draw(st.dictionaries(st.sampled_from(["a.en", "b.en", "c.zh"]), st.integers(1, 9), min_size=1))
    phases = []
    for number in range(draw(st.integers(1, 3))):
        ramp = tuple(draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=2)))
        pieces = draw(st.sampled_from([1, 2, 4]))
        short = {name: draw(st.integers(1, pieces)) for name, blocks in held.items() if blocks == 1}
        phases.append(
            PhaseMix(
                name=str(number),
                num_train_steps=sum(steps for steps, _ in ramp) + draw(st.integers(0 if ramp else 1, 8)),
                sequences_per_train_step=draw(st.integers(1, 9)),
                mixture={},
                ramp=ramp,
                pieces_per_block=pieces,
                short=short,
            )
        )
    return held, phases


@given(mixes_of_several_lengths(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_any_order_of_several_lengths_meets_its_quotas_and_inverts(
    planned: tuple[dict[str, int], list[PhaseMix]], seed: int
) -> None:
    held, phases = planned
    order = plan_order(phases, held, seed, max_epochs=None)
    found: dict[tuple[int, str, int], list[int]] = defaultdict(list)
    read: dict[int, Counter[str]] = defaultdict(Counter)
    for train_step in range(order.num_train_steps):
        for stream, index in order.sequences(train_step):
            found[order.phase_index(train_step), stream, index].append(train_step)
            read[order.phase_index(train_step)][stream] += 1
    for number, phase in enumerate(order.phases):
        assert dict(read[number]) == {name: quota for name, quota in phase.quotas.items() if quota}
        for stream in held:
            for index in range(order.num_sequences(stream, number)):
                assert order.train_steps(stream, index, number) == found[number, stream, index]


def test_no_token_is_read_again_before_the_others_of_its_stream_however_long_the_sequences() -> None:
    order = three_lengths()
    for stream in ("faq.en", "handbook.zh-Hans"):
        counts = np.zeros(4 * LENGTHS[stream], dtype=int)  # in quarters of a block
        for phase, one in enumerate(order.phases):
            quarters = 4 // one.pieces_per_block
            for index in range(order.num_sequences(stream, phase)):
                counts[index * quarters : (index + 1) * quarters] += len(order.train_steps(stream, index, phase))
        skipped = 4 * sum(one.num_blocks(stream) for one in order.phases) - counts.sum()
        assert skipped < 4 + 2  # at most the rest of one block a phase
        assert np.abs(counts - np.median(counts)).max() <= 1
    assert order.epochs()["guide.en"] == pytest.approx(
        sum(one.quotas["guide.en"] / one.pieces("guide.en") for one in order.phases)
    )


def test_pieces_of_a_block_are_read_apart() -> None:
    mix = PhaseMix(name="one", num_train_steps=50, sequences_per_train_step=8, mixture={}, pieces_per_block=4)
    order = plan_order([mix], {"a.en": 100}, 0, max_epochs=None)
    blocks = [index // 4 for n in range(50) for _, index in order.sequences(n)]
    assert sum(a == b for a, b in pairwise(blocks)) < 20  # about 3 by chance, 300 if pieces stayed together


def test_an_order_of_one_length_keeps_the_fingerprint_it_always_had() -> None:
    assert two_phases().mixture_fingerprint == "8d227bab0ad17f47"


def test_no_sequence_is_read_again_before_every_other_of_its_stream_was_read_as_often() -> None:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    order = two_phases()
    for train_step in range(order.num_train_steps):
        for stream, index in order.sequences(train_step):
            counts[stream][index] += 1
            seen = [counts[stream][i] for i in range(SIZES[stream])]
            assert max(seen) - min(seen) <= 1


def test_every_stretch_of_a_phase_has_nearly_the_mixture_of_the_whole() -> None:
    sizes = {"a.en": 5000, "b.en": 900, "c.zh": 2300}
    mix = PhaseMix(name="one", num_train_steps=500, sequences_per_train_step=16, mixture={"*.en": 3, "*": 1})
    order = plan_order([mix], sizes, 0, max_epochs=None)
    quotas = order.phases[0].quotas
    read: Counter[str] = Counter()
    for train_step in range(500):
        read.update(stream for stream, _ in order.sequences(train_step))
        for stream, quota in quotas.items():
            assert abs(read[stream] - quota * (train_step + 1) / 500) <= len(quotas)


def test_epochs_and_seeds_change_the_order() -> None:
    mix = PhaseMix(name="one", num_train_steps=40, sequences_per_train_step=10, mixture={})
    order = plan_order([mix], {"a.en": 200}, 0, max_epochs=None)
    epochs = [[order.sequences(first + n) for n in range(20)] for first in (0, 20)]
    assert epochs[0] != epochs[1]
    assert replace(order, seed=1).sequences(0) != order.sequences(0)
    places = [index for batch in epochs[0] for _, index in batch]
    assert sum(b == a + 1 for a, b in pairwise(places)) < 10  # shuffled: neighbours seldom stay neighbours


def test_an_order_survives_its_plan_and_its_fingerprint_names_it() -> None:
    order = two_phases()
    plan = json.loads(json.dumps({"order": order.to_plan(), "more": 1}))
    again = DataOrder.from_plan(plan)
    assert again == order
    assert again.mixture_fingerprint == order.mixture_fingerprint
    assert two_phases(seed=1).mixture_fingerprint != order.mixture_fingerprint
    assert replace(order, sizes={**SIZES, "faq.en": 21}).mixture_fingerprint != order.mixture_fingerprint


def test_the_order_needs_no_torch() -> None:
    code = "import sys, diglot.train.order, diglot.steps.pretrain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_quotas_follow_the_weights() -> None:
    assert quotas({"*.en": 1, "*": 3}, SIZES, 80) == {"faq.en": 17, "guide.en": 3, "handbook.zh-Hans": 60}
    assert quotas({}, SIZES, 340) == {"faq.en": 200, "guide.en": 30, "handbook.zh-Hans": 110}
    assert quotas({"guide.*": 2, "*": 1}, SIZES, 37, counts="epochs") == {
        "faq.en": 20,
        "guide.en": 6,
        "handbook.zh-Hans": 11,
    }
    assert quotas({"*.en": 1}, SIZES, 23) == {"faq.en": 20, "guide.en": 3}
    assert quotas({"guide.en": 0, "*": 1}, SIZES, 31) == {"faq.en": 20, "handbook.zh-Hans": 11}


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(0, 1000))
def test_largest_remainder_gives_everything_away_and_is_off_by_less_than_one(weights: list[float], total: int) -> None:
    shares = {str(i): w / sum(weights) for i, w in enumerate(weights)}
    whole = largest_remainder(shares, total)
    assert sum(whole.values()) == total
    assert all(abs(whole[name] - shares[name] * total) < 1 + 1e-9 for name in shares)


def test_patterns_that_fit_nothing_and_empty_mixtures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'\*\.zh-Hant' fits no stream.*faq\.en, guide\.en, handbook\.zh-Hans"):
        quotas({"*.zh-Hant": 1, "*": 1}, SIZES, 10)
    with pytest.raises(ConfigError, match=r"'\*\.en' fits no stream that a more specific pattern left"):
        quotas({"*.en": 1, "faq.en": 1, "guide.en": 1}, SIZES, 10)
    with pytest.raises(ConfigError, match="every stream weight 0"):
        quotas({"*": 0}, SIZES, 10)
    with pytest.raises(ConfigError, match="not a number from 0 up"):
        quotas({"*": -1}, SIZES, 10)


def test_too_many_epochs_are_refused_with_the_stream_that_is_read_too_often() -> None:
    mix = PhaseMix(name="one", num_train_steps=10, sequences_per_train_step=10, mixture={"guide.en": 1, "*": 9})
    assert epochs_read([quotas(mix.mixture, SIZES, 100)], SIZES)["guide.en"] == pytest.approx(10 / 3)
    plan_order([mix], SIZES, 0, max_epochs=4)
    with pytest.raises(ConfigError, match=r"'guide\.en' 3\.33 times, more than max_epochs = 2"):
        plan_order([mix], SIZES, 0, max_epochs=2)


def test_steps_and_sequences_outside_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.\.9"):
        two_phases().sequences(10)
    with pytest.raises(ConfigError, match=r"0\.\.19"):
        two_phases().train_steps("faq.en", 20)


@pytest.mark.parametrize(
    ("num_tokens", "sequences", "unused"),
    [(0, 0, 0), (1, 0, 1), (2, 1, 0), (64, 1, 0), (65, 1, 0), (66, 1, 1), (129, 2, 0)],
)
def test_sequences_share_one_token_and_leave_the_rest(num_tokens: int, sequences: int, unused: int) -> None:
    assert num_sequences(num_tokens, 64) == sequences
    assert num_unused_tokens(num_tokens, 64) == unused
