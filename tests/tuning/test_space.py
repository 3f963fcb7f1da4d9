"""Sizes by name, and learning rates around the rule."""

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.model.config import PRESETS
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.space import first_points, make_size

BASE = TrainConfig()


def shape_of(name: str) -> tuple[int, int, int]:
    shape = make_size(name, BASE, 8192).shape
    return shape.n_layer, shape.n_head, shape.n_embd


def test_a_size_is_a_preset_a_shape_or_a_width() -> None:
    baseline = PRESETS["baseline"]
    assert shape_of("baseline") == (baseline.n_layer, baseline.n_head, baseline.n_embd)
    assert shape_of("6x192") == (6, 6, 192)
    assert shape_of("192") == (8, 6, 192)  # the demo's proportions
    assert shape_of("32") == (1, 1, 32)
    assert make_size("baseline", BASE, 8192).shape.context_size == PRESETS["demo"].context_size


def test_the_sizes_that_are_tried_unasked_are_sizes() -> None:
    config = SweepConfig(budget_flops=1.0)
    shapes = [make_size(name, TrainConfig(**config.train_settings()), 8192) for name in config.sizes]
    assert len({size.parameters for size in shapes}) == 3


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("bseline", "did you mean baseline"),
        ("6x100", "multiple of 32"),
        ("0x32", "size '0x32': a model has 1 layer at least"),
        ("0x64", "1 layer at least"),
        ("0x33", "1 layer at least"),
        ("2x0", "multiple of 32"),
        ("", "not known"),
    ],
)
def test_an_unknown_size_is_named(name: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        make_size(name, BASE, 8192)


def first_rates(search: str, number: int, seed: int = 0) -> list[float]:
    return [rate for rate, _ in first_points("demo", 0.01, search, number, 4, seed, {})]


def test_rates_are_spread_around_the_rule() -> None:
    size = make_size("demo", BASE, 8192)
    assert size.rule_rate == 0.01
    assert first_rates("grid", 3) == [0.0025, 0.01, 0.04]
    assert first_rates("grid", 1) == [0.01]
    drawn = first_rates("log-uniform", 200)
    assert drawn == first_rates("log-uniform", 200) != first_rates("log-uniform", 200, 1)
    assert min(drawn) >= 0.0025 and max(drawn) <= 0.04
    assert 60 < sum(rate < 0.01 for rate in drawn) < 140


def test_a_grid_changes_one_setting_at_a_time() -> None:
    size = make_size("demo", BASE, 8192)
    varied = {"dropout": [0.0, 0.1, 0.2], "optimizer": ["muon", "adamw"]}
    points = first_points("demo", size.rule_rate, "grid", 3, 4, 0, varied)
    rates = [0.0025, 0.01, 0.04]
    values = [(0.0, "muon"), (0.1, "muon"), (0.2, "muon"), (0.0, "adamw")]
    assert [(rate, *varied.values()) for rate, varied in points] == [
        (rate, *some) for some in values for rate in rates
    ]
    assert first_points("demo", size.rule_rate, "grid", 3, 4, 0, {}) == [(rate, {}) for rate in rates]


def test_drawn_values_are_drawn_evenly() -> None:
    size = make_size("demo", BASE, 8192)
    varied = {"dropout": [0.0, 0.1, 0.2], "optimizer": ["muon", "adamw"]}
    points = first_points("demo", size.rule_rate, "log-uniform", 60, 4, 0, varied)
    assert [rate for rate, _ in points] == first_rates("log-uniform", 60)
    for name, values in varied.items():
        assert [sum(some[name] == value for _, some in points) for value in values] == [
            60 / len(values)
        ] * len(values)
    assert len({tuple(some.values()) for _, some in points}) == 6
    assert points != first_points("demo", size.rule_rate, "log-uniform", 60, 4, 1, varied)
    assert len(first_points("demo", size.rule_rate, "log-uniform", 1, 4, 0, varied)) == 1
