"""A sweep's trials as a study of Optuna, in a file that optuna-dashboard opens."""

import datetime
import warnings
from pathlib import Path
from typing import Any

from nanochat_tct.storage.files import replacing
from nanochat_tct.tuning.records import VARIABLE, Trial
from nanochat_tct.tuning.results import Results

STUDY = "optuna.log"  # Optuna's journal, a line for each operation


def write_study(results: Results, name: str, path: Path) -> None:
    """Write the measured trials of a sweep, with what it varied and how their bits per byte fell.

    A trial that was stopped or cut counts as pruned; the final run is a trial too. Requires Optuna.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {"finished": optuna.trial.TrialState.COMPLETE, "running": optuna.trial.TrialState.RUNNING}
    trials = [trial for trial in results.trials if trial.purpose != "probe" and trial.is_measured]
    distributions = distributions_of(trials)
    with replacing(path, sync=False) as partial:
        storage = JournalStorage(JournalFileBackend(str(partial)))
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize")
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names(["bits per byte"])
        for trial in trials:
            frozen = optuna.trial.create_trial(
                state=states.get(trial.status, optuna.trial.TrialState.PRUNED),
                value=trial.bits_per_byte,
                params={key: getattr(trial, key) for key in distributions},
                distributions=distributions,
                user_attrs={
                    key: getattr(trial, key)
                    for key in ("trial", "purpose", "status", "tokens", "flops", "usd", "checkpoint")
                },
                intermediate_values={
                    point.iter: point.validation
                    for point in results.points
                    if point.trial == trial.trial and point.validation is not None
                },
            )
            frozen.datetime_start, frozen.datetime_complete = (
                datetime.datetime.fromtimestamp(seconds) for seconds in (trial.started_at, trial.ended_at)
            )
            study.add_trial(frozen)


def distributions_of(trials: list[Trial]) -> dict[str, Any]:
    """Optuna's distributions of size, learning rate and what else differs between trials."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for name in ("size", "learning_rate", *VARIABLE):
        values = {getattr(trial, name) for trial in trials}
        if not values:
            continue
        if name == "learning_rate":
            found[name] = FloatDistribution(min(values), max(values), log=True)
        elif name == "size" or len(values) > 1:
            is_number = all(isinstance(value, int | float) for value in values)
            in_order = sorted(values, key=lambda value: (value is not None, value))
            found[name] = (
                FloatDistribution(min(values), max(values))
                if is_number
                else CategoricalDistribution(in_order)
            )
    return found
