"""A node of the cluster is killed while a sweep's trials run on it: they go on elsewhere, and the money is right."""

import time
from pathlib import Path

import pytest

from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import WORK_DIR
from tests.support.killed_node import two_workers, wait_for
from tests.tuning.sweeps import sweep_arguments
from tests.tuning.test_kills import assert_money_is_right, assert_nothing_lost


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_goes_on_when_a_node_is_killed(tmp_path: Path) -> None:
    work = tmp_path / "sweep" / WORK_DIR
    with two_workers() as cluster:
        process = cluster.command(
            tmp_path, "tune", *sweep_arguments(tmp_path, sizes=["1x32"], budget_flops=1.5e11)
        )
        try:

            def is_training() -> bool:
                """A trial of the sweep, no probe, has done some iters."""
                return any(path.read_text().count('"train"') > 3 for path in work.glob("sweep-*.jsonl"))

            wait_for(is_training, process, tmp_path)
            before = set(work.iterdir())
            began = time.monotonic()
            killed = cluster.kill_node_of(b"TrialWorker")
            hit = [path.name.split(".")[0] for path in before if int(path.name.split(".")[2]) in killed]
            assert hit

            def trains_again() -> bool:
                new = [path for path in set(work.iterdir()) - before if path.name.split(".")[0] in hit]
                return any('"train"' in path.read_text() for path in new)

            wait_for(trains_again, process, tmp_path)
            print(f"trains again {time.monotonic() - began:.1f} s after one of two nodes was killed")
            assert process.wait(600) == 0, (tmp_path / "printed").read_text()[-3000:]
        finally:
            process.kill()
    ledger = Ledger(tmp_path / "sweep")
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_trials_save_when_a_node_is_to_go(tmp_path: Path) -> None:
    """As Ray has it from a cloud's notice of preemption; the node is taken away when they have saved."""
    logs = tmp_path / "sweep" / "logs"

    def preemptions() -> list[Path]:
        return [
            path
            for path in logs.glob("final-*/log.txt")
            if "preempted: a machine is to go; saved" in path.read_text()
        ]

    with two_workers() as cluster:
        process = cluster.command(
            tmp_path,
            *(
                "tune",
                *sweep_arguments(tmp_path, sizes=["1x32"], num_rates=1, budget_flops=4e10, concurrency=1),
            ),
        )
        try:

            def is_in_final_run() -> bool:
                work = (tmp_path / "sweep" / WORK_DIR).glob("final-*.jsonl")
                return any(path.read_text().count('"train"') > 3 for path in work)

            wait_for(is_in_final_run, process, tmp_path)
            node = cluster.node_of(b"TrialWorker")
            cluster.announce(node)
            wait_for(lambda: bool(preemptions()), process, tmp_path)
            cluster.kill_node(node)
            assert process.wait(600) == 0, (tmp_path / "printed").read_text()[-3000:]
        finally:
            process.kill()
    ledger = Ledger(tmp_path / "sweep")
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)
