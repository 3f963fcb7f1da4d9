"""The order of windows."""

import numpy as np
import pytest

from nanochat_tct.data.sampler import WindowSampler, batch_hash, shuffled


@pytest.mark.parametrize(("num_windows", "global_batch"), [(10, 4), (7, 7), (3, 8), (1, 5), (1000, 64)])
def test_every_epoch_deals_every_window_once(num_windows: int, global_batch: int) -> None:
    sampler = WindowSampler(num_windows, seed=1)
    steps = 3 * num_windows  # at least three epochs
    dealt = np.concatenate([sampler.indices(step, global_batch) for step in range(steps)])
    epochs = dealt[: 3 * num_windows].reshape(3, num_windows)
    for epoch in epochs:
        assert sorted(epoch) == list(range(num_windows))
    if num_windows > 5:
        assert not np.array_equal(epochs[0], epochs[1])


def test_is_a_pure_function_of_seed_and_step() -> None:
    going = WindowSampler(100, seed=3)
    in_order = [going.indices(step, 8) for step in range(50)]
    for step in [49, 0, 12, 13, 25, 3]:
        assert np.array_equal(WindowSampler(100, seed=3).indices(step, 8), in_order[step])
        assert np.array_equal(going.indices(step, 8), in_order[step])
    assert not np.array_equal(WindowSampler(100, seed=4).indices(0, 8), in_order[0])


def test_order_is_fixed_forever() -> None:
    assert shuffled(10, seed=0, epoch=0).tolist() == [5, 6, 1, 2, 3, 4, 9, 8, 0, 7]
    assert shuffled(3, seed=0, epoch=0).dtype == np.int64


def test_shuffle_is_even() -> None:
    counts = np.zeros((5, 5))
    for epoch in range(5000):
        counts[np.arange(5), shuffled(5, seed=9, epoch=epoch)] += 1
    assert abs(counts / 1000 - 1).max() < 0.15


def test_batch_hash_sees_every_element() -> None:
    rows = np.arange(12, dtype=np.int64).reshape(3, 4)
    other = rows.copy()
    other[2, 3] += 1
    assert batch_hash(rows) == batch_hash(rows.copy()) != batch_hash(other)
    assert batch_hash(rows) != batch_hash(rows[::-1])


def test_batch_hashes_of_parts_add_up() -> None:
    rows = np.arange(70, dtype=np.int64).reshape(10, 7)
    for cut in range(11):
        assert batch_hash(rows[:cut]) + batch_hash(rows[cut:], cut) == batch_hash(rows)
