"""How a token is drawn from logits: mask, temperature and nucleus (top-p), in float32 on the model's device."""

import torch
from torch import Tensor

MIN_TEMPERATURE = 1e-30  # below this, float32 overflows; sampling is greedy long before
MAX_TEMPERATURE = 1e30


def masked_log_probs(logits: Tensor, legal: Tensor) -> Tensor:
    """Return log-probabilities (B, vocab_size) of the legal tokens; -inf for the others.

    Args:
        logits: (B, vocab_size) float32.
        legal: (B, vocab_size) bool, at least one True in each row.
    """
    return logits.masked_fill(~legal, -torch.inf).log_softmax(-1)


def draw(log_probs: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token per row.

    Args:
        log_probs: (B, vocab_size) float32, up to a constant of each row; -inf is never drawn.
        uniform: (B,) float32 in [0, 1), which decides.
        temperature: 0 takes the most probable token.
        top_p: draw from the smallest set of most probable tokens with this total probability; of equally probable
            ones the first count.

    Returns:
        Tokens (B,) int64.
    """
    if temperature < MIN_TEMPERATURE:
        return log_probs.argmax(-1)
    below = log_probs - log_probs.amax(-1, keepdim=True)
    weights = (below / min(temperature, MAX_TEMPERATURE)).softmax(-1)
    if top_p < 1:
        weights = _nucleus(weights, top_p)
    summed = weights.cumsum(-1)
    total = summed[:, -1:]
    # rounding must not lead beyond the last token that has a probability
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(summed, target, right=True)[:, 0]


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Set the probabilities outside the nucleus to zero."""
    likely = weights
    if len(weights) == 1:
        # Tokens below (1 - top_p) / n sum to less than 1 - top_p, so they are outside the nucleus; only the others,
        # usually few, need sorting.
        least_likely = min((1 - top_p) / weights.size(1), weights.max().item())
        likely = weights[weights >= least_likely][None]
    ordered = likely.sort(-1, descending=True).values
    count = (ordered.cumsum(-1) - ordered < top_p).sum(-1, keepdim=True).clamp(min=1)  # (B, 1)
    least = ordered.gather(-1, count - 1)
    above, equal = weights > least, weights == least
    inside = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return weights.masked_fill(~inside, 0.0)
