"""The next training step's batches are made while this one trains.

What a training step reads is a pure function of its number, so making it early, in another thread, changes nothing.
One step ahead is enough where making a batch takes less time than training on it; `wait_share` says whether it does.
The same thread sends it to the GPU.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import torch

from diglot.core.errors import InputError
from diglot.train.types import Batch

Made = TypeVar("Made")


class Prefetch(Generic[Made]):
    """`get(n)` is `make(n)`, for n = first, first + 1, ... up to `stop`; a context manager, which ends the thread.

    device: a GPU that the thread works with; None for none.
    """

    def __init__(self, make: Callable[[int], Made], first: int, stop: int, device: torch.device | None = None) -> None:
        self._make, self._stop = make, stop
        self._pool = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="prefetch",
            # A new thread stands on GPU 0, and pinned memory belongs to the GPU that its thread stands on.
            initializer=None if device is None else functools.partial(torch.cuda.set_device, device),
        )
        self._next: Future[Made] | None = None
        self._number = first
        self._waited = 0.0
        self._since: float | None = None  # when the first batches were there: those nobody could make earlier
        if first < stop:
            self._next = self._pool.submit(make, first)

    def get(self, train_step: int) -> Made:
        """What was made for a training step; errors of making it are raised here."""
        assert train_step == self._number, "training steps are asked for in their order"
        assert self._next is not None, "there is no training step behind the last"
        asked = time.perf_counter()
        made = self._next.result()
        now = time.perf_counter()
        if self._since is None:
            self._since = now
        else:
            self._waited += now - asked
        self._number += 1
        self._next = self._pool.submit(self._make, self._number) if self._number < self._stop else None
        return made

    @property
    def wait_share(self) -> float:
        """Share of the time since the first batches that was spent waiting for others."""
        passed = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._waited / passed if passed > 0 else 0.0

    def __enter__(self) -> Prefetch[Made]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def checked(batches: list[Batch], train_step: int, vocab_size: int) -> list[Batch]:
    """The batches, if the model can read them. Raises InputError naming the training step otherwise."""
    for number, batch in enumerate(batches):
        for key, tensor in batch.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"'{key}' of microbatch {number} of training step {train_step} holds a number that is not finite. "
                    "Look at what it read with `diglot batch`."
                )
        ids = batch.get("input_ids")
        if ids is not None and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
            raise InputError(
                f"microbatch {number} of training step {train_step} holds token ids {int(ids.min())} to "
                f"{int(ids.max())}, but the model's vocabulary has ids 0..{vocab_size - 1}. Look at what it read with "
                "`diglot batch`."
            )
    return batches
