"""The ranks of a run: how they meet, share a training step's sequences, add up, and wait for each other.

Shape legend: B sequences.

`ALONE` is the only rank of an ordinary run; with it nothing here touches torch.distributed. Whatever the number of
ranks, a training step reads the same sequences: each rank takes its share of the rows, losses and counts are summed
over ranks, and the gradients, sums too, are divided once by the count of all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from diglot.core.errors import DiglotError
from diglot.core.hardware import host
from diglot.core.launch import Launch
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.grid import Grid
from diglot.train.types import IGNORE, SPARE, Batch

Result = TypeVar("Result")

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # rank 0 may be reading and hashing a large checkpoint meanwhile
SECONDS_BETWEEN_LOOKS = 0.2
FAILED = "failed"


@dataclass(frozen=True)
class Ranks:
    """This process among the others.

    files: a group of its own for checkpoints, which are written while training goes on; two threads must not talk over
        one group.
    store: keys and values that all see.
    grid: how they share the work of a step; None for one rank alone, and before `arranged`.
    """

    launch: Launch | None = None
    device: str = "cpu"
    files: Any = None
    store: Any = None
    grid: Grid | None = None

    def arranged(self, config: ParallelConfig) -> Ranks:
        """These ranks in the grid of a step. One rank alone needs none, whatever the config says."""
        if self.launch is None:
            return self
        return replace(self, grid=Grid(config.grid(self.count), self.launch.rank, self.device, config.expert))

    def on(self, device: torch.device) -> Ranks:
        """These ranks, training on `device`: those that met on GPUs may train on their CPUs as well."""
        return replace(self, device=device.type)

    @property
    def count(self) -> int:
        return 1 if self.launch is None else self.launch.world_size

    @property
    def num_readers(self) -> int:
        """Into how many shares the sequences of a training step are cut."""
        return 1 if self.grid is None else self.grid.num_readers

    @property
    def reader(self) -> int:
        """The number of the share that this rank reads."""
        return 0 if self.grid is None else self.grid.reader

    @property
    def is_main(self) -> bool:
        return self.launch is None or self.launch.is_main

    @property
    def num_threads(self) -> int | None:
        """This rank's share of the machine's cores; None for the usual number."""
        return None if self.launch is None else max(1, host().num_cores // self.launch.local_world_size)

    def rows(self, batches: Sequence[Batch]) -> list[Batch]:
        """This rank's share of each microbatch, in order. Shares differ by one row at most.

        Ranks that share sequences have the same rows, and other columns of `input_ids` and `targets`. What says who
        sees whom stays whole: a token's rank must know it of the tokens that are looked at.

        All ranks run equally many forward passes, as each of them gathers weights from all. A rank without a row reads
        the first one with all targets masked, under the key SPARE.
        """
        return list(batches) if self.grid is None else [self._rows(batch, self.grid) for batch in batches]

    def _rows(self, batch: Batch, grid: Grid) -> Batch:
        B = len(batch["input_ids"])
        start, stop = (B * reader // grid.num_readers for reader in (grid.reader, grid.reader + 1))
        rows = slice(start, stop) if start < stop else slice(1)
        share = {key: tensor[rows] if tensor.ndim else tensor for key, tensor in batch.items()}
        if start == stop:
            share |= {"targets": torch.full_like(share["targets"], IGNORE), SPARE: torch.tensor(True)}
        if grid.spread is not None:
            slots = grid.spread.held(share["targets"].shape[1])
            share |= {key: share[key][:, slots] for key in ("input_ids", "targets")}
        return share

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks, in float64; the same bits on every rank."""
        if self.launch is None:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def largest(self, value: int) -> int:
        """The largest value of all ranks."""
        if self.launch is None:
            return value
        found = torch.tensor(value, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return int(found)

    def of_each(self, value: Result) -> list[Result]:
        """The value that each rank gave, on every rank and in the order of ranks.

        Over the group for checkpoints, so that it may be asked for beside training steps.
        """
        if self.launch is None:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.files)
        return values

    def from_main(self, work: Callable[[], Result]) -> Result:
        """What `work` returns on rank 0, on every rank; what it raises there is raised everywhere."""
        if self.launch is None:
            return work()
        answer: list[Any] = [None, None]
        if self.launch.is_main:
            try:
                answer = [work(), None]
            except Exception as error:
                answer = [None, error]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        if answer[1] is not None:
            raise answer[1]
        return answer[0]  # type: ignore[no-any-return]

    def announce(self, key: str, value: str) -> None:
        """Say something to those who `wait_for` the key. Unlike a collective, nobody needs to be there yet."""
        if self.store is not None:
            self.store.set(key, value)

    def wait_for(self, keys: Sequence[str], what: str, timeout_hours: float) -> str:
        """The first of `keys` that rank 0 announces. Raises DiglotError when it failed, is gone, or takes too long.

        what: what rank 0 is doing, for the error.
        """
        limit = time.monotonic() + 3600 * timeout_hours
        while time.monotonic() < limit:
            try:
                for key in keys:
                    if self.store.check([key]):
                        return key
                if self.store.check([FAILED]):
                    raise DiglotError(f"rank 0 failed while {what}: {self.store.get(FAILED).decode()}")
            except RuntimeError as error:  # dist.DistError and its kinds are RuntimeErrors
                raise DiglotError(
                    f"rank 0 is gone while {what}; look at its messages. The same command goes on from there."
                ) from error
            time.sleep(SECONDS_BETWEEN_LOOKS)
        raise DiglotError(
            f"waited {timeout_hours:g} hours for rank 0, which is {what}. Build the steps before training without "
            "other ranks first (diglot run ... --until), then start all ranks."
        )


