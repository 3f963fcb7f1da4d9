"""The training loop, in plain PyTorch. Who starts it (Ray Train, torchrun, a test) tells it its rank."""

import dataclasses
import errno
import hashlib
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch

from nanochat_tct.config import to_dict
from nanochat_tct.data.sampler import WindowSampler, batch_hash
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import MaskedRows, Windowing, Windows
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.loss import LEAST_BATCHES, batch_sums, evaluation_batches, loss_figures
from nanochat_tct.model.accounting import flops_per_token
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.soft_capped_loss import masks_on
from nanochat_tct.remote import local_path
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.cost import CostMeter
from nanochat_tct.tracking.tracker import SilentTracker, Tracker
from nanochat_tct.training import checkpoint, remote_run
from nanochat_tct.training.config import TrainConfig, refuse_other_run
from nanochat_tct.training.micro_batch import (
    fit_micro_batch,
    largest_micro_batch,
    out_of_memory,
    warm_up_rows,
)
from nanochat_tct.training.micro_steps import Batch, MicroSteps, padded
from nanochat_tct.training.muon import Muon
from nanochat_tct.training.optimizer import make_optimizers, own_rate, set_learning_rate, step_if
from nanochat_tct.training.parallel import (
    StoppedTogether,
    Worker,
    distribute,
    full_state,
    gather,
    load_full_state,
    raise_together,
    random_state,
    seed_worker,
    set_random_state,
    share,
    share_of,
    sum_over_workers,
)
from nanochat_tct.training.saver import BackgroundSaver
from nanochat_tct.training.speed import Speed, peak_of
from nanochat_tct.training.token_parts import token_parts

RECENT = 100  # iters whose gradient norms tell what is usual
Read = TypeVar("Read")


@dataclass(frozen=True)
class Reporter:
    """How the loop is heard, and what it listens to.

    Args:
        say: prints a line; rank 0 calls it.
        report: hands on the numbers of an evaluation; every worker calls it, at the same place.
        stop_reason: asked on every worker in each iter, so it must be quick. None: go on. Once there is a
            reason anywhere, and it stays, all workers save a checkpoint of this iter and return.
        charge: told on rank 0 before each piece of work what it will take: the kind ("warm_up", "train",
            "evaluation", "checkpoint") and the model's FLOPs over all workers (0 for a checkpoint).
        progress: takes the numbers of a log line, on rank 0, for a progress bar.
        is_restart: the workers were started again, because some were lost or more can be had.
    """

    say: Callable[[str], None] = print
    report: Callable[[dict[str, Any]], None] = lambda numbers: None
    stop_reason: Callable[[], str | None] = lambda: None
    charge: Callable[[str, float], None] = lambda kind, flops: None
    progress: Callable[[dict[str, Any]], None] = lambda numbers: None
    is_restart: bool = False


@dataclass
class Progress:
    """What a run knows of itself, apart from weights; goes into the checkpoint."""

    step: int = 0  # iters done
    skipped_iters: int = 0
    skipped_in_a_row: int = 0
    recent_grad_norms: list[float] = field(default_factory=list)  # of the last iters that were not skipped
    batches: str = ""  # hash of all global batches so far, in order: equal for equal histories
    first_evaluation: dict[str, float] | None = None
    last_evaluation: dict[str, float] | None = None
    best: dict[str, Any] | None = None  # {"step", "bits_per_byte"}


