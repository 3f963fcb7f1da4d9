"""Checks before a job starts that all its machines have the same data and the same software."""

import functools
import hashlib
import importlib.metadata
import platform
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nanochat_tct
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import StorageError, UserError

if TYPE_CHECKING:
    from nanochat_tct.training.distributed import Worker


def check_nodes(data_dir: str, worker: "Worker") -> None:
    """Compare the machines of all workers with the first worker's. The download of a remote store begins.

    Raises: StoppedTogether, on every worker, which names the machine and what it lacks.
    """
    from nanochat_tct.training.distributed import broadcast, together

    head = broadcast((socket.gethostname(), software()), worker)
    with together(worker):
        check_node(data_dir, head)


def check_node(data_dir: str, head: Sequence[Any]) -> None:
    """Compare this machine with the one that started the job.

    Args:
        head: its name and `software`.
    Raises: UserError, which names this machine and what it lacks; StorageError.
    """
    host = socket.gethostname()
    try:
        TokenStore.open(data_dir, verify=False, is_whole=False)
    except StorageError:
        raise
    except UserError as error:
        raise UserError(
            f"on machine {host}: {error}. Every machine must see the data: a folder that all share, or "
            "--data-dir s3://..."
        ) from error
    for name, version in software().items():
        if version != head[1][name]:
            raise UserError(
                f"machine {host} has {name} {version}, and machine {head[0]} has {head[1][name]}: install the "
                "same everywhere (pip install -c constraints.txt), and submit with --working-dir"
            )


def software() -> dict[str, str]:
    """Versions that must be equal on all machines, so that they compute the same and understand each other."""
    return {
        "nanochat-tct": package_digest(),
        "Python": platform.python_version(),
        "torch": importlib.metadata.version("torch").split("+")[0],
    }


@functools.cache
def package_digest() -> str:
    """A hash of this package's source on this machine, 12 hexadecimal digits."""
    folder = Path(nanochat_tct.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
