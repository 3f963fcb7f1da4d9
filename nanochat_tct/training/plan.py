"""The plan of a run: its config resolved against the data, which is printed before training starts.

Wrong settings are found before PyTorch is imported, which takes seconds.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windowing, Windows
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.model.accounting import flops_per_token, memory_bytes, parameter_count
from nanochat_tct.storage.object_storage import absolute, join, local_path
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.line import duration
from nanochat_tct.tracking.tracker import wandb_mode
from nanochat_tct.training.config import (
    ResolvedConfig,
    TrainConfig,
    for_epochs,
    largest_micro_batch,
    max_shard_size,
    own_rate,
    refuse_other_run,
    resolve,
)

MOST_BYTES = 2**44  # 16 TiB: no machine has more memory
PROCESS_BYTES = 3 * 10**8  # memory of a worker without its model
ROW_ELEMENT_BYTES = 48  # memory for each element of a row while a batch is read: tokens, masks, and copies
EXPECTED_UTILIZATION = {"cpu": 0.4, "cuda": 0.3}  # share of the peak, for the estimate of time only
# Settings that may change without a line when a run continues.
UNREMARKABLE = ("data_dir", "checkpoint_dir", "log_dir", "run_name", "wandb_run_name", "resume")


@dataclass(frozen=True)
class Plan:
    """A resolved config with absolute paths, and the checkpoint that the run continues from."""

    config: ResolvedConfig
    num_windows: dict[str, int]  # of each split
    previous: checkpoint.Checkpoint | None

    @property
    def run_dir(self) -> Path:
        """The run's folder on this machine, or the local copy of a remote one."""
        return local_path(self.config.run_place)

    @property
    def step(self) -> int:
        """Steps done so far."""
        return 0 if self.previous is None else self.previous.step

    @property
    def is_finished(self) -> bool:
        return self.step >= self.config.max_iters


def check_settings(config: TrainConfig) -> ResolvedConfig:
    """Resolve a config, and check everything that does not depend on the data.

    Raises: UserError.
    """
    on_cluster = bool(os.environ.get("RAY_ADDRESS"))
    if config.use_gpu and "RAY_ADDRESS" not in os.environ:
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "--use-gpu, but torch sees no GPU here; leave it out, or set RAY_ADDRESS to a cluster"
            )
    resolved = resolve(config, load_tokenizer(config.tokenizer).vocab_size())
    if config.global_batch < config.num_workers:
        raise UserError(
            f"--num-workers {config.num_workers} is more than the global batch of {config.global_batch} windows, "
            f"which is the {config.preset}'s with --batch-size auto; take fewer workers, or give --batch-size"
        )
    refuse_beyond_memory(resolved)
    refuse_folder(join(config.checkpoint_dir, resolved.run_name), "--checkpoint-dir")
    # On a cluster the first worker writes the logs, on another machine.
    if (config.tensorboard or config.wandb != "off") and not on_cluster:
        refuse_folder(str(Path(config.log_dir, resolved.run_name)), "--log-dir")
    return resolved


def refuse_beyond_memory(config: ResolvedConfig, trials: int = 1) -> None:
    """Refuse a config whose workers need more memory than their machine has.

    The memory of GPUs and of other machines is unknown here, so for those the limit is more than any machine has.

    Args:
        trials: the number of such runs at the same time.
    Raises: UserError.
    """
    shape = config.model()
    is_here = not config.use_gpu and os.environ.get("RAY_ADDRESS", "") in ("", "local")
    rows = max_shard_size(config.global_batch, config.num_workers)
    is_fixed = is_here and config.batch_size != "auto"
    held = memory_bytes(
        shape,
        largest_micro_batch(config, config.num_workers, config.global_batch) if is_fixed else 1,
        config.precision,
        config.checkpoint_activations,
        config.num_workers if config.parallel == "fsdp" else 1,
        config.optimizer,
        config.weight_average > 0,
    ).total
    needed = PROCESS_BYTES + held + rows * (shape.context_size + 1) * ROW_ELEMENT_BYTES
    there = MOST_BYTES
    if is_here:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # torchrun says how many are on this machine.
        local_workers = int(os.environ.get("LOCAL_WORLD_SIZE", config.num_workers))
        needed *= min(config.num_workers, local_workers) * trials
    if needed > there:
        at_a_time = f"{trials} trials of " if trials > 1 else ""
        raise UserError(
            f"{at_a_time}{config.num_workers} workers with {shape.n_layer} layers of width {shape.n_embd}, context "
            f"{shape.context_size} and {rows} windows each would hold about {gigabytes(needed)} GB, and "
            f"{'this machine has' if is_here else 'no machine has more than'} {gigabytes(there)} GB; take a smaller "
            "model, --batch-size, --gradient-accumulation or --num-workers"
        )


