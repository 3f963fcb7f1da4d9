"""What a sweep will do with its budget: how many trials of what length, what is left for the final run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from nanochat_tct.errors import UserError
from nanochat_tct.tracking.line import duration
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import MICRO, Terms
from nanochat_tct.tuning.space import Size
from nanochat_tct.tuning.trials import Unit

FORWARD = 1 / 3  # of the FLOPs of an iter: evaluation has no backward pass
EVALUATIONS = 3  # of a trial: before, half-way, at the end
FINAL_EVALUATIONS = 6  # of a final run, the one before included
MIN_ITERS = 20  # of a trial: with fewer there is nothing to compare
EVALUATION_SHARE = 0.1  # of a trial's money, at most


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
    whole_windows: int  # of the last one of the final run, besides; 0 where trials take all anyway


def make_plan(
    config: SweepConfig,
    terms: Terms,
    prices: Mapping[str, Prices],
    spent: int,
    global_batch: int,
    validation_windows: int,
    stream_windows: int = 0,
) -> Plan:
    """Divide the sweep's money.

    Args:
        prices: in quanta, by size.
        spent: quanta, on probes.
        stream_windows: of the whole validation split, where trials are measured by other windows than these; else 0.

    Raises: UserError that says the least budget that would do.
    """
    number = len(prices) * config.trials_of_a_size
    money = (config.sweep_share * terms.capacity - spent) * (1 - config.follow_up_share) / number
    smallest = EVALUATIONS * min(global_batch, validation_windows)
    needed = max(price.of(MIN_ITERS, smallest) for price in prices.values())
    if money < needed:
        least = (needed * number / (1 - config.follow_up_share) + spent) / config.sweep_share
        raise UserError(too_small(terms, least, number))
    dearest = max(price.window for price in prices.values())
    eval_iters = max(1, math.floor(EVALUATION_SHARE * money / (EVALUATIONS * dearest * global_batch)))
    windows, whole_windows = eval_iters * global_batch, stream_windows or validation_windows
    if windows >= validation_windows:
        eval_iters, windows, whole_windows = 0, validation_windows, stream_windows
    iters = {name: price.iters(money, EVALUATIONS * windows) for name, price in prices.items()}
    if min(iters.values()) < MIN_ITERS:  # more than the smallest evaluation is too much
        eval_iters, windows = 1, min(global_batch, validation_windows)
        whole_windows = stream_windows or validation_windows
        iters = {name: price.iters(money, EVALUATIONS * windows) for name, price in prices.items()}
    return Plan(money, iters, eval_iters, windows, whole_windows)


def too_small(terms: Terms, least: float, number: int) -> str:
    """What to say of a budget that does not buy the trials."""
    amount = terms.amount(math.ceil(least))
    rounded = math.ceil(amount / 10 ** (math.floor(math.log10(amount)) - 1)) * 10 ** (
        math.floor(math.log10(amount)) - 1
    )
    flag = f"--budget-{terms.unit.replace('_', '-')}"
    return (
        f"{flag} {terms.budget:g} is too small: {number} trials of {MIN_ITERS} iters and a final run take "
        f"{rounded:.3g} at least; raise it, or take fewer or smaller --sizes, or less of --num-rates and --vary"
    )


def final_iters(prices: Prices, money: float, plan: Plan) -> int:
    """How long a final run `money` quanta buy."""
    whole = plan.whole_windows * prices.window
    return prices.iters(money - whole, FINAL_EVALUATIONS * plan.windows, FINAL_EVALUATIONS)


def forecast(
    plan: Plan,
    config: SweepConfig,
    terms: Terms,
    sizes: Mapping[str, Size],
    quanta: Mapping[str, Prices],
    seconds: Mapping[str, Prices],
    spent: int,
    iter_tokens: int,
    unique_tokens: int,
    slots: int,
) -> Table:
    """The table that is shown before the sweep."""
    unit = terms.unit.replace("_", " ")
    has_price = terms.hourly_usd is not None
    table = Table(title="forecast", title_justify="left")
    for column in ("", "trials", "iters", "tokens", "epochs", "hours", unit, "of the budget"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, number: int, iters: int, hours: float, cost: float) -> None:
        table.add_row(
            name,
            str(number) if number else "",
            f"{iters:,}" if iters else "",
            f"{iters * iter_tokens:,}" if iters else "",
            f"{iters * iter_tokens / unique_tokens:.2f}" if iters else "",
            duration(hours * 3600),
            money(terms, cost),
            f"{cost / terms.capacity:.1%}",
        )

    add("probes (done)", len(sizes), 0, 0, spent)
    number, total_seconds = config.trials_of_a_size, 0.0
    for name, size in sizes.items():
        windows = EVALUATIONS * plan.windows
        cost = quanta[name].of(plan.iters[name], windows) * number
        time = seconds[name].of(plan.iters[name], windows) * number / slots
        total_seconds += time
        add(f"{name} ({size.parameters / 1e6:.1f}M)", number, plan.iters[name], time / 3600, cost)
    follow = config.follow_up_share * (config.sweep_share * terms.capacity - spent)
    follow_time = total_seconds * config.follow_up_share / (1 - config.follow_up_share)
    add("follow-ups, at most", 0, 0, follow_time / 3600, follow)
    rest = terms.capacity * (1 - config.sweep_share)
    final_times = []
    for name in sizes:
        iters = final_iters(quanta[name], rest, plan)
        final_times.append(seconds[name].of(iters, FINAL_EVALUATIONS * plan.windows) / slots)
        add(f"final run, if {name}", 1, iters, final_times[-1] / 3600, rest)
    table.add_section()
    add("total, at most", 0, 0, (total_seconds + follow_time + max(final_times)) / 3600, terms.capacity)
    at_a_time = f", {slots} trials at a time" if slots > 1 else ""
    table.caption = f"hours: at the speed of the probes{at_a_time}"
    if has_price and terms.unit != "usd":
        table.caption += f"; ${terms.hourly_usd:g} an hour of a worker"
    return table


def money(terms: Terms, quanta: float) -> str:
    """Quanta, as people write the budget's unit."""
    amount = terms.amount(int(quanta))
    if terms.unit == "usd":
        return f"${amount:.2f}" if terms.budget >= 10 else f"${amount:.4f}"
    return f"{amount:.2f} h" if terms.unit == "gpu_hours" and terms.budget >= 1 else f"{amount:.3g}"
