"""Forward and backward passes: the gradient of a global batch, a micro-batch at a time."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from nanochat_tct.data.windows import MaskedRows, targets_of
from nanochat_tct.model.soft_capped_loss import Legal
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.micro_batch import largest_micro_batch
from nanochat_tct.training.parallel import Worker, gradient_sync, largest_share, sum_over_workers
from nanochat_tct.training.speed import Stopwatch


@dataclass(frozen=True)
class Batch:
    """This worker's windows of a global batch, on its device or on their way there."""

    tokens: Tensor  # (n, context_size) int64
    targets: Tensor  # (n, context_size) int64, -1 where there is none
    mask_ids: Tensor | None = None  # (n, context_size) int64, see MaskedRows
    arrival: torch.cuda.Event | None = None  # None: they are there


@dataclass(frozen=True)
class Outcome:
    """What the gradient of a global batch came to, the same on every worker.

    Attributes:
        is_good: bool, 0-dimensional, on the device: loss and gradient are finite, and its norm is within the limit.
        numbers: float64 on the CPU, once they have arrived.
        arrival: None: they have.
    """

    is_good: Tensor
    numbers: Tensor
    arrival: torch.cuda.Event | None

    def wait(self) -> tuple[bool, float, float, list[float]]:
        """is_good; loss of the global batch (nats a target); norm of its gradient before clipping; what was told."""
        if self.arrival is not None:
            self.arrival.synchronize()
        is_good, num_targets, norm, nats, *told_sums = self.numbers.tolist()
        return bool(is_good), nats / max(1.0, num_targets), norm, told_sums


