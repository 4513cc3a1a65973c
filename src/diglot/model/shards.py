"""Named tensors in safetensors files, one or several with an index: written and read a shard at a time.

    model.safetensors                                        where all fit into one file
    model-00001-of-00003.safetensors ...  + model.safetensors.index.json

Bytes are a pure function of the tensors: names are in order, with no date and no library version. Files that hold
Python's pickle can run any code when they are read, and are refused unless the user allows them.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import atomic_path, read_json, write_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_SHARD_BYTES = 5_000_000_000


class Named(Protocol):
    """A tensor that is made when it is written."""

    @property
    def view(self) -> Tensor: ...

    def value(self) -> Tensor: ...


def write_shards(
    folder: Path, parts: Mapping[str, Named], dtype: torch.dtype, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write tensors as `dtype`, no more than one shard of them in memory beside the model.

    Raises: ConfigError for numbers that `dtype` cannot hold.
    """
    shards = split_names(
        {name: part.view.numel() * dtype.itemsize for name, part in sorted(parts.items())}, max_shard_bytes
    )
    names = [WEIGHTS] if len(shards) == 1 else [shard_name(i, len(shards)) for i in range(len(shards))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # a killed writer must not leave an index to other shards
    for name, members in zip(names, shards, strict=True):
        tensors = {member: cast(member, parts[member].value(), dtype) for member in members}
        with atomic_path(folder / name) as partial:
            save_file(tensors, partial, metadata={"format": "pt"})
        del tensors
    if len(shards) > 1:
        total = sum(part.view.numel() for part in parts.values()) * dtype.itemsize
        places = {member: name for name, members in zip(names, shards, strict=True) for member in members}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    for stale in folder.glob("model*.safetensors"):
        if stale.name not in names:
            stale.unlink()


def split_names(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Names in their order, in runs of at most `max_bytes`; one that is larger stands alone."""
    if max_bytes < 1:
        raise ConfigError(f"max_shard_bytes = {max_bytes}, but a shard has at least 1 byte.")
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def shard_name(index: int, count: int) -> str:
    return f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy as `dtype`. Raises ConfigError where a finite number becomes infinite."""
    result = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
    if dtype == torch.float16 and not bool(result.isfinite().all()) and bool(tensor.isfinite().all()):
        largest = float(tensor.abs().max())
        raise ConfigError(f"{name} holds {largest:g}, and float16 ends at 65504. Write bfloat16 or float32.")
    return result


def read_shards(folder: Path, *, allow_pickle: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a model folder, one at a time, as it is stored.

    Raises: InputError for a missing, damaged or refused file.
    """
    index = folder / INDEX
    if index.exists() or (folder / WEIGHTS).exists():
        places = _places(index) if index.exists() else None
        for name in sorted(set(places.values())) if places else [WEIGHTS]:
            yield from _read_safetensors(folder / name, places)
        return
    pickled = sorted({path for pattern in PICKLED for path in folder.glob(pattern)})
    if not pickled:
        raise InputError(f"{folder / WEIGHTS} is missing, so {folder} is no complete model folder. Check the path.")
    if not allow_pickle:
        raise InputError(
            f"{folder} holds its weights as pickle ({pickled[0].name}), which can run any code when it is read. "
            "Take a folder with safetensors files. If you trust whoever made it, allow_pickle: true "
            "(--allow-pickle) reads tensors alone and refuses everything else in the file."
        )
    for path in pickled:
        yield from _read_pickle(path)


def stored_dtypes(folder: Path) -> set[torch.dtype]:
    """The number formats of a folder's weights, from the headers of its safetensors files alone."""
    found = set()
    for path in sorted(folder.glob("model*.safetensors")):
        with _explained(path), safe_open(path, framework="pt") as opened:
            found |= {_DTYPES.get(opened.get_slice(key).get_dtype(), torch.float32) for key in opened.keys()}  # noqa: SIM118
    return found


_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def _places(index: Path) -> dict[str, str]:
    try:
        places = read_json(index)["weight_map"]
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise TypeError("weight_map is no map of names to files")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} is damaged ({error}). Download it again.") from error
    outside = [name for name in places.values() if Path(name).name != name]
    if outside:
        raise InputError(f"{index} names {outside[0]}, which is not beside it. Download the folder again.")
    return places


def _read_safetensors(path: Path, places: Mapping[str, str] | None) -> Iterator[tuple[str, Tensor]]:
    if not path.exists():
        raise InputError(f"{path} is missing, so {path.parent} is no complete model folder. Download it again.")
    with _explained(path), safe_open(path, framework="pt") as opened:
        held = opened.keys()
        if places is not None and (lost := [n for n, file in places.items() if file == path.name and n not in held]):
            raise InputError(f"{path} does not hold {lost[0]}, which {INDEX} says is there. Download both files again.")
        for name in held:
            yield name, opened.get_tensor(name)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}). Write or download it again.") from error


def _read_pickle(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} holds more than tensors, or is damaged ({first}). It was not read.") from error
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{path} is no map of names to tensors, so it holds no weights of a model.")
    yield from found.items()


def widest(dtypes: Sequence[torch.dtype] | set[torch.dtype]) -> torch.dtype:
    """The format that holds all of them without loss."""
    if len(set(dtypes)) == 1:
        return next(iter(dtypes))
    return torch.float32
