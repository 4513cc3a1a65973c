"""What this machine can do, read without importing torch: cores, memory, instruction sets, compiler."""

from __future__ import annotations

import functools
import os
import platform
import resource
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """Facts of one machine. Memory in bytes. They go into every manifest and into no fingerprint."""

    cpu: str
    num_cores: int
    memory_bytes: int
    cpu_features: tuple[str, ...]
    cxx_compiler: str | None
    gpu: str | None
    system: str
    python: str

    @property
    def has_native_bf16(self) -> bool:
        """True where bf16 products run in hardware (AMX, AVX512-BF16); elsewhere bf16 is emulated, slower than fp32."""
        return bool({"amx_bf16", "avx512_bf16"} & set(self.cpu_features))

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


@functools.cache
def host() -> Host:
    """The facts of this machine."""
    cpu, flags = _cpu()
    return Host(
        cpu=cpu,
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        cpu_features=tuple(f for f in FEATURES if f in flags),
        cxx_compiler=shutil.which("g++") or shutil.which("clang++"),
        gpu=_gpu(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def resident_peak_bytes() -> int:
    """The most memory that this process has held at once."""
    try:
        # Not getrusage: its peak outlives exec, and so may be that of the program which started this one.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu() -> tuple[str, set[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.machine()), set(fields.get("flags", fields.get("Features", "")).split())


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with_limit = Path("/sys/fs/cgroup/memory.max")  # a container's limit is the real one
    try:
        limit = with_limit.read_text().strip()
        return min(total, int(limit)) if limit != "max" else total
    except (OSError, ValueError):
        return total


def _gpu() -> str | None:
    try:
        names = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    except OSError:
        return None
    for path in names:
        for line in path.read_text().splitlines():
            if line.startswith("Model:"):
                return f"{len(names)} x {line.partition(':')[2].strip()}"
    return None
