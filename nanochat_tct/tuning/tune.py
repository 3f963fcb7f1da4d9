"""`nanochat-tct tune`: forecasts, sweeps on Ray Tune, fits, trains the best model that the budget buys, reports."""

import dataclasses
import importlib.util
import itertools
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nanochat_tct.config import parse_arguments, to_dict, to_yaml
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.ray_session import start_ray, wait_for_gpus
from nanochat_tct.storage.object_storage import absolute, is_remote, local_path, shown
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.checkpoint import exclusive
from nanochat_tct.training.config import ResolvedConfig, TrainConfig, resolve
from nanochat_tct.training.launch import prepare_bundled
from nanochat_tct.training.nodes import software
from nanochat_tct.training.plan import check_settings, refuse_beyond_memory
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.training.signals import StopSignals
from nanochat_tct.tuning.config import GROWING, SweepConfig
from nanochat_tct.tuning.evidence import has_other_windows, read_evidence
from nanochat_tct.tuning.ledger import Account, Ledger, Terms
from nanochat_tct.tuning.ledger_server import serve
from nanochat_tct.tuning.meter import IDLE_SHARE, INTERRUPTED, tick_seconds
from nanochat_tct.tuning.plan import (
    FORECAST,
    affordable_eval_iters,
    forecast_table,
    make_forecast,
    money,
)
from nanochat_tct.tuning.remote_sweep import push_results, restore_ledger
from nanochat_tct.tuning.repeating import Repeating
from nanochat_tct.tuning.report import measured_on, write_report
from nanochat_tct.tuning.space import Size, make_size
from nanochat_tct.tuning.sweep import Sweep, spread
from nanochat_tct.tuning.table import LiveTable
from nanochat_tct.tuning.trial import HEAD, run_trial, with_length
from nanochat_tct.tuning.trials import (
    BEST,
    LEDGER,
    REPORT_DIR,
    Outcome,
    latest_final,
    show_value,
    values_of,
    write_records,
)

RUNS = "another sweep runs here; wait, or take another --output"
WORKERS_OF_A_CORE = 2  # ray_driver.worker_resources reserves half a core for each
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
        final = latest_final(sweep.ledger)
        return int(final is not None and final.result.get("status") == "failed")
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
    vocab_size = load_tokenizer(config.train.tokenizer).vocab_size()
    sizes = {name: make_size(name, TrainConfig(**settings), vocab_size) for name in config.all_sizes}
    if len(sizes) < len(config.all_sizes):
        raise UserError(f"--sizes and --add-sizes name a size twice: {' '.join(config.all_sizes)}")
    for name, size in sizes.items():
        try:
            sized = TrainConfig(**settings | size.settings())
            refuse_beyond_memory(resolve(sized, vocab_size), config.concurrency or 1)
        except UserError as error:
            raise UserError(f"size {name}: {error}") from error
    if terms.unit != "flops":
        refuse_more_than_run(config)
    return sizes


def refuse_more_than_run(config: SweepConfig) -> None:
    """Refuse more trials at a time than this machine starts: those that wait would be paid for too.

    Raises: UserError.
    """
    if config.concurrency is None or os.environ.get("RAY_ADDRESS", "") not in ("", "local"):
        return
    workers = (
        torch.cuda.device_count()
        if config.train.use_gpu
        else WORKERS_OF_A_CORE * len(os.sched_getaffinity(0))
    )
    if config.concurrency * config.train.num_workers > max(workers, config.train.num_workers):
        raise UserError(
            f"--concurrency {config.concurrency} with --num-workers {config.train.num_workers}: this machine runs "
            f"{workers} workers at a time, and trials that wait for them would be paid for"
        )


