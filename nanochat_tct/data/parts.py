"""Cut the input into parts of a few MB, and read their documents: YAML, JSON, JSON lines and Parquet.

The names of files, and then the order of lines or rows, alone decide the order of documents.
"""

import functools
import itertools
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from nanochat_tct.data.sources import Source
from nanochat_tct.documents import DocumentError, Limits, read_document, read_workflow
from nanochat_tct.errors import UserError
from nanochat_tct.storage.object_storage import persist

PART_BYTES = 8 << 20
PART_FILES = 1000
PART_ROWS = 500
MAX_SLICES = 8  # of a Parquet row group, as the task of each slice reads the group from its start
REMOTE_THREADS = 16
LINE_OVERHEAD = 6  # a character takes up to 6 in a JSON string, as an escape
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work: some whole files, or some rows of one file."""

    sources: tuple[Source, ...]
    documents: int
    start: int = 0  # byte of a .jsonl file, or row of a Parquet row group
    stop: int = 0
    first: int = 0  # number of the first line or row in its file
    row_group: int = 0

    @property
    def names(self) -> list[str]:
        """The names of the documents, which are lines or rows of one file."""
        return [
            f"{self.sources[0].name}#{number + 1}"
            for number in range(self.first, self.first + self.documents)
        ]


@dataclass(frozen=True, slots=True)
class RawDocument:
    """The content of a document, not parsed yet; or, with `error`, a document that cannot be read."""

    source: str
    repo: str | None
    text: str | bytes
    format: Literal["yaml", "json", "auto", "json-line"]
    error: DocumentError | None = None


def plan_parts(sources: list[Source]) -> list[Part]:
    """Cut the input into parts, one for each task, in the order of documents.

    Raises:
        UserError: a .jsonl or .parquet file that cannot be read.
    """
    files_a_part = min(PART_FILES, max(32, len(sources) // 16))
    parts: list[Part] = []
    batch: list[Source] = []
    batch_bytes = 0
    for source in sources:
        if batch and (
            source.kind in ("jsonl", "parquet")
            or len(batch) == files_a_part
            or batch_bytes + source.size > PART_BYTES
        ):
            parts.append(Part(tuple(batch), len(batch)))
            batch, batch_bytes = [], 0
        if source.kind == "jsonl":
            parts.extend(_all_of(source, _plan_lines, source))
        elif source.kind == "parquet":
            parts.extend(_all_of(source, _plan_rows, source))
        else:
            batch.append(source)
            batch_bytes += source.size
    if batch:
        parts.append(Part(tuple(batch), len(batch)))
    return parts


def _plan_lines(source: Source) -> Iterator[Part]:
    """Cut a file at line ends. Lines have numbers, so the file is read once. A very long line is a part by itself."""
    with _planning(source), _open(source) as file:
        position = start = first = 0
        while block := file.read(PART_BYTES):
            if position - start > PART_BYTES and (end := block.find(b"\n") + 1):
                yield Part((source,), 1, start, position + end, first)
                start, first = position + end, first + 1
            if (cut := block.rfind(b"\n") + 1) and position + cut > start:
                lines = block.count(b"\n", max(0, start - position), cut)
                yield Part((source,), lines, start, position + cut, first)
                start, first = position + cut, first + lines
            position += len(block)
        if position > start:
            yield Part((source,), 1, start, position, first)


def _plan_rows(source: Source) -> Iterator[Part]:
    with _planning(source), _open(source, seekable=True) as file, pa.parquet.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        has_text = "text" in schema.names and _is_text(schema.field("text").type)
        groups = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
    if not has_text:
        raise UserError(f"{source.location} has no column `text` of strings: workflows are read from there")
    first = 0
    for group, rows in enumerate(groups):
        step = max(1, -(-rows // min(MAX_SLICES, max(1, rows // PART_ROWS))))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            yield Part((source,), stop - start, start, stop, first + start, group)
        first += rows


@contextmanager
def _planning(source: Source) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        _raise_if_remote(source, error)
        raise UserError(f"cannot read {source.location}: {_one_line(error)}") from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


def read_part(part: Part, limits: Limits) -> Iterator[RawDocument]:
    """Yield the documents of a part in order, including those that cannot be read.

    Raises:
        UserError: a file is not on this machine.
        StorageError: object storage refuses, or fails for good.
    """
    first = part.sources[0]
    if first.kind == "jsonl":
        yield from _all_of(first, _read_lines, part, limits)
    elif first.kind == "parquet":
        yield from _all_of(first, _read_rows, part)
    elif first.filesystem:
        with ThreadPoolExecutor(REMOTE_THREADS) as pool:
            yield from pool.map(
                lambda source: persist(source.location, lambda: _read_file(source, limits)), part.sources
            )
    else:
        for source in part.sources:
            yield _read_file(source, limits)


def _all_of(source: Source, read: Callable[..., Iterable[Result]], *arguments: Any) -> list[Result]:
    """Everything that `read` yields of a source; a failed request to object storage is repeated."""
    if source.filesystem:
        return persist(source.location, lambda: list(read(*arguments)))
    return list(read(*arguments))


def _raise_if_remote(source: Source, error: Exception) -> None:
    """Raise a failure of the storage, for which the document must not be rejected."""
    if source.filesystem and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        raise error


def _read_file(source: Source, limits: Limits) -> RawDocument:
    assert source.kind in ("json", "yaml")
    try:
        if source.problem:
            raise DocumentError("unreadable", source.problem)
        if source.size > limits.max_bytes:
            message = f"{source.size} bytes, more than the limit of {limits.max_bytes}"
            raise DocumentError("too-large", message)
        with _open(source) as file:
            text = file.read()
    except OSError as error:
        return _unreadable(source, source.name, source.repo, error)
    except DocumentError as error:
        return RawDocument(source.name, source.repo, b"", source.kind, error)
    return RawDocument(source.name, source.repo, text, source.kind)


def _read_lines(part: Part, limits: Limits) -> Iterator[RawDocument]:
    (source,) = part.sources
    size, longest = part.stop - part.start, LINE_OVERHEAD * limits.max_bytes
    problem = None
    if part.documents == 1 and size > longest:
        problem = DocumentError("too-large", f"a line of {size} bytes, the limit is {longest}")
    else:
        try:
            with _open(source, seekable=True) as file:
                file.seek(part.start)
                lines = file.read(size).removesuffix(b"\n").split(b"\n")
        except OSError as error:
            yield from (_unreadable(source, name, None, error) for name in part.names)
            return
        if len(lines) != part.documents:
            problem = DocumentError("unreadable", "the file changed while it was read")
    if problem is not None:
        yield from (RawDocument(name, None, b"", "json-line", problem) for name in part.names)
        return
    for name, line in zip(part.names, lines, strict=True):
        if line.strip():
            yield RawDocument(name, None, line, "json-line")


def _read_rows(part: Part) -> Iterator[RawDocument]:
    (source,) = part.sources
    names = part.names
    done = 0
    try:
        with _open(source, seekable=True) as file, pa.parquet.ParquetFile(file) as parquet:
            columns = [name for name in ("text", "repo", "path") if name in parquet.schema_arrow.names]
            batches = parquet.iter_batches(512, row_groups=[part.row_group], columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            for row in itertools.islice(rows, part.start, part.stop):
                yield _row_document(names[done], row)
                done += 1
    except (OSError, pa.ArrowException) as error:
        yield from (_unreadable(source, name, None, error) for name in names[done:])


def _row_document(name: str, row: dict[str, Any]) -> RawDocument:
    if isinstance(row.get("path"), str):
        name += f":{row['path']}"
    repo = str(row["repo"]) if row.get("repo") else None
    if row["text"] is None:
        return RawDocument(name, repo, b"", "auto", DocumentError("empty", "the row has no text"))
    return RawDocument(name, repo, row["text"], "auto")


def _unreadable(source: Source, name: str, repo: str | None, error: Exception) -> RawDocument:
    _raise_if_remote(source, error)
    if isinstance(error, FileNotFoundError):
        raise UserError(
            f"on machine {socket.gethostname()}: {source.location} is not there. Every machine must see the input: a "
            "folder that all share, or --input s3://...; and nobody may change it meanwhile"
        ) from error
    return RawDocument(name, repo, b"", "auto", DocumentError("unreadable", _one_line(error)))


@functools.cache
def _filesystem(uri: str) -> Any:
    return pa.fs.FileSystem.from_uri(uri)[0]


def _open(source: Source, seekable: bool = False) -> Any:
    if not source.filesystem:
        return open(source.path, "rb")
    filesystem = _filesystem(source.filesystem)
    if seekable:
        return filesystem.open_input_file(source.path)
    return filesystem.open_input_stream(source.path, compression=None)


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


def parse_raw(raw: RawDocument, limits: Limits, any_value: bool = False) -> tuple[Any, str | None]:
    """Parse a document. Returns its value and its repository, if known.

    Args:
        any_value: also accept documents that are not mappings; schemas other than GitHub's may allow them.

    Raises:
        DocumentError: it cannot be read, or is not a workflow document.
    """
    if raw.error is not None:
        raise raw.error
    read = read_document if any_value else read_workflow
    if raw.format != "json-line":
        return read(raw.text, raw.format, limits), raw.repo
    # A line is a document itself, or an object with the `text` and perhaps the `repo` of a document.
    value = read(raw.text, "json", replace(limits, max_bytes=limits.max_bytes * LINE_OVERHEAD))
    if isinstance(value, dict) and isinstance(value.get("text"), str) and "jobs" not in value:
        repo = value.get("repo")
        return read(value["text"], "auto", limits), repo if isinstance(repo, str) and repo else None
    if len(raw.text) > limits.max_bytes:
        raise DocumentError("too-large", f"{len(raw.text)} bytes, more than the limit of {limits.max_bytes}")
    return value, None
