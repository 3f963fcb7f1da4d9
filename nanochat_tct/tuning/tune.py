"""`nanochat-tct tune`: forecasts, sweeps on Ray Tune, fits, trains the best model that the budget buys, reports."""

import dataclasses
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from nanochat_tct.config import to_dict
from nanochat_tct.data.store import TokenStore
from nanochat_tct.documents import to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.model.checkpoint import exclusive
from nanochat_tct.storage.object_storage import absolute, is_remote, local_path, shown
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.launch import prepare_bundled
from nanochat_tct.training.plan import check_settings, refuse_beyond_memory
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.tuning.budget import Terms, affordable_eval_iters
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.continuing import (
    is_more,
    read_evidence,
    refuse_older_trials,
    refuse_other_sweep,
    with_additions,
)
from nanochat_tct.tuning.ledger import Account, Ledger, restore_ledger
from nanochat_tct.tuning.meter import config_of
from nanochat_tct.tuning.records import BEST, LEDGER, REPORT_DIR, Outcome, Slots
from nanochat_tct.tuning.report import write_report
from nanochat_tct.tuning.results import Results, latest_final, measured_on, upload_results
from nanochat_tct.tuning.runner import interruptible, run_on_ray
from nanochat_tct.tuning.scheduler import Scheduler
from nanochat_tct.tuning.space import Size, make_size
from nanochat_tct.tuning.trial import with_length

RUNS = "another sweep runs here; wait, or take another --output"
WORKERS_OF_A_CORE = 2  # ray_driver.worker_resources reserves half a core for each


def tune(config: SweepConfig) -> int:
    """Run a sweep. Returns the exit code.

    Raises: UserError.
    """
    sweep, folder = prepare(config)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    with exclusive(folder, RUNS):
        signals = interruptible(sweep.ledger)
        try:
            with signals:
                exit_code = run_on_ray(sweep, console, signals)
        except KeyboardInterrupt:
            exit_code = signals.exit_code or 130
        finally:
            write_results(sweep)
            upload_results(folder, sweep.output)
    if not exit_code or config.dry_run:
        final = latest_final(sweep.ledger)
        return int(final is not None and final.result.get("status") == "failed")
    terms = sweep.ledger.terms
    print(
        f"interrupted: {terms.money(sweep.ledger.spent)} of {terms.money(terms.capacity)} is spent; "
        "the same command goes on",
        file=sys.stderr,
    )
    return exit_code


# ----------------------------------------------------------------------------- before anything is spent


def prepare(config: SweepConfig) -> tuple[Scheduler, Path]:
    """Check everything that can be checked before anything is spent, and open the ledger or begin one.

    Raises: UserError.
    """
    check(config)
    output = absolute(config.output)
    folder = local_path(output)
    if is_remote(output):
        if config.fresh:
            raise UserError(
                f"--fresh is for folders of this machine: take another --output than {shown(output)}"
            )
        restore_ledger(output, folder)
    ledger = None if config.fresh or not (folder / LEDGER).exists() else Ledger(folder)
    config = with_additions(config, {} if ledger is None else ledger.terms.sweep)
    sizes, settings = check(config), config.train_settings()
    data_dir = config.train.data_dir or prepare_bundled(config.train.tokenizer)
    given = {**settings, **folders_in(folder), "data_dir": data_dir, "run_name": "base"}
    base = make_train_plan(TrainConfig(**given)).config
    store = TokenStore.open(data_dir, verify=False, is_whole=False)
    tokenizer = load_tokenizer(config.train.tokenizer, store.tokenizer_fingerprint)
    terms = config.terms(store.fingerprint, tokenizer.fingerprint)
    if ledger is not None:
        refuse_other_sweep(ledger.terms, terms, config.output)
    evidence = read_evidence(config, terms, base, sizes, ledger)
    cores = min(len(os.sched_getaffinity(0)), int(os.environ.get("OMP_NUM_THREADS", "0")) or 1024)
    last_time = ledger.latest(Slots) if ledger is not None else None
    slots = config.concurrency or (last_time.number if last_time else 1)

    def sweep_with(ledger: Ledger) -> Scheduler:
        return Scheduler(config, folder, ledger, base, store, sizes, cores, slots)

    is_continued = ledger is not None and is_more(ledger.terms, terms)
    if ledger is not None:
        final = latest_final(ledger)
        if is_continued or final is None or final.is_open:
            refuse_older_trials(ledger, config.output)
    if ledger is None or is_continued:
        refuse_too_small(ledger, terms, sweep_with)
    if config.fresh and folder.exists():
        move_aside(folder, config.output)
    with exclusive(folder, RUNS) if is_continued else nullcontext():  # nobody changes a sweep that runs
        if ledger is None:
            ledger = Ledger.create(folder, terms)
        if is_remote(output):
            ledger.keep_copies(output)
        if is_continued:
            ledger.extend(terms)
        for note in evidence:
            ledger.note(note)
    return sweep_with(ledger), folder


