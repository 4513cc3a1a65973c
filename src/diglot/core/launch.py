"""Which of several processes this one is, from the environment of whatever started them; read without torch.

    torchrun, and whoever sets the same names    RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE
    Slurm's srun                                 SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID
    Open MPI's mpirun                            OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
    MPICH and Intel MPI                          PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS

All processes meet at MASTER_ADDR:MASTER_PORT. Without these names, processes of one machine meet on it, and those of a
Slurm step on its first machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from diglot.core.errors import ConfigError

DEFAULT_PORT = 29500
FIRST_SLURM_PORT, NUM_SLURM_PORTS = 20_000, 10_000  # by job number, so that two jobs of one machine do not meet


@dataclass(frozen=True, kw_only=True)
class Launch:
    """This process among `world_size`: number `rank` of all, `local_rank` of the `local_world_size` of its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@dataclass(frozen=True)
class _Names:
    """The environment variables of one launcher. local_size: None where it does not say."""

    launcher: str
    rank: str
    size: str
    local_rank: str
    local_size: str | None


LAUNCHERS = (
    _Names("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    # Not SLURM_NTASKS: a batch script has it too, and is no rank of anything.
    _Names("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", None),
    _Names(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _Names("MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)


def launch_from(environment: Mapping[str, str]) -> Launch | None:
    """This process's place, or None where it is the only one. Raises ConfigError for half an environment."""
    for names in LAUNCHERS:
        if names.rank not in environment and names.launcher == "torchrun" and names.size in environment:
            raise ConfigError(f"{names.size} is set without {names.rank}. Start with torchrun, or set both or neither.")
        if names.rank not in environment:
            continue
        if names.size not in environment:
            if names.launcher == "Slurm":  # a batch script, outside any srun
                continue
            raise ConfigError(f"{names.rank} is set without {names.size}. Start with torchrun, or set both or neither.")
        size = _number(environment, names.size)
        return None if size == 1 else _launch(environment, names, size)
    return None


def _launch(environment: Mapping[str, str], names: _Names, size: int) -> Launch:
    rank = _number(environment, names.rank)
    if rank >= size:
        raise ConfigError(f"{names.rank} = {rank}, but {names.size} = {size}: ranks count from 0 to {size - 1}.")
    one_machine = environment.get("SLURM_STEP_NUM_NODES") == "1" if names.launcher == "Slurm" else False
    if names.local_size is not None and names.local_size in environment:
        local_size = _number(environment, names.local_size)
    elif names.launcher == "Slurm" and "SLURM_STEP_TASKS_PER_NODE" in environment:
        local_size = _slurm_local_size(environment)
    else:
        local_size = size if one_machine else 1
    local_rank = _number(environment, names.local_rank) if names.local_rank in environment else rank % local_size
    address, port = _meeting_point(environment, names, on_one_machine=one_machine or local_size == size)
    return Launch(
        rank=rank, world_size=size, local_rank=local_rank, local_world_size=local_size, address=address, port=port
    )


def _meeting_point(environment: Mapping[str, str], names: _Names, *, on_one_machine: bool) -> tuple[str, int]:
    port = DEFAULT_PORT
    if names.launcher == "Slurm" and environment.get("SLURM_JOB_ID", "").isdigit():
        port = FIRST_SLURM_PORT + int(environment["SLURM_JOB_ID"]) % NUM_SLURM_PORTS
    if "MASTER_PORT" in environment:
        port = _number(environment, "MASTER_PORT")
    if "MASTER_ADDR" in environment:
        return environment["MASTER_ADDR"], port
    if on_one_machine:
        return "127.0.0.1", port
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if names.launcher == "Slurm" and nodes:
        return first_host(nodes), port
    raise ConfigError(
        f"{names.rank} and {names.size} are set for several machines, but MASTER_ADDR is missing, so the processes "
        "cannot find each other. Set MASTER_ADDR (and MASTER_PORT) to the machine of rank 0 on every machine, or start "
        "with torchrun."
    )


def first_host(nodes: str) -> str:
    """The first machine of Slurm's short form.

    >>> first_host("gpu[003-007,9],login1")
    'gpu003'
    """
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes)
    assert match is not None, nodes
    return "".join(part or "" for part in match.groups())


def _slurm_local_size(environment: Mapping[str, str]) -> int:
    """Tasks on this machine, from a form like `2(x3),1`: two on each of the first three machines, one on the next."""
    counts: list[int] = []
    for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    node = int(environment.get("SLURM_NODEID", 0))
    return counts[node] if node < len(counts) else 1


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment[name]
    if not value.isdigit():
        raise ConfigError(f"{name} = '{value}' in the environment is no number from 0 up.")
    return int(value)
