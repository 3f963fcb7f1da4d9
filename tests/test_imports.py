"""Imports point one way: each package knows those below it, and only the edge knows Ray."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import nanochat_tct
from nanochat_tct.cli import COMMANDS
from tests.support.commands import run_python

PACKAGE = Path(nanochat_tct.__file__).parent
BASE = {"errors", "storage", "documents", "config", "foreign_names", "limits", "threads", "tracking"}
RAY = {"ray_session", "ray_compat"}
# What a package or module may import of ours, besides itself; "evaluation.loss" is that module alone.
MAY_IMPORT = {
    "errors": set(),
    "threads": set(),
    "storage": {"errors"},
    "compiled": {"errors"},
    "tokenizer": {"errors", "compiled"},
    "documents": {"errors"},
    "foreign_names": set(),
    "config": {"errors", "documents", "foreign_names"},
    "limits": {"errors", "config", "storage"},
    "tracking": {"errors", "storage", "config"},
    "ray_compat": {"errors"},
    "ray_session": {"errors", "ray_compat"},
    "cluster_file": {"errors", "ray_session", "ray_compat"},
    "check": {"errors", "config", "documents", "tokenizer"},
    "synthetic": BASE,
    "data": BASE | {"tokenizer", *RAY},
    "model": {"errors", "storage", "compiled"},
    "evaluation.loss": {"data", "model"},
    "generation": BASE | {"tokenizer", "model"},
    "evaluation.completion": BASE | {"tokenizer", "data", "generation", "check", "evaluation.measures"},
    "training": BASE
    | {"tokenizer", "model", "data", "synthetic", "generation", *RAY}
    | {"evaluation.loss", "evaluation.completion"},
    "evaluation": BASE | {"tokenizer", "model", "data", "generation", "check"},
    "tuning": BASE | {"tokenizer", "model", "data", "evaluation", "generation", "training", *RAY},
    "doctor": BASE | {"tokenizer", "data", "synthetic", "evaluation", "cluster_file", *RAY},
    "editor": {"errors", "config", "documents", "tokenizer", "check", "generation", "model"},
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


RUN_EACH = """
import contextlib, io, sys
from nanochat_tct.cli import COMMANDS, main
for argv in [line.split() for line in sys.argv[1:]] or [[name, "--help"] for name in COMMANDS]:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(argv)
        except SystemExit as stopped:
            code = stopped.code
    loaded = [name for name in ("torch", "ray", "pyarrow", "nanochat_tct.tokenizer") if name in sys.modules]
    print(*argv[:1], code, *loaded)
"""


def test_help_needs_none_of_the_large_libraries() -> None:
    """So it takes less than 0.3 s on a machine that is not busy."""
    done = run_python("-c", RUN_EACH)
    assert done.stdout.splitlines() == [f"{name} 0" for name in COMMANDS], done.stderr


def test_wrong_settings_are_answered_without_torch(tmp_path: Path) -> None:
    wrong = [
        "train --nonsense 1",
        "train --learning-rate fast",
        "train --n-head 5",
        "train --min-lr 1",
        "train --num-workers 9999",
        f"train --data-dir {tmp_path}/none",
        "tune --budget-usd -1",
        "tune --sizes",
        "tune --budget-flops 1e12 --sizes 1x33",
        f"tune --budget-flops 1e12 --data-dir {tmp_path}/none",
        "tune --budget-gpu-hours 1 --concurrency 9999",
        f"evaluate --checkpoint {tmp_path} --data-dir {tmp_path}/none",
        f"generate --checkpoint {tmp_path}",
        "generate --untrained --tokenizer none.json",
        "generate --untrained --prompt [1]",
    ]
    done = run_python("-c", RUN_EACH, *wrong, cwd=tmp_path)
    for line, answer in zip(wrong, done.stdout.splitlines(), strict=True):
        name, code, *loaded = answer.split()
        assert (name, code) == (line.split()[0], "2") and not {"torch", "ray"} & set(loaded), (line, answer)
    assert done.stderr.count("error: ") == done.stderr.count("\n") == len(wrong), done.stderr
