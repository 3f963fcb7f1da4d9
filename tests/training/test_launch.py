"""`train` on Ray: a killed worker, a killed driver, wrong use; and under torchrun, without Ray."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from nanochat_tct.cli import main
from nanochat_tct.data.store import MANIFEST, TOKENS, manifest_sha256
from nanochat_tct.errors import UserError
from nanochat_tct.model.checkpoint import latest_checkpoint, load_checkpoint
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.ray_driver import worker_resources
from tests.support.commands import Finished, assert_user_error, run_cli, run_python
from tests.support.workers import descendants, small_store

pytestmark = pytest.mark.processes
ITERS = 40
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
SHAPE = ("--n-layer", 2, "--n-head", 2, "--n-embd", 32, "--context-size", 64, "--dropout", 0.1)
LENGTH = (
    "--max-iters",
    ITERS,
    "--save-interval",
    5,
    "--eval-interval",
    20,
    "--eval-iters",
    1,
    "--batch-size",
    8,
)
OTHER = ("--log-interval", 1, "--wandb", "off", "--no-tensorboard", "--num-samples", 0, "--num-workers", 2)
# Ray would not look at its workers for two seconds.
QUICK = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}


def arguments(data_dir: Path, folder: Path, *more: object) -> list[object]:
    places = (
        "--data-dir",
        data_dir,
        "--checkpoint-dir",
        folder,
        "--log-dir",
        folder / "logs",
        "--run-name",
        "run",
    )
    return ["train", *places, *SHAPE, *LENGTH, *OTHER, *more]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(folder / "run")
    assert path is not None and path.name == f"iter_{ITERS:08d}", path
    return load_checkpoint(path).weights()


class Undisturbed(NamedTuple):
    """A run of two workers on local Ray that nothing happens to, with a W&B key in its environment."""

    folder: Path
    printed: str
    ray_folder: Path
    home: Path


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, tmp_path_factory: Any) -> Iterator[Undisturbed]:
    folder, home = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("home")
    everything = ("--wandb", "auto", "--tensorboard", "--num-samples", 1)  # that a run writes
    # A short path: sockets have a limit of 107 characters.
    with tempfile.TemporaryDirectory(dir="/tmp") as ray_folder:
        environment = {
            "RAY_ADDRESS": "",
            "RAY_TMPDIR": ray_folder,
            "HOME": str(home),
            "WANDB_API_KEY": WANDB_KEY,
            "WANDB_MODE": "offline",
        }
        result = run_cli(*arguments(data_dir, folder, *everything), env={**QUICK, **environment})
        assert result.code == 0, result.stderr
        yield Undisturbed(folder, result.stdout + result.stderr, Path(ray_folder), home)


def test_no_key_is_written_down(undisturbed: Undisturbed) -> None:
    """Neither that of W&B nor Ray's is in a file, or in anything that was printed."""
    folders = (undisturbed.folder, undisturbed.ray_folder, undisturbed.home)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "gcs_server.out" for path in files), "these are Ray's logs"
    assert any(path.name == "model.safetensors" for path in files)
    assert any(path.suffix == ".wandb" for path in files), "W&B wrote its files"
    token = undisturbed.home / ".ray/auth_token"
    for secret in (WANDB_KEY.encode(), token.read_bytes()):
        assert [path for path in files if path != token and secret in path.read_bytes()] == []
        assert secret.decode() not in undisturbed.printed


def test_two_workers_on_local_ray(
    undisturbed: Undisturbed, data_dir: Path, run_here: Callable[..., Finished]
) -> None:
    folder, printed = undisturbed.folder, undisturbed.printed
    assert re.search(r"^iter 40 \| loss \d\.\d+ \| lr ", printed, re.MULTILINE)
    before, after = re.search(r"per byte: (\S+) before, (\S+) after", printed).groups()  # type: ignore[union-attr]
    assert float(after) < 0.8 * float(before)
    assert "parameters" in printed and "checkpoint: " in printed
    assert not re.search(r"^waiting .* free \(", printed, re.MULTILINE)  # nothing was ever lacking
    again = run_here(*arguments(data_dir, folder))
    assert again.code == 0 and "nothing to do" in again.stdout, again.stderr


