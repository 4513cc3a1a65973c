"""The settings of an optimizer, readable without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diglot.core.errors import ConfigError

Kind = Literal["adamw", "adamw8bit", "muon", "adafactor"]
WHOLE_STATE: dict[Kind, str] = {
    "adamw8bit": "keeps its moments in blocks that are not cut where the ranks' parts are",
    "adafactor": "keeps means of whole rows and columns",
}
"""What cannot be divided among ranks, and why."""


def check_one_rank(kind: Kind, *, is_alone: bool) -> None:
    """Raises ConfigError for an optimizer that runs on one rank only, where there are several."""
    if kind in WHOLE_STATE and not is_alone:
        raise ConfigError(
            f"optimizer {kind} {WHOLE_STATE[kind]}, and runs on one rank only. Take adamw or muon, whose state is "
            "divided among the ranks, or start one process."
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What updates the weights. The phase's schedule gives the learning rate, which the ratios multiply.

    kind: `adamw`; `adamw8bit`: AdamW whose moments take 8 bits, in blocks of 256 with a scale each, and those of
        embeddings 32 as in the paper (Dettmers et al. 2022, arXiv 2110.02861), which needs torchao and runs on one
        rank; `muon`: Muon for the matrices inside the layers, AdamW for embeddings, head, norms and biases;
        `adafactor`: the second moment of a matrix from its rows and columns, no first moment, so that the state takes
        next to no memory (Shazeer and Stern 2018, arXiv 1804.04235). Its learning rate is relative to the size of a
        weight, and never above 1 / sqrt(updates): about 1e-2, where AdamW has 1e-3.
    weight_decay: decoupled, times the learning rate; on matrices only, not on embeddings, norms and biases.
    embed_lr_ratio, head_lr_ratio: learning rate of the token embeddings and of the output matrix / the schedule's. A
    tied
        matrix counts as embeddings.
    muon_lr_ratio: learning rate of Muon's matrices / the schedule's.
    muon_iterations: Newton-Schulz iterations; 5 bring the singular values near enough to 1.
    """

    kind: Kind = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    embed_lr_ratio: float = 1.0
    head_lr_ratio: float = 1.0
    muon_lr_ratio: float = 1.0
    muon_momentum: float = 0.95
    muon_iterations: int = 5

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "adamw8bit", "muon", "adafactor"):
            raise ConfigError(f"optimizer kind '{self.kind}' is not known. Known: adafactor, adamw, adamw8bit, muon.")
        for name in ("beta1", "beta2", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but a moving average needs a value in [0, 1).")
        for name in ("weight_decay", "embed_lr_ratio", "head_lr_ratio", "muon_lr_ratio"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} = {getattr(self, name)} is not a number from 0 up.")
        if self.eps <= 0 or self.muon_iterations < 1:
            raise ConfigError("eps lies above 0 and muon_iterations is at least 1.")
