"""Collective operations of the workers: sums, broadcasts, common errors, shards; and their random state."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat_tct.errors import StorageError, UserError


class StoppedTogether(UserError):
    """A UserError that every worker raises at the same point."""


class NotSaved(StoppedTogether, StorageError):
    """A checkpoint could not be written, or not be uploaded."""


@dataclass(frozen=True)
class Worker:
    """Which worker this process is. With several workers, the process group exists already."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def set_up_device(device: torch.device, local_world_size: int) -> None:
    """Let torch use a worker's device; on a CPU, divide the cores among the workers of this machine."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        # Sums over threads depend on their number, which must be the same on every start.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world_size))


def sum_over_workers(values: Tensor, worker: Worker) -> Tensor:
    """Sum in place over all workers; the result is the same on all, bit for bit."""
    if worker.world_size > 1:
        dist.all_reduce(values)
    return values


def broadcast(value: Any, worker: Worker) -> Any:
    """Return rank 0's value on every worker."""
    if worker.world_size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=worker.device)
    return box[0]


def gather(value: Any, worker: Worker) -> list[Any]:
    """Return the values of all workers, by rank, on every worker."""
    if worker.world_size == 1:
        return [value]
    values: list[Any] = [None] * worker.world_size
    dist.all_gather_object(values, value)
    return values


@contextmanager
def together(worker: Worker, kind: type[StoppedTogether] = StoppedTogether) -> Iterator[None]:
    """Raise a UserError of any worker's block on every worker, as a `kind`. All workers must enter the block.

    If several blocks fail, the error of the lowest rank is raised.
    """
    error = None
    try:
        yield
    except UserError as problem:
        error = str(problem)
    error = next(filter(None, gather(error, worker)), None)
    if error is not None:
        raise kind(error)


def shard_range(total: int, worker: Worker) -> range:
    """The worker's contiguous shard of `total` items; the sizes of shards differ by one at most."""
    return range(total * worker.rank // worker.world_size, total * (worker.rank + 1) // worker.world_size)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the random generators that training uses, for dropout."""
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
    """Seed the generators of each worker differently, for a run without a saved state."""
    torch.manual_seed(((seed * 1_000_003 + step) * 100_003 + worker.rank) % 2**63)
