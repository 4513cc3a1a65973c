"""The tensors of a checkpoint: all that a run goes on from but its counters, written and read.

model.NAME      weights
optimizer.NAME  what the next update depends on
guard.NAME      the spike guard's window, where there is one
log.NAME        sums of the streams' losses since the last line of the log, where streams have names
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diglot.core.errors import InputError
from diglot.model.decoder import Decoder
from diglot.train.checkpoint_files import read_state
from diglot.train.checkpoints import Checkpoint
from diglot.train.optimizers import Optimizer
from diglot.train.parallel.parts import settle
from diglot.train.parallel.ranks import Ranks
from diglot.train.spike_guard import SpikeGuard
from diglot.train.stream_losses import StreamLosses


def tensors_to_save(
    model: Decoder, optimizer: Optimizer, guard: SpikeGuard | None, streams: StreamLosses
) -> dict[str, Tensor]:
    """This rank's parts, by the names above. Weights and the optimizer's state are not copied."""
    settle(model)
    tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()}
    if guard is not None:
        tensors |= {f"guard.{key}": tensor for key, tensor in _as_tensors(guard.state()).items()}
    return tensors | {f"log.{key}": tensor for key, tensor in streams.state().items()}


def load_tensors(
    checkpoint: Checkpoint,
    model: Decoder,
    optimizer: Optimizer | None,
    guard: SpikeGuard | None,
    streams: StreamLosses,
    ranks: Ranks,
) -> None:
    """Fill this rank's parts, in place. All ranks call it together.

    optimizer: None where the run goes on with a fresh one, or is at its end.
    A checkpoint that was written without guard or streams leaves them as they are.
    Raises: InputError for a checkpoint of another model or optimizer.
    """
    settle(model)
    own = dict(model.named_parameters())
    weights = read_state(checkpoint, "model.", own, ranks)
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise InputError(
            f"checkpoint {checkpoint.place} holds a model of another shape. Move it away to start a new run."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    streams.load_state(read_state(checkpoint, "log.", streams.state(), ranks))
    if optimizer is not None:
        optimizer.load_state(read_state(checkpoint, "optimizer.", optimizer.state(), ranks))
    if guard is not None:
        guarded = read_state(checkpoint, "guard.", _as_tensors(guard.state()), ranks)
        if "counts" in guarded:
            guard.load_state({key: tensor.tolist() for key, tensor in guarded.items()})


def _as_tensors(lists: Mapping[str, list[float]]) -> dict[str, Tensor]:
    return {key: torch.tensor(values, dtype=torch.float64) for key, values in lists.items()}
