"""Calls that take too long, or that nobody waits for."""

import asyncio
import time

import pytest

from nanochat_tct.editor.worker import Worker


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_call_that_takes_too_long_is_interrupted_and_the_next_one_runs() -> None:
    async def session() -> float:
        worker = Worker("test")
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await worker.call(0.1, busy, 600)
        assert await worker.call(60, lambda: 7) == 7
        worker.close()
        return time.monotonic() - begun

    assert asyncio.run(session()) < 60


def test_a_cancelled_call_is_interrupted_and_one_that_waits_never_begins() -> None:
    begun: list[str] = []

    def first() -> None:
        begun.append("first")
        busy(600)

    async def session() -> float:
        worker = Worker("test")
        running = asyncio.ensure_future(worker.call(600, first))
        waiting = asyncio.ensure_future(worker.call(600, lambda: begun.append("second")))
        while not begun:
            await asyncio.sleep(0.01)
        start = time.monotonic()
        waiting.cancel()
        running.cancel()
        assert await worker.call(60, lambda: 7) == 7
        for task in (running, waiting):
            with pytest.raises(asyncio.CancelledError):
                await task
        worker.close()
        return time.monotonic() - start

    assert asyncio.run(session()) < 60
    assert begun == ["first"]


def test_errors_of_a_call_come_out() -> None:
    async def session() -> None:
        worker = Worker("test")
        with pytest.raises(ZeroDivisionError):
            await worker.call(60, lambda: 1 // 0)
        worker.close()

    asyncio.run(session())
