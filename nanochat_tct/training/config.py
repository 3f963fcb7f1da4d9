"""The settings of a training run, and how those left open are derived."""

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from nanochat_tct.config import option, to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.limits import LONGEST_NAME, refuse_absurd
from nanochat_tct.model.config import BEFORE as MODELS_BEFORE
from nanochat_tct.model.config import PRESETS, GPTConfig
from nanochat_tct.storage.object_storage import is_remote, join

SHAPE = ("vocab_size", "context_size", "n_layer", "n_head", "n_embd", "shifted_keys")
# Settings that a resumed run must not change: it would be another run.
FIXED = (
    *SHAPE,
    *"dropout tokenizer train_samples windowing stride seed optimizer mask_illegal".split(),
)
# What earlier versions, without these settings, did.
BEFORE = {"optimizer": "adamw", "mask_illegal": False, **MODELS_BEFORE}
# Settings that change the results of a run, and with them its default name.
MATHEMATICS = (
    *FIXED,
    *"batch_size gradient_accumulation num_workers precision learning_rate weight_decay weight_average".split(),
    *"beta1 beta2 grad_clip warmup_iters lr_decay_iters min_lr data_dir".split(),
)
BUNDLED_STORE = "data/demo"  # of synthetic workflows, for a run without --data-dir
# Two upper limits of the default, beyond which nothing was measured (docs/LOG.md): weight decay / epochs, and weight
# decay x learning rate x sqrt(n_embd). With the second, an iter of Muon takes 13% of a matrix's weights.
MOST_DECAY_OF_EPOCH = 2.0
MOST_DECAY = 0.64
# The default of weight_average, and the number of epochs from which it applies (docs/LOG.md).
AVERAGE_SHARE, AVERAGE_FROM_EPOCHS = 0.4, 3
# Windows of an iter with `batch_size: auto`, as in configs/*.yaml.
GLOBAL_BATCH = {"demo": 16, "baseline": 64, "small": 128, "medium": 128, "large": 256}


