"""`train` on Ray: a killed worker, a killed driver, wrong use; and under torchrun, without Ray."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat_tct.training.checkpoint import latest_checkpoint, load_checkpoint
from tests.helpers import REPOSITORY, assert_user_error, run_cli, run_python
from tests.training.workers import small_store

ITERS = 40
SHAPE = ("--n-layer", 2, "--n-head", 2, "--n-embd", 32, "--context-size", 64, "--dropout", 0.1)
LENGTH = ("--max-iters", ITERS, "--save-interval", 5, "--eval-interval", 20, "--eval-iters", 1, "--batch-size", 8)
OTHER = ("--log-interval", 1, "--wandb", "off", "--no-tensorboard", "--num-samples", 0, "--num-workers", 2)
QUICK = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: Any) -> Path:
    return small_store(tmp_path_factory.mktemp("data") / "store", count=200)


def arguments(data_dir: Path, folder: Path, *more: object) -> list[object]:
    places = ("--data-dir", data_dir, "--checkpoint-dir", folder, "--log-dir", folder / "logs", "--run-name", "run")
    return ["train", *places, *SHAPE, *LENGTH, *OTHER, *more]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(folder / "run")
    assert path is not None and path.name == f"iter_{ITERS:08d}", path
    return load_checkpoint(path).weights()


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, tmp_path_factory: Any) -> tuple[Path, str]:
    """A run of two workers on local Ray that nothing happens to, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run_cli(*arguments(data_dir, folder), env=QUICK)
    assert result.code == 0, result.stderr
    return folder, result.stdout


def assert_same_weights(folder: Path, undisturbed: Path) -> None:
    weights, expected = final_weights(folder), final_weights(undisturbed)
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name


def test_two_workers_on_local_ray(undisturbed: tuple[Path, str], data_dir: Path) -> None:
    folder, printed = undisturbed
    assert re.search(r"^iter 40 \| loss \d\.\d+ \| lr ", printed, re.MULTILINE)
    before, after = re.search(r"per byte: (\S+) before, (\S+) after", printed).groups()  # type: ignore[union-attr]
    assert float(after) < 0.8 * float(before)
    assert "parameters" in printed and "checkpoint: " in printed
    again = run_cli(*arguments(data_dir, folder))
    assert again.code == 0 and "nothing to do" in again.stdout, again.stderr


def descendants(pid: int) -> list[int]:
    """Process ids of children, their children and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found[1:]


def start_and_wait(data_dir: Path, folder: Path, iters: int) -> subprocess.Popen[bytes]:
    """Start a run; come back when it has done so many iters."""
    command = [sys.executable, "-m", "nanochat_tct.cli", *map(str, arguments(data_dir, folder))]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **QUICK}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    metrics = folder / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if metrics.exists() and metrics.read_text().count('"train"') >= iters:
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"not so far in two minutes: {process.communicate()}")


def test_a_killed_worker_changes_nothing(undisturbed: tuple[Path, str], data_dir: Path, tmp_path: Path) -> None:
    process = start_and_wait(data_dir, tmp_path, 8)
    workers = [
        pid for pid in descendants(process.pid) if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()
    starts = [line for line in output.decode().splitlines() if line.startswith(("iter 1 ", "iter 6 ", "iter 11 "))]
    assert len(starts) >= 3 or output.decode().count("iter 11 ") == 2, output.decode()  # some were done again
    assert_same_weights(tmp_path, undisturbed[0])


def test_a_killed_driver_changes_nothing(undisturbed: tuple[Path, str], data_dir: Path, tmp_path: Path) -> None:
    process = start_and_wait(data_dir, tmp_path, 12)
    started = descendants(process.pid)
    process.kill()
    process.communicate()
    assert list((tmp_path / "run").glob("iter_*")) and not (tmp_path / "run" / f"iter_{ITERS:08d}").exists()
    again = run_cli(*arguments(data_dir, tmp_path), "--resume", env=QUICK)
    assert again.code == 0, again.stderr
    assert "going on from iter" in again.stdout
    assert_same_weights(tmp_path, undisturbed[0])
    iters = [json.loads(line)["iter"] for line in open(tmp_path / "run" / "metrics.jsonl") if '"train"' in line]
    assert iters == list(range(1, ITERS + 1))
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()], "Ray outlived its driver"


def test_torchrun_gives_what_ray_gives(undisturbed: tuple[Path, str], data_dir: Path, tmp_path: Path) -> None:
    _, *flags = arguments(data_dir, tmp_path)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", 29653)
    result = run_python(*launcher, "-m", "nanochat_tct.training.torchrun", *flags)
    assert result.code == 0, result.stderr
    assert "\niter 40 | loss" in result.stdout
    assert_same_weights(tmp_path, undisturbed[0])


def test_wrong_use_is_one_line(undisturbed: tuple[Path, str], data_dir: Path, tmp_path: Path) -> None:
    folder, _ = undisturbed
    cases: list[tuple[list[object], str]] = [
        (arguments(data_dir, tmp_path, "--max-iters", 0), "--max-iters"),
        (arguments(data_dir, tmp_path, "--resume"), "no checkpoint"),
        (arguments(data_dir, folder, "--n-layer", 3), "n_layer"),
        (arguments(tmp_path / "nowhere", tmp_path), "nowhere"),
    ]
    for command, text in cases:
        assert_user_error(run_cli(*command), text)
    assert not list(tmp_path.iterdir())


def test_a_store_of_another_tokenizer_is_refused(data_dir: Path, tmp_path: Path) -> None:
    from nanochat_tct.data.store import MANIFEST
    from nanochat_tct.errors import UserError
    from tests.training.workers import small_config

    store = small_store(tmp_path / "store", count=30)
    manifest = json.loads((store / MANIFEST).read_text())
    manifest["tokenizer"]["fingerprint"] = "0" * 64
    (store / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError) as refused:
        small_config(store, tmp_path)
    assert "\n" not in str(refused.value)
