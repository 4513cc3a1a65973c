"""First weights, a pure function of the seed and of each parameter's name.

MAP-Neo's rule: N(0, std); output projections of attention and feed-forward N(0, std / sqrt(2 L)); norms 1, biases 0.
Under maximal-update parametrisation with width multiplier k, matrices of the layers have variance std^2 / k.
Each parameter has its own generator, so that adding or removing one leaves the others' values alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from diglot.core.seeds import derive_seed
from diglot.model.config import InitConfig
from diglot.model.experts import Experts

if TYPE_CHECKING:
    from diglot.model.decoder import Decoder


@torch.no_grad()
def initialise(model: Decoder, init: InitConfig, seed: int) -> None:
    """Overwrite every parameter of `model`."""
    config = model.config
    depth_scale = 1 / math.sqrt(2 * config.num_layers)
    width_scale = 1 / math.sqrt(config.width_multiplier)

    def std_of(name: str, fan_in: int) -> float:
        std = init.std * width_scale if init.std else fan_in**-0.5  # 1 / sqrt(fan_in) goes with the width by itself
        if name.endswith(("out", "down")):
            std *= 0.0 if init.zero_outputs else depth_scale
        return std

    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            std = init.embed_std or init.std or 0.02
            _draw(module.weight, std, derive_seed(seed, "init", name))
        elif name == "lm_head":
            if not config.tie_embeddings:
                _draw(module.weight, init.std or module.in_features**-0.5, derive_seed(seed, "init", name))
        elif isinstance(module, nn.Linear):
            _draw(module.weight, std_of(name, module.in_features), derive_seed(seed, "init", name))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, Experts):
            for which in ("gate_up", "down"):
                for number, weight in enumerate(getattr(module, which)):
                    own = f"{name}.{which}.{number}"
                    _draw(weight, std_of(which, weight.shape[1]), derive_seed(seed, "init", own))


def _draw(weight: torch.Tensor, std: float, seed: int) -> None:
    # Drawn on the CPU, so that every device starts from the same weights.
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    weight.copy_(drawn * std)
