"""Finds the libraries that `setup.py` compiles from the package's C sources."""

import ctypes
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nanochat_tct.errors import UserError

WHAT_TO_DO = "`python -m pip install --no-deps -e .` in the folder of the sources builds it"


def load_library(
    source: Path, name: str, version_function: str, loader: type[ctypes.CDLL] = ctypes.CDLL
) -> ctypes.CDLL:
    """Load the library of a C source, built from just this version of it.

    Args:
        source: the C file; the library is beside it, or beside its installed copy.
        name: the library's file name, without its suffix.
        version_function: a function of the library that returns the SHA-256 (hex) of its source.

    Raises:
        UserError: there is none of this version.
    """
    version = hashlib.sha256(source.read_bytes()).hexdigest()
    problem = "it is not built"
    for path in _candidates(source.parent, name):
        try:
            found = loader(str(path))
            function = getattr(found, version_function)
            function.restype = ctypes.c_char_p
            if function().decode() == version:
                return found
            problem = f"{path} is of another version"
        except (OSError, AttributeError) as error:
            problem = f"{path} cannot be loaded: {error}"
    raise UserError(f"the compiled part of {source.name} is missing: {problem}; {WHAT_TO_DO}")


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    """Beside the source; else, where this is a copy of the sources, where the package is installed."""
    yield from sorted(folder.glob(f"{name}.*"))
    pattern = f"nanochat_tct/{folder.name}/{name}.*"
    for place in map(Path, sys.path):
        yield from sorted(place.glob(pattern))
    try:
        files = importlib.metadata.distribution("nanochat-tct").read_text("direct_url.json") or "{}"
        url = json.loads(files).get("url", "")
        yield from sorted(Path(unquote(urlsplit(url).path)).glob(pattern))
    except importlib.metadata.PackageNotFoundError:
        return