@dataclass(frozen=True)
class TrainConfig:
    """All settings of `train`. `resolve` derives those that are None from the others."""

    # model and data
    preset: str = option("demo", "size of the model", choices=tuple(PRESETS))
    data_dir: str | None = option(
        None, "token store (folder or URI); none: bundled synthetic workflows", is_path=True
    )
    tokenizer: str = option("builtin", "builtin, wheel, or a vocabulary file", is_path=True)
    vocab_size: int | None = option(
        None, "must be the tokenizer's; none: the tokenizer's", unit="tokens", least=1
    )
    context_size: int | None = option(None, "length of a row; none: the preset's", unit="tokens", least=1)
    n_layer: int | None = option(None, "layers; none: the preset's", least=1)
    n_head: int | None = option(None, "attention heads; none: the preset's", least=1)
    n_embd: int | None = option(None, "width; none: the preset's", least=1)
    shifted_keys: bool = option(True, "half of the heads look for the token before the one that they read")
    dropout: float | None = option(None, "share of activations dropped; none: the preset's")
    windowing: str | None = option(
        None, "how rows are cut; none: as prepare was told", choices=("stream", "per-document")
    )
    stride: int | None = option(
        None, "of per-document windows; none: as prepare was told", unit="tokens", least=1
    )
    mask_illegal: bool = option(True, "leave tokens out of the softmax where the grammar forbids them")
    train_samples: int | None = option(None, "train on the first N only, to overfit", unit="windows", least=1)

    # length and optimizer
    max_iters: int = option(200, "length of the run", unit="iters", least=1)
    batch_size: int | Literal["auto"] = option(
        8,
        "per worker and micro-step; auto: as many as fit, the global batch being the preset's",
        unit="windows",
        least=1,
    )
    gradient_accumulation: int = option(1, "micro-steps of a worker in an iter; not used with auto", least=1)
    optimizer: str = option(
        "muon", "muon: for matrices, AdamW with token parts for the rest; adamw", choices=("muon", "adamw")
    )
    learning_rate: float | None = option(None, "peak; none: 0.96 / n_embd", least=0)
    min_lr: float | None = option(None, "learning rate at the end; none: a tenth of the peak", least=0)
    warmup_iters: int | None = option(
        None, "none: a twentieth of the run, 200 at most", unit="iters", least=0
    )
    lr_decay_iters: int | None = option(
        None, "when min_lr is reached; none: max_iters", unit="iters", least=1
    )
    weight_decay: float | None = option(
        None,
        "of matrices; none: the shorter an epoch, the more (docs/training.md); adamw, train_samples: 0.1",
        least=0,
    )
    weight_average: float | None = option(
        None,
        "evaluate and save the mean weights of about this share of the iters so far; 0: the last ones; none: 0.4 in "
        "runs of several epochs (docs/training.md)",
        least=0,
    )
    beta1: float = option(0.9, "AdamW")
    beta2: float = option(0.95, "AdamW")
    grad_clip: float = option(1.0, "largest norm of the gradient; 0: no limit", least=0)
    seed: int = option(0, "of initial weights, order of windows, dropout", least=0)
    max_grad_norm_ratio: float = option(
        100.0, "skip an iter whose gradient is so many times the usual norm; 0: only if not finite", least=0
    )
    max_bad_iters: int = option(5, "stop after so many skipped in a row", unit="iters", least=1)

    # evaluations, log and checkpoints
    eval_interval: int = option(100, "between evaluations", unit="iters", least=1)
    eval_iters: int = option(0, "global batches of an evaluation; 0: the whole validation split", least=0)
    log_interval: int = option(10, "between log lines", unit="iters", least=1)
    save_interval: int = option(100, "between checkpoints", unit="iters", least=1)
    keep_checkpoints: int = option(2, "the last so many stay, and the best", least=1)
    checkpoint_dir: str = option(
        "checkpoints", "runs are folders in it; a folder, or an s3:// or gs:// URI", is_path=True
    )
    run_name: str | None = option(
        None, "use it again to go on with a run; none: wandb_run_name, or made of the settings"
    )
    resume: bool = option(False, "fail if there is nothing to go on with")

    # workers
    num_workers: int = option(
        2,
        "processes, one GPU each with --use-gpu; MIN:MAX or [MIN, MAX]: as many as there are",
        low="min_workers",
        least=1,
    )
    min_workers: int | None = option(
        None, "go on with as few when machines are lost; none: num_workers", least=1
    )
    use_gpu: bool = option(False, "train on GPUs")
    parallel: str = option("ddp", "copies of the model, or slices", choices=("ddp", "fsdp"))
    precision: str | None = option(None, "none: bf16 on GPU, fp32 on CPU", choices=("bf16", "fp32"))
    compile: bool = option(False, "torch.compile the model")
    checkpoint_activations: bool = option(False, "less memory, a third more time")
    wait_minutes: float = option(
        30.0, "for GPUs or CPUs that a cluster does not have yet, or not free", unit="minutes", least=0
    )
    max_failures: int = option(3, "restarts after a lost worker before giving up", least=0)

    # tracking
    log_dir: str = option("logs", "for TensorBoard and W&B", is_path=True)
    tensorboard: bool = option(True, "write TensorBoard events")
    wandb: str = option(
        "auto", "auto: online when logged in, else offline", choices=("auto", "online", "offline", "off")
    )
    wandb_project: str = option("nanochat-tct", "W&B project")
    wandb_run_name: str | None = option(None, "W&B name; none: the run's")
    gpu_hourly_usd: float = option(3.0, "price of a GPU", unit="USD/hour", least=0)
    cpu_hourly_usd: float = option(0.0, "price of a worker without GPU", unit="USD/hour", least=0)
    num_samples: int = option(1, "half-written workflows to complete when done", least=0)

    def __post_init__(self) -> None:
        refuse_absurd(self)
        for name in ("dropout", "beta1", "beta2"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}: it must be in [0, 1)")
        if self.least_workers > self.num_workers:
            raise UserError(f"--min-workers {self.min_workers} is more than --num-workers {self.num_workers}")
        if self.run_name is not None:
            self._check_run_name(self.run_name)
        if self.wandb != "off" and (
            not 0 < len(self.wandb_project) <= 128 or set(self.wandb_project) & set("/\\#?%:")
        ):
            raise UserError(
                f"--wandb-project {self.wandb_project!r:.60}: W&B takes 1 to 128 characters without / \\ # ? % :"
            )

    def _check_run_name(self, name: str) -> None:
        """Raises: UserError when it cannot be the name of a folder."""
        if not name.strip(". ") or "/" in name or not name.isprintable():
            raise UserError(f"--run-name {name!r:.100} must be the name of a folder")
        if len(name.encode()) > LONGEST_NAME:
            raise UserError(
                f"--run-name has {len(name.encode())} bytes: the name of a folder has {LONGEST_NAME} at most"
            )
        if re.fullmatch(r"iter_\d+", name):
            raise UserError(f"--run-name {name} is a name of checkpoints; take another")
        if is_remote(self.checkpoint_dir) and set(name) & set("?#%"):
            raise UserError(f"--run-name {name!r} cannot be in a URI: leave out ? # %")

    @property
    def least_workers(self) -> int:
        """The number of workers that the run needs to continue."""
        return self.min_workers or self.num_workers

    @property
    def global_batch(self) -> int:
        """Windows of one iter, over the configured number of workers."""
        if self.batch_size == "auto":
            return GLOBAL_BATCH[self.preset]
        return self.batch_size * self.gradient_accumulation * self.num_workers

    @property
    def hourly_usd(self) -> float:
        """Price of a worker."""
        return self.gpu_hourly_usd if self.use_gpu else self.cpu_hourly_usd


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """A TrainConfig in which every setting has its value; `resolve` returns it.

    Three settings may still be None: `train_samples` (all windows), `min_workers` (the same as `num_workers`) and
    `stride` (a stream has none).
    """

    data_dir: str
    vocab_size: int
    context_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    windowing: str
    learning_rate: float
    min_lr: float
    warmup_iters: int
    lr_decay_iters: int
    weight_decay: float
    weight_average: float
    run_name: str
    precision: str
    wandb_run_name: str

    @property
    def run_place(self) -> str:
        """The run's folder, or its URI."""
        return join(self.checkpoint_dir, self.run_name)

    def model(self) -> GPTConfig:
        """The model's shape."""
        return GPTConfig(dropout=self.dropout, **{name: getattr(self, name) for name in SHAPE})

    def reopened(self, **changes: Any) -> TrainConfig:
        """The same settings with `changes`; None lets `resolve` derive a setting again."""
        return TrainConfig(**{**vars(self), **changes})


