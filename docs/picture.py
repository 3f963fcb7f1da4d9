"""Draws docs/demo.png: a terminal session as it was printed, and the curves of the run that it shows.

make train | tee session.txt
.venv/bin/python docs/picture.py session.txt checkpoints/demo docs/demo.png
"""

import sys
from pathlib import Path

from matplotlib import pyplot

from nanochat_tct.tracking.tracker import read_metrics

WIDTH = 118  # characters of the terminal
BACKGROUND, FOREGROUND, PROMPT, DIM, ACCENT = "#101418", "#d8dee9", "#8fbc6a", "#7a8594", "#e5b567"


def color_of(line: str) -> str:
    if line.startswith("$ "):
        return PROMPT
    if line.startswith(("eval ", "validation ", "checkpoint:", "next lines", "a half-", "the model's")):
        return ACCENT
    return DIM if line.startswith("iter ") else FOREGROUND


def draw(session: Path, run_dir: Path, output: Path) -> None:
    printed = session.read_text(encoding="utf-8").rstrip().splitlines()
    lines = [line[at : at + WIDTH] for line in printed for at in range(0, len(line) or 1, WIDTH)]
    metrics = read_metrics(run_dir)
    figure = pyplot.figure(figsize=(15, 0.165 * len(lines) + 0.5), facecolor=BACKGROUND)
    left, column = figure.add_axes((0.01, 0.01, 0.63, 0.98)), 0.68
    left.set(xlim=(0, WIDTH), ylim=(len(lines), -1))
    left.axis("off")
    for number, line in enumerate(lines):
        left.text(
            0,
            number,
            line,
            family="monospace",
            fontsize=8,
            color=color_of(line),
            va="center",
            parse_math=False,
        )
    curves = (
        ("train", "loss", "training loss (nats a token)"),
        ("validation", "bits_per_byte", "validation bits per byte"),
    )
    for bottom, (kind, name, title) in zip((0.55, 0.07), curves, strict=True):
        axes = figure.add_axes((column, bottom, 0.3, 0.38), facecolor=BACKGROUND)
        points = [(entry["iter"], entry[name]) for entry in metrics if entry["kind"] == kind]
        axes.plot(*zip(*points, strict=True), color=ACCENT, marker="o" if kind == "validation" else "")
        axes.set_title(title, color=FOREGROUND, fontsize=10)
        axes.tick_params(colors=DIM, labelsize=8)
        axes.grid(alpha=0.15)
        axes.set_ylim(bottom=0)
        for spine in axes.spines.values():
            spine.set_color(DIM)
    figure.savefig(output, dpi=110, facecolor=BACKGROUND)


if __name__ == "__main__":
    draw(*(Path(argument) for argument in sys.argv[1:4]))
