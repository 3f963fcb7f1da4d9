"""Work in a thread, with its result."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_thread(do: Callable[[], Result]) -> Future[Result]:
    """Start `do` in a thread that does not keep this process alive."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(do())
        except BaseException as error:  # raised again by `future.result`
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
