"""What is wrong with a value, or with base tokens, that the engine refuses: the message, and the place.

The engine decides; here it is only asked about the parts, in the order in which a person would look at them: the keys
of an object before its values.
"""

from __future__ import annotations

import json
import re
from functools import cache, cached_property
from typing import Any

from nanochat_tct.tokenizer.engine import (
    ARRAY_END,
    CONSTANTS,
    END,
    FIRST_LITERAL,
    MAX_DEPTH,
    OBJECT_END,
    OPEN,
    Engine,
    automaton_of,
    base_name,
)
from nanochat_tct.tokenizer.errors import TokenizerError

MAX_INTEGER = 10**309


class Pairs(tuple[tuple[str, Any], ...]):
    """An object's keys and values as a JSON text has them, so that a key that stands twice is not lost."""

    __slots__ = ()


class Mismatch(Exception):
    """A value or a base token that the grammar does not allow; the path is filled in on the way out."""

    def __init__(self, problem: str, *path: str | int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = [*reversed(path)]

    def located(self) -> TokenizerError:
        parts = (str(part).replace("~", "~0").replace("/", "~1") for part in reversed(self.path))
        return TokenizerError("".join(f"/{part}" for part in parts), self.problem)


class Key:
    """What follows one key of an object: the node of its value, and for each shape a mask over its alternatives."""

    def __init__(self, target: list[Any]) -> None:
        self.node, self.masks = target


class Node:
    """A node of the grammar, as messages and half-written documents need it; see compile.py."""

    def __init__(self, grammar: dict[str, Any], number: int) -> None:
        description = grammar["nodes"][number]
        self.number = number
        self.item: int | None = description.get("item")
        alternatives = [(1 << index, *each) for index, each in enumerate(description["alternatives"])]
        self.objects = [(bit, *details) for bit, kind, *details in alternatives if kind == "object"]
        self.arrays = [(bit, *details) for bit, kind, *details in alternatives if kind == "array"]
        self.constants = {CONSTANTS[kind] for _, kind, *_ in alternatives if kind in CONSTANTS}
        self.has_numbers = any(kind == "number" for _, kind, *_ in alternatives)
        self.has_texts = any(kind == "text" for _, kind, *_ in alternatives)
        values = [value for _, kind, *details in alternatives if kind == "enum" for value in details[0]]
        self.literals = [] if self.has_texts else list(dict.fromkeys(values))
        groups = (self.objects, self.arrays, self.constants, self.has_numbers, self.has_texts or values)
        self.opens = sum(map(bool, groups)) > 1
        self.known = {name: Key(target) for name, target in description.get("known", {}).items()}
        self.free = {int(matched): Key(target) for matched, target in description.get("free", {}).items()}
        self._patterns = [grammar["automata"][number] for number in description.get("patterns", [])]

    @cached_property
    def kinds(self) -> str:
        """The kinds of value that are allowed, for messages."""
        names = ["an object"] * bool(self.objects) + ["an array"] * bool(self.arrays)
        names += ["a string"] * self.has_texts
        if self.literals:
            shown = ", ".join(map(repr, self.literals[:6])) + (", ..." if len(self.literals) > 6 else "")
            names.append(f"one of {shown}")
        names += ["a number"] * self.has_numbers
        names += ["a boolean"] * bool(self.constants & {CONSTANTS["true"], CONSTANTS["false"]})
        names += ["null"] * (CONSTANTS["null"] in self.constants)
        return " or ".join(names) if names else "nothing"

    def key(self, name: str) -> Key | None:
        """What follows a key in this object; None where no shape has it."""
        found = self.known.get(name)
        if found is not None:
            return found if any(found.masks) else None
        encoded = utf8(name)
        patterns = [automaton_of(description) for description in self._patterns]
        return self.free.get(sum(1 << i for i, each in enumerate(patterns) if each.accepts(encoded)))

    def shapes_with(self, names: tuple[str, ...]) -> tuple[int, list[Key]]:
        """The object alternatives that keys, in any order, leave possible, and what follows each key.

        Raises:
            Mismatch: no alternative has just these keys.
        """
        found: list[Key] = []
        for name in names:
            key = self.key(name)
            if key is None:
                raise Mismatch(f"a key may not be {name!r}" if self.free else f"unknown key {name!r}")
            found.append(key)
        alive = 0
        for index, (bit, required, minimum, maximum) in enumerate(self.objects):
            has_all = all(key.masks[index] for key in found) and set(required) <= set(names)
            if has_all and len(names) >= minimum and (maximum is None or len(names) <= maximum):
                alive |= bit
        if not alive:
            raise Mismatch(self._why_not(names, found))
        return alive, found

    def _why_not(self, names: tuple[str, ...], found: list[Key]) -> str:
        """The complaint of the alternative that came nearest."""
        complaints: list[tuple[int, str]] = []
        for index, (_, required, minimum, maximum) in enumerate(self.objects):
            wrong = [name for name, key in zip(names, found, strict=True) if not key.masks[index]]
            missing = [name for name in required if name not in names]
            rest = [name for name in names if name not in wrong]
            if wrong and required and not missing:
                complaints.append((len(wrong), f"{wrong[0]!r} cannot stand beside {required[0]!r}"))
            elif wrong and rest:
                beside = ", ".join(map(repr, rest))
                complaints.append((2 * len(wrong), f"{wrong[0]!r} cannot stand beside {beside}"))
            elif missing:
                complaints.append((3 * len(wrong) + len(missing), f"missing {missing[0]!r}"))
            elif len(names) < minimum:
                complaints.append((1, f"has {len(names)} keys, needs at least {minimum}"))
            else:
                complaints.append((4, f"has {len(names)} keys, takes at most {maximum}"))
        least = min(complaints)[0]
        nearest = list(dict.fromkeys(text for score, text in complaints if score == least))
        if len(nearest) > 1 and all(text.startswith("missing ") for text in nearest):
            return "missing one of " + ", ".join(text.removeprefix("missing ") for text in nearest)
        return nearest[0]

    def narrow(self, alive: int, key: Key, accepted: int) -> int:
        """The object alternatives that remain when a key's value was accepted by some alternatives of its node."""
        for index, (bit, *_) in enumerate(self.objects):
            if alive & bit and not key.masks[index] & accepted:
                alive &= ~bit
        return alive

    def length_problem(self, alive: int, length: int) -> Mismatch:
        """Of the arrays among the given alternatives, that none has this length."""
        least = min(minimum for bit, minimum, _, _ in self.arrays if alive & bit)
        wanted = f"needs at least {least}" if length < least else "takes fewer"
        return Mismatch(f"an array of {length} items where the schema {wanted}")


class Explainer:
    """Messages about what one engine refuses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.node = cache(lambda number: Node(engine.grammar, number))
        self._literals = {text: index for index, text in enumerate(engine.grammar["literals"])}

    def literal(self, text: str) -> str:
        """The base token of a known key or a member of an enumeration."""
        return chr(FIRST_LITERAL + self._literals[text])

    def write(self, value: Any) -> str:
        """The base tokens of a document given as a parsed JSON value, whose objects are dictionaries or Pairs.

        Raises:
            TokenizerError: the value is not valid; it names the place.
        """
        try:
            text = json_text(value)
            _, base = self.engine.write(text.encode("utf-8")) if is_unicode(text) else (0, "")
            if not base:
                self.accepted(0, value, 0)
            return base
        except Mismatch as error:
            raise error.located() from None

    def accepted(self, number: int, value: Any, depth: int) -> int:
        """The alternatives of a node, as a mask, that accept a value with so many arrays and objects around it.

        Raises:
            Mismatch: none does.
        """
        text = json_text(value)
        accepted, _ = self.engine.write(text.encode("utf-8"), number, depth) if is_unicode(text) else (0, "")
        return accepted or self._explain(self.node(number), value, depth)

    def _explain(self, node: Node, value: Any, depth: int) -> int:
        is_object = isinstance(value, dict | Pairs)
        if (is_object and node.objects) or (isinstance(value, list) and node.arrays):
            if depth >= MAX_DEPTH:
                raise Mismatch(f"nested deeper than {MAX_DEPTH} levels")
            return (self._explain_object if is_object else self._explain_array)(node, value, depth)
        if isinstance(value, str) and node.has_texts:
            utf8(value)
            raise Mismatch(f"{shown(value)} does not have the form that is asked for here")
        if isinstance(value, int | float) and not isinstance(value, bool) and node.has_numbers:
            if isinstance(value, int) and not -MAX_INTEGER < value < MAX_INTEGER:
                raise Mismatch("an integer has at most 309 digits")
            raise Mismatch(f"{value!r} is not a number that is allowed here")
        kinds = {str: "a string", dict: "an object", Pairs: "an object", list: "an array", bool: "a boolean"}
        what = "null" if value is None else kinds.get(type(value), "a number")
        if isinstance(value, str | bool | int | float):
            what += f" {shown(value)}"
        raise Mismatch(f"{what} where {node.kinds} is expected")

    def _explain_object(self, node: Node, value: Any, depth: int) -> int:
        pairs = value.items() if isinstance(value, dict) else value
        names = tuple(name for name, _ in pairs)
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Mismatch(f"the key {twice!r} stands twice in one object")
        alive, keys = node.shapes_with(names)
        for (name, child), key in zip(pairs, keys, strict=True):
            try:
                alive = node.narrow(alive, key, self.accepted(key.node, child, depth + 1))
                if not alive:
                    raise contradiction(child)
            except Mismatch as error:
                error.path.append(name)
                raise
        return alive

    def _explain_array(self, node: Node, value: list[Any], depth: int) -> int:
        assert node.item is not None
        alive = sum(bit for bit, *_ in node.arrays)
        for index, item in enumerate(value):
            try:
                accepted = self.accepted(node.item, item, depth + 1)
                alive &= sum(bit for bit, _, _, items in node.arrays if items & accepted)
                if not alive:
                    raise contradiction(item)
            except Mismatch as error:
                error.path.append(index)
                raise
        raise node.length_problem(alive, len(value))

    def read_error(self, base: str, consumed: int, result: int) -> TokenizerError:
        """Why base tokens are no document, of which so many were read."""
        if result == OPEN:
            return TokenizerError("", f"cut off after {len(base)} base tokens; decode_prefix completes it")
        matcher = self.engine.matcher()
        assert matcher.advance(base[:consumed])
        while matcher.advance(base[consumed]):  # bytes are read many at once
            consumed += 1
        frames = matcher.frames()
        error = self._refusal(frames, base, consumed)
        if frames[-1][0] == "key":
            del frames[-1]  # whose name the error has already
        error.path += [detail for kind, _, detail in reversed(frames[:-1]) if kind in ("array", "object")]
        return error.located()

    def _refusal(self, frames: list[tuple[str, int, int | str]], base: str, position: int) -> Mismatch:
        """Why the innermost part does not go on with a base token."""
        character = base[position]
        kind, number, detail = frames[-1]
        if kind == "key":
            detail = frames[-2][2]
        node = self.node(number)
        name = base_name(self.engine.grammar, character)
        if kind == "key" or (kind == "object" and character != OBJECT_END):
            rest = base[position:].partition(END)[0]
            if character >= chr(FIRST_LITERAL) and kind == "object":
                return Mismatch(
                    "stands twice in one object" if name in node.known else "is not a key of this object",
                    name,
                )
            if max(rest, default="") > "\xff":
                return Mismatch("a structure token inside a text")
            rest = rest.encode("latin-1").decode("utf-8", "replace")
            whole = f"{detail}{rest}" if kind == "key" else rest
            is_twice = kind == "key" and not rest and whole not in node.known
            return Mismatch(
                "stands twice in one object" if is_twice else "is not a key of this object", whole
            )
        if kind == "object":
            return Mismatch("its keys or values do not make a whole object")
        if kind == "array" and character == ARRAY_END:
            assert isinstance(detail, int)
            return node.length_problem(sum(bit for bit, *_ in node.arrays), detail)
        if kind == "array":
            assert node.item is not None
            node = self.node(node.item)
        if kind == "scalar" or (node.has_texts and (character <= END)):
            if character > "\xff" and character != END:
                return Mismatch("a structure token inside a text")
            what = "string" if node.has_texts else "number"
            return Mismatch(f"a {what} does not have the form that is asked for here")
        return Mismatch(f"base token {position} ({name}) is not one of {node.kinds}")


def json_text(value: Any, depth: int = 0) -> str:
    """A value as JSON; beyond the levels that a document may have, something takes its place.

    Raises:
        Mismatch: it is not a JSON value.
    """
    if value is None or isinstance(value, str | int | float):
        return scalar_text(value)
    if isinstance(value, dict | Pairs | list) and depth > MAX_DEPTH:
        return "[]"
    parts: list[str] = []
    part: Any = ""
    try:
        if isinstance(value, list):
            for item in value:
                part = len(parts)
                parts.append(json_text(item, depth + 1))
            return f"[{','.join(parts)}]"
        if isinstance(value, dict | Pairs):
            for part, child in value.items() if isinstance(value, dict) else value:
                if type(part) is not str:
                    raise Mismatch("a key is not a string")
                parts.append(f"{scalar_text(part)}:{json_text(child, depth + 1)}")
            return f"{{{','.join(parts)}}}"
    except Mismatch as error:
        if error.problem != "a key is not a string" or error.path:
            error.path.append(part)
        raise
    raise Mismatch(f"a {type(value).__name__} is not a JSON value")


scalar_text = json.JSONEncoder(ensure_ascii=False).encode


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates."""
    return re.search("[\ud800-\udfff]", text) is None


def utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise Mismatch(f"{shown(text)} has a lone surrogate, which is not Unicode text") from None


def shown(value: Any) -> str:
    """A value as messages have it, cut where it is long."""
    text = ascii(_plain(value))
    return text if len(text) <= 60 else text[:56] + "...'"


def _plain(value: Any) -> Any:
    """A value with dictionaries for Pairs."""
    if type(value) is Pairs:
        return {name: _plain(child) for name, child in value}
    return [_plain(item) for item in value] if type(value) is list else value


def contradiction(value: Any) -> Mismatch:
    return Mismatch(f"{shown(value)} does not fit the other values of this object or array")
