"""docs/quickstart.md, block by block as written, in a fresh clone, in namespaces of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from tests.support.namespaces import alone, open_to_others
from tests.support.workers import small_run, small_store

PAGE = REPOSITORY / "docs/quickstart.md"
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


def run(script: str, clone: Path, listening: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script in a clone of the repository, as a user whose home is beside it."""
    command = alone(script, listening)
    subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
    home = clone.parent / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        command,
        cwd=clone,
        env={
            **environment,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(clone),
            "RAY_TMPDIR": "/tmp",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS)
def test_every_block_runs_as_written(tmp_path: Path) -> None:
    """And all of it listens on loopback only, on a machine that has another address."""
    listening = tmp_path / "listening"
    result = run("\n".join(blocks()), tmp_path / "clone", listening)
    if folder := os.environ.get("QUICKSTART_OUTPUT"):  # to put on the page what was really printed
        Path(folder).write_text(result.stdout + "\n----\n" + result.stderr)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    seen = {skeleton(line) for line in (result.stdout + result.stderr).splitlines()}
    shown = [line for block in printed() for line in block.splitlines() if line.strip() not in ("", "...")]
    assert [line for line in shown if skeleton(line) not in seen] == []
    listened = listening.read_text()
    assert all(name in listened for name in ("127.0.0.1:8265", "gcs_server", "ray::DashboardA", "RayTrainW"))
    assert open_to_others(listening) == set()


BESIDE = """
import time
from nanochat_tct.ray_session import start_ray
start_ray(num_cpus=1)
print("started", flush=True)
time.sleep(1000)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS)
def test_the_cluster_beside_a_local_run(tmp_path: Path) -> None:
    """The page's cluster takes its job though a local Ray is there, and no part of Ray looks for the other one."""
    start = next(block for block in blocks() if "ray start" in block)
    train, *flags = small_run(small_store(tmp_path / "store"), tmp_path, max_iters=2)
    (tmp_path / "beside.py").write_text(BESIDE)
    script = f"""
        python {tmp_path}/beside.py > {tmp_path}/beside &
        until grep -q started {tmp_path}/beside; do sleep 1; done
        {start}
        export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
        ray job submit --working-dir . -- python jobs/{train}.py {" ".join(flags)}
        ray stop
    """
    result = run(script, tmp_path / "clone", tmp_path / "listening")
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-3000:]
    assert re.search(r"^iter 2 \|", printed, re.MULTILINE), printed[-3000:]
    assert "multiple active Ray" not in printed and "Traceback" not in printed, printed
