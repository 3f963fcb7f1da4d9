"""The settings of `tune` beside those of `train`: what both have is the same, and what only one has is by intention."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanochat_tct.cli import main
from nanochat_tct.config import parse_arguments, settings_of, write_yaml
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import ResolvedConfig, TrainConfig, for_epochs, resolve
from nanochat_tct.tuning.budget import FINAL_EVALUATIONS, Terms
from nanochat_tct.tuning.config import DECIDED, DIFFERENT, SweepConfig
from nanochat_tct.tuning.continuing import refuse_other_sweep
from nanochat_tct.tuning.ledger import Account
from nanochat_tct.tuning.records import BEST
from nanochat_tct.tuning.results import trial_rows
from nanochat_tct.tuning.scheduler import Scheduler
from nanochat_tct.tuning.trial import with_length
from nanochat_tct.tuning.tune import write_results
from tests.tuning.test_sweep import make_sweep, run_all

TRAIN, SWEEP = settings_of(TrainConfig), settings_of(SweepConfig)
PASSED_ON = {name for name, setting in SWEEP.items() if setting.holder == "train"}


def test_every_setting_of_train_is_passed_on_or_decided_by_the_sweep() -> None:
    assert set(TRAIN) - PASSED_ON - set(DECIDED) == {"gpu_hourly_usd"}, "a price has no default here"
    assert set(DIFFERENT) < PASSED_ON and not PASSED_ON & set(DECIDED)


def test_what_is_passed_on_is_declared_once() -> None:
    default = SweepConfig().train
    assert default == TrainConfig(num_workers=1)
    for name in PASSED_ON:
        assert SWEEP[name].default == getattr(default, name) and SWEEP[name].hint == TRAIN[name].hint, name
        assert SWEEP[name].metadata["choices"] == TRAIN[name].metadata["choices"], name
        if name not in DIFFERENT:
            assert SWEEP[name].metadata["help"] == TRAIN[name].metadata["help"], name


def test_a_trial_gets_what_train_gets_unless_told_otherwise() -> None:
    given, default = TrainConfig(**SweepConfig().train_settings()), TrainConfig()
    assert dataclasses.replace(given, num_workers=default.num_workers) == default


def test_help_shows_what_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    own, passed = capsys.readouterr().out.split("settings of train, passed on:")
    for name in SWEEP:
        shown = [
            bool(re.search(rf"^  --{name.replace('_', '-')}\b", text, re.MULTILINE)) for text in (own, passed)
        ]
        assert shown == [name not in PASSED_ON, name in PASSED_ON], name
    assert "--max-iters" not in own + passed


def test_a_file_has_the_settings_of_both(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("budget_flops: 1e12\ndropout: 0.1\nseed: 3\nfrom: [a]\n")
    config = parse_arguments(
        SweepConfig, ["--config", str(tmp_path / "sweep.yaml"), "--seed", "4"], "tune", ""
    )
    assert (config.train.dropout, config.train.seed, config.from_) == (0.1, 4, ["a"])
    write_yaml(config, tmp_path / "again.yaml")
    assert parse_arguments(SweepConfig, ["--config", str(tmp_path / "again.yaml")], "tune", "") == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--max-iters", "9"],
            "unknown flag --max-iters, which follows from the budget (see nanochat-tct tune --help)",
        ),
        (["--resume"], "unknown flag --resume, which is what the same command does (see"),
        (["--num-workers", "1:2"], "--num-workers must be a whole number, not '1:2'"),
        (["--batch-size", "auto"], "--batch-size auto is not for tune"),
        (["--dropout", "2"], "--dropout is 2.0: it must be in [0, 1)"),
        (["--add-rates", "0"], "--add-rates 0: a learning rate is"),
        (["--repeats", "0"], "--repeats is 0: it must be from 1"),
    ],
)
def test_wrong_settings(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_arguments(SweepConfig, ["--budget-flops", "1e12", *arguments], "tune", "")
    assert str(raised.value).startswith(message)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Scheduler:
    """A sweep that came to its end."""
    sweep = make_sweep(
        tmp_path_factory.mktemp("sweep"), sizes=["1x32"], num_rates=2, mask_illegal=False, max_bad_iters=3
    )
    run_all(sweep)
    return sweep


def final_of(sweep: Scheduler) -> Account:
    return next(account for account in sweep.ledger.accounts.values() if account.purpose == "final")


def test_each_trial_derives_its_own_weight_decay(done: Scheduler) -> None:
    sweep, decays = done, set()
    for account in sweep.ledger.accounts.values():
        config = ResolvedConfig(**account.settings["config"])
        alone = TrainConfig(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            learning_rate=config.learning_rate,
            max_iters=config.max_iters,
        )
        num_windows = account.settings["unique_tokens"] // config.context_size
        resolved = resolve(alone, load_tokenizer("builtin").vocab_size())
        expected = for_epochs(resolved, alone, num_windows, config.global_batch)
        for name in ("weight_decay", "warmup_iters", "min_lr", "lr_decay_iters"):
            assert getattr(config, name) == getattr(expected, name), name
        decays.add(config.weight_decay)
    assert len(decays) > 2, "rates and lengths differ, so do these"
    # To the fit it is no setting that was varied.
    assert {trial.weight_decay for trial in trial_rows(sweep.ledger)} == {None}
    assert not sweep.make_fit().values and "weight_decay" not in sweep.make_fit().decision


def test_a_final_run_of_another_length_derives_it_again(done: Scheduler) -> None:
    account = final_of(done)
    config = ResolvedConfig(**account.settings["config"])
    shorter = with_length(config, 30, account.settings)
    assert (shorter.max_iters, shorter.lr_decay_iters, shorter.warmup_iters) == (30, 30, 1)
    epochs = 30 * config.global_batch * config.context_size / account.settings["unique_tokens"]
    assert 1 < epochs < 2, "this one is longer than an epoch"
    expected = 1.3 / (30 * config.learning_rate / epochs)  # epochs are short
    assert shorter.weight_decay == pytest.approx(expected, rel=0.05)
    other = dataclasses.replace(config, weight_decay=0.07)
    assert with_length(other, 30, account.settings).weight_decay == shorter.weight_decay
    given = {**account.settings, "derives_weight_decay": False}
    assert with_length(other, 30, given).weight_decay == 0.07


def test_the_best_config_has_what_the_final_run_had(done: Scheduler) -> None:
    account = final_of(done)
    account.result["max_iters"] = 40  # its length was corrected
    write_results(done)
    best = yaml.safe_load((done.folder / BEST).read_text())
    ran = with_length(ResolvedConfig(**account.settings["config"]), 40, account.settings)
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
    store = TokenStore.open(sweep.base.data_dir, verify=False)
    assert sweep.validation_windows == len(Windows(store, "val", 32))


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
        UserError,
        match=r"begun with --weight-decay 0\.1, not with no --weight-decay; take that again, another",
    ):
        refuse_other_sweep(was, now, "sweep")
    refuse_other_sweep(was, terms(weight_decay=0.1), "sweep")
    with pytest.raises(UserError, match="begun with --mask-illegal, not with --no-mask-illegal"):
        refuse_other_sweep(was, terms(weight_decay=0.1, mask_illegal=False), "sweep")
    del was.sweep["shifted_keys"]
    with pytest.raises(UserError, match="begun with --no-shifted-keys, not with --shifted-keys"):
        refuse_other_sweep(was, terms(weight_decay=0.1), "sweep")
    refuse_other_sweep(was, terms(weight_decay=0.1, shifted_keys=False), "sweep")


def test_varied_settings_that_a_sweep_decides_are_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, why in DECIDED.items():
        assert main(["tune", "--budget-flops", "1e12", "--vary", f"{name}=1,2"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: vary: {name} {why}; vary takes dropout, ") and error.count("\n") == 1
