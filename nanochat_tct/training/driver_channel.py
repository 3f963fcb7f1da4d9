"""The actor between rank 0 and the driver. Its process imports this module, which therefore imports no other."""

import time
from typing import Any


class DriverChannel:
    """An actor that carries lines and metrics from rank 0 to the driver, and a stop request back."""

    def __init__(self) -> None:
        self.reason: str | None = None  # why the run should save and stop
        self.lines: list[str | dict[str, Any]] = []
        self.starts = 0
        self.begun = time.monotonic()

    def begin(self, num_workers: int) -> None:
        """Say that workers are being started."""
        self.begun = time.monotonic()
        self.put(f"starting {num_workers} worker{'s' * (num_workers > 1)} ...")

    def count_start(self) -> int:
        """Say how long the first start of the workers took, and count it; return the number of earlier starts."""
        if not self.starts:
            self.put(f"workers started in {time.monotonic() - self.begun:.1f} s")
        self.starts += 1
        return self.starts - 1

    def put(self, line: str | dict[str, Any]) -> None:
        """Add a line, or metrics for the progress bar."""
        self.lines.append(line)

    def take(self) -> list[str | dict[str, Any]]:
        """Return and remove everything that was put since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def stop(self, reason: str) -> None:
        """Ask the run to save and stop."""
        self.reason = reason

    def stop_reason(self) -> str | None:
        """Why the run should stop; None if it should not."""
        return self.reason
