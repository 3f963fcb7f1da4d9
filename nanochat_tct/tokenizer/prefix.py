"""Half-written documents: the base tokens of a value that is cut off, and what may come next.

A ``Cut`` in the value marks its end: it is the last key, item or value of its array or object. The arrays and objects
around it are open; everything else is closed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nanochat_tct.tokenizer.engine import ARRAY_END, END, FALSE, NULL, NUMBER, OBJECT_END, TRUE, Matcher
from nanochat_tct.tokenizer.errors import TokenizerError, pointer_of
from nanochat_tct.tokenizer.explain import Explainer
from nanochat_tct.tokenizer.json_text import Mismatch, scalar_text, utf8
from nanochat_tct.tokenizer.node import Node


@dataclass(frozen=True)
class Cut:
    """The end of a document that is cut off.

    Attributes:
        kind: "collection": between two items or keys; "key": inside a key; "value": before a value; "text": inside a
            string; "plain": inside a scalar without quotes, which may become a string, a number, true, false or null;
            "literal": inside a scalar of JSON without quotes, which cannot become a string.
        text: the beginning of the key, string or scalar.
        goes_on: more must follow: another item or key, or more of the string.
    """

    kind: Literal["collection", "key", "value", "text", "plain", "literal"]
    text: str = ""
    goes_on: bool = False


# Base tokens that may come next, and those that must not follow them
Option = tuple[str, frozenset[str]]
CLOSING = frozenset((OBJECT_END, ARRAY_END))
NOTHING: frozenset[str] = frozenset()
# The spellings of YAML 1.2, which include those of JSON
CONSTANTS = {"true": TRUE, "True": TRUE, "TRUE": TRUE, "false": FALSE, "False": FALSE, "FALSE": FALSE}
CONSTANTS |= {"null": NULL, "Null": NULL, "NULL": NULL, "~": NULL}
NUMBER_BEGINNING = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:e[-+]?[0-9]*)?)?", re.ASCII)


def cut_at_end(value: Any, open_scalar: bool) -> Any:
    """Put a ``Cut`` at the end of a value: after its last part, or inside a last text or number if ``open_scalar``."""
    if value is None:
        return Cut("value")
    if isinstance(value, dict):
        if not value:
            return {Cut("collection"): None}
        *names, last = value
        rest = {name: value[name] for name in names}
        inner = cut_at_end(value[last], open_scalar)
        return {**rest, last: inner} if is_cut(inner) else {**rest, last: inner, Cut("collection"): None}
    if isinstance(value, list):
        if not value:
            return [Cut("collection")]
        inner = cut_at_end(value[-1], open_scalar)
        return [*value[:-1], inner] if is_cut(inner) else [*value[:-1], inner, Cut("collection")]
    if open_scalar and isinstance(value, str):
        return Cut("text", value)
    if open_scalar and isinstance(value, int | float) and not isinstance(value, bool):
        return Cut("literal", repr(value))
    return value


def is_cut(value: Any) -> bool:
    """Whether a value ends with a ``Cut``."""
    if isinstance(value, dict):
        return bool(value) and (isinstance(last := next(reversed(value)), Cut) or is_cut(value[last]))
    if isinstance(value, list):
        return bool(value) and is_cut(value[-1])
    return isinstance(value, Cut)


def beginnings(explainer: Explainer, value: Any) -> list[str]:
    """The base tokens of a value with a ``Cut``: strings with which a valid document may begin.

    Raises:
        TokenizerError: a part before the cut is not valid, or nothing valid can follow; it has the JSON pointer.
    """
    opened = _Opened(explainer)
    try:
        options = opened.write(explainer.node(0), value, 0, "")
        text = "".join(opened.text).encode("utf-8")
    except Mismatch as error:
        raise error.located() from None
    matcher = explainer.engine.matcher()
    if not matcher.write(text):
        reached = explainer.engine.error_at
        pointer = max((start, pointer) for start, pointer in opened.pointers if start <= reached)[1]
        raise TokenizerError(pointer, "no valid workflow begins like this")
    base = matcher.written()
    found = [base + ending for option in options for ending in _endings(matcher, *option)]
    if not found:
        raise TokenizerError(opened.pointers[-1][1], "no valid workflow begins like this")
    return found


def _endings(matcher: Matcher, text: str, avoided: frozenset[str]) -> list[str]:
    """A text or, if some base tokens must not follow it, the text with each base token that may follow."""
    here = matcher.copy()
    if text and not here.advance(text):
        return []
    if not avoided:
        return [text]
    following = map(chr, np.flatnonzero(here.legal()[: matcher.engine.base_size]).tolist())
    return [text + character for character in following if character not in avoided]


class _Opened:
    """The JSON text of a value up to its cut, and where its open parts begin."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.text: list[str] = []
        self.pointers: list[tuple[int, str]] = []  # for each open value the bytes before it, and its pointer

    def write(self, node: Node, value: Any, depth: int, pointer: str, is_item: bool = False) -> list[Option]:
        """Write the certain part of a value; return what may come next.

        Raises:
            Mismatch: a part before the cut is not valid.
        """
        self.pointers.append((len("".join(self.text).encode("utf-8", "surrogatepass")), pointer))
        if isinstance(value, Cut):
            return _scalar_options(self.explainer, node, value)
        if isinstance(value, dict) and node.objects and is_cut(value):
            return self._write_object(node, value, depth, pointer, is_item)
        if isinstance(value, list) and node.arrays and is_cut(value):
            return self._write_array(node, value, depth, pointer)
        # A whole value, or one of a wrong kind, for which `accepted_json` raises the error.
        if is_cut(value):
            value = {} if isinstance(value, dict) else []
        self.text.append(self.explainer.accepted_json(node.number, value, depth))
        return [("", NOTHING)]

    def _write_object(
        self, node: Node, value: dict[Any, Any], depth: int, pointer: str, is_item: bool
    ) -> list[Option]:
        self.text.append("{")
        for index, (name, child) in enumerate(value.items()):
            if isinstance(name, Cut):
                # If the open object has no token of its own, its array could end in place of it.
                keeps_array = frozenset(ARRAY_END if is_item and len(value) == 1 and not node.opens else ())
                used = [each for each in value if each is not name]
                options = _key_options(self.explainer, node, name, used)
                return [(text, avoided if text else avoided | keeps_array) for text, avoided in options]
            try:
                key = node.key(name)
                if key is None:
                    raise Mismatch(f"a key may not be {name!r}" if node.free else f"unknown key {name!r}")
                self.text.append(f"{',' if index else ''}{scalar_text(name)}:")
                if is_cut(child):
                    below = pointer + pointer_of([name])
                    return self.write(self.explainer.node(key.node), child, depth + 1, below)
                self.text.append(self.explainer.accepted_json(key.node, child, depth + 1))
            except Mismatch as error:
                error.path.append(name)
                raise
        raise AssertionError("a cut that is not the last")

    def _write_array(self, node: Node, value: list[Any], depth: int, pointer: str) -> list[Option]:
        self.text.append("[")
        assert node.item is not None
        for index, item in enumerate(value):
            if isinstance(item, Cut) and item.kind in ("collection", "value"):
                return [("", CLOSING if item.goes_on or item.kind == "value" else NOTHING)]
            try:
                self.text.append("," if index else "")
                if is_cut(item):
                    below = f"{pointer}/{index}"
                    return self.write(self.explainer.node(node.item), item, depth + 1, below, is_item=True)
                self.text.append(self.explainer.accepted_json(node.item, item, depth + 1))
            except Mismatch as error:
                error.path.append(index)
                raise
        raise AssertionError("a cut that is not the last")


