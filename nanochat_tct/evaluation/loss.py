"""The sum that every figure of quality is made of: nats of the targets in some rows."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from nanochat_tct.data.windows import targets_of


@torch.no_grad()
def sum_nats(
    model: nn.Module,
    batches: Iterable[np.ndarray],
    vocab_size: int,
    pad_token: int,
    device: torch.device | str = "cpu",
) -> tuple[float, int]:
    """Nats and number of the targets in batches of rows. The caller puts the model into evaluation mode.

    Args:
        model: gives the sum of nats for (tokens, targets), as GPT does.
        batches: int64 arrays (n, context_size + 1) of rows as windows give them.
        vocab_size, pad_token: tell position tokens and padding from targets.

    Returns:
        The nats, summed in float64 over batches, and the targets they are for.
    """
    nats = torch.zeros((), dtype=torch.float64, device=device)
    num_targets = 0
    for rows in batches:
        targets = targets_of(rows, vocab_size, pad_token)  # (n, context_size), -1 where there is none
        num_targets += int((targets != -1).sum())
        tokens = torch.as_tensor(rows[:, :-1]).to(device)
        nats += model(tokens, torch.as_tensor(targets).to(device)).double()
    return float(nats), num_targets