def resolve(config: TrainConfig, vocab_size: int) -> ResolvedConfig:
    """Fill in the settings that were left open.

    `windowing` and `stride` depend on the store (`plan.make_plan`); here they are those of the bundled data. The
    weight decay and average are those of a single epoch; `for_epochs` knows how many there are.

    Args:
        vocab_size: the tokenizer's.
    Raises: UserError when the settings contradict each other.
    """
    if config.vocab_size not in (None, vocab_size):
        raise UserError(
            f"--vocab-size is {config.vocab_size}, but tokenizer {config.tokenizer!r} has {vocab_size}; "
            "leave it out"
        )
    run_name = config.run_name or config.wandb_run_name or default_run_name(config)
    preset = PRESETS[config.preset]
    shape = {
        name: getattr(preset, name) if getattr(config, name) is None else getattr(config, name)
        for name in ("context_size", "n_layer", "n_head", "n_embd", "dropout")
    }
    learning_rate, lr_decay_iters = config.learning_rate, config.lr_decay_iters or config.max_iters
    if learning_rate is None:
        learning_rate = float(f"{0.01 * 96 / shape['n_embd']:.2g}")
    min_lr = learning_rate / 10 if config.min_lr is None else config.min_lr
    warmup_iters = min(200, lr_decay_iters // 20) if config.warmup_iters is None else config.warmup_iters
    weight_decay = config.weight_decay
    if weight_decay is None:
        weight_decay = default_weight_decay(config, learning_rate, shape["n_embd"], lr_decay_iters)
    decided = {
        **shape,
        "vocab_size": vocab_size,
        "data_dir": BUNDLED_STORE if config.data_dir is None else config.data_dir,
        "windowing": config.windowing or "stream",
        "learning_rate": learning_rate,
        "min_lr": min_lr,
        "warmup_iters": warmup_iters,
        "lr_decay_iters": lr_decay_iters,
        "weight_decay": weight_decay,
        "weight_average": config.weight_average or 0.0,
        "precision": config.precision or ("bf16" if config.use_gpu else "fp32"),
        "run_name": run_name,
        "wandb_run_name": config.wandb_run_name or run_name,
    }
    resolved = ResolvedConfig(**{**vars(config), **decided})
    resolved.model()  # refuses impossible shapes
    if min_lr > learning_rate:
        raise UserError(
            f"--min-lr {min_lr:g} is more than --learning-rate {learning_rate:g}, which falls to it"
        )
    if resolved.weight_average > 1:
        raise UserError(f"--weight-average {resolved.weight_average:g} is a share, from 0 to 1")
    if warmup_iters > lr_decay_iters:
        raise UserError(f"--warmup-iters {warmup_iters} is more than --lr-decay-iters {lr_decay_iters}")
    return resolved


def default_weight_decay(
    config: TrainConfig, learning_rate: float, n_embd: int, iters: int, epochs: float = 1.0
) -> float:
    """The weight decay as measured for epochs of 16 to 1,240 iters, and for up to 28 epochs (docs/LOG.md).

    It follows from the length of an epoch: with less, a model memorizes what is repeated.

    Args:
        learning_rate: the peak.
        iters: of all epochs.
        epochs: at least 1; a run of less is an epoch.
    """
    moved = learning_rate * iters / epochs
    if config.optimizer == "adamw" or config.train_samples is not None or not moved:
        return 0.1
    most = min(MOST_DECAY_OF_EPOCH * epochs, MOST_DECAY / (learning_rate * math.sqrt(n_embd)))
    return float(f"{min(1.3 / min(moved, math.sqrt(moved)), most):.2g}")


def for_epochs(
    resolved: ResolvedConfig, config: TrainConfig, num_windows: int, global_batch: int
) -> ResolvedConfig:
    """The resolved config of a run over some data, with the weight decay and average that `config` leaves open.

    Args: as of `own_rate`.
    """
    epochs = 1 / own_rate(resolved, num_windows, global_batch)
    decay, average = config.weight_decay, config.weight_average
    if decay is None:
        length = resolved.lr_decay_iters
        decay = default_weight_decay(config, resolved.learning_rate, resolved.n_embd, length, epochs)
    if average is None:
        average = AVERAGE_SHARE if config.optimizer == "muon" and epochs >= AVERAGE_FROM_EPOCHS else 0.0
    return dataclasses.replace(resolved, weight_decay=decay, weight_average=average)


def default_run_name(config: TrainConfig) -> str:
    """The preset's name, with a short hash of the settings in MATHEMATICS that differ from their defaults.

    So the same command resumes its run, and a command with other settings does not.
    """
    default = TrainConfig(preset=config.preset)
    given = {name: getattr(config, name) for name in MATHEMATICS}
    changed = {name: value for name, value in given.items() if value != getattr(default, name)}
    if not changed:
        return config.preset
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
    return f"{config.preset}-{digest[:6]}"


def refuse_other_run(
    config: ResolvedConfig, data_fingerprint: str, tokenizer_fingerprint: str, state: dict[str, Any]
) -> None:
    """Compare a resolved config with the checkpoint that the run would resume from.

    Raises: UserError that names the first important difference.
    """
    was, now = {**BEFORE, **state["config"]}, to_dict(config)
    advice = "take that again, or another --run-name for a new run"
    where = f"run {config.run_name!r} at iter {state['step']}"
    if state["tokenizer"]["fingerprint"] != tokenizer_fingerprint:
        raise UserError(
            f"{where} was trained with tokenizer {state['tokenizer']['name']!r} "
            f"({state['tokenizer']['fingerprint'][:12]}), not {config.tokenizer!r} "
            f"({tokenizer_fingerprint[:12]}); {advice}"
        )
    if state["data"]["fingerprint"] != data_fingerprint:
        raise UserError(
            f"{where} was trained on the data in {was['data_dir']} ({state['data']['fingerprint'][:12]}), "
            f"not on {config.data_dir} as it is now ({data_fingerprint[:12]}); {advice}"
        )
    for name in FIXED:
        if name != "tokenizer" and was[name] != now[name]:
            raise UserError(f"{where} was started with {name} {was[name]}, not {now[name]}; {advice}")
    # The number of workers may differ: each accumulates more or less, and the settings per worker stay.
    as_it_was = dataclasses.replace(config, num_workers=was["num_workers"]).global_batch
    if state["global_batch"] not in (config.global_batch, as_it_was):
        raise UserError(
            f"{where} was started with a global batch of {state['global_batch']} windows, "
            f"not {config.global_batch} (batch_size x gradient_accumulation x num_workers); {advice}"
        )


def max_shard_size(total: int, world_size: int) -> int:
    """The size of a worker's largest shard of `total` items."""
    return -(-total // world_size)


def largest_micro_batch(config: TrainConfig, world_size: int, global_batch: int) -> int:
    """The configured windows of a micro-batch; with `auto` a worker's whole part of the global batch."""
    part = max_shard_size(global_batch, world_size)
    return part if config.batch_size == "auto" else min(config.batch_size, part)


def warm_up_rows(config: ResolvedConfig, world_size: int, global_batch: int) -> int:
    """Windows of forward and backward passes before the first iter, over all workers, if memory suffices.

    Each worker tries a micro-batch (`micro_batch.fit_micro_batch`), and then takes a micro-step with the others
    (`MicroSteps.warm_up`): of one window, or of a whole micro-batch if the model is compiled for that shape.
    """
    micro_batch = largest_micro_batch(config, world_size, global_batch)
    return world_size * (micro_batch + (micro_batch if config.compile else 1))


def own_rate(config: ResolvedConfig, num_windows: int, global_batch: int) -> float:
    """The learning rate of tokens' own vectors, relative to that of their parts: 1 / epochs.

    So a token repeated over many epochs learns as much by itself as if it had seen each occurrence once. Epochs count
    until `lr_decay_iters`, like the learning rate, so that a larger `max_iters` changes neither.

    Args:
        num_windows: of an epoch.
        global_batch: windows of an iter.
    Returns: 1 for less than an epoch, and for runs that are meant to memorize (`train_samples`).
    """
    if config.train_samples is not None:
        return 1.0
    return min(1.0, num_windows / (config.lr_decay_iters * global_batch))
