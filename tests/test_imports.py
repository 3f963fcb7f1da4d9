"""Imports point one way: each package knows those below it, and only the edge knows Ray."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import nanochat_tct
from tests.support.commands import run_python

PACKAGE = Path(nanochat_tct.__file__).parent
BASE = {"errors", "storage", "documents", "config", "foreign_names", "limits", "tracking"}
RAY = {"ray_session", "ray_compat"}
# What a package or module may import of ours, besides itself; "evaluation.loss" is that module alone.
MAY_IMPORT = {
    "errors": set(),
    "storage": {"errors"},
    "tokenizer": {"errors"},
    "documents": {"errors"},
    "foreign_names": set(),
    "config": {"errors", "documents", "foreign_names"},
    "limits": {"errors", "storage"},
    "tracking": {"errors", "storage", "config"},
    "ray_compat": {"errors"},
    "ray_session": {"errors", "ray_compat"},
    "cluster_file": {"errors", "ray_session", "ray_compat"},
    "synthetic": BASE,
    "data": BASE | {"tokenizer", *RAY},
    "model": {"errors", "storage"},
    "evaluation.loss": {"data", "model"},
    "generation": BASE | {"tokenizer", "model"},
    "training": BASE | {"tokenizer", "model", "data", "synthetic", "evaluation.loss", "generation", *RAY},
    "evaluation": BASE | {"tokenizer", "model", "data", "generation", "training"},
    "tuning": BASE | {"tokenizer", "model", "data", "evaluation", "generation", "training", *RAY},
    "doctor": BASE | {"tokenizer", "data", "synthetic", "evaluation", "cluster_file", *RAY},
    "cli": {"config", "errors"},  # the jobs are imported by name, when one is called
}
KNOW_RAY = ("ray_session", "ray_compat", "cluster_file", "doctor", "data.prepare", "training.*", "tuning.*")
NEED_NO_RAY = ("model.*", "training.saver", "tuning.ledger", "tuning.fit")


def imports(path: Path) -> Iterator[str]:
    """All modules that a file imports, at the top or later, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: imports are absolute"
            is_package = node.module in ("nanochat_tct", "nanochat_tct.evaluation")
            yield from (f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names)


def modules() -> Iterator[tuple[str, set[str]]]:
    """Each module of ours, such as `data.store`, and what it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, set(imports(path))


def test_imports_point_one_way() -> None:
    upward = set()
    for name, imported in modules():
        package = name if name in MAY_IMPORT else name.split(".")[0]
        allowed = MAY_IMPORT[package] | {package}
        for each in imported:
            if each.startswith("nanochat_tct."):
                inner = each.removeprefix("nanochat_tct.")
                if inner not in allowed and inner.split(".")[0] not in allowed:
                    upward.add((name, inner))
    assert not upward


def test_only_the_edge_knows_ray() -> None:
    know = {name for name, imported in modules() if any(each.split(".")[0] == "ray" for each in imported)}
    assert not [name for name in know if not any(fnmatchcase(name, edge) for edge in KNOW_RAY)]
    assert not [name for name in know for pattern in NEED_NO_RAY if fnmatchcase(name, pattern)]


def test_help_of_generate_needs_no_torch() -> None:
    code = "import sys, nanochat_tct.generation.generate; sys.exit('torch' in sys.modules)"
    assert run_python("-c", code).code == 0
