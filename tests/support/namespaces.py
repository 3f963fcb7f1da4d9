"""Commands in network and process namespaces of their own, in which this machine has a second address.

Fixed ports are free there, `ray stop` ends no other Ray of this machine, and who listens on more than loopback is seen:
where loopback is all there is, Ray takes it for this machine's address by itself.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

NAMESPACES = "unshare --user --map-root-user --net --pid --fork --mount-proc".split()
SECOND_ADDRESS = "10.11.12.13"
SET_UP = f"""set -euo pipefail
ip link set lo up
ip link add outside type veth peer name inside
ip addr add {SECOND_ADDRESS}/24 dev outside
ip link set outside up
ip link set inside up
ip route add default via 10.11.12.1
"""
LOOPBACK = ("127.", "[::1]:", "[::ffff:127.")


def alone(script: str, listening: Path | None = None) -> list[str]:
    """The command that runs a bash script in its own namespaces. Skips the test where there can be none.

    Args:
        listening: a file to which `ss` writes, again and again, who listens where.
    """
    tools = all(shutil.which(tool) for tool in ("unshare", "ip", "ss"))
    if not tools or subprocess.run([*NAMESPACES, "bash", "-c", SET_UP], capture_output=True).returncode:
        pytest.skip("no network namespaces here (unshare, ip and ss, and a kernel with veth)")
    watch = f"while true; do ss -Hltnp; sleep 0.3; done > '{listening}' &\n" if listening else ""
    return [*NAMESPACES, "bash", "-c", SET_UP + watch + script]


def open_to_others(listening: Path) -> set[str]:
    """Lines of who listened on more than loopback."""
    lines = listening.read_text().splitlines()
    return {line for line in lines if not line.split()[3].startswith(LOOPBACK)}
