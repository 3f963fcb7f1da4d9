"""The training loop, in plain PyTorch. Its caller (Ray Train, torchrun, a test) provides the rank."""

import dataclasses
import errno
import hashlib
import statistics
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from nanochat_tct.config import to_dict
from nanochat_tct.data.sampler import WindowSampler, batch_hash
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import MaskedRows
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.loss import LEAST_BATCHES, batch_sums, evaluation_batches, loss_figures
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.model.accounting import flops_per_token
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import masks_on
from nanochat_tct.storage.object_storage import local_path
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.tracker import Tracker
from nanochat_tct.training.config import (
    ResolvedConfig,
    largest_micro_batch,
    own_rate,
    refuse_other_run,
    warm_up_rows,
)
from nanochat_tct.training.distributed import (
    NotSaved,
    StoppedTogether,
    Worker,
    broadcast,
    gather,
    random_state,
    seed_worker,
    set_random_state,
    shard_range,
    sum_over_workers,
    together,
)
from nanochat_tct.training.micro_batch import (
    Batch,
    MicroSteps,
    fit_micro_batch,
    out_of_memory,
    padded,
    ran_out_of_memory,
)
from nanochat_tct.training.optim import (
    Muon,
    WeightAverage,
    exchanged,
    make_optimizers,
    set_learning_rate,
    step_if,
)
from nanochat_tct.training.parallel import averaged, distribute, full_state, load_full_state
from nanochat_tct.training.plan import open_windows
from nanochat_tct.training.saver import BackgroundSaver
from nanochat_tct.training.speed import CostMeter, Speed, peak_of
from nanochat_tct.training.token_parts import token_parts

RECENT = 100  # steps whose gradient norms say what is usual
Read = TypeVar("Read")


@dataclass(frozen=True)
class Reporter:
    """Callbacks for progress and stop requests.

    Args:
        say: prints a line; called on rank 0.
        report: takes the metrics of an evaluation; every worker calls it, after the same evaluation.
        stop_reason: asked on every worker in each step, so it must be quick. None: continue. A reason stays; once there
            is one anywhere, all workers save a checkpoint of this step and return.
        charge: called on rank 0 before each piece of work with its kind ("warm_up", "train", "evaluation",
            "checkpoint") and the model's FLOPs over all workers (0 for a checkpoint).
        progress: takes the metrics of a log line, on rank 0, for a progress bar.
        is_restart: the workers were started again, because some were lost or more can be had.
        varied: what a sweep varies besides size and learning rate, with this run's values; for the tracker.
    """

    say: Callable[[str], None] = print
    report: Callable[[dict[str, Any]], None] = lambda metrics: None
    stop_reason: Callable[[], str | None] = lambda: None
    charge: Callable[[str, float], None] = lambda kind, flops: None
    progress: Callable[[dict[str, Any]], None] = lambda metrics: None
    is_restart: bool = False
    varied: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """The progress of a run besides its weights, as checkpoints hold it."""

    step: int = 0  # steps done; the log and the flags call them iters
    skipped_iters: int = 0
    skipped_in_a_row: int = 0
    recent_grad_norms: list[float] = field(default_factory=list)  # of the last steps that were not skipped
    batches: str = ""  # hash of all global batches so far, in order: equal for equal histories
    first_evaluation: dict[str, float] | None = None
    last_evaluation: dict[str, float] | None = None
    best: dict[str, Any] | None = None  # {"step", "bits_per_byte"}


@dataclass(frozen=True)
class Step:
    """The outcome of one step, the same on every worker."""

    is_good: bool  # False: loss or gradient were not finite or far from the usual, and the step was skipped
    loss: float  # nats a target
    grad_norm: float
    lr: float
    wants_stop: bool  # some worker has a reason to stop
    has_failed_save: bool  # some checkpoint could not be written


