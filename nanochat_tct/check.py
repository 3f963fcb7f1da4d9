"""`check`: whether GitHub would accept workflow files, and what is wrong with them, where."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat_tct.config import REQUIRED, option
from nanochat_tct.documents import DEFAULT_LIMITS, DocumentError, decoded, read_workflow
from nanochat_tct.documents.positions import Positions
from nanochat_tct.errors import UserError

if TYPE_CHECKING:  # imported where it is needed, so that `--help` is quick
    from nanochat_tct.tokenizer.tokenizer import Tokenizer

WORKFLOWS = ".github/workflows"
ENDINGS = (".yml", ".yaml")
NOT_INPUT = {".git", "node_modules", ".venv"}  # folders of tools, which hold files of other authors
FEW_FILES = 100  # below this, more processes would take longer to start than to work
FILES_A_TASK = 20


@dataclass(frozen=True)
class CheckConfig:
    """The flags of `check`."""

    files: list[str] = option(
        REQUIRED,
        "workflow files, or folders: of one with .github/workflows that is checked; - for standard input",
        positional=True,
        is_path=True,
    )
    warnings: bool = option(True, "print what GitHub accepts and its editor complains of, too")
    json: bool = option(False, "print one JSON object instead of text")
    tokenizer: str = option(
        "builtin", "builtin, or a vocabulary file, whose language the files are to be in", is_path=True
    )


@dataclass(frozen=True)
class Finding:
    """A problem in a file. Lines and columns count from 1, columns in characters."""

    file: str
    line: int
    column: int
    severity: str  # "error": GitHub refuses the file; "warning": its language service complains
    message: str
    pointer: str  # the JSON pointer of the value


def check(config: CheckConfig) -> int:
    """Check files, and print their problems. Returns the exit code: 1 if GitHub would refuse one of them."""
    from nanochat_tct.tokenizer import load_tokenizer

    files = list(find_files(config.files))
    tokenizer = load_tokenizer(config.tokenizer)
    refused, warned = 0, 0
    found: list[Finding] = []
    for findings in check_files(files, tokenizer):  # type: ignore[arg-type]
        is_refused = any(each.severity == "error" for each in findings)
        refused += is_refused
        warned += bool(findings) and not is_refused
        shown = [each for each in findings if config.warnings or each.severity == "error"]
        found += shown
        if not config.json:
            print("".join(f"{as_text(each)}\n" for each in shown), end="", flush=True)
    counts = {"files": len(files), "refused": refused, "accepted_with_warnings": warned}
    if config.json:
        print(json.dumps({**counts, "problems": [asdict(each) for each in found]}))
    else:
        print(summary(**counts), file=sys.stderr)
    return 1 if refused else 0


def summary(files: int, refused: int, accepted_with_warnings: int) -> str:
    """Format the result for people."""
    what = f"{files:,} workflow{'s' * (files != 1)}: "
    parts = [f"{refused:,} that GitHub would refuse"] * bool(refused)
    parts += [f"{accepted_with_warnings:,} with warnings only"] * bool(accepted_with_warnings)
    fine = files - refused - accepted_with_warnings
    return what + ", ".join([*parts, f"{fine:,} without a problem"])


def as_text(finding: Finding) -> str:
    """Format a problem as one line, as compilers do."""
    message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in finding.message)
    return f"{finding.file}:{finding.line}:{finding.column}: {finding.severity}: {message}"


def find_files(given: Sequence[str]) -> Iterator[str]:
    """Yield the files at paths; those of a folder are sorted.

    Raises:
        UserError: a path does not exist, or a folder has no workflows.
    """
    for path in given:
        if not os.path.isdir(path):
            if path != "-" and not os.path.exists(path):
                raise UserError(f"{path}: there is no such file or folder")
            yield path
            continue
        below = os.path.join(path, WORKFLOWS)
        folder = below if os.path.isdir(below) else path
        files = sorted(
            str(file)
            for file in Path(folder).rglob("*.y*ml")
            if file.suffix in ENDINGS and not NOT_INPUT & set(file.parts) and file.is_file()
        )
        if not files:
            raise UserError(f"{path}: no .yml or .yaml file there")
        yield from files


def check_files(files: Sequence[str], tokenizer: Tokenizer) -> Iterator[list[Finding]]:
    """Yield the problems of each file, in order. Several processes check many files."""

    def check_one(file: str) -> list[Finding]:
        return check_text(file, read(file), tokenizer)

    if len(files) < FEW_FILES or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(check_one, files)
        return
    global _check_one
    _check_one = check_one
    with multiprocessing.get_context("fork").Pool() as pool:
        yield from pool.imap(_in_process, files, FILES_A_TASK)


_check_one: Callable[[str], list[Finding]]  # the forked processes inherit it


def _in_process(file: str) -> list[Finding]:
    return _check_one(file)


def read(file: str) -> bytes:
    """Read a file, or only so much of it that it is known to be too large; - is standard input.

    Raises:
        UserError: the file cannot be read.
    """
    most = DEFAULT_LIMITS.max_bytes + 1
    try:
        if file == "-":
            return sys.stdin.buffer.read(most)
        with Path(file).open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def check_text(name: str, text: bytes, tokenizer: Tokenizer) -> list[Finding]:
    """The problems in the text of a workflow, in the order of lines.

    Args:
        name: the name of the file in the findings.
    """
    complaints: list[DocumentError] = []
    try:
        value = read_workflow(text, "yaml", complaints=complaints)
    except DocumentError as error:
        return [Finding(name, error.line, error.column, "error", error.problem, "")]
    found = [Finding(name, each.line, each.column, "error", each.problem, "") for each in complaints]
    problems = tokenizer.problems(value)
    positions = Positions(decoded(text)) if problems else None
    for problem in problems:
        assert positions is not None
        line, column = positions.locate(problem.path, problem.of_key, problem.offset)
        severity = "warning" if problem.is_warning else "error"
        found.append(Finding(name, line, column, severity, problem.message, problem.pointer))
    return sorted(found, key=lambda each: (each.line, each.column))
