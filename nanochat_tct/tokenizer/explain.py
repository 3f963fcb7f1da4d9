"""What is wrong with a value, or with base tokens, that the engine refuses: messages, and where they belong.

The engine decides. This file asks it about the parts of a value in the order in which a person would read them: the
keys of an object before its values. A wrong part counts as right for the parts around it, so that one search finds all
problems, in time linear in the size of the value for each level of nesting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from nanochat_tct.tokenizer.engine import (
    ARRAY_END,
    END,
    FIRST_LITERAL,
    MAX_DEPTH,
    OBJECT_END,
    OPEN,
    Engine,
    Matcher,
    base_name,
)
from nanochat_tct.tokenizer.errors import Problem, TokenizerError
from nanochat_tct.tokenizer.explain_text import TextChecker
from nanochat_tct.tokenizer.json_text import Mismatch, Pairs, json_text, scalar_text, shown
from nanochat_tct.tokenizer.names import WorkflowNames, is_condition, name_problems, without_names
from nanochat_tct.tokenizer.node import Key, Node
from nanochat_tct.tokenizer.wording import Path, did_you_mean

MAX_INTEGER = 10**309
EVERY = 2**512 - 1  # all alternatives of a node: what was found wrong counts as right
WHOLE = ("its keys or values do not make a whole object", "its items do not make a whole array")
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


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
        found += WorkflowNames(value).errors()
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

    def accepted_json(self, number: int, value: Any, depth: int) -> str:
        """The JSON of a value that a node accepts inside `depth` arrays and objects.

        Raises:
            Mismatch: the node does not accept it.
        """
        text = json_text(value)
        accepted, _ = self.engine.write(text.encode("utf-8"), number, depth)
        if not accepted:
            search = _Search(self, value, is_strict=False)
            search.check(number, value, depth, ())
            first = search.problems[0]
            raise Mismatch(first.message, *first.path)
        return text

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
            return Mismatch(f"a {what} does not have the form that is required here")
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
        self.node = explainer.strict_node if is_strict else explainer.node
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
                meant = node.meant(name)
                self._mismatch(path, node.unknown_key(name, meant))
                right += [each for each in meant if each not in given]
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
            self._report(path, f"{shown(value)} does not have the form that is required here")
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


def contradiction(value: Any) -> str:
    return f"{shown(value)} does not fit the other values of this object or array"
