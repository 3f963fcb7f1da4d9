"""The ledger of a sweep whose machines share no folder: an actor of Ray beside the file, and its clients.

The truth stays in the file, so nothing is lost with the actor, which Ray starts again.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nanochat_tct.errors import StorageError
from nanochat_tct.tuning.ledger import Ledger, OverBudget
from nanochat_tct.tuning.records import Note

NAME = "ledger"  # of the actor, within the job
CLOCK_TRIPS = 3
ANSWER_SECONDS = 120.0  # a copy in a storage that fails again and again takes some
RETRIES = 3  # a charge whose answer is lost is charged again: too much, never too little


class LedgerServer:
    """Calls the ledger on this machine for a RemoteLedger."""

    def __init__(self, folder: str) -> None:
        self.ledger = Ledger(folder)

    def now(self) -> float:
        """Seconds since 1970, by this machine."""
        return time.time()

    def do(
        self, operation: str, arguments: tuple[Any, ...], offset: int
    ) -> tuple[bytes, Any, Exception | None]:
        """Returns: the lines after the caller's `offset` bytes; the result; the error."""
        value, error = None, None
        try:
            value = getattr(self.ledger, operation)(*arguments)
        except (OverBudget, StorageError) as problem:
            error = problem
        return self.ledger.lines_from(offset), value, error


class RemoteLedger(Ledger):
    """A Ledger on any machine, through the server. Its clock is the server's, as times are compared there."""

    def __init__(self, server: Any) -> None:
        import ray

        self._get, self._server = ray.get, server
        trips = []
        for _ in range(CLOCK_TRIPS):
            asked = time.time()
            there = self._get(server.now.remote(), timeout=ANSWER_SECONDS)
            answered = time.time()
            trips.append((answered - asked, there - (asked + answered) / 2))
        _, ahead = min(trips)  # the shortest trip is the most exact; the first also starts the connection
        self._begin(lambda: time.time() + ahead)
        self.refresh()

    def refresh(self) -> None:
        self._do("refresh")

    def top_up(self, trial: str, left: int) -> int:
        return int(self._do("top_up", trial, left))

    def charge(self, trial: str, kind: str, flops: int = 0) -> int:
        return int(self._do("charge", trial, kind, flops))

    def charge_until(self, trial: str, until: float, kind: str | None = None) -> float:
        return float(self._do("charge_until", trial, until, kind))

    def settle(self, trial: str, result: dict[str, Any]) -> None:
        self._do("settle", trial, result)

    def note(self, note: Note) -> None:
        self._do("note", note)

    def _do(self, operation: str, *arguments: Any) -> Any:
        with self._thread_lock:
            answer = self._server.do.remote(operation, arguments, self._offset)
            lines, value, error = self._get(answer, timeout=ANSWER_SECONDS)
            self._take_in(lines)
        if error is not None:
            raise error
        return value


@contextmanager
def serve(folder: Path) -> Iterator[None]:
    """Serve the ledger in a folder of this machine to all processes of this Ray job."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    server: Any = (
        ray.remote(LedgerServer)
        .options(num_cpus=0, scheduling_strategy=here, name=NAME, max_restarts=-1, max_task_retries=RETRIES)
        .remote(str(folder))
    )
    try:
        yield
    finally:
        ray.kill(server)


def connect() -> RemoteLedger:
    """The ledger that this Ray job serves."""
    import ray

    return RemoteLedger(ray.get_actor(NAME))
