"""The nodes of a grammar, prepared for messages and half-written documents."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from nanochat_tct.tokenizer.automaton import Automaton
from nanochat_tct.tokenizer.engine import CONSTANTS, automaton_of
from nanochat_tct.tokenizer.json_text import Mismatch, utf8
from nanochat_tct.tokenizer.wording import MAX_LISTED, listed, near, suggestion


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
        return self.free.get(sum(1 << i for i, each in enumerate(self._automata) if each.accepts(encoded)))

    @cached_property
    def _automata(self) -> list[Automaton]:
        return list(map(automaton_of, self._patterns))

    def shapes_with(self, names: tuple[str, ...]) -> tuple[int, list[Key]]:
        """The object alternatives that have exactly these keys, in any order, and what follows each key.

        Raises:
            Mismatch: there is none.
        """
        found: list[Key] = []
        for name in names:
            key = self.key(name)
            if key is None:
                raise self.unknown_key(name, self.meant(name))
            found.append(key)
        alive = 0
        for index, (bit, required, minimum, maximum) in zip(self.shapes, self.objects, strict=True):
            has_all = all(key.masks[index] for key in found) and set(required) <= set(names)
            if has_all and len(names) >= minimum and (maximum is None or len(names) <= maximum):
                alive |= bit
        if not alive:
            raise self._why_not(names, found)
        return alive, found

    @cached_property
    def _allowed_keys(self) -> list[str]:
        return [each for each in self.known if self.key(each)]

    def meant(self, name: str) -> list[str]:
        """The known key that is similar to an unknown one, in a list, or an empty list."""
        return near(self._allowed_keys, name)

    def unknown_key(self, name: str, meant: list[str]) -> Mismatch:
        """The error for a key that no alternative has; `meant`: the known key that is similar to it, see above."""
        if self.free:
            return Mismatch(f"a key may not be {name!r}", about=name)
        hint = suggestion(meant)
        if not hint and len(self._allowed_keys) <= MAX_LISTED:
            names = listed(self._allowed_keys)
            hint = f"; there are: {names}" if names else "; there are none"
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
