"""Where a run trains: on the CPU, or on an NVIDIA GPU of this process.

Everything starts on the CPU: weights are drawn there, so that every device begins with the same ones, and moved once.
What follows (the loop, objectives, evaluation) works where the model lies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from diglot.core.errors import ConfigError
from diglot.train.parallel.ranks import ALONE, Ranks

# Two buffers of 4 MB for each of eight streams: with them cuBLAS gives the same bits in every run (CUDA's "Results
# reproducibility"); torch refuses deterministic products without.
CUBLAS_WORKSPACE = ":4096:8"


def chosen_device(setting: Literal["auto", "cpu", "cuda"], ranks: Ranks = ALONE) -> torch.device:
    """The device of this process: `auto` takes a GPU where torch sees one. Ranks train where they met.

    Call it before anything touches the GPU: it sets CUBLAS_WORKSPACE_CONFIG where nobody has.
    Raises: ConfigError for `cuda` without a GPU.
    """
    has_gpu = torch.cuda.is_available() if ranks.launch is None else ranks.device == "cuda"
    if setting == "cuda" and not has_gpu:
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise ConfigError(
            f"device: cuda, but torch sees no GPU. torch {torch.__version__} {built}; look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or set device: auto."
        )
    if setting == "cpu" or not has_gpu:
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    return torch.device("cuda", torch.cuda.current_device())


def device_of(module: nn.Module) -> torch.device:
    """Where a model lies."""
    return next(module.parameters()).device


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name as peaks are kept under."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def fp32_products(device: torch.device, *, rough: bool) -> Iterator[None]:
    """Whether float32 products on a GPU may read 10 bits of what they multiply (TF32) in place of 23, which is
    eight times as fast by an A100's data sheet. A CPU reads all of them.

    A run trains without: `precision: fp32` means it, and under bf16 the few such products that are left (the router's)
    are there because small differences decide.
    """
    if device.type != "cuda":
        yield
        return
    # Not fp32_precision, which refuses to be read by the older name afterwards, and torch's compiler reads that
    # (torch 2.15).
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = rough
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def on_device(batch: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """A batch on the CPU, copied to `device`; to a GPU from pinned memory, without waiting for it."""
    if device.type == "cpu":
        return batch
    pins = device.type == "cuda" and torch.cuda.is_available()
    return {
        key: (tensor.pin_memory() if pins else tensor).to(device, non_blocking=True) for key, tensor in batch.items()
    }
