"""Runs whose checkpoints are in object storage: saved, resumed on an empty machine, whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.data.store import upload_store
from nanochat_tct.errors import UserError
from nanochat_tct.generation.generate import load
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.storage.object_storage import local_path
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.plan import make_plan
from tests.support.object_storage import BUCKET, NowAndThen, ObjectStorage
from tests.support.workers import changed, small_config, small_store, train_alone

RUN = f"s3://{BUCKET}/checkpoints/run"
Config = Callable[..., ResolvedConfig]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def config(storage: ObjectStorage, made: Path, tmp_path: Path) -> Config:
    """Data and checkpoints are in the bucket."""
    upload_store(made, f"s3://{BUCKET}/data")

    def make(**changes: Any) -> ResolvedConfig:
        places = {"data_dir": f"s3://{BUCKET}/data", "checkpoint_dir": f"s3://{BUCKET}/checkpoints"}
        return make_plan(changed(small_config(made, tmp_path, **changes), **places)).config

    return make


def forget(tmp_path: Path) -> None:
    """This machine is replaced by an empty one."""
    shutil.rmtree(tmp_path / "cache")


def manifests(storage: ObjectStorage) -> set[str]:
    return {key for key in storage.objects("checkpoints/") if key.endswith(checkpoint.MANIFEST)}


def steps_there(storage: ObjectStorage) -> set[int]:
    return {int(key.split("iter_")[1].split("/")[0]) for key in manifests(storage)}


def test_resumed_on_an_empty_machine_as_if_nothing_had_been(
    storage: ObjectStorage, config: Config, made: Path, tmp_path: Path
) -> None:
    """Weights equal, bit for bit, those of a run that was never stopped and knew no bucket."""
    undisturbed = small_config(made, tmp_path / "undisturbed")
    train_alone(undisturbed)
    whole = checkpoint.find_checkpoint(undisturbed.run_place)

    # lr_decay_iters stays that of the whole run, so that this is its beginning
    train_alone(config(max_iters=8, lr_decay_iters=12, warmup_iters=undisturbed.warmup_iters))
    assert 8 in steps_there(storage)
    forget(tmp_path)
    lines: list[str] = []
    result = train_alone(config(), lines)
    assert not any(line.startswith("iter 8 ") for line in lines), lines
    assert any(line.startswith("iter 9 ") for line in lines), lines
    assert result["step"] == 12
    forget(tmp_path)
    copy = remote_run.pull(RUN)
    latest = checkpoint.latest_checkpoint(copy)
    assert latest is not None
    resumed = checkpoint.load_checkpoint(latest)
    expected = checkpoint.load_checkpoint(
        checkpoint.step_directory(Path(undisturbed.run_place), 12)
    ).weights()
    assert whole.step <= 12
    for name, tensor in resumed.weights().items():
        assert tensor.equal(expected[name]), name
    assert [entry["iter"] for entry in read_metrics(copy) if entry["kind"] == "train"][-1] >= 8


def test_the_bucket_keeps_what_a_folder_would(storage: ObjectStorage, config: Config) -> None:
    train_alone(config(keep_checkpoints=1, save_interval=3))
    here = {int(path.name[5:]) for path in checkpoint.list_checkpoints(local_path(RUN))}
    assert steps_there(storage) == here
    assert max(here) == 12
    assert "checkpoints/run/best.json" in storage.objects()
    assert "checkpoints/run/metrics.jsonl" in storage.objects()
    names = {key.split("/")[-1] for key in storage.objects("checkpoints/run/iter_") if not key.endswith("/")}
    assert names == {*checkpoint.PARTS, checkpoint.MANIFEST}


def test_a_bucket_that_fails_now_and_then(storage: ObjectStorage, config: Config, tmp_path: Path) -> None:
    storage.refuse = failing = NowAndThen(0.15)
    train_alone(config(max_iters=8))
    forget(tmp_path)
    train_alone(config())
    assert failing.failed > 0
    assert 12 in steps_there(storage)


def test_a_bucket_that_refuses_midway_ends_the_run_with_one_line(
    storage: ObjectStorage, config: Config, tmp_path: Path
) -> None:
    made = config()
    storage.refuse = lambda method, path: 403 if method in ("PUT", "POST") else None
    with pytest.raises((UserError, ValueError), match="refused"):
        train_alone(made)
    assert steps_there(storage) == set()
    storage.refuse = lambda method, path: None
    forget(tmp_path)
    assert train_alone(made)["step"] == 12


def test_a_push_that_is_cut_off_is_no_checkpoint(
    storage: ObjectStorage, config: Config, tmp_path: Path
) -> None:
    made = config(max_iters=4)
    train_alone(made)
    assert steps_there(storage) == {4}
    storage.refuse = lambda method, path: (
        403 if method in ("PUT", "POST") and "iter_00000008/state.json" in path else None
    )
    with pytest.raises((UserError, ValueError), match="refused"):
        train_alone(changed(made, max_iters=8))
    storage.refuse = lambda method, path: None
    assert steps_there(storage) <= {4, 6}, "6 where it was the best"
    assert any("iter_00000008" in key for key in storage.objects("checkpoints/"))
    forget(tmp_path)
    latest = checkpoint.latest_checkpoint(remote_run.pull(RUN))
    assert latest is not None
    assert int(latest.name[5:]) == max(steps_there(storage))


def test_a_damaged_one_is_passed_over(
    storage: ObjectStorage, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_alone(config(keep_checkpoints=3))
    steps = sorted(steps_there(storage))
    key = f"checkpoints/run/iter_{steps[-1]:08d}/{checkpoint.WEIGHTS}"
    storage.client().put_object(Bucket=BUCKET, Key=key, Body=b"damaged")
    forget(tmp_path)
    latest = checkpoint.latest_checkpoint(remote_run.pull(RUN))
    assert latest is not None
    assert int(latest.name[5:]) == steps[-2]
    assert "damaged checkpoint passed over" in capsys.readouterr().err


def test_a_model_from_the_bucket(storage: ObjectStorage, config: Config, tmp_path: Path) -> None:
    """By the run or by the checkpoint."""
    train_alone(config())
    best = checkpoint.find_checkpoint(local_path(RUN)).step
    forget(tmp_path)
    for place in (RUN, f"{RUN}/iter_{best:08d}"):
        _, _, state = load(place, None, "cpu")
        assert state["step"] == best
    with pytest.raises(UserError, match="no usable checkpoint"):
        load(f"s3://{BUCKET}/checkpoints/none", None, "cpu")


def test_only_files_of_known_names_are_taken(storage: ObjectStorage, config: Config, tmp_path: Path) -> None:
    """Whatever else somebody put there stays there; so do names that would lead out of the copy."""
    train_alone(config(max_iters=4))
    client = storage.client()
    for name in ("evil.py", "iter_00000004/evil.pkl", "sitecustomize.py"):
        client.put_object(Bucket=BUCKET, Key=f"checkpoints/run/{name}", Body=b"x")
    forget(tmp_path)
    copy = remote_run.pull(RUN)
    known = {*checkpoint.PARTS, *remote_run.NOTES, checkpoint.MANIFEST}
    assert {path.name for path in copy.rglob("*") if path.is_file()} <= known
