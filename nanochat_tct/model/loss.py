"""Cross-entropy of a soft-capped head, without holding the logits of a whole batch.

With a vocabulary of 8,192, the head and its loss take most of a small model's time and much of any model's memory.
Therefore the forward pass also computes both gradients, for one chunk of rows at a time, while its logits exist, and
the backward pass only scales them. The result equals

    cross_entropy(cap * tanh(head(x) / cap), targets, ignore_index=-1, reduction="sum")

with float32 logits; a test compares the two.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits per chunk: few enough for a CPU's caches, enough to fill a GPU.
CHUNK_LOGITS = {"cpu": 2**20, "cuda": 2**27}


class TokenMask(NamedTuple):
    """The legal tokens of each target, over which alone the softmax runs.

    Attributes:
        mask_ids: int64 (...), the row of `masks` for each target; the target is legal in it.
        masks: uint8 (num_masks, ceil(vocab_size / 8)), one bit per token, first token in the highest bit.
    """

    mask_ids: Tensor
    masks: Tensor


def masks_on(device: torch.device | str, masks: np.ndarray | None) -> Tensor | None:
    """Copy a store's memory-mapped, read-only table of masks to the device."""
    return None if masks is None else torch.from_numpy(np.array(masks)).to(device)


def soft_capped_nats(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    cap: float,
    legal: TokenMask | None = None,
) -> Tensor:
    """Return the summed loss of the targets in nats.

    Do not call it from compiled code: it runs a Triton kernel on CUDA and works in place on CPU.

    Args:
        x: (N, n_embd), the head's input.
        weight: (vocab_size, n_embd), the head's weight.
        targets: (N,) int64; -1 marks a row without a target.
        cap: logits are cap * tanh(x @ weight.T / cap).
        legal: the tokens that the softmax is over, with mask_ids (N,); None: all tokens.

    Returns:
        float32 scalar. Under autocast the matrix products run in its dtype, everything else in float32.
    """
    device_type = x.device.type
    autocast = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type) if autocast else weight.dtype
    mask_ids, masks = legal or (None, None)
    if not torch.is_grad_enabled():
        x, weight = x.detach(), weight.detach()  # else ctx.needs_input_grad is True even under no_grad
    nats: Tensor = _SoftCappedNats.apply(x, weight, targets, cap, dtype, mask_ids, masks)
    return nats


def unpacked(masks: Tensor, vocab_size: int) -> Tensor:
    """Unpack masks uint8 (R, ceil(vocab_size / 8)) as float32 (R, vocab_size), 1 where a token is legal."""
    # Looking up bytes takes less than half the time of shifting bits.
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
    """Return the summed nats of a chunk of rows, a float32 scalar, and the gradient of `chunk`.

    Args:
        chunk: (R, n_embd), in the dtype of the matrix products, like `weight`.
        target: (R,) int64.
        mask_ids: (R,), with `masks` as in TokenMask; None: all tokens are legal.
        grad_weight: float32, shaped like `weight`; the gradient is added to it. None: compute no gradients.
    """
    logits = chunk @ weight.T  # (R, vocab_size)
    is_gradient = grad_weight is not None
    if logits.is_cuda:
        from nanochat_tct.model.kernels import loss_of_logits

        nats = loss_of_logits(logits, target, cap, mask_ids, masks, is_gradient).sum()
        grad = logits  # overwritten by the kernel
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
    """Return the summed nats and the gradient of the logits (meaningless unless `is_gradient`)."""
    target = target[:, None]
    is_target = target >= 0  # (R, 1)
    target = target.clamp(min=0)
    # tanh(z / cap) is 2 sigmoid(2 z / cap) - 1, and a sigmoid takes less than half the time on CPU. Softmax ignores
    # the constant -1, so logits become 2 cap sigmoid, within (0, 2 cap), and exp needs no maximum subtracted.
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
        rows = max(1, CHUNK_LOGITS[x.device.type] // weight.size(0))
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
