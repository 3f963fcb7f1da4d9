"""Writes a token store in a way that no half-written store passes for a finished one.

Everything is written into `<output>/.partial` first. When all files are on disk they are moved up, the manifest last;
an older manifest is deleted before the first move. A killed run leaves `.partial` behind, which the next run clears. A
run that fails does not change an older store.
"""

import json
import os
import shutil
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet

from nanochat_tct.data import encoded_parts
from nanochat_tct.data import store as layout
from nanochat_tct.data.encode import EncodedDocument, encode_document, table_of
from nanochat_tct.data.mask_table import MaskSender, MaskTable
from nanochat_tct.data.split import NEAR_DUPLICATE, TRAIN, VAL, split_documents
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windowing, Windows, check_windowing
from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import fsync, locked, record_of, writing_to

PARTIAL = ".partial"
EXPORT_ROWS = 4096  # windows built at a time
MASK_FILES = (layout.MASK_IDS, layout.MASKS)
SPOOLED = ".arrow"  # of a table on disk that grows while parts arrive
# Of a document, before the whole store decides its split
SPOOLED_SCHEMA = pa.schema(
    [
        layout.DOCUMENT_SCHEMA.field(name)
        for name in ("length", "json_bytes", "content_hash", "source", "repo")
    ]
    + [pa.field("normal_hash", pa.binary())]
)


@dataclass(frozen=True)
class StoreSettings:
    """The settings that decide the content of a store, besides documents and tokenizer.

    The windowing only decides what metadata.json counts and what is exported; the tokens are the same.
    """

    context_size: int = 512
    windowing: Windowing = "stream"
    stride: int | None = None
    train_split: float = 0.8
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_windowing(self.context_size, self.windowing, self.stride)
        if not 0 <= self.train_split <= 1:
            raise UserError(f"train_split is {self.train_split}: it is a fraction from 0 to 1")

    def windows(self, store: TokenStore, split: Literal["train", "val"]) -> Windows:
        """The windows of a split under these settings."""
        return Windows(store, split, self.context_size, self.windowing, self.stride)


