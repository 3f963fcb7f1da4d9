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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.storage.object_storage import is_remote
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.nodes import check_node
from nanochat_tct.training.signals import PREEMPTED
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.ledger_server import connect
from nanochat_tct.tuning.records import Head
from nanochat_tct.tuning.trial import work

DRAIN_SECONDS = 2.0  # how often a worker on a cluster asks whether its machine is to go
LATE_SECONDS = (
    3.0  # after the first worker of a trial the others end; later they hang, as one of them was lost
)
START_TRIES = 3  # of a slot's workers in a row, before the sweep ends
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

    def check(self, data_dir: str) -> None:
        """Raises: UserError where this machine lacks the data, or has other software than the head."""
        head = self.ledger.latest(Head)
        assert head is not None
        check_node(data_dir, (head.host, head.software))

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
        Returns: what `work` does; `status` "failed" for what the user can mend.
        Raises: StorageError, which ends the sweep and not the trial.
        """
        import torch.distributed as dist

        from nanochat_tct.training.distributed import Worker
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
                preemption=lambda: preemption_reason(rank, self.is_to_go),
            )
        except StorageError:
            raise
        except UserError as error:
            return {"status": "failed", "why": str(error)}
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

    workers: list[Any]  # handles of TrialWorker
    group: Any  # Ray's placement group
    starting: list[Any]  # a call to each, which answers once it has started; empty when all have
    failed_starts: int = 0
    is_busy: bool = False

    @property
    def is_free(self) -> bool:
        return not self.is_busy and not self.starting


@dataclass
class Job:
    """A trial at work."""

    trial: str
    slots: list[Slot]
    calls: list[Any]  # by rank
    done: dict[int, dict[str, Any] | Exception] = field(default_factory=dict)  # by rank
    over_since: float | None = None  # the first worker has ended, or another one with an error

    def take(self, rank: int, outcome: dict[str, Any] | Exception) -> None:
        self.done[rank] = outcome
        if rank == 0 or isinstance(outcome, Exception) or outcome["status"] == "failed":
            self.over_since = self.over_since or time.monotonic()

    @property
    def is_over(self) -> bool:
        if len(self.done) == len(self.calls):
            return True
        return self.over_since is not None and time.monotonic() - self.over_since > LATE_SECONDS

    @property
    def outcome(self) -> dict[str, Any] | Exception:
        """What the trial ended with: the first worker's, or else the first one that failed."""
        return self.done.get(0, next(iter(self.done.values())))


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
        self.resources = worker_resources(base, ray.cluster_resources())
        self.arguments = str(folder), output, base.use_gpu, "RAY_ADDRESS" in os.environ
        self.jobs: list[Job] = []
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

    @property
    def running(self) -> set[str]:
        """The trials at work."""
        return {job.trial for job in self.jobs}

    def has_room(self, workers: int) -> bool:
        """Whether so many workers are free."""
        return sum(slot.is_free for slot in self.slots) * self.base.num_workers >= workers

    def _start(self) -> Slot:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        number = self.base.num_workers
        group = placement_group([self.resources] * number)
        actor: Any = ray.remote(TrialWorker).options(
            num_cpus=self.resources["CPU"],
            num_gpus=self.resources.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group),
        )
        workers = [actor.remote(*self.arguments) for _ in range(number)]
        return Slot(workers, group, [worker.check.remote(self.base.data_dir) for worker in workers])

    def _stop(self, slot: Slot) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        for worker in slot.workers:
            ray.kill(worker)
        remove_placement_group(slot.group)

    def _restart(self, slot: Slot) -> None:
        self._stop(slot)
        self.slots[self.slots.index(slot)] = self._start()

    def grow(self, workers: int) -> None:
        """Start more workers where a trial of an earlier start of the command had more than there are."""
        while self.size < workers:
            self.slots.append(self._start())

    def begin(self, trial: str, workers: int) -> None:
        """Let free workers begin a trial."""
        slots = [slot for slot in self.slots if slot.is_free][: -(-workers // self.base.num_workers)]
        team = [worker for slot in slots for worker in slot.workers][:workers]
        for slot in slots:
            slot.is_busy = True
        address = team[0].serve.remote() if workers > 1 else None
        calls = [worker.train.remote(trial, rank, workers, address) for rank, worker in enumerate(team)]
        self.jobs.append(Job(trial, slots, calls))

    def poll(self, seconds: float) -> list[tuple[str, dict[str, Any] | Exception]]:
        """Wait up to so many seconds for news. Returns: trials that ended, and what with.

        Raises: UserError when workers do not start.
        """
        import ray

        at_work = {
            call: (job, rank)
            for job in self.jobs
            for rank, call in enumerate(job.calls)
            if rank not in job.done
        }
        starting = {call: slot for slot in self.slots for call in slot.starting}
        calls = [*at_work, *starting]
        if not calls:
            time.sleep(seconds)
        for call in ray.wait(calls, timeout=seconds)[0] if calls else ():
            outcome = _outcome(call)
            if call in at_work:
                job, rank = at_work[call]
                job.take(rank, outcome)
            else:
                self._has_started(starting[call], call, outcome)
        self._say_what_waits()
        return [self._end(job) for job in list(self.jobs) if job.is_over]

    def _has_started(self, slot: Slot, call: Any, outcome: dict[str, Any] | Exception) -> None:
        if slot not in self.slots:
            return  # another of its workers failed, and it is started again
        if not isinstance(outcome, Exception):
            slot.starting.remove(call)
            return
        if isinstance(outcome, UserError):
            raise outcome
        if slot.failed_starts + 1 == START_TRIES:
            raise UserError(f"workers do not start: {last_line(outcome)}")
        place = self.slots.index(slot)
        self._restart(slot)
        self.slots[place].failed_starts = slot.failed_starts + 1

    def _end(self, job: Job) -> tuple[str, dict[str, Any] | Exception]:
        """Free the workers of a trial, or start others in place of those that are lost, hang or are to go."""
        self.jobs.remove(job)
        outcome = job.outcome
        is_lost = len(job.done) < len(job.calls) or any(
            isinstance(each, Exception) or each["status"] == PREEMPTED for each in job.done.values()
        )
        for slot in job.slots:
            slot.is_busy = False
            if is_lost:
                self._restart(slot)
        return job.trial, outcome

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

    def close(self) -> None:
        """End all workers."""
        for slot in self.slots:
            self._stop(slot)


@contextmanager
def pool_of(base: ResolvedConfig, folder: Path, output: str, slots: int) -> Iterator[Pool]:
    """Start workers, and end them with the context."""
    pool = Pool(base, folder, output, slots)
    try:
        yield pool
    finally:
        pool.close()


def _outcome(call: Any) -> dict[str, Any] | Exception:
    """What a call to a worker returned, or the error that it or Ray raised."""
    import ray

    try:
        return ray.get(call) or {}
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, UserError) else error
    except ray.exceptions.RayError as error:
        return error


def last_line(error: Exception) -> str:
    """What an error says in the end; one of Ray's has the traceback of the worker."""
    return str(error).strip().splitlines()[-1]
