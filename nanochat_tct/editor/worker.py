"""A thread that runs one call at a time, and drops one that nobody waits for any longer."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Interrupted(BaseException):
    """Raised inside a call from another thread."""


class Worker:
    """One thread. The tokenizer's engine is not made for two, and a document must not hold up the others.

    A call that is cancelled, or that takes too long, is interrupted between two instructions of Python: a hostile
    document costs its time limit, and the next call finds the thread free.

    Args:
        drops_begun: False: a cancelled call that has begun goes on to its end or its time limit.
    """

    def __init__(self, name: str, drops_begun: bool = True) -> None:
        self._drops_begun = drops_begun
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._thread = 0
        self._current: object = None  # the call that may be interrupted

    async def call(self, seconds: float, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of a function.

        Args:
            seconds: that it may take, the wait for earlier calls left out.

        Raises:
            TimeoutError: it took longer.
        """
        call = object()
        future = asyncio.get_running_loop().run_in_executor(
            self._pool, self._run, call, seconds, lambda: function(*arguments)
        )
        try:
            return await future
        except asyncio.CancelledError:  # one that has not begun is dropped by the executor
            if self._drops_begun:
                self._interrupt(call)
            raise

    def _run(self, call: object, seconds: float, function: Callable[[], Result]) -> Result:
        timer = threading.Timer(seconds, self._interrupt, [call])
        timer.daemon = True
        try:
            with self._lock:
                self._thread, self._current = threading.get_ident(), call
            timer.start()
            try:
                return function()
            finally:
                timer.cancel()
                with self._lock:
                    self._current = None
        except _Interrupted:
            raise TimeoutError from None

    def _interrupt(self, call: object) -> None:
        """Make a call raise, if it is the one that runs."""
        with self._lock:
            if call is not None and self._current is call:
                self._current = None
                thread = ctypes.c_ulong(self._thread)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_Interrupted))

    def close(self) -> None:
        """Interrupt what runs, drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._interrupt(self._current)
