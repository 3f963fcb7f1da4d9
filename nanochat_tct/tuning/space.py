"""What a sweep tries: model sizes by name, learning rates around a rule, and values of other settings."""

import dataclasses
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat_tct.config import suggest
from nanochat_tct.errors import UserError
from nanochat_tct.model.accounting import flops_per_token, parameter_count
from nanochat_tct.model.config import PRESETS, GPTConfig
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.tuning.records import Trial

# Settings of `vary` that `train` has in another form: their least and largest values.
COMPOSED = {"global_batch": (1, 10**9), "warmup_share": (0.0, 1.0), "min_lr_share": (0.0, 1.0)}
STARTUP_TRIALS = 5  # drawn at random before TPE models anything


# ----------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class Size:
    """A model's shape, by the name that the user gave it."""

    name: str
    shape: GPTConfig

    @property
    def parameters(self) -> int:
        return parameter_count(self.shape)

    @property
    def row_flops(self) -> int:
        """FLOPs of forward and backward pass over one window."""
        return flops_per_token(self.shape) * self.shape.context_size

    @property
    def rule_rate(self) -> float:
        """The usual learning rate: inverse to the width, as Adam's best rate is (training/config.py; Yang et al.
        2022, "Tensor Programs V")."""
        return 0.96 / self.shape.n_embd

    def settings(self) -> dict[str, int]:
        """The settings of a TrainConfig of this size."""
        return {name: getattr(self.shape, name) for name in ("n_layer", "n_head", "n_embd")}