def _key_options(explainer: Explainer, node: Node, cut: Cut, used: list[str]) -> list[Option]:
    if cut.kind == "collection" or not cut.text:
        goes_on = cut.goes_on or cut.kind == "key"
        return [("", CLOSING if goes_on else NOTHING)]
    options: list[Option] = [
        (explainer.literal(name), NOTHING)
        for name in node.known
        if name.startswith(cut.text) and name not in used
    ]
    return [*options, (_bytes_of(cut.text), NOTHING)] if node.free else options


def _scalar_options(explainer: Explainer, node: Node, cut: Cut) -> list[Option]:
    if cut.kind == "value":
        return [("", NOTHING)]
    if cut.kind in ("collection", "key"):
        raise Mismatch(f"an object or array where {node.kinds} is expected")
    text = cut.text
    options: list[Option] = []
    if not node.has_texts and cut.kind != "literal":  # texts include the members of enumerations
        options += [
            (explainer.literal(literal), NOTHING) for literal in node.literals if literal.startswith(text)
        ]
    if cut.kind != "text":
        options += [
            (token, NOTHING)
            for token in dict.fromkeys(
                token
                for word, token in CONSTANTS.items()
                if word.startswith(text) and token in node.constants
            )
        ]
        if node.has_numbers and not cut.goes_on and NUMBER_BEGINNING.fullmatch(text):
            options.append(((NUMBER if node.opens else "") + text, NOTHING))
    if node.has_texts and cut.kind == "text":
        avoided = frozenset(END) if cut.goes_on else NOTHING
        if not text:  # the text has begun, though without a token
            avoided |= {chr(code) for code in range(256, explainer.engine.base_size)} - {END}
        options.append((_bytes_of(text), avoided))
    elif node.has_texts and cut.kind == "plain":
        options += _plain_texts(text, cut.goes_on, node.has_numbers)
    return options


def _plain_texts(text: str, goes_on: bool, has_numbers: bool) -> list[Option]:
    """The strings that a scalar without quotes may become: neither constants nor, where allowed, numbers."""
    if words := [word for word in CONSTANTS if word.startswith(text)]:
        beginnings = sorted({word[:length] for word in words for length in range(len(text), len(word) + 1)})
        options = []
        for beginning in beginnings:
            next_ones = {
                word[len(beginning)] for word in words if word.startswith(beginning) and word != beginning
            }
            if beginning in CONSTANTS or goes_on:
                next_ones.add(END)
            options.append((beginning, frozenset(next_ones)))
        return options
    if text and not goes_on and NUMBER_BEGINNING.fullmatch(text):
        if not has_numbers:
            return [(text, frozenset(END))]
        digits = frozenset("0123456789" + END)
        options = [(text, digits | frozenset(".eE"))]
        if text[-1] in "0123456789" and "." not in text:
            options.append((text + ".", digits))
        return options
    return [(_bytes_of(text), frozenset((END, " ", "\t", "\n")) if goes_on else NOTHING)]


def _bytes_of(text: str) -> str:
    return utf8(text).decode("latin-1")
