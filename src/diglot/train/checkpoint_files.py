"""Writing and reading a checkpoint's tensors, by one rank or by many.

One rank writes one file. Many write a file each through PyTorch's distributed checkpoints (DCP). Training goes on
meanwhile: it waits only for a copy of the state. Both kinds are safetensors, and DCP reads both, so a run goes on
under another number of ranks, each of which reads its part of whichever files hold it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from diglot.core.errors import DiglotError
from diglot.core.remote import RemoteFolder
from diglot.train.checkpoints import (
    STATE,
    Checkpoint,
    Counters,
    Retention,
    begin,
    prune,
    save_state,
    seal,
    write_checkpoint,
    write_errors_explained,
)
from diglot.train.parallel.ranks import Ranks
from diglot.train.remote_checkpoints import Folder, begin_remote, seal_remote, send, staging


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time. All ranks call its methods at the same points.

    seconds_blocked: how long training waited for checkpoints so far.
    longest_seconds: from the start of a checkpoint to its end, of the longest so far.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.seconds_blocked = self.longest_seconds = 0.0
        self._written: Future[Checkpoint | None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def write(
        self,
        folder: Folder,
        name: str,
        tensors: Mapping[str, Tensor],
        *,
        keep_rolling: int | None,
        counters: Counters,
        retention: Retention,
        order_fingerprint: str,
        facts: Mapping[str, Any],
    ) -> None:
        """Write `folder/name`, and then delete what `keep_rolling` does not keep. `tensors` may change at once."""
        assert self._written is None, "a checkpoint is being written; ask for it with finished()"
        started = time.perf_counter()
        notes: dict[str, Any] = {
            "counters": counters,
            "retention": retention,
            "order_fingerprint": order_fingerprint,
            "facts": facts,
        }
        if self.ranks.count == 1:
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

            def write() -> Checkpoint | None:
                if isinstance(folder, RemoteFolder):
                    return self._write_there(folder, name, copies, keep_rolling, notes)
                checkpoint = write_checkpoint(folder, name, copies, **notes)
                prune(folder, keep_rolling)
                return checkpoint

            self._written = self._thread.submit(write)
        else:
            parts = self._send_parts if isinstance(folder, RemoteFolder) else self._write_parts
            self._written = parts(folder, name, tensors, keep_rolling, notes)  # type: ignore[arg-type]
        self._written.add_done_callback(lambda _: self._took(time.perf_counter() - started))
        self.seconds_blocked += time.perf_counter() - started

    def finished(self) -> Checkpoint | None:
        """Wait for the checkpoint being written, and return it; None where there is none."""
        if self._written is None:
            return None
        started = time.perf_counter()
        written, self._written = self._written, None
        failed_here = written.exception()  # every rank waits for its own part first
        checkpoint = self.ranks.from_main(written.result)
        if failed_here is not None:
            raise failed_here
        self.seconds_blocked += time.perf_counter() - started
        return checkpoint

    def _took(self, seconds: float) -> None:
        self.longest_seconds = max(self.longest_seconds, seconds)

    def _write_there(
        self,
        folder: RemoteFolder,
        name: str,
        tensors: Mapping[str, Tensor],
        keep_rolling: int | None,
        notes: dict[str, Any],
    ) -> Checkpoint:
        """The checkpoint of one process, in a remote folder."""
        free = begin_remote(folder, name, notes["counters"])
        with staging(folder, self.ranks) as files:
            with write_errors_explained(files):
                save_state(tensors, files / STATE)
            return seal_remote(folder, free, send(folder, free, files), keep_rolling, notes)

    def _write_parts(
        self, folder: Path, name: str, tensors: Mapping[str, Tensor], keep_rolling: int | None, notes: dict[str, Any]
    ) -> Future[Checkpoint | None]:
        """Every rank writes its part; when all have, rank 0 adds the manifest and gives the folder its name."""
        final, partial = self.ranks.from_main(lambda: begin(folder, name, notes["counters"]))
        parts = _saved(tensors, partial, self.ranks)

        def finish() -> Checkpoint | None:
            _wait_for(parts, final)
            if not self.ranks.is_main:
                return None
            checkpoint = seal(partial, final, **notes)
            prune(folder, keep_rolling)
            return checkpoint

        return self._thread.submit(finish)

    def _send_parts(
        self,
        folder: RemoteFolder,
        name: str,
        tensors: Mapping[str, Tensor],
        keep_rolling: int | None,
        notes: dict[str, Any],
    ) -> Future[Checkpoint | None]:
        """Every rank writes its part and sends it; when all have, rank 0 sends the manifest."""
        free = self.ranks.from_main(lambda: begin_remote(folder, name, notes["counters"]))
        with contextlib.ExitStack() as opened:
            files = opened.enter_context(staging(folder, self.ranks))
            parts = _saved(tensors, files, self.ranks)
            until_sent = opened.pop_all()

        def finish() -> Checkpoint | None:
            with until_sent:
                _wait_for(parts, files)
                facts = self._sent(folder, free, files)
                return seal_remote(folder, free, facts, keep_rolling, notes) if self.ranks.is_main else None

        return self._thread.submit(finish)

    def _sent(self, folder: RemoteFolder, name: str, files: Path) -> dict[str, Any]:
        """What every rank sent. Raises on every rank the error of the first that could not."""
        facts: dict[str, Any] = {}
        error: DiglotError | None = None
        try:
            facts = send(folder, name, files)
        except DiglotError as met:
            error = met
        answers = self.ranks.of_each((facts, error))
        for _, other in answers:
            if other is not None:
                raise other
        return {file: fact for found, _ in answers for file, fact in found.items()}

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._written is not None:
            with contextlib.suppress(Exception):  # another error is on its way already
                self._written.result()
        self._thread.shutdown()


def _saved(tensors: Mapping[str, Tensor], folder: Path, ranks: Ranks) -> Future[Any]:
    """Each rank's part, being written into its file."""
    # Takes a second to import, which a run of one process need not wait for.
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import async_save

    parts = async_save(
        dict(tensors),
        storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        process_group=ranks.files,
    )
    assert isinstance(parts, Future)
    return parts


