"""The token store: what `prepare` writes and training reads.

A folder with

- tokens.bin: the token ids of all documents, one after the other, uint16 little-endian;
- documents.parquet: a row for each document, in the same order, see DOCUMENT_SCHEMA;
- rejected.parquet: the rejected documents with the reasons, see REJECTED_SCHEMA;
- metadata.json: the keys that scripts expect (context_size, num_windows, ...);
- mask_ids.bin and masks.bin, unless `--no-masks` was given: the id of a mask for each token, uint16 little-endian;
  and the masks, a bit for each token of the vocabulary, set if it is legal at that position, see data/mask_table.py;
- manifest.json: size and SHA-256 of each file, tokenizer, counts, settings; written last;
- train.pt and val.pt with `--export-pt`.

Tokens are memory-mapped, so they cost no memory, and all workers of a machine share one copy. Of the table of
documents only the columns are read that are asked for.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import FileRecord, find_damage
from nanochat_tct.storage.growing_copy import BEGUN, GrowingCopy
from nanochat_tct.storage.object_storage import RemoteFolder, is_remote, local_path
from nanochat_tct.threads import in_thread

MANIFEST = "manifest.json"
TOKENS = "tokens.bin"
DOCUMENTS = "documents.parquet"
REJECTED = "rejected.parquet"
METADATA = "metadata.json"
MASK_IDS = "mask_ids.bin"
MASKS = "masks.bin"
GROWING = (TOKENS, MASK_IDS)  # two bytes for each token
REQUIRED_FILES = (TOKENS, DOCUMENTS, REJECTED, METADATA)
ROW_GROUP = 65_536  # documents of DOCUMENTS that are written, and read, at a time
FORMAT = "nanochat-tct token store"
FORMAT_VERSION = 1

DOCUMENT_SCHEMA = pa.schema(
    [
        ("start", pa.int64()),  # in tokens.bin, in tokens
        ("length", pa.int64()),  # in tokens
        ("json_bytes", pa.int64()),  # of the compact JSON
        ("content_hash", pa.binary(32)),  # SHA-256 of the compact JSON
        ("source", pa.string()),
        ("repo", pa.string()),  # null if unknown
        ("split", pa.string()),  # train, val, or near-duplicate: of a document of train, so not validated on
    ]
)
REJECTED_SCHEMA = pa.schema(
    [("source", pa.string()), ("repo", pa.string()), ("reason", pa.string()), ("message", pa.string())]
)


class TokenStore:
    """An opened store: read-only, safe to share between processes.

    Attributes:
        folder: its path on this machine.
        manifest: the content of manifest.json.
        tokenizer_name, tokenizer_fingerprint, vocab_size, pad_token: of the tokenizer that wrote the tokens.
        tokens: all token ids, uint16 (num_tokens,), memory-mapped.
        documents: the whole table of documents (pyarrow), see DOCUMENT_SCHEMA.
        mask_ids, masks: masks[mask_ids[n]] has a bit for each token, set if it is legal at the position of tokens[n].
            uint16 (num_tokens,) and uint8 (num_masks, ceil(vocab_size / 8)), memory-mapped; None without masks.
        copy: of a remote store that is not all on this machine: `tokens` and `mask_ids` hold what `need` was called
            for. None: they hold everything.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], copy: GrowingCopy | None = None) -> None:
        """Map the files of a folder whose manifest has been checked. Others call `TokenStore.open`."""
        self.folder = folder
        self.manifest = manifest
        self.copy = copy
        self._completing: Future[None] | None = None
        tokenizer = manifest["tokenizer"]
        self.tokenizer_name: str = tokenizer["name"]
        self.tokenizer_fingerprint: str = tokenizer["fingerprint"]
        self.vocab_size: int = tokenizer["vocab_size"]
        self.pad_token: int = tokenizer["pad_token"]
        self.tokens = np.memmap(folder / TOKENS, dtype="<u2", mode="r")
        self.mask_ids: np.ndarray | None = None
        self.masks: np.ndarray | None = None
        if MASKS in manifest["files"]:
            self.mask_ids = np.memmap(folder / MASK_IDS, dtype="<u2", mode="r")
            mask_bytes = -(-self.vocab_size // 8)
            self.masks = np.memmap(folder / MASKS, dtype="u1", mode="r").reshape(-1, mask_bytes)

    @classmethod
    def open(cls, data_dir: str | Path, verify: bool = True, is_whole: bool = True) -> "TokenStore":
        """Open a finished store. A remote store is downloaded to this machine first, once.

        Args:
            data_dir: a folder, or its URI in object storage.
            verify: compare the SHA-256 of every file, which takes about a second for each GB, and not only its size.
                A remote store is verified as it is downloaded.
            is_whole: False: a remote store may be opened before its tokens are there; see `need` and `complete`.

        Raises:
            UserError: the store is missing, unfinished, damaged or of another version, or the storage refuses.
        """
        folder, copy = local_path(data_dir), None
        if is_remote(data_dir):
            copy = GrowingCopy.begin(str(data_dir), MANIFEST, _records, GROWING)
        is_new = copy is not None  # and verified when it is complete
        if copy is not None and is_whole:
            copy.complete()
            copy = None
        manifest = _read_manifest(folder / (MANIFEST if copy is None else f"{MANIFEST}{BEGUN}"))
        for record in _file_records(folder, manifest):
            if (damage := find_damage(folder, record, verify and not is_new)) is not None:
                raise UserError(f"{folder / record.name}: {damage}; run prepare again")
        try:
            store = cls(folder, manifest, copy)
            store._check_content(verify and copy is None)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder} cannot be read ({reason}); run prepare again") from error
        return store

    def _check_content(self, verify: bool) -> None:
        """Refuse files that match their manifest but cannot have been written by `prepare`."""
        if not pyarrow.parquet.read_schema(self.folder / DOCUMENTS).equals(DOCUMENT_SCHEMA):
            raise UserError(f"{self.folder / DOCUMENTS} has other columns than a store's; run prepare again")
        end, is_right = 0, True
        for batch in self._batches(["start", "length"]):
            if any(column.null_count for column in batch.columns):
                is_right = False
                break
            starts, lengths = (column.to_numpy() for column in batch.columns)
            ends = end + np.cumsum(lengths)
            is_right = is_right and bool((lengths >= 1).all() and (starts == ends - lengths).all())
            end += int(lengths.sum())
        if not is_right or end != len(self.tokens):
            raise UserError(f"{self.folder / TOKENS} does not hold what {DOCUMENTS} says; run prepare again")
        if verify and len(self.tokens) and int(self.tokens.max()) >= self.vocab_size:
            raise UserError(
                f"{self.folder / TOKENS} holds tokens beyond the vocabulary of {self.vocab_size}; run prepare again"
            )

    def need(self, indices: np.ndarray) -> None:
        """Wait until `tokens` and `mask_ids` at these indices are on this machine. Raises: StorageError."""
        if (copy := self.copy) is not None:  # the thread of `complete` removes it
            for file in copy.files.values():
                file.fetch(indices * self.tokens.itemsize)

    def complete(self) -> Future[None]:
        """Download the rest of the store in a thread, and verify it.

        Returns: the end of that; UserError when a file differs from the manifest, so that what was read may be wrong.
        """
        if self._completing is None:
            self._completing = in_thread(self._complete)
        return self._completing

    def _complete(self) -> None:
        if self.copy is not None:
            is_own = self.copy.complete()
            self.copy = None
            self._check_content(verify=is_own)

    @functools.cached_property
    def documents(self) -> pa.Table:
        return self.read_documents(DOCUMENT_SCHEMA.names)

    def read_documents(self, columns: list[str]) -> pa.Table:
        """Some columns of the table of documents."""
        return pyarrow.parquet.ParquetFile(self.folder / DOCUMENTS).read(columns)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of the table of documents, a group of rows at a time, so that little of it is in memory."""
        return pyarrow.parquet.ParquetFile(self.folder / DOCUMENTS).iter_batches(
            ROW_GROUP, columns=columns, use_threads=False
        )

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of tokenizer and content, in hex; it does not depend on where the store is."""
        files = self.manifest["files"]
        identity = {
            "format_version": self.manifest["format_version"],
            "tokenizer": self.tokenizer_fingerprint,
            "files": {name: files[name]["sha256"] for name in (TOKENS, DOCUMENTS)},
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def split(
        self, name: Literal["train", "val"], columns: Sequence[str] = DOCUMENT_SCHEMA.names
    ) -> pa.Table:
        """Some columns of the documents in a split, in the store's order."""
        assert name in ("train", "val"), name
        batches = [
            batch.filter(pyarrow.compute.equal(batch.column("split"), name)).select(columns)
            for batch in self._batches([*columns, *({"split"} - set(columns))])
        ]
        return pa.Table.from_batches(
            batches, pa.schema([DOCUMENT_SCHEMA.field(column) for column in columns])
        )

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raises: UserError if another tokenizer wrote the tokens."""
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise UserError(
                f"{self.folder} was prepared with the tokenizer '{self.tokenizer_name}' "
                f"({self.tokenizer_fingerprint[:12]}), not with '{tokenizer.name}' "
                f"({tokenizer.fingerprint[:12]}): prepare it again, or use that tokenizer"
            )

    def token_range(self, start: int, length: int) -> np.ndarray:
        """The token ids of a document that the table of documents says begins at `start`, uint16 (length,)."""
        self.need(np.arange(start, start + length))
        return self.tokens[start : start + length]


def upload_store(folder: Path, uri: str) -> bool:
    """Upload a finished store to object storage; return False if the same store is there already.

    Raises:
        UserError: the storage refuses.
    """
    return RemoteFolder(uri).upload_folder(folder, _read_manifest(folder / MANIFEST)["files"], MANIFEST)


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest, which it holds under "sha256": that of all its other keys."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    folder = path.parent
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder of a token store, the --output of prepare")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: run prepare with --output {folder} first")
    if not path.is_file():
        raise UserError(f"{folder} holds no finished token store ({MANIFEST} is missing): run prepare first")
    try:
        manifest = json.loads(path.read_bytes())
        valid = (
            manifest["format"] == FORMAT
            and manifest["sha256"] == manifest_sha256(manifest)
            and all(isinstance(manifest["tokenizer"][key], str) for key in ("name", "fingerprint"))
            and all(isinstance(manifest["tokenizer"][key], int) for key in ("vocab_size", "pad_token"))
            and all(name in manifest["files"] for name in REQUIRED_FILES)
            and all(
                isinstance(file["size"], int) and isinstance(file["sha256"], str)
                for file in manifest["files"].values()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        valid = False
    if not valid:
        raise UserError(f"{path} is damaged or not of a token store; run prepare again")
    if manifest.get("format_version") != FORMAT_VERSION:
        version = manifest.get("format_version")
        raise UserError(
            f"{path} is of format version {version}, this program reads {FORMAT_VERSION}: run prepare again"
        )
    return manifest


def _records(path: Path) -> list[FileRecord]:
    """The files of a store by its manifest at `path`. Raises: UserError for a wrong manifest."""
    return _file_records(path.parent, _read_manifest(path))


def _file_records(folder: Path, manifest: dict[str, Any]) -> list[FileRecord]:
    """The files of a store. Raises: UserError when the manifest names one outside its folder."""
    files = manifest["files"]
    for name in files:
        if Path(name).name != name or (folder / name).resolve().parent != folder.resolve():
            raise UserError(f"{folder / MANIFEST} names a file outside its folder: {name!r}")
    return [FileRecord(name, file["size"], file["sha256"]) for name, file in files.items()]
