"""What a language or tool brings to a workflow."""

from dataclasses import dataclass, field
from typing import Any

from nanochat_tct.synthetic.template import Generator


@dataclass(frozen=True)
class Axis:
    """A dimension of a matrix.

    Attributes:
        key: the name in the matrix.
        word: the lexicon word that becomes `${{ matrix.KEY }}` in the job.
        values: the values it may list, in their order.
    """

    key: str
    word: str
    values: list[Any]


@dataclass(frozen=True)
class Ecosystem:
    """Steps of one language or tool, in the order in which they stand in a job.

    Attributes:
        setup: what installs the toolchain and the dependencies, after the checkout.
        kinds: for each kind of job (lint, test, build, docs, integration, release, deploy, ...) its own steps.
        axes: dimensions that a matrix may have.
        paths: globs of the files that concern it.
        env: variables that it uses, as a template.
        images: container images that a job may run in, as a template.
    """

    name: str
    setup: list[Generator]
    kinds: dict[str, list[Generator]]
    axes: list[Axis]
    paths: list[str]
    env: dict[str, Any] = field(default_factory=dict)
    images: str = ""
