"""Optimizers and the learning rate schedule.

Two recipes, by `--optimizer`:

adamw   AdamW for everything, with decay on matrices only.
muon    Muon for the matrices of blocks, AdamW for the rest. The vectors of tokens, in embedding and head, also learn
        from tokens with common parts. In a run of many epochs a token's own vector soon memorizes its few occurrences,
        so it learns more slowly than its parts (`config.own_rate`).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.token_parts import TokenParts

# Coefficients of the quintic; five steps bring singular values near 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024), for the matrices of blocks; AdamW trains embeddings and head.

    The scale, that of Moonlight (Liu et al. 2025), makes an update as large as AdamW's, so that one learning rate and
    weight decay serve both. torch.optim.Muon is the same, but computes in bf16 on CPUs too, which took 14 times as long
    as float32, and updates one matrix at a time, while this updates all matrices of a shape together. With FSDP each
    worker computes the whole update and takes its slice, so that the result does not depend on the number of workers.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        is_compiled: bool = False,
    ) -> None:
        """`is_compiled`: compile into fewer kernels, which take less time to launch; needs `is_good` on the device."""
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
        """Compile, if required, with a step on copies."""
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
        """Make a step of matrices of one shape."""
        momentum, lr = group["momentum"], group["lr"]
        keep = if_good(momentum, 1.0, is_good)
        shrink = if_good(1 - lr * group["weight_decay"], 1.0, is_good)
        rate = if_good(-lr * 0.2 * math.sqrt(max(weights[0].shape)), 0.0, is_good)
        # Numbers would be compiled in, and the rate changes in each iter, so compile only with tensors; and not a list
        # of one matrix, on whose transpose the compiler of torch 2.11 fails.
        is_compiled = self.is_compiled and is_good is not None and len(weights) > 1
        of_shape = _compiled_move() if is_compiled else move
        of_shape(weights, grads, means, momentum, keep, shrink, rate)


def if_good(value: float, otherwise: float, is_good: Tensor | None) -> float | Tensor:
    """Select `value` or `otherwise` on the device; `value` if `is_good` is None."""
    return value if is_good is None else torch.where(is_good, value, otherwise)


def by_shape(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Group the weights by shape."""
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
    """Update weights of one shape, and the running means of their gradients, in place.

    `_foreach` launches one kernel for a whole list. A small model spends its time on launching kernels.

    Args:
        weights, grads, means: (rows, columns) each, whole or slices of them.
        keep: factor for the means: the momentum, or 1 in a skipped step, whose gradients are zeros.
        shrink: factor for the weights, one minus their decay.
        rate: factor for the update; negative.
    """
    torch._foreach_mul_(means, keep)
    torch._foreach_add_(means, grads, alpha=1 - momentum)
    # Nesterov momentum: the means one step ahead. A lerp would be one kernel, but FSDP of torch 2.11 has none.
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
    """Bring all singular values of the matrices near 1, by the Newton-Schulz iteration.

    matrices: (n, rows, columns); the result has their dtype. It computes in bf16 on CUDA, else in float32.
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


AVERAGE = "average"  # the name of a weight's mean in the state of its optimizer
MUON_LR = 2.0  # the matrices' learning rate relative to the others', at the width MUON_WIDTH
MUON_WIDTH = 96  # that of the demo, for which MUON_LR was measured


def make_optimizers(
    model: nn.Module, config: ResolvedConfig, parts: TokenParts | None, own_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """The optimizers of a resolved config; each parameter is in one of them.

    Args:
        parts: the parts of tokens, which the recipe `muon` uses; None if they are unknown.
        own_rate: see `config.own_rate`.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if ".blocks." in f".{name}" and parameter.dim() == 2]
    token_vectors = [p for name, p in named if name.endswith(("token_embedding.weight", "head.weight"))]
    listed = {id(parameter) for parameter in (*matrices, *token_vectors)}
    rest = [parameter for _, parameter in named if id(parameter) not in listed]
    is_muon, decay = config.optimizer == "muon", config.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": matrices if not is_muon else [], "weight_decay": decay},
        {"params": token_vectors, "weight_decay": decay, "has_parts": is_muon},
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = PartsAdamW(
        [group for group in groups if group["params"]], parts, own_rate, betas=(config.beta1, config.beta2)
    )
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if is_muon:
        # On a CPU launching kernels takes no time, and FSDP gathers slices with its own kernels.
        is_compiled = config.compile and matrices[0].is_cuda and not isinstance(matrices[0], DTensor)
        optimizers.append(Muon(matrices, weight_decay=decay, is_compiled=is_compiled))
    set_learning_rate(optimizers, 0, config)
    return optimizers


