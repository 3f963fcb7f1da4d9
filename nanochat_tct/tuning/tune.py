"""`nanochat-tct tune`: forecasts, sweeps on Ray Tune, fits, trains the best model that the budget buys, reports."""

import dataclasses
import importlib.util
import os
import socket
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nanochat_tct.config import parse_arguments, write_yaml
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.ray_session import start_ray, wait_for_gpus
from nanochat_tct.remote import absolute, is_remote, local_path, shown
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.bundled import prepare_bundled
from nanochat_tct.training.checkpoint import exclusive
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.nodes import software
from nanochat_tct.training.plan import check_settings, refuse_beyond_memory
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.training.signals import StopSignals
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import MICRO, Ledger, Terms
from nanochat_tct.tuning.ledger_server import serve
from nanochat_tct.tuning.meter import IDLE_SHARE, INTERRUPTED, tick_seconds
from nanochat_tct.tuning.plan import MIN_ITERS, forecast, money, too_small
from nanochat_tct.tuning.records import write_records
from nanochat_tct.tuning.remote_sweep import push_results, restore_ledger
from nanochat_tct.tuning.repeating import Repeating
from nanochat_tct.tuning.report import write_report
from nanochat_tct.tuning.space import Size, make_size
from nanochat_tct.tuning.sweep import PROBE_SHARE, Sweep
from nanochat_tct.tuning.table import LiveTable
from nanochat_tct.tuning.trial import HEAD, run_trial, with_length
from nanochat_tct.tuning.trials import BEST, LEDGER, REPORT_DIR, Outcome

RUNS = "another sweep runs here; wait, or take another --output"
WORKERS_OF_A_CORE = 2  # launch.worker_resources reserves half a core for each
LEAST_PROBE_SECONDS = 3.0  # far less than the start of a worker and ten iters take
DRIVER_MEMORY = 256 * 2**20  # bytes that the process beside a trial's workers reserves, instead of a CPU


def command(argv: list[str]) -> int:
    """Sweep as the arguments say. Returns the exit code.

    Raises: UserError.
    """
    config = parse_arguments(SweepConfig, argv, "tune", "find the best model that a budget buys, on Ray")
    sweep, folder = prepare(config)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    with exclusive(folder, RUNS):
        signals = interruptible(sweep.ledger)
        try:
            with signals:
                exit_code = run(sweep, console, signals)
        except KeyboardInterrupt:
            exit_code = signals.exit_code or 130
        finally:
            write_results(sweep)
            push_results(folder, sweep.place)
    if not exit_code or config.dry_run:
        ends = [account.result for account in sweep.ledger.accounts.values() if account.purpose == "final"]
        return int(any(end.get("status") == "failed" for end in ends))
    terms = sweep.ledger.terms
    print(
        f"interrupted: {money(terms, sweep.ledger.spent)} of {money(terms, terms.capacity)} is spent; "
        "the same command goes on",
        file=sys.stderr,
    )
    return exit_code


def check(config: SweepConfig) -> dict[str, Size]:
    """Check what can be checked before there is any data. Returns: the sizes by name.

    Raises: UserError.
    """
    terms = config.terms("", "")  # a budget, before any data is prepared
    refuse_folder(config.output, "--output")
    if config.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("--search optuna needs Optuna, which is not installed: pip install optuna")
    settings = config.train_settings()
    check_settings(TrainConfig(**settings, **folders_in(local_path(absolute(config.output)))))
    vocab_size = load_tokenizer(config.tokenizer).vocab_size()
    sizes = {name: make_size(name, TrainConfig(**settings), vocab_size) for name in config.sizes}
    if len(sizes) < len(config.sizes):
        raise UserError(f"--sizes names a size twice: {' '.join(config.sizes)}")
    for name, size in sizes.items():
        try:
            sized = TrainConfig(**settings | size.settings())
            refuse_beyond_memory(resolve(sized, vocab_size), config.concurrency or 1)
        except UserError as error:
            raise UserError(f"size {name}: {error}") from error
    if terms.unit != "flops":
        refuse_more_than_run(config)
        seconds = PROBE_SHARE * config.sweep_share * terms.capacity / len(sizes) / MICRO
        if seconds < LEAST_PROBE_SECONDS:
            raise UserError(
                f"--budget-{terms.unit.replace('_', '-')} {terms.budget:g} is too small: it leaves {seconds:.2g} s to "
                f"measure a size, which takes {LEAST_PROBE_SECONDS:g} s at least"
            )
    return sizes


