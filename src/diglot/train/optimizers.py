"""One optimizer for the whole model: AdamW, AdamW with 8-bit moments, Adafactor, or Muon for the matrices of the layers
and AdamW for the rest.

Weight decay is decoupled (Loshchilov and Hutter 2019). The state is a flat mapping of named tensors, so that a
checkpoint holds no pickled objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diglot.core.errors import ConfigError, InputError
from diglot.model.decoder import Decoder
from diglot.train.foreign_optimizers import Adafactor, AdamW8bit
from diglot.train.muon import Muon, MuonMatrix
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.parallel.parts import local, settle
from diglot.train.parameter_groups import parameter_groups

__all__ = ["Optimizer", "OptimizerConfig"]


class Optimizer:
    """Reads `.grad` of the model's parameters and updates them."""

    def __init__(self, model: Decoder, config: OptimizerConfig) -> None:
        if config.kind == "muon" and model.config.mup_base_d_model is not None:
            raise ConfigError(
                "mup_base_d_model scales AdamW's learning rate with the width, and Muon's updates follow another rule. "
                "Take one of the two out: optimizer.kind adamw, or no mup_base_d_model."
            )
        self.config = config
        settle(model)
        matrices = _layer_matrices(model) if config.kind == "muon" else []
        self.muon = Muon(matrices, config.muon_momentum, config.weight_decay, config.muon_iterations)
        taken = {matrix.name for matrix in matrices}
        rest = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in taken}
        width, adafactor = model.config.width_multiplier, config.kind == "adafactor"
        small = {name: p for name, p in rest.items() if config.kind == "adamw8bit" and not name.startswith("embed.")}
        self.adamw = AdamW({} if adafactor else {n: p for n, p in rest.items() if n not in small}, config, width)
        self.adamw8bit = AdamW8bit(small, config, width) if small else None
        self.adafactor = Adafactor(rest, config, width) if adafactor else None

    def step(self, lr: float) -> None:
        """One update with the schedule's learning rate `lr`."""
        self.adamw.step(lr)
        if self.adamw8bit is not None:
            self.adamw8bit.step(lr)
        if self.adafactor is not None:
            self.adafactor.step(lr)
        self.muon.step(lr * self.config.muon_lr_ratio)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on, by name. Not copies."""
        state = {f"muon.{name}.momentum": buffer for name, buffer in self.muon.buffers.items()}
        for kind, tensors in self.adamw.state.items():
            state |= {f"adamw.{name}.{kind}": tensor for name, tensor in tensors.items()}
        if self.adamw8bit is not None:
            state |= {f"adamw8bit.{name}": tensor for name, tensor in self.adamw8bit.state.items()}
        if self.adafactor is not None:
            for name, tensors in self.adafactor.state.items():
                state |= {f"adafactor.{name}.{kind}": tensor for kind, tensor in tensors.items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()` of an optimizer with the same parameters. Raises InputError when names differ."""
        own = self.state()
        if set(state) != set(own):
            odd = sorted(set(state) ^ set(own))[:3]
            raise InputError(f"the optimizer state does not fit this model and optimizer: {odd} ... Start a new run.")
        for name, tensor in own.items():
            tensor.copy_(state[name])


class AdamW:
    """AdamW in one pass over each parameter (torch's fused kernel; written with plain operations it takes a dozen).

    The kernel is called directly: `torch.optim` would import the compiler, seconds that a short run feels.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], config: OptimizerConfig, width_multiplier: float = 1.0
    ) -> None:
        self.config = config
        self.state = {
            "first_moment": {name: torch.zeros_like(p) for name, p in parameters.items()},
            "second_moment": {name: torch.zeros_like(p) for name, p in parameters.items()},
            # Where the parameter is: the kernel reads it there.
            "num_updates": {name: torch.zeros((), device=p.device) for name, p in parameters.items()},
        }
        self.groups = parameter_groups(parameters, config, width_multiplier)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for (weight_decay, lr_ratio), parameters in self.groups.items():
            names = [name for name, parameter in parameters.items() if parameter.grad is not None]
            updates = [self.state["num_updates"][name] for name in names]
            torch._foreach_add_(updates, 1)
            torch._fused_adamw_(
                [local(parameters[name]) for name in names],
                [local(parameters[name].grad) for name in names],  # type: ignore[arg-type]
                [local(self.state["first_moment"][name]) for name in names],
                [local(self.state["second_moment"][name]) for name in names],
                [],
                updates,
                lr=lr * lr_ratio,
                beta1=self.config.beta1,
                beta2=self.config.beta2,
                weight_decay=weight_decay,
                eps=self.config.eps,
                amsgrad=False,
                maximize=False,
            )


def _layer_matrices(model: Decoder) -> list[MuonMatrix]:
    """The two-dimensional ones of the layers, routers left out: their few rows are choices, not directions."""
    config = model.config
    found = []
    for name, weight in model.named_parameters():
        if not name.startswith("layers.") or weight.ndim != 2 or not weight.requires_grad or ".router." in name:
            continue
        if name.endswith(".qkv.weight"):
            layer = int(name.split(".")[1])
            head, kv_head = (heads[layer] * config.head_dim for heads in (config.heads, config.kv_heads))
            heights: tuple[int, ...] = (head, kv_head, kv_head)
        elif name.endswith(".gate_up.weight"):
            heights = (weight.shape[0] // 2,) * 2
        else:
            heights = (weight.shape[0],)
        found.append(MuonMatrix(name, weight, heights))
    return found
