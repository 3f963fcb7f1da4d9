"""What a sweep does next, from its ledger alone; the trials here are settled without training."""

import math
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.config import parse_arguments
from nanochat_tct.errors import UserError
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.micro_batch import warm_up_rows
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.prices import FINAL_EVALUATIONS, Prices
from nanochat_tct.tuning.records import trial_rows
from nanochat_tct.tuning.sweep import Sweep, spread
from nanochat_tct.tuning.tune import prepare
from tests.tuning.sweeps import sweep_arguments


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    arguments = sweep_arguments(
        folder, **{"num_rates": 3, "budget_flops": 1e12, "follow_up_share": 0.6, **changes}
    )
    return prepare(parse_arguments(SweepConfig, arguments, "tune", ""))[0]


def bits_of(trial: str, ledger: Ledger, best: float) -> float:
    """A loss that is least at the rate `best`, and falls with tokens."""
    settings = ledger.accounts[trial].settings
    config = settings["config"]
    off = math.log(config["learning_rate"] / best)
    tokens = settings["iters"] * settings["iter_tokens"]
    values = 0.2 * config["dropout"] + 0.03 * (config["optimizer"] == "muon")
    return 1.0 + 0.03 * off**2 + 20 / tokens**0.5 + values


def finish(sweep: Sweep, trial: str, best: float = 0.03, status: str = "finished") -> None:
    """Charge what a trial would cost, and settle it."""
    ledger, account = sweep.ledger, sweep.ledger.accounts[trial]
    seconds = {"start_up": 8.0, "warm_up": 0.1, "iter": 0.02, "window": 0.001, "checkpoint": 0.1}
    iters = account.settings["iters"]
    result = {"status": status, "tokens": iters * sweep.iter_tokens, "seconds": seconds}
    if ledger.terms.unit == "flops":
        ledger.charge(trial, "train", account.left)
    else:
        ledger.charge_until(trial, ledger.clock() + 8 + 0.03 * iters)
    ledger.settle(trial, {**result, "bits_per_byte": bits_of(trial, ledger, best)})


def run_all(sweep: Sweep, best: float = 0.03) -> list[str]:
    """All trials, one at a time, to the end of the sweep."""
    names: list[str] = []
    while isinstance(name := sweep.next_trial(set()), str):
        names.append(name)
        finish(sweep, name, best)
        assert len(names) < 40
    assert name is False
    return names


def test_probes_then_trials_then_follow_ups_then_one_final_run(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    names = run_all(sweep)
    assert names[:2] == ["probe-00-1x32", "probe-01-2x32"]
    trials = {trial.trial: trial for trial in trial_rows(sweep.ledger)}
    first = [trials[name] for name in names[2:8]]
    assert {(trial.size, trial.learning_rate) for trial in first} == {
        (size, rate) for size in ("1x32", "2x32") for rate in (0.0075, 0.03, 0.12)
    }
    flops = [trial.flops for trial in first]
    assert max(flops) / min(flops) < 1.05  # equal money
    longer = [trials[name] for name in names[8:-1]]
    assert longer and all(trial.purpose == "sweep" for trial in longer)
    assert all(trial.planned_tokens > 1.5 * first[0].planned_tokens for trial in longer)
    assert names[-1].startswith("final-00-")
    final = trials[names[-1]]
    assert final.learning_rate == pytest.approx(0.03, rel=0.5)
    budget = sweep.ledger.terms.capacity
    spent_before = sum(trial.flops for trial in trials.values()) - final.flops
    assert spent_before <= sweep.config.sweep_share * budget
    assert 0.95 * budget <= sweep.ledger.spent <= budget
    assert final.planned_tokens > 10 * first[0].planned_tokens


def test_a_final_run_on_more_workers_can_pay_for_its_last_iter(tmp_path: Path) -> None:
    """Each worker warms up: were one row of that forgotten, the last iter and the last evaluation might not come."""
    sweep = make_sweep(tmp_path)
    final = sweep.ledger.accounts[run_all(sweep)[-1]]
    config = TrainConfig(**final.settings["config"])
    assert config.num_workers == 2 > sweep.base.num_workers
    rows = warm_up_rows(config, config.num_workers, config.global_batch)
    assert rows > warm_up_rows(sweep.base, sweep.base.num_workers, config.global_batch)
    prices, plan = Prices(**final.settings["prices"]), sweep.make_plan()
    assert prices.warm_up == rows * sweep.sizes[final.settings["size"]].row_flops
    evaluations = FINAL_EVALUATIONS * plan.windows
    cost = prices.of(config.max_iters, evaluations, FINAL_EVALUATIONS) + plan.whole_windows * prices.window
    assert cost <= final.reserve < cost + prices.iter


def test_a_best_rate_at_the_edge_widens_the_range(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], budget_flops=1e12)
    run_all(sweep, best=0.3)
    rates = [trial.learning_rate for trial in sweep.trials()]
    assert 0.48 in rates  # 0.12 was the highest, a factor of 4 above the next
    assert max(rates) <= 0.48 * 4


