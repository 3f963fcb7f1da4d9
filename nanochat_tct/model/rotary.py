"""Rotary embeddings: where a token stands is told to attention by turning its queries and keys (Su et al. 2021)."""

import torch
from torch import Tensor

ROTARY_BASE = 10_000.0


def rotary_tables(length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which place t turns channel pairs: each (length, head_dim / 2)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of channels (i, i + head_dim / 2) of x.

    x: (..., head_dim); cos, sin: (..., head_dim / 2), with which half of x is multiplied: (T, 1, head_dim / 2) or
    (B, T, 1, head_dim / 2) for the (B, T, n_head, head_dim) of attention. With -sin they are turned back.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1).to(x.dtype)
