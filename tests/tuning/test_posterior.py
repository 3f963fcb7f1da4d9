"""Samples against posteriors that are known in closed form."""

import numpy as np

from nanochat_tct.tuning.fit import sample_posterior


def test_gaussian_posterior_is_met() -> None:
    """Prior N(0, 1), one measurement 2.0 of z0 with deviation 0.5; z1 and z2 stay at the prior."""
    z = sample_posterior(lambda z: -((z[:, 0] - 2.0) ** 2) / (2 * 0.25), dimensions=3)
    precision = 1 + 1 / 0.25
    assert abs(z[:, 0].mean() - 2.0 / 0.25 / precision) < 0.06
    assert abs(z[:, 0].std() - precision**-0.5) < 0.06
    assert np.allclose(z[:, 1:].mean(0), 0, atol=0.15) and np.allclose(z[:, 1:].std(0), 1, atol=0.12)


def test_narrow_posterior_far_out_in_the_prior_is_found() -> None:
    z = sample_posterior(lambda z: -((z[:, 0] + z[:, 1] - 6.0) ** 2) / (2 * 0.01**2), dimensions=2)
    assert np.allclose(z.sum(1), 6, atol=0.05)
    assert abs((z[:, 0] - z[:, 1]).std() - 2**0.5) < 0.2


def test_both_of_two_optima_are_kept() -> None:
    z = sample_posterior(lambda z: -((z[:, 0] ** 2 - 1) ** 2) / (2 * 0.05**2), dimensions=4)
    assert 0.35 < (z[:, 0] > 0).mean() < 0.65
    assert np.allclose(abs(z[:, 0]), 1, atol=0.15)


def test_impossible_places_are_left() -> None:
    def only_positive(z: np.ndarray) -> np.ndarray:
        return np.where(z[:, 0] > 0.5, 0.0, np.where(z[:, 1] > 0, -np.inf, np.nan))

    z = sample_posterior(only_positive, dimensions=2)
    assert (z[:, 0] > 0.5).all()


def test_seed_decides() -> None:
    def likelihood(z: np.ndarray) -> np.ndarray:
        return -((z[:, 0] - 1) ** 2)

    first, again, other = (sample_posterior(likelihood, 2, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
