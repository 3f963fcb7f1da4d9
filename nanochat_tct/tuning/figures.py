"""The pictures of a sweep's report, as matplotlib figures."""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from nanochat_tct.tuning.fit import Fit
from nanochat_tct.tuning.trials import VARIABLE, Entry, Outcome, Trial, show_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; shapes say the same again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C")
MARKERS = "osD^vPX"
PURPOSES = {"probe": "#56B4E9", "sweep": "#0072B2", "final": "#009E73", "idle": "#B0B0B0"}
HATCHES = {"probe": "//", "sweep": "", "final": "..", "idle": "xx"}
UNITS = {"usd": "dollars", "gpu_hours": "GPU-hours", "flops": "FLOPs"}
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


def looks(sizes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each size."""
    return {
        size: (COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]) for index, size in enumerate(sizes)
    }


def learning_rates(fit: Fit, chosen: tuple[str, float] | None) -> "Figure":
    """Loss against learning rate, a panel a size, with the fit and its interval at each length of trials."""
    figure, axes = _figure(len(fit.sizes), width=4.2, share_y=True)
    for axis, size in zip(axes, fit.sizes, strict=True):
        color, marker = looks([each.size for each in fit.sizes])[size.size]
        trials = [trial for trial in fit.trials if trial.size == size.size]
        finished = [trial for trial in trials if trial.status == "finished" and trial.bits_per_byte]
        lengths = sorted({_rounded(trial.tokens) for trial in finished})
        rates = [trial.learning_rate for trial in trials]
        grid = np.geomspace(min(rates) / 1.8, max(rates) * 1.8, 200)
        for index, length in enumerate(lengths):
            low, middle, high = fit.curve(size.size, int(length), grid)
            strength = (index + 1) / len(lengths)  # the longest is the strongest
            axis.fill_between(grid, low, high, color=color, alpha=0.16 * strength, linewidth=0)
            axis.plot(grid, middle, color=color, alpha=0.3 + 0.7 * strength)
            points = [trial for trial in finished if _rounded(trial.tokens) == length]
            best = [trial for trial in points if fit.has_best_values(trial)]
            for some, fill in ((best, color), ([t for t in points if t not in best], "none")):
                axis.plot(
                    [trial.learning_rate for trial in some],
                    [trial.bits_per_byte or math.nan for trial in some],
                    marker,
                    color=color,
                    markerfacecolor=fill,
                    alpha=0.4 + 0.6 * strength,
                    label=f"{count(length)} tokens" if some is best else None,
                )
        others = [trial for trial in trials if trial not in finished]
        for status in sorted({trial.status for trial in others}):
            at = [trial.learning_rate for trial in others if trial.status == status]
            axis.plot(
                at,
                [0.97] * len(at),
                {"stopped": "x", "failed": "1", "cut": "|"}.get(status, "."),
                color="#5C5C5C",
                transform=axis.get_xaxis_transform(),
                label=f"{status}",
            )
        interval = size.learning_rate
        axis.axvspan(interval.low, interval.high, color="#5C5C5C", alpha=0.08, linewidth=0)
        is_chosen = chosen is not None and chosen[0] == size.size
        if is_chosen and chosen is not None:
            axis.axvline(
                chosen[1], color="black", linewidth=1, linestyle="--", label=f"chosen {chosen[1]:.3g}"
            )
        axis.set(
            xscale="log",
            xlim=(grid[0], grid[-1]),
            xlabel="learning rate",
            title=f"{size.size} · {count(size.parameters)} parameters" + " · chosen" * is_chosen,
        )
        _plain_ticks(axis)
        axis.legend(fontsize=8, loc="upper center")
    measured = [trial.bits_per_byte for trial in fit.trials if trial.bits_per_byte]
    low, middle = min(measured), float(np.median(measured))
    axes[0].set(ylabel="bits per byte", ylim=(low * 0.97, max(low * 1.1, low + 2.2 * (middle - low))))
    return figure


def costs(fit: Fit | None, trials: Sequence[Trial], outcome: Outcome) -> "Figure":
    """Loss against FLOPs and against money (or GPU-hours), with the prediction and the final run."""
    panels: list[tuple[str, Callable[[Trial], float]]] = [("FLOPs", lambda trial: trial.flops)]
    if any(trial.usd for trial in trials):
        panels.append(("dollars", lambda trial: trial.usd))
    elif any(trial.worker_seconds for trial in trials):
        panels.append(
            ("hours of GPUs, or of processes without GPU", lambda trial: trial.worker_seconds / 3600)
        )
    sizes = sorted({trial.size: trial.parameters for trial in trials}.items(), key=lambda item: item[1])
    look = looks([size for size, _ in sizes])
    final = next((trial for trial in trials if trial.purpose == "final"), None)
    figure, axes = _figure(len(panels), width=11.2 / len(panels), share_y=True)
    for axis, (name, cost) in zip(axes, panels, strict=True):
        highest = max((cost(trial) for trial in trials), default=1.0)
        for size, _ in sizes:
            color, marker = look[size]
            measured = [
                trial
                for trial in trials
                if trial.size == size and trial.purpose == "sweep" and trial.bits_per_byte and cost(trial) > 0
            ]
            whole = [trial for trial in measured if trial.status == "finished"]
            for some, fill in ((whole, color), ([t for t in measured if t not in whole], "none")):
                axis.plot(
                    [cost(trial) for trial in some],
                    [trial.bits_per_byte or math.nan for trial in some],
                    marker,
                    color=color,
                    markerfacecolor=fill,
                    label=size if some is whole else None,
                )
            if fit is not None and whole:
                per_token = sum(cost(trial) for trial in whole) / sum(trial.tokens for trial in whole)
                tokens = np.geomspace(min(t.tokens for t in whole), max(highest / per_token, 2), 30)
                lines = np.array([fit.predict(size, max(1, int(number))) for number in tokens])
                axis.plot(tokens * per_token, lines[:, 1], color=color, linewidth=1.2, alpha=0.8)
        if final is not None and cost(final) > 0:
            if outcome.predicted:
                low, middle, high = outcome.predicted
                axis.errorbar(
                    cost(final),
                    middle,
                    [[middle - low], [high - middle]],
                    fmt="_",
                    markersize=16,
                    zorder=3,
                    color="black",
                    capsize=6,
                    label="predicted",
                )
            actual = outcome.actual or final.bits_per_byte
            if actual:
                axis.plot(
                    cost(final),
                    actual,
                    "*",
                    markersize=15,
                    zorder=1,
                    color=look[final.size][0],
                    markeredgecolor="black",
                    label="final run",
                )
        axis.set(xscale="log", xlabel=name, title=f"Loss against {name.split(',')[0]}")
        axis.tick_params(axis="x", which="both", labelsize=8, labelrotation=30)  # many, below a decade
    axes[0].set(ylabel="bits per byte")
    axes[-1].legend(fontsize=8, loc="upper right")
    return figure


def spending(entries: Sequence[Entry], outcome: Outcome) -> "Figure":
    """What was spent over time, by purpose, against the budget."""
    figure, (axis,) = _figure(1, width=11.2, height=3.6)
    entries = sorted(entries, key=lambda entry: entry.time)
    if entries:
        start = entries[0].time
        seconds = np.array([0.0] + [entry.time - start for entry in entries])
        seconds = np.append(seconds, seconds[-1] * 1.01)  # so that the last step is seen
        scale, unit = (3600, "hours") if seconds[-1] > 7200 else (60, "minutes")
        below = np.zeros(len(seconds))
        for purpose, color in PURPOSES.items():
            amounts = [0.0] + [entry.amount if entry.purpose == purpose else 0.0 for entry in entries] + [0.0]
            above = below + np.cumsum(amounts)
            if above[-1] > below[-1]:
                axis.fill_between(
                    seconds / scale,
                    below,
                    above,
                    step="post",
                    facecolor=color,
                    hatch=HATCHES[purpose],
                    edgecolor="white",
                    linewidth=0,
                    label=f"{purpose} {amount(above[-1] - below[-1], outcome)}",
                )
            below = above
        axis.set(xlabel=f"{unit} since the first charge")
    axis.axhline(outcome.budget, color="black", linestyle="--", linewidth=1)
    axis.annotate(
        f"budget {amount(outcome.budget, outcome)}",
        (0.005, outcome.budget),
        xycoords=("axes fraction", "data"),
        va="bottom",
    )
    axis.set(ylabel=UNITS[outcome.unit], ylim=(0, outcome.budget * 1.15), title="Spent over time, by purpose")
    axis.legend(loc="lower right", fontsize=9, frameon=True, framealpha=0.9)
    return figure


def parallel_coordinates(trials: Sequence[Trial]) -> "Figure":
    """A line for each finished trial across what was chosen and what came of it; the best are drawn strongest."""
    from matplotlib import colormaps

    figure, (axis,) = _figure(1, width=11.2, height=3.8)
    shown = sorted(
        (t for t in trials if t.purpose == "sweep" and t.status == "finished" and t.bits_per_byte),
        key=lambda trial: -(trial.bits_per_byte or 0),
    )
    columns: dict[str, Callable[[Trial], Any]] = {
        "parameters": lambda trial: trial.parameters,
        "learning rate": lambda trial: trial.learning_rate,
        **{name: attrgetter(name) for name in varied_in(shown)},
        "tokens": lambda trial: trial.tokens,
        "epochs": lambda trial: trial.epochs,
        "FLOPs": lambda trial: trial.flops,
        "bits per byte": lambda trial: trial.bits_per_byte or 0.0,
    }
    places = []
    for index, (name, value) in enumerate(columns.items()):
        values = [value(trial) for trial in shown]
        place, labels = _by_value(values) if name in VARIABLE else _by_logarithm(values)
        places.append(place)
        axis.axvline(index, color="#888888", linewidth=1)
        for at, text in labels:
            below = at == 0
            axis.text(
                index,
                at - 0.04 if below else at + 0.04,
                text,
                ha="center",
                va="top" if below else "bottom",
                fontsize=9,
            )
    lines = np.stack(places, axis=1)  # (trials, columns)
    for rank, line in enumerate(lines):
        good = (rank + 1) / len(lines)
        axis.plot(
            line, color=colormaps["viridis_r"](good), linewidth=1 + 2 * good**3, alpha=0.45 + 0.5 * good
        )
    axis.set(
        xticks=range(len(columns)), yticks=[], ylim=(-0.16, 1.16), title="All finished trials (dark: better)"
    )
    axis.set_xticklabels(list(columns))
    axis.grid(False)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    return figure


def varied_in(trials: Sequence[Trial]) -> list[str]:
    """The settings besides size and learning rate in which trials differ."""
    return [name for name in VARIABLE if len({getattr(trial, name) for trial in trials}) > 1]


def _by_logarithm(values: Sequence[float]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Places from 0 to 1, and what is written where."""
    logs = np.log([max(value, 1e-12) for value in values])
    low, high = float(logs.min()), float(logs.max())
    if low == high:
        return np.full(len(logs), 0.5), [(0.5, count(math.exp(low)))]
    return (logs - low) / (high - low), [(0.0, count(math.exp(low))), (1.0, count(math.exp(high)))]


def _by_value(values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """The same of values of which each has a place of its own."""
    labels = {value: place for place, value in enumerate(sorted(set(values)))}
    most = max(1, len(labels) - 1)
    places = np.array([labels[value] / most for value in values])
    return places, [(place / most, show_value(value)) for value, place in labels.items()]


def _figure(
    columns: int, width: float, height: float = 4.0, share_y: bool = False
) -> "tuple[Figure, list[Axes]]":
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1,
            columns,
            figsize=(width * columns, height),
            constrained_layout=True,
            sharey=share_y,
            squeeze=False,
        )
    return figure, list(axes[0])


def _plain_ticks(axis: "Axes") -> None:
    """Learning rates as people write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _rounded(tokens: float) -> float:
    """Two digits: trials whose lengths differ by an iter are of one length."""
    return float(f"{tokens:.2g}")


def count(number: float) -> str:
    """1234567 as 1.23M; what is small as it is, three digits."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{letter}" if number < 1e15 else f"{number:.2e}"
    return f"{number:.3g}"


def amount(value: float, outcome: Outcome) -> str:
    """An amount of the budget, with its unit."""
    if outcome.unit == "usd":
        return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"
    return f"{value:.3g} {UNITS[outcome.unit]}"
