"""Writes checkpoints while training continues, which waits only for the copy to the CPU's memory."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from nanochat_tct.model.checkpoint import save_checkpoint
from nanochat_tct.model.remote_run import push


class BackgroundSaver:
    """Writes, checksums and commits one checkpoint at a time, in a thread.

    Args:
        run_path_or_uri: the run's folder, or the URI to which committed checkpoints are uploaded.
    """

    def __init__(self, run_path_or_uri: str) -> None:
        self._run_path_or_uri = run_path_or_uri
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    def save(
        self, run_dir: Path, weights: dict[str, Any], optimizer_state: Any, state: dict[str, Any], keep: int
    ) -> None:
        """Copy the arguments of `checkpoint.save_checkpoint`, and write them in the thread, after an earlier save.

        Raises: UserError of the earlier save.
        """
        self.wait()
        weights, optimizer_state, state = copy_to_cpu((weights, optimizer_state, state))

        def write() -> None:
            save_checkpoint(run_dir, weights, optimizer_state, state, keep)
            push(run_dir, self._run_path_or_uri)

        self._saving = self._thread.submit(write)

    @property
    def has_failed(self) -> bool:
        """Whether writing the last checkpoint has failed; `wait` raises the reason."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    def wait(self) -> None:
        """Wait until the last checkpoint is committed. Raises: its UserError, once."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Wait for the last checkpoint, and end the thread."""
        self._thread.shutdown()


def copy_to_cpu(value: Any) -> Any:
    """Copy dicts, lists and tuples, and every tensor to the CPU; all other values are shared."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_to_cpu(item) for item in value)
    return value
