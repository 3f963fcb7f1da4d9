"""How a trial's processes charge the ledger: FLOPs before each piece of work, time ahead of it.

Each worker also keeps a log of its own of what it did (`work/`), so that the ledger can be checked against it.
"""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from nanochat_tct.errors import StorageError
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.tuning.ledger import Account, Ledger
from nanochat_tct.tuning.plan import EVALUATIONS, Prices
from nanochat_tct.tuning.repeating import Repeating

WORK_DIR = "work"
OUT_OF_MONEY = 75  # exit code of a worker that could not stop in time
RESERVE_USED = "its reserve is used up"
INTERRUPTED = "interrupted"
RESIZE = "its length is corrected"
START_UP = "start_up"  # kind of work: none yet
# Of the budget. Once idle workers have cost more, the sweep goes on to its final run; a single wait for workers, while
# none works, ends the command when it has cost more.
IDLE_SHARE = 0.2
REPAIR = 1.1  # more than the forecast is reserved when a trial has to do work again, or takes longer
MOST_EXTENDED = 2.0  # times its forecast is what a trial that takes longer may cost in all
RECENT = 200  # charges that tell how long an iter takes
LAST_ITERS = 4  # a final run whose money has come down to so many ends with the next one
LATE_SECONDS = 2.0  # that a busy machine lets a worker charge late
STOPPING_SECONDS = 3.0  # to end a run and its processes, besides its checkpoint


class TimeCharger:
    """A thread that charges the time of a trial's workers ahead of it, a little at a time. See its two kinds."""

    def __init__(self, ledger: Ledger, trial: str) -> None:
        self.ledger, self.trial = ledger, trial
        self.tick = tick_seconds(ledger)
        self._repeating = Repeating(self.tick, self._charge_or_say)

    def charge(self) -> None:
        """Charge the next while. Raises: StorageError when the ledger cannot be written."""
        raise NotImplementedError

    def charge_ahead(self, seconds: float, kind: str | None = None, is_extra: bool = False) -> bool:
        """Charge up to so many seconds from now (`Ledger.charge_until`). Returns False when the reserve is used up.

        A busy machine may stop this process for longer than that between its look at the clock and the ledger's lock.
        Then nothing is charged though there is money, and it tries again.
        """
        while True:
            now = self.ledger.clock()
            until = self.ledger.charge_until(self.trial, now + seconds, kind, is_extra)
            account = self.ledger.accounts[self.trial]
            if until > now:
                return True
            if not account.is_open or account.left < max(1, account.workers):
                return False

    def on_storage_error(self) -> None:
        """Called where a charge was not written."""

    def _charge_or_say(self) -> None:
        try:
            self.charge()
        except StorageError as error:
            print(error, file=sys.stderr)
            self.on_storage_error()

    def __enter__(self) -> Self:
        self.charge()
        self._repeating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._repeating.stop()


class WorkerCharger(TimeCharger):
    """On a trial's first worker. Work that is not charged cannot be: it settles the trial, and ends the process."""

    def __init__(self, ledger: Ledger, trial: str, log: TextIO, cut: Callable[[], dict[str, Any]]) -> None:
        """Args:
        cut: makes the result of a trial whose reserve is used up.
        """
        super().__init__(ledger, trial)
        self.log, self.cut = log, cut

    def charge(self) -> None:
        now = self.ledger.clock()
        is_covered = self.charge_ahead(3 * self.tick)
        self.log.write(json.dumps({"time": now}) + "\n")
        if not is_covered and self.ledger.terms.unit != "flops":
            # Ray would take the end of this process for a loss, and start it again: the trial ends first.
            self.ledger.settle(self.trial, self.cut())
            os._exit(OUT_OF_MONEY)

    def on_storage_error(self) -> None:
        os._exit(OUT_OF_MONEY)


class StartUpCharger(TimeCharger):
    """In a trial's driver. Charges where no worker does: while they start, and after they were lost.

    What that costs does not shorten the trial: its reserve is raised by as much, while there is money.
    """

    def __init__(self, ledger: Ledger, trial: str) -> None:
        super().__init__(ledger, trial)
        self.waited = 0  # quanta, since a worker was last at work
        self.waits_since: float | None = None  # by the ledger's clock; None: a worker is at work
        self.is_out_of_money = False

    @property
    def has_nothing_to_save(self) -> bool:
        """Whether no worker was at work for a moment: a busy one may charge a little late."""
        return self.waits_since is not None and self.ledger.clock() - self.waits_since > LATE_SECONDS

    @property
    def waits_too_long(self) -> bool:
        """Whether one wait for workers has cost IDLE_SHARE of the budget."""
        return self.waited > IDLE_SHARE * self.ledger.terms.capacity

    def charge(self) -> None:
        now = self.ledger.clock()
        self.ledger.refresh()
        account = self.ledger.accounts[self.trial]
        if account.charged_until >= now + self.tick:  # a worker charges up to three ticks ahead
            if account.kind != START_UP:
                self.waited, self.waits_since = 0, None
            return
        if self.waits_since is None:
            self.waits_since = now
        before = account.charged
        self.is_out_of_money = not self.charge_ahead(1.5 * self.tick, START_UP, is_extra=True)
        self.waited += account.charged - before


def tick_seconds(ledger: Ledger) -> float:
    """How often time is charged: half a second, or as rarely as makes a ledger of some 10,000 lines."""
    terms = ledger.terms
    if terms.unit == "flops":
        return 2.0
    return min(10.0, max(0.5, terms.capacity / 1e6 / 20_000))


