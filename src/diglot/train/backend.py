"""What torch is set to while a run trains, on a CPU or a GPU: threads, determinism, precision, compiler, memory.

Everything is restored afterwards, except the allocator's settings, which only cost memory that was needed anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.utils.deterministic

from diglot.core.errors import ConfigError
from diglot.core.hardware import host
from diglot.model.decoder import Decoder
from diglot.train.device import device_name, device_of, fp32_products
from diglot.train.parallel.ranks import Ranks
from diglot.train.types import LoopSettings

Precision = Literal["fp32", "bf16", "fp8"]
CPU = torch.device("cpu")

# Deliberately rough: the choice to compile must come out the same when a killed run is started again, so it rests on
# the amount of work and on facts of the machine, never on a measurement.
FLOPS_PER_CORE_FP32, FLOPS_PER_CORE_BF16 = 40e9, 200e9
FLOPS_OF_A_GPU_FP32, FLOPS_OF_A_GPU_BF16 = 15e12, 150e12  # guesses for eager layers, which wait for memory
COMPILE_SECONDS = 45.0
COMPILE_GAIN = 0.15  # share of the eager time that compiled layers save
COMPILE_GAIN_OF_A_GPU = 0.3  # a guess: norms, rotations and activations weigh more beside faster products
BF16_CAPABILITY, FP8_CAPABILITY = (8, 0), (8, 9)  # Ampere; Ada and Hopper


@dataclass(frozen=True)
class Backend:
    """What was decided, and why where a reader may ask.

    device: `cpu`, or the name of the GPU.
    """

    device: str
    num_threads: int
    precision: Precision
    compiled: bool
    deterministic: bool
    notes: tuple[str, ...]

    @property
    def peak_precision(self) -> str:
        """The measured peak that MFU is told against: for fp8 that of bf16, as is usual."""
        return "fp32" if self.precision == "fp32" else "bf16"

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


def choose_backend(settings: LoopSettings, total_flops: float, device: torch.device = CPU) -> Backend:
    """Decide precision and compilation for a run of `total_flops` floating-point operations on `device`."""
    notes = []
    precision, on_gpu = chosen_precision(settings.precision, device), device.type == "cuda"
    if precision == "bf16" and not on_gpu and not host().has_native_bf16:
        notes.append("bf16 was asked for, but this CPU emulates it: expect it to be slower than fp32.")
    threads = settings.num_threads or torch.get_num_threads()
    if on_gpu:
        compiled, why = _choose_compile_on_gpu(settings, total_flops, precision)
    else:
        compiled, why = _choose_compile(settings, total_flops, threads, precision != "fp32")
    notes.append(why)
    return Backend(device_name(device), threads, precision, compiled, settings.deterministic, tuple(notes))


def agreed_backend(settings: LoopSettings, total_flops: float, device: torch.device, ranks: Ranks) -> Backend:
    """`choose_backend` of rank 0 on every rank, so that mixed machines do not train in mixed precision.

    Threads are each rank's own.
    Raises: ConfigError on every rank where the machine of one cannot do what rank 0 decided.
    """
    chosen = ranks.from_main(lambda: choose_backend(settings, total_flops, device))
    for rank, objection in enumerate(ranks.of_each(_objection(chosen, device))):
        if objection is not None:
            raise ConfigError(f"rank {rank} cannot train as rank 0 decided: {objection}")
    return chosen if ranks.is_main else replace(chosen, num_threads=settings.num_threads or torch.get_num_threads())


def _objection(chosen: Backend, device: torch.device) -> str | None:
    """Why this machine cannot do what was chosen on another; None where it can."""
    missing = _missing_for_triton() if chosen.on_gpu else None if host().cxx_compiler else "a C++ compiler"
    if chosen.compiled and missing is not None:
        return f"layers are compiled, and its machine lacks {missing}. Install it, or set compile: never."
    try:
        chosen_precision(chosen.precision, device)
    except ConfigError as error:
        return str(error)
    return None


def chosen_precision(setting: Literal["auto", "fp32", "bf16", "fp8"], device: torch.device) -> Precision:
    """`auto` is bfloat16 where the device multiplies it in hardware, else float32.

    Raises: ConfigError where the device cannot do what was asked for.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if setting == "fp8" and (capability is None or capability < FP8_CAPABILITY):
        found = "this run trains on a CPU" if capability is None else f"{device_name(device)} has {_spoken(capability)}"
        raise ConfigError(
            f"precision: fp8 needs an NVIDIA GPU of compute capability {_spoken(FP8_CAPABILITY)} or above (Ada, Hopper "
            f"and later), and {found}. Set bf16 or auto."
        )
    if setting == "bf16" and capability is not None and capability < BF16_CAPABILITY:
        raise ConfigError(
            f"precision: bf16 needs compute capability {_spoken(BF16_CAPABILITY)} (Ampere and later), and "
            f"{device_name(device)} has {_spoken(capability)}. Set fp32 or auto."
        )
    if setting != "auto":
        return setting
    native = host().has_native_bf16 if capability is None else capability >= BF16_CAPABILITY
    return "bf16" if native else "fp32"


