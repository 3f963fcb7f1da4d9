"""Samples of a posterior whose prior is a standard normal in every dimension."""

from collections.abc import Callable

import numpy as np

PARTICLES = 1000
MOVES = 20  # of each particle on each rung; four times as many on the last one
TARGET_ACCEPTANCE = 0.25  # of random-walk moves in many dimensions (Roberts, Gelman and Gilks 1997)


def sample_posterior(
    log_likelihood: Callable[[np.ndarray], np.ndarray], dimensions: int, seed: int = 0
) -> np.ndarray:
    """Draw from prior times likelihood by sequential Monte Carlo (Del Moral, Doucet and Jasra 2006).

    Particles drawn from the prior climb a ladder of temperatures to the posterior. On each rung they are weighted,
    resampled, and moved by a random walk with their own covariance. This finds several optima and copes with
    dimensions that the data say nothing about. The same arguments give the same samples.

    Args:
        log_likelihood: of particles (P, dimensions) float64, (P,) float64; -inf and nan mean impossible.
    Returns: (PARTICLES, dimensions) float64.
    """
    rng = np.random.default_rng(seed)

    def likelihood(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(log_likelihood(z), nan=-1e9, neginf=-1e9, posinf=-1e9)

    z = rng.standard_normal((PARTICLES, dimensions))  # (P, dimensions)
    current = likelihood(z)  # (P,)
    temperature, scale = 0.0, 2.38 / np.sqrt(dimensions)
    while temperature < 1:
        rung = _next_temperature(current, temperature)
        weights = np.exp((rung - temperature) * (current - current.max()))
        chosen = _resample(weights / weights.sum(), rng)
        z, current, temperature = z[chosen], current[chosen], rung
        root = np.linalg.cholesky(np.cov(z, rowvar=False).reshape(dimensions, -1) + 1e-9 * np.eye(dimensions))
        for _ in range(MOVES if temperature < 1 else 4 * MOVES):
            proposed = z + scale * rng.standard_normal(z.shape) @ root.T
            proposed_likelihood = likelihood(proposed)
            gain = temperature * (proposed_likelihood - current)
            gain += ((z**2).sum(1) - (proposed**2).sum(1)) / 2
            is_taken = np.log(rng.random(PARTICLES)) < gain
            z[is_taken], current[is_taken] = proposed[is_taken], proposed_likelihood[is_taken]
            scale *= np.exp(is_taken.mean() - TARGET_ACCEPTANCE)
    return z


def _next_temperature(log_likelihoods: np.ndarray, temperature: float) -> float:
    """The highest temperature up to 1 that keeps half of the particles (effective sample size)."""

    def effective(rung: float) -> float:
        weights = np.exp((rung - temperature) * (log_likelihoods - log_likelihoods.max()))
        return float(weights.sum() ** 2 / (weights**2).sum())

    half = len(log_likelihoods) / 2
    if effective(1.0) >= half:
        return 1.0
    low, high = temperature, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= half else (low, middle)
    return high


def _resample(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices (P,) of particles, each as often as its weight says (systematic resampling)."""
    positions = (rng.random() + np.arange(len(weights))) / len(weights)
    return np.searchsorted(np.cumsum(weights), positions).clip(max=len(weights) - 1)
