"""Folders in object storage: what fails is tried again, what is refused is one line; stores, whole or not at all."""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from nanochat_tct.data.store import MANIFEST, TOKENS, TokenStore, upload_store
from nanochat_tct.errors import UserError
from nanochat_tct.storage import growing_copy, object_storage
from nanochat_tct.storage.files import FileRecord
from nanochat_tct.storage.object_storage import (
    RemoteFolder,
    absolute,
    join,
    local_path,
    locked_copy,
    shown,
)
from tests.support.commands import Finished, assert_user_error
from tests.support.object_storage import BUCKET, NowAndThen, ObjectStorage
from tests.support.workers import sign, small_store

STORE = f"s3://{BUCKET}/data/store"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("made") / "store")


def test_files_come_and_go(storage: ObjectStorage, tmp_path: Path) -> None:
    folder = RemoteFolder(f"s3://{BUCKET}/a")
    assert folder.files() == {}
    assert folder.read("b/c") is None
    (tmp_path / "file").write_bytes(b"x" * (3 << 20))
    folder.upload(tmp_path / "file", "b/c")
    assert folder.files() == {"b/c": 3 << 20}
    assert folder.read("b/c") == b"x" * (3 << 20)
    with pytest.raises(UserError, match="too much"):
        folder.read("b/c", limit=100)
    folder.delete("b/c")
    folder.delete("b/c")
    assert folder.files() == {}


def test_a_bucket_that_fails_now_and_then(storage: ObjectStorage, made: Path) -> None:
    storage.refuse = failing = NowAndThen(0.2)
    upload_store(made, STORE)
    store = TokenStore.open(STORE)
    assert failing.failed > 0
    assert store.fingerprint == TokenStore.open(made).fingerprint