def make_size(name: str, base: TrainConfig, vocab_size: int) -> Size:
    """The size called `name`: a preset, "6x192" (layers x width), or a width alone ("192").

    A width alone takes as many layers as keep the proportions of `base.preset`; heads are as wide as the preset's.

    Raises: UserError for a name or a shape that is not possible.
    """
    preset = PRESETS[base.preset]
    match = re.fullmatch(r"(?:(\d+)x)?(\d+)", name)
    if name in PRESETS:
        chosen = PRESETS[name]
        n_layer, n_head, n_embd = chosen.n_layer, chosen.n_head, chosen.n_embd
    elif match:
        head = preset.n_embd // preset.n_head
        n_embd = int(match[2])
        n_layer = int(match[1]) if match[1] else max(1, round(preset.n_layer * n_embd / preset.n_embd))
        n_head = n_embd // head
        if not n_layer:
            raise UserError(f"size {name!r}: a model has 1 layer at least")
        if not n_embd or n_embd % head:
            raise UserError(f"size {name!r}: the width must be a multiple of {head}, the width of a head")
    else:
        raise UserError(
            f"size {name!r} is not known{suggest(name, PRESETS)}; take one of {', '.join(PRESETS)}, "
            "layers x width (6x192), or a width (192)"
        )
    config = dataclasses.replace(base, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    return Size(name, resolve(config, vocab_size).model())


def settings_for(
    base: TrainConfig, varied: Mapping[str, Any], iters: int | None = None, rate: float | None = None
) -> dict[str, Any]:
    """Values of what a sweep varies, as settings of `train`.

    Args:
        base: whose workers and micro-batch a global batch is divided among.
        iters, rate: of the trial, which shares are of; without them shares are left out.
    Raises: UserError when the workers cannot share a global batch.
    """
    settings = {name: value for name, value in varied.items() if name not in COMPOSED}
    if "global_batch" in varied:
        rows, remainder = divmod(varied["global_batch"], base.num_workers)
        if remainder or not rows:
            raise UserError(
                f"a global batch of {varied['global_batch']} windows cannot be divided among --num-workers "
                f"{base.num_workers}"
            )
        assert base.batch_size != "auto"
        micro_batch = max(size for size in range(1, min(rows, base.batch_size) + 1) if rows % size == 0)
        settings |= {"batch_size": micro_batch, "gradient_accumulation": rows // micro_batch}
    if "warmup_share" in varied and iters is not None:
        settings["warmup_iters"] = round(varied["warmup_share"] * iters)
    if "min_lr_share" in varied and rate is not None:
        settings["min_lr"] = varied["min_lr_share"] * rate
    return settings


# ----------------------------------------------------------------------------- values of other settings

# How values lie in a range: evenly themselves, in the logarithm of their distance from 1, or (others) in their own.
LINEAR, TOWARDS_ONE = ("dropout",), ("beta1", "beta2")


@dataclass(frozen=True)
class Range:
    """All values of a setting between two; `at` and `position` map them to positions from 0 to 1 and back."""

    setting: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    def __contains__(self, value: Any) -> bool:
        return value is not None and 0 <= self.position(value) <= 1

    def at(self, position: float) -> Any:
        """The value at a position: of three significant digits, or a global batch of low x 2^k."""
        if self.setting == "global_batch":
            return int(self.low) * 2 ** round(position * math.floor(math.log2(self.high / self.low)))
        low, high = self._scaled(self.low), self._scaled(self.high)
        value = low + position * (high - low)
        if self.setting in TOWARDS_ONE:
            return 1 - rounded(math.exp(value))
        return rounded(math.exp(value) if self._is_log else value)

    def position(self, value: float) -> float:
        """The position of a value; below 0 or above 1 where it is outside."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    @property
    def _is_log(self) -> bool:
        return self.setting not in LINEAR and self.low > 0

    def _scaled(self, value: float) -> float:
        if self.setting not in TOWARDS_ONE and not self._is_log:
            return value
        distance = 1 - value if self.setting in TOWARDS_ONE else value
        return math.log(distance) if distance > 0 else -math.inf


Values = list[Any] | Range  # of a setting that a sweep varies


def read_range(name: str, ends: Sequence[Any], where: str) -> Range:
    """The range between two values of a setting.

    Raises: UserError when the setting has no order, or the ends are not in order.
    """
    low, high = ends
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise UserError(f"{where} takes two or more values, not a range")
    if not low < high or (name == "global_batch" and high < 2 * low):
        least = "twice the first" if name == "global_batch" else "more than the first"
        raise UserError(f"{where} {low:g}..{high:g}: the second number must be {least}")
    return Range(name, low, high)


def middle_values(varied: Mapping[str, Values]) -> dict[str, Any]:
    """What a trial has of each setting when another one is tried: the first value, or the middle of the range."""
    return {name: grid_values(values)[0] for name, values in varied.items()}


def grid_values(values: Values) -> list[Any]:
    """The values that a grid tries of a setting, the one that goes with all others first."""
    if isinstance(values, Range):
        return list(dict.fromkeys(values.at(position) for position in (0.5, 0.0, 1.0)))
    return values


def rounded(rate: float) -> float:
    """Three significant digits: what is shown is what is used."""
    return float(f"{rate:.3g}")


# ----------------------------------------------------------------------------- the first trials


def first_points(
    size: str,
    centre: float,
    search: str,
    num_rates: int,
    span: float,
    seed: int,
    varied: Mapping[str, Values],
) -> list[tuple[float, dict[str, Any]]]:
    """Learning rate, and values of what else is varied, of each of a size's first trials.

    grid: rates evenly in their logarithm, all with the first value of everything; then, one setting and value at a
    time, all rates with that one changed. The fit adds the effects of settings up, so combinations would tell it
    nothing more, and a product would soon exhaust the budget. Of a range the middle and both ends are tried.
    log-uniform: rates are drawn; with each rate values are drawn, each as often as the others, and of a range one in
    each equal part.
    """
    if search == "grid":
        steps = [2 * index / (num_rates - 1) - 1 for index in range(num_rates)] if num_rates > 1 else [0.0]
    else:
        rng = random.Random(f"{seed} {size}")
        steps = [rng.uniform(-1, 1) for _ in range(num_rates)]
    rates = [rounded(centre * span**step) for step in steps]
    if search == "grid":
        first = middle_values(varied)
        others = [
            {**first, name: value} for name, values in varied.items() for value in grid_values(values)[1:]
        ]
        return [(rate, values) for values in (first, *others) for rate in rates]
    drawn = {}
    for name, values in varied.items():
        rng = random.Random(f"{seed} {size} {name}")
        if isinstance(values, Range):
            parts = rng.sample(range(num_rates), num_rates)
            drawn[name] = [values.at((part + rng.random()) / num_rates) for part in parts]
        else:
            deck = [*values] * math.ceil(num_rates / len(values))
            drawn[name] = rng.sample(deck, len(deck))
    return [(rate, {name: drawn[name][index] for name in varied}) for index, rate in enumerate(rates)]


def ask_optuna(
    trials: Iterable[Trial], sizes: Mapping[str, Size], varied: Mapping[str, Values], span: float, seed: int
) -> tuple[str, float, dict[str, Any]]:
    """Size, rate and values that Optuna's TPE suggests for the next trial.

    Args:
        trials: so far; those outside of what may be asked for are left out.
        span: from the rule's rate, down and up.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    positions = optuna.distributions.FloatDistribution(0, 1)  # in a range
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "size": optuna.distributions.CategoricalDistribution(list(sizes)),
        "factor": optuna.distributions.FloatDistribution(1 / span, span, log=True),
    }
    for name, values in varied.items():
        categories = [] if isinstance(values, Range) else values
        distributions[name] = (
            optuna.distributions.CategoricalDistribution(categories) if categories else positions
        )
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(sampler=sampler)
    for trial in trials:
        factor = trial.learning_rate / rounded(sizes[trial.size].rule_rate)
        parameters: dict[str, Any] = {"size": trial.size, "factor": factor}
        for name, values in varied.items():
            value = getattr(trial, name)
            parameters[name] = values.position(value) if isinstance(values, Range) else value
        is_inside = all(getattr(trial, name) in values for name, values in varied.items())
        if trial.bits_per_byte is not None and is_inside and 1 / span <= factor <= span:
            study.add_trial(
                optuna.trial.create_trial(
                    params=parameters, distributions=distributions, value=trial.bits_per_byte
                )
            )
    asked = study.ask(distributions).params
    chosen = {
        name: values.at(asked[name]) if isinstance(values, Range) else asked[name]
        for name, values in varied.items()
    }
    return asked["size"], rounded(rounded(sizes[asked["size"]].rule_rate) * asked["factor"]), chosen
