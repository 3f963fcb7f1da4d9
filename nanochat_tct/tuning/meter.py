"""How the ledger is charged: by a trial's workers, before each piece of work and ahead of time, and for idle workers.

Each worker also keeps a log of its own work (`work/`), so that the ledger can be checked against it.
"""

import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TextIO

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.tuning.budget import MICRO, Prices
from nanochat_tct.tuning.ledger import IDLE_SHARE, IDLE_TIME, START_UP, Account, Ledger
from nanochat_tct.tuning.records import Interrupted

WORK_DIR = "work"
OUT_OF_MONEY = 75  # exit code of a worker that could not stop in time
RESERVE_USED = "its reserve is used up"
INTERRUPTED = "interrupted"
RESIZE = "its length is corrected"
REPAIR = 1.1  # times the forecast is reserved when a trial has to repeat work, or takes longer
MOST_EXTENDED = 2.0  # times its forecast is what a trial that takes longer may cost in all
RECENT = 200  # charges by which the time of an iter is measured
FIRST_LOOK = 0.1  # of a final run on a budget of time, before its length is checked for the first time
LAST_ITERS = 4  # a final run that can afford no more than this many ends with the next one
STOPPING_SECONDS = 3.0  # to end a run and its processes, besides its checkpoint


class Repeating:
    """A context in which a thread calls `act` every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def act(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        while not self._done.wait(self.seconds):
            self.act()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()


def tick_seconds(ledger: Ledger) -> float:
    """How often time is charged: half a second, or as rarely as makes a ledger of some 10,000 lines."""
    terms = ledger.terms
    return min(10.0, max(0.5, terms.capacity / MICRO / 20_000)) if terms.is_timed else 2.0


# ----------------------------------------------------------------------------- on the workers of a trial


class WorkerCharger(Repeating):
    """On a trial's first worker: charges the time of all its workers ahead of it, a little at a time.

    Where it cannot charge, it settles the trial and ends the process.
    """

    def __init__(self, ledger: Ledger, trial: str, log: TextIO, cut: Callable[[], dict[str, Any]]) -> None:
        """Args:
        cut: makes the result of a trial whose reserve is used up.
        """
        self.ledger, self.trial, self.log, self.cut = ledger, trial, log, cut
        self.tick = tick_seconds(ledger)
        super().__init__(self.tick)

    def charge(self, kind: str | None = None) -> None:
        """Charge the next few ticks. Raises: StorageError when the ledger cannot be written.

        Args:
            kind: of the work; None: as last charged.
        """
        now = self.ledger.clock()
        is_covered = self.charge_ahead(3 * self.tick, kind)
        self.log.write(json.dumps({"time": now}) + "\n")
        if not is_covered and self.ledger.terms.is_timed:
            # The driver would take the end of this process for a loss and start it again, so the trial is settled
            # first.
            self.ledger.settle(self.trial, self.cut())
            os._exit(OUT_OF_MONEY)

    def charge_ahead(self, seconds: float, kind: str | None) -> bool:
        """Charge up to `seconds` from now. Returns False when the reserve is used up.

        A busy machine may stop this process for longer than that between its look at the clock and the ledger's lock.
        Then nothing is charged though there is money, and it tries again.
        """
        while True:
            now = self.ledger.clock()
            until = self.ledger.charge_until(self.trial, now + seconds, kind)
            account = self.ledger.accounts[self.trial]
            if until > now:
                return True
            if not account.is_open or account.left < max(1, account.workers):
                return False

    def act(self) -> None:
        try:
            self.charge()
        except StorageError as error:
            print(error, file=sys.stderr)
            os._exit(OUT_OF_MONEY)

    def __enter__(self) -> Self:
        self.charge(START_UP)
        return super().__enter__()


class WorkerMeter:
    """On each worker of a trial: charges what the loop is about to do, and says when it must stop."""

    def __init__(self, folder: str | Path, ledger: Ledger, trial: str, rank: int) -> None:
        self.ledger, self.trial, self.rank = ledger, trial, rank
        self.is_timed = ledger.terms.is_timed
        self.prices = prices_of(self.account)
        self.config = config_of(self.account)  # with its current length
        # The length of a final run on a budget of time follows its speed.
        self.resizes = self.account.purpose == "final" and self.is_timed
        self.marks: deque[tuple[str, float]] = deque(maxlen=RECENT)  # kind and time of each charge
        self.pending_flops, self.pending_since, self.pending_kind = 0, 0.0, ""
        self.iters_left, self.windows_left, self.next_resize = 0, 0, 0
        self.stop: str | None = None  # set by EarlyStopping
        directory = Path(folder) / WORK_DIR
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{trial}.{rank}.{os.getpid()}.{time.time_ns()}.jsonl"
        self.log = open(directory / name, "a", buffering=1)  # noqa: SIM115  # for as long as the process lives

    @property
    def account(self) -> Account:
        """The trial's, as last read."""
        return self.ledger.accounts[self.trial]

    def begin(self, iters_left: int, windows_left: int) -> None:
        """A run of the loop begins: the iters it has left, and the windows of all its evaluations."""
        self.iters_left, self.windows_left, self.stop = iters_left, windows_left, None
        self.next_resize = int(iters_left * (1 - FIRST_LOOK))

    def charge(self, kind: str, flops: float) -> None:
        """Charge a piece of work that is about to be done; called on rank 0.

        Raises: OverBudget when the reserve does not cover it.
        """
        quanta, now = round(flops), self.ledger.clock()
        self.marks.append((kind, now))
        if kind == "train":
            self.iters_left -= 1
        elif kind == "evaluation":
            self.windows_left -= self.account.settings["windows"]
        if not self.is_timed:
            self.ledger.charge(self.trial, kind, quanta)
        elif kind != self.pending_kind or now - self.pending_since > 1:  # only noted: one line a second
            self.flush()
            self.pending_kind, self.pending_since = kind, now
            self.ledger.charge(self.trial, kind, quanta)
        else:
            self.pending_flops += quanta
        self.log.write(json.dumps({"time": now, "kind": kind, "flops": quanta}) + "\n")

    def flush(self) -> None:
        """Note the FLOPs that are not yet noted."""
        if self.pending_flops:
            self.ledger.charge(self.trial, self.pending_kind, self.pending_flops)
        self.pending_flops = 0

    def left(self) -> float:
        """Quanta of the reserve that are left; time that is charged ahead counts as left."""
        self.ledger.refresh()
        account = self.account
        if not self.is_timed:
            return account.left
        return account.left + max(0.0, account.charged_until - self.ledger.clock()) * account.workers * MICRO

    def stop_reason(self) -> str | None:
        """Why the loop should stop at the end of this iter, or None."""
        if self.rank != 0:
            return None
        left = self.left()
        if self.ledger.is_interrupted:
            self.stop = INTERRUPTED
        elif self.resizes:
            # Quanta for stopping after this iter, and for LAST_ITERS more after that.
            least = self.prices.warm_up + LAST_ITERS * (self.measured_iter() or self.prices.iter)
            if self.iters_left > 1 and (left < least + self.margin() or self.is_off(left)):
                self.stop = RESIZE
        elif self.iters_left > 0 and left < self.prices.iter + self.margin() and not self.extend():
            self.stop = RESERVE_USED
        return self.stop

    def extend(self) -> bool:
        """Reserve the rest of a trial that is slower than forecast, so that it keeps its length.

        Returns: False when there is not as much, or the trial has cost far more than forecast.
        """
        account = self.account
        if account.purpose != "sweep" or not self.is_timed:
            return False
        each = max(self.prices.iter, self.measured_iter() or 0.0)
        needed = math.ceil(REPAIR * (self.iters_left * each + self.margin()))
        forecast = self.prices.of(account.settings["iters"], account.settings["windows"])
        if account.charged + needed > MOST_EXTENDED * forecast:
            return False
        return self.ledger.top_up(self.trial, needed) >= needed

    def margin(self) -> float:
        """Quanta to keep for what comes after the last iter."""
        return max(0, self.windows_left) * self.prices.window + self.spare()

    def spare(self) -> float:
        """Quanta for stopping the trial."""
        return spare_of(self.ledger, self.account, self.prices)

    def measured_iter(self) -> float | None:
        """Quanta of a recent iter, on average; None until enough were measured."""
        marks = pairwise(self.marks)
        train = [after - before for (kind, before), (_, after) in marks if kind == "train"]
        return sum(train) / len(train) * self.account.workers * MICRO if len(train) >= 5 else None

    def is_off(self, left: float) -> bool:
        """Whether it is time to check the run's length again, and it is wrong by more than 2% of the whole.

        Another length costs a checkpoint and a warm-up, which it would not be worth near the end.
        """
        if self.iters_left > self.next_resize or self.iters_left < 10:
            return False
        self.next_resize = int(self.iters_left * 0.6)
        measured = self.measured_iter()
        if measured is None:
            return False
        right = (left - self.margin()) / measured
        return abs(right - self.iters_left) > 0.02 * self.config.max_iters


