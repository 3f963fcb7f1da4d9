"""Errors of the tokenizer: what is wrong with a value or a token sequence, and where."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Problem:
    """Something wrong in a document.

    Attributes:
        path: keys and numbers of items, from the document inwards.
        of_key: it is the last key itself, not its value.
        offset: of a character of the text that is wrong; None: the whole value is.
        is_warning: GitHub takes the document all the same, and its language service complains.
    """

    path: tuple[str | int, ...]
    message: str
    of_key: bool = False
    offset: int | None = None
    is_warning: bool = False

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer."""
        parts = (str(part).replace("~", "~0").replace("/", "~1") for part in self.path)
        return "".join(f"/{part}" for part in parts)

    def error(self) -> TokenizerError:
        return TokenizerError(self.pointer, self.message)


class SchemaError(UserError):
    """A JSON Schema that cannot be compiled, with the place of the keyword that stands in the way."""
