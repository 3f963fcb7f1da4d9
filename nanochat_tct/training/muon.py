"""Muon: momentum whose matrices are made orthogonal before they move the weights."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

NEWTON_SCHULZ = (
    3.4445,
    -4.7750,
    2.0315,
)  # coefficients of the quintic; five steps bring singular values near 1
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """For matrices inside a model; embeddings and head are AdamW's.

    Muon is by Jordan et al. (2024); the scale, by which an update is as large as AdamW's, so that one learning rate and
    weight decay do for both, is Moonlight's (Liu et al. 2025). torch.optim.Muon is the same, but computes in bf16 on
    CPUs too, where that took 14 times as long as float32, and a matrix at a time; here those of one shape go together.
    With FSDP each worker computes the whole update and takes its slice, so that the result is that of one worker.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        is_compiled: bool = False,
    ) -> None:
        """`is_compiled`: into fewer kernels, which are launched sooner; only where the device decides (`is_good`)."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.is_compiled = is_compiled
        self.is_good: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for weights in by_shape(weight for weight in group["params"] if weight.grad is not None):
                grads, means = [], []
                for weight in weights:
                    assert weight.grad is not None
                    state = self.state[weight]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(weight.grad)
                    grads.append(weight.grad)
                    means.append(state["momentum_buffer"])
                self._move([weight.detach() for weight in weights], grads, means, group, self.is_good)

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile what is to be compiled, by a step of copies."""
        if not self.is_compiled:
            return
        for group in self.param_groups:
            for weights in by_shape(group["params"]):
                copies, grads, means = ([torch.zeros_like(weight) for weight in weights] for _ in range(3))
                is_good = torch.ones((), dtype=torch.bool, device=copies[0].device)
                self._move(copies, grads, means, group, is_good)

    def _move(
        self,
        weights: list[Tensor],
        grads: list[Tensor],
        means: list[Tensor],
        group: dict[str, Any],
        is_good: Tensor | None,
    ) -> None:
        """A step of matrices of one shape."""
        momentum, lr = group["momentum"], group["lr"]
        keep = if_good(momentum, 1.0, is_good)
        shrink = if_good(1 - lr * group["weight_decay"], 1.0, is_good)
        rate = if_good(-lr * 0.2 * math.sqrt(max(weights[0].shape)), 0.0, is_good)
        # A number would be compiled in, and the rate is another in each iter: so only with tensors.
        # Not a list of one, over whose transpose the compiler of torch 2.11 stumbles.
        is_compiled = self.is_compiled and is_good is not None and len(weights) > 1
        of_shape = _compiled_move() if is_compiled else move
        of_shape(weights, grads, means, momentum, keep, shrink, rate)


def if_good(value: float, otherwise: float, is_good: Tensor | None) -> float | Tensor:
    """The one or the other, as the device will know; None: the one."""
    return value if is_good is None else torch.where(is_good, value, otherwise)


def by_shape(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Those of one shape together."""
    groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for weight in weights:
        groups[weight.shape].append(weight)
    return groups.values()


def move(
    weights: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    momentum: float,
    keep: float | Tensor,
    shrink: float | Tensor,
    rate: float | Tensor,
) -> None:
    """Moves weights of one shape, and the running means of their gradients, in place.

    `_foreach` is one kernel for all of a list, where a small model has more kernels than work.

    Args:
        weights, grads, means: (rows, columns) each, whole or slices of them.
        keep: what is left of a mean: the momentum, or 1 where gradients are zeros that do not count.
        shrink: what is left of a weight after its decay.
        rate: times this the update is added; below zero.
    """
    torch._foreach_mul_(means, keep)
    torch._foreach_add_(means, grads, alpha=1 - momentum)
    # Nesterov's: the means, looking one step ahead. A lerp would be one kernel, but FSDP of torch 2.11 has none.
    ahead = torch._foreach_mul(means, momentum)
    torch._foreach_add_(ahead, grads, alpha=1 - momentum)
    matrices = torch.stack([each.full_tensor() if isinstance(each, DTensor) else each for each in ahead])
    updates = [
        distribute_tensor(update, weight.device_mesh, weight.placements, src_data_rank=None)
        if isinstance(weight, DTensor)
        else update
        for weight, update in zip(weights, orthogonalized(matrices) * rate, strict=True)
    ]
    torch._foreach_mul_(weights, shrink)
    torch._foreach_add_(weights, updates)


@cache
def _compiled_move() -> Callable[..., None]:
    return torch.compile(move, dynamic=False)


def orthogonalized(matrices: Tensor) -> Tensor:
    """The matrices with all singular values brought near 1, by Newton and Schulz's iteration.

    matrices: (n, rows, columns), any float dtype; so is what comes back. In bf16 on CUDA, float32 elsewhere.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(torch.bfloat16 if matrices.device.type == "cuda" else torch.float32)
    is_tall = x.size(1) > x.size(2)
    if is_tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        quintic = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, quintic, x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)
