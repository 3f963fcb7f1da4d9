"""Folders in object storage (s3://, gs://, whatever pyarrow.fs opens), and their copies on this machine.

A copy is under ``$NANOCHAT_TCT_CACHE`` (a local disk, in the cluster files) or ``~/.cache/nanochat-tct``. All processes
of a machine share it; the process that updates it holds its lock. A request that fails is repeated; a request that is
refused raises a StorageError.

A folder is complete once it has its manifest: an upload deletes the old manifest first and writes the new one last, so
that an interrupted upload does not pass for a complete one.
"""

import errno
import functools
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.storage.files import PARTIAL, FileRecord, find_damage, locked

TRIES = 5
FIRST_PAUSE_SECONDS = 0.25  # doubled after each try
LOCK_SECONDS = 3600.0  # enough for a store of 100 GB at 30 MB/s; a holder that takes longer is stuck
BLOCK_BYTES = 1 << 20
# A file is downloaded in ranges, some at a time: one request alone does not use a machine's network.
RANGE_BYTES = 8 << 20
REQUESTS = 16
# Errors of AWS, Google and file systems for which another try is useless
REFUSALS = re.compile(
    r"ACCESS_DENIED|AccessDenied|NO_SUCH_BUCKET|NoSuchBucket|INVALID_ACCESS_KEY|InvalidAccessKey|"
    r"SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch|403|Could not resolve|Unrecognized filesystem",
    re.IGNORECASE,
)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def is_remote(path_or_uri: str | Path) -> bool:
    """Whether this is a URI and not a path."""
    return "://" in str(path_or_uri)


def absolute(path_or_uri: str) -> str:
    """An absolute path; a URI unchanged."""
    return path_or_uri if is_remote(path_or_uri) else str(Path(path_or_uri).resolve())


def join(path_or_uri: str, name: str) -> str:
    """The path or URI of `name` in a folder; the options of a URI, after ``?``, stay at the end."""
    location, question_mark, options = (
        path_or_uri.partition("?") if is_remote(path_or_uri) else (path_or_uri, "", "")
    )
    return f"{location.rstrip('/')}/{name}{question_mark}{options}"


def shown(uri: str) -> str:
    """A URI for messages, without its options, and without credentials."""
    return re.sub(r"://[^/@]*@", "://", uri.partition("?")[0]).rstrip("/")


def local_path(path_or_uri: str | Path) -> Path:
    """The path of a folder on this machine, or of the copy of a remote folder, which may not exist yet."""
    if not is_remote(path_or_uri):
        return Path(path_or_uri)
    root = os.environ.get("NANOCHAT_TCT_CACHE") or Path.home() / ".cache" / "nanochat-tct"
    uri = str(path_or_uri)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", uri.partition("?")[0]).strip("-")[-60:]
    return Path(root).expanduser() / "copies" / f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


