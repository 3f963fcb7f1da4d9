"""Checkpoints from somebody who means harm: nothing is run, nothing large is taken, one line says what is wrong.

Their manifests are right, as an attacker would make them.
"""

import hashlib
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat_tct.generation.generate import load
from nanochat_tct.model import checkpoint
from nanochat_tct.model.checkpoint import CheckpointError, load_checkpoint, load_model
from tests.support.workers import small_config, small_store, train_alone


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = small_config(
        small_store(folder / "store"), folder, max_iters=2, save_interval=2, eval_interval=2
    )
    train_alone(config)
    return checkpoint.step_directory(Path(config.run_place), 2)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def sign(path: Path) -> None:
    """Makes the manifest right again."""
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    for name, expected in manifest["files"].items():
        content = (path / name).read_bytes()
        expected.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))


def header(length: int, text: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text


OVERLAPPING = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}).encode()
HUGE = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4,
        header(1 << 60),
        header((1 << 63) + 5, b"{}"),
        header(100 << 20, b"{}"),
        header(2, b"[]"),
        header(len(OVERLAPPING), OVERLAPPING),
        header(len(HUGE), HUGE) + b"\0" * 16,
        pickle.dumps({"a": 1}),
    ],
)
def test_weights_that_are_no_safetensors(copy: Path, content: bytes) -> None:
    (copy / checkpoint.WEIGHTS).write_bytes(content)
    sign(copy)
    with pytest.raises(CheckpointError, match=r"model.safetensors: not a safetensors file"):
        load_model(copy)


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_an_optimizer_state_runs_nothing(copy: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for evil in (Evil(trace), {"optimizer": Evil(trace), "random": []}):
        torch.save(evil, copy / checkpoint.OPTIMIZER)
        sign(copy)
        with pytest.raises(CheckpointError, match=r"optimizer.pt: not the state of an optimizer"):
            load_checkpoint(copy).optimizer_state()
        (copy / checkpoint.OPTIMIZER).write_bytes(pickle.dumps(evil))
        sign(copy)
        with pytest.raises(CheckpointError, match=r"optimizer.pt: not the state of an optimizer"):
            load_checkpoint(copy).optimizer_state()
    assert not trace.exists()
    pickle.loads((copy / checkpoint.OPTIMIZER).read_bytes())
    assert trace.exists(), "it would have done harm"


@pytest.mark.parametrize("value", [1, [], {"optimizer": 1, "random": []}, {"random": {}}])
def test_an_optimizer_state_of_other_types(copy: Path, value: Any) -> None:
    torch.save(value, copy / checkpoint.OPTIMIZER)
    sign(copy)
    with pytest.raises(CheckpointError, match=r"optimizer.pt: not the state of an optimizer"):
        load_checkpoint(copy).optimizer_state()


def change(*keys: str, value: Any) -> Callable[[Any], Any]:
    def apply(state: Any) -> Any:
        place = state
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return state

    return apply


@pytest.mark.parametrize(
    "harm",
    [
        lambda state: [],
        lambda state: None,
        change("step", value="2"),
        change("model_config", value=[]),
        change("model_config", "n_layer", value=10**9),
        change("model_config", "n_embd", value="16"),
        change("model_config", "vocab_size", value=-1),
        change("model_config", "unknown", value=1),
        change("tokenizer", value="builtin"),
        change("tokenizer", "fingerprint", value=7),
    ],
)
def test_a_state_of_other_types_and_sizes(copy: Path, harm: Callable[[Any], Any]) -> None:
    state = harm(json.loads((copy / checkpoint.STATE).read_text()))
    (copy / checkpoint.STATE).write_text(json.dumps(state))
    sign(copy)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_model(copy)


@pytest.mark.parametrize("text", ["[" * 100_000, "\x00", "{"])
def test_a_state_that_is_no_json(copy: Path, text: str) -> None:
    (copy / checkpoint.STATE).write_text(text)
    sign(copy)
    with pytest.raises(CheckpointError, match=r"state\.json: not the state of a run"):
        load_checkpoint(copy)


def test_a_tokenizer_is_never_a_file_that_the_checkpoint_names_to_be_run(copy: Path, tmp_path: Path) -> None:
    """The name may be that of a vocabulary file, which is JSON; a Python file is refused, not imported."""
    trace = tmp_path / "trace"
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(trace)!r}, 'w')")
    state = change("tokenizer", "name", value=str(evil))(json.loads((copy / checkpoint.STATE).read_text()))
    (copy / checkpoint.STATE).write_text(json.dumps(state))
    sign(copy)
    with pytest.raises(ValueError, match=r"evil\.py"):
        load(str(copy), None, "cpu")
    assert not trace.exists()


def test_a_manifest_names_no_other_files(copy: Path, tmp_path: Path) -> None:
    """What it says of other names is not looked at; what it must say, it must say of these."""
    manifest = json.loads((copy / checkpoint.MANIFEST).read_text())
    manifest["files"]["../../escaped"] = {"bytes": 0, "sha256": ""}
    (copy / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    assert load_checkpoint(copy).step == 2
    for wrong in ([], {"files": []}, {"files": {}, "format": 1}, {**manifest, "files": {"state.json": 3}}):
        (copy / checkpoint.MANIFEST).write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match="missing or damaged"):
            load_checkpoint(copy)
