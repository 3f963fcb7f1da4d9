"""Forward and backward passes: the gradient of a global batch, one micro-batch at a time.

A micro-batch has the configured number of windows, or fewer if memory is too small. The global batch never changes:
with smaller micro-batches a worker takes more micro-steps in an iter.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.profiler import record_function

from nanochat_tct.data.windows import MaskedRows, targets_of
from nanochat_tct.errors import UserError
from nanochat_tct.model.accounting import memory_bytes, parameter_count
from nanochat_tct.model.loss import TokenMask
from nanochat_tct.storage.files import write_atomic
from nanochat_tct.training.config import ResolvedConfig, largest_micro_batch, max_shard_size
from nanochat_tct.training.distributed import StoppedTogether, Worker, gather, sum_over_workers
from nanochat_tct.training.parallel import gradient_sync

FILE = "micro_batch.json"  # in the run's folder: a micro-batch that did not fit while training
ADAMW_BYTES, AVERAGE_BYTES = 8, 4  # of AdamW's state and of the mean weights, for each parameter
ADVICE = "try --checkpoint-activations, a smaller model, or --parallel fsdp on more GPUs"


def fit_micro_batch(
    config: ResolvedConfig,
    worker: Worker,
    global_batch: int,
    run_dir: Path,
    try_micro_batch: Callable[[int], None],
    say: Callable[[str], None],
) -> int:
    """Halve the micro-batch until it fits into every worker's memory. All workers call it, and get the same result.

    Each worker tries by itself, before the model is distributed: a worker that runs out of memory in an exchange of
    gradients could not tell the others, which wait for it.

    Args:
        config: with batch_size `auto`, halving starts with a worker's whole part of the global batch.
        run_dir: an earlier start of the run may have noted there what did not fit (`out_of_memory`).
        try_micro_batch: makes a forward and backward pass of that many windows.
    Returns: the windows of a micro-batch.
    Raises: StoppedTogether when not even one window fits.
    """
    wanted = micro_batch = largest_micro_batch(config, worker.world_size, global_batch)
    reason = ""
    if worker.device.type == "cpu" and config.batch_size == "auto":
        # A CPU swaps before it runs out of memory, so take at most half of the machine's memory, by estimate.
        capacity = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 / worker.world_size
        while micro_batch > 1 and _estimate(config, micro_batch) > capacity:
            micro_batch = half(micro_batch)
    full_at = min(filter(None, gather(_full_at(run_dir), worker)), default=None)
    if full_at == 1:  # nothing smaller can be tried, so assume that the user has changed something else
        (run_dir / FILE).unlink(missing_ok=True)
    elif full_at is not None:
        while micro_batch > 1 and micro_batch >= full_at:
            micro_batch = half(micro_batch)
        reason = f", as the memory was full with {full_at}"
    while not all(gather(_fits(config, worker, micro_batch, try_micro_batch), worker)):
        if micro_batch == 1:
            raise StoppedTogether(f"out of memory with a single window; {ADVICE}")
        reason = f", as the memory was full with {micro_batch}"
        micro_batch = half(micro_batch)
    if reason or config.batch_size == "auto":
        turns = -(-max_shard_size(global_batch, worker.world_size) // micro_batch)
        asked = "--batch-size auto" if config.batch_size == "auto" else f"batch_size {wanted}"
        say(f"{asked}: {micro_batch} windows at a time, {turns} times an iter{reason}")
    return micro_batch


def half(micro_batch: int) -> int:
    """Half the windows, rounded up."""
    return (micro_batch + 1) // 2


def out_of_memory(micro_batch: int, run_dir: Path) -> UserError:
    """The error of a worker whose memory is full in the middle of training.

    A file tells the next start of the run, by Ray Train or by hand, and the other workers (`ran_out_of_memory`).
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(run_dir / FILE, json.dumps({"full_at": micro_batch}), sync=False)
    if micro_batch == 1:
        return UserError(f"out of memory with a single window; {ADVICE}")
    return UserError(
        f"out of memory with {micro_batch} windows at a time; the run goes on from its last checkpoint "
        f"with {half(micro_batch)}: run it again if that does not happen by itself"
    )


