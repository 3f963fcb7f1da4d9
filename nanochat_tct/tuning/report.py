"""The report of a sweep: one HTML file that needs no network, and its pictures.

python -m nanochat_tct.tuning.report sweeps/sweep
"""

import base64
import html
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat_tct.config import option, parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tuning import figures
from nanochat_tct.tuning.fit import Fit, SizeFit, fit_trials
from nanochat_tct.tuning.ledger import Ledger
from nanochat_tct.tuning.trials import (
    ENTRIES,
    LEDGER,
    OUTCOME,
    REPORT_DIR,
    TRIALS,
    Entry,
    Outcome,
    Trial,
    read_outcome,
    read_rows,
    show_value,
    write_records,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def write_report(folder: str | Path) -> Path:
    """Write `report/index.html` and its pictures from what the sweep has left so far. Returns the page's path.

    Raises: UserError when the folder holds no sweep.
    """
    folder = Path(folder)
    if not (folder / OUTCOME).is_file() and not (folder / LEDGER).is_file():
        raise UserError(f"{folder} holds no sweep ({LEDGER} is missing); give the --output of `tune`")
    if (folder / LEDGER).is_file():  # of a sweep that still runs, or was killed, it knows more than the files
        write_records(Ledger(folder), folder)
    outcome = read_outcome(folder)
    trials = read_rows(folder / TRIALS, Trial) if (folder / TRIALS).is_file() else []
    entries = read_rows(folder / ENTRIES, Entry) if (folder / ENTRIES).is_file() else []
    fit = _fit(trials)

    output = folder / REPORT_DIR
    output.mkdir(exist_ok=True)
    pictures = []
    for name, title, alt, figure in _draw(fit, trials, entries, outcome):
        image = _png(figure)
        (output / f"{name}.png").write_bytes(image)
        data = base64.b64encode(image).decode()
        pictures.append(
            f"<h2>{_text(title)}</h2>\n"
            f'<img id="{name}" alt="{_text(alt)}" src="data:image/png;base64,{data}">'
        )
    page = _page(folder.resolve().name, outcome, trials, fit, pictures)
    path = output / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _fit(trials: Sequence[Trial]) -> Fit | None:
    """The fit that the final run was chosen by, or the one that could be made now."""
    if not any(trial.purpose == "sweep" and trial.status == "finished" for trial in trials):
        return None
    final = [trial for trial in trials if trial.purpose == "final"]
    return fit_trials(trials, {trial.size: trial.planned_tokens for trial in final})


def _draw(
    fit: Fit | None, trials: Sequence[Trial], entries: Sequence[Entry], outcome: Outcome
) -> "list[tuple[str, str, str, Figure]]":
    """Name, heading, description and figure of each picture that there is something for."""
    drawn = []
    if fit is not None:
        is_chosen = outcome.size is not None and outcome.learning_rate is not None
        chosen = (str(outcome.size), float(outcome.learning_rate or 0)) if is_chosen else None
        described = "; ".join(
            f"{size.size}: best at {size.learning_rate.middle:.2g}, {fit.confidence:.0%} interval "
            f"{size.learning_rate.low:.2g} to {size.learning_rate.high:.2g}"
            for size in fit.sizes
        )
        drawn.append(
            (
                "learning_rate",
                "Loss against learning rate",
                "Points: finished trials, hollow with other values than the chosen ones; line and band: fit and "
                f"interval; grey: best learning rate. {described}.",
                figures.learning_rates(fit, chosen),
            )
        )
    if any(trial.bits_per_byte for trial in trials):
        predicted = ""
        if outcome.predicted:
            predicted = f" Predicted {outcome.predicted[1]:.4f}."
        actual = f" Final run {outcome.actual:.4f}." if outcome.actual else ""
        drawn.append(
            (
                "cost",
                "Loss against cost",
                f"Bits per byte of trials against FLOPs and money, a line for each size.{predicted}{actual}",
                figures.costs(fit, trials, outcome),
            )
        )
    drawn.append(
        (
            "spending",
            "Where the budget went",
            "Spent over time by purpose, against the budget.",
            figures.spending(entries, outcome),
        )
    )
    if fit is not None:
        drawn.append(
            (
                "parallel_coordinates",
                "What was tried",
                "Parallel coordinates: a line for each finished trial; the table below has the same numbers.",
                figures.parallel_coordinates(trials),
            )
        )
    return drawn


def _png(figure: "Figure") -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    pyplot.close(figure)
    return buffer.getvalue()


def _page(
    name: str, outcome: Outcome, trials: Sequence[Trial], fit: Fit | None, pictures: Sequence[str]
) -> str:
    decision = outcome.decision or (fit.decision if fit else "Nothing is decided: no trial has finished yet.")
    newline = "\n"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Sweep {_text(name)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Sweep {_text(name)}</h1>
<p class="decision" id="decision">{_text(decision)}</p>
{_numbers(outcome, trials)}
{_size_table(fit, outcome)}
{_value_table(fit)}
{newline.join(pictures)}
<h2>All trials</h2>
{_trial_table(trials, outcome)}
<footer>Bits per byte are of the validation documents, less is better. Trials that were stopped, cut or failed
are not measured by the fit; a stopped one tells it that its learning rate is a bad one.</footer>
</body>
</html>
"""


def _numbers(outcome: Outcome, trials: Sequence[Trial]) -> str:
    """The numbers at the top."""
    used = outcome.spent / outcome.budget if outcome.budget else 0.0
    swept = [trial for trial in trials if trial.purpose == "sweep"]
    finished = sum(trial.status == "finished" for trial in swept)
    tiles = [
        (
            "Spent",
            figures.amount(outcome.spent, outcome),
            f"{used:.1%} of {figures.amount(outcome.budget, outcome)}",
        ),
        ("Trials", str(len(swept)), f"{finished} finished"),
    ]
    if outcome.size is not None and outcome.learning_rate is not None:
        varied = "".join(f", {name} {show_value(value)}" for name, value in outcome.varied.items())
        tiles.append(("Final run", outcome.size, f"learning rate {outcome.learning_rate:.3g}{varied}"))
    if outcome.predicted is not None:
        low, middle, high = outcome.predicted
        tiles.append(("Predicted", f"{middle:.4f}", f"bits per byte, {low:.4f} to {high:.4f}"))
    if outcome.actual is not None:
        note = "bits per byte"
        if outcome.predicted is not None:
            is_inside = outcome.predicted[0] <= outcome.actual <= outcome.predicted[2]
            error = outcome.actual / outcome.predicted[1] - 1
            note += f", {error:+.1%}, {'inside' if is_inside else 'outside'} the interval"
        tiles.append(("Actual", f"{outcome.actual:.4f}", note))
    inside = "\n".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="numbers">\n{inside}\n</dl>'


def _size_table(fit: Fit | None, outcome: Outcome) -> str:
    if fit is None:
        return ""
    head = (
        "Size",
        "Parameters",
        "Trials finished",
        "Best learning rate",
        "Tokens",
        "Epochs",
        "Bits per byte there",
    )

    def cells(size: SizeFit) -> list[str]:
        rate, bits = size.learning_rate, size.bits_per_byte
        return [
            size.size,
            f"{size.parameters:,}",
            str(size.num_finished),
            f"{rate.middle:.2g} ({rate.low:.2g} to {rate.high:.2g})"
            + (f", at the {size.edge} edge" if size.edge else ""),
            f"{size.tokens:,}",
            f"{size.epochs:.2g}",
            f"{bits.middle:.4f} ({bits.low:.4f} to {bits.high:.4f})",
        ]

    chosen = outcome.size or fit.best_size
    rows = [("best" if size.size == chosen else "", cells(size)) for size in fit.sizes]
    return (
        f"<h2>What the fit says of each size ({fit.confidence:.0%} intervals)</h2>\n"
        f"<p>At the length of the final run for the chosen size, and of the longest trial for the others.</p>\n"
        + _table(head, rows)
    )


def _value_table(fit: Fit | None) -> str:
    if fit is None or not fit.values:
        return ""
    rows = [
        (
            "best" if fit.best_values[value.setting] == value.value else "",
            [
                f"{value.setting} {show_value(value.value)}",
                str(value.num_finished),
                f"{value.cost.middle:.2%} ({value.cost.low:.2%} to {value.cost.high:.2%})",
                f"{value.probability_best:.0%}",
            ],
        )
        for value in fit.values
    ]
    return (
        f"<h2>What the fit says of other settings ({fit.confidence:.0%} intervals)</h2>\n"
        "<p>The same at all sizes, and added up: how settings act on each other was not looked at.</p>\n"
        + _table(
            ("Value", "Trials finished", "Costs of the loss, beside the best value", "Odds to be it"), rows
        )
    )


def _trial_table(trials: Sequence[Trial], outcome: Outcome) -> str:
    varied = figures.varied_in([trial for trial in trials if trial.purpose == "sweep"])
    head = (
        *("Trial", "Purpose", "Size", "Parameters", "Learning rate", *varied, "Tokens", "Epochs"),
        *("FLOPs", "Dollars", "Seconds", "Bits per byte", "Status"),
    )
    swept = [t for t in trials if t.purpose == "sweep" and t.status == "finished" and t.bits_per_byte]
    best = min(swept, key=lambda trial: trial.bits_per_byte or 0, default=None)
    rows = []
    for trial in sorted(trials, key=lambda trial: (trial.started_at, trial.trial)):
        cells = [
            trial.trial,
            trial.purpose,
            trial.size,
            f"{trial.parameters:,}",
            f"{trial.learning_rate:.3g}",
            *(show_value(getattr(trial, name)) for name in varied),
            f"{trial.tokens:,}",
            f"{trial.epochs:.2g}",
            f"{trial.flops:.3g}",
            f"{trial.usd:.4f}",
            f"{trial.worker_seconds:.0f}",
            "" if trial.bits_per_byte is None else f"{trial.bits_per_byte:.4f}",
            trial.status,
        ]
        if outcome.hourly_usd is None:
            del cells[head.index("Dollars")]
        rows.append(("final" if trial.purpose == "final" else "best" if trial is best else "", cells))
    return _table([name for name in head if name != "Dollars" or outcome.hourly_usd is not None], rows)


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows are a class and cells; everything is escaped."""
    lines = ['<div class="wide"><table><thead><tr>']
    lines.append("".join(f'<th scope="col">{_text(name)}</th>' for name in head) + "</tr></thead><tbody>")
    for kind, cells in rows:
        line = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="{_text(kind)}">{line}</tr>' if kind else f"<tr>{line}</tr>")
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
