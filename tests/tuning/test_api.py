"""Sweeps from Python, as docs/tuning.md shows."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from nanochat_tct.config import parse_arguments
from nanochat_tct.errors import UserError
from nanochat_tct.tuning import Sweep
from nanochat_tct.tuning.api import arguments_of
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.runner import run_alone
from nanochat_tct.tuning.tune import prepare
from tests.support.commands import REPOSITORY
from tests.support.workers import small_store
from tests.tuning.sweeps import sweep_arguments

SMALL = {"sizes": ["1x32"], "num_rates": 2, "follow_up_share": 0.3, "concurrency": 1, "budget_flops": 6e10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was really run, without Ray, up to its end."""
    folder = tmp_path_factory.mktemp("api")
    sweep = prepare(parse_arguments(SweepConfig, sweep_arguments(folder, **SMALL), "tune", ""))[0]
    assert run_alone(sweep)
    return folder / "sweep"


def test_importing_it_imports_neither_ray_nor_pictures() -> None:
    script = (
        "import sys; from nanochat_tct.tuning import Sweep; print({'ray', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_trials_are_read_without_running_anything(folder: Path) -> None:
    before = (folder / "ledger.jsonl").read_bytes()
    sweep = Sweep(str(folder))
    assert not sweep.is_running
    trials = sweep.trials()
    assert [trial.trial for trial in sweep.ended()] == [trial.trial for trial in trials]
    table = sweep.table()
    assert table.num_rows == len(trials) and table["trial"].to_pylist() == [trial.trial for trial in trials]
    final = trials[-1]
    assert (final.seed, final.context_size, final.global_batch) == (0, 32, 4)
    assert Path(str(final.checkpoint)).is_dir() and final.bits_per_byte is not None
    for trial, curve in zip(trials[1:], table["curve"].to_pylist()[1:], strict=True):
        assert curve[0]["iter"] == 0 and curve[-1]["tokens"] == trial.tokens
        assert curve[-1]["bits_per_byte"] == pytest.approx(trial.bits_per_byte, rel=1e-3)
    outcome = sweep.wait()
    assert outcome.actual is not None and outcome.spent == pytest.approx(6e10, rel=0.05)
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_more_money_is_expected_to_buy_more(folder: Path) -> None:
    sweep = Sweep(str(folder))
    same, more = sweep.predict(), sweep.predict(1.2e12)
    final = sweep.trials()[-1]
    assert same.size == more.size == "1x32" and 0.7 < same.tokens / final.tokens < 1.3
    assert more.tokens == pytest.approx(20 * same.tokens, rel=0.01)
    # The final run repeats its few documents already, so the middle hardly moves.
    assert more.bits_per_byte.low < same.bits_per_byte.low
    assert 0 < same.bits_per_byte.low < same.bits_per_byte.high and more.learning_rate > 0


def test_what_is_wrong_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere holds no sweep \(ledger.jsonl is missing\)"):
        Sweep(str(tmp_path / "nowhere"))
    store = str(small_store(tmp_path / "store"))
    for settings, message in (
        ({"budget_flop": 1e12}, "unknown flag --budget-flop; did you mean --budget-flops"),
        ({"budget_flops": 1e9}, "is too small: 1 probe, 4 trials"),
        ({"budget_flops": 3e11, "vary": {"dropout": [0, 2]}}, "--dropout is 2.0"),
    ):
        with pytest.raises(UserError, match=message):
            Sweep.start(
                output=str(tmp_path / "sweep"),
                data_dir=store,
                sizes=["1x32"],
                context_size=32,
                wandb="off",
                **settings,
            )
    assert not (tmp_path / "sweep").exists()


def test_settings_become_flags() -> None:
    settings = {
        "sizes": ["1x32", "2x32"],
        "vary": {"dropout": [0, 0.1], "weight_decay": "0.1..1"},
        "from_": ["a"],
        "use_gpu": False,
        "concurrency": None,
    }
    config = parse_arguments(SweepConfig, arguments_of(settings), "tune", "")
    assert config.sizes == ["1x32", "2x32"] and config.from_ == ["a"] and config.concurrency is None
    assert config.varied()["dropout"] == [0.0, 0.1] and str(config.varied()["weight_decay"]) == "0.1..1"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_example_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Ray, with a small store in place of the bundled workflows."""
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/tuning.md").read_text(), re.DOTALL)
    store = str(small_store(tmp_path / "store"))
    script = "\n".join(examples).replace(
        "Sweep.start(", f"Sweep.start(data_dir={store!r}, tensorboard=False, "
    )
    assert script.count("data_dir") == 1
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=900)
    finally:
        with suppress(ProcessLookupError):  # the sweep would outlive it
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, out
    lines = out.splitlines()
    assert sum(line.startswith("probe-") for line in lines) >= 2
    assert any(re.match(r"final-00-\dx32 \dx32 [\d.]+ 0 \d\.\d+ /", line) for line in lines)
    assert re.fullmatch(r"\dx32 [\d.]+ \d+ \d\.\d+ \d\.\d+", lines[-1])
