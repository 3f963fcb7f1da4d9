"""The table of a running sweep, as a terminal shows it and as a log does."""

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from nanochat_tct.tuning.records import Duration
from nanochat_tct.tuning.table import LiveTable, TimeLeft
from tests.tuning.test_sweep import finish, make_sweep


def test_table_and_lines_show_every_trial_and_the_money(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2, vary=["dropout=0,0.25"])
    table = LiveTable(sweep.ledger, Console(file=(plain := io.StringIO()), width=150))
    with table:
        finish(sweep, str(sweep.next_trial(set())))
        trial = str(sweep.next_trial(set()))
        finish(sweep, trial)
        running = str(sweep.next_trial(set()))
    lines = [line for line in plain.getvalue().splitlines() if line.startswith(("probe", "sweep"))]
    assert any(
        line.startswith(f"{trial} | lr 0.0075 | dropout 0 | tokens ") and "| finished |" in line
        for line in lines
    )
    assert any(line.startswith(running) and "| running |" in line for line in lines)
    Console(file=(drawn := io.StringIO()), width=80).print(table.table())
    text = drawn.getvalue()
    assert "…" not in text
    for part in (
        "trial",
        *("bits per", "byte", "dropout", "spent", "status"),
        *("probe-00", "sweep-00", "sweep-01"),
        "finished",
        "running",
        "of 1e+12",
    ):
        assert part in text


def test_a_closed_output_ends_no_thread_and_is_raised_at_the_end(tmp_path: Path) -> None:
    """A console would raise SystemExit in the thread that prints, and the sweep go on unseen."""
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2)
    reading, writing = os.pipe()
    os.close(reading)
    heard: list[str] = []
    table = LiveTable(sweep.ledger, Console(file=os.fdopen(writing, "w")), heard.append)
    with pytest.raises(BrokenPipeError), table:
        finish(sweep, str(sweep.next_trial(set())))
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            time.sleep(0.05)
        assert heard == ["its output (broken pipe)"]


def test_a_long_table_keeps_what_runs_in_sight(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"])
    for _ in range(4):
        finish(sweep, str(sweep.next_trial(set())))
    table = LiveTable(sweep.ledger, Console(file=io.StringIO()))
    Console(file=(drawn := io.StringIO()), width=80).print(table.table(2))
    text = drawn.getvalue()
    assert "sweep-02" in text and "sweep-00" not in text and "2 earlier trials" in text


@pytest.mark.parametrize("slower", [1.0, 2.5])
def test_time_left_is_steady(tmp_path: Path, slower: float) -> None:
    """A machine that is slower than its probes said: the forecast comes to that soon, and does not jump about."""
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2)
    ledger, begun = sweep.ledger, 1e9
    now = begun
    ledger.clock = lambda: now
    left = TimeLeft(ledger)
    assert left.seconds() is None  # nothing is measured
    finish(sweep, str(sweep.next_trial(set())))
    sweep.next_trial(set())
    ledger.note(Duration(300.0, {"1x32": 700.0}))
    money = sweep.config.sweep_share * ledger.terms.capacity
    whole, errors = slower * 1000.0, []
    while isinstance(name := sweep.next_trial(set()), str):
        account = ledger.accounts[name]
        price = slower * (700.0 / account.left if account.purpose == "final" else 300.0 / money)
        for _ in range(40):
            part = account.reserve // 40
            ledger.charge(name, "train", part)
            now += part * price
            seconds = left.seconds()
            if now - begun > 0.2 * whole and seconds is not None and account.purpose == "final":
                errors.append((seconds - (begun + whole - now)) / whole)
        finish(sweep, name)
    assert errors and max(errors) - min(errors) < 0.2 and max(map(abs, errors)) < 0.25
    assert left.seconds() is None
