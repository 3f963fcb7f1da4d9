"""The one error type that is shown to users as a single line."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user did or gave is wrong: one line that says what, where and what to do.

    The command line prints it as ``error: <text>`` on stderr and exits with code 2.
    """


class StorageError(UserError):
    """A disk or object storage is full, fails or refuses. It ends a job, but says nothing of what was asked for:
    the same command goes on once that is mended."""


def exit_code(job: Callable[[], object]) -> int:
    """Do the job of a script of its own: 0, or 2 when a UserError has ended it, after its line on stderr."""
    try:
        job()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
