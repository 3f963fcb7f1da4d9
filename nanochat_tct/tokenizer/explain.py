"""What is wrong with a value, or with base tokens, that the engine refuses: messages, and where they belong.

The engine decides. This file asks it about the parts of a value in the order in which a person would read them: the
keys of an object before its values. A wrong part counts as right for the parts around it, so that one search finds all
problems, in time linear in the size of the value for each level of nesting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
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
    Matcher,
    automaton_of,
    base_name,
)
from nanochat_tct.tokenizer.errors import Problem, TokenizerError
from nanochat_tct.tokenizer.explain_text import TextChecker
from nanochat_tct.tokenizer.names import is_condition, name_problems, without_names
from nanochat_tct.tokenizer.wording import MAX_LISTED, Path, did_you_mean, listed, near

MAX_INTEGER = 10**309
EVERY = 2**512 - 1  # all alternatives of a node: what was found wrong counts as right
WHOLE = ("its keys or values do not make a whole object", "its items do not make a whole array")
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


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
        parts = (str(part).replace("~", "~0").replace("/", "~1") for part in reversed(self.path))
        return TokenizerError("".join(f"/{part}" for part in parts), self.problem)


class Key:
    """The node of a key's value, and for each object alternative a mask over the node's alternatives."""

    def __init__(self, target: list[Any]) -> None:
        self.node, self.masks = target


class Node:
    """A node of the grammar (see compile.py), prepared for messages and half-written documents.

    Attributes:
        number: of the node.
        objects: required keys, and the fewest and most keys, of each object alternative, after its bit in masks.
        shapes: for each of `objects` its index in the masks of a `Key`.
        arrays: the fewest and most items, and the mask over the items' alternatives, after the bit in masks.
        item: the number of the node of array items.
        constants: base tokens of null, true and false, as far as allowed.
        values: members of enumerations; literals: those of them that are base tokens.
        opens: a base token begins the value, as several kinds of values are allowed.
        known, free: what follows keys with a name, and keys that match a set of patterns.
    """

    def __init__(self, grammar: dict[str, Any], number: int, is_strict: bool = False) -> None:
        description = grammar["nodes"][number]
        self.number = number
        self.item: int | None = description.get("item")
        left_out = description.get("lenient", ()) if is_strict else ()
        alternatives = [
            (1 << index, *each)
            for index, each in enumerate(description["alternatives"])
            if index not in left_out
        ]
        self.objects = [(bit, *details) for bit, kind, *details in alternatives if kind == "object"]
        every = [index for index, each in enumerate(description["alternatives"]) if each[0] == "object"]
        self.shapes = [shape for shape, index in enumerate(every) if index not in left_out]
        self.arrays = [(bit, *details) for bit, kind, *details in alternatives if kind == "array"]
        self.constants = {CONSTANTS[kind] for _, kind, *_ in alternatives if kind in CONSTANTS}
        self.has_numbers = any(kind == "number" for _, kind, *_ in alternatives)
        self.has_texts = any(kind == "text" for _, kind, *_ in alternatives)
        self.values = [value for _, kind, *details in alternatives if kind == "enum" for value in details[0]]
        self.literals = [] if self.has_texts else list(dict.fromkeys(self.values))
        groups = (self.objects, self.arrays, self.constants, self.has_numbers, self.has_texts or self.values)
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
        booleans = {CONSTANTS["true"], CONSTANTS["false"]}
        # GitHub reads numbers and booleans as strings where it takes strings.
        if not (self.has_texts and self.has_numbers and self.constants >= booleans):
            names += ["a number"] * self.has_numbers
            names += ["a boolean"] * bool(self.constants & booleans)
            names += ["null"] * (CONSTANTS["null"] in self.constants)
        return " or ".join(names) if names else "nothing"

    def key(self, name: str) -> Key | None:
        """What follows a key of this object; None if no alternative has the key."""
        found = self.known.get(name)
        if found is not None:
            return found if any(found.masks[shape] for shape in self.shapes) else None
        encoded = utf8(name)
        if any("calls" in each for each in self._patterns):
            return next(iter(self.free.values()), None)  # only the engine follows calls; see `_key_problems`
        patterns = [automaton_of(description) for description in self._patterns]
        return self.free.get(sum(1 << i for i, each in enumerate(patterns) if each.accepts(encoded)))

    def shapes_with(self, names: tuple[str, ...]) -> tuple[int, list[Key]]:
        """The object alternatives that have exactly these keys, in any order, and what follows each key.

        Raises:
            Mismatch: there is none.
        """
        found: list[Key] = []
        for name in names:
            key = self.key(name)
            if key is None:
                raise self.unknown_key(name)
            found.append(key)
        alive = 0
        for index, (bit, required, minimum, maximum) in zip(self.shapes, self.objects, strict=True):
            has_all = all(key.masks[index] for key in found) and set(required) <= set(names)
            if has_all and len(names) >= minimum and (maximum is None or len(names) <= maximum):
                alive |= bit
        if not alive:
            raise self._why_not(names, found)
        return alive, found

    def meant(self, name: str) -> list[str]:
        """The known key that is similar to an unknown one, in a list, or an empty list."""
        return near([each for each in self.known if self.key(each)], name)

    def unknown_key(self, name: str) -> Mismatch:
        """The error for a key that no alternative has."""
        if self.free:
            return Mismatch(f"a key may not be {name!r}", about=name)
        names = [each for each in self.known if self.key(each)]
        hint = did_you_mean(name, names)
        if not hint and len(names) <= MAX_LISTED:
            hint = f"; there are: {listed(names)}" if names else "; there are none"
        return Mismatch(f"unknown key {name!r}{hint}", about=name)

    def _why_not(self, names: tuple[str, ...], found: list[Key]) -> Mismatch:
        """The error for keys that no alternative has together: that of the alternative that needs the least change."""
        complaints: list[tuple[int, str, str | None]] = []
        for index, (_, required, minimum, maximum) in zip(self.shapes, self.objects, strict=True):
            wrong = [name for name, key in zip(names, found, strict=True) if not key.masks[index]]
            missing = [name for name in required if name not in names]
            rest = [name for name in names if name not in wrong]
            if wrong and required and not missing:
                text = f"{wrong[0]!r} cannot stand beside {required[0]!r}"
                complaints.append((len(wrong), text, wrong[0]))
            elif wrong and rest:
                beside = ", ".join(map(repr, rest))
                complaints.append((2 * len(wrong), f"{wrong[0]!r} cannot stand beside {beside}", wrong[0]))
            elif missing:
                complaints.append((3 * len(wrong) + len(missing), f"missing {missing[0]!r}", None))
            elif len(names) < minimum:
                complaints.append((1, f"has {len(names)} keys, needs at least {minimum}", None))
            else:
                complaints.append((4, f"has {len(names)} keys, takes at most {maximum}", None))
        least = min(score for score, *_ in complaints)
        nearest = list(dict.fromkeys((text, about) for score, text, about in complaints if score == least))
        texts = [text for text, _ in nearest]
        if len(texts) > 1 and all(text.startswith("missing ") for text in texts):
            return Mismatch("missing one of " + ", ".join(text.removeprefix("missing ") for text in texts))
        return Mismatch(texts[0], about=nearest[0][1])

    def narrow(self, alive: int, key: Key, accepted: int) -> int:
        """The object alternatives that allow a key's value, which some alternatives of the key's node accept."""
        for index, (bit, *_) in zip(self.shapes, self.objects, strict=True):
            if alive & bit and not key.masks[index] & accepted:
                alive &= ~bit
        return alive

    def length_problem(self, alive: int, length: int) -> Mismatch:
        """The error for a length that none of the given array alternatives has."""
        least = min(minimum for bit, minimum, _, _ in self.arrays if alive & bit)
        wanted = f"needs at least {least}" if length < least else "takes fewer"
        return Mismatch(f"an array of {length} items where the schema {wanted}")


class Explainer:
    """Messages about what one engine refuses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.node = cache(lambda number: Node(engine.grammar, number))
        self._literals = {text: index for index, text in enumerate(engine.grammar["literals"])}
        self.is_github = "graph" in engine.grammar

    def literal(self, text: str) -> str:
        """The base token of a known key or a member of an enumeration."""
        return chr(FIRST_LITERAL + self._literals[text])

    def write(self, value: Any) -> str:
        """The base tokens of a document given as a parsed JSON value, whose objects are dictionaries or Pairs.

        Raises:
            TokenizerError: the value is not valid; the error has its JSON pointer.
        """
        try:
            text = json_text(value)
        except Mismatch as error:
            raise error.located() from None
        _, base = self.engine.write(text.encode("utf-8"))
        if not base:
            raise self.errors(value)[0].error()
        return base

    def problems(self, value: Any) -> list[Problem]:
        """All problems of a document whose objects are dictionaries: errors, then warnings."""
        errors = [] if _Search(self, value, is_strict=False).is_right(value) else self.errors(value)
        return errors + self.warnings(value, errors)

    def errors(self, value: Any) -> list[Problem]:
        """All errors of a document that the engine refuses."""
        search = _Search(self, value, is_strict=False)
        search.check(0, value, 0, ())
        if not self.is_github:
            return search.problems
        # A whole array or object is refused, though its parts are right, for names: `name_problems` says for which.
        found = [problem for problem in search.problems if problem.message not in WHOLE]
        found += [problem for problem in name_problems(value) if not problem.is_warning]
        return found or search.problems

    def warnings(self, value: Any, errors: list[Problem]) -> list[Problem]:
        """The warnings of GitHub's language service about a workflow whose errors are known already."""
        if not self.is_github:
            return []
        search = _Search(self, value, is_strict=True)
        if not search.is_right(value):
            search.check(0, without_names(value), 0, ())
        found = [replace(p, is_warning=True) for p in search.problems if p.message not in WHOLE]
        found += [problem for problem in name_problems(value) if problem.is_warning]
        wrong = {(error.path, error.of_key, error.offset) for error in errors}
        return [each for each in found if (each.path, each.of_key, each.offset) not in wrong]

    def accepted(self, number: int, value: Any, depth: int) -> int:
        """The alternatives of a node that accept a value inside `depth` arrays and objects, as a mask.

        Raises:
            Mismatch: none does.
        """
        text = json_text(value)
        accepted, _ = self.engine.write(text.encode("utf-8"), number, depth)
        if not accepted:
            search = _Search(self, value, is_strict=False)
            search.check(number, value, depth, ())
            first = search.problems[0]
            raise Mismatch(first.message, *first.path)
        return accepted

    def read_error(self, base: str, consumed: int, result: int) -> TokenizerError:
        """The error for base tokens that are not a document; the engine has read `consumed` of them."""
        if result == OPEN:
            return TokenizerError("", f"cut off after {len(base)} base tokens; decode_prefix completes it")
        matcher = self.engine.matcher()
        assert matcher.advance(base[:consumed])
        while consumed < len(base) and matcher.advance(base[consumed]):
            consumed += 1  # the engine reads runs of bytes at once, and stops before a run with a wrong one
        if consumed == len(base):
            return TokenizerError("/jobs", "some jobs need jobs that are not there, or all need others")
        frames = matcher.frames()
        error = self._refusal(frames, base, consumed)
        if frames[-1][0] == "key":
            del frames[-1]  # the error has the name already
        error.path += [detail for kind, _, detail in reversed(frames[:-1]) if kind in ("array", "object")]
        return error.located()

    def _refusal(self, frames: list[tuple[str, int, int | str]], base: str, position: int) -> Mismatch:
        """The error for a base token that cannot continue the innermost part."""
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
            return Mismatch(WHOLE[0])
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
            return Mismatch(f"a {what} does not have the required form")
        return Mismatch(f"base token {position} ({name}) is not one of {node.kinds}")


