"""`--search optuna`: size, learning rate and values that Optuna's TPE suggests."""

from collections.abc import Iterable, Mapping
from typing import Any

from nanochat_tct.tuning.records import Trial
from nanochat_tct.tuning.space import Range, Size, Values, rounded

STARTUP_TRIALS = 5  # drawn at random before TPE models anything


def ask_optuna(
    trials: Iterable[Trial], sizes: Mapping[str, Size], varied: Mapping[str, Values], span: float, seed: int
) -> tuple[str, float, dict[str, Any]]:
    """Size, rate and values for the next trial.

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
