"""A sweep whose `--output` is in object storage: worked on in a folder of the head, and kept there.

    ledger.jsonl, ledger.keeper     a copy that is never more than ledger.AHEAD behind (tuning/ledger.py)
    runs/                           checkpoints (training/remote_run.py)
    everything else                 what a sweep leaves behind (tuning/trials.py), whenever the command ends

The same command on another machine goes on from that alone.
"""

import re
import sys
from pathlib import Path

from nanochat_tct.storage.object_storage import RemoteFolder, is_remote, shown
from nanochat_tct.tuning.ledger import LOST, Ledger, claim_copy
from nanochat_tct.tuning.trials import BEST, CURVES, ENTRIES, LEDGER, OUTCOME, REPORT_DIR, TRIALS

MAX_LEDGER_BYTES = 1 << 30
RESULTS = re.compile(rf"{TRIALS}|{ENTRIES}|{CURVES}|{OUTCOME}|{BEST}|{REPORT_DIR}/[^/]+")


def restore_ledger(place: str, folder: Path) -> None:
    """Make the ledger in `folder` one that knows of all that was spent, by whatever machine. For a URI only.

    Raises: StorageError when the storage refuses.
    """
    if not is_remote(place):
        return
    remote, path = RemoteFolder(place), folder / LEDGER
    there = remote.read(LEDGER, MAX_LEDGER_BYTES)
    if there is None or (path.exists() and path.read_bytes().startswith(there)):
        return  # a new sweep, or the machine that wrote the copy
    folder.mkdir(parents=True, exist_ok=True)
    claim_copy(remote, folder)  # another machine that still goes on ends; what it wrote until now counts
    there = remote.read(LEDGER, MAX_LEDGER_BYTES)
    assert there is not None
    before = Ledger.restore(folder, there)
    lost = sum(entry.amount for entry in before.entries if entry.kind == LOST)
    print(
        f"going on from the ledger in {shown(place)}; what it may not know of counts as spent "
        f"({lost:.4g} {before.terms.unit} so far)",
        file=sys.stderr,
    )
    before.close()


def push_results(folder: Path, place: str) -> None:
    """Bring there what a sweep leaves behind, besides ledger and checkpoints. For a URI only."""
    if is_remote(place):
        RemoteFolder(place).upload_matching(folder, RESULTS)
