"""Sweeps with a known truth: trials whose losses come from a formula, with noise; and a clock of our own."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from nanochat_tct.tuning.records import Trial

WIDTHS = {"narrow": 64, "middle": 128, "wide": 256}


@dataclass(frozen=True)
class Curve:
    """The truth of a synthetic sweep: an instance of the law, with curvature that grows towards high rates."""

    floor: float = 0.55
    by_parameters: float = 0.35  # at 1M parameters
    by_tokens: float = 0.5  # at 1M tokens
    alpha: float = 0.34
    beta: float = 0.3
    burn_in: float = 0.0  # tokens
    rate: float = 0.008  # the best one at width 128 and 1M tokens
    width_slope: float = -1.0
    tokens_slope: float = -0.1
    curvature: float = 0.03
    skew: float = 0.1  # of the curvature, for each factor of e above the best
    noise: float = 0.004
    unique_tokens: int = 100_000_000

    def best_rate(self, size: str, tokens: float) -> float:
        return float(
            self.rate * (WIDTHS[size] / 128) ** self.width_slope * (tokens / 1e6) ** self.tokens_slope
        )

    def loss(self, size: str, tokens: float, rate: float | None = None) -> float:
        """Bits per byte without noise, at the best rate when none is given."""
        level = (
            self.floor
            + self.by_parameters * (parameters(size) / 1e6) ** -self.alpha
            + self.by_tokens * ((self.burn_in + tokens) / 1e6) ** -self.beta
        )
        off = math.log((rate or self.best_rate(size, tokens)) / self.best_rate(size, tokens))
        return level * math.exp(self.curvature * off**2 * (1 + self.skew * max(off, 0)))

    def sweep(
        self,
        seed: int,
        sizes: Sequence[str] = ("narrow", "middle", "wide"),
        factors: Sequence[float] = (1 / 3, 1, 3),
        flops: Sequence[float] = (3e12,),
    ) -> list[Trial]:
        """A trial for each size, factor of the rule's rate, and cost."""
        rng = np.random.default_rng(seed)
        trials: list[Trial] = []
        for size, cost, factor in product(sizes, flops, factors):
            tokens, rate = int(cost / (6 * parameters(size))), 0.96 / WIDTHS[size] * factor
            bits = self.loss(size, tokens, rate) * math.exp(self.noise * rng.standard_normal())
            named: dict[str, Any] = {"trial": f"t{len(trials)}", "unique_tokens": self.unique_tokens}
            trials.append(trial(size, rate, tokens, bits, **named))
        return trials


def parameters(size: str) -> int:
    return 12 * 4 * WIDTHS[size] ** 2 + 8192 * WIDTHS[size]


def trial(size: str, rate: float, tokens: int, bits: float | None, **changes: Any) -> Trial:
    """A finished trial of the sweep, unless told otherwise; $1 is 1e12 FLOPs."""
    flops = 6.0 * parameters(size) * tokens
    unique_tokens = changes.pop("unique_tokens", 100_000_000)
    usual = Trial(
        *(f"{size}-{rate:g}-{tokens}", "sweep", size, 4, 4, WIDTHS[size], parameters(size), rate),
        *(0.0, 0.1, "muon", 0.9, 0.95, 1.0),  # dropout, weight decay and what follows
        *(tokens, tokens, unique_tokens, tokens / unique_tokens),
        *(flops, flops / 1e12, flops / 1e9, bits, "finished", 0.0, flops / 1e9),
    )
    return dataclasses.replace(usual, **changes)


class Clock:
    """A time that moves only when a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
