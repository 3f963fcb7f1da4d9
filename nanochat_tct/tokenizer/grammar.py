"""A compiled grammar at work: JSON values to base tokens and back.

A base token is one character of a Python string, so that slicing, joining and looking up runs at C speed:
characters 0 to 255 are the bytes of free text, then come padding, the structure below, and the literals (known keys
and members of enumerations). How a value is written depends on its node alone:

- null, true, false: one token each; a member of an enumeration, where the node has no free text: its literal;
- text: its UTF-8 bytes, then END; a number: its JSON text, then END;
- an array: its items, then ARRAY_END; an object: its fields, then OBJECT_END; a field is its key (the literal of a
  known key, else bytes and END) and its value;
- NUMBER, ARRAY and OBJECT open a value only where the node allows other kinds too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton, from_strings
from nanochat_tct.tokenizer.errors import TokenizerError

PAD = 256
END, OBJECT, OBJECT_END, ARRAY, ARRAY_END, NUMBER, NULL, TRUE, FALSE = map(chr, range(257, 266))
FIRST_LITERAL = 266
LAST_STRUCTURE = chr(FIRST_LITERAL - 1)
MAX_DEPTH = 128  # levels of arrays and objects in a document
MAX_INTEGER = 10**309
MAX_REMEMBERED = 4096  # remembered answers of one kind at one node: free keys, forms of texts, sets of keys
MAX_LENGTH = 256  # characters of a text or free key that is remembered

AlternativeMasks = tuple[
    int, ...
]  # for each object alternative of a node, a mask over the alternatives of one key's node
Emit = Callable[[str], None]
Walk = Callable[[Any, Emit, int], int]
Read = Callable[[str, int, int], tuple[Any, int, int]]


class Pairs(tuple[tuple[str, Any], ...]):
    """An object's keys and values as a JSON text has them, so that a key that stands twice is not lost."""

    __slots__ = ()


class Mismatch(Exception):
    """A value or a token that the grammar has no place for; the path is filled in on the way out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str | int] = []

    def located(self) -> TokenizerError:
        parts = (str(part).replace("~", "~0").replace("/", "~1") for part in reversed(self.path))
        return TokenizerError("".join(f"/{part}" for part in parts), self.problem)


class Key:
    """What follows one key of an object: its token, the node of its value, and each shape's mask over it."""

    __slots__ = ("child", "masks", "narrows", "prefix")

    def __init__(self, prefix: str, child: Node, masks: AlternativeMasks) -> None:
        self.prefix = prefix
        self.child = child
        self.masks = masks
        # the value decides between shapes where some shape takes only a part of what the node allows
        self.narrows = masks if any(mask not in (0, child.live) for mask in masks) else None

    @property
    def any_text(self) -> bool:
        """Whether every text may follow, and none decides anything."""
        return self.narrows is None and self.child.any_text != 0


