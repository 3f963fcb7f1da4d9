"""What a sweep will do with its budget: how many trials of what length, what is left for the final run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from nanochat_tct.tracking.line import duration
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import MICRO, Terms
from nanochat_tct.tuning.space import Size
from nanochat_tct.tuning.trials import Unit

FORWARD = 1 / 3  # of the FLOPs of an iter: evaluation has no backward pass
EVALUATIONS = 3  # of a trial: before, half-way, at the end
FINAL_EVALUATIONS = 6  # of a final run, the one before included
MIN_ITERS = 20  # of a trial: with fewer there is nothing to compare
EVALUATION_SHARE = (
    0.1  # of a trial's money for its evaluations, which buys some windows of the validation split
)
LEAST_WINDOWS = 64  # even where they cost more than that share,
LARGEST_EVALUATION_SHARE = 0.25  # but not more than this one
WHOLE_SPLIT_SHARE = (
    0.05  # of the final run's money, at most, to measure its model on the whole validation split
)
FORECAST = (
    "forecast"  # note of the ledger: seconds that the forecast gives to the sweep, and to a final run by size
)


@dataclass(frozen=True)
class Prices:
    """Of the pieces of a run of one size; in quanta, or in seconds."""

    start_up: float  # until workers are there, and until they are gone
    warm_up: float
    iter: float
    window: float  # of evaluation
    checkpoint: float

    def of(self, iters: int, windows: int, evaluations: int = EVALUATIONS) -> float:
        """A whole run, with a checkpoint for each evaluation and one besides.

        Args:
            windows: of all its evaluations together.
        """
        once = self.start_up + self.warm_up + (evaluations + 1) * self.checkpoint
        return once + iters * self.iter + windows * self.window

    def iters(self, money: float, windows: int, evaluations: int = EVALUATIONS) -> int:
        """How many iters a run can have for `money`; 0 when it does not even buy the rest."""
        return max(0, math.floor((money - self.of(0, windows, evaluations)) / self.iter))

    def scaled(self, factor: float) -> "Prices":
        """All prices times a factor."""
        return Prices(*(factor * value for value in vars(self).values()))


def prices_in_flops(size: Size, global_batch: int, warm_up_rows: int) -> Prices:
    """Quanta where the budget is in FLOPs: exact, known before anything runs."""
    row = size.row_flops
    return Prices(0, warm_up_rows * row, global_batch * row, math.ceil(row * FORWARD), 0)


def prices_in_seconds(seconds: Mapping[str, float]) -> Prices:
    """Seconds of a probe (`seconds_of`)."""
    return Prices(**{name: seconds[name] for name in Prices.__dataclass_fields__})


def prices_in_quanta(
    unit: Unit, size: Size, global_batch: int, warm_up_rows: int, workers: int, seconds: Prices
) -> Prices:
    """What is taken from the budget."""
    if unit == "flops":
        return prices_in_flops(size, global_batch, warm_up_rows)
    return seconds.scaled(workers * MICRO)


def seconds_of(marks: Sequence[tuple[str, float]], end: float, opened: float, windows: int) -> dict[str, Any]:
    """Prices in seconds from a run's charges.

    Args:
        marks: (kind, seconds since 1970) of each, in order: a piece lasts until the next one.
        end: of the last piece.
        opened: when the trial was opened.
        windows: of one evaluation.
    """
    ends = [time for _, time in marks[1:]] + [end]
    lasted: dict[str, list[float]] = {}
    for (kind, start), stop in zip(marks, ends, strict=True):
        lasted.setdefault(kind, []).append(stop - start)

    def typical(kind: str) -> float:
        values = sorted(lasted.get(kind, [0.0])[1 if len(lasted.get(kind, [])) > 2 else 0 :])
        return values[len(values) // 2]

    return {
        "start_up": marks[0][1] - opened,
        "warm_up": typical("warm_up"),
        "iter": typical("train"),
        "window": typical("evaluation") / windows,
        "checkpoint": typical("checkpoint"),
    }


@dataclass(frozen=True)
class Plan:
    """The first trials: all cost the same, `money` quanta, so that larger ones see fewer tokens."""

    money: float
    iters: dict[str, int]  # by size
    eval_iters: int  # 0: all of the validation split
    windows: int  # of an evaluation
    whole_windows: int  # of the whole validation split; 0 where trials take all of it anyway


def make_plan(
    config: SweepConfig,
    terms: Terms,
    prices: Mapping[str, Prices],
    spent: int,
    global_batch: int,
    validation_windows: int,
) -> Plan:
    """Divide the sweep's money, which is no less than `least_budget`.

    Args:
        prices: in quanta, by size.
        spent: quanta, on probes.
    """
    number = len(prices) * config.trials_of_a_size
    money = (config.sweep_share * terms.capacity - spent) * (1 - config.follow_up_share) / number

    def eval_iters_for(money: float, price: Prices) -> int:
        return math.floor(money / (EVALUATIONS * price.window * global_batch))

    dearest = max(prices.values(), key=lambda price: price.window)
    least_windows = min(
        math.ceil(LEAST_WINDOWS / global_batch), eval_iters_for(LARGEST_EVALUATION_SHARE * money, dearest)
    )
    eval_iters = max(least_windows, eval_iters_for(EVALUATION_SHARE * money, dearest))
    # What the shortest of trials leaves.
    most = min(eval_iters_for(money - price.of(MIN_ITERS, 0), price) for price in prices.values())
    eval_iters = max(1, min(eval_iters, most))
    windows, whole_windows = eval_iters * global_batch, validation_windows
    if windows >= validation_windows:
        eval_iters, windows, whole_windows = 0, validation_windows, 0
    iters = {name: price.iters(money, EVALUATIONS * windows) for name, price in prices.items()}
    return Plan(money, iters, eval_iters, windows, whole_windows)


def least_budget(
    config: SweepConfig,
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
    a_trial = max(price.of(MIN_ITERS, EVALUATIONS * windows) for price in trials)
    a_final = max(price.of(MIN_ITERS, FINAL_EVALUATIONS * windows, FINAL_EVALUATIONS) for price in finals)
    sweep = number * a_trial / (1 - config.follow_up_share) + gone
    return max(sweep / config.sweep_share, a_final / (1 - config.sweep_share))


def too_small(terms: Terms, least: float, number: int, probes: int, spent: int) -> str:
    """What to say of a budget that does not buy the least.

    Args:
        least: quanta.
        number: of first trials.
        probes: that are still to come.
        spent: quanta, so far.
    """
    what = f"{number} trials of {MIN_ITERS} iters and a final run" if number else "a final run"
    if probes:
        what = f"{probes} probes, {what}"
    if spent:
        what += f" take, with the {terms.amount(spent):.3g} that is spent,"
    else:
        what += " take"
    return (
        f"--budget-{terms.unit.replace('_', '-')} {terms.budget:g} is too small: {what} {rounded_up(terms, least)} at "
        "least; raise it, or take fewer or smaller --sizes, or less of --num-rates and --vary"
    )


def final_windows(prices: Prices, money: float, plan: Plan) -> int:
    """Windows that the model of a final run for `money` quanta is measured on at its end; 0: those of the trials."""
    if WHOLE_SPLIT_SHARE * money >= plan.whole_windows * prices.window:
        return plan.whole_windows
    windows = math.floor(WHOLE_SPLIT_SHARE * money / prices.window)
    return windows if windows > plan.windows else 0


def rounded_up(terms: Terms, quanta: float) -> str:
    """Quanta in the budget's unit, two digits of it: a budget that is no less."""
    amount = terms.amount(math.ceil(quanta))
    digit = 10 ** (math.floor(math.log10(amount)) - 1)
    return f"{math.ceil(amount / digit) * digit:.3g}"


