"""The actor between rank 0 and the driver. Its process imports this module, which therefore imports nothing else."""

from typing import Any


class DriverChannel:
    """An actor that carries lines and metrics from rank 0 to the driver, and a stop request back."""

    def __init__(self) -> None:
        self.reason: str | None = None  # why the run is to save and end
        self.lines: list[str | dict[str, Any]] = []
        self.starts = 0

    def count_start(self) -> int:
        """Count a start of the workers. Returns how many there were before."""
        self.starts += 1
        return self.starts - 1

    def put(self, line: str | dict[str, Any]) -> None:
        """Add a line, or metrics for the progress bar."""
        self.lines.append(line)

    def take(self) -> list[str | dict[str, Any]]:
        """Everything that was put since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def stop(self, reason: str) -> None:
        """Ask the run to save and end."""
        self.reason = reason

    def stop_reason(self) -> str | None:
        """Why the run is to end; None while it is not."""
        return self.reason
