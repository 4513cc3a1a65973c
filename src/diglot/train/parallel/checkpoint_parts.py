"""A checkpoint read under the names of a model whose fused matrices are, or are not, several parameters.

Tensor parallel cuts each matrix of `qkv` and `gate_up` by itself, so its checkpoints hold `qkv.q.weight` and so on
where those of other runs hold `qkv.weight`; AdamW's moments and Muon's momentum likewise. Here the list of what a
checkpoint holds is rewritten to what is asked for, and each piece is read from where it lies: nothing is gathered, and
every rank reads its part alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Size
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from diglot.train.parallel.fused_names import fused_name, part_names


class _Source(NamedTuple):
    """Where a piece lies: a stored piece of the checkpoint, and how many of its first rows to leave out."""

    stored: MetadataIndex
    skipped: int


class PartsReader(HuggingFaceStorageReader):
    """Reads what `shapes` asks for by name, whether the checkpoint has it as one fused tensor or as its parts."""

    def __init__(self, path: str, shapes: Mapping[str, Size]) -> None:
        super().__init__(path)
        self.shapes = shapes
        self.sources: dict[MetadataIndex, _Source] = {}

    def read_metadata(self) -> Metadata:
        metadata = super().read_metadata()
        stored, renamed = metadata.state_dict_metadata, set[str]()
        for name in self.shapes.keys() - stored.keys():
            parts, fused = part_names(name), fused_name(name)
            if parts and all(part in stored for part in parts):
                self._join(metadata, name, parts)
                renamed |= set(parts)
            elif fused is not None and fused in stored and self._cut(metadata, name, fused):
                renamed.add(fused)
        for name in renamed:
            del stored[name]
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        return super().read_data(dataclasses.replace(plan, items=[self._located(item) for item in plan.items]), planner)

    def _located(self, item: ReadItem) -> ReadItem:
        source = self.sources.get(item.storage_index)
        if source is None:
            return item
        offsets = item.storage_offsets
        if len(offsets):
            offsets = Size([offsets[0] + source.skipped, *offsets[1:]])
        return dataclasses.replace(item, storage_index=source.stored, storage_offsets=offsets)

    def _join(self, metadata: Metadata, name: str, parts: Sequence[str]) -> None:
        """Enter the fused tensor `name`, whose rows are those of `parts`, one after the other."""
        pieces, first = list[tuple[ChunkStorageMetadata, _Source]](), 0
        for part in parts:
            entry = _entry(metadata, part)
            for chunk in entry.chunks:
                source = _Source(MetadataIndex(part, chunk.offsets), 0)
                pieces.append((ChunkStorageMetadata(_moved(chunk.offsets, first), chunk.sizes), source))
            first += entry.size[0] if len(entry.size) else 0
        entry = _entry(metadata, parts[0])
        size = Size([first, *entry.size[1:]]) if len(entry.size) else entry.size
        # A scalar, such as AdamW's number of updates, is the same for all parts.
        self._enter(metadata, name, entry, size, pieces if len(size) else pieces[:1])

    def _cut(self, metadata: Metadata, name: str, fused: str) -> bool:
        """Enter the part `name` of a stored fused tensor. False where the parts asked for are not as high as it is."""
        entry, siblings = _entry(metadata, fused), part_names(fused)
        if not len(entry.size):
            source = _Source(MetadataIndex(fused, entry.chunks[0].offsets), 0)
            self._enter(metadata, name, entry, entry.size, [(entry.chunks[0], source)])
            return True
        heights = [self.shapes[part][0] for part in siblings if part in self.shapes]
        if len(heights) < len(siblings) or sum(heights) != entry.size[0]:
            return False
        first = sum(heights[: siblings.index(name)])
        height = self.shapes[name][0]
        pieces = list(_overlaps(fused, entry.chunks, first, first + height))
        self._enter(metadata, name, entry, Size([height, *entry.size[1:]]), pieces)
        return True

    def _enter(
        self,
        metadata: Metadata,
        name: str,
        like: TensorStorageMetadata,
        size: Size,
        pieces: Sequence[tuple[ChunkStorageMetadata, _Source]],
    ) -> None:
        chunks = [chunk for chunk, _ in pieces]
        metadata.state_dict_metadata[name] = TensorStorageMetadata(like.properties, size, chunks)
        self.sources |= {MetadataIndex(name, chunk.offsets): source for chunk, source in pieces}


def _overlaps(
    fused: str, chunks: Sequence[ChunkStorageMetadata], first: int, stop: int
) -> Iterator[tuple[ChunkStorageMetadata, _Source]]:
    """What the stored pieces of `fused` hold of its rows `first` .. `stop`, counted from `first`."""
    for chunk in chunks:
        begin, end = chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0]
        start, height = max(begin, first), min(end, stop) - max(begin, first)
        if height > 0:
            offsets, sizes = Size([start - first, *chunk.offsets[1:]]), Size([height, *chunk.sizes[1:]])
            yield ChunkStorageMetadata(offsets, sizes), _Source(MetadataIndex(fused, chunk.offsets), start - begin)


def _moved(offsets: Size, rows: int) -> Size:
    return Size([offsets[0] + rows, *offsets[1:]]) if len(offsets) else offsets


def _entry(metadata: Metadata, name: str) -> TensorStorageMetadata:
    entry = metadata.state_dict_metadata[name]
    assert isinstance(entry, TensorStorageMetadata)
    return entry