def train(config: TrainConfig, worker: Worker, reporter: Reporter) -> dict[str, Any]:
    """Train until `config.max_iters`, going on from the run's latest checkpoint where there is one.

    Args:
        config: resolved (training/config.py), paths absolute, the same on every worker.
        worker: this process; where there are several, torch.distributed has been initialised.
        reporter: who hears about it.

    Returns: `run_dir checkpoint cost_usd is_finished_before` (no checkpoint before the first iter), `stopped`
        (the reporter's reason to stop before the end, else None) and all of Progress; `last_evaluation` says
        by `iter` what it is of.
    Raises: UserError for what the user can mend; StoppedTogether when all workers raise it at once.
    """
    device, run_dir = worker.device, remote_run.pull(config.run_place)

    # -- what is trained on
    tokenizer = load_tokenizer(config.tokenizer)
    assert config.data_dir is not None
    store = TokenStore.open(config.data_dir, verify=False)  # whoever started the loop has verified it
    store.check_tokenizer(tokenizer)
    training, validation = (open_windows(store, config, split) for split in ("train", "val"))
    num_windows = min(len(training), config.train_samples or len(training))
    sampler = WindowSampler(num_windows, config.seed)

    # -- where the run stands
    latest = checkpoint.latest_checkpoint(run_dir, reporter.say) if worker.is_first else None
    path = share(str(latest or ""), worker)
    previous = checkpoint.load_checkpoint(Path(path), verify=False) if path else None
    if previous is not None:
        refuse_other_run(config, store.fingerprint, tokenizer.fingerprint, previous.state)
    progress = Progress(**previous.state["progress"]) if previous else Progress()
    global_batch = previous.state["global_batch"] if previous else config.global_batch
    if global_batch < worker.world_size:
        raise StoppedTogether(
            f"the global batch of {global_batch} windows is too small for {worker.world_size} workers; "
            "raise --batch-size or take fewer workers"
        )
    spent = previous.state["cost"] if previous else {}
    cost = CostMeter(
        worker.world_size, config.gpu_hourly_usd if device.type == "cuda" else config.cpu_hourly_usd, **spent
    )

    # -- the model and what moves it
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    model = GPT(config.model(), config.seed, config.checkpoint_activations).to(device)
    if config.compile:
        model.compile()
    say = reporter.say if worker.is_first else lambda line: None
    masks = masks_on(device, store.masks) if config.mask_illegal else None
    if config.mask_illegal and masks is None:
        say(f"{store.folder} has no masks of legal tokens: the softmax is over all tokens")
    row_flops = flops_per_token(config.model()) * config.model().context_size

    def charge(kind: str, num_rows: float) -> None:
        if worker.is_first:
            reporter.charge(kind, num_rows * row_flops)

    alone = dataclasses.replace(worker, rank=0, world_size=1)

    def try_micro_batch(num_rows: int) -> None:
        """Forward and backward pass of one worker for itself, before the others have to wait for it."""
        if num_rows < largest_micro_batch(config, worker.world_size, global_batch):
            charge("warm_up", num_rows * worker.world_size)  # one more try
        tried = MicroSteps(model, config, alone, num_rows, tokenizer.pad_token(), num_rows, masks=masks)
        tried.warm_up(num_rows)

    charge("warm_up", warm_up_rows(config, worker.world_size, global_batch))
    micro_batch = fit_micro_batch(config, worker, global_batch, run_dir, try_micro_batch, say)
    trained = distribute(model, worker, config.parallel, str(config.precision))
    own = own_rate(config, num_windows, global_batch)
    optimizers = make_optimizers(trained, config, token_parts(tokenizer), own)
    micro = MicroSteps(trained, config, worker, global_batch, tokenizer.pad_token(), micro_batch, say, masks)
    micro.warm_up()
    for optimizer in optimizers:
        if isinstance(optimizer, Muon):
            optimizer.warm_up()
    peak = peak_of(device)
    seed_worker(config.seed, progress.step, worker)
    if previous is not None:
        saved = previous.optimizer_state()
        load_full_state(trained, optimizers, previous.weights(), saved["optimizer"])
        if len(saved["random"]) == worker.world_size:
            set_random_state(saved["random"][worker.rank], device)
        del saved

    tracker = start_tracker(config, reporter, progress.step) if worker.is_first else SilentTracker()
    saver = BackgroundSaver(config.run_place)
    stopped: str | None = None

    def wants_stop() -> bool:
        return reporter.stop_reason() is not None

    def evaluate(stops: bool = True) -> bool:
        """Measure the validation split; True when it was never so good. It `stops` when a worker wants to."""
        nonlocal stopped
        num_rows = validation_rows(validation, micro, config)
        charge("evaluation", num_rows / 3)  # forward only: a third of the FLOPs
        wants = wants_stop if stops else never
        numbers = validation_loss(micro, model, validation, num_rows, config, worker, wants)
        if numbers is None:
            stopped = agreed_reason(reporter, worker)
            return False
        bits_per_byte = numbers["bits_per_byte"]
        # The first evaluation, at iter 0, sets a bar: a run that never passes it has no best checkpoint.
        earlier = [each for each in (progress.first_evaluation, progress.best) if each is not None]
        is_best = progress.step > 0 and all(bits_per_byte < each["bits_per_byte"] for each in earlier)
        if is_best:
            progress.best = {"step": progress.step, "bits_per_byte": numbers["bits_per_byte"]}
        numbers = {"iter": progress.step, **numbers}
        progress.first_evaluation = progress.first_evaluation or numbers
        progress.last_evaluation = numbers
        tracker.evaluation({**numbers, "is_best": is_best})
        reporter.report({**numbers, "cost_usd": cost.usd})
        return is_best

    def save() -> None:
        """Copy this moment for a checkpoint, which is committed while training goes on."""
        charge("checkpoint", 0)
        weights, optimizer_state = full_state(trained, optimizers)
        random_states = gather(random_state(device), worker)
        error = None
        if worker.is_first:
            state = {
                "step": progress.step,
                "progress": vars(progress),
                "best": progress.best,
                "config": to_dict(config),
                "model_config": vars(config.model()),
                "tokenizer": {"name": config.tokenizer, "fingerprint": tokenizer.fingerprint},
                "data": {"fingerprint": store.fingerprint},
                "global_batch": global_batch,
                "world_size": worker.world_size,
                "cost": {"spent_usd": cost.usd, "worker_seconds": cost.worker_seconds},
                "torch": torch.__version__,
            }
            both = {"optimizer": optimizer_state, "random": random_states}
            try:
                saver.save(run_dir, weights, both, state, config.keep_checkpoints)
            except UserError as problem:
                error = str(problem)
        raise_together(error, worker)

    def finish_saving() -> None:
        """Wait until the last checkpoint is committed."""
        error = None
        try:
            saver.wait()
        except UserError as problem:
            error = str(problem)
        raise_together(error, worker)

    if reporter.is_restart:
        plural = "" if worker.world_size == 1 else "s"
        tracker.say(f"continuing from iter {progress.step} with {worker.world_size} worker{plural}")
    if previous is not None and worker.world_size != config.num_workers:
        tracker.say(
            f"iter {progress.step}: {worker.world_size} of {config.num_workers} workers, the same global batch"
        )

    # -- the loop
    try:
        is_finished_before = progress.step >= config.max_iters
        evaluated = progress.last_evaluation and progress.last_evaluation.get("iter", progress.step)
        is_due = progress.step % config.eval_interval == 0 and evaluated != progress.step
        if is_due and not is_finished_before and evaluate():  # the first, or one that a stop has cut off
            save()
        speed = Speed(config, global_batch, peak * worker.world_size, progress.step)
        part = share_of(global_batch, worker)

        def read(step: int) -> tuple[Batch, int]:
            rows = training.get_masked(sampler.indices(step, global_batch)[part.start : part.stop])
            return micro.load(rows), batch_hash(rows.rows, part.start)

        def told(rows_hash: int) -> list[float]:
            return [wants_stop(), saver.has_failed, rows_hash]

        batches = read_ahead(read, range(progress.step, config.max_iters if not stopped else 0))
        coming = next(batches, None)
        while coming is not None:
            batch, rows_hash = coming  # this worker's windows of the global batch
            speed.start_iter()
            charge("train", global_batch)
            lr = set_learning_rate(optimizers, progress.step, config)
            # Loss and norm are of the global batch, the same on every worker: all come to the same answer.
            limit = norm_limit(progress.recent_grad_norms, config)
            outcome = micro.gradients(batch, partial(told, rows_hash), limit)
            step_if(outcome.is_good, optimizers)
            # Taken before the wait for the device, so that the thread that reads the one behind it works while this
            # one has nothing to do: two threads of Python are in each other's way.
            coming = next(batches, None)
            is_good, loss, grad_norm, (num_stopping, num_failed, hash_sum) = outcome.wait()
            if is_good:
                progress.recent_grad_norms = [*progress.recent_grad_norms, grad_norm][-RECENT:]
            progress.step += 1
            progress.skipped_in_a_row = 0 if is_good else progress.skipped_in_a_row + 1
            progress.skipped_iters += not is_good
            progress.batches = hashlib.sha256(f"{progress.batches}/{hash_sum:.0f}".encode()).hexdigest()[:16]
            speed.end_iter()
            if num_failed:
                finish_saving()  # and raise what went wrong

            if not is_good:
                tracker.say(
                    f"iter {progress.step}: loss {loss:.3f}, gradient norm {grad_norm:.3f}: step skipped, "
                    f"{progress.skipped_iters} so far"
                )
                if progress.skipped_in_a_row >= config.max_bad_iters:
                    raise StoppedTogether(
                        f"stopped at iter {progress.step}: {progress.skipped_in_a_row} iters in a row without "
                        f"a finite and steady gradient; lower --learning-rate (now {lr:.2g}) and run again"
                    )
            is_last = progress.step == config.max_iters
            if progress.step % config.log_interval == 0 or progress.step == 1 or is_last:
                numbers = {"iter": progress.step, "loss": loss, "lr": lr, "grad_norm": grad_norm}
                numbers |= {**speed.numbers(), "cost_usd": cost.usd, "skipped_iters": progress.skipped_iters}
                tracker.iteration({**numbers, "batches": progress.batches})
                if worker.is_first:
                    left = cost.usd_for(numbers["eta_seconds"])
                    reporter.progress({**numbers, "cost_left_usd": left})
            if num_stopping and not is_last:
                stopped = agreed_reason(reporter, worker)
            is_due = is_last or (progress.step % config.eval_interval == 0 and stopped is None)
            is_best = is_due and evaluate(stops=not is_last)
            if is_best or progress.step % config.save_interval == 0 or is_last or stopped is not None:
                save()
            if stopped is not None:
                break
        finish_saving()
    except torch.OutOfMemoryError as error:
        raise out_of_memory(micro.micro_batch, run_dir) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk is full: {error.filename or run_dir}; free some space and run again"
        ) from error
    finally:
        saver.close()
        tracker.close()
    return {
        "run_dir": str(run_dir),
        "checkpoint": str(checkpoint.step_directory(run_dir, progress.step)) if progress.step else None,
        "cost_usd": cost.usd,
        "is_finished_before": is_finished_before,
        "stopped": stopped,
        **vars(progress),
    }


