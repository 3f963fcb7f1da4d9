"""A cluster on this machine: a head and workers, started by the commands of a cluster file."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nanochat_tct.ray_session import ensure_token
from tests.support.cluster_files import original, start_commands
from tests.support.commands import REPOSITORY, Finished, free_port, run_python

START_SECONDS = 300
START_TRIES = 4


@dataclass
class RunningCluster:
    """Where it is, and the processes that run it; each node has its own loopback address and ports.

    Attributes:
        folder: of this cluster alone: `home` (with the token), `ray` (Ray's files and logs).
        nodes: `ray start --block` of head and workers.
    """

    folder: Path
    name: str
    port: int = 0
    dashboard_port: int = 0
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def token(self) -> str:
        return (self.folder / "home/.ray/auth_token").read_text()

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell has: the token in the home folder, and no address of a Ray."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {
            **kept,
            "HOME": str(self.folder / "home"),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "WANDB_MODE": "offline",
            "PYTHONPATH": "",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # of this environment's `ray`
        }

    def start_node(self, num_cpus: int = 1) -> None:
        """Starts the head, or one more worker, with the file's flags; ports and folders are this machine's."""
        kind = "worker" if self.nodes else "head"
        if kind == "head":
            self.port, self.dashboard_port = free_port(), free_port()
        values: dict[str, object] = {
            "--object-manager-port": free_port(),
            "--object-store-memory": 2**27,
            "--object-spilling-directory": self.folder / "spill",
            "--block": "",
            # Several nodes share a machine here, and no two may share a port.
            "--node-ip-address": f"127.0.0.{2 + len(self.nodes)}",
            "--num-cpus": num_cpus,
            "--min-worker-port": 0,
            "--max-worker-port": 0,
            # With a folder in common each node would unpack a job's files over those that the others run in.
            "--temp-dir": self.folder / f"ray{len(self.nodes)}",
        }
        if kind == "head":
            values |= {
                "--port": self.port,
                "--dashboard-port": self.dashboard_port,
                "--ray-client-server-port": free_port(),
                "--autoscaling-config": None,  # there is no cloud
            }
        else:
            values["--address"] = f"127.0.0.2:{self.port}"
        with open(self.folder / f"node-{len(self.nodes)}.log", "wb") as log:
            node = subprocess.Popen(
                ["bash", "-c", with_flags(start_commands(original(self.name))[kind], values)],
                env={**self.environment, "RAY_HEAD_IP": "127.0.0.2"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)

    def wait(self) -> bool:
        """Until the dashboard answers and every node is there. False when the last one ended instead."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.nodes[-1].poll() is not None:
                return False
            try:
                answer = self.get("/api/cluster_status")[1]
            except OSError:
                answer = ""
            if len(set(re.findall(r"node:127\.0\.0\.\d", answer))) == len(self.nodes):
                return True
            time.sleep(0.5)
        raise AssertionError(self.logs())

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("node-*.log")))

    def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        """Status and body of a request to the dashboard."""
        token = self.token if token is None else token
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ray(self, *arguments: object, timeout: float = 800, cwd: Path = REPOSITORY) -> Finished:
        """`ray ARGUMENTS`, as the user of this cluster types it."""
        environment = {**self.environment, "RAY_API_SERVER_ADDRESS": self.address}
        missing = dict.fromkeys(name for name in os.environ if name.startswith("RAY_"))
        return run_python(
            "-m", "ray.scripts.scripts", *arguments, timeout=timeout, env={**missing, **environment}, cwd=cwd
        )

    def submit(self, *entrypoint: object, options: tuple[str, ...] = (), timeout: float = 800) -> Finished:
        """`ray job submit --working-dir . -- ENTRYPOINT` in the repository."""
        return self.ray("job", "submit", "--working-dir", ".", *options, "--", *entrypoint, timeout=timeout)

    def stop_node(self, node: subprocess.Popen[bytes], sign: int = signal.SIGTERM) -> None:
        """Ends one node: politely, or with SIGKILL to all its processes at once."""
        if node.poll() is None:
            os.killpg(node.pid, sign)
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()


def with_flags(command: str, values: dict[str, object]) -> str:
    """A `ray start` command with other values of flags (None: without the flag); new flags come last."""
    for flag, value in values.items():
        given = "" if value is None else flag if value == "" else f"{flag}={shlex.quote(str(value))}"
        pattern = rf"{flag}(=\S+)?(?=\s|$)"
        command = re.sub(pattern, given, command) if re.search(pattern, command) else f"{command} {given}"
    return command


@contextmanager
def running_cluster(name: str, workers: int) -> Iterator[RunningCluster]:
    """A head and `workers` workers by the file `name`, all of it gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="rc", dir="/tmp"))  # short: sockets have a limit of 107 characters
    cluster = RunningCluster(folder, name)
    try:
        (folder / "home").mkdir()
        (folder / "spill").mkdir()
        ensure_token(folder / "home/.ray/auth_token")
        for _ in range(1 + workers):  # one after the other: Ray gives a node 30 s to start
            for _ in range(START_TRIES):
                cluster.start_node()
                if cluster.wait():
                    break
                assert "timed out during startup" in cluster.logs(), cluster.logs()
                cluster.stop_node(cluster.nodes.pop())  # a machine with much else to do; once more
            else:
                raise AssertionError(cluster.logs())
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            cluster.stop_node(node)
        shutil.rmtree(folder, ignore_errors=True)