def prepare(config: SweepConfig) -> tuple[Sweep, Path]:
    """Check everything that can be checked before anything is spent, and open the ledger or begin one.

    Raises: UserError.
    """
    check(config)
    place = absolute(config.output)
    folder = local_path(place)
    if config.fresh and is_remote(place):
        raise UserError(f"--fresh is for folders of this machine: take another --output than {shown(place)}")
    restore_ledger(place, folder)
    there = None if config.fresh or not (folder / LEDGER).exists() else Ledger(folder)
    config = with_additions(config, {} if there is None else there.terms.sweep)
    sizes, settings = check(config), config.train_settings()
    data_dir = config.train.data_dir or prepare_bundled(config.train.tokenizer)
    given = {**settings, **folders_in(folder), "data_dir": data_dir, "run_name": "base"}
    base = make_train_plan(TrainConfig(**given)).config
    store = TokenStore.open(data_dir, verify=False)
    terms = config.terms(store.fingerprint, load_tokenizer(config.train.tokenizer).fingerprint)
    if there is not None:
        refuse_other_sweep(there.terms, terms, config.output)
    evidence = evidence_of(config, terms, base, sizes, there)
    cores = min(len(os.sched_getaffinity(0)), int(os.environ.get("OMP_NUM_THREADS", "0")) or 1024)
    # as many at a time as there was room for last time
    slots = config.concurrency or (there.notes.get("slots", 1) if there is not None else 1)

    def sweep_with(ledger: Ledger) -> Sweep:
        return Sweep(config, folder, ledger, base, store, sizes, cores, slots)

    is_continued = there is not None and is_more(there.terms, terms)
    if there is not None:
        final = latest_final(there)
        if is_continued or final is None or final.is_open:
            refuse_older_trials(there, config.output)
    if there is None or is_continued:  # first on a copy: nothing is left of what is refused
        with tempfile.TemporaryDirectory() as aside:
            if there is None:
                trial = Ledger.create(aside, terms)
            else:
                shutil.copy(there.path, aside)
                trial = Ledger(aside)
                trial.copy = None
                trial.extend(terms)
            sweep_with(trial).refuse_too_small()
            trial.close()
    if config.fresh and folder.exists():
        move_aside(folder, config.output)
    with exclusive(folder, RUNS) if is_continued else nullcontext():  # nobody changes a sweep that runs
        if there is None:
            there = Ledger.create(folder, terms)
        if is_remote(place):
            there.keep_copies(place)
        if is_continued:
            there.extend(terms)
        if evidence:
            there.note("evidence", {**there.notes.get("evidence", {}), **evidence})
    return sweep_with(there), folder


def refuse_older_trials(ledger: Ledger, output: str) -> None:
    """Raises: UserError when new trials could not be compared with those that a sweep has."""
    if any(has_other_windows(account) for account in ledger.accounts.values()):
        raise UserError(
            f"the sweep in {output} was begun with an earlier version, which measured trials on other validation "
            "windows: new ones could not be compared with them; take another --output, or --fresh to start anew"
        )


def move_aside(folder: Path, output: str) -> None:
    """Give the folder of a sweep another name.

    Raises: UserError when it holds something else.
    """
    if not (folder / LEDGER).exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise UserError(
            f"--fresh moves a sweep aside, and {output} holds something else; take another --output"
        )
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(1))
    aside = next(path for path in names if not path.exists())
    with exclusive(folder, RUNS):
        folder.rename(aside)
    print(f"what was in {output} is now in {aside}")


def evidence_of(
    config: SweepConfig, terms: Terms, base: TrainConfig, sizes: dict[str, Size], ledger: Ledger | None
) -> dict[str, list[dict[str, Any]]]:
    """Trials of the sweeps that `--from` names, by folder, but of those that this sweep has read before.

    Raises: UserError when none of a sweep's trials can be compared with this one's.
    """
    known = {} if ledger is None else ledger.notes.get("evidence", {})
    varied = config.varied()
    settings = {"config": to_dict(base), "derives_weight_decay": config.train.weight_decay is None}
    fixed = {name: value for name, value in values_of(settings).items() if name not in varied}
    evidence = {}
    for given in config.from_:
        place = absolute(given)
        if place == absolute(config.output):
            raise UserError(f"--from {given} is the --output: its own trials count anyway")
        if place not in known:
            trials = read_evidence(given, terms.sweep, base, fixed, varied, sizes)
            evidence[place] = [vars(trial) for trial in trials]
            print(f"{len(trials)} trials of {shown(place)} count as evidence")
    return evidence


