"""Find the files of `--input`: folders, globs, git checkouts and single files, on this machine or in object storage.

A file's name in the store does not depend on how its path is spelled (`data/x`, `./data/x/`, `/home/me/data/x`), nor
on the order of the inputs. Each file counts once.
"""

import fnmatch
import functools
import glob
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
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
        name: its path relative to the folder that holds all inputs.
        path: for opening it.
        repo: `owner/name`, or only a part of it if the rest is unknown.
        filesystem: a URI of its file system; empty for this machine's.
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
    """A file without a name, since its name depends on the other inputs.

    Attributes:
        root: the input folder, or the folder that holds the input file or pattern; without links.
        path: the file's path, which begins with the root.
        real: the file's path without links.
    """

    source: Source
    root: str
    path: str
    real: str

    @property
    def scheme(self) -> str:
        return self.source.filesystem.split("://")[0]


def find_sources(inputs: list[str]) -> list[Source]:
    """List the files behind paths, globs and URIs, sorted by name, each once.

    A folder gives all files of one of the KINDS, at any depth. A git checkout (a folder with `.git`) gives only
    `.github/workflows/*.yml` and `*.yaml`. Links are followed.

    Raises:
        UserError: a path that does not exist, a glob or folder without files, an unreachable file system.
    """
    _real_and_repo.cache_clear()
    found: list[Found] = []
    for given in inputs:
        is_remote = "://" in given
        here = list(_find_remote(given) if is_remote else _find_local(given))
        if not here:
            where = shown(given) if is_remote else given
            raise UserError(f"--input {where}: no {WHAT_IS_READ} file there{_hint(given)}")
        found += here
    roots: dict[str, set[str]] = {}
    for file in found:
        roots.setdefault(file.scheme, set()).add(file.root)
    outermost = {scheme: os.path.commonpath(of_scheme) or "." for scheme, of_scheme in roots.items()}
    once: dict[tuple[str, str], tuple[tuple[bool, int, str], Source]] = {}
    for file in found:
        name = utf8(os.path.relpath(file.path, outermost[file.scheme]))
        if len(outermost) > 1 and file.scheme:
            name = utf8(file.source.location)
        # Of the names of a file that is found twice, prefer one without links, then the longest.
        rank = (file.real != file.path, -len(name), name)
        key = (file.scheme, file.real)
        if key not in once or rank < once[key][0]:
            once[key] = (rank, replace(file.source, name=name))
    sources = [source for _, source in once.values()]
    return sorted(sources, key=lambda source: (source.name, source.location))


def sources_fingerprint(sources: list[Source]) -> str:
    """A hash, in hex, that changes when a file is added, removed, renamed or modified (by size and time)."""
    digest = hashlib.sha256()
    for source in sources:
        line = f"{source.name}\0{source.repo}\0{source.size}\0{source.modified}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hint(given: str) -> str:
    if not os.path.lexists(os.path.join(given, ".git")):
        return ""
    glob = os.path.join(given, "**", "*.yml")
    return f"; of a git checkout only {WORKFLOWS} counts, give a glob such as '{glob}' for other files of it"


# ---- on this machine ----


def _find_local(given: str) -> Iterator[Found]:
    parts = given.rstrip("/").split("/")
    first = next((index for index, part in enumerate(parts) if MAGIC.search(part)), None)
    if os.path.isdir(given):
        if os.path.lexists(os.path.join(given, ".git")):
            print(f"--input {given} is a git checkout: of it {WORKFLOWS} is taken", file=sys.stderr)
        yield from _LocalRoot(given).walk(given)
    elif os.path.lexists(given):
        _kind_of_given(given)
        file = _LocalRoot(os.path.dirname(given) or ".").file(given)
        if file.source.problem:
            raise UserError(f"--input {given}: {file.source.problem}; name a regular file that can be read")
        yield file
    elif first is None:
        raise UserError(f"--input {given}: there is no such file or folder")
    else:
        root = "/".join(parts[:first]) + "/" if first else "."
        yield from _match(root, [part for part in parts[first:] if part], given)


def _match(root: str, pattern: list[str], given: str) -> Iterator[Found]:
    deep = pattern.index("**") if "**" in pattern else len(pattern)
    folder = _LocalRoot(root)
    matches = _expand(root, pattern[:deep])
    if not matches:
        raise UserError(f"--input {given}: nothing matches")
    for match in matches:
        if deep < len(pattern):
            if os.path.isdir(match):
                below = os.path.join(folder.real, os.path.relpath(match, root))
                for file in folder.walk(match, is_whole=deep == 0):
                    if _fits(os.path.relpath(file.path, below).split("/"), pattern[deep:]):
                        yield file
        elif os.path.isdir(match):
            yield from folder.walk(match)
        elif _kind_of(match):
            yield folder.file(match)


def _expand(folder: str, pattern: list[str]) -> list[str]:
    """The paths below a folder that match a pattern without `**`; folders of tools match only their exact names."""
    if not pattern:
        return [folder]
    return [
        os.path.join(folder, match)
        for match in sorted(glob.glob("/".join(pattern), root_dir=folder, include_hidden=True))
        if not any(
            part in NOT_INPUT and part != given for part, given in zip(match.split("/"), pattern, strict=True)
        )
    ]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match those of a pattern, in which `**` matches any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_fits(parts[start:], pattern[1:]) for start in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


