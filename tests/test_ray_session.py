"""Ray that is started here (one with a run on it: training/test_launch.py), and addresses at which none is joined."""

import http.server
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct import ray_session
from nanochat_tct.errors import UserError
from tests.support.commands import run_python

pytestmark = pytest.mark.processes


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `start_ray` raises in this process, if a Ray that it may have already does not count."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def start(**environment: object) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        begin = time.monotonic()
        with pytest.raises(UserError) as raised:
            ray_session.start_ray()
        assert time.monotonic() - begin < 30 and "\n" not in str(raised.value)
        return str(raised.value)

    return start


@pytest.fixture
def cannot_join(refusal: Callable[..., str]) -> Callable[[str], str]:
    """The reason that it gives at an address."""

    def reason(address: str) -> str:
        message, begins = refusal(RAY_ADDRESS=address), f"cannot join Ray at RAY_ADDRESS={address}: "
        assert message.startswith(begins) and message.endswith("; unset it to run locally")
        return message.removeprefix(begins).removesuffix("; unset it to run locally")

    return reason


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:{port}", "Connection refused"),
        ("ray://127.0.0.1:{port}", "Connection refused"),
        ("nonsense", "nonsense"),
        ("http://127.0.0.1:{port}", "Invalid address format"),
        ("nobody.invalid:6379", "its name cannot be resolved"),
    ],
)
def test_nobody_at_the_address(address: str, reason: str, cannot_join: Callable[[str], str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
    assert reason in cannot_join(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_answers_is_silent(
    scheme: str, cannot_join: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_session, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        assert cannot_join(address) == "no Ray answers there within 2 s"


def test_what_answers_is_a_web_server(cannot_join: Callable[[str], str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert cannot_join(f"127.0.0.1:{server.server_port}") == "what answers there is not Ray"
        finally:
            server.shutdown()
            thread.join()


def test_what_answers_is_another_ray(cannot_join: Callable[[str], str]) -> None:
    """There is none to install, so its answer is made up; it comes as Ray's does."""
    import grpc  # type: ignore[import-untyped]
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    class Older(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):  # type: ignore[misc]
        def CheckAlive(self, request: Any, context: Any) -> Any:
            return gcs_service_pb2.CheckAliveReply(ray_version="2.9.0")  # type: ignore[attr-defined]

    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Older(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert cannot_join(f"127.0.0.1:{port}").startswith("Ray 2.9.0 answers there, and this is Ray ")
    finally:
        server.stop(None)


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets(
    name: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / ("x" * 60)
    pattern = rf"{name}={folder} is \d+ bytes too long for the sockets that Ray"
    assert re.match(pattern, refusal(**{name: folder}))
    assert not folder.exists()


@pytest.mark.parametrize("folder", ["/proc/none", "/etc/passwd"])
def test_a_temporary_folder_that_cannot_be_written(folder: str, refusal: Callable[..., str]) -> None:
    assert refusal(RAY_TMPDIR=folder).startswith(f"Ray cannot keep its files in RAY_TMPDIR={folder} (")


GROWING = """
import threading, os
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
import ray
ray.init(address=cluster.address, logging_level="ERROR")
from nanochat_tct import ray_session
ray_session.WAIT_POLL_SECONDS = 0.2
try:
    ray_session.wait_for_gpus(2, 0.01, print)
except ValueError as error:
    print("error:", error)
waiting = threading.Thread(target=ray_session.wait_for_gpus, args=(2, 3.0, print))
waiting.start()
for _ in range(2):
    cluster.add_node(num_cpus=1, num_gpus=1)
waiting.join()
print("there")
ray_session.wait_for_gpus(2, 0.01, print)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_gpus_are_waited_for_and_seen_when_they_come() -> None:
    """On a cluster of several nodes, which grows meanwhile (as it would with an autoscaler)."""
    result = run_python("-c", GROWING, env={"RAY_ADDRESS": ""})
    assert result.code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith(("waiting", "error", "there"))]
    assert lines[0] == "waiting for 2 GPUs; cluster has 0 of 2 (0 min)"
    assert lines[1].startswith(
        "error: waited 0.01 minutes for 2 GPUs; the cluster has 0 of 2. Take a smaller"
    )
    assert lines[2] == "waiting for 2 GPUs; cluster has 0 of 2 (0 min)"
    assert lines[-1] == "there", "and no line when they are there from the start"


def test_a_wait_for_a_place_is_told_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: what is free and placed in each second stands in `happens`."""
    import ray

    def watch(happens: list[tuple[int, list[Any]]], minutes: float) -> list[tuple[int, str]]:
        """Lines that were said, with their seconds."""
        clock, said = iter(range(0, 1000, 2)), []
        now = 0

        def is_over(seconds: float) -> bool:
            nonlocal now
            now = next(clock)
            return now >= len(happens)

        monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": happens[now][0], "GPU": 2.0})
        monkeypatch.setattr(ray_session, "_placement_groups", lambda: happens[now][1])
        monkeypatch.setattr(ray_session.time, "monotonic", lambda: now)
        try:
            resources = {"CPU": 0.5, "GPU": 1}
            ray_session.watch_workers(2, resources, minutes, lambda line: said.append((now, line)), is_over)
        except UserError as error:
            said.append((now, f"error: {error}"))
        return said

    nodes = [{"NodeID": each, "Alive": True, "NodeManagerAddress": f"10.0.0.{each}"} for each in "12"]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_session.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    complete = {
        "state": "CREATED",
        "bundles_to_node_id": {0: "1", 1: "2"},
        "stats": {"scheduling_state": "FINISHED"},
    }
    starting, lacking, training = (1, []), (0, []), (0, [complete])
    assert watch([starting] * 50 + [training] * 400, minutes=0) == [], "slow to start, and no place is left"
    assert watch([lacking] * 8 + [training] * 100 + [lacking] * 8 + [training], minutes=0) == []
    line = (
        "waiting for 2 workers with 0.5 CPU and 1 GPU each; the cluster has 0 of 4 CPUs and 2 of 2 GPUs free"
    )
    said = watch([training] * 301 + [lacking] * 80 + [training] * 100 + [lacking] * 20, minutes=2)
    assert said == [
        (310, f"{line} (0 min)"), (342, f"{line} (1 min)"), (374, f"{line} (1 min)"), (490, f"{line} (0 min)")
    ]  # fmt: skip
    said = watch([lacking] * 80, minutes=0.5)
    assert [second for second, _ in said] == [10, 32]
    assert said[1][1].startswith("error: waited 0.5 minutes for 2 workers with 0.5 CPU and 1 GPU each; the ")
    assert "--num-workers" in said[1][1] and said[1][1].endswith("--wait-minutes")
    ((second, line),) = watch([starting] * 80, minutes=30)
    free = "1 of 4 CPUs and 2 of 2 GPUs free"
    assert second == 60 and f"{free}, and Ray Train has not asked for them yet (1 min)" in line

    def pending(state: str) -> tuple[int, list[Any]]:
        return 1, [{"state": "PENDING", "stats": {"scheduling_state": state}}]

    ((_, line),) = watch([pending("NO_RESOURCES")] * 80, minutes=30)
    assert f"{free}, and no single machine has enough of it for one worker (1 min)" in line
    monkeypatch.setattr(ray_session.os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    ((_, line),) = watch([pending("QUEUED")] * 80, minutes=30)
    assert f"{free}, and Ray is placing the workers; this machine is busy (load 1000 on " in line


IN_PIECES = """
import threading
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
import ray
ray.init(address=cluster.address, logging_level="ERROR")
from nanochat_tct import ray_session
ray_session.START_SECONDS = 3
group = ray.util.placement_group([{"CPU": 2}])
over = threading.Event()
def say(line):
    print(line)
    over.set()
ray_session.watch_workers(1, {"CPU": 2}, 30, say, over.wait)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_what_is_free_in_pieces_is_told() -> None:
    result = run_python("-c", IN_PIECES, env={"RAY_ADDRESS": ""})
    assert result.code == 0, result.stderr
    told = "the cluster has 2 of 2 CPUs free, and no single machine has enough of it for one worker"
    assert f"waiting for 1 workers with 2 CPU each; {told} (0 min)\n" in result.stdout, result.stdout


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ray gives a node 30 s to start. That cannot be had here at will, so its error is made up."""
    import ray

    tried = []

    def busy(**settings: object) -> None:
        tried.append(settings)
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "init", busy)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match="this machine is too busy"):
        ray_session.start_ray()
    assert len(tried) == ray_session.START_TRIES
    assert capsys.readouterr().err.count("once more") == ray_session.START_TRIES - 1


SLOW = """
import psutil
import ray._private.services
from nanochat_tct.ray_session import start_ray
get_node, first = ray._private.services.get_node, []

def slow(address, node_id):
    first.append(node_id)
    if node_id == first[0]:
        raise RuntimeError("not yet")
    return get_node(address, node_id)

ray._private.services.get_node = slow
start_ray(num_cpus=1)
assert len(set(first)) == 2, "the second node was taken"
print(*(child.name() for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE))
"""


@pytest.mark.slow
def test_a_ray_that_did_not_start_in_time_is_ended() -> None:
    """Before the next try, which it would slow down. The first one here is never seen to be there."""
    result = run_python("-c", SLOW, env={"RAY_ADDRESS": ""})
    assert result.code == 0, result.stderr
    assert "Ray did not start within its 30 s" in result.stderr
    assert result.stdout.split().count("gcs_server") == 1, result.stdout
    assert result.stdout.split().count("raylet") == 1, result.stdout


FULL = """
import ray
from nanochat_tct import ray_session
ray_session.OBJECT_STORE_BYTES = 80 * 2**20
ray_session.start_ray(num_cpus=2)
held = [ray.put(bytes(10 * 2**20)) for _ in range(7)]

def large(batch):
    import pyarrow as pa
    return pa.table({"a": pa.array([bytes(20 * 2**20)], pa.binary())})

import pyarrow as pa
import ray.data
data = ray.data.from_arrow([pa.table({"a": [i]}) for i in range(4)]).map_batches(large, batch_format="pyarrow")
with ray_session.user_errors():
    for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
        held.append(ray.put(table))
"""


@pytest.mark.slow
def test_a_full_object_store_is_told() -> None:
    """Somebody holds most of it, and the disk that it would spill to counts as full."""
    environment = {"RAY_ADDRESS": "", "RAY_local_fs_capacity_threshold": "0"}
    result = run_python("-c", FULL, env=environment)
    assert result.code == 1
    last = result.stderr.splitlines()[-1]
    assert "StorageError: Ray's object store is full, and so is the disk that it spills to" in last, (
        result.stderr
    )


ASK_ITSELF = """
from nanochat_tct.ray_session import start_ray
start_ray(num_cpus=1, with_dashboard=True)
import ray
from ray.util.state import list_nodes

@ray.remote(num_cpus=0)
def nodes():
    return len(list_nodes())

print(len(list_nodes()), ray.get(nodes.remote()))
"""


@pytest.mark.slow
def test_rays_started_here_at_once_are_asked_and_not_the_cluster_of_the_shell() -> None:
    """Ray Train and Tune ask the state API about their own workers, also in a shell that submits jobs elsewhere."""
    environment = {"RAY_ADDRESS": "", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(run_python, "-c", ASK_ITSELF, env=environment) for _ in range(2)]
    for result in (each.result() for each in started):
        assert result.code == 0, result.stderr
        assert result.stdout.split() == ["1", "1"]
