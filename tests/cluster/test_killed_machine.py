"""Machines of a cluster that was started by hand are killed under a submitted job; it goes on with those left."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from nanochat_tct.tracking.tracker import read_metrics
from tests.cluster.test_jobs import train, wait_for
from tests.support.running_cluster import running_cluster
from tests.support.workers import small_store

ITERS = 300


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_job_goes_on_without_the_machines_that_were_killed(tmp_path: Path) -> None:
    data_dir = small_store(tmp_path / "store")
    with running_cluster("a100", workers=3) as cluster:

        def iters() -> list[int]:
            return [int(done) for done in re.findall(r"^iter (\d+) \|", logs(), re.MULTILINE)]

        def logs() -> str:
            return cluster.ray("job", "logs", "killed").stdout

        settings = {"num_workers": "1:3", "max_iters": ITERS, "save_interval": 10, "log_interval": 1}
        entrypoint = train(data_dir, tmp_path, **settings)
        started = cluster.submit(*entrypoint, options=("--no-wait", "--submission-id", "killed"))
        assert started.code == 0, started.stderr
        wait_for(lambda: len(iters()) > 20)
        for node in cluster.nodes[-2:]:  # of three workers on four machines, one at least
            cluster.stop_node(node, signal.SIGKILL)
        reached, start, load = max(iters()), time.monotonic(), os.getloadavg()[0]
        wait_for(lambda: max(iters()) > reached)
        seconds = time.monotonic() - start
        print(f"two of four machines killed: further after {seconds:.1f} s, load {load:.1f}")
        wait_for(lambda: "SUCCEEDED" in cluster.ray("job", "status", "killed").stdout.upper())
        lost = {f"127.0.0.{2 + cluster.nodes.index(node)}" for node in cluster.nodes[-2:]}
        told = re.findall(r"^lost machine (\S+)$", logs(), re.MULTILINE)
        assert told and set(told) <= lost and len(set(told)) == len(told), logs()
        assert re.search(r"^continuing from iter \d*0 with [12] workers?$", logs(), re.MULTILINE), logs()
        assert re.search(r"^iter \d+: [12] of 3 workers, the same global batch", logs(), re.MULTILINE), logs()
    run_dir = tmp_path / "checkpoints/run"
    done = [entry["iter"] for entry in read_metrics(run_dir) if entry["kind"] == "train"]
    assert sorted(set(done)) == list(range(1, ITERS + 1)), "nothing is lost"
    assert (run_dir / f"iter_{ITERS:08d}/manifest.json").is_file()
