"""Checkpoints: whole or not at all, verified, the last few and the best kept."""

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat_tct.errors import UserError
from nanochat_tct.model.checkpoint import (
    CheckpointError,
    check_tokenizer,
    exclusive,
    find_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_model,
    read_best,
    save_checkpoint,
    step_directory,
    verify_checkpoint,
)
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.gpt import GPT
from tests.support.models import untrained_model

SHAPE = GPTConfig(vocab_size=64, context_size=8, n_layer=1, n_head=1, n_embd=8)
FILES = ("model.safetensors", "optimizer.pt", "state.json", "manifest.json")


def save(run_dir: Path, step: int, keep: int = 2, best: dict[str, Any] | None = None) -> GPT:
    model = GPT(SHAPE, seed=step)
    optimizer_state = {
        "optimizer": {"state": {"w": {"exp_avg": torch.full((3,), float(step))}}},
        "random": [],
    }
    state = {
        "step": step,
        "best": best,
        "model_config": vars(SHAPE),
        "tokenizer": {"name": "builtin", "fingerprint": "ab" * 32},
    }
    save_checkpoint(run_dir, model.state_dict(), optimizer_state, state, keep)
    return model


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    model = save(tmp_path, 5)
    checkpoint = load_checkpoint(tmp_path / "iter_00000005")
    assert checkpoint.step == 5
    weights = checkpoint.weights()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert checkpoint.optimizer_state()["optimizer"]["state"]["w"]["exp_avg"].tolist() == [5.0] * 3
    loaded, state = load_model(tmp_path)
    assert not loaded.training and state["step"] == 5 and state["path"].endswith("iter_00000005")
    assert torch.equal(loaded.head.weight, model.head.weight)
    modes = {stat.S_IMODE(os.stat(checkpoint.path / name).st_mode) for name in FILES}
    assert len(modes) == 1  # whoever may read one may read all


def test_a_model_of_an_earlier_version_computes_what_it_did(tmp_path: Path) -> None:
    shape = GPTConfig(vocab_size=64, context_size=8, n_layer=1, n_head=2, n_embd=8, shifted_keys=False)
    model = untrained_model(shape)
    state = {"step": 1, "best": None, "tokenizer": {"name": "builtin", "fingerprint": "ab" * 32}}
    state["model_config"] = {name: value for name, value in vars(shape).items() if name != "shifted_keys"}
    save_checkpoint(tmp_path, model.state_dict(), {"optimizer": {}, "random": []}, state, 1)
    tokens = torch.tensor([[64, 5, 6, 5]])
    assert torch.equal(load_model(tmp_path)[0](tokens), model(tokens))
    now = GPT(dataclasses.replace(shape, shifted_keys=True))
    now.load_state_dict(model.state_dict())
    assert not torch.equal(now(tokens), model(tokens))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "longer"])
def test_damage_is_detected_and_the_previous_one_taken(
    tmp_path: Path, name: str, damage: str, capsys: Any
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = tmp_path / "iter_00000002" / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "longer":
        file.write_bytes(content + b"\0")
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="iter_00000002"):
        verify_checkpoint(tmp_path / "iter_00000002")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_00000001"
    assert "iter_00000002" in capsys.readouterr().err
    assert find_checkpoint(tmp_path).step == 1
    with pytest.raises(UserError, match="iter_00000002"):
        load_model(tmp_path / "iter_00000002")


def test_the_last_few_and_the_best_stay(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, keep=2, best={"step": min(step, 3), "bits_per_byte": 1.0})
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["3", "6", "7"]
    assert read_best(tmp_path) == {"step": 3, "bits_per_byte": 1.0}
    assert find_checkpoint(tmp_path).step == 3
    assert latest_checkpoint(tmp_path) == step_directory(tmp_path, 7)


def test_a_damaged_best_gives_way_to_the_latest(tmp_path: Path, capsys: Any) -> None:
    save(tmp_path, 1, best={"step": 1, "bits_per_byte": 1.0})
    save(tmp_path, 2, best={"step": 1, "bits_per_byte": 1.0})
    (tmp_path / "iter_00000001" / "model.safetensors").write_bytes(b"")
    assert find_checkpoint(tmp_path).step == 2
    assert "best checkpoint cannot be used" in capsys.readouterr().err
    (tmp_path / "best.json").write_text("{")
    assert find_checkpoint(tmp_path).step == 2


def test_a_half_written_one_is_never_seen(tmp_path: Path) -> None:
    save(tmp_path, 1)
    partial = tmp_path / ".partial-iter_00000002-abc"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_00000001"
    save(tmp_path, 3)
    assert not partial.exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "iter_00000001" / "state.json").write_text("damaged")
    save(tmp_path, 1)
    verify_checkpoint(tmp_path / "iter_00000001")
    assert not list(tmp_path.glob(".partial*"))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no usable checkpoint"):
        load_model(tmp_path)
    save(tmp_path / "one", 1)
    with pytest.raises(UserError, match="runs in it: one"):
        load_model(tmp_path)
    manifest = tmp_path / "one" / "iter_00000001" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_model(tmp_path / "one" / "iter_00000001")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    state = load_checkpoint(tmp_path / "iter_00000001").state
    check_tokenizer(state, "builtin", "ab" * 32)
    with pytest.raises(UserError, match=r"abababababab.*'mine'.*cdcdcdcdcdcd"):
        check_tokenizer(state, "mine", "cd" * 32)


def test_two_jobs_of_one_name_do_not_mix(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(UserError, match="another job"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
