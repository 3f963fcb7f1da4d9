"""No order of operations, and no kill, makes a ledger spend more than its budget or forget a charge."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanochat_tct.errors import UserError
from nanochat_tct.tuning.budget import MICRO, Terms
from nanochat_tct.tuning.ledger import IDLE, LEDGER, Ledger, OverBudget
from nanochat_tct.tuning.records import (
    Centres,
    Choice,
    Duration,
    Evidence,
    HalfWay,
    Head,
    Interrupted,
    Interval,
    Note,
    Plan,
    Slots,
)
from tests.support.commands import REPOSITORY
from tests.tuning.curves import Clock, trial

FLOPS = Terms("flops", 1000, None, {})
TRIAL = trial("narrow", 0.01, 1000, 1.5)
DOLLARS = Terms("usd", 2.0, 3600.0, {})  # two seconds of one worker


def test_a_reserve_is_taken_charged_and_given_back(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, FLOPS)
    ledger.open("a", "sweep", 1, {"lr": 0.1}, 600)
    assert ledger.free == 400
    with pytest.raises(OverBudget, match="b: 500 flops wanted, 400 left"):
        ledger.open("b", "sweep", 1, {}, 500)
    assert ledger.charge("a", "train", 450) == 150
    with pytest.raises(OverBudget):
        ledger.charge("a", "evaluation", 151)
    assert ledger.top_up("a", 300) == 300
    assert ledger.top_up("a", 10_000) == 550  # all there is
    ledger.charge("a", "evaluation", 150)
    ledger.settle("a", {"status": "finished"})
    assert (ledger.spent, ledger.free) == (600, 400)
    again = Ledger(tmp_path)
    assert (again.spent, again.free, again.terms) == (600, 400, FLOPS)
    assert again.accounts == ledger.accounts
    assert again.accounts["a"].result == {"status": "finished"}
    assert [entry.amount for entry in again.entries] == [450, 150]


def test_time_is_paid_ahead_and_never_beyond_the_reserve(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.create(tmp_path, DOLLARS, clock)
    assert ledger.free == 2 * MICRO
    ledger.open("a", "sweep", 2, {}, 1_500_000)
    assert ledger.charge_until("a", 1000.5) == 1000.5
    assert ledger.accounts["a"].charged == MICRO  # two workers, half a second
    assert ledger.charge_until("a", 1000.4) == 1000.5  # paid already
    clock.now = 1000.25
    assert ledger.charge_until("a", 1001.0) == 1000.75
    assert ledger.accounts["a"].left == 0
    ledger.charge("a", "train", 10**9)  # only noted
    assert ledger.charge_until("a", 1002.0) == 1000.75
    ledger.charge_idle(3.0)  # more than is free
    assert (ledger.spent, ledger.free) == (2 * MICRO, 0)
    assert ledger.terms.amount(ledger.spent) == 2.0


def test_a_time_in_which_nobody_paid_is_not_the_trials(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.create(tmp_path, DOLLARS, clock)
    ledger.open("a", "sweep", 1, {}, MICRO)
    ledger.charge_until("a", 1000.25)
    clock.now = 1009.0
    ledger.charge_until("a", 1009.25)
    assert ledger.accounts["a"].charged == MICRO // 2


SWEEP = Terms("usd", 100.0, 3600.0, {"sweep_share": 0.3})  # a hundred seconds of one worker


def test_a_reserve_is_shortened_to_what_there_is(tmp_path: Path) -> None:
    """Counting and reserving are one step: what was charged since the caller looked does not matter."""
    clock = Clock()
    ledger, other = Ledger.create(tmp_path, SWEEP, clock), Ledger(tmp_path, clock)
    wanted = ledger.free
    other.charge_idle(0.4)
    account = ledger.open("final", "final", 1, {}, wanted, least=50 * MICRO)
    assert (account.reserve, ledger.free) == (99_600_000, 0)
    with pytest.raises(OverBudget, match="more: 1e-06 usd wanted, 0 left"):
        ledger.open("more", "final", 1, {}, 50, least=1)


def test_trials_leave_the_final_run_its_money(tmp_path: Path) -> None:
    """Of the 70 seconds that are planned for it, 56; probes, which it needs, are not held back."""
    ledger = Ledger.create(tmp_path, SWEEP, Clock())
    assert (ledger.spendable("sweep"), ledger.spendable("final")) == (44 * MICRO, 100 * MICRO)
    assert ledger.open("a", "sweep", 1, {}, 40 * MICRO).reserve == 40 * MICRO
    with pytest.raises(OverBudget, match="b: 5 usd wanted, 4 left"):
        ledger.open("b", "sweep", 1, {}, 5 * MICRO)
    assert ledger.open("b", "sweep", 1, {}, 5 * MICRO, least=3 * MICRO).reserve == 4 * MICRO
    assert ledger.top_up("a", 50 * MICRO) == 40 * MICRO
    assert ledger.open("probe", "probe", 1, {}, 6 * MICRO).reserve == 6 * MICRO
    for name in "ab":
        ledger.settle(name, {})
    final = ledger.open("final", "final", 1, {}, ledger.terms.capacity, least=1)
    assert final.reserve == 94 * MICRO


def test_waiting_for_workers_is_charged_to_whoever_has_money(tmp_path: Path) -> None:
    """No trial is shortened by it; a final run, which has reserved all there is, takes what is not free."""
    ledger = Ledger.create(tmp_path, SWEEP, Clock())
    ledger.open("a", "sweep", 2, {}, 40 * MICRO)
    ledger.charge_idle(3.0, "start_up")
    ledger.charge_idle(2.0)
    assert (ledger.accounts["a"].left, ledger.free) == (40 * MICRO, 55 * MICRO)
    assert (ledger.idle, ledger.idle_share) == (
        5 * MICRO,
        0.02,
    )  # starts do not count in the limit of idle time
    ledger.settle("a", {})
    ledger.open("b", "final", 2, {}, ledger.terms.capacity, least=1)
    ledger.charge_idle(4.0, "start_up")
    account = ledger.accounts["b"]
    assert (account.charged, account.left, account.kind) == (4 * MICRO, 91 * MICRO, "start_up")
    ledger.charge_idle(1000.0, "start_up")
    assert (account.left, ledger.free, ledger.spent) == (0, 0, ledger.terms.capacity)


def test_processes_see_each_others_charges(tmp_path: Path) -> None:
    one = Ledger.create(tmp_path, FLOPS)
    other = Ledger(tmp_path)
    one.open("a", "sweep", 1, {}, 100)
    other.charge("a", "train", 60)
    with pytest.raises(OverBudget):
        one.charge("a", "train", 41)
    assert one.charge("a", "train", 40) == 0
    other.refresh()
    assert other.accounts == one.accounts
    notes = [
        Plan(1.5, {"1x32": 20}, 4, 64, 1000),
        Plan(2.5, {"1x32": 30}, 4, 64, 1000, round=1),
        Choice("1x32", 0.03, {"dropout": 0.1}, "Chosen. So.", Interval(1.0, 1.5, 2.0), {"1x32": 7}),
        Evidence("sweeps/other", [TRIAL]),
        *(Centres({"1x32": 0.03}), Duration(1.5, {"1x32": 2.0}), Slots(2), Head("host", {"torch": "2"})),
        *(HalfWay("a", 2.0), HalfWay("b", 1.5), Interrupted(True)),
    ]
    for note in notes:
        one.note(note)
    other.refresh()
    for ledger in (one, other, Ledger(tmp_path)):
        assert [note for kind in Note.__subclasses__() for note in ledger.noted(kind)] == sorted(
            notes, key=lambda note: Note.__subclasses__().index(type(note))
        )
        assert ledger.latest(Plan) == notes[1] and ledger.is_interrupted
    one.note(Interrupted(False))
    assert not one.is_interrupted


def test_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They had names of words, and values of forms of their own."""
    ledger = Ledger.create(tmp_path, FLOPS)
    plan = {"money": 1.5, "iters": {"1x32": 20}, "eval_iters": 4, "windows": 64, "whole_windows": 1000}
    choice = {"size": "1x32", "learning_rate": 0.03, "varied": {}, "decision": "So."}
    notes: list[list[Any]] = [
        *(["plan", plan], ["plan 1", plan], ["centres", {"1x32": 0.03}], ["slots", 2], ["interrupted", True]),
        *(["choice", choice], ["choice", {**choice, "predicted": [1.0, 1.5, 2.0], "tokens": {"1x32": 7}}]),
        *(["forecast", {"sweep": 1.5, "final": {"1x32": 2.0}}], ["head", ["host", {"torch": "2"}]]),
        *(["half-way sweep-00-1x32", 2.0], ["evidence", {"sweeps/other": [vars(TRIAL)]}]),
    ]
    with open(tmp_path / LEDGER, "a") as file:
        file.writelines(json.dumps({"note": note}) + "\n" for note in notes)
    ledger.refresh()
    assert ledger.noted(Plan) == [Plan(**plan), Plan(**plan, round=1)]
    assert ledger.latest(Choice) == Choice(**choice, predicted=Interval(1.0, 1.5, 2.0), tokens={"1x32": 7})
    assert ledger.latest(HalfWay) == HalfWay("sweep-00-1x32", 2.0)
    assert ledger.latest(Evidence) == Evidence("sweeps/other", [TRIAL])
    assert (ledger.latest(Centres), ledger.latest(Slots)) == (Centres({"1x32": 0.03}), Slots(2))
    assert ledger.latest(Duration) == Duration(1.5, {"1x32": 2.0}) and ledger.is_interrupted
    assert ledger.latest(Head) == Head("host", {"torch": "2"})


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path, cut: int) -> None:
    ledger = Ledger.create(tmp_path, FLOPS)
    ledger.open("a", "sweep", 1, {}, 100)
    ledger.charge("a", "train", 60)
    before = ledger.accounts
    ledger.charge("a", "train", 30)
    path = tmp_path / LEDGER
    os.truncate(path, path.stat().st_size - cut)
    again = Ledger(tmp_path)
    assert again.accounts["a"].charged == 60 and before["a"].charged == 90
    again.charge("a", "train", 40)
    assert Ledger(tmp_path).accounts["a"].left == 0


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ledger"):
        Ledger(tmp_path)
    Ledger.create(tmp_path, FLOPS)
    with pytest.raises(FileExistsError):
        Ledger.create(tmp_path, FLOPS)
    content = (tmp_path / LEDGER).read_text()
    for line in ("nonsense", "[1]", '{"terms": 3}', '{"settle": [1, "no such trial", {}]}'):
        (tmp_path / LEDGER).write_text(f"{content}{line}\n")
        with pytest.raises(UserError, match="damaged"):
            Ledger(tmp_path)
    (tmp_path / LEDGER).write_text("")
    with pytest.raises(UserError, match="empty"):
        Ledger(tmp_path)


