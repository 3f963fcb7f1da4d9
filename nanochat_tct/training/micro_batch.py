"""How many windows a worker takes at a time: as many as asked for, or fewer where the memory does not hold them.

The global batch never changes: with fewer windows at a time a worker takes more turns in an iter.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from nanochat_tct.errors import UserError
from nanochat_tct.model.accounting import memory_bytes, parameter_count
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.parallel import StoppedTogether, Worker, gather, largest_share, share

FILE = "micro_batch.json"  # in the run's folder: what a worker found not to fit while training
ADAMW_BYTES = 8  # of AdamW's state, for each parameter


def largest_micro_batch(config: TrainConfig, world_size: int, global_batch: int) -> int:
    """What the config asks for; with `auto` a worker's whole part of the global batch."""
    part = largest_share(global_batch, world_size)
    return part if config.batch_size == "auto" else min(config.batch_size, part)


def warm_up_rows(config: TrainConfig, world_size: int, global_batch: int) -> int:
    """Windows that pass forward and backward before the first iter, over all workers, when memory suffices.

    Each worker tries a micro-batch (`fit_micro_batch`), and then takes a micro-step with the others
    (`MicroSteps.warm_up`): of one window, or of a whole micro-batch where the model is compiled for that.
    """
    micro_batch = largest_micro_batch(config, world_size, global_batch)
    return world_size * (micro_batch + (micro_batch if config.compile else 1))


def fit_micro_batch(
    config: TrainConfig,
    worker: Worker,
    global_batch: int,
    run_dir: Path,
    try_micro_batch: Callable[[int], None],
    say: Callable[[str], None],
) -> int:
    """Halve the micro-batch until every worker's memory holds it. All workers call it, and agree.

    Each worker tries by itself, before the model is distributed: one that ran out of memory while the others
    wait for it in an exchange of gradients could not tell them.

    Args:
        config: with batch_size `auto`, halving starts with a worker's whole part of the global batch.
        run_dir: where an earlier start of the run may have left what did not fit (`out_of_memory`).
        try_micro_batch: a forward and backward pass of so many windows.
    Returns: windows.
    Raises: StoppedTogether when not even one fits.
    """
    wanted = micro_batch = largest_micro_batch(config, worker.world_size, global_batch)
    reason = ""
    if worker.device.type == "cpu" and config.batch_size == "auto":
        # A CPU's memory has no clear end: half of the machine's at most, by estimate.
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 / worker.world_size
        while micro_batch > 1 and _estimate(config, micro_batch) > room:
            micro_batch = (micro_batch + 1) // 2
    full_at = share(_read(run_dir) if worker.is_first else None, worker)
    if full_at is not None:
        while micro_batch > 1 and micro_batch >= full_at:
            micro_batch = (micro_batch + 1) // 2
        reason = f", as the memory was full with {full_at}"
    while not all(gather(_fits(config, worker, micro_batch, try_micro_batch), worker)):
        if micro_batch == 1:
            raise StoppedTogether(f"out of memory with a single window; {ADVICE}")
        reason = f", as the memory was full with {micro_batch}"
        micro_batch = (micro_batch + 1) // 2
    if reason or config.batch_size == "auto":
        turns = -(-largest_share(global_batch, worker.world_size) // micro_batch)
        asked = "--batch-size auto" if config.batch_size == "auto" else f"batch_size {wanted}"
        say(f"{asked}: {micro_batch} windows at a time, {turns} times an iter{reason}")
    return micro_batch


def out_of_memory(micro_batch: int, run_dir: Path) -> UserError:
    """The error of a worker whose memory is full in the middle of training.

    What did not fit is written down for the next start of the run, by Ray Train or by hand.
    """
    if micro_batch == 1:
        return UserError(f"out of memory with a single window; {ADVICE}")
    run_dir.mkdir(parents=True, exist_ok=True)
    partial = run_dir / f".partial-{FILE}-{os.getpid()}"
    partial.write_text(json.dumps({"full_at": micro_batch}))
    os.replace(partial, run_dir / FILE)
    return UserError(
        f"out of memory with {micro_batch} windows at a time; the run goes on from its last checkpoint "
        f"with {(micro_batch + 1) // 2}: run it again if that does not happen by itself"
    )


ADVICE = "try --checkpoint-activations, a smaller model, or --parallel fsdp on more GPUs"


def _read(run_dir: Path) -> int | None:
    try:
        return int(json.loads((run_dir / FILE).read_text())["full_at"])
    except FileNotFoundError:
        return None


def _fits(
    config: TrainConfig, worker: Worker, micro_batch: int, try_micro_batch: Callable[[int], None]
) -> bool:
    """Whether this worker's memory holds a forward and backward pass, beside the optimizer's state to come."""
    is_cut = config.parallel == "fsdp" and worker.world_size > 1  # then half of what is held now goes
    reserve = 0 if is_cut or worker.device.type == "cpu" else ADAMW_BYTES * parameter_count(config.model())
    try:
        held = torch.empty(reserve, dtype=torch.uint8, device=worker.device)
        try_micro_batch(micro_batch)
        del held
        return True
    except torch.OutOfMemoryError:
        pass  # its traceback holds on to the activations until here
    if worker.device.type == "cuda":
        torch.cuda.empty_cache()
    if config.compile:
        torch.compiler.reset()  # or the next size would be compiled as one of many
    return False


def _estimate(config: TrainConfig, micro_batch: int) -> int:
    return memory_bytes(
        config.model(),
        micro_batch,
        str(config.precision),
        config.checkpoint_activations,
        optimizer=config.optimizer,
    ).total
