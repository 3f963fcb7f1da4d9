"""What `start_ray` says of an address where it cannot join a Ray."""

import time

from tests.support.commands import run_python

ON_LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"
}  # otherwise Ray takes 127.0.0.1 for this machine's address


def cannot_join(address: str, env: dict[str, str] | None = None) -> str:
    """The reason, in the one line that `start_ray` ends with within 30 s."""
    begin = time.monotonic()
    result = run_python(
        "-c", "import ray\n" + JOIN, env={**ON_LOOPBACK, "RAY_ADDRESS": address, **(env or {})}
    )
    assert result.code == 1, result.stdout
    taken = float(result.stdout)
    assert taken < 30, f"{taken} s, {time.monotonic() - begin} s with all that is imported"
    last = result.stderr.splitlines()[-1]
    begins, ends = f"UserError: cannot join Ray at RAY_ADDRESS={address}: ", "; unset it to run locally"
    assert begins in last and last.endswith(ends), result.stderr
    return last.partition(begins)[2].removesuffix(ends)


JOIN = """
import time
from nanochat_tct.ray_session import start_ray
begin = time.monotonic()
try:
    start_ray()
finally:
    print(time.monotonic() - begin)
"""
