"""Sweeps on Ray whose processes are killed at random moments: the money is right, and nothing is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from nanochat_tct.model.accounting import flops_per_token
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.distributed import Worker
from nanochat_tct.training.signals import PREEMPTED
from nanochat_tct.tuning.ledger import LEDGER, Ledger
from nanochat_tct.tuning.meter import WORK_DIR
from nanochat_tct.tuning.results import trial_rows
from nanochat_tct.tuning.scheduler import PROBE_ITERS
from nanochat_tct.tuning.trial import work
from tests.support.commands import REPOSITORY
from tests.tuning.sweeps import (
    ForkedProcess,
    logged_flops,
    logged_seconds,
    open_ledger,
    sweep_alone,
    sweep_arguments,
)
from tests.tuning.test_sweep import make_sweep

PATIENCE = 600.0  # seconds without any progress: something hangs


class RunningSweep:
    """The command `tune` in a process of its own, or the same without Ray, and its victims."""

    def __init__(self, folder: Path, arguments: list[str], on_ray: bool) -> None:
        self.folder, self.arguments, self.on_ray = folder, arguments, on_ray
        self.output = open(folder / "output.txt", "ab")  # noqa: SIM115  # for as long as the test goes on
        self.start()

    def start(self) -> None:
        self.process: Any
        if self.on_ray:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nanochat_tct.cli", "tune", *self.arguments],
                stdout=self.output,
                stderr=self.output,
                stdin=subprocess.DEVNULL,
                cwd=REPOSITORY,
                start_new_session=True,  # a process group of its own, as Slurm and `timeout` make one
            )
        else:
            self.process = ForkedProcess(sweep_alone, self.arguments)

    def workers(self) -> list[int]:
        """Ids of the processes that train, or have trained and wait for another trial."""
        logs = (self.folder / "sweep" / WORK_DIR).glob("*.jsonl")
        pids = {int(path.name.split(".")[-3]) for path in logs}
        return sorted(filter(self.is_ours, pids))

    def is_ours(self, pid: int) -> bool:
        try:
            return self.process.pid in [parent.pid for parent in psutil.Process(pid).parents()]
        except psutil.NoSuchProcess:
            return False

    def kill(self, what: str, rng: random.Random) -> bool:
        """SIGKILL one process of a kind; False when there is none."""
        if what == "sweep":
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(children, timeout=60)  # Ray ends with the process that started it
            self.start()
            return True
        victims = self.workers()
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
        return bool(victims)


def wait_until(condition: Callable[[], bool], sweep: RunningSweep) -> bool:
    """Wait for something, and at most PATIENCE; False when the sweep ended before."""
    deadline = time.monotonic() + PATIENCE
    while sweep.process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < deadline, (sweep.folder / "output.txt").read_text()[-3000:]
        time.sleep(0.1)
    return False


def sweep_with_kills(
    folder: Path, kills: list[str], seed: int, on_ray: bool = True, **changes: Any
) -> tuple[Ledger, int]:
    """Run a sweep to its end; at random amounts of money, spread over the budget, kill what `kills` names.

    Returns: the ledger at the end, and how many kills there were.
    """
    rng = random.Random(seed)
    sweep = RunningSweep(folder, sweep_arguments(folder, max_failures=50, **changes), on_ray)
    done = 0
    try:
        assert wait_until((folder / "sweep" / LEDGER).exists, sweep)
        ledger = open_ledger(folder)
        capacity = ledger.terms.capacity
        moments = sorted(rng.uniform(0.0, 0.9) for _ in kills)

        def has_spent(share: float) -> bool:
            ledger.refresh()
            return ledger.spent >= share * capacity

        for what, moment in zip(kills, moments, strict=True):
            if not wait_until(lambda moment=moment: has_spent(moment), sweep):
                break
            time.sleep(rng.uniform(0, 1))
            if wait_until(lambda what=what: sweep.kill(what, rng), sweep):
                done += 1
            ledger.refresh()
            assert ledger.spent <= capacity
        sweep.process.wait(timeout=900)
        assert sweep.process.returncode == 0, (folder / "output.txt").read_text()[-3000:]
    finally:
        sweep.process.kill()
    ledger.refresh()
    return ledger, done


def small_sweep_with_kills(folder: Path, kills: int, **budget: Any) -> tuple[Ledger, int]:
    """The same of one size and two rates, a trial at a time and without Ray; the whole sweep is killed."""
    small: dict[str, Any] = {"sizes": ["1x32"], "num_rates": 2, "concurrency": 1}
    return sweep_with_kills(folder, ["sweep"] * kills, kills, on_ray=False, **small, **budget)


def assert_nothing_lost(ledger: Ledger, folder: Path) -> None:
    """Every trial came to its end, and paid for at least what it was."""
    rows = trial_rows(ledger)
    assert all(not account.is_open for account in ledger.accounts.values())
    assert [row.purpose for row in rows].count("final") == 1
    keys = [(row.purpose, row.size, row.learning_rate, row.planned_tokens) for row in rows]
    assert len(set(keys)) == len(keys)  # none was run twice
    for row in rows:
        assert row.status in ("finished", "stopped"), row
        shape = ResolvedConfig(**ledger.accounts[row.trial].settings["config"]).model()
        assert row.flops >= row.tokens * flops_per_token(shape)
        if row.status == "finished":
            assert row.tokens == row.planned_tokens, row


def assert_money_is_right(ledger: Ledger, folder: Path) -> None:
    """Nearly all of the budget was used and no more, and the workers' own logs say the same."""
    logged = logged_flops(folder)
    print(
        f"spent {ledger.spent / ledger.terms.capacity:.3%} of the budget; the workers logged "
        f"{logged / ledger.spent:.3%} of that"
    )
    assert 0.95 * ledger.terms.capacity <= ledger.spent <= ledger.terms.capacity
    assert abs(ledger.spent - logged) <= 0.01 * ledger.spent