class _Search:
    """Collects the problems of one value.

    Args:
        value: has no ``Pairs`` inside if it is a dictionary itself.
        is_strict: complaints of GitHub's language service are problems too.
    """

    def __init__(self, explainer: Explainer, value: Any, is_strict: bool) -> None:
        self.to_json = scalar_text if isinstance(value, dict) else json_text
        self.engine, self.is_github = explainer.engine, explainer.is_github
        self.matcher, self.is_strict = self.engine.matcher(is_strict), is_strict
        grammar = self.engine.grammar
        self.node = cache(lambda number: Node(grammar, number, True)) if is_strict else explainer.node
        self.problems: list[Problem] = []

    def is_right(self, value: Any) -> bool:
        """Whether the engine accepts a whole document."""
        return self.matcher.write(self.to_json(value).encode("utf-8"))

    def check(self, number: int, value: Any, depth: int, path: Path) -> int:
        """The alternatives of a node that accept a value, as a mask; if there is none, report why and return EVERY."""
        accepted, _ = self.engine.write(self.to_json(value).encode("utf-8"), number, depth, self.matcher)
        if accepted:
            return accepted
        node = self.node(number)
        is_object = isinstance(value, dict | Pairs)
        if (is_object and node.objects) or (isinstance(value, list) and node.arrays):
            if depth >= MAX_DEPTH:
                self._report(path, f"nested deeper than {MAX_DEPTH} levels")
            elif isinstance(value, list):
                self._check_array(node, value, depth, path)
            else:
                self._check_object(node, value, depth, path)
        elif isinstance(value, str) and node.has_texts:
            self._check_text(node, value, path)
        elif not (self.is_strict and is_condition(path)):  # the service does not mind a constant there
            self._report(path, self._wrong_kind(node, value))
        return EVERY

    def _report(self, path: Path, message: str, of_key: bool = False, offset: int | None = None) -> None:
        self.problems.append(Problem(path, message, of_key, offset))

    def _mismatch(self, path: Path, mismatch: Mismatch) -> None:
        if self.is_strict:
            return  # strict mode offers fewer keys than the service accepts
        if mismatch.about is None:
            is_empty = self.is_github and mismatch.problem.startswith("has 0 keys")
            self._report(path, "the mapping is empty: a key is missing" if is_empty else mismatch.problem)
        elif self.is_github:  # a person looks for the key itself
            self._report((*path, mismatch.about), mismatch.problem, of_key=True)
        else:
            self._report(path, mismatch.problem)

    def _check_object(self, node: Node, value: Any, depth: int, path: Path) -> None:
        before = len(self.problems)
        pairs = list(value.items() if isinstance(value, dict) else value)
        names = dict.fromkeys(self._right_names(node, [name for name, _ in pairs], path))
        alive = EVERY
        try:
            alive, _ = node.shapes_with(tuple(names))
        except Mismatch as error:
            # A number of keys says nothing where wrong ones were left out.
            if len(names) == len(pairs) or not error.problem.startswith("has "):
                self._mismatch(path, error)
        read: list[tuple[str, Key, int]] = []
        for name, child in pairs:
            key = node.key(name) if name in names else None
            if key is None:
                continue
            accepted = self.check(key.node, child, depth + 1, (*path, name))
            left = node.narrow(alive, key, accepted) if alive != EVERY else EVERY
            if left:
                alive = left
                read.append((name, key, accepted))
            elif self.is_github:
                self._report(*self._why_narrowed(node, names, read, (name, key, accepted), child, path))
            else:
                self._report((*path, name), contradiction(child))
        if len(self.problems) == before:
            self._report(path, WHOLE[0])

    @staticmethod
    def _why_narrowed(
        node: Node,
        names: Iterable[str],
        read: list[tuple[str, Key, int]],
        last: tuple[str, Key, int],
        value: Any,
        path: Path,
    ) -> tuple[Path, str]:
        """The path and message for a value that does not fit the keys and values before it."""
        name, key, accepted = last
        every = sum(bit for bit, *_ in node.objects)
        alive = node.narrow(every, key, accepted)  # with this value alone
        others = [other for other, its_key, its_mask in read if not node.narrow(alive, its_key, its_mask)]
        if others:
            return (*path, name), f"{shown(value)} does not go with {others[0]!r} beside it"
        for bit, required, *_ in node.objects:
            missing = [each for each in required if each not in names]
            if alive & bit and missing:
                return path, f"missing {missing[0]!r}, which goes with '{name}: {value}'"
        return (*path, name), contradiction(value)

    def _right_names(self, node: Node, names: list[str], path: Path) -> list[str]:
        """The keys that an object may have, each once; the others are reported."""
        right: list[str] = []
        given = set(names)
        ignores_case = self.engine.grammar.get("ignore_key_case", False)
        seen: dict[str, str] = {}
        for name in names:
            folded = name.translate(_LOWER) if ignores_case else name
            if folded in seen and name == seen[folded]:
                self._report(path, f"the key {name!r} stands twice in one object")
            elif folded in seen:
                what = f"the key {name!r} stands here as {seen[folded]!r} already: GitHub ignores their case"
                self._report((*path, name), what, of_key=True)
            elif node.key(name) is None and not (self.is_github and node.free):
                self._mismatch(path, node.unknown_key(name))
                right += [meant for meant in node.meant(name) if meant not in given]
            elif name not in node.known and (problems := self._key_problems(node, name, (*path, name))):
                self.problems += problems
            else:
                seen[folded] = name
                right.append(name)
        return right

    def _text_checker(self, node: Node, path: Path, is_key: bool) -> TextChecker:
        def start() -> Matcher:
            assert self.matcher.write(b"{" if is_key else b"", node.number)
            return self.matcher

        return TextChecker(path, start, is_key, self.is_strict)

    def _key_problems(self, node: Node, name: str, path: Path) -> list[Problem]:
        if not self.is_github:
            return []
        found = self._text_checker(node, path, is_key=True).problems(name)
        return [Problem(path, message, True, offset) for offset, message in found]

    def _check_array(self, node: Node, value: list[Any], depth: int, path: Path) -> None:
        assert node.item is not None
        before = len(self.problems)
        every = alive = sum(bit for bit, *_ in node.arrays)
        for index, item in enumerate(value):
            accepted = self.check(node.item, item, depth + 1, (*path, index))
            left = alive & sum(bit for bit, _, _, items in node.arrays if items & accepted)
            if left:
                alive = left
            else:
                self._report((*path, index), contradiction(item))
        lengths = [(least, most) for bit, least, most, _ in node.arrays if (every & alive) & bit]
        if not any(least <= len(value) and (most is None or len(value) <= most) for least, most in lengths):
            problem = node.length_problem(alive, len(value)).problem
            is_empty = self.is_github and not value
            self._report(path, "the list is empty: an item is missing" if is_empty else problem)
        elif len(self.problems) == before:
            self._report(path, WHOLE[1])

    def _check_text(self, node: Node, value: str, path: Path) -> None:
        if not self.is_github:
            self._report(path, f"{shown(value)} does not have the required form")
            return
        found = self._text_checker(node, path, is_key=False).problems(value)
        for offset, message in found:
            if node.values and "${{" not in value:
                offset, message = 0, self._wrong_kind(node, value)
            self._report(path, message, offset=offset)
        if not found:
            self._report(path, WHOLE[0])

    def _wrong_kind(self, node: Node, value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool) and node.has_numbers:
            if isinstance(value, int) and not -MAX_INTEGER < value < MAX_INTEGER:
                return "an integer has at most 309 digits"
            return f"{value!r} is not a number that is allowed here"
        kinds = {str: "a string", dict: "an object", Pairs: "an object", list: "an array", bool: "a boolean"}
        what = "null" if value is None else kinds.get(type(value), "a number")
        hint = ""
        if isinstance(value, str | bool | int | float):
            what += f" {shown(value)}"
            hint = did_you_mean(str(value), node.values)
        message = f"{what} where {node.kinds} is expected{hint}"
        if not self.is_github:
            return message
        if hint:
            return f"{shown(value)} is not among what is allowed here{hint}"
        if node.has_texts:
            assert self.matcher.write(b"", node.number)
            if not self.matcher.allows("x" + END):
                message = message.replace(" a string", " an expression")
        return message.replace("an object", "a mapping").replace("an array", "a list")


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


def contradiction(value: Any) -> str:
    return f"{shown(value)} does not fit the other values of this object or array"
