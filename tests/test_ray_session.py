import socket

import pytest

from nanochat_tct.errors import UserError
from tests.helpers import run_python

SHOW = """
from nanochat_tct.ray_session import start_ray
start_ray(num_cpus=2)
start_ray()  # once is enough
import ray
node = ray.nodes()[0]
import os
assert os.environ["RAY_ADDRESS"] == ""
assert ray.get(ray.remote(os.getenv).remote("RAY_ADDRESS")) == ray.get_runtime_context().gcs_address
print(len(ray.nodes()), node["NodeManagerAddress"], node["Resources"]["CPU"], node["Resources"]["object_store_memory"])
"""


def test_started_here_on_loopback_with_a_bounded_store() -> None:
    result = run_python("-c", SHOW, env={"RAY_ADDRESS": ""})
    assert result.code == 0, result.stderr
    nodes, address, cpus, store = result.stdout.split()
    assert (nodes, address, cpus) == ("1", "127.0.0.1", "2.0")
    assert float(store) <= 2 * 2**30
    assert "WARNING" not in result.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:{port}", "Connection refused"),
        ("ray://127.0.0.1:{port}", "Connection refused"),
        ("nonsense", "nonsense"),
    ],
)
def test_nobody_at_the_address(address: str, reason: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
    result = run_python("-c", SHOW, env={"RAY_ADDRESS": address})
    assert result.code == 1
    last = result.stderr.splitlines()[-1]
    assert "UserError: cannot join Ray at RAY_ADDRESS=" + address in last
    assert reason in last
    assert last.endswith("; unset it to run locally")


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

    from nanochat_tct import ray_session

    def watch(happens: list[tuple[int, bool]], minutes: float) -> list[tuple[int, str]]:
        """Lines that were said, with their seconds."""
        clock, said = iter(range(0, 1000, 2)), []
        now = 0

        def is_over(seconds: float) -> bool:
            nonlocal now
            now = next(clock)
            return now >= len(happens)

        monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": happens[now][0], "GPU": 2.0})
        monkeypatch.setattr(ray_session, "_has_place", lambda: happens[now][1])
        monkeypatch.setattr(ray_session.time, "monotonic", lambda: now)
        try:
            resources = {"CPU": 0.5, "GPU": 1}
            ray_session.watch_workers(2, resources, minutes, lambda line: said.append((now, line)), is_over)
        except UserError as error:
            said.append((now, f"error: {error}"))
        return said

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    starting, lacking, training = (1, False), (0, False), (0, True)
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
    assert second == 60 and "1 of 4 CPUs and 2 of 2 GPUs free, perhaps in pieces or promised" in line


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ray gives a node 30 s to start. That cannot be had here at will, so its error is made up."""
    import ray

    from nanochat_tct import ray_session

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