@pytest.mark.parametrize(
    ("kills", "budget"),
    [
        pytest.param(2, 6e10, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param(20, 1.5e11, marks=[pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_kills_without_ray(tmp_path: Path, kills: int, budget: float) -> None:
    ledger, done = small_sweep_with_kills(tmp_path, kills, budget_flops=budget)
    assert done == kills
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_saves_a_checkpoint_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    sweep = RunningSweep(
        tmp_path,
        sweep_arguments(tmp_path, sizes=["1x32"], num_rates=1, budget_flops=4e10, concurrency=1),
        on_ray=False,
    )
    try:
        assert wait_until((tmp_path / "sweep" / LEDGER).exists, sweep)
        ledger = open_ledger(tmp_path)

        def is_in_final_run() -> bool:
            ledger.refresh()
            return any(entry.purpose == "final" and entry.kind == "train" for entry in ledger.entries)

        assert wait_until(is_in_final_run, sweep)
        sweep.process.send_signal(number)
        assert sweep.process.wait(timeout=PATIENCE) == 128 + number
        ledger.refresh()
        (final,) = (name for name, account in ledger.accounts.items() if account.is_open)
        assert list((tmp_path / "sweep" / "runs" / final).glob("iter_*"))
        assert ledger.spent == logged_flops(tmp_path)
        sweep.start()
        assert sweep.process.wait(timeout=PATIENCE) == 0
    finally:
        sweep.process.kill()
    ledger.refresh()
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)


def test_a_trial_that_is_preempted_saves(tmp_path: Path) -> None:
    """The same without Ray: it does not end the trial, and nothing is done again."""
    sweep = make_sweep(tmp_path, sizes=["1x32"], concurrency=1)
    name = str(sweep.next_trial(set()))
    asked = iter(range(1000))
    worker = Worker(0, 1, torch.device("cpu"))

    def preemption() -> str | None:
        return "preempted: a machine is to go" if next(asked) > 5 else None

    result = work(sweep.folder, sweep.ledger, name, worker, preemption=preemption)
    assert result["status"] == PREEMPTED and 0 < result["iters"] < PROBE_ITERS
    assert sweep.ledger.accounts[name].is_open
    shown: list[dict[str, Any]] = []
    assert work(sweep.folder, sweep.ledger, name, worker, progress=shown.append)["status"] == "finished"
    metrics = read_metrics(sweep.folder / "runs" / name)
    done = [entry["iter"] for entry in metrics if entry["kind"] == "train"]
    assert done == list(range(1, PROBE_ITERS + 1))
    evaluated = [entry["bits_per_byte"] for entry in metrics if entry["kind"] == "validation"]
    assert {"bits_per_byte": evaluated[-1]} in shown  # as the gauges of Ray show it
    log = (sweep.folder / "logs" / name / "log.txt").read_text().splitlines()
    iters = [int(line.split()[1]) for line in log if line.startswith("iter ")]
    assert iters == sorted(set(iters))
    assert f"preempted: a machine is to go; saved at iter {result['iters']}, starting again" in log


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_preempted_trial_saves_and_goes_on(tmp_path: Path) -> None:
    """SIGTERM to a worker, twice, though no failure is allowed: nothing is done again, as in a run of `train`."""
    # Money for some 20 s of the first trial: a worker waits 2 s before it answers a SIGTERM.
    changes = {"sizes": ["1x32"], "num_rates": 1, "budget_flops": 2e11, "concurrency": 1, "max_failures": 0}
    changes |= {"sweep_share": 0.9, "follow_up_share": 0.1}  # the first trial is the longest
    sweep = RunningSweep(tmp_path, sweep_arguments(tmp_path, **changes), on_ray=True)
    lines: list[str] = []

    def is_preempted(times: int) -> bool:
        """The first trial has saved so often, and trains again."""
        nonlocal lines
        logs = list((tmp_path / "sweep" / "logs").glob("sweep-00-*/log.txt"))
        lines = logs[0].read_text().splitlines() if logs else []
        return (
            sum(line.startswith("preempted: SIGTERM at worker 0; saved at iter ") for line in lines) == times
            and bool(lines)
            and lines[-1].startswith("iter ")
        )

    try:
        for times in range(2):
            assert wait_until(lambda times=times: is_preempted(times), sweep)
            (worker,) = sweep.workers()
            os.kill(worker, signal.SIGTERM)
        assert wait_until(lambda: is_preempted(2), sweep)
        assert sweep.process.wait(timeout=PATIENCE) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    finally:
        sweep.process.kill()
    ledger = open_ledger(tmp_path)
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)
    done = [int(line.split()[1]) for line in lines if line.startswith("iter ") and " | " in line]
    assert done == sorted(set(done)), "an iter was done again"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("workers", "sweeps", "sizes", "budget"),
    [(2, 1, ["1x32"], 1e11), (14, 6, ["1x32", "2x32"], 1.2e12)],
    ids=["three", "twenty"],
)
def test_kills_on_ray(tmp_path: Path, workers: int, sweeps: int, sizes: list[str], budget: float) -> None:
    kills = ["worker"] * workers + ["sweep"] * sweeps
    random.Random(1).shuffle(kills)
    ledger, done = sweep_with_kills(tmp_path, kills, 2, sizes=sizes, budget_flops=budget, num_rates=2)
    assert done == len(kills)
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [0, 4])
def test_a_budget_of_time_is_kept(tmp_path: Path, kills: int) -> None:
    ledger, done = small_sweep_with_kills(
        tmp_path, kills, budget_flops=None, budget_usd=0.2, gpu_hourly_usd=2.0
    )
    assert done == kills
    assert 0.95 * ledger.terms.capacity <= ledger.spent <= ledger.terms.capacity
    final = trial_rows(ledger)[-1]
    assert final.purpose == "final" and final.status == "finished"
    worked = sum(row.worker_seconds for row in trial_rows(ledger))
    logged = logged_seconds(tmp_path)
    # Time is paid ahead, a second and a half at most; a kill and each trial's end leave that behind.
    assert -1 <= worked - logged <= 1.5 * (done + len(ledger.accounts)) + 1
