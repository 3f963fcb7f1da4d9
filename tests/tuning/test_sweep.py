"""What a sweep does next, from its ledger alone; the trials here are settled without training."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nanochat_tct.config import parse_arguments
from nanochat_tct.errors import UserError
from nanochat_tct.training.config import ResolvedConfig, TrainConfig, warm_up_rows
from nanochat_tct.tuning.budget import FINAL_EVALUATIONS, Prices
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import LEDGER, Ledger
from nanochat_tct.tuning.records import Choice
from nanochat_tct.tuning.results import make_outcome, trial_rows
from nanochat_tct.tuning.scheduler import Scheduler, spread
from nanochat_tct.tuning.table import show_forecast
from nanochat_tct.tuning.trial import with_length
from nanochat_tct.tuning.tune import prepare
from tests.support.workers import small_store
from tests.tuning.sweeps import sweep_arguments


def make_sweep(folder: Path, **changes: Any) -> Scheduler:
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


def finish(
    sweep: Scheduler,
    trial: str,
    best: float = 0.03,
    status: str = "finished",
    bits: float | None = None,
    start_up: float = 8.0,
) -> None:
    """Charge what a trial would cost, and settle it with a loss, that of `bits_of` where none is given."""
    ledger, account = sweep.ledger, sweep.ledger.accounts[trial]
    seconds = {"start_up": start_up, "warm_up": 0.1, "iter": 0.02, "window": 0.001, "checkpoint": 0.1}
    iters = account.settings["iters"]
    result = {"status": status, "tokens": iters * account.settings["iter_tokens"], "seconds": seconds}
    if ledger.terms.unit == "flops":
        ledger.charge(trial, "train", account.left)
    else:
        ledger.charge_until(trial, ledger.clock() + 8 + 0.03 * iters)
    ledger.settle(trial, {**result, "bits_per_byte": bits or bits_of(trial, ledger, best)})


def choice_of(sweep: Scheduler) -> Choice:
    choice = sweep.ledger.latest(Choice)
    assert choice is not None
    return choice


def run_all(sweep: Scheduler, best: float = 0.03) -> list[str]:
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
    config = ResolvedConfig(**final.settings["config"])
    assert config.num_workers == 2 > sweep.base.num_workers
    rows = warm_up_rows(config, config.num_workers, config.global_batch)
    assert rows > warm_up_rows(sweep.base, sweep.base.num_workers, config.global_batch)
    prices, plan = Prices(**final.settings["prices"]), sweep.make_plan()
    assert prices.warm_up == rows * sweep.sizes[final.settings["size"]].row_flops
    cost = prices.of(config.max_iters, plan.windows, FINAL_EVALUATIONS)
    cost += plan.whole_windows * prices.window
    assert cost <= final.reserve < cost + prices.iter


def test_a_best_rate_at_the_edge_widens_the_range(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], budget_flops=1e12)
    run_all(sweep, best=0.3)
    rates = [trial.learning_rate for trial in sweep.trials()]
    assert 0.36 in rates  # 0.12 was the highest
    assert max(rates) <= 0.36 * 3


def test_a_lowest_loss_at_an_edge_alone_does_not_widen_the_range(tmp_path: Path) -> None:
    """Of two rates that are as good as each other by all one can tell, the best lies between them."""
    sweep = make_sweep(tmp_path, sizes=["1x32"], budget_flops=1e12)
    finish(sweep, str(sweep.next_trial(set())))
    for bits in (1.2, 1.202, 1.35):
        finish(sweep, str(sweep.next_trial(set())), bits=bits)
    run_all(sweep)
    assert min(trial.learning_rate for trial in sweep.trials()) == 0.0075


def test_a_hopeless_size_gets_no_more_trials(tmp_path: Path) -> None:
    """Neither a rate beyond its edge, where its best one is, nor a longer run."""
    sweep = make_sweep(tmp_path, sizes=["1x32", "4x128"], add_sizes=["4x128"], budget_flops=6e12)
    names: list[str] = []
    while isinstance(name := sweep.next_trial(set()), str):
        names.append(name)
        level, best = (1.3, 0.5) if name.endswith("1x32") else (1.0, 0.0075)
        rate = sweep.ledger.accounts[name].settings["config"]["learning_rate"]
        finish(sweep, name, bits=level + 0.03 * math.log(rate / best) ** 2)
    follow_ups = names[8:]
    assert len(follow_ups) > 1 and all(name.endswith("4x128") for name in follow_ups)


def test_a_size_far_from_the_rule_of_thumb_gets_no_trials(tmp_path: Path) -> None:
    """Where another is near it; the line that says so names what tries it nevertheless."""
    changes = {"sizes": ["1x32", "4x128"], "budget_flops": 6e12}
    sweep = make_sweep(tmp_path / "left-out", **changes)
    assert {sweep.ledger.accounts[name].settings["size"] for name in run_all(sweep)[2:]} == {"1x32"}
    console = Console(file=io.StringIO(), width=300)
    show_forecast(sweep, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "size 4x128 gets no trials: its final run would see 0.13 tokens a parameter" in shown
    sweep = make_sweep(tmp_path / "added", **changes, add_sizes=["4x128"])
    assert {trial.size for trial in sweep.trials()} == set()
    run_all(sweep)
    assert {trial.size for trial in sweep.trials()} == {"1x32", "4x128"}
    small = make_sweep(tmp_path / "small", sizes=["2x64", "4x128"], budget_flops=1.5e12)
    assert small.contenders() == ["2x64", "4x128"]  # as none is near


def test_longer_runs_of_two_sizes_share_the_money(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget_flops=3e12)
    names = run_all(sweep)
    longer = [trial for trial in trial_rows(sweep.ledger) if trial.trial in names[8:-1]]
    assert [trial.size for trial in longer] in (["1x32", "2x32"], ["2x32", "1x32"])
    least, most = sorted(trial.flops for trial in longer)
    assert most < 1.05 * least and least > 4 * sweep.make_plan().money


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
    assert choice_of(sweep).varied == {"dropout": 0.0, "optimizer": "adamw"}
    assert "dropout 0, optimizer adamw" in choice_of(sweep).decision


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


# ----------------------------------------------------------------------------- the least budget

UNITS: list[dict[str, Any]] = [
    {"budget_flops": 1e9},
    {"budget_flops": None, "budget_usd": 1e-3, "gpu_hourly_usd": 1.8},
    {"budget_flops": None, "budget_gpu_hours": 1e-3},
]


def named_in(error: pytest.ExceptionInfo[UserError]) -> float:
    """The budget that a refusal asks for."""
    message = str(error.value)
    assert "is too small" in message and "\n" not in message
    return float(message.split(" at least")[0].split()[-1])


@pytest.mark.parametrize("budget", UNITS, ids=["flops", "usd", "hours"])
def test_the_least_budget_that_it_names_buys_a_model(tmp_path: Path, budget: dict[str, Any]) -> None:
    """Before anything is spent; of a budget in time, whose prices are measured, once more after the probes."""
    (name,) = (name for name, value in budget.items() if value and name.startswith("budget"))
    changes = {"sizes": ["1x32"], "num_rates": 2, "follow_up_share": 0.3, **budget}
    with pytest.raises(UserError) as error:
        make_sweep(tmp_path, **changes)
    assert not (tmp_path / "sweep").exists()
    changes[name] = named_in(error)
    sweep = make_sweep(tmp_path, **changes)
    try:
        run_all(sweep)
    except UserError:
        assert name != "budget_flops", "all was known before the probes"
        with pytest.raises(UserError) as error:
            sweep.next_trial(set())
        assert 0 < sweep.ledger.spent < sweep.ledger.terms.capacity
        changes[name] = named_in(error)
        sweep = make_sweep(tmp_path, **changes)
        run_all(sweep)
    finals = [trial for trial in trial_rows(sweep.ledger) if trial.purpose == "final"]
    assert len(finals) == 1 and finals[0].tokens > 0
    assert sweep.ledger.spent <= sweep.ledger.terms.capacity


def test_a_probe_that_its_share_does_not_buy_is_tried_again_with_a_higher_budget(tmp_path: Path) -> None:
    changes = {"sizes": ["1x32"], "budget_flops": None, "budget_gpu_hours": 0.1, "num_rates": 2}
    sweep = make_sweep(tmp_path, **changes)
    name = str(sweep.next_trial(set()))
    sweep.ledger.settle(name, {"status": "cut", "why": "its reserve is used up", "bits_per_byte": None})
    for _ in range(2):  # the same command says the same
        with pytest.raises(UserError, match="size 1x32 could not be measured in its share of that") as error:
            make_sweep(tmp_path, **changes).next_trial(set())
    changes["budget_gpu_hours"] = named_in(error)
    sweep = make_sweep(tmp_path, **changes)
    reserve = sweep.ledger.accounts[name].reserve
    assert run_all(sweep)[0] == "probe-01-1x32"
    assert sweep.ledger.accounts["probe-01-1x32"].reserve >= 2 * reserve


# ----------------------------------------------------------------------------- a sweep that is continued

SMALL: dict[str, Any] = {"sizes": ["1x32"], "num_rates": 2, "follow_up_share": 0.3, "budget_flops": 3e11}


def test_a_finished_sweep_goes_on_with_a_higher_budget_sizes_and_rates(tmp_path: Path) -> None:
    first = make_sweep(tmp_path, **SMALL)
    before = run_all(first)
    money = first.make_plan().money
    with pytest.raises(UserError, match="can be raised, not lowered to 2e\\+11"):
        make_sweep(tmp_path, **SMALL | {"budget_flops": 2e11})
    with pytest.raises(UserError, match="with the 3e") as error:  # its money is spent
        make_sweep(tmp_path, **SMALL, add_sizes=["2x32"], add_rates=[0.05])
    least = named_in(error)
    assert Ledger(first.folder).terms == first.ledger.terms, "a refusal leaves nothing behind"
    changes = SMALL | {"budget_flops": 2 * least, "add_sizes": ["2x32"], "add_rates": [0.05]}
    sweep = make_sweep(tmp_path, **changes)
    assert (sweep.round, list(sweep.sizes)) == (1, ["1x32", "2x32"])
    names = run_all(sweep)
    assert names[0] == "probe-01-2x32" and names[-1].startswith("final-01-") and before[-1] == "final-00-1x32"
    rows = {trial.trial: trial for trial in trial_rows(sweep.ledger)}
    tried = [(rows[name].size, rows[name].learning_rate) for name in names[1:5]]
    assert tried == [("2x32", 0.0075), ("2x32", 0.12), ("1x32", 0.05), ("2x32", 0.05)]
    plan = sweep.make_plan()
    assert plan.money <= money and plan.windows == first.make_plan().windows
    assert rows[before[-1]].tokens in [trial.tokens for trial in sweep.trials()], "it is evidence now"
    assert sweep.ledger.spent <= sweep.ledger.terms.capacity
    assert sweep.ledger.spent > 0.95 * sweep.ledger.terms.capacity
    # The same command, and one that does not repeat what was added, have nothing left to do.
    for again in (changes, SMALL | {"budget_flops": 2 * least}):
        done = make_sweep(tmp_path, **again)
        assert done.next_trial(set()) is False and (done.round, len(done.sizes)) == (1, 2)
    outcome = make_outcome(done.ledger)
    assert outcome.size == rows[names[-1]].size and outcome.actual == rows[names[-1]].bits_per_byte


def test_a_higher_budget_alone_buys_longer_runs(tmp_path: Path) -> None:
    longest = max(
        trial.planned_tokens
        for trial in trial_rows(run_to_the_end(tmp_path, **SMALL).ledger)
        if trial.purpose
    )
    sweep = run_to_the_end(tmp_path, **SMALL | {"budget_flops": 3e12})
    names = [
        trial.trial for trial in trial_rows(sweep.ledger) if sweep.ledger.accounts[trial.trial].round == 1
    ]
    assert not any(name.startswith("probe") for name in names) and names[-1] == "final-01-1x32"
    final = next(trial for trial in trial_rows(sweep.ledger) if trial.trial == names[-1])
    assert final.planned_tokens > 4 * longest


def run_to_the_end(folder: Path, **changes: Any) -> Scheduler:
    sweep = make_sweep(folder, **changes)
    run_all(sweep)
    return sweep


def test_a_sweep_that_is_not_done_is_continued_too(tmp_path: Path) -> None:
    """It goes on with the trial that was open, and divides all the money that the final run has not had."""
    sweep = make_sweep(tmp_path, **SMALL)
    for _ in range(2):
        finish(sweep, str(sweep.next_trial(set())))
    name = sweep.next_trial(set())
    sweep = make_sweep(tmp_path, **SMALL | {"budget_flops": 6e11})
    assert sweep.round == 1 and sweep.next_trial(set()) == name
    names = run_all(sweep)
    assert [name.split("-")[0] for name in names].count("final") == 1 and names[-1] == "final-00-1x32"
    assert 0.95 * 6e11 < sweep.ledger.spent <= 6e11


def test_repeats_measure_the_noise(tmp_path: Path) -> None:
    sweep = run_to_the_end(tmp_path, **SMALL, repeats=2)
    first = [trial for trial in sweep.trials() if trial.planned_tokens == sweep.trials()[0].planned_tokens]
    assert [(trial.learning_rate, trial.seed) for trial in first[:4]] == [
        (rate, seed) for rate in (0.0075, 0.12) for seed in (0, 1)
    ]
    assert len({trial.trial for trial in first}) == len(first)
    more = make_sweep(tmp_path, **SMALL | {"repeats": 3, "budget_flops": 9e11})
    finish(more, name := str(more.next_trial(set())))
    assert {t.trial: t for t in trial_rows(more.ledger)}[name].seed == 2


def test_other_sweeps_are_evidence(tmp_path: Path) -> None:
    """Trials that are long enough are not made again; shorter ones say where rates are tried."""
    run_to_the_end(tmp_path, **SMALL)
    (tmp_path / "sweep").rename(tmp_path / "before")
    same = make_sweep(tmp_path, **SMALL, **{"from": [str(tmp_path / "before")]})
    assert len(same.evidence()) >= 3 and {trial.source for trial in same.evidence()} == {
        str(tmp_path / "before")
    }
    finish(same, str(same.next_trial(set())))
    assert same.points_left(same.make_plan()) == []
    names = run_all(same)
    assert names[-1] == "final-00-1x32"
    (tmp_path / "sweep").rename(tmp_path / "second")
    longer = make_sweep(
        tmp_path,
        **SMALL | {"budget_flops": 3e13},
        **{"from": [str(tmp_path / "before"), str(tmp_path / "second")]},
    )
    finish(longer, str(longer.next_trial(set())))
    longer.make_plan()
    centre = longer.centres()["1x32"]
    assert centre != 0.03 and 0.01 < centre < 0.1
    assert make_outcome(longer.ledger).spent == longer.ledger.spent, "evidence costs nothing"


def as_of_an_earlier_version(folder: Path) -> None:
    """A ledger whose trials do not say how many windows the validation split has."""
    content = (folder / LEDGER).read_text()
    assert '"validation_windows"' in content
    (folder / LEDGER).write_text(content.replace('"validation_windows"', '"left_out"'))


def test_trials_that_were_measured_on_other_windows_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, **SMALL)
    finish(sweep, str(sweep.next_trial(set())))
    as_of_an_earlier_version(sweep.folder)
    sweep = make_sweep(tmp_path, **SMALL)  # probes measure no loss
    finish(sweep, str(sweep.next_trial(set())))
    as_of_an_earlier_version(sweep.folder)
    with pytest.raises(UserError, match="begun with an earlier version, which measured"):
        make_sweep(tmp_path, **SMALL)
    sweep = make_sweep(tmp_path, **SMALL, fresh=True)
    run_all(sweep)
    as_of_an_earlier_version(sweep.folder)
    assert make_sweep(tmp_path, **SMALL).next_trial(set()) is False, "one that is done can be read"
    with pytest.raises(UserError, match="earlier version"):
        make_sweep(tmp_path, **SMALL | {"budget_flops": 9e11})
    (tmp_path / "sweep").rename(tmp_path / "before")
    with pytest.raises(UserError, match="it was measured by an earlier version, on other validation windows"):
        make_sweep(tmp_path, **SMALL, **{"from": [str(tmp_path / "before")]})


def test_evidence_that_cannot_be_compared_is_refused_by_name(tmp_path: Path) -> None:
    run_to_the_end(tmp_path, **SMALL)
    (tmp_path / "sweep").rename(tmp_path / "before")
    from_before = {"from": [str(tmp_path / "before")]}
    for changes, message in (
        ({"sizes": ["2x32"]}, "size 1x32 is none of --sizes 2x32"),
        ({"context_size": 16}, "context_size is 32 there, not 16"),
        ({"dropout": 0.2}, "dropout is 0.0 there, not 0.2"),
        ({"batch_size": 8}, "global_batch is 4 there, not 8"),
        ({"vary": ["dropout=0.1,0.2"]}, "dropout is 0.0 there, which --vary does not have"),
        ({"from": [str(tmp_path)]}, "holds no sweep"),
    ):
        with pytest.raises(UserError, match=message):
            make_sweep(tmp_path, **SMALL | from_before | changes)
    small_store(tmp_path / "other", count=20)
    arguments = sweep_arguments(tmp_path, **SMALL, **from_before)
    arguments[1] = str(tmp_path / "other")
    with pytest.raises(UserError, match="it was run on other data"):
        prepare(parse_arguments(SweepConfig, arguments, "tune", ""))
    assert not (tmp_path / "sweep").exists()


# ----------------------------------------------------------------------------- what else is varied


def test_a_global_batch_is_compared_at_equal_cost(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path, sizes=["1x32"], num_rates=1, vary=["global_batch=4,16,6"], follow_up_share=0.1
    )
    run_all(sweep)
    first = sweep.trials()[:3]
    assert [trial.global_batch for trial in first] == [4, 16, 6]
    assert max(t.flops for t in first) / min(t.flops for t in first) < 1.05
    assert max(t.tokens for t in first) / min(t.tokens for t in first) < 1.2
    for trial in first:
        config = sweep.ledger.accounts[trial.trial].settings["config"]
        assert config["batch_size"] * config["gradient_accumulation"] == trial.global_batch
        assert config["batch_size"] <= 4
    final = sweep.ledger.accounts[next(reversed(sweep.ledger.accounts))].settings
    assert TrainConfig(**final["config"]).global_batch == choice_of(sweep).varied["global_batch"]


def test_a_global_batch_is_measured_at_both_ends_where_the_budget_is_in_time(tmp_path: Path) -> None:
    changes = {"budget_flops": None, "budget_usd": 5.0, "gpu_hourly_usd": 1.8, "sizes": ["1x32"]}
    sweep = make_sweep(tmp_path, **changes, vary=["global_batch=4..32"])
    for batch, seconds in ((32, 0.08), (4, 0.02)):
        name = str(sweep.next_trial(set()))
        assert TrainConfig(**sweep.ledger.accounts[name].settings["config"]).global_batch == batch
        prices = {"start_up": 8.0, "warm_up": 0.1, "iter": seconds, "window": 0.001, "checkpoint": 0.1}
        sweep.ledger.settle(
            name, {"status": "finished", "tokens": 1, "bits_per_byte": 2.0, "seconds": prices}
        )
    assert sweep.prices("1x32", varied={"global_batch": 18}).iter == pytest.approx(0.05e6)
    assert sweep.is_probed


def test_shares_of_warm_up_and_least_rate(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path, sizes=["1x32"], num_rates=1, vary=["warmup_share=0.2,0.5", "min_lr_share=0,0.5"]
    )
    run_all(sweep)
    values = [(0.2, 0.0), (0.5, 0.0), (0.2, 0.5)]
    for trial, (warmup, least) in zip(sweep.trials()[:3], values, strict=True):
        config = ResolvedConfig(**sweep.ledger.accounts[trial.trial].settings["config"])
        assert (trial.warmup_share, trial.min_lr_share) == (warmup, least)
        assert config.warmup_iters == round(warmup * config.max_iters)
        assert config.min_lr == pytest.approx(least * trial.learning_rate)
    final = sweep.ledger.accounts[next(reversed(sweep.ledger.accounts))].settings
    chosen = choice_of(sweep).varied
    shorter = with_length(ResolvedConfig(**final["config"]), 50, final)
    assert shorter.warmup_iters == round(chosen["warmup_share"] * 50)
    assert shorter.min_lr == pytest.approx(chosen["min_lr_share"] * float(shorter.learning_rate or 0))


@pytest.mark.parametrize("search", ["grid", "log-uniform", "optuna"])
def test_ranges(tmp_path: Path, search: str) -> None:
    if search == "optuna":
        pytest.importorskip("optuna")
    vary = ["weight_decay=0.01..1", "dropout=0..0.2", "beta2=0.9..0.999", "global_batch=4..32"]
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=5, search=search, vary=vary, budget_flops=3e13)
    finish(sweep, str(sweep.next_trial(set())))
    for _ in range(5 if search != "grid" else 5 * 9):
        finish(sweep, str(sweep.next_trial(set())))
    trials = sweep.trials()
    assert next(iter(sweep.first_trials(sweep.make_plan())), None) is None
    decays = {trial.weight_decay for trial in trials}
    assert all(0.01 <= float(decay or 0) <= 1 for decay in decays)
    assert {trial.global_batch for trial in trials} <= {4, 8, 16, 32}
    if search == "grid":
        assert decays == {0.01, 0.1, 1.0} and {t.dropout for t in trials} == {0.0, 0.1, 0.2}
        assert {trial.beta2 for trial in trials} == {0.9, 0.99, 0.999}
        return
    assert len(decays) == 5 and len({trial.dropout for trial in trials}) == 5
    if search == "log-uniform":  # one in each fifth
        parts = sorted(int(5 * math.log(float(decay or 0) / 0.01) / math.log(100)) for decay in decays)
        assert parts == [0, 1, 2, 3, 4]
