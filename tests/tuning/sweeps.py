"""What the tests of sweeps share: a sweep of tiny models that ends in a minute."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from nanochat_tct.config import parse_arguments
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import WORK_DIR
from nanochat_tct.tuning.records import Interrupted
from nanochat_tct.tuning.runner import interruptible, run_alone
from nanochat_tct.tuning.tune import prepare
from tests.support.commands import flags
from tests.support.workers import ForkedProcess, small_store

__all__ = ["ForkedProcess"]

SETTINGS: dict[str, Any] = {
    "budget_flops": 3e11,
    "sizes": ["1x32", "2x32"],
    "num_rates": 2,
    "follow_up_share": 0.3,
    "context_size": 32,
    "batch_size": 4,
    "wandb": "off",
    "tensorboard": False,
    "concurrency": 2,
}


def sweep_arguments(folder: Path, **changes: Any) -> list[str]:
    """Arguments of `tune` for a tiny sweep in the folder `sweep`; the store is made when it is not there."""
    store = folder / "store"
    if not store.exists():
        small_store(store)
    return flags(data_dir=store, output=folder / "sweep", **{**SETTINGS, **changes})


def logged_work(folder: Path) -> list[list[dict[str, Any]]]:
    """What each worker wrote of its work, in all sittings."""
    return [
        [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        for path in (folder / "sweep" / WORK_DIR).glob("*.jsonl")
    ]


def logged_flops(folder: Path) -> int:
    """FLOPs that the workers themselves say they have done."""
    return sum(entry.get("flops", 0) for log in logged_work(folder) for entry in log)


def logged_seconds(folder: Path) -> float:
    """Seconds in which workers of one-worker trials were alive, by their own logs."""
    return sum(log[-1]["time"] - log[0]["time"] for log in logged_work(folder) if log)


def open_ledger(folder: Path) -> Ledger:
    """The sweep's ledger."""
    return Ledger(folder / "sweep")


def sweep_alone(arguments: list[str], environment: dict[str, str] | None = None) -> None:
    """What `tune` does with these arguments, without Ray; the exit code of this process is the command's."""
    os.environ.update(environment or {})
    sweep = prepare(parse_arguments(SweepConfig, arguments, "tune", ""))[0]
    sweep.ledger.note(Interrupted(False))
    with interruptible(sweep.ledger) as signals:
        sys.exit(0 if run_alone(sweep) else signals.exit_code)
