"""The settings of a run: what is refused, what follows from the rest, how a run is named."""

import typing
from typing import Any

import pytest

from nanochat_tct.config import to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.training.config import (
    ResolvedConfig,
    TrainConfig,
    default_run_name,
    for_epochs,
    refuse_other_run,
    resolve,
)


@pytest.mark.parametrize("given", [TrainConfig(), TrainConfig(train_samples=3, min_workers=1, stride=5)])
def test_a_resolved_config_leaves_nothing_open(given: TrainConfig) -> None:
    """Of the settings that may be None before, only those are that have None as a value."""
    resolved = resolve(given, 8192)
    hints = typing.get_type_hints(ResolvedConfig)
    optional = {name for name, hint in hints.items() if type(None) in typing.get_args(hint)}
    assert optional == {"train_samples", "min_workers", "stride"}
    assert {name for name, value in vars(resolved).items() if value is None} <= optional
    assert list(to_dict(resolved)) == list(to_dict(given)), "files of the one are files of the other"


def test_a_resolved_config_can_be_opened_again() -> None:
    resolved = resolve(TrainConfig(max_iters=100, learning_rate=0.01), 8192)
    longer = resolve(resolved.reopened(max_iters=1000, lr_decay_iters=None, warmup_iters=None), 8192)
    assert (longer.lr_decay_iters, longer.warmup_iters, longer.learning_rate) == (1000, 50, 0.01)


def test_what_is_left_open_follows_from_the_rest() -> None:
    config = resolve(TrainConfig(preset="small", n_layer=3, max_iters=1000), 8192)
    assert (config.n_embd, config.n_layer, config.vocab_size) == (512, 3, 8192)
    assert config.lr_decay_iters == 1000 and config.warmup_iters == 50
    assert config.min_lr == pytest.approx(config.learning_rate / 10)
    assert config.weight_decay == 0.94  # 1.3 / sqrt(0.0019 * 1000)
    for changes, expected in (
        ({"max_iters": 30}, 2.0),
        ({"max_iters": 10**5}, 0.094),
        ({"optimizer": "adamw"}, 0.1),
        ({"train_samples": 9}, 0.1),
    ):
        assert resolve(TrainConfig(preset="small", **changes), 8192).weight_decay == expected
    assert resolve(TrainConfig(weight_decay=0.3), 8192).weight_decay == 0.3
    assert config.precision == "fp32" and config.run_name.startswith("small-")


def test_weight_decay_follows_from_the_length_of_an_epoch() -> None:
    def decay(num_windows: int, **changes: Any) -> float:
        given = TrainConfig(num_workers=1, **{"max_iters": 1000} | changes)  # 8 windows an iter
        return for_epochs(resolve(given, 8192), given, num_windows, 8).weight_decay

    assert decay(10**6) == decay(8000) == 0.41  # 1.3 / sqrt(0.01 * 1000): an epoch at most
    assert decay(800) == decay(800, max_iters=100) == 1.3  # epochs of 100 iters, ten and one
    assert decay(400) == 2.6  # of fifty: 1.3 / (0.01 * 50)
    assert decay(80) == decay(8) == 6.5  # of ten, and one: 0.64 / (0.01 * sqrt(96)) at the most
    assert decay(800, max_iters=10, learning_rate=0.001) == 2.0
    assert decay(80, max_iters=20) == 4.0 and decay(79, max_iters=10) == 2.0  # at most 2 for each epoch
    assert decay(800, lr_decay_iters=100) == 1.3  # an epoch, whatever follows at the lowest rate
    assert decay(80, weight_decay=0.3) == 0.3
    assert decay(80, optimizer="adamw") == decay(80, train_samples=80) == 0.1
    assert decay(80, learning_rate=0.0) == 0.1


def test_a_run_of_an_earlier_version_goes_on_with_its_model() -> None:
    config, old = (resolve(TrainConfig(shifted_keys=shifted), 8192) for shifted in (True, False))
    state = {
        "step": 1,
        "config": {name: value for name, value in to_dict(old).items() if name != "shifted_keys"},
        "global_batch": config.global_batch,
        "tokenizer": {"name": "builtin", "fingerprint": "t"},
        "data": {"fingerprint": "d"},
    }
    refuse_other_run(old, "d", "t", state)
    with pytest.raises(UserError, match="was started with shifted_keys False, not True"):
        refuse_other_run(config, "d", "t", state)


def test_a_run_is_named_after_what_changes_its_numbers() -> None:
    assert default_run_name(TrainConfig()) == "demo"
    assert default_run_name(TrainConfig(max_iters=7, wandb="off", log_interval=3)) == "demo"
    names = [default_run_name(TrainConfig(learning_rate=rate)) for rate in (0.1, 0.2, 0.1)]
    assert names[0] == names[2] != names[1]