def write_at(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of some bytes into an open file; a nearly full disk takes a part of them at a time."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def locked_copy(folder: Path, what: str = "") -> AbstractContextManager[None]:
    """Lock the copy `folder`, which need not exist yet, for this process; or something of it, with a lock of its own.

    Raises: UserError when another process holds the lock for LOCK_SECONDS.
    """
    path = folder.parent / f".{folder.name}{what}.lock"
    busy = f"another process has held {path} for {LOCK_SECONDS / 60:.0f} minutes; end it, and run again"
    return locked(path, busy, LOCK_SECONDS)


def holds(path: Path, content: bytes) -> bool:
    """Whether there is a file with this content."""
    return path.is_file() and path.read_bytes() == content


def replace_copy(
    manifest: Path,
    content: bytes,
    read_manifest: Callable[[Path], list[FileRecord]],
    copy_file: Callable[[FileRecord, Path], None],
) -> None:
    """Replace a local folder by a copy that has this manifest, unless it has it already. The caller holds its lock.

    The copy is written beside the folder, and takes its place when all files are there.

    Args:
        read_manifest: reads the records in the manifest at a path; raises an error for a wrong manifest.
        copy_file: copies a file of the remote folder into a local one.
    """
    if holds(manifest, content):
        return
    folder = manifest.parent
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / manifest.name).write_bytes(content)
        for record in read_manifest(partial / manifest.name):
            copy_file(record, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class DamagedError(UserError):
    """A file differs from its entry in the manifest."""


def persist(uri: str, do: Callable[[], Result]) -> Result:
    """Call `do`, again if it fails, and return its result.

    Args:
        uri: for messages.
    Raises: StorageError when the storage refuses, or fails TRIES times; DamagedError when the content is wrong twice.
    """
    from pyarrow import ArrowException, ArrowInvalid

    pause = FIRST_PAUSE_SECONDS
    for attempt in range(1, TRIES + 1):
        try:
            return do()
        except DamagedError:
            if attempt > 1:
                raise
        except (OSError, ArrowException) as error:
            reason = " ".join(str(error).split())
            if isinstance(error, PermissionError | ArrowInvalid) or REFUSALS.search(reason):
                raise StorageError(
                    f"{uri}: refused ({reason[:300]}); check the name, and what this machine may do there"
                ) from error
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # this machine's disk
            if attempt == TRIES:
                raise StorageError(
                    f"{uri}: failed {attempt} times ({reason[:300]}); run the same command again later"
                ) from error
            print(f"{uri}: try {attempt} of {TRIES} failed ({reason[:120]})", file=sys.stderr)
            time.sleep(pause)
            pause *= 2
    raise AssertionError("the last try returns or raises")


def _persistent(
    method: Callable[Concatenate["RemoteFolder", Arguments], Result],
) -> Callable[Concatenate["RemoteFolder", Arguments], Result]:
    """Decorate a method of RemoteFolder so that `persist` calls it."""

    @functools.wraps(method)
    def call(self: "RemoteFolder", *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return persist(self.uri, lambda: method(self, *args, **kwargs))

    return call


class RemoteFolder:
    """A folder in object storage. Every method repeats failed requests, and raises StorageError as `persist` does."""

    def __init__(self, uri: str) -> None:
        from pyarrow.fs import FileSystem  # here, as `--help` of a command needs none of it

        self.uri = shown(uri)
        self._filesystem, path = persist(self.uri, lambda: FileSystem.from_uri(uri))
        self._path = path.rstrip("/")

    @_persistent
    def files(self) -> dict[str, int]:
        """The sizes of all files in the folder by relative name; empty if the folder does not exist."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path, allow_not_found=True, recursive=True)
        return {
            info.path[len(self._path) + 1 :]: info.size
            for info in self._filesystem.get_file_info(selector)
            if info.is_file
        }

    @_persistent
    def read(self, name: str, limit: int = 64 << 20) -> bytes | None:
        """The content of a small file; None if it does not exist.

        Raises: UserError also when it is larger than `limit` bytes.
        """
        info = self._filesystem.get_file_info(f"{self._path}/{name}")
        if not info.is_file:
            return None
        if info.size > limit:
            raise UserError(f"{self.uri}/{name} has {info.size} bytes, which is too much for such a file")
        with self._filesystem.open_input_stream(info.path, compression=None) as file:
            content: bytes = file.read()
        return content

    @_persistent
    def upload(self, source: Path, name: str) -> None:
        """Upload a local file; readers see the whole file or none."""
        target = f"{self._path}/{name}"
        if self._filesystem.type_name == "local":
            self._filesystem.create_dir(os.path.dirname(target), recursive=True)
        with open(source, "rb") as file, self._filesystem.open_output_stream(target) as stream:
            shutil.copyfileobj(file, stream, BLOCK_BYTES)

    def upload_matching(self, folder: Path, names: re.Pattern[str]) -> None:
        """Upload the files of a folder whose whole name, relative to it, matches."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and names.fullmatch(name):
                self.upload(path, name)

    def upload_folder(self, folder: Path, names: Iterable[str], manifest: str, prefix: str = "") -> bool:
        """Upload a finished folder, its manifest last; return False if the storage has the same folder already.

        Args:
            names: its files besides the manifest.
            prefix: of all names in the storage.
        """
        before = self.read(prefix + manifest)
        if before == (folder / manifest).read_bytes():
            return False
        if before is not None:
            self.delete(prefix + manifest)
        for name in (*names, manifest):
            self.upload(folder / name, prefix + name)
        return True

    @_persistent
    def open_file(self, name: str) -> Any:
        """A file to read ranges of, with pyarrow's `size()` and `read_at(length, offset)`."""
        return self._filesystem.open_input_file(f"{self._path}/{name}")

    @_persistent
    def download(self, record: FileRecord, folder: Path, prefix: str = "") -> None:
        """Download a file into `folder`. Raises: DamagedError when it differs from `record` twice."""
        with (
            self._filesystem.open_input_file(f"{self._path}/{prefix}{record.name}") as source,
            open(folder / record.name, "wb", buffering=0) as file,
            ThreadPoolExecutor(REQUESTS) as pool,
        ):
            size = source.size()

            def copy(start: int) -> None:
                write_at(file.fileno(), source.read_at(min(RANGE_BYTES, record.size - start), start), start)

            if size == record.size:
                list(pool.map(copy, range(0, size, RANGE_BYTES)))
        if find_damage(folder, record) is not None:
            raise self.damaged(f"{prefix}{record.name}")

    def damaged(self, name: str) -> DamagedError:
        """The error for a file that differs from the manifest."""
        return DamagedError(
            f"{self.uri}: {name} is not what the manifest says (size or SHA-256); it is damaged, or was changed"
        )

    @_persistent
    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        if self._filesystem.get_file_info(f"{self._path}/{name}").is_file:
            self._filesystem.delete_file(f"{self._path}/{name}")