class StoreWriter:
    """Writes documents in the order in which they are added. Use it as a context manager that ends with `commit`.

    Of each document only a hash stays in memory, to recognize duplicates; the rest is on disk.

    Attributes:
        num_documents: in the store.
        duplicates: the number of documents left out because an earlier one has the same content.
        rejected: the number of rejected documents by reason.
        first_rejected: the first of them.
    """

    def __init__(
        self, output: str | Path, tokenizer: Any, settings: StoreSettings, with_masks: bool = False
    ) -> None:
        self.output = Path(output)
        self.partial = self.output / PARTIAL
        self.tokenizer = tokenizer
        self.settings = settings
        self.num_documents = 0
        self.duplicates = 0
        self.rejected: Counter[str] = Counter()
        self.first_rejected: dict[str, Any] | None = None
        self.with_masks = with_masks and tokenizer.masks_of([]) is not None
        self._mask_table = MaskTable(tokenizer.vocab_size())
        self._seen: set[bytes] = set()
        self._files: dict[str, Any] = {}
        self._stack = ExitStack()
        assert tokenizer.vocab_size() <= 1 << 16, "token ids are stored in 16 bits"

    def __enter__(self) -> "StoreWriter":
        is_new = not self.output.exists()
        with writing_to(self.output), ExitStack() as stack:
            _check_output(self.output)
            busy = f"another prepare writes to {self.output}: wait for it, or end it"
            stack.enter_context(locked(self.partial / "lock", busy))
            stack.callback(self._discard, is_new)
            for leftover in self.partial.iterdir():
                if leftover.name != "lock":
                    leftover.unlink()
            for name in (layout.TOKENS, *(MASK_FILES if self.with_masks else [])):
                self._files[name] = open(self.partial / name, "wb")
            if self.with_masks:
                self._files[layout.MASKS].write(self._mask_table.anything)
            for name, schema in (
                (layout.DOCUMENTS, SPOOLED_SCHEMA),
                (layout.REJECTED, layout.REJECTED_SCHEMA),
            ):
                self._files[name] = pa.ipc.new_file(self.partial / f"{name}{SPOOLED}", schema)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _discard(self, is_new: bool) -> None:
        """Remove all traces of a store that was not committed."""
        if not self.partial.exists():
            return
        for file in self._files.values():
            with suppress(OSError):  # the disk is still full; the user sees the error that ended the run
                file.close()
        shutil.rmtree(self.partial)
        if is_new:
            with suppress(OSError):  # another process put something there in the meantime
                self.output.rmdir()

    def add(self, *documents: EncodedDocument) -> None:
        """Add some documents, as `add_table` does."""
        self.add_table(table_of(documents))

    def add_table(self, table: pa.Table) -> None:
        """Add the documents of one part of the input, in which masks are numbered for themselves.

        Leaves out those that are rejected, and those of which an earlier one has the same content.

        Args:
            table: of encode.ENCODED_SCHEMA.
        """
        is_rejected = table.column("reason").is_valid()
        rejected = table.select(layout.REJECTED_SCHEMA.names).filter(is_rejected)
        self.rejected.update(rejected.column("reason").to_pylist())
        if self.first_rejected is None and len(rejected):
            self.first_rejected = rejected.slice(0, 1).to_pylist()[0]
        is_new = [self._is_new(each) for each in table.column("content_hash").to_pylist()]
        kept = table if all(is_new) else table.filter(pa.array(is_new))
        self.num_documents += len(kept)
        self.duplicates += len(table) - len(rejected) - len(kept)
        lengths = pyarrow.compute.divide(pyarrow.compute.binary_length(kept.column("tokens")), 2)
        documents = kept.append_column("length", lengths).select(SPOOLED_SCHEMA.names).cast(SPOOLED_SCHEMA)
        with writing_to(self.output):
            self._files[layout.REJECTED].write_table(rejected)
            self._files[layout.DOCUMENTS].write_table(documents)
            self._files[layout.TOKENS].write(_joined(kept.column("tokens")))
            if self.with_masks:
                ids, bits = self._mask_table.assign_ids(_joined(table.column("new_masks")))
                numbers = np.frombuffer(_joined(kept.column("mask_numbers")), dtype="<u4")
                self._files[layout.MASK_IDS].write(ids[numbers].tobytes())
                self._files[layout.MASKS].write(bits)

    def _is_new(self, content_hash: bytes | None) -> bool:
        """Whether this is the first document with this content; False for None, of a rejected one."""
        before = len(self._seen)
        if content_hash is not None:
            self._seen.add(content_hash)
        return len(self._seen) > before

    def commit(self, input_identity: dict[str, Any], export_pt: bool = False) -> TokenStore:
        """Put the finished store in place.

        Args:
            input_identity: part of the manifest, by which a later run sees whether anything has changed.
            export_pt: also write train.pt and val.pt.

        Raises:
            UserError: the disk is full.
        """
        with writing_to(self.output):
            for file in self._files.values():
                file.close()
            manifest = self._write_documents() | {"input": input_identity, "files": {}}
            staged = TokenStore(self.partial, manifest)
            names = [*layout.REQUIRED_FILES, *(MASK_FILES if self.with_masks else [])]
            if export_pt:
                names += [export(staged, "train", self.settings), export(staged, "val", self.settings)]
            metadata = self._metadata(staged, export_pt)
            (self.partial / layout.METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
            records = [record_of(self.partial / name) for name in names]
            manifest["files"] = {each.name: {"size": each.size, "sha256": each.sha256} for each in records}
            manifest["counts"]["windows"] = metadata["num_windows"]
            manifest["sha256"] = layout.manifest_sha256(manifest)
            (self.partial / layout.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            for name in (*names, layout.MANIFEST):
                fsync(self.partial / name)
            self._move_into_place(names)
        return TokenStore(self.output, manifest)

    def _move_into_place(self, names: list[str]) -> None:
        (self.output / layout.MANIFEST).unlink(missing_ok=True)
        fsync(self.output)
        for name in ("train.pt", "val.pt", *MASK_FILES):  # of an older store
            (self.output / name).unlink(missing_ok=True)
        for name in names:
            os.replace(self.partial / name, self.output / name)
        fsync(self.output)
        os.replace(self.partial / layout.MANIFEST, self.output / layout.MANIFEST)
        fsync(self.output)
        shutil.rmtree(self.partial)

    def _write_documents(self) -> dict[str, Any]:
        """Split the documents, and write the tables of documents and of rejected ones. Returns the manifest so far."""
        documents = _spooled(self.partial, layout.DOCUMENTS)
        splits, split_by = split_documents(documents, self.settings.train_split, self.settings.split_seed)
        lengths = documents.column("length").to_numpy()
        starts = np.cumsum(lengths) - lengths
        schema = layout.DOCUMENT_SCHEMA
        with pa.parquet.ParquetWriter(self.partial / layout.DOCUMENTS, schema, compression="zstd") as file:
            for first in range(0, max(1, len(documents)), layout.ROW_GROUP):
                rows = slice(first, first + layout.ROW_GROUP)
                group = documents.slice(first, layout.ROW_GROUP).append_column(
                    "start", pa.array(starts[rows])
                )
                group = group.append_column("split", pa.array(splits[rows], pa.string()))
                file.write_table(group.select(schema.names).combine_chunks())
        rejected = _spooled(self.partial, layout.REJECTED).combine_chunks()
        pa.parquet.write_table(rejected, self.partial / layout.REJECTED, compression="zstd")
        sizes = Counter(splits.tolist())
        return {
            "format": layout.FORMAT,
            "format_version": layout.FORMAT_VERSION,
            "tokenizer": {
                "name": self.tokenizer.name,
                "fingerprint": self.tokenizer.fingerprint,
                "vocab_size": self.tokenizer.vocab_size(),
                "pad_token": self.tokenizer.pad_token(),
            },
            "settings": asdict(self.settings),
            "split_by": split_by,
            "counts": {
                "documents": self.num_documents,
                "train_documents": sizes[TRAIN],
                "val_documents": sizes[VAL],
                "near_duplicates": sizes[NEAR_DUPLICATE],
                "tokens": int(lengths.sum()),
                "json_bytes": int(documents.column("json_bytes").to_numpy().sum()),
                "duplicates": self.duplicates,
                "rejected": self.rejected.total(),
                "rejected_by_reason": dict(sorted(self.rejected.items())),
            },
        }

    def _metadata(self, staged: TokenStore, export_pt: bool) -> dict[str, Any]:
        settings = self.settings
        num_train, num_val = len(settings.windows(staged, "train")), len(settings.windows(staged, "val"))
        metadata = {
            "context_size": settings.context_size,
            "stride": settings.stride or settings.context_size,
            "train_split": settings.train_split,
            "num_workflows": self.num_documents,
            "num_windows": num_train + num_val,
            "num_train": num_train,
            "num_val": num_val,
            "window_shape": [settings.context_size + 1],
            "windowing": settings.windowing,
            "vocab_size": self.tokenizer.vocab_size(),
            "pad_token": self.tokenizer.pad_token(),
        }
        if export_pt:
            raw = settings.windowing == "per-document"
            metadata["exported_position_tokens"] = "position" if raw else "vocab_size + position"
            # A position is less than the length of its document.
            positions = int(staged.read_documents(["length"]).column(0).to_numpy().max(initial=0))
            vocab_size = self.tokenizer.vocab_size()
            metadata["num_embeddings"] = max(vocab_size, positions) if raw else vocab_size + positions
        return metadata


def write_store(
    output: str | Path,
    values: list[Any],
    tokenizer: Any,
    settings: StoreSettings | None = None,
    with_masks: bool = True,
) -> TokenStore:
    """Write a store of parsed workflows in this process, without Ray. Each workflow counts as another owner's."""
    sender = MaskSender() if with_masks else None
    with StoreWriter(output, tokenizer, settings or StoreSettings(), with_masks) as writer:
        writer.add(
            *(
                encode_document(f"#{index}", None, value, tokenizer, sender)
                for index, value in enumerate(values)
            )
        )
        return writer.commit({})


def export(staged: TokenStore, split: Literal["train", "val"], settings: StoreSettings) -> str:
    """Write all windows of a split as one int64 tensor (num_windows, context_size + 1); return the file's name.

    With per-document windowing a row is the result of `extract_window`: the position as a plain number, then tokens.
    Rows of a stream may hold several documents, so there position tokens are vocab_size + position.
    """
    import torch  # only an export needs it

    windows = settings.windows(staged, split)
    rows = torch.empty((len(windows), settings.context_size + 1), dtype=torch.int64)
    for first in range(0, len(windows), EXPORT_ROWS):
        indices = np.arange(first, min(first + EXPORT_ROWS, len(windows)))
        rows[first : first + len(indices)] = torch.from_numpy(windows.get(indices))
    if settings.windowing == "per-document":
        rows[:, 0] -= staged.vocab_size
    name = f"{split}.pt"
    try:
        torch.save(rows, staged.folder / name)
    except RuntimeError as error:  # torch says no more when it cannot write a plain tensor
        raise UserError(f"no space left to write {staged.folder / name}: free some") from error
    return name


def _joined(column: pa.ChunkedArray) -> memoryview:
    """The values of a column of large_binary, one after the other."""
    array = column.combine_chunks()
    _, offsets, values = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset :]
    return memoryview(values or b"")[bounds[0] : bounds[len(array)]]


def _spooled(partial: Path, name: str) -> pa.Table:
    """A spooled table, memory-mapped."""
    with pa.ipc.open_file(pa.memory_map(str(partial / f"{name}{SPOOLED}"))) as file:
        return file.read_all()


def _check_output(output: Path) -> None:
    """Raises: UserError for a folder that is not empty and holds neither a store nor the remains of a killed run."""
    if output.is_dir():
        names = {path.name for path in output.iterdir()}
        if names and not names & {layout.MANIFEST, PARTIAL, encoded_parts.FOLDER}:
            raise UserError(
                f"{output} holds other files and no token store: give --output a new or empty folder"
            )
