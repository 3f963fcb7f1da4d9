"""What driver and workers tell each other. By itself, so that the actor that holds it starts without PyTorch."""

from typing import Any


class DriverChannel:
    """Between driver and rank 0: lines and numbers for the bar come this way, a wish to stop goes that way."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.lines: list[str | dict[str, Any]] = []
        self.starts = 0

    def count_start(self) -> int:
        """How often the workers were started before this time."""
        self.starts += 1
        return self.starts - 1

    def put(self, line: str | dict[str, Any]) -> None:
        """Add one."""
        self.lines.append(line)

    def take(self) -> list[str | dict[str, Any]]:
        """All that came since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def stop(self, reason: str) -> None:
        """The driver wants the run to save and end."""
        self.reason = reason

    def stop_reason(self) -> str | None:
        """Why, or None."""
        return self.reason
