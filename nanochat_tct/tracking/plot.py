"""Draws loss curves: `python -m nanochat_tct.tracking.plot checkpoints/demo --output curve.png`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from nanochat_tct.config import option, parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tracking.tracker import METRICS, read_metrics


@dataclass(frozen=True)
class PlotConfig:
    """The flags of the plot."""

    runs: list[str] = option([], "directories of runs", positional=True, is_path=True)
    output: str = option("loss.png", "image to write", is_path=True)
    title: str = option("", "above the picture")


def plot(runs: list[Path], output: Path, title: str = "") -> None:
    """Write an image of training loss and validation bits per byte over iters.

    Raises: UserError when there is nothing to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for run in runs:
        entries = read_metrics(run)
        if not entries:
            raise UserError(f"{run}: no {METRICS} here; give the directory of a run")
        for axis, kind, number in ((left, "train", "loss"), (right, "validation", "bits_per_byte")):
            points = [(entry["iter"], entry[number]) for entry in entries if entry["kind"] == kind]
            axis.plot(*zip(*points, strict=True), label=run.name, marker="." if kind == "validation" else "")
    left.set(xlabel="iter", ylabel="loss (nats a token)", title="training")
    right.set(xlabel="iter", ylabel="bits per byte", title="validation")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def command(argv: list[str]) -> int:
    """Draw the curves that the arguments ask for."""
    config = parse_arguments(PlotConfig, argv, "plot", "draw the loss curves of runs")
    if not config.runs:
        raise UserError("give the directory of a run, such as checkpoints/demo")
    plot([Path(run) for run in config.runs], Path(config.output), config.title)
    print(config.output)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: command(sys.argv[1:])))
