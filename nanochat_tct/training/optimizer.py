"""AdamW with decay on matrices only, and the learning rate's way through a run."""

import math

import torch
from torch import nn

from nanochat_tct.training.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW in two groups: matrices decay, vectors do not. Fused: one kernel for all."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}]
    if vectors:  # the plain model has none
        groups.append({"params": vectors, "weight_decay": 0.0})
    assert config.learning_rate is not None
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def learning_rate(step: int, config: TrainConfig) -> float:
    """Of the iter that comes after `step` iters: linear warm-up, then half a cosine down to min_lr."""
    peak, low, warmup, decay = config.learning_rate, config.min_lr, config.warmup_iters, config.lr_decay_iters
    assert peak is not None and low is not None and warmup is not None and decay is not None
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if step >= decay:
        return low
    progress = (step - warmup) / max(1, decay - warmup)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * progress))