def final_iters(prices: Prices, money: float, plan: Plan) -> int:
    """How long a final run `money` quanta buy."""
    measuring = final_windows(prices, money, plan) * prices.window
    return prices.iters(money - measuring, FINAL_EVALUATIONS * plan.windows, FINAL_EVALUATIONS)


def affordable_eval_iters(max_iters: int, global_batch: int, validation_windows: int, least: int) -> int:
    """`eval_iters` with which a run's evaluations cost at most WHOLE_SPLIT_SHARE of its training, or `least`."""
    eval_iters = max(least, math.floor(WHOLE_SPLIT_SHARE * max_iters / (FORWARD * FINAL_EVALUATIONS)))
    return 0 if eval_iters * global_batch >= validation_windows else eval_iters


@dataclass(frozen=True)
class ForecastRow:
    """A line of the forecast; 0 leaves a number out."""

    name: str
    trials: int
    iters: int
    seconds: float
    quanta: float


@dataclass(frozen=True)
class Forecast:
    """What a sweep will do and how long it will take, as far as its probes tell."""

    rows: list[ForecastRow]
    sweep_seconds: float  # of first trials and follow-ups
    final_seconds: dict[str, float]  # by size, with the measurement on the whole split

    @property
    def note(self) -> dict[str, Any]:
        """For the ledger, under FORECAST."""
        return {"sweep": self.sweep_seconds, "final": self.final_seconds}