def test_it_goes_on_from_its_ledger_alone(tmp_path: Path) -> None:
    whole = make_sweep(tmp_path / "whole")
    expected = run_all(whole)
    sweep = make_sweep(tmp_path / "cut")
    for index, name in enumerate(expected):
        assert sweep.next_trial(set()) == name
        sweep = make_sweep(tmp_path / "cut")  # as after a kill
        assert sweep.next_trial(set()) == name  # still open
        finish(sweep, name)
        if index % 3 == 0:
            sweep = make_sweep(tmp_path / "cut")
    assert sweep.next_trial(set()) is False
    rows = [[(t.trial, t.learning_rate, t.flops) for t in trial_rows(s.ledger)] for s in (whole, sweep)]
    assert rows[0] == rows[1]


def test_running_trials_are_waited_for(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2)
    probe = sweep.next_trial(set())
    assert isinstance(probe, str) and sweep.next_trial({probe}) is None
    finish(sweep, probe)
    one = sweep.next_trial(set())
    two = sweep.next_trial({str(one)})
    assert isinstance(one, str) and isinstance(two, str)
    assert sweep.next_trial({one, two}) is None
    finish(sweep, one)
    assert sweep.next_trial({two}) is None  # what it finds decides what comes next


def test_a_budget_of_time_is_planned_from_the_probes(tmp_path: Path) -> None:
    changes = {"budget_flops": None, "budget_usd": 1.0, "gpu_hourly_usd": 1.8}  # 2,000 seconds of a worker
    sweep = make_sweep(tmp_path, **changes)
    for _ in range(2):
        finish(sweep, str(sweep.next_trial(set())))
    plan = sweep.make_plan()
    sweep_seconds = 0.3 * 2000 - 2 * (8 + 0.3)
    each = 0.4 * sweep_seconds / 6
    assert plan.iters["1x32"] == pytest.approx((each - 8.5 - 3 * plan.windows * 0.001) / 0.02, abs=2)
    assert sweep.next_trial(set()) is not None
    assert sweep.ledger.free >= 0


def test_all_trials_bad_is_said(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=1)
    finish(sweep, str(sweep.next_trial(set())))
    finish(sweep, str(sweep.next_trial(set())), status="stopped")
    with pytest.raises(UserError, match="no trial came to its end"):
        sweep.next_trial(set())


def test_optuna_suggests_size_and_rate(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    sweep = make_sweep(tmp_path, search="optuna", num_rates=4)
    run_all(sweep)
    first = sweep.trials()[:8]
    assert {trial.size for trial in first} == {"1x32", "2x32"}
    assert len({trial.learning_rate for trial in first}) == 8
    assert all(0.0075 <= trial.learning_rate <= 0.12 for trial in first)


VARY = ["dropout=0.3,0", "optimizer=muon,adamw"]  # the worse ones first


def test_other_settings_are_varied_and_chosen(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2, vary=VARY)
    probe, *names = run_all(sweep)
    rows = {trial.trial: trial for trial in trial_rows(sweep.ledger)}
    assert (rows[probe].dropout, rows[probe].optimizer) == (0.3, "muon")
    first = [rows[name] for name in names[:6]]
    assert [(trial.learning_rate, trial.dropout, trial.optimizer) for trial in first] == [
        (rate, *values)
        for values in ((0.3, "muon"), (0.0, "muon"), (0.3, "adamw"))
        for rate in (0.0075, 0.12)
    ]
    left = sweep.config.sweep_share * sweep.ledger.terms.capacity - sweep.spent_on("probe", "idle")
    assert sweep.make_plan().money == pytest.approx(0.4 * left / 6)
    longer = [rows[name] for name in names[6:] if rows[name].planned_tokens > 1.5 * first[0].planned_tokens]
    assert {trial.purpose for trial in longer} == {"sweep", "final"}
    for trial in longer:  # values that were not together before
        assert (trial.dropout, trial.optimizer, trial.weight_decay) == (0.0, "adamw", None)
        assert (
            sweep.ledger.accounts[trial.trial].settings["config"]["weight_decay"] == 0.1
        )  # as adamw derives it
    assert sweep.ledger.notes["choice"]["varied"] == {"dropout": 0.0, "optimizer": "adamw"}
    assert "dropout 0, optimizer adamw" in sweep.ledger.notes["choice"]["decision"]


@pytest.mark.parametrize("search", ["log-uniform", "optuna"])
def test_other_settings_are_drawn(tmp_path: Path, search: str) -> None:
    if search == "optuna":
        pytest.importorskip("optuna")
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=8, search=search, vary=VARY)
    for _ in range(9):
        finish(sweep, str(sweep.next_trial(set())))
    drawn = {(trial.dropout, trial.optimizer) for trial in sweep.trials()}
    assert len(sweep.trials()) == 8 and len({trial.learning_rate for trial in sweep.trials()}) == 8
    assert {dropout for dropout, _ in drawn} == {0.0, 0.3}
    assert {optimizer for _, optimizer in drawn} == {"muon", "adamw"}
    assert list(sweep.first_trials(sweep.make_plan())) == []


@pytest.mark.parametrize(
    ("batch", "accumulation", "slots", "expected"),
    [(8, 1, 2, (4, 1, 2)), (8, 4, 2, (8, 2, 2)), (7, 1, 2, (7, 1, 1)), (8, 1, 1, (8, 1, 1))],
)
def test_the_final_run_spreads_its_batch(
    batch: int, accumulation: int, slots: int, expected: tuple[int, int, int]
) -> None:
    base = TrainConfig(batch_size=batch, gradient_accumulation=accumulation, num_workers=1)
    wide = spread(base, slots)
    assert (wide.batch_size, wide.gradient_accumulation, wide.num_workers) == expected
    assert wide.global_batch == base.global_batch
