"""The report of a sweep: one HTML file that needs no network, and its pictures.

python -m nanochat_tct.tuning.report sweeps/sweep
"""

import base64
import html
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat_tct.config import option, parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tuning import figures
from nanochat_tct.tuning.budget import show_amount
from nanochat_tct.tuning.fit import Fit, fit_trials, on_whole_split
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.records import (
    LEDGER,
    OUTCOME,
    REPORT_DIR,
    VARIABLE,
    Interval,
    Outcome,
    Trial,
    cost,
    show_value,
)
from nanochat_tct.tuning.results import Results, measured_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = (0.5, 1.0, 2.0, 5.0, 10.0)  # times the budget
Columns = dict[str, Callable[[Any], str]]  # of a table: a heading, and the cell of a row
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 0 auto; padding: 1.5rem;
       max-width: 72rem; }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; } h2 { margin: 2.2rem 0 .5rem; font-size: 1.2rem; }
p { max-width: 50rem; } .decision { font-size: 1.1rem; border-left: 4px solid #0072B2; padding-left: 1rem; }
.numbers { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.2rem 0; padding: 0; }
.numbers div { border: 1px solid #d5d5d5; border-radius: 8px; padding: .6rem 1rem; min-width: 9rem; }
.numbers dt { color: #555; font-size: .85rem; } .numbers dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.numbers small { display: block; font-weight: 400; font-size: .8rem; color: #555; }
img { width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e2e2e2; text-align: right; white-space: nowrap; }
th { background: #f4f4f4; } th:first-child, td:first-child, td.text, th.text { text-align: left; }
tr.best td { background: #e7f2f9; font-weight: 600; } tr.final td { background: #e5f4ef; }
footer { color: #555; font-size: .85rem; margin-top: 2rem; }
"""


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
        if (
            folder / LEDGER
        ).is_file():  # where the sweep runs or was killed, it has more than the other files
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
    final = next((trial for trial in reversed(trials) if trial.purpose == "final"), None)
    if outcome.final_tokens:
        planned = outcome.final_tokens.get(final.size) if final is not None else None
        factor = final.planned_tokens / planned if final is not None and planned else 1.0
        return {size: max(1, round(factor * tokens)) for size, tokens in outcome.final_tokens.items()}
    money = outcome.budget - outcome.spent if final is None else cost(final, outcome.unit)
    finished = [trial for trial in trials if trial.purpose == "sweep" and trial.status == "finished"]
    longest = {trial.size: trial for trial in sorted(finished, key=lambda trial: trial.tokens)}
    tokens = {
        size: max(1, round(trial.tokens * money / cost(trial, outcome.unit)))
        for size, trial in longest.items()
        if money > 0 and cost(trial, outcome.unit) > 0
    }
    return tokens | ({final.size: final.planned_tokens} if final is not None else {})


def write_report(folder: str | Path) -> Path:
    """Write `report/index.html` and its pictures from what the sweep has left so far. Returns the page's path.

    Raises: UserError when the folder holds no sweep.
    """
    report, output = Report.read(Path(folder)), Path(folder) / REPORT_DIR
    output.mkdir(exist_ok=True)
    pictures = []
    for name, title, caption, figure in _draw(report):
        image = _png(figure)
        (output / f"{name}.png").write_bytes(image)
        source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        image_tag = f'<img id="{name}" alt="{_text(caption)}" src="{source}">'
        pictures.append(_heading(title, caption) + image_tag)
    path = output / "index.html"
    path.write_text(_page(report, pictures), encoding="utf-8")
    return path


def _draw(report: Report) -> list[tuple[str, str, str, "Figure"]]:
    """Name, title, caption and figure of each picture that there is data for."""
    fit, results = report.fit, report.results
    outcome, trials = results.outcome, results.trials
    pictures = []
    if fit is not None:
        hollow = ", hollow with other values than the chosen ones" if fit.values else ""
        caption = (
            f"Points are finished trials{hollow}; lines and bands are the fit and its {fit.confidence:.0%} interval, "
            "one for each length of trials. The grey stripe holds the best rate of a run as long as the final one. "
            "Trials without an end are drawn at the loss they had, or at the top."
        )
        figure = figures.learning_rates(fit, outcome)
        pictures.append(("learning_rate", "Loss against learning rate", caption, figure))
    if any(trial.bits_per_byte for trial in trials if trial.purpose != "probe"):
        with_final = ", with the final run's own result" if outcome.actual else ""
        right = " Right: each trial's loss as it fell, the final run's strongest." if results.points else ""
        caption = (
            "Trials, and what the fit expects of each size at its best rate (lines), up to the final run's cost "
            f"as it was before that run; dashed, with {fit.confidence if fit else 0.9:.0%} intervals, from half to ten "
            f"times that cost{with_final}. The bar is what was predicted for the final run, the star what it "
            f"reached.{right}"
        )
        title = "Loss against cost" + (", and loss curves" if results.points else "")
        figure = figures.costs(fit, report.outlook, trials, results.points, outcome)
        pictures.append(("cost", title, caption, figure))
    caption = "What was spent over time, and on what. Evaluation is that of trials and of the final run."
    figure = figures.spending(results.entries, outcome)
    pictures.append(("spending", "Where the budget went", caption, figure))
    return pictures


def _png(figure: "Figure") -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    pyplot.close(figure)
    return buffer.getvalue()


def _page(report: Report, pictures: Sequence[str]) -> str:
    fit, outcome = report.fit, report.results.outcome
    decision = outcome.decision or (fit.decision if fit else "Nothing is decided: no trial has finished yet.")
    tables: list[str] = []
    if fit is not None and report.outlook is not None:
        tables = [_size_table(fit, outcome), _outlook_table(report.outlook, outcome), _value_table(fit)]
    newline = "\n"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Sweep {_text(report.name)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Sweep {_text(report.name)}</h1>
<p class="decision" id="decision">{_text(decision)}</p>
{_tiles(outcome, report.results.trials)}
{newline.join([*tables, *pictures])}
<h2>All trials</h2>
{_trial_table(report.results.trials, outcome)}
<footer>{_text(_measure(fit, outcome))} Trials that were stopped, cut or failed are not measured by the fit; a stopped
one says that its learning rate or its values are bad.</footer>
</body>
</html>
"""


def _measure(fit: Fit | None, outcome: Outcome) -> str:
    """What bits per byte were measured on."""
    text = "Bits per byte are of the validation documents, less is better."
    if outcome.trial_share is None:
        return text
    if outcome.trial_share == 1:
        return text + " Trials and the final run were measured on all of them."
    text += f" Trials were measured on the same windows, {outcome.trial_share:.0%} of the validation split"
    if fit is not None and fit.sampling_error:
        text += f"; their standard error, {fit.sampling_error:.1%}, is in all intervals of what a final run reaches"
    elif fit is not None:
        text += "; how far these may be from the whole was not measured, and is in no interval"
    return text + "."


def _tiles(outcome: Outcome, trials: Sequence[Trial]) -> str:
    """The numbers at the top."""
    used = outcome.spent / outcome.budget if outcome.budget else 0.0
    swept = [trial for trial in trials if trial.purpose == "sweep"]
    finished = sum(trial.status == "finished" for trial in swept)
    spent, budget = (_amount(value, outcome) for value in (outcome.spent, outcome.budget))
    tiles = [
        ("Spent", spent, f"{used:.1%} of {budget}"),
        ("Trials", str(len(swept)), f"{finished} finished"),
    ]
    if outcome.size is not None and outcome.learning_rate is not None:
        varied = "".join(f", {name} {show_value(value)}" for name, value in outcome.varied.items())
        tiles.append(("Final run", outcome.size, f"learning rate {outcome.learning_rate:.3g}{varied}"))
    if outcome.predicted is not None:
        low, middle, high = outcome.predicted
        tiles.append(("Predicted", f"{middle:.4f}", f"bits per byte, {low:.4f} to {high:.4f}"))
    if outcome.actual is not None:
        note = f"bits per byte {measured_on(outcome)}"
        if outcome.predicted is not None:
            where = "inside" if low <= outcome.actual <= high else "outside"
            note += f", {outcome.actual / middle - 1:+.1%}, {where} the interval"
        tiles.append(("Actual", f"{outcome.actual:.4f}", note))
    inside = "\n".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="numbers">\n{inside}\n</dl>'


def _size_table(fit: Fit, outcome: Outcome) -> str:
    chosen = outcome.size or fit.best.size
    columns: Columns = {
        "Size": lambda size: size.size,
        "Parameters": lambda size: f"{size.parameters:,}",
        "Trials finished": lambda size: str(size.num_finished),
        "Best learning rate": lambda size: (
            _interval(size.learning_rate, ".2g") + (f", at the {size.edge} edge" if size.edge else "")
        ),
        "Tokens": lambda size: f"{size.tokens:,}",
        "Epochs": lambda size: f"{size.epochs:.2g}",
        "Bits per byte there": lambda size: _interval(size.bits_per_byte, ".4f"),
        "Odds to be the best": lambda size: f"{size.probability_best:.0%}",
    }
    money = "the final run's money" if outcome.size is not None else "the money that is left"
    title = f"What each size would reach for {money} ({fit.confidence:.0%} intervals)"
    note = "All at the same cost, so that larger models see fewer tokens; from the trials alone."
    return _heading(title, note) + _table(columns, fit.sizes, lambda size: "best" * (size.size == chosen))


def _outlook_table(fit: Fit, outcome: Outcome) -> str:
    """What other budgets would buy."""
    columns: Columns = {
        "Budget": lambda row: f"{row[0]:g} times: {_amount(row[0] * outcome.budget, outcome)}",
        "Best size": lambda row: row[1].size,
        "Tokens": lambda row: f"{row[1].tokens:,}",
        "Epochs": lambda row: f"{row[1].epochs:.2g}",
        "Learning rate": lambda row: _interval(row[1].learning_rate, ".2g"),
        "Bits per byte": lambda row: _interval(row[1].bits_per_byte, ".4f"),
    }
    source = "The trials and the final run's own result" if outcome.actual is not None else "The trials"
    title = f"What another budget would buy ({fit.confidence:.0%} intervals)"
    note = (
        f"{source}, for a final run that is shorter or longer in proportion, of the size that is best then."
    )
    rows = list(zip(FACTORS, fit.outlook(FACTORS), strict=True))
    return _heading(title, note) + _table(columns, rows, lambda row: "best" * (row[0] == 1))


def _value_table(fit: Fit) -> str:
    if not fit.values:
        return ""
    columns: Columns = {
        "Value": lambda value: f"{value.setting} {show_value(value.value)}",
        "Trials finished": lambda value: str(value.num_finished),
        "Costs of the loss, beside the best value": lambda value: _interval(value.cost, ".2%"),
        "Odds to be it": lambda value: f"{value.probability_best:.0%}",
    }
    title = f"What the fit says of other settings ({fit.confidence:.0%} intervals)"
    note = "The same at all sizes, and added up; effects of one setting on another are not modelled."
    rows = _table(columns, fit.values, lambda value: "best" * (fit.best_values[value.setting] == value.value))
    return _heading(title, note) + rows


def _trial_table(trials: Sequence[Trial], outcome: Outcome) -> str:
    swept = [trial for trial in trials if trial.purpose == "sweep"]
    varied = [name for name in VARIABLE if len({getattr(trial, name) for trial in swept}) > 1]
    finished = [trial for trial in swept if trial.status == "finished" and trial.bits_per_byte]
    best = min(finished, key=lambda trial: trial.bits_per_byte or 0, default=None)
    columns: Columns = {
        "Trial": lambda trial: trial.trial,
        "Purpose": lambda trial: trial.purpose,
        "Size": lambda trial: trial.size,
        "Parameters": lambda trial: f"{trial.parameters:,}",
        "Learning rate": lambda trial: f"{trial.learning_rate:.3g}",
        **{name: lambda trial, name=name: show_value(getattr(trial, name)) for name in varied},  # type: ignore[misc]
        "Tokens": lambda trial: f"{trial.tokens:,}",
        "Epochs": lambda trial: f"{trial.epochs:.2g}",
        "FLOPs": lambda trial: f"{trial.flops:.3g}",
        "Dollars": lambda trial: f"{trial.usd:.4f}",
        "GPU-seconds" if outcome.use_gpu else "Worker-seconds": lambda trial: f"{trial.worker_seconds:.0f}",
        "Bits per byte": _measured_bits,
        "Status": lambda trial: trial.status,
    }
    if outcome.hourly_usd is None:
        del columns["Dollars"]
    rows = sorted(trials, key=lambda trial: (trial.started_at, trial.trial))
    return _table(
        columns, rows, lambda trial: "final" if trial.purpose == "final" else "best" * (trial is best)
    )


def _measured_bits(trial: Trial) -> str:
    if trial.bits_per_byte is None:
        return ""
    whole = "" if trial.whole_split is None else f" ({trial.whole_split:.4f} at the end)"
    return f"{trial.bits_per_byte:.4f}{whole}"


def _amount(value: float, outcome: Outcome) -> str:
    return show_amount(value, outcome.unit, outcome.use_gpu)


def _interval(interval: Interval, digits: str) -> str:
    low, middle, high = (format(value, digits) for value in interval)
    return f"{middle} ({low} to {high})"


def _heading(title: str, note: str) -> str:
    return f"<h2>{_text(title)}</h2>\n<p>{_text(note)}</p>\n"


def _table(columns: Columns, rows: Sequence[Any], kind: Callable[[Any], str]) -> str:
    """A table with a cell for each row and column, escaped.

    Args:
        kind: of a row: its class in the style sheet, or "".
    """
    names = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    lines = [f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>']
    for row in rows:
        cells = "".join(f"<td>{_text(cell(row))}</td>" for cell in columns.values())
        lines.append(f'<tr class="{kind(row)}">{cells}</tr>' if kind(row) else f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _text(value: str) -> str:
    return html.escape(value, quote=True)


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