def refuse_more_than_run(config: SweepConfig) -> None:
    """Refuse more trials at a time than this machine starts: those that wait would be paid for too.

    Raises: UserError.
    """
    if config.concurrency is None or os.environ.get("RAY_ADDRESS", "") not in ("", "local"):
        return
    workers = (
        torch.cuda.device_count() if config.use_gpu else WORKERS_OF_A_CORE * len(os.sched_getaffinity(0))
    )
    if config.concurrency * config.num_workers > max(workers, config.num_workers):
        raise UserError(
            f"--concurrency {config.concurrency} with --num-workers {config.num_workers}: this machine runs {workers} "
            "workers at a time, and trials that wait for them would be paid for"
        )


def prepare(config: SweepConfig) -> tuple[Sweep, Path]:
    """Check everything that can be checked before anything is spent, and open the ledger or begin one.

    Raises: UserError.
    """
    sizes, settings = check(config), config.train_settings()
    place = absolute(config.output)
    folder = local_path(place)
    if config.fresh and is_remote(place):
        raise UserError(f"--fresh is for folders of this machine: take another --output than {shown(place)}")
    restore_ledger(place, folder)
    is_new = config.fresh or not (folder / LEDGER).exists()
    if is_new:
        row_flops = [size.row_flops for size in sizes.values()]
        refuse_too_small(config.terms("", ""), config, row_flops, TrainConfig(**settings))
    data_dir = config.data_dir or prepare_bundled(config.tokenizer)
    given = {**settings, **folders_in(folder), "data_dir": data_dir, "run_name": "base"}
    base = make_train_plan(TrainConfig(**given)).config
    store = TokenStore.open(data_dir, verify=False)
    terms = config.terms(store.fingerprint, load_tokenizer(config.tokenizer).fingerprint)
    if config.fresh and folder.exists():
        if not (folder / LEDGER).exists() and any(path.name != ".lock" for path in folder.iterdir()):
            raise UserError(
                f"--fresh moves a sweep aside, and {config.output} holds something else; take another --output"
            )
        aside = next(
            path
            for number in range(1, 10_000)
            if not (path := folder.with_name(f"{folder.name}-{number}")).exists()
        )
        with exclusive(folder, RUNS):
            folder.rename(aside)
        print(f"what was in {config.output} is now in {aside}")
    if is_new:
        ledger = Ledger.create(folder, terms)
    else:
        ledger = Ledger(folder)
        refuse_other_sweep(ledger.terms, terms, config.output)
    if is_remote(place):
        ledger.keep_copies(place)
    cores = min(len(os.sched_getaffinity(0)), int(os.environ.get("OMP_NUM_THREADS", "0")) or 1024)
    slots = config.concurrency or ledger.notes.get("slots", 1)  # as many as there was room for last time
    return Sweep(config, folder, ledger, base, store, sizes, cores, slots), folder


def folders_in(folder: Path) -> dict[str, Any]:
    """Where trials keep what they leave, as settings of `train`, so that those of its defaults do not matter."""
    return {"checkpoint_dir": str(folder / "runs"), "log_dir": str(folder / "logs")}


def refuse_other_sweep(was: Terms, now: Terms, output: str) -> None:
    """Raises: UserError that names the first thing in which the ledger's sweep is another one."""
    advice = "take that again, another --output, or --fresh to start anew"
    # A ledger of an earlier version knows nothing of settings that came later: its trials had their defaults.
    later = {name: getattr(SweepConfig(), name) for name in now.sweep if name not in was.sweep}
    before, after = ({**later, **terms.sweep, "gpu_hourly_usd": terms.hourly_usd} for terms in (was, now))
    if (was.unit, was.budget) != (now.unit, now.budget):
        raise UserError(
            f"the ledger in {output} is of another sweep: its budget is {was.budget:g} {was.unit}, "
            f"not {now.budget:g} {now.unit}; {advice}"
        )
    for name in before:
        if before[name] != after.get(name):
            raise UserError(
                f"the ledger in {output} is of another sweep: {name} was {before[name]}, not "
                f"{'none' if after.get(name) is None else after[name]}; {advice}"
            )


