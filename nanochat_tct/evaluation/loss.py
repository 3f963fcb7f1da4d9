"""Loss and bits per byte of a validation split, for the trainer, sweeps and `evaluate`.

An evaluation takes the whole split, or windows evenly spaced over it, the same for every model. The latter gives an
estimate, whose standard error follows from the differences between its batches.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from nanochat_tct.data.windows import MaskedRows, Windows, targets_of
from nanochat_tct.model.loss import TokenMask

# A part of a split is evaluated in at least LEAST_BATCHES batches, because a standard error from fewer is unreliable,
# unless they would have fewer than LEAST_WINDOWS windows each. There are always at least two batches.
LEAST_BATCHES, LEAST_WINDOWS = 16, 4


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """Convert nats to bits per byte of compact JSON, which can be compared across tokenizers."""
    return nats / math.log(2) / num_bytes


def evaluation_batches(
    total: int, taken: int, batch_size: int, least_batches: int = LEAST_BATCHES
) -> list[np.ndarray]:
    """The windows of each batch of an evaluation.

    Args:
        total: windows of the split.
        taken: windows of the evaluation. If these are fewer than `total`, they are evenly spaced over the split, as are
            those of each batch, so that the batches are samples of the same distribution.
        batch_size: windows of a batch, at most.
    """
    windows = (2 * np.arange(taken) + 1) * total // (2 * max(1, taken))  # every window if taken == total
    count = math.ceil(taken / batch_size)
    if taken == total:
        return [windows[index * batch_size : (index + 1) * batch_size] for index in range(count)]
    count = max(count, min(least_batches, max(2, taken // LEAST_WINDOWS), taken))
    return [windows[index::count] for index in range(count)]


@torch.no_grad()
def batch_sums(
    model: nn.Module,
    batches: Iterable[MaskedRows],
    vocab_size: int,
    pad_token: int,
    device: torch.device | str = "cpu",
    masks: Tensor | None = None,
) -> Tensor:
    """The sums over batches that `loss_figures` needs; workers add up theirs. The model must be in evaluation mode.

    Args:
        model: gives the sum of nats for (tokens, targets, legal), as GPT does.
        batches: rows of windows.
        vocab_size, pad_token: distinguish targets from position tokens and padding.
        masks: the store's, on the device, to leave illegal tokens out of the softmax.

    Returns: (6,) float64 on the device, sums over batches: nats, targets, batches that have targets, nats^2,
        nats x targets, targets^2.
    """
    sums = torch.zeros(6, dtype=torch.float64, device=device)
    for rows, mask_ids, is_context in batches:
        targets = targets_of(rows, vocab_size, pad_token)  # (n, context_size), -1 where there is none
        if is_context is not None:
            targets[is_context] = -1
        number = int((targets != -1).sum())
        tokens = torch.as_tensor(rows[:, :-1]).to(device)
        legal = None
        if masks is not None and mask_ids is not None:
            legal = TokenMask(torch.as_tensor(mask_ids).to(device), masks)
        nats = model(tokens, torch.as_tensor(targets).to(device), legal=legal).double()
        counts = torch.tensor([number, number > 0, 0, 0, number**2], dtype=torch.float64, device=device)
        sums[0] += nats
        sums[1:] += counts
        sums[3] += nats**2
        sums[4] += nats * number
    return sums


def loss_figures(sums: list[float], windows: Windows, taken: int) -> dict[str, float]:
    """The result of an evaluation.

    Args:
        sums: `batch_sums` of all its batches.
        windows: of the split, in stream windowing.
        taken: the number of evaluated windows.

    Returns:
        loss in nats a target; perplexity; bits_per_byte, an estimate if not all windows were evaluated;
        standard_error of the estimate in bits per byte: 0 for the whole split, missing for a single batch.
    """
    assert windows.windowing == "stream", "only stream windows hold every token once"
    nats, targets, batches, nats_squared, product, targets_squared = sums
    loss = nats / max(1, targets)
    token_bytes = windows.num_bytes / windows.num_targets
    figures = {"loss": loss, "perplexity": math.exp(min(loss, 700))}
    figures["bits_per_byte"] = bits_per_byte(loss, token_bytes)
    if taken == len(windows):
        figures["standard_error"] = 0.0
    elif batches > 1:
        # Of a ratio of sums over a sample of batches (Cochran 1977, "Sampling Techniques", 6.4).
        residual = max(0.0, nats_squared - 2 * loss * product + loss**2 * targets_squared)
        missing = 1 - taken / len(windows)
        error = math.sqrt(batches / (batches - 1) * residual * missing) / targets
        figures["standard_error"] = bits_per_byte(error, token_bytes)
    return figures
