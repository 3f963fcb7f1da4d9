"""Fused operations with our own GPU kernels: the MLP with its activation, and rotated, normalised queries and keys.

Both are bound by memory traffic, and torch.compile makes more passes over memory than necessary. The kernels are in
`kernels.py`. This file holds the autograd functions, and the same formulas in plain PyTorch, so that tests run on CPU.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.model.rotary import rotate

NORM_EPS = torch.finfo(torch.float32).eps  # torch's default for RMSNorm
SHARED_MEMORY = 213_032  # bytes that the largest kernel needs; some consumer GPUs have less than half


def fits_mlp(device: torch.device, n_embd: int) -> bool:
    """Return whether the MLP's kernels run on the device: Hopper or newer, whose TMA needs rows of 16 bytes."""
    if device.type != "cuda" or n_embd % 8:
        return False
    properties = torch.cuda.get_device_properties(device)
    # AMD GPUs lack the property and the kernels.
    return properties.major >= 9 and getattr(properties, "shared_memory_per_block_optin", 0) >= SHARED_MEMORY


# --------------------------------------------------------------------------------------------------------
# relu(x U^T)^2 D^T. h = x U^T is never stored: the first product writes relu(h)^2, whose derivative 2 relu(h) is twice
# its square root, so the backward pass needs nothing else. modded-nanogpt fuses both into the matrix products too.


@torch.library.custom_op("nanochat_tct::matmul_relu_squared", mutates_args=())
def matmul_relu_squared(x: Tensor, weight: Tensor) -> Tensor:
    """relu(x @ weight.T)^2: x (R, in), weight (out, in), to (R, out)."""
    if x.is_cuda:
        from nanochat_tct.model import kernels

        return kernels.matmul_relu_squared(x, weight)
    return F.relu(x @ weight.T).square()


@torch.library.custom_op("nanochat_tct::grad_of_relu_squared", mutates_args=())
def grad_of_relu_squared(grad: Tensor, weight: Tensor, squared: Tensor) -> Tensor:
    """Gradient of h, where squared = relu(h)^2 and y = squared @ weight.T, from that of y.

    grad: (R, out), weight: (out, in), squared: (R, in). Returns: (R, in).
    """
    if grad.is_cuda:
        from nanochat_tct.model import kernels

        return kernels.grad_of_relu_squared(grad.contiguous(), weight, squared)
    return (grad @ weight) * 2 * squared.sqrt()


@matmul_relu_squared.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(0))


@grad_of_relu_squared.register_fake
def _(grad: Tensor, weight: Tensor, squared: Tensor) -> Tensor:
    return torch.empty_like(squared)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        squared = matmul_relu_squared(x, up)
        ctx.save_for_backward(x, up, down, squared)
        return squared @ down.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, up, down, squared = ctx.saved_tensors
        grad_hidden = grad_of_relu_squared(grad, down, squared)
        return grad_hidden @ up, grad_hidden.T @ x, grad.T @ squared


def relu_squared_mlp(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """relu(x @ up.T)^2 @ down.T: x (B, T, n_embd), up (hidden, n_embd), down (n_embd, hidden), to (B, T, n_embd)."""
    y: Tensor = _MLP.apply(x.flatten(0, 1), up, down)
    return y.view(x.shape)


# --------------------------------------------------------------------------------------------------------
# Queries and keys, rotated by their positions and normalised.


@torch.library.custom_op("nanochat_tct::rotate_and_norm", mutates_args=())
def rotate_and_norm(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """`norm(rotate(...))` of queries and of keys.

    qkv: (B, T, 3, n_head, head_dim); cos, sin: (T, head_dim / 2). Returns: each (B, T, n_head, head_dim), contiguous.
    """
    if qkv.is_cuda:
        from nanochat_tct.model import kernels

        return kernels.rotate_and_norm(qkv, cos, sin)
    rotated, scale = _rotated(qkv, cos, sin)
    q, k = (rotated * scale).to(qkv.dtype).unbind(2)
    return q.contiguous(), k.contiguous()


@torch.library.custom_op("nanochat_tct::grad_of_rotate_and_norm", mutates_args=())
def grad_of_rotate_and_norm(
    grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Return the gradient of qkv, given those of its three parts, (B, T, n_head, head_dim) each."""
    if qkv.is_cuda:
        from nanochat_tct.model import kernels

        return kernels.grad_of_rotate_and_norm(
            grad_q.contiguous(), grad_k.contiguous(), grad_v.contiguous(), qkv, cos, sin
        )
    rotated, scale = _rotated(qkv, cos, sin)
    normed, grad = rotated * scale, torch.stack((grad_q, grad_k), dim=2).float()
    grad = scale * (grad - normed * (grad * normed).mean(dim=-1, keepdim=True))
    grad = rotate(grad, cos[:, None, None], -sin[:, None, None])
    return torch.cat((grad.to(qkv.dtype), grad_v[:, :, None]), dim=2)


def _rotated(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotated queries and keys, float32 (B, T, 2, n_head, head_dim), and their RMSNorm scale (..., 1)."""
    rotated = rotate(qkv[:, :, :2].float(), cos[:, None, None], sin[:, None, None])
    return rotated, (rotated.square().mean(dim=-1, keepdim=True) + NORM_EPS).rsqrt()


@rotate_and_norm.register_fake
def _(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    B, T, _, n_head, head_dim = qkv.shape
    return qkv.new_empty(B, T, n_head, head_dim), qkv.new_empty(B, T, n_head, head_dim)


@grad_of_rotate_and_norm.register_fake
def _(grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.empty_like(qkv)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(qkv, cos, sin)
        return *rotate_and_norm(qkv, cos, sin), qkv[:, :, 2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grad_of_rotate_and_norm(*grads, *ctx.saved_tensors), None, None


def heads(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries and keys as attention takes them, `norm(rotate(...))`, and the values.

    qkv: (B, T, 3, n_head, head_dim); cos, sin: (T, 1, head_dim / 2). Returns: each (B, T, n_head, head_dim).
    """
    q, k, v = _Heads.apply(qkv, cos.squeeze(1), sin.squeeze(1))
    return q, k, v
