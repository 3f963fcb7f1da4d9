"""What a local run opens, and what it tells: loopback only, and no secrets."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.helpers import run_python
from tests.training.workers import small_store

WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
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
            print("listens", table, columns[1].split(":")[0])
"""
LOOPBACK = {
    ("tcp", "0100007F"),
    ("tcp6", "00000000000000000000000001000000"),
    ("tcp6", "0000000000000000FFFF00000100007F"),  # 127.0.0.1, as IPv6 writes it
}


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
    token = tmp_path / ".ray/auth_token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_no_key_is_written_down(tmp_path: Path) -> None:
    """A W&B key in the environment, a run on two workers: it is in no file, and in nothing that was printed."""
    data_dir = small_store(tmp_path / "data")
    ray_dir = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets have a limit of 107 characters
    shape = "--n-layer 2 --n-head 2 --n-embd 16 --context-size 32 --batch-size 4 --max-iters 2".split()
    result = run_python(
        *("-m", "nanochat_tct.cli", "train", "--data-dir", data_dir, *shape, "--eval-iters", 1),
        cwd=tmp_path,
        env={
            "WANDB_API_KEY": WANDB_KEY,
            "WANDB_MODE": "offline",
            "RAY_ADDRESS": "",
            "RAY_TMPDIR": str(ray_dir),
            "HOME": str(tmp_path / "home"),
        },
    )
    assert result.code == 0, result.stderr
    files = [path for folder in (tmp_path, ray_dir) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "gcs_server.out" for path in files), "these are Ray's logs"
    assert any(path.name == "model.safetensors" for path in files)
    assert any(path.suffix == ".wandb" for path in files), "W&B wrote its files"
    secrets = [WANDB_KEY.encode()]
    token = tmp_path / "home/.ray/auth_token"
    secrets.append(token.read_bytes())
    for secret in secrets:
        assert [path for path in files if path != token and secret in path.read_bytes()] == []
        assert secret.decode() not in result.stdout + result.stderr
    shutil.rmtree(ray_dir)
