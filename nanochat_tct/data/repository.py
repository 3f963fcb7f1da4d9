"""The repository and owner of a workflow, found in git's config, in a URL, or in the names of folders."""

import os
import re

WORKFLOWS = os.path.join(".github", "workflows")
MAX_CONFIG_BYTES = 1 << 20
# The part before `owner/name` in https://github.com/owner/name, git@github.com:owner/name and github.com/owner/name
HOST = re.compile(r"^(?:(?!file)[a-z][a-z0-9+.-]*://[^/]+/|[^/@:]+@[^/:]+:|[^/.]+\.[^/]+/(?=[^/]+/))", re.I)


def repo_of_url(url: str) -> str | None:
    """`owner/name` in the URL of a repository on a server; None for a path on a disk."""
    path = HOST.sub("", url.strip())
    return path.strip("/").removesuffix(".git").strip("/") or None if path != url.strip() else None


def owner_of(repo: str) -> str:
    """The owner in `owner/name` or in a URL, in lower case, as GitHub ignores case; a bare name counts as the owner."""
    return (repo_of_url(repo) or repo.strip("/")).split("/")[0].casefold()


def repo_of_config(text: str) -> str | None:
    """The `owner/name` of the remote `origin`, or else of the first remote, in the text of git's config."""
    remote = ""
    urls: dict[str, str] = {}
    for line in text.splitlines():
        if section := re.match(r'\s*\[(?:remote\s+"(.*)")?', line):
            remote = section[1] or ""
        elif remote and (url := re.match(r"\s*url\s*=\s*(\S+)", line)):
            urls.setdefault(remote, url[1].strip('"'))
    return repo_of_url(urls.get("origin") or next(iter(urls.values()), ""))


def repo_of_folder(inside: str) -> str | None:
    """The last two names in the path from the input folder to a checkout; None if the two are the same."""
    if inside == "." or inside.startswith(".."):
        return None
    return utf8("/".join(inside.split("/")[-2:])) or None


def repo_of_checkout(checkout: str, inside: str) -> str | None:
    """The repository of a folder that may be a checkout, at the path `inside` from the input folder."""
    if not os.path.lexists(os.path.join(checkout, ".git")):
        return repo_of_folder(inside)
    name = os.path.basename(os.path.realpath(checkout))
    return repo_of_config(_git_config(checkout)) or repo_of_folder(inside) or utf8(name)


def _git_config(checkout: str) -> str:
    """The text of git's config of a checkout, worktree or submodule; empty if it cannot be read."""
    git = os.path.join(checkout, ".git")
    try:
        if os.path.isfile(git):
            git = os.path.join(checkout, _read(git).removeprefix("gitdir:").strip())
            shared = os.path.join(git, "commondir")
            if os.path.isfile(shared):
                git = os.path.join(git, _read(shared).strip())
        return _read(os.path.join(git, "config"))
    except (OSError, ValueError):
        return ""


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(MAX_CONFIG_BYTES)


def utf8(path: str) -> str:
    """A path as text for the store, in which bytes that are not UTF-8 are replaced."""
    try:
        path.encode()
    except UnicodeEncodeError:
        path = os.fsencode(path).decode("utf-8", "replace")
    return path
