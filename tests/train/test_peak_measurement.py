"""Products and copies are timed for every number of threads, and count what they should."""

from __future__ import annotations

import pytest
import torch

from diglot.core.hardware import host
from diglot.train import peak_measurement as module
from diglot.train.peak_measurement import NUM_REPEATS, measure_peaks


def test_every_number_of_threads_is_measured_and_torch_is_left_as_it_was() -> None:
    peaks = measure_peaks(width=64, copied_bytes=2**16)
    threads = {1, torch.get_num_threads(), host().num_cores}
    assert {p.num_threads for p in peaks if p.device == "cpu"} == threads
    assert {p.quantity for p in peaks} == {"product", "copy"}
    assert all(0 < p.low <= p.median <= p.high and p.num_repeats == NUM_REPEATS for p in peaks)
    assert torch.get_num_threads() == 1
    bf16 = [p for p in peaks if p.device == "cpu" and p.precision == "bf16"]
    assert bool(bf16) == host().has_native_bf16, "emulated bf16 is no peak"


def test_a_product_of_width_w_counts_two_w_cubed_operations_and_a_copy_both_its_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_times", lambda work, device: [0.5, 0.25, 1.0])
    product, copy = (
        next(p for p in measure_peaks(width=32, copied_bytes=2**16) if p.quantity == quantity)
        for quantity in ("product", "copy")
    )
    assert product.median == 2 * 32**3 / 0.5
    assert (product.low, product.high) == (2 * 32**3 / 1.0, 2 * 32**3 / 0.25)
    assert copy.median == 2 * 2**16 / 0.5
