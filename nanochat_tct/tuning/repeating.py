"""Something done again and again while something else goes on."""

import threading
from collections.abc import Callable


class Repeating:
    """A thread that calls `action` every `seconds`, from `start` to `stop`."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self.seconds, self.action = seconds, action
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._done.wait(self.seconds):
            self.action()

    def start(self) -> None:
        """Begin; the first call comes after `seconds`."""
        self._thread.start()

    def stop(self) -> None:
        """Come back when the last call is done. Of one that was not started: at once."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