class PartsAdamW(torch.optim.AdamW):
    """Fused AdamW; in groups with `has_parts`, tokens also learn from tokens with common parts.

    It updates a table W (vocab_size, n_embd) as if it were E + S P, where E has a vector for each token, P one for each
    part, and the sparse matrix S adds up the parts of each token. AdamW updates E by the gradient G of W, and P by
    S^T G; so W changes by the first update plus S times the second, and decays as both do. Only W is needed, so E and P
    are never stored: the model and its checkpoints do not change, and only the moments of P are added.

    So a token that was seen ten times learns from parts that were seen ten thousand times. Sums of vectors of parts are
    from fastText (Bojanowski et al. 2017); keeping the sum in the optimizer is our idea.
    """

    def __init__(
        self, groups: list[dict[str, Any]], parts: TokenParts | None, own_rate: float = 1.0, **settings: Any
    ) -> None:
        """`own_rate`: the learning rate of E relative to P's; the decay of W does not depend on it."""
        for group in groups:
            group["has_parts"] = group.get("has_parts", False) and parts is not None
        self.parts, self.own_rate = parts, own_rate
        super().__init__(groups, fused=True, **settings)
        self.is_good: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        # torch.amp.GradScaler makes a fused optimizer skip a step in this way.
        self.found_inf = None if self.is_good is None else (~self.is_good).float()
        with_parts = [group for group in self.param_groups if group["has_parts"]]
        usual = [(group["lr"], group["weight_decay"]) for group in with_parts]
        for group in with_parts:  # E's rate. AdamW decays by rate times decay, which must not change.
            group["lr"] *= self.own_rate
            group["weight_decay"] /= self.own_rate
        loss = super().step(closure)
        for group, (lr, weight_decay) in zip(with_parts, usual, strict=True):
            group["lr"], group["weight_decay"] = lr, weight_decay
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move_parts(parameter, group)
        return loss

    def _move_parts(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert self.parts is not None
        if self.parts.of_tokens.values.device != weight.device:
            self.parts = self.parts.to(weight.device)
        assert weight.grad is not None
        grad = weight.grad.full_tensor() if isinstance(weight.grad, DTensor) else weight.grad
        grad = self.parts.of_parts @ grad  # (num_parts, n_embd)
        state = self.state[weight]  # AdamW has counted this step in `step` already
        if "parts_exp_avg" not in state:
            state["parts_exp_avg"], state["parts_exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
        beta1, beta2 = group["betas"]
        mean, square = state["parts_exp_avg"], state["parts_exp_avg_sq"]
        mean.mul_(if_good(beta1, 1.0, self.is_good)).add_(grad, alpha=1 - beta1)
        square.mul_(if_good(beta2, 1.0, self.is_good)).addcmul_(grad, grad, value=1 - beta2)
        steps = state["step"].clamp(min=1)  # it is 0 while no step has been good
        unbiased_mean = mean / (1 - beta1**steps)
        unbiased_square = square / (1 - beta2**steps)
        update = self.parts.of_tokens @ (unbiased_mean / (unbiased_square.sqrt() + group["eps"]))
        update = update * if_good(-group["lr"], 0.0, self.is_good)
        if isinstance(weight, DTensor):  # every worker computes the whole update, and takes its slice
            update = distribute_tensor(update, weight.device_mesh, weight.placements, src_data_rank=None)
        weight.add_(update)


@torch.no_grad()
def step_if(is_good: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
    """Let the optimizers step if `is_good`, and drop the gradients.

    On CUDA the device itself decides, so that this process need not wait for the gradient, except with FSDP.

    Args:
        is_good: bool, 0-dimensional, on the device of the weights.
    """
    weights = [weight for each in optimizers for group in each.param_groups for weight in group["params"]]
    if not is_good.is_cuda or isinstance(weights[0], DTensor):
        steps = bool(is_good)
    else:
        steps, is_bad = True, ~is_good
        for weight in weights:
            if weight.grad is not None:
                weight.grad.masked_fill_(is_bad, 0.0)  # so that means stay finite
        for optimizer in optimizers:
            assert isinstance(optimizer, PartsAdamW | Muon)
            optimizer.is_good = is_good
    for optimizer in optimizers:
        if steps:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class WeightAverage:
    """Keeps a mean of the weights over about the last `share` of all iters so far.

    After iter t the mean moves to the weights by (n + 1) / (t + n) with n = 2 / share - 2, so that the weights of iter
    t count in proportion to t^n (polynomial-decay averaging, Shamir and Zhang 2013). It does not depend on the length
    of the run. It is part of the state of the optimizers, so checkpoints hold it and FSDP shards it.

    Args:
        optimizers: of the weights; after each step they move their means.
        share: more than 0, at most 1.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer], share: float) -> None:
        self.optimizers, self.power = optimizers, 2 / share - 2
        self.iters = 0  # with the step that comes next
        for optimizer in optimizers:
            optimizer.register_step_post_hook(self._move)

    @torch.no_grad()
    def _move(self, optimizer: torch.optim.Optimizer, *step: Any) -> None:
        for weight, state in optimizer.state.items():
            if AVERAGE not in state:
                state[AVERAGE] = weight.detach().clone()
        means = [state[AVERAGE] for state in optimizer.state.values()]
        rate = (self.power + 1) / (max(1, self.iters) + self.power)
        # A lerp would be one kernel, but FSDP of torch 2.11 has none.
        torch._foreach_mul_(means, 1 - rate)
        torch._foreach_add_(means, [weight.detach() for weight in optimizer.state], alpha=rate)

    @torch.no_grad()
    def exchange(self) -> None:
        """Let the model have the means, and the state the weights, or back. Before the first step nothing changes."""
        for optimizer in self.optimizers:
            for weight, state in optimizer.state.items():
                weights = weight.detach().clone()
                weight.copy_(state[AVERAGE])
                state[AVERAGE].copy_(weights)


def exchanged(
    weights: dict[str, Tensor], optimizer_state: dict[str, Any], share: float
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `WeightAverage.exchange` does, for the full state of a checkpoint, whose weights are the means.

    Args:
        share: 0: the state returned has no means, and the weights are those that were trained. Otherwise it has them,
            and where there were none, the mean begins with the weights.
    """
    weights, states = dict(weights), {}
    for name, state in optimizer_state["state"].items():
        states[name] = dict(state)
        trained = states[name].pop(AVERAGE, weights[name])
        if share:
            states[name][AVERAGE] = weights[name]
        weights[name] = trained
    return weights, {**optimizer_state, "state": states}


def set_learning_rate(optimizers: list[torch.optim.Optimizer], step: int, config: ResolvedConfig) -> float:
    """Set the learning rate and decay of the iter after `step` iters. Returns: `learning_rate(step, config)`."""
    rate, n_embd = learning_rate(step, config), config.model().n_embd
    for optimizer in optimizers:
        # AdamW's rate falls with 1 / width. Muon's falls with its square root only: then the largest singular value
        # of an update is the same at every width, as a matrix needs it (Yang et al. 2023).
        scale = MUON_LR * math.sqrt(n_embd / MUON_WIDTH) if isinstance(optimizer, Muon) else 1.0
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
            if group["params"][0].dim() >= 2:  # a checkpoint restores the decay that it was made with
                group["weight_decay"] = config.weight_decay
    return rate


def learning_rate(step: int, config: ResolvedConfig) -> float:
    """The rate of the iter after `step` iters: linear warm-up, then half a cosine down to min_lr.

    Iter `warmup_iters + 1` has the peak, and iter `lr_decay_iters` is the first to have min_lr, unless it is still
    warming up.
    """
    peak, low, warmup, decay = config.learning_rate, config.min_lr, config.warmup_iters, config.lr_decay_iters
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    last = decay - 1  # the iters before the one that reaches min_lr
    if step >= last:
        return low
    progress = (step - warmup) / (last - warmup)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * progress))
