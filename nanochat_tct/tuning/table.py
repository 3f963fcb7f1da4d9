"""The table of trials that a sweep shows while it runs."""

import os
from collections.abc import Callable

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nanochat_tct.storage.object_storage import join, local_path
from nanochat_tct.tracking.line import duration
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.tuning.amounts import count, money
from nanochat_tct.tuning.forecast import TimeLeft
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import Repeating
from nanochat_tct.tuning.records import Trial, show_value
from nanochat_tct.tuning.results import trial_rows

SECONDS = 2.0  # between looks at the ledger


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
                money(self.ledger.terms, account.charged),
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
        text = f"spent {money(terms, spent)} of {money(terms, terms.capacity)} ({spent / terms.capacity:.0%})"
        return text if left is None else f"{text} | time left, forecast {duration(left)}"
