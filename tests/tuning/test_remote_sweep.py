"""Sweeps whose output is in object storage: never over the budget, whichever machine is lost."""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.cli import main
from nanochat_tct.data.store import upload_store
from nanochat_tct.errors import StorageError
from nanochat_tct.storage import object_storage
from nanochat_tct.storage.object_storage import RemoteFolder, local_path
from nanochat_tct.tuning.budget import AHEAD, MICRO, Terms
from nanochat_tct.tuning.ledger import LEDGER, Ledger, OverBudget, restore_ledger
from nanochat_tct.tuning.meter import WORK_DIR
from nanochat_tct.tuning.records import TRIALS, HalfWay, Slots, Trial
from nanochat_tct.tuning.results import Results, read_rows, trial_rows
from tests.support.commands import run_cli
from tests.support.object_storage import BUCKET, NowAndThen, ObjectStorage
from tests.support.workers import small_store
from tests.tuning.sweeps import ForkedProcess, logged_flops, sweep_alone, sweep_arguments

SWEEP = f"s3://{BUCKET}/sweeps/one"
FLOPS = Terms("flops", 100_000, None, {})
DOLLARS = Terms("usd", 2.0, 3600.0, {})  # two seconds of one worker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "FIRST_PAUSE_SECONDS", 0.001)


def begin(folder: Path, terms: Terms = FLOPS, place: str = SWEEP) -> Ledger:
    ledger = Ledger.create(folder, terms)
    ledger.keep_copies(place)
    return ledger


def elsewhere(folder: Path) -> Ledger:
    """The same sweep on another machine, which has `folder`, and the bucket."""
    restore_ledger(SWEEP, folder)
    ledger = Ledger(folder)
    ledger.keep_copies(SWEEP)
    return ledger


