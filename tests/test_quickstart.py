"""docs/quickstart.md, block by block as written, in a fresh clone.

In a network and process namespace of its own, so that the page's ports are free, and its `ray stop` ends no
other Ray of this machine.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PAGE = REPOSITORY / "docs/quickstart.md"
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc"]
LIMIT_SECONDS = 1500


def fenced(language: str) -> list[str]:
    """The blocks of the page in a language. All are looked for at once: a closing fence looks like an opening one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def blocks() -> list[str]:
    """The commands of the page; what it shows as printed (in a block marked `text`) is left out."""
    return fenced("")


def printed() -> list[str]:
    return fenced("text")


def skeleton(line: str) -> str:
    """A line without what may differ from machine to machine: numbers, times, paths, and the width of columns."""
    line = re.sub(r"[\u2500-\u257f\s]+", " ", line)  # the lines of tables
    return re.sub(r"/\S+", "/", re.sub(r"[\d.,:]+", "#", line)).strip()


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS)
def test_every_block_runs_as_written(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here (unshare)")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
    (tmp_path / "home").mkdir()
    script = "set -euo pipefail\nip link set lo up 2>/dev/null || true\n" + "\n".join(blocks())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [*ALONE, "bash", "-c", script],
        cwd=clone,
        env={
            **environment,
            "HOME": str(tmp_path / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(clone),
            "RAY_TMPDIR": "/tmp",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    if folder := os.environ.get("QUICKSTART_OUTPUT"):  # to put on the page what was really printed
        Path(folder).write_text(result.stdout + "\n----\n" + result.stderr)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    seen = {skeleton(line) for line in (result.stdout + result.stderr).splitlines()}
    shown = [line for block in printed() for line in block.splitlines() if line.strip() not in ("", "...")]
    assert [line for line in shown if skeleton(line) not in seen] == []
