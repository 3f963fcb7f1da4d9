"""The optimizer's groups and the learning rate's way."""

from pathlib import Path

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.model.gpt import GPT
from nanochat_tct.training.config import TrainConfig, default_run_name, resolve
from nanochat_tct.training.optimizer import learning_rate, make_optimizer


def test_learning_rate_warms_up_and_decays() -> None:
    config = resolve(
        TrainConfig(max_iters=100, warmup_iters=10, lr_decay_iters=90, learning_rate=1.0, min_lr=0.1), 8192
    )
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == pytest.approx(1.0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[50] == pytest.approx(0.55) and rates[90:] == [0.1] * 10


def test_only_matrices_decay() -> None:
    config = resolve(TrainConfig(), 8192)
    groups = make_optimizer(GPT(config.model()), config).param_groups
    assert all((group["weight_decay"] > 0) == all(p.dim() >= 2 for p in group["params"]) for group in groups)
    assert all(group["fused"] for group in groups)


def test_what_is_left_open_follows_from_the_rest() -> None:
    config = resolve(TrainConfig(preset="small", n_layer=3, max_iters=1000), 8192)
    assert (config.n_embd, config.n_layer, config.vocab_size) == (512, 3, 8192)
    assert config.lr_decay_iters == 1000 and config.warmup_iters == 50
    assert config.min_lr == pytest.approx(config.learning_rate / 10)
    assert config.precision == "fp32" and config.run_name is not None and config.run_name.startswith("small-")


def test_a_run_is_named_after_what_changes_its_numbers() -> None:
    assert default_run_name(TrainConfig()) == "demo"
    assert default_run_name(TrainConfig(max_iters=7, wandb="off", log_interval=3)) == "demo"
    names = [default_run_name(TrainConfig(learning_rate=rate)) for rate in (0.1, 0.2, 0.1)]
    assert names[0] == names[2] != names[1]


def test_impossible_settings_are_one_line(tmp_path: Path) -> None:
    for settings, message in (
        ({"max_iters": 0}, "--max-iters"),
        ({"context_size": 0}, "--context-size is 0"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"beta2": 1.0}, "--beta2"),
        ({"run_name": "a/b"}, "--run-name"),
        ({"run_name": ".."}, "--run-name"),
    ):
        with pytest.raises(UserError, match=message):
            TrainConfig(**settings)  # type: ignore[arg-type]
    for config, message in (
        (TrainConfig(vocab_size=100), "--vocab-size"),
        (TrainConfig(n_head=5), "n_head"),
        (TrainConfig(warmup_iters=50, lr_decay_iters=10), "--warmup-iters"),
    ):
        with pytest.raises(UserError, match=message):
            resolve(config, 8192)
