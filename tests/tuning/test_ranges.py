"""Ranges of values: where their values lie, and what the fit makes of many."""

import math
import random

import pytest

from nanochat_tct.tuning.fit import fit_trials
from nanochat_tct.tuning.space import Range, grid_values, read_range
from tests.tuning.curves import Curve, trial


@pytest.fixture(scope="module")
def quick_fits() -> None:
    """None here."""


@pytest.mark.parametrize(
    ("setting", "low", "high", "middle"),
    [
        ("weight_decay", 0.01, 1.0, 0.1),
        ("weight_decay", 0.0, 1.0, 0.5),
        ("dropout", 0.0, 0.2, 0.1),
        ("beta2", 0.9, 0.999, 0.99),
        ("warmup_share", 0.01, 0.25, 0.05),
        ("global_batch", 4, 64, 16),
        ("global_batch", 6, 50, 24),
    ],
)
def test_values_of_a_range(setting: str, low: float, high: float, middle: float) -> None:
    values = read_range(setting, [low, high], "")
    assert values.at(0.5) == pytest.approx(middle) and values.at(0) == low
    assert values.at(1) == pytest.approx(48 if high == 50 else high)
    for position in (0.0, 0.3, 0.9):
        value = values.at(position)
        assert value in values and isinstance(value, int if setting == "global_batch" else float)
        if setting not in ("global_batch", "beta2"):
            assert values.position(value) == pytest.approx(position, abs=0.01)
    assert not any(value in values for value in (0.9 * low - 0.01, 1.1 * high, None))
    assert len(grid_values(values)) == 3


def test_the_fit_finds_the_best_part_of_a_range() -> None:
    """The truth is a parabola in the logarithm of weight decay; one trial at each of twelve values shows where."""
    curve, best, misses = Curve(noise=0.006), 0.2, []
    for seed in range(4):
        rng = random.Random(seed)
        trials = []
        for index in range(12):
            decay = Range("weight_decay", 0.01, 1.0).at((index + rng.random()) / 12)
            rate, tokens = 0.0075 * 4 ** rng.uniform(-1, 1), 1_000_000
            bits = curve.loss("middle", tokens, rate) * math.exp(0.02 * math.log(decay / best) ** 2)
            bits *= math.exp(curve.noise * rng.gauss(0, 1))
            trials.append(trial("middle", rate, tokens, bits, trial=f"t{index}", weight_decay=decay))
        chosen = fit_trials(trials).best_values["weight_decay"]
        misses.append(abs(math.log(chosen / best)))
    assert max(misses) < math.log(3) and sum(misses) / 4 < math.log(2)
