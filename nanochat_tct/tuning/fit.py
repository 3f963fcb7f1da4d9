"""The best learning rate, the best size, and what the final run will reach, from the trials of a sweep.

One model of the loss is fitted to all trials at once, so a few trials are enough:

    ln loss = ln(E + ((A / parameters^alpha)^p + (B / (burn-in + tokens)^beta)^p)^(1/p))
              + curvature * (ln lr - ln best lr)^2 + costs of values + noise

With p = 1 the first part is the law of Hoffmann et al. 2022 (Chinchilla), with E = 0 and a large p that of Kaplan et
al. 2020, in which a larger model gains more from the same tokens. Repeated tokens count less (Muennighoff et al. 2023),
and there is a burn-in: the power law does not hold for the first hundreds of iters, where the trials of a small budget
may end. The best rate falls with the width (a rule that the trials correct) and a little with the length of the
run (Bjorck et al. 2024); each size may differ from the rule and from the shared curvature.
The loss is that of the validation windows which all trials are measured on. The loss of the whole split differs from it
by a factor near 1 (`sampling_error`), which is unknown until a final run is measured on both.
Other settings that differ between trials (dropout, optimizer, ...) add up. Each value, a name without order, costs a
share of the loss (the best one nothing) and shifts the best rate, in the same way at all sizes and lengths. The many
values of a range are ordered: those that lie close to each other cost about the same.
Each unknown is a distribution: weak priors from those papers, which the trials narrow. With few trials the intervals
are therefore wide, and never missing.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from nanochat_tct.errors import UserError
from nanochat_tct.tuning.posterior import sample_posterior
from nanochat_tct.tuning.records import VARIABLE, Interval, Trial, last_final, show_value
from nanochat_tct.tuning.space import Range

# Priors: middle and standard deviation; those of factors are of their logarithm.
PARAMETER_EXPONENT = (0.34, 0.3)  # Hoffmann et al. 2022; Besiroglu et al. 2024 find 0.35
# Between Hoffmann's 0.28 and Besiroglu's 0.37; wide, as short runs of tiny models fall more slowly (docs/LOG.md).
TOKEN_EXPONENT = (0.32, 0.6)
BURN_IN_TOKENS = (5_000.0, 1.0)  # before which the loss hardly falls; our runs of tiny models
# Our runs of 80,000 to 950,000 parameters are fitted twice as well by 2 to 5 as by Hoffmann's 1 (docs/LOG.md).
JOINING_EXPONENT = (2.5, 0.6)
REPEATED_EPOCHS = (15.4, 0.5)  # R* of Muennighoff et al. 2023
LEARNING_RATE_TIMES_WIDTH = (0.96, 1.5)  # the rule of training/config.py
WIDTH_SLOPE = (0.0, 0.5)  # how far the best rate's fall with the width departs from the rule
TOKENS_SLOPE = (-0.15, 0.15)  # of ln best rate over ln tokens; Bjorck et al. 2024: -0.1 to -0.3
CURVATURE = (0.03, 1.0)  # share of the loss that a rate costs which is off by a factor of e
NOISE = (0.005, 0.7)  # share of the loss that differs between seeds
SIZE_LEARNING_RATE, SIZE_CURVATURE = 0.3, 0.3  # how far a size differs from the others
VALUE_LOSS, VALUE_LEARNING_RATE = 0.05, 0.3  # how far a value of a setting differs from its others
MOST_NAMES = 4  # values of a setting that are taken as names; more are points of a range
LIKE_WITHIN = 0.4  # of a range: the distance within which values cost about the same
SHARES = 1.5  # of E, A and B, around those of Hoffmann's constants
# For tiny models those constants would exceed all that a model can lose (9 nats for a guess among 8,192 tokens).
MOST_NATS_OF_PARAMETERS, MOST_NATS_OF_TOKENS = 3.0, 4.0
LEVEL = 0.3

CONFIDENCE = 0.9  # of all intervals
QUANTILES = ((1 - CONFIDENCE) / 2, 0.5, (1 + CONFIDENCE) / 2)
DEGREES_OF_FREEDOM = 4.0  # of Student's t, so that an outlier does not dominate the fit
TRUST_IN_PARABOLA = 0.25  # a point that lies 10% above the best of its size may miss the parabola by 2.5%
EXTRAPOLATION = 0.01  # relative error of the law itself for each factor of e beyond the trials
STOPPED_COSTS, STOPPED_SOFTNESS = 0.03, 0.01  # least cost of the rate and values of a stopped trial


@dataclass(frozen=True)
class RunFit:
    """The prediction for a run, which need not have happened, at its best rate and values."""

    size: str
    tokens: int
    epochs: float
    learning_rate: Interval  # the best one
    bits_per_byte: Interval  # at its end


@dataclass(frozen=True)
class SizeFit(RunFit):
    """The prediction for a final run of one size."""

    parameters: int
    probability_best: float  # that this size is the best of all for the final run
    num_finished: int
    edge: str | None  # low or high: the best rate lies at or beyond the lowest or highest one tried


@dataclass(frozen=True)
class ValueFit:
    """What one value of a setting costs, where the setting differs between trials."""

    setting: str
    value: Any
    cost: Interval  # share of the loss that it adds to that of the best value
    probability_best: float
    num_finished: int


class Fit:
    """Samples of all unknowns, and what follows from them.

    Attributes:
        sizes: each size, smallest first.
        best: the one with the least expected loss.
        values: each value of the settings that differ between trials.
        best_values: setting -> chosen value, for all that a sweep can vary (VARIABLE).
        final_tokens: size -> tokens of a final run of that size.
        sampling_error: standard error of the trials' measurement, as a share of the whole split's bits per byte.
        decision: the choice and its reasons in two sentences.
    """

    def __init__(self, trials: Sequence[Trial], final_tokens: Mapping[str, int], seed: int) -> None:
        self._model = model = _LossModel(trials)
        self._z = sample_posterior(model.log_likelihood, model.dimensions, seed)
        rng = np.random.default_rng(seed)
        self._normal = rng.standard_normal(len(self._z))
        self._noise = rng.standard_t(DEGREES_OF_FREEDOM, len(self._z))
        # All trials are measured on the same windows, whose level may be off: no comparison between trials sees it.
        self.sampling_error = sampling_error(model.finished)
        self._sampling = self.sampling_error * rng.standard_normal(len(self._z))
        self.trials = list(model.trials)
        self.values = self._value_fits()
        self.best_values = {name: getattr(model.finished[0], name) for name in VARIABLE}
        for name in model.varied:
            # A value with which nothing finished is bad, however much the fit leaves open.
            tried = [value for value in self.values if value.setting == name and value.num_finished]
            self.best_values[name] = min(tried, key=lambda value: value.cost.middle).value
        self._chosen = model.value_indices(self.best_values)
        self.final_tokens = {size: int(final_tokens.get(size) or model.longest(size)) for size in model.sizes}
        losses = self._losses(self.final_tokens)
        # The law may be wrong in another way for each size, the more the further it is extrapolated.
        beyond = np.array([self._beyond(size, tokens) for size, tokens in self.final_tokens.items()])
        errors = EXTRAPOLATION * beyond[:, None] * rng.standard_normal(losses.shape)
        wins = np.bincount((losses * np.exp(errors)).argmin(0), minlength=len(losses)) / losses.shape[1]
        self.sizes = [
            self._size_fit(size, float(win)) for size, win in zip(self.final_tokens, wins, strict=True)
        ]
        self.best = self.sizes[list(self.final_tokens).index(self._best_of(self.final_tokens))]
        self.decision = self._decide()

    def has_best_values(self, trial: Trial) -> bool:
        """Whether a trial ran with the chosen values, which the curves are drawn for."""
        return all(getattr(trial, name) == value for name, value in self.best_values.items())

    def learning_rate(self, size: str, tokens: int) -> Interval:
        """The best learning rate of a size in a run of this length."""
        best = self._model.best_log_learning_rate(self._z, self._row(size, tokens))[:, 0]
        return self._interval(np.exp(best))

    def predict(self, size: str, tokens: int) -> Interval:
        """Bits per byte of one run of a size at its best learning rate, measured on the whole split.

        The interval includes the chance of its seed, a rate and values that are only nearly the best, the error of
        the law, and that of the windows which the trials were measured on.
        """
        chosen = np.array([self.learning_rate(size, tokens).middle])
        loss = self._log_losses(size, tokens, chosen)[:, 0] + self._model.noise(self._z) * self._noise
        return self._interval(np.exp(loss + self._sampling) * self._model.unit)

    def curve(self, size: str, tokens: int, learning_rates: np.ndarray) -> np.ndarray:
        """Bits per byte over learning rates at the chosen values: (3, n) float64, low, middle and high of the mean
        over seeds."""
        losses = np.exp(self._log_losses(size, tokens, learning_rates))
        return np.quantile(losses, QUANTILES, axis=0) * self._model.unit

    def _log_losses(self, size: str, tokens: int, learning_rates: np.ndarray) -> np.ndarray:
        """Samples (P, n) of the log loss over learning rates at the chosen values, with the law's own error."""
        row = self._row(size, tokens)
        losses = self._model.level(self._z, row) + self._model.cost(self._z, row)  # (P, 1)
        losses = losses + self._model.penalty(self._z, row, np.log(learning_rates))
        return losses + (EXTRAPOLATION * self._beyond(size, tokens) * self._normal)[:, None]

    def run(self, size: str, tokens: int) -> RunFit:
        """Length, learning rate and bits per byte of one run."""
        epochs = tokens / self._model.of_size[size].unique_tokens
        return RunFit(size, tokens, epochs, self.learning_rate(size, tokens), self.predict(size, tokens))

    def outlook(self, factors: Sequence[float]) -> list[RunFit]:
        """What other budgets would buy: runs that many times as long, each of the size that is best then."""
        found = []
        for factor in factors:
            tokens = {size: max(1, int(factor * number)) for size, number in self.final_tokens.items()}
            size = self._best_of(tokens)
            found.append(self.run(size, tokens[size]))
        return found

    def _losses(self, tokens: Mapping[str, int]) -> np.ndarray:
        """Samples (sizes, P) of bits per byte of each size in runs of these lengths, at the best rate and values."""
        rows = [self._row(size, number) for size, number in tokens.items()]
        levels = np.stack([self._model.level(self._z, row)[:, 0] for row in rows])
        return np.exp(levels) * self._model.unit

    def _best_of(self, tokens: Mapping[str, int]) -> str:
        """The size with the least expected loss in runs of these lengths."""
        return list(tokens)[int(np.log(self._losses(tokens)).mean(1).argmin())]

    def _row(self, size: str, tokens: int) -> "_Rows":
        """One run with the chosen values; arrays (1, ...)."""
        return self._model.rows_of([self._model.of_size[size]], [tokens], self._chosen)

    def _value_fits(self) -> list[ValueFit]:
        costs = self._model.value_costs(self._z)  # (P, values)
        fits = []
        for name, values in self._model.varied.items():
            own = costs[:, self._model.slices[name]]
            wins = np.bincount(own.argmin(1), minlength=len(values)) / len(own)
            for value, column, win in zip(values, own.T, wins, strict=True):
                finished = sum(getattr(trial, name) == value for trial in self._model.finished)
                fits.append(ValueFit(name, value, self._interval(np.expm1(column)), float(win), finished))
        return fits

    def _beyond(self, size: str, tokens: int) -> float:
        """Factors of e by which a run is longer than the trials."""
        return max(0.0, math.log(tokens / self._model.longest(size)))

    def _size_fit(self, size: str, probability_best: float) -> SizeFit:
        tried = [trial.learning_rate for trial in self._model.finished if trial.size == size]
        best_in_trials = self.learning_rate(size, self._model.longest(size)).middle
        edge = None
        if tried:
            edge = "low" if best_in_trials <= min(tried) else "high" if best_in_trials >= max(tried) else None
        return SizeFit(
            **vars(self.run(size, self.final_tokens[size])),
            parameters=self._model.of_size[size].parameters,
            probability_best=probability_best,
            num_finished=len(tried),
            edge=edge,
        )

    def _interval(self, samples: np.ndarray) -> Interval:
        return Interval(*(float(value) for value in np.quantile(samples, QUANTILES)))

    def _decide(self) -> str:
        best, sure = self.best, f"{CONFIDENCE:.0%} interval"
        rate, bits = best.learning_rate, best.bits_per_byte
        why = "it is the only size that was tried"
        if len(self.sizes) > 1:
            others = [size for size in self.sizes if size is not best]
            other = min(others, key=lambda size: size.bits_per_byte.middle)
            why = (
                f"the odds that it is the best of the {len(self.sizes)} sizes for what is left are "
                f"{min(0.99, best.probability_best):.0%}, and the next, {other.size}, should reach "
                f"{other.bits_per_byte.middle:.4f}"
            )
        varied = "".join(f", {name} {show_value(self.best_values[name])}" for name in self._model.varied)
        return (
            f"Train size {best.size} ({best.parameters:,} parameters) at learning rate {rate.middle:.2g} "
            f"({sure} {rate.low:.2g} to {rate.high:.2g}){varied}: {why}. "
            f"In {best.tokens:,} tokens ({best.epochs:.2g} epochs) it should reach {bits.middle:.4f} bits per "
            f"byte ({sure} {bits.low:.4f} to {bits.high:.4f})."
        )


