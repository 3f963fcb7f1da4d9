"""Where workflows come from: files, folders, globs, git checkouts, JSON lines and Parquet; local or remote.

`find_sources` lists the files, `plan_parts` cuts them into parts of a few MB, `read_part` yields the
documents of one. Documents come in the order of their files' names, then of their rows, and nothing else.
"""

import fnmatch
import functools
import glob
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from nanochat_tct.data.documents import DocumentError, Limits
from nanochat_tct.errors import UserError
from nanochat_tct.remote import persist, shown

KINDS: dict[str, Literal["json", "yaml", "jsonl", "parquet"]] = {
    ".json": "json",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
WHAT_IS_READ = ".json, .yml, .yaml, .jsonl or .parquet"
PART_BYTES = 8 << 20
PART_FILES = 1000
PART_ROWS = 500
MAX_SLICES = 8  # of a Parquet row group: each slice reads the group from its start
REMOTE_THREADS = 16
# A line of JSON that holds a workflow as text: escapes make it longer than the text.
LINE_OVERHEAD = 6
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read. `filesystem` is the URI that its file system comes from, empty for a local path."""

    name: str
    path: str
    kind: Literal["json", "yaml", "jsonl", "parquet"]
    repo: str | None
    size: int
    modified: int  # ns
    filesystem: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work: some whole files, or some rows of one file.

    start and stop are bytes of a .jsonl file, rows of a Parquet row group; first is the number of the first
    line or row in its file.
    """

    sources: tuple[Source, ...]
    documents: int
    start: int = 0
    stop: int = 0
    first: int = 0
    row_group: int = 0


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One document as found; or, with `error`, one that cannot be read."""

    source: str
    repo: str | None
    text: str | bytes
    format: Literal["yaml", "json", "auto", "json-line"]
    error: DocumentError | None = None


# ----------------------------------------------------------------------------------------------------
# Finding files


def find_sources(inputs: list[str]) -> list[Source]:
    """Lists the files behind paths, globs and URIs, sorted by name, each once.

    In a folder every file of a known kind counts, however deep; a folder inside it that holds `.git` is a
    checkout: of it only `.github/workflows/*.yml` and `*.yaml` count, and it is their repository.

    Raises:
        UserError: a path that does not exist, a glob or folder without files, an unreachable file system.
    """
    found: dict[str, Source] = {}
    for given in inputs:
        sources = list(_find_remote(given) if "://" in given else _find_local(given))
        if not sources:
            raise UserError(f"--input {given}: no {WHAT_IS_READ} file there")
        for source in sources:
            where = source.name if source.filesystem else source.path
            if len(inputs) > 1:  # one folder or glob names no file twice
                where = where if source.filesystem else os.path.abspath(where)
            found.setdefault(where, source)
    return sorted(found.values(), key=lambda source: (source.name, source.path))


def sources_fingerprint(sources: list[Source]) -> str:
    """Changes when a file is added, removed, renamed or written to (by size and time): hex."""
    digest = hashlib.sha256()
    for source in sources:
        line = f"{source.name}\0{source.repo}\0{source.size}\0{source.modified}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _find_local(given: str) -> Iterator[Source]:
    given = os.path.expanduser(given)
    if os.path.isdir(given):
        yield from _walk(given, given)
    elif os.path.exists(given):
        yield _local_file(given, _kind_of_given(given))
    elif glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise UserError(f"--input {given}: nothing matches")
        for match in matches:
            if os.path.isfile(match) and (kind := _kind_of(match)):
                yield _local_file(match, kind)
    else:
        raise UserError(f"--input {given}: there is no such file or folder")


def _walk(folder: str, root: str) -> Iterator[Source]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    if folder != root and any(entry.name == ".git" for entry in entries):
        workflows = os.path.join(folder, ".github", "workflows")
        if os.path.isdir(workflows):
            repo = os.path.relpath(folder, root).replace(os.sep, "/")
            for entry in sorted(os.scandir(workflows), key=lambda entry: entry.name):
                if _kind_of(entry.name) == "yaml" and entry.is_file():
                    yield _local_file(entry.path, "yaml", repo)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != ".git":
                yield from _walk(entry.path, root)
        elif (kind := _kind_of(entry.name)) and entry.is_file():
            status = entry.stat()
            yield Source(_shown(entry.path), entry.path, kind, None, status.st_size, status.st_mtime_ns)


def _local_file(path: str, kind: Any, repo: str | None = None) -> Source:
    status = os.stat(path)
    return Source(_shown(path), path, kind, repo, status.st_size, status.st_mtime_ns)


def _find_remote(given: str) -> Iterator[Source]:
    location, question_mark, options = given.partition("?")
    folder = location
    if "*" in location or "[" in location:
        fixed = re.split(r"[*\[]", location)[0]
        folder = fixed[: fixed.rindex("/")]
    uri = folder + question_mark + options
    where = f"--input {shown(given)}"
    filesystem, path = persist(where, lambda: pa.fs.FileSystem.from_uri(uri))
    info = persist(where, lambda: filesystem.get_file_info(path))
    if info.type == pa.fs.FileType.NotFound:
        raise UserError(f"{where}: there is no such file or folder")
    if info.type == pa.fs.FileType.File:
        yield _remote_file(info, uri, _kind_of_given(path), None)
        return
    listed = persist(where, lambda: filesystem.get_file_info(pa.fs.FileSelector(path, recursive=True)))
    marked = (re.match(r"(.*?)/\.git(/|$)", entry.path) for entry in listed)
    checkouts = {match[1] for match in marked if match} - {path}
    # The glob, if there is one, in the file system's own form of paths, which has no scheme.
    pattern = path.rstrip("/") + location[len(folder) :]
    for entry in listed:
        kind = _kind_of(entry.path)
        if entry.type != pa.fs.FileType.File or not kind or "/.git/" in entry.path:
            continue
        if folder != location and not fnmatch.fnmatchcase(entry.path, pattern):
            continue
        repo = None
        if checkout := next((root for root in _parents(entry.path) if root in checkouts), None):
            if os.path.dirname(entry.path) != f"{checkout}/.github/workflows" or kind != "yaml":
                continue
            repo = checkout.removeprefix(path).strip("/")
        yield _remote_file(entry, uri, kind, repo)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path[: path.rindex("/")]
        yield path


def _remote_file(info: Any, uri: str, kind: Any, repo: str | None) -> Source:
    scheme = uri.split("://")[0]
    name = f"{scheme}://{info.path}"
    return Source(name, info.path, kind, repo, info.size, info.mtime_ns or 0, filesystem=uri)


def _kind_of(path: str) -> Any:
    return KINDS.get(os.path.splitext(path)[1].lower())


def _kind_of_given(path: str) -> Any:
    kind = _kind_of(path)
    if kind is None:
        raise UserError(f"--input {path}: the name must end in {WHAT_IS_READ}")
    return kind


def _shown(path: str) -> str:
    """A path as text that can be stored: names that are not UTF-8 lose their odd bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        path = os.fsencode(path).decode("utf-8", "replace")
    return path


# ----------------------------------------------------------------------------------------------------
# Cutting into parts


def plan_parts(sources: list[Source]) -> list[Part]:
    """Cuts the input into parts that a task each can do, in the order of documents.

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
    """Cuts at line ends; reads the file once, to count lines. A line longer than a part is one by itself."""
    try:
        with _open_stream(source) as file:
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
    except OSError as error:
        _raise_if_remote(source, error)
        raise UserError(f"cannot read {source.name}: {_one_line(error)}") from error


def _plan_rows(source: Source) -> Iterator[Part]:
    try:
        with _open_random(source) as file, pa.parquet.ParquetFile(file) as parquet:
            has_text = "text" in parquet.schema_arrow.names and _is_text(
                parquet.schema_arrow.field("text").type
            )
            groups = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        _raise_if_remote(source, error)
        raise UserError(f"cannot read {source.name}: {_one_line(error)}") from error
    if not has_text:
        raise UserError(f"{source.name} has no column `text` of strings: workflows are read from there")
    first = 0
    for group, rows in enumerate(groups):
        step = max(1, -(-rows // min(MAX_SLICES, max(1, rows // PART_ROWS))))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            yield Part((source,), stop - start, start, stop, first + start, group)
        first += rows


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


# ----------------------------------------------------------------------------------------------------
# Reading parts


def read_part(part: Part, limits: Limits) -> Iterator[RawDocument]:
    """Yields the documents of a part in order. What cannot be read comes with its error; nothing is lost.

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
                lambda source: persist(source.name, lambda: _read_file(source, limits)), part.sources
            )
    else:
        for source in part.sources:
            yield _read_file(source, limits)


