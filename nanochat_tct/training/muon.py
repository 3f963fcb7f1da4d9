"""Muon: momentum whose matrices are made orthogonal before they move the weights."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

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
        self, params: Iterable[Tensor], lr: float = 0.01, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append(weight)
            for shape, weights in by_shape.items():
                momenta = torch.stack(self._momenta(weights, group["momentum"]))
                updates = [
                    distribute_tensor(update, weight.device_mesh, weight.placements, src_data_rank=None)
                    if isinstance(weight, DTensor)
                    else update
                    for weight, update in zip(weights, orthogonalized(momenta), strict=True)
                ]
                # _foreach: one kernel for all of a list, where a small model has more kernels than work
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, updates, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))

    def _momenta(self, weights: list[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov's: running means of gradients, looking one step ahead. Whole, also of slices."""
        grads, means = [], []
        for weight in weights:
            assert weight.grad is not None
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight.grad)
            grads.append(weight.grad)
            means.append(state["momentum_buffer"])
        torch._foreach_lerp_(means, grads, 1 - momentum)
        ahead = torch._foreach_lerp(grads, means, momentum)
        return [each.full_tensor() if isinstance(each, DTensor) else each for each in ahead]


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
