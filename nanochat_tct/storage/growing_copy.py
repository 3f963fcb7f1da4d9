"""A copy of a remote folder on this machine that is read before all of it is there.

Its large files have their full size from the start. A process that needs bytes which are missing fetches them; one byte
in a file beside each says for every piece whether it is there, for all processes of this machine. So two processes may
fetch the same piece at once, which does no harm: it has the same bytes.

Whether a file is what the manifest says is known when all of it is there. Only then does the copy get its manifest,
which makes it a complete one.
"""

import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nanochat_tct.errors import UserError
from nanochat_tct.storage import object_storage
from nanochat_tct.storage.files import FileRecord, find_damage
from nanochat_tct.storage.object_storage import (
    RemoteFolder,
    holds,
    local_path,
    locked_copy,
    persist,
    replace_copy,
)

PIECE_BYTES = 64 << 10  # some windows of training; a request for less takes as long
BEGUN = ".begun"  # what the manifest is called until the copy is complete
PIECES = ".pieces"


class GrowingFile:
    """A file of which some pieces are on this machine."""

    def __init__(self, remote: RemoteFolder, record: FileRecord, folder: Path) -> None:
        """Open the file and its record of pieces, which may be new."""
        self.record = record
        self._uri, self._source = f"{remote.uri}/{record.name}", remote.open_file(record.name)
        self._file = open(folder / record.name, "r+b", buffering=0)  # noqa: SIM115  # as long as this object
        pieces = folder / f"{record.name}{PIECES}"
        self._is_there = (
            np.memmap(pieces, dtype=np.bool_, mode="r+") if record.size else np.zeros(0, np.bool_)
        )

    @staticmethod
    def create(remote: RemoteFolder, record: FileRecord, folder: Path) -> None:
        """Make the file with its full size, and the record of its pieces, of which none is there.

        Raises: DamagedError when the remote file has another size.
        """
        if remote.open_file(record.name).size() != record.size:
            raise remote.damaged(record.name)
        for name, size in (
            (record.name, record.size),
            (f"{record.name}{PIECES}", -(-record.size // PIECE_BYTES)),
        ):
            with open(folder / name, "wb") as file:
                file.truncate(size)

    def fetch(self, offsets: np.ndarray) -> None:
        """Fetch what is missing of the pieces that hold the bytes at these offsets. Raises: StorageError."""
        pieces = np.unique(offsets // PIECE_BYTES)
        missing = pieces[~self._is_there[pieces]]
        if not len(missing):
            return
        at_a_time = max(1, object_storage.RANGE_BYTES // PIECE_BYTES)
        follows = np.diff(missing, prepend=missing[0]) == 1
        ranges = [
            run[start : start + at_a_time]
            for run in np.split(missing, np.flatnonzero(~follows)[1:])
            for start in range(0, len(run), at_a_time)
        ]
        with ThreadPoolExecutor(object_storage.REQUESTS) as pool:
            list(pool.map(self._fetch_range, ranges))

    def fetch_all(self) -> None:
        """Fetch all that is missing, from the beginning to the end. Raises: StorageError."""
        self.fetch(np.arange(0, self.record.size, PIECE_BYTES))

    def _fetch_range(self, pieces: np.ndarray) -> None:
        start = int(pieces[0]) * PIECE_BYTES
        end = min(self.record.size, (int(pieces[-1]) + 1) * PIECE_BYTES)
        content = persist(self._uri, lambda: self._source.read_at(end - start, start))
        object_storage.write_at(self._file.fileno(), content, start)
        self._is_there[pieces] = True


class GrowingCopy:
    """A copy that is not complete yet, in `folder`, where the complete one will be."""

    def __init__(self, uri: str, remote: RemoteFolder, manifest: str, records: list[FileRecord]) -> None:
        """Open a copy that `begin` has made. Args: records: of the files that grow."""
        self.folder = local_path(uri)
        self.remote, self.manifest = remote, manifest
        self.files = {record.name: GrowingFile(remote, record, self.folder) for record in records}
        self._content = (self.folder / f"{manifest}{BEGUN}").read_bytes()

    @classmethod
    def begin(
        cls,
        uri: str,
        manifest: str,
        read_manifest: Callable[[Path], list[FileRecord]],
        growing: Collection[str],
    ) -> "GrowingCopy | None":
        """Make or join a copy of a finished folder, with all files but those that grow. None: it is complete.

        Args:
            manifest: the name of the manifest.
            read_manifest: reads the records in the manifest at a path; raises an error for a wrong manifest.
            growing: names of the files that grow.

        Raises:
            UserError: the storage has no manifest there, or refuses; DamagedError: a small file is damaged.
        """
        folder, remote = local_path(uri), RemoteFolder(uri)

        def copy_file(record: FileRecord, to: Path) -> None:
            if record.name in growing:
                GrowingFile.create(remote, record, to)
            else:
                remote.download(record, to)

        with locked_copy(folder):
            content = remote.read(manifest)
            if content is None:
                raise UserError(
                    f"{uri} holds no finished token store ({manifest} is missing): run prepare first"
                )
            if holds(folder / manifest, content):
                return None
            begun = folder / f"{manifest}{BEGUN}"
            replace_copy(begun, content, read_manifest, copy_file)
            return cls(uri, remote, manifest, [each for each in read_manifest(begun) if each.name in growing])

    def complete(self) -> bool:
        """Fetch the rest, and verify it; or wait until another process of this machine has. Then return False.

        Raises:
            DamagedError: a file differs from the manifest; the copy is gone then. StorageError.
        """
        begun = self.folder / f"{self.manifest}{BEGUN}"
        with locked_copy(self.folder, "-rest"):
            if holds(self.folder / self.manifest, self._content):
                return False
            for name, file in self.files.items():
                file.fetch_all()
                # Missing, if another process has found this
                if find_damage(self.folder, file.record) is not None:
                    with locked_copy(self.folder):
                        if holds(begun, self._content):
                            shutil.rmtree(self.folder)
                    raise self.remote.damaged(name)
            with locked_copy(self.folder):
                for name in self.files:
                    (self.folder / f"{name}{PIECES}").unlink()
                begun.rename(self.folder / self.manifest)
        return True
