"""A local Ray wants its token, and a run on it is on loopback only. (Keys: training/test_launch.py.)"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import REPOSITORY, run_python
from tests.support.namespaces import SECOND_ADDRESS, alone, open_to_others
from tests.support.workers import small_run, small_store


def cannot_join(address: str, environment: dict[str, str]) -> str:
    """Why `start_ray` cannot join, in a process of its own: Ray reads how it authenticates when it is imported."""
    script = "from nanochat_tct.ray_session import start_ray; start_ray()"
    result = run_python("-c", script, env={"RAY_ADDRESS": address, **environment})
    last, begins = result.stderr.splitlines()[-1], f"UserError: cannot join Ray at RAY_ADDRESS={address}: "
    assert result.code == 1 and begins in last, result.stderr
    return last.partition(begins)[2]


def test_a_ray_that_wants_its_token(ray_session: Any, tmp_path: Path) -> None:
    """As a local one does, also when it is found by `auto` (where it is the only one)."""
    address = ray_session.get_runtime_context().gcs_address
    wants = "it requires a token, and got none or another one: export RAY_AUTH_MODE=token"
    assert cannot_join(address, {"RAY_AUTH_MODE": "disabled"}).startswith(wants)
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    assert cannot_join(address, wrong).startswith(wants)
    none = {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    assert "couldn't find an authentication token" in cannot_join(address, none)


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
    run = small_run(
        small_store(tmp_path / "store"), tmp_path, max_iters=200, wandb="offline", tensorboard=True
    )
    script = f"getent hosts $(hostname)\n{sys.executable} -m nanochat_tct.cli {' '.join(run)}"
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
