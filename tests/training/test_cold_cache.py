"""Training from a store in object storage of which this machine has nothing yet."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat_tct.data.store import MANIFEST, TOKENS, TokenStore, upload_store
from nanochat_tct.errors import UserError
from nanochat_tct.model.checkpoint import find_checkpoint, load_checkpoint
from nanochat_tct.storage import growing_copy, object_storage
from nanochat_tct.storage.object_storage import local_path
from nanochat_tct.tracking.tracker import read_metrics
from tests.support.object_storage import BUCKET, ObjectStorage
from tests.support.workers import SMALL, small_config, train_alone

STORE = f"s3://{BUCKET}/store"
PIECE = 256
FEW = 20  # windows of training


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that the store has many."""
    monkeypatch.setattr(growing_copy, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(object_storage, "RANGE_BYTES", PIECE)


def unneeded_piece(data_dir: Path) -> int:
    """A piece of the tokens without any of the validation split, or of the first FEW windows of the training split."""
    needed, num_training = set(), 0
    for row in TokenStore.open(data_dir).documents.to_pylist():
        if row["split"] == "val" or num_training < FEW * SMALL["context_size"]:
            first, last = row["start"], row["start"] + row["length"] - 1
            needed |= set(range(2 * first // PIECE, 2 * last // PIECE + 1))
        num_training += row["length"] * (row["split"] == "train")
    return max(set(range((data_dir / TOKENS).stat().st_size // PIECE)) - needed)


@pytest.mark.usefixtures("pieces")
def test_the_first_step_comes_before_the_last_byte(
    storage: ObjectStorage, data_dir: Path, tmp_path: Path
) -> None:
    """A request for tokens that the first steps do not need is answered after them. They see the windows
    that they would see of a local store."""
    upload_store(data_dir, STORE)
    held = f"bytes={PIECE * unneeded_piece(data_dir)}-"
    is_copied = local_path(STORE) / MANIFEST
    go_on, found = threading.Event(), []

    def hold_back(path: str, byte_range: str) -> None:
        if path.endswith(TOKENS) and byte_range.startswith(held):
            go_on.wait(60)

    def progress(metrics: dict[str, Any]) -> None:
        found.append((metrics["iter"], is_copied.exists()))
        if metrics["iter"] == 3:
            go_on.set()

    storage.before = hold_back
    changes = {"train_samples": FEW}
    train_alone(small_config(STORE, tmp_path / "remote", **changes), progress=progress)
    assert found[:3] == [(1, False), (2, False), (3, False)] and is_copied.exists()
    assert (local_path(STORE) / TOKENS).read_bytes() == (data_dir / TOKENS).read_bytes()
    train_alone(small_config(data_dir, tmp_path / "local", **changes))
    runs = [tmp_path / name / "checkpoints/run" for name in ("remote", "local")]
    remote, local = ([{**each, "time": 0} for each in read_metrics(run)] for run in runs)
    names = ("iter", "loss", "grad_norm", "bits_per_byte")
    assert [[each.get(name) for name in names] for each in remote] == [
        [each.get(name) for name in names] for each in local
    ]
    weights, expected = (load_checkpoint(find_checkpoint(run).path).weights() for run in runs)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("pieces")
def test_a_wrong_byte_ends_the_run_before_its_first_checkpoint(
    storage: ObjectStorage, data_dir: Path, tmp_path: Path
) -> None:
    upload_store(data_dir, STORE)
    content = (data_dir / TOKENS).read_bytes()
    wrong = content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]
    storage.client().put_object(Bucket=BUCKET, Key=f"store/{TOKENS}", Body=wrong)
    config = small_config(STORE, tmp_path)
    with pytest.raises(UserError, match=r"s3://bucket/store: tokens.bin is not what the manifest says"):
        train_alone(config)
    assert not list((tmp_path / "checkpoints/run").glob("iter_*"))
    assert not local_path(STORE).exists()


@pytest.mark.usefixtures("pieces")
def test_a_copy_that_was_begun_goes_on(storage: ObjectStorage, data_dir: Path) -> None:
    """Also by another process: the pieces that are there are not fetched again."""
    upload_store(data_dir, STORE)
    begun = TokenStore.open(STORE, is_whole=False)
    begun.need(torch.arange(0, len(begun.tokens) // 2).numpy())
    storage.requests.clear()
    store = TokenStore.open(STORE)
    assert store.copy is None and store.tokens.tolist() == TokenStore.open(data_dir).tokens.tolist()
    size = (data_dir / TOKENS).stat().st_size
    fetched = [path for method, path in storage.requests if method == "GET" and path.endswith(TOKENS)]
    assert 0 < len(fetched) <= size // PIECE // 2 + 1
    assert begun.token_range(0, 10).tolist() == store.tokens[:10].tolist()
    begun.complete().result(60)
    assert begun.copy is None
