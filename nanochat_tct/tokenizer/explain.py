"""What is wrong with a value, or with base tokens, that the engine refuses: the message, and the place.

The engine decides; here it is only asked about the parts, in the order in which a person would look at them: the keys
of an object before its values. A part that is wrong counts as right for what is around it, so that all problems are
found, in time linear in the size of the value for each level.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from nanochat_tct.tokenizer.automaton import Automaton
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
from nanochat_tct.tokenizer.explain_text import MAX_LISTED, Path, did_you_mean, listed, near, text_problems
from nanochat_tct.tokenizer.names import WorkflowNames, is_condition, name_problems, without_names

MAX_INTEGER = 10**309
EVERY = 2**512 - 1  # the alternatives of a node that accept what was found wrong
WHOLE = ("its keys or values do not make a whole object", "its items do not make a whole array")
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


class Pairs(tuple[tuple[str, Any], ...]):
    """An object's keys and values as a JSON text has them, so that a key that stands twice is not lost."""

    __slots__ = ()


class Mismatch(Exception):
    """A value or a base token that the grammar does not allow; the path is filled in on the way out."""

    def __init__(self, problem: str, *path: str | int, about: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = [*reversed(path)]
        self.about = about  # the key of an object that is to blame

    def located(self) -> TokenizerError:
        parts = (str(part).replace("~", "~0").replace("/", "~1") for part in reversed(self.path))
        return TokenizerError("".join(f"/{part}" for part in parts), self.problem)


class Key:
    """What follows one key of an object: the node of its value, and for each shape a mask over its alternatives."""

    def __init__(self, target: list[Any]) -> None:
        self.node, self.masks = target


class Node:
    """A node of the grammar, as messages and half-written documents need it; see compile.py."""

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
        self.shapes = [
            index
            for index, (number, _) in enumerate(
                (i, each) for i, each in enumerate(description["alternatives"]) if each[0] == "object"
            )
            if number not in left_out
        ]
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
        if not (self.has_texts and self.has_numbers and self.constants >= booleans):  # which count as strings
            names += ["a number"] * self.has_numbers
            names += ["a boolean"] * bool(self.constants & booleans)
            names += ["null"] * (CONSTANTS["null"] in self.constants)
        return " or ".join(names) if names else "nothing"

    def key(self, name: str) -> Key | None:
        """What follows a key in this object; None where no shape has it."""
        found = self.known.get(name)
        if found is not None:
            return found if any(found.masks[shape] for shape in self.shapes) else None
        encoded = utf8(name)
        if any("calls" in each for each in self._patterns):
            return next(iter(self.free.values()), None)  # as far as can be said without the engine
        return self.free.get(sum(1 << i for i, each in enumerate(self._automata) if each.accepts(encoded)))

    @cached_property
    def _automata(self) -> list[Automaton]:
        return list(map(automaton_of, self._patterns))

    def shapes_with(self, names: tuple[str, ...]) -> tuple[int, list[Key]]:
        """The object alternatives that keys, in any order, leave possible, and what follows each key.

        Raises:
            Mismatch: no alternative has just these keys.
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
        """The key that may be meant by one that is not known, if there is one."""
        return near([each for each in self.known if self.key(each)], name)

    def unknown_key(self, name: str) -> Mismatch:
        """That no alternative has a key."""
        if self.free:
            return Mismatch(f"a key may not be {name!r}", about=name)
        names = [each for each in self.known if self.key(each)]
        hint = did_you_mean(name, names)
        if not hint and len(names) <= MAX_LISTED:
            hint = f"; there are: {listed(names)}" if names else "; there are none"
        return Mismatch(f"unknown key {name!r}{hint}", about=name)

    def _why_not(self, names: tuple[str, ...], found: list[Key]) -> Mismatch:
        """The complaint of the alternative that came nearest."""
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
        """The object alternatives that remain when a key's value was accepted by some alternatives of its node."""
        for index, (bit, *_) in zip(self.shapes, self.objects, strict=True):
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
        self.strict_node = cache(lambda number: Node(engine.grammar, number, True))
        self._literals = {text: index for index, text in enumerate(engine.grammar["literals"])}
        self.is_github = "graph" in engine.grammar

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
        except Mismatch as error:
            raise error.located() from None
        _, base = self.engine.write(text.encode("utf-8"))
        if not base:
            raise self.errors(value)[0].error()
        return base

    def problems(self, value: Any) -> list[Problem]:
        """All that is wrong with a document whose objects are dictionaries: errors, then warnings."""
        errors = [] if _Search(self, value, is_strict=False).is_right(value) else self.errors(value)
        return errors + self.warnings(value, errors)

    def errors(self, value: Any) -> list[Problem]:
        """All that is wrong with a document that the engine refuses."""
        search = _Search(self, value, is_strict=False)
        search.check(0, value, 0, ())
        if not self.is_github:
            return search.problems
        # whole arrays and objects that are refused though their parts are not: for the names in them
        found = [problem for problem in search.problems if problem.message not in WHOLE]
        found += WorkflowNames(value).errors()
        return found or search.problems

    def warnings(self, value: Any, errors: list[Problem]) -> list[Problem]:
        """What GitHub's language service complains of in a workflow beyond errors, which were found before."""
        if not self.is_github:
            return []
        search = _Search(self, value, is_strict=True)
        if not search.is_right(value):
            unnamed = without_names(value)
            search.check(0, unnamed, 0, ())
        found = [replace(p, is_warning=True) for p in search.problems if p.message not in WHOLE]
        found += [problem for problem in name_problems(value) if problem.is_warning]
        wrong = {(error.path, error.of_key, error.offset) for error in errors}
        return [each for each in found if (each.path, each.of_key, each.offset) not in wrong]

    def accepted(self, number: int, value: Any, depth: int) -> int:
        """The alternatives of a node, as a mask, that accept a value with so many arrays and objects around it.

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
        """Why base tokens are no document, of which so many were read."""
        if result == OPEN:
            return TokenizerError("", f"cut off after {len(base)} base tokens; decode_prefix completes it")
        matcher = self.engine.matcher()
        assert matcher.advance(base[:consumed])
        while consumed < len(base) and matcher.advance(base[consumed]):  # bytes are read many at once
            consumed += 1
        if consumed == len(base):
            return TokenizerError("/jobs", "some jobs need jobs that are not there, or all need others")
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
            return Mismatch(f"a {what} does not have the form that is asked for here")
        return Mismatch(f"base token {position} ({name}) is not one of {node.kinds}")


class _Search:
    """Collects the problems of one value.

    Args:
        value: with ``Pairs`` in it only if it is no dictionary itself.
        is_strict: what GitHub's language service complains of is a problem too.
    """

    def __init__(self, explainer: Explainer, value: Any, is_strict: bool) -> None:
        self.to_json = scalar_text if isinstance(value, dict) else json_text
        self.engine, self.is_github = explainer.engine, explainer.is_github
        self.matcher, self.is_strict = self.engine.matcher(is_strict), is_strict
        self.node = explainer.strict_node if is_strict else explainer.node
        self.problems: list[Problem] = []

    def is_right(self, value: Any) -> bool:
        """Whether the engine takes a whole document."""
        return self.matcher.write(self.to_json(value).encode("utf-8"))

    def check(self, number: int, value: Any, depth: int, path: Path) -> int:
        """The alternatives of a node that accept a value, as a mask; EVERY: none does, and it is said why."""
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
        elif not (self.is_strict and is_condition(path)):  # of constants there the service says nothing
            self._report(path, self._wrong_kind(node, value))
        return EVERY

    def _report(self, path: Path, message: str, of_key: bool = False, offset: int | None = None) -> None:
        self.problems.append(Problem(path, message, of_key, offset))

    def _mismatch(self, path: Path, mismatch: Mismatch) -> None:
        if self.is_strict:
            return  # what is offered is less than what is right
        if mismatch.about is None:
            is_empty = self.is_github and mismatch.problem.startswith("has 0 keys")
            self._report(path, "the mapping is empty: a key is missing" if is_empty else mismatch.problem)
        elif self.is_github:  # its own key is what a person looks for
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
            if len(names) == len(pairs) or not error.problem.startswith("has "):  # so many keys
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
        """Why a value does not fit the keys and values before it."""
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
        """The keys of an object that may stand in it, each once; the others are reported."""
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

    def _key_problems(self, node: Node, name: str, path: Path) -> list[Problem]:
        if not self.is_github:
            return []

        def start() -> Matcher:
            assert self.matcher.write(b"{", node.number)
            return self.matcher

        found = text_problems(name, path, start, is_key=True, is_strict=self.is_strict)
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
            self._report(path, f"{shown(value)} does not have the form that is asked for here")
            return

        def start() -> Matcher:
            assert self.matcher.write(b"", node.number)
            return self.matcher

        found = text_problems(value, path, start, is_strict=self.is_strict)
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
    """A value as JSON; beyond the levels that a document may have, something takes its place.

    Raises:
        Mismatch: it is not a JSON value.
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


def contradiction(value: Any) -> str:
    return f"{shown(value)} does not fit the other values of this object or array"
