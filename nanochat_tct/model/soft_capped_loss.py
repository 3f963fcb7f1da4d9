"""Cross-entropy behind a soft-capped head, without ever holding the logits of a whole batch.

At a vocabulary of 8,192 the head and its loss are most of the work of a small model, and much of the memory
of any. So both gradients are taken in the forward pass, a chunk of rows at a time, while the logits of the
chunk are at hand; the backward pass only scales them. The mathematics is that of

    cross_entropy(cap * tanh(head(x) / cap), targets, ignore_index=-1, reduction="sum")

in float32 logits; a test holds the two against each other.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of one chunk, in numbers: small enough for the caches of a CPU, and enough to fill a GPU.
CHUNK_NUMBERS = {"cpu": 2**20, "cuda": 2**27}


class Legal(NamedTuple):
    """Which tokens may stand in some places: the softmax is over these alone.

    Attributes:
        mask_ids: int64 (...), rows of `masks`, one for each target; targets are among the tokens of theirs.
        masks: uint8 (num_masks, ceil(vocab_size / 8)), a bit a token, the first one in the highest bit.
    """

    mask_ids: Tensor
    masks: Tensor


def masks_on(device: torch.device | str, masks: np.ndarray | None) -> Tensor | None:
    """A store's table of masks as a tensor on the device: a copy, as the store's is mapped from a read-only file."""
    return None if masks is None else torch.from_numpy(np.array(masks)).to(device)


def soft_capped_nats(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    cap: float,
    legal: Legal | None = None,
) -> Tensor:
    """Sum of nats of the targets. Not for a compiled caller: on CUDA it has a kernel, on a CPU it works in place.

    Args:
        x: (N, n_embd) what the head reads.
        weight: (vocab_size, n_embd) of the head.
        targets: (N,) int64; -1 counts nothing.
        cap: logits are cap * tanh(x @ weight.T / cap).
        legal: the tokens that the softmax is over, its mask_ids (N,); None: all.

    Returns:
        float32 scalar. Under autocast the matrix products run in its dtype; all else is float32.
    """
    device_type = x.device.type
    autocast = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type) if autocast else weight.dtype
    mask_ids, masks = legal or (None, None)
    if not torch.is_grad_enabled():
        x, weight = x.detach(), weight.detach()  # a Function is not told otherwise that no gradient is wanted
    nats: Tensor = _SoftCappedNats.apply(x, weight, targets, cap, dtype, mask_ids, masks)
    return nats


def unpacked(masks: Tensor, vocab_size: int) -> Tensor:
    """Packed masks uint8 (R, ceil(vocab_size / 8)) as float32 (R, vocab_size): 1 where a token is legal."""
    # Looking bytes up takes less than half the time of shifting them.
    bits_of_bytes = ((torch.arange(256)[:, None] >> torch.arange(7, -1, -1)) & 1).float()  # (256, 8)
    return F.embedding(masks.int(), bits_of_bytes).flatten(1)[:, :vocab_size]


def chunk_nats(
    chunk: Tensor,
    weight: Tensor,
    target: Tensor,
    cap: float,
    mask_ids: Tensor | None,
    masks: Tensor | None,
    grad_weight: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Nats of some rows, and their gradients.

    Args:
        chunk: (R, n_embd), in the dtype of matrix products, as `weight`.
        target: (R,) int64.
        mask_ids: (R,), with `masks` as of Legal; None: all tokens are legal.
        grad_weight: float32, as `weight`; the gradient is added to it. None: there are no gradients.
    Returns: their sum, a float32 scalar; the gradient of `chunk`.
    """
    logits = chunk @ weight.T  # (R, vocab_size)
    is_gradient = grad_weight is not None
    if logits.is_cuda:
        from nanochat_tct.model.kernels import loss_of_logits

        nats = loss_of_logits(logits, target, cap, mask_ids, masks, is_gradient).sum()
        grad = logits  # in their place now
    else:
        nats, grad = _loss_on_cpu(logits, target, cap, mask_ids, masks, is_gradient)
    if grad_weight is None:
        return nats, None
    grad_weight += grad.T @ chunk
    return nats, grad @ weight


def _loss_on_cpu(
    logits: Tensor,
    target: Tensor,
    cap: float,
    mask_ids: Tensor | None,
    masks: Tensor | None,
    is_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """The nats of all rows, and the gradient of the logits; with no gradient wanted, numbers without meaning."""
    target = target[:, None]
    is_target = target >= 0  # (R, 1)
    target = target.clamp(min=0)
    # tanh(z / cap) is 2 sigmoid(2 z / cap) - 1, and a sigmoid is less than half the work on a CPU. The softmax
    # does not see the -1: logits are taken as 2 cap sigmoid, within (0, 2 cap). So no maximum is taken out before
    # exp.
    sigmoid = logits.float().mul_(2 / cap).sigmoid_()  # (R, vocab_size)
    weights = (sigmoid * (2 * cap)).exp_()
    if mask_ids is not None and masks is not None:
        weights.mul_(unpacked(masks[mask_ids], logits.size(1)))
    total = weights.sum(dim=1, keepdim=True)  # (R, 1)
    nats = torch.where(is_target, total.log() - 2 * cap * sigmoid.gather(1, target), 0.0).sum()
    if not is_gradient:
        return nats, sigmoid
    grad = weights.mul_(torch.where(is_target, 4 / total, 0.0))  # 4 softmax, zero where there is no target
    grad.scatter_add_(1, target, -4 * is_target.float())
    grad.mul_(sigmoid.addcmul_(sigmoid, sigmoid, value=-1))  # d tanh(z) = 4 (sigmoid - sigmoid^2)
    return nats, grad.to(logits.dtype)


class _SoftCappedNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        cap: float,
        dtype: torch.dtype,
        mask_ids: Tensor | None,
        masks: Tensor | None,
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        ctx.dtypes = x.dtype, weight.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        rows = max(1, CHUNK_NUMBERS[x.device.type] // weight.size(0))
        nats = torch.zeros((), device=x.device, dtype=torch.float32)
        grad_x = torch.empty_like(x) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_gradient else None
        for start in range(0, x.size(0), rows):
            part = slice(start, start + rows)
            ids = None if mask_ids is None else mask_ids[part]
            of_rows, grad = chunk_nats(x[part], weight, targets[part], cap, ids, masks, grad_weight)
            nats += of_rows
            if grad_x is not None and grad is not None:
                grad_x[part] = grad
        if needs_gradient:
            ctx.save_for_backward(grad_x, grad_weight)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nats: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        return (
            (grad_x * grad_nats).to(x_dtype),
            (grad_weight * grad_nats).to(weight_dtype),
            *(None,) * 5,
        )
