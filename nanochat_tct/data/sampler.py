"""The order in which training sees windows: a pure function of (seed, step) over the global batch.

There is no state, so the step alone is enough to resume a run, and the order does not depend on the number of workers.
The shuffle is our own, so that no new version of NumPy or torch changes it.
"""

import hashlib

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15


class WindowSampler:
    """Chooses the windows of each batch from 0 .. num_windows - 1: each once an epoch, every epoch in a new order."""

    def __init__(self, num_windows: int, seed: int) -> None:
        assert num_windows > 0, "a sampler needs at least one window"
        self.num_windows = num_windows
        self.seed = seed
        self._epochs: dict[int, np.ndarray] = {}  # the permutations in use: a cache, not a state

    def indices(self, step: int, global_batch: int) -> np.ndarray:
        """The windows of iter `step`, int64 (global_batch,). A batch may reach into the next epoch."""
        position = step * global_batch
        end = position + global_batch
        pieces = []
        while position < end:
            epoch, offset = divmod(position, self.num_windows)
            piece = self._permutation(epoch)[offset : offset + end - position]
            pieces.append(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            while len(self._epochs) >= 2:  # a batch may straddle two epochs
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = shuffled(self.num_windows, self.seed, epoch)
        return self._epochs[epoch]


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(count), int64: the numbers sorted by a 64-bit hash of (seed, epoch, number)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "little")
    hashes = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)  # splitmix64
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(hashes ^ (hashes >> np.uint64(31)), kind="stable")


def batch_hash(rows: np.ndarray, first: int = 0) -> int:
    """A hash of a batch of windows, to compare runs. Workers hold a part of the batch each, and add up their hashes.

    A sum over 2**17 rows is still exact in float64.

    Args:
        rows: (n, window) integers, a contiguous part of the batch.
        first: index of the first row in the batch.
    Returns: the sum over rows of 36 bits of the SHA-256 of (index, row).
    """
    contiguous = np.ascontiguousarray(rows, dtype="<i8")
    digests = (
        hashlib.sha256(index.to_bytes(8, "little") + row.tobytes()).digest()
        for index, row in enumerate(contiguous, start=first)
    )
    return sum(int.from_bytes(digest[:8], "little") >> 28 for digest in digests)
