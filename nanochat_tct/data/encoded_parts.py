"""Encoded parts of the input on disk, so that an interrupted `prepare` continues where it stopped.

Tasks write them, wherever their machine sees the store's folder. Elsewhere they send them to the driver, which does.
"""

import hashlib
import pickle
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from nanochat_tct.data.encode import encode_part
from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import clear_partial, remove_folder, replacing

FOLDER = ".encoded"  # in the store's folder, until the store is written
RUN = "run"  # a file with the id of the run that uses the folder


class EncodedParts:
    """The folder of encoded parts.

    Attributes:
        run: the id by which a task recognizes the folder.
        count: how many parts, from the first one on, an earlier run has encoded.
    """

    def __init__(self, output: Path, identity: str) -> None:
        """Find the tables of an earlier run. Those with another `identity` are deleted.

        Args:
            identity: everything that decides the content of the tables, as text.
        """
        self.folder = output.resolve() / FOLDER
        self.run = uuid.uuid4().hex
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        identity_file = self.folder / "identity"
        if not identity_file.exists() or identity_file.read_text() != digest:
            clear(output)
            self.folder.mkdir(parents=True)
            identity_file.write_text(digest)
        (self.folder / RUN).write_text(self.run)
        self.count = 0
        while is_whole(self.path(self.count)):
            self.count += 1

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06}.arrow"

    def read(self, index: int) -> pa.Table:
        with pa.ipc.open_file(pa.memory_map(str(self.path(index)))) as file:
            return file.read_all()


def encode_task(batch: pa.Table, run: str, **settings: Any) -> pa.Table:
    """What Ray Data maps over the parts: encode one, and write its table.

    Args:
        batch: one row: a pickled `part`, and the `path` for its table.
        run: of the EncodedParts.
        settings: see `encode_part`.

    Returns: one row: the `error` that ends the job, or the `content` of the file if it could not be written here.
    """
    error, content, is_seen = None, None, False
    path = Path(batch.column("path")[0].as_py())
    with suppress(OSError):
        is_seen = (path.parent / RUN).read_text() == run
    if not (is_seen and is_whole(path)):  # else written before the driver, or another machine, was killed
        try:
            part = pickle.loads(batch.column("part")[0].as_py())  # noqa: S301  (`prepare` itself pickled it)
            content = serialized(encode_part(part, **settings))
        except UserError as problem:  # Ray would return it without its type
            error = str(problem)
    if is_seen and content is not None:
        with suppress(OSError):  # the driver tries too, and prints the reason
            write(path, content)
            content = None
    return pa.table(
        {"error": pa.array([error], pa.string()), "content": pa.array([content], pa.large_binary())}
    )


def serialized(table: pa.Table) -> bytes:
    """The content of a file with a table."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")  # zstd makes the driver wait
    with pa.ipc.new_file(sink, table.schema, options=options) as file:
        file.write_table(table)
    return sink.getvalue().to_pybytes()


def write(path: Path, content: bytes) -> None:
    """Write the table of a part. Raises: OSError."""
    # Without waiting for the disk: a table that a power cut destroys is made again.
    with replacing(path, sync=False) as partial:
        partial.write_bytes(content)


def is_whole(path: Path) -> bool:
    """Whether the end of a table can be read: a power cut may shorten files."""
    try:
        with pa.ipc.open_file(path) as file:
            return bool(file.num_record_batches >= 0)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False


def clear(output: Path) -> None:
    """Delete the encoded parts in the folder of a store. Tasks that still run cannot write there any more."""
    with suppress(FileNotFoundError):
        remove_folder(output / FOLDER)
        clear_partial(output)