def make_forecast(
    plan: Plan,
    config: SweepConfig,
    terms: Terms,
    quanta: Mapping[str, Prices],
    final_quanta: Mapping[str, Prices],
    seconds: Mapping[str, Prices],
    spent: int,
    slots: int,
    final_speed: int,
) -> Forecast:
    """The forecast of a sweep whose sizes are probed: with starts, evaluations and checkpoints.

    Args:
        quanta, final_quanta: prices of a trial and of a final run, by size.
        seconds: what a probe measured, by size.
        spent: quanta, so far.
        slots: trials at a time.
        final_speed: how many times as many workers the final run has.
    """
    windows, number = EVALUATIONS * plan.windows, config.trials_of_a_size
    rows = [ForecastRow("probes (done)", len(quanta), 0, 0.0, spent)]
    rounds = math.ceil(number * len(quanta) / slots) / (number * len(quanta))  # the last one may not be full
    for name, price in quanta.items():
        iters = plan.iters[name]
        lasts = seconds[name].of(iters, windows) * number * rounds
        rows.append(ForecastRow(name, number, iters, lasts, price.of(iters, windows) * number))
    pace = sum(
        seconds[name].of(plan.iters[name], windows) / price.of(plan.iters[name], windows)
        for name, price in quanta.items()
    ) / len(quanta)
    follow_ups = config.follow_up_share * (config.sweep_share * terms.capacity - spent)
    # One after the other, as each follows from what the others found.
    rows.append(ForecastRow("follow-ups, at most", 0, 0, pace * follow_ups, follow_ups))
    sweep_seconds = sum(row.seconds for row in rows)
    rest, final_seconds = terms.capacity * (1 - config.sweep_share), {}
    for name, price in final_quanta.items():
        iters, measured = final_iters(price, rest, plan), final_windows(price, rest, plan)
        once = seconds[name].of(0, 0, FINAL_EVALUATIONS)
        work = seconds[name].of(iters, FINAL_EVALUATIONS * plan.windows, FINAL_EVALUATIONS) - once
        run, measuring = once + work / final_speed, measured * seconds[name].window
        final_seconds[name] = run + measuring
        whole_cost = measured * price.window
        rows.append(ForecastRow(f"final run, if {name}", 1, iters, run, rest - whole_cost))
        if plan.whole_windows:
            share = measured / plan.whole_windows
            what = (
                "  whole split"
                if share == 1
                else f"  {share:.0%} of the split"
                if share
                else "  trials' windows"
            )
            rows.append(ForecastRow(what, 0, 0, measuring, whole_cost))
    return Forecast(rows, sweep_seconds, final_seconds)


def forecast_table(
    forecast: Forecast,
    plan: Plan,
    terms: Terms,
    iter_tokens: int,
    unique_tokens: int,
    slots: int,
    use_gpu: bool,
) -> Table:
    """The forecast as it is shown."""
    table = Table(title="forecast", title_justify="left", box=SIMPLE, collapse_padding=True, pad_edge=False)
    for column in (
        "",
        "trials",
        "iters",
        "tokens",
        "epochs",
        "time",
        unit_name(terms.unit, use_gpu),
        "share",
    ):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)

    def add(row: ForecastRow) -> None:
        tokens = row.iters * iter_tokens
        table.add_row(
            row.name,
            str(row.trials) if row.trials else "",
            f"{row.iters:,}" if row.iters else "",
            f"{tokens:,}" if tokens else "",
            f"{tokens / unique_tokens:.2f}" if tokens else "",
            duration(row.seconds) if row.seconds else "",
            money(terms, row.quanta),
            f"{row.quanta / terms.capacity:.1%}",
        )

    for row in forecast.rows:
        add(row)
    table.add_section()
    lasts = forecast.sweep_seconds + max(forecast.final_seconds.values())
    add(ForecastRow("total (forecast)", 0, 0, lasts, terms.capacity))
    at_a_time = f", {slots} trials at a time" if slots > 1 else ""
    of_all = plan.windows / (plan.whole_windows or plan.windows)
    table.caption = (
        f"time: a forecast from the speed of the probes, starts and evaluations included{at_a_time}; trials are "
        f"measured on {plan.windows:,} validation windows, {of_all:.0%} of the split, the final run at its end as said"
    )
    if terms.hourly_usd is not None and terms.unit != "usd":
        table.caption += f"; ${terms.hourly_usd:g} an hour of a {'GPU' if use_gpu else 'worker'}"
    return table


def unit_name(unit: Unit, use_gpu: bool) -> str:
    """The budget's unit, as people write it: without GPUs there are no hours of GPUs."""
    return {"usd": "dollars", "flops": "FLOPs"}.get(unit) or ("GPU-hours" if use_gpu else "worker-hours")


def money(terms: Terms, quanta: float) -> str:
    """Quanta, as people write the budget's unit."""
    amount = terms.amount(int(quanta))
    if terms.unit == "usd":
        return f"${amount:.2f}" if terms.budget >= 10 else f"${amount:.4f}"
    if terms.unit == "gpu_hours":
        return f"{amount:.2f} h" if terms.budget >= 1 else f"{amount:.3g} h"
    return f"{amount:.3g}"
