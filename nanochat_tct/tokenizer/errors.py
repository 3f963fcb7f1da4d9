"""Errors of the tokenizer: what is wrong with a value or a token sequence, and where."""

from nanochat_tct.errors import UserError


class TokenizerError(UserError):
    """A value outside the schema, or tokens that no document begins with.

    Attributes:
        pointer: JSON pointer (RFC 6901) of the place, "" for the whole document.
        problem: what is wrong there.
    """

    def __init__(self, pointer: str, problem: str) -> None:
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{pointer or '/'}: {problem}")
        super().__init__(shown)
        self.pointer = pointer
        self.problem = problem

    def __reduce__(self) -> tuple[type["TokenizerError"], tuple[str, str]]:
        return type(self), (self.pointer, self.problem)


class SchemaError(UserError):
    """A JSON Schema that cannot be compiled, with the place of the keyword that stands in the way."""