def refuse_too_small(terms: Terms, config: SweepConfig, row_flops: list[int], base: TrainConfig) -> None:
    """Raises: UserError when a budget in FLOPs does not buy the least of trials; that of time shows in a probe."""
    if terms.unit == "flops":
        number = config.trials_of_a_size * len(row_flops)
        iters = MIN_ITERS + 2  # with evaluation and warm-up
        first = max(row_flops) * base.global_batch * iters * number / (1 - config.follow_up_share)
        least = (first + sum(row_flops) * base.global_batch * 12) / config.sweep_share
        if terms.budget < least:
            raise UserError(too_small(terms, least, number))


# ----------------------------------------------------------------------------- on Ray


def run(sweep: Sweep, console: Console, signals: StopSignals) -> int:
    """Go on with the sweep until it is done. Returns the exit code: not 0 when it was interrupted.

    Raises: UserError when it cannot go on; KeyboardInterrupt when nothing has begun, and at a second signal.
    """
    signals.at_once = True
    if sweep.is_probed:
        show_forecast(sweep, console)
        if sweep.config.dry_run:
            return 0
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # a report waits for the next poll
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    if dashboard := start_ray():
        print(f"Ray's dashboard: http://{dashboard} (its token: ray get-auth-token)", flush=True)
    import ray
    from ray import tune

    from nanochat_tct.tuning.search import InterruptedStopper, LedgerSearch

    if sweep.base.use_gpu and os.environ.get("RAY_ADDRESS"):
        # Those of one trial: nothing is reserved yet, so waiting costs nothing of the budget.
        wait_for_gpus(sweep.base.num_workers, sweep.config.wait_minutes, console.print)
    sweep.slots = sweep.config.concurrency or slots_of(sweep.base, ray.cluster_resources())
    sweep.ledger.note("slots", sweep.slots)
    sweep.ledger.note(HEAD, [socket.gethostname(), software()])
    sweep.ledger.note(INTERRUPTED, False)
    search = LedgerSearch(sweep, lambda: show_forecast(sweep, console))
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"CPU": 0, "memory": DRIVER_MEMORY}),
        tune_config=tune.TuneConfig(search_alg=search, num_samples=-1),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(sweep.folder / "tune"),
            stop=InterruptedStopper(sweep.ledger),
            failure_config=tune.FailureConfig(max_failures=sweep.config.max_failures),
            verbose=0,
        ),
    )
    serving = serve(sweep.folder) if is_remote(sweep.place) else nullcontext()
    signals.at_once = False
    with IdleMeter(sweep) as idle, LiveTable(sweep.ledger, console, signals.tell), serving:
        tuner.fit()
    if error := search.error or idle.error:
        raise error
    if search.is_done and signals.received is None:
        return 0
    return signals.exit_code or 130


