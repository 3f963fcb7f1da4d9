"""The budget of a sweep, and how it is divided: prices of runs, the length of trials, what the final run gets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanochat_tct.tuning.records import Plan, Unit

if TYPE_CHECKING:
    from nanochat_tct.tuning.config import SweepConfig

MICRO = 1_000_000  # microseconds in a second
AHEAD = 0.005  # of the budget: how far a copy may lag, and the most that the loss of a machine costs
FORWARD = 1 / 3  # of the FLOPs of an iter: evaluation has no backward pass
EVALUATIONS = 3  # of a trial: before, half-way, at the end
FINAL_EVALUATIONS = 6  # of a final run, the one before included
MIN_ITERS = 20  # of a trial: with fewer there is nothing to compare
LEAST_FOLLOW_UPS = 0.4  # of the sweep's money for follow-ups, where first trials would have too few iters
# A trial is measured on as many validation windows as the first share of its money buys, but on at least LEAST_WINDOWS
# unless those would take more than the second share.
EVALUATION_SHARE, LARGEST_EVALUATION_SHARE = 0.1, 0.25
LEAST_WINDOWS = 64
WHOLE_SPLIT_SHARE = 0.05  # of the final run's money at most, to measure its model on the whole split


@dataclass(frozen=True)
class Terms:
    """The budget of a sweep, and what makes it this sweep; the first line of the ledger, and of each continuation."""

    unit: Unit
    budget: float  # in that unit
    hourly_usd: float | None  # price of a worker (a GPU, or a process without GPU); needed for usd
    sweep: dict[str, Any]  # settings that make it this sweep and no other

    @property
    def is_timed(self) -> bool:
        """Whether quanta are worker-microseconds; otherwise they are FLOPs."""
        return self.unit != "flops"

    @property
    def flag(self) -> str:
        """The budget as the command line has it."""
        return f"--budget-{self.unit.replace('_', '-')} {self.budget:g}"

    @property
    def capacity(self) -> int:
        """The budget in quanta."""
        return self.quanta(self.budget)

    @property
    def ahead(self) -> int:
        """Quanta by which a copy of the ledger may lag."""
        return int(self.capacity * AHEAD)

    def quanta(self, amount: float) -> int:
        """An amount of the budget's unit as quanta, rounded down."""
        if not self.is_timed:
            return int(amount)
        hours = amount / self.hourly_usd if self.unit == "usd" and self.hourly_usd else amount
        return int(hours * 3600 * MICRO)

    def amount(self, quanta: int) -> float:
        """Quanta in the budget's unit."""
        if not self.is_timed:
            return float(quanta)
        return self.usd(quanta) if self.unit == "usd" and self.hourly_usd else quanta / MICRO / 3600

    def usd(self, worker_microseconds: int) -> float:
        """Dollars of time; 0 without a price."""
        return worker_microseconds / MICRO / 3600 * (self.hourly_usd or 0.0)

    def money(self, quanta: float) -> str:
        """Quanta in the budget's unit, briefly, as for a column of a table."""
        amount = self.amount(int(quanta))
        if self.unit == "usd":
            return f"${amount:.2f}" if self.budget >= 10 else f"${amount:.4f}"
        if self.unit == "gpu_hours":
            return f"{amount:.2f} h" if self.budget >= 1 else f"{amount:.3g} h"
        return f"{amount:.3g}"

    def of_budget(self, quanta: int) -> str:
        """Quanta beside the budget, as in `1.7e+10 of 2e+12 FLOPs (0.8%)`."""
        unit = "" if self.is_timed else " FLOPs"
        return f"{self.money(quanta)} of {self.money(self.capacity)}{unit} ({quanta / self.capacity:.1%})"

    def rounded_up(self, quanta: float) -> str:
        """The least budget of two digits that has as many quanta."""
        amount = self.amount(math.ceil(quanta))
        digit = 10 ** (math.floor(math.log10(amount)) - 1)
        return f"{math.ceil(amount / digit) * digit:.3g}"


def unit_name(unit: Unit, use_gpu: bool) -> str:
    """The budget's unit, as people write it; without GPUs it is not GPU-hours."""
    return {"usd": "dollars", "flops": "FLOPs"}.get(unit) or ("GPU-hours" if use_gpu else "worker-hours")


def show_amount(value: float, unit: Unit, use_gpu: bool) -> str:
    """An amount of the budget's unit, with the unit's name."""
    if unit == "usd":
        return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"
    return f"{value:.3g} {unit_name(unit, use_gpu)}"


