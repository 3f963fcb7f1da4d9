"""How a token is drawn from logits: temperature, nucleus (top-p) and noise. Needs no PyTorch."""

from dataclasses import dataclass

import numpy as np

from nanochat_tct.errors import UserError

MIN_TEMPERATURE = 1e-300  # below this, logits / temperature overflow; sampling is greedy long before


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn."""

    temperature: float = 1.0  # 0: always the most probable token
    top_p: float = 1.0  # sample from the smallest set of most probable tokens with this total probability
    seed: int = 0
    max_tokens: int = 2048  # per document, including the prompt

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: it must be 0 or more")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if not 0 <= self.seed < 1 << 64:
            raise UserError(f"seed is {self.seed}: it must be 0 or more, and less than 2^64")


def score_tokens(
    logits: np.ndarray, temperature: float, top_p: float, random: np.random.Generator
) -> np.ndarray:
    """Return scores (n,) float64 whose descending order samples tokens without replacement.

    This is the Gumbel-max trick: the token of the highest score is a draw from the softmax, and if it is
    rejected, the next one is a draw from the rest. Tokens outside the top_p nucleus follow all inside it, by
    probability.

    Args:
        logits: (n,) float64, of the legal tokens.
    """
    if temperature < MIN_TEMPERATURE:
        return logits.copy()
    log_weights = logits / temperature
    # One draw for every token, so that later draws do not depend on top_p.
    uniform = random.random(len(logits))
    if top_p == 1:
        return log_weights + gumbel(uniform)
    probabilities = np.exp(log_weights - log_weights.max())
    probabilities /= probabilities.sum()
    # Tokens below (1 - top_p) / n sum to less than 1 - top_p, so they are outside the nucleus; only the others, usually
    # few, need sorting. Sorting values takes a fifth of the time of sorting indices.
    likely = np.flatnonzero(probabilities >= min((1 - top_p) / len(probabilities), probabilities.max()))
    ordered = np.sort(probabilities[likely])[::-1]
    count = np.count_nonzero(np.cumsum(ordered) - ordered < top_p)
    least = ordered[count - 1]
    above = likely[probabilities[likely] > least]
    equal = likely[probabilities[likely] == least][: count - len(above)]
    inside = np.concatenate([above, equal])
    scores = log_weights - 1e9
    scores[inside] = log_weights[inside] + gumbel(uniform[inside])
    return scores


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Turn uniform draws in [0, 1) into draws of the standard Gumbel distribution."""
    noise: np.ndarray = -np.log(-np.log(1 - uniform))
    return noise
