"""Checks before a job starts that all its machines have the same data and the same software."""

import functools
import hashlib
import os
import platform
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import nanochat_tct
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.training.distributed import StoppedTogether, Worker, gather


def check_nodes(data_dir: str, worker: Worker) -> None:
    """Compare all workers. A remote store is fetched to each machine here.

    Raises: StoppedTogether, on every worker, that names the machine and what it lacks.
    """
    problem = None
    try:
        TokenStore.open(data_dir, verify=False)
    except UserError as error:
        problem = str(error)
    everybody = gather((socket.gethostname(), problem, software()), worker)
    for host, problem, _ in everybody:
        if problem is not None:
            raise StoppedTogether(without_data(host, problem))
    first_host, _, first = everybody[0]
    for host, _, other in everybody[1:]:
        if (problem := difference(host, other, first_host, first)) is not None:
            raise StoppedTogether(problem)


def check_node(data_dir: str, head: Sequence[Any]) -> None:
    """Compare this machine with the one that started the job.

    Args:
        head: its name and `software`.
    Raises: UserError that names this machine and what it lacks; StorageError.
    """
    host = socket.gethostname()
    try:
        TokenStore.open(data_dir, verify=False)
    except StorageError:
        raise
    except UserError as error:
        raise UserError(without_data(host, str(error))) from error
    if (problem := difference(host, software(), head[0], head[1])) is not None:
        raise UserError(problem)


def without_data(host: str, problem: str) -> str:
    """The error message for a machine that cannot open the data."""
    return (
        f"on machine {host}: {problem}. Every machine must see the data: a folder that all share, or "
        "--data-dir s3://..."
    )


def difference(host: str, other: dict[str, str], first_host: str, first: dict[str, str]) -> str | None:
    """The error message for a machine whose `software` differs from the first one's; None where it does not."""
    for name, version in other.items():
        if version != first[name]:
            return (
                f"machine {host} has {name} {version}, and machine {first_host} has {first[name]}: install the "
                "same everywhere (pip install -c constraints.txt), and submit with --working-dir"
            )
    return None


def software() -> dict[str, str]:
    """Versions that must be the same for machines to compute the same and to understand each other."""
    return {
        "nanochat-tct": package_digest(),
        "Python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


@functools.cache
def package_digest() -> str:
    """A hash of this package's source on this machine: 12 hexadecimal digits."""
    folder = Path(os.path.dirname(os.path.abspath(nanochat_tct.__file__)))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
