"""Sweeps from Python: start or continue one, watch it, read its trials, ask what a budget would buy.

    from nanochat_tct.tuning import Sweep

    sweep = Sweep.start(output="sweeps/demo", budget_flops=9e12, sizes=["2x64", "demo"], batch_size=4)
    for trial in sweep.ended():
        print(trial.trial, trial.learning_rate, trial.bits_per_byte)

A sweep runs in a process of its own, as `nanochat-tct tune` does, so this one may end or crash before it. All that is
read here comes from its ledger: `Sweep("sweeps/demo")` opens a sweep that runs, was stopped, or is done.
"""

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nanochat_tct.config import flag_of, parse_arguments
from nanochat_tct.errors import UserError
from nanochat_tct.tuning.config import SweepConfig, flag_words
from nanochat_tct.tuning.fit import SizeFit, fit_trials
from nanochat_tct.tuning.ledger import read_ledger
from nanochat_tct.tuning.records import Interval, Outcome, Trial, tokens_by_size
from nanochat_tct.tuning.results import curve_of, evidence_rows, make_outcome, trial_rows


@dataclass(frozen=True)
class Prediction:
    """The expected result of a sweep with a given budget."""

    budget: float  # in the sweep's unit
    size: str
    learning_rate: float
    tokens: int  # of the final run
    bits_per_byte: Interval
    sizes: list[SizeFit]  # a final run of each


class Sweep:
    """A sweep in a folder, or in object storage."""

    def __init__(self, output: str) -> None:
        """Open a sweep without running it.

        Args:
            output: its folder or URI.
        Raises: UserError when there is none.
        """
        self.output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._ledger = read_ledger(output)

    @classmethod
    def start(cls, **settings: Any) -> "Sweep":
        """Start a sweep on Ray, or continue the one in `output`, in a process of its own.

        Args:
            settings: those of `nanochat-tct tune`, by their keys in a config file; `from_` is `from`.
        Raises: UserError for what the command refuses before it spends anything.
        """
        from nanochat_tct.tuning import tune

        config = parse_arguments(SweepConfig, arguments_of(settings), "tune", "")
        prepared, _ = tune.prepare(config)
        prepared.ledger.close()
        sweep = cls(config.output)
        again = arguments_of({name: value for name, value in settings.items() if name != "fresh"})
        sweep._process = subprocess.Popen([sys.executable, "-m", "nanochat_tct.cli", "tune", *again])
        return sweep

    @property
    def is_running(self) -> bool:
        """Whether the process that `start` began still runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the sweep as Ctrl-C does: trials save their checkpoints first. `start` continues it."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> Outcome:
        """Wait until the sweep ends or is stopped. Returns: its outcome.

        Raises: UserError when the command failed; it has said why on standard error.
        """
        code = self._process.wait() if self._process is not None else 0
        if code not in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
            raise UserError(f"the sweep in {self.output} ended with exit code {code}")
        return self.outcome()

    def ended(self, poll_seconds: float = 1.0) -> Iterator[Trial]:
        """Yield each trial of this sweep once it has ended, until the sweep's process ends."""
        seen: set[str] = set()
        while True:
            is_running = self.is_running
            for trial in self.trials():
                if trial.status != "running" and not trial.source and trial.trial not in seen:
                    seen.add(trial.trial)
                    yield trial
            if not is_running:
                return
            time.sleep(poll_seconds)

    def trials(self) -> list[Trial]:
        """All trials that were begun, in that order, then those of other sweeps that count as evidence."""
        self._ledger.refresh()
        return [*trial_rows(self._ledger), *evidence_rows(self._ledger)]

    def table(self) -> pa.Table:
        """`trials()` as a table, with each one's loss curve in the column `curve`."""
        rows = [{**vars(trial), "curve": self.curve(trial)} for trial in self.trials()]
        return pa.Table.from_pylist(rows)

    def curve(self, trial: Trial) -> list[dict[str, float]]:
        """`iter`, `tokens` and `bits_per_byte` of each evaluation of a trial; empty where its log is not here."""
        account = self._ledger.accounts.get(trial.trial)
        if trial.source or account is None:
            return []
        tokens, curve = account.settings["iter_tokens"], curve_of(trial.trial, account)
        return [{"iter": i, "tokens": i * tokens, "bits_per_byte": bits} for i, _, bits in curve if bits]

    def outcome(self) -> Outcome:
        """What the sweep was given, spent, chose and reached so far."""
        self._ledger.refresh()
        return make_outcome(self._ledger)

    def predict(self, budget: float | None = None) -> Prediction:
        """Predict the result of a sweep with some budget from all trials and final runs so far.

        Args:
            budget: in the sweep's unit; None: its own.
        Raises: UserError when no trial has finished.
        """
        terms = self._ledger.terms
        budget = terms.budget if budget is None else budget
        trials = [
            dataclasses.replace(trial, purpose="sweep" if trial.purpose == "final" else trial.purpose)
            for trial in self.trials()
        ]
        own = [trial for trial in trials if not trial.source]
        fit = fit_trials(trials, tokens_by_size(own, terms.unit, (1 - terms.sweep["sweep_share"]) * budget))
        rate, tokens = fit.best.learning_rate.middle, fit.best.tokens
        return Prediction(budget, fit.best.size, rate, tokens, fit.best.bits_per_byte, fit.sizes)


def arguments_of(settings: dict[str, Any]) -> list[str]:
    """Settings by their keys as arguments of the command line."""
    arguments = []
    for name, value in settings.items():
        flag = flag_of(name.removesuffix("_"))
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple | dict):
            arguments += [flag, *flag_words(value)]
        else:
            arguments.append(f"{flag}={value}")
    return arguments
