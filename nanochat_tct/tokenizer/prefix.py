"""Half-written documents: the base tokens of a value that is cut off, and what may come next.

The cut is a ``Cut`` in the value: a key, an item or a value, the last one of its array or object. The arrays and
objects around it are open; everything else is closed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from nanochat_tct.tokenizer.errors import TokenizerError
from nanochat_tct.tokenizer.grammar import (
    ARRAY,
    ARRAY_END,
    END,
    FALSE,
    NULL,
    NUMBER,
    OBJECT,
    OBJECT_END,
    TRUE,
    Grammar,
    Mismatch,
    Node,
)
from nanochat_tct.tokenizer.matcher import GrammarMatcher, Illegal, State, segments_of


@dataclass(frozen=True)
class Cut:
    """Where a document is cut off.

    Attributes:
        kind: "collection": between two items or keys; "key": inside a key; "value": before a value; "text": inside a
            string; "plain": inside a scalar without quotes, which may become a string, a number, true, false or null;
            "literal": inside one of JSON, which becomes no string.
        text: the part of the key, string or scalar that is written.
        goes_on: more must follow: another item or key, or more of the string.
    """

    kind: Literal["collection", "key", "value", "text", "plain", "literal"]
    text: str = ""
    goes_on: bool = False


# base tokens that may come next, and those that may not follow them
Option = tuple[str, frozenset[str]]
CLOSING = frozenset((OBJECT_END, ARRAY_END))
NOTHING: frozenset[str] = frozenset()
# as YAML 1.2 has them; JSON's are among them
CONSTANTS = {"true": TRUE, "True": TRUE, "TRUE": TRUE, "false": FALSE, "False": FALSE, "FALSE": FALSE}
CONSTANTS |= {"null": NULL, "Null": NULL, "NULL": NULL, "~": NULL}
NUMBER_BEGINNING = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:e[-+]?[0-9]*)?)?", re.ASCII)


def cut_at_end(value: Any, open_scalar: bool) -> Any:
    """The value with a ``Cut`` after its last part: in the last text or number itself if ``open_scalar``."""
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
    """Whether there is a ``Cut`` at the end of a value."""
    if isinstance(value, dict):
        return bool(value) and (isinstance(last := next(reversed(value)), Cut) or is_cut(value[last]))
    if isinstance(value, list):
        return bool(value) and is_cut(value[-1])
    return isinstance(value, Cut)


def beginnings(matcher: GrammarMatcher, value: Any) -> list[str]:
    """The base tokens of a value with a ``Cut``: each string is a way in which a valid document may begin.

    Raises:
        TokenizerError: a part before the cut is not valid, or nothing valid can follow; it names the place.
    """
    pieces: list[str] = []
    pointers: list[tuple[int, str]] = []
    try:
        options = _write(matcher.grammar, matcher.grammar.root, value, pieces, pointers, "", 1)
    except Mismatch as error:
        raise error.located() from None
    base = "".join(pieces)
    state: State | None = matcher.start
    written = 0
    for segment in segments_of(base):
        try:
            if state is None:
                raise Illegal
            state = matcher.advance(state, (segment,))
        except Illegal:
            place = max((start, pointer) for start, pointer in pointers if start <= written)[1]
            raise TokenizerError(place, "no valid workflow begins like this") from None
        written += len(segment)
    found = [base + ending for option in options for ending in _endings(matcher, state, *option)]
    if not found:
        raise TokenizerError(pointers[-1][1], "no valid workflow begins like this")
    return found


def _endings(matcher: GrammarMatcher, state: State | None, text: str, avoided: frozenset[str]) -> list[str]:
    """The text, or, where some base tokens may not follow it, the text with each of those that may."""
    try:
        here = matcher.advance(state, segments_of(text)) if state is not None and text else state
        if not avoided:
            return [text]
        assert here is not None
    except Illegal:
        return []
    endings = []
    for code in range(matcher.grammar.base_size):
        if chr(code) not in avoided:
            try:
                matcher.step(here, chr(code))
            except Illegal:
                continue
            endings.append(text + chr(code))
    return endings


def _write(
    grammar: Grammar,
    node: Node,
    value: Any,
    pieces: list[str],
    pointers: list[tuple[int, str]],
    pointer: str,
    depth: int,
    is_item: bool = False,
) -> list[Option]:
    """Writes what is certain; returns what may come next."""
    pointers.append((sum(map(len, pieces)), pointer))
    if isinstance(value, Cut):
        return _scalar_options(grammar, node, value)
    if isinstance(value, dict) and node.objects and is_cut(value):
        if node.opens:
            pieces.append(OBJECT)
        for name, child in value.items():
            if isinstance(name, Cut):
                # an object that is open without a token of its own: its array may not end before it
                keeps_array = frozenset(ARRAY_END if is_item and len(value) == 1 and not node.opens else ())
                used = [each for each in value if each is not name]
                options = _key_options(node, name, used)
                return [(text, avoided if text else avoided | keeps_array) for text, avoided in options]
            try:
                key = node.key(name)
                if key is None:
                    raise Mismatch(f"a key may not be {name!r}" if node.free else f"unknown key {name!r}")
                pieces.append(key.prefix)
                if is_cut(child):
                    below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
                    return _write(grammar, key.child, child, pieces, pointers, below, depth + 1)
                grammar.walk_of(key.child)(child, pieces.append, depth + 1)
            except Mismatch as error:
                error.path.append(name)
                raise
    if isinstance(value, list) and node.arrays and is_cut(value):
        if node.opens:
            pieces.append(ARRAY)
        assert node.item is not None
        for index, item in enumerate(value):
            if isinstance(item, Cut) and item.kind in ("collection", "value"):
                return [("", CLOSING if item.goes_on or item.kind == "value" else NOTHING)]
            try:
                if is_cut(item):
                    below = f"{pointer}/{index}"
                    return _write(grammar, node.item, item, pieces, pointers, below, depth + 1, is_item=True)
                grammar.walk_of(node.item)(item, pieces.append, depth + 1)
            except Mismatch as error:
                error.path.append(index)
                raise
    # whole, or of a kind that is not allowed here: then this says so
    if is_cut(value):
        value = {} if isinstance(value, dict) else []
    grammar.walk_of(node)(value, pieces.append, depth)
    return [("", NOTHING)]


def _key_options(node: Node, cut: Cut, used: list[str]) -> list[Option]:
    if cut.kind == "collection" or not cut.text:
        goes_on = cut.goes_on or cut.kind == "key"
        return [("", CLOSING if goes_on else NOTHING)]
    options: list[Option] = [
        (key.prefix, NOTHING)
        for name, key in node.known.items()
        if name.startswith(cut.text) and name not in used
    ]
    return [*options, (_bytes_of(cut.text), NOTHING)] if node.free else options


def _scalar_options(grammar: Grammar, node: Node, cut: Cut) -> list[Option]:
    if cut.kind == "value":
        return [("", NOTHING)]
    if cut.kind in ("collection", "key"):
        raise Mismatch(f"an object or array where {node.kinds()} is expected")
    text = cut.text
    options: list[Option] = []
    if not node.texts and cut.kind != "literal":  # else the enumerations are among the texts
        options += [
            (grammar.literals[literal], NOTHING) for literal in node.literals if literal.startswith(text)
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
        if node.numbers and not cut.goes_on and NUMBER_BEGINNING.fullmatch(text):
            options.append(((NUMBER if node.opens else "") + text, NOTHING))
    if node.texts and cut.kind == "text":
        avoided = frozenset(END) if cut.goes_on else NOTHING
        if not text:  # the text has begun, though it has no token yet
            avoided |= {chr(code) for code in range(256, grammar.base_size)} - {END}
        options.append((_bytes_of(text), avoided))
    elif node.texts and cut.kind == "plain":
        options += _plain_texts(text, cut.goes_on, bool(node.numbers))
    return options


def _plain_texts(text: str, goes_on: bool, has_numbers: bool) -> list[Option]:
    """The strings that a scalar without quotes may become: no constants, and where there are numbers none of those."""
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
    try:
        return text.encode("utf-8").decode("latin-1")
    except UnicodeEncodeError:
        raise Mismatch("a lone surrogate is not Unicode text") from None
