"""The ledger of a sweep: a hard budget, kept in one append-only file that all its processes share.

Every process that does work opens the file itself, so no server can be lost. Under an exclusive lock it reads what
others wrote since it last looked, decides, and appends one line. Money is counted in whole quanta (FLOPs, or
microseconds of a worker), so sums are exact:

    capacity  the budget in quanta
    reserve   what a trial may use; open() and top_up() take it from what is free, settle() gives back what is left
    charge    taken from the trial's reserve before the work is done; refused when the reserve does not cover it

Free = capacity - charged - what open trials still hold. No operation makes it negative, so the charges never exceed
the budget, wherever a process is killed. Counting what is free and reserving it are one step under the lock. Trials of
the sweep leave FINAL_FLOOR of the final run's money alone, whatever kills and slow starts cost them. A line cut off by
a kill belongs to an operation that never returned; the next writer drops it.

The machine may be lost with the file. `keep_copies` brings a copy to object storage whenever something is reserved,
settled or noted, and before the copy would lag by more than AHEAD of the budget; only then does the operation return.
`restore` makes a ledger from a copy, and charges AHEAD once more: it never claims less than was spent.

Raises: OverBudget where there is not enough left; StorageError where the file or its copy cannot be written. Then
nothing was changed.
"""

import errno
import fcntl
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nanochat_tct.errors import StorageError, UserError
from nanochat_tct.storage.files import PARTIAL, partial_path, write_atomic
from nanochat_tct.storage.object_storage import RemoteFolder, absolute, is_remote, local_path, shown
from nanochat_tct.tuning.budget import MICRO, Terms
from nanochat_tct.tuning.records import LEDGER, Entry, Interrupted, Note, Purpose, read_notes

SYNC_SECONDS = 1.0  # a power cut loses no more than this; a killed process loses nothing
IDLE = ""  # the account of workers that are reserved and have no trial
LOST = "lost"  # kind of work that a lost ledger may have charged
START_UP = "start_up"  # kind of work: none yet
IDLE_TIME = "idle"  # kind of time in which a worker has no trial
IDLE_SHARE = 0.2  # of the budget: once idle workers have cost more, the sweep proceeds to its final run
FINAL_FLOOR = 0.8  # of what is planned for the final run: trials that must repeat work may take the rest
KEEPER = "ledger.keeper"  # beside the copy: who may renew it
MAX_LEDGER_BYTES = 1 << 30
AnyNote = TypeVar("AnyNote", bound=Note)


class OverBudget(Exception):
    """The reserve, or what is free, does not cover the request."""


@dataclass
class Account:
    """One trial's money, settings and result."""

    purpose: Purpose
    workers: int  # that it holds while it runs
    settings: dict[str, Any]  # whatever open() was given
    reserve: int  # quanta it may use in all
    opened_at: float
    charged: int = 0  # quanta
    microseconds: int = 0  # of workers
    flops: int = 0
    kind: str = START_UP  # of work, as last charged
    charged_until: float = 0.0  # its workers' time is charged up to here (seconds since 1970)
    closed_at: float | None = None
    result: dict[str, Any] = field(default_factory=dict)  # whatever settle() was given
    round: int = 0  # of the sweep, in which it was opened

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def left(self) -> int:
        """Quanta of its reserve that are not used."""
        return self.reserve - self.charged if self.is_open else 0


@dataclass(frozen=True)
class Round:
    """The state of a sweep when it began, or was continued with other terms."""

    committed: int  # quanta that were spent or reserved
    idle: int  # quanta that workers without a trial had cost
    waited: int  # quanta of these while no worker started


