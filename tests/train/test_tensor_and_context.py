"""Ranks that share the matrices of a layer, or the tokens of a sequence, find what one rank finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import many_ranks
import pytest
import torch
from many_ranks import EXPERTS, RICH
from safetensors.torch import save_file
from test_ranks import alone, same_gradients, same_losses, stopped, trained

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder
from diglot.train.parallel.checkpoint_parts import PartsReader
from diglot.train.parallel.config import GridShape
from diglot.train.parallel.fused_names import fused_name, part_names
from diglot.train.parallel.grid import Grid
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.parallel.tensor import divide_matrices
from diglot.train.parallel.whole_model import whole_tensors

MUON = {"shape": "rich", "optimizer": "muon"}
# With a small eps AdamW makes full updates of gradients that are mostly rounding, as those of norms of heads are here.
DOCUMENTS = {"shape": "rich", "documents": 1, "eps": 1e-2, "recompute": 1}


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alone(tmp_path_factory.mktemp("on one"), **MUON)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "options", "axes"),
    [
        (2, {}, {"context": 2, "compile": "always"}),
        (4, DOCUMENTS, {"context": 2, "tensor": 2}),
        (4, {"shape": "capped", "only": "gradients"}, {"context": 2, "replicate": 2}),
    ],
    ids=["context, compiled", "context x tensor, documents and a window", "context x replicate, softcap"],
)
def test_ranks_that_share_sequences_find_the_same(
    num_ranks: int, options: dict[str, object], axes: dict[str, object], tmp_path: Path
) -> None:
    one, many = alone(tmp_path / "one", **options), trained(num_ranks, tmp_path / "many", **options, **axes)
    same_gradients(one, many)
    if "only" not in options:
        same_losses(one, many)


@pytest.mark.slow
def test_muon_finds_the_same_with_matrices_cut_two_ways(on_one: Path, tmp_path: Path) -> None:
    many = trained(4, tmp_path, tensor=2, **MUON)  # and shard = 2
    same_gradients(on_one, many)
    same_losses(on_one, many)


@pytest.mark.slow
def test_a_run_of_two_ranks_that_share_matrices_goes_on_on_one(on_one: Path, tmp_path: Path) -> None:
    same_losses(on_one, alone(stopped(2, tmp_path, tensor=2, **MUON), **MUON))


@pytest.mark.slow
def test_a_run_of_one_goes_on_on_two_ranks_that_share_matrices(on_one: Path, tmp_path: Path) -> None:
    same_losses(on_one, trained(2, stopped(1, tmp_path, **MUON), tensor=2, **MUON))


def test_ranks_that_share_sequences_count_every_token_once() -> None:
    batch = {
        "input_ids": torch.arange(32).view(2, 16),
        "targets": torch.arange(32).view(2, 16) + 1,
        "document_ids": torch.zeros(2, 16, dtype=torch.int64),
        "streams": torch.tensor([0, 1]),
    }
    shape = GridShape(pipeline=1, replicate=1, shard=2, context=2, tensor=2)
    shares = [Ranks(grid=Grid(shape, rank, "cpu")).rows([batch])[0] for rank in range(8)]
    for key in ("input_ids", "targets"):
        together = torch.cat([share[key].flatten() for share in shares])
        assert sorted(together.tolist()) == batch[key].flatten().tolist()
    assert all(torch.equal(share["targets"], share["input_ids"] + 1) for share in shares)
    assert [share["streams"].tolist() for share in shares] == [[0]] * 4 + [[1]] * 4
    assert all(share["document_ids"].shape == (1, 16) for share in shares)  # whole: masks need those of all tokens


@pytest.mark.parametrize(
    ("config", "tensor", "words"),
    [
        (RICH, 4, "num_kv_heads = 2"),
        (replace(RICH, ffn_dim=(20, 44, 27)), 2, "ffn_dim = 27"),
        (EXPERTS, 2, "Divide them with expert"),
    ],
)
def test_a_model_that_the_ranks_do_not_divide_is_refused(
    config: many_ranks.DecoderConfig, tensor: int, words: str
) -> None:
    shape = GridShape(pipeline=1, replicate=1, shard=1, context=1, tensor=tensor)
    with pytest.raises(ConfigError, match=words):
        divide_matrices(Decoder(config, seed=0), Grid(shape, 0, "cpu"))


def test_parts_have_the_names_of_the_fused_parameter_and_back() -> None:
    for name in ("layers.3.attention.qkv.weight", "adamw.layers.0.ffn.gate_up.bias.num_updates"):
        assert [fused_name(part) for part in part_names(name)] == [name] * len(part_names(name))
    assert part_names("layers.3.attention.qkv.bias") == [f"layers.3.attention.qkv.{x}.bias" for x in "qkv"]
    assert fused_name("layers.3.attention.qkv.weight") is fused_name("layers.3.attention.q_norm.weight") is None
    assert part_names("layers.0.ffn.gate_up") == part_names("layers.3.attention.out.weight") == []


def test_parts_of_a_fused_matrix_are_put_together_in_its_order() -> None:
    heights = {"k": 2, "q": 4, "v": 2}  # not in the order of the rows, and each with two tensors
    parts = {"embed.weight": torch.zeros(5, 3)}
    for number, (part, height) in enumerate(heights.items()):
        parts[f"layers.0.attention.qkv.{part}.weight"] = torch.full((height, 3), number)
        parts[f"layers.0.attention.qkv.{part}.bias"] = torch.full((height,), number)
    found = dict(whole_tensors(parts, ALONE))
    assert list(found) == ["embed.weight", "layers.0.attention.qkv.weight", "layers.0.attention.qkv.bias"]
    assert found["layers.0.attention.qkv.weight"][:, 0].tolist() == [1, 1, 1, 1, 0, 0, 2, 2]
    assert found["layers.0.attention.qkv.bias"].tolist() == [1, 1, 1, 1, 0, 0, 2, 2]


def read(folder: Path, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from torch.distributed.checkpoint.state_dict_loader import load

    found = {name: torch.full_like(tensor, -1) for name, tensor in like.items()}
    load(found, storage_reader=PartsReader(str(folder), {k: v.shape for k, v in like.items()}), no_dist=True)
    return found


def test_a_checkpoint_is_read_in_parts_or_whole(tmp_path: Path) -> None:
    parts = {
        "a.qkv.q.weight": torch.arange(12.0).view(4, 3),
        "a.qkv.k.weight": 20 + torch.arange(6.0).view(2, 3),
        "a.qkv.v.weight": 40 + torch.arange(6.0).view(2, 3),
        **{f"adamw.a.qkv.{part}.weight.num_updates": torch.tensor(7.0) for part in "qkv"},
        "a.out.weight": torch.arange(4.0),
    }
    complete = {
        "a.qkv.weight": torch.cat([parts[f"a.qkv.{part}.weight"] for part in "qkv"]),
        "adamw.a.qkv.weight.num_updates": torch.tensor(7.0),
        "a.out.weight": parts["a.out.weight"],
    }
    for stored, asked in ((parts, complete), (complete, parts), (parts, parts)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        save_file(stored, folder / "state.safetensors")
        for name, tensor in read(folder, asked).items():
            assert torch.equal(tensor, asked[name]), name


def test_parts_of_other_heights_than_the_stored_matrix_are_not_taken_from_it(tmp_path: Path) -> None:
    save_file({"a.qkv.weight": torch.zeros(8, 3)}, tmp_path / "state.safetensors")
    asked = {f"a.qkv.{part}.weight": torch.Size([4, 3]) for part in "qkv"}
    assert set(PartsReader(str(tmp_path), asked).read_metadata().state_dict_metadata) == {"a.qkv.weight"}
