"""Runs whose `checkpoint_dir` is in object storage: a job works on a copy on this machine.

`pull` makes the copy equal to the storage; `push` makes the storage equal to the copy. A checkpoint is complete once it
has its manifest, which is transferred last in both directions. Only files with known names are downloaded.
"""

import re
import shutil
import sys
from functools import partial
from pathlib import Path

from nanochat_tct.model import checkpoint
from nanochat_tct.storage.files import FileRecord
from nanochat_tct.storage.object_storage import (
    DamagedError,
    RemoteFolder,
    is_remote,
    local_path,
    locked_copy,
    replace_copy,
)

# Files of the run besides its checkpoints that a resumed run needs
NOTES = (checkpoint.BEST, "metrics.jsonl", "wandb_id")
PUSHED = re.compile(r"[a-z_]+\.(json|jsonl|yaml|parquet|png)|wandb_id|samples/\d+\.yml")
REMOTE_MANIFEST = re.compile(rf"iter_(\d{{8,}})/{re.escape(checkpoint.MANIFEST)}")


def pull(uri: str) -> Path:
    """Download a run (its latest and its best checkpoint) or one checkpoint, and verify it.

    Returns: the copy, an empty folder if the storage has nothing; a folder of this machine unchanged.
    Raises: UserError when the storage refuses.
    """
    folder = local_path(uri)
    if not is_remote(uri):
        return folder
    with locked_copy(folder):
        remote = RemoteFolder(uri)
        there = remote.files()
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint.MANIFEST in there:
            _pull_checkpoint(remote, folder, "")
            return folder
        for name in NOTES:
            content = remote.read(name, limit=1 << 30) if name in there else None
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_bytes(content)
        steps = sorted(int(match[1]) for name in there if (match := REMOTE_MANIFEST.fullmatch(name)))
        for path in checkpoint.list_checkpoints(folder):
            if checkpoint.step_of(path) not in steps:  # the run was started again, or this was never pushed
                shutil.rmtree(path)
        best = checkpoint.read_best(folder)
        for step in reversed(steps):  # until one is whole
            if _try_checkpoint(remote, folder, step):
                break
        if best is not None and int(best["step"]) in steps:
            _try_checkpoint(remote, folder, int(best["step"]))
    return folder


def push(run_dir: Path, uri: str) -> None:
    """Upload what changed in the copy `run_dir`, and delete checkpoints in the storage that the copy lacks.

    Does nothing for a run on this machine. Raises: UserError when the storage refuses.
    """
    if not is_remote(uri):
        return
    push_notes(run_dir, uri)
    with locked_copy(run_dir):
        remote = RemoteFolder(uri)
        there = remote.files()
        here = checkpoint.list_checkpoints(run_dir)
        for path in here:
            remote.upload_folder(path, checkpoint.PARTS, checkpoint.MANIFEST, f"{path.name}/")
        kept = {path.name for path in here}
        gone = [name for name in there if re.match(r"iter_\d{8,}/", name) and name.split("/")[0] not in kept]
        # Manifests first, so that no half-deleted checkpoint passes for a whole one.
        for name in sorted(gone, key=lambda name: not name.endswith("/" + checkpoint.MANIFEST)):
            remote.delete(name)


def push_notes(run_dir: Path, uri: str) -> None:
    """Upload the other files of a run: log, config, curve, samples."""
    if is_remote(uri):
        RemoteFolder(uri).upload_matching(run_dir, PUSHED)


def _try_checkpoint(remote: RemoteFolder, run_dir: Path, step: int) -> bool:
    path = checkpoint.step_directory(run_dir, step)
    try:
        _pull_checkpoint(remote, path, f"{path.name}/")
    except checkpoint.CheckpointError as error:
        print(f"damaged checkpoint passed over: {error}", file=sys.stderr)
        shutil.rmtree(path, ignore_errors=True)  # an older copy differs from the storage
        return False
    return True


def _pull_checkpoint(remote: RemoteFolder, path: Path, prefix: str) -> None:
    """Download one checkpoint. Raises: CheckpointError when it is damaged."""

    def records(manifest: Path) -> list[FileRecord]:
        try:
            return checkpoint.read_manifest(manifest.parent)[1]
        except checkpoint.MANIFEST_ERRORS as error:
            where = f"{remote.uri}/{prefix}{manifest.name}"
            raise checkpoint.CheckpointError(
                f"{where}: damaged, so this is not a whole checkpoint"
            ) from error

    content = remote.read(prefix + checkpoint.MANIFEST)
    if content is None:  # deleted since the folder was listed
        return
    try:
        replace_copy(path / checkpoint.MANIFEST, content, records, partial(remote.download, prefix=prefix))
    except DamagedError as error:
        raise checkpoint.CheckpointError(str(error)) from error
