"""Ray Tune's side of a sweep: its search algorithm asks the scheduler what is next, its trials wait for workers.

A trial's own process imports no PyTorch and is used again for the next trial: what is slow to start is in the pool.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.training.ray_driver import iters_saved
from nanochat_tct.training.ray_metrics import OF_SWEEPS, RayGauges
from nanochat_tct.training.signals import PREEMPTED
from nanochat_tct.tuning.meter import INTERRUPTED, config_of
from nanochat_tct.tuning.pool import LOST, NO_STORAGE, Pool, outcome_of
from nanochat_tct.tuning.scheduler import Scheduler
from nanochat_tct.tuning.trial import Losers, covers_rest

ERRORS = "errors.txt"  # beside the log of a trial: what its lost workers said
POLL_SECONDS = 0.2  # how often a trial looks for news of its workers
# After the first worker of a trial the others end; later they hang, as one of them was lost.
LATE_SECONDS = 3.0
NO_PROCESS: dict[str, Any] = {
    "status": LOST,
    "why": "the process that waits for the trial's workers ended",
    "to_restart": True,
}


@dataclass
class Job:
    """A trial at work."""

    calls: list[Any]  # by rank
    done: dict[int, dict[str, Any]] = field(default_factory=dict)  # how they ended, by rank
    over_since: float | None = None  # the first worker has ended, or another one was lost or failed

    def take(self, rank: int, outcome: dict[str, Any]) -> None:
        self.done[rank] = outcome
        if rank == 0 or outcome["status"] in ("failed", LOST):
            self.over_since = self.over_since or time.monotonic()

    @property
    def is_over(self) -> bool:
        if len(self.done) == len(self.calls):
            return True
        return self.over_since is not None and time.monotonic() - self.over_since > LATE_SECONDS

    @property
    def outcome(self) -> dict[str, Any]:
        """What the trial ended with: the first worker's, or else the first one that failed.

        `to_restart` says that a worker was lost, hangs or is to go.
        """
        ended = self.done.get(0, next(iter(self.done.values())))
        is_lost = any(each["status"] in (LOST, PREEMPTED) for each in self.done.values())
        return ended | {"to_restart": is_lost or len(self.done) < len(self.calls)}


def run_trial(given: dict[str, Any]) -> None:
    """The function that Ray Tune runs: workers of the pool train the trial, and this process waits for them.

    Args:
        given: name of the `trial` and of its `workers`; the rest is in the ledger.
    """
    import ray
    from ray import tune

    team, trial = [ray.get_actor(name) for name in given["workers"]], given["trial"]
    address = team[0].serve.remote() if len(team) > 1 else None
    job = Job([worker.train.remote(trial, rank, len(team), address) for rank, worker in enumerate(team)])
    while not job.is_over:
        at_work = [call for rank, call in enumerate(job.calls) if rank not in job.done]
        for call in ray.wait(at_work, timeout=POLL_SECONDS)[0]:
            job.take(job.calls.index(call), outcome_of(call))
    outcome = job.outcome
    shown = {name: outcome.get(name) for name in ("status", "iters", "tokens", "bits_per_byte")}
    tune.report(shown | {"outcome": json.dumps(outcome)})


class SweepSearch(Searcher):
    """Suggests the trials that the sweep wants, as long as workers are free, and settles them.

    It keeps no state that a restore would need: that is in the ledger, which is never older than the money.
    """

    def __init__(self, sweep: Scheduler, pool: Pool, on_plan: Callable[[], None]) -> None:
        """Args:
        on_plan: called once, when all sizes are probed.
        """
        super().__init__()
        self.sweep, self.ledger, self.pool, self.on_plan = sweep, sweep.ledger, pool, on_plan
        self.is_planned = sweep.is_probed
        self.running: dict[str, str] = {}  # Ray's name of a trial: ours
        self.is_done = False
        self.losers = Losers(sweep.ledger)
        self.losses: dict[str, tuple[int, int]] = {}  # of a trial: iters saved; losses in a row without more
        self.error: UserError | None = None  # raised here it would be lost in Ray's own
        self.gauges = RayGauges(sweep.folder.name, OF_SWEEPS)

    def suggest(self, trial_id: str) -> Any:
        """The name of the next `trial` and of its `workers`, and what Ray's tables show; None: not now; FINISHED."""
        try:
            self.pool.poll()
            self.ledger.refresh()
            terms = self.ledger.terms
            self.gauges.set({"sweep_spent": terms.amount(self.ledger.spent), "sweep_budget": terms.budget})
            if self.error is None and not self.ledger.is_interrupted:
                return self._next(trial_id)
        except UserError as error:
            self.error = error
        return None if self.running else Searcher.FINISHED

    def _next(self, trial_id: str) -> Any:
        while self.pool.has_free(self.sweep.base.num_workers):
            if not self.is_planned and self.sweep.is_probed:
                self.is_planned = True
                self.on_plan()
            trial = self.sweep.next_trial(set(self.running.values()))
            if not isinstance(trial, str):
                self.is_done = trial is False
                return Searcher.FINISHED if self.is_done else None
            workers = self.ledger.accounts[trial].workers
            self.pool.grow(workers)
            if not self.pool.has_free(workers):
                break
            if covers_rest(self.ledger, trial):
                self.running[trial_id] = trial
                settings = self.ledger.accounts[trial].settings
                shown = {"size": settings["size"], "learning_rate": settings["config"]["learning_rate"]}
                return {"trial": trial, "workers": self.pool.take(trial, workers)} | shown
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Settle a trial that has ended; one that was stopped or lost its workers stays open, and is begun again."""
        trial = self.running.pop(trial_id)
        outcome = json.loads(result["outcome"]) if result and "outcome" in result else dict(NO_PROCESS)
        self.pool.give_back(trial, outcome.pop("to_restart"))
        try:
            self.ledger.refresh()
            if not self.ledger.accounts[trial].is_open:
                pass  # its worker settled it, as it could not stop in time
            elif outcome["status"] == NO_STORAGE:
                self.error = StorageError(outcome["why"])
            elif outcome["status"] == LOST:
                self.lost(trial, outcome)
            elif outcome["status"] not in (INTERRUPTED, PREEMPTED):
                self.ledger.settle(trial, outcome)
            self.losers.remove()
        except UserError as problem:  # object storage refuses
            self.error = problem

    def lost(self, trial: str, outcome: dict[str, Any]) -> None:
        """Give a trial up whose workers were lost more than `max_failures` times without a new checkpoint."""
        config, why = config_of(self.ledger.accounts[trial]), outcome["why"]
        saved, (before, times) = iters_saved(config), self.losses.get(trial, (-1, 0))
        times = 1 if saved > before else times + 1
        self.losses[trial] = saved, times
        log = os.path.join(config.log_dir, config.run_name, ERRORS)
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{outcome.get('error', why)}\n")
        print(f"{trial}: a worker was lost ({why})", file=sys.stderr)
        if times > config.max_failures:
            why = f"workers were lost more than {config.max_failures} times in a row: {why}; see {log}"
            self.ledger.settle(trial, {"status": "failed", "why": why})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    restore = save

    def __getstate__(self) -> dict[str, Any]:
        return {}
