"""The speed of training, the peak speed of the device, and the cost."""

import functools
import time
from collections.abc import Callable

import torch

from nanochat_tct.model.accounting import flops_per_token, peak_flops
from nanochat_tct.training.config import ResolvedConfig


def peak_of(device: torch.device) -> float:
    """Peak FLOPs a second: from a GPU's data sheet, or for other devices as measured with a matrix product."""
    listed = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return listed or measured_flops(device, torch.get_num_threads())


@functools.cache
def measured_flops(device: torch.device, threads: int) -> float:
    """FLOPs a second of the fastest of a few float32 matrix products, measured once in a process.

    Args:
        threads: those of torch, which the result depends on.
    """
    size = 1024
    matrix = torch.ones(size, size, device=device)
    fastest = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


class Speed:
    """Measures tokens a second, the share of the peak (model FLOPs utilization), and the time left."""

    def __init__(self, config: ResolvedConfig, global_batch: int, peak: float, step: int) -> None:
        """Args:
        global_batch: windows of an iter.
        peak: FLOPs a second of all workers together.
        step: steps done before.
        """
        shape = config.model()
        self.tokens = global_batch * shape.context_size
        self.flops = flops_per_token(shape)
        self.peak = peak
        self.first = self.step = step
        self.max_iters = config.max_iters
        self.start = time.monotonic()
        self.steps, self.seconds = 0, 0.0

    def start_step(self) -> None:
        """A step begins."""
        self.step_start = time.monotonic()

    def end_step(self) -> None:
        """A step is done."""
        self.seconds += time.monotonic() - self.step_start
        self.steps += 1
        self.step += 1

    def metrics(self) -> dict[str, float]:
        """The speed since the last call, and the time left, which includes evaluations and checkpoints."""
        tokens_per_second = self.steps * self.tokens / max(self.seconds, 1e-9)
        self.steps, self.seconds = 0, 0.0
        elapsed = time.monotonic() - self.start
        return {
            "tokens_per_second": tokens_per_second,
            "mfu": tokens_per_second * self.flops / self.peak,
            "eta_seconds": elapsed / (self.step - self.first) * (self.max_iters - self.step),
        }


class CostMeter:
    """Worker-seconds times price since its creation: starting, compiling and evaluating cost money too.

    Args:
        workers: the number of GPUs, or of processes on CPUs.
        hourly_usd: the price of one.
        spent_usd, worker_seconds: what the run has cost before, from its checkpoint.
    """

    def __init__(
        self,
        workers: int,
        hourly_usd: float,
        spent_usd: float = 0.0,
        worker_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers, self.hourly_usd = workers, hourly_usd
        self._spent_usd, self._worker_seconds = spent_usd, worker_seconds
        self._clock, self._start = clock, clock()

    @property
    def worker_seconds(self) -> float:
        """Seconds times workers of the run, including the time before its checkpoint."""
        return self._worker_seconds + self.workers * (self._clock() - self._start)

    @property
    def usd(self) -> float:
        """Dollars of the run, including the time before its checkpoint, at the price at that time."""
        return self._spent_usd + self.usd_for(self._clock() - self._start)

    def usd_for(self, seconds: float) -> float:
        """Dollars that all workers together cost in `seconds`."""
        return self.workers * seconds / 3600 * self.hourly_usd
