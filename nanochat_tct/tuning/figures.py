"""The pictures of a sweep's report, as matplotlib figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from nanochat_tct.tuning.budget import count, show_amount, unit_name
from nanochat_tct.tuning.fit import CONFIDENCE, Fit, SizeFit
from nanochat_tct.tuning.records import Entry, Outcome, Point, Trial, cost, last_final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; shapes say the same again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C")
MARKERS = "osD^vPX"
GREY = "#5C5C5C"
# What money was spent on: colour and hatching.
PARTS = {
    "probes": ("#56B4E9", "//"),
    "trials, training": ("#0072B2", ""),
    "final run, training": ("#009E73", ".."),
    "evaluation": ("#E69F00", "--"),
    "starts and checkpoints": ("#CC79A7", "||"),
    "idle": ("#B0B0B0", "xx"),
}
STARTS = ("start_up", "warm_up", "checkpoint")  # kinds of work
UNFINISHED = {"stopped": "x", "failed": "1", "cut": "|", "running": "."}
STYLE: Any = {"font.size": 10, "axes.grid": True, "grid.alpha": 0.25}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
Look = tuple[str, str]  # colour and marker


def looks(sizes: Sequence[str]) -> dict[str, Look]:
    """The look of each size."""
    return dict(zip(sizes, cycle(zip(COLORS, MARKERS, strict=True)), strict=False))


def learning_rates(fit: Fit, outcome: Outcome) -> "Figure":
    """Loss against learning rate, a panel a size, with the fit and its interval at each length of trials."""
    figure, axes = _figure(len(fit.sizes), width=4.2, share_y=True)
    measured = [(trial.bits_per_byte or math.nan, trial.size) for trial in fit.trials if trial.is_measured]
    (low, _), middle = min(measured), float(np.median([bits for bits, _ in measured]))
    # Some points of each size are in the picture.
    best = {size: bits for bits, size in sorted(measured, reverse=True)}
    top = max(low * 1.1, low + 2.2 * (middle - low), 1.05 * max(best.values()))
    look = looks([size.size for size in fit.sizes])
    for axis, size in zip(axes, fit.sizes, strict=True):
        _draw_size(axis, fit, size, look[size.size], top, outcome)
    axes[0].set(ylabel="bits per byte", ylim=(low * 0.97, top))
    return figure


def _draw_size(axis: "Axes", fit: Fit, size: SizeFit, look: Look, top: float, outcome: Outcome) -> None:
    """The panel of one size; `top` is the highest loss in the picture."""
    trials = [trial for trial in fit.trials if trial.size == size.size]
    rates = [trial.learning_rate for trial in trials]
    grid = np.geomspace(min(rates) / 1.8, max(rates) * 1.8, 200)
    low, _, high = size.learning_rate
    label = f"best rate, {CONFIDENCE:.0%}"
    axis.axvspan(low, high, color=GREY, alpha=0.12, linewidth=0, label=label)
    _draw_lengths(axis, fit, size.size, trials, grid, look)
    # At the loss they had; at the top where that is higher, or they had none.
    for status, marker in UNFINISHED.items():
        found = [trial for trial in trials if trial.status == status]
        losses = [min(trial.bits_per_byte or top, top) if trial.is_measured else top for trial in found]
        if found:
            points = [trial.learning_rate for trial in found], losses
            axis.plot(*points, marker, color=GREY, markersize=8, clip_on=False, label=status, ls="")
    title = f"{size.size} · {count(size.parameters)} parameters"
    if outcome.size == size.size and outcome.learning_rate is not None:
        chosen = outcome.learning_rate
        axis.axvline(chosen, color="black", linewidth=1, linestyle="--", label=f"chosen {chosen:.3g}")
        title += " · chosen"
    axis.set(xscale="log", xlim=(grid[0], grid[-1]), xlabel="learning rate", title=title)
    _log_ticks(axis.xaxis, grid[0], grid[-1], "{:g}".format)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)


def _draw_lengths(
    axis: "Axes", fit: Fit, size: str, trials: Sequence[Trial], grid: np.ndarray, look: Look
) -> None:
    """The finished trials of a size, and the fit at each of their lengths; the longest is the strongest."""
    color, marker = look

    def length_of(trial: Trial) -> float:
        return float(f"{trial.tokens:.2g}")  # lengths that differ by an iter are one length

    finished = [trial for trial in trials if trial.status == "finished" and trial.is_measured]
    lengths = sorted({length_of(trial) for trial in finished})
    for index, length in enumerate(lengths):
        strength = (index + 1) / len(lengths)
        low, middle, high = fit.curve(size, int(length), grid)
        axis.fill_between(grid, low, high, color=color, alpha=0.16 * strength, linewidth=0)
        axis.plot(grid, middle, color=color, alpha=0.3 + 0.7 * strength)
        style = {"color": color, "alpha": 0.4 + 0.6 * strength}
        points = [trial for trial in finished if length_of(trial) == length]
        best = [trial for trial in points if fit.has_best_values(trial)]
        others = [trial for trial in points if trial not in best]
        _points(axis, best, _rate, marker, **style, label=f"{count(length)} tokens")
        _points(axis, others, _rate, marker, **style, markerfacecolor="none")


def costs(
    fit: Fit | None, outlook: Fit | None, trials: Sequence[Trial], points: Sequence[Point], outcome: Outcome
) -> "Figure":
    """Loss against cost, what was predicted and reached, and what other budgets would buy; beside it, loss curves.

    Args:
        fit: of the trials, by which the final run was chosen.
        outlook: the same with the final run's own result.
        points: of loss curves.
    """
    parameters = {trial.size: trial.parameters for trial in trials}
    look = looks(sorted(parameters, key=lambda size: parameters[size]))
    figure, axes = _figure(2 if points else 1, width=5.6 if points else 11.2, height=4.4)
    axis = axes[0]
    final = last_final(trials)

    def cost_of(trial: Trial) -> float:
        return cost(trial, outcome.unit)

    swept = [
        trial for trial in trials if trial.purpose == "sweep" and trial.is_measured and cost_of(trial) > 0
    ]
    for size, (color, marker) in look.items():
        same = [trial for trial in swept if trial.size == size]
        whole = [trial for trial in same if trial.status == "finished"]
        rest = [trial for trial in same if trial.status != "finished"]
        _points(axis, whole, cost_of, marker, color=color, label=size)
        _points(axis, rest, cost_of, marker, color=color, markerfacecolor="none")
        end = cost_of(final) if final is not None and final.tokens else outcome.budget - outcome.spent
        if fit is not None and outlook is not None and whole and end > 0:
            lengths = {cost_of(trial): float(trial.tokens) for trial in whole}
            _draw_predictions(axis, fit, outlook, size, lengths, end, color)
    if final is not None and cost_of(final) > 0:
        _draw_final(axis, cost_of(final), outcome, look[final.size][0])
    axis.plot([], [], color=GREY, linewidth=1.2, label="fit of the trials")
    axis.plot([], [], color=GREY, linewidth=1.2, linestyle="--", label="0.5 to 10 times the budget")
    unit = unit_name(outcome.unit, outcome.use_gpu)
    axis.set(xscale="log", xlabel=f"{unit} of a run", ylabel="bits per byte", title="Loss against cost")
    _log_ticks(axis.xaxis, *axis.get_xlim(), count)
    axis.legend(fontsize=8, loc="upper right")
    if points:
        _draw_curves(axes[1], trials, points, look)
    return figure


def _draw_predictions(
    axis: "Axes", fit: Fit, outlook: Fit, size: str, lengths: Mapping[float, float], end: float, color: str
) -> None:
    """What is expected of a size: up to the final run's cost as the decision has it, dashed from half to ten times.

    Args:
        lengths: tokens by cost, of finished trials.
        end: cost of the final run.
    """
    money = np.geomspace(min(lengths.keys() | {end}), end, 30)
    tokens = tokens_for(money, {**lengths, end: fit.final_tokens[size]})
    axis.plot(money, [fit.predict(size, number).middle for number in tokens], color=color, lw=1.2, alpha=0.8)
    money = np.geomspace(end / 2, 10 * end, 20)
    tokens = tokens_for(money, {**lengths, end: outlook.final_tokens[size]})
    low, middle, high = np.array([outlook.predict(size, number) for number in tokens]).T
    axis.plot(money, middle, color=color, linewidth=1.2, linestyle="--")
    axis.fill_between(money, low, high, color=color, alpha=0.1, linewidth=0)


def tokens_for(money: np.ndarray, lengths: Mapping[float, float]) -> list[int]:
    """Tokens that a run has for its money, between and beyond the given tokens by cost."""
    costs, tokens = np.log(sorted(lengths.items())).T
    wanted = np.log(money)
    beyond = np.maximum(wanted - costs[-1], 0) + np.minimum(wanted - costs[0], 0)
    return [max(1, round(number)) for number in np.exp(np.interp(wanted, costs, tokens) + beyond)]


def _draw_final(axis: "Axes", at: float, outcome: Outcome, color: str) -> None:
    """What was predicted for the final run, and what it reached, at its cost."""
    if outcome.predicted:
        low, middle, high = outcome.predicted
        error = [[middle - low], [high - middle]]
        bar: Any = {"fmt": "_", "color": "black", "capsize": 6, "markersize": 16, "zorder": 3}
        axis.errorbar(at, middle, error, label="predicted", **bar)
    if outcome.actual:
        star: Any = {"color": color, "markeredgecolor": "black", "markersize": 15, "zorder": 4}
        axis.plot(at, outcome.actual, "*", label="final run", **star)


def _draw_curves(
    axis: "Axes", trials: Sequence[Trial], points: Sequence[Point], look: Mapping[str, Look]
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
        if training := [(point.tokens, point.training) for point in own if point.training is not None]:
            tokens, losses = np.array(training, dtype=np.float64).T
            axis.plot(tokens, _smooth(losses), linewidth=1.6 if is_final else 0.8, **style)
        if validation := [(point.tokens, point.validation) for point in own if point.validation is not None]:
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
    if entries:
        _draw_parts(axis, sorted(entries, key=lambda entry: entry.time), outcome.budget)
    axis.axhline(outcome.budget, color="black", linestyle="--", linewidth=1)
    label = f"budget {show_amount(outcome.budget, outcome.unit, outcome.use_gpu)}"
    axis.annotate(label, (0.005, outcome.budget), xycoords=("axes fraction", "data"), va="bottom")
    axis.set(ylabel=unit_name(outcome.unit, outcome.use_gpu), ylim=(0, outcome.budget * 1.15))
    axis.set_title("Spent over time (shares of the budget)")
    axis.yaxis.set_major_formatter(lambda value, _: count(value))
    return figure


def _draw_parts(axis: "Axes", entries: Sequence[Entry], budget: float) -> None:
    """What was spent on each of PARTS, stacked; entries are in the order of time."""
    seconds = np.array([0.0] + [entry.time - entries[0].time for entry in entries])
    seconds = np.append(seconds, seconds[-1] * 1.01)  # so that the last step is seen
    scale, unit = (3600, "hours") if seconds[-1] > 7200 else (60, "minutes")
    below = np.zeros(len(seconds))
    for name, (color, hatch) in PARTS.items():
        amounts = [entry.amount if part_of(entry) == name else 0.0 for entry in entries]
        above = below + np.cumsum([0.0, *amounts, 0.0])
        if above[-1] > below[-1]:
            label = f"{name}: {(above[-1] - below[-1]) / budget:.1%}"
            style: Any = {"facecolor": color, "edgecolor": "white", "hatch": hatch, "linewidth": 0}
            axis.fill_between(seconds / scale, below, above, step="post", label=label, **style)
        below = above
    axis.set(xlabel=f"{unit} since the first charge", xlim=(0, max(seconds[-1] / scale, 1e-3)))
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)


def part_of(entry: Entry) -> str:
    """Which of PARTS a charge belongs to."""
    by_purpose = {"probe": "probes", "idle": "idle"}
    by_kind = {"evaluation": "evaluation", **dict.fromkeys(STARTS, "starts and checkpoints")}
    training = "final run, training" if entry.purpose == "final" else "trials, training"
    return by_purpose.get(entry.purpose) or by_kind.get(entry.kind, training)


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

    layout: Any = {"figsize": (width * columns, height), "constrained_layout": True, "squeeze": False}
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, columns, sharey=share_y, **layout)
    return figure, list(axes[0])


def _log_ticks(axis: "XAxis", low: float, high: float, text: Callable[[float], str]) -> None:
    """Few ticks on a logarithmic axis, as people write the numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    decades = math.log10(high / low)
    subs = (1,) if decades > 5 else (1, 3) if decades > 1.3 else (1, 2, 5) if decades > 0.5 else range(1, 10)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())