def spare_of(ledger: Ledger, account: Account, prices: Prices) -> float:
    """Quanta of stopping a trial: a checkpoint, and the end of the processes."""
    if ledger.terms.unit == "flops":
        return 0.0
    return 2 * prices.checkpoint + STOPPING_SECONDS * account.workers * 1e6


class WorkerMeter:
    """On each worker of a trial: charges what the loop is about to do, and says when it must stop."""

    def __init__(self, folder: str | Path, ledger: Ledger, trial: str, rank: int) -> None:
        self.ledger = ledger
        self.trial, self.rank = trial, rank
        self.prices = Prices(**self.account.settings["prices"])  # in quanta
        self.config = ResolvedConfig(**self.account.settings["config"])  # with the length it has by now
        # The length of a final run on a budget of time follows its speed.
        self.resizes = self.account.purpose == "final" and self.ledger.terms.unit != "flops"
        self.marks: deque[tuple[str, float]] = deque(maxlen=RECENT)  # kind and time of each charge
        self.pending_flops, self.pending_since, self.pending_kind = 0, 0.0, ""
        self.iters_left = 0
        self.evaluation_prices: list[float] = []
        self.next_resize = 0
        self.stop: str | None = None  # set by whoever judges evaluations
        directory = Path(folder) / WORK_DIR
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{trial}.{rank}.{os.getpid()}.{time.time_ns()}.jsonl"
        self.log = open(directory / name, "a", buffering=1)  # noqa: SIM115  # for as long as the process lives

    @property
    def account(self) -> Account:
        """The trial's, as last read."""
        return self.ledger.accounts[self.trial]

    def charge(self, kind: str, flops: float) -> None:
        """Charge a piece of work that is about to be done; called on rank 0.

        Raises: OverBudget when the reserve does not cover it.
        """
        quanta = round(flops)
        now = self.ledger.clock()
        self.marks.append((kind, now))
        if kind == "train":
            self.iters_left -= 1
        elif kind == "evaluation":
            self.evaluation_prices = self.evaluation_prices[1:]
        if self.ledger.terms.unit == "flops":
            self.ledger.charge(self.trial, kind, quanta)
        else:  # only noted: one line a second
            if kind != self.pending_kind or now - self.pending_since > 1:
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
        if self.ledger.terms.unit == "flops":
            return account.left
        return account.left + max(0.0, account.charged_until - self.ledger.clock()) * account.workers * 1e6

    def stop_reason(self) -> str | None:
        """Why the loop should stop at the end of this iter, or None."""
        if self.rank != 0:
            return None
        left = self.left()
        if self.ledger.notes.get(INTERRUPTED):
            self.stop = INTERRUPTED
        elif self.resizes:
            if self.iters_left > 1 and (left < self.shortest() + self.margin() or self.is_off(left)):
                self.stop = RESIZE
        elif self.iters_left > 0 and left < self.prices.iter + self.margin() and not self.extend():
            self.stop = RESERVE_USED
        return self.stop

    def extend(self) -> bool:
        """Reserve what the rest of a trial takes that is slower than was forecast, so that it keeps its length.

        Returns: False when there is not as much, or the trial has cost far more than forecast.
        """
        account = self.account
        if account.purpose != "sweep" or self.ledger.terms.unit == "flops":
            return False
        each = max(self.prices.iter, self.measured_iter() or 0.0)
        needed = math.ceil(REPAIR * (self.iters_left * each + self.margin()))
        settings = account.settings
        forecast = self.prices.of(settings["iters"], EVALUATIONS * settings["windows"])
        if account.charged + needed > MOST_EXTENDED * forecast:
            return False
        return self.ledger.top_up(self.trial, needed) >= needed

    def shortest(self) -> float:
        """Quanta of stopping after this iter, and one more after that."""
        return self.prices.warm_up + LAST_ITERS * (self.measured_iter() or self.prices.iter)

    def margin(self) -> float:
        """Quanta to keep for what comes after the last iter."""
        return sum(self.evaluation_prices) + self.spare()

    def spare(self) -> float:
        """See `spare_of`."""
        return spare_of(self.ledger, self.account, self.prices)

    def measured_iter(self) -> float | None:
        """Quanta that an iter costs as of late; None before there were enough."""
        train = [after - before for (kind, before), (_, after) in pairwise(self.marks) if kind == "train"]
        if len(train) < 5:
            return None
        workers = self.account.workers
        return sum(train) / len(train) * workers * 1e6

    def is_off(self, left: float) -> bool:
        """Whether it is time to look at the run's length again, and it is wrong by more than 2% of the whole.

        Another length costs a checkpoint and a warm-up, which what is left near the end would not be worth.
        """
        if self.iters_left > self.next_resize or self.iters_left < 10:
            return False
        self.next_resize = int(self.iters_left * 0.6)
        measured = self.measured_iter()
        if measured is None:
            return False
        right = (left - self.margin()) / measured
        return abs(right - self.iters_left) > 0.02 * self.config.max_iters

    def begin(self, iters_left: int, evaluation_prices: list[float], first_look: float) -> None:
        """A run of the loop begins.

        Args:
            evaluation_prices: quanta of each evaluation that is to come.
            first_look: share of it after which its length is looked at again.
        """
        self.iters_left, self.evaluation_prices = iters_left, evaluation_prices
        self.stop = None
        self.next_resize = int(iters_left * (1 - first_look))
