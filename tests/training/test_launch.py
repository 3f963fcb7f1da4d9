"""`train` on Ray: a killed worker, a killed driver, wrong use; and under torchrun, without Ray."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from nanochat_tct.cli import main
from nanochat_tct.data.store import TOKENS
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.model.checkpoint import exclusive, latest_checkpoint, latest_step, load_checkpoint
from nanochat_tct.ray_session import SESSION_BYTES, SOCKET_PATH_BYTES
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training import torchrun
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.ray_driver import worker_resources
from tests.support.commands import Finished, assert_user_error, run_cli, run_python
from tests.support.killed_node import wait_for
from tests.support.workers import ForkedProcess, descendants, sign, small_run, small_store

pytestmark = pytest.mark.processes
ITERS = 120  # seconds on two cores: a signal must come before the end on a busy machine too
FEW = 40  # where no signal comes
RUN: dict[str, Any] = {"max_iters": ITERS, "save_interval": 5, "eval_interval": 20, "log_interval": 1}
RUN |= {"num_workers": 2, "dropout": 0.1}
LONG: dict[str, Any] = {"max_iters": 4000, "save_interval": 1000, "num_workers": 1}
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
# Ray would not look at its workers for two seconds.
QUICK = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
TORCHRUN = ("-m", "nanochat_tct.training.torchrun")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *TORCHRUN)


def arguments(data_dir: Path, folder: Path, **changes: object) -> list[str]:
    return small_run(data_dir, folder, **{**RUN, **changes})


def run_dir(folder: Path) -> Path:
    return folder / "checkpoints" / "run"


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(run_dir(folder))
    assert path is not None and path.name == f"iter_{ITERS:08d}", path
    return load_checkpoint(path).weights()


def trained_iters(folder: Path) -> list[int]:
    return [entry["iter"] for entry in read_metrics(run_dir(folder)) if entry["kind"] == "train"]


class Undisturbed(NamedTuple):
    """A run of two workers on local Ray that nothing happens to, with a W&B key in its environment."""

    folder: Path
    result: Finished
    ray_folder: Path
    home: Path

    @property
    def printed(self) -> str:
        return self.result.stdout + self.result.stderr

    def assert_equals(self, folder: Path) -> None:
        """Another run has come to the same weights, and its log has no iter twice."""
        weights, expected = final_weights(folder), final_weights(self.folder)
        assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
        assert trained_iters(folder) == list(range(1, ITERS + 1))


@contextmanager
def train_undisturbed(
    data_dir: Path, tmp_path_factory: Any, iters: int, *program: str
) -> Iterator[Undisturbed]:
    """Ray's temporary folder is just short enough for its sockets: the limit is Ray's, not a guess."""
    folder, home = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("home")
    # All that a run writes.
    everything = {"wandb": "auto", "tensorboard": True, "num_samples": 1, "max_iters": iters}
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        ray_folder = Path(short, "x" * (SOCKET_PATH_BYTES - SESSION_BYTES - len(short) - 1))
        environment = {
            **QUICK,
            "RAY_ADDRESS": "",
            "RAY_TMPDIR": str(ray_folder),
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # as `train` sets it before it starts a Ray
            "HOME": str(home),
            "WANDB_MODE": "offline",
            "WANDB_API_KEY": WANDB_KEY,
            # Without what an earlier start in this process has set: ports are chosen anew.
            **dict.fromkeys(("DASHBOARD_METRIC_PORT", "AUTOSCALER_METRIC_PORT")),
        }
        result = run_python(*program, *arguments(data_dir, folder, **everything), env=environment)
        assert result.code == 0, result.stderr
        yield Undisturbed(folder, result, ray_folder, home)


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, tmp_path_factory: Any) -> Iterator[Undisturbed]:
    """What the slow tests compare with."""
    with train_undisturbed(data_dir, tmp_path_factory, ITERS, "-m", "nanochat_tct.cli") as run:
        yield run


# A Ray that says what it is before `train` runs on it.
STARTED = """
import os
import sys
import psutil
from nanochat_tct.cli import main
from nanochat_tct.ray_session import start_ray
start_ray(num_cpus=2)
start_ray()  # once is enough
import ray
node = ray.nodes()[0]
assert os.environ["RAY_ADDRESS"] == ""
assert ray.get(ray.remote(os.getenv).remote("RAY_ADDRESS")) == ray.get_runtime_context().gcs_address
print(len(ray.nodes()), node["NodeManagerAddress"], node["Resources"]["CPU"], node["Resources"]["object_store_memory"])
assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)  # workers are not niced
ray.get([ray.remote(lambda: os.getpid()).remote() for _ in range(4)])  # so that there are workers
me = psutil.Process()
processes = [me, *me.children(recursive=True)]
print("processes", *{process.name() for process in processes})
for process in processes:
    try:
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:
        continue
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN:
            print("listens", connection.laddr.ip, connection.laddr.port)
