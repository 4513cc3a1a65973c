"""One optimizer for the whole model: AdamW, or Muon for the matrices of the layers and AdamW for the rest.

Weight decay is decoupled (Loshchilov and Hutter 2019) and spares embeddings, norms and biases. The state is a flat
mapping of named tensors, so that a checkpoint holds no pickled objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diglot.core.errors import InputError
from diglot.model.decoder import Decoder
from diglot.train.muon import Muon, MuonMatrix
from diglot.train.optimizer_config import OptimizerConfig

__all__ = ["Optimizer", "OptimizerConfig"]


class Optimizer:
    """Reads `.grad` of the model's parameters and updates them."""

    def __init__(self, model: Decoder, config: OptimizerConfig) -> None:
        self.config = config
        matrices = _layer_matrices(model) if config.kind == "muon" else []
        self.muon = Muon(matrices, config.muon_momentum, config.weight_decay, config.muon_iterations)
        taken = {matrix.name for matrix in matrices}
        self.by_adamw = {n: p for n, p in model.named_parameters() if p.requires_grad and n not in taken}
        self.adamw = torch.optim.AdamW(
            _adamw_groups(self.by_adamw, config),
            lr=0.0,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,  # one pass over each parameter; the plain form takes a dozen
        )

    def step(self, lr: float) -> None:
        """One update with the schedule's learning rate `lr`."""
        for group in self.adamw.param_groups:
            group["lr"] = lr * group["lr_ratio"]
        self.adamw.step()
        self.muon.step(lr * self.config.muon_lr_ratio)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on, by name. Not copies."""
        state = {f"muon.{name}.momentum": buffer for name, buffer in self.muon.buffers.items()}
        for name, parameter in self.by_adamw.items():
            for key, value in self.adamw.state.get(parameter, {}).items():
                state[f"adamw.{name}.{key}"] = value
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()` of an optimizer with the same parameters. Raises InputError when names differ."""
        expected = {f"muon.{name}.momentum" for name in self.muon.buffers}
        for name in self.by_adamw:
            expected |= {f"adamw.{name}.{key}" for key in ("step", "exp_avg", "exp_avg_sq")}
        if set(state) != expected:
            odd = sorted(set(state) ^ expected)[:3]
            raise InputError(f"the optimizer state does not fit this model and optimizer: {odd} ... Start a new run.")
        for name, buffer in self.muon.buffers.items():
            buffer.copy_(state[f"muon.{name}.momentum"])
        for name, parameter in self.by_adamw.items():
            self.adamw.state[parameter] = {
                key: state[f"adamw.{name}.{key}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
            }


def _layer_matrices(model: Decoder) -> list[MuonMatrix]:
    config = model.config
    head, kv_head = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    found = []
    for name, weight in model.named_parameters():
        if not name.startswith("layers.") or weight.ndim != 2 or not weight.requires_grad:
            continue
        if ".qkv." in name:
            heights: tuple[int, ...] = (head, kv_head, kv_head)
        elif ".gate_up." in name:
            heights = (weight.shape[0] // 2,) * 2
        else:
            heights = (weight.shape[0],)
        found.append(MuonMatrix(name, weight, heights))
    return found


def _adamw_groups(parameters: Mapping[str, Tensor], config: OptimizerConfig) -> list[dict[str, object]]:
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in parameters.items():
        if name.startswith("embed."):
            key = (0.0, config.embed_lr_ratio)
        elif parameter.ndim < 2:
            key = (0.0, 1.0)
        else:
            key = (config.weight_decay, config.head_lr_ratio if name.startswith("lm_head.") else 1.0)
        groups.setdefault(key, []).append(parameter)
    return [{"params": p, "weight_decay": decay, "lr_ratio": ratio} for (decay, ratio), p in groups.items()]