class Node:
    """One place of the grammar; see compile.py for the meaning of its description."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.description = description
        self.alternatives: list[list[Any]] = description["alternatives"]
        self.live = (1 << len(self.alternatives)) - 1
        self.constants: dict[str, int] = {}
        self.numbers: list[tuple[int, Automaton]] = []
        self.texts: list[tuple[int, Automaton]] = []
        self.any_text = 0  # the alternatives that take every text
        self.formed: list[tuple[int, Automaton]] = []  # those that ask for a form
        self.literals: dict[str, int] = {}  # value -> mask, when the node's text is enumerations only
        self.arrays: list[tuple[int, int, int | None, int]] = []  # bit, minimum, maximum, mask of items
        self.objects: list[
            tuple[int, tuple[str, ...], int, int | None]
        ] = []  # bit, required, minimum, maximum
        self.array_bits = 0
        self.item: Node | None = None
        self.item_narrows = False  # whether an item decides between array alternatives
        self.known: dict[str, Key] = {}
        self.patterns: list[Automaton] = []
        self.free: dict[int, Key] = {}
        self._free_keys: dict[str, Key] = {}  # these three remember some answers; see _remember
        self._shapes: dict[tuple[str, ...], tuple[int, list[Key]]] = {}
        self._accepted: dict[str, int] = {}
        self.opens = False  # whether arrays, objects and numbers have an opening token here

    def link(self, grammar: Grammar) -> None:
        automata = grammar.automata
        only_enumerations = all(a[0] != "text" for a in self.alternatives)
        for index, (kind, *details) in enumerate(self.alternatives):
            bit = 1 << index
            if kind in ("null", "true", "false"):
                self.constants[{"null": NULL, "true": TRUE, "false": FALSE}[kind]] = bit
            elif kind == "number":
                self.numbers.append((bit, automata[details[0]]))
            elif kind == "text":
                self.texts.append((bit, automata[details[0]]))
            elif kind == "enum":
                if only_enumerations:
                    for value in details[0]:
                        self.literals[value] = self.literals.get(value, 0) | bit
                else:
                    self.texts.append((bit, from_strings(details[0])))
            elif kind == "array":
                self.arrays.append((bit, *details))
            else:
                self.objects.append((bit, tuple(details[0]), details[1], details[2]))
        self.any_text = sum(bit for bit, pattern in self.texts if pattern == ANY_STRING)
        self.formed = [(bit, pattern) for bit, pattern in self.texts if pattern != ANY_STRING]
        kinds = [bool(self.constants), bool(self.numbers), bool(self.texts or self.literals)]
        self.opens = sum([*kinds, bool(self.arrays), bool(self.objects)]) > 1
        nodes = grammar.nodes
        self.array_bits = sum(bit for bit, _, _, _ in self.arrays)
        if self.arrays:
            self.item = nodes[self.description["item"]]
            self.item_narrows = any(mask != self.item.live for _, _, _, mask in self.arrays)
        if self.objects:
            for name, (child, masks) in self.description["known"].items():
                self.known[name] = Key(grammar.literals[name], nodes[child], tuple(masks))
            self.patterns = [automata[number] for number in self.description["patterns"]]
            for matched, (child, masks) in self.description["free"].items():
                self.free[int(matched)] = Key("", nodes[child], tuple(masks))

    def kinds(self) -> str:
        """The kinds of value that may stand here, for messages."""
        names = []
        if self.objects:
            names.append("an object")
        if self.arrays:
            names.append("an array")
        if self.texts:
            names.append("a string")
        if self.literals:
            shown = list(self.literals)
            names.append(
                "one of " + ", ".join(repr(v) for v in shown[:6]) + (", ..." if len(shown) > 6 else "")
            )
        if self.numbers:
            names.append("a number")
        if TRUE in self.constants or FALSE in self.constants:
            names.append("a boolean")
        if NULL in self.constants:
            names.append("null")
        return " or ".join(names) if names else "nothing"

    def class_of(self, key: bytes) -> int:
        return sum(1 << i for i, pattern in enumerate(self.patterns) if pattern.accepts(key))

    def key(self, name: str) -> Key | None:
        """What follows a key in this object; None where no shape takes it."""
        found = self.known.get(name)
        if found is not None:
            return found if any(found.masks) else None
        remembered = self._free_keys.get(name)
        if remembered is not None:
            return remembered
        encoded = _utf8(name)
        free = self.free.get(self.class_of(encoded))
        if free is None:
            return None
        key = Key(encoded.decode("latin-1") + END, free.child, free.masks)
        if len(name) <= MAX_LENGTH:
            _remember(self._free_keys, name, key)
        return key

    def accepts_text(self, base: str) -> int:
        """The alternatives that accept a text, given as base tokens."""
        accepted = self.any_text
        if self.formed:
            known = self._accepted.get(base)
            if known is not None:
                return known
            encoded = _bytes(base)
            accepted += sum(bit for bit, pattern in self.formed if pattern.accepts(encoded))
            if len(base) <= MAX_LENGTH:
                _remember(self._accepted, base, accepted)
        return accepted

    def shapes_with(self, keys: tuple[str, ...]) -> tuple[int, list[Key]]:
        """The object alternatives that keys, in any order, leave possible, and what follows each key.

        Raises:
            Mismatch: no alternative has just these keys.
        """
        known = self._shapes.get(keys)
        if known is not None:
            return known
        found: list[Key] = []
        for name in keys:
            key = self.key(name)
            if key is None:
                raise Mismatch(f"unknown key {name!r}" if not self.free else f"a key may not be {name!r}")
            found.append(key)
        alive = 0
        for index, (bit, required, minimum, maximum) in enumerate(self.objects):
            if (
                all(key.masks[index] for key in found)
                and all(name in keys for name in required)
                and len(keys) >= minimum
                and (maximum is None or len(keys) <= maximum)
            ):
                alive |= bit
        if not alive:
            raise Mismatch(self._why_not(keys, found))
        _remember(self._shapes, keys, (alive, found))
        return alive, found

    def _why_not(self, keys: tuple[str, ...], found: list[Key]) -> str:
        """The complaint of the alternative that came nearest."""
        complaints: list[tuple[int, str]] = []
        for index, (_, required, minimum, maximum) in enumerate(self.objects):
            wrong = [name for name, key in zip(keys, found, strict=True) if not key.masks[index]]
            missing = [name for name in required if name not in keys]
            rest = [name for name in keys if name not in wrong]
            if wrong and required and not missing:
                complaints.append((len(wrong), f"{wrong[0]!r} cannot stand beside {required[0]!r}"))
            elif wrong and rest:
                complaints.append(
                    (2 * len(wrong), f"{wrong[0]!r} cannot stand beside {', '.join(map(repr, rest))}")
                )
            elif missing:
                complaints.append((3 * len(wrong) + len(missing), f"missing {missing[0]!r}"))
            elif len(keys) < minimum:
                complaints.append((1, f"has {len(keys)} keys, needs at least {minimum}"))
            else:
                complaints.append((4, f"has {len(keys)} keys, takes at most {maximum}"))
        least = min(complaints)[0]
        nearest = list(dict.fromkeys(text for score, text in complaints if score == least))
        if len(nearest) > 1 and all(text.startswith("missing ") for text in nearest):
            return "missing one of " + ", ".join(text.removeprefix("missing ") for text in nearest)
        return nearest[0]

    def narrow(self, alive: int, masks: AlternativeMasks, accepted: int) -> int:
        """The object alternatives that remain when a key's value was accepted by some alternatives of its node."""
        for index, (bit, *_) in enumerate(self.objects):
            if alive & bit and not masks[index] & accepted:
                alive &= ~bit
        return alive

    def narrow_items(self, alive: int, accepted: int) -> int:
        """The array alternatives that remain when an item was accepted by some alternatives of its node."""
        for bit, _, _, mask in self.arrays:
            if not mask & accepted:
                alive &= ~bit
        return alive

    def arrays_of_length(self, alive: int, length: int) -> int:
        """The array alternatives among the given ones that an array of this length belongs to.

        Raises:
            Mismatch: none takes this length.
        """
        fitting = 0
        for bit, minimum, maximum, _ in self.arrays:
            if alive & bit and length >= minimum and (maximum is None or length <= maximum):
                fitting |= bit
        if not fitting:
            least = min(minimum for bit, minimum, _, _ in self.arrays if alive & bit)
            wanted = f"needs at least {least}" if length < least else "takes fewer"
            raise Mismatch(f"an array of {length} items where the schema {wanted}")
        return fitting


