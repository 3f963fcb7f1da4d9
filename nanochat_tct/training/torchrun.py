"""The same run without Ray:

python -m torch.distributed.run --nproc-per-node 2 -m nanochat_tct.training.torchrun --data-dir data/mine
"""

import dataclasses
import os
import signal
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

from nanochat_tct.config import parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tracking.terminal import Terminal
from nanochat_tct.training.checkpoint import exclusive
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker, broadcast
from nanochat_tct.training.plan import make_plan
from nanochat_tct.training.remote_run import push_notes
from nanochat_tct.training.run_folder import write_run_folder
from nanochat_tct.training.sample import print_samples
from nanochat_tct.training.signals import StopSignals
from nanochat_tct.training.trainer import Reporter, Trainer


def command(argv: list[str]) -> int:
    """One worker of the run; torchrun's --nproc-per-node takes the place of --num-workers."""
    config = parse_arguments(TrainConfig, argv, "train", "train a model on a token store, without Ray")
    if config.data_dir is None:
        raise UserError("--data-dir is missing: give a token store written by `nanochat-tct prepare`")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    plan = make_plan(dataclasses.replace(config, num_workers=world_size, min_workers=None))
    config = plan.config
    device = torch.device("cuda", local_rank) if config.use_gpu else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world_size))
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if config.use_gpu else "gloo")
    worker = Worker(int(os.environ.get("RANK", "0")), world_size, device)
    if worker.is_first:
        print("\n".join(plan.lines), flush=True)
        if plan.is_finished:
            print(f"run {config.run_name} is finished: nothing to do", flush=True)
    with ExitStack() as stack:
        try:
            hold_run_folder(plan.run_dir, worker, stack)
            terminal = Terminal(config.max_iters) if worker.is_first else None
            with StopSignals() as signals, terminal or nullcontext():
                reporter = Reporter(stop_reason=signals.reason)
                if terminal is not None:
                    reporter = Reporter(
                        say=terminal.line,
                        progress=terminal.progress,
                        stop_reason=lambda: signals.reason() or terminal.stop_reason(),
                    )
                result = Trainer(config, worker, reporter).run()
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        if result["stopped"]:
            if worker.is_first:
                print(
                    f"stopped at iter {result['step']} by {result['stopped']}: "
                    "the same command goes on from there"
                )
            return signals.exit_code or 128 + signal.SIGTERM  # where only another worker heard it
        if worker.is_first:
            print(f"checkpoint: {result['checkpoint']}", flush=True)
            write_run_folder(plan.run_dir, config, print_samples(plan.run_dir, config))
            push_notes(plan.run_dir, config.run_place)
    return 0


def hold_run_folder(run_dir: Path, worker: Worker, stack: ExitStack) -> None:
    """Hold the run's folder on rank 0 until the stack is closed, as the driver of a run on Ray does.

    Raises: StoppedTogether, on every worker, when another job holds it.
    """
    problem = None
    if worker.is_first:
        try:
            stack.enter_context(exclusive(run_dir))
        except UserError as error:
            problem = str(error)
    problem = broadcast(problem, worker)
    if problem is not None:
        raise StoppedTogether(problem)


def said_once(argv: list[str]) -> int:
    """The command, where rank 0 alone tells what a user did wrong. Returns the exit code."""
    try:
        return command(argv)
    except UserError:
        if os.environ.get("RANK", "0") == "0":
            raise
        return 2


if __name__ == "__main__":
    sys.exit(exit_code(lambda: said_once(sys.argv[1:])))