class AnyOrder(RuleBasedStateMachine):
    """Two processes' views of one ledger, any operations in any order, and restarts."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.charged = 0  # what successful operations charged, counted apart

    @initialize(terms=st.sampled_from([FLOPS, DOLLARS, Terms("gpu_hours", 1 / 3600, None, {})]))
    def create(self, terms: Terms) -> None:
        self.terms = terms
        self.views = [Ledger.create(self.folder.name, terms, self.clock)]
        self.views.append(Ledger(self.folder.name, self.clock))

    views_index = st.integers(0, 1)
    names = st.sampled_from(["a", "b", "c"])
    quanta = st.integers(0, 3 * MICRO) | st.integers(0, 1200)

    @rule(view=views_index, name=names, reserve=quanta, workers=st.integers(0, 3))
    def open(self, view: int, name: str, reserve: int, workers: int) -> None:
        self.views[view].refresh()
        account = self.views[view].accounts.get(name)
        if account is None or account.is_open:
            try:
                self.views[view].open(name, "sweep", workers, {}, reserve)
            except OverBudget:
                assert reserve > self.views[view].free

    @rule(view=views_index, name=names, flops=quanta)
    def charge(self, view: int, name: str, flops: int) -> None:
        self.views[view].refresh()
        if name in self.views[view].accounts:
            try:
                self.views[view].charge(name, "train", flops)
                self.charged += flops if self.terms.unit == "flops" else 0
            except OverBudget:
                assert flops > self.views[view].accounts[name].left

    @rule(view=views_index, name=names, seconds=st.floats(-0.5, 2))
    def pay(self, view: int, name: str, seconds: float) -> None:
        self.views[view].refresh()
        if name in self.views[view].accounts:
            before = self.views[view].accounts[name].charged
            self.views[view].charge_until(name, self.clock.now + seconds)
            self.charged += self.views[view].accounts[name].charged - before

    @rule(view=views_index, seconds=st.floats(0, 2))
    def idle(self, view: int, seconds: float) -> None:
        self.views[view].refresh()
        finals = [each for each in self.views[view].accounts.values() if each.purpose == "final"]
        money = self.views[view].free + sum(account.left for account in finals)
        self.views[view].charge_idle(seconds)
        self.charged += min(money, int(seconds * MICRO)) if self.terms.unit != "flops" else 0

    @rule(view=views_index, name=names, left=quanta)
    def top_up(self, view: int, name: str, left: int) -> None:
        self.views[view].refresh()
        if name in self.views[view].accounts:
            self.views[view].top_up(name, left)

    @rule(view=views_index, name=names)
    def settle(self, view: int, name: str) -> None:
        self.views[view].refresh()
        if name in self.views[view].accounts:
            self.views[view].settle(name, {"status": "finished"})

    @rule(seconds=st.floats(0, 1))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: hasattr(self, "views"))
    @rule(view=views_index)
    def restart(self, view: int) -> None:
        self.views[view].close()
        self.views[view] = Ledger(self.folder.name, self.clock)

    @invariant()
    def within_budget(self) -> None:
        if not hasattr(self, "views"):
            return
        for view in self.views:
            view.refresh()
            assert view.spent == self.charged
            assert 0 <= view.free <= self.terms.capacity - view.spent
            assert all(account.left >= 0 for account in view.accounts.values())
            total = sum(entry.amount for entry in view.entries)
            assert total <= self.terms.budget * (1 + 1e-9)
            assert total == pytest.approx(self.terms.amount(view.spent))

    def teardown(self) -> None:
        for view in getattr(self, "views", []):
            view.close()
        self.folder.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

WORKER = """
import random, sys
from nanochat_tct.tuning.ledger import Ledger, OverBudget
folder, name, seed = sys.argv[1:]
rng, ledger = random.Random(int(seed)), Ledger(folder)
with open(f"{folder}/work-{name}-{seed}", "a", buffering=1) as log:
    while True:
        trial = f"{name}-{rng.randrange(10**9)}"
        try:
            ledger.open(trial, "sweep", 1, {}, 5000)
            for _ in range(rng.randrange(20)):
                flops = rng.randrange(1, 400)
                ledger.charge(trial, "train", flops)
                log.write(f"{flops}\\n")
            ledger.settle(trial, {})
        except OverBudget:
            if ledger.free < 5000:
                break
"""


def test_killed_processes_never_work_uncharged(tmp_path: Path) -> None:
    budget = 3_000_000
    ledger = Ledger.create(tmp_path, dataclasses.replace(FLOPS, budget=budget))
    rng = random.Random(0)

    def start(name: str, seed: int) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", WORKER, str(tmp_path), name, str(seed)]
        return subprocess.Popen(arguments, cwd=REPOSITORY)

    workers = {name: start(name, 0) for name in "abc"}
    kills = 0
    for seed in range(1, 13):
        time.sleep(rng.uniform(0.2, 0.8))
        name = rng.choice("abc")
        workers[name].send_signal(signal.SIGKILL)
        kills += workers[name].wait() == -signal.SIGKILL
        workers[name] = start(name, seed)
    for process in workers.values():
        process.wait(timeout=120)
    ledger.refresh()
    logged = sum(int(line) for path in tmp_path.glob("work-*") for line in path.read_text().split())
    assert kills > 0
    assert ledger.spent <= budget
    assert (
        0 <= ledger.spent - logged <= 400 * kills
    )  # at most one piece of work for each kill: charged, not done
    assert all(json.loads(line) for line in (tmp_path / LEDGER).read_text().splitlines())
    assert IDLE not in ledger.accounts
