"""Trials, entries and outcome come back from their files as they were."""

from pathlib import Path

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.tuning.records import TRIALS, Entry, Outcome, Trial
from nanochat_tct.tuning.results import Results, read_rows, write_rows

TRIAL = Trial(
    *("demo-0.01", "sweep", "demo", 4, 3, 96, 2_021_472, 0.01),
    *(0.0, 0.1, "muon", 0.9, 0.95, 1.0, 4096, 2048, 10_000, 0.2048),
    *(3.5e12, 0.25, 12.5, 1.5, "finished", 100.0, 112.5),
)


def test_trials_and_entries_come_back(tmp_path: Path) -> None:
    trials = [TRIAL, Trial(**{**vars(TRIAL), "trial": "other", "bits_per_byte": None, "status": "failed"})]
    write_rows(trials, tmp_path / TRIALS, Trial)
    assert read_rows(tmp_path / TRIALS, Trial) == trials
    entries = [Entry(1.5, "idle", "", "idle", 0.5, 3.0, 0.0)]
    write_rows(entries, tmp_path / "entries.parquet", Entry)
    assert read_rows(tmp_path / "entries.parquet", Entry) == entries
    write_rows([], tmp_path / TRIALS, Trial)
    assert read_rows(tmp_path / TRIALS, Trial) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entries.parquet", "trials.parquet"]


def test_the_outcome_comes_back(tmp_path: Path) -> None:
    for outcome in (
        Outcome("flops", 1e15, 0.0, None),
        Outcome(
            "usd",
            100.0,
            97.5,
            2.5,
            "demo",
            0.01,
            {"optimizer": "muon"},
            (0.5, 0.6, 0.7),
            0.61,
            "runs/final",
            "Chosen. So.",
        ),
    ):
        Results(outcome, [TRIAL], [], []).write(tmp_path)
        assert Results.read(tmp_path).outcome == outcome
    for name, content in (("outcome.json", b"{}"), (TRIALS, b"half"), ("outcome.json", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"the results in .* are damaged"):
            Results.read(tmp_path)
        Results(outcome, [TRIAL], [], []).write(tmp_path)
