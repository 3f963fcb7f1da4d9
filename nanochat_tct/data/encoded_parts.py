"""Encoded parts of the input on disk, so that an interrupted `prepare` continues where it stopped."""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from nanochat_tct.storage.files import replacing

FOLDER = ".encoded"  # in the store's folder, until the store is written


class EncodedParts:
    """The tables of the first `count` parts, in order."""

    def __init__(self, output: Path, identity: str) -> None:
        """Find the tables of an earlier run. Those with another `identity` are deleted.

        Args:
            identity: everything that decides the content of the tables, as text.
        """
        self.folder = output / FOLDER
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        identity_file = self.folder / "identity"
        if not identity_file.exists() or identity_file.read_text() != digest:
            clear(output)
            self.folder.mkdir(parents=True)
            identity_file.write_text(digest)
        self.count = 0
        while self._is_whole(self.count):
            self.count += 1

    def read(self, index: int) -> pa.Table:
        with pa.ipc.open_file(self._path(index)) as file:
            return file.read_all()

    def append(self, table: pa.Table) -> None:
        """Write the table of the next part. Raises: OSError."""
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        # Without waiting for the disk: a table that a power cut destroys is made again.
        with (
            replacing(self._path(self.count), sync=False) as partial,
            pa.ipc.new_file(partial, table.schema, options=options) as file,
        ):
            file.write_table(table)
        self.count += 1

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06}.arrow"

    def _is_whole(self, index: int) -> bool:
        """Whether the end of a table can be read: a power cut may shorten files."""
        try:
            with pa.ipc.open_file(self._path(index)) as file:
                return bool(file.num_record_batches >= 0)
        except (FileNotFoundError, pa.ArrowInvalid):
            return False


def clear(output: Path) -> None:
    """Delete the encoded parts in the folder of a store."""
    with suppress(FileNotFoundError):
        shutil.rmtree(output / FOLDER)
