"""setuptools, which also asks for the compiler in the package ziglang where this machine has none."""

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from setup import system_compiler

Settings = dict[str, str | list[str] | None] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return build_meta.get_requires_for_build_wheel(config_settings) + _compiler()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return build_meta.get_requires_for_build_editable(config_settings) + _compiler()


def _compiler() -> list[str]:
    return [] if system_compiler() else ["ziglang"]