def refuse_too_small(ledger: Ledger | None, terms: Terms, sweep_with: Callable[[Ledger], Scheduler]) -> None:
    """Check the budget on a copy of the ledger, so that a refusal leaves no trace.

    Raises: UserError.
    """
    with tempfile.TemporaryDirectory() as aside:
        if ledger is None:
            attempt = Ledger.create(aside, terms)
        else:
            shutil.copy(ledger.path, aside)
            attempt = Ledger(aside)
            attempt.copy = None
            attempt.extend(terms)
        too_small = sweep_with(attempt).why_too_small
        attempt.close()
    if too_small:
        raise UserError(too_small)


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
    if len(sizes) < len({*config.add_sizes} - {*config.sizes}) + len(config.sizes):
        raise UserError(f"--sizes names a size twice: {' '.join(config.sizes)}")
    for name, size in sizes.items():
        try:
            sized = TrainConfig(**settings | size.settings())
            refuse_beyond_memory(resolve(sized, vocab_size), config.concurrency or 1)
        except UserError as error:
            raise UserError(f"size {name}: {error}") from error
    # Waiting costs money where the budget is in time.
    if terms.is_timed and config.concurrency and os.environ.get("RAY_ADDRESS", "") in ("", "local"):
        cpu_workers = WORKERS_OF_A_CORE * len(os.sched_getaffinity(0))
        workers = gpus_here() if config.train.use_gpu else cpu_workers
        if config.concurrency * config.train.num_workers > max(workers, config.train.num_workers):
            raise UserError(
                f"--concurrency {config.concurrency} with --num-workers {config.train.num_workers}: this machine runs "
                f"{workers} workers at a time, and trials that wait for them would be charged too"
            )
    return sizes


def gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def folders_in(folder: Path) -> dict[str, Any]:
    """The folders of trials, as settings of `train`."""
    return {"checkpoint_dir": str(folder / "runs"), "log_dir": str(folder / "logs")}


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


# ----------------------------------------------------------------------------- what it leaves


def write_results(sweep: Scheduler) -> None:
    """The tables and outcome.json; best.yaml and the report when there is a final run."""
    results = Results.of(sweep.ledger)
    results.write(sweep.folder)
    final = latest_final(sweep.ledger)
    if final is not None and not final.is_open:
        write_best(sweep, final, results.outcome)
        write_report(sweep.folder)
        show_outcome(sweep, results.outcome, final.result)


def write_best(sweep: Scheduler, final: Account, outcome: Outcome) -> None:
    """best.yaml: the settings of the final run, for `train`."""
    config, default = config_of(final), TrainConfig()
    config = with_length(config, final.result.get("max_iters") or config.max_iters, final.settings)
    eval_iters = affordable_eval_iters(
        config.max_iters, config.global_batch, sweep.validation_windows, sweep.make_plan().eval_iters
    )
    best = dataclasses.replace(
        config,
        eval_iters=eval_iters,
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
        f"The final run of the sweep {shown(sweep.output)}, of size {outcome.size}{reached}.".split()
    )
    (sweep.folder / BEST).write_text(f"# {comment}\n{to_yaml(to_dict(best))}", encoding="utf-8")


def show_outcome(sweep: Scheduler, outcome: Outcome, result: dict[str, Any]) -> None:
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
    print(f"spent: {terms.money(sweep.ledger.spent)} of {terms.money(terms.capacity)} ({share:.1%})")
    checkpoint = result.get("checkpoint")
    if checkpoint is not None and not is_remote(checkpoint):
        checkpoint = os.path.relpath(checkpoint)
    print(f"checkpoint: {checkpoint and shown(checkpoint)}")
    print(f"report: {folder / REPORT_DIR / 'index.html'}")
    print(f"to train it again: nanochat-tct train --config {folder / BEST}")
