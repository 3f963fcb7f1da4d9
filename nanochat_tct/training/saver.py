"""Checkpoints written while training goes on: only the copy to the CPU's memory is waited for."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from nanochat_tct.training.checkpoint import save_checkpoint
from nanochat_tct.training.remote_run import push


class BackgroundSaver:
    """Writes, checksums and commits one checkpoint at a time in a thread of its own.

    Args:
        run_place: the run's folder, or the URI that its checkpoints are brought to once they are committed.
    """

    def __init__(self, run_place: str) -> None:
        self._run_place = run_place
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[Path] | None = None

    def save(
        self, run_dir: Path, weights: dict[str, Any], optimizer_state: Any, state: dict[str, Any], keep: int
    ) -> None:
        """Copy what `checkpoint.save_checkpoint` takes, and write it later. Waits for an earlier one first.

        Raises: UserError of the earlier one.
        """
        self.wait()
        weights, optimizer_state, state = copy_to_cpu((weights, optimizer_state, state))
        self._saving = self._thread.submit(self._save, run_dir, weights, optimizer_state, state, keep)

    def _save(
        self, run_dir: Path, weights: dict[str, Any], optimizer_state: Any, state: dict[str, Any], keep: int
    ) -> Path:
        path = save_checkpoint(run_dir, weights, optimizer_state, state, keep)
        push(run_dir, self._run_place)
        return path

    @property
    def has_failed(self) -> bool:
        """The checkpoint in flight came to nothing; `wait` raises why."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    @property
    def is_busy(self) -> bool:
        """A checkpoint is being written."""
        return self._saving is not None and not self._saving.done()

    def wait(self) -> None:
        """Come back when the checkpoint in flight is committed. Raises: its UserError, once."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Come back when nothing is written any more."""
        self._thread.shutdown()


def copy_to_cpu(value: Any) -> Any:
    """Dicts, lists and tuples with every tensor as a copy on the CPU, and everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_to_cpu(item) for item in value)
    return value
