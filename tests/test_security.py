"""What a local Ray opens: loopback only, on free ports. (That no key is written down: training/test_launch.py.)"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, run_python
from tests.support.namespaces import SECOND_ADDRESS, alone, open_to_others
from tests.support.workers import small_store

LISTENING = """
import os, psutil
from nanochat_tct.ray_session import start_ray
start_ray(num_cpus=2)
import ray
ray.get([ray.remote(lambda: os.getpid()).remote() for _ in range(4)])  # so that there are workers
me = psutil.Process()
processes = [me, *me.children(recursive=True)]
print("processes", len(processes), " ".join(sorted({process.name() for process in processes})))
inodes = set()
for process in processes:
    folder = f"/proc/{process.pid}/fd"
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/self/net/{table}").readlines()[1:]:
        columns = line.split()
        if columns[3] == "0A" and columns[9] in inodes:  # LISTEN
            print("listens", table, *columns[1].split(":"))
"""
LOOPBACK = {
    ("tcp", "0100007F"),
    ("tcp6", "00000000000000000000000001000000"),
    ("tcp6", "0000000000000000FFFF00000100007F"),  # 127.0.0.1, as IPv6 writes it
}

# Of `ray start --head`: the GCS, the dashboard, its agent, the Ray client server, two exporters of metrics
FIXED_PORTS = {6379, 8265, 52365, 10001, 44217, 44227}


@pytest.mark.skipif(not os.path.isdir("/proc/self/net"), reason="no /proc here")
def test_a_local_ray_listens_on_loopback_only(tmp_path: Path) -> None:
    """By the kernel's own table, for every process of that Ray."""
    result = run_python("-c", LISTENING, env={"RAY_ADDRESS": "", "HOME": str(tmp_path)})
    assert result.code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert {"raylet", "gcs_server"} <= set(lines[0][2:]), lines[0]
    listening = {(line[1], line[2]) for line in lines if line[0] == "listens"}
    assert ("tcp", "0100007F") in listening, "it found those that listen"
    assert listening - LOOPBACK == set()
    ports = {int(line[3], 16) for line in lines if line[0] == "listens"}
    assert ports & FIXED_PORTS == set(), "a cluster of `ray start` needs these"
    token = tmp_path / ".ray/auth_token"
    assert token.stat().st_mode & 0o777 == 0o600


# Torch takes the address of this machine's name, which is then the second one.
HOST_NAME = f"""
hosts=$(mktemp)
printf '127.0.0.1 localhost\\n{SECOND_ADDRESS} %s\\n' $(hostname) > $hosts
mount --bind $hosts /etc/hosts
"""


def test_who_listens_on_another_address_is_seen(tmp_path: Path) -> None:
    """As what follows relies on."""
    listen = "import socket, time; socket.create_server(('', 7000)), time.sleep(2)"
    listening = tmp_path / "listening"
    subprocess.run(alone(f'{sys.executable} -c "{listen}"', listening), check=True)
    assert {line.split()[3] for line in open_to_others(listening)} == {"0.0.0.0:7000"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_local_run_listens_on_loopback_only(tmp_path: Path) -> None:
    """On a machine with another address: Ray, torch on its workers, and the trackers."""
    flags = (
        "--n-layer 1 --n-head 2 --n-embd 16 --context-size 32 --batch-size 4 --max-iters 200 --eval-iters 1"
    )
    flags += " --num-samples 0 --wandb offline --run-name run"
    places = f"--data-dir {small_store(tmp_path / 'store')} --checkpoint-dir {tmp_path} --log-dir {tmp_path}"
    script = f"getent hosts $(hostname)\n{sys.executable} -m nanochat_tct.cli train {places} {flags}"
    listening = tmp_path / "listening"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        alone(HOST_NAME + script, listening),
        env={**environment, "HOME": str(tmp_path), "RAY_TMPDIR": "/tmp", "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.startswith(SECOND_ADDRESS), "torch would take the address of this name"
    seen = listening.read_text()
    assert "gcs_server" in seen and "RayTrainW" in seen, "it found those that listen"
    assert open_to_others(listening) == set()
