"""Microbatches through the stages of a pipeline, by PyTorch's 1F1B schedule.

Shape legend: B sequences, T tokens, D width, R routers so far, E experts.

A stage sends the next one the hidden states of a microbatch and gets their gradients back. After one forward pass for
each stage from itself on, it runs backward and forward passes in turn (PipeDream-flush, Narayanan et al. 2021, arXiv
2104.04473), so that it keeps the activations of no more microbatches than there are stages. Of m microbatches over
p stages the share (p - 1) / (m + p - 1) of the time is lost while the pipeline fills and drains (GPipe, Huang et al.
2019, arXiv 1811.06965).

Every stage reads the rows of its reader itself, and begins the objective on them. At the trunk, all but the last leave
it: so whatever the objective tells the trunk (documents, positions) is the same on all stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from diglot.core.errors import ConfigError, DiglotError
from diglot.model.decoder import Decoder, Trunk
from diglot.model.experts import RouterStats
from diglot.train.parallel.parts import local
from diglot.train.parallel.ranks import Ranks
from diglot.train.parallel.stages import TIED, check_microbatches, stage_of
from diglot.train.types import IGNORE, Batch, ItemLosses, Objective, RowLosses


class Pipelined:
    """Runs the microbatches of a training step through this rank's stage; a `Microbatches`.

    objective: asks the model it is given for `trunk` once, and for nothing else before that.
    """

    def __init__(self, model: Decoder, objective: Objective, ranks: Ranks) -> None:
        assert ranks.grid is not None
        self.model, self.objective, self.device = model, objective, torch.device(ranks.device)
        self.stage = stage_of(model.config, ranks.grid)
        self.copies = self.stage.copies(model.config)
        self.group: dist.ProcessGroup = ranks.grid.mesh.get_group("pipeline")
        self.peers: list[int] = dist.get_process_group_ranks(self.group)  # the ranks of the stages, in order
        self.stat_names: list[str] | None = None
        self._schedules: dict[tuple[int, ...], Schedule1F1B] = {}
        self._batches: list[Batch] = []
        self._found: list[ItemLosses] = []

    def run(self, batches: Sequence[Batch]) -> list[ItemLosses]:
        check_microbatches(len(batches), self.stage.count, "a training step")
        B, T = (max(batch["input_ids"].shape[axis] for batch in batches) for axis in (0, 1))
        self._batches = [_with_rows(batch, B) for batch in batches]
        self._found = []
        try:
            self._schedule(len(batches), B, T).step(
                kwarg_mbs=[{"number": number} for number in range(len(batches))],
                target_mbs=list(range(len(batches))),
                return_outputs=False,
            )
        except RuntimeError as error:  # torch's, around ours
            if isinstance(error.__cause__, DiglotError):
                raise error.__cause__ from None
            raise
        if self.model.config.tie_embeddings:
            self._add_gradient_of_tied()
        return self._of_own_rows(batches) if self.stage.is_last else self._zeros(len(batches))

    def _schedule(self, num_microbatches: int, B: int, T: int) -> Schedule1F1B:
        """Made once for each shape: the two sides of a border agree beforehand on what goes over it."""
        key = (num_microbatches, B, T)
        if key not in self._schedules:
            layers, loss = self.stage.layers, torch.empty((), device="meta", requires_grad=True)
            stage = _Stage(
                self.model,
                self.stage.number,
                self.stage.count,
                self.device,
                input_args=() if self.stage.is_first else self._border(layers.start, B, T),
                output_args=loss if self.stage.is_last else self._border(layers.stop, B, T),
                group=self.group,
            )
            stage.work = self._forward
            # Gradients are sums, so that none is scaled; and the loss is what the last stage returns.
            self._schedules[key] = Schedule1F1B(
                stage, num_microbatches, loss_fn=lambda total, _: total, scale_grads=False
            )
        return self._schedules[key]

    def _border(self, num_layers: int, B: int, T: int) -> tuple[Tensor, ...]:
        """The shapes of what is sent behind so many layers: hidden states and, if there are any, routers."""
        config = self.model.config
        shapes: list[tuple[int, ...]] = [(B, T, config.d_model)]
        if config.moe and (num_routers := sum(config.has_experts[:num_layers])):
            shapes.append((num_routers, 2 + 2 * config.moe.num_experts))
        return tuple(torch.empty(shape, device="meta", requires_grad=True) for shape in shapes)

    def _forward(self, *received: Tensor, number: int) -> Tensor | tuple[Tensor, ...]:
        """This stage's part of the microbatch `number`: what the next stage needs, or the loss."""
        part = _Part(self.model, received)
        try:
            losses = self.objective(cast(Decoder, part), self._batches[number])
        except _AtTheTrunk as left:
            return left.sent
        if not self.stage.is_last:
            raise ConfigError("this objective asks the model for no trunk, and cannot run in a pipeline.")
        self._found.append(losses._replace(total=losses.total.detach()))
        return losses.total

    def _of_own_rows(self, batches: Sequence[Batch]) -> list[ItemLosses]:
        """What was found, without the rows that were added."""
        sizes = [len(batch["input_ids"]) for batch in batches]
        found = [
            losses._replace(rows=RowLosses(losses.rows.losses[:B], losses.rows.counts[:B]) if losses.rows else None)
            for losses, B in zip(self._found, sizes, strict=True)
        ]
        self._agree_on_stats(found[0].stats)
        return found

    def _zeros(self, num_microbatches: int) -> list[ItemLosses]:
        names = self._agree_on_stats({})
        return [ItemLosses(torch.zeros(()), 0, dict.fromkeys(names, torch.zeros(())))] * num_microbatches

    def _agree_on_stats(self, found: Mapping[str, Tensor]) -> list[str]:
        """The names of the stats that the last stage finds; told once to the others."""
        if self.stat_names is None:
            told: list[Any] = [list(found)]
            dist.broadcast_object_list(told, src=self.peers[-1], group=self.group, device=torch.device("cpu"))
            self.stat_names = told[0]
        assert not self.stage.is_last or list(found) == self.stat_names
        return self.stat_names

    def _add_gradient_of_tied(self) -> None:
        """First and last stage add each other's gradient of the matrix that both hold; so both update it alike."""
        if not (self.stage.is_first or self.stage.is_last):
            return
        gradient = dict(self.model.named_parameters())[TIED].grad
        assert gradient is not None
        own, other = local(gradient), torch.empty_like(local(gradient))
        peer = self.peers[-1 if self.stage.is_first else 0]
        both = [dist.P2POp(dist.isend, own, peer, self.group), dist.P2POp(dist.irecv, other, peer, self.group)]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        own.add_(other)


