"""Errors of the tokenizer: what is wrong with a value, a token sequence or a schema, and where."""

from collections.abc import Iterable
from dataclasses import dataclass

from nanochat_tct.errors import UserError


def pointer_of(path: Iterable[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path of keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


class TokenizerError(UserError):
    """A value that the grammar does not allow, or tokens with which no document begins.

    Attributes:
        pointer: JSON pointer (RFC 6901) of the wrong part, "" for the whole document.
        problem: what is wrong with it.
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
    """A problem in a document.

    Attributes:
        path: keys and indices, from the document inwards.
        of_key: the last key itself is wrong, not its value.
        offset: of the first wrong character in a text; None: the whole value is wrong.
        is_warning: GitHub accepts the document, but its language service complains.
    """

    path: tuple[str | int, ...]
    message: str
    of_key: bool = False
    offset: int | None = None
    is_warning: bool = False

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer."""
        return pointer_of(self.path)

    def error(self) -> TokenizerError:
        return TokenizerError(self.pointer, self.message)


class SchemaError(UserError):
    """A JSON Schema that cannot be compiled; the message has the pointer of the keyword that prevents it."""