def config_of(account: Account) -> ResolvedConfig:
    """The settings of a trial's run."""
    return ResolvedConfig(**account.settings["config"])


def prices_of(account: Account) -> Prices:
    """The prices of a trial's run, in quanta."""
    return Prices(**account.settings["prices"])


def spare_of(ledger: Ledger, account: Account, prices: Prices) -> float:
    """Quanta for stopping a trial: a checkpoint, and the end of the processes."""
    if not ledger.terms.is_timed:
        return 0.0
    return 2 * prices.checkpoint + STOPPING_SECONDS * account.workers * MICRO


# ----------------------------------------------------------------------------- of workers without a trial


class IdleMeter(Repeating):
    """A thread that charges the time of workers that are reserved for the sweep while no trial is charged for them.

    It prints a line when that has cost so much that the final run comes next. Where even then nothing works for long,
    `error` says so.
    """

    def __init__(self, ledger: Ledger, workers: int, starting: Callable[[], int] = lambda: 0) -> None:
        """Args:
        workers: in all.
        starting: how many workers have not started.
        """
        super().__init__(tick_seconds(ledger))
        self.ledger, self.workers, self.starting = ledger, workers, starting
        self.since = time.time()
        self.error: UserError | None = None
        self.is_reported = ledger.is_idle_too_long
        self.waited = 0  # quanta, since a worker was last charged for

    def __enter__(self) -> Self:
        return super().__enter__() if self.ledger.terms.is_timed else self

    def act(self) -> None:
        """Charge what was idle since the last time, and apply the limits."""
        now, ledger, terms = time.time(), self.ledger, self.ledger.terms
        ledger.refresh()
        busy = 0
        for account in ledger.accounts.values():
            if account.is_open and account.charged_until >= now:
                busy += self.workers if account.purpose == "final" else account.workers
        idle, seconds = max(0, self.workers - busy), now - self.since
        starting = min(idle, self.starting())
        try:
            ledger.charge_idle(starting * seconds, START_UP)
            ledger.charge_idle((idle - starting) * seconds, IDLE_TIME)
            self.since = now
        except StorageError as error:  # trials find the same, and end the sweep
            print(f"{error}; trying again", file=sys.stderr)
        self.waited = 0 if busy else self.waited + round(idle * seconds * MICRO)
        if ledger.is_idle_too_long and not self.is_reported:
            self.is_reported = True
            print(
                f"idle workers have cost {terms.money(ledger.idle)}, more than {IDLE_SHARE:.0%} of the budget: "
                "no more trials begin, and the final run gets what is left",
                file=sys.stderr,
            )
        if self.waited > IDLE_SHARE * terms.capacity and self.error is None:
            share = f"{self.waited / terms.capacity:.0%} of the budget"
            self.error = UserError(
                f"no trial has started, and waiting has cost {terms.money(self.waited)}, {share}; check that the "
                "machines are available and not busy, then the same command goes on"
            )
            ledger.note(Interrupted(True))
