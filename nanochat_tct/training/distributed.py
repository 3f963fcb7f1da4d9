"""What several workers do together: replicas or shards of the model, sums, agreement, full states."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.model.gpt import GPT


class StoppedTogether(UserError):
    """A UserError that every worker raises at the same point."""


class NotSaved(StoppedTogether, StorageError):
    """A checkpoint could not be written, or not be uploaded."""


@dataclass(frozen=True)
class Worker:
    """Which worker this process is. The process group exists already where there are several."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def set_up_device(device: torch.device, local_world_size: int) -> None:
    """Make a worker's device the one that torch uses; on a CPU, share the cores with the workers beside it."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        # The same number on every start: sums over threads depend on it.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world_size))


def distribute(model: GPT, worker: Worker, parallel: str, precision: str) -> nn.Module:
    """The model that the workers train together: wrapped in DDP, sharded by FSDP2, or as it is for one worker.

    The GPT itself stays usable: `ddp` wraps it, `fsdp` changes it in place.
    """
    if parallel == "fsdp":
        assert dist.is_initialized()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        # What the blocks are given stays as it is: x has that dtype already, and the tables of angles need more.
        policy = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            fully_shard(block, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        return model
    if worker.world_size > 1:
        device_ids = [worker.device] if worker.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
    return model


@contextmanager
def gradient_sync(model: nn.Module, is_last: bool) -> Iterator[None]:
    """Workers exchange gradients in the last micro-step of an iter only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        yield
    elif isinstance(model, DistributedDataParallel) and not is_last:
        with model.no_sync():
            yield
    else:
        yield


def sum_over_workers(values: Tensor, worker: Worker) -> Tensor:
    """The sum, in place, on every worker; bit for bit the same on all."""
    if worker.world_size > 1:
        dist.all_reduce(values)
    return values


def broadcast(value: Any, worker: Worker) -> Any:
    """Rank 0's value, on every worker."""
    if worker.world_size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=worker.device)
    return box[0]


def gather(value: Any, worker: Worker) -> list[Any]:
    """Every worker's value, by rank, on every worker."""
    if worker.world_size == 1:
        return [value]
    values: list[Any] = [None] * worker.world_size
    dist.all_gather_object(values, value)
    return values


@contextmanager
def together(worker: Worker, kind: type[StoppedTogether] = StoppedTogether) -> Iterator[None]:
    """Raise a UserError of any worker's block on every worker, as a `kind`: the first one's. All of them enter it."""
    error = None
    try:
        yield
    except UserError as problem:
        error = str(problem)
    error = next(filter(None, gather(error, worker)), None)
    if error is not None:
        raise kind(error)


def shard_range(total: int, worker: Worker) -> range:
    """The worker's contiguous shard of `total` items; shards differ by one item at most."""
    return range(total * worker.rank // worker.world_size, total * (worker.rank + 1) // worker.world_size)


def full_state(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Full weights and optimizer state by parameter name. All workers call it; with FSDP only rank 0 gets them."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=isinstance(model, FSDPModule))
    weights = get_model_state_dict(model, options=options)
    return cast(dict[str, Tensor], weights), get_optimizer_state_dict(model, optimizers, options=options)


def load_full_state(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    weights: dict[str, Tensor],
    optimizer_state: dict[str, Any],
) -> None:
    """Load what `full_state` returned, on any number of workers. Every worker passes the full state."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, dict(weights), options=options)
    set_optimizer_state_dict(model, optimizers, optimizer_state, options=options)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the random generators that training uses (dropout)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_worker(seed: int, step: int, worker: Worker) -> None:
    """Seed each worker's generators differently, for a run without a saved state."""
    torch.manual_seed(((seed * 1_000_003 + step) * 100_003 + worker.rank) % 2**63)
