"""What a run shows: its lines, and below them, where a person is looking, a bar with time and money left."""

import io
import os
import sys
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from nanochat_tct.tracking.line import duration


def print_document(text: str) -> None:
    """Print YAML or JSON to standard output as the UTF-8 that it is, whatever the encoding of messages there is.

    Escapes in the place of what an encoding lacks would make another document of it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text)


class Terminal:
    """Prints lines; with a bar below them when the output is a terminal, plain ones when it is a file or a pipe.

    Use as a context manager, so that the bar is taken away at the end. An output that fails (a closed pipe, a full
    disk) does not end what goes on meanwhile: `error` tells of it, nothing more is printed, and the end of the context
    raises it.
    """

    def __init__(self, max_iters: int, output: TextIO | None = None) -> None:
        """Args:
        max_iters: where the bar is full.
        output: none: standard output.
        """
        self.output = output or sys.stdout
        self.error: OSError | None = None
        console = Console(file=self.output, highlight=False, markup=False, emoji=False)
        self.bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn("iter {task.completed:.0f} of {task.total:.0f}", markup=False),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.description}", markup=False),
            )
            self.bar = Progress(*columns, console=console, transient=True, expand=True, redirect_stderr=False)
            self.task = self.bar.add_task("starting", total=max_iters)

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
        """Why whoever prints here should come to an end: nobody can see it any more. None while all is well."""
        return None if self.error is None else f"its output ({os.strerror(self.error.errno or 0).lower()})"

    def progress(self, numbers: dict[str, Any]) -> None:
        """Move the bar.

        Args:
            numbers: `iter loss eta_seconds cost_usd cost_left_usd`.
        """
        if self.bar is not None:
            what = (
                f"loss {numbers['loss']:.3f} | {duration(numbers['eta_seconds'])} and "
                f"${numbers['cost_left_usd']:.2f} left | ${numbers['cost_usd']:.2f} spent"
            )
            self.bar.update(self.task, completed=numbers["iter"], description=what)

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