def _all_of(source: Source, read: Callable[..., Iterable[Result]], *arguments: Any) -> list[Result]:
    """What `read` yields of a source; what object storage fails at is tried again."""
    if source.filesystem:
        return persist(source.name, lambda: list(read(*arguments)))
    return list(read(*arguments))


def _raise_if_remote(source: Source, error: Exception) -> None:
    """What storage failed at is no fault of the document's."""
    if source.filesystem and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        raise error


def _read_file(source: Source, limits: Limits) -> RawDocument:
    assert source.kind in ("json", "yaml")
    try:
        if source.size > limits.max_bytes:
            message = f"{source.size} bytes, more than the limit of {limits.max_bytes}"
            raise DocumentError("too-large", message)
        with _open_stream(source) as file:
            text = file.read()
    except OSError as error:
        return _unreadable(source, source.name, source.repo, error)
    except DocumentError as error:
        return RawDocument(source.name, source.repo, b"", source.kind, error)
    return RawDocument(source.name, source.repo, text, source.kind)


def _read_lines(part: Part, limits: Limits) -> Iterator[RawDocument]:
    (source,) = part.sources
    longest = LINE_OVERHEAD * limits.max_bytes
    names = [f"{source.name}#{number + 1}" for number in range(part.first, part.first + part.documents)]
    if part.documents == 1 and part.stop - part.start > longest:
        error = DocumentError(
            "too-large", f"a line of {part.stop - part.start} bytes, the limit is {longest}"
        )
        yield RawDocument(names[0], None, b"", "json-line", error)
        return
    try:
        with _open_random(source) as file:
            file.seek(part.start)
            lines = file.read(part.stop - part.start).removesuffix(b"\n").split(b"\n")
    except OSError as error:
        yield from (_unreadable(source, name, None, error) for name in names)
        return
    if len(lines) != len(names):
        changed = OSError("the file changed while it was read")
        yield from (_rejected(name, None, changed) for name in names)
        return
    for name, line in zip(names, lines, strict=True):
        if line.strip():
            yield RawDocument(name, None, line, "json-line")


