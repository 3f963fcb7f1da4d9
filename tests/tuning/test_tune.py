"""`tune` as users call it: what it refuses, and a whole tiny sweep on Ray."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanochat_tct.cli import main
from nanochat_tct.config import parse_arguments
from nanochat_tct.data.store_writer import StoreSettings, write_store
from nanochat_tct.model.checkpoint import exclusive
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.ledger import LEDGER
from nanochat_tct.tuning.records import BEST, CURVES, ENTRIES, REPORT_DIR, TRIALS, Entry, Point, Trial
from nanochat_tct.tuning.results import Results, read_rows
from nanochat_tct.tuning.runner import run_alone
from nanochat_tct.tuning.tune import prepare, write_results
from tests.support.commands import run_cli
from tests.support.workers import small_store
from tests.tuning.sweeps import SETTINGS, logged_flops, open_ledger, sweep_arguments
from tests.tuning.test_sweep import finish, make_sweep


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    assert main(["tune", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    for part in parts:
        assert part in error


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"budget_flops": None}, "no budget is given"),
    ({"budget_gpu_hours": 1}, "more than one budget"),
    ({"budget_flops": None, "budget_usd": 1}, "--gpu-hourly-usd"),
    ({"budget_flops": None, "budget_usd": 1, "gpu_hourly_usd": -2}, "--gpu-hourly-usd is -2"),
    ({"sizes": ["dmo"]}, "size 'dmo' is not known; did you mean demo?"),
    ({"sizes": ["1x32", "1x32"]}, "twice"),
    ({"sweep_share": 1.5}, "--sweep-share is 1.5"),
    ({"budget_flops": 1e9}, " is too small: "),
    ({"vary": ["n-embd=32,64"]}, "n-embd is a matter of size; see --sizes"),
    ({"vary": ["dropuot=0,1"]}, "did you mean dropout?"),
    ({"vary": ["batch_size=4,8"]}, "batch_size follows from global_batch; vary takes dropout, "),
    ({"vary": ["rate_span=4,8"]}, "rate_span cannot be varied; vary takes dropout, "),
    ({"vary": ["dropout=0,1.5"]}, "vary dropout: --dropout is 1.5: it must be in [0, 1)"),
    ({"vary": ["global_batch=3,4"], "num_workers": 2}, "3 windows cannot be divided among --num-workers 2"),
    ({"vary": ["warmup_share=0.1,1.5"]}, "vary warmup_share is 1.5: it must be from 0 to 1"),
    ({"vary": ["optimizer=adamw..muon"]}, "vary optimizer takes two or more values, not a range"),
    ({"vary": ["weight_decay=0.5..0.1"]}, "0.5..0.1: the second number must be more than the"),
    ({"vary": ["beta1=0.8..0.9,0.95"]}, "either values or one range LOW..HIGH, not both"),
    ({"vary": ["beta1=0.8..x"]}, "vary beta1 must be a number, not 'x'"),
    ({"vary": ["dropout=0,much"]}, "vary dropout must be a number, not 'much'"),
    ({"vary": ["optimizer=muon,adam"]}, "one of muon, adamw, not 'adam'"),
    ({"vary": ["dropout=0,0.0"]}, "vary dropout must be two or more values, each once, or a range"),
    ({"vary": ["dropout=0"]}, "for a single one use --dropout"),
]


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, message in WRONG:
        refused(sweep_arguments(tmp_path, **changes), capsys, message)
    assert not (tmp_path / "sweep").exists()


def test_optuna_that_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as Python itself marks what cannot be imported
    refused(sweep_arguments(tmp_path, search="optuna"), capsys, "pip install optuna")
    assert not (tmp_path / "sweep").exists()


def test_settings_to_vary_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("vary: {weight-decay: [0, 0.2], optimizer: [adamw, muon]}\n")
    arguments = [*sweep_arguments(tmp_path, budget_flops=4e11), "--config", str(tmp_path / "sweep.yaml")]
    sweep = prepare(parse_arguments(SweepConfig, arguments, "tune", ""))[0]
    assert sweep.config.varied() == {"weight_decay": [0.0, 0.2], "optimizer": ["adamw", "muon"]}
    assert (sweep.base.weight_decay, sweep.base.optimizer) == (0.0, "adamw")


def test_a_ledger_of_another_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(parse_arguments(SweepConfig, sweep_arguments(tmp_path), "tune", ""))
    in_time = {"budget_flops": None, "budget_gpu_hours": 1}
    for changes, *parts in (
        ({"seed": 1}, "was begun with --seed 0, not with --seed 1", "--fresh"),
        ({"sizes": ["1x32"]}, "--sizes 1x32 2x32, not with --sizes 1x32", "--add"),
        (in_time, "was begun with --budget-flops 3e+11;"),
        ({"gpu_hourly_usd": 2}, "with no --gpu-hourly-usd, not with --gpu-h"),
        ({"vary": ["beta2=0.9,0.95"]}, "with no --vary, not with --vary beta2=0.9,0.95;"),
    ):
        refused(sweep_arguments(tmp_path, **changes), capsys, *parts)
    small_store(tmp_path / "other", count=20)
    other = [*sweep_arguments(tmp_path), "--data-dir", str(tmp_path / "other")]
    refused(other, capsys, "was begun with another data (fingerprint ")
    refused(sweep_arguments(tmp_path, budget_flops=1e9, fresh=True), capsys, "too small")
    assert not (tmp_path / "sweep-1").exists()  # what was there is still in its place
    with exclusive(tmp_path / "sweep"):  # as one that runs does
        refused(sweep_arguments(tmp_path, fresh=True), capsys, "another sweep runs here")
        before = (tmp_path / "sweep" / LEDGER).read_bytes()
        refused(sweep_arguments(tmp_path, budget_flops=9e11), capsys, "another sweep runs here")
        assert (tmp_path / "sweep" / LEDGER).read_bytes() == before
    sweep, folder = prepare(
        parse_arguments(SweepConfig, sweep_arguments(tmp_path, seed=1, fresh=True), "tune", "")
    )
    assert sweep.ledger.terms.sweep["seed"] == 1
    assert (folder.with_name("sweep-1") / LEDGER).exists()


def test_a_dry_run_uses_saved_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(tmp_path)
    for _ in sweep.sizes:
        finish(sweep, str(sweep.next_trial(set())))
    spent = sweep.ledger.spent
    changes = {"num_rates": 3, "budget_flops": 1e12, "follow_up_share": 0.6}
    assert main(["tune", *sweep_arguments(tmp_path, **changes), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for part in ("forecast", "probes (done)", "1x32", "2x32", "follow-ups", "final run, if 2x32", "total"):
        assert part in out
    sweep.ledger.refresh()
    assert sweep.ledger.spent == spent


@pytest.mark.slow
def test_what_the_final_run_reaches_is_what_evaluate_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real sweep, without Ray: trials take a part of the split, the final run's model is measured on all of it."""
    values = [synthesize(index, seed=0) for index in range(20)]
    write_store(tmp_path / "store", values, load_tokenizer(), StoreSettings(train_split=0.7))
    arguments = sweep_arguments(tmp_path, sizes=["1x32"], budget_flops=1e11, concurrency=1)
    sweep, folder = prepare(parse_arguments(SweepConfig, arguments, "tune", ""))
    assert run_alone(sweep)
    write_results(sweep)
    printed = capsys.readouterr().out
    outcome, trials = Results.read(folder).outcome, read_rows(folder / TRIALS, Trial)
    final = trials[-1]
    assert outcome.trial_share is not None and outcome.trial_share < 1 == outcome.actual_share
    assert all(trial.standard_error for trial in trials[1:]) and outcome.actual_error == 0
    assert outcome.actual == final.whole_split != final.bits_per_byte
    store, checkpoint = str(tmp_path / "store"), str(outcome.checkpoint)
    assert (
        main(["evaluate", "--checkpoint", checkpoint, "--data-dir", store, "--num-samples", "0", "--json"])
        == 0
    )
    measured = json.loads(capsys.readouterr().out)
    assert measured["bits_per_byte"] == pytest.approx(outcome.actual, rel=1e-5)
    assert f"{outcome.actual:.4f} reached on the whole validation split" in printed
    spent_on_it = [entry for entry in read_rows(folder / ENTRIES, Entry) if entry.trial == final.trial][-1]
    assert spent_on_it.kind == "evaluation" and spent_on_it.flops <= 0.05 * final.flops
    points = [point for point in read_rows(folder / CURVES, Point) if point.trial == final.trial]
    assert points[-1].validation == pytest.approx(final.bits_per_byte, rel=1e-4)
    assert points[-1].tokens == final.tokens and sum(point.training is not None for point in points) > 10
    best = parse_arguments(TrainConfig, ["--config", str(folder / BEST)], "train", "")
    assert (best.learning_rate, best.max_iters) == (final.learning_rate, final.tokens // sweep.iter_tokens)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_whole_sweep(tmp_path: Path) -> None:
    result = run_cli("tune", *sweep_arguments(tmp_path), timeout=900)
    assert result.code == 0, result.stdout + result.stderr
    ledger, folder = open_ledger(tmp_path), tmp_path / "sweep"
    budget = SETTINGS["budget_flops"]
    assert 0.95 * budget <= ledger.spent <= budget
    assert ledger.spent == logged_flops(tmp_path)
    trials = read_rows(folder / TRIALS, Trial)
    assert {trial.status for trial in trials} <= {"finished", "stopped"}
    final = trials[-1]
    assert final.purpose == "final" and final.status == "finished"
    assert final.tokens == final.planned_tokens
    outcome = Results.read(folder).outcome
    assert outcome.actual in (final.whole_split, final.bits_per_byte) and outcome.predicted is not None
    assert outcome.size == final.size and Path(str(outcome.checkpoint)).is_dir()
    for text in ("forecast", "predicted", "reached", "spent", "nanochat-tct train --config"):
        assert text in result.stdout
    assert (folder / REPORT_DIR / "index.html").exists()
    best = yaml.safe_load((folder / BEST).read_text())
    assert best["learning_rate"] == final.learning_rate and best["n_embd"] == final.n_embd
    again = run_cli("tune", *sweep_arguments(tmp_path), timeout=250)
    assert again.code == 0 and open_ledger(tmp_path).spent == ledger.spent
