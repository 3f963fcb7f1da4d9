"""The tables of a sweep: the forecast from its probes, and its trials while it runs, with the time left."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nanochat_tct.storage.object_storage import join, local_path
from nanochat_tct.tracking.line import duration
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.tuning.budget import FINAL_EVALUATIONS, count, final_iters, final_windows, unit_name
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import Repeating
from nanochat_tct.tuning.records import Choice, Duration, Plan, Trial, show_value
from nanochat_tct.tuning.results import trial_rows
from nanochat_tct.tuning.scheduler import TOKENS_PER_PARAMETER, Scheduler, spread

SECONDS = 2.0  # between looks at the ledger
TRUST = 0.1  # of the whole forecast: after as long as that the observed speed and the forecast count alike


# ----------------------------------------------------------------------------- the forecast


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
    number, rows = config.trials_of_a_size, [ForecastRow("probes (done)", len(sweep.sizes), 0, 0.0, spent)]
    trials = number * len(plan.iters)
    rounds = math.ceil(trials / sweep.slots) / trials  # the last one may not be full
    # How many times as fast a run on all workers is.
    full_speed = spread(sweep.base, sweep.slots).num_workers // sweep.base.num_workers
    rest, paces = float(terms.capacity - spent), []
    if plan.has_trials:
        for name, iters in plan.iters.items():
            one, cost = (prices.of(iters, plan.windows) for prices in (seconds[name], sweep.prices(name)))
            rows.append(ForecastRow(name, number, iters, one * number * rounds, cost * number))
            paces.append(one / cost)
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
            part = f"{share:.0%} of the split" if share else "trials' windows"
            part = "whole split" if share == 1 else part
            rows.append(ForecastRow(f"  {part}", 0, 0, measuring, cost))
    return Forecast(rows, Duration(sweep_seconds, final_seconds))


def show_forecast(sweep: Scheduler, console: Console) -> None:
    """Print what is planned, and note how long it will take.

    Raises: UserError when the budget is too small.
    """
    plan = sweep.make_plan()
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
        spent = sweep.ledger.terms.of_budget(sweep.ledger.spent)
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
            terms.money(row.quanta),
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
        self.begun: tuple[float, float] | None = None  # the time, and seconds of the forecast done by then

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


# ----------------------------------------------------------------------------- the trials


class LiveTable(Repeating):
    """On a terminal a table that refreshes; elsewhere a line when a trial begins or ends.

    An output that fails (a closed pipe, a full disk) raises nothing in the middle of a sweep: `on_failure` gets the
    reason, and the end of the context raises the error.
    """

    def __init__(
        self, ledger: Ledger, console: Console, on_failure: Callable[[str], None] = lambda reason: None
    ) -> None:
        super().__init__(SECONDS)
        self.ledger, self.console, self.on_failure = ledger, console, on_failure
        self.error: OSError | None = None
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.varied = list(ledger.terms.sweep.get("vary", {}))
        self.time_left = TimeLeft(ledger)
        self.printed = {trial.trial: trial.status for trial in trial_rows(ledger)}

    def __enter__(self) -> "LiveTable":
        if self.live is not None:
            self.live.start()
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        super().__exit__(kind, *exception)
        self.act()
        if self.live is not None:
            self.live.update(self.table())  # whole, as it may scroll now
            self.live.stop()
        if self.error is not None and kind is None:
            raise self.error

    def act(self) -> None:
        """Show what has changed."""
        self.ledger.refresh()
        if self.live is not None:
            self.live.update(self.table(max(3, self.console.height - 8)), refresh=True)
            return
        for trial in trial_rows(self.ledger):
            if self.printed.get(trial.trial) != trial.status and self.error is None:
                self.printed[trial.trial] = trial.status
                try:  # without the console, which would end this thread, and nothing else, at a closed pipe
                    print(self.line(trial), file=self.console.file, flush=True)
                except OSError as error:
                    self.error = error
                    self.on_failure(f"its output ({os.strerror(error.errno or 0).lower()})")

    def line(self, trial: Trial) -> str:
        """A trial's news, and the money."""
        bits = "" if trial.bits_per_byte is None else f" | bits per byte {trial.bits_per_byte:.4f}"
        tokens = f" | tokens {trial.tokens:,}" if trial.tokens else f" | of {trial.planned_tokens:,} tokens"
        varied = "".join(f" | {name} {show_value(getattr(trial, name))}" for name in self.varied)
        return f"{trial.trial} | lr {trial.learning_rate:g}{varied}{tokens}{bits} | {trial.status} | {self.total()}"

    def table(self, most: int | None = None) -> Table:
        """All trials, or the last `most`, and the money; 80 columns wide where nothing but size and rate is varied."""
        trials = trial_rows(self.ledger)
        shown = trials if most is None else trials[-most:]
        earlier = f" | {len(trials) - len(shown)} earlier trials" if len(shown) < len(trials) else ""
        table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False, show_edge=False)
        table.caption, table.caption_justify = self.total() + earlier, "left"
        for column in ("trial", "size", "lr", *self.varied, "tokens", "bits per\nbyte", "spent", "status"):
            is_text = column in ("trial", "size", "status")
            justify = "left" if is_text else "right"
            table.add_column(column.replace("_", "\n"), justify=justify, no_wrap=True)  # type: ignore[arg-type]
        best = min((trial.bits_per_byte or 1e9 for trial in trials), default=0)
        for trial in shown:
            account = self.ledger.accounts[trial.trial]
            (tokens, bits), of_all = (trial.tokens, trial.bits_per_byte), ""
            if account.is_open:
                (tokens, bits), of_all = self.progress(trial), f" of {count(trial.planned_tokens)}"
            table.add_row(
                trial.trial.removesuffix(f"-{trial.size}"),
                trial.size,
                f"{trial.learning_rate:g}",
                *(show_value(getattr(trial, name)) for name in self.varied),
                count(tokens) + of_all,
                "" if bits is None else f"{bits:.4f}",
                self.ledger.terms.money(account.charged),
                trial.status,
                style="bold" if bits == best else "",
            )
        return table

    def progress(self, trial: Trial) -> tuple[int, float | None]:
        """Tokens and last bits per byte of a running trial, from what it logs."""
        settings = self.ledger.accounts[trial.trial].settings
        entries = read_metrics(local_path(join(settings["config"]["checkpoint_dir"], trial.trial)))
        iters = max((entry["iter"] for entry in entries), default=0)
        bits = [entry["bits_per_byte"] for entry in entries if "bits_per_byte" in entry]
        return iters * settings["iter_tokens"], bits[-1] if bits else None

    def total(self) -> str:
        """Spent, budget, and the forecast of how much longer it will take."""
        terms, spent, left = self.ledger.terms, self.ledger.spent, self.time_left.seconds()
        text = f"spent {terms.money(spent)} of {terms.money(terms.capacity)} ({spent / terms.capacity:.0%})"
        return text if left is None else f"{text} | time left, forecast {duration(left)}"
