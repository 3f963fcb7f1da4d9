"""Triton kernels for CUDA, for operations that torch.compile turns into several passes over memory.

This module is imported only on CUDA devices, since Triton comes with PyTorch's CUDA builds.

loss_of_logits            the soft-capped loss over legal tokens and its gradient, in one pass over the logits
matmul_relu_squared       relu(x W^T)^2 and its gradient, inside the matrix products
rotate_and_norm           rotated and normalised queries and keys, and the gradient of qkv

Block sizes, warps and stages were tuned on an H200.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda.libdevice import fast_dividef
from triton.tools.tensor_descriptor import TensorDescriptor

from nanochat_tct.model.fused import NORM_EPS

LOG2_E = tl.constexpr(1.4426950408889634)


def loss_of_logits(
    logits: Tensor,
    targets: Tensor,
    cap: float,
    mask_ids: Tensor | None,
    masks: Tensor | None,
    is_gradient: bool,
) -> Tensor:
    """Return the nats of each row; if `is_gradient`, the gradient of their sum overwrites the logits.

    Args:
        logits: (R, vocab_size) contiguous, before the soft cap.
        targets: (R,) int64; -1 marks a row without a target.
        mask_ids, masks: as in TokenMask, with mask_ids (R,); None: all tokens are legal.
    Returns: float32 (R,).
    """
    rows, vocab_size = logits.shape
    nats = torch.empty(rows, dtype=torch.float32, device=logits.device)
    eighths = triton.next_power_of_2(triton.cdiv(vocab_size, 8))
    _loss_of_row[(rows,)](
        logits,
        targets,
        targets if mask_ids is None else mask_ids,
        targets if masks is None else masks,
        nats,
        cap,
        vocab_size,
        HAS_MASKS=masks is not None,
        IS_GRADIENT=is_gradient,
        IS_FULL=8 * eighths == vocab_size,
        EIGHTHS=eighths,
        num_warps=min(16, max(1, eighths // 128)),  # 32 tokens a thread
        maxnreg=80,  # lets three rows run at a time
    )
    return nats


@triton.jit
def _loss_of_row(
    logits,
    targets,
    mask_ids,
    masks,
    nats,
    cap,
    vocab_size,
    HAS_MASKS: tl.constexpr,
    IS_GRADIENT: tl.constexpr,
    IS_FULL: tl.constexpr,
    EIGHTHS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    of_row = logits + row * vocab_size
    byte = tl.arange(0, EIGHTHS)[:, None]
    bit = tl.arange(0, 8)[None, :]
    token = byte * 8 + bit  # (EIGHTHS, 8): a thread handles the eight tokens of a byte, which it loads once
    exists = None if IS_FULL else token < vocab_size
    z = tl.load(of_row + token, mask=exists, other=None if IS_FULL else 0.0).to(tl.float32)
    target = tl.load(targets + row).to(tl.int32)
    is_target = target >= 0
    picked = _sigmoid(tl.load(of_row + tl.maximum(target, 0)).to(tl.float32), cap)
    # As in `_loss_on_cpu`: cap * tanh(z / cap) is 2 cap sigmoid(2 z / cap) - cap; softmax ignores the constant.
    sigmoid = _sigmoid(z, cap)
    weight = tl.exp2(sigmoid * (2 * cap * LOG2_E))
    if HAS_MASKS:
        num_bytes = (vocab_size + 7) // 8
        of_mask = masks + tl.load(mask_ids + row) * num_bytes
        bits = tl.load(of_mask + byte, mask=None if IS_FULL else byte < num_bytes).to(tl.int32)
        weight = tl.where((bits & (128 >> bit)) != 0, weight, 0.0)
    if not IS_FULL:
        weight = tl.where(exists, weight, 0.0)
    total = tl.sum(tl.sum(weight, axis=1), axis=0)
    tl.store(nats + row, tl.where(is_target, tl.log(total) - 2 * cap * picked, 0.0))
    if IS_GRADIENT:
        softmax = weight * tl.where(is_target, 4.0 / total, 0.0) - tl.where(token == target, 4.0, 0.0)
        grad = softmax * (sigmoid - sigmoid * sigmoid)
        tl.store(of_row + token, grad.to(logits.dtype.element_ty), mask=exists)


@triton.jit
def _sigmoid(z, cap):
    """Return sigmoid(2 z / cap), with an approximate division."""
    return fast_dividef(1.0, 1.0 + tl.exp2(z * (-2 * LOG2_E / cap)))


def matmul_relu_squared(x: Tensor, weight: Tensor) -> Tensor:
    """relu(x @ weight.T)^2: x (R, in), weight (out, in), both bf16, to (R, out)."""
    out = x.new_empty(x.size(0), weight.size(0))
    _launch(x, weight, out, out, is_backward=False)
    return out


def grad_of_relu_squared(grad: Tensor, weight: Tensor, squared: Tensor) -> Tensor:
    """Gradient of h, where squared = relu(h)^2 and y = squared @ weight.T, from that of y.

    grad: (R, out), weight: (out, in), squared: (R, in), all bf16. Returns: (R, in).
    """
    out = torch.empty_like(squared)
    _launch(grad, weight, squared, out, is_backward=True)
    return out


# The tiling of both matrix products: block sizes, warps, stages; one program on each SM.
ROWS, COLUMNS, INNER, WARPS, STAGES = 128, 256, 64, 8, 3


def _launch(x: Tensor, weight: Tensor, squared: Tensor, out: Tensor, is_backward: bool) -> None:
    num_programs = torch.cuda.get_device_properties(x.device).multi_processor_count
    block_of_weight = [INNER, COLUMNS] if is_backward else [COLUMNS, INNER]
    half = [ROWS, COLUMNS // 2]
    _matmul_relu_squared[(num_programs,)](
        TensorDescriptor.from_tensor(x, [ROWS, INNER]),
        TensorDescriptor.from_tensor(weight, block_of_weight),
        TensorDescriptor.from_tensor(squared, half),
        TensorDescriptor.from_tensor(out, half),
        *(out.size(0), out.size(1), x.size(1)),
        IS_BACKWARD=is_backward,
        BLOCK_ROWS=ROWS,
        BLOCK_COLUMNS=COLUMNS,
        BLOCK_INNER=INNER,
        GROUP=8,
        NUM_PROGRAMS=num_programs,
        num_warps=WARPS,
        num_stages=STAGES,
    )


@triton.jit
def _matmul_relu_squared(
    x,
    weight,
    squared,
    out,
    rows,
    columns,
    inner,
    IS_BACKWARD: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
):
    HALF: tl.constexpr = BLOCK_COLUMNS // 2
    row_blocks = tl.cdiv(rows, BLOCK_ROWS)
    column_blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    for block in tl.range(tl.program_id(0), row_blocks * column_blocks, NUM_PROGRAMS, flatten=True):
        # GROUP rows of blocks at a time, column by column, so that reads hit the L2 cache.
        group = block // (GROUP * column_blocks)
        of_group = min(row_blocks - group * GROUP, GROUP)
        in_group = block % (GROUP * column_blocks)
        row = (group * GROUP + in_group % of_group) * BLOCK_ROWS
        column = in_group // of_group * BLOCK_COLUMNS
        product = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        for start in range(0, inner, BLOCK_INNER):
            if IS_BACKWARD:
                product = tl.dot(x.load([row, start]), weight.load([start, column]), product)
            else:
                product = tl.dot(x.load([row, start]), weight.load([column, start]).T, product)
        # In halves: the store stages a block in shared memory, and a whole block would leave too little of it.
        halves = product.reshape(BLOCK_ROWS, 2, HALF).permute(0, 2, 1)
        left, right = halves.split()
        if IS_BACKWARD:
            left = left * 2 * tl.sqrt(squared.load([row, column]).to(tl.float32))
        else:
            left = tl.maximum(left, 0.0)
            left = left * left
        out.store([row, column], left.to(out.dtype))
        if IS_BACKWARD:
            right = right * 2 * tl.sqrt(squared.load([row, column + HALF]).to(tl.float32))
        else:
            right = tl.maximum(right, 0.0)
            right = right * right
        out.store([row, column + HALF], right.to(out.dtype))


def rotate_and_norm(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return the queries and keys of a contiguous qkv (B, T, 3, n_head, head_dim), rotated and normalised.

    cos, sin: (T, head_dim / 2) float32. Returns: each (B, T, n_head, head_dim), contiguous.
    """
    B, T, _, n_head, head_dim = qkv.shape
    q, k = qkv.new_empty(B, T, n_head, head_dim), qkv.new_empty(B, T, n_head, head_dim)
    _launch_rotate(_rotate_and_norm, (qkv, q, k), qkv, cos, sin, num_parts=2)
    return q, k


