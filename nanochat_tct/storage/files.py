"""Atomic writes of files and folders, locks and checksums.

A file or folder is whole or absent, whenever the process or the machine stops. Until it is finished its name begins
with `PARTIAL`, so that a later run recognizes what a killed run left.
"""

import errno
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
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileRecord(NamedTuple):
    """A file's entry in a manifest."""

    name: str  # relative to the manifest's folder
    size: int  # bytes
    sha256: str  # hex


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(path: Path) -> FileRecord:
    """The manifest's entry for the file at `path`."""
    return FileRecord(path.name, path.stat().st_size, file_sha256(path))


def find_damage(folder: Path, record: FileRecord, verify: bool = True) -> str | None:
    """How a file differs from its record, for messages; None if it does not.

    Args:
        verify: compare the SHA-256 too, which takes about a second for each GB.
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
    """A new path beside `path`, for something unfinished or about to be deleted."""
    return path.with_name(f"{PARTIAL}{path.name}-{uuid.uuid4().hex[:8]}")


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a path to write to, and then rename that file to `path`, unless the block raises.

    Args:
        sync: wait for the disk, so that the file survives a power cut too.
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
    """Write a small file; readers see either the old content or the new."""
    with replacing(path, sync) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def commit_folder(partial: Path, final: Path) -> None:
    """Rename a folder whose files are on the disk already, and delete the folder that had that name."""
    fsync(partial)
    replaced = partial_path(final)
    if final.exists():
        os.rename(final, replaced)
    os.rename(partial, final)
    fsync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Rename a folder, then delete it: so a folder that is half deleted does not pass for a damaged one."""
    doomed = partial_path(path)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_partial(folder: Path) -> None:
    """Delete what killed processes left half-written in a folder, whose lock the caller holds."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only file system into UserErrors that name --output."""
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise UserError(
                f"no space left to write {output}: free some, or choose another --output"
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError | FileNotFoundError):
            raise UserError(f"cannot write to {output}: {error.strerror}; choose another --output") from error
        if error.errno == errno.EROFS:
            raise UserError(f"cannot write to {output}: read-only; choose another --output") from error
        raise


@contextmanager
def locked(path: Path, busy: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a lock file, which excludes all other processes of this machine and other threads of this one.

    The kernel releases the lock when its holder ends in any way. The file and its folder stay.

    Args:
        busy: the message of the error.
        wait_seconds: how long to wait for another holder; -1: forever.

    Raises:
        UserError: another process still holds the lock.
        OSError: the file cannot be created.
    """
    from filelock import FileLock, Timeout  # here, as `--help` of a command needs none

    # Where the kernel has no locks, filelock would use the file's existence, which outlives a killed holder.
    try:
        held = FileLock(path, timeout=wait_seconds, fallback_to_soft=False).acquire()
    except Timeout as error:
        raise UserError(busy) from error
    with held:
        yield
