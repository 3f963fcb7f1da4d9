"""Builds the tokenizer's engine, one library in plain C that needs no headers of Python's.

The compiler is $CC, else one of this machine's, else the one in the package ziglang, which pip fetches where there is
no other (see build_backend.py). What pyproject.toml says holds for everything else.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]


def system_compiler() -> list[str]:
    """The command of a C compiler on this machine; empty where there is none."""
    chosen = os.environ.get("CC")
    if chosen:
        return chosen.split()
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), [])


class BuildEngine(build_ext):
    """Compiles engine.c to a library that carries the checksum of its source."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", os.sep) + ".so"  # the same for every version of Python

    def build_extension(self, extension: Extension) -> None:
        (source,) = extension.sources
        target = Path(self.get_ext_fullpath(extension.name))
        compiler = system_compiler()
        if not compiler and importlib.util.find_spec("ziglang"):
            compiler = [sys.executable, "-m", "ziglang", "cc"]
        if not compiler:
            raise SystemExit("error: no C compiler for the tokenizer; `pip install ziglang` brings one")
        version = hashlib.sha256(Path(source).read_bytes()).hexdigest()
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        subprocess.run(
            [*compiler, *FLAGS, f'-DENGINE_VERSION="{version}"', source, "-o", str(partial)], check=True
        )
        os.replace(partial, target)


if __name__ == "__main__":
    setup(
        ext_modules=[Extension("nanochat_tct.tokenizer._engine", ["nanochat_tct/tokenizer/engine.c"])],
        cmdclass={"build_ext": BuildEngine},
    )