def with_additions(config: SweepConfig, before: dict[str, Any]) -> SweepConfig:
    """The settings that a sweep can be continued with added to those that it was given before (`Terms.sweep`)."""

    def both(name: str, given: list[Any]) -> list[Any]:
        return list(dict.fromkeys([*before.get(name, []), *given]))

    return dataclasses.replace(
        config,
        add_sizes=[name for name in both("add_sizes", config.add_sizes) if name not in config.sizes],
        add_rates=both("add_rates", config.add_rates),
        from_=both("from", [absolute(place) for place in config.from_]),
        repeats=max(config.repeats, before.get("repeats", 1)),
    )


def is_more(was: Terms, now: Terms) -> bool:
    """Whether a sweep is continued: with a higher budget, or with more to try."""
    defaults = to_dict(SweepConfig())
    return was.budget < now.budget or any(
        was.sweep.get(name, defaults[name]) != now.sweep[name] for name in GROWING
    )


def folders_in(folder: Path) -> dict[str, Any]:
    """Where trials keep what they leave, as settings of `train`, so that those of its defaults do not matter."""
    return {"checkpoint_dir": str(folder / "runs"), "log_dir": str(folder / "logs")}


def refuse_other_sweep(was: Terms, now: Terms, output: str) -> None:
    """Raises: UserError that names the first thing in which the sweep in `output` is another one."""
    advice = "take that again, another --output, or --fresh to start anew"
    flag = f"--budget-{was.unit.replace('_', '-')}"
    if was.unit != now.unit:
        raise UserError(f"the sweep in {output} was begun with {flag} {was.budget:g}; {advice}")
    if was.hourly_usd != now.hourly_usd:
        raise UserError(
            f"the sweep in {output} was begun with {shown_setting('gpu_hourly_usd', was.hourly_usd)}, not with "
            f"{shown_setting('gpu_hourly_usd', now.hourly_usd)}; {advice}"
        )
    if now.budget < was.budget:
        raise UserError(
            f"the sweep in {output} has {flag} {was.budget:g}, which can be raised, not lowered to {now.budget:g}; "
            f"{advice}"
        )
    # A ledger of an earlier version knows nothing of settings that came later: its trials had their defaults.
    defaults = to_dict(SweepConfig())
    for name, after in now.sweep.items():
        before = was.sweep.get(name, defaults[name])
        if before == after or name in GROWING:
            continue
        if name in ("data_dir", "tokenizer"):
            what = {"data_dir": "data", "tokenizer": "tokenizer"}[name]
            raise UserError(
                f"the sweep in {output} was begun with another {what} (fingerprint {before[:12]}, now {after[:12]}); "
                f"{advice}"
            )
        more = "; --add-sizes adds to them" if name == "sizes" else ""
        raise UserError(
            f"the sweep in {output} was begun with {shown_setting(name, before)}, not with "
            f"{shown_setting(name, after)}{more}; {advice}"
        )