def gigabytes(count: int) -> str:
    """Format bytes as gigabytes."""
    return f"{count // 10**9:,}" if count < 10**15 else f"10^{len(str(count // 10**9)) - 1}"


def open_windows(store: TokenStore, config: ResolvedConfig, split: Literal["train", "val"]) -> Windows:
    """The windows of a split; for validation always those of a stream, which holds each token once."""
    if split == "val":
        return Windows(store, split, config.context_size)
    return Windows(store, split, config.context_size, cast(Windowing, config.windowing), config.stride)


def make_plan(config: TrainConfig) -> Plan:
    """Check a config against tokenizer, data, machine and earlier checkpoints; fill in what was left open.

    Raises: UserError for everything that would certainly make the run fail later.
    """
    resolved = check_settings(config)
    store = TokenStore.open(resolved.data_dir, is_whole=False)
    tokenizer = load_tokenizer(config.tokenizer, store.tokenizer_fingerprint)
    store.check_tokenizer(tokenizer)
    settings = store.manifest["settings"]
    windowing = config.windowing or settings["windowing"]
    is_like_prepared = windowing == settings["windowing"]
    resolved = dataclasses.replace(
        resolved,
        windowing=windowing,
        stride=config.stride or (settings["stride"] if is_like_prepared else None),
        data_dir=absolute(resolved.data_dir),
        checkpoint_dir=absolute(config.checkpoint_dir),
        log_dir=str(Path(config.log_dir).resolve()),
        wandb=wandb_mode(config.wandb),
    )
    num_windows = count_windows(store, resolved)
    run_dir = remote_run.pull(resolved.run_place)
    path = checkpoint.latest_checkpoint(run_dir)
    previous = checkpoint.load_checkpoint(path, verify=False) if path else None
    if previous is not None:
        if previous.state["global_batch"] < resolved.num_workers:
            raise UserError(
                f"run {resolved.run_name!r} has a global batch of {previous.state['global_batch']} windows, which is "
                f"too small for --num-workers {resolved.num_workers}; take fewer"
            )
        refuse_other_run(resolved, store.fingerprint, tokenizer.fingerprint, previous.state)
    elif config.resume:
        raise UserError(f"--resume, but {run_dir} holds no checkpoint; leave --resume out to start a new run")
    global_batch = previous.state["global_batch"] if previous else resolved.global_batch
    return Plan(for_epochs(resolved, config, num_windows["train"], global_batch), num_windows, previous)


def count_windows(store: TokenStore, config: ResolvedConfig) -> dict[str, int]:
    """The number of windows of each split. Raises: UserError if a split has none."""
    counts = {}
    for split in ("train", "val"):
        counts[split] = len(open_windows(store, config, split))
        if len(store.split(split, ["split"])) == 0:
            raise UserError(
                f"{config.data_dir} has no document in its {split} split (train_split "
                f"{store.manifest['settings']['train_split']:g}): prepare it again with another --train-split, or "
                "with documents of more owners"
            )
        if counts[split] == 0:
            raise UserError(
                f"{config.data_dir} has no {split} windows of {config.context_size} tokens; prepare more "
                "workflows, or take a smaller --context-size"
            )
    return counts


def evaluations_left(config: ResolvedConfig, done: int) -> int:
    """Evaluations still to come: at multiples of the interval (also one that a kill cut off), and at the end."""
    first = math.ceil(done / config.eval_interval)
    last = config.max_iters // config.eval_interval
    return max(0, last - first + 1) + (config.max_iters % config.eval_interval > 0)