def count(number: float) -> str:
    """1234567 as 1.23M; small numbers as they are, with three digits."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{letter}" if number < 1e15 else f"{number:.2e}"
    return f"{number:.3g}"


@dataclass(frozen=True)
class Prices:
    """Prices of the parts of a run of one size, in quanta or in seconds."""

    start_up: float  # of a worker that exists, until it begins
    warm_up: float
    iter: float
    window: float  # of evaluation
    checkpoint: float

    def of(self, iters: int, windows: int, evaluations: int = EVALUATIONS) -> float:
        """Price of a whole run, with a checkpoint for each evaluation and one more.

        Args:
            windows: of each evaluation.
        """
        once = self.start_up + self.warm_up + (evaluations + 1) * self.checkpoint
        return once + iters * self.iter + evaluations * windows * self.window

    def iters(self, money: float, windows: int, evaluations: int = EVALUATIONS) -> int:
        """Iters of a run that costs `money`; 0 where that does not even buy the rest."""
        return max(0, math.floor((money - self.of(0, windows, evaluations)) / self.iter))

    def scaled(self, factor: float) -> "Prices":
        """All prices times a factor."""
        return Prices(*(factor * value for value in vars(self).values()))


def prices_in_flops(row: int, global_batch: int, warm_up_rows: int) -> Prices:
    """Prices where the budget is in FLOPs: exact, and available before anything runs.

    Args:
        row: FLOPs of forward and backward pass over one window.
    """
    return Prices(0, warm_up_rows * row, global_batch * row, math.ceil(row * FORWARD), 0)


def seconds_of(marks: Sequence[tuple[str, float]], end: float, began: float, windows: int) -> Prices:
    """Prices in seconds, measured from a run's charges.

    Args:
        marks: (kind, seconds since 1970) of each, in order: each lasts until the next one.
        end: of the last one.
        began: when the worker was given the trial.
        windows: of one evaluation.
    """
    lasted: dict[str, list[float]] = {}
    for (kind, start), (_, stop) in zip(marks, [*marks[1:], ("", end)], strict=True):
        lasted.setdefault(kind, []).append(stop - start)

    def typical(kind: str) -> float:
        """The median, without the first where there are more than two."""
        seconds = lasted.get(kind, [0.0])
        values = sorted(seconds[1 if len(seconds) > 2 else 0 :])
        return values[len(values) // 2]

    window = typical("evaluation") / windows
    return Prices(marks[0][1] - began, typical("warm_up"), typical("train"), window, typical("checkpoint"))


def make_plan(
    config: "SweepConfig",
    left: float,
    prices: Mapping[str, Prices],
    global_batch: int,
    validation_windows: int,
) -> Plan:
    """Divide the sweep's money, which is no less than `least_budget`.

    Args:
        left: quanta of the sweep's share after its probes.
        prices: in quanta, by size.
    """
    money = money_of_a_trial(config, left, len(prices) * config.trials_of_a_size, prices.values())

    def eval_iters_for(money: float, price: Prices) -> int:
        return math.floor(money / (EVALUATIONS * price.window * global_batch))

    dearest = max(prices.values(), key=lambda price: price.window)
    least = math.ceil(LEAST_WINDOWS / global_batch)
    least = min(least, eval_iters_for(LARGEST_EVALUATION_SHARE * money, dearest))
    wanted = max(least, eval_iters_for(EVALUATION_SHARE * money, dearest))
    # At most what a trial of MIN_ITERS leaves, whatever its size.
    most = min(eval_iters_for(money - price.of(MIN_ITERS, 0), price) for price in prices.values())
    eval_iters = max(1, min(wanted, most))
    windows, whole_windows = eval_iters * global_batch, validation_windows
    if windows >= validation_windows:
        eval_iters, windows, whole_windows = 0, validation_windows, 0
    iters = {name: price.iters(money, windows) for name, price in prices.items()}
    return Plan(money, iters, eval_iters, windows, whole_windows)


def money_of_a_trial(config: "SweepConfig", left: float, number: int, prices: Iterable[Prices]) -> float:
    """Quanta of each first trial: what the follow-ups leave, or more where that buys too few iters.

    Args:
        left: quanta of the sweep's share for first trials and follow-ups.
        number: of first trials.
        prices: of the sizes.
    """
    least = max(price.of(MIN_ITERS, 0) for price in prices) / (1 - LARGEST_EVALUATION_SHARE)
    most = left * largest_share_of_first_trials(config) / number
    return min(most, max(least, left * (1 - config.follow_up_share) / number))


def largest_share_of_first_trials(config: "SweepConfig") -> float:
    """Share of the sweep's money that first trials may take; follow-ups get the rest."""
    return 1 - min(config.follow_up_share, LEAST_FOLLOW_UPS)


def least_budget(
    config: "SweepConfig",
    number: int,
    trials: Iterable[Prices],
    finals: Iterable[Prices],
    windows: int,
    gone: float,
) -> float:
    """Quanta that buy first trials and a final run of MIN_ITERS each, whatever their size.

    Args:
        number: of first trials.
        trials, finals: prices of each that may be run.
        windows: of an evaluation, at least.
        gone: quanta of the sweep's share that probes and earlier trials take.
    """
    a_trial = max(price.of(MIN_ITERS, windows) for price in trials)
    a_final = max(price.of(MIN_ITERS, windows, FINAL_EVALUATIONS) for price in finals)
    sweep = number * a_trial / largest_share_of_first_trials(config) + gone
    return max(sweep / config.sweep_share, a_final / (1 - config.sweep_share))


def final_windows(prices: Prices, money: float, plan: Plan) -> int:
    """Windows that a final run for `money` quanta is measured on at its end; 0: those of the trials."""
    affordable = WHOLE_SPLIT_SHARE * money
    if affordable >= plan.whole_windows * prices.window:
        return plan.whole_windows
    windows = math.floor(affordable / prices.window)
    return windows if windows > plan.windows else 0


def final_iters(prices: Prices, money: float, plan: Plan) -> int:
    """Iters of a final run that costs `money` quanta."""
    measuring = final_windows(prices, money, plan) * prices.window
    return prices.iters(money - measuring, plan.windows, FINAL_EVALUATIONS)


def affordable_eval_iters(max_iters: int, global_batch: int, validation_windows: int, least: int) -> int:
    """`eval_iters` with which a run's evaluations cost at most WHOLE_SPLIT_SHARE of its training, or `least`."""
    eval_iters = max(least, math.floor(WHOLE_SPLIT_SHARE * max_iters / (FORWARD * FINAL_EVALUATIONS)))
    return 0 if eval_iters * global_batch >= validation_windows else eval_iters
