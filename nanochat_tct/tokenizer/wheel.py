"""An adapter for an installed ``tct_github_workflow`` wheel, for ``tokenizer: wheel`` in a config.

The wheel sorts the keys of objects, and does not show its grammar: it has neither a matcher nor open prefixes, so that
only ``decode_prefix`` can complete a generated document.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.errors import TokenizerError

MODULE = "tct_github_workflow"
FUNCTIONS = ("encode", "decode", "decode_prefix", "extract_window", "vocab_size", "pad_token")


class WheelTokenizer:
    """The wheel's functions behind the built-in tokenizer's interface.

    Attributes:
        name: "wheel".
        fingerprint: SHA-256 (hex) of the module's version and files.

    Raises:
        UserError: the wheel is not installed, or what is installed under its name is something else.
    """

    name = "wheel"
    is_github = True

    def __init__(self) -> None:
        try:
            module = importlib.import_module(MODULE)
        except ImportError as error:
            raise UserError(
                f"tokenizer: wheel needs the {MODULE} package, which does not import ({error}); "
                "install the wheel you were given (CPython 3.12, Linux x86_64), or use tokenizer: builtin"
            ) from error
        missing = [name for name in FUNCTIONS if not callable(getattr(module, name, None))]
        if missing:
            raise UserError(
                f"the installed {MODULE} has no {', '.join(missing)}: this is not the workflow tokenizer; "
                "remove it and install the wheel you were given, or use tokenizer: builtin"
            )
        self._module: Any = module
        self.fingerprint = _fingerprint(module)

    def vocab_size(self) -> int:
        return int(self._module.vocab_size())

    def pad_token(self) -> int:
        return int(self._module.pad_token())

    def encode(self, json_str: str) -> list[int]:
        try:
            return list(self._module.encode(json_str))
        except Exception as error:  # a compiled module's own errors have no common type
            raise TokenizerError("", f"refused by {MODULE}: {error}") from error

    def encode_value(self, value: Any) -> list[int]:
        return self.encode(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    def encode_prefix(self, value: Any, open_scalar: bool = True) -> list[int]:
        return self.encode_cut([value])[0]

    def encode_cut(self, readings: Sequence[Any]) -> tuple[list[int], tuple[str, ...]]:
        raise TokenizerError(
            "", "continuing a half-written workflow needs tokenizer: builtin; the wheel cannot"
        )

    def heal(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        return list(tokens), ""  # its tokens are opaque

    def decode(self, tokens: Sequence[int]) -> tuple[str, int, int]:
        try:
            json_str, consumed, total = self._module.decode(list(tokens))
        except Exception as error:
            raise TokenizerError("", f"refused by {MODULE}: {error}") from error
        return json_str, consumed, total

    def decode_value(self, tokens: Sequence[int]) -> Any:
        json_str, consumed, total = self.decode(tokens)
        if consumed != total:
            raise TokenizerError("", f"the document ends after {consumed} of {total} tokens")
        return json.loads(json_str)

    def decode_prefix(self, tokens: Sequence[int]) -> tuple[str, int, bool]:
        try:
            json_str, fields, is_complete = self._module.decode_prefix(list(tokens))
        except Exception as error:
            raise TokenizerError("", f"refused by {MODULE}: {error}") from error
        return json_str, fields, is_complete

    def extract_window(self, tokens: Sequence[int], start: int, end: int) -> list[int]:
        return list(self._module.extract_window(list(tokens), start, end))

    def complaint(self, tokens: Sequence[int]) -> None:
        """The wheel does not know."""

    def masks_of(self, tokens: Sequence[int]) -> None:
        """The wheel does not know which tokens are legal."""

    def describe(self, token: int) -> str:
        return f"‹{token}›"

    def matcher(self, tokens: Sequence[int] = ()) -> WheelCursor:
        matcher = WheelCursor(self)
        for token in tokens:
            matcher.advance(token)
        return matcher


class WheelCursor:
    """A matcher that allows every id and asks the wheel whether the document is complete."""

    def __init__(self, tokenizer: WheelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self.is_complete = False

    def expect(self, *beginnings: str) -> None:
        assert not any(beginnings), "the wheel takes no tokens back"

    def legal(self) -> np.ndarray:
        return np.full(self._tokenizer.vocab_size(), not self.is_complete)

    def closing(self) -> None:
        """The wheel does not know; ``decode_prefix`` completes the document."""

    def copy(self) -> WheelCursor:
        matcher = copy(self)
        matcher._tokens = list(self._tokens)
        return matcher

    def after(self, token: int) -> WheelCursor:
        matcher = self.copy()
        matcher.advance(token)
        return matcher

    def allows(self, token: int) -> bool:
        return not self.is_complete and 0 <= token < self._tokenizer.vocab_size()

    def advance(self, token: int) -> None:
        if not self.allows(token):
            raise TokenizerError("", f"no token {token} can follow")
        self._tokens.append(token)
        self.is_complete = bool(self._tokenizer.decode_prefix(self._tokens)[2])


def _fingerprint(module: Any) -> str:
    digest = hashlib.sha256()
    try:
        digest.update(importlib.metadata.version(MODULE).encode())
    except importlib.metadata.PackageNotFoundError:
        digest.update(str(getattr(module, "__version__", "unknown")).encode())
    location = getattr(module, "__file__", None)
    if location:
        folder = Path(location).parent if Path(location).stem == "__init__" else None
        for path in sorted(folder.rglob("*")) if folder else [Path(location)]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
