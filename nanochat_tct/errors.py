"""The one error type that is shown to users as a single line."""


class UserError(ValueError):
    """Something the user did or gave is wrong: one line that says what, where and what to do.

    The command line prints it as ``error: <text>`` on stderr and exits with code 2.
    """