def wait_for_iter(run_dir: Path, iters: int, process: subprocess.Popen[bytes]) -> None:
    """Come back when the log of the run goes to that iter."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (entries := read_metrics(run_dir)) and entries[-1]["iter"] >= iters:
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"not at iter {iters} in four minutes: {process.communicate()}")


def training_processes(driver: int) -> list[int]:
    """The Ray Train workers that a driver started."""
    return [
        pid for pid in descendants(driver) if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.slow  # Ray starts twice, and workers three times
def test_killed_worker_and_killed_driver_change_nothing(
    undisturbed: Undisturbed, data_dir: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "nanochat_tct.cli", *map(str, arguments(data_dir, tmp_path))]
    with open(tmp_path / "printed", "wb") as printed:
        process = subprocess.Popen(
            command, env={**os.environ, **QUICK}, stdout=printed, stderr=subprocess.STDOUT
        )

    wait_for_iter(run_dir, 8, process)
    workers = training_processes(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)

    while not (run_dir / "iter_00000015").exists():  # by itself it went on
        assert process.poll() is None, (tmp_path / "printed").read_text()
        time.sleep(0.02)
    lines = (tmp_path / "printed").read_text().splitlines()
    assert sum(line.startswith("iter 6 |") for line in lines) == 2, lines  # from the checkpoint of iter 5
    workers = training_processes(process.pid)
    process.kill()
    process.wait()
    assert not (run_dir / f"iter_{ITERS:08d}").exists()

    again = run_cli(*arguments(data_dir, tmp_path), "--resume", env=QUICK)
    assert again.code == 0, again.stderr
    assert "going on from iter" in again.stdout
    weights, expected = final_weights(tmp_path), final_weights(undisturbed.folder)
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name
    done = [entry["iter"] for entry in read_metrics(run_dir) if entry["kind"] == "train"]
    assert done == list(range(1, ITERS + 1))  # none twice
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "workers outlived their driver"


def start(tmp_path: Path, *command: object, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A command in the background; what it prints goes to the file `printed`."""
    with open(tmp_path / "printed", "wb") as printed:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, **QUICK, **(env or {})},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow  # Ray starts three times; the same under torchrun is below
