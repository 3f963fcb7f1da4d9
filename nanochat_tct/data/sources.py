"""Find the files of `--input`: folders, globs, git checkouts and single files; local or in object storage.

The spelling of a path changes nothing: a file has the same name in the store whether its folder was given as
`data/x`, `./data/x/` or from the root, whatever the order of the inputs, and each file counts once.
"""

import fnmatch
import functools
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.fs

from nanochat_tct.data.repository import (
    MAX_CONFIG_BYTES,
    WORKFLOWS,
    repo_of_checkout,
    repo_of_config,
    repo_of_folder,
    utf8,
)
from nanochat_tct.data.store import MANIFEST, TOKENS
from nanochat_tct.errors import UserError
from nanochat_tct.storage.object_storage import persist, shown

Kind = Literal["json", "yaml", "jsonl", "parquet"]
KINDS: dict[str, Kind] = {
    ".json": "json",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
WHAT_IS_READ = ".json, .yml, .yaml, .jsonl or .parquet"
NOT_INPUT = {".git", "node_modules", ".venv"}  # folders of tools, with files of other authors
MAGIC = re.compile(r"[*?[]")
REMOTE_MAGIC = re.compile(r"[*[]")  # a question mark begins the options of a URI


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read or, with a `problem`, something that cannot be read.

    Attributes:
        name: its path from the folder that holds all inputs.
        path: to open it by.
        repo: `owner/name`, or a part of that if the rest is unknown.
        filesystem: the URI that its file system comes from, empty for this machine's.
    """

    name: str
    path: str
    kind: Kind
    repo: str | None
    size: int
    modified: int  # ns
    filesystem: str = ""
    problem: str = ""

    @property
    def location(self) -> str:
        """Its path or URI, for messages."""
        return f"{self.filesystem.split('://')[0]}://{self.path}" if self.filesystem else utf8(self.path)


class Found(NamedTuple):
    """A file that has no name yet, as its name depends on the other inputs."""

    source: Source
    root: str  # the folder that was given, or that holds the file or the pattern; without links
    inside: str  # the path from there
    real: str  # the file's path without links


def find_sources(inputs: list[str]) -> list[Source]:
    """List the files behind paths, globs and URIs, sorted by name, each once.

    In a folder every file of one of the KINDS counts, however deep; of a folder that holds `.git`, a checkout, only
    `.github/workflows/*.yml` and `*.yaml` do. Links are followed.

    Raises:
        UserError: a path that does not exist, a glob or folder without files, an unreachable file system.
    """
    _real.cache_clear()
    _repo.cache_clear()
    found: list[Found] = []
    for given in inputs:
        is_remote = "://" in given
        here = list(_find_remote(given) if is_remote else _find_local(given))
        if not here:
            where = shown(given) if is_remote else given
            raise UserError(f"--input {where}: no {WHAT_IS_READ} file there{_hint(given)}")
        found += here
    outermost = _outermost(found)
    once: dict[tuple[str, str], tuple[tuple[bool, int, str], Source]] = {}
    for file in found:
        name = os.path.relpath(os.path.join(file.root, file.inside), outermost[_scheme(file)])
        if len(outermost) > 1 and file.source.filesystem:
            name = file.source.location
        name = utf8(name)
        # A file that is found twice gets the name that is not a link's, from the outermost folder.
        is_link = file.real != os.path.join(file.root, file.inside)
        rank = (is_link, -len(name), name)
        key = (_scheme(file), file.real)
        if key not in once or rank < once[key][0]:
            once[key] = (rank, replace(file.source, name=name))
    sources = [source for _, source in once.values()]
    return sorted(sources, key=lambda source: (source.name, source.location))


def sources_fingerprint(sources: list[Source]) -> str:
    """A hash that changes when a file is added, removed, renamed or written to (by size and time), in hex."""
    digest = hashlib.sha256()
    for source in sources:
        line = f"{source.name}\0{source.repo}\0{source.size}\0{source.modified}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _scheme(file: Found) -> str:
    return file.source.filesystem.split("://")[0]


def _outermost(found: list[Found]) -> dict[str, str]:
    """By scheme, the deepest folder that holds all inputs."""
    roots: dict[str, set[str]] = {}
    for file in found:
        roots.setdefault(_scheme(file), set()).add(file.root)
    return {scheme: os.path.commonpath(of_scheme) or "." for scheme, of_scheme in roots.items()}


def _hint(given: str) -> str:
    if not os.path.lexists(os.path.join(given, ".git")):
        return ""
    glob = os.path.join(given, "**", "*.yml")
    return f"; of a git checkout only {WORKFLOWS} counts, give a glob such as '{glob}' for other files of it"


def _find_local(given: str) -> Iterator[Found]:
    parts = given.rstrip("/").split("/")
    first = next((index for index, part in enumerate(parts) if MAGIC.search(part)), None)
    if os.path.isdir(given):
        if os.path.lexists(os.path.join(given, ".git")):
            print(f"--input {given} is a git checkout: of it {WORKFLOWS} is taken", file=sys.stderr)
        yield from _walk(given, given)
    elif os.path.lexists(given):
        yield _given_file(given)
    elif first is None:
        raise UserError(f"--input {given}: there is no such file or folder")
    else:
        root = "/".join(parts[:first]) + "/" if first else "."
        yield from _match(root, parts[first:], given)


def _match(root: str, pattern: list[str], given: str) -> Iterator[Found]:
    deep = pattern.index("**") if "**" in pattern else len(pattern)
    matches = list(_expand(root, pattern[:deep]))
    if not matches:
        raise UserError(f"--input {given}: nothing matches")
    for match in matches:
        if deep < len(pattern):
            if os.path.isdir(match):
                files = _walk(match, root, is_whole=deep == 0)
                below = os.path.relpath(match, root)
                skip = 0 if below == "." else len(below.split("/"))
                yield from (file for file in files if _fits(file.inside.split("/")[skip:], pattern[deep:]))
        elif os.path.isdir(match):
            yield from _walk(match, root)
        elif _kind_of(match):
            yield _local_file(match, root, os.path.realpath(root))


def _expand(folder: str, pattern: list[str]) -> Iterator[str]:
    """The paths below a folder that match a pattern without `**`."""
    if not pattern:
        yield folder
        return
    if MAGIC.search(pattern[0]):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return  # not a folder, or one that we may not read: nothing matches
        names = [name for name in names if fnmatch.fnmatchcase(name, pattern[0]) and name not in NOT_INPUT]
    else:
        names = [pattern[0]] if os.path.lexists(os.path.join(folder, pattern[0])) else []
    for name in names:
        yield from _expand(os.path.join(folder, name), pattern[1:])


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match those of a pattern, in which `**` matches any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_fits(parts[start:], pattern[1:]) for start in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _walk(folder: str, root: str, is_whole: bool = False) -> Iterator[Found]:
    """The files in a folder and below it, each folder once; linked folders last, so that the real path counts.

    Args:
        root: the folder that names begin from.
        is_whole: take every file, even if the folder itself is a checkout.
    """
    real_root = os.path.realpath(root)
    top = os.path.realpath(folder)
    waiting, seen = [folder], set()
    links: list[str] = []
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        if here != folder and f"{top}/".startswith(f"{real.rstrip('/')}/"):
            yield _problem(here, root, real_root, "a link to a folder that holds the input: not followed")
            continue
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if here == folder:
                raise UserError(f"cannot read the folder {here}: {error.strerror}") from error
            yield _problem(here, root, real_root, f"the folder cannot be read: {error.strerror}")
            continue
        names = {entry.name for entry in entries}
        if here != folder and ({MANIFEST, TOKENS} <= names or ".encoded" in names or ".partial" in names):
            continue  # a token store
        if ".git" in names and not (is_whole and here == folder):
            yield from _workflows(here, root, real_root)
            continue
        for entry in entries:
            if _is_folder(entry):
                if entry.name not in NOT_INPUT:
                    (links if entry.is_symlink() else waiting).append(entry.path)
            elif _kind_of(entry.name):
                yield _local_file(entry.path, root, real_root)
            elif "." not in entry.name and entry.is_symlink() and not os.path.exists(entry.path):
                yield _problem(entry.path, root, real_root, "a link to nothing")  # was perhaps a folder


def _workflows(checkout: str, root: str, real_root: str) -> Iterator[Found]:
    folder = os.path.join(checkout, WORKFLOWS)
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield _problem(folder, root, real_root, f"the folder cannot be read: {error.strerror}")
        return
    for name in names:
        path = os.path.join(folder, name)
        if _kind_of(name) == "yaml" and not os.path.isdir(path):
            yield _local_file(path, root, real_root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _given_file(path: str) -> Found:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"--input {path}: {_why(error)}") from error
    _kind_of_given(path)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"--input {path} is not a regular file: write what comes out of it to a file first")
    root = os.path.dirname(path) or "."
    return _local_file(path, root, os.path.realpath(root))


def _local_file(path: str, root: str, real_root: str) -> Found:
    try:
        status = os.stat(path)
    except OSError as error:
        return _problem(path, root, real_root, _why(error))
    if not stat.S_ISREG(status.st_mode):
        return _problem(path, root, real_root, "not a regular file")
    folder, name = os.path.split(path)
    real = os.path.realpath(path) if os.path.islink(path) else os.path.join(_real(folder), name)
    kind = _kind_of_given(path)
    source = Source("", path, kind, _repo(folder, root), status.st_size, status.st_mtime_ns)
    return Found(source, real_root, os.path.relpath(path, root), real)


def _problem(path: str, root: str, real_root: str, problem: str) -> Found:
    source = Source("", path, "yaml", None, 0, 0, problem=problem)
    inside = os.path.relpath(path, root)
    return Found(source, real_root, inside, os.path.join(real_root, inside))


def _why(error: OSError) -> str:
    return "a link to nothing" if isinstance(error, FileNotFoundError) else str(error.strerror)


@functools.lru_cache(maxsize=64)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


@functools.lru_cache(maxsize=64)
def _repo(folder: str, root: str) -> str | None:
    """The repository whose workflows are in a folder: by git's remote, or else by the names of its folders."""
    if os.path.basename(folder) != "workflows" or os.path.basename(os.path.dirname(folder)) != ".github":
        real = os.path.realpath(folder)
        if not real.endswith(f"/{WORKFLOWS}"):
            return None
        folder = real
    checkout = os.path.dirname(os.path.dirname(folder)) or "."
    return repo_of_checkout(checkout, os.path.relpath(checkout, root))


def _find_remote(given: str) -> Iterator[Found]:
    location, question_mark, options = given.partition("?")
    parts = location.split("/")
    first = next((index for index, part in enumerate(parts) if REMOTE_MAGIC.search(part)), len(parts))
    uri = "/".join(parts[:first]) + question_mark + options
    where = f"--input {shown(given)}"
    filesystem, root = persist(where, lambda: pa.fs.FileSystem.from_uri(uri))
    root = root.rstrip("/")
    info = persist(where, lambda: filesystem.get_file_info(root))
    if info.type == pa.fs.FileType.NotFound:
        raise UserError(f"{where}: there is no such file or folder")
    if info.type == pa.fs.FileType.File:
        _kind_of_given(root)
        yield _remote_file(info, uri, os.path.dirname(root), None)
        return
    listed = persist(where, lambda: filesystem.get_file_info(pa.fs.FileSelector(root, recursive=True)))
    checkouts = {match[1] for entry in listed if (match := re.match(r"(.*?)/\.git(/|$)", entry.path))}
    if first < len(parts):
        checkouts.discard(root)  # a pattern asks for all files of the folder that it begins in
    configs = {entry.path for entry in listed if entry.path.endswith("/.git/config")}

    @functools.cache
    def repo(folder: str) -> str | None:
        config = f"{folder}/.git/config"
        name = None
        if config in configs:
            name = repo_of_config(persist(where, lambda: _read_start(filesystem, config)))
        return name or repo_of_folder(os.path.relpath(folder, root)) or os.path.basename(folder)

    for entry in listed:
        inside = entry.path[len(root) :].strip("/").split("/")
        kind = _kind_of(entry.path)
        if entry.type != pa.fs.FileType.File or not kind or NOT_INPUT & set(inside[:-1]):
            continue
        if not _fits(inside, parts[first:] or ["**"]):
            continue
        checkout = next((folder for folder in _parents(entry.path) if folder in checkouts), None)
        of_workflows = os.path.dirname(entry.path).removesuffix(f"/{WORKFLOWS}")
        if checkout is not None and (of_workflows != checkout or kind != "yaml"):
            continue
        is_workflow = of_workflows != os.path.dirname(entry.path)
        has_repo = is_workflow and (checkout is not None or of_workflows != root)
        yield _remote_file(entry, uri, root, repo(of_workflows) if has_repo else None)


def _read_start(filesystem: Any, path: str) -> str:
    with filesystem.open_input_stream(path, compression=None) as file:
        return file.read(MAX_CONFIG_BYTES).decode("utf-8", "replace")


def _parents(path: str) -> Iterator[str]:
    """The folders that hold a path, the outermost first."""
    return (path[:index] for index, character in enumerate(path) if character == "/")


def _remote_file(info: Any, uri: str, root: str, repo: str | None) -> Found:
    kind = _kind_of_given(info.path)
    source = Source("", info.path, kind, repo, info.size, info.mtime_ns or 0, filesystem=uri)
    return Found(source, root, info.path[len(root) :].strip("/"), info.path)


def _kind_of(path: str) -> Kind | None:
    return KINDS.get(os.path.splitext(path)[1].lower())


def _kind_of_given(path: str) -> Kind:
    kind = _kind_of(path)
    if kind is None:
        raise UserError(f"--input {path}: the name must end in {WHAT_IS_READ}")
    return kind