class Grammar:
    """Nodes, automata and literals of one vocabulary file.

    Args:
        compiled: what ``compile.compile_schema`` returned, or the same read back from a file.
    """

    def __init__(self, compiled: dict[str, Any]) -> None:
        self.automata = [
            Automaton(
                tuple(map(bool, a["accepting"])),
                tuple(tuple(zip(e[::3], e[1::3], e[2::3], strict=True)) for e in a["edges"]),
            )
            for a in compiled["automata"]
        ]
        self.literals = {text: chr(FIRST_LITERAL + i) for i, text in enumerate(compiled["literals"])}
        self.texts = {character: text for text, character in self.literals.items()}
        self.nodes = [Node(description) for description in compiled["nodes"]]
        for node in self.nodes:
            node.link(self)
        self._walks: dict[int, Walk] = {}
        self._reads: dict[int, Read] = {}
        self.root = self.nodes[0]
        self._walk_root = self.walk_of(self.root)
        self._read_root = self._reader(self.root)

    @property
    def base_size(self) -> int:
        """Number of base tokens: bytes, padding, structure and literals."""
        return FIRST_LITERAL + len(self.literals)

    def write(self, value: Any) -> str:
        """The base tokens of a document, whose objects are dictionaries or Pairs.

        Raises:
            TokenizerError: the value is not valid under the schema; it names the place.
        """
        pieces: list[str] = []
        try:
            self._walk_root(value, pieces.append, 1)
        except Mismatch as error:
            raise error.located() from None
        return "".join(pieces)

    def read(self, base: str) -> tuple[Any, int]:
        """The document that base tokens begin with, and how many of them it takes.

        Raises:
            TokenizerError: they are cut off, or not those of a valid document; it names the place.
        """
        try:
            value, position, _ = self._read_root(base, 0, 1)
        except Mismatch as error:
            raise error.located() from None
        except IndexError:
            raise TokenizerError(
                "", f"cut off after {len(base)} base tokens; decode_prefix completes it"
            ) from None
        return value, position

    # ---- values to base tokens ----

    def walk_of(self, node: Node) -> Walk:
        """The function that writes a value at a node; it returns the mask of the alternatives that accept it."""
        known = self._walks.get(id(node))
        if known is None:
            self._walks[id(node)] = known = self._build_walk(node)
        return known

    def _build_walk(self, node: Node) -> Walk:
        texts = node.texts
        walk_object = self._object_walk(node)
        walk_array = self._array_walk(node)

        def walk(value: Any, emit: Emit, depth: int) -> int:
            kind = type(value)
            if kind is str:
                if texts:
                    base = value if value.isascii() else _utf8(value).decode("latin-1")
                    accepted = node.accepts_text(base)
                    if not accepted:
                        raise Mismatch(f"{_shown(value)} does not have the form that is asked for here")
                    emit(base + END)
                    return accepted
                accepted = node.literals.get(value, 0)
                if accepted:
                    emit(literals[value])
                    return accepted
            elif kind is Pairs or kind is dict:
                if node.objects:
                    return walk_object(value if kind is Pairs else value.items(), emit, depth)
            elif kind is list:
                if node.arrays:
                    return walk_array(value, emit, depth)
            elif kind is bool or value is None:
                token = NULL if value is None else TRUE if value else FALSE
                if token in node.constants:
                    emit(token)
                    return node.constants[token]
            elif kind is int or kind is float:
                if node.numbers:
                    if kind is int and not -MAX_INTEGER < value < MAX_INTEGER:
                        raise Mismatch("an integer has at most 309 digits")
                    text = repr(value)
                    accepted = sum(bit for bit, pattern in node.numbers if pattern.accepts(text.encode()))
                    if not accepted:
                        raise Mismatch(f"{text} is not a number that is allowed here")
                    emit(NUMBER + text + END if node.opens else text + END)
                    return accepted
            else:
                raise Mismatch(f"a {kind.__name__} is not a JSON value")
            raise _wrong_kind(node, value)

        literals = self.literals
        return walk

    def _object_walk(self, node: Node) -> Callable[[Collection[tuple[str, Any]], Emit, int], int]:
        opening = OBJECT if node.opens else ""
        plans: dict[tuple[str, ...], tuple[int, list[tuple[str, bool, Walk, AlternativeMasks | None]]]] = {}

        def plan_of(
            names: tuple[str, ...],
        ) -> tuple[int, list[tuple[str, bool, Walk, AlternativeMasks | None]]]:
            """The alternatives with these keys; for each key what it writes, and how its value is written."""
            if not all(type(name) is str for name in names):
                raise Mismatch("a key is not a string")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise Mismatch(f"the key {twice!r} stands twice in one object")
            alive, keys = node.shapes_with(names)
            fields = [(key.prefix, key.any_text, self.walk_of(key.child), key.narrows) for key in keys]
            _remember(plans, names, (alive, fields))
            return alive, fields

        def walk_object(pairs: Collection[tuple[str, Any]], emit: Emit, depth: int) -> int:
            if depth > MAX_DEPTH:
                raise Mismatch(f"nested deeper than {MAX_DEPTH} levels")
            names: tuple[str, ...]
            names, children = zip(*pairs, strict=True) if pairs else ((), ())
            alive, fields = plans.get(names) or plan_of(names)
            if opening:
                emit(opening)
            depth += 1
            index = 0
            try:
                for (prefix, any_text, walk, narrows), child in zip(fields, children, strict=True):
                    if any_text and type(child) is str and child.isascii():
                        emit(prefix + child + END)  # as walk would; most values are these
                    else:
                        emit(prefix)
                        accepted = walk(child, emit, depth)
                        if narrows is not None:
                            alive = node.narrow(alive, narrows, accepted)
                            if not alive:
                                raise _contradiction(child)
                    index += 1
            except Mismatch as error:
                error.path.append(names[index])
                raise
            emit(OBJECT_END)
            return alive

        return walk_object

    def _array_walk(self, node: Node) -> Walk:
        opening = ARRAY if node.opens else ""

        def walk_array(value: list[Any], emit: Emit, depth: int) -> int:
            if depth > MAX_DEPTH:
                raise Mismatch(f"nested deeper than {MAX_DEPTH} levels")
            assert node.item is not None
            if opening:
                emit(opening)
            walk = self.walk_of(node.item)
            depth += 1
            alive = node.array_bits
            index = 0
            try:
                for index, item in enumerate(value):  # noqa: B007
                    accepted = walk(item, emit, depth)
                    if node.item_narrows:
                        alive = node.narrow_items(alive, accepted)
                        if not alive:
                            raise _contradiction(item)
            except Mismatch as error:
                error.path.append(index)
                raise
            emit(ARRAY_END)
            return node.arrays_of_length(alive, len(value))

        return walk_array

    # ---- base tokens to values ----

    def _reader(self, node: Node) -> Read:
        known = self._reads.get(id(node))
        if known is None:
            self._reads[id(node)] = known = self._build_read(node)
        return known

    def _build_read(self, node: Node) -> Read:
        read_object = self._object_read(node)
        read_array = self._array_read(node)
        constants = {NULL: None, TRUE: True, FALSE: False}
        texts, literals, opens = node.texts, self.texts, node.opens
        numbers_only = bool(node.numbers) and not opens

        def read(base: str, position: int, depth: int) -> tuple[Any, int, int]:
            character = base[position]
            if opens:
                if character == OBJECT and node.objects:
                    return read_object(base, position + 1, depth)
                if character == ARRAY and node.arrays:
                    return read_array(base, position + 1, depth)
                if character in node.constants:
                    return constants[character], position + 1, node.constants[character]
            elif node.objects:
                return read_object(base, position, depth)
            elif node.arrays:
                return read_array(base, position, depth)
            elif character in node.constants:
                return constants[character], position + 1, node.constants[character]
            if node.numbers and (numbers_only or character == NUMBER):
                start = position if numbers_only else position + 1
                stop = base.find(END, start)
                if stop < 0:
                    raise IndexError
                accepted = sum(
                    bit for bit, pattern in node.numbers if pattern.accepts(_bytes(base[start:stop]))
                )
                if accepted:
                    return json.loads(base[start:stop]), stop + 1, accepted
                raise Mismatch(f"{base[start:stop]!r} is not a number that is allowed here")
            if texts and (character == END or character <= "\xff"):
                stop = base.find(END, position)
                if stop < 0:
                    raise IndexError
                text = base[position:stop]
                accepted = node.accepts_text(text)
                if not accepted:
                    raise Mismatch("a string does not have the form that is asked for here")
                return text if text.isascii() else _text(text), stop + 1, accepted
            value = literals.get(character)
            if value is not None and value in node.literals and not texts:
                return value, position + 1, node.literals[value]
            raise Mismatch(f"base token {position} ({self.name(character)}) is not one of {node.kinds()}")

        return read

    def _object_read(self, node: Node) -> Read:
        # what a key's base tokens stand for: its name, what follows it, and whether that may be any text
        fields: dict[str, tuple[str, Key | None, bool]] = {}
        reader = self._reader

        def read_key(token: str) -> tuple[str, Key | None, bool]:
            """What stands in fields; for a literal, or for the bytes of a free key."""
            name = self.texts.get(token)
            if name is not None:
                key = node.known.get(name)
            else:
                name = token if token.isascii() else _text(token)
                key = None if name in node.known else node.key(name)
            field = name, key, key is not None and key.any_text
            if len(token) <= MAX_LENGTH:
                _remember(fields, token, field)
            return field

        def read_object(base: str, position: int, depth: int) -> tuple[Any, int, int]:
            if depth > MAX_DEPTH:
                raise Mismatch(f"nested deeper than {MAX_DEPTH} levels")
            value: dict[str, Any] = {}
            depth += 1
            name = ""
            narrowing: list[tuple[AlternativeMasks, int]] = []
            try:
                while (character := base[position]) != OBJECT_END:
                    if character > LAST_STRUCTURE:
                        position += 1
                    else:
                        stop = base.find(END, position)
                        if stop < 0:
                            raise IndexError
                        character, position = base[position:stop], stop + 1
                    name, key, any_text = fields.get(character) or read_key(character)
                    if key is None:
                        raise Mismatch("is not a key of this object")
                    if name in value:
                        raise Mismatch("stands twice in one object")
                    if any_text:
                        stop = base.find(END, position)
                        text = base[position:stop]
                        if (
                            text.isascii() and stop >= 0
                        ):  # a text as the reader would find it; most values are these
                            value[name] = text
                            position = stop + 1
                            continue
                    value[name] = None  # the place in the order, also while the value is read
                    value[name], position, accepted = reader(key.child)(base, position, depth)
                    if key.narrows is not None:
                        narrowing.append((key.narrows, accepted))
            except Mismatch as error:
                error.path.append(name)
                raise
            alive, _ = node.shapes_with(tuple(value))
            for narrows, accepted in narrowing:
                alive = node.narrow(alive, narrows, accepted)
            if not alive:
                raise Mismatch("its values contradict each other")
            return value, position + 1, alive

        return read_object

    def _array_read(self, node: Node) -> Read:
        def read_array(base: str, position: int, depth: int) -> tuple[Any, int, int]:
            if depth > MAX_DEPTH:
                raise Mismatch(f"nested deeper than {MAX_DEPTH} levels")
            assert node.item is not None
            read = self._reader(node.item)
            alive = node.array_bits
            value: list[Any] = []
            depth += 1
            try:
                while base[position] != ARRAY_END:
                    item, position, accepted = read(base, position, depth)
                    value.append(item)
                    if node.item_narrows:
                        alive = node.narrow_items(alive, accepted)
                        if not alive:
                            raise _contradiction(item)
            except Mismatch as error:
                error.path.append(len(value))
                raise
            return value, position + 1, node.arrays_of_length(alive, len(value))

        return read_array

    def name(self, character: str) -> str:
        """A base token as a person reads it."""
        code = ord(character)
        if code < 256:
            return repr(chr(code)) if 32 <= code < 127 else f"byte {code:#04x}"
        names = {
            END: "end of text",
            OBJECT: "{",
            OBJECT_END: "}",
            ARRAY: "[",
            ARRAY_END: "]",
            NUMBER: "number",
            NULL: "null",
            TRUE: "true",
            FALSE: "false",
        }
        return names.get(character) or self.texts.get(character, f"id {code}")


