"""SIGTERM and Ctrl-C as a stop request, which the loop answers with a checkpoint."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
PREEMPTED = "preempted"  # reasons that begin so let Ray start the workers again, on other machines


class StopSignals:
    """A context in which the first SIGTERM or Ctrl-C is a reason to stop; the same signal again ends the process.

    `tell` is called with the reason, in the middle of whatever the main thread is doing, so it must be quick.
    Python handles signals only in the main thread; in another thread there is never a reason.

    Attributes:
        at_once: there is nothing to save, so the first signal raises KeyboardInterrupt too.
    """

    def __init__(self, tell: Callable[[str], None] = lambda reason: None) -> None:
        self.tell, self.at_once = tell, False
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def reason(self) -> str | None:
        """The name of the signal, "SIGTERM" or "Ctrl-C"; None if there was none."""
        return None if self.received is None else NAMES[self.received]

    @property
    def exit_code(self) -> int:
        """A shell's exit code, 128 plus the signal's number; 0 if there was no signal."""
        return 0 if self.received is None else 128 + self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second = self.received == number
        self.received = self.received or signal.Signals(number)
        if is_second or self.at_once:
            raise KeyboardInterrupt
        if self.received == number:
            self.tell(NAMES[self.received])

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {name: signal.signal(name, self._handle) for name in NAMES}
        return self

    def __exit__(self, *exception: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)
