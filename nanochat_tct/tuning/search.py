"""Ray Tune's side of a sweep: its search algorithm asks the scheduler what is next."""

from collections.abc import Callable
from typing import Any

from ray.tune import Stopper
from ray.tune.search import Searcher

from nanochat_tct.errors import UserError
from nanochat_tct.tuning.ledger import START_UP, Ledger
from nanochat_tct.tuning.scheduler import Scheduler
from nanochat_tct.tuning.trial import Losers

LEAVING_SECONDS = 2.0  # for Tune to end in an orderly way once no worker has anything to save


class LedgerSearch(Searcher):
    """Suggests the trials that the sweep wants, as many at a time as it has slots.

    It keeps no state that a restore would need: that is in the ledger, which is never older than the money.
    """

    def __init__(self, sweep: Scheduler, on_plan: Callable[[], None]) -> None:
        """Args:
        on_plan: called once, when all sizes are probed.
        """
        super().__init__()
        self.sweep, self.on_plan = sweep, on_plan
        self.is_planned = sweep.is_probed
        self.running: dict[str, str] = {}  # Ray's name of a trial: ours
        self.is_done = False
        self.losers = Losers(sweep.ledger)
        self.error: UserError | None = None  # raised here it would be lost in Ray's own

    def suggest(self, trial_id: str) -> Any:
        """The next trial's `folder`, `output` and name; None: not now; FINISHED."""
        sweep = self.sweep
        sweep.ledger.refresh()
        none_left = None if self.running else Searcher.FINISHED
        if self.error is not None or sweep.ledger.is_interrupted:
            return none_left
        if len(self.running) >= sweep.slots:
            return None
        try:
            if not self.is_planned and sweep.is_probed:
                self.is_planned = True
                self.on_plan()
            name = sweep.next_trial(set(self.running.values()))
        except UserError as error:
            self.error = error
            return none_left
        self.is_done = name is False
        if not isinstance(name, str):
            return Searcher.FINISHED if self.is_done else None
        self.running[trial_id] = name
        return {"folder": str(sweep.folder), "output": sweep.output, "trial": name}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Settle a trial that Ray gave up; end the sweep after one that cannot continue for now."""
        name, ledger = self.running.pop(trial_id), self.sweep.ledger
        if result is not None and result.get("sweep_error"):
            self.error = UserError(result["sweep_error"])
            return
        ledger.refresh()
        if ledger.accounts[name].is_open and error:
            ledger.settle(name, {"status": "failed", "why": f"see {self.sweep.folder / 'tune'}"})
        try:
            self.losers.remove()
        except UserError as problem:  # object storage refuses
            self.error = problem

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class InterruptedStopper(Stopper):
    """Ends Tune after an interrupt once no worker has anything to save.

    Tune itself would wait for processes that are only starting.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.rests_since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Asked by Tune several times a second."""
        self.ledger.refresh()
        now = self.ledger.clock()
        is_at_work = any(
            account.is_open and account.kind != START_UP and account.charged_until >= now
            for account in self.ledger.accounts.values()
        )
        if is_at_work or not self.ledger.is_interrupted:
            self.rests_since = None
            return False
        self.rests_since = self.rests_since or now
        return now - self.rests_since > LEAVING_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {}
