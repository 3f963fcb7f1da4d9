"""Files and folders that are whole or absent, whenever the process or the machine stops; locks; checksums.

What is being written has a name that begins with `PARTIAL`, by which a later run recognizes what a killed one left.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nanochat_tct.errors import UserError

PARTIAL = ".partial-"


class FileRecord(NamedTuple):
    """What a manifest says of a file."""

    name: str  # relative to the manifest's folder
    size: int  # bytes
    sha256: str  # hex


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(path: Path) -> FileRecord:
    """What a manifest is to say of the file at `path`."""
    return FileRecord(path.name, path.stat().st_size, file_sha256(path))


def find_damage(folder: Path, record: FileRecord, verify: bool = True) -> str | None:
    """How a file differs from its record, for messages; None if it does not.

    Args:
        verify: also compare the content's SHA-256, which takes about a second for each GB.
    """
    path = folder / record.name
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != record.size:
        return f"{size} bytes instead of {record.size}; it is damaged"
    if verify and file_sha256(path) != record.sha256:
        return "SHA-256 differs from the manifest's; it was changed or damaged"
    return None


def fsync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_path(path: Path) -> Path:
    """A new name beside `path`, for what is not finished or is about to be deleted."""
    return path.with_name(f"{PARTIAL}{path.name}-{uuid.uuid4().hex[:8]}")


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Replace the file `path` by what the block writes to the path that it gets; not at all if the block raises.

    Args:
        sync: wait until it is on the disk, so that it survives a power cut and not only a kill.
    """
    partial = partial_path(path)
    try:
        yield partial
        if sync:
            fsync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        fsync(path.parent)


def write_atomic(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write a small file; readers see the old content or the new one."""
    with replacing(path, sync) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def commit_folder(partial: Path, final: Path) -> None:
    """Give a folder, whose files are on the disk already, its final name, and delete what had that name."""
    fsync(partial)
    replaced = partial_path(final)
    if final.exists():
        os.rename(final, replaced)
    os.rename(partial, final)
    fsync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder so that an interrupted deletion does not look like a damaged folder: it is renamed first."""
    doomed = partial_path(path)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_partial(folder: Path) -> None:
    """Delete what killed processes left half-written in a folder. Its lock must be held: others may be writing."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock file `path` against all other processes of this machine, and other threads of this one.

    The kernel releases the lock when the holder ends, however it ends. The file, and the folder made for it, stay.

    Args:
        busy: what the user reads when another process holds it.
        wait_seconds: how long to wait for that process; -1: until it lets go.

    Raises:
        UserError: another process holds it.
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # here, as `--help` of a command needs none

    # A lock that only exists as a file, filelock's substitute where the kernel has none, would survive its holder.
    try:
        held = FileLock(path, timeout=wait_seconds, fallback_to_soft=False).acquire()
    except Timeout as error:
        raise UserError(busy) from error
    with held:
        yield
