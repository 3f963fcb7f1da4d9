"""JSON values as text, for the engine and for messages."""

from __future__ import annotations

import json
from typing import Any

from nanochat_tct.tokenizer.engine import MAX_DEPTH
from nanochat_tct.tokenizer.errors import TokenizerError, pointer_of


class Pairs(tuple[tuple[str, Any], ...]):
    """The keys and values of a JSON object in order; unlike a dictionary it keeps a repeated key."""

    __slots__ = ()


class Mismatch(Exception):
    """A value or a base token that the grammar does not allow; callers add to the path as they catch it."""

    def __init__(self, problem: str, *path: str | int, about: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = [*reversed(path)]
        self.about = about  # the key to blame, where the problem is one of an object's keys

    def located(self) -> TokenizerError:
        return TokenizerError(pointer_of(reversed(self.path)), self.problem)


def json_text(value: Any, depth: int = 0) -> str:
    """A value as JSON. Arrays and objects deeper than a document may nest become [].

    Raises:
        Mismatch: the value is not a JSON value.
    """
    if value is None or isinstance(value, str | int | float):
        if isinstance(value, str):
            utf8(value)
        return scalar_text(value)
    if isinstance(value, dict | Pairs | list) and depth > MAX_DEPTH:
        return "[]"
    parts: list[str] = []
    part: Any = ""
    pairs = value.items() if isinstance(value, dict) else value if isinstance(value, Pairs) else ()
    for name, _ in pairs:
        if type(name) is not str:
            raise Mismatch("a key is not a string")
        utf8(name)
    try:
        if isinstance(value, list):
            for item in value:
                part = len(parts)
                parts.append(json_text(item, depth + 1))
            return f"[{','.join(parts)}]"
        if isinstance(value, dict | Pairs):
            for part, child in pairs:
                parts.append(f"{scalar_text(part)}:{json_text(child, depth + 1)}")
            return f"{{{','.join(parts)}}}"
    except Mismatch as error:
        error.path.append(part)
        raise
    raise Mismatch(f"a {type(value).__name__} is not a JSON value")


scalar_text = json.JSONEncoder(ensure_ascii=False).encode


def utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise Mismatch(f"{shown(text)} has a lone surrogate, which is not Unicode text") from None


def shown(value: Any) -> str:
    """A value for a message, cut if it is long."""
    text = ascii(_plain(value))
    return text if len(text) <= 60 else text[:56] + "...'"


def _plain(value: Any) -> Any:
    """A value with dictionaries in place of Pairs."""
    if type(value) is Pairs:
        return {name: _plain(child) for name, child in value}
    return [_plain(item) for item in value] if type(value) is list else value
