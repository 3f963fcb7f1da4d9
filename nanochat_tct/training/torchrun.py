"""Training without Ray:

python -m torch.distributed.run --nproc-per-node 2 -m nanochat_tct.training.torchrun --data-dir data/mine
"""

import dataclasses
import functools
import os
import signal
import sys
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist

from nanochat_tct.config import parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tracking.terminal import Terminal
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.distributed import Worker, set_up_device, together
from nanochat_tct.training.launch import launch
from nanochat_tct.training.plan import Plan, make_plan
from nanochat_tct.training.signals import StopSignals
from nanochat_tct.training.trainer import Reporter, Trainer


def command(argv: list[str]) -> int:
    """Train as one worker of the run; torchrun's --nproc-per-node replaces --num-workers.

    Returns: the exit code. Only rank 0 prints the user's mistakes.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        config = parse_arguments(TrainConfig, argv, "train", "train a model on a token store, without Ray")
        if config.data_dir is None:
            raise UserError("--data-dir is missing: give a token store written by `nanochat-tct prepare`")
        plan = make_plan(dataclasses.replace(config, num_workers=world_size, min_workers=None))
        use_gpu = plan.config.use_gpu
        device = (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_gpu else torch.device("cpu")
        )
        set_up_device(device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        if "RANK" in os.environ:
            dist.init_process_group("nccl" if use_gpu else "gloo")
        worker = Worker(rank, world_size, device)
        train = functools.partial(train_here, worker=worker)
        return launch(plan, train, worker.is_first, functools.partial(together, worker))
    except UserError:
        if rank == 0:
            raise
        return 2
    finally:
        leave()


def train_here(plan: Plan, worker: Worker) -> dict[str, Any]:
    """Train as one of torchrun's workers; after SIGTERM or Ctrl-C all of them save and stop.

    Returns: the result of `Trainer.run`, with `exit_code`.
    """
    terminal = Terminal(plan.config.max_iters)  # only rank 0 shows it
    try:
        with StopSignals() as signals, terminal if worker.is_first else nullcontext():
            reporter = Reporter(
                say=terminal.line,
                progress=terminal.progress,
                stop_reason=lambda: signals.reason() or terminal.stop_reason(),
            )
            result = Trainer(plan.config, worker, reporter).run()
    finally:
        leave()  # only rank 0 continues
    # Another worker may be the only one that received a signal.
    return {**result, "exit_code": signals.exit_code or 128 + signal.SIGTERM}


def leave() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(exit_code(lambda: command(sys.argv[1:])))
