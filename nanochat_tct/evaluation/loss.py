"""The sum that every figure of quality is made of: nats of the targets in some rows."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nanochat_tct.data.windows import MaskedRows, targets_of
from nanochat_tct.model.soft_capped_loss import Legal


@torch.no_grad()
def sum_nats(
    model: nn.Module,
    batches: Iterable[MaskedRows],
    vocab_size: int,
    pad_token: int,
    device: torch.device | str = "cpu",
    masks: Tensor | None = None,
) -> tuple[float, int]:
    """Nats and number of the targets in batches of rows. The caller puts the model into evaluation mode.

    Args:
        model: gives the sum of nats for (tokens, targets, legal), as GPT does.
        batches: rows as windows give them.
        vocab_size, pad_token: tell position tokens and padding from targets.
        masks: the store's, on the device, if tokens that are not legal are to have no probability.

    Returns:
        The nats, summed in float64 over batches, and the targets they are for.
    """
    nats = torch.zeros((), dtype=torch.float64, device=device)
    num_targets = 0
    for rows, mask_ids in batches:
        targets = targets_of(rows, vocab_size, pad_token)  # (n, context_size), -1 where there is none
        num_targets += int((targets != -1).sum())
        tokens = torch.as_tensor(rows[:, :-1]).to(device)
        legal = None
        if masks is not None and mask_ids is not None:
            legal = Legal(torch.as_tensor(mask_ids).to(device), masks)
        nats += model(tokens, torch.as_tensor(targets).to(device), legal=legal).double()
    return float(nats), num_targets
