"""The model that workers train together, replicated or sharded, and its full state.

This is not part of `distributed.py` because importing FSDP takes as long as importing the rest of PyTorch, and neither
the driver nor Ray Train's controller needs it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from nanochat_tct.model.gpt import GPT
from nanochat_tct.training.distributed import Worker
from nanochat_tct.training.optim import WeightAverage


def distribute(model: GPT, worker: Worker, parallel: str, precision: str) -> nn.Module:
    """The model that the workers train together: wrapped by DDP, sharded by FSDP2, or unchanged for one worker.

    The GPT itself stays usable: `ddp` wraps it, `fsdp` changes it in place.
    """
    if parallel == "fsdp":
        assert dist.is_initialized()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        # Inputs of blocks are not cast: x has the dtype already, and the tables of angles need more precision.
        policy = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            fully_shard(block, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        return model
    if worker.world_size > 1:
        device_ids = [worker.device] if worker.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
    return model


@contextmanager
def gradient_sync(model: nn.Module, is_last: bool) -> Iterator[None]:
    """Let workers exchange gradients only in the last micro-step of an iter."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        yield
    elif isinstance(model, DistributedDataParallel) and not is_last:
        with model.no_sync():
            yield
    else:
        yield


@contextmanager
def averaged(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Let a model have the average of its weights, if there is one."""
    if average is None:
        yield
        return
    average.exchange()
    try:
        yield
    finally:
        for module in model.modules():  # FSDP keeps what it has gathered until a backward pass
            if isinstance(module, FSDPModule):
                module.reshard()
        average.exchange()


def full_state(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Full weights and optimizer state by parameter name. All workers must call it; with FSDP only rank 0 gets them."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=isinstance(model, FSDPModule))
    weights = get_model_state_dict(model, options=options)
    return cast(dict[str, Tensor], weights), get_optimizer_state_dict(model, optimizers, options=options)


def load_full_state(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    weights: dict[str, Tensor],
    optimizer_state: dict[str, Any],
) -> None:
    """Load the result of `full_state`, on any number of workers. Every worker passes the full state."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, dict(weights), options=options)
    set_optimizer_state_dict(model, optimizers, optimizer_state, options=options)
