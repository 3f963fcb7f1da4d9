"""The output of a running command: lines and, on a terminal, a progress bar below them."""

import io
import math
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from nanochat_tct.tracking.line import duration

ITERS = "iter {task.completed:.0f} of {task.total:.0f}"
Item = TypeVar("Item")


def print_document(text: str) -> None:
    """Print YAML or JSON to standard output as UTF-8, whatever the encoding of the terminal.

    Messages have escapes for characters that the encoding lacks; in a document these would change its content.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text)


def with_progress(
    items: Iterable[Item],
    total: int,
    what: str,
    size: Callable[[Item], int] = lambda item: 1,
    line_seconds: float = math.inf,
) -> Generator[Item, None, None]:
    """Yield the items, and show progress on stderr: a bar on a terminal, else a line from time to time.

    Args:
        total: the sum of all sizes.
        what: the label, with two fields for the numbers: "evaluating {} of {}".
        size: how far an item brings the bar.
        line_seconds: the least time between two lines.
    """
    done, begin = 0, time.monotonic()
    last_line = begin
    label = what.format("{task.completed:,.0f}", "{task.total:,.0f}")
    with Terminal(total, sys.stderr, label) as terminal:
        for item in items:
            yield item
            done += size(item)
            now = time.monotonic()
            rate = done / (now - begin)
            pace = f"{rate:,.1f}/s, {(total - done) / rate:,.0f} s left" if done else ""
            terminal.update(done, pace)
            if terminal.bar is None and now - last_line > line_seconds:
                last_line = now
                terminal.line(f"{what.format(f'{done:,}', f'{total:,}')}, {pace}")


class Terminal:
    """Prints lines, with a progress bar below them if the output is a terminal.

    Use it as a context manager, so that the bar is removed at the end. An output that fails (a closed pipe, a full
    disk) does not interrupt the work: `error` holds the reason, nothing more is printed, and the end of the context
    raises it.

    Attributes:
        bar: None if the output is a file or a pipe.
    """

    def __init__(self, total: int, output: TextIO | None = None, label: str = ITERS) -> None:
        """Args:
        total: the value of a full bar.
        output: None for standard output.
        label: of the bar, a template of rich.progress.TextColumn.
        """
        self.output = output or sys.stdout
        self.error: OSError | None = None
        console = Console(file=self.output, highlight=False, markup=False, emoji=False)
        self.bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn(label, markup=False),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.description}", markup=False),
            )
            self.bar = Progress(*columns, console=console, transient=True, expand=True, redirect_stderr=False)
            self.task = self.bar.add_task("starting", total=total)

    def line(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.error is not None:
            return
        try:
            if self.bar is None:
                print(text, file=self.output, flush=True)
            else:
                self.bar.console.print(text, soft_wrap=True)
        except OSError as error:
            self.error = error

    def stop_reason(self) -> str | None:
        """Why the work should stop: its output fails, so that nobody sees it any more. None if it does not fail."""
        return None if self.error is None else f"its output ({os.strerror(self.error.errno or 0).lower()})"

    def update(self, done: int, text: str) -> None:
        """Move the bar to `done`, and show `text` behind it."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, description=text)

    def progress(self, metrics: dict[str, Any]) -> None:
        """Move the bar of a training run: `iter loss eta_seconds cost_usd cost_left_usd`."""
        self.update(
            metrics["iter"],
            f"loss {metrics['loss']:.3f} | {duration(metrics['eta_seconds'])} and "
            f"${metrics['cost_left_usd']:.2f} left | ${metrics['cost_usd']:.2f} spent",
        )

    def __enter__(self) -> "Terminal":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.error is not None and error is None:
            raise self.error