def fit_trials(
    trials: Sequence[Trial],
    final_tokens: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Fit:
    """Fit the model to a sweep's trials.

    Args:
        trials: in any order. Finished ones are measured; a stopped one says that its learning rate or its values are
            bad; probes, final runs, and trials that were cut or failed say nothing.
        final_tokens: size -> tokens of a final run of that size for the money that is left; sizes that are left out
            are compared at the length of their longest trial.
        seed: of the samples; the same trials and seed give the same fit.
    Raises: UserError when no trial finished.
    """
    return Fit(trials, final_tokens or {}, seed)


def sampling_error(trials: Sequence[Trial]) -> float:
    """The trials' standard error as a share of their bits per byte; 0 where it was not measured."""
    errors = [
        trial.standard_error / trial.bits_per_byte
        for trial in trials
        if trial.standard_error is not None and trial.bits_per_byte
    ]
    return float(np.median(errors)) if errors else 0.0


def on_whole_split(trials: Sequence[Trial]) -> list[Trial]:
    """The trials as if they had been measured as the final run was at its end, which then counts as a trial.

    The final run was measured both ways; the ratio of the two depends on the windows, and is the same for all.
    """
    final = last_final(trials)
    if final is None or final.status != "finished" or not final.bits_per_byte:
        return list(trials)
    ratio = (final.whole_split or final.bits_per_byte) / final.bits_per_byte
    error = final.standard_error if final.whole_split is None else final.whole_split_error
    return [
        dataclasses.replace(
            trial,
            bits_per_byte=trial.bits_per_byte and ratio * trial.bits_per_byte,
            standard_error=error,
            purpose="sweep" if trial is final else trial.purpose,
        )
        for trial in trials
    ]


def effective_tokens(tokens: np.ndarray, unique_tokens: np.ndarray, epochs_scale: np.ndarray) -> np.ndarray:
    """The number of fresh tokens that are worth as much, when all beyond the unique ones are repeated.

    Equation 5 of Muennighoff et al. 2023: repetition number r adds ever less, `epochs_scale` epochs in all.
    """
    repetitions = np.maximum(tokens / unique_tokens - 1, 0)
    repeated = unique_tokens * epochs_scale * -np.expm1(-repetitions / epochs_scale)
    return np.minimum(tokens, unique_tokens) + repeated


@dataclass(frozen=True)
class _Rows:
    """Runs as arrays (n,)."""

    size: np.ndarray  # index
    parameters: np.ndarray
    width: np.ndarray
    tokens: np.ndarray
    unique_tokens: np.ndarray
    values: np.ndarray  # (n, settings) indices, of the values of what differs between trials


class _LossModel:
    """The formula at the top of this file. Everything unknown is a standard normal z, (P, dimensions).

    Losses are logarithms, relative to the best finished trial's (`unit`), so that their unit does not matter.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = sorted(
            (trial for trial in trials if trial.purpose == "sweep"),
            key=lambda trial: (trial.parameters, trial.size, trial.tokens, trial.learning_rate, trial.trial),
        )
        self.finished = [trial for trial in self.trials if trial.status == "finished" and trial.is_measured]
        stopped = [trial for trial in self.trials if trial.status == "stopped"]
        if not self.finished:
            raise UserError(
                f"none of the sweep's {len(self.trials)} trials finished, so nothing can be fitted; lower the "
                "learning rates, or raise the budget"
            )
        self.of_size = {trial.size: trial for trial in (*self.trials, *self.finished)}
        self.sizes = list(self.of_size)
        measured = [*self.finished, *stopped]
        values = {
            name: sorted(
                {getattr(trial, name) for trial in measured}, key=lambda value: (value is not None, value)
            )
            for name in VARIABLE
        }
        self.varied = {name: some for name, some in values.items() if len(some) > 1}
        pairs = [(name, value) for name, some in self.varied.items() for value in some]
        self.value_index = {pair: index for index, pair in enumerate(pairs)}
        ends = list(accumulate(map(len, self.varied.values()), initial=0))
        self.slices = {name: slice(*ends) for name, ends in zip(self.varied, pairwise(ends), strict=True)}
        self.likeness = likeness_of(self.varied, self.slices)
        self.rows, self.stopped = self.rows_of(self.finished), self.rows_of(stopped)
        # The level is the same at all learning rates, so it is computed once for each length of a size.
        runs = [(trial.size, trial.tokens, trial.unique_tokens) for trial in self.finished]
        different = list(dict.fromkeys(runs))
        self.lengths = self.rows_of([self.finished[runs.index(run)] for run in different])
        self.length_of_row = np.array([different.index(run) for run in runs])
        self.log_rates = np.log([trial.learning_rate for trial in self.finished])
        self.stopped_log_rates = np.log([trial.learning_rate for trial in stopped])
        losses = np.array([trial.bits_per_byte for trial in self.finished], dtype=np.float64)
        self.unit = float(losses.min())
        self.log_losses = np.log(losses / self.unit)
        # The parabola is doubted at a point in proportion to how far it lies above the best of its size and length.
        groups = [(trial.size, round(math.log(trial.tokens) * 4)) for trial in self.finished]
        least = dict.fromkeys(groups, math.inf)
        for group, loss in zip(groups, self.log_losses, strict=True):
            least[group] = min(least[group], loss)
        self.doubt = TRUST_IN_PARABOLA * (self.log_losses - np.array([least[group] for group in groups]))
        # Everything is relative to the middle of what was tried.
        self.parameters = math.exp(np.log(self.rows.parameters).mean())
        self.width = math.exp(np.log(self.rows.width).mean())
        self.tokens = math.exp(np.log(self.rows.tokens).mean())
        by_parameters = min(406.4 / self.parameters**0.3392, MOST_NATS_OF_PARAMETERS)
        by_tokens = min(410.7 / self.tokens**0.2849, MOST_NATS_OF_TOKENS)
        shares = np.array([1.69, by_parameters, by_tokens])
        self.log_shares = np.log(shares / shares.sum())
        self.first_size = 14  # where the dimensions of sizes begin, and those of values
        self.first_value = self.first_size + 2 * len(self.sizes)
        self.dimensions = self.first_value + 2 * len(self.value_index)

    def longest(self, size: str) -> int:
        """Tokens of the longest finished trial of a size, of any size if it has none."""
        same = [trial.tokens for trial in self.finished if trial.size == size]
        return max(same or [trial.tokens for trial in self.finished])

    def value_indices(self, values: Mapping[str, Any]) -> list[int]:
        """Of the values of each setting that differs between trials."""
        return [self.value_index[name, values[name]] for name in self.varied]

    def rows_of(
        self,
        trials: Sequence[Trial],
        tokens: Sequence[int] | None = None,
        values: Sequence[int] | None = None,
    ) -> _Rows:
        """Trials as they are, or with other tokens and values (`value_indices`, the same for all)."""

        def column(values: Sequence[float]) -> np.ndarray:
            return np.array(values, dtype=np.float64)

        indices = [values or self.value_indices(vars(trial)) for trial in trials]
        return _Rows(
            np.array([self.sizes.index(trial.size) for trial in trials], dtype=np.int64),
            column([trial.parameters for trial in trials]),
            column([trial.n_embd for trial in trials]),
            column(tokens or [trial.tokens for trial in trials]),
            column([trial.unique_tokens for trial in trials]),
            np.array(indices, dtype=np.int64).reshape(len(trials), len(self.varied)),
        )

    def level(self, z: np.ndarray, rows: _Rows) -> np.ndarray:
        """Log loss (P, n) at the best learning rate and values."""
        shares = np.exp(self.log_shares + SHARES * z[:, 1:4])
        shares /= shares.sum(1, keepdims=True)  # (P, 3)
        log_shares = np.log(shares)
        alpha, beta = _factor(z[:, 4:5], PARAMETER_EXPONENT), _factor(z[:, 5:6], TOKEN_EXPONENT)
        scale = _factor(z[:, 6:7], REPEATED_EPOCHS)
        tokens = effective_tokens(rows.tokens, rows.unique_tokens, scale)  # (P, n)
        burn_in = _factor(z[:, 12:13], BURN_IN_TOKENS)
        # The logarithms of both terms, and of the term that joins them.
        by_parameters = log_shares[:, 1:2] - alpha * np.log(rows.parameters / self.parameters)
        by_tokens = log_shares[:, 2:] - beta * np.log((burn_in + tokens) / (burn_in + self.tokens))
        power = _factor(z[:, 13:14], JOINING_EXPONENT)
        # The smaller term to this power, as a share of the larger one.
        smaller = np.exp(-power * np.abs(by_parameters - by_tokens))
        joined = np.maximum(by_parameters, by_tokens) + np.log(1 + smaller) / power
        return LEVEL * z[:, :1] + np.log(shares[:, :1] + np.exp(joined))

    def best_log_learning_rate(self, z: np.ndarray, rows: _Rows) -> np.ndarray:
        """(P, n)."""
        middle, deviation = LEARNING_RATE_TIMES_WIDTH
        rule = math.log(middle) + deviation * z[:, 7:8] - np.log(rows.width)
        by_width = (WIDTH_SLOPE[0] + WIDTH_SLOPE[1] * z[:, 8:9]) * np.log(rows.width / self.width)
        by_tokens = (TOKENS_SLOPE[0] + TOKENS_SLOPE[1] * z[:, 9:10]) * np.log(rows.tokens / self.tokens)
        own = SIZE_LEARNING_RATE * z.take(self.first_size + rows.size, axis=1)
        moves = z[:, self.first_value + len(self.value_index) :] @ self.likeness  # (P, values)
        of_values = moves[:, rows.values].sum(2)  # (P, n, settings) before
        return rule + by_width + by_tokens + own + VALUE_LEARNING_RATE * of_values

    def value_costs(self, z: np.ndarray) -> np.ndarray:
        """Log loss (P, values) that each value adds to that of the best of its setting."""
        costs = VALUE_LOSS * z[:, self.first_value : self.first_value + len(self.value_index)] @ self.likeness
        for of_setting in self.slices.values():
            costs[:, of_setting] -= costs[:, of_setting].min(1, keepdims=True)
        return costs

    def cost(self, z: np.ndarray, rows: _Rows) -> np.ndarray:
        """Log loss (P, n) that values other than the best add."""
        return self.value_costs(z)[:, rows.values].sum(2)

    def penalty(self, z: np.ndarray, rows: _Rows, log_rates: np.ndarray) -> np.ndarray:
        """Log loss (P, n) that learning rates other than the best add; of one row, or a row for each rate."""
        own = SIZE_CURVATURE * z.take(self.first_size + len(self.sizes) + rows.size, axis=1)
        curvature = _factor(z[:, 10:11], CURVATURE) * np.exp(own)
        return curvature * (log_rates - self.best_log_learning_rate(z, rows)) ** 2

    def noise(self, z: np.ndarray) -> np.ndarray:
        """Standard deviation (P,) of the log loss between seeds."""
        return _factor(z[:, 11], NOISE)

    def log_likelihood(self, z: np.ndarray) -> np.ndarray:
        """(P,) of all trials."""
        predicted = self.level(z, self.lengths).take(self.length_of_row, axis=1)
        predicted += self.penalty(z, self.rows, self.log_rates)
        predicted = predicted + self.cost(z, self.rows)
        scale = np.sqrt(self.noise(z)[:, None] ** 2 + self.doubt**2)
        power = (DEGREES_OF_FREEDOM + 1) / 2
        residual = (self.log_losses - predicted) / scale
        finished = (-np.log(scale) - power * np.log1p(residual**2 / DEGREES_OF_FREEDOM)).sum(1)
        lost = self.penalty(z, self.stopped, self.stopped_log_rates) + self.cost(z, self.stopped)
        margin = (lost - STOPPED_COSTS) / STOPPED_SOFTNESS
        return finished - np.logaddexp(0, -margin).sum(1)


def likeness_of(varied: Mapping[str, Sequence[Any]], slices: Mapping[str, slice]) -> np.ndarray:
    """(values, values): independent standard normals times this are correlated between nearby values of a range.

    Settings with more values than MOST_NAMES were tried as a range; fewer values are names without order.
    """
    likeness = np.eye(sum(map(len, varied.values())))
    for name, values in varied.items():
        if len(values) > MOST_NAMES and all(isinstance(value, int | float) for value in values):
            whole = Range(name, values[0], values[-1])
            positions = np.array([whole.position(value) for value in values])
            off = (positions[:, None] - positions[None, :]) / LIKE_WITHIN
            covariance = np.exp(-(off**2) / 2) + 1e-6 * np.eye(len(values))
            likeness[slices[name], slices[name]] = np.linalg.cholesky(covariance).T
    return likeness


def _factor(z: np.ndarray, prior: tuple[float, float]) -> np.ndarray:
    return prior[0] * np.exp(prior[1] * z)
