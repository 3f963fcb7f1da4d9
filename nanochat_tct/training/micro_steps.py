"""Forward and backward passes: the gradient of a global batch, a micro-batch at a time."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from nanochat_tct.data.windows import targets_of
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.parallel import Worker, gradient_sync, share_of, sum_over_workers


class MicroSteps:
    """Forward and backward passes over rows, a micro-batch at a time."""

    def __init__(
        self, trained: nn.Module, config: TrainConfig, worker: Worker, global_batch: int, pad_token: int
    ) -> None:
        self.trained, self.config, self.worker, self.global_batch = trained, config, worker, global_batch
        self.vocab_size, self.pad_token = config.model().vocab_size, pad_token
        # FSDP computes in bf16 by its own policy.
        is_autocast = config.precision == "bf16" and config.parallel != "fsdp"
        self.autocast = torch.autocast(worker.device.type, torch.bfloat16, enabled=is_autocast)

    def to_device(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Rows (n, T + 1) to tokens and targets, (n, T) int64 each."""
        tokens = torch.from_numpy(rows[:, :-1])
        targets = torch.from_numpy(targets_of(rows, self.vocab_size, self.pad_token))
        if self.worker.device.type == "cuda":
            tokens, targets = tokens.pin_memory(), targets.pin_memory()
        device = self.worker.device
        return tokens.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def gradients(
        self, rows: np.ndarray, told: Callable[[], list[float]] = list
    ) -> tuple[float, float, list[float]]:
        """Leave in `.grad` the gradient of (nats summed over the global batch / its targets), clipped.

        Args:
            rows: (n, context_size + 1) int64, this worker's windows of the global batch.
            told: called after the last backward pass; its numbers are summed over the workers together with
                the loss, so they cost no communication of their own.
        Returns: loss of the global batch (nats a target), norm of its gradient before clipping, and the sums.
        """
        self.trained.train()
        tokens, targets = self.to_device(rows)
        num_targets = (targets != -1).sum().to(torch.float64)
        sum_over_workers(num_targets, self.worker)
        # Gradients are averaged over workers on their way: times world_size makes that a sum again.
        scale = (self.worker.world_size / num_targets.clamp(min=1)).to(torch.float32)
        nats = torch.zeros((), dtype=torch.float64, device=self.worker.device)
        starts = range(0, len(rows), self.config.batch_size)
        for start in starts:
            micro = slice(start, start + self.config.batch_size)
            with gradient_sync(self.trained, is_last=start == starts[-1]):
                with self.autocast:
                    micro_nats = self.trained(tokens[micro], targets[micro])
                (micro_nats * scale).backward()
            nats += micro_nats.detach().to(torch.float64)
        sums = torch.cat([nats[None], torch.tensor(told(), dtype=torch.float64).to(nats.device)])
        sum_over_workers(sums, self.worker)
        limit = self.config.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), limit)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        total, *told_sums = sums.tolist()
        return total / max(1.0, float(num_targets)), float(norm), told_sums

    @property
    def warm_up_rows(self) -> int:
        """Rows of the micro-step of `warm_up`."""
        return min(self.config.batch_size, len(share_of(self.global_batch, self.worker)))

    def warm_up(self) -> None:
        """One micro-step for nothing: compiles, allocates, and makes DDP lay out its buckets for good.

        So a resumed run adds gradients in the same order as one that was never stopped.
        """
        assert self.config.context_size is not None
        rows = np.zeros((self.warm_up_rows, self.config.context_size + 1), dtype=np.int64)
        rows[:, 0] = self.vocab_size  # a position token
        self.gradients(rows)
        self.trained.zero_grad(set_to_none=True)
