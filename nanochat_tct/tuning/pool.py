"""The workers of a sweep on Ray: actors that stay, and train one trial after the other.

Starting one takes seconds, most of it for importing PyTorch, and costs money where the budget is in time. So each
starts once while the command runs, again only where it is lost, and no trial has processes of its own.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.storage.object_storage import is_remote
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.nodes import check_node
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.ledger_server import connect
from nanochat_tct.tuning.records import Head
from nanochat_tct.tuning.trial import work

DRAIN_SECONDS = 2.0  # how often a worker on a cluster asks whether its machine is to go
START_TRIES = 3  # of a slot's workers in a row, before the sweep ends
STARTED, LOST, NO_STORAGE = "started", "lost", "no storage"  # how a call can end, beside a trial's results
WAIT_LINE_SECONDS = 30.0  # between lines while workers start


class TrialWorker:
    """An actor of Ray that trains trials, each alone or as one of several workers."""

    def __init__(self, folder: str, output: str, use_gpu: bool, on_cluster: bool) -> None:
        """Args:
        folder, output: of the sweep (scheduler.py).
        on_cluster: whether this machine may be taken away.
        """
        import torch
        import torch._dynamo  # PyTorch's optimizers need it

        import nanochat_tct.training.trainer  # noqa: F401  # now, while no trial waits for it
        from nanochat_tct.training.distributed import set_up_device
        from nanochat_tct.training.ray_process import handle_sigterm, stay_on_loopback

        logging.getLogger().setLevel(logging.WARNING)
        handle_sigterm()
        stay_on_loopback()
        self.folder = folder
        self.device = torch.device("cuda", 0) if use_gpu else torch.device("cpu")
        set_up_device(self.device, 1)
        # The file that all machines see; where the output is in object storage, through the head.
        self.ledger = connect() if is_remote(output) else Ledger(folder)
        self.is_to_go = False  # the machine
        if on_cluster:
            threading.Thread(target=self._watch_machine, daemon=True).start()

    def check(self, data_dir: str) -> dict[str, Any]:
        """Raises: UserError where this machine lacks the data, or has other software than the head."""
        head = self.ledger.latest(Head)
        assert head is not None
        check_node(data_dir, (head.host, head.software))
        return {"status": STARTED}

    def serve(self) -> tuple[str, int]:
        """Serve the store by which the workers of a trial find each other. Returns: address and port."""
        from nanochat_tct.training.ray_process import serve_store

        return serve_store()

    def train(
        self, trial: str, rank: int, world_size: int, address: tuple[str, int] | None
    ) -> dict[str, Any]:
        """Train a trial as one of `world_size` workers.

        Args:
            address: where rank 0 serves the store; None where it is alone.
        Returns: what `work` does.
        Raises: StorageError, which ends the sweep and not the trial; UserError, which ends the trial.
        """
        import torch.distributed as dist

        from nanochat_tct.training.distributed import Worker
        from nanochat_tct.training.ray_metrics import RayGauges
        from nanochat_tct.training.ray_process import join_group, preemption_reason

        self.ledger.refresh()
        worker = Worker(rank, world_size, self.device)
        if address is not None:
            join_group("nccl" if self.device.type == "cuda" else "gloo", rank, world_size, address)
        try:
            return work(
                self.folder,
                self.ledger,
                trial,
                worker,
                lambda: preemption_reason(rank, self.is_to_go),
                RayGauges(trial).set,
            )
        finally:
            if address is not None:
                dist.destroy_process_group()

    def _watch_machine(self) -> None:
        import ray

        from nanochat_tct import ray_compat

        here = ray.get_runtime_context().get_node_id()
        while not self.is_to_go:
            time.sleep(DRAIN_SECONDS)
            self.is_to_go = here in ray_compat.draining_nodes()


@dataclass
class Slot:
    """The workers that a trial takes, on one machine if possible."""

    names: list[str]  # of the workers
    workers: list[Any]  # handles of TrialWorker
    group: Any  # Ray's placement group
    starting: list[Any]  # a call to each, which answers once it has started; empty when all have
    failed_starts: int = 0
    trial: str | None = None  # that it trains

    @property
    def is_free(self) -> bool:
        return self.trial is None and not self.starting


class Pool:
    """All workers of a sweep, in slots of one trial each; the final run takes several."""

    def __init__(self, base: ResolvedConfig, folder: Path, output: str, slots: int) -> None:
        """Args:
        base: what all trials share.
        slots: trials at a time.
        """
        import ray

        from nanochat_tct.training.ray_driver import worker_resources

        self.base = base
        self.name = f"{folder.name}-{os.getpid()}"  # of the workers, with a number
        self.resources = worker_resources(base, ray.cluster_resources())
        self.arguments = str(folder), output, base.use_gpu, "RAY_ADDRESS" in os.environ
        self.started = 0  # workers so far
        self.slots = [self._start() for _ in range(slots)]
        self.waits_since = self.said_at = time.monotonic()

    @property
    def size(self) -> int:
        """Workers in all."""
        return len(self.slots) * self.base.num_workers

    @property
    def starting(self) -> int:
        """Workers that have not started."""
        return sum(len(slot.starting) for slot in self.slots)

    def has_free(self, workers: int) -> bool:
        """Whether that many workers are free."""
        return sum(slot.is_free for slot in self.slots) * self.base.num_workers >= workers

    def _start(self) -> Slot:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        number = self.base.num_workers
        group = placement_group([self.resources] * number)
        actor: Any = ray.remote(TrialWorker)
        options: dict[str, Any] = {
            "num_cpus": self.resources["CPU"],
            "num_gpus": self.resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group),
        }
        names = [f"{self.name}-{self.started + index}" for index in range(number)]
        self.started += number
        workers = [actor.options(name=name, **options).remote(*self.arguments) for name in names]
        return Slot(names, workers, group, [worker.check.remote(self.base.data_dir) for worker in workers])

    def stop(self, slot: Slot) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        for worker in slot.workers:
            ray.kill(worker)
        remove_placement_group(slot.group)

    def _restart(self, slot: Slot) -> Slot:
        self.stop(slot)
        new = self._start()
        self.slots[self.slots.index(slot)] = new
        return new

    def grow(self, workers: int) -> None:
        """Start more workers where a trial of an earlier start of the command had more than there are."""
        while self.size < workers:
            self.slots.append(self._start())

    def take(self, trial: str, workers: int) -> list[str]:
        """Reserve free workers for a trial. Returns: their names."""
        slots = [slot for slot in self.slots if slot.is_free][: -(-workers // self.base.num_workers)]
        for slot in slots:
            slot.trial = trial
        return [name for slot in slots for name in slot.names][:workers]

    def give_back(self, trial: str, to_restart: bool) -> None:
        """Free the workers of a trial, or replace them by new ones."""
        for slot in [slot for slot in self.slots if slot.trial == trial]:
            slot.trial = None
            if to_restart:
                self._restart(slot)

    def poll(self) -> None:
        """Look which workers have started. Raises: UserError when they do not start."""
        import ray

        starting = {call: slot for slot in self.slots for call in slot.starting}
        for call in ray.wait(list(starting), num_returns=len(starting), timeout=0)[0] if starting else ():
            slot = starting[call]
            if slot in self.slots:  # otherwise another of its workers failed, and it is started again
                self._has_started(slot, call, outcome_of(call))
        self._say_what_waits()

    def _has_started(self, slot: Slot, call: Any, outcome: dict[str, Any]) -> None:
        if outcome["status"] == STARTED:
            slot.starting.remove(call)
        elif outcome["status"] == "failed":
            raise UserError(outcome["why"])
        elif slot.failed_starts + 1 == START_TRIES:
            raise UserError(f"workers do not start: {outcome['why']}")
        else:
            self._restart(slot).failed_starts = slot.failed_starts + 1

    def _say_what_waits(self) -> None:
        now = time.monotonic()
        if not self.starting:
            self.waits_since = self.said_at = now
        elif now - self.said_at > WAIT_LINE_SECONDS:
            self.said_at = now
            each = " and ".join(f"{amount:g} {name}" for name, amount in self.resources.items())
            print(
                f"waiting for {self.starting} of {self.size} workers with {each} each "
                f"({now - self.waits_since:.0f} s)",
                flush=True,
            )


@contextmanager
def pool_of(base: ResolvedConfig, folder: Path, output: str, slots: int) -> Iterator[Pool]:
    """Start workers, and end them with the context."""
    pool = Pool(base, folder, output, slots)
    try:
        yield pool
    finally:
        for slot in pool.slots:
            pool.stop(slot)


def outcome_of(call: Any) -> dict[str, Any]:
    """What a call to a worker returned; where it or Ray raised an error, `status`, `why` and for a loss `error`."""
    import ray

    try:
        outcome: dict[str, Any] = ray.get(call)
        return outcome
    except ray.exceptions.RayError as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
        if isinstance(cause, UserError):
            return {"status": NO_STORAGE if isinstance(cause, StorageError) else "failed", "why": str(cause)}
        # An error of Ray ends with what happened, after the traceback.
        return {"status": LOST, "why": str(error).strip().splitlines()[-1], "error": str(error)}
