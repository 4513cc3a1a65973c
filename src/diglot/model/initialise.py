"""First weights, a pure function of the seed and of each parameter's name.

MAP-Neo's rule: N(0, std); output projections of attention and feed-forward N(0, std / sqrt(2 L)); norms 1, biases 0.
Each parameter has its own generator, so that adding or removing one leaves the others' values alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from diglot.core.seeds import derive_seed
from diglot.model.config import InitConfig

if TYPE_CHECKING:
    from diglot.model.decoder import Decoder


@torch.no_grad()
def initialise(model: Decoder, init: InitConfig, seed: int) -> None:
    """Overwrite every parameter of `model`."""
    depth_scale = 1 / math.sqrt(2 * model.config.num_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            std = init.embed_std or init.std or 0.02
            _draw(module.weight, std, derive_seed(seed, "init", name))
        elif isinstance(module, nn.Linear) and not (name == "lm_head" and model.config.tie_embeddings):
            std = init.std or module.in_features**-0.5
            if name.endswith((".out", ".down")):
                std *= 0.0 if init.zero_outputs else depth_scale
            _draw(module.weight, std, derive_seed(seed, "init", name))
            if module.bias is not None:
                module.bias.zero_()


def _draw(weight: torch.Tensor, std: float, seed: int) -> None:
    # Drawn on the CPU, so that every device starts from the same weights.
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    weight.copy_(drawn * std)
