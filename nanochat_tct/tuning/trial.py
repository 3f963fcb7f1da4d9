"""One trial: its reserve before workers begin, the training that a worker does, and its result.

The command imports this module too, so only functions that workers call import PyTorch and the loop.
"""

import dataclasses
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat_tct.config import to_dict
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.storage.object_storage import join, local_path
from nanochat_tct.tracking.tracker import QUALITY
from nanochat_tct.training.config import ResolvedConfig, for_epochs, resolve
from nanochat_tct.training.plan import evaluations_left, open_windows
from nanochat_tct.training.signals import PREEMPTED
from nanochat_tct.tuning.budget import FINAL_EVALUATIONS, Prices, seconds_of
from nanochat_tct.tuning.ledger import Ledger, OverBudget
from nanochat_tct.tuning.meter import (
    INTERRUPTED,
    LAST_ITERS,
    REPAIR,
    RESERVE_USED,
    RESIZE,
    WorkerCharger,
    WorkerMeter,
    config_of,
    prices_of,
    spare_of,
)
from nanochat_tct.tuning.records import HalfWay
from nanochat_tct.tuning.results import loss_curve

if TYPE_CHECKING:
    from nanochat_tct.training.distributed import Worker
    from nanochat_tct.training.trainer import Reporter


# ----------------------------------------------------------------------------- before a worker begins


def covers_rest(ledger: Ledger, trial: str) -> bool:
    """Reserve the rest of a trial that was begun before: its start, and all that no checkpoint has.

    Returns: False where there is not as much; then the trial is settled as cut, with what it has reached.
    """
    ledger.refresh()
    account = ledger.accounts[trial]
    if not account.charged and not account.microseconds:
        return True  # the reserve that it was opened with
    if account.purpose == "probe":  # it measures what the rest costs
        return ledger.top_up(trial, account.reserve) > 0
    config, prices = config_of(account), prices_of(account)
    done, spare = reached(config)["iters"], spare_of(ledger, account, prices)
    is_final = account.purpose == "final"  # it takes all that is free, which decides its length
    shortest = with_length(config, min(config.max_iters, done + 1), account.settings) if is_final else config
    rest = prices.start_up + price_of_rest(shortest, done, prices, account.settings)
    needed = math.ceil(rest + spare)
    wanted = math.ceil(REPAIR * rest + spare) if ledger.terms.is_timed else needed
    if ledger.top_up(trial, ledger.terms.capacity if is_final else wanted) >= needed:
        return True
    ledger.settle(trial, cut(config, ledger))
    return False


# ----------------------------------------------------------------------------- on a worker


