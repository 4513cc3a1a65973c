"""The next training step's batches are made while this one trains.

What a training step reads is a pure function of its number, so making it early, in another thread, changes nothing.
One step ahead is enough where making a batch takes less time than training on it; `wait_share` says whether it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from diglot.core.errors import InputError
from diglot.train.types import Batch


class Prefetch:
    """`get(n)` for n = first, first + 1, ... up to `stop`; used as a context manager, which ends the thread."""

    def __init__(self, batches_at: Callable[[int], list[Batch]], first: int, stop: int) -> None:
        self._batches_at, self._stop = batches_at, stop
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._next: Future[list[Batch]] | None = None
        self._number = first
        self._waited = 0.0
        self._since: float | None = None  # when the first batches were there: those nobody could make earlier
        if first < stop:
            self._next = self._pool.submit(batches_at, first)

    def get(self, train_step: int) -> list[Batch]:
        """The microbatches of a training step; errors of making them are raised here."""
        assert train_step == self._number, "training steps are asked for in their order"
        assert self._next is not None, "there is no training step behind the last"
        asked = time.perf_counter()
        batches = self._next.result()
        now = time.perf_counter()
        if self._since is None:
            self._since = now
        else:
            self._waited += now - asked
        self._number += 1
        self._next = self._pool.submit(self._batches_at, self._number) if self._number < self._stop else None
        return batches

    @property
    def wait_share(self) -> float:
        """Share of the time since the first batches that was spent waiting for others."""
        passed = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._waited / passed if passed > 0 else 0.0

    def __enter__(self) -> Prefetch:
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
