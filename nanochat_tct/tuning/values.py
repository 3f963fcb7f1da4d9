"""Values of settings that a sweep varies: lists, and ranges `LOW..HIGH`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat_tct.errors import UserError

# How values lie in a range: evenly themselves, in the logarithm of their distance from 1, or (others) in their own.
LINEAR, TOWARDS_ONE = ("dropout",), ("beta1", "beta2")


@dataclass(frozen=True)
class Range:
    """All values of a setting between two; `at` and `position` map them to positions from 0 to 1 and back."""

    setting: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    def __contains__(self, value: Any) -> bool:
        return value is not None and 0 <= self.position(value) <= 1

    def at(self, position: float) -> Any:
        """The value at a position: of three significant digits, or a global batch of low x 2^k."""
        if self.setting == "global_batch":
            return int(self.low) * 2 ** round(position * math.floor(math.log2(self.high / self.low)))
        low, high = self._scaled(self.low), self._scaled(self.high)
        value = low + position * (high - low)
        if self.setting in TOWARDS_ONE:
            return 1 - rounded(math.exp(value))
        return rounded(math.exp(value) if self._is_log else value)

    def position(self, value: float) -> float:
        """The position of a value; below 0 or above 1 where it is outside."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    @property
    def _is_log(self) -> bool:
        return self.setting not in LINEAR and self.low > 0

    def _scaled(self, value: float) -> float:
        if self.setting not in TOWARDS_ONE and not self._is_log:
            return value
        distance = 1 - value if self.setting in TOWARDS_ONE else value
        return math.log(distance) if distance > 0 else -math.inf


Values = list[Any] | Range  # of a setting that a sweep varies


def read_range(name: str, ends: Sequence[Any], where: str) -> Range:
    """The range between two values of a setting.

    Raises: UserError when the setting has no order, or the ends are not in order.
    """
    low, high = ends
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise UserError(f"{where} takes two or more values, not a range")
    if not low < high or (name == "global_batch" and high < 2 * low):
        least = "twice the first" if name == "global_batch" else "more than the first"
        raise UserError(f"{where} {low:g}..{high:g}: the second number must be {least}")
    return Range(name, low, high)


def middle_values(varied: Mapping[str, Values]) -> dict[str, Any]:
    """What a trial has of each setting when another one is tried: the first value, or the middle of the range."""
    return {name: grid_values(values)[0] for name, values in varied.items()}


def grid_values(values: Values) -> list[Any]:
    """The values that a grid tries of a setting, the one that goes with all others first."""
    if isinstance(values, Range):
        return list(dict.fromkeys(values.at(position) for position in (0.5, 0.0, 1.0)))
    return values


def rounded(rate: float) -> float:
    """Three significant digits: what is shown is what is used."""
    return float(f"{rate:.3g}")
