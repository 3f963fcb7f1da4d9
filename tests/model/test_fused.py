"""The fused MLP against the formula it stands for; the kernels themselves are seen in tests/training/test_gpu.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.model import fused
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.fused import heads, relu_squared_mlp
from nanochat_tct.model.gpt import norm
from nanochat_tct.model.rotary import rotary_tables, rotate
from tests.support.models import untrained_model


def formula(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.relu(x @ up.T).square() @ down.T


def test_value_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 7, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    up = torch.randn(40, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    down = torch.randn(16, 40, dtype=torch.float64, generator=generator, requires_grad=True)
    expected, y = formula(x, up, down), relu_squared_mlp(x, up, down)
    torch.testing.assert_close(y, expected)
    seed = torch.randn(3, 7, 16, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad(expected, (x, up, down), seed)
    for gradient, of_formula in zip(torch.autograd.grad(y, (x, up, down), seed), wanted, strict=True):
        torch.testing.assert_close(gradient, of_formula)


def test_heads_and_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 5, 3, 4, 6, generator=generator, requires_grad=True)
    cos, sin = (table[:, None] for table in rotary_tables(5, 6))
    q, k, v = qkv.unbind(2)
    expected = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin)), v
    parts = heads(qkv, cos, sin)
    seeds = [torch.randn(2, 5, 4, 6, generator=generator) for _ in range(3)]
    for part, wanted in zip(parts, expected, strict=True):
        torch.testing.assert_close(part, wanted)
    (gradient,) = torch.autograd.grad(parts, qkv, seeds)
    (wanted,) = torch.autograd.grad(expected, qkv, seeds)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_a_model_with_it_learns_the_same(
    is_compiled: bool, checkpoint_activations: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16, where alone it is used: loss and gradients are those without, up to rounding."""
    results, seen = [], []
    if not is_compiled:
        backward = fused.grad_of_relu_squared
        monkeypatch.setattr(
            fused, "grad_of_relu_squared", lambda *tensors: seen.append(None) or backward(*tensors)
        )
    for is_fused in (False, True):
        config = GPTConfig(vocab_size=64, context_size=32, n_layer=2, n_head=2, n_embd=32)
        model = untrained_model(config, std=0.1, checkpoint_activations=checkpoint_activations)
        if is_compiled:
            model.compile()
        for block in model.blocks:
            block.mlp.is_fused = block.attention.is_fused = is_fused  # type: ignore[union-attr]
        tokens = torch.randint(0, 64, (4, 33), generator=torch.Generator().manual_seed(1))
        tokens[:, 0] = 64  # a position token
        with torch.autocast("cpu", torch.bfloat16):
            nats = model(tokens[:, :-1], tokens[:, 1:].contiguous())
        nats.backward()
        results.append((nats.item(), {name: p.grad for name, p in model.named_parameters()}))
    assert is_compiled or len(seen) == 2, "one for each of the fused blocks"
    (nats, gradients), (nats_of_fused, gradients_of_fused) = results
    assert nats_of_fused == pytest.approx(nats, rel=1e-3)
    for name, expected in gradients.items():
        error = (gradients_of_fused[name] - expected).norm() / expected.norm()
        assert error < 2e-2, (name, float(error))