def grad_of_rotate_and_norm(
    grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Return the gradient of qkv, given those of its three parts, (B, T, n_head, head_dim) each, contiguous."""
    grad = torch.empty_like(qkv)
    _launch_rotate(_grad_of_rotate_and_norm, (grad_q, grad_k, grad_v, qkv, grad), qkv, cos, sin, num_parts=3)
    return grad


ROTATE_ROWS, ROTATE_WARPS = 32, 4


def _launch_rotate(
    kernel: Any, tensors: tuple[Tensor, ...], qkv: Tensor, cos: Tensor, sin: Tensor, num_parts: int
) -> None:
    assert qkv.is_contiguous()
    B, T, _, n_head, head_dim = qkv.shape
    rows = B * T * n_head
    kernel[(triton.cdiv(rows, ROTATE_ROWS), num_parts)](
        *tensors,
        cos.contiguous(),
        sin.contiguous(),
        rows,
        T,
        NORM_EPS,
        N_HEAD=n_head,
        HALF=head_dim // 2,
        PADDED_HALF=triton.next_power_of_2(head_dim // 2),
        ROWS=ROTATE_ROWS,
        num_warps=ROTATE_WARPS,
    )


@triton.jit
def _offsets(
    rows, T, N_HEAD: tl.constexpr, HALF: tl.constexpr, PADDED_HALF: tl.constexpr, ROWS: tl.constexpr
):
    """Offsets of a block of rows (one head of one token each) into a part, into qkv and into the tables, and a mask.

    They point to the first half of a head; the second half follows HALF elements later.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.arange(0, PADDED_HALF)[None, :]
    token = row // N_HEAD
    in_part = row * (2 * HALF) + channel
    in_qkv = in_part + (2 * token + tl.program_id(1)) * (N_HEAD * 2 * HALF)
    in_table = token % T * HALF + channel
    return in_part, in_qkv, in_table, (row < rows) & (channel < HALF)


@triton.jit
def _rotate_rows(qkv, cos, sin, in_qkv, in_table, mask, eps, HALF: tl.constexpr):
    """Return both halves rotated and normalised, the cosines and sines, and the scale of each row."""
    first = tl.load(qkv + in_qkv, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(qkv + in_qkv + HALF, mask=mask, other=0.0).to(tl.float32)
    c = tl.load(cos + in_table, mask=mask, other=0.0)
    s = tl.load(sin + in_table, mask=mask, other=0.0)
    rotated_first, rotated_second = first * c + second * s, second * c - first * s
    squares = tl.sum(rotated_first * rotated_first + rotated_second * rotated_second, axis=1)[:, None]
    scale = tl.rsqrt(squares / (2 * HALF) + eps)
    return rotated_first * scale, rotated_second * scale, c, s, scale


@triton.jit
def _rotate_and_norm(
    qkv,
    q,
    k,
    cos,
    sin,
    rows,
    T,
    eps,
    N_HEAD: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    ROWS: tl.constexpr,
):
    in_part, in_qkv, in_table, mask = _offsets(rows, T, N_HEAD, HALF, PADDED_HALF, ROWS)
    first, second, _, _, _ = _rotate_rows(qkv, cos, sin, in_qkv, in_table, mask, eps, HALF)
    out = q if tl.program_id(1) == 0 else k
    tl.store(out + in_part, first.to(qkv.dtype.element_ty), mask=mask)
    tl.store(out + in_part + HALF, second.to(qkv.dtype.element_ty), mask=mask)


@triton.jit
def _grad_of_rotate_and_norm(
    grad_q,
    grad_k,
    grad_v,
    qkv,
    grad,
    cos,
    sin,
    rows,
    T,
    eps,
    N_HEAD: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    ROWS: tl.constexpr,
):
    in_part, in_qkv, in_table, mask = _offsets(rows, T, N_HEAD, HALF, PADDED_HALF, ROWS)
    part = tl.program_id(1)
    source = grad_v
    if part == 0:
        source = grad_q
    elif part == 1:
        source = grad_k
    first = tl.load(source + in_part, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(source + in_part + HALF, mask=mask, other=0.0).to(tl.float32)
    if part < 2:
        normed_first, normed_second, c, s, scale = _rotate_rows(
            qkv, cos, sin, in_qkv, in_table, mask, eps, HALF
        )
        mean = tl.sum(first * normed_first + second * normed_second, axis=1)[:, None] / (2 * HALF)
        of_first = scale * (first - normed_first * mean)
        of_second = scale * (second - normed_second * mean)
        first, second = of_first * c - of_second * s, of_first * s + of_second * c
    tl.store(grad + in_qkv, first.to(qkv.dtype.element_ty), mask=mask)
    tl.store(grad + in_qkv + HALF, second.to(qkv.dtype.element_ty), mask=mask)