def test_sigterm_saves_and_loses_nothing(undisturbed: Undisturbed, data_dir: Path, tmp_path: Path) -> None:
    """One to a worker: all save, and are started again. One to the driver: all save, and it is the end for now."""
    run_dir = tmp_path / "run"
    command = arguments(data_dir, tmp_path, "--save-interval", 1000, "--eval-interval", 1000)
    process = start(tmp_path, "-m", "nanochat_tct.cli", *command)
    wait_for_iter(run_dir, 3, process)
    os.kill(training_processes(process.pid)[1], signal.SIGTERM)
    while not list(run_dir.glob("iter_*")):
        assert process.poll() is None, (tmp_path / "printed").read_text()
        time.sleep(0.02)
    (saved,) = run_dir.glob("iter_*")
    wait_for_iter(run_dir, int(saved.name.removeprefix("iter_")) + 2, process)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    lines = (tmp_path / "printed").read_text().splitlines()
    done = [int(line.split()[1]) for line in lines if line.startswith("iter ") and " | " in line]
    assert done == list(range(1, len(done) + 1)), lines  # no iter was done again
    assert any(line.startswith("preempted: SIGTERM at worker ") for line in lines), lines
    latest = latest_checkpoint(run_dir)
    assert latest is not None and latest.name == f"iter_{len(done):08d}"
    assert lines[-1] == f"stopped at iter {len(done)} by SIGTERM: the same command goes on from there"
    again = run_cli(*command, "--resume", env=QUICK)
    assert again.code == 0, again.stderr
    assert [entry["iter"] for entry in read_metrics(run_dir) if entry["kind"] == "train"] == list(
        range(1, 41)
    )
    weights, expected = final_weights(tmp_path), final_weights(undisturbed.folder)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_under_torchrun_too(data_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    _, *flags = arguments(data_dir, tmp_path, "--save-interval", 1000, "--max-iters", 4000)
    module = ("-m", "nanochat_tct.training.torchrun")
    process = start(tmp_path, *module, *flags, "--num-workers", 1)
    wait_for_iter(tmp_path / "run", 3, process)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    latest = latest_checkpoint(tmp_path / "run")
    assert latest is not None
    step = int(latest.name.removeprefix("iter_"))
    assert read_metrics(tmp_path / "run")[-1]["iter"] == step > 2
    assert f"stopped at iter {step} by " in (tmp_path / "printed").read_text()


def test_a_closed_output_saves_and_ends(data_dir: Path, tmp_path: Path) -> None:
    """`... | head -1` in the middle of training."""
    _, *flags = arguments(data_dir, tmp_path, "--save-interval", 1000, "--max-iters", 4000)
    process = subprocess.Popen(
        [sys.executable, "-m", "nanochat_tct.training.torchrun", *map(str, flags), "--num-workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    while not process.stdout.readline().startswith(b"iter 2 "):
        assert process.poll() is None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 141, errors
    assert b"Traceback" not in errors and b"Exception ignored" not in errors
    latest = latest_checkpoint(tmp_path / "run")
    assert latest is not None and int(latest.name.removeprefix("iter_")) >= 2


@pytest.mark.slow  # six Pythons with torch
def test_two_jobs_of_one_name_do_not_train_at_once(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under torchrun too, and whichever of the two ways the second one takes."""
    _, *flags = arguments(data_dir, tmp_path, "--max-iters", 4000)
    module = ("-m", "nanochat_tct.training.torchrun")
    process = start(tmp_path, *module, *flags, "--num-workers", 1)
    try:
        wait_for_iter(tmp_path / "run", 3, process)
        assert_user_error(
            run_python(*module, *flags), f"{tmp_path / 'run'}: another job trains under this name"
        )
        assert main([str(argument) for argument in ["train", *flags]]) == 2
        assert "another job trains under this name" in capsys.readouterr().err
        # Rank 0 alone holds the folder, and all ranks learn of it.
        launcher = ("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", 29657)
        both = run_python(*launcher, *module, *flags)
        assert both.code != 0
        assert both.stderr.count("error: ") == 1 and "another job trains under this name" in both.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_torchrun_gives_what_ray_gives(undisturbed: Undisturbed, data_dir: Path, tmp_path: Path) -> None:
    _, *flags = arguments(data_dir, tmp_path)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", 29653)
    result = run_python(*launcher, "-m", "nanochat_tct.training.torchrun", *flags)
    assert result.code == 0, result.stderr
    assert "\niter 40 | loss" in result.stdout
    weights, expected = final_weights(tmp_path), final_weights(undisturbed.folder)
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name


def test_wrong_use_is_one_line(undisturbed: Undisturbed, data_dir: Path, tmp_path: Path, capsys: Any) -> None:
    folder = undisturbed.folder
    other = small_store(tmp_path / "other", count=30)
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["tokenizer"]["fingerprint"] = "0" * 64
    manifest["sha256"] = manifest_sha256(manifest)
    (other / MANIFEST).write_text(json.dumps(manifest))
    flipped = small_store(tmp_path / "flipped", count=30)
    content = bytearray((flipped / TOKENS).read_bytes())
    content[len(content) // 2] ^= 1
    (flipped / TOKENS).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[list[object], str]] = [
        (arguments(data_dir, tmp_path, "--max-iters", 0), "--max-iters"),
        (arguments(data_dir, tmp_path, "--context-size", 0), "--context-size"),
        (arguments(data_dir, tmp_path, "--max-itres", 5), "--max-iters"),
        (arguments(data_dir, tmp_path, "--resume"), "no checkpoint"),
        (arguments(data_dir, tmp_path, "--use-gpu"), "no GPU"),
        (arguments(data_dir, tmp_path, "--tokenizer", tmp_path / "none"), "none"),
        (arguments(data_dir, folder, "--n-layer", 3), "n_layer"),
        (arguments(tmp_path / "nowhere", tmp_path), "nowhere"),
        (arguments(other, tmp_path), "tokenizer"),
        (arguments(flipped, tmp_path), "SHA-256"),
    ]
    for command, text in cases:
        if text == "no GPU" and torch.cuda.is_available():
            continue
        code = main([str(argument) for argument in command])
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0], lines
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_workers_that_this_machine_will_never_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waited for on a cluster, which may grow; here they are a mistake."""
    config = TrainConfig(num_workers=8, min_workers=4)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert worker_resources(config, {"CPU": 2.0}) == {"CPU": 1}
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(UserError, match="--num-workers 4 needs as many CPUs, and there are 2"):
        worker_resources(config, {"CPU": 2.0})


def test_nothing_is_prepared_for_a_run_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--n-head", "7", "--n-embd", "96"]) == 2
    assert "n_head" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
