"""Writes a token store so that a half-written one is never taken for a finished one.

Everything is written into `<output>/.partial` first. Only when all is on disk are the files moved up, the
manifest last; an older manifest is taken away before the first move. A killed run leaves `.partial` behind,
which the next run clears. A run that fails leaves an older store as it was.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from nanochat_tct.data import encoded_parts
from nanochat_tct.data import store as layout
from nanochat_tct.data.mask_table import DocumentMasks, MaskNumbers, MaskSender
from nanochat_tct.data.split import (
    NEAR_DUPLICATE,
    TRAIN,
    VAL,
    assign,
    find_near_duplicates,
    group_digest,
    normal_hash,
)
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windowing, Windows, check_windowing, count_windows
from nanochat_tct.documents import json_bytes
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import TokenizerError

PARTIAL = ".partial"
ROW_GROUP = 65_536  # documents
UNSPLIT_SCHEMA = pa.schema([field for field in layout.DOCUMENT_SCHEMA if field.name != "split"])
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
EXPORT_ROWS = 4096  # windows built at a time


@dataclass(frozen=True)
class StoreSettings:
    """What decides the content of a store, besides documents and tokenizer.

    The tokens do not depend on the windowing: it says what metadata.json counts and what is exported.
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


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document that is fit for the store; `tokens` are uint16 little-endian; without masks anything is legal."""

    source: str
    repo: str | None
    content_hash: bytes
    json_bytes: int
    tokens: bytes
    masks: DocumentMasks | None = None
    normal_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class RejectedDocument:
    """A document that is not, with a short code for counting and the message."""

    source: str
    repo: str | None
    reason: str
    message: str


class StoreWriter:
    """Takes documents in a stable order; use as a context manager and end with `commit`.

    Attributes:
        duplicates: documents left out because one of the same content came before.
        splits: after `commit`, how many documents are in train, in val, and in neither (near-duplicate).
        split_by: after `commit`, "owner" or "document".
        reasons: rejected documents by reason.
    """

    def __init__(
        self, output: str | Path, tokenizer: Any, settings: StoreSettings, with_masks: bool = False
    ) -> None:
        self.output = Path(output)
        self.partial = self.output / PARTIAL
        self.tokenizer = tokenizer
        self.settings = settings
        self.duplicates = 0
        self.splits: Counter[str] = Counter()
        self.split_by = "owner"
        self.reasons: Counter[str] = Counter()
        self.lengths = array("q")  # of the documents taken in, in tokens
        self.with_masks = with_masks and tokenizer.masks_of([]) is not None
        self.numbers = MaskNumbers(tokenizer.vocab_size())
        self._num_tokens = 0
        self._json_bytes = 0
        self._seen: set[bytes] = set()
        self._documents: dict[str, list[Any]] = {name: [] for name in UNSPLIT_SCHEMA.names}
        self._tables: list[
            pa.Table
        ] = []  # of ROW_GROUP documents each: which split they are in is found at the end
        self._normal_hashes: list[bytes] = []
        self._rejected: list[RejectedDocument] = []
        assert tokenizer.vocab_size() <= 1 << 16, "token ids are stored in 16 bits"

    def __enter__(self) -> "StoreWriter":
        self._created_output = not self.output.exists()
        with writing_to(self.output):
            _claim(self.output)
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.partial / "lock", "w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise UserError(f"another prepare writes to {self.output}: wait for it, or end it") from None
            for left_over in self.partial.iterdir():
                if left_over.name != "lock":
                    left_over.unlink()
            self._tokens_file = open(self.partial / layout.TOKENS, "wb")
            if self.with_masks:
                self._mask_ids_file = open(self.partial / layout.MASK_IDS, "wb")
                self._masks_file = open(self.partial / layout.MASKS, "wb")
                self._masks_file.write(self.numbers.anything)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()
        if self.partial.exists():  # not committed: leave no trace
            for file in self._open_files():
                with suppress(OSError):  # a full disk, again; the error that ended the run says so
                    file.close()
            shutil.rmtree(self.partial)
            if self._created_output:
                with suppress(OSError):  # somebody put something there meanwhile
                    self.output.rmdir()

    def add(self, document: EncodedDocument) -> None:
        """Takes a document in, unless one of the same content came before."""
        if document.masks is not None:
            self.numbers.receive(document.masks)
        if document.content_hash in self._seen:
            self.duplicates += 1
            return
        self._seen.add(document.content_hash)
        length = len(document.tokens) // 2
        assert length > 0, document.source
        row = {
            "start": self._num_tokens,
            "length": length,
            "json_bytes": document.json_bytes,
            "content_hash": document.content_hash,
            "source": document.source,
            "repo": document.repo,
        }
        for name, value in row.items():
            self._documents[name].append(value)
        self.lengths.append(length)
        self._num_tokens += length
        self._json_bytes += document.json_bytes
        self._normal_hashes.append(document.normal_hash)
        with writing_to(self.output):
            self._tokens_file.write(document.tokens)
            if self.with_masks:
                ids, bits = bytes(2 * length), b""
                if document.masks is not None:
                    ids, bits = self.numbers.number(document.masks)
                self._mask_ids_file.write(ids)
                self._masks_file.write(bits)
        if len(self._documents["start"]) == ROW_GROUP:
            self._close_table()

    def _open_files(self) -> list[Any]:
        masks = [self._mask_ids_file, self._masks_file] if self.with_masks else []
        return [self._tokens_file, *masks]

    @property
    def first_rejected(self) -> RejectedDocument | None:
        return self._rejected[0] if self._rejected else None

    def reject(self, document: RejectedDocument) -> None:
        self.reasons[document.reason] += 1
        self._rejected.append(document)

    def commit(self, input_identity: dict[str, Any], export_pt: bool = False) -> TokenStore:
        """Puts the finished store in place.

        Args:
            input_identity: what a later run compares to see that nothing changed; part of the manifest.
            export_pt: also write train.pt and val.pt.

        Raises:
            UserError: the disk is full.
        """
        with writing_to(self.output):
            for file in self._open_files():
                file.close()
            self._write_documents()
            pa.parquet.write_table(
                pa.Table.from_pylist([asdict(row) for row in self._rejected], layout.REJECTED_SCHEMA),
                self.partial / layout.REJECTED,
                compression="zstd",
            )
            manifest = self._describe(input_identity)
            staged = TokenStore(self.partial, manifest)
            names = [*layout.REQUIRED_FILES, *([layout.MASK_IDS, layout.MASKS] if self.with_masks else [])]
            if export_pt:
                names += [export(staged, split, self.settings) for split in ("train", "val")]
            metadata = self._metadata(staged, export_pt)
            (self.partial / layout.METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
            for name in names:
                path = self.partial / name
                manifest["files"][name] = {
                    "size": path.stat().st_size,
                    "sha256": layout.file_sha256(path),
                }
                _sync(path)
            manifest["counts"]["windows"] = metadata["num_windows"]
            manifest["sha256"] = layout.manifest_sha256(manifest)
            (self.partial / layout.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            _sync(self.partial / layout.MANIFEST)
            self._move_into_place(names)
        return TokenStore(self.output, manifest)

    def _move_into_place(self, names: list[str]) -> None:
        (self.output / layout.MANIFEST).unlink(missing_ok=True)
        _sync(self.output)
        for name in ("train.pt", "val.pt", layout.MASK_IDS, layout.MASKS):  # of an older store
            (self.output / name).unlink(missing_ok=True)
        for name in names:
            os.replace(self.partial / name, self.output / name)
        _sync(self.output)
        os.replace(self.partial / layout.MANIFEST, self.output / layout.MANIFEST)
        _sync(self.output)
        shutil.rmtree(self.partial)

    def _close_table(self) -> None:
        self._tables.append(pa.table(self._documents, schema=UNSPLIT_SCHEMA))
        self._documents = {name: [] for name in UNSPLIT_SCHEMA.names}

    def _write_documents(self) -> None:
        self._close_table()
        table = pa.concat_tables(self._tables)
        splits = self._split(table)
        self.splits = Counter(splits)
        table = table.append_column("split", pa.array(splits, pa.string()))
        pa.parquet.write_table(
            table.cast(layout.DOCUMENT_SCHEMA),
            self.partial / layout.DOCUMENTS,
            row_group_size=ROW_GROUP,
            compression="zstd",
        )

    def _split(self, table: pa.Table) -> list[str]:
        """The split of each document. Where all are of one owner, they are split one by one."""
        repos = table.column("repo").to_pylist()
        hashes = table.column("content_hash").to_pylist()
        seed = self.settings.split_seed
        digests = [group_digest(repo, content, seed) for repo, content in zip(repos, hashes, strict=True)]
        if len(set(digests)) == 1 and len(digests) > 1:
            self.split_by = "document"
            digests = [group_digest(None, content, seed) for content in hashes]
        is_train = assign(digests, self.settings.train_split)
        is_near = find_near_duplicates(is_train, self._normal_hashes)
        return [
            TRAIN if train else NEAR_DUPLICATE if near else VAL
            for train, near in zip(is_train, is_near, strict=True)
        ]

    def _describe(self, input_identity: dict[str, Any]) -> dict[str, Any]:
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
            "split_by": self.split_by,
            "counts": {
                "documents": len(self.lengths),
                "train_documents": self.splits[TRAIN],
                "val_documents": self.splits[VAL],
                "near_duplicates": self.splits[NEAR_DUPLICATE],
                "tokens": self._num_tokens,
                "json_bytes": self._json_bytes,
                "duplicates": self.duplicates,
                "rejected": sum(self.reasons.values()),
                "rejected_by_reason": dict(sorted(self.reasons.items())),
            },
            "input": input_identity,
            "files": {},
        }

    def _metadata(self, staged: TokenStore, export_pt: bool) -> dict[str, Any]:
        settings = self.settings
        counts = {
            split: count_windows(
                staged.split(split).column("length").to_numpy(),
                settings.context_size,
                settings.windowing,
                settings.stride,
            )
            for split in ("train", "val")
        }
        metadata = {
            "context_size": settings.context_size,
            "stride": settings.stride or settings.context_size,
            "train_split": settings.train_split,
            "num_workflows": len(self.lengths),
            "num_windows": counts["train"] + counts["val"],
            "num_train": counts["train"],
            "num_val": counts["val"],
            "window_shape": [settings.context_size + 1],
            "windowing": settings.windowing,
            "vocab_size": self.tokenizer.vocab_size(),
            "pad_token": self.tokenizer.pad_token(),
        }
        if export_pt:
            raw = settings.windowing == "per-document"
            metadata["exported_position_tokens"] = "position" if raw else "vocab_size + position"
            # A position is less than the length of its document.
            positions = max(self.lengths, default=0)
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
    """Writes a store of parsed workflows that are at hand, in this process and without Ray.

    Args:
        values: parsed workflows; each counts as an owner of its own.
    """
    sender = MaskSender() if with_masks else None
    with StoreWriter(output, tokenizer, settings or StoreSettings(), with_masks) as writer:
        for index, value in enumerate(values):
            writer.add(encode_document(f"#{index}", None, value, tokenizer, sender))
        return writer.commit({})


def encode_document(
    source: str, repo: str | None, value: Any, tokenizer: Any, sender: MaskSender | None = None
) -> EncodedDocument:
    """Tokens of a document and, if there is a sender, what is legal in their places.

    Raises TokenizerError if the tokenizer refuses the value.
    """
    try:
        compact = json_bytes(value)
    except RecursionError:
        raise TokenizerError("", "nested too deep") from None
    # from the text, which is needed anyway: the tokenizer's C code begins there
    ids = tokenizer.encode(compact.decode("utf-8", "surrogatepass"))
    masks = tokenizer.masks_of(ids) if sender else None
    return EncodedDocument(
        source,
        repo,
        hashlib.sha256(compact).digest(),
        len(compact),
        np.array(ids, dtype="<u2").tobytes(),
        sender.send(masks) if sender and masks is not None else None,
        normal_hash(compact),
    )


def export(staged: TokenStore, split: Any, settings: StoreSettings) -> str:
    """Writes all windows of a split as one int64 tensor (num_windows, context_size + 1). Returns its name.

    Rows of per-document windowing are what `extract_window` gives: the position as a plain number, then
    tokens. Rows of a stream hold several documents, so their position tokens are vocab_size + position.
    """
    import torch  # only an export needs it

    windows = Windows(staged, split, settings.context_size, settings.windowing, settings.stride)
    rows = torch.empty((len(windows), settings.context_size + 1), dtype=torch.int64)
    for first in range(0, len(windows), EXPORT_ROWS):
        indices = np.arange(first, min(first + EXPORT_ROWS, len(windows)))
        rows[first : first + len(indices)] = torch.from_numpy(windows.get(indices))
    if settings.windowing == "per-document":
        rows[:, 0] -= staged.vocab_size
    name = f"{split}.pt"
    try:
        torch.save(rows, staged.folder / name)
    except RuntimeError as error:  # all that torch says when a plain tensor cannot be written
        raise UserError(f"no space left to write {staged.folder / name}: free some") from error
    return name


@contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """Turns the errors of a file system that is full or refuses us into one line for the user."""
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


def _claim(output: Path) -> None:
    """Only an empty folder, a store, or what a killed run left is written into."""
    if output.is_dir():
        names = {path.name for path in output.iterdir()}
        if names and not names & {layout.MANIFEST, PARTIAL, encoded_parts.FOLDER}:
            raise UserError(
                f"{output} holds other files and no token store: give --output a new or empty folder"
            )


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
