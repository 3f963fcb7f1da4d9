"""The head of a cluster is killed, and the command with it: on a new cluster the same command goes on."""

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nanochat_tct.data.encoded_parts import FOLDER
from nanochat_tct.data.store import MANIFEST, TokenStore
from nanochat_tct.documents import to_json
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.meter import WORK_DIR
from tests.data.test_killed_node import workflow
from tests.support.killed_node import two_workers, wait_for
from tests.support.workers import expected_batches, small_run
from tests.tuning.sweeps import sweep_arguments
from tests.tuning.test_kills import assert_money_is_right, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]


def killed_and_again(folder: Path, arguments: Sequence[object], where: Callable[[], int], least: int) -> str:
    """Kills the head once the command has come to `least`, as `where` counts, and gives it to another cluster.

    Returns: what the second command printed.
    """
    with two_workers() as cluster:
        process = cluster.command(folder, *arguments)
        try:
            wait_for(lambda: where() >= least, process, folder)
        finally:
            cluster.kill_head(process)
    before = where()
    (folder / "printed").rename(folder / "printed before")
    with two_workers() as cluster:
        begin = time.monotonic()
        process = cluster.command(folder, *arguments)
        try:
            seconds = wait_for(lambda: where() > before, process, folder)
            assert process.wait(900) == 0, (folder / "printed").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()
    total = time.monotonic() - begin
    print(f"{arguments[0]}: further {seconds:.1f} s after the same command, done after {total:.1f} s")
    return (folder / "printed").read_text()


def test_prepare(tmp_path: Path) -> None:
    rng = random.Random(0)
    (tmp_path / "in").mkdir()
    for index in range(800):
        (tmp_path / "in" / f"{index:04}.json").write_text(to_json(workflow(rng)))
    arguments: list[object] = ["prepare", "--input", tmp_path / "in", "--output"]
    output = tmp_path / "out"

    def where() -> int:
        """Parts that are encoded."""
        return 1000 if (output / MANIFEST).exists() else len(list((output / FOLDER).glob("*.arrow")))

    printed = killed_and_again(tmp_path, [*arguments, output], where, 3)
    found = re.search(r"going on: (\d+) of \d+ parts are encoded already", printed)
    assert found is not None and int(found[1]) >= 3, printed
    with two_workers() as cluster:
        process = cluster.command(tmp_path, *arguments, tmp_path / "undisturbed")
        assert process.wait(300) == 0
    stores = [TokenStore.open(tmp_path / name) for name in ("out", "undisturbed")]
    assert stores[0].fingerprint == stores[1].fingerprint


def test_train(data_dir: Path, tmp_path: Path) -> None:
    iters = 120
    run_dir = tmp_path / "checkpoints" / "run"
    settings = {"eval_interval": 1000, "save_interval": 10, "log_interval": 1}
    arguments = small_run(data_dir, tmp_path, num_workers=2, max_iters=iters, **settings)

    def last_iter() -> int:
        entries = read_metrics(run_dir) if (run_dir / "metrics.jsonl").exists() else []
        return max((entry["iter"] for entry in entries if entry["kind"] == "train"), default=0)

    printed = killed_and_again(tmp_path, arguments, last_iter, 25)
    assert "iter 10 |" not in printed, "it went on from a checkpoint"
    entries = [entry for entry in read_metrics(run_dir) if entry["kind"] == "train"]
    batches = {entry["iter"]: entry["batches"] for entry in entries}
    expected = expected_batches(data_dir, 32, global_batch=8, iters=iters)
    assert [batches[step] for step in range(1, iters + 1)] == expected


def test_tune(tmp_path: Path) -> None:
    work = tmp_path / "sweep" / WORK_DIR
    arguments: list[object] = ["tune", *sweep_arguments(tmp_path, sizes=["1x32"], budget_flops=1.5e11)]

    def where() -> int:
        """Entries of the logs of trials, probes apart, of what they trained."""
        return sum(path.read_text().count('"train"') for path in work.glob("sweep-*.jsonl"))

    killed_and_again(tmp_path, arguments, where, 4)
    ledger = Ledger(tmp_path / "sweep")
    assert_money_is_right(ledger, tmp_path)
    assert_nothing_lost(ledger, tmp_path)