print("it is started", file=sys.stderr)
code = main(sys.argv[1:])
print("actors", *{actor["ActorClassName"] for actor in ray._private.state.actors().values()})
sys.exit(code)
"""


@pytest.fixture(scope="module")
def short(data_dir: Path, tmp_path_factory: Any) -> Iterator[Undisturbed]:
    with train_undisturbed(data_dir, tmp_path_factory, FEW, "-c", STARTED) as run:
        yield run


def test_started_here_on_loopback_with_a_bounded_store(short: Undisturbed) -> None:
    nodes, address, cpus, store = short.result.stdout.splitlines()[0].split()
    assert (nodes, address, cpus) == ("1", "127.0.0.1", "2.0")
    assert float(store) <= 2 * 2**30
    while_starting, marker, _ = short.result.stderr.partition("it is started\n")
    assert marker and "WARNING" not in while_starting
    assert re.fullmatch(r"starting Ray \.\.\. \d+\.\d s\n", while_starting), while_starting
    assert re.search(r"^starting 2 workers \.\.\.\nworkers started in \d+\.\d s$", short.result.stdout, re.M)


def test_a_run_has_no_more_processes_than_it_needs(short: Undisturbed) -> None:
    """Ray Train would start six actors for two workers, each of which imports it."""
    *_, actors = short.result.stdout.splitlines()
    assert sorted(actors.split()) == sorted(
        ["actors", "DriverChannel", "RayTrainWorker", "SynchronizationActor"]
    )


# What `ray start --head` needs: the GCS, the dashboard, its agent, the Ray client server, two exporters of metrics
FIXED_PORTS = {6379, 8265, 52365, 10001, 44217, 44227}


@pytest.mark.skipif(not os.path.isdir("/proc/self/net"), reason="no /proc here")
def test_a_local_ray_listens_on_loopback_only(short: Undisturbed) -> None:
    """By the kernel's own table, for every process of that Ray."""
    lines = [line.split() for line in short.result.stdout.splitlines()[1:]]
    assert {"raylet", "gcs_server"} <= set(lines[0][1:]), lines[0]
    listening = {(line[1], int(line[2])) for line in lines[1:] if line[:1] == ["listens"]}
    addresses = {address for address, _ in listening}
    assert "127.0.0.1" in addresses, "it found those that listen"
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert {port for _, port in listening} & FIXED_PORTS == set(), (lines, short.result.stderr[:500])
    assert (short.home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_no_key_is_written_down(short: Undisturbed) -> None:
    """Neither that of W&B nor Ray's is in a file, or in anything that was printed."""
    folders = (short.folder, short.ray_folder, short.home)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "gcs_server.out" for path in files), "these are Ray's logs"
    assert any(path.name == "model.safetensors" for path in files)
    assert any(path.suffix == ".wandb" for path in files), "W&B wrote its files"
    token = short.home / ".ray/auth_token"
    for secret in (WANDB_KEY.encode(), token.read_bytes()):
        assert [path for path in files if path != token and secret in path.read_bytes()] == []
        assert secret.decode() not in short.printed


