"""What a bare clone relies on: declared dependencies, pins, the Makefile, the configs."""

import ast
import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nanochat_tct.config import parse_arguments
from nanochat_tct.documents import read_workflow, to_json
from nanochat_tct.model.config import PRESETS
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig
from tests.support.commands import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TOOLS = {"mypy", "ruff", "pytest-timeout", "types-pyyaml"}
TOOLS |= {"flask", "flask-cors"}  # moto imports them to serve S3
OPTIONAL = {
    "boto3",
    "lsprotocol",
    "optuna",
    "pygls",
    "tiktoken",
}  # used where it is installed; the tests install it
# The private wheel, whose name is free on the public index; what comes with torch's CUDA builds, and only with them
NEVER_DECLARED = {"tct_github_workflow", "triton"}
# benchmarks run beside them where somebody has installed them
PEERS = {"llguidance", "tokenizers", "transformers", "xgrammar"}


packages_distributions = functools.cache(importlib.metadata.packages_distributions)


def imported_distributions(*folders: str) -> set[str]:
    """Distributions of the third-party modules that the Python files under ``folders`` import."""
    modules = set()
    for folder in folders:
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    modules.add(node.module.split(".")[0])
    modules -= set(sys.stdlib_module_names) | {"nanochat_tct", "tests", "benchmarks"}
    modules -= NEVER_DECLARED | PEERS
    known = packages_distributions()
    return {canonicalize_name(known[module][0]) for module in modules}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_dependencies_are_what_is_imported() -> None:
    declared = names(PROJECT["dependencies"])
    assert declared == imported_distributions("nanochat_tct", "jobs") - OPTIONAL


def test_dev_dependencies_are_what_tests_import() -> None:
    declared = names(PROJECT["optional-dependencies"]["dev"])
    in_tests = imported_distributions("tests", "benchmarks") - names(PROJECT["dependencies"])
    assert declared - TOOLS == in_tests | OPTIONAL


def test_everything_is_pinned_as_installed() -> None:
    """Also what our dependencies depend on, so that an install next year gives the same."""
    pinned = pins()
    dependencies = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    waiting = [Requirement(text) for text in dependencies]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        installed = importlib.metadata.version(name).split("+")[0]
        assert pinned.get(name) == installed, f"{name} {installed} is installed, pinned is {pinned.get(name)}"
        for needed in map(Requirement, importlib.metadata.requires(name) or []):
            if name == "torch" and re.match("nvidia|cuda|triton", needed.name):
                continue  # torch pins its own
            extras = ["", *requirement.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)


def test_pins_fit_every_machine() -> None:
    assert not [name for name in pins() if re.match("nvidia|cuda|triton", name)]
    assert not [version for version in pins().values() if "+" in version]
    ray = next(Requirement(text) for text in PROJECT["dependencies"] if text.startswith("ray"))
    assert ray.extras == {"default", "train", "tune", "data"}
    assert ray.specifier.contains(pins()["ray"])


def make(
    folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, env={**environment, **(env or {})}
    )


@pytest.fixture
def bare_clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", ["train", "test", "test-slow", "lint"])
def test_second_make_installs_nothing(bare_clone: Path, target: str) -> None:
    assert "pip install" in make(bare_clone, "-n", target).stdout
    (bare_clone / ".venv").mkdir()
    (bare_clone / ".venv/.installed").touch()
    assert "pip install" not in make(bare_clone, "-n", target).stdout
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(bare_clone / ".venv/.installed", (1, 1))
        os.utime(bare_clone / name)
        assert "pip install" in make(bare_clone, "-n", target).stdout


def test_no_python_is_one_line(bare_clone: Path) -> None:
    result = make(bare_clone, "setup", "PYTHON=/nowhere/python3")
    assert result.returncode != 0
    assert result.stderr.splitlines()[0].startswith(
        "error: no Python 3.11, 3.12 or 3.13 among: /nowhere/python3;"
    )
    assert not (bare_clone / ".venv").exists()


def test_python_without_venv_is_one_line(bare_clone: Path) -> None:
    shim = bare_clone / "python"
    shim.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    result = make(bare_clone, "setup", f"PYTHON={shim}")
    assert result.returncode != 0
    assert result.stderr.startswith(
        f"error: {shim} cannot make virtual environments; install its venv module"
    )


def test_first_python_that_works_is_taken(bare_clone: Path) -> None:
    """`python3` may be an empty shim, or too old; then the next name is tried."""
    folder = bare_clone / "bin"
    folder.mkdir()
    for name, body in {
        "python3": "exit 127",
        "python3.13": "exit 127",
        "python3.12": f'[ "$*" = "-m venv .venv" ] && echo from 3.12 && exit 9; exec {sys.executable} "$@"',
        "python3.11": "exit 127",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    result = make(bare_clone, "setup", env={"PATH": f"{folder}:{os.environ['PATH']}"})
    assert "from 3.12" in result.stdout, result.stdout + result.stderr


def fake_python(path: Path, version: str, prefix: str) -> Path:
    """Says that it is another Python, and is its own virtual environment; everything else is this one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""#!/bin/sh
case "$*" in
*realpath*) echo "{version} {prefix}"; exit;;
"-m venv .venv") mkdir -p .venv/bin && touch .venv/pyvenv.cfg && cp "$0" .venv/bin/python; exit;;
esac
exec {sys.executable} "$@"
""")
    path.chmod(0o755)
    return path


