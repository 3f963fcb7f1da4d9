"""What a run has cost so far."""

import time
from collections.abc import Callable


class CostMeter:
    """Worker-seconds times price, from its making on: starting, compiling and evaluating are paid for too."""

    def __init__(
        self,
        workers: int,
        hourly_usd: float,
        spent_usd: float = 0.0,
        worker_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        workers: GPUs (or, without GPU, processes) that are paid for.
        hourly_usd: price of one.
        spent_usd, worker_seconds: of the run so far, from its checkpoint.
        """
        self.workers, self.hourly_usd = workers, hourly_usd
        self._spent_usd, self._worker_seconds = spent_usd, worker_seconds
        self._clock, self._start = clock, clock()

    @property
    def worker_seconds(self) -> float:
        """GPU-seconds of the run, earlier sittings included."""
        return self._worker_seconds + self.workers * (self._clock() - self._start)

    @property
    def usd(self) -> float:
        """Dollars of the run, earlier sittings at the price of their day included."""
        return self._spent_usd + self.usd_for(self._clock() - self._start)

    def usd_for(self, seconds: float) -> float:
        """Dollars that all workers together cost for so long."""
        return self.workers * seconds / 3600 * self.hourly_usd
