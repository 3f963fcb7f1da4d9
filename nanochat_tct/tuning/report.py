"""The report of a sweep: one HTML file that needs no network (made of report.html), and its pictures.

python -m nanochat_tct.tuning.report sweeps/sweep
"""

import base64
import importlib.util
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat_tct.config import option, parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tuning import figures
from nanochat_tct.tuning.budget import show_amount
from nanochat_tct.tuning.fit import CONFIDENCE, Fit, fit_trials, on_whole_split
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.optuna_study import STUDY, write_study
from nanochat_tct.tuning.records import (
    LEDGER,
    OUTCOME,
    REPORT_DIR,
    VARIABLE,
    Outcome,
    Trial,
    cost,
    last_final,
    show_value,
    tokens_by_size,
)
from nanochat_tct.tuning.results import Results, measured_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = (0.5, 1.0, 2.0, 5.0, 10.0)  # times the budget


@dataclass(frozen=True)
class ReportConfig:
    """Which sweep to report on."""

    sweep: list[str] = option([], "folder of a sweep", positional=True, is_path=True)


@dataclass(frozen=True)
class Report:
    """The results of a sweep, and what follows from them.

    Attributes:
        fit: of the trials, as the final run was chosen by it, or would be now; None before one finished.
        outlook: the same with the final run's own result; it says what other budgets would buy.
    """

    name: str
    results: Results
    fit: Fit | None
    outlook: Fit | None

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read a sweep's files, and fit its trials.

        Raises: UserError when the folder holds no sweep.
        """
        if (folder / LEDGER).is_file():  # of a sweep that runs or was killed, it has more than the others
            results = Results.of(Ledger(folder))
            results.write(folder)
        elif (folder / OUTCOME).is_file():
            results = Results.read(folder)
        else:
            raise UserError(f"{folder} holds no sweep ({LEDGER} is missing); give the --output of `tune`")
        fit = outlook = None
        trials = results.trials
        if any(trial.purpose == "sweep" and trial.status == "finished" for trial in trials):
            tokens = equal_cost_tokens(trials, results.outcome)
            fit, outlook = fit_trials(trials, tokens), fit_trials(on_whole_split(trials), tokens)
        return cls(folder.resolve().name, results, fit, outlook)


def equal_cost_tokens(trials: Sequence[Trial], outcome: Outcome) -> dict[str, int]:
    """Size -> tokens of a run for the final run's money; before that is chosen, for the money that is left."""
    final = last_final(trials)
    if outcome.final_tokens:
        planned = outcome.final_tokens.get(final.size) if final is not None else None
        factor = final.planned_tokens / planned if final is not None and planned else 1.0
        return {size: max(1, round(factor * tokens)) for size, tokens in outcome.final_tokens.items()}
    money = outcome.budget - outcome.spent if final is None else cost(final, outcome.unit)
    planned_tokens = {final.size: final.planned_tokens} if final is not None else {}
    return tokens_by_size(trials, outcome.unit, money) | planned_tokens


def write_report(folder: str | Path) -> Path:
    """Write `report/index.html` and its pictures from what the sweep has left so far. Returns the page's path.

    Where Optuna is installed, write the trials as a study beside it, too.

    Raises: UserError when the folder holds no sweep.
    """
    report, output = Report.read(Path(folder)), Path(folder) / REPORT_DIR
    output.mkdir(exist_ok=True)
    pictures = {}
    for name, figure in _draw(report).items():
        image = _png(figure)
        (output / f"{name}.png").write_bytes(image)
        pictures[name] = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    path = output / "index.html"
    path.write_text(_page(report, pictures), encoding="utf-8")
    if importlib.util.find_spec("optuna") is not None:
        write_study(report.results, report.name, output / STUDY)
    return path


def _page(report: Report, pictures: dict[str, str]) -> str:
    """The page, with the pictures as URIs by name."""
    import jinja2

    outcome, trials = report.results.outcome, report.results.trials
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["shown"] = format
    template = (resources.files("nanochat_tct.tuning") / "report.html").read_text(encoding="utf-8")
    swept = [trial for trial in trials if trial.purpose == "sweep"]
    measured = [trial for trial in swept if trial.status == "finished" and trial.bits_per_byte]
    return environment.from_string(template).render(
        name=report.name,
        outcome=outcome,
        used=outcome.spent / outcome.budget if outcome.budget else 0.0,
        amount=lambda value: show_amount(value, outcome.unit, outcome.use_gpu),
        show_value=show_value,
        measured_on=measured_on(outcome),
        swept=swept,
        fit=report.fit,
        sure=f"{CONFIDENCE:.0%}",
        runs=list(zip(FACTORS, report.outlook.outlook(FACTORS), strict=True)) if report.outlook else [],
        pictures=pictures,
        has_curves=bool(report.results.points),
        trials=sorted(trials, key=lambda trial: (trial.started_at, trial.trial)),
        varied=[name for name in VARIABLE if len({getattr(trial, name) for trial in swept}) > 1],
        best=min(measured, key=lambda trial: trial.bits_per_byte or 0, default=None),
    )


def _draw(report: Report) -> dict[str, "Figure"]:
    """The pictures that there is data for."""
    fit, results = report.fit, report.results
    outcome, trials = results.outcome, results.trials
    pictures = {}
    if fit is not None:
        pictures["learning_rate"] = figures.learning_rates(fit, outcome)
    if any(trial.bits_per_byte for trial in trials if trial.purpose != "probe"):
        pictures["cost"] = figures.costs(fit, report.outlook, trials, results.points, outcome)
    return pictures | {"spending": figures.spending(results.entries, outcome)}


def _png(figure: "Figure") -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    pyplot.close(figure)
    return buffer.getvalue()


def command(argv: list[str]) -> int:
    """Write the report that the arguments ask for, and print where it is."""
    config = parse_arguments(ReportConfig, argv, "report", "write the report of a sweep")
    if not config.sweep:
        raise UserError("give the folder of a sweep, such as sweeps/sweep")
    for folder in config.sweep:
        print(write_report(folder))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: command(sys.argv[1:])))
