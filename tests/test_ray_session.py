import socket

import pytest

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
