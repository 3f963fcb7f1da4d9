"""Encoded parts of the input on disk, so that a `prepare` that was killed goes on where it was."""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

FOLDER = ".encoded"  # in the store's folder, until the store is there


class EncodedParts:
    """The tables of the first parts, in order.

    Attributes:
        count: how many there are.
    """

    def __init__(self, output: Path, identity: str) -> None:
        """Finds what an earlier run left, and clears it away when it is of another `identity`: the text of all that
        decides what the tables hold."""
        self.folder = output / FOLDER
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        told = self.folder / "identity"
        if not told.exists() or told.read_text() != digest:
            clear(output)
            self.folder.mkdir(parents=True)
            told.write_text(digest)
        self.count = 0
        while self._is_whole(self.count):
            self.count += 1

    def read(self, index: int) -> pa.Table:
        """The table of a part that is there."""
        with pa.ipc.open_file(self._path(index)) as file:
            return file.read_all()

    def append(self, table: pa.Table) -> None:
        """Keeps the table of the next part. Raises: OSError."""
        path = self._path(self.count)
        partial = path.with_suffix(".partial")
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(partial, table.schema, options=options) as file:
            file.write_table(table)
        os.replace(partial, path)
        self.count += 1

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06}.arrow"

    def _is_whole(self, index: int) -> bool:
        """Its end is there and readable: after a machine went down, a file may be shorter than it was said to be."""
        try:
            with pa.ipc.open_file(self._path(index)) as file:
                return bool(file.num_record_batches >= 0)
        except (FileNotFoundError, pa.ArrowInvalid):
            return False


def clear(output: Path) -> None:
    """What is kept in a store's folder goes."""
    with suppress(FileNotFoundError):
        shutil.rmtree(output / FOLDER)
