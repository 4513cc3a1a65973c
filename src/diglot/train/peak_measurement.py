"""How fast this machine multiplies matrices and copies memory: what `diglot doctor --peak` measures.

The peak is of the same library that trains, on matrices large enough to fill the caches, into memory that is already
there. It is a measurement and not a data sheet: MFU against it says how much of what torch can reach here is reached.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from diglot.core.hardware import host
from diglot.core.peaks import Peak, Quantity

NUM_REPEATS = 7
CPU_WIDTH = 1536  # 7 GFLOP and 9 MB a matrix: 0.05 to 0.2 s a product on the two slow cores this was written on
CUDA_WIDTH = 8192  # 1.1 TFLOP: milliseconds, far above the time to start a kernel
COPIED_BYTES = 2**28  # above any last-level cache
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_peaks(*, width: int | None = None, copied_bytes: int = COPIED_BYTES) -> list[Peak]:
    """Products in fp32, and in bf16 where the hardware multiplies it, and copies: with one thread and with all.

    "All" is both every core and what torch takes by itself, where the two differ (hyper-threads). A few seconds.
    width: of the square matrices; None takes one that suits the device.
    """
    before = torch.get_num_threads()
    found: list[Peak] = []
    try:
        for num_threads in sorted({1, before, host().num_cores}):
            torch.set_num_threads(num_threads)
            for precision in ("fp32", "bf16") if host().has_native_bf16 else ("fp32",):
                found.append(measure_product("cpu", precision, width or CPU_WIDTH, num_threads))
            found.append(_copy("cpu", copied_bytes, num_threads))
    finally:
        torch.set_num_threads(before)
    if torch.cuda.is_available():
        found += [measure_product("cuda", precision, width or CUDA_WIDTH, None) for precision in ("fp32", "bf16")]
        found.append(_copy("cuda", copied_bytes, None))
    return found


def measure_product(device: str, precision: str, width: int, num_threads: int | None) -> Peak:
    """Products of two matrices of `width` x `width`."""
    left, right = (torch.randn(width, width, device=device).to(DTYPES[precision]) for _ in range(2))
    result = torch.empty_like(left)
    seconds = _times(lambda: torch.mm(left, right, out=result), device)
    return _peak("product", device, precision, num_threads, [2 * width**3 / s for s in seconds])


def _copy(device: str, num_bytes: int, num_threads: int | None) -> Peak:
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    seconds = _times(lambda: target.copy_(source), device)
    return _peak("copy", device, "fp32", num_threads, [2 * num_bytes / s for s in seconds])


def _times(work: Callable[[], object], device: str) -> list[float]:
    """Seconds of each repeat, after one that is not counted."""
    seconds = []
    for _ in range(NUM_REPEATS + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _peak(quantity: Quantity, device: str, precision: str, num_threads: int | None, rates: Sequence[float]) -> Peak:
    return Peak(
        quantity=quantity,
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        precision=precision,
        num_threads=num_threads,
        median=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        num_repeats=len(rates),
    )