class MicroSteps:
    """What a worker computes of an iter.

    Attributes:
        micro_batch: windows of one forward and backward pass. Halved when the memory is full; what is computed
            stays the same but for rounding.
    """

    def __init__(
        self,
        trained: nn.Module,
        config: TrainConfig,
        worker: Worker,
        global_batch: int,
        pad_token: int,
        micro_batch: int | None = None,
        say: Callable[[str], None] = print,
        masks: Tensor | None = None,
    ) -> None:
        """Args:
        trained: a GPT, as it is or distributed.
        global_batch: windows of an iter, over all workers.
        micro_batch: so many at a time; None: as configured.
        say: told once when the memory is full.
        masks: the store's (`masks_on`), if tokens that are not legal in a place are to have no probability there.
        """
        self.trained, self.config, self.worker, self.global_batch = trained, config, worker, global_batch
        self.vocab_size, self.pad_token = config.model().vocab_size, pad_token
        self.micro_batch = (
            largest_micro_batch(config, worker.world_size, global_batch)
            if micro_batch is None
            else micro_batch
        )
        self.say = say
        self.stopwatch = Stopwatch(worker.device)
        self.masks = masks
        # FSDP computes in bf16 by its own policy.
        is_autocast = config.precision == "bf16" and not isinstance(trained, FSDPModule)
        self.autocast = torch.autocast(worker.device.type, torch.bfloat16, enabled=is_autocast)
        self.copying = torch.cuda.Stream(worker.device) if worker.device.type == "cuda" else None

    def load(self, windows: MaskedRows) -> Batch:
        """Send this worker's windows of a global batch on their way to the device.

        Meant for the thread that reads ahead: on CUDA the copy runs beside the computation of the iter before.
        Where the workers' parts differ by a window, those that have less get an empty one: FSDP needs all of
        them in every micro-step.
        """
        return self._send(
            padded(windows, largest_share(self.global_batch, self.worker.world_size), self.pad_token)
        )

    def _send(self, windows: MaskedRows) -> Batch:
        rows, mask_ids = windows
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
        self, batch: Batch, told: Callable[[], list[float]] = list, norm_limit: float = sys.float_info.max
    ) -> Outcome:
        """Leave in `.grad` the gradient of (nats summed over the global batch / its targets), clipped.

        Nothing waits for the device here. One worker whose memory is full begins the iter again with half the
        micro-batch. Of several, the others wait for it in the middle of an exchange, so there it is an error.

        Args:
            batch: this worker's windows of the global batch.
            told: called after the last backward pass; its numbers are summed over the workers together with
                the loss, so they cost no communication of their own.
            norm_limit: the largest norm of a gradient that is good.
        Raises: torch.OutOfMemoryError.
        """
        try:
            return self.accumulate(batch, told, norm_limit)
        except torch.OutOfMemoryError:
            if self.worker.world_size > 1 or self.micro_batch == 1:
                raise
        # Out of the `except`, whose traceback holds on to the activations.
        self.trained.zero_grad(set_to_none=True)
        full_at, self.micro_batch = self.micro_batch, (self.micro_batch + 1) // 2
        if self.worker.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(f"out of memory with {full_at} windows at a time: going on with {self.micro_batch}")
        return self.gradients(batch, told, norm_limit)

    def accumulate(
        self, batch: Batch, told: Callable[[], list[float]] = list, norm_limit: float = sys.float_info.max
    ) -> Outcome:
        """`gradients` without a second try."""
        self.trained.train()
        if batch.arrival is not None:
            stream = torch.cuda.current_stream(self.worker.device)
            stream.wait_event(batch.arrival)
            for tensor in (batch.tokens, batch.targets, batch.mask_ids):
                if tensor is not None:
                    tensor.record_stream(stream)  # not to be given to another use before this stream is done
        num_targets = (batch.targets != -1).sum().to(torch.float64)
        with self.stopwatch.part("communication"):
            sum_over_workers(num_targets, self.worker)
        # Gradients are averaged over workers on their way: times world_size makes that a sum again.
        scale = (self.worker.world_size / num_targets.clamp(min=1)).to(torch.float32)
        nats = torch.zeros((), dtype=torch.float64, device=self.worker.device)
        starts = range(0, len(batch.tokens), self.micro_batch)
        for start in starts:
            tokens, targets, legal = self._micro_batch(batch, start)
            with gradient_sync(self.trained, is_last=start == starts[-1]):
                with self.autocast, self.stopwatch.part("forward"):
                    micro_nats = self.trained(tokens, targets, legal=legal)
                with self.stopwatch.part("backward"):
                    (micro_nats * scale).backward()
            nats += micro_nats.detach().to(torch.float64)
        with self.stopwatch.part("communication"):
            told_here = torch.tensor(told(), dtype=torch.float64)
            if self.copying is not None:
                told_here = told_here.pin_memory()
            sums = torch.cat([nats[None], told_here.to(nats.device, non_blocking=True)])
            sum_over_workers(sums, self.worker)
        with self.stopwatch.part("optimizer"):
            limit = self.config.grad_clip or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), limit)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        norm = norm.to(torch.float64)
        is_good = sums[0].isfinite() & (norm <= norm_limit)
        numbers = torch.cat([torch.stack([is_good.to(torch.float64), num_targets, norm]), sums])
        # Where these are waited for is the only wait for the device of an iter.
        numbers = numbers.to("cpu", non_blocking=True)
        arrival = None if self.copying is None else torch.cuda.current_stream(nats.device).record_event()
        return Outcome(is_good, numbers, arrival)

    def _micro_batch(self, batch: Batch, start: int) -> tuple[Tensor, Tensor, Legal | None]:
        """Tokens, targets and what is legal of the micro-batch from there on: (micro_batch or fewer, context_size)."""
        tokens = batch.tokens[start : start + self.micro_batch]
        targets = batch.targets[start : start + self.micro_batch]
        mask_ids = None if batch.mask_ids is None else batch.mask_ids[start : start + self.micro_batch]
        missing = self.micro_batch - len(tokens)
        if missing and self.config.compile:  # what is compiled is compiled for one shape
            tokens = F.pad(tokens, (0, 0, 0, missing), value=self.pad_token)
            targets = F.pad(targets, (0, 0, 0, missing), value=-1)
            mask_ids = None if mask_ids is None else F.pad(mask_ids, (0, 0, 0, missing))
        return tokens, targets, self.legal(mask_ids)

    def legal(self, mask_ids: Tensor | None) -> Legal | None:
        """What the model is told of the tokens that are legal in the places of some targets."""
        return None if self.masks is None or mask_ids is None else Legal(mask_ids, self.masks)

    def warm_up(self, num_rows: int | None = None) -> None:
        """One micro-step for nothing: compiles, allocates, and makes DDP lay out its buckets for good.

        So a resumed run adds gradients in the same order as one that was never stopped.

        Args:
            num_rows: of how many windows; None: of one, or of those that the model is compiled for.
        Raises: torch.OutOfMemoryError.
        """
        assert self.config.context_size is not None
        if num_rows is None:
            num_rows = self.micro_batch if self.config.compile else 1
        rows = np.zeros((num_rows, self.config.context_size + 1), dtype=np.int64)
        rows[:, 0] = self.vocab_size  # a position token
        self.accumulate(self._send(MaskedRows(rows, np.zeros_like(rows[:, 1:]))))
        self.trained.zero_grad(set_to_none=True)


def padded(windows: MaskedRows, count: int, pad_token: int) -> MaskedRows:
    """With so many empty rows behind them that they are `count` at least."""
    rows, mask_ids = windows
    if len(rows) >= count:  # as nearly always, and a copy less
        return windows
    missing = ((0, count - len(rows)), (0, 0))
    return MaskedRows(
        np.pad(rows, missing, constant_values=pad_token),
        None if mask_ids is None else np.pad(mask_ids, missing),
    )