def _spoken(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


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
    return _worth_compiling(seconds, COMPILE_GAIN, compiler)


def _choose_compile_on_gpu(settings: LoopSettings, total_flops: float, precision: Precision) -> tuple[bool, str]:
    if settings.compile == "never":
        return False, "not compiled: the setting is never."
    missing = _missing_for_triton()
    if missing is not None:
        if settings.compile == "always":
            raise ConfigError(f"compile: always needs {missing}. Install it, or set auto.")
        return False, f"not compiled: {missing} was not found; installing it makes long runs faster."
    if settings.compile == "always":
        return True, "compiled with Triton: the setting is always."
    seconds = total_flops / (FLOPS_OF_A_GPU_FP32 if precision == "fp32" else FLOPS_OF_A_GPU_BF16)
    return _worth_compiling(seconds, COMPILE_GAIN_OF_A_GPU, "Triton")


def _worth_compiling(seconds: float, share: float, compiler: str) -> tuple[bool, str]:
    gain = share * seconds
    if gain > COMPILE_SECONDS:
        return True, f"compiled with {compiler}: a run of about {seconds:,.0f} s wins back the compiler's time."
    return False, (
        f"not compiled: of a run of about {seconds:,.0f} s compiling would save {gain:,.0f} s "
        f"and cost about {COMPILE_SECONDS:.0f} s."
    )


def _missing_for_triton() -> str | None:
    """What torch's compiler for GPUs lacks here. Triton builds a launcher in C on its first use."""
    if importlib.util.find_spec("triton") is None:
        return "Triton (pip install triton)"
    if not any(map(shutil.which, (os.environ.get("CC") or "gcc", "gcc", "clang"))):
        return "a C compiler (gcc or clang), with which Triton builds its launcher,"
    return None


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """What a run of this precision computes its losses under: products in bfloat16, or for fp32 nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision != "fp32")


@contextlib.contextmanager
def prepared(backend: Backend, model: Decoder) -> Iterator[None]:
    """Set torch up for training, compile the layers if so decided, and restore everything at the end."""
    keep_freed_memory()
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        bool(torch.utils.deterministic.fill_uninitialized_memory),  # type: ignore[attr-defined]
    )
    torch.set_num_threads(backend.num_threads)
    _use_deterministic_algorithms(backend.deterministic, backend.compiled)
    # Overwriting every new tensor with NaN finds bugs, not differences; it costs a pass over memory for each.
    _fill_new_tensors(False)
    torch.set_flush_denormal(True)  # a denormal costs a hundred times as much as another number
    if backend.compiled:
        torch._dynamo.config.recompile_limit = max(64, len(model.layers))  # layers may differ in width
        for layer in model.layers:
            # Layer by layer: all layers of one shape share one compilation, so that depth costs no compile time.
            layer.compile(dynamic=False)
    try:
        with fp32_products(device_of(model), rough=False):
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