def shown_setting(name: str, value: Any) -> str:
    """A setting and its value, as the command line has them."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if value is None or value in ([], {}):
        return f"no --{flag}"
    if isinstance(value, dict):
        lists = (
            [values] if isinstance(values, str) else [show_value(one) for one in values]
            for values in value.values()
        )
        value = [f"{key}={','.join(items)}" for key, items in zip(value, lists, strict=True)]
    return f"--{flag} {' '.join(map(show_value, value if isinstance(value, list) else [value]))}"


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
    if sweep.config.dry_run and not sweep.is_probed:
        most = of_budget(sweep, sum(spec.reserve for spec in sweep.probes()))
        console.print(f"dry run: the sizes are measured first, which spends {most} at most")
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
        wait_for_gpus(sweep.base.num_workers, sweep.base.wait_minutes, console.print)
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
            failure_config=tune.FailureConfig(max_failures=sweep.base.max_failures),
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
    """Print what is planned, and note how long it will take.

    Raises: UserError when the budget is too small.
    """
    plan, terms = sweep.make_plan(), sweep.ledger.terms
    forecast = make_forecast(
        plan,
        sweep.config,
        terms,
        {name: sweep.prices(name) for name in sweep.sizes},
        {name: sweep.prices(name, is_final=True) for name in sweep.sizes},
        {name: prices for name in sweep.sizes if (prices := sweep.seconds(name)) is not None},
        sweep.spent_on("probe", "idle"),
        sweep.slots,
        spread(sweep.base, sweep.slots).num_workers // sweep.base.num_workers,
    )
    if sweep.ledger.notes.get(FORECAST) != forecast.note:
        sweep.ledger.note(FORECAST, forecast.note)
    tokens = sweep.iter_tokens, sweep.unique_tokens
    console.print(forecast_table(forecast, plan, terms, *tokens, sweep.slots, sweep.base.use_gpu))
    if sweep.config.dry_run:
        console.print(
            f"dry run: measuring the sizes has spent {of_budget(sweep, sweep.ledger.spent)}; the same command without "
            "--dry-run goes on from here"
        )


def of_budget(sweep: Sweep, quanta: int) -> str:
    """An amount beside the budget, as in `1.7e+10 of 2e+12 FLOPs (0.8%)`."""
    terms = sweep.ledger.terms
    unit = " FLOPs" if terms.unit == "flops" else ""
    return f"{money(terms, quanta)} of {money(terms, terms.capacity)}{unit} ({quanta / terms.capacity:.1%})"


def write_results(sweep: Sweep) -> None:
    """The tables and outcome.json; best.yaml and the report when there is a final run."""
    folder, ledger = sweep.folder, sweep.ledger
    outcome = write_records(ledger, folder)
    final = latest_final(ledger)
    if final is None or final.is_open:
        return
    write_best(sweep, final, outcome)
    write_report(folder)
    show_outcome(sweep, outcome, final.result)


def write_best(sweep: Sweep, final: Account, outcome: Outcome) -> None:
    """best.yaml: the settings of the final run, for `train`."""
    config = ResolvedConfig(**final.settings["config"])
    config = with_length(config, final.result.get("max_iters") or config.max_iters, final.settings)
    default = TrainConfig()
    best = dataclasses.replace(
        config,
        eval_iters=affordable_eval_iters(
            config.max_iters, config.global_batch, sweep.validation_windows, sweep.make_plan().eval_iters
        ),
        keep_checkpoints=default.keep_checkpoints,
        run_name="best",
        wandb_run_name="best",
        checkpoint_dir=default.checkpoint_dir,
        log_dir=default.log_dir,
        num_samples=default.num_samples,
    )
    reached = "" if outcome.actual is None else f": {outcome.actual:.4f} bits per byte {measured_on(outcome)}"
    # Written as a comment, which a line break in a folder's name would end.
    comment = " ".join(
        f"The final run of the sweep {shown(sweep.place)}, of size {outcome.size}{reached}.".split()
    )
    (sweep.folder / BEST).write_text(f"# {comment}\n{to_yaml(to_dict(best))}", encoding="utf-8")


def show_outcome(sweep: Sweep, outcome: Outcome, result: dict[str, Any]) -> None:
    """The end of the command: what was chosen, predicted and reached."""
    terms, folder = sweep.ledger.terms, Path(os.path.relpath(sweep.folder))
    print(outcome.decision)
    if outcome.predicted and outcome.actual is not None:
        low, middle, high = outcome.predicted
        print(
            f"bits per byte: {middle:.4f} predicted ({low:.4f} to {high:.4f}), {outcome.actual:.4f} reached "
            f"{measured_on(outcome)}"
        )
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
