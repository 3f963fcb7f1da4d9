"""Rotary position embeddings (Su et al. 2021): queries and keys are rotated by an angle proportional to position."""

import torch
from torch import Tensor

ROTARY_BASE = 10_000.0


def rotary_tables(length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotation angles of each position, (length, head_dim / 2) each."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the channel pairs (i, i + head_dim / 2) of x; passing -sin rotates back.

    x: (..., head_dim); cos, sin: broadcastable to (..., head_dim / 2), such as (T, 1, head_dim / 2) for an x of
    (B, T, n_head, head_dim).
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1).to(x.dtype)
