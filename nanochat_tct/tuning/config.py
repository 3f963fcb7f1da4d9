"""The settings of a sweep."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from nanochat_tct.config import convert, option, suggest
from nanochat_tct.errors import UserError
from nanochat_tct.limits import LARGEST_FLOAT, refuse_absurd
from nanochat_tct.model.presets import PRESETS
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.tuning.ledger import Terms
from nanochat_tct.tuning.trials import VARIABLE, Unit

LARGEST_BUDGET = 1e30  # FLOPs; what all computers of the world do in years
MOST_HOURS = 1e9
MOST_TRIALS = 10_000  # at first, of a size; and at a time
WIDEST_SPAN = 1000.0
# What may change when a sweep goes on: it does not change what is trained.
FREE = (
    *("fresh", "dry_run", "output", "concurrency", "use_gpu", "compile", "checkpoint_activations"),
    *("tensorboard", "wandb", "wandb_project", "max_failures", "parallel", "num_workers", "wait_minutes"),
)
# Settings of `train` that a sweep decides itself, and why they are no settings of `tune`.
DECIDED = {
    "learning_rate": "is swept anyway; see --num-rates and --rate-span",
    **dict.fromkeys(("n_layer", "n_head", "n_embd"), "is a matter of size; see --sizes"),
    "vocab_size": "is the tokenizer's",
    **dict.fromkeys(
        ("min_lr", "warmup_iters", "lr_decay_iters"), "follows from each trial's learning rate and length"
    ),
    "max_iters": "follows from the budget",
    **dict.fromkeys(
        ("eval_interval", "eval_iters", "log_interval", "save_interval", "keep_checkpoints"),
        "follows from the length of each trial and its share of the budget",
    ),
    **dict.fromkeys(
        ("checkpoint_dir", "log_dir", "run_name", "wandb_run_name"), "is a folder or name in --output"
    ),
    "resume": "is what the same command does",
    "min_workers": "is --num-workers: the price of a trial is that of so many",
    "cpu_hourly_usd": "is --gpu-hourly-usd here, whatever the workers are",
    "num_samples": "is 0: the budget is for training",
}
# Settings of `train` that `tune` has too, with another default, text or set of values, and why.
DIFFERENT = {
    "preset": "it gives context, dropout and proportions; the sizes are those of --sizes",
    "batch_size": "auto is left out: a trial's price must follow from its settings",
    "num_workers": "one process by default, as trials run side by side; no range, as min_workers is decided",
    "gpu_hourly_usd": "no default: a budget in dollars must not rest on a guess",
    "seed": "it also draws learning rates",
    "wait_minutes": "a sweep waits for the GPUs of one trial; it starts with the CPUs there are",
}


def shared(name: str) -> Any:
    """A setting of `train` that means the same for each trial: default, help, unit and choices are those there."""
    field = next(field for field in dataclasses.fields(TrainConfig) if field.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclass(frozen=True)
class SweepConfig:
    """Everything `tune` can be told. What is named like a setting of `train` is handed on to each trial."""

    # the budget: one of the three
    budget_usd: float | None = option(None, "hard limit of all that the sweep does", unit="USD")
    budget_gpu_hours: float | None = option(
        None, "the same, in GPU-hours; without --use-gpu in hours of worker processes", unit="hours"
    )
    budget_flops: float | None = option(None, "the same, in FLOPs of training and evaluation", unit="FLOPs")
    gpu_hourly_usd: float | None = option(
        None, "price of a GPU (of a process without GPU); needed by --budget-usd", unit="USD/hour"
    )
    sweep_share: float = option(0.3, "of the budget for probes and trials; the rest is the final run's")

    # what is tried
    sizes: list[str] = option(
        ["2x64", "demo", "6x160"], "presets, layers x width (6x192), or widths of the preset's proportions"
    )
    search: str = option(
        "grid", "how first trials are spread over what is tried", choices=("grid", "log-uniform", "optuna")
    )
    num_rates: int = option(4, "learning rates tried for each size at first")
    rate_span: float = option(4.0, "from the rule's rate, 0.96 / n_embd, down and up by this factor")
    vary: dict[str, list[Any]] = option(
        {}, f"values of more settings of train: {', '.join(VARIABLE)}; in a file {{dropout: [0, 0.1]}}"
    )
    follow_up_share: float = option(
        0.4, "of the sweep's money for what the first trials suggest: rates beyond an edge, longer runs"
    )
    follow_up_factor: float = option(3.0, "a longer run costs so many first trials")
    hopeless: float = option(
        1.3, "half-way, stop a trial whose bits per byte are so many times the best of its size and length"
    )

    # how
    output: str = option(
        "sweeps/sweep", "folder of everything, or an s3:// or gs:// URI; a sweep there goes on", is_path=True
    )
    dry_run: bool = option(
        False, "stop after the forecast; the probes that it rests on are charged to the budget"
    )
    fresh: bool = option(False, "start anew; what was there is moved aside")
    concurrency: int | None = option(None, "trials at a time; none: as many as there are GPUs or cores for")
    seed: int = option(0, "of drawn learning rates, initial weights, order of windows")

    # of each trial
    preset: str = option("demo", "context, dropout and proportions", choices=tuple(PRESETS))
    data_dir: str | None = shared("data_dir")
    tokenizer: str = shared("tokenizer")
    context_size: int | None = shared("context_size")
    dropout: float | None = shared("dropout")
    windowing: str | None = shared("windowing")
    stride: int | None = shared("stride")
    mask_illegal: bool = shared("mask_illegal")
    train_samples: int | None = shared("train_samples")
    batch_size: int = option(8, "per worker and micro-step", unit="windows")
    gradient_accumulation: int = shared("gradient_accumulation")
    optimizer: str = shared("optimizer")
    weight_decay: float | None = shared("weight_decay")
    beta1: float = shared("beta1")
    beta2: float = shared("beta2")
    grad_clip: float = shared("grad_clip")
    max_grad_norm_ratio: float = shared("max_grad_norm_ratio")
    max_bad_iters: int = shared("max_bad_iters")
    num_workers: int = option(1, "processes of a trial; one GPU each with --use-gpu")
    use_gpu: bool = shared("use_gpu")
    parallel: str = shared("parallel")
    precision: str | None = shared("precision")
    compile: bool = shared("compile")
    checkpoint_activations: bool = shared("checkpoint_activations")
    wait_minutes: float = option(30.0, "for GPUs that a cluster does not have yet", unit="minutes")
    max_failures: int = shared("max_failures")
    tensorboard: bool = shared("tensorboard")
    wandb: str = shared("wandb")
    wandb_project: str = shared("wandb_project")

    def __post_init__(self) -> None:
        for name in ("budget_usd", "budget_gpu_hours", "budget_flops", "gpu_hourly_usd"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{_flag(name)} is {value:g}: it must be more than 0")
        refuse_absurd(self, LARGEST_BUDGET)
        for name in ("sweep_share", "follow_up_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} is {getattr(self, name):g}: it must be between 0 and 1")
        for name in ("rate_span", "hopeless", "follow_up_factor"):
            if getattr(self, name) <= 1:
                raise UserError(f"{_flag(name)} is {getattr(self, name):g}: it must be more than 1")
        for name in ("num_rates", "concurrency"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST_TRIALS:
                raise UserError(f"{_flag(name)} is {value}: it must be from 1 to {MOST_TRIALS:,}")
        if self.rate_span > WIDEST_SPAN:
            raise UserError(f"--rate-span is {self.rate_span:g}: it must be at most {WIDEST_SPAN:g}")
        for name, most in (("budget_gpu_hours", MOST_HOURS), ("budget_usd", LARGEST_FLOAT)):
            if (value := getattr(self, name)) is not None and value > most:
                raise UserError(f"{_flag(name)} is {value:g}: it must be at most {most:g}")
        if not self.sizes:
            raise UserError("--sizes is empty: name at least one preset, or layers x width such as 6x192")
        self.train_settings()

    def varied(self) -> dict[str, list[Any]]:
        """The settings that `vary` names, with their values as `train` would read them.

        Raises: UserError for one that cannot be varied, and for a value that `train` refuses.
        """
        varied: dict[str, list[Any]] = {}
        for given, values in self.vary.items():
            name, where = given.replace("-", "_"), f"vary {given}"
            if name not in VARIABLE:
                decided = DECIDED | dict.fromkeys(("size", "sizes", "preset"), DECIDED["n_embd"])
                what = decided.get(name, f"cannot be varied{suggest(name, VARIABLE)}")
                raise UserError(f"vary: {given} {what}; vary takes {', '.join(VARIABLE)}")
            varied[name] = [convert(TrainConfig, name, value, where) for value in values]
            if len(values) < 2 or None in varied[name] or len(set(varied[name])) < len(values):
                raise UserError(
                    f"{where} must be two or more values, each once; for a single one use {_flag(name)}"
                )
            for value in varied[name]:
                try:
                    TrainConfig(**{name: value})
                except UserError as error:
                    raise UserError(f"{where}: {error}") from error
        return varied

    @property
    def trials_of_a_size(self) -> int:
        """How many are tried at first (`first_points` in space.py says which)."""
        more = sum(len(values) - 1 for values in self.varied().values())
        return self.num_rates * (1 + more) if self.search == "grid" else self.num_rates

    def train_settings(self) -> dict[str, Any]:
        """The settings that each trial takes over; of what is varied the first value. Refuses what `train` refuses."""
        taken = {field.name for field in dataclasses.fields(TrainConfig)} - {"gpu_hourly_usd"}
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__ if name in taken}
        settings |= {name: values[0] for name, values in self.varied().items()}
        if self.gpu_hourly_usd is not None:
            settings |= {"gpu_hourly_usd": self.gpu_hourly_usd, "cpu_hourly_usd": self.gpu_hourly_usd}
        TrainConfig(**settings)
        return settings

    def terms(self, data_fingerprint: str, tokenizer_fingerprint: str) -> Terms:
        """The budget, and what makes this sweep this one.

        Raises: UserError when there is no budget, or more than one, or no price where one is needed.
        """
        budgets: dict[Unit, float | None] = {
            "usd": self.budget_usd,
            "gpu_hours": self.budget_gpu_hours,
            "flops": self.budget_flops,
        }
        given = {unit: value for unit, value in budgets.items() if value is not None}
        if len(given) != 1:
            what = "no budget is given" if not given else "more than one budget is given"
            raise UserError(f"{what}: use one of --budget-usd, --budget-gpu-hours and --budget-flops")
        ((unit, budget),) = given.items()
        if unit == "usd" and self.gpu_hourly_usd is None:
            raise UserError("--budget-usd needs --gpu-hourly-usd, the price of a GPU (or process) in an hour")
        if unit == "usd" and self.gpu_hourly_usd is not None and budget / self.gpu_hourly_usd > MOST_HOURS:
            raise UserError(
                f"--budget-usd {budget:g} at --gpu-hourly-usd {self.gpu_hourly_usd:g} is "
                f"{budget / self.gpu_hourly_usd:g} hours: it must be at most {MOST_HOURS:g}"
            )
        sweep = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in FREE}
        sweep |= {"data_dir": data_fingerprint, "tokenizer": tokenizer_fingerprint, "vary": self.varied()}
        return Terms(unit, budget, self.gpu_hourly_usd, sweep)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