ALONE = Ranks()


@contextlib.contextmanager
def joined(launch: Launch, device: Literal["cpu", "cuda"] = "cpu") -> Iterator[Ranks]:
    """Meet the other ranks, and part from them at the end.

    device: where the ranks train, one each: gloo on CPUs, NCCL (and gloo for files) on NVIDIA GPUs.
    """
    if device == "cuda":
        if launch.local_rank >= torch.cuda.device_count():
            raise DiglotError(
                f"rank {launch.rank} is number {launch.local_rank} of its machine, which has "
                f"{torch.cuda.device_count()} GPUs. Start one process a GPU (torchrun --nproc-per-node gpu), or hide "
                "them (CUDA_VISIBLE_DEVICES=) to train on CPUs."
            )
        torch.cuda.set_device(launch.local_rank)
    os.environ.setdefault("MASTER_ADDR", launch.address)
    os.environ.setdefault("MASTER_PORT", str(launch.port))
    try:
        store, _, _ = next(
            rendezvous("env://", rank=launch.rank, world_size=launch.world_size, timeout=COLLECTIVE_TIMEOUT)
        )
        store = PrefixStore(_name_of_attempt(store, launch), store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise DiglotError(
            f"rank {launch.rank} of {launch.world_size} could not meet the others at {launch.address}:{launch.port} "
            f"({error}). Check that all were started and that MASTER_ADDR and MASTER_PORT are reachable and free."
        ) from error
    ranks = Ranks(launch, device, dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT), store)
    try:
        yield ranks
    except BaseException as error:
        if ranks.is_main:
            with contextlib.suppress(RuntimeError):
                ranks.announce(FAILED, str(error) or type(error).__name__)
                time.sleep(5 * SECONDS_BETWEEN_LOOKS)  # the announcement may go with this process
        elif isinstance(error, RuntimeError):  # a broken connection, most often: say what broke it
            with contextlib.suppress(RuntimeError):
                if store.check([FAILED]):
                    raise DiglotError(f"rank 0 failed: {store.get(FAILED).decode()}") from error
        raise
    else:
        dist.barrier()  # rank 0 may host the meeting point: it leaves last
    finally:
        dist.destroy_process_group()


def _name_of_attempt(store: Any, launch: Launch) -> str:
    """A name on which the processes of this attempt agree, to put before all keys.

    torchrun's store outlives the processes that it starts again (torch 2.15), and with it the addresses and
    announcements of the dead. Its count of restarts may differ between machines, so rank 0 draws a name and tells it to
    each rank under a number that only this attempt's rank can know.
    """
    if not launch.is_main:
        mine = secrets.token_hex(8)
        store.set(f"rank {launch.rank} is", mine)
        name: str = store.get(f"attempt of {mine}").decode()  # waits for it
        store.set(f"{name} joined by {launch.rank}", "")
        return name
    name, missing = secrets.token_hex(8), set(range(1, launch.world_size))
    limit = time.monotonic() + COLLECTIVE_TIMEOUT.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"{name} joined by {rank}"]):
                missing.discard(rank)
            elif store.check([f"rank {rank} is"]):
                store.set(f"attempt of {store.get(f'rank {rank} is').decode()}", name)
        if time.monotonic() > limit:
            raise RuntimeError(f"ranks {sorted(missing)} did not come")
        time.sleep(0.02)
    return name