def do_something(ledger: Ledger, rng: random.Random, number: int) -> None:
    """One operation of a sweep, if there is money for it."""
    is_time = ledger.terms.unit != "flops"
    running = [name for name, account in ledger.accounts.items() if account.is_open]
    amount = rng.randrange(1, ledger.terms.capacity // rng.choice([20, 200, 2000]))
    what = rng.choice(["open", "work", "work", "work", "work", "settle", "top_up", "idle"])
    try:
        if what == "open" or not running:
            ledger.open(f"t{number}", "sweep", 1, {}, 5 * amount)
        elif what == "work" and is_time:
            ledger.charge_until(rng.choice(running), ledger.clock() + amount / MICRO)
        elif what == "work":
            ledger.charge(rng.choice(running), "train", amount)
        elif what == "idle":
            ledger.charge_idle(amount / MICRO)
        elif what == "settle":
            ledger.settle(rng.choice(running), {})
        else:
            ledger.top_up(rng.choice(running), amount)
    except OverBudget:
        pass


@pytest.mark.parametrize("terms", [FLOPS, DOLLARS])
def test_what_was_spent_is_known_wherever_the_machine_is_lost(
    storage: ObjectStorage, tmp_path: Path, terms: Terms
) -> None:
    """After each operation: what a new machine makes of the bucket claims no less, and hardly more."""
    rng = random.Random(1)
    ledger = begin(tmp_path / "here", terms)
    behind = 0
    for number in range(60):
        do_something(ledger, rng, number)
        content = RemoteFolder(SWEEP).read(LEDGER)
        assert content is not None
        restored = Ledger.restore(tmp_path / "there", content)
        lost = sum(entry.amount for entry in restored.entries if entry.kind == "lost")
        behind += restored.spent - terms.quanta(lost) < ledger.spent
        assert ledger.spent <= restored.spent <= min(terms.capacity, ledger.spent + terms.ahead)
        assert restored.free >= 0
        assert all(account.left >= 0 for account in restored.accounts.values())
        open_here, open_there = (
            {name for name, account in known.accounts.items() if account.is_open}
            for known in (ledger, restored)
        )
        assert open_here == open_there
        restored.close()
    assert behind > 5, "the copy is not renewed at each charge"
    assert ledger.spent > 0.1 * terms.capacity


def test_the_machine_that_wrote_the_copy_loses_nothing(storage: ObjectStorage, tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.open("a", "sweep", 1, {}, 50_000)
    ledger.charge("a", "train", int(AHEAD * FLOPS.budget) - 1)  # the copy does not know
    ledger.close()
    again = elsewhere(tmp_path)
    assert again.spent == int(AHEAD * FLOPS.budget) - 1
    assert [entry.kind for entry in again.entries] == ["train"]


def test_only_the_last_machine_goes_on(storage: ObjectStorage, tmp_path: Path) -> None:
    """One that comes back after another has taken over is refused, and then takes over what that did."""
    one = begin(tmp_path / "one")
    one.open("a", "sweep", 1, {}, 50_000)
    other = elsewhere(tmp_path / "other")
    other.charge("a", "train", 10_000)
    one.charge("a", "train", 100)  # not known to the copy: counted as lost already
    with pytest.raises(StorageError, match="was started again elsewhere"):
        one.charge("a", "train", 10_000)
    with pytest.raises(StorageError, match="was started again elsewhere"):
        one.settle("a", {})
    assert Ledger(tmp_path / "one").accounts["a"].is_open, "nothing was changed"
    back = elsewhere(tmp_path / "one")
    assert back.accounts["a"].charged == 10_000
    assert back.spent == 10_000 + 2 * FLOPS.ahead
    with pytest.raises(StorageError, match="was started again elsewhere"):
        other.settle("a", {})


def test_a_bucket_that_fails_now_and_then(storage: ObjectStorage, tmp_path: Path) -> None:
    storage.refuse = failing = NowAndThen(0.15)
    rng = random.Random(2)
    ledger = begin(tmp_path / "here")
    for number in range(30):
        do_something(ledger, rng, number)
    assert failing.failed > 0
    restored = elsewhere(tmp_path / "there")
    assert ledger.spent <= restored.spent <= ledger.spent + FLOPS.ahead


def test_what_a_bucket_refuses_is_not_done(storage: ObjectStorage, tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.open("a", "sweep", 1, {}, 50_000)
    content = (tmp_path / LEDGER).read_bytes()
    storage.refuse = lambda method, path: 403 if method in ("PUT", "POST") else None
    for operation in (
        lambda: ledger.open("b", "sweep", 1, {}, 10),
        lambda: ledger.charge("a", "train", 10_000),
        lambda: ledger.settle("a", {}),
        lambda: ledger.note(Slots(1)),
    ):
        with pytest.raises(StorageError, match="refused"):
            operation()
        assert (tmp_path / LEDGER).read_bytes() == content
    assert (ledger.spent, list(ledger.accounts), ledger.noted(Slots)) == (0, ["a"], [])
    storage.refuse = lambda method, path: None
    assert ledger.charge("a", "train", 10_000) == 40_000


def test_other_machines_ask_the_one_with_the_file(
    storage: ObjectStorage, ray_session: Any, tmp_path: Path
) -> None:
    import ray

    from nanochat_tct.tuning.ledger_server import connect, serve

    ledger = begin(tmp_path, place=storage.uri("sweeps/one"))
    ledger.open("a", "sweep", 2, {"size": "demo"}, 1000)
    with serve(tmp_path):
        there, other = connect(), connect()
        assert (there.terms, there.accounts) == (ledger.terms, ledger.accounts)
        assert abs(there.clock() - time.time()) < 1
        assert there.charge("a", "train", 600) == 400
        with pytest.raises(OverBudget, match="a: 500 flops wanted, 400 left"):
            other.charge("a", "train", 500)
        assert other.top_up("a", 700) == 700
        paid = other.charge_until("a", other.clock() + 0.5)
        there.note(HalfWay("a", 1.5))
        ledger.charge("a", "evaluation", 100)
        for known in (there, other, ledger):
            known.refresh()
            assert known.accounts["a"].left == 600
            assert known.accounts["a"].charged_until == paid
            assert known.noted(HalfWay) == [HalfWay("a", 1.5)]
        storage.refuse = lambda method, path: 403
        with pytest.raises(StorageError, match="refused"):
            there.settle("a", {"status": "finished"})
        storage.refuse = lambda method, path: None
        ray.kill(ray.get_actor("ledger"), no_restart=False)  # Ray starts it again
        there.settle("a", {"status": "finished"})
    ledger.refresh()
    assert not ledger.accounts["a"].is_open


def remote_arguments(folder: Path, **changes: Any) -> list[str]:
    """Arguments of `tune` with data and output in the bucket."""
    if not (folder / "store").exists():
        upload_store(small_store(folder / "store"), f"s3://{BUCKET}/data")
    return [
        *sweep_arguments(folder, **changes),
        *("--data-dir", f"s3://{BUCKET}/data", "--output", SWEEP),
    ]


def test_wrong_use_is_one_line(
    storage: ObjectStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = remote_arguments(tmp_path)
    assert main(["tune", *arguments, "--fresh"]) == 2
    assert "--fresh is for folders of this machine" in capsys.readouterr().err
    storage.refuse = lambda method, path: 403 if "sweeps" in path else None
    assert main(["tune", *arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and SWEEP in errors[0] and "refused" in errors[0], errors


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_from_the_bucket_alone(storage: ObjectStorage, tmp_path: Path) -> None:
    """SIGKILL, and everything on the machine is gone, twice; without Ray."""
    small: dict[str, Any] = {"sizes": ["1x32"], "num_rates": 1, "concurrency": 1, "budget_flops": 4e10}
    arguments = remote_arguments(tmp_path, **small)
    here = local_path(SWEEP)
    environment = {name: os.environ[name] for name in [*storage.environment, "NANOCHAT_TCT_CACHE"]}
    rng = random.Random(0)
    done_before, trials_before = 0, set()
    for number, share in enumerate([0.15, 0.6, None]):
        process = ForkedProcess(sweep_alone, arguments, environment)
        try:
            while process.poll() is None and share is not None:
                time.sleep(0.05)
                if (here / LEDGER).exists():
                    ledger = Ledger(here)
                    spent, trials_before = ledger.spent, set(ledger.accounts)
                    ledger.close()
                    if spent >= share * 4e10:
                        time.sleep(rng.uniform(0, 0.3))
                        break
            if share is not None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=600)
            assert process.returncode == (0 if share is None else -signal.SIGKILL)
        finally:
            process.kill()
        if share is not None:
            shutil.copytree(here / WORK_DIR, tmp_path / f"{number}" / "sweep" / WORK_DIR)
            done_before += logged_flops(tmp_path / f"{number}")
            shutil.rmtree(os.environ["NANOCHAT_TCT_CACHE"])
    shutil.copytree(here / WORK_DIR, tmp_path / "last" / "sweep" / WORK_DIR)
    ledger = Ledger(here)
    capacity = ledger.terms.capacity
    lost = sum(entry.amount for entry in ledger.entries if entry.kind == "lost")
    worked = done_before + logged_flops(tmp_path / "last")
    print(f"spent {ledger.spent / capacity:.2%}, of which lost {lost / capacity:.2%}")
    assert worked <= ledger.spent <= capacity
    assert 0.9 * capacity <= ledger.spent
    assert lost <= 2 * AHEAD * capacity
    assert trials_before <= set(ledger.accounts)
    final = trial_rows(ledger)[-1]
    assert final.purpose == "final" and final.status == "finished"
    assert final.tokens == final.planned_tokens
    assert str(ledger.accounts[final.trial].result["checkpoint"]).startswith(
        f"{SWEEP}/runs/{final.trial}/iter_"
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_sweep_on_ray(storage: ObjectStorage, tmp_path: Path) -> None:
    """Its results and its best model are in the bucket, which is all that a later machine needs."""
    storage.refuse = failing = NowAndThen(0.02)
    arguments = remote_arguments(tmp_path)
    result = run_cli("tune", *arguments, timeout=600)
    assert result.code == 0, result.stdout + result.stderr
    assert failing.failed > 0
    for name in (TRIALS, "outcome.json", "best.yaml", "report/index.html"):
        assert f"sweeps/one/{name}" in storage.objects("sweeps/one/")
    trials = read_rows(local_path(SWEEP) / TRIALS, Trial)
    assert trials[-1].purpose == "final" and trials[-1].status == "finished"
    outcome = Results.read(local_path(SWEEP)).outcome
    assert 0.95 * outcome.budget <= outcome.spent <= outcome.budget
    shutil.rmtree(os.environ["NANOCHAT_TCT_CACHE"])
    assert outcome.checkpoint is not None
    written = run_cli("generate", "--checkpoint", outcome.checkpoint, "--max-tokens", 64)
    assert written.code == 0 and "jobs:" in written.stdout, written.stderr
    again = run_cli("tune", *arguments, timeout=120)
    assert again.code == 0, again.stdout + again.stderr
    assert Results.read(local_path(SWEEP)).outcome.spent - outcome.spent <= AHEAD * outcome.budget