def test_a_bucket_that_fails_for_good(
    storage: ObjectStorage, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each try is told, and there is an end."""
    monkeypatch.setattr(object_storage, "TRIES", 2)
    upload_store(made, STORE)
    storage.refuse = lambda method, path: 503
    with pytest.raises(UserError, match=r"data/store: failed 2 times \(.*run the same command again later"):
        TokenStore.open(STORE)
    assert "try 1 of 2 failed" in capsys.readouterr().err


def test_a_bucket_that_refuses(storage: ObjectStorage, made: Path) -> None:
    storage.refuse = lambda method, path: 403
    with pytest.raises(UserError, match=r"s3://bucket/data/store: refused \(.*ACCESS_DENIED"):
        upload_store(made, STORE)
    assert len(storage.requests) < 10, "a refusal is not tried again and again"
    storage.refuse = lambda method, path: None
    with pytest.raises(UserError, match=r"s3://nobody/store: refused \(.*NO_SUCH_BUCKET"):
        upload_store(made, "s3://nobody/store")
    with pytest.raises(UserError, match=r"refused .Path cannot start with a separator"):
        TokenStore.open("s3://")


def test_a_refusal_is_one_line_for_the_jobs(
    storage: ObjectStorage, tmp_path: Path, made: Path, run_here: Callable[..., Finished]
) -> None:
    storage.refuse = lambda method, path: 403
    place = f"s3://{BUCKET}/x"
    (tmp_path / "w.json").write_text("{}")
    for job in (
        ["prepare", "--input", tmp_path / "w.json", "--output", place],
        ["train", "--data-dir", made, "--checkpoint-dir", place, "--wandb", "off"],
    ):
        assert_user_error(run_here(*job), f"{place}", "refused", "ACCESS_DENIED")


def test_a_store_is_fetched_once(storage: ObjectStorage, made: Path) -> None:
    """By all processes of a machine: here threads, which the lock keeps apart just so."""
    upload_store(made, STORE)
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(TokenStore.open(STORE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert len({store.folder for store in opened}) == 1
    fetched = [path for method, path in storage.requests if method == "GET" and path.endswith(TOKENS)]
    assert len(fetched) == 1
    assert not list(opened[0].folder.parent.glob(".partial*"))


def test_a_large_file_comes_in_several_ranges_at_once(
    storage: ObjectStorage, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers a request for one only when it has a second one."""
    upload_store(made, STORE)
    quarter = -(-(made / TOKENS).stat().st_size // 4)
    monkeypatch.setattr(object_storage, "RANGE_BYTES", quarter)
    monkeypatch.setattr(growing_copy, "PIECE_BYTES", quarter)
    two, in_pairs = threading.Barrier(2, timeout=30), []

    def answer_two(method: str, path: str) -> None:
        if method == "GET" and path.endswith(TOKENS):
            with suppress(threading.BrokenBarrierError):
                two.wait()
            in_pairs.append(not two.broken)

    storage.refuse = answer_two
    store = TokenStore.open(STORE)
    assert in_pairs == [True] * 4
    assert (store.folder / TOKENS).read_bytes() == (made / TOKENS).read_bytes()


def test_another_store_there_is_fetched_again(storage: ObjectStorage, made: Path, tmp_path: Path) -> None:
    upload_store(made, STORE)
    before = TokenStore.open(STORE)
    old = before.tokens[:5].tolist()
    other = TokenStore.open(small_store(tmp_path / "other", count=30, seed=1))
    upload_store(other.folder, STORE)
    assert TokenStore.open(STORE).fingerprint == other.fingerprint
    assert before.tokens[:5].tolist() == old, "who reads the old one goes on"


def test_an_upload_of_what_is_there_is_none(storage: ObjectStorage, made: Path) -> None:
    upload_store(made, STORE)
    storage.requests.clear()
    upload_store(made, STORE)
    assert {method for method, _ in storage.requests} <= {"HEAD", "GET"}


def test_an_upload_that_is_cut_off_is_no_store(storage: ObjectStorage, made: Path) -> None:
    """Even where an older one was: its manifest goes first."""
    upload_store(made, STORE)
    (manifest_time,) = (size for key, size in storage.objects().items() if key.endswith(MANIFEST))
    assert manifest_time > 0
    storage.client().put_object(Bucket=BUCKET, Key=f"data/store/{MANIFEST}", Body=b"another store's")
    storage.refuse = lambda method, path: 403 if path.endswith("documents.parquet") else None
    with pytest.raises(UserError, match="refused"):
        upload_store(made, STORE)
    storage.refuse = lambda method, path: None
    with pytest.raises(UserError, match="holds no finished token store"):
        TokenStore.open(STORE)


@pytest.mark.parametrize("damage", ["flipped", "short", "long"])
def test_damaged_on_the_way(storage: ObjectStorage, made: Path, damage: str) -> None:
    upload_store(made, STORE)
    content = (made / TOKENS).read_bytes()
    damaged = {
        "flipped": bytes([content[0] ^ 1]) + content[1:],
        "short": content[:-1],
        "long": content + b"x",
    }
    storage.client().put_object(Bucket=BUCKET, Key=f"data/store/{TOKENS}", Body=damaged[damage])
    with pytest.raises(UserError, match=r"tokens.bin is not what the manifest says"):
        TokenStore.open(STORE)
    assert not local_path(STORE).exists()
    assert not list(local_path(STORE).parent.glob(".partial*"))


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/b", ".."])
def test_a_manifest_that_names_other_places(
    storage: ObjectStorage, made: Path, name: str, tmp_path: Path
) -> None:
    hostile = Path(shutil.copytree(made, tmp_path / "hostile"))
    sign(hostile, files={name: {"size": 1, "sha256": "0" * 64}})
    for path in hostile.iterdir():
        storage.client().upload_file(str(path), BUCKET, f"data/store/{path.name}")
    with pytest.raises(UserError, match="names a file outside its folder"):
        TokenStore.open(STORE)
    assert not list(tmp_path.rglob("escaped"))


def test_a_manifest_of_a_gigabyte_is_not_read(
    storage: ObjectStorage, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.client().put_object(Bucket=BUCKET, Key=f"data/store/{MANIFEST}", Body=b" " * ((64 << 20) + 1))
    with pytest.raises(UserError, match="too much for such a file"):
        TokenStore.open(STORE)


def test_waiting_for_the_lock_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "LOCK_SECONDS", 0.2)
    with (
        locked_copy(tmp_path / "copy"),
        pytest.raises(UserError, match="another process has held"),
        locked_copy(tmp_path / "copy"),
    ):
        pass


def test_a_full_disk_is_told_as_such(
    storage: ObjectStorage, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: /dev/full takes nothing."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    upload_store(made, STORE)
    download = RemoteFolder.download

    def download_to_full_disk(remote: RemoteFolder, record: FileRecord, folder: Path) -> None:
        (folder / record.name).symlink_to("/dev/full")
        download(remote, record, folder)

    monkeypatch.setattr(RemoteFolder, "download", download_to_full_disk)
    with pytest.raises(OSError, match="No space left"):
        TokenStore.open(STORE)
    assert not list(local_path(STORE).parent.glob(".partial*"))


def test_paths_and_uris() -> None:
    assert join("a/b", "c") == "a/b/c"
    assert join("s3://a/b/?region=x", "c") == "s3://a/b/c?region=x"
    assert absolute("s3://a/b") == "s3://a/b"
    assert local_path("a/b") == Path("a/b")
    assert shown("s3://key:secret@a/b/?region=x") == "s3://a/b"
    assert local_path("s3://a/b") != local_path("s3://a-b")
