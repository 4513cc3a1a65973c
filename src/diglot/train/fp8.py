"""Products in 8-bit floating point (Micikevicius et al. 2022, arXiv 2209.05433), by torchao.

The three products of a linear map inside the layers (its result and both gradients) multiply numbers of 8 bits: e4m3
for activations and weights, e5m2 for gradients, each tensor scaled by its largest magnitude at that moment. Weights,
optimizer state and everything else stay as under bf16. Embeddings, output matrix, routers and the experts of a mixture
are not converted: they are where small differences decide, or their products come as groups.

Scaling costs passes over memory, which compiled layers join with others; torchao advises against fp8 without.
"""

from __future__ import annotations

from torch import nn

from diglot.core.errors import ConfigError
from diglot.model.decoder import Decoder

MULTIPLE = 16  # of both widths of a matrix, which the hardware's 8-bit products need


def use_fp8_products(model: Decoder, *, emulate: bool = False) -> list[str]:
    """Convert `model` in place, before its weights are divided among ranks; returns the names of the linear maps.

    The parameters stay the same objects under the same names. Training reads whole multiples of 16 tokens fastest;
    others are padded.

    Args:
        emulate: the same rounding with products of the usual kind, for tests on a CPU.
    Raises: ConfigError without torchao, or where no linear map has widths that fit.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise ConfigError("precision: fp8 needs torchao. Install it with: pip install 'diglot[fp8]'") from error
    names = [name for name, module in model.named_modules() if _takes_fp8(module, name)]
    if not names:
        raise ConfigError(
            f"precision: fp8 needs linear maps whose widths are multiples of {MULTIPLE}, and this model's layers have "
            "none. Set bf16, or take other widths."
        )
    convert_to_float8_training(
        model, module_filter_fn=_takes_fp8, config=Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    )
    return names


def _takes_fp8(module: nn.Module, name: str) -> bool:
    if not isinstance(module, nn.Linear) or not name.startswith("layers.") or name.endswith(".router"):
        return False
    return module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0