class _Stage(PipelineStage):
    """torch's stage with `work` in place of the model's forward. The model stays its module, so that torch tells FSDP
    to sum gradients over ranks once, at the end of the training step."""

    work: Callable[..., Tensor | tuple[Tensor, ...]]

    def forward_maybe_with_nosync(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        return self.work(*args, **kwargs)


class _AtTheTrunk(Exception):  # noqa: N818 - no error
    """Leaves an objective on a stage that is not the last."""

    def __init__(self, sent: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.sent = sent


class _Part:
    """The model as an objective sees it on a stage: its trunk begins with what was received, and on all stages but the
    last ends in leaving the objective."""

    def __init__(self, model: Decoder, received: tuple[Tensor, ...]) -> None:
        self._model, self._received = model, received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def trunk(self, input_ids_BT: Tensor | None = None, **arguments: Any) -> Trunk:
        if arguments.get("return_states") or arguments.get("cache") or "embeddings_BTD" in arguments:
            raise ConfigError("an objective with states, a cache or embeddings of its own cannot run in a pipeline.")
        if self._received:
            input_ids_BT, arguments["embeddings_BTD"] = None, self._received[0]
        trunk: Trunk = self._model.trunk(input_ids_BT, **arguments)
        routers_RE = [*self._received[1:], *(_as_row(router) for router in trunk.routers)]
        if not self._model.is_last_stage:
            self._leave(trunk.hidden, routers_RE)
        return trunk._replace(routers=tuple(_as_stats(row) for rows in routers_RE for row in rows))

    def _leave(self, hidden_BTD: Tensor, routers_RE: list[Tensor]) -> NoReturn:
        sent = (hidden_BTD, torch.cat(routers_RE)) if routers_RE else (hidden_BTD,)
        assert {tensor.dtype for tensor in sent} == {torch.float32}, "the next stage expects float32"
        raise _AtTheTrunk(sent)

    def hidden(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError("an objective in a pipeline asks the model for its trunk, not for hidden or logits of ids.")

    __call__ = forward = hidden


def _as_row(router: RouterStats) -> Tensor:
    """[1, 2 + 2 E]: what a router did, to be sent on. Its losses are added up on the last stage, by the objective, and
    their gradients come back the way of those of the hidden states."""
    return torch.cat([torch.stack([router.balance, router.z]), router.score, router.load.detach()])[None]


def _as_stats(row: Tensor) -> RouterStats:
    score, load = row[2:].chunk(2)
    return RouterStats(row[0], row[1], load.detach(), score)


def _with_rows(batch: Batch, B: int) -> Batch:
    """With its first row repeated without targets until there are B rows: stages send tensors of one shape."""
    missing = B - len(batch["input_ids"])
    if not missing:
        return batch
    added = {key: tensor[:1].expand(missing, *tensor.shape[1:]) for key, tensor in batch.items() if tensor.ndim}
    added["targets"] = torch.full_like(added["targets"], IGNORE)
    return {key: torch.cat([tensor, added[key]]) if tensor.ndim else tensor for key, tensor in batch.items()}
