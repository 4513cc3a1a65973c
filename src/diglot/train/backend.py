"""What torch is set to while a run trains on a CPU: threads, determinism, precision, compiler, memory.

Everything is restored afterwards, except the allocator's settings, which only cost memory that was needed anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.utils.deterministic

from diglot.core.errors import ConfigError
from diglot.core.hardware import host
from diglot.model.decoder import Decoder
from diglot.train.types import LoopSettings

# Deliberately rough: the choice to compile must come out the same when a killed run is started again, so it rests on
# the amount of work and on facts of the machine, never on a measurement.
FLOPS_PER_CORE_FP32, FLOPS_PER_CORE_BF16 = 40e9, 200e9
COMPILE_SECONDS = 45.0
COMPILE_GAIN = 0.15  # share of the eager time that compiled layers save


@dataclass(frozen=True)
class Backend:
    """What was decided, and why where a reader may ask."""

    num_threads: int
    bf16: bool
    compiled: bool
    notes: tuple[str, ...]

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"


def choose_backend(settings: LoopSettings, total_flops: float) -> Backend:
    """Decide precision and compilation for a run of `total_flops` floating-point operations."""
    notes = []
    machine = host()
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and machine.has_native_bf16)
    if settings.precision == "bf16" and not machine.has_native_bf16:
        notes.append("bf16 was asked for, but this CPU emulates it: expect it to be slower than fp32.")
    threads = settings.num_threads or torch.get_num_threads()
    compiled, why = _choose_compile(settings, total_flops, threads, bf16)
    notes.append(why)
    return Backend(threads, bf16, compiled, tuple(notes))


def _choose_compile(settings: LoopSettings, total_flops: float, threads: int, bf16: bool) -> tuple[bool, str]:
    compiler = host().cxx_compiler
    if settings.compile == "never":
        return False, "not compiled: the setting is never."
    if compiler is None:
        if settings.compile == "always":
            raise ConfigError(
                "compile: always needs a C++ compiler (g++ or clang++), and there is none. Install one, or set auto."
            )
        return False, "not compiled: no C++ compiler (g++ or clang++) was found; installing one makes long runs faster."
    if settings.compile == "always":
        return True, f"compiled with {compiler}: the setting is always."
    seconds = total_flops / (threads * (FLOPS_PER_CORE_BF16 if bf16 else FLOPS_PER_CORE_FP32))
    gain = COMPILE_GAIN * seconds
    if gain > COMPILE_SECONDS:
        return True, f"compiled with {compiler}: a run of about {seconds:,.0f} s wins back the compiler's time."
    return False, (
        f"not compiled: of a run of about {seconds:,.0f} s compiling would save {gain:,.0f} s "
        f"and cost about {COMPILE_SECONDS:.0f} s."
    )


@contextlib.contextmanager
def prepared(backend: Backend, model: Decoder) -> Iterator[None]:
    """Set torch up for training on a CPU, compile the layers if so decided, and restore everything at the end."""
    keep_freed_memory()
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        bool(torch.utils.deterministic.fill_uninitialized_memory),  # type: ignore[attr-defined]
    )
    torch.set_num_threads(backend.num_threads)
    _use_deterministic_algorithms(True, backend.compiled)
    # Overwriting every new tensor with NaN finds bugs, not differences; it costs a pass over memory for each.
    _fill_new_tensors(False)
    torch.set_flush_denormal(True)  # a denormal costs a hundred times as much as another number
    if backend.compiled:
        torch._dynamo.config.recompile_limit = max(64, len(model.layers))  # layers may differ in width
        for layer in model.layers:
            # Layer by layer: all layers of one shape share one compilation, so that depth costs no compile time.
            layer.compile(dynamic=False)
    try:
        yield
    finally:
        for layer in model.layers:
            layer._compiled_call_impl = None
        torch.set_flush_denormal(False)
        torch.set_num_threads(before[0])
        _use_deterministic_algorithms(before[1], backend.compiled)
        _fill_new_tensors(before[2])


@contextlib.contextmanager
def uncompiled(model: Decoder) -> Iterator[None]:
    """Layers run as they are written: what is measured in between would be compiled for each of its shapes."""
    before = [layer._compiled_call_impl for layer in model.layers]
    for layer in model.layers:
        layer._compiled_call_impl = None
    try:
        yield
    finally:
        for layer, call in zip(model.layers, before, strict=True):
            layer._compiled_call_impl = call


def _use_deterministic_algorithms(on: bool, compiled: bool) -> None:
    if compiled:
        torch.use_deterministic_algorithms(on)  # tells the compiler too, and so imports it, which takes seconds
    else:
        torch.set_deterministic_debug_mode("error" if on else "default")


def _fill_new_tensors(on: bool) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = on  # type: ignore[attr-defined]


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of handing them back to the kernel; false where there is no glibc.

    A training step frees and asks for the same large tensors again and again. By default each one is mapped afresh, and
    the kernel clears every page of it: a product with a 32 MB result ran at 48 instead of 75 GFLOP/s a core.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 64 * 2**20)
    return True
