"""The workers of a sweep: when a trial is over, when it is given up, and what a start costs.

`nanochat_tct.tuning.search` is imported in functions: every process of pytest would import Ray Tune with it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nanochat_tct.tuning.pool import LOST, Pool
from nanochat_tct.tuning.runner import warn_of_costly_start
from tests.tuning.test_sweep import make_sweep

if TYPE_CHECKING:
    from nanochat_tct.tuning.search import Job

FINISHED = {"status": "finished"}
GONE = {"status": LOST, "why": "its process is gone"}


def job(*outcomes: dict[str, Any] | None) -> Job:
    """A trial whose workers have ended, by rank, or are still at work (None)."""
    from nanochat_tct.tuning.search import Job

    made = Job(list(outcomes))
    for rank, outcome in enumerate(outcomes):
        if outcome is not None:
            made.take(rank, outcome)
    return made


def test_a_trial_is_over_when_all_its_workers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker may measure the model alone; the others do not wait for one that was lost."""
    from nanochat_tct.tuning.search import LATE_SECONDS

    assert job(FINISHED).is_over and job(FINISHED, FINISHED).is_over
    early, lost, late = job(None, FINISHED), job(None, GONE), job({"status": "cut"}, None)
    assert not early.is_over and not lost.is_over and not late.is_over
    now = time.monotonic() + LATE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert not early.is_over and lost.is_over and late.is_over
    assert late.outcome == {"status": "cut", "to_restart": True} and lost.outcome == GONE | {
        "to_restart": True
    }
    assert job(FINISHED, {"status": "failed"}).outcome == FINISHED | {"to_restart": False}


def test_losses_count_only_without_a_new_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nanochat_tct.tuning.search import SweepSearch

    sweep = make_sweep(tmp_path, max_failures=1)
    trial = str(sweep.next_trial(set()))
    trials = SweepSearch(sweep, Pool.__new__(Pool), lambda: None)
    run_dir = sweep.folder / "runs" / trial
    for iters in (0, 5, 10):
        if iters:
            (run_dir / f"iter_{iters:08d}").mkdir(parents=True)
        trials.lost(trial, GONE)
        assert sweep.ledger.accounts[trial].is_open
    trials.lost(trial, GONE | {"error": "Traceback\nits process is gone"})
    result = sweep.ledger.accounts[trial].result
    assert result["status"] == "failed" and "more than 1 times in a row: its process is gone" in result["why"]
    assert capsys.readouterr().err.count("a worker was lost (its process is gone)") == 4
    assert (sweep.folder / "logs" / trial / "errors.txt").read_text().count("its process is gone") == 4


def test_a_start_that_costs_a_fifth_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"budget_flops": None, "budget_usd": 200.0, "gpu_hourly_usd": 3600.0, "sizes": ["1x32"]}
    sweep = make_sweep(tmp_path, **changes)
    sweep.slots = 2
    warn_of_costly_start(sweep, 19.0)
    assert not capsys.readouterr().err
    warn_of_costly_start(sweep, 21.0)
    assert "starting 2 workers takes about 21 s here, 21% of the $200.00" in capsys.readouterr().err