def test_two_workers_on_local_ray(
    short: Undisturbed, data_dir: Path, run_here: Callable[..., Finished]
) -> None:
    printed = short.printed
    assert re.search(r"^iter 40 \| loss \d\.\d+ \| lr ", printed, re.MULTILINE)
    before, after = re.search(r"per byte: (\S+) before, (\S+) after", printed).groups()  # type: ignore[union-attr]
    assert float(after) < 0.8 * float(before)
    assert "parameters" in printed and "checkpoint: " in printed
    assert not re.search(r"^waiting .* free \(", printed, re.MULTILINE)  # nothing was ever lacking
    again = run_here(*arguments(data_dir, short.folder, max_iters=FEW))
    assert again.code == 0 and "nothing to do" in again.stdout, again.stderr


def wait_for_iter(iters: int, process: Any, folder: Path) -> None:
    """Come back when the log of the run goes to that iter."""
    wait_for(lambda: max(trained_iters(folder), default=0) >= iters, process, folder)


def training_processes(driver: int) -> list[int]:
    """The Ray Train workers that a driver started."""
    return [
        pid for pid in descendants(driver) if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def start(folder: Path, *command: object) -> "subprocess.Popen[bytes]":
    """A command in the background; what it prints goes to the file `printed`."""
    with open(folder / "printed", "wb") as printed:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, **QUICK},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow  # Ray starts twice, and workers three times
