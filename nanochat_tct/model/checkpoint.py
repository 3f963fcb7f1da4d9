"""Checkpoints on disk: written aside, checksummed, committed by a rename, verified when read.

A run directory (`<checkpoint_dir>/<run_name>/`) holds

    iter_00000500/model.safetensors   weights
    iter_00000500/optimizer.pt        optimizer and random state of every rank (read with weights_only=True)
    iter_00000500/state.json          step, config, fingerprints, money spent, results so far
    iter_00000500/manifest.json       SHA-256 and size of the three files above, written last
    best.json                         the step with the fewest validation bits per byte

A checkpoint is written as `.partial-...` and gets its name when every byte is on the disk, so a killed run leaves a
whole checkpoint or none. A checkpoint does not depend on the number of workers that wrote it, except for the random
state, which only the same number of workers can use.

Only reading and writing weights imports PyTorch; finding and verifying a checkpoint does not.
"""

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from nanochat_tct.errors import UserError
from nanochat_tct.model.accounting import parameter_count
from nanochat_tct.model.config import BEFORE, GPTConfig
from nanochat_tct.storage.files import (
    FileRecord,
    clear_partial,
    commit_folder,
    find_damage,
    fsync,
    locked,
    partial_path,
    record_of,
    remove_folder,
    write_atomic,
)

if TYPE_CHECKING:
    import torch

    from nanochat_tct.model.gpt import GPT

