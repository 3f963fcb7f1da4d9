"""The table of trials that a sweep shows while it runs."""

import os
from collections.abc import Callable
from types import TracebackType

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nanochat_tct.storage.object_storage import join, local_path
from nanochat_tct.tracking.line import duration
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.tuning.figures import count
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.plan import FORECAST, money
from nanochat_tct.tuning.repeating import Repeating
from nanochat_tct.tuning.trials import Trial, show_value, trial_rows

SECONDS = 2.0  # between looks at the ledger
TRUST = 0.1  # of the whole forecast: after as long as that the speed seen and the one forecast count alike


class TimeLeft:
    """How long a sweep will go on: its forecast, corrected by how fast this sitting has been."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.begun: tuple[float, float] | None = (
            None  # the time, and the seconds of the forecast that were done then
        )

    def seconds(self) -> float | None:
        """None before there is a forecast, and when all is done."""
        note = self.ledger.notes.get(FORECAST)
        if note is None:
            return None
        size = self.ledger.notes.get("choice", {}).get("size")
        finals = note["final"]
        final = finals[size] if size in finals else sum(finals.values()) / len(finals)
        swept, trained = self._shares()
        done, now = swept * note["sweep"] + trained * final, self.ledger.clock()
        self.begun = self.begun or (now, done)
        trust = TRUST * (note["sweep"] + final)
        slower = (now - self.begun[0] + trust) / (max(0.0, done - self.begun[1]) + trust)
        return max(0.0, note["sweep"] + final - done) * slower or None

    def _shares(self) -> tuple[float, float]:
        """How much of the sweep, and of the final run, is done."""
        accounts = self.ledger.accounts.values()
        for account in accounts:
            if account.purpose == "final":
                return 1.0, account.charged / account.reserve if account.is_open else 1.0
        terms = self.ledger.terms
        probes = sum(account.charged for account in accounts if account.purpose == "probe")
        money = terms.sweep["sweep_share"] * terms.capacity - probes
        return min(1.0, (self.ledger.spent - probes) / max(1.0, money)), 0.0


class LiveTable:
    """On a terminal a table that is drawn anew; elsewhere a line when a trial begins or ends.

    An output that fails (a closed pipe, a full disk) raises nothing in the middle of a sweep: `on_failure` hears the
    reason, and the end of the context raises the error.
    """

    def __init__(
        self, ledger: Ledger, console: Console, on_failure: Callable[[str], None] = lambda reason: None
    ) -> None:
        self.ledger, self.console, self.on_failure = ledger, console, on_failure
        self.error: OSError | None = None
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.varied = list(ledger.terms.sweep.get("vary", {}))
        self.time_left = TimeLeft(ledger)
        self.printed = {trial.trial: trial.status for trial in trial_rows(ledger)}
        self._repeating = Repeating(SECONDS, self._show)

    def __enter__(self) -> "LiveTable":
        if self.live is not None:
            self.live.start()
        self._repeating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._repeating.stop()
        self._show()
        if self.live is not None:
            self.live.update(self.table())  # whole, as it may scroll now
            self.live.stop()
        if self.error is not None and error is None:
            raise self.error

    def _show(self) -> None:
        self.ledger.refresh()
        if self.live is not None:
            self.live.update(self.table(max(3, self.console.height - 8)), refresh=True)
            return
        for trial in trial_rows(self.ledger):
            if self.printed.get(trial.trial) != trial.status:
                self.printed[trial.trial] = trial.status
                self._print(self.line(trial))

    def _print(self, line: str) -> None:
        """Without the console, which would end this thread, and nothing else, at a closed pipe."""
        if self.error is not None:
            return
        try:
            print(line, file=self.console.file, flush=True)
        except OSError as error:
            self.error = error
            self.on_failure(f"its output ({os.strerror(error.errno or 0).lower()})")

    def line(self, trial: Trial) -> str:
        """A trial's news, and the money."""
        bits = "" if trial.bits_per_byte is None else f" | bits per byte {trial.bits_per_byte:.4f}"
        tokens = f" | tokens {trial.tokens:,}" if trial.tokens else f" | of {trial.planned_tokens:,} tokens"
        rate = f" | lr {trial.learning_rate:g}" + "".join(
            f" | {name} {show_value(getattr(trial, name))}" for name in self.varied
        )
        return f"{trial.trial}{rate}{tokens}{bits} | {trial.status} | {self.total()}"

    def table(self, most: int | None = None) -> Table:
        """All trials, or the last `most`, and the money; 80 columns wide where nothing but size and rate is varied."""
        trials = trial_rows(self.ledger)
        shown = trials if most is None else trials[-most:]
        earlier = f" | {len(trials) - len(shown)} earlier trials" if len(shown) < len(trials) else ""
        table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False, show_edge=False)
        table.caption, table.caption_justify = self.total() + earlier, "left"
        for column in ("trial", "size", "lr", *self.varied, "tokens", "bits per\nbyte", "spent", "status"):
            table.add_column(
                column.replace("_", "\n"),
                justify="left" if column in ("trial", "size", "status") else "right",
                no_wrap=True,
            )
        best = min((trial.bits_per_byte or 1e9 for trial in trials), default=0)
        for trial in shown:
            tokens, bits = trial.tokens, trial.bits_per_byte
            account = self.ledger.accounts[trial.trial]
            if account.is_open:
                tokens, bits = self.progress(trial)
            table.add_row(
                trial.trial.removesuffix(f"-{trial.size}"),
                trial.size,
                f"{trial.learning_rate:g}",
                *(show_value(getattr(trial, name)) for name in self.varied),
                f"{count(tokens)} of {count(trial.planned_tokens)}" if account.is_open else count(tokens),
                "" if bits is None else f"{bits:.4f}",
                money(self.ledger.terms, account.charged),
                trial.status,
                style="bold" if bits == best else "",
            )
        return table

    def progress(self, trial: Trial) -> tuple[int, float | None]:
        """Tokens and last bits per byte of a running trial, from what it logs."""
        config = self.ledger.accounts[trial.trial].settings["config"]
        entries = read_metrics(local_path(join(config["checkpoint_dir"], trial.trial)))
        iters = max((entry["iter"] for entry in entries), default=0)
        bits = [entry["bits_per_byte"] for entry in entries if "bits_per_byte" in entry]
        return iters * self.ledger.accounts[trial.trial].settings["iter_tokens"], bits[-1] if bits else None

    def total(self) -> str:
        """Spent, budget, and the forecast of how long it will go on."""
        terms, spent, left = self.ledger.terms, self.ledger.spent, self.time_left.seconds()
        text = f"spent {money(terms, spent)} of {money(terms, terms.capacity)} ({spent / terms.capacity:.0%})"
        return text if left is None else f"{text} | time left, forecast {duration(left)}"
