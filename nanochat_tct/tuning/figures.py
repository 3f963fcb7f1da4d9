"""The pictures of a sweep's report, as matplotlib figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nanochat_tct.tuning.fit import Fit
from nanochat_tct.tuning.plan import unit_name
from nanochat_tct.tuning.trials import VARIABLE, Entry, Outcome, Point, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; shapes say the same again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C")
MARKERS = "osD^vPX"
# What money went into: colour and hatching.
PARTS = {
    "probes": ("#56B4E9", "//"),
    "trials, training": ("#0072B2", ""),
    "final run, training": ("#009E73", ".."),
    "evaluation": ("#E69F00", "--"),
    "starts and checkpoints": ("#CC79A7", "||"),
    "idle": ("#B0B0B0", "xx"),
}
STARTS = ("start_up", "warm_up", "checkpoint")  # kinds of work
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
    measured = [trial.bits_per_byte or math.nan for trial in fit.trials if trial.is_measured]
    low, middle = min(measured), float(np.median(measured))
    top = max(low * 1.1, low + 2.2 * (middle - low))
    look = looks([size.size for size in fit.sizes])
    for axis, size in zip(axes, fit.sizes, strict=True):
        trials = [trial for trial in fit.trials if trial.size == size.size]
        rates = [trial.learning_rate for trial in trials]
        grid = np.geomspace(min(rates) / 1.8, max(rates) * 1.8, 200)
        interval = size.learning_rate
        axis.axvspan(
            interval.low,
            interval.high,
            color="#5C5C5C",
            alpha=0.12,
            linewidth=0,
            label=f"best rate, {fit.confidence:.0%}",
        )
        _draw_lengths(axis, fit, size.size, trials, grid, look[size.size])
        _draw_unfinished(axis, trials, top)
        is_chosen = chosen is not None and chosen[0] == size.size
        if is_chosen and chosen is not None:
            axis.axvline(
                chosen[1], color="black", linewidth=1, linestyle="--", label=f"chosen {chosen[1]:.3g}"
            )
        title = f"{size.size} · {count(size.parameters)} parameters" + " · chosen" * is_chosen
        axis.set(xscale="log", xlim=(grid[0], grid[-1]), xlabel="learning rate", title=title)
        _log_ticks(axis.xaxis, grid[0], grid[-1], "{:g}".format)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    axes[0].set(ylabel="bits per byte", ylim=(low * 0.97, top))
    return figure


def _draw_lengths(
    axis: "Axes", fit: Fit, size: str, trials: Sequence[Trial], grid: np.ndarray, look: tuple[str, str]
) -> None:
    """The finished trials of a size, and the fit at each of their lengths; the longest is the strongest."""
    color, marker = look
    finished = [trial for trial in trials if trial.status == "finished" and trial.is_measured]
    lengths = sorted({_rounded(trial.tokens) for trial in finished})
    for index, length in enumerate(lengths):
        strength = (index + 1) / len(lengths)
        low, middle, high = fit.curve(size, int(length), grid)
        axis.fill_between(grid, low, high, color=color, alpha=0.16 * strength, linewidth=0)
        axis.plot(grid, middle, color=color, alpha=0.3 + 0.7 * strength)
        points = [trial for trial in finished if _rounded(trial.tokens) == length]
        best = [trial for trial in points if fit.has_best_values(trial)]
        label = f"{count(length)} tokens"
        _points(axis, best, _rate, marker, color=color, alpha=0.4 + 0.6 * strength, label=label)
        others = [trial for trial in points if trial not in best]
        _points(axis, others, _rate, marker, color=color, markerfacecolor="none", alpha=0.4 + 0.6 * strength)


def _draw_unfinished(axis: "Axes", trials: Sequence[Trial], top: float) -> None:
    """Trials without an end, at the loss they had; those above the picture, or without a loss, at its top."""
    for status, marker in (("stopped", "x"), ("failed", "1"), ("cut", "|"), ("running", ".")):
        found = [trial for trial in trials if trial.status == status]
        losses = [min(trial.bits_per_byte or top, top) if trial.is_measured else top for trial in found]
        rates = [trial.learning_rate for trial in found]
        if found:
            axis.plot(
                rates, losses, marker, color="#5C5C5C", markersize=8, clip_on=False, label=status, ls=""
            )


def costs(
    fit: Fit | None,
    outlook: Fit | None,
    trials: Sequence[Trial],
    points: Sequence[Point],
    outcome: Outcome,
) -> "Figure":
    """Loss against cost, what was predicted and reached, and what other budgets would buy; beside it, loss curves.

    Args:
        fit: of the trials, which the final run was chosen by.
        outlook: the same with the final run's own result.
        points: of loss curves.
    """
    sizes = sorted({trial.size: trial.parameters for trial in trials}.items(), key=lambda item: item[1])
    look = looks([size for size, _ in sizes])
    figure, axes = _figure(2 if points else 1, width=5.6 if points else 11.2, height=4.4)
    axis = axes[0]
    final = next((trial for trial in reversed(trials) if trial.purpose == "final"), None)
    for size, _ in sizes:
        color, marker = look[size]
        same = [t for t in trials if t.size == size and t.purpose == "sweep" and t.is_measured]
        same = [trial for trial in same if cost(trial, outcome) > 0]
        whole = [trial for trial in same if trial.status == "finished"]
        _points(axis, whole, lambda t: cost(t, outcome), marker, color=color, label=size)
        rest = [trial for trial in same if trial not in whole]
        _points(axis, rest, lambda t: cost(t, outcome), marker, color=color, markerfacecolor="none")
        if fit is not None and outlook is not None and whole:
            _draw_predictions(axis, fit, outlook, size, whole, final, outcome, color)
    if final is not None and cost(final, outcome) > 0:
        _draw_final(axis, final, outcome, look[final.size][0])
    _show_costs(axis, outcome)
    if points:
        _draw_curves(axes[1], trials, points, look)
    return figure


def _draw_predictions(
    axis: "Axes",
    fit: Fit,
    outlook: Fit,
    size: str,
    trials: Sequence[Trial],
    final: Trial | None,
    outcome: Outcome,
    color: str,
) -> None:
    """What is expected of a size: up to the final run's cost as the decision has it, dashed from half to ten times."""
    end = cost(final, outcome) if final is not None and final.tokens else outcome.budget - outcome.spent
    if end <= 0:
        return
    known = {cost(trial, outcome): float(trial.tokens) for trial in trials} | {
        end: float(fit.final_tokens[size])
    }
    money = np.geomspace(min(known), end, 30)
    losses = np.array([fit.predict(size, number) for number in tokens_for(money, known)])
    axis.plot(money, losses[:, 1], color=color, linewidth=1.2, alpha=0.8)
    further = np.geomspace(end / 2, 10 * end, 20)
    known[end] = float(outlook.final_tokens[size])
    low, middle, high = np.array([outlook.predict(size, number) for number in tokens_for(further, known)]).T
    axis.plot(further, middle, color=color, linewidth=1.2, linestyle="--")
    axis.fill_between(further, low, high, color=color, alpha=0.1, linewidth=0)


