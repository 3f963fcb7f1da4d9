"""How a budget is divided, and the forecast of what it takes."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nanochat_tct.tuning.budget import (
    EVALUATIONS,
    FINAL_EVALUATIONS,
    FORWARD,
    MIN_ITERS,
    Prices,
    affordable_eval_iters,
    final_iters,
    final_windows,
    least_budget,
    make_plan,
    unit_name,
)
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.records import Plan
from nanochat_tct.tuning.scheduler import Scheduler
from nanochat_tct.tuning.table import Forecast, make_forecast
from tests.tuning.test_sweep import finish, make_sweep

CONFIG = SweepConfig(budget_flops=1e12, sizes=["1x32", "2x64"], num_rates=3)
ROW = {"1x32": 1e6, "2x64": 3e6}  # FLOPs of a window
GLOBAL_BATCH = 4


def prices_of(row: float) -> Prices:
    return Prices(0, 4 * row, GLOBAL_BATCH * row, row * FORWARD, 0)


PRICES = {size: prices_of(row) for size, row in ROW.items()}


def plan_for(budget: float, validation_windows: int) -> Plan:
    return make_plan(CONFIG, CONFIG.sweep_share * int(budget), PRICES, GLOBAL_BATCH, validation_windows)


@given(st.floats(1e9, 1e15), st.integers(1, 100_000))
def test_trials_are_measured_on_as_much_as_their_money_buys(budget: float, validation_windows: int) -> None:
    windows = min(GLOBAL_BATCH, validation_windows)
    number = len(PRICES) * CONFIG.trials_of_a_size
    assume(budget >= least_budget(CONFIG, number, PRICES.values(), PRICES.values(), windows, 0))
    plan = plan_for(budget, validation_windows)
    assert min(plan.iters.values()) >= MIN_ITERS
    for size, price in PRICES.items():
        assert price.of(plan.iters[size], plan.windows) <= plan.money
    share = EVALUATIONS * plan.windows * PRICES["2x64"].window / plan.money
    if plan.windows < validation_windows:
        assert plan.whole_windows == validation_windows and plan.windows == plan.eval_iters * GLOBAL_BATCH
        assert share <= (0.1 if plan.windows > 64 else 0.25) or plan.eval_iters == 1
        is_short = min(plan.iters.values()) < 1.5 * MIN_ITERS
        assert plan.windows >= 64 or share > 0.2 or is_short
    else:
        assert plan.windows == validation_windows and plan.eval_iters == plan.whole_windows == 0


@given(st.floats(1e10, 1e14), st.floats(1.0, 100.0), st.integers(1, 100_000))
def test_measuring_the_whole_split_takes_five_percent_of_the_final_run(
    money: float, row: float, split: int
) -> None:
    price, plan = prices_of(row * 1e5), Plan(1e9, {}, 16, 64, split)
    windows = final_windows(price, money, plan)
    assert windows in (0, split) or 64 < windows < split
    assert windows * price.window <= 0.05 * money * (1 + 1e-9)
    assert windows == split or (max(windows, 64) + 1) * price.window > 0.05 * money
    iters = final_iters(price, money, plan)
    cost = price.of(iters, 64, FINAL_EVALUATIONS) + windows * price.window
    assert iters == 0 or cost <= money < cost + price.iter


def test_trials_that_take_the_whole_split_leave_nothing_to_measure() -> None:
    assert final_windows(PRICES["1x32"], 1e12, plan_for(1e12, 30)) == 0


@given(st.integers(1, 100_000), st.integers(1, 512), st.integers(1, 10**6))
def test_the_best_config_evaluates_for_five_percent_of_its_training(
    max_iters: int, global_batch: int, split: int
) -> None:
    eval_iters = affordable_eval_iters(max_iters, global_batch, split, least=1)
    windows = min(split, eval_iters * global_batch or split)
    assert (eval_iters == 0) == (windows == split)
    cost = FINAL_EVALUATIONS * windows * FORWARD
    assert windows <= global_batch or cost <= 0.05 * max_iters * global_batch * (1 + 1e-9)


def test_the_forecast_counts_starts_evaluations_and_the_whole_budget(tmp_path: Path) -> None:
    def probed(folder: Path, start_up: float = 8.0, slots: int = 1) -> tuple[Scheduler, Plan, Forecast]:
        sweep = make_sweep(folder, follow_up_share=0.3)
        for _ in sweep.sizes:
            finish(sweep, str(sweep.next_trial(set())), start_up=start_up)
        sweep.slots, sweep.validation_windows = slots, 1000
        plan = sweep.make_plan()
        return sweep, plan, make_forecast(sweep, plan)

    sweep, plan, forecast = probed(tmp_path / "two", slots=2)
    rows = {row.name: row for row in forecast.rows}
    for size in sweep.sizes:
        seconds = sweep.seconds(size)
        assert seconds is not None
        one = seconds.of(plan.iters[size], plan.windows)
        assert rows[size].seconds == pytest.approx(3 * one / 2) and one > 8
        whole = rows[f"final run, if {size}"].quanta + forecast.rows[-1].quanta
        assert whole == pytest.approx(0.7 * sweep.ledger.terms.capacity, rel=0.05)
    swept = sum(row.quanta for row in forecast.rows[:4])
    assert swept == pytest.approx(0.3 * sweep.ledger.terms.capacity, rel=0.01)
    measured = [row for row in forecast.rows if row.name == "  whole split"]
    split = pytest.approx(0.001 * sweep.validation_windows)
    assert len(measured) == 2 and all(row.seconds == split for row in measured)
    _, _, one_at_a_time = probed(tmp_path / "one")
    assert one_at_a_time.lasts.sweep > 1.3 * forecast.lasts.sweep
    assert min(one_at_a_time.lasts.final.values()) > 8 + 1.5 * (min(forecast.lasts.final.values()) - 8)
    _, _, slow = probed(tmp_path / "slow", start_up=108.0)
    assert slow.lasts.sweep - one_at_a_time.lasts.sweep > 6 * 100


def test_without_gpus_there_are_no_hours_of_gpus() -> None:
    assert [unit_name("gpu_hours", use_gpu) for use_gpu in (True, False)] == ["GPU-hours", "worker-hours"]
