"""Run one call at a time in a thread, and drop a call that nobody waits for any longer."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
GRACE_TICKS = 100  # milliseconds in which an exception that was sent to a thread is raised there


class _Interrupted(BaseException):
    """Raised inside a call from another thread."""


class Worker:
    """One thread. The tokenizer's engine must not be used by two, and a document must not hold up the others.

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
        """Return the result of a function.

        Args:
            seconds: that it may take, the wait for earlier calls left out.

        Raises:
            TimeoutError: it took longer.
        """
        call, loop = object(), asyncio.get_running_loop()

        def begin_to_count() -> None:
            loop.call_later(seconds, self._interrupt, call)

        future = loop.run_in_executor(
            self._pool,
            self._run,
            call,
            lambda: loop.call_soon_threadsafe(begin_to_count),
            lambda: function(*arguments),
        )
        try:
            return await future
        except asyncio.CancelledError:  # one that has not begun is dropped by the executor
            if self._drops_begun:
                self._interrupt(call)
            raise

    def _run(self, call: object, on_begin: Callable[[], Any], function: Callable[[], Result]) -> Result:
        # Nothing in here may start a thread: until it runs, CPython takes a new thread for the one that starts it, and
        # the exception would end the new one, for which this one would wait forever.
        try:
            with self._lock:
                self._thread, self._current = threading.get_ident(), call
            try:
                on_begin()
                result = function()
            except Exception:
                self._end()
                raise
            self._end()
            return result
        except _Interrupted:
            raise TimeoutError from None

    def _end(self) -> None:
        """Accept no more interrupts. One that was sent is raised here, and not in the executor's own code."""
        with self._lock:
            is_sent, self._current = self._current is None, None
        if is_sent:
            for _ in range(GRACE_TICKS):  # it may have been raised where Python drops exceptions
                time.sleep(0.001)

    def _interrupt(self, call: object) -> None:
        """Make a call raise if it is the one that runs."""
        with self._lock:
            if call is not None and self._current is call:
                self._current = None
                thread = ctypes.c_ulong(self._thread)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_Interrupted))

    def close(self) -> None:
        """Interrupt the running call and drop the waiting ones."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._interrupt(self._current)
