"""The loss curves of a run as a picture."""

from pathlib import Path
from typing import Any


def plot(name: str, entries: list[dict[str, Any]], output: Path) -> None:
    """Draw the training loss and the validation bits per byte of a run over its iters.

    Args:
        entries: of metrics.jsonl.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, kind, number in ((left, "train", "loss"), (right, "validation", "bits_per_byte")):
        points = [(entry["iter"], entry[number]) for entry in entries if entry["kind"] == kind]
        axis.plot(*zip(*points, strict=True), label=name, marker="." if kind == "validation" else "")
        axis.grid(alpha=0.3)
        axis.legend()
    left.set(xlabel="iter", ylabel="loss (nats a token)", title="training")
    right.set(xlabel="iter", ylabel="bits per byte", title="validation")
    figure.savefig(output, dpi=110)
    pyplot.close(figure)
