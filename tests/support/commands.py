"""Helpers that several test files share."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """What a command left: exit code, and what it printed."""

    code: int
    stdout: str
    stderr: str


def run_cli(
    *arguments: object, timeout: float = 240, env: dict[str, str] | None = None, cwd: object = None
) -> Finished:
    """Runs ``nanochat-tct ARGUMENTS`` in a process of its own (``env`` is added to this one's)."""
    return run_python("-m", "nanochat_tct.cli", *arguments, timeout=timeout, env=env, cwd=cwd)


def run_python(
    *arguments: object, timeout: float = 240, env: Mapping[str, str | None] | None = None, cwd: object = None
) -> Finished:
    """Runs this Python with ``arguments`` in a process of its own; variables that are None in ``env`` are left out."""
    environment = {**os.environ, **(env or {})}
    result = subprocess.run(
        [sys.executable, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in environment.items() if value is not None},
        cwd=None if cwd is None else str(cwd),
    )
    return Finished(result.returncode, result.stdout, result.stderr)


def flags(**settings: object) -> list[str]:
    """Settings as a command takes them: None is left out, True is `--name`, False `--no-name`, a list several words."""
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


GIVEN_PORTS: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, another one at each call."""
    while True:
        with socket.socket() as free:
            free.bind(("", 0))
            port = int(free.getsockname()[1])
        if port not in GIVEN_PORTS:
            GIVEN_PORTS.add(port)
            return port


def assert_user_error(result: Finished, *parts: str) -> None:
    """It ended as it must on a user's mistake: exit code 2, one line on stderr that holds ``parts``."""
    assert result.code == 2, (result.code, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0], (part, lines[0])


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let this process write at most `limit` bytes into a file; then writing fails, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
