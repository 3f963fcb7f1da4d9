"""What a sweep will do with its budget: how many trials of what length, what is left for the final run."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table

from nanochat_tct.tracking.line import duration
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import Terms
from nanochat_tct.tuning.prices import EVALUATIONS, FINAL_EVALUATIONS, Prices
from nanochat_tct.tuning.space import Size

MIN_ITERS = 20  # of a trial: with fewer there is nothing to compare
EVALUATION_SHARE = 0.1  # of a trial's money, at most


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
    """Divide the sweep's money, which is no less than `least_budget`.

    Args:
        prices: in quanta, by size.
        spent: quanta, on probes.
        stream_windows: of the whole validation split, where trials are measured by other windows than these; else 0.
    """
    number = len(prices) * config.trials_of_a_size
    money = (config.sweep_share * terms.capacity - spent) * (1 - config.follow_up_share) / number
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


def rounded_up(terms: Terms, quanta: float) -> str:
    """Quanta in the budget's unit, two digits of it: a budget that is no less."""
    amount = terms.amount(math.ceil(quanta))
    digit = 10 ** (math.floor(math.log10(amount)) - 1)
    return f"{math.ceil(amount / digit) * digit:.3g}"


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