def slots_of(base: TrainConfig, cluster: dict[str, float]) -> int:
    """How many trials there is room for."""
    there = cluster.get("GPU" if base.use_gpu else "CPU", 0)
    return max(1, int(there // base.num_workers))


def interruptible(ledger: Ledger) -> StopSignals:
    """Ctrl-C, or SIGTERM as of `ray job stop`, lets every trial save a checkpoint and stop; again: at once."""

    def stop(reason: str) -> None:
        # In a thread of its own: this one may be in the middle of writing to the ledger.
        threading.Thread(target=ledger.note, args=(INTERRUPTED, True)).start()
        print(
            f"{reason}: trials save their checkpoints, then the end ({reason} again: at once)",
            file=sys.stderr,
        )

    return StopSignals(stop)


class IdleMeter:
    """A thread that charges the time of workers that are reserved for the sweep while no trial is charged for them.

    It says when that has cost so much that the sweep goes on to its final run. Where even then nothing works for long,
    `error` says so.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.ledger = sweep, sweep.ledger
        self.workers = sweep.slots * sweep.base.num_workers
        self.since = time.time()
        self.error: UserError | None = None
        self.has_said_so = sweep.is_idle_too_long
        self.waited = 0  # quanta, since a worker was last charged for
        self._repeating = Repeating(tick_seconds(sweep.ledger), self.charge)

    def __enter__(self) -> "IdleMeter":
        if self.ledger.terms.unit != "flops":
            self._repeating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._repeating.stop()

    def charge(self) -> None:
        """Charge what was idle since the last time."""
        now, ledger = time.time(), self.ledger
        ledger.refresh()
        busy = 0
        for account in ledger.accounts.values():
            if account.is_open and account.charged_until >= now:
                busy += self.workers if account.purpose == "final" else account.workers
        before = ledger.idle
        try:
            ledger.charge_idle(max(0, self.workers - busy) * (now - self.since))
            self.since = now
        except StorageError as error:  # trials find the same, and end the sweep
            print(f"{error}; trying again", file=sys.stderr)
        self.waited = 0 if busy else self.waited + ledger.idle - before
        self._look_at_limits()

    def _look_at_limits(self) -> None:
        terms = self.ledger.terms
        if self.sweep.is_idle_too_long and not self.has_said_so:
            self.has_said_so = True
            print(
                f"idle workers have cost {money(terms, self.ledger.idle)}, more than {IDLE_SHARE:.0%} of the budget: "
                "no more trials are begun, the final run gets what is left",
                file=sys.stderr,
            )
        if self.waited > IDLE_SHARE * terms.capacity and self.error is None:
            self.error = UserError(
                f"no trial has started, and {money(terms, self.waited)}, {self.waited / terms.capacity:.0%} of the "
                "budget, went for the wait; see that the machines are there and not busy, then the same command goes on"
            )
            self.ledger.note(INTERRUPTED, True)


# ----------------------------------------------------------------------------- what it shows and leaves


def show_forecast(sweep: Sweep, console: Console) -> None:
    """Print the table of what is planned.

    Raises: UserError when the budget is too small.
    """
    plan = sweep.make_plan()
    seconds = {name: prices for name in sweep.sizes if (prices := sweep.seconds(name)) is not None}
    console.print(
        forecast(
            plan,
            sweep.config,
            sweep.ledger.terms,
            sweep.sizes,
            {name: sweep.prices(name) for name in sweep.sizes},
            seconds,
            sweep.spent_on("probe", "idle"),
            sweep.iter_tokens,
            sweep.unique_tokens,
            sweep.slots,
        )
    )


def write_results(sweep: Sweep) -> None:
    """trials.parquet, entries.parquet, outcome.json; best.yaml and the report when there is a final run."""
    folder, ledger = sweep.folder, sweep.ledger
    outcome = write_records(ledger, folder)
    final = next((account for account in ledger.accounts.values() if account.purpose == "final"), None)
    if final is None or final.is_open:
        return
    config = TrainConfig(**final.settings["config"])
    iters = final.result.get("max_iters") or config.max_iters
    default = TrainConfig()
    best = dataclasses.replace(
        with_length(config, iters, final.settings),
        eval_iters=0,
        keep_checkpoints=default.keep_checkpoints,
        run_name="best",
        wandb_run_name="best",
        checkpoint_dir=default.checkpoint_dir,
        log_dir=default.log_dir,
        num_samples=default.num_samples,
    )
    write_yaml(best, folder / BEST)
    write_report(folder)
    show_outcome(sweep, outcome, final.result)


def show_outcome(sweep: Sweep, outcome: Outcome, result: dict[str, Any]) -> None:
    """The end of the command: what was chosen, predicted and reached."""
    terms, folder = sweep.ledger.terms, Path(os.path.relpath(sweep.folder))
    print(outcome.decision)
    if outcome.predicted and outcome.actual is not None:
        low, middle, high = outcome.predicted
        print(
            f"bits per byte: {middle:.4f} predicted ({low:.4f} to {high:.4f}), {outcome.actual:.4f} reached"
        )
    if result.get("whole_split") is not None:
        print(f"on the whole validation split: {result['whole_split']:.4f}")
    if result.get("status") != "finished":
        print(f"the final run did not end as planned: {result.get('status')}, {result.get('why')}")
    share = sweep.ledger.spent / terms.capacity
    print(f"spent: {money(terms, sweep.ledger.spent)} of {money(terms, terms.capacity)} ({share:.1%})")
    checkpoint = result.get("checkpoint")
    if checkpoint is not None and not is_remote(checkpoint):
        checkpoint = os.path.relpath(checkpoint)
    print(f"checkpoint: {checkpoint and shown(checkpoint)}")
    print(f"report: {folder / REPORT_DIR / 'index.html'}")
    print(f"to train it again: nanochat-tct train --config {folder / BEST}")
