"""A Ray cluster of a head and two workers on this machine, of which one dies while a command runs on it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.workers import descendants

PATIENCE_SECONDS = 600  # for anything that is waited for


class TwoWorkers:
    """The cluster; the head itself has no CPU unless told otherwise, so all work is on the two workers of one CPU."""

    def __init__(self, **head: Any) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **head})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def command(self, folder: Path, *arguments: object) -> "subprocess.Popen[bytes]":
        """`nanochat-tct ARGUMENTS` on this cluster; what it prints goes to `folder`/printed."""
        with open(folder / "printed", "ab") as printed:
            return subprocess.Popen(
                [sys.executable, "-m", "nanochat_tct.cli", *(str(argument) for argument in arguments)],
                env={**os.environ, "RAY_ADDRESS": self.cluster.address, "RAY_worker_niceness": "0"},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )

    def kill_node_of(self, kind: bytes) -> list[int]:
        """SIGKILL all of the worker machine on which most processes of a kind are. Returns: their ids."""
        return self.kill_node(self.node_of(kind))

    def node_of(self, kind: bytes) -> Any:
        """The worker machine on which most processes of a kind are."""

        def count(node: Any) -> int:
            (raylet,) = node.all_processes["raylet"]
            return sum(kind in command_line(pid) for pid in descendants(raylet.process.pid))

        deadline = time.monotonic() + PATIENCE_SECONDS
        while count(victim := max(self.nodes, key=count)) == 0:  # workers may be between two tasks
            assert time.monotonic() < deadline, f"{kind!r} is nowhere"
            time.sleep(0.01)
        return victim

    def kill_node(self, victim: Any) -> list[int]:
        """SIGKILL all of a worker machine. Returns: the ids of its processes."""
        self.nodes.remove(victim)
        (raylet,) = victim.all_processes["raylet"]
        workers = descendants(raylet.process.pid)
        self.cluster.remove_node(victim, allow_graceful=False)
        for pid in workers:  # as when a machine goes: they would live on for a moment
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return workers

    def announce(self, node: Any) -> None:
        """What a cloud's notice of preemption becomes in Ray."""
        reason = (
            "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message test --deadline-remaining-seconds 600"
        )
        command = f"drain-node --address {self.cluster.address} --node-id {node.node_id} {reason}"
        ray = Path(sys.executable).with_name("ray")
        subprocess.run([ray, *command.split()], check=True, stdout=subprocess.DEVNULL)

    def kill_head(self, driver: "subprocess.Popen[bytes]") -> None:
        """SIGKILL all of the head's machine, the command on it too."""
        head = self.cluster.head_node
        pids = [entry.process.pid for entries in head.all_processes.values() for entry in entries]
        for pid in {driver.pid, *pids, *(child for parent in pids for child in descendants(parent))}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()


@contextmanager
def two_workers(**head: Any) -> Iterator[TwoWorkers]:
    """The cluster, gone afterwards."""
    cluster = TwoWorkers(**head)
    try:
        yield cluster
    finally:
        cluster.cluster.shutdown()


def wait_for(what: Callable[[], object], process: Any, folder: Path) -> float:
    """Seconds until something is so, while a process like Popen runs that prints to `folder`/printed."""
    begin = time.monotonic()
    while not what():
        printed = folder / "printed"
        assert process.poll() is None, f"ended with {process.returncode}: {printed.read_text()[-3000:]}"
        assert time.monotonic() < begin + PATIENCE_SECONDS, printed.read_text()[-3000:]
        time.sleep(0.02)
    return time.monotonic() - begin


def command_line(pid: int) -> bytes:
    """Of a process; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
