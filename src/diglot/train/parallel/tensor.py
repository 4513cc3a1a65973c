"""Tensor parallel with sequence parallel: every matrix of a layer divided among ranks, and between them the tokens.

Shape legend: B sequences, T tokens that a rank's attention looks from, n ranks, D width, W width of a fused product.

The matrices into heads and into the feed-forward's width are cut by rows, those out of them by columns (Shoeybi et al.
2019, arXiv 1909.08053). Each rank then has a sum of its own of what leaves a block: these are added up, and each rank
keeps the tokens that it holds (Korthikanti et al. 2022, arXiv 2205.05198). Norms, the residual stream, embeddings and
the loss work on those tokens alone, with whole weights: `train/parallel/sharding.py` sums their gradients. The gathered
tokens are kept for the backward pass, where Megatron gathers them again; `recompute_every` does that for whole layers.

A fused matrix is several parameters then, as each of the matrices in it is cut by itself: `qkv.weight` becomes
`qkv.q.weight`, `qkv.k.weight` and `qkv.v.weight`. `train/parallel/whole_model.py` puts them together again, and
`train/parallel/checkpoint_parts.py` reads a checkpoint of either kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diglot.core.errors import ConfigError
from diglot.model.config import DecoderConfig
from diglot.model.decoder import Decoder
from diglot.model.feed_forward import FeedForward
from diglot.train.parallel.collectives import gathered, summed_part
from diglot.train.parallel.fused_names import PARTS
from diglot.train.parallel.grid import Grid

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class IntoParts(nn.Module):
    """A fused linear layer of which each rank has some rows of each matrix: [B, T / n, D] -> [B, T, W / n]."""

    def __init__(self, whole: nn.Linear, heights: Mapping[str, int], mesh: DeviceMesh) -> None:
        super().__init__()
        self.group = mesh.get_group()
        first = 0
        for name, height in heights.items():
            rows, first = slice(first, first + height), first + height
            part = nn.Linear(whole.in_features, height, bias=whole.bias is not None, device="meta")
            part.weight = _divided(whole.weight.detach()[rows], mesh, 0)
            if whole.bias is not None:
                part.bias = _divided(whole.bias.detach()[rows], mesh, 0)
            self.add_module(name, part)

    def forward(self, x_BTD: Tensor) -> Tensor:
        weights, biases = [list[Tensor](), list[Tensor]()]
        for part in self.children():
            assert isinstance(part, nn.Linear)
            weights.append(_mine(part.weight))
            biases += [] if part.bias is None else [_mine(part.bias)]
        weight = torch.cat(weights)  # one large product is faster than three
        bias = torch.cat(biases) if biases else None
        # Tokens first, as the ranks' tokens follow one another in memory then.
        return F.linear(gathered(x_BTD.transpose(0, 1), self.group), weight, bias).transpose(0, 1)


class OutOfParts(nn.Module):
    """A linear layer of which each rank has some columns: [B, T, W / n] -> [B, T / n, D], summed over the ranks."""

    def __init__(self, whole: nn.Linear, mesh: DeviceMesh) -> None:
        super().__init__()
        self.group = mesh.get_group()
        self.weight = _divided(whole.weight.detach(), mesh, 1)
        self.bias = whole.bias  # whole, and added once to each token: behind the sum

    def forward(self, x_BTW: Tensor) -> Tensor:
        y = F.linear(x_BTW.transpose(0, 1), _mine(self.weight))
        y = summed_part(y, self.group).transpose(0, 1)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def divide_matrices(model: Decoder, grid: Grid) -> None:
    """Divide the matrices of every layer of `model`, which every rank has built from the same seed, in place.

    Raises: ConfigError for widths that the ranks do not divide, and for experts.
    """
    n = grid.shape.tensor
    _check(model.config, n)
    mesh = grid.mesh["tensor"]
    for layer in model.layers:
        attention, ffn = layer.attention, layer.ffn
        assert isinstance(ffn, FeedForward)
        head, kv_head = (heads * attention.head_dim for heads in (attention.num_heads, attention.num_kv_heads))
        heights = dict(zip(PARTS["qkv"], (head, kv_head, kv_head), strict=True))
        attention.add_module("qkv", IntoParts(attention.qkv, heights, mesh))
        attention.add_module("out", OutOfParts(attention.out, mesh))
        attention.num_heads, attention.num_kv_heads = attention.num_heads // n, attention.num_kv_heads // n
        heights = dict.fromkeys(PARTS["gate_up"], ffn.down.in_features)
        ffn.add_module("gate_up", IntoParts(ffn.gate_up, heights, mesh))
        ffn.add_module("down", OutOfParts(ffn.down, mesh))


def _divided(tensor: Tensor, mesh: DeviceMesh, dim: int) -> nn.Parameter:
    from torch.distributed.tensor import Shard, distribute_tensor

    return nn.Parameter(distribute_tensor(tensor, mesh, [Shard(dim)], src_data_rank=None))


def _mine(parameter: Tensor) -> Tensor:
    """This rank's part of a divided parameter, with a gradient; gathered over the other axes already."""
    return parameter.to_local()  # type: ignore[attr-defined, no-any-return]


def _check(config: DecoderConfig, n: int) -> None:
    if config.moe is not None:
        raise ConfigError(
            f"parallel: tensor = {n} does not divide experts. Divide them with expert, and leave tensor at 1."
        )
    widths = {"num_heads": config.heads, "num_kv_heads": config.kv_heads, "ffn_dim": config.ffn_dims}
    for name, sizes in widths.items():
        odd = sorted({size for size in sizes if size % n})
        if odd:
            raise ConfigError(
                f"parallel: tensor = {n} does not divide {name} = {', '.join(map(str, odd))}. Take a tensor that "
                "divides num_heads, num_kv_heads and ffn_dim of every layer."
            )
