"""The settings of `tune` beside those of `train`: what both have is the same, and what only one has is by intention."""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanochat_tct.cli import main
from nanochat_tct.data.windows import Windows
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.tuning.config import DECIDED, DIFFERENT, SweepConfig
from nanochat_tct.tuning.ledger import Account, Terms
from nanochat_tct.tuning.plan import FINAL_EVALUATIONS
from nanochat_tct.tuning.sweep import Sweep
from nanochat_tct.tuning.trial import with_length
from nanochat_tct.tuning.trials import BEST, trial_rows
from nanochat_tct.tuning.tune import refuse_other_sweep, write_results
from tests.tuning.test_sweep import make_sweep, run_all

TRAIN = {field.name: field for field in dataclasses.fields(TrainConfig)}
SWEEP = {field.name: field for field in dataclasses.fields(SweepConfig)}


@pytest.mark.parametrize("name", [name for name in SWEEP if name in TRAIN and name not in DIFFERENT])
def test_what_train_has_too_is_the_same(name: str) -> None:
    """The default, the text, the unit, the choices and the type."""
    assert SWEEP[name].default == TRAIN[name].default
    assert dict(SWEEP[name].metadata) == dict(TRAIN[name].metadata)
    assert typing.get_type_hints(SweepConfig)[name] == typing.get_type_hints(TrainConfig)[name]


def test_every_setting_of_train_is_one_of_tune_or_decided_by_the_sweep() -> None:
    assert set(TRAIN) - set(SWEEP) == set(DECIDED)
    assert set(DIFFERENT) <= set(TRAIN) & set(SWEEP)


def test_a_trial_gets_what_train_gets_unless_told_otherwise() -> None:
    given, default = TrainConfig(**SweepConfig().train_settings()), TrainConfig()
    for name in set(TRAIN) - set(DECIDED) - set(DIFFERENT):
        assert getattr(given, name) == getattr(default, name), name


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep that came to its end."""
    sweep = make_sweep(
        tmp_path_factory.mktemp("sweep"), sizes=["1x32"], num_rates=2, mask_illegal=False, max_bad_iters=3
    )
    run_all(sweep)
    return sweep


def final_of(sweep: Sweep) -> Account:
    return next(account for account in sweep.ledger.accounts.values() if account.purpose == "final")


def test_each_trial_derives_its_own_weight_decay(done: Sweep) -> None:
    sweep, decays = done, set()
    for account in sweep.ledger.accounts.values():
        config = TrainConfig(**account.settings["config"])
        alone = TrainConfig(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            learning_rate=config.learning_rate,
            max_iters=config.max_iters,
        )
        expected = resolve(alone, load_tokenizer("builtin").vocab_size())
        for name in ("weight_decay", "warmup_iters", "min_lr", "lr_decay_iters"):
            assert getattr(config, name) == getattr(expected, name), name
        decays.add(config.weight_decay)
    assert len(decays) > 2, "rates and lengths differ, so do these"
    # To the fit it is no setting that was varied.
    assert {trial.weight_decay for trial in trial_rows(sweep.ledger)} == {None}
    assert not sweep.make_fit().values and "weight_decay" not in sweep.make_fit().decision


def test_a_final_run_of_another_length_derives_it_again(done: Sweep) -> None:
    account = final_of(done)
    config = TrainConfig(**account.settings["config"])
    shorter = with_length(config, 30, account.settings)
    assert (shorter.max_iters, shorter.lr_decay_iters, shorter.warmup_iters) == (30, 30, 1)
    assert shorter.weight_decay == min(2.0, float(f"{1.2 / (30 * config.learning_rate):.2g}"))  # type: ignore[operator]
    assert shorter.weight_decay != config.weight_decay
    given = {**account.settings, "derives_weight_decay": False}
    assert with_length(config, 30, given).weight_decay == config.weight_decay


def test_the_best_config_has_what_the_final_run_had(done: Sweep) -> None:
    account = final_of(done)
    account.result["max_iters"] = 40  # its length was corrected
    write_results(done)
    best = yaml.safe_load((done.folder / BEST).read_text())
    ran = with_length(TrainConfig(**account.settings["config"]), 40, account.settings)
    for name in (
        "max_iters",
        "lr_decay_iters",
        "warmup_iters",
        "weight_decay",
        "mask_illegal",
        "max_bad_iters",
    ):
        assert best[name] == getattr(ran, name), name
    assert best["mask_illegal"] is False and best["max_bad_iters"] == 3
    comment = (done.folder / BEST).read_text().splitlines()[0]
    assert comment.startswith(f"# The final run of the sweep {done.folder}, of size ")
    windows = best["eval_iters"] * ran.global_batch or done.validation_windows
    is_limited = FINAL_EVALUATIONS * windows / 3 <= 0.05 * 40 * ran.global_batch
    assert is_limited or best["eval_iters"] == done.make_plan().eval_iters
    assert best["keep_checkpoints"] == TrainConfig().keep_checkpoints


@pytest.mark.parametrize("values", ["0,0.2"])
def test_a_varied_weight_decay_is_what_the_trials_have(tmp_path: Path, values: str) -> None:
    sweep = make_sweep(tmp_path, sizes=["1x32"], num_rates=2, vary=[f"weight_decay={values}"])
    run_all(sweep)
    expected = [float(value) for value in values.split(",")]
    for trial in trial_rows(sweep.ledger):
        config = sweep.ledger.accounts[trial.trial].settings["config"]
        assert trial.weight_decay == config["weight_decay"] and trial.weight_decay in expected
    assert {trial.weight_decay for trial in sweep.trials()} == set(expected)


def test_windows_of_documents(tmp_path: Path) -> None:
    """Trials train on windows of documents, and are measured as all others are: on each token of the split once."""
    sweep = make_sweep(tmp_path, windowing="per-document", stride=4, sizes=["1x32"])
    assert (sweep.base.windowing, sweep.base.stride) == ("per-document", 4)
    assert sweep.validation_windows == len(Windows(sweep.store, "val", 32))


def terms(**sweep: Any) -> Terms:
    now = SweepConfig(budget_flops=1e12).terms("data", "tokenizer")
    return Terms(now.unit, now.budget, now.hourly_usd, {**now.sweep, **sweep})


def test_a_ledger_of_an_earlier_version() -> None:
    """It has the old default, and nothing of the settings that came later."""
    now, later = (
        terms(),
        ("mask_illegal", "windowing", "stride", "max_bad_iters", "max_grad_norm_ratio", "vary"),
    )
    was = terms(weight_decay=0.1)
    for name in later:
        del was.sweep[name]
    with pytest.raises(
        UserError, match=r"weight_decay was 0\.1, not none; take that again, another --output"
    ):
        refuse_other_sweep(was, now, "sweep")
    refuse_other_sweep(was, terms(weight_decay=0.1), "sweep")
    with pytest.raises(UserError, match="mask_illegal was True, not False"):
        refuse_other_sweep(was, terms(weight_decay=0.1, mask_illegal=False), "sweep")


def test_varied_settings_that_a_sweep_decides_are_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, why in DECIDED.items():
        assert main(["tune", "--budget-flops", "1e12", "--vary", f"{name}=1,2"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: vary: {name} {why}; vary takes dropout, ") and error.count("\n") == 1
