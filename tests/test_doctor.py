import platform
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct import doctor
from nanochat_tct.doctor import CHECKS, DoctorConfig, Skipped, run_check
from nanochat_tct.errors import UserError
from tests.support.commands import run_cli

pytestmark = pytest.mark.processes
CONFIG = DoctorConfig()


@pytest.mark.parametrize("flags", [["--no-train"], pytest.param([], marks=pytest.mark.slow)])
def test_this_machine_is_well(flags: list[str], ray_session: Any, tmp_path: Path) -> None:
    """Every check for real: Ray starts and a model trains, or Ray is joined and none does."""
    address = ray_session.get_runtime_context().gcs_address if flags else ""
    result = run_cli("doctor", *flags, cwd=tmp_path, timeout=290, env={"RAY_ADDRESS": address})
    lines = {line[6:21].strip(): line.split()[0] for line in result.stdout.splitlines()[:-1]}
    assert list(lines) == list(CHECKS)
    assert "FAIL" not in lines.values(), result.stdout
    skipped = {name for name, status in lines.items() if status == "skip"}
    may_be_missing = {"glibc", "shared memory", "tokenizer wheel", "tiktoken", "store"}
    if flags:
        may_be_missing.add("training")
    assert skipped <= may_be_missing, result.stdout
    assert result.stdout.endswith("all is well\n")
    assert result.code == 0
    assert list(tmp_path.iterdir()) == [], "doctor leaves nothing behind"


def test_a_failure_is_told_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {name: check for name, check in CHECKS.items() if name not in ("torch", "Ray", "training")}
    monkeypatch.setattr(doctor, "CHECKS", quick)
    missing = tmp_path / "none"
    assert doctor.doctor(DoctorConfig(str(missing), f"{missing}.json")) == 1
    lines = {line[6:21].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["store"].startswith("FAIL")
    assert str(missing) in lines["store"]
    assert lines["tokenizer"].startswith("FAIL")
    assert f"{missing}.json" in lines["tokenizer"]
    assert lines["W&B"].startswith("ok")


def test_what_a_check_raises() -> None:
    def user_error(config: DoctorConfig) -> str:
        raise UserError("too old; get a new one")

    def skipped(config: DoctorConfig) -> str:
        raise Skipped("nothing here")

    def broken(config: DoctorConfig) -> str:
        raise ImportError("libcudart.so.12:\n  not found")

    assert run_check(user_error, CONFIG) == ("FAIL", "too old; get a new one")
    assert run_check(skipped, CONFIG) == ("skip", "nothing here")
    assert run_check(broken, CONFIG) == ("FAIL", "ImportError: libcudart.so.12: not found")


def test_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    status, text = run_check(doctor.check_python, CONFIG)
    assert status == "FAIL"
    assert "install Python 3.11, 3.12 or 3.13" in text


def test_old_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.17"))
    assert run_check(doctor.check_glibc, CONFIG)[0] == "FAIL"
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert run_check(doctor.check_glibc, CONFIG)[0] == "skip"


def test_little_space(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(2**34, 2**34 - 2**26, 2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "0.1 GiB free in" in run_check(doctor.check_disk, CONFIG)[1]
    status, text = run_check(doctor.check_shared_memory, CONFIG)
    if Path("/dev/shm").is_dir():
        assert status == "FAIL"
        assert "64 MiB free in /dev/shm" in text
