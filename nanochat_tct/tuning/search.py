"""Ray Tune's side of a sweep: its search algorithm asks the ledger what is next."""

from collections.abc import Callable
from typing import Any

from ray.tune import Stopper
from ray.tune.search import Searcher

from nanochat_tct.errors import UserError
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import INTERRUPTED, START_UP
from nanochat_tct.tuning.sweep import Sweep
from nanochat_tct.tuning.trial import Losers

LEAVING_SECONDS = 2.0  # for Tune to end in an orderly way once no worker has anything to save


class LedgerSearch(Searcher):
    """Suggests the trials that the sweep wants, as many at a time as it has slots.

    It keeps no state that a restore would need: that is in the ledger, which is never older than the money.
    """

    def __init__(self, sweep: Sweep, on_plan: Callable[[], None]) -> None:
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
        """The next trial's `folder` and name; None: not now; FINISHED."""
        sweep = self.sweep
        sweep.ledger.refresh()
        if self.error is not None or sweep.ledger.notes.get(INTERRUPTED):
            return None if self.running else Searcher.FINISHED
        if len(self.running) >= sweep.slots:
            return None
        try:
            if not self.is_planned and sweep.is_probed:
                self.is_planned = True
                self.on_plan()
            name = sweep.next_trial(set(self.running.values()))
        except UserError as error:
            self.error = error
            return None if self.running else Searcher.FINISHED
        if isinstance(name, str):
            self.running[trial_id] = name
            return {"folder": str(sweep.folder), "place": sweep.place, "trial": name}
        if name is False:
            self.is_done = True
            return Searcher.FINISHED
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has ended; one that Ray gave up is settled here, one that cannot go on for now ends the sweep."""
        name = self.running.pop(trial_id)
        if result is not None and result.get("sweep_error"):
            self.error = UserError(result["sweep_error"])
            return
        ledger = self.sweep.ledger
        ledger.refresh()
        if ledger.accounts[name].is_open and error:
            why = f"see {self.sweep.folder / 'tune'}"
            ledger.settle(name, {"status": "failed", "why": why})
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
    """Ends Tune after a wish to stop once no worker has anything to save.

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
        if is_at_work or not self.ledger.notes.get(INTERRUPTED):
            self.rests_since = None
            return False
        self.rests_since = self.rests_since or now
        return now - self.rests_since > LEAVING_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {}
