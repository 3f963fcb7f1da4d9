"""Folders in object storage (s3://, gs://, whatever pyarrow.fs opens), and their copies on this machine.

A copy lies under ``$NANOCHAT_TCT_CACHE`` (local disks, in the cluster files) or ``~/.cache/nanochat-tct``. All
processes of a machine share it: who brings it up to date holds its lock. What fails once is tried again; what
is refused is a StorageError.
"""

import errno
import fcntl
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs

from nanochat_tct.errors import StorageError, UserError

TRIES = 5
FIRST_PAUSE_SECONDS = 0.25  # doubled after each try
LOCK_SECONDS = 3600.0  # a store of 100 GB at 30 MB/s; then the one who holds it is taken for stuck
BLOCK_BYTES = 1 << 20
# What trying again does not mend, as AWS, Google and file systems say it
REFUSALS = re.compile(
    r"ACCESS_DENIED|AccessDenied|NO_SUCH_BUCKET|NoSuchBucket|INVALID_ACCESS_KEY|InvalidAccessKey|"
    r"SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch|403|Could not resolve|Unrecognized filesystem",
    re.IGNORECASE,
)
Result = TypeVar("Result")


def is_remote(place: str | Path) -> bool:
    """Whether it is a URI, not a path."""
    return "://" in str(place)


def absolute(place: str) -> str:
    """A path as seen from the root; a URI as it is."""
    return place if is_remote(place) else str(Path(place).resolve())


def join(place: str, name: str) -> str:
    """`name` in a folder that is a path or a URI (whose options, after ``?``, stay at the end)."""
    location, question_mark, options = place.partition("?") if is_remote(place) else (place, "", "")
    return f"{location.rstrip('/')}/{name}{question_mark}{options}"


def shown(uri: str) -> str:
    """A URI for messages: without a key that may be in it, and without its options."""
    return re.sub(r"://[^/@]*@", "://", uri.partition("?")[0]).rstrip("/")


def local_path(place: str | Path) -> Path:
    """Where a folder is on this machine: itself, or the copy of the remote one (which may not be there yet)."""
    if not is_remote(place):
        return Path(place)
    root = os.environ.get("NANOCHAT_TCT_CACHE") or Path.home() / ".cache" / "nanochat-tct"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(place).partition("?")[0]).strip("-")[-60:]
    return (
        Path(root).expanduser() / "copies" / f"{name}-{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the copy `folder`, which need not exist, against the other processes of this machine.

    Raises: UserError when another one holds it for LOCK_SECONDS.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    end = time.monotonic() + LOCK_SECONDS
    with open(path, "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserError(
                        f"another process has held {path} for {LOCK_SECONDS / 60:.0f} minutes; end it, and run again"
                    ) from None
                time.sleep(0.1)
        yield


class DamagedError(UserError):
    """A file is not what its manifest says."""


class RemoteFolder:
    """A folder in object storage. Every method tries again when the storage fails, and raises StorageError when
    it refuses, or fails for good."""

    def __init__(self, uri: str) -> None:
        self.uri = shown(uri)
        self._filesystem, path = self._persist(lambda: pa.fs.FileSystem.from_uri(uri))
        self._path = path.rstrip("/")

    def files(self) -> dict[str, int]:
        """Sizes of all files below, by name relative to the folder; empty where there is no folder."""

        def list_all() -> dict[str, int]:
            selector = pa.fs.FileSelector(self._path, allow_not_found=True, recursive=True)
            found = self._filesystem.get_file_info(selector)
            return {
                info.path[len(self._path) + 1 :]: info.size
                for info in found
                if info.type == pa.fs.FileType.File
            }

        return self._persist(list_all)

    def read(self, name: str, limit: int = 64 << 20) -> bytes | None:
        """The content of a small file; None when it is not there.

        Raises: UserError also when it is larger than `limit` bytes.
        """

        def read_it() -> bytes | None:
            info = self._filesystem.get_file_info(f"{self._path}/{name}")
            if info.type != pa.fs.FileType.File:
                return None
            if info.size > limit:
                raise UserError(f"{self.uri}/{name} has {info.size} bytes, which is too much for such a file")
            with self._filesystem.open_input_stream(info.path, compression=None) as file:
                return file.read()

        return self._persist(read_it)

    def download(self, name: str, target: Path, size: int, sha256: str) -> None:
        """Writes a file to `target`, which is there only if it is what `size` and `sha256` say.

        Raises: DamagedError when it is another, twice.
        """
        partial = target.with_name(f".partial-{target.name}")

        def copy() -> None:
            digest, left = hashlib.sha256(), size
            with (
                self._filesystem.open_input_stream(f"{self._path}/{name}", compression=None) as source,
                open(partial, "wb") as file,
            ):
                while block := source.read(BLOCK_BYTES):
                    left -= len(block)
                    if left < 0:
                        break
                    digest.update(block)
                    file.write(block)
            if left != 0 or digest.hexdigest() != sha256:
                raise _Damaged(f"{name} is not what the manifest says (size or SHA-256)")
            os.replace(partial, target)

        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._persist(copy)
        finally:
            partial.unlink(missing_ok=True)

    def upload_matching(self, folder: Path, names: re.Pattern[str]) -> None:
        """Bring those files of a folder whose whole name, relative to it, matches."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and names.fullmatch(name):
                self.upload(path, name)

    def upload(self, source: Path, name: str) -> None:
        """Writes a local file there; others see it whole or not at all."""

        def copy() -> None:
            if self._filesystem.type_name == "local":
                self._filesystem.create_dir(os.path.dirname(f"{self._path}/{name}"), recursive=True)
            with (
                open(source, "rb") as file,
                self._filesystem.open_output_stream(f"{self._path}/{name}") as target,
            ):
                while block := file.read(BLOCK_BYTES):
                    target.write(block)

        self._persist(copy)

    def delete(self, name: str) -> None:
        """Removes a file; one that is not there is fine."""

        def remove() -> None:
            if self._filesystem.get_file_info(f"{self._path}/{name}").type == pa.fs.FileType.File:
                self._filesystem.delete_file(f"{self._path}/{name}")

        self._persist(remove)

    def _persist(self, do: Callable[[], Result]) -> Result:
        return persist(self.uri, do)


def persist(place: str, do: Callable[[], Result]) -> Result:
    """What `do` returns, as soon as it does not fail.

    Args:
        place: in object storage, for messages.
    Raises: StorageError when it is refused, or fails for good; DamagedError when it brings the wrong thing twice.
    """
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(1, TRIES + 1):
        try:
            return do()
        except _Damaged as error:
            if attempt > 1:
                raise DamagedError(f"{place}: {error}; it is damaged, or was changed") from error
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            if isinstance(error, PermissionError) or REFUSALS.search(reason):
                raise StorageError(
                    f"{place}: refused ({reason[:300]}); check the name, and what this machine may do there"
                ) from error
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # this machine's disk
            if attempt == TRIES:
                raise StorageError(
                    f"{place}: failed {attempt} times ({reason[:300]}); run the same command again later"
                ) from error
            print(f"{place}: try {attempt} of {TRIES} failed ({reason[:120]})", file=sys.stderr)
            time.sleep(pause)
            pause *= 2
    raise AssertionError


class _Damaged(Exception):
    """What came is not what the manifest says."""
