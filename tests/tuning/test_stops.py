"""Sweeps on a budget of time that are stopped in each phase: all end with a model, and the money goes into training."""

import io
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nanochat_tct.model import checkpoint
from nanochat_tct.training.signals import StopSignals
from nanochat_tct.tuning.budget import MICRO, Terms
from nanochat_tct.tuning.ledger import LEDGER, START_UP, Ledger
from nanochat_tct.tuning.meter import OUT_OF_MONEY, RESIZE, IdleMeter, WorkerCharger, WorkerMeter
from nanochat_tct.tuning.records import OUTCOME, Choice
from nanochat_tct.tuning.scheduler import RESERVE, Scheduler
from nanochat_tct.tuning.table import show_forecast
from nanochat_tct.tuning.trial import Losers, covers_rest, fit_length
from tests.support.commands import run_python
from tests.tuning.curves import Clock
from tests.tuning.sweeps import open_ledger, sweep_arguments
from tests.tuning.test_kills import RunningSweep, wait_until
from tests.tuning.test_sweep import finish, make_sweep

SMALL: dict[str, Any] = {
    "sizes": ["1x32"],
    "num_rates": 2,
    "follow_up_share": 0.6,
    "budget_flops": None,
    "gpu_hourly_usd": 3600.0,  # a dollar buys a second
}
FIRST_TRIALS = 2
MOST_DELAY = 2.5  # beyond that a test lasts too long


def is_open(ledger: Ledger, purpose: str, least: int, *kinds: str) -> bool:
    """So many trials of a purpose are open, and their workers do what is asked for."""
    found = [
        account
        for account in ledger.accounts.values()
        if account.is_open and account.purpose == purpose and account.kind in kinds and account.charged
    ]
    return len(found) >= least


def begun(ledger: Ledger) -> int:
    return sum(account.purpose == "sweep" for account in ledger.accounts.values())


def starts(ledger: Ledger) -> bool:
    """Workers start, and are charged for it just now."""
    last = ledger.entries[-1] if ledger.entries else None
    return last is not None and last.kind == START_UP and ledger.clock() - last.time < 1


PHASES: dict[str, Callable[[Ledger, int], bool]] = {
    "start-up": lambda ledger, slots: starts(ledger),
    "probe": lambda ledger, slots: is_open(ledger, "probe", 1, "train", "warm_up", START_UP),
    "first trials": lambda ledger, slots: begun(ledger) >= slots and is_open(ledger, "sweep", 1, "train"),
    "follow-up": lambda ledger, slots: begun(ledger) > FIRST_TRIALS and is_open(ledger, "sweep", 1, "train"),
    "final run": lambda ledger, slots: is_open(ledger, "final", 1, "train"),
}