def describe(plan: Plan) -> list[str]:
    """The lines to print about a plan: everything that was derived from settings and data. Imports PyTorch."""
    config, num_windows, previous = plan.config, plan.num_windows, plan.previous
    shape = config.model()
    global_batch = previous.state["global_batch"] if previous else config.global_batch
    batch_tokens = global_batch * shape.context_size
    trained_windows = min(num_windows["train"], config.train_samples or num_windows["train"])
    start = f"going on from iter {previous.step}" if previous else "new"
    if config.batch_size == "auto":
        batch = f"batch_size auto: as many at a time as fit, the global batch is {config.preset}'s"
    else:
        batch = (
            f"batch_size {config.batch_size} x gradient_accumulation {config.gradient_accumulation} x "
            f"num_workers {config.num_workers}"
        )
    own_share = own_rate(config, trained_windows, global_batch)
    own = ""
    if own_share < 1 and config.optimizer == "muon" and config.tokenizer != "wheel":
        own = f"; {own_share:.2g} of the rate for what tokens learn apart from their parts"
    if config.weight_average:
        own += f"; weights averaged over {config.weight_average:.0%} of the iters"
    at_least = f"{config.least_workers} to " if config.least_workers < config.num_workers else ""
    return [
        f"run        {config.run_name} ({start}), in {config.run_place}",
        f"model      {config.preset}: {shape.n_layer} layers, {shape.n_head} heads, width {shape.n_embd}, "
        f"context {shape.context_size}: {parameter_count(shape):,} parameters, "
        f"{flops_per_token(shape) / 1e6:.1f}M FLOPs a token",
        f"data       {config.data_dir}: {trained_windows:,} windows for training, "
        f"{num_windows['val']:,} for validation",
        f"iter       {global_batch} windows = {batch_tokens:,} tokens ({batch})",
        f"length     {config.max_iters} iters = {config.max_iters * batch_tokens:,} tokens = "
        f"{config.max_iters * global_batch / trained_windows:.1f} epochs",
        f"learning   {config.optimizer}, rate {config.learning_rate:g} after {config.warmup_iters} iters of warm-up, "
        f"down to {config.min_lr:g} at iter {config.lr_decay_iters}; weight decay {config.weight_decay:g}{own}",
        f"workers    {at_least}{config.num_workers} {'GPUs' if config.use_gpu else 'processes on CPU'}, "
        f"{config.parallel}, {config.precision}, ${config.hourly_usd:g} an hour each; W&B {config.wandb}",
        *estimate(config, global_batch, num_windows["val"], previous.step if previous else 0),
        *([] if previous is None else changes(config, previous.state["config"])),
    ]


def estimate(config: ResolvedConfig, global_batch: int, num_validation: int, done: int) -> list[str]:
    """A line about time and money, in a list; an empty list if the GPUs are on other machines."""
    import torch

    from nanochat_tct.training.speed import peak_of

    device = torch.device("cuda" if config.use_gpu else "cpu")
    if config.use_gpu and not torch.cuda.is_available():
        return []
    devices = config.num_workers if config.use_gpu else 1  # the workers share the cores of a CPU
    peak = devices * peak_of(device)
    measured = min(num_validation, config.eval_iters * global_batch or num_validation)
    trained = max(0, config.max_iters - done) * global_batch
    evaluated = evaluations_left(config, done) * measured / 3 if trained else 0  # without a backward pass
    flops = (trained + evaluated) * config.context_size * flops_per_token(config.model())
    seconds = flops / (peak * EXPECTED_UTILIZATION[device.type])
    dollars = seconds / 3600 * config.hourly_usd * config.num_workers
    return [
        f"estimate   {duration(seconds)} of training, ${dollars:.2f}, if nothing else runs there; eta is measured"
    ]


def changes(config: ResolvedConfig, before: dict[str, object]) -> list[str]:
    """A line for each setting that differs from the checkpoint's."""
    return [
        f"changed    {name}: was {before[name]}, is {value}"
        for name, value in vars(config).items()
        if name in before and name not in UNREMARKABLE and before[name] != value
    ]
