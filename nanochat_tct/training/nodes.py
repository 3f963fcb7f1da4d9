"""What the machines of a run must have in common: the data, and the same software. Compared before it starts."""

import functools
import hashlib
import os
import platform
import socket
from pathlib import Path

import torch

import nanochat_tct
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError
from nanochat_tct.training.parallel import StoppedTogether, Worker, gather


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
            raise StoppedTogether(
                f"on machine {host}: {problem}. Every machine must see the data: a folder that all share, or --data-dir s3://..."
            )
    first_host, _, first = everybody[0]
    for host, _, other in everybody[1:]:
        for name, version in other.items():
            if version != first[name]:
                raise StoppedTogether(
                    f"machine {host} has {name} {version}, and machine {first_host} has {first[name]}: install the "
                    "same everywhere (pip install -c constraints.txt), and submit with --working-dir"
                )


def software() -> dict[str, str]:
    """What could make two machines compute different things, or not understand each other."""
    return {
        "nanochat-tct": package_digest(),
        "Python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


@functools.cache
def package_digest() -> str:
    """Of this package's source, as it is on this machine: 12 hexadecimal digits."""
    folder = Path(os.path.dirname(os.path.abspath(nanochat_tct.__file__)))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