class _LocalRoot:
    """A folder of this machine that the paths of found files begin with."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.real = os.path.realpath(path)

    def walk(self, folder: str, is_whole: bool = False) -> Iterator[Found]:
        """Yield the files in a folder and below it, each folder once; links come last, so real paths have precedence.

        Args:
            is_whole: yield every file, even if the folder itself is a checkout.
        """
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
                yield self.problem(here, "a link to a folder that holds the input: not followed")
                continue
            try:
                entries = _entries(here)
            except OSError as error:
                if here == folder:
                    raise UserError(f"cannot read the folder {here}: {error.strerror}") from error
                yield self.problem(here, f"the folder cannot be read: {error.strerror}")
                continue
            names = {entry.name for entry in entries}
            if here != folder and ({MANIFEST, TOKENS} <= names or ".encoded" in names or ".partial" in names):
                continue  # a token store
            if ".git" in names and not (is_whole and here == folder):
                yield from self.workflows(os.path.join(here, WORKFLOWS))
                continue
            for entry in entries:
                if _is_folder(entry):
                    if entry.name not in NOT_INPUT:
                        (links if entry.is_symlink() else waiting).append(entry.path)
                elif _kind_of(entry.name):
                    yield self.file(entry.path)
                elif "." not in entry.name and entry.is_symlink() and not os.path.exists(entry.path):
                    yield self.problem(entry.path, "a link to nothing")  # its target may have been a folder

    def workflows(self, folder: str) -> Iterator[Found]:
        """Yield the files in a checkout's folder of workflows, if it exists."""
        try:
            entries = _entries(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield self.problem(folder, f"the folder cannot be read: {error.strerror}")
            return
        for entry in entries:
            if _kind_of(entry.name) == "yaml" and not _is_folder(entry):
                yield self.file(entry.path)

    def file(self, path: str) -> Found:
        """A file that has one of the KINDS."""
        try:
            status = os.stat(path)
        except OSError as error:
            is_lost = isinstance(error, FileNotFoundError)
            return self.problem(path, "a link to nothing" if is_lost else str(error.strerror))
        if not stat.S_ISREG(status.st_mode):
            return self.problem(path, "not a regular file")
        folder, name = os.path.split(path)
        real, repo = _real_and_repo(folder, self.path)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)
        source = Source("", path, _kind_of_given(path), repo, status.st_size, status.st_mtime_ns)
        return Found(source, self.real, self.inside(path), real)

    def problem(self, path: str, problem: str) -> Found:
        """An entry for something that cannot be read."""
        source = Source("", path, "yaml", None, 0, 0, problem=problem)
        return Found(source, self.real, self.inside(path), self.inside(path))

    def inside(self, path: str) -> str:
        return os.path.join(self.real, os.path.relpath(path, self.path))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@functools.lru_cache(maxsize=64)
def _real_and_repo(folder: str, root: str) -> tuple[str, str | None]:
    """The real path of a folder, and the repository whose workflows it holds, if it does."""
    real = os.path.realpath(folder)
    if not folder.endswith(f"/{WORKFLOWS}") and folder != WORKFLOWS:
        if not real.endswith(f"/{WORKFLOWS}"):
            return real, None
        folder = real
    checkout = os.path.dirname(os.path.dirname(folder)) or "."
    return real, repo_of_checkout(checkout, os.path.relpath(checkout, root))


# ---- in object storage ----


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
        checkouts.discard(root)  # a pattern may match any file of its first folder
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
        above = map(str, reversed(PurePosixPath(entry.path).parents))
        checkout = next((folder for folder in above if folder in checkouts), None)
        of_workflows = os.path.dirname(entry.path).removesuffix(f"/{WORKFLOWS}")
        if checkout is not None and (of_workflows != checkout or kind != "yaml"):
            continue
        is_workflow = of_workflows != os.path.dirname(entry.path)
        has_repo = is_workflow and (checkout is not None or of_workflows != root)
        yield _remote_file(entry, uri, root, repo(of_workflows) if has_repo else None)


def _read_start(filesystem: Any, path: str) -> str:
    with filesystem.open_input_stream(path, compression=None) as file:
        return file.read(MAX_CONFIG_BYTES).decode("utf-8", "replace")


def _remote_file(info: Any, uri: str, root: str, repo: str | None) -> Found:
    kind = _kind_of_given(info.path)
    source = Source("", info.path, kind, repo, info.size, info.mtime_ns or 0, filesystem=uri)
    return Found(source, root, info.path, info.path)


def _kind_of(path: str) -> Kind | None:
    return KINDS.get(os.path.splitext(path)[1].lower())


def _kind_of_given(path: str) -> Kind:
    kind = _kind_of(path)
    if kind is None:
        raise UserError(f"--input {path}: the name must end in {WHAT_IS_READ}")
    return kind
