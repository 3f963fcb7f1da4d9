"""The error type that users see as one line, and the exit codes of commands."""

import errno
import io
import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """A mistake of the user. The message is one line that says what is wrong, where, and what to do.

    The command line prints ``error: <message>`` on stderr and exits with code 2.
    """


class StorageError(UserError):
    """A disk or object storage is full, fails or refuses. Once it works again, the same command can continue."""


# What the user can do about errors of the system; other OSErrors are our bugs
ADVICE = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.EFBIG: "raise the limit on the size of files and run again",
    errno.EACCES: "choose another path, or change its permissions",
    errno.EPERM: "choose another path, or change its permissions",
    errno.EROFS: "choose another path",
    errno.ENOTDIR: "a file is where a folder should be; choose another path",
    errno.EEXIST: "a file is where a folder should be; choose another path",
    errno.EISDIR: "a folder is where a file should be; choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose another path",
    errno.EIO: "see whether the disk is in order",
}
CLOSED_PIPE = 141  # a shell's exit code for a process that SIGPIPE has killed


def exit_code(job: Callable[[], object]) -> int:
    """Run a command, and return its exit code.

    Returns: the integer that the job returns, else 0; 2 after one line on stderr for a UserError and for errors of the
        system (ADVICE); 130 for Ctrl-C; 141 if standard output is a closed pipe.
    Raises: any other exception of the job.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # in case of `PYTHONIOENCODING=ascii`
    try:
        result = job()
        code = result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `nanochat-tct tokenize FILE | head`
        code = CLOSED_PIPE
    except (UserError, OSError) as error:
        # Ray raises a task's error as a subclass of its type, with the original in `cause`
        original = getattr(error, "cause", None) or error
        if isinstance(original, OSError):
            if original.errno not in ADVICE:
                raise
            where = f"{original.filename}: " if original.filename else ""
            original = f"{where}{os.strerror(original.errno).lower()}; {ADVICE[original.errno]}"
        print(f"error: {original}", file=sys.stderr)
        code = 2
    return _flush(code)


def _flush(code: int) -> int:
    """Flush standard output now: Python's own flush at exit cannot report an error in one line.

    Returns: `code`, or the exit code of the failure if `code` is 0.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
        if isinstance(error, BrokenPipeError):
            return code or CLOSED_PIPE
        if not code:
            print(f"error: standard output: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return code or 2
    return code
