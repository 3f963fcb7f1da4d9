"""Chaos: kills and stops parts of a training run on a Ray cluster of three nodes, and sees that nothing is lost.

    python -m tests.chaos --faults 20 --seed 0

At random moments it SIGKILLs a worker, the driver (which is started again with the same command) or a whole
node (which comes back later), stops a process for ten seconds, or has Ray tell that a node will be taken away,
which must be met with a checkpoint of that moment. The run is elastic, one to three workers. In
the end every global batch must have been trained on exactly once in the history that counts, in the order of
a run that nothing happened to. All three nodes are on this machine.
"""

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanochat_tct.model.checkpoint import latest_checkpoint, latest_step
from nanochat_tct.tracking.tracker import read_metrics
from tests.support.killed_node import PATIENCE_SECONDS, TwoWorkers, command_line, two_workers, wait_for
from tests.support.workers import descendants, expected_batches, small_run, small_store

KINDS = ("worker", "driver", "node", "stop", "notice")
STOPPED_SECONDS = 10
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all nodes are on loopback
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "OMP_NUM_THREADS": "1",
}
# Ray frees the workers of a killed driver by way of the dashboard's API; without it they hold their CPUs for minutes.
HEAD = {"num_cpus": 1, "include_dashboard": True, "dashboard_host": "127.0.0.1"}
# Big enough that an iter takes a good part of a second here: faults are many iters apart.
CONTEXT_SIZE, BATCH_SIZE = 128, 4
RUN: dict[str, Any] = {
    "context_size": CONTEXT_SIZE,
    "batch_size": BATCH_SIZE,
    "n_embd": 128,
    "num_workers": "1:3",
}
RUN |= {"save_interval": 10, "log_interval": 1, "eval_interval": 100_000}


class Chaos:
    """One run on a cluster, and what is done to them."""

    def __init__(self, folder: Path, seed: int, cluster: TwoWorkers) -> None:
        self.folder, self.random, self.cluster = folder, random.Random(seed), cluster
        self.data_dir = small_store(folder / "store", count=200)
        self.run_dir = folder / "checkpoints" / "run"
        self.start_driver()

    def start_driver(self, max_iters: int = 100_000) -> None:
        """Start the run, or go on with it."""
        arguments = small_run(self.data_dir, self.folder, max_iters=max_iters, **RUN)
        self.driver = self.cluster.command(self.folder, *arguments)

    def iters(self) -> int:
        """Where the run is."""
        entries = read_metrics(self.run_dir)
        return int(entries[-1]["iter"]) if entries else 0

    def workers(self) -> list[int]:
        """Process ids of the loop's workers."""
        return [pid for pid in descendants(os.getpid()) if b"RayTrainWorker" in command_line(pid)]

    def wait(self, what: Callable[[], bool]) -> float:
        """Seconds until something is so."""
        return wait_for(what, self.driver, self.folder)

    def printed(self) -> str:
        """What the drivers printed."""
        return (self.folder / "printed").read_text(errors="replace")

    def fault(self, kind: str) -> float:
        """Do it. Returns: seconds until the run was further than before."""
        start, furthest = time.monotonic(), self.iters()
        nodes = len(self.cluster.nodes)
        if kind == "worker":
            os.kill(self.random.choice(self.workers()), signal.SIGKILL)
        elif kind == "driver":
            self.driver.kill()
            self.driver.wait()
            while self.workers():  # they go on for a moment
                furthest = max(furthest, self.iters())
                time.sleep(0.05)
            self.start_driver()
        elif kind == "node":
            self.cluster.kill_node(self.random.choice(self.cluster.nodes))
        elif kind == "notice":
            self.wait_for_all()  # a node without a worker goes at once, and nothing needs saving
            start, node = time.monotonic(), self.random.choice(self.cluster.nodes)
            told = self.preemptions()
            self.cluster.announce(node)
            self.wait(lambda: self.preemptions() > told)
            furthest = self.iters()
            assert latest_step(self.run_dir) == furthest, "iters after the checkpoint of that moment"
            self.cluster.kill_node(node)
        else:
            stopped = self.random.choice([*self.workers(), self.driver.pid])
            os.kill(stopped, signal.SIGSTOP)
            time.sleep(STOPPED_SECONDS)
            furthest = max(furthest, self.iters())
            os.kill(stopped, signal.SIGCONT)
        # An iter may have been under way: two further ones cannot be without everybody.
        self.wait(lambda: self.iters() > furthest + 2)
        seconds = time.monotonic() - start
        if len(self.cluster.nodes) < nodes:
            self.cluster.nodes.append(self.cluster.cluster.add_node(num_cpus=1))
        return seconds

    def preemptions(self) -> int:
        """How often all workers saved and stopped because one is to go."""
        return self.printed().count("\npreempted: ")

    def wait_for_all(self) -> float:
        """Seconds until three workers are there again, though fewer would do."""
        return self.wait(lambda: len(self.workers()) == 3)

    def finish(self) -> int:
        """Stop the run and see that it ends well a few iters later. Returns: its iters."""
        self.driver.terminate()
        assert self.driver.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM, self.printed()[-3000:]
        last = latest_step(self.run_dir) + 5
        self.start_driver(last)
        assert self.driver.wait(PATIENCE_SECONDS) == 0, self.printed()[-3000:]
        assert latest_checkpoint(self.run_dir) is not None and latest_step(self.run_dir) == last
        return last

    def check(self, last: int) -> None:
        """Compare the history of every iter with that of a run that nothing happens to."""
        entries = [entry for entry in read_metrics(self.run_dir) if entry["kind"] == "train"]
        assert [entry["iter"] for entry in entries] == list(range(1, last + 1)), (
            "iters missing, or twice there"
        )
        expected = expected_batches(self.data_dir, CONTEXT_SIZE, 3 * BATCH_SIZE, last)
        assert [entry["batches"] for entry in entries] == expected, "other global batches"


def main(argv: list[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--minutes", type=float, default=120.0, help="no further fault after that")
    given = parser.parse_args(argv)
    start = time.monotonic()
    seconds: dict[str, list[float]] = {kind: [] for kind in given.kinds}
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, two_workers(**HEAD) as cluster:
        chaos = Chaos(Path(folder), given.seed, cluster)
        try:
            rounds = -(-given.faults // len(given.kinds))
            order = [
                kind for _ in range(rounds) for kind in chaos.random.sample(given.kinds, len(given.kinds))
            ]
            for number, kind in enumerate(order[: given.faults], start=1):
                goal = chaos.iters() + chaos.random.randrange(3, 15)
                chaos.wait(lambda goal=goal: chaos.iters() >= goal and bool(chaos.workers()))
                if time.monotonic() > start + 60 * given.minutes:
                    break
                seconds[kind].append(chaos.fault(kind))
                print(f"fault {number}: {kind:6} recovered in {seconds[kind][-1]:5.1f} s", flush=True)
            print(f"three workers again after {chaos.wait_for_all():.1f} s", flush=True)
            last = chaos.finish()
            chaos.check(last)
        finally:
            chaos.driver.kill()
            chaos.driver.wait()
    every = [value for values in seconds.values() for value in values]
    for kind, values in [*seconds.items(), ("all", every)]:
        if values:
            median = statistics.median(values)
            print(f"{kind:6} {len(values):2} faults: median {median:5.1f} s, worst {max(values):5.1f} s")
    print(f"{last} iters, each global batch as in a run that nothing happened to")


if __name__ == "__main__":
    main()