FORMAT = 1
WEIGHTS, OPTIMIZER, STATE = PARTS = ("model.safetensors", "optimizer.pt", "state.json")
MANIFEST, BEST = "manifest.json", "best.json"
MANIFEST_ERRORS = (ValueError, TypeError, KeyError)  # what reading a damaged manifest raises
MAX_STATE_BYTES = 64 << 20
STEP_DIRECTORY = re.compile(r"iter_(\d{8,})")


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of another format."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. The large files are read on request."""

    path: Path
    state: dict[str, Any]  # state.json

    @property
    def step(self) -> int:
        """The number of iters done when it was written."""
        return int(self.state["step"])

    def weights(self) -> "dict[str, torch.Tensor]":
        """The model's state dict, on the CPU. Raises: CheckpointError when it is not a safetensors file."""
        from safetensors.torch import load_file

        try:
            return load_file(self.path / WEIGHTS)
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{self.path / WEIGHTS}: not a safetensors file ({error})") from error

    def optimizer_state(self) -> dict[str, Any]:
        """`{"optimizer": ..., "random": [one dict of tensors a rank]}`, tensors on the CPU.

        Raises: CheckpointError when it holds anything but tensors, numbers, strings and containers of them.
        """
        import torch

        try:
            state = torch.load(self.path / OPTIMIZER, map_location="cpu", weights_only=True)
            if not isinstance(state["optimizer"], dict) or not isinstance(state["random"], list):
                raise TypeError("optimizer and random are not a dict and a list")
        except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(  # without torch's text, which recommends loading the file unsafely
                f"{self.path / OPTIMIZER}: not the state of an optimizer; it is damaged, or not from here"
            ) from error
        return state

    def tokenizer(self) -> tuple[str, str]:
        """The name and the fingerprint of the tokenizer that the model was trained with.

        Raises: CheckpointError when the state lacks them.
        """
        try:
            for value in (self.state["tokenizer"]["name"], self.state["tokenizer"]["fingerprint"]):
                if not isinstance(value, str):
                    raise TypeError(f"tokenizer: {value!r:.40}")
        except (TypeError, LookupError) as error:
            raise CheckpointError(f"{self.path / STATE}: not the state of a run ({error!r:.200})") from error
        return self.state["tokenizer"]["name"], self.state["tokenizer"]["fingerprint"]

    def model(self, device: "str | torch.device" = "cpu") -> "GPT":
        """The trained model, in evaluation mode. Raises: CheckpointError when state and weights do not fit."""
        from nanochat_tct.model.gpt import GPT

        self.tokenizer()
        weights = self.weights()
        try:
            shape = GPTConfig(**{**BEFORE, **self.state["model_config"]})
            if parameter_count(shape) > sum(tensor.numel() for tensor in weights.values()):
                raise ValueError("the model is larger than its weights")  # before memory is allocated for it
            model = GPT(shape)
            model.load_state_dict(weights)
        except (TypeError, ValueError, LookupError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: {STATE} and {WEIGHTS} do not fit ({reason})") from error
        return model.to(device).eval()


def step_directory(run_dir: Path, step: int) -> Path:
    """The directory of the checkpoint of `step`."""
    return run_dir / f"iter_{step:08d}"


def step_of(path: Path) -> int:
    """The step of a checkpoint directory."""
    return int(path.name.removeprefix("iter_"))


def save_checkpoint(
    run_dir: Path,
    weights: "dict[str, torch.Tensor]",
    optimizer_state: dict[str, Any],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of `state["step"]`, then delete all but the last `keep` and the best.

    Args:
        run_dir: created if it does not exist.
        weights: full (unsharded) state dict of the bare model.
        optimizer_state: tensors, numbers, strings and containers of them only.
        state: JSON; `state["best"]` (`{"step", "bits_per_byte"}` or None) names the best checkpoint.
        keep: how many of the latest checkpoints stay, at least 1.

    Returns: the committed directory.
    Raises: UserError when the disk is full or not writable; the unfinished checkpoint is removed.
    """
    from safetensors.torch import save_file

    assert keep >= 1
    final = step_directory(run_dir, state["step"])
    partial = partial_path(final)
    try:
        partial.mkdir(parents=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, partial / WEIGHTS)
        _save_optimizer(optimizer_state, partial / OPTIMIZER)
        shutil.copymode(partial / OPTIMIZER, partial / WEIGHTS)  # safetensors makes it the owner's only
        (partial / STATE).write_text(_json({"format": FORMAT, **state}))
        records = [record_of(partial / name) for name in PARTS]
        files = {record.name: {"sha256": record.sha256, "bytes": record.size} for record in records}
        manifest = {"format": FORMAT, "step": state["step"], "files": files}
        (partial / MANIFEST).write_text(_json(manifest))
        for name in (*PARTS, MANIFEST):
            fsync(partial / name)
        commit_folder(partial, final)  # may replace a damaged checkpoint, or an earlier one of the same step
        if state.get("best"):
            write_atomic(run_dir / BEST, _json(state["best"]))
    except (OSError, SafetensorError) as error:  # the latter wraps the former
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{run_dir}: the checkpoint of iter {state['step']} cannot be written ({reason}); "
            "free some space or choose another --checkpoint-dir, then run the same command again"
        ) from error
    prune(run_dir, keep)
    return final


def read_best(run_dir: Path) -> dict[str, Any] | None:
    """`{"step", "bits_per_byte"}` of the best checkpoint; None if there is none yet."""
    try:
        best = json.loads((run_dir / BEST).read_text())
        int(best["step"])
        return best
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        print(f"{run_dir / BEST}: damaged, ignored", file=sys.stderr)
        return None


def prune(run_dir: Path, keep: int) -> None:
    """Delete unfinished checkpoints, and finished ones except for the last `keep` and the best."""
    clear_partial(run_dir)
    best = read_best(run_dir)
    for path in list_checkpoints(run_dir)[:-keep]:
        if best is None or step_of(path) != int(best["step"]):
            remove_folder(path)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Committed checkpoints, the earliest first, without verifying them."""
    found = run_dir.iterdir() if run_dir.is_dir() else ()
    return sorted(
        (path for path in found if STEP_DIRECTORY.fullmatch(path.name) and path.is_dir()), key=step_of
    )


def latest_step(run_dir: Path) -> int:
    """Iters done at the latest committed checkpoint, without verifying it; 0 if there is none."""
    committed = list_checkpoints(run_dir)
    return step_of(committed[-1]) if committed else 0


def say_on_stderr(line: str) -> None:
    """Print a line to stderr."""
    print(line, file=sys.stderr, flush=True)


def latest_checkpoint(run_dir: Path, say: Callable[[str], None] = say_on_stderr) -> Path | None:
    """The latest checkpoint that is whole; `say` gets a line for each damaged one."""
    for path in reversed(list_checkpoints(run_dir)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            say(f"damaged checkpoint passed over: {error}")
        else:
            return path
    return None


def read_manifest(path: Path) -> tuple[int, list[FileRecord]]:
    """The format of a checkpoint, and the records of its files.

    Raises: OSError or one of MANIFEST_ERRORS when the manifest is missing or damaged.
    """
    manifest = json.loads((path / MANIFEST).read_text())
    files = manifest["files"]
    records = [FileRecord(name, int(files[name]["bytes"]), str(files[name]["sha256"])) for name in PARTS]
    return manifest["format"], records


def verify_checkpoint(path: Path) -> None:
    """Compare every file with the manifest.

    Raises: CheckpointError that names the file.
    """
    try:
        format_, records = read_manifest(path)
    except (OSError, *MANIFEST_ERRORS) as error:
        raise CheckpointError(
            f"{path / MANIFEST}: missing or damaged, so this is not a whole checkpoint"
        ) from error
    if format_ != FORMAT:
        raise CheckpointError(f"{path}: written in format {format_}, this version reads format {FORMAT}")
    for record in records:
        if (damage := find_damage(path, record)) is not None:
            raise CheckpointError(f"{path / record.name}: {damage}")


def load_checkpoint(path: Path, verify: bool = True) -> Checkpoint:
    """Read a checkpoint directory.

    Raises: CheckpointError when it is missing or damaged.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no checkpoint here")
    if verify:
        verify_checkpoint(path)
    try:
        if (path / STATE).stat().st_size > MAX_STATE_BYTES:
            raise ValueError(f"more than {MAX_STATE_BYTES} bytes")
        state = json.loads((path / STATE).read_text())
        if not isinstance(state["step"], int):
            raise TypeError(f"step is {state['step']!r:.40}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path / STATE}: not the state of a run ({error!r:.200})") from error
    return Checkpoint(path, state)


def find_checkpoint(path_or_run_dir: str | Path) -> Checkpoint:
    """The checkpoint in a checkpoint directory, or the best (else the latest) of a run directory.

    Raises: CheckpointError when there is none, which names the runs below `path_or_run_dir`.
    """
    path = Path(path_or_run_dir)
    if (path / MANIFEST).exists() or STEP_DIRECTORY.fullmatch(path.name):
        return load_checkpoint(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; give a checkpoint or the directory of a run")
    best = read_best(path)
    if best is not None:
        try:
            return load_checkpoint(step_directory(path, int(best["step"])))
        except CheckpointError as error:
            print(f"the best checkpoint cannot be used, taking the latest: {error}", file=sys.stderr)
    latest = latest_checkpoint(path)
    if latest is None:
        runs = sorted(child.name for child in path.iterdir() if child.is_dir() and list_checkpoints(child))
        hint = f"; runs in it: {', '.join(runs[:8])}" if runs else "; train one with nanochat-tct train"
        raise CheckpointError(f"{path}: no usable checkpoint{hint}")
    return load_checkpoint(latest, verify=False)


def load_model(
    path_or_run_dir: str | Path, device: "str | torch.device" = "cpu"
) -> "tuple[GPT, dict[str, Any]]":
    """Load the model of a checkpoint directory, or of the best (else the latest) checkpoint of a run directory.

    Returns: the model, in evaluation mode on `device`; and `state.json` (`step`, `config`, `model_config`,
        `tokenizer`, `data`, ...) with `state["path"]`, the checkpoint's directory.
    Raises: CheckpointError (a UserError) when there is none or it is damaged.
    """
    checkpoint = find_checkpoint(path_or_run_dir)
    return checkpoint.model(device), {**checkpoint.state, "path": str(checkpoint.path)}


def check_tokenizer(state: dict[str, Any], name: str, fingerprint: str) -> None:
    """Refuse a tokenizer other than the one that the model was trained with.

    Raises: UserError that names both.
    """
    trained = state["tokenizer"]
    if trained["fingerprint"] != fingerprint:
        raise UserError(
            f"the checkpoint at iter {state['step']} was trained with tokenizer {trained['name']!r} "
            f"({trained['fingerprint'][:12]}), but this is {name!r} ({fingerprint[:12]}); use the one of then"
        )


@contextmanager
def exclusive(
    folder: Path,
    held: str = "another job trains under this name; wait, or choose another --run-name",
    waits: bool = False,
) -> Iterator[None]:
    """Lock the directory of a run or sweep, so that two jobs with the same name do not overwrite each other's files.

    Args:
        held: the message of the error when another process on this machine holds the lock.
        waits: wait for that process instead.

    Raises: UserError when another process holds the lock, or the directory cannot be created.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made, or nothing can be written there ({error.strerror}); choose another folder"
        ) from error
    with locked(path, f"{folder}: {held}", wait_seconds=-1 if waits else 0):
        yield


def _save_optimizer(optimizer_state: dict[str, Any], path: Path) -> None:
    import torch

    try:
        with open(path, "wb") as file:
            torch.save(optimizer_state, file)
    except RuntimeError as error:  # torch's writer raises it when the file cannot grow
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
