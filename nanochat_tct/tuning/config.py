"""The settings of a sweep."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanochat_tct.config import convert, flag_of, option, passed_on, settings_of, suggest, to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.limits import LARGEST_FLOAT, refuse_absurd
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.tuning.budget import Terms
from nanochat_tct.tuning.records import VARIABLE, Unit
from nanochat_tct.tuning.space import (
    COMPOSED,
    Range,
    Values,
    grid_values,
    middle_values,
    read_range,
    settings_for,
)

LARGEST_BUDGET = 1e30  # FLOPs; what all computers of the world do in years
MOST_HOURS = 1e9
MOST_TRIALS = 10_000  # at first, of a size; and at a time
WIDEST_SPAN = 1000.0
BUDGETS: dict[Unit, str] = {"usd": "budget_usd", "gpu_hours": "budget_gpu_hours", "flops": "budget_flops"}
BOUNDS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    ((*BUDGETS.values(), "gpu_hourly_usd"), lambda value: value > 0, "more than 0"),
    (("sweep_share", "follow_up_share"), lambda value: 0 < value < 1, "between 0 and 1"),
    (("rate_span", "hopeless", "follow_up_factor"), lambda value: value > 1, "more than 1"),
    (
        ("num_rates", "concurrency", "repeats"),
        lambda value: 1 <= value <= MOST_TRIALS,
        f"from 1 to {MOST_TRIALS:,}",
    ),
    (("rate_span",), lambda value: value <= WIDEST_SPAN, f"at most {WIDEST_SPAN:g}"),
    (("budget_gpu_hours",), lambda value: value <= MOST_HOURS, f"at most {MOST_HOURS:g}"),
    (("budget_usd",), lambda value: value <= LARGEST_FLOAT, f"at most {LARGEST_FLOAT:g}"),
)
# What may change when a sweep is continued, as it does not change what is trained.
FREE = (
    *BUDGETS.values(),
    *("fresh", "dry_run", "output", "concurrency", "use_gpu", "compile", "checkpoint_activations"),
    *("tensorboard", "wandb", "wandb_project", "max_failures", "parallel", "num_workers", "wait_minutes"),
)
# What may be added when a sweep is continued; earlier additions stay.
GROWING = ("add_sizes", "add_rates", "from", "repeats")
# Settings of `train` that a sweep decides itself, and why they cannot be given.
DECIDED = {
    "learning_rate": "is swept anyway; see --num-rates and --rate-span",
    **dict.fromkeys(("n_layer", "n_head", "n_embd"), "is a matter of size; see --sizes"),
    "vocab_size": "is the tokenizer's",
    **dict.fromkeys(
        ("min_lr", "warmup_iters", "lr_decay_iters"),
        "follows from each trial's learning rate and length; see min_lr_share and warmup_share of --vary",
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
    "min_workers": "is --num-workers: a trial is priced for that many",
    "cpu_hourly_usd": "is --gpu-hourly-usd here, whatever the workers are",
    "num_samples": "is 0: the budget is for training",
}
# Settings of `train` that mean something else here: their text in `tune --help`.
DIFFERENT = {
    "preset": "context, dropout and proportions; the sizes are those of --sizes",
    "batch_size": "per worker and micro-step, a number: the price of a trial must follow from its settings",
    "num_workers": "processes of a trial; one GPU each with --use-gpu",
    "seed": "of initial weights, order of windows and drawn learning rates",
    "wait_minutes": "for GPUs that a cluster does not have yet",
}


@dataclass(frozen=True)
class SweepConfig:
    """Everything that `tune` takes; `train` holds what each trial takes over."""

    # the budget: one of the three
    budget_usd: float | None = option(None, "hard limit for the whole sweep", unit="USD")
    budget_gpu_hours: float | None = option(
        None, "the same in GPU-hours; without --use-gpu in hours of worker processes", unit="hours"
    )
    budget_flops: float | None = option(None, "the same in FLOPs of training and evaluation", unit="FLOPs")
    gpu_hourly_usd: float | None = option(
        None, "price of a GPU (of a process without GPU); needed by --budget-usd", unit="USD/hour"
    )
    sweep_share: float = option(0.3, "share of the budget for probes and trials; the final run gets the rest")

    # what is tried
    sizes: list[str] = option(
        ["2x64", "demo", "6x160"], "presets, layers x width (6x192), or widths of the preset's proportions"
    )
    search: str = option("grid", "how the first trials are spread", choices=("grid", "log-uniform", "optuna"))
    num_rates: int = option(4, "learning rates that are first tried for each size")
    rate_span: float = option(
        4.0, "learning rates range from the rule's rate, 0.96 / n_embd, down and up by this factor"
    )
    vary: dict[str, list[Any]] = option(
        {},
        f"values, or a range LOW..HIGH, of more settings: {', '.join(VARIABLE)}; in a file {{dropout: [0, 0.1]}}",
    )
    repeats: int = option(1, "seeds for each first trial, so that the noise is measured")
    follow_up_share: float = option(
        0.6,
        "share of the sweep's money for follow-ups: rates beyond an edge, longer runs; less where trials would be "
        "too short",
    )
    follow_up_factor: float = option(6.0, "cost of a longer run at most, in first trials")
    hopeless: float = option(
        1.3, "stop a trial whose bits per byte half-way exceed the best of its size and length by this factor"
    )

    # what a sweep is continued with; a higher budget is given as the budget
    add_sizes: list[str] = option(
        [], "continue a sweep with more sizes; one of --sizes gets trials however unlikely it is to win"
    )
    add_rates: list[float] = option([], "continue a sweep with more learning rates, tried for each size")
    from_: list[str] = option(
        [], "folders of other sweeps on the same data, whose trials count as evidence", is_path=True
    )

    # how
    output: str = option(
        "sweeps/sweep",
        "folder of everything, or an s3:// or gs:// URI; a sweep there is continued",
        is_path=True,
    )
    dry_run: bool = option(False, "stop after the forecast; its probes are charged to the budget")
    fresh: bool = option(False, "begin again; the sweep that was there is moved aside")
    concurrency: int | None = option(None, "trials at a time; none: as many as the GPUs or cores allow")

    train: TrainConfig = passed_on(TrainConfig(num_workers=1), without=DECIDED, helps=DIFFERENT)

    def __post_init__(self) -> None:
        refuse_absurd(self, LARGEST_BUDGET)
        for names, is_right, must in BOUNDS:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_right(value):
                    text = f"{value:g}" if isinstance(value, float) else str(value)
                    raise UserError(f"{flag_of(name)} is {text}: it must be {must}")
        if not self.sizes:
            raise UserError("--sizes is empty: name at least one preset, or layers x width such as 6x192")
        for rate in self.add_rates:
            if not 0 < rate <= WIDEST_SPAN:
                raise UserError(f"--add-rates {rate:g}: a learning rate is from 0 to {WIDEST_SPAN:g}")
        if self.train.batch_size == "auto":
            raise UserError(
                "--batch-size auto is not for tune: the price of a trial must follow from its settings; give a number"
            )
        self.train_settings()

    @property
    def all_sizes(self) -> list[str]:
        """Those that the sweep began with, and those that were added."""
        return list(dict.fromkeys([*self.sizes, *self.add_sizes]))

    def varied(self) -> dict[str, Values]:
        """The settings that `vary` names, with their values as `train` would read them.

        Raises: UserError for one that cannot be varied, and for a value that `train` refuses.
        """
        varied: dict[str, Values] = {}
        for given, values in self.vary.items():
            name, where = given.replace("-", "_"), f"--vary {given}"
            if name not in VARIABLE:
                reasons = DECIDED | dict.fromkeys(("size", "sizes", "preset"), DECIDED["n_embd"])
                batch = ("batch_size", "gradient_accumulation", "num_workers")
                reasons |= dict.fromkeys(batch, "follows from global_batch")
                what = reasons.get(name, f"cannot be varied{suggest(name, VARIABLE)}")
                raise UserError(f"vary: {given} {what}; vary takes {', '.join(VARIABLE)}")
            ranges = [value for value in values if isinstance(value, str) and ".." in value]
            if ranges and len(values) > 1:
                raise UserError(f"{where} is either values or one range LOW..HIGH, not both")
            texts = ranges[0].split("..", 1) if ranges else values
            read = [self._value(name, text, where) for text in texts]
            if ranges:
                varied[name] = read_range(name, read, where)
                continue
            if len(values) < 2 or None in read or len(set(read)) < len(values):
                advice = f"; for a single one use {flag_of(name)}" if name not in COMPOSED else ""
                raise UserError(f"{where} must be two or more values, each once, or a range{advice}")
            varied[name] = read
        return varied

    def _value(self, name: str, value: Any, where: str) -> Any:
        """A value of a varied setting, as its type; what `train` or the other settings refuse is refused here."""
        of_kind = {"global_batch": "batch_size", "warmup_share": "grad_clip", "min_lr_share": "grad_clip"}
        value = convert(value, settings_of(TrainConfig)[of_kind.get(name, name)], where)
        if name in COMPOSED:
            least, most = COMPOSED[name]
            if not isinstance(value, int | float) or not least <= value <= most:
                raise UserError(f"{where} is {value}: it must be from {least:g} to {most:g}")
        try:
            if value is not None:
                dataclasses.replace(self.train, **settings_for(self.train, {name: value}))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return value

    @property
    def trials_of_a_size(self) -> int:
        """How many are tried at first (`first_points` in space.py says which)."""
        more = sum(len(grid_values(values)) - 1 for values in self.varied().values())
        return self.repeats * self.num_rates * (1 + more if self.search == "grid" else 1)

    def train_settings(self) -> dict[str, Any]:
        """The settings that each trial takes over; of what is varied the first value. Refuses what `train` refuses."""
        passed = [name for name, setting in settings_of(SweepConfig).items() if setting.holder == "train"]
        settings = {name: getattr(self.train, name) for name in passed}
        settings |= settings_for(self.train, middle_values(self.varied()))
        if self.gpu_hourly_usd is not None:
            settings |= {"gpu_hourly_usd": self.gpu_hourly_usd, "cpu_hourly_usd": self.gpu_hourly_usd}
        TrainConfig(**settings)
        return settings

    def terms(self, data_fingerprint: str, tokenizer_fingerprint: str) -> Terms:
        """The budget, and what makes this sweep this one.

        Raises: UserError when there is no budget, or more than one, or no price where one is needed.
        """
        budgets = [(unit, getattr(self, name)) for unit, name in BUDGETS.items()]
        given = [(unit, budget) for unit, budget in budgets if budget is not None]
        if len(given) != 1:
            what = "no budget is given" if not given else "more than one budget is given"
            raise UserError(f"{what}: use one of --budget-usd, --budget-gpu-hours and --budget-flops")
        ((unit, budget),) = given
        price = self.gpu_hourly_usd
        if unit == "usd" and price is None:
            raise UserError("--budget-usd needs --gpu-hourly-usd, the price of a GPU (or process) in an hour")
        if unit == "usd" and price is not None and budget / price > MOST_HOURS:
            raise UserError(
                f"--budget-usd {budget:g} at --gpu-hourly-usd {price:g} is {budget / price:g} hours: it must be "
                f"at most {MOST_HOURS:g}"
            )
        sweep = {name: value for name, value in to_dict(self).items() if name not in FREE}
        varied = {name: str(v) if isinstance(v, Range) else v for name, v in self.varied().items()}
        sweep |= {"data_dir": data_fingerprint, "tokenizer": tokenizer_fingerprint, "vary": varied}
        del sweep["gpu_hourly_usd"]
        return Terms(unit, budget, price, sweep)


def flag_words(value: Any, show: Callable[[Any], str] = str) -> list[str]:
    """What follows the flag of a setting on the command line: a word, or several of a list or mapping."""
    if isinstance(value, dict):
        return [f"{name}={','.join(flag_words(values, show))}" for name, values in value.items()]
    return [show(item) for item in (value if isinstance(value, list | tuple) else [value])]
