"""A run whose `checkpoint_dir` is in object storage: worked on in a copy on this machine, kept there.

`pull` makes the copy what the storage has; `push` makes the storage what the copy has. A checkpoint's manifest
goes last and counts first, there as here: a push that is cut off leaves no checkpoint that looks whole. Of what
is there only files of known names are taken.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from nanochat_tct.storage.object_storage import DamagedError, RemoteFolder, is_remote, local_path, locked
from nanochat_tct.training import checkpoint

PARTS = (checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE)
# Of the run itself, besides its checkpoints: needed to go on
NOTES = (checkpoint.BEST, "metrics.jsonl", "wandb_id")
PUSHED = re.compile(r"[a-z_]+\.(json|jsonl|yaml|parquet|png)|wandb_id|samples/\d+\.yml")


def pull(uri: str) -> Path:
    """This machine's copy of a run (its latest and its best checkpoint) or of one checkpoint, verified.

    Returns: the copy; an empty folder when there is nothing. For a folder of this machine: that.
    Raises: UserError when the storage refuses.
    """
    folder = local_path(uri)
    if not is_remote(uri):
        return folder
    with locked(folder):
        remote = RemoteFolder(uri)
        there = remote.files()
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint.MANIFEST in there:
            _pull_checkpoint(remote, "", folder)
            return folder
        for name in NOTES:
            content = remote.read(name, limit=1 << 30) if name in there else None
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_bytes(content)
        steps = sorted(
            int(match[1])
            for name in there
            if (match := re.fullmatch(rf"iter_(\d{{8,}})/{re.escape(checkpoint.MANIFEST)}", name))
        )
        for path in checkpoint.list_checkpoints(folder):  # of a run that somebody began anew, or never pushed
            if int(path.name.removeprefix("iter_")) not in steps:
                shutil.rmtree(path)
        best = checkpoint.read_best(folder)
        wanted = [*reversed(steps)]
        while wanted:  # the latest that is whole
            if _try_checkpoint(remote, wanted.pop(0), folder):
                break
        if best is not None and int(best["step"]) in steps:
            _try_checkpoint(remote, int(best["step"]), folder)
    return folder


def push(run_dir: Path, uri: str) -> None:
    """Brings what changed in the copy `run_dir` to the storage, and removes checkpoints that are gone.

    Does nothing for a run on this machine. Raises: UserError when the storage refuses.
    """
    if not is_remote(uri):
        return
    push_notes(run_dir, uri)
    with locked(run_dir):
        remote = RemoteFolder(uri)
        there = remote.files()
        here = checkpoint.list_checkpoints(run_dir)
        for path in here:
            manifest = f"{path.name}/{checkpoint.MANIFEST}"
            if manifest in there:
                if remote.read(manifest) == (path / checkpoint.MANIFEST).read_bytes():
                    continue
                remote.delete(manifest)
            for name in PARTS:
                remote.upload(path / name, f"{path.name}/{name}")
            remote.upload(path / checkpoint.MANIFEST, manifest)
        kept = {path.name for path in here}
        gone = [name for name in there if re.match(r"iter_\d{8,}/", name) and name.split("/")[0] not in kept]
        # Manifests first: what is being removed must not look whole.
        for name in sorted(gone, key=lambda name: not name.endswith("/" + checkpoint.MANIFEST)):
            remote.delete(name)


def push_notes(run_dir: Path, uri: str) -> None:
    """The same for all but the checkpoints: log, config, curve, samples."""
    if is_remote(uri):
        RemoteFolder(uri).upload_matching(run_dir, PUSHED)


def _try_checkpoint(remote: RemoteFolder, step: int, folder: Path) -> bool:
    path = checkpoint.step_directory(folder, step)
    try:
        _pull_checkpoint(remote, f"{path.name}/", path)
    except checkpoint.CheckpointError as error:
        print(f"damaged checkpoint passed over: {error}", file=sys.stderr)
        return False
    return True


def _pull_checkpoint(remote: RemoteFolder, prefix: str, path: Path) -> None:
    content = remote.read(f"{prefix}{checkpoint.MANIFEST}") or b""
    here = path / checkpoint.MANIFEST
    if here.is_file() and here.read_bytes() == content:
        return
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    where = f"{remote.uri}/{prefix}{checkpoint.MANIFEST}"
    try:
        files = json.loads(content)["files"]
        expected = [(name, int(files[name]["bytes"]), str(files[name]["sha256"])) for name in PARTS]
    except (ValueError, TypeError, KeyError) as error:
        shutil.rmtree(path)
        raise checkpoint.CheckpointError(f"{where}: damaged, so this is not a whole checkpoint") from error
    try:
        for name, size, sha256 in expected:
            remote.download(f"{prefix}{name}", path / name, size, sha256)
    except DamagedError as error:
        shutil.rmtree(path)
        raise checkpoint.CheckpointError(str(error)) from error
    here.write_bytes(content)
