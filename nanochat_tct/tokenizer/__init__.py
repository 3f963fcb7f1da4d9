"""Type-constrained tokenization: from workflows to token ids, guided by their grammar, and back.

    >>> from nanochat_tct import tokenizer
    >>> tokens = tokenizer.encode('{"on":"push","jobs":{"build":{"uses":"./.github/workflows/build.yml"}}}')
    >>> tokenizer.decode(tokens)[0]
    '{"on":"push","jobs":{"build":{"uses":"./.github/workflows/build.yml"}}}'

The functions of this module are those of the built-in tokenizer, which is loaded at the first use. ``load_tokenizer``
returns it, or that of a vocabulary file or of an installed wheel, as an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from nanochat_tct.tokenizer.errors import SchemaError, TokenizerError
from nanochat_tct.tokenizer.vocabulary import EARLIER

__all__ = [
    "SchemaError",
    "TokenMatcher",
    "Tokenizer",
    "TokenizerError",
    "decode",
    "decode_prefix",
    "encode",
    "extract_window",
    "load_tokenizer",
    "pad_token",
    "vocab_size",
]


class TokenMatcher(Protocol):
    """A position in a document that is being written; see tokenizer.py."""

    @property
    def is_complete(self) -> bool: ...

    def expect(self, *beginnings: str) -> None: ...

    def legal(self) -> np.ndarray: ...

    def copy(self) -> TokenMatcher: ...

    def after(self, token: int) -> TokenMatcher: ...

    def closing(self) -> list[int] | None: ...

    def allows(self, token: int) -> bool: ...

    def advance(self, token: int) -> None: ...


class Tokenizer(Protocol):
    """The interface of a tokenizer for the rest of the package; see tokenizer.py."""

    name: str
    fingerprint: str
    is_github: bool  # the language is that of GitHub's workflows, not of a JSON Schema

    def vocab_size(self) -> int: ...

    def pad_token(self) -> int: ...

    def encode(self, json_str: str) -> list[int]: ...

    def encode_value(self, value: Any) -> list[int]: ...

    def encode_prefix(self, value: Any, open_scalar: bool = True) -> list[int]: ...

    def encode_cut(self, readings: Sequence[Any]) -> tuple[list[int], tuple[str, ...]]: ...

    def heal(self, tokens: Sequence[int]) -> tuple[list[int], str]: ...

    def decode(self, tokens: Sequence[int]) -> tuple[str, int, int]: ...

    def decode_value(self, tokens: Sequence[int]) -> Any: ...

    def decode_prefix(self, tokens: Sequence[int]) -> tuple[str, int, bool]: ...

    def extract_window(self, tokens: Sequence[int], start: int, end: int) -> list[int]: ...

    def complaint(self, tokens: Sequence[int]) -> str | None: ...

    def masks_of(self, tokens: Sequence[int]) -> list[bytes] | None: ...

    def describe(self, token: int) -> str: ...

    def matcher(self, tokens: Sequence[int] = ()) -> TokenMatcher: ...


def load_tokenizer(name: str = "builtin", fingerprint: str = "") -> Tokenizer:
    """Load a tokenizer, once in a process.

    Args:
        name: "builtin", or "builtin-1" for that of an earlier version; "wheel" for an installed
            ``tct_github_workflow``; or the path of a vocabulary file.
        fingerprint: of the tokenizer of a store or checkpoint, which decides the version of "builtin".

    Raises:
        UserError: the file or the wheel does not exist.
    """
    if name == "builtin":
        name = next((earlier for earlier, of_then in EARLIER.items() if of_then == fingerprint), name)
    return _load(name)


@cache
def _load(name: str) -> Tokenizer:
    if name == "wheel":
        from nanochat_tct.tokenizer.wheel import WheelTokenizer

        return WheelTokenizer()
    from nanochat_tct.tokenizer.tokenizer import Tokenizer as BuiltinTokenizer

    return BuiltinTokenizer(name)


def encode(json_str: str) -> list[int]:
    """Token ids of a workflow's JSON. Raises: TokenizerError, with the JSON pointer, for an invalid workflow."""
    return load_tokenizer().encode(json_str)


def decode(tokens: Sequence[int]) -> tuple[str, int, int]:
    """Returns compact JSON, the number of tokens that it took, and the number of tokens given."""
    return load_tokenizer().decode(tokens)


def decode_prefix(tokens: Sequence[int]) -> tuple[str, int, bool]:
    """Returns JSON completed to the shortest valid workflow, the number of fields, and whether it was complete."""
    return load_tokenizer().decode_prefix(tokens)


def extract_window(tokens: Sequence[int], start: int, end: int) -> list[int]:
    """Returns ``[start] + tokens[start:end]``: a position token, then content."""
    return load_tokenizer().extract_window(tokens, start, end)


def vocab_size() -> int:
    """The number of token ids."""
    return load_tokenizer().vocab_size()


def pad_token() -> int:
    """The padding id."""
    return load_tokenizer().pad_token()
