"""Optimizers of other libraries, which need less memory than AdamW: torchao's 8-bit AdamW, and torch's Adafactor.

Each is given the groups of ours, and state that is made at once, so that a checkpoint can fill it. Both run on one
rank only, and each library is imported when its optimizer is chosen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from diglot.core.errors import ConfigError
from diglot.train.optimizer_config import OptimizerConfig, check_one_rank
from diglot.train.parallel.parts import is_divided
from diglot.train.parameter_groups import parameter_groups


class AdamW8bit:
    """torchao's AdamW with moments of 8 bits, with the groups of `AdamW`; its state is made at once.

    state: by parameter and kind, `codes` and `scale` of each moment; moments of fewer than 4,096 numbers stay float32.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], config: OptimizerConfig, width_multiplier: float = 1.0
    ) -> None:
        check_one_rank("adamw8bit", is_alone=not any(map(is_divided, parameters.values())))
        try:
            from torchao.optim import AdamW8bit as Torchao
        except ImportError as error:
            raise ConfigError("adamw8bit needs torchao. Install it with: pip install 'diglot[fp8]'") from error

        groups = parameter_groups(parameters, config, width_multiplier)
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
        check_one_rank("adafactor", is_alone=not any(map(is_divided, parameters.values())))
        from torch.optim import Adafactor as Torch  # seconds, as it imports the compiler; nobody else needs it

        groups = parameter_groups(parameters, config, width_multiplier)
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