class Ledger:
    """A view of the file, and the way to write to it. Safe to share between threads."""

    terms: Terms

    def __init__(self, folder: str | Path, clock: Callable[[], float] = time.time) -> None:
        """Open the ledger in `folder`.

        Raises: UserError when there is none, or it cannot be read.
        """
        self._begin(clock)
        self.path = Path(folder) / LEDGER
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise UserError(f"there is no ledger in {folder}") from error
        with self._locked():
            pass
        if not self.rounds:
            raise UserError(f"{self.path} is empty: remove it, or begin again with --fresh")

    def _begin(self, clock: Callable[[], float]) -> None:
        """Set the state before the first line is read."""
        self.clock = clock
        self._thread_lock = threading.RLock()
        self._offset = 0
        self._synced_at = 0.0
        self.accounts: dict[str, Account] = {}
        self.entries: list[Entry] = []
        self.spent = 0  # quanta
        self.idle = 0  # quanta of `spent` that no trial was charged
        self.waited = 0  # quanta of `idle` while no worker started
        self.rounds: list[Round] = []
        self._notes: dict[type[Note], dict[str, Any]] = {}  # by kind and key
        self.copy: str | None = None  # the URI of the folder that the copy is in
        self.keeper = ""  # who may renew the copy: the last one who called keep_copies
        self.copied = 0  # quanta that the copy has
        self._remote: RemoteFolder | None = None

    @classmethod
    def create(cls, folder: str | Path, terms: Terms, clock: Callable[[], float] = time.time) -> "Ledger":
        """Begin a ledger where there is none."""
        path = Path(folder) / LEDGER
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = partial_path(path)
        write_atomic(aside, _line({"terms": asdict(terms)}))
        try:
            os.link(aside, path)  # refuses to replace an existing ledger
        finally:
            aside.unlink()
        return cls(folder, clock)

    def close(self) -> None:
        os.close(self._file)

    # ------------------------------------------------------------------------- what is left

    @property
    def free(self) -> int:
        """Quanta that nobody has used or reserved, as last read."""
        return self.terms.capacity - self.spent - sum(account.left for account in self.accounts.values())

    def spendable(self, purpose: Purpose) -> int:
        """Quanta that a trial of this purpose may still take; those of the sweep leave the final run its own."""
        if purpose != "sweep":
            return max(0, self.free)
        share = 1 - self.terms.sweep.get("sweep_share", 1.0)
        money = self.terms.capacity - self.rounds[self.first_round].committed
        finals = sum(
            account.charged
            for account in self.accounts.values()
            if account.purpose == "final" and account.round >= self.first_round
        )
        return max(0, self.free - max(0, round(FINAL_FLOOR * share * money) - finals))

    @property
    def first_round(self) -> int:
        """The first round without a final run: the money since then is divided together."""
        finals = [account.round for account in self.accounts.values() if account.purpose == "final"]
        return min(max(finals, default=-1) + 1, len(self.rounds) - 1)

    @property
    def idle_share(self) -> float:
        """The cost of idle workers since the first of these rounds, as a share of its money; starts do not count."""
        start = self.rounds[self.first_round]
        return (self.waited - start.waited) / max(1, self.terms.capacity - start.committed)

    @property
    def is_idle_too_long(self) -> bool:
        """Whether idle workers have cost so much that no more trials begin, and the final run comes next."""
        return self.idle_share > IDLE_SHARE

    # ------------------------------------------------------------------------- notes

    def noted(self, kind: type[AnyNote]) -> list[AnyNote]:
        """The notes of a kind, one for each key, in the order in which their keys were first noted."""
        return list(self._notes.get(kind, {}).values())

    def latest(self, kind: type[AnyNote]) -> AnyNote | None:
        """The note of the latest key of a kind; None where there is none."""
        return next(reversed(self._notes.get(kind, {}).values()), None)

    @property
    def is_interrupted(self) -> bool:
        """Whether trials should save their checkpoints and stop."""
        note = self.latest(Interrupted)
        return note is not None and note.is_wanted

    def note(self, note: Note) -> None:
        """Keep something of the sweep beside its money."""
        with self._locked():
            self._append({"note": [type(note).__name__, asdict(note)]}, sync=True)

    # ------------------------------------------------------------------------- what changes it

    def open(
        self,
        trial: str,
        purpose: Purpose,
        workers: int,
        settings: dict[str, Any],
        reserve: int,
        least: int | None = None,
    ) -> Account:
        """Reserve quanta for a trial; does nothing when it is open already.

        Args:
            reserve: quanta; fewer where that is more than the trial may take (`spendable`).
            least: quanta that are enough; None: `reserve`.
        Raises: OverBudget when not even `least` is there.
        """
        assert trial != IDLE and reserve >= 0 and workers >= 0, (trial, reserve, workers)
        with self._locked():
            account = self.accounts.get(trial)
            assert account is None or account.is_open, f"{trial} was settled"
            if account is None:
                spendable = self.spendable(purpose)
                self._refuse_beyond(reserve if least is None else least, spendable, trial)
                reserve = min(reserve, spendable)
                self._append({"open": [self.clock(), trial, purpose, workers, settings, reserve]}, sync=True)
            return self.accounts[trial]

    def extend(self, terms: Terms) -> None:
        """Continue the sweep with other terms: a higher budget, or more to try. A new round begins."""
        was = self.terms
        assert (terms.unit, terms.hourly_usd) == (was.unit, was.hourly_usd) and terms.budget >= was.budget
        with self._locked():
            self._append({"terms": asdict(terms)}, sync=True)

    def top_up(self, trial: str, left: int) -> int:
        """Raise the reserve until `left` quanta of it are unused, as far as there is money. Returns what is left.

        For work that a failure made the trial repeat, and for what takes longer than was forecast.
        """
        with self._locked():
            account = self.accounts[trial]
            missing = min(left - account.left, self.spendable(account.purpose))
            if account.is_open and missing > 0:
                self._append({"top_up": [self.clock(), trial, missing]}, sync=True)
            return account.left

    def charge(self, trial: str, kind: str, flops: int = 0) -> int:
        """Charge a piece of work to the reserve before it is done. Returns what is left, in quanta.

        Where the budget is in time the FLOPs are noted, and cost nothing.

        Raises: OverBudget when the reserve does not cover it; then nothing was charged.
        """
        with self._locked():
            account = self.accounts[trial]
            self._refuse_beyond(self._cost(0, flops), account.left, trial)
            self._charge(trial, kind, 0, flops)
            return account.left

    def charge_until(self, trial: str, until: float, kind: str | None = None) -> float:
        """Charge the time of a trial's workers up to `until`, ahead of it, from where it was charged or from now.

        A time in which nobody charged is not the trial's: its workers were gone, and `charge_idle` counts them.

        Args:
            kind: of the work; None: as last charged.
        Returns: up to when it is charged: earlier than `until` when the reserve is used up.
        """
        with self._locked():
            account = self.accounts[trial]
            start = max(account.charged_until, self.clock())
            microseconds = int((until - start) * MICRO) * account.workers
            if self.terms.is_timed:
                microseconds = min(microseconds, account.left // max(1, account.workers) * account.workers)
            if microseconds > 0 and account.is_open:
                end = start + microseconds / account.workers / MICRO
                # "pay" is the file's name for a charge of time.
                record = {"pay": [self.clock(), trial, kind or account.kind, microseconds, end]}
                self._append(record, cost=self._cost(microseconds, 0))
            return account.charged_until

    def charge_idle(self, worker_seconds: float, kind: str = IDLE_TIME) -> None:
        """Charge time of workers that have no trial: as far as it is free, then to a final run that waits for them.

        Args:
            kind: START_UP while they start.
        """
        with self._locked():
            wanted = int(worker_seconds * MICRO)
            finals = {name: each.left for name, each in self.accounts.items() if each.purpose == "final"}
            holders = {IDLE: self.free} | finals if self.terms.is_timed else {IDLE: wanted}
            self._charge_to(holders, kind, wanted, is_time=True)

    def _charge_to(self, holders: dict[str, int], kind: str, wanted: int, is_time: bool) -> None:
        """Charge microseconds or FLOPs to those who have them, in turn.

        Args:
            holders: account -> the most that it can be charged.
        """
        for holder, left in holders.items():
            part = min(wanted, left)
            wanted -= part
            if part > 0:
                self._charge(holder, kind, *((part, 0) if is_time else (0, part)))

    def _charge(self, trial: str, kind: str, microseconds: int, flops: int) -> None:
        record = {"charge": [self.clock(), trial, kind, microseconds, flops]}
        self._append(record, cost=self._cost(microseconds, flops))

    def settle(self, trial: str, result: dict[str, Any]) -> None:
        """End a trial: what is left of its reserve is free again."""
        with self._locked():
            if self.accounts[trial].is_open:
                self._append({"settle": [self.clock(), trial, result]}, sync=True)

    def _cost(self, microseconds: int, flops: int) -> int:
        return microseconds if self.terms.is_timed else flops

    def _refuse_beyond(self, wanted: int, available: int, trial: str) -> None:
        if wanted > available:
            unit, amount = self.terms.unit, self.terms.amount
            raise OverBudget(f"{trial}: {amount(wanted):.6g} {unit} wanted, {amount(available):.6g} left")

    # ------------------------------------------------------------------------- the file

    def refresh(self) -> None:
        """Read what other processes wrote."""
        with self._thread_lock:
            if os.fstat(self._file).st_size != self._offset:
                with self._locked():
                    pass

    def lines_from(self, offset: int) -> bytes:
        """What was written at and after a byte of the file, as last read."""
        with self._thread_lock:
            return self._read(offset, self._offset)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file against all others, and catch up with it."""
        with self._thread_lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        data = self._read(self._offset, os.fstat(self._file).st_size)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # cut off by a kill: its writer no longer holds the lock
            os.ftruncate(self._file, self._offset + whole)
        try:
            self._take_in(data[:whole])
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(
                f"{self.path} is damaged near byte {self._offset}; begin again with --fresh"
            ) from error

    def _read(self, begin: int, end: int) -> bytes:
        data = b""
        while begin + len(data) < end:
            data += os.pread(self._file, end - begin - len(data), begin + len(data))
        return data

    def _take_in(self, data: bytes) -> None:
        """Apply whole lines that come next."""
        for line in data.splitlines():
            self._apply(json.loads(line))
        self._offset += len(data)

    def _append(self, record: dict[str, Any], sync: bool = False, cost: int = 0) -> None:
        """Write a record, and first bring the copy up to date where somebody may rely on it.

        Args:
            sync: it must survive a power cut, and be in the copy.
            cost: quanta that it charges.
        """
        data = _line(record)
        try:
            self._write(data)
            if sync or time.monotonic() - self._synced_at > SYNC_SECONDS:
                os.fdatasync(self._file)
                self._synced_at = time.monotonic()
            if self.copy is not None and (sync or self.spent + cost - self.copied > self.terms.ahead):
                self._renew_copy(self.copy)
                data += _line({"copied": True})
                self._write(_line({"copied": True}))
        except (StorageError, OSError) as error:
            os.ftruncate(self._file, self._offset)
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"{self.path} cannot be written ({error.strerror}); fix that, and run again"
            ) from error
        self._take_in(data)  # as a later reader will

    def _write(self, data: bytes) -> None:
        if os.write(self._file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _apply(self, record: dict[str, Any]) -> None:
        (operation, values), *_ = record.items()
        match operation:
            case "terms":
                self.terms = Terms(**values)
                committed = self.spent + sum(account.left for account in self.accounts.values())
                self.rounds.append(Round(committed, self.idle, self.waited))
            case "open":
                now, trial, purpose, workers, settings, reserve = values
                self.accounts[trial] = Account(
                    purpose, workers, settings, reserve, now, round=len(self.rounds) - 1
                )
            case "top_up":
                _, trial, amount = values
                self.accounts[trial].reserve += amount
            case "charge":
                now, trial, kind, microseconds, flops = values
                if trial != IDLE and kind != LOST:
                    self.accounts[trial].kind = kind
                self._count(now, trial, kind, microseconds, flops)
            case "pay":
                now, trial, kind, microseconds, until = values
                self.accounts[trial].charged_until, self.accounts[trial].kind = until, kind
                self._count(now, trial, kind, microseconds, 0)
            case "settle":
                now, trial, result = values
                self.accounts[trial].closed_at = now
                self.accounts[trial].result = result
            case "copy":
                self.copy, self.keeper = values
            case "copied":
                self.copied = self.spent
            case "note":
                for note in read_notes(*values):
                    self._notes.setdefault(type(note), {})[note.key] = note

    def _count(self, now: float, trial: str, kind: str, microseconds: int, flops: int) -> None:
        cost = self._cost(microseconds, flops)
        self.spent += cost
        purpose: Purpose = "idle"
        if trial == IDLE:
            self.idle += cost
            self.waited += cost if kind != START_UP else 0
        else:
            account = self.accounts[trial]
            account.charged += cost
            account.microseconds += microseconds
            account.flops += flops
            purpose = account.purpose
        amount = self.terms.amount(cost)
        self.entries.append(Entry(now, purpose, trial, kind, amount, microseconds / MICRO, float(flops)))

    # ------------------------------------------------------------------------- its copy in object storage

    def keep_copies(self, uri: str) -> None:
        """From here on keep a copy in a folder of object storage, which only those who read this file renew."""
        with self._locked():
            self.copy, self._remote = uri, RemoteFolder(uri)
            self.keeper = claim_copy(self._remote, self.path.parent)
            self._append({"copy": [uri, self.keeper]}, sync=True)

    def _renew_copy(self, uri: str) -> None:
        self._remote = self._remote or RemoteFolder(uri)
        if self._remote.read(KEEPER) != self.keeper.encode():
            raise StorageError(
                f"{self._remote.uri}: the same sweep was started again elsewhere, and continues there"
            )
        self._remote.upload(self.path, LEDGER)

    @classmethod
    def restore(cls, folder: Path, content: bytes, clock: Callable[[], float] = time.time) -> "Ledger":
        """Put the copy of a ledger that was lost into `folder`, replacing any ledger there.

        What another process may have spent since the copy was made is charged: first to what is free, then to reserves.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as aside:
            write_atomic(Path(aside, LEDGER), content)
            ledger = cls(aside, clock)
            ledger.copy = None  # not to be renewed before all this is in `folder`
            with ledger._locked():
                reserves = {name: account.left for name, account in ledger.accounts.items()}
                terms = ledger.terms
                ledger._charge_to({IDLE: ledger.free} | reserves, LOST, terms.ahead, terms.is_timed)
            os.fsync(ledger._file)
            ledger.close()
            os.replace(ledger.path, folder / LEDGER)
        return cls(folder, clock)


def claim_copy(remote: RemoteFolder, folder: Path) -> str:
    """Become the only one who may renew the copy there. Returns: the proof.

    Args:
        folder: on this machine, for a small file.
    """
    keeper = uuid.uuid4().hex
    (folder / KEEPER).write_text(keeper)
    remote.upload(folder / KEEPER, KEEPER)
    return keeper


def restore_ledger(output: str, folder: Path) -> None:
    """Bring the ledger in `folder` up to all that any machine has spent on the sweep at the URI `output`.

    Raises: StorageError when the storage refuses.
    """
    remote, path = RemoteFolder(output), folder / LEDGER
    content = remote.read(LEDGER, MAX_LEDGER_BYTES)
    if content is None or (path.exists() and path.read_bytes().startswith(content)):
        return  # a new sweep, or the machine that wrote the copy
    folder.mkdir(parents=True, exist_ok=True)
    claim_copy(remote, folder)  # stops another machine that still runs the sweep; what it has written counts
    content = remote.read(LEDGER, MAX_LEDGER_BYTES)
    assert content is not None
    before = Ledger.restore(folder, content)
    lost = sum(entry.amount for entry in before.entries if entry.kind == LOST)
    print(
        f"continuing from the ledger in {shown(output)}; what it may lack counts as spent "
        f"({lost:.4g} {before.terms.unit} so far)",
        file=sys.stderr,
    )
    before.close()


def read_ledger(given: str, where: str = "") -> Ledger:
    """The ledger of a sweep in a folder or in object storage, to read.

    Args:
        where: what messages put before the folder, such as "--from ".
    Raises: UserError when there is none.
    """
    output = absolute(given)
    if not is_remote(output) and (local_path(output) / LEDGER).is_file():
        return Ledger(local_path(output))
    content = RemoteFolder(output).read(LEDGER, MAX_LEDGER_BYTES) if is_remote(output) else None
    if content is None:
        raise UserError(
            f"{where}{shown(given)} holds no sweep ({LEDGER} is missing); give the --output of one"
        )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, LEDGER).write_bytes(content)
        return Ledger(folder)


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, separators=(",", ":")) + "\n").encode()
