"""Files that are whole or absent, and locks that end with their holder."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import (
    PARTIAL,
    clear_partial,
    commit_folder,
    find_damage,
    locked,
    partial_path,
    record_of,
    remove_folder,
    replacing,
    write_atomic,
)

HOLD = """
import sys, time
from pathlib import Path
from nanochat_tct.storage.files import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Another process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_holds_between_processes_and_ends_with_a_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as process:
        with pytest.raises(UserError, match=r"^in use$"), locked(path, "in use"):
            pass
        begin = time.monotonic()
        with pytest.raises(UserError, match="in use"), locked(path, "in use", wait_seconds=0.3):
            pass
        assert time.monotonic() - begin >= 0.3
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(path, "in use"):
            pass


def test_who_waits_for_a_lock_gets_it_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as process:
        threading.Timer(0.3, process.kill).start()
        with locked(path, "in use", wait_seconds=-1):
            assert process.wait() == -signal.SIGKILL


def test_a_lock_holds_between_threads_and_ends_with_an_error(tmp_path: Path) -> None:
    def take() -> None:
        try:
            with locked(tmp_path / "lock", "in use"):
                taken.append(True)
        except UserError:
            taken.append(False)

    taken: list[bool] = []
    with pytest.raises(KeyError), locked(tmp_path / "lock", "in use"):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        raise KeyError
    take()
    assert taken == [False, True]


def test_a_lock_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file" / "lock", "in use"):
        pass


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "before")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "before"
        raise KeyError
    assert path.read_text() == "before"
    write_atomic(path, b"after", sync=False)
    assert path.read_bytes() == b"after"
    assert [each.name for each in tmp_path.iterdir()] == ["file"], "nothing is left beside it"


def test_folders_are_committed_replaced_and_removed_as_a_whole(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for content in ("first", "second"):
        partial = partial_path(final)
        partial.mkdir()
        (partial / "file").write_text(content)
        commit_folder(partial, final)
        assert (final / "file").read_text() == content
    assert [each.name for each in tmp_path.iterdir()] == ["final"]
    remove_folder(final)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    partial_path(tmp_path / "folder").mkdir()
    partial_path(tmp_path / "file").write_text("half")
    (tmp_path / "file").write_text("whole")
    assert all(each.name.startswith(PARTIAL) for each in tmp_path.iterdir() if each.name != "file")
    clear_partial(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    record = record_of(path)
    assert record.size == 7 and find_damage(tmp_path, record) is None
    path.write_bytes(b"CONTENT")
    assert "SHA-256 differs" in (find_damage(tmp_path, record) or "")
    assert find_damage(tmp_path, record, verify=False) is None
    path.write_bytes(b"more content")
    assert "bytes instead of 7" in (find_damage(tmp_path, record, verify=False) or "")
    path.unlink()
    assert find_damage(tmp_path, record) == "missing"
