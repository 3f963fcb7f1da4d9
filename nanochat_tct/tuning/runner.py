"""Run a sweep to its end: on workers of Ray, or in this process; interrupts, idle workers and the forecast."""

import os
import socket
import sys
import threading
import time
from contextlib import nullcontext

from rich.console import Console

from nanochat_tct.ray_session import start_ray, wait_for_gpus
from nanochat_tct.storage.object_storage import is_remote
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.nodes import software
from nanochat_tct.training.signals import StopSignals
from nanochat_tct.tuning.budget import MICRO
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.ledger_server import serve
from nanochat_tct.tuning.meter import INTERRUPTED, IdleMeter
from nanochat_tct.tuning.records import Head, Interrupted, Slots
from nanochat_tct.tuning.scheduler import START_SECONDS, Scheduler
from nanochat_tct.tuning.table import LiveTable, show_forecast
from nanochat_tct.tuning.trial import Losers, covers_rest, work

TRIAL_MEMORY = 256 * 2**20  # bytes that the process beside a trial's workers reserves, instead of a CPU
TRAINING = 0.8  # of the budget, that a sweep on a budget of time should train for


def run_alone(sweep: Scheduler) -> bool:
    """Run a sweep in this process without Ray, one trial after the other: for tests, and studies of many small sweeps.

    Returns: False when it was interrupted.
    Raises: UserError when it cannot continue.
    """
    import torch

    from nanochat_tct.training.distributed import Worker

    assert sweep.base.num_workers == 1 and sweep.slots == 1
    losers = Losers(sweep.ledger)
    while isinstance(name := sweep.next_trial(set()), str):
        if not covers_rest(sweep.ledger, name):
            continue
        result = work(sweep.folder, sweep.ledger, name, Worker(0, 1, torch.device("cpu")))
        if result["status"] == INTERRUPTED:
            return False
        sweep.ledger.settle(name, result)
        losers.remove()
    return True


def run_on_ray(sweep: Scheduler, console: Console, signals: StopSignals) -> int:
    """Run a sweep until it is done. Returns the exit code: not 0 when it was interrupted.

    Raises: UserError when it cannot continue; KeyboardInterrupt when nothing has begun, and at a second signal.
    """
    signals.at_once = True
    if sweep.is_probed:
        show_forecast(sweep, console)
        if sweep.config.dry_run:
            return 0
    elif sweep.config.dry_run:
        most = sweep.ledger.terms.of_budget(sum(spec.reserve for spec in sweep.probes()))
        console.print(f"dry run: the sizes are measured first, which spends {most} at most")
    began = time.monotonic()
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if dashboard := start_ray(with_dashboard=True):
        print(f"Ray's dashboard: http://{dashboard} (its token: ray get-auth-token)", flush=True)
    import ray
    from ray import tune

    from nanochat_tct.tuning.pool import pool_of
    from nanochat_tct.tuning.search import SweepSearch, run_trial

    if sweep.base.use_gpu and os.environ.get("RAY_ADDRESS"):
        # Those of one trial: nothing is reserved yet, so waiting costs nothing of the budget.
        wait_for_gpus(sweep.base.num_workers, sweep.base.wait_minutes, console.print)
    sweep.slots = sweep.config.concurrency or slots_of(sweep.base, ray.cluster_resources())
    for note in (Slots(sweep.slots), Head(socket.gethostname(), software()), Interrupted(False)):
        sweep.ledger.note(note)
    warn_of_costly_start(sweep, time.monotonic() - began)
    serving = serve(sweep.folder) if is_remote(sweep.output) else nullcontext()
    signals.at_once = False
    with (
        serving,
        pool_of(sweep.base, sweep.folder, sweep.output, sweep.slots) as pool,
        IdleMeter(sweep.ledger, pool.size, lambda: pool.starting) as idle,
        LiveTable(sweep.ledger, console, signals.tell),
    ):
        search = SweepSearch(sweep, pool, lambda: show_forecast(sweep, console))
        tuner = tune.Tuner(
            tune.with_resources(run_trial, {"CPU": 0, "memory": TRIAL_MEMORY}),
            tune_config=tune.TuneConfig(search_alg=search, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name=time.strftime("%Y%m%d-%H%M%S"), storage_path=str(sweep.folder / "tune"), verbose=0
            ),
        )
        tuner.fit()
    if error := search.error or idle.error:
        raise error
    return 0 if search.is_done and signals.received is None else signals.exit_code or 130


def warn_of_costly_start(sweep: Scheduler, seconds: float) -> None:
    """Say so, before anything is spent, where starting workers costs more than TRAINING leaves.

    Args:
        seconds: that Ray took to start, which a worker takes too: both import much.
    """
    terms = sweep.ledger.terms
    left, workers = terms.capacity - sweep.ledger.spent, sweep.slots * sweep.base.num_workers
    cost = workers * max(seconds, START_SECONDS) * MICRO
    if terms.is_timed and 0 < left < cost / (1 - TRAINING):
        print(
            f"starting {workers} workers takes about {seconds:.0f} s here, {min(1.0, cost / left):.0%} of the "
            f"{terms.money(left)} there is: training will have less than {TRAINING:.0%}",
            file=sys.stderr,
        )


def slots_of(base: TrainConfig, cluster: dict[str, float]) -> int:
    """How many trials the cluster can run at a time."""
    return max(1, int(cluster.get("GPU" if base.use_gpu else "CPU", 0) // base.num_workers))


def interruptible(ledger: Ledger) -> StopSignals:
    """Ctrl-C, or SIGTERM as of `ray job stop`, lets every trial save a checkpoint and stop; again: at once."""

    def stop(reason: str) -> None:
        # In a thread of its own: this one may be in the middle of writing to the ledger.
        threading.Thread(target=ledger.note, args=(Interrupted(True),)).start()
        print(
            f"{reason}: trials save their checkpoints, then the end ({reason} again: at once)",
            file=sys.stderr,
        )

    return StopSignals(stop)
