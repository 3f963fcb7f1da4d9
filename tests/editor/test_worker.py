"""Calls that take too long, or that nobody waits for."""

import asyncio
import time

import pytest

from nanochat_tct.editor.worker import Worker
from tests.support.editor import asynchronous


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@asynchronous
async def test_a_call_that_takes_too_long_is_interrupted_and_the_next_one_runs() -> None:
    worker = Worker("test")
    with pytest.raises(TimeoutError):
        await worker.call(0.1, busy, 600)
    assert await worker.call(60, lambda: 7) == 7
    worker.close()


@asynchronous
async def test_a_cancelled_call_is_interrupted_and_one_that_waits_never_begins() -> None:
    begun: list[str] = []

    def first() -> None:
        begun.append("first")
        busy(600)

    worker = Worker("test")
    running = asyncio.ensure_future(worker.call(600, first))
    waiting = asyncio.ensure_future(worker.call(600, lambda: begun.append("second")))
    while not begun:
        await asyncio.sleep(0.01)
    waiting.cancel()
    running.cancel()
    assert await worker.call(60, lambda: 7) == 7
    for task in (running, waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    worker.close()
    assert begun == ["first"]


@asynchronous
async def test_errors_of_a_call_come_out() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.call(60, lambda: 1 // 0)
    worker.close()


@asynchronous
async def test_calls_that_are_dropped_while_they_begin_do_not_stop_the_worker() -> None:
    worker = Worker("test")
    for number in range(400):
        waiting = asyncio.create_task(worker.call(5, time.sleep, 0.001))
        await asyncio.sleep(0.0001 * (number % 10))
        waiting.cancel()
    assert await asyncio.wait_for(worker.call(5, lambda: "answer"), 20) == "answer"
    worker.close()