def _read_rows(part: Part) -> Iterator[RawDocument]:
    (source,) = part.sources
    done = part.start
    try:
        with _open_random(source) as file, pa.parquet.ParquetFile(file) as parquet:
            columns = [name for name in ("text", "repo", "path") if name in parquet.schema_arrow.names]
            row = 0
            for batch in parquet.iter_batches(512, row_groups=[part.row_group], columns=columns):
                if row >= part.stop:
                    break
                begin, row = row, row + len(batch)
                if row <= part.start:
                    continue
                skipped = max(0, part.start - begin)
                for values in batch.slice(skipped, part.stop - begin - skipped).to_pylist():
                    yield _row_document(source, part.first + done - part.start + 1, values)
                    done += 1
    except (OSError, pa.ArrowException) as error:
        for row in range(done, part.stop):
            yield _unreadable(source, f"{source.name}#{part.first + row - part.start + 1}", None, error)


def _row_document(source: Source, number: int, values: dict[str, Any]) -> RawDocument:
    name = f"{source.name}#{number}"
    if isinstance(values.get("path"), str):
        name += f":{values['path']}"
    repo = values.get("repo") or None
    repo = str(repo) if repo is not None else None
    if values["text"] is None:
        return RawDocument(name, repo, b"", "auto", DocumentError("empty", "the row has no text"))
    return RawDocument(name, repo, values["text"], "auto")


def _unreadable(source: Source, name: str, repo: str | None, error: Exception) -> RawDocument:
    _raise_if_remote(source, error)
    if isinstance(error, FileNotFoundError):
        raise UserError(
            f"on machine {socket.gethostname()}: {source.name} is not there. Every machine must see the input: a "
            "folder that all share, or --input s3://...; and nobody may change it meanwhile"
        ) from error
    return _rejected(name, repo, error)


def _rejected(name: str, repo: str | None, error: Exception) -> RawDocument:
    return RawDocument(name, repo, b"", "auto", DocumentError("unreadable", _one_line(error)))


@functools.cache
def _filesystem(uri: str) -> Any:
    return pa.fs.FileSystem.from_uri(uri)[0]


def _open_stream(source: Source) -> Any:
    if source.filesystem:
        return _filesystem(source.filesystem).open_input_stream(source.path, compression=None)
    return open(source.path, "rb")


def _open_random(source: Source) -> Any:
    if source.filesystem:
        return _filesystem(source.filesystem).open_input_file(source.path)
    return open(source.path, "rb")


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


def total_documents(parts: Iterable[Part]) -> int:
    return sum(part.documents for part in parts)
