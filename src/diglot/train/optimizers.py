"""One optimizer for the whole model: AdamW, AdamW with 8-bit moments, Adafactor, or Muon for the matrices of the layers
and AdamW for the rest.

Weight decay is decoupled (Loshchilov and Hutter 2019) and spares embeddings, norms and biases. The state is a flat
mapping of named tensors, so that a checkpoint holds no pickled objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from diglot.core.errors import ConfigError, InputError
from diglot.model.decoder import Decoder
from diglot.train.muon import Muon, MuonMatrix
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.parallel.sharding import is_divided, local, settle

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
        self.groups = _groups(parameters, config, width_multiplier)

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


class AdamW8bit:
    """torchao's AdamW with moments of 8 bits, with the groups of `AdamW`; its state is made at once.

    state: by parameter and kind, `codes` and `scale` of each moment; moments of fewer than 4,096 numbers stay float32.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], config: OptimizerConfig, width_multiplier: float = 1.0
    ) -> None:
        if any(is_divided(parameter) for parameter in parameters.values()):
            raise ConfigError(
                "adamw8bit keeps its moments in blocks that are not cut where the ranks' parts are, and runs on one "
                "rank only. Take optimizer adamw or muon, whose state is divided among the ranks, or start one process."
            )
        try:
            from torchao.optim import AdamW8bit as Torchao
        except ImportError as error:
            raise ConfigError("adamw8bit needs torchao. Install it with: pip install 'diglot[fp8]'") from error

        groups = _groups(parameters, config, width_multiplier)
        self.lr_ratios = [lr_ratio for _, lr_ratio in groups]
        self.optimizer = Torchao(
            [{"params": list(members.values()), "weight_decay": decay} for (decay, _), members in groups.items()],
            lr=0.0,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
        )
        self.on_gpu = any(parameter.is_cuda for parameter in parameters.values())
        self.state: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            moments = {
                "exp_avg": self.optimizer._new_buffer(parameter, True),
                "exp_avg_sq": self.optimizer._new_buffer(parameter, False),
            }
            self.optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
            self.state[f"{name}.num_updates"] = self.optimizer.state[parameter]["step"]
            for kind, moment in zip(("first_moment", "second_moment"), moments.values(), strict=True):
                if hasattr(moment, "codes"):
                    self.state |= {f"{name}.{kind}.codes": moment.codes, f"{name}.{kind}.scale": moment.scale}
                else:
                    self.state[f"{name}.{kind}"] = moment

    def step(self, lr: float) -> None:
        for group, lr_ratio in zip(self.optimizer.param_groups, self.lr_ratios, strict=True):
            group["lr"].fill_(lr * lr_ratio)
        # torchao compiles its update for each shape: kernels that a GPU needs, and a minute each that a CPU can do
        # without.
        with contextlib.nullcontext() if self.on_gpu else torch.compiler.set_stance("force_eager"):
            self.optimizer.step()


class Adafactor:
    """torch's Adafactor with the groups of `AdamW`; its state is made at once, so that a checkpoint can fill it."""

    def __init__(
        self, parameters: Mapping[str, Tensor], config: OptimizerConfig, width_multiplier: float = 1.0
    ) -> None:
        if any(is_divided(parameter) for parameter in parameters.values()):
            raise ConfigError(
                "adafactor keeps means of whole rows and columns, and runs on one rank only. Take optimizer adamw or "
                "muon, whose state is divided among the ranks, or start one process."
            )
        from torch.optim import Adafactor as Torch  # seconds, as it imports the compiler; nobody else needs it

        groups = _groups(parameters, config, width_multiplier)
        self.lr_ratios = [lr_ratio for _, lr_ratio in groups]
        # The bound below the second moment is the square of the first number: the paper's 1e-30. torch's default, 1e-7,
        # lies above the gradients of a model of some size.
        self.optimizer = Torch(
            [{"params": list(members.values()), "weight_decay": decay} for (decay, _), members in groups.items()],
            eps=(1e-15, 1e-3),
            foreach=False,
        )
        self.state: dict[str, dict[str, Tensor]] = {}
        for name, parameter in parameters.items():
            rows, columns = parameter.shape[:-1], parameter.shape[-1:]
            moments = {"variance": torch.zeros_like(parameter)}
            if parameter.ndim > 1:
                moments = {
                    "row_var": parameter.new_zeros((*rows, 1)),
                    "col_var": parameter.new_zeros((*rows[:-1], 1, *columns)),
                }
            self.state[name] = self.optimizer.state[parameter] = {"step": torch.zeros(()), **moments}

    def step(self, lr: float) -> None:
        for group, lr_ratio in zip(self.optimizer.param_groups, self.lr_ratios, strict=True):
            group["lr"] = lr * lr_ratio
        self.optimizer.step()  # type: ignore[no-untyped-call]


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


def _groups(
    parameters: Mapping[str, Tensor], config: OptimizerConfig, width_multiplier: float
) -> dict[tuple[float, float], dict[str, Tensor]]:
    """Parameters by weight decay and share of the learning rate."""
    groups: dict[tuple[float, float], dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(_group(name, parameter, config, width_multiplier), {})[name] = parameter
    return groups


def _group(name: str, parameter: Tensor, config: OptimizerConfig, width_multiplier: float) -> tuple[float, float]:
    """Weight decay, and the share of the learning rate: that of matrices falls with the width under muP."""
    if name.startswith("embed."):
        return 0.0, config.embed_lr_ratio
    if parameter.ndim < 2:
        return 0.0, 1.0
    if name.startswith("lm_head."):
        return config.weight_decay, config.head_lr_ratio  # muP divides its logits instead
    return config.weight_decay, 1.0 / width_multiplier