def norm_limit(recent: list[float], config: TrainConfig) -> float:
    """The largest gradient norm that is no spike: a multiple of the median of the last iters."""
    if not config.max_grad_norm_ratio or len(recent) < RECENT // 4:
        return sys.float_info.max  # anything finite
    return config.max_grad_norm_ratio * statistics.median(recent)


def read_ahead(read: Callable[[int], Read], steps: range) -> Iterator[Read]:
    """Yield read(step) for every step; the next one is read while the caller works."""
    if not steps:
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read, steps[0])
        for step in steps[1:]:
            done = coming.result()
            coming = thread.submit(read, step)
            yield done
        yield coming.result()


def never() -> bool:
    """Nobody wants to stop."""
    return False


def agreed_reason(reporter: Reporter, worker: Worker) -> str:
    """Why the workers stop, the same on all of them: the reason of the first that has one."""
    return next(reason for reason in gather(reporter.stop_reason(), worker) if reason is not None)


def validation_rows(windows: Windows, micro: MicroSteps, config: TrainConfig) -> int:
    """How many windows of the validation split an evaluation takes."""
    limit = config.eval_iters * micro.global_batch
    return min(len(windows), limit) if limit else len(windows)


def validation_loss(
    micro: MicroSteps,
    model: GPT,
    windows: Windows,
    num_rows: int,
    config: TrainConfig,
    worker: Worker,
    wants_stop: Callable[[], bool] = never,
) -> dict[str, float] | None:
    """What an evaluation of `num_rows` windows of the validation split reports; None when a worker wants to stop.

    The workers share the batches; each gets as many, the last one empty if need be (FSDP needs all to come).
    """
    # What is compiled is compiled for one shape.
    least_rows, least_batches = (micro.micro_batch, 1) if config.compile else (1, LEAST_BATCHES)
    shared = evaluation_batches(len(windows), num_rows, micro.micro_batch, least_batches)

    def batches() -> Iterator[MaskedRows]:
        for turn in range(0, len(shared), worker.world_size):
            indices = np.arange(0)
            if turn + worker.rank < len(shared) and not wants_stop():
                indices = shared[turn + worker.rank]
            yield padded(windows.get_masked(indices), least_rows, micro.pad_token)

    evaluated = micro.trained if config.parallel == "fsdp" else model
    evaluated.eval()
    with micro.autocast:
        sums = batch_sums(evaluated, batches(), micro.vocab_size, micro.pad_token, worker.device, micro.masks)
    stopping = torch.tensor([wants_stop()], dtype=torch.float64, device=worker.device)
    *totals, num_stopping = sum_over_workers(torch.cat([sums, stopping]), worker).tolist()
    return None if num_stopping else loss_figures(totals, windows, num_rows)


def open_windows(store: TokenStore, config: TrainConfig, split: Literal["train", "val"]) -> Windows:
    """The rows of a split, as a resolved config wants them; for validation in a stream, which holds each token once."""
    assert config.context_size is not None
    if split == "val":
        return Windows(store, split, config.context_size)
    return Windows(store, split, config.context_size, cast(Windowing, config.windowing), config.stride)


def start_tracker(config: TrainConfig, reporter: Reporter, step: int) -> Tracker:
    """The run's tracker, on rank 0."""
    log_dir = Path(config.log_dir) / str(config.run_name)
    return Tracker(
        local_path(config.run_place),
        log_dir,
        reporter.say,
        config.tensorboard,
        config.wandb,
        config.wandb_project,
        config.wandb_run_name,
        to_dict(config),
        step,
    )
