"""Samples of a posterior, for models with few data and many opinions: sequential Monte Carlo."""

from collections.abc import Callable

import numpy as np

LogLikelihood = Callable[[np.ndarray], np.ndarray]
TARGET_ACCEPTANCE = 0.25  # of random-walk moves in many dimensions (Roberts, Gelman and Gilks 1997)


def sample_posterior(
    log_likelihood: LogLikelihood, dimensions: int, seed: int = 0, particles: int = 1000, moves: int = 10
) -> np.ndarray:
    """Draw from prior times likelihood, the prior being a standard normal in every dimension.

    Particles drawn from the prior are led to the posterior through a ladder of temperatures: at each rung they
    are weighted, resampled, and moved by a random walk of their own covariance (Del Moral, Doucet and Jasra,
    "Sequential Monte Carlo samplers", 2006). So several optima, and dimensions that the data say nothing about,
    are no trouble. The same arguments give the same samples.

    Args:
        log_likelihood: of particles (P, dimensions) float64, (P,) float64; -inf and nan mean impossible.
        moves: of each particle on each rung; four times as many on the last one.
    Returns: (particles, dimensions) float64.
    """
    rng = np.random.default_rng(seed)

    def likelihood(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(log_likelihood(z), nan=-1e9, neginf=-1e9, posinf=-1e9)

    z = rng.standard_normal((particles, dimensions))  # (P, dimensions)
    known = likelihood(z)  # (P,)
    temperature, scale = 0.0, 2.38 / np.sqrt(dimensions)
    while temperature < 1:
        rung = next_temperature(known, temperature)
        weights = np.exp((rung - temperature) * (known - known.max()))
        chosen = resample(weights / weights.sum(), rng)
        z, known, temperature = z[chosen], known[chosen], rung
        root = np.linalg.cholesky(np.cov(z, rowvar=False).reshape(dimensions, -1) + 1e-9 * np.eye(dimensions))
        for _ in range(moves if temperature < 1 else 4 * moves):
            proposed = z + scale * rng.standard_normal(z.shape) @ root.T
            proposed_known = likelihood(proposed)
            gain = temperature * (proposed_known - known) + ((z**2).sum(1) - (proposed**2).sum(1)) / 2
            is_taken = np.log(rng.random(particles)) < gain
            z[is_taken], known[is_taken] = proposed[is_taken], proposed_known[is_taken]
            scale *= np.exp(is_taken.mean() - TARGET_ACCEPTANCE)
    return z


def next_temperature(log_likelihoods: np.ndarray, temperature: float) -> float:
    """The highest one, 1 at most, at which half of the particles still count (effective sample size)."""

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


def resample(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices (P,) of particles, each as often as its weight says, the rest by one draw (systematic)."""
    places = (rng.random() + np.arange(len(weights))) / len(weights)
    return np.searchsorted(np.cumsum(weights), places).clip(max=len(weights) - 1)
