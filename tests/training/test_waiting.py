"""A run on a cluster that has no place for its workers: it says so, goes on when there is one, and ends in time."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.killed_node import two_workers, wait_for
from tests.support.workers import small_run

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

HOLD = """
import sys
import ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
group = ray.util.placement_group([{"CPU": 1}] * 2)
ray.get(group.ready())
print("held", flush=True)
sys.stdin.read()
"""


def lines(folder: Path, begin: str) -> list[str]:
    return [line for line in (folder / "printed").read_text().splitlines() if line.startswith(begin)]


@contextmanager
def running(process: "subprocess.Popen[Any]") -> Iterator["subprocess.Popen[Any]"]:
    """The process, gone afterwards."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_cpus_that_another_holds_are_waited_for(data_dir: Path, tmp_path: Path) -> None:
    command = small_run(data_dir, tmp_path, num_workers="2", max_iters=4, log_interval=1)
    waiting = "for 2 workers with 0.5 CPU each; the cluster has 0 of 2 CPUs free"
    with two_workers() as cluster:
        hold = [sys.executable, "-c", HOLD, cluster.cluster.address]
        holder = subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with running(holder):
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with running(cluster.command(tmp_path, *command, "--wait-minutes", 0.1)) as process:
                assert process.wait(200) == 2, (tmp_path / "printed").read_text()
            assert lines(tmp_path, "waiting") == [f"waiting {waiting} (0 min)"]
            (error,) = lines(tmp_path, "error: ")
            assert error.startswith(f"error: waited 0.1 minutes {waiting}. Take a smaller --num-workers, or ")
            assert not lines(tmp_path, "Traceback")
            (tmp_path / "printed").unlink()

            with running(cluster.command(tmp_path, *command)) as process:
                wait_for(lambda: bool(lines(tmp_path, f"waiting {waiting}")), process, tmp_path)
                assert not lines(tmp_path, "iter 1 |")
                holder.communicate("")  # it ends, and what it held is free
                assert process.wait(300) == 0, (tmp_path / "printed").read_text()
        assert lines(tmp_path, "iter 4 |")


def test_the_place_of_a_lost_worker_is_waited_for(data_dir: Path, tmp_path: Path) -> None:
    """Not while two workers train, who leave nothing free; but when one's machine is gone, until there is another."""
    command = small_run(
        data_dir, tmp_path, num_workers="2:3", max_iters=100_000, save_interval=10, log_interval=1
    )
    with two_workers() as cluster, running(cluster.command(tmp_path, *command)) as process:
        wait_for(lambda: bool(lines(tmp_path, "iter 10 |")), process, tmp_path)
        before = lines(tmp_path, "waiting")
        end = time.monotonic() + 15
        wait_for(lambda: time.monotonic() > end, process, tmp_path)
        assert lines(tmp_path, "waiting") == before

        cluster.kill_node_of(b"RayTrainWorker")
        waiting = "waiting for 2 workers with 1 CPU each; the cluster has 1 of 1 CPUs free"
        wait_for(lambda: bool(lines(tmp_path, waiting)), process, tmp_path)
        done = len(lines(tmp_path, "iter "))
        cluster.cluster.add_node(num_cpus=1)
        wait_for(lambda: len(lines(tmp_path, "iter ")) > done, process, tmp_path)
        assert lines(tmp_path, "lost machine") == ["lost machine 127.0.0.1"], "its nodes share an address"
        (continued,) = lines(tmp_path, "continuing from iter ")
        assert continued.endswith("0 with 2 workers"), "the last checkpoint"