def test_another_python_makes_the_environment_again(bare_clone: Path) -> None:
    own = fake_python(bare_clone / ".venv/bin/python", "3 11", "/usr")
    (bare_clone / ".venv/.installed").touch()
    assert "Nothing to be done" in make(bare_clone, "setup").stdout
    assert "Nothing to be done" in make(bare_clone, "setup", f"PYTHON={own}").stdout
    same = fake_python(bare_clone / "same", "3 11", "/usr")
    assert "pip install" not in make(bare_clone, "-n", "train", f"PYTHON={same}").stdout
    other = fake_python(bare_clone / "other", "3 13", "/usr")
    printed = make(bare_clone, "-n", "train", f"PYTHON={other}").stdout
    assert "pip install" in printed and "it has another Python than" in printed
    (bare_clone / "keepsake").touch()
    made = make(bare_clone, "setup", f"PYTHON={other}", "PIP_INSTALL=@echo installing")
    assert f"Creating .venv again: it has another Python than {other}" in made.stdout, made
    assert "installing -c constraints.txt" in made.stdout
    assert (bare_clone / ".venv/pyvenv.cfg").exists() and (bare_clone / "keepsake").exists()
    broken = make(bare_clone, "setup", "PYTHON=/nowhere/python3")
    assert broken.returncode != 0 and "error: no Python 3.11" in broken.stderr
    assert (bare_clone / ".venv/pyvenv.cfg").exists(), "what is there stays"
    (bare_clone / ".venv/bin/python").unlink()
    (bare_clone / ".venv/bin/python").symlink_to("/nowhere/python3")
    made = make(bare_clone, "setup", "PIP_INSTALL=@echo i")
    assert "Creating .venv again: its Python no longer exists" in made.stdout


def test_torch_without_cuda(bare_clone: Path) -> None:
    printed = make(bare_clone, "-n", "setup", "TORCH=cpu").stdout
    first, second = (line for line in printed.splitlines() if "pip install" in line)
    assert first.endswith(
        """--no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)\""""
    )
    assert "--index-url" not in second
    assert "--index-url" not in make(bare_clone, "-n", "setup").stdout
    python = fake_python(bare_clone / "python", "3 11", "/usr")
    made = make(bare_clone, "setup", f"PYTHON={python}", "TORCH=cpu", "PIP_INSTALL=@echo installing")
    assert f"torch=={pins()['torch']}\n" in made.stdout, made
    assert "Nothing to be done" in make(bare_clone, "setup", "TORCH=cpu").stdout
    assert "Nothing to be done" in make(bare_clone, "setup").stdout, "it is kept"
    os.utime(bare_clone / "pyproject.toml")
    os.utime(bare_clone / ".venv/.installed", (1, 1))
    assert "--index-url" in make(bare_clone, "-n", "setup").stdout, "also when more is to be installed"
    assert "it has another build of PyTorch" in make(bare_clone, "-n", "setup", "TORCH=").stdout
    wrong = make(bare_clone, "setup", "TORCH=cuda")
    assert wrong.returncode != 0 and "TORCH=cuda is not supported: use TORCH=cpu" in wrong.stderr


def test_set_up_says_what_it_costs_and_pip_only_what_goes_wrong(bare_clone: Path) -> None:
    python = fake_python(bare_clone / "python", "3 11", "/usr")
    (bare_clone / "constraints.txt").write_text("no requirement!\n")
    result = make(bare_clone, "setup", f"PYTHON={python}", env={"PIP_NO_INDEX": "1"})
    creating, installing = result.stdout.splitlines()
    assert creating.startswith("Creating .venv with Python 3.")
    cost = "2 GB of packages (on Linux several more for CUDA, which TORCH=cpu leaves out) into .venv"
    assert installing.startswith(f"Installing {cost}")
    assert result.returncode != 0 and "no requirement!" in result.stderr
    assert "constraints.txt" in result.stderr, "what pip says of it"
    assert not (bare_clone / ".venv/.installed").exists()


def test_configs_load() -> None:
    configs = {path.stem: path for path in (REPOSITORY / "configs").glob("*.yaml")}
    assert set(PRESETS) <= set(configs)
    for name in PRESETS:
        config = parse_arguments(TrainConfig, ["--config", str(configs[name])], "train", "")
        assert config.preset == name
        if name == "demo":
            assert config == TrainConfig()


def test_our_own_workflow_is_one_that_we_accept() -> None:
    text = (REPOSITORY / ".github/workflows/ci.yml").read_text()
    workflow = read_workflow(text)
    tokenizer = load_tokenizer()
    assert json.loads(tokenizer.decode(tokenizer.encode(to_json(workflow)))[0]) == workflow
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    least, beyond = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert versions == [f"3.{minor}" for minor in range(int(least), int(beyond))]
