"""What a local Ray opens: loopback only. (That no key is written down: training/test_launch.py.)"""

import os
from pathlib import Path

import pytest

from tests.helpers import run_python

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