class Trainer:
    """Trains a model on one of the run's workers; all workers run the same steps."""

    def __init__(self, config: ResolvedConfig, worker: Worker, reporter: Reporter) -> None:
        """Args:
        config: paths absolute, the same on every worker.
        worker: this process; where there are several, torch.distributed has been initialised.
        reporter: callbacks of whoever starts the run.
        """
        self.config, self.worker, self.reporter = config, worker, reporter
        self.say = reporter.say if worker.is_first else lambda line: None
        self.row_flops = flops_per_token(config.model()) * config.context_size
        self.stopped: str | None = None  # why the run ends before its last step

    def run(self) -> dict[str, Any]:
        """Train until `config.max_iters`, from the run's latest checkpoint if there is one.

        Returns: `run_dir checkpoint cost_usd is_finished_before` (no checkpoint before the first step), `stopped`
            (the reporter's reason to stop before the end, else None) and all of Progress; `last_evaluation` says
            by `iter` when it was.
        Raises: UserError for what the user can mend; StoppedTogether when all workers raise it at once.
        """
        self.setup()
        config, progress = self.config, self.progress
        is_finished_before = progress.step >= config.max_iters
        try:
            if not is_finished_before and self.is_first_evaluation_due() and self.evaluate():
                self.save()
            self.start_reading()
            while self.next_batch is not None and self.stopped is None:
                step = self.train_step()
                is_last = progress.step == config.max_iters
                if step.has_failed_save:
                    self.finish_saving()  # raises the error
                if not step.is_good:
                    self.report_skipped(step)
                if progress.step % config.log_interval == 0 or progress.step == 1 or is_last:
                    self.log(step)
                if step.wants_stop and not is_last:
                    self.stopped = self.agree_on_reason()
                is_due = is_last or (progress.step % config.eval_interval == 0 and self.stopped is None)
                is_best = is_due and self.evaluate(can_stop=not is_last)
                is_save_due = is_last or progress.step % config.save_interval == 0
                if is_best or is_save_due or self.stopped is not None:
                    self.save()
            self.finish_saving()
        except RuntimeError as error:
            is_own = isinstance(error, torch.OutOfMemoryError)
            if is_own or ran_out_of_memory(self.micro.micro_batch, self.run_dir):
                raise out_of_memory(self.micro.micro_batch, self.run_dir) from error
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"the disk is full: {error.filename or self.run_dir}; free some space and run again"
            ) from error
        finally:
            self.close()
        return self.result(is_finished_before)

    # -- before the first step

    def setup(self) -> None:
        """Everything before the first step: data, checkpoint, model, tracking."""
        config, worker = self.config, self.worker
        self.run_dir = remote_run.pull(config.run_place)
        self.open_data()
        previous = self.find_checkpoint()
        self.build_model()
        self.peak = peak_of(worker.device)
        step = self.progress.step
        seed_worker(config.seed, step, worker)
        if previous is not None:
            self.restore(previous)
        self.tracker: Tracker | None = None
        if worker.is_first:
            log_dir, run_dir, say = (
                Path(config.log_dir, config.run_name),
                local_path(config.run_place),
                self.say,
            )
            self.tracker = Tracker(run_dir, log_dir, say, to_dict(config), step, self.reporter.varied)
        self.saver = BackgroundSaver(config.run_place)
        self.batches: Generator[tuple[Batch, int], None, None] | None = None
        if self.reporter.is_restart:
            plural = "" if worker.world_size == 1 else "s"
            self.say(f"continuing from iter {step} with {worker.world_size} worker{plural}")
        if previous is not None and worker.world_size != config.num_workers:
            self.say(
                f"iter {step}: {worker.world_size} of {config.num_workers} workers, the same global batch"
            )

    def open_data(self) -> None:
        """Open tokenizer, store, the windows of both splits and their order.

        The caller has verified a local store. A remote one is downloaded meanwhile, and verified before the first
        checkpoint is written.
        """
        config = self.config
        self.store = TokenStore.open(config.data_dir, verify=False, is_whole=False)
        self.download = self.store.complete()
        self.tokenizer = load_tokenizer(config.tokenizer, self.store.tokenizer_fingerprint)
        self.store.check_tokenizer(self.tokenizer)
        self.training = open_windows(self.store, config, "train")
        self.validation = open_windows(self.store, config, "val")
        self.num_windows = min(len(self.training), config.train_samples or len(self.training))
        self.sampler = WindowSampler(self.num_windows, config.seed)

    def find_checkpoint(self) -> checkpoint.Checkpoint | None:
        """Find the run's latest checkpoint, the same on all workers; set the progress, batch and cost it continues."""
        config, worker = self.config, self.worker
        latest = checkpoint.latest_checkpoint(self.run_dir, self.say) if worker.is_first else None
        path = broadcast(str(latest or ""), worker)
        previous = checkpoint.load_checkpoint(Path(path), verify=False) if path else None
        if previous is not None:
            refuse_other_run(config, self.store.fingerprint, self.tokenizer.fingerprint, previous.state)
        self.progress = Progress(**previous.state["progress"]) if previous else Progress()
        self.global_batch = previous.state["global_batch"] if previous else config.global_batch
        if self.global_batch < worker.world_size:
            raise StoppedTogether(
                f"the global batch of {self.global_batch} windows is too small for {worker.world_size} workers; "
                "raise --batch-size or take fewer workers"
            )
        earlier = previous.state["cost"] if previous else {}
        self.cost = CostMeter(worker.world_size, config.hourly_usd, **earlier)
        return previous

    def build_model(self) -> None:
        """Build the model, compiled and distributed, its optimizers, and micro-steps that fit into memory."""
        config, worker, device = self.config, self.worker, self.worker.device
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
        self.model = GPT(config.model(), config.seed, config.checkpoint_activations).to(device)
        if config.compile:
            self.model.compile()
        self.masks = masks_on(device, self.store.masks) if config.mask_illegal else None
        if config.mask_illegal and self.masks is None:
            self.say(f"{self.store.folder} has no masks of legal tokens: the softmax is over all tokens")
        self.charge("warm_up", warm_up_rows(config, worker.world_size, self.global_batch))
        micro_batch = fit_micro_batch(
            config, worker, self.global_batch, self.run_dir, self.try_micro_batch, self.say
        )
        self.trained = distribute(self.model, worker, config.parallel, config.precision)
        own = own_rate(config, self.num_windows, self.global_batch)
        self.optimizers = make_optimizers(self.trained, config, token_parts(self.tokenizer), own)
        share = config.weight_average
        self.average = WeightAverage(self.optimizers, share) if share else None
        pad_token = self.tokenizer.pad_token()
        self.micro = MicroSteps(
            self.trained, config, worker, self.global_batch, pad_token, micro_batch, self.say, self.masks
        )
        self.micro.warm_up()
        for optimizer in self.optimizers:
            if isinstance(optimizer, Muon):
                optimizer.warm_up()

    def try_micro_batch(self, num_rows: int) -> None:
        """Make a forward and backward pass of this worker alone, while no other waits for it."""
        if num_rows < largest_micro_batch(self.config, self.worker.world_size, self.global_batch):
            self.charge("warm_up", num_rows * self.worker.world_size)  # one more try
        alone = dataclasses.replace(self.worker, rank=0, world_size=1)
        pad_token = self.tokenizer.pad_token()
        tried = MicroSteps(self.model, self.config, alone, num_rows, pad_token, num_rows, masks=self.masks)
        tried.warm_up(num_rows)

    def restore(self, previous: checkpoint.Checkpoint) -> None:
        """Load weights, optimizer and random state of a checkpoint."""
        saved = previous.optimizer_state()
        state = exchanged(previous.weights(), saved["optimizer"], self.config.weight_average)
        load_full_state(self.trained, self.optimizers, *state)
        if len(saved["random"]) == self.worker.world_size:
            set_random_state(saved["random"][self.worker.rank], self.worker.device)

    def is_first_evaluation_due(self) -> bool:
        """True before the first step, and if a stop has interrupted an evaluation."""
        progress = self.progress
        evaluated = progress.last_evaluation and progress.last_evaluation.get("iter", progress.step)
        return progress.step % self.config.eval_interval == 0 and evaluated != progress.step

    def start_reading(self) -> None:
        """Read the first batch, and from then on one batch ahead; start measuring the speed."""
        first, last = self.progress.step, self.config.max_iters if self.stopped is None else 0
        self.speed = Speed(self.config, self.global_batch, self.peak * self.worker.world_size, first)
        self.batches = read_ahead(self.read, range(first, last))
        self.next_batch = next(self.batches, None)

    def read(self, step: int) -> tuple[Batch, int]:
        """This worker's windows of the global batch that follows `step` steps, and their hash."""
        part = shard_range(self.global_batch, self.worker)
        indices = self.sampler.indices(step, self.global_batch)[part.start : part.stop]
        rows = self.training.get_masked(indices)
        return self.micro.load(rows), batch_hash(rows.rows, part.start)

    # -- the steps

    def train_step(self) -> Step:
        """Make one step on the batch that was read ahead."""
        assert self.next_batch is not None and self.batches is not None
        batch, rows_hash = self.next_batch
        progress = self.progress
        self.speed.start_step()
        self.charge("train", self.global_batch)
        lr = set_learning_rate(self.optimizers, progress.step, self.config)

        def extra_metrics() -> list[float]:
            return [self.wants_stop(), self.saver.has_failed, rows_hash]

        # Loss and norm are those of the global batch, so all workers come to the same result.
        limit = norm_limit(progress.recent_grad_norms, self.config)
        if self.average is not None:
            self.average.iters = progress.step + 1
        outcome = self.micro.gradients(batch, extra_metrics, limit)
        step_if(outcome.is_good, self.optimizers)
        # Now, so that the thread that reads ahead works while this one waits for the device: two busy threads of Python
        # slow each other down.
        self.next_batch = next(self.batches, None)
        is_good, loss, grad_norm, (num_stopping, num_failed, hash_sum) = outcome.wait()
        if is_good:
            progress.recent_grad_norms = [*progress.recent_grad_norms, grad_norm][-RECENT:]
        progress.step += 1
        progress.skipped_in_a_row = 0 if is_good else progress.skipped_in_a_row + 1
        progress.skipped_iters += not is_good
        progress.batches = hashlib.sha256(f"{progress.batches}/{hash_sum:.0f}".encode()).hexdigest()[:16]
        self.speed.end_step()
        return Step(is_good, loss, grad_norm, lr, num_stopping > 0, num_failed > 0)

    def report_skipped(self, step: Step) -> None:
        """Print that a step was skipped. Raises: StoppedTogether when too many were in a row."""
        progress = self.progress
        self.say(
            f"iter {progress.step}: loss {step.loss:.3f}, gradient norm {step.grad_norm:.3f}: step skipped, "
            f"{progress.skipped_iters} so far"
        )
        if progress.skipped_in_a_row >= self.config.max_bad_iters:
            raise StoppedTogether(
                f"stopped at iter {progress.step}: {progress.skipped_in_a_row} iters in a row without "
                f"a finite and steady gradient; lower --learning-rate (now {step.lr:.2g}) and run again"
            )

    def log(self, step: Step) -> None:
        """Print and record the log line of a step."""
        metrics = {"iter": self.progress.step, "loss": step.loss, "lr": step.lr, "grad_norm": step.grad_norm}
        metrics |= {**self.speed.metrics(), "cost_usd": self.cost.usd}
        metrics["skipped_iters"] = self.progress.skipped_iters
        if self.tracker is not None:
            self.tracker.iteration({**metrics, "batches": self.progress.batches})
            left = self.cost.usd_for(metrics["eta_seconds"])
            self.reporter.progress({**metrics, "cost_left_usd": left})

    def evaluate(self, can_stop: bool = True) -> bool:
        """Measure the validation split. Return True on a new best; stop early once any worker asks to."""
        progress = self.progress
        limit = self.config.eval_iters * self.global_batch or len(self.validation)
        num_rows = min(len(self.validation), limit)
        self.charge("evaluation", num_rows / 3)  # forward only: a third of the FLOPs
        figures = self.validation_figures(num_rows, self.wants_stop if can_stop else lambda: False)
        if figures is None:
            self.stopped = self.agree_on_reason()
            return False
        bits_per_byte = figures["bits_per_byte"]
        # A run that never improves on the first evaluation, at iter 0, has no best checkpoint.
        earlier = [each for each in (progress.first_evaluation, progress.best) if each is not None]
        is_best = progress.step > 0 and all(bits_per_byte < each["bits_per_byte"] for each in earlier)
        if is_best:
            progress.best = {"step": progress.step, "bits_per_byte": bits_per_byte}
        metrics = {"iter": progress.step, **figures}
        progress.first_evaluation = progress.first_evaluation or metrics
        progress.last_evaluation = metrics
        if self.tracker is not None:
            self.tracker.evaluation({**metrics, "is_best": is_best})
        self.reporter.report({**metrics, "cost_usd": self.cost.usd})
        return is_best

    def validation_figures(self, num_rows: int, wants_stop: Callable[[], bool]) -> dict[str, float] | None:
        """`loss_figures` of `num_rows` windows of the validation split; None when a worker wants to stop.

        The workers share the batches. Each gets the same number, if necessary with an empty one, as FSDP needs all.
        """
        micro, windows, worker = self.micro, self.validation, self.worker
        # A compiled model is compiled for one shape.
        least_rows, least_batches = (micro.micro_batch, 1) if self.config.compile else (1, LEAST_BATCHES)
        shared = evaluation_batches(len(windows), num_rows, micro.micro_batch, least_batches)

        def batches() -> Iterator[MaskedRows]:
            for turn in range(0, len(shared), worker.world_size):
                indices = np.arange(0)
                if turn + worker.rank < len(shared) and not wants_stop():
                    indices = shared[turn + worker.rank]
                yield padded(windows.get_masked(indices), least_rows, micro.pad_token)

        evaluated = self.trained if self.config.parallel == "fsdp" else self.model
        evaluated.eval()
        with micro.autocast, averaged(self.trained, self.average):
            sums = batch_sums(
                evaluated, batches(), micro.vocab_size, micro.pad_token, worker.device, micro.masks
            )
        stopping = torch.tensor([wants_stop()], dtype=torch.float64, device=worker.device)
        *totals, num_stopping = sum_over_workers(torch.cat([sums, stopping]), worker).tolist()
        return None if num_stopping else loss_figures(totals, windows, num_rows)

    def save(self) -> None:
        """Copy the state for a checkpoint, which is written while training continues.

        Raises: StoppedTogether when the store, which is all here by now, is damaged; NotSaved.
        """
        with together(self.worker):
            self.download.result()
        self.charge("checkpoint", 0)
        weights, optimizer_state = full_state(self.trained, self.optimizers)
        if self.average is not None and weights:
            weights, optimizer_state = exchanged(weights, optimizer_state, self.config.weight_average)
        random_states = gather(random_state(self.worker.device), self.worker)
        both = {"optimizer": optimizer_state, "random": random_states}
        with together(self.worker, NotSaved):
            if self.worker.is_first:
                self.saver.save(self.run_dir, weights, both, self.state(), self.config.keep_checkpoints)

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint's state.json."""
        return {
            "step": self.progress.step,
            "progress": vars(self.progress),
            "best": self.progress.best,
            "config": to_dict(self.config),
            "model_config": vars(self.config.model()),
            "tokenizer": {"name": self.config.tokenizer, "fingerprint": self.tokenizer.fingerprint},
            "data": {"fingerprint": self.store.fingerprint},
            "global_batch": self.global_batch,
            "world_size": self.worker.world_size,
            "cost": {"spent_usd": self.cost.usd, "worker_seconds": self.cost.worker_seconds},
            "torch": torch.__version__,
        }

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is committed. Raises: NotSaved, on every worker."""
        with together(self.worker, NotSaved):
            self.saver.wait()

    def charge(self, kind: str, num_rows: float) -> None:
        """Report work before it starts, as forward and backward passes of `num_rows` windows over all workers."""
        if self.worker.is_first:
            self.reporter.charge(kind, num_rows * self.row_flops)

    def wants_stop(self) -> bool:
        """Whether this worker has a reason to stop."""
        return self.reporter.stop_reason() is not None

    def agree_on_reason(self) -> str:
        """The reason to stop of the first worker that has one; the same on all workers."""
        return next(filter(None, gather(self.reporter.stop_reason(), self.worker)))

    # -- the end

    def close(self) -> None:
        """Wait for the reading and writing threads, and close the tracker."""
        if self.batches is not None:
            self.batches.close()
        self.saver.close()
        if self.tracker is not None:
            self.tracker.close()

    def result(self, is_finished_before: bool) -> dict[str, Any]:
        """The result of `run`."""
        step = self.progress.step
        return {
            "run_dir": str(self.run_dir),
            "checkpoint": str(checkpoint.step_directory(self.run_dir, step)) if step else None,
            "cost_usd": self.cost.usd,
            "is_finished_before": is_finished_before,
            "stopped": self.stopped,
            **vars(self.progress),
        }


def norm_limit(recent: list[float], config: ResolvedConfig) -> float:
    """The gradient norm above which a step is skipped: a multiple of the median of the last steps."""
    if not config.max_grad_norm_ratio or len(recent) < RECENT // 4:
        return sys.float_info.max  # anything finite
    return config.max_grad_norm_ratio * statistics.median(recent)


def read_ahead(read: Callable[[int], Read], steps: range) -> Generator[Read, None, None]:
    """Yield read(step) for every step, and read the next one while the caller works."""
    if not steps:
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read, steps[0])
        for step in steps[1:]:
            done = coming.result()
            coming = thread.submit(read, step)
            yield done
        yield coming.result()