def _wait_for(parts: Future[Any], place: object) -> None:
    """Until all ranks have written theirs. What one of them raised is raised on all."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with write_errors_explained(place):
            parts.result()
    except CheckpointException as error:  # no Exception, so that most would not catch it
        raise DiglotError(f"writing the checkpoint {place} failed: {error}") from error


def read_state(checkpoint: Checkpoint, prefix: str, like: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """All tensors of a checkpoint under `prefix`, by the rest of their names.

    Those that `like` has in the same shape are divided as there; it may have the parts of a fused tensor, or a fused
    tensor of which the checkpoint has the parts. Those that another stage of a pipeline has so are left out. The others
    come without contents (on torch's meta device): they are for the error that names them.
    """
    if ranks.count == 1 and (checkpoint.path / STATE).exists():
        with safe_open(checkpoint.path / STATE, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    from torch.distributed.checkpoint.state_dict_loader import load

    from diglot.train.parallel.checkpoint_parts import PartsReader

    shapes = {f"{prefix}{name}": tensor.shape for name, tensor in like.items()}
    sizes = {
        name.removeprefix(prefix): entry.size  # type: ignore[union-attr]
        for name, entry in PartsReader(str(checkpoint.path), shapes).read_metadata().state_dict_metadata.items()
        if name.startswith(prefix)
    }
    fitting = [name for name, size in sizes.items() if name in like and like[name].shape == size]
    found = {f"{prefix}{name}": torch.empty_like(like[name], requires_grad=False) for name in fitting}
    load(
        found,
        storage_reader=PartsReader(str(checkpoint.path), shapes),
        process_group=ranks.files,
        no_dist=ranks.count == 1,
    )
    anywhere = {name: shape for shapes in ranks.of_each(_shapes(like)) for name, shape in shapes.items()}
    odd = [name for name in {**anywhere, **sizes} if anywhere.get(name) != sizes.get(name)]
    meta = {name: torch.empty(sizes.get(name, ()), device="meta") for name in odd if name in sizes or name not in like}
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()} | meta


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