def _remember(answers: dict[Any, Any], question: Any, answer: Any) -> None:
    """Keeps an answer, and forgets all others once they are many: documents come from strangers."""
    if len(answers) >= MAX_REMEMBERED:
        answers.clear()
    answers[question] = answer


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise Mismatch(f"{_shown(text)} has a lone surrogate, which is not Unicode text") from None


def _bytes(base: str) -> bytes:
    try:
        return base.encode("latin-1")
    except UnicodeEncodeError:
        raise Mismatch("a structure token inside a text") from None


def _text(base: str) -> str:
    try:
        return _bytes(base).decode("utf-8")
    except UnicodeDecodeError:
        raise Mismatch("the bytes of a text are not UTF-8") from None


def _shown(value: Any) -> str:
    text = ascii(_plain(value))
    return text if len(text) <= 60 else text[:56] + "...'"


def _plain(value: Any) -> Any:
    """A value with dictionaries for Pairs, for messages."""
    if type(value) is Pairs:
        return {name: _plain(child) for name, child in value}
    return [_plain(item) for item in value] if type(value) is list else value


def _wrong_kind(node: Node, value: Any) -> Mismatch:
    names = {
        str: "a string",
        dict: "an object",
        Pairs: "an object",
        list: "an array",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    shown = "null" if value is None else names.get(type(value), type(value).__name__)
    if isinstance(value, str | bool | int | float):
        shown += f" {_shown(value)}"
    return Mismatch(f"{shown} where {node.kinds()} is expected")


def _contradiction(value: Any) -> Mismatch:
    return Mismatch(f"{_shown(value)} does not fit the other values of this object or array")
