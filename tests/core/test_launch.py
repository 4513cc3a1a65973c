"""Which process this is, in the words of each launcher."""

from __future__ import annotations

import pytest

from diglot.core.errors import ConfigError
from diglot.core.launch import Launch, first_host, launch_from

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
INTEL = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
PLACE = {"MASTER_ADDR": "node1", "MASTER_PORT": "4000"}


@pytest.mark.parametrize("launcher", [TORCHRUN, SLURM, MPI, INTEL], ids=["torchrun", "Slurm", "Open MPI", "Intel MPI"])
def test_every_launcher_is_understood(launcher: dict[str, str]) -> None:
    expected = Launch(rank=5, world_size=8, local_rank=1, local_world_size=4, address="node1", port=4000)
    assert launch_from({**launcher, **PLACE}) == expected


def test_a_slurm_step_meets_on_its_first_machine_at_a_port_of_its_own() -> None:
    found = launch_from(SLURM)
    assert found is not None
    assert (found.address, found.port) == ("gpu007", 23456)


@pytest.mark.parametrize("launcher", [TORCHRUN, MPI, INTEL])
def test_processes_of_one_machine_meet_on_it(launcher: dict[str, str]) -> None:
    on_one = {name: "8" if value == "4" else value for name, value in launcher.items()}
    found = launch_from(on_one)
    assert found is not None
    assert found.address == "127.0.0.1"


@pytest.mark.parametrize("launcher", [TORCHRUN, MPI, INTEL])
def test_several_machines_need_a_meeting_point(launcher: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"MASTER_ADDR is missing.*Set MASTER_ADDR"):
        launch_from(launcher)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"},  # a batch script, before any srun
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_a_process_by_itself_is_no_launch(environment: dict[str, str]) -> None:
    assert launch_from(environment) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "RANK is set without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set without RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "ranks count from 0 to 1"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK = 'first' in the environment is no number"),
    ],
)
def test_half_an_environment_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch_from(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("n[03-05,9],m", "n03"), ("r[1,4]-ib,x", "r1-ib"), ("c-1-2,c-1-3", "c-1-2")],
)
def test_the_first_machine_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