def ran_out_of_memory(micro_batch: int, run_dir: Path) -> bool:
    """Whether some worker has noted since the start that this many windows do not fit.

    The others only see a closed connection, and would raise that error instead.
    """
    full_at = _full_at(run_dir)
    return full_at is not None and full_at <= micro_batch


def _full_at(run_dir: Path) -> int | None:
    try:
        return int(json.loads((run_dir / FILE).read_text())["full_at"])
    except FileNotFoundError:
        return None


def _fits(
    config: ResolvedConfig, worker: Worker, micro_batch: int, try_micro_batch: Callable[[int], None]
) -> bool:
    """Whether a forward and backward pass fits into this worker's memory, beside the future optimizer's state."""
    is_sharded = config.parallel == "fsdp" and worker.world_size > 1  # frees half of the memory or more
    reserve = 0
    if not is_sharded and worker.device.type != "cpu":
        each = ADAMW_BYTES + (AVERAGE_BYTES if config.weight_average else 0)
        reserve = each * parameter_count(config.model())
    try:
        held = torch.empty(reserve, dtype=torch.uint8, device=worker.device)
        try_micro_batch(micro_batch)
        del held
        return True
    except torch.OutOfMemoryError:
        pass  # its traceback holds on to the activations until here
    if worker.device.type == "cuda":
        torch.cuda.empty_cache()
    if config.compile:
        torch.compiler.reset()  # or the next size would be compiled for a variable shape
    return False


def _estimate(config: ResolvedConfig, micro_batch: int) -> int:
    precision, checkpoints = config.precision, config.checkpoint_activations
    return memory_bytes(
        config.model(),
        micro_batch,
        precision,
        checkpoints,
        optimizer=config.optimizer,
        has_average=config.weight_average > 0,
    ).total


@dataclass(frozen=True)
class Batch:
    """This worker's windows of a global batch, on its device or being copied there."""

    tokens: Tensor  # (n, context_size) int64
    targets: Tensor  # (n, context_size) int64, -1 where there is none
    mask_ids: Tensor | None = None  # (n, context_size) int64, see MaskedRows
    arrival: torch.cuda.Event | None = None  # of the copies on the device; None: they are there


@dataclass(frozen=True)
class Outcome:
    """The result of a global batch's gradient, the same on every worker.

    Attributes:
        is_good: bool, 0-dimensional, on the device: loss and gradient are finite, the norm is within the limit.
        metrics: float64 on the CPU, valid once `arrival` has been reached; None: they are valid already.
    """

    is_good: Tensor
    metrics: Tensor
    arrival: torch.cuda.Event | None

    def wait(self) -> tuple[bool, float, float, list[float]]:
        """Returns is_good; the loss of the global batch in nats a target; the gradient's norm before clipping; extra
        metrics."""
        if self.arrival is not None:
            self.arrival.synchronize()
        is_good, num_targets, norm, nats, *extra_sums = self.metrics.tolist()
        return bool(is_good), nats / max(1.0, num_targets), norm, extra_sums