def work(
    folder: str | Path,
    ledger: Ledger,
    trial: str,
    worker: "Worker",
    preemption: Callable[[], str | None] = lambda: None,
    progress: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> dict[str, Any]:
    """Train a trial on this worker, charged to the ledger, on Ray or without.

    Args:
        preemption: why this worker should save and leave; None: it should not.
        progress: takes the metrics of a log line, and the bits per byte of an evaluation, on the first worker.
    Returns: what `train_to_the_end` does; of a probe also `seconds`, of a final run `whole_split`.
    """
    import torch

    from nanochat_tct.training.trainer import Reporter

    began = ledger.clock()
    meter = WorkerMeter(folder, ledger, trial, worker.rank)
    account, settings, config = meter.account, meter.account.settings, meter.config
    if worker.device.type == "cpu":
        torch.set_num_threads(settings["threads"])
    os.environ["WANDB_RUN_GROUP"] = settings["group"]
    log_dir = Path(config.log_dir) / config.run_name
    log_dir.mkdir(parents=True, exist_ok=True)
    early_stopping = EarlyStopping(meter)

    def report(metrics: dict[str, Any]) -> None:
        early_stopping.look_at(metrics)
        if worker.is_first:
            progress({QUALITY: metrics[QUALITY]})  # the loss among its metrics is that of validation

    with meter.log, open(log_dir / "log.txt", "a", buffering=1, encoding="utf-8") as lines:
        reporter = Reporter(
            say=lambda line: print(line, file=lines),
            report=report,
            stop_reason=lambda: meter.stop_reason() or preemption(),
            charge=meter.charge,
            progress=progress,
            varied=settings["varied"],
        )
        if not worker.is_first:
            return train_to_the_end(config, worker, reporter, meter)
        run_dir = local_path(config.run_place)
        charger = WorkerCharger(ledger, trial, meter.log, lambda: cut(meter.config, ledger, is_here=True))
        # Waits for a worker of an earlier start that is about to end.
        with checkpoint.exclusive(run_dir, waits=True), charger:
            try:
                result = train_to_the_end(config, worker, reporter, meter)
                if account.purpose == "final" and result["status"] == "finished":
                    result |= evaluate_whole_split(config, result["checkpoint"], meter)
            except OverBudget:
                result = cut(meter.config, ledger)  # the other workers wait for it until the driver ends them
            meter.flush()
            result["curve"] = loss_curve(run_dir)
    if account.purpose == "probe" and result["status"] == "finished":
        seconds = seconds_of(list(meter.marks), result["ended_at"], began, settings["windows"])
        result["seconds"] = vars(seconds)
    return result


def train_to_the_end(
    config: ResolvedConfig, worker: "Worker", reporter: "Reporter", meter: WorkerMeter
) -> dict[str, Any]:
    """Run the loop, again each time that the length of the run is corrected.

    Returns: `status iters tokens bits_per_byte checkpoint why ended_at`.
    """
    from nanochat_tct.training.distributed import NotSaved, StoppedTogether, broadcast
    from nanochat_tct.training.trainer import Trainer

    why: str | None = RESIZE
    while why == RESIZE:
        if worker.is_first:
            config = fit_length(config, meter, reached(config)["iters"])
        config = ResolvedConfig(**broadcast(to_dict(config), worker))
        try:
            result = Trainer(config, worker, reporter).run()
            why = result["stopped"]
        except NotSaved:
            raise
        except StoppedTogether as error:  # not finite, again and again
            why = str(error)
    status = {None: "finished", RESERVE_USED: "cut", INTERRUPTED: INTERRUPTED}.get(why, "stopped")
    if why is not None and why.startswith(PREEMPTED):
        status = PREEMPTED
        if worker.is_first:
            reporter.say(f"{why}; saved at iter {result['step']}, starting again")
    return {"status": status, "why": why, "ended_at": meter.ledger.clock()} | reached(config)


class EarlyStopping:
    """Stops a trial at an evaluation when it diverges, or is hopeless beside the others."""

    def __init__(self, meter: WorkerMeter) -> None:
        self.meter, self.settings = meter, meter.account.settings
        self.before: float | None = None

    def look_at(self, metrics: dict[str, Any]) -> None:
        """Take the metrics of an evaluation."""
        bits = metrics["bits_per_byte"]
        if self.meter.rank != 0 or self.settings["purpose"] != "sweep":
            return
        if metrics["iter"] == 0:
            self.before = bits
        elif metrics["iter"] < self.settings["iters"]:
            others = self.peers()
            self.meter.ledger.note(HalfWay(self.meter.trial, bits))
            if not math.isfinite(bits) or (self.before is not None and bits >= self.before):
                self.meter.stop = "diverged"
            elif others and bits > self.settings["hopeless"] * min(others):
                self.meter.stop = f"hopeless: {bits:.3f} half-way, where another rate had {min(others):.3f}"

    def peers(self) -> list[float]:
        """Bits per byte that others of this size and length had half-way."""
        ledger = self.meter.ledger
        ledger.refresh()
        same = {
            name
            for name, account in ledger.accounts.items()
            if all(account.settings.get(key) == self.settings[key] for key in ("size", "iters", "purpose"))
        }
        notes = [note for note in ledger.noted(HalfWay) if note.trial in same - {self.meter.trial}]
        return [note.bits_per_byte for note in notes]


def evaluate_whole_split(config: ResolvedConfig, path: str, meter: WorkerMeter) -> dict[str, float | None]:
    """Measure a final run's model as `nanochat-tct evaluate` does, on as many windows as its plan affords.

    Returns: `whole_split`, bits per byte, and its `whole_split_error`; nothing where trials took all windows anyway.
    """
    from nanochat_tct.evaluation.evaluate import evaluate_loss
    from nanochat_tct.generation.generate import load

    settings = meter.account.settings
    windows = settings["whole_windows"]
    if not windows:
        return {}
    store = TokenStore.open(config.data_dir, verify=False)
    split = open_windows(store, config, "val")
    meter.charge("evaluation", windows * Prices(**settings["flops"]).window)
    device = "cuda" if config.use_gpu else "cpu"
    model = load(path, None, device)[0]
    assert config.batch_size != "auto"  # a sweep's is a number (tuning/config.py)
    masks = store.masks if config.mask_illegal else None
    measured = evaluate_loss(
        model, split, config.batch_size, device, config.precision, masks=masks, taken=windows
    )
    return {"whole_split": measured["bits_per_byte"], "whole_split_error": measured.get("standard_error")}


# ----------------------------------------------------------------------------- where a run stands, and its length


def reached(config: ResolvedConfig, is_here: bool = False) -> dict[str, Any]:
    """The state of a run at its latest checkpoint.

    Args:
        is_here: whether this machine has it, so that object storage need not be asked.
    """
    location = config.run_place
    latest = checkpoint.latest_checkpoint(local_path(location) if is_here else remote_run.pull(location))
    if latest is None:
        return {"iters": 0, "tokens": 0, "bits_per_byte": None, "checkpoint": None}
    state = checkpoint.load_checkpoint(latest, verify=False).state
    last = state["progress"]["last_evaluation"] or {}
    return {
        "iters": state["step"],
        "tokens": state["step"] * state["global_batch"] * state["model_config"]["context_size"],
        "bits_per_byte": last.get("bits_per_byte"),
        "standard_error": last.get("standard_error"),
        "checkpoint": join(location, latest.name),
        "max_iters": config.max_iters,
    }


def cut(config: ResolvedConfig, ledger: Ledger, is_here: bool = False) -> dict[str, Any]:
    """The result of a trial that has no money for its rest."""
    result: dict[str, Any] = {"status": "cut", "why": RESERVE_USED, "ended_at": ledger.clock()}
    try:
        result |= reached(config, is_here)
    except (UserError, OSError) as error:  # the loop may be writing a checkpoint just now
        return result | {"why": f"{RESERVE_USED}; its checkpoint cannot be read: {error}"}
    if result["iters"] == config.max_iters:  # the last evaluation, or the end of the processes, is missing
        result |= {"status": "finished", "why": None}
    return result


def price_of_rest(config: ResolvedConfig, done: int, prices: Prices, settings: dict[str, Any]) -> float:
    """Quanta of the rest of a run that has made `done` iters, once its workers have started."""
    evaluation = settings["windows"] * prices.window + prices.checkpoint
    price = prices.warm_up + evaluations_left(config, done) * evaluation
    price += settings["whole_windows"] * prices.window
    return price + (config.max_iters - done) * prices.iter


def fit_length(config: ResolvedConfig, meter: WorkerMeter, done: int) -> ResolvedConfig:
    """The config of what is still to do, with the money there is; on the first worker.

    A trial keeps its length, so that it can be compared: its reserve is raised by what it must do again, as far as
    there is money. A final run takes all that is free, which decides its length.

    Args:
        done: iters that the latest checkpoint has.
    """
    account, ledger, settings = meter.account, meter.ledger, meter.account.settings
    if meter.is_timed and (measured := meter.measured_iter()) is not None:
        meter.prices = dataclasses.replace(meter.prices, iter=measured)
    prices, spare = meter.prices, meter.spare()
    if account.purpose == "final":
        besides = (
            price_of_rest(config, done, prices, settings) - (config.max_iters - done) * prices.iter + spare
        )
        iters = math.floor((meter.left() - besides) / prices.iter)
        too_few = LAST_ITERS if meter.resizes else 0
        config = with_length(config, done + (iters if iters > too_few else 1), settings)
        while config.max_iters > done + 1 and (
            price_of_rest(config, done, prices, settings) + spare > meter.left()
        ):
            config = with_length(config, config.max_iters - 1, settings)
    else:
        needed = price_of_rest(config, done, prices, settings)
        ledger.top_up(meter.trial, math.ceil(REPAIR * needed + spare if meter.is_timed else needed))
    meter.config = config
    windows = evaluations_left(config, done) * settings["windows"] + settings["whole_windows"]
    meter.begin(config.max_iters - done, windows)
    return config


def with_length(config: ResolvedConfig, max_iters: int, settings: dict[str, Any]) -> ResolvedConfig:
    """A final run of another length: the learning rate decays over it, and evaluations stay as many.

    Args:
        settings: of the trial; they say how weight decay and warm-up follow from the length, and how long an epoch is.
    """
    interval = max(1, math.ceil(max_iters / (FINAL_EVALUATIONS - 1)))
    share = settings.get("varied", {}).get("warmup_share")
    length = config.reopened(
        max_iters=max_iters,
        lr_decay_iters=max_iters,
        warmup_iters=None if share is None else round(share * max_iters),
        weight_decay=None if settings.get("derives_weight_decay") else config.weight_decay,
        eval_interval=interval,
        save_interval=interval,
    )
    num_windows = settings["unique_tokens"] // config.context_size
    return for_epochs(resolve(length, config.vocab_size), length, num_windows, config.global_batch)


class Losers:
    """Settled trials other than the best one and final runs: their results stay, their checkpoints are removed."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.removed: set[str] = set()

    def remove(self) -> None:
        """Remove the checkpoints of those that have settled by now. Raises: UserError when object storage refuses."""
        settled = {name: each for name, each in self.ledger.accounts.items() if not each.is_open}
        bits = {
            name: each.result["bits_per_byte"]
            for name, each in settled.items()
            if each.purpose != "probe" and math.isfinite(each.result.get("bits_per_byte") or math.inf)
        }
        best = min(bits, key=lambda name: bits[name], default=None)
        for name, account in settled.items():
            if name == best or account.purpose == "final" or name in self.removed:
                continue
            location = config_of(account).run_place
            run_dir = local_path(location)
            for path in checkpoint.list_checkpoints(run_dir):
                shutil.rmtree(path)
            (run_dir / checkpoint.BEST).unlink(missing_ok=True)
            remote_run.push(run_dir, location)
            self.removed.add(name)
