"""The bar of a terminal, and plain lines where there is none."""

import contextlib
import errno
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat_tct.tracking.terminal import Terminal, print_document, with_progress

NUMBERS = {"iter": 30, "loss": 5.25, "eta_seconds": 750.0, "cost_usd": 0.5, "cost_left_usd": 1.25}
SCRIPT = f"""
from nanochat_tct.tracking.terminal import Terminal
with Terminal(40) as terminal:
    terminal.line("iter 30 | [bold]loss[/bold] 5.25 :smile: " + "x" * 200)
    terminal.progress({NUMBERS})
"""


def test_lines_are_plain_where_no_person_looks() -> None:
    output = io.StringIO()
    with Terminal(40, output) as terminal:
        terminal.line("iter 30 | loss 5.25")
        terminal.progress(NUMBERS)
        terminal.line("eval 30")
    assert output.getvalue() == "iter 30 | loss 5.25\neval 30\n"


def test_progress_without_a_terminal_is_a_line_from_time_to_time(capsys: pytest.CaptureFixture[str]) -> None:
    tables = [[0] * 250, [], [0] * 750]
    assert list(with_progress(tables, 1000, "preparing {} of {} documents", len)) == tables
    assert capsys.readouterr().err == ""
    for _ in zip(
        with_progress(tables, 1000, "preparing {} of {} documents", len, -1), range(2), strict=False
    ):
        pass
    line = r"preparing 250 of 1,000 documents, [\d,.]+/s, [\d,]+ s left\n"
    assert re.fullmatch(line * 2, capsys.readouterr().err)


def test_documents_are_utf8_whatever_the_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    output = io.TextIOWrapper(written, "ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", output)
    print("‹", end="")
    print_document("name: größe\n")
    assert written.getvalue() == b"\\u2039" + "name: größe\n".encode()


def test_an_output_that_fails_is_told_and_raised_at_the_end() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -1` does
    for output, code in ((os.fdopen(writing, "w"), errno.EPIPE), (open("/dev/full", "w"), errno.ENOSPC)):  # noqa: SIM115
        terminal = Terminal(40, output)
        with pytest.raises(OSError) as raised, terminal:
            assert terminal.stop_reason() is None
            terminal.line("iter 30")
            terminal.line("iter 40")  # raises nothing here, where others would wait for this worker
            assert terminal.stop_reason() == f"its output ({os.strerror(code).lower()})"
        assert raised.value.errno == code
        with contextlib.suppress(OSError):
            output.close()


def test_a_terminal_shows_a_bar_with_time_and_money_left(tmp_path: Path) -> None:
    """On a real pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    text = shown.decode()
    assert "iter 30 | [bold]loss[/bold] 5.25 :smile: " + "x" * 200 in text  # as it is, and not broken
    for part in ("iter 30 of 40", "75%", "loss 5.250", "0:12:30 and $1.25 left", "$0.50 spent"):
        assert part in text, (part, text)
    assert text.rstrip().endswith("\x1b[2K"), text[-80:]  # the bar is gone at the end
