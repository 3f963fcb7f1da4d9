import errno
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nanochat_tct.cli import COMMANDS, Command, main
from nanochat_tct.config import option
from nanochat_tct.errors import UserError
from tests.support.commands import REPOSITORY, Finished, assert_user_error, run_cli, run_python

# The flags that users were promised; a command may have more.
FLAGS = {
    "lsp": "checkpoint threshold",
    "prepare": "input output context-size stride windowing train-split concurrency max-rejected export-pt",
    "synthesize": "count output format seed",
    "train": (
        "config data-dir max-iters batch-size gradient-accumulation learning-rate n-layer n-head n-embd "
        "context-size parallel num-workers use-gpu precision checkpoint-dir run-name train-samples resume "
        "vocab-size dropout weight-decay beta1 beta2 grad-clip warmup-iters lr-decay-iters min-lr "
        "eval-interval save-interval log-interval eval-iters log-dir wandb-project wandb-run-name"
    ),
    "tune": (
        "config budget-usd budget-gpu-hours budget-flops gpu-hourly-usd dry-run fresh output sizes search "
        "sweep-share concurrency seed data-dir"
    ),
    "evaluate": "checkpoint data-dir num-samples json",
    "check": "config warnings json tokenizer",
    "generate": "checkpoint prompt num-samples temperature top-p seed format output",
    "tokenize": "",
    "train-tokenizer": "input vocab-size output",
    "doctor": "data-dir",
}


def help_entries(text: str) -> dict[str, str]:
    """First flag (or positional) of each entry of a --help -> its text on one line."""
    entries: dict[str, str] = {}
    for line in text.splitlines():
        start = re.match(r"  (-\S+?|[A-Z_]+),? ", line + " ")
        if start:
            name = (re.search(r"--[a-z0-9-]+", line) or start)[0].strip()
            entries[name] = line.strip()
        elif entries and line.startswith("   "):
            entries[name] += " " + line.strip()
    return entries


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_flag_with_its_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    entries = help_entries(capsys.readouterr().out)
    assert {"--" + name for name in FLAGS[command].split()} <= set(entries)
    for name, text in entries.items():
        assert name in ("--help", "--config") or re.search(r"\((default: .+|required)\)$", text), text
        if name in ("--context-size", "--stride"):
            assert "[tokens]" in text
        if name in ("--max-iters", "--warmup-iters", "--save-interval"):
            assert "[iters]" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_use_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("nonsense_key: 1\n")
    for argv, part in (
        (["--nonsense-flag", "1"], "unknown flag --nonsense-flag"),
        (["--config", str(tmp_path / "run.yaml")], f"unknown key 'nonsense_key' in {tmp_path / 'run.yaml'}"),
        (["--config", str(tmp_path / "missing.yaml")], "cannot read the config file"),
    ):
        assert main([command, *argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert part in err


def test_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nanochat-tct {importlib.metadata.version('nanochat-tct')}\n"
    assert main([]) == 2
    capsys.readouterr()
    assert main(["trian"]) == 2
    told = "error: unknown command 'trian'; did you mean train? (see nanochat-tct --help)\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "jobs").glob("*.py")))
def test_jobs_are_the_commands(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each script does what Python does with it, in this process, where all is imported; one is started too."""
    path = REPOSITORY / "jobs" / script
    if script == "prepare.py":
        result = run_python(path, "--nonsense", cwd=tmp_path)
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), "--nonsense"])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(path), run_name="__main__")
        result = Finished(stopped.value.code, *capsys.readouterr())  # type: ignore[arg-type]
    name = script.removesuffix(".py").replace("_", "-")
    assert_user_error(result, "unknown flag --nonsense", f"nanochat-tct {name} --help")
    assert list(tmp_path.iterdir()) == []


def test_installed_command() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="nanochat-tct")
    assert script.value == "nanochat_tct.cli:main"
    assert run_cli("--help").code == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_nobody_reads_or_that_is_full(unbuffered: str) -> None:
    """Found where a command ends, or where it prints; Python would say so once more, and end with 120."""
    command = [sys.executable, "-m", "nanochat_tct.cli", "--help"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full, os.fdopen(writing, "wb") as closed:
        for output, code, error in ((full, 2, "no space left on device"), (closed, 141, "")):
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, env=environment, text=True)
            assert done.returncode == code
            assert done.stderr.count("\n") == bool(error) and error in done.stderr


FAILURES = {
    "mistake": UserError("no such thing; do this"),
    "full disk": OSError(errno.ENOSPC, "No space left on device", "/data/tokens.bin"),
    "refused": PermissionError(errno.EACCES, "Permission denied", "/data"),
    "interrupted": KeyboardInterrupt(),
    "bug": FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
}


@dataclass(frozen=True)
class FailingConfig:
    """The flags of a job that fails."""

    failure: str = option("mistake", "key of FAILURES")


def failing_job(config: FailingConfig) -> None:
    raise FAILURES[config.failure]


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "nanochat_tct.of_this_test", sys.modules[__name__])
    monkeypatch.setitem(
        COMMANDS, "job", Command("of_this_test:FailingConfig", "of_this_test:failing_job", "")
    )
    for failure, code, message in (
        ("mistake", 2, "error: no such thing; do this\n"),
        ("full disk", 2, "error: /data/tokens.bin: no space left on device; free some space and run again\n"),
        ("refused", 2, "error: /data: permission denied; choose another path"),
        ("interrupted", 130, ""),
    ):
        assert main(["job", "--failure", failure]) == code
        assert capsys.readouterr().err.startswith(message)
    with pytest.raises(FileNotFoundError):  # ours: a traceback
        main(["job", "--failure", "bug"])