def tokens_for(money: np.ndarray, known: Mapping[float, float]) -> list[int]:
    """Tokens that a run has for its money, between and beyond runs whose cost and tokens are known."""
    costs, tokens = np.log(sorted(known.items())).T
    wanted = np.log(money)
    beyond = np.maximum(wanted - costs[-1], 0) + np.minimum(wanted - costs[0], 0)
    return [max(1, round(number)) for number in np.exp(np.interp(wanted, costs, tokens) + beyond)]


def _draw_final(axis: "Axes", final: Trial, outcome: Outcome, color: str) -> None:
    """What was predicted for the final run, and what it reached."""
    at = cost(final, outcome)
    if outcome.predicted:
        low, middle, high = outcome.predicted
        axis.errorbar(
            at,
            middle,
            [[middle - low], [high - middle]],
            fmt="_",
            markersize=16,
            zorder=3,
            color="black",
            capsize=6,
            label="predicted",
        )
    if outcome.actual:
        axis.plot(
            at,
            outcome.actual,
            "*",
            markersize=15,
            zorder=4,
            color=color,
            markeredgecolor="black",
            label="final run",
        )


def _show_costs(axis: "Axes", outcome: Outcome) -> None:
    """Axes of the picture of costs, and what its lines are."""
    unit = unit_name(outcome.unit, outcome.use_gpu)
    axis.plot([], [], color="#5C5C5C", linewidth=1.2, label="fit of the trials")
    axis.plot([], [], color="#5C5C5C", linewidth=1.2, linestyle="--", label="0.5 to 10 times the budget")
    axis.set(xscale="log", xlabel=f"{unit} of a run", ylabel="bits per byte", title="Loss against cost")
    _log_ticks(axis.xaxis, *axis.get_xlim(), count)
    axis.legend(fontsize=8, loc="upper right")


