"""Builds the libraries in plain C that need no headers of Python's: the tokenizer's engine and the model's decoder.

The compiler is $CC, else one of this machine's, else the one in the package ziglang, which pip fetches where there is
no other (see build_backend.py). What pyproject.toml says holds for everything else.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]
ENGINE = Extension("nanochat_tct.tokenizer._engine", ["nanochat_tct/tokenizer/engine.c"])
ENGINE.extra_compile_args = ["-O2"]


def decoders() -> list[Extension]:
    """The decoder for every CPU of this kind, and for those that have vectors of 256 bits."""
    variants = {"_decoder": []}
    if platform.machine().lower() in ("x86_64", "amd64"):
        variants["_decoder_avx2"] = ["-mavx2", "-mfma"]
    return [
        Extension(
            f"nanochat_tct.model.{name}",
            ["nanochat_tct/model/decoder.c"],
            extra_compile_args=["-O3", "-ffp-contract=off", "-Wno-unknown-pragmas", *flags],
            libraries=["m"],
        )
        for name, flags in variants.items()
    ]


def system_compiler() -> list[str]:
    """The command of a C compiler on this machine; empty where there is none."""
    chosen = os.environ.get("CC")
    if chosen:
        return chosen.split()
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), [])


class BuildLibrary(build_ext):
    """Compiles a C source to a library that carries the checksum of its source."""

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
        flags = [*FLAGS, *extension.extra_compile_args, f'-DENGINE_VERSION="{version}"']
        command = [
            *compiler,
            *flags,
            source,
            "-o",
            str(partial),
            *(f"-l{each}" for each in extension.libraries),
        ]
        # threads are of use to the decoder alone, and not every compiler brings OpenMP
        if not extension.libraries or subprocess.run([*command, "-fopenmp"], capture_output=True).returncode:
            subprocess.run(command, check=True)
        os.replace(partial, target)


if __name__ == "__main__":
    setup(ext_modules=[ENGINE, *decoders()], cmdclass={"build_ext": BuildLibrary})