def test_killed_worker_and_killed_driver_change_nothing(
    undisturbed: Undisturbed, data_dir: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, "-m", "nanochat_tct.cli", *arguments(data_dir, tmp_path))
    wait_for_iter(8, process, tmp_path)
    workers = training_processes(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    wait_for((run_dir(tmp_path) / "iter_00000015").exists, process, tmp_path)  # by itself it went on
    lines = (tmp_path / "printed").read_text().splitlines()
    assert sum(line.startswith("iter 6 |") for line in lines) == 2, lines  # from the checkpoint of iter 5
    workers = training_processes(process.pid)
    process.kill()
    process.wait()
    assert not (run_dir(tmp_path) / f"iter_{ITERS:08d}").exists()

    again = run_cli(*arguments(data_dir, tmp_path, resume=True), env=QUICK)
    assert again.code == 0, again.stderr
    assert "going on from iter" in again.stdout
    undisturbed.assert_equals(tmp_path)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "workers outlived their driver"


@pytest.mark.slow  # Ray starts three times; the same under torchrun is below
def test_sigterm_saves_and_loses_nothing(undisturbed: Undisturbed, data_dir: Path, tmp_path: Path) -> None:
    """One to a worker: all save, and are started again. One to the driver: all save, and it is the end for now."""
    changes = {"save_interval": 1000, "eval_interval": 1000}
    process = start(tmp_path, "-m", "nanochat_tct.cli", *arguments(data_dir, tmp_path, **changes))
    wait_for_iter(3, process, tmp_path)
    os.kill(training_processes(process.pid)[1], signal.SIGTERM)
    wait_for(lambda: latest_step(run_dir(tmp_path)), process, tmp_path)
    wait_for_iter(latest_step(run_dir(tmp_path)) + 2, process, tmp_path)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    lines = (tmp_path / "printed").read_text().splitlines()
    done = [int(line.split()[1]) for line in lines if line.startswith("iter ") and " | " in line]
    assert done == list(range(1, len(done) + 1)), lines  # no iter was done again
    assert any(line.startswith("preempted: SIGTERM at worker ") for line in lines), lines
    assert latest_step(run_dir(tmp_path)) == len(done)
    assert lines[-1] == f"stopped at iter {len(done)} by SIGTERM: the same command goes on from there"
    again = run_cli(*arguments(data_dir, tmp_path, resume=True, **changes), env=QUICK)
    assert again.code == 0, again.stderr
    undisturbed.assert_equals(tmp_path)


def torchrun_into(printed: Path, flags: list[str]) -> None:
    """What `python -m nanochat_tct.training.torchrun` does, in a forked process."""
    with open(printed, "wb") as output:
        os.dup2(output.fileno(), 1)
    sys.exit(exit_code(lambda: torchrun.command(flags)))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_under_torchrun_too(data_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    _, *flags = arguments(data_dir, tmp_path, **LONG)
    process = ForkedProcess(torchrun_into, tmp_path / "printed", flags)
    wait_for_iter(3, process, tmp_path)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    step = latest_step(run_dir(tmp_path))
    assert read_metrics(run_dir(tmp_path))[-1]["iter"] == step > 2
    assert f"stopped at iter {step} by " in (tmp_path / "printed").read_text()


@pytest.mark.slow  # a Python with torch; what a terminal and the commands do is in test_terminal.py and test_cli.py
def test_a_closed_output_saves_and_ends(data_dir: Path, tmp_path: Path) -> None:
    """`... | head -1` in the middle of training."""
    _, *flags = arguments(data_dir, tmp_path, **LONG)
    process = subprocess.Popen(
        [sys.executable, *TORCHRUN, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    while not process.stdout.readline().startswith(b"iter 2 "):
        assert process.poll() is None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 141, errors
    assert b"Traceback" not in errors and b"Exception ignored" not in errors
    assert latest_step(run_dir(tmp_path)) >= 2


def test_a_run_of_another_job_is_refused_before_ray_starts(
    data_dir: Path, tmp_path: Path, run_here: Callable[..., Finished]
) -> None:
    with exclusive(run_dir(tmp_path)):
        result = run_here(*arguments(data_dir, tmp_path))
    assert_user_error(result, "another job trains under this name")
    assert "starting" not in result.stderr


@pytest.mark.slow  # five Pythons with torch
def test_two_jobs_of_one_name_do_not_train_at_once(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under torchrun too, and whichever of the two ways the second one takes."""
    command = arguments(data_dir, tmp_path, **LONG)
    process = ForkedProcess(torchrun_into, tmp_path / "printed", command[1:])
    try:
        wait_for_iter(3, process, tmp_path)
        told = f"{run_dir(tmp_path)}: another job trains under this name"
        assert_user_error(run_python(*TORCHRUN, *command[1:]), told)
        assert main(command) == 2
        assert told in capsys.readouterr().err
        # Rank 0 alone holds the folder, and all ranks learn of it.
        both = run_python(*TWO, *command[1:])
        assert both.code != 0 and both.stderr.count("error: ") == 1 and told in both.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_torchrun_gives_what_ray_gives(undisturbed: Undisturbed, data_dir: Path, tmp_path: Path) -> None:
    _, *flags = arguments(data_dir, tmp_path)
    result = run_python(*TWO, *flags)
    assert result.code == 0, result.stderr
    assert f"\niter {ITERS} | loss" in result.stdout
    undisturbed.assert_equals(tmp_path)


def test_wrong_use_is_one_line(short: Undisturbed, data_dir: Path, tmp_path: Path, capsys: Any) -> None:
    other = small_store(tmp_path / "other", count=30)
    sign(other, tokenizer={"fingerprint": "0" * 64})
    flipped = small_store(tmp_path / "flipped", count=30)
    content = bytearray((flipped / TOKENS).read_bytes())
    content[len(content) // 2] ^= 1
    (flipped / TOKENS).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[list[str], str]] = [
        (arguments(data_dir, tmp_path, max_iters=0), "--max-iters"),
        (arguments(data_dir, tmp_path, context_size=0), "--context-size"),
        (arguments(data_dir, tmp_path, max_itres=5), "--max-iters"),
        (arguments(data_dir, tmp_path, resume=True), "no checkpoint"),
        (arguments(data_dir, tmp_path, use_gpu=True), "no GPU"),
        (arguments(data_dir, tmp_path, tokenizer=tmp_path / "none"), "none"),
        (arguments(data_dir, short.folder, n_layer=3), "n_layer"),
        (arguments(tmp_path / "nowhere", tmp_path), "nowhere"),
        (arguments(other, tmp_path), "tokenizer"),
        (arguments(flipped, tmp_path), "SHA-256"),
    ]
    for command, text in cases:
        if text == "no GPU" and torch.cuda.is_available():
            continue
        code = main(command)
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
