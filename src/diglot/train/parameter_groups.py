"""Which parameters share a weight decay and a learning rate, for every optimizer but Muon.

Weight decay spares embeddings, norms and biases. The learning rate of matrices falls with the width under muP.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diglot.train.optimizer_config import OptimizerConfig


def parameter_groups(
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
