"""How long a sweep will take: the forecast from its probes, and the time left while it runs."""

import math
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from nanochat_tct.tracking.line import duration
from nanochat_tct.tuning.amounts import money, of_budget, unit_name
from nanochat_tct.tuning.budget import FINAL_EVALUATIONS, final_iters, final_windows
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.records import Choice, Duration, Plan
from nanochat_tct.tuning.scheduler import TOKENS_PER_PARAMETER, Scheduler, spread

TRUST = 0.1  # of the whole forecast: after as long as that the observed speed and the forecast count alike


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
    """What a sweep will do and how long it will take."""

    rows: list[ForecastRow]
    lasts: Duration


def make_forecast(sweep: Scheduler, plan: Plan) -> Forecast:
    """The forecast of a sweep whose sizes are probed: with starts, evaluations and checkpoints."""
    config, terms, spent = sweep.config, sweep.ledger.terms, sweep.spent_on("probe", "idle")
    seconds = {name: prices for name in sweep.sizes if (prices := sweep.seconds(name)) is not None}
    windows, number = plan.windows, config.trials_of_a_size
    rows = [ForecastRow("probes (done)", len(sweep.sizes), 0, 0.0, spent)]
    trials = number * len(plan.iters)
    rounds = math.ceil(trials / sweep.slots) / trials  # the last one may not be full
    paces = []
    full_speed = (
        spread(sweep.base, sweep.slots).num_workers // sweep.base.num_workers
    )  # of a run on all workers
    for name in plan.iters if plan.has_trials else ():
        iters = plan.iters[name]
        one, cost = seconds[name].of(iters, windows), sweep.prices(name).of(iters, windows)
        rows.append(ForecastRow(name, number, iters, one * number * rounds, cost * number))
        paces.append(one / cost)
    rest: float = terms.capacity - spent
    if plan.has_trials:
        follow_ups = max(0.0, config.sweep_share * terms.capacity - sum(row.quanta for row in rows))
        # One after the other, as each follows from what the others found.
        pace = sum(paces) / len(paces) / full_speed
        rows.append(ForecastRow("follow-ups, at most", 0, 0, pace * follow_ups, follow_ups))
        rest = terms.capacity * (1 - config.sweep_share)
    sweep_seconds, final_seconds = sum(row.seconds for row in rows), {}
    for name in plan.iters:
        price = sweep.prices(name, takes_all=True)
        iters, measured = final_iters(price, rest, plan), final_windows(price, rest, plan)
        once = seconds[name].of(0, 0, FINAL_EVALUATIONS)
        work = seconds[name].of(iters, plan.windows, FINAL_EVALUATIONS) - once
        run, measuring = once + work / full_speed, measured * seconds[name].window
        final_seconds[name] = run + measuring
        cost = measured * price.window
        rows.append(ForecastRow(f"final run, if {name}", 1, iters, run, rest - cost))
        if plan.whole_windows:
            share = measured / plan.whole_windows
            part = (
                "whole split" if share == 1 else f"{share:.0%} of the split" if share else "trials' windows"
            )
            rows.append(ForecastRow(f"  {part}", 0, 0, measuring, cost))
    return Forecast(rows, Duration(sweep_seconds, final_seconds))


def show_forecast(sweep: Scheduler, console: Console) -> None:
    """Print what is planned, and note how long it will take.

    Raises: UserError when the budget is too small.
    """
    plan, terms = sweep.make_plan(), sweep.ledger.terms
    forecast = make_forecast(sweep, plan)
    if sweep.ledger.latest(Duration) != forecast.lasts:
        sweep.ledger.note(forecast.lasts)
    console.print(forecast_table(forecast, sweep, plan))
    for size in sweep.sizes:
        if size not in plan.iters:
            console.print(
                f"size {size} gets no trials: its final run would see {sweep.tokens_a_parameter(size):.2g} tokens a "
                f"parameter, where {TOKENS_PER_PARAMETER} are usual and another size is near that; "
                f"--add-sizes {size} tries it nevertheless"
            )
    if sweep.config.dry_run:
        spent = of_budget(terms, sweep.ledger.spent)
        console.print(
            f"dry run: measuring the sizes has spent {spent}; the same command without --dry-run goes on from here"
        )


def forecast_table(forecast: Forecast, sweep: Scheduler, plan: Plan) -> Table:
    """The forecast as it is shown."""
    terms, use_gpu = sweep.ledger.terms, sweep.base.use_gpu
    table = Table(title="forecast", title_justify="left", box=SIMPLE, collapse_padding=True, pad_edge=False)
    unit = unit_name(terms.unit, use_gpu)
    for column in ("", "trials", "iters", "tokens", "epochs", "time", unit, "share"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    lasts = forecast.lasts.sweep + max(forecast.lasts.final.values())
    total = ForecastRow("total (forecast)", 0, 0, lasts, terms.capacity)
    for row in (*forecast.rows, total):
        tokens = row.iters * sweep.iter_tokens
        if row is total:
            table.add_section()
        table.add_row(
            row.name,
            f"{row.trials or ''}",
            f"{row.iters:,}" if row.iters else "",
            f"{tokens:,}" if tokens else "",
            f"{tokens / sweep.unique_tokens:.2f}" if tokens else "",
            duration(row.seconds) if row.seconds else "",
            money(terms, row.quanta),
            f"{row.quanta / terms.capacity:.1%}",
        )
    at_a_time = f", {sweep.slots} trials at a time" if sweep.slots > 1 else ""
    of_all = plan.windows / (plan.whole_windows or plan.windows)
    table.caption = (
        f"time: a forecast from the speed of the probes, starts and evaluations included{at_a_time}; trials are "
        f"measured on {plan.windows:,} validation windows, {of_all:.0%} of the split, the final run at its end as shown"
    )
    if terms.hourly_usd is not None and terms.unit != "usd":
        table.caption += f"; ${terms.hourly_usd:g} an hour of a {'GPU' if use_gpu else 'worker'}"
    return table


class TimeLeft:
    """How much longer a sweep will take: its forecast, corrected by the speed since this command began."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.begun: tuple[float, float] | None = (
            None  # the time, and the seconds of the forecast done by then
        )

    def seconds(self) -> float | None:
        """None before there is a forecast, and when all is done."""
        lasts, choice = self.ledger.latest(Duration), self.ledger.latest(Choice)
        if lasts is None:
            return None
        finals = lasts.final
        final = finals.get(choice.size if choice else "", sum(finals.values()) / len(finals))
        swept, trained = self._shares()
        done, now = swept * lasts.sweep + trained * final, self.ledger.clock()
        self.begun = self.begun or (now, done)
        trust = TRUST * (lasts.sweep + final)
        slower = (now - self.begun[0] + trust) / (max(0.0, done - self.begun[1]) + trust)
        return max(0.0, lasts.sweep + final - done) * slower or None

    def _shares(self) -> tuple[float, float]:
        """How much of the sweep, and of the final run, is done."""
        accounts = self.ledger.accounts.values()
        for account in accounts:
            if account.purpose == "final":
                return 1.0, account.charged / account.reserve if account.is_open else 1.0
        terms = self.ledger.terms
        probes = sum(account.charged for account in accounts if account.purpose == "probe")
        share = terms.sweep["sweep_share"] * terms.capacity - probes
        return min(1.0, (self.ledger.spent - probes) / max(1.0, share)), 0.0
