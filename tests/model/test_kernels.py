"""On a GPU: our kernels against the formulas of a CPU, at shapes that fill no block."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.model import fused
from nanochat_tct.model.loss import TokenMask, soft_capped_nats
from nanochat_tct.model.rotary import rotary_tables

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
needs_hopper = pytest.mark.skipif(
    not fused.fits_mlp(torch.device("cuda"), 64) if torch.cuda.is_available() else True,
    reason="this device does not take these kernels",
)


def relative_error(ours: Tensor, expected: Tensor) -> float:
    return float((ours.cpu().float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("vocab_size", [100, 1024, 8192, 10_001])
def test_the_kernel_of_the_loss(vocab_size: int, is_masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 64, generator=generator)
    weight = 0.5 * torch.randn(vocab_size, 64, generator=generator)
    targets = torch.randint(0, vocab_size, (300,), generator=generator)
    targets[::7] = -1
    legal = torch.rand(300, vocab_size, generator=generator) < 0.5
    legal[torch.arange(300), targets.clamp(min=0)] = True
    legal[0] = False  # no target there, and nothing is legal
    masks = torch.from_numpy(np.packbits(legal.numpy(), axis=1))
    results = []
    for device in ("cpu", "cuda"):
        inputs = [tensor.to(device).requires_grad_() for tensor in (x, weight)]
        of_device = TokenMask(torch.arange(300, device=device), masks.to(device)) if is_masked else None
        nats = soft_capped_nats(*inputs, targets.to(device), 15.0, of_device)
        results.append((nats.cpu(), *(g.cpu() for g in torch.autograd.grad(nats, inputs))))
    for expected, ours in zip(*results, strict=True):
        assert relative_error(ours, expected) < 5e-3  # by TF32 or not
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-3, atol=0)


def test_the_kernel_of_the_loss_shows_what_is_not_finite() -> None:
    x = torch.randn(50, 64, device="cuda")
    x[3] = torch.nan
    weight = torch.randn(128, 64, device="cuda", requires_grad=True)
    assert soft_capped_nats(x, weight, torch.zeros(50, dtype=torch.int64, device="cuda"), 15.0).isnan()


@needs_hopper
@pytest.mark.parametrize(("rows", "width", "hidden"), [(300, 64, 256), (1000, 72, 288), (4096, 512, 2048)])
def test_the_products_with_relu_squared(rows: int, width: int, hidden: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, width), (hidden, width), (rows, width), (width, hidden))
    x, up, grad, down = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    expected = F.relu(x.float() @ up.float().T).square()
    squared = fused.matmul_relu_squared(x.cuda(), up.cuda())
    assert relative_error(squared, expected) < 5e-3
    ours = fused.grad_of_relu_squared(grad.cuda(), down.cuda(), squared)
    wanted = fused.grad_of_relu_squared(grad.float(), down.float(), squared.cpu().float())
    assert relative_error(ours, wanted) < 5e-3


@pytest.mark.parametrize(("B", "T", "n_head", "head_dim"), [(2, 5, 3, 6), (3, 100, 8, 64), (1, 33, 2, 128)])
def test_queries_and_keys(B: int, T: int, n_head: int, head_dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, 3, n_head, head_dim, generator=generator).bfloat16()
    grads = [
        torch.randn(B, n_head, T, head_dim, generator=generator).bfloat16().transpose(1, 2) for _ in range(3)
    ]
    cos, sin = rotary_tables(T, head_dim)
    expected = fused.rotate_and_norm(qkv.float(), cos, sin)
    for ours, wanted in zip(fused.rotate_and_norm(qkv.cuda(), cos.cuda(), sin.cuda()), expected, strict=True):
        assert relative_error(ours, wanted) < 5e-3
    wanted = fused.grad_of_rotate_and_norm(*(grad.float() for grad in grads), qkv.float(), cos, sin)
    ours = fused.grad_of_rotate_and_norm(*(grad.cuda() for grad in grads), qkv.cuda(), cos.cuda(), sin.cuda())
    assert relative_error(ours, wanted) < 5e-3