def delay() -> float:
    """How many times as long as on a quiet machine things take here: what a worker imports, by clock and by CPU."""
    began, before = time.monotonic(), os.times()
    subprocess.run([sys.executable, "-c", "import ray.train.torch, torch"], check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return min(MOST_DELAY, max(1.0, (time.monotonic() - began) / used))


def stop(sweep: RunningSweep, how: str) -> None:
    """Stop a sweep, and start the same command again.

    Args:
        how: kill (SIGKILL, with all it has started), Ctrl-C, or SIGTERM to its process group.
    """
    if how == "kill":
        sweep.kill("sweep", random.Random(0))
        return
    number = signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM
    began = time.monotonic()
    if how == "group":
        os.killpg(sweep.process.pid, number)
    else:
        sweep.process.send_signal(number)
    printed = sweep.folder / "output.txt"
    assert sweep.process.wait(timeout=120) == 128 + number, printed.read_text()[-3000:]
    print(f"{how}: the command ended {time.monotonic() - began:.1f} s later")
    if sweep.on_ray:
        assert (sweep.folder / "sweep" / OUTCOME).exists()
        assert "the same command goes on" in printed.read_text().splitlines()[-1]
    sweep.start()


def sweep_with_stops(folder: Path, stops: list[tuple[str, str]], on_ray: bool, **changes: Any) -> Ledger:
    """Run a sweep to its end, stopped in each of these phases in this way. Returns: its ledger."""
    changes["budget_usd"] *= delay()  # a busy machine takes more to start, and to be measured
    arguments = sweep_arguments(folder, **SMALL, **changes)
    sweep = RunningSweep(folder, arguments, on_ray)
    try:
        assert wait_until((folder / "sweep" / LEDGER).exists, sweep)
        ledger = open_ledger(folder)

        def is_in(phase: str) -> bool:
            ledger.refresh()
            return PHASES[phase](ledger, changes["concurrency"])

        for phase, how in stops:
            if phase == "restart":
                path, size = folder / "sweep" / LEDGER, (folder / "sweep" / LEDGER).stat().st_size
                reached = wait_until(lambda path=path, size=size: path.stat().st_size > size, sweep)
            else:
                reached = wait_until(lambda phase=phase: is_in(phase), sweep)
            assert reached, f"it ended before its {phase}"
            stop(sweep, how)
        assert sweep.process.wait(timeout=1800) == 0, (folder / "output.txt").read_text()[-3000:]
    finally:
        sweep.process.kill()
    ledger.refresh()
    return ledger


def shares(ledger: Ledger) -> dict[str, float]:
    """Of the budget, by kind of work as the ledger's entries have it."""
    kinds: dict[str, float] = {}
    for entry in ledger.entries:
        kinds[entry.kind] = kinds.get(entry.kind, 0.0) + entry.amount / ledger.terms.budget
    return kinds


def assert_it_has_a_model(ledger: Ledger) -> None:
    """The final run came to its end, its checkpoint loads; of the others only the best one's is kept."""
    *trials, final = ledger.accounts.items()
    assert final[1].purpose == "final" and final[1].result["status"] == "finished", final[1].result
    checkpoint.load_model(final[1].result["checkpoint"])
    kept = [
        name
        for name, account in trials
        if checkpoint.list_checkpoints(Path(account.settings["config"]["checkpoint_dir"]) / name)
    ]
    assert len(kept) <= 1
    assert ledger.spent <= ledger.terms.capacity


# ----------------------------------------------------------------------------- without training, and a clock of its own

DOLLARS = {"budget_flops": None, "budget_usd": 2000.0, "gpu_hourly_usd": 3600.0, "sizes": ["1x32"]}
# seconds of one worker; 600 of them for probes and trials, 1,120 that these leave alone


def timed_sweep(folder: Path) -> tuple[Scheduler, Clock]:
    """A sweep whose size is probed: a trial takes 8 s to start, and some 50 in all."""
    sweep, clock = make_sweep(folder, **DOLLARS), Clock()
    sweep.ledger.clock = clock
    finish(sweep, str(sweep.next_trial(set())))
    clock.now += 100
    return sweep, clock


def run_until_cut(ledger: Ledger, trial: str, clock: Clock) -> None:
    ledger.charge_until(trial, 1e9)
    ledger.settle(trial, {"status": "cut", "iters": 0, "tokens": 0})
    clock.now = ledger.accounts[trial].charged_until


def test_a_trial_that_was_stopped_can_pay_for_all_of_it_once_more(tmp_path: Path) -> None:
    """It has no checkpoint: another start and all its iters are reserved before any worker starts."""
    sweep, clock = timed_sweep(tmp_path)
    trial = str(sweep.next_trial(set()))
    ledger, account = sweep.ledger, sweep.ledger.accounts[trial]
    price = account.reserve / RESERVE
    ledger.charge_until(trial, clock.now + 0.9 * price / MICRO)
    assert account.left < 0.5 * price
    assert covers_rest(ledger, trial)
    assert account.left >= price
    before = account.reserve
    assert covers_rest(ledger, trial) and account.reserve == before  # asked again, as by a second restart


def test_a_trial_that_cannot_pay_is_settled_before_its_workers_start(tmp_path: Path) -> None:
    """Where only the final run's money is left, that stays its own."""
    sweep, clock = timed_sweep(tmp_path)
    trial = str(sweep.next_trial(set()))
    ledger, account = sweep.ledger, sweep.ledger.accounts[trial]
    ledger.charge_until(trial, clock.now + 30)
    ledger.charge_idle(ledger.spendable("sweep") / MICRO)
    assert not covers_rest(ledger, trial)
    assert account.result["status"] == "cut" and account.result["tokens"] == 0
    assert ledger.free >= 1120 * MICRO


def test_the_final_run_takes_all_that_is_free_when_it_is_started_again(tmp_path: Path) -> None:
    sweep, clock = timed_sweep(tmp_path)
    while not str(name := sweep.next_trial(set())).startswith("final"):
        finish(sweep, str(name))
        clock.now += 200
    ledger, account = sweep.ledger, sweep.ledger.accounts[str(name)]
    assert ledger.free == 0
    ledger.charge_until(str(name), clock.now + 100)
    assert covers_rest(ledger, str(name))
    ledger.charge_until(str(name), clock.now + account.left / MICRO / account.workers + 99)
    assert not covers_rest(ledger, str(name))  # nothing is left for another start
    assert account.result["status"] == "cut"


@pytest.mark.parametrize("seed", range(3))
def test_a_final_run_on_a_busy_machine_comes_to_its_end(tmp_path: Path, seed: int) -> None:
    """Its speed changes all the time, and a new length costs ten times what the probe said: few lengths, one end."""
    sweep, clock = timed_sweep(tmp_path)
    while not str(name := sweep.next_trial(set())).startswith("final"):
        finish(sweep, str(name))
        clock.now += 200
    ledger, rng = sweep.ledger, random.Random(seed)
    meter = WorkerMeter(sweep.folder, ledger, str(name), 0)
    config, done, lengths, why = meter.config, 0, 0, RESIZE

    def work_on(kind: str, seconds: float) -> None:
        meter.charge(kind, 0)
        clock.now += seconds
        assert ledger.charge_until(str(name), clock.now + 1.5) > clock.now, "it is out of money"

    work_on(START_UP, 30)
    while why == RESIZE:
        config, why, lengths = fit_length(config, meter, done), None, lengths + 1
        work_on("warm_up", 1.0)
        while done < config.max_iters and why is None:
            load = 1 + 2 * (math.sin(clock.now / 50 + seed) > 0)
            work_on("train", 0.3 * load * rng.lognormvariate(0, 0.7))
            done += 1
            if done % config.eval_interval == 0:
                work_on("evaluation", 0.1)
            why = meter.stop_reason()
        work_on("checkpoint", 0.2)
    assert why is None and done == config.max_iters
    assert lengths < 20
    assert ledger.spent > 0.97 * ledger.terms.capacity


def test_there_is_a_final_run_even_when_no_trial_came_to_its_end(tmp_path: Path) -> None:
    """Each trial is cut, until the sweep's money is used up: then comes the rule's rate, with the final run's money."""
    sweep, clock = timed_sweep(tmp_path)
    names = []
    while not str(name := sweep.next_trial(set())).startswith("final"):
        names.append(name)
        run_until_cut(sweep.ledger, str(name), clock)
    final = sweep.ledger.accounts[str(name)]
    assert len(names) == 3  # the rates there are
    assert final.settings["config"]["learning_rate"] == 0.03
    assert final.reserve >= 1400 * MICRO
    assert "No trial came to its end" in sweep.ledger.latest(Choice).decision


def test_idle_workers_do_not_eat_the_final_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After 20% of the budget it comes next, and a line says so; a single wait that costs as much ends the command."""
    sweep, clock = timed_sweep(tmp_path)
    finish(sweep, str(sweep.next_trial(set())))
    ledger = sweep.ledger
    workers = sweep.slots * sweep.base.num_workers
    idle = IdleMeter(ledger, workers)
    ledger.charge_idle(100.0)
    for seconds, is_over in ((299, False), (2, False), (100, True)):
        idle.since = time.time() - seconds / workers
        clock.now += seconds
        idle.act()
        assert (idle.error is not None) == is_over
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "the final run gets what is left" in said[0]
    assert "the same command goes on" in str(idle.error)
    final = str(sweep.next_trial(set()))
    assert final.startswith("final")
    assert ledger.accounts[final].reserve == ledger.terms.capacity - ledger.spent > 1120 * MICRO


def test_a_budget_that_was_idled_away_before_the_plan_still_buys_a_final_run(tmp_path: Path) -> None:
    """A budget that buys no trials any more is not refused once it is spent on waiting."""
    sweep, clock = make_sweep(tmp_path, **DOLLARS), Clock()
    ledger = sweep.ledger
    ledger.clock = clock
    probe = str(sweep.next_trial(set()))
    ledger.charge_idle(0.65 * ledger.terms.capacity / MICRO)
    finish(sweep, probe)
    final = str(sweep.next_trial(set()))
    assert final.startswith("final")
    assert ledger.accounts[final].reserve > 0.3 * ledger.terms.capacity


def test_a_machine_too_slow_for_any_trial_still_trains_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the probe has cost would be lost by a refusal: the final run takes the rest, and a line says so."""
    sweep, clock = make_sweep(tmp_path, **DOLLARS), Clock()
    sweep.ledger.clock = clock
    probe = str(sweep.next_trial(set()))
    finish(sweep, probe, start_up=300.0)
    final = str(sweep.next_trial(set()))
    assert final.startswith("final")
    assert "is too small" in (said := capsys.readouterr().err) and "the final run gets what is left" in said
    assert sweep.ledger.accounts[final].reserve == sweep.ledger.terms.capacity - sweep.ledger.spent
    show_forecast(sweep, Console(file=(shown := io.StringIO()), width=120))
    assert "final run, if 1x32" in shown.getvalue() and "follow-ups" not in shown.getvalue()


# A worker that is in the middle of something when its reserve is used up
USE_UP = """
import os, sys, time
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import WorkerCharger
with WorkerCharger(Ledger(sys.argv[1]), "a", open(os.devnull, "w"), lambda: {"status": "cut", "tokens": 7}):
    time.sleep(60)
"""


def test_a_worker_that_is_out_of_money_ends_its_trial(tmp_path: Path) -> None:
    """Its process is gone, and whoever starts it again finds a trial that has its result."""
    ledger = Ledger.create(tmp_path, Terms("usd", 2.0, 3600.0, {}))
    ledger.open("a", "sweep", 1, {}, MICRO)
    assert run_python("-c", USE_UP, tmp_path, timeout=60).code == OUT_OF_MONEY
    ledger.refresh()
    assert not ledger.accounts["a"].is_open
    assert ledger.accounts["a"].result == {"status": "cut", "tokens": 7}
    assert ledger.spent == MICRO


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anything_has_begun_ends_at_once(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        signals.at_once = True
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert signals.exit_code == 128 + number


def test_a_process_that_a_busy_machine_stops_is_not_out_of_money(tmp_path: Path) -> None:
    """It may stand still between its look at the clock and the ledger's: then it is charged for later, not cut."""

    class Stalled(Clock):
        def __call__(self) -> float:
            self.now += stalls.pop() if stalls else 0.0
            return self.now

    stalls: list[float] = []
    ledger = Ledger.create(tmp_path, Terms("usd", 100.0, 3600.0, {}), Stalled())
    ledger.open("a", "sweep", 1, {}, 10 * MICRO)
    charger = WorkerCharger(ledger, "a", io.StringIO(), lambda: pytest.fail("it is cut"))
    stalls += [0.0, 0.0, 0.0, 9.0, 0.0, 0.0]
    charger.charge()
    assert not stalls
    assert ledger.accounts["a"].charged > 0


def test_checkpoints_of_losers_go(tmp_path: Path) -> None:
    """Those of the best trial, of open ones and of final runs stay; numbers stay of all."""
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2)
    ledger, losers, names = sweep.ledger, Losers(sweep.ledger), []
    while isinstance(name := sweep.next_trial(set()), str):
        names.append(name)
        run_dir = sweep.folder / "runs" / name
        (run_dir / "iter_00000010").mkdir(parents=True)
        (run_dir / "metrics.jsonl").write_text("")
        losers.remove()
        assert (run_dir / "iter_00000010").exists()
        finish(sweep, name)
        losers.remove()
    kept = {name for name in names if (sweep.folder / "runs" / name / "iter_00000010").exists()}
    settled = {name: account.result["bits_per_byte"] for name, account in ledger.accounts.items()}
    assert kept == {min(settled, key=lambda name: settled[name]), names[-1]}
    assert all((sweep.folder / "runs" / name / "metrics.jsonl").exists() for name in names)


# ----------------------------------------------------------------------------- whole sweeps


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["kill", "Ctrl-C"])
@pytest.mark.parametrize("phase", ["probe", "first trials", "follow-up", "final run"])
def test_a_stop_without_ray(tmp_path: Path, phase: str, how: str) -> None:
    ledger = sweep_with_stops(tmp_path, [(phase, how)], on_ray=False, budget_usd=240.0, concurrency=1)
    assert_it_has_a_model(ledger)
    print({kind: f"{share:.1%}" for kind, share in shares(ledger).items()})
    assert shares(ledger)["train"] >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("stops", "budget"),
    [
        ([("first trials", "kill"), ("final run", "group")], 960.0),
        (
            [
                ("probe", "Ctrl-C"),
                ("start-up", "group"),
                ("first trials", "kill"),
                ("restart", "Ctrl-C"),
                ("final run", "group"),
            ],
            1500.0,
        ),
    ],
    ids=["two", "each"],
)
def test_stops_on_ray(tmp_path: Path, stops: list[tuple[str, str]], budget: float) -> None:
    """Training has 80% of the budget: 960 worker-seconds (times `delay`) buy that through two stops on two cores."""
    ledger = sweep_with_stops(tmp_path, stops, on_ray=True, budget_usd=budget, concurrency=2)
    assert_it_has_a_model(ledger)
    kinds = shares(ledger)
    print({kind: f"{share:.1%}" for kind, share in kinds.items()})
    assert kinds["train"] >= 0.8
