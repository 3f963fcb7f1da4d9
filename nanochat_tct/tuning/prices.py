"""What the pieces of a trial cost, in the budget's quanta and in seconds, and how long a trial some money buys."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat_tct.tuning.ledger import MICRO
from nanochat_tct.tuning.space import Size
from nanochat_tct.tuning.trials import Unit

FORWARD = 1 / 3  # of the FLOPs of an iter: evaluation has no backward pass
EVALUATIONS = 3  # of a trial: before, half-way, at the end
FINAL_EVALUATIONS = 6  # of a final run, the one before included


@dataclass(frozen=True)
class Prices:
    """Of the pieces of a run of one size; in quanta, or in seconds."""

    start_up: float  # until workers are there, and until they are gone
    warm_up: float
    iter: float
    window: float  # of evaluation
    checkpoint: float

    def of(self, iters: int, windows: int, evaluations: int = EVALUATIONS) -> float:
        """A whole run, with a checkpoint for each evaluation and one besides.

        Args:
            windows: of all its evaluations together.
        """
        once = self.start_up + self.warm_up + (evaluations + 1) * self.checkpoint
        return once + iters * self.iter + windows * self.window

    def iters(self, money: float, windows: int, evaluations: int = EVALUATIONS) -> int:
        """How many iters a run can have for `money`; 0 when it does not even buy the rest."""
        return max(0, math.floor((money - self.of(0, windows, evaluations)) / self.iter))

    def scaled(self, factor: float) -> "Prices":
        """All prices times a factor."""
        return Prices(*(factor * value for value in vars(self).values()))


def prices_in_flops(size: Size, global_batch: int, warm_up_rows: int) -> Prices:
    """Quanta where the budget is in FLOPs: exact, known before anything runs."""
    row = size.row_flops
    return Prices(0, warm_up_rows * row, global_batch * row, math.ceil(row * FORWARD), 0)


def prices_in_seconds(seconds: Mapping[str, float]) -> Prices:
    """Seconds of a probe (`seconds_of`)."""
    return Prices(**{name: seconds[name] for name in Prices.__dataclass_fields__})


def prices_in_quanta(
    unit: Unit, size: Size, global_batch: int, warm_up_rows: int, workers: int, seconds: Prices
) -> Prices:
    """What is taken from the budget."""
    if unit == "flops":
        return prices_in_flops(size, global_batch, warm_up_rows)
    return seconds.scaled(workers * MICRO)


def seconds_of(marks: Sequence[tuple[str, float]], end: float, opened: float, windows: int) -> dict[str, Any]:
    """Prices in seconds from a run's charges.

    Args:
        marks: (kind, seconds since 1970) of each, in order: a piece lasts until the next one.
        end: of the last piece.
        opened: when the trial was opened.
        windows: of one evaluation.
    """
    ends = [time for _, time in marks[1:]] + [end]
    lasted: dict[str, list[float]] = {}
    for (kind, start), stop in zip(marks, ends, strict=True):
        lasted.setdefault(kind, []).append(stop - start)

    def typical(kind: str) -> float:
        values = sorted(lasted.get(kind, [0.0])[1 if len(lasted.get(kind, [])) > 2 else 0 :])
        return values[len(values) // 2]

    return {
        "start_up": marks[0][1] - opened,
        "warm_up": typical("warm_up"),
        "iter": typical("train"),
        "window": typical("evaluation") / windows,
        "checkpoint": typical("checkpoint"),
    }