def _draw_curves(
    axis: "Axes", trials: Sequence[Trial], points: Sequence[Point], look: Mapping[str, tuple[str, str]]
) -> None:
    """The loss of each trial and of the final run as it fell."""
    ends = []
    for trial in trials:
        own = [point for point in points if point.trial == trial.trial and point.tokens > 0]
        if trial.purpose == "probe" or not own:
            continue
        color, marker = look[trial.size]
        is_final = trial.purpose == "final"
        style: dict[str, Any] = {"color": color, "alpha": 1.0 if is_final else 0.35}
        training = [(point.tokens, point.training) for point in own if point.training is not None]
        if training:
            tokens, losses = np.array(training, dtype=np.float64).T
            axis.plot(tokens, _smooth(losses), linewidth=1.6 if is_final else 0.8, **style)
        validation = [(point.tokens, point.validation) for point in own if point.validation is not None]
        if validation:
            tokens, losses = np.array(validation, dtype=np.float64).T
            axis.plot(tokens, losses, marker, markersize=6 if is_final else 4, **style)
            ends += losses[np.isfinite(losses)].tolist()
    if ends:
        low, high = min(ends), float(np.quantile(ends, 0.95))
        axis.set(ylim=(low - 0.1 * (high - low + 0.1), high + 0.2 * (high - low + 0.1)))
    axis.set(xscale="log", xlabel="tokens", title="Loss curves (lines: training, points: validation)")
    _log_ticks(axis.xaxis, *axis.get_xlim(), count)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running means over a tenth of the curve, as far as it goes on both sides."""
    half = len(values) // 20
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def spending(entries: Sequence[Entry], outcome: Outcome) -> "Figure":
    """What was spent over time and on what, against the budget."""
    figure, (axis,) = _figure(1, width=11.2, height=3.8)
    entries = sorted(entries, key=lambda entry: entry.time)
    if entries:
        seconds = np.array([0.0] + [entry.time - entries[0].time for entry in entries])
        seconds = np.append(seconds, seconds[-1] * 1.01)  # so that the last step is seen
        scale, unit = (3600, "hours") if seconds[-1] > 7200 else (60, "minutes")
        parts = [part_of(entry) for entry in entries]
        below = np.zeros(len(seconds))
        for name, (color, hatch) in PARTS.items():
            amounts = [e.amount if part == name else 0.0 for e, part in zip(entries, parts, strict=True)]
            above = below + np.cumsum([0.0, *amounts, 0.0])
            if above[-1] > below[-1]:
                axis.fill_between(
                    seconds / scale,
                    below,
                    above,
                    step="post",
                    facecolor=color,
                    hatch=hatch,
                    edgecolor="white",
                    linewidth=0,
                    label=f"{name}: {(above[-1] - below[-1]) / outcome.budget:.1%}",
                )
            below = above
        axis.set(xlabel=f"{unit} since the first charge", xlim=(0, max(seconds[-1] / scale, 1e-3)))
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    axis.axhline(outcome.budget, color="black", linestyle="--", linewidth=1)
    label = f"budget {amount(outcome.budget, outcome)}"
    axis.annotate(label, (0.005, outcome.budget), xycoords=("axes fraction", "data"), va="bottom")
    axis.set(ylabel=unit_name(outcome.unit, outcome.use_gpu), ylim=(0, outcome.budget * 1.15))
    axis.set_title("Spent over time (shares of the budget)")
    axis.yaxis.set_major_formatter(lambda value, _: count(value))
    return figure


def part_of(entry: Entry) -> str:
    """Which of PARTS a charge belongs to."""
    if entry.purpose == "probe":
        return "probes"
    if entry.purpose == "idle":
        return "idle"
    if entry.kind == "evaluation":
        return "evaluation"
    if entry.kind in STARTS:
        return "starts and checkpoints"
    return "final run, training" if entry.purpose == "final" else "trials, training"


def varied_in(trials: Sequence[Trial]) -> list[str]:
    """The settings besides size and learning rate in which trials differ."""
    return [name for name in VARIABLE if len({getattr(trial, name) for trial in trials}) > 1]


def cost(trial: Trial, outcome: Outcome) -> float:
    """What a trial cost, in the budget's unit."""
    if outcome.unit == "usd":
        return trial.usd
    return trial.flops if outcome.unit == "flops" else trial.worker_seconds / 3600


def _rate(trial: Trial) -> float:
    return trial.learning_rate


def _points(
    axis: "Axes", trials: Sequence[Trial], value: Callable[[Trial], float], marker: str, **style: Any
) -> None:
    """Bits per byte of trials against something."""
    if trials:
        losses = [trial.bits_per_byte or math.nan for trial in trials]
        axis.plot([value(trial) for trial in trials], losses, marker, **style)


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


def _log_ticks(axis: "XAxis", low: float, high: float, text: Callable[[float], str]) -> None:
    """Few ticks on a logarithmic axis, as people write the numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = math.log10(high / low)
    subs = (1,) if decades > 5 else (1, 3) if decades > 1.3 else (1, 2, 5) if decades > 0.5 else range(1, 10)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


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
    return f"{value:.3g} {unit_name(outcome.unit, outcome.use_gpu)}"