class MicroSteps:
    """A worker's part of each step.

    Attributes:
        micro_batch: windows of one forward and backward pass. It is halved when memory is full, which changes the
            result by rounding only.
    """

    def __init__(
        self,
        trained: nn.Module,
        config: ResolvedConfig,
        worker: Worker,
        global_batch: int,
        pad_token: int,
        micro_batch: int | None = None,
        say: Callable[[str], None] = print,
        masks: Tensor | None = None,
    ) -> None:
        """Args:
        trained: a GPT, perhaps distributed.
        global_batch: windows of an iter, over all workers.
        micro_batch: None for the configured one.
        say: prints a line when memory is full.
        masks: the store's (`masks_on`), to leave illegal tokens out of the softmax.
        """
        self.trained, self.config, self.worker, self.global_batch = trained, config, worker, global_batch
        self.vocab_size, self.pad_token = config.model().vocab_size, pad_token
        self.micro_batch = micro_batch or largest_micro_batch(config, worker.world_size, global_batch)
        self.say, self.masks = say, masks
        # FSDP computes in bf16 by its own policy.
        is_autocast = config.precision == "bf16" and not isinstance(trained, FSDPModule)
        self.autocast = torch.autocast(worker.device.type, torch.bfloat16, enabled=is_autocast)
        self.copying = torch.cuda.Stream(worker.device) if worker.device.type == "cuda" else None

    def load(self, windows: MaskedRows) -> Batch:
        """Start copying this worker's windows of a global batch to the device.

        The thread that reads ahead calls it: on CUDA the copy overlaps with the computation of the iter before. If the
        workers' parts differ by a window, smaller parts get an empty window, as FSDP needs all workers in every
        micro-step.
        """
        largest = max_shard_size(self.global_batch, self.worker.world_size)
        return self._send(padded(windows, largest, self.pad_token))

    def _send(self, windows: MaskedRows) -> Batch:
        rows, mask_ids, _ = windows
        tokens = torch.from_numpy(np.ascontiguousarray(rows[:, :-1]))
        targets = torch.from_numpy(targets_of(rows, self.vocab_size, self.pad_token))
        ids = None if self.masks is None or mask_ids is None else torch.from_numpy(mask_ids)
        if self.copying is None:
            return Batch(tokens, targets, ids)
        device = self.worker.device
        with torch.cuda.stream(self.copying):
            tokens = tokens.pin_memory().to(device, non_blocking=True)
            targets = targets.pin_memory().to(device, non_blocking=True)
            ids = None if ids is None else ids.pin_memory().to(device, non_blocking=True)
            return Batch(tokens, targets, ids, self.copying.record_event())

    def gradients(
        self,
        batch: Batch,
        extra_metrics: Callable[[], list[float]] = list,
        norm_limit: float = sys.float_info.max,
    ) -> Outcome:
        """Leave in `.grad` the clipped gradient of the mean loss, the nats of the global batch divided by its targets.

        Nothing here waits for the device. A single worker whose memory is full begins the iter again with half the
        micro-batch. With several workers it is an error, as the others wait for it in the middle of an exchange.

        Args:
            batch: this worker's windows of the global batch.
            extra_metrics: called after the last backward pass; its values are summed over the workers together
                with the loss, without further communication.
            norm_limit: gradients with a larger norm are not good.
        Raises: torch.OutOfMemoryError.
        """
        try:
            nats, num_targets = self._accumulate(batch)
            return self._outcome(nats, num_targets, extra_metrics(), norm_limit)
        except torch.OutOfMemoryError:
            if self.worker.world_size > 1 or self.micro_batch == 1:
                raise
        # Not inside `except`, where the traceback keeps the activations alive.
        self.trained.zero_grad(set_to_none=True)
        full_at, self.micro_batch = self.micro_batch, half(self.micro_batch)
        if self.worker.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(f"out of memory with {full_at} windows at a time: going on with {self.micro_batch}")
        return self.gradients(batch, extra_metrics, norm_limit)

    def _accumulate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient in `.grad`. Returns this worker's nats and the global batch's targets, float64."""
        self.trained.train()
        if batch.arrival is not None:
            stream = torch.cuda.current_stream(self.worker.device)
            stream.wait_event(batch.arrival)
            for tensor in (batch.tokens, batch.targets, batch.mask_ids):
                if tensor is not None:  # so that its memory is not reused before this stream is done
                    tensor.record_stream(stream)
        num_targets = (batch.targets != -1).sum().to(torch.float64)
        with record_function("communication"):
            sum_over_workers(num_targets, self.worker)
        # DDP and FSDP average gradients over workers; the factor world_size makes it a sum.
        scale = (self.worker.world_size / num_targets.clamp(min=1)).to(torch.float32)
        nats = torch.zeros((), dtype=torch.float64, device=self.worker.device)
        starts = range(0, len(batch.tokens), self.micro_batch)
        for start in starts:
            tokens, targets, legal = self.micro_batch_at(batch, start)
            with gradient_sync(self.trained, is_last=start == starts[-1]):
                with self.autocast, record_function("forward"):
                    micro_nats = self.trained(tokens, targets, legal=legal)
                with record_function("backward"):
                    (micro_nats * scale).backward()
            nats += micro_nats.detach().to(torch.float64)
        return nats, num_targets

    def _outcome(self, nats: Tensor, num_targets: Tensor, extra: list[float], norm_limit: float) -> Outcome:
        """Clip the gradient, and sum the metrics over the workers."""
        with record_function("communication"):
            extra_metrics = torch.tensor(extra, dtype=torch.float64)
            if self.copying is not None:
                extra_metrics = extra_metrics.pin_memory()
            sums = torch.cat([nats[None], extra_metrics.to(nats.device, non_blocking=True)])
            sum_over_workers(sums, self.worker)
        with record_function("optimizer"):
            limit = self.config.grad_clip or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), limit)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        norm = norm.to(torch.float64)
        is_good = sums[0].isfinite() & (norm <= norm_limit)
        metrics = torch.cat([torch.stack([is_good.to(torch.float64), num_targets, norm]), sums])
        # `Outcome.wait` is the only wait for the device in a step.
        metrics = metrics.to("cpu", non_blocking=True)
        arrival = None if self.copying is None else torch.cuda.current_stream(nats.device).record_event()
        return Outcome(is_good, metrics, arrival)

    def micro_batch_at(self, batch: Batch, start: int) -> tuple[Tensor, Tensor, TokenMask | None]:
        """Tokens, targets and masks of the micro-batch that begins at a row: (micro_batch or fewer, context_size)."""
        part = slice(start, start + self.micro_batch)
        tokens, targets = batch.tokens[part], batch.targets[part]
        mask_ids = None if batch.mask_ids is None else batch.mask_ids[part]
        missing = self.micro_batch - len(tokens)
        if missing and self.config.compile:  # the model is compiled for one shape
            tokens = F.pad(tokens, (0, 0, 0, missing), value=self.pad_token)
            targets = F.pad(targets, (0, 0, 0, missing), value=-1)
            mask_ids = None if mask_ids is None else F.pad(mask_ids, (0, 0, 0, missing))
        legal = None if self.masks is None or mask_ids is None else TokenMask(mask_ids, self.masks)
        return tokens, targets, legal

    def warm_up(self, num_rows: int | None = None) -> None:
        """Make one micro-step without effect: it compiles, allocates, and lets DDP lay out its buckets.

        So a resumed run adds gradients in the same order as an uninterrupted one.

        Args:
            num_rows: the number of windows; None: one, or as many as the model is compiled for.
        Raises: torch.OutOfMemoryError.
        """
        if num_rows is None:
            num_rows = self.micro_batch if self.config.compile else 1
        rows = np.zeros((num_rows, self.config.context_size + 1), dtype=np.int64)
        rows[:, 0] = self.vocab_size  # a position token
        batch = self._send(MaskedRows(rows, np.zeros_like(rows[:, 1:])))
        self._outcome(*self._accumulate(batch), [], math.inf)
        self.trained.zero_grad(set_to_none=True)


def padded(windows: MaskedRows, count: int, pad_token: int) -> MaskedRows:
    """Pad with empty rows to at least `count` rows."""
    rows, mask_ids, _ = windows
    if len(rows) >= count:  # nearly always; saves a copy
        return windows
    missing = ((0, count - len(rows)), (0, 0))
    return MaskedRows(
        np.pad(rows, missing, constant_values=pad_token),
        None if mask_ids is None else np.pad(mask_ids, missing),
    )
