"""The chunked loss against the formula it stands for."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.model import loss
from nanochat_tct.model.loss import TokenMask, soft_capped_nats

CAP = 15.0


def formula(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = CAP * torch.tanh(F.linear(x, weight).float() / CAP)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def example(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 16, generator=generator, requires_grad=True)
    weight = (scale * torch.randn(100, 16, generator=generator)).requires_grad_()
    targets = torch.randint(0, 100, (50,), generator=generator)
    targets[::7] = -1
    return x, weight, targets


@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
def test_value_and_gradients(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", rows * 100)
    x, weight, targets = example()
    expected = formula(x, weight, targets)
    nats = soft_capped_nats(x, weight, targets, CAP)
    torch.testing.assert_close(nats, expected)
    for gradient, wanted in zip(
        torch.autograd.grad(nats / 3, (x, weight)),
        torch.autograd.grad(expected / 3, (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_softmax_over_legal_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", 7 * 100)
    x, weight, targets = example()
    legal = torch.rand(50, 100, generator=torch.Generator().manual_seed(1)) < 0.5
    legal[torch.arange(50), targets.clamp(min=0)] = True
    legal[0] = False  # no target there, and nothing is legal
    masks = torch.from_numpy(np.packbits(legal.numpy(), axis=1)[::-1].copy())  # the ids count backwards
    logits = (CAP * torch.tanh(F.linear(x, weight) / CAP)).masked_fill(~legal, -torch.inf)[targets >= 0]
    expected = F.cross_entropy(logits, targets[targets >= 0], reduction="sum")
    legal_tokens = TokenMask(torch.arange(49, -1, -1), masks)
    nats = soft_capped_nats(x, weight, targets, CAP, legal_tokens)
    torch.testing.assert_close(nats, expected)
    for gradient, wanted in zip(
        torch.autograd.grad(nats, (x, weight)), torch.autograd.grad(expected, (x, weight)), strict=True
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_logits_far_beyond_the_cap() -> None:
    x, weight, targets = example(scale=1000.0)
    nats = soft_capped_nats(x, weight, targets, CAP)
    torch.testing.assert_close(nats, formula(x, weight, targets))
    nats.backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_no_gradient_is_taken_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, targets = example()
    expected = formula(x, weight, targets)
    of_chunk = loss.chunk_nats
    grad_weights = []

    def seen(*arguments: Any) -> tuple[Tensor, Tensor | None]:
        grad_weights.append(arguments[-1])
        return of_chunk(*arguments)

    monkeypatch.setattr(loss, "chunk_nats", seen)
    with torch.no_grad():
        torch.testing.assert_close(soft_capped_nats(x, weight, targets, CAP), expected)
    assert grad_weights and all(grad_weight is None for grad_weight in grad_weights)


def test_without_targets_all_is_zero() -> None:
    x, weight, targets = example()
    nats = soft_capped_nats(x, weight, torch.full_like(targets, -1), CAP)
    nats.backward()
    assert nats.item() == 0
    assert x.grad is not None and weight.grad is not None
    assert not x.grad.any() and not weight.grad.any()


def test_a_non_finite_input_shows_in_the_loss() -> None:
    x, weight, targets = example()
    with torch.no_grad():
        x[3] = float("nan")
    assert soft_capped_nats(x, weight, targets, CAP).isnan()
