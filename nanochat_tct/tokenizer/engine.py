"""The binding of engine.c: a grammar and tokens at work.

Base tokens are characters of a Python string here, numbers of 16 bits there (``codes``); engine.c says what they mean.
"""

from __future__ import annotations

import ctypes
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nanochat_tct.compiled import load_library
from nanochat_tct.tokenizer.automaton import Automaton, classes_of_keys, from_strings
from nanochat_tct.tokenizer.errors import SchemaError

PAD = 256
END, OBJECT, OBJECT_END, ARRAY, ARRAY_END, NUMBER, NULL, TRUE, FALSE = map(chr, range(257, 266))
FIRST_LITERAL = 266
MAX_DEPTH = 128  # levels of arrays and objects in a document
UNBOUNDED = 2**64 - 1
FAILED, DONE, OPEN, NO_MEMORY = 0, 1, 2, -1
NO_FINITE_VALUE = 3
LENIENT, STRICT, GENERATING, PROMPT = range(4)  # modes of matchers
MAX_MASKS = 8_000  # that are kept as Python's bytes
SOURCE = Path(__file__).with_name("engine.c")
CONSTANTS = {"null": NULL, "true": TRUE, "false": FALSE}
KIND_CODES = {
    **CONSTANTS,
    "text": END,
    "number": NUMBER,
    "array": ARRAY,
    "object": OBJECT,
    "enum": chr(FIRST_LITERAL),
}


def grammar_numbers(grammar: dict[str, Any]) -> array[int]:
    """A grammar as numbers of 64 bits, in the order in which ``load_grammar`` in engine.c takes them."""
    writer = _Packer(grammar)
    nodes = array("Q")
    for description in grammar["nodes"]:
        nodes.extend(writer.node(description))
    numbers = array(
        "Q", [writer.mask_words, len(writer.literals), len(writer.automata), len(grammar["nodes"])]
    )
    numbers.append(grammar.get("ignore_key_case", False))
    numbers.extend([grammar.get("max_call_depth", 0), grammar.get("max_call_units", 0)])
    numbers.extend(map(writer.kind, [*grammar.get("graph", ("", "")), "output"]))
    while_open = grammar.get("while_open", {})
    numbers.extend([len(while_open), *(writer.kind(kind) for pair in while_open.items() for kind in pair)])
    implied = [
        (kind, text, names)
        for kind, texts in grammar.get("implied", {}).items()
        for text, names in texts.items()
    ]
    numbers.append(len(implied))
    for kind, text, names in implied:
        numbers.extend([writer.kind(kind), *_counted(text), names is None, len(names or [])])
        for name in names or []:
            numbers.extend(_counted(name))
    for text in grammar["literals"]:
        numbers.extend(_counted(text))
    for automaton in writer.automata:
        numbers.extend(_automaton_numbers(automaton, writer.kinds))
    return numbers + nodes


def _counted(text: str) -> list[int]:
    encoded = text.encode()
    return [len(encoded), *encoded]


def _automaton_numbers(description: dict[str, Any], kinds: dict[str, int]) -> Iterator[int]:
    states = len(description["accepting"])
    calls = [flat[i : i + 4] for flat in description.get("calls", []) for i in range(0, len(flat), 4)]
    table = np.zeros((states, 256), dtype=np.int64)  # 0: no next state
    for state, flat in enumerate(description["edges"]):
        for low, high, target in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            table[state, low : high + 1] = target + 1
    number = states
    for state, flat in enumerate(description.get("calls", [])):
        for low, high in zip(flat[::4], flat[1::4], strict=True):
            number += 1
            table[state, low : high + 1] = number
    # bytes that lead to the same states from everywhere are one class, which keeps the table small
    class_of: dict[bytes, int] = {}
    classes = [class_of.setdefault(column.tobytes(), len(class_of)) for column in table.T] if states else []
    columns = table[:, [classes.index(each) for each in range(len(class_of))]]
    names, depth = description.get("names") or "", description.get("depth", 0)
    yield from (states, columns.shape[1], len(calls), kinds.get(names, 0), depth)
    if states:
        yield from classes
    accepting = np.array(description["accepting"], dtype=np.int64)
    strict = np.array(description.get("strict") or accepting, dtype=np.int64)
    lenient, requires = np.zeros((2, states), dtype=np.int64)
    lenient[description.get("lenient") or []] = 1
    for state, kind in description.get("requires") or []:
        requires[state] |= 1 << kinds[kind]
    yield from np.column_stack([accepting, strict, lenient, requires, columns]).ravel().tolist()
    for _, _, callee, return_state in calls:
        yield from (callee, return_state)


def describe_automaton(automaton: Automaton) -> dict[str, Any]:
    """An automaton as the grammar has it."""
    edges = [[number for edge in row for number in edge] for row in automaton.edges]
    return {"accepting": list(automaton.accepting), "edges": edges}


def automaton_of(description: dict[str, Any]) -> Automaton:
    """An automaton without calls from what the grammar has of it."""
    rows = (tuple(zip(e[::3], e[1::3], e[2::3], strict=True)) for e in description["edges"])
    return Automaton(tuple(map(bool, description["accepting"])), tuple(rows))


@dataclass
class _Alternatives:
    """The numbers of a node's alternatives by their kind, and the places of its known keys."""

    known: dict[str, int]
    listed: list[int] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CONSTANTS, 0))
    texts: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    arrays: list[int] = field(default_factory=list)
    array_count: int = 0
    objects: list[int] = field(default_factory=list)
    object_count: int = 0


class _Packer:
    """Writes the nodes of a grammar; adds the automata of enumerations beside texts, and of classes of keys."""

    def __init__(self, grammar: dict[str, Any]) -> None:
        self.automata: list[dict[str, Any]] = list(grammar["automata"])
        self.literals = {text: index for index, text in enumerate(grammar["literals"])}
        self.mask_words = max(-(-len(node["alternatives"]) // 64) for node in grammar["nodes"]) or 1
        self.kinds: dict[str, int] = {}
        for description in self.automata:
            self.kind(description.get("names"))
            for _, kind in description.get("requires") or []:
                self.kind(kind)
        self.numbers: dict[Automaton, int] = {}
        self.classes: dict[tuple[int, ...], dict[int, Automaton | int]] = {}

    def automaton(self, automaton: Automaton | int) -> int:
        if isinstance(automaton, int):
            return automaton
        if automaton not in self.numbers:
            self.numbers[automaton] = len(self.automata)
            self.automata.append(describe_automaton(automaton))
        return self.numbers[automaton]

    def kind(self, name: str | None) -> int:
        return self.kinds.setdefault(name, len(self.kinds) + 1) if name else 0

    def mask(self, mask: int) -> list[int]:
        return [mask >> 64 * word & UNBOUNDED for word in range(self.mask_words)]

    def key(self, target: list[Any]) -> list[int]:
        child, masks = target
        return [child, *(number for mask in masks for number in self.mask(mask))]

    def node(self, description: dict[str, Any]) -> list[int]:
        alternatives = description["alternatives"]
        kinds = {kind for kind, *_ in alternatives}
        groups = [{"null", "true", "false"}, {"number"}, {"text", "enum"}, {"array"}, {"object"}]
        opens = sum(bool(kinds & group) for group in groups) > 1
        parts = _Alternatives({name: place for place, name in enumerate(description.get("known", {}))})
        for index, (kind, *details) in enumerate(alternatives):
            self.alternative(index, kind, details, parts, has_text="text" in kinds)
        packed = [opens, len(alternatives), *parts.listed]
        for mask in parts.constants.values():
            packed += self.mask(mask)
        packed += self.mask(sum(1 << index for index in description.get("lenient", [])))
        for form in (parts.texts, parts.numbers):
            packed += [len(form) // 2, *form]
        packed.append(len(parts.members))
        for value, mask in parts.members.items():
            packed += [self.literals[value], *self.mask(mask)]
        packed += [parts.array_count, *parts.arrays]
        if parts.array_count:
            packed.append(description["item"])
        packed += self.keys(description, parts) if "object" in kinds else [0, 0, 0]
        return packed + self.definitions(description)

    def alternative(
        self, index: int, kind: str, details: list[Any], parts: _Alternatives, has_text: bool
    ) -> None:
        """Add an alternative to the parts of its node; beside texts, an enumeration is a text too."""
        detail = 0  # of the kind: its automaton, first literal, or place among those of its kind
        if kind in CONSTANTS:
            parts.constants[kind] |= 1 << index
        elif kind == "enum" and not has_text:
            for value in details[0]:
                parts.members[value] = parts.members.get(value, 0) | 1 << index
            detail = self.literals[next(value for value, mask in parts.members.items() if mask >> index & 1)]
        elif kind in ("text", "number", "enum"):
            detail = self.automaton(from_strings(details[0])) if kind == "enum" else details[0]
            kind = "number" if kind == "number" else "text"
            (parts.numbers if kind == "number" else parts.texts).extend([index, detail])
        elif kind == "array":
            detail = parts.array_count
            minimum, maximum, items = details
            parts.arrays += [index, minimum, UNBOUNDED if maximum is None else maximum, *self.mask(items)]
            parts.array_count += 1
        else:
            detail = parts.object_count
            required, minimum, maximum = details
            parts.objects += [index, minimum, UNBOUNDED if maximum is None else maximum]
            parts.objects += [len(required), *(parts.known[name] for name in required)]
            parts.object_count += 1
        parts.listed += [ord(KIND_CODES[kind]), detail]

    def keys(self, description: dict[str, Any], parts: _Alternatives) -> list[int]:
        """The keys of an object."""
        packed = [len(parts.known), parts.object_count, *parts.objects]
        for name, target in description["known"].items():
            packed += [self.literals[name], *self.key(target)]
        names = self.names(description["patterns"])
        free = [(names.get(int(matched)), target) for matched, target in description["free"].items()]
        packed.append(sum(found is not None for found, _ in free))
        for found, target in free:
            if found is not None:
                packed += [self.automaton(found), *self.key(target)]
        return packed

    def definitions(self, description: dict[str, Any]) -> list[int]:
        """What a node's keys and texts define, and the kinds of names that it has in scope or closes."""
        packed = []
        for where in ("keys", "text"):
            found = description.get("defines", {}).get(where, {})
            unique = found.get("unique", "")
            packed += [self.kind(found.get("kind")), unique == "always", unique == "strict"]
            packed += [found.get("late", False), found.get("opens", False)]
        packed.append(self.kind(description.get("implies")))
        for where in ("scope", "closes"):
            packed.append(sum(1 << self.kind(kind) for kind in description.get(where, ())))
        return packed

    def names(self, patterns: list[int]) -> dict[int, Automaton | int]:
        """The keys that match just the patterns of a class, for each class that has some."""
        key = tuple(patterns)
        if len(key) == 1 and self.automata[key[0]].get("calls"):
            return {1: key[0]}  # what does not match it is not of use
        if key not in self.classes:
            self.classes[key] = dict(
                classes_of_keys([automaton_of(self.automata[number]) for number in patterns])
            )
        return self.classes[key]


def codes_of(base: str) -> bytes:
    """Base tokens as numbers of 16 bits."""
    return base.encode("utf-16-le", "surrogatepass")


def _base(library: ctypes.CDLL, engine: int) -> str:
    """What engine_codes has."""
    count = ctypes.c_size_t()
    codes = library.engine_codes(engine, ctypes.byref(count))
    return (
        ctypes.string_at(codes, 2 * count.value).decode("utf-16-le", "surrogatepass") if count.value else ""
    )


def _ids(tokens: Sequence[int]) -> bytes:
    """Token ids as numbers of 32 bits; one that is out of range becomes the largest, which is no id."""
    try:
        return array("I", tokens).tobytes()
    except OverflowError:
        return array("I", [token if 0 <= token < 2**32 else 2**32 - 1 for token in tokens]).tobytes()


def _check(result: int) -> int:
    if result == NO_MEMORY:
        raise MemoryError("the tokenizer has run out of memory")
    return result


def base_name(grammar: dict[str, Any], character: str) -> str:
    """A base token as a person reads it."""
    code = ord(character)
    if code < PAD:
        return repr(character) if 32 <= code < 127 else f"byte {code:#04x}"
    if code >= FIRST_LITERAL:
        literals: list[str] = grammar["literals"]
        return literals[code - FIRST_LITERAL] if code < FIRST_LITERAL + len(literals) else f"id {code}"
    return ["padding", "end of text", "{", "}", "[", "]", "number", "null", "true", "false"][code - PAD]


class Segmenter:
    """Base tokens to the longest token in each position, from left to right, and back.

    (Greedy segmentation of a vocabulary that was chosen for it takes about as few tokens as the shortest one: Uzan et
    al., "Greed is all you need", 2024.)

    Args:
        expansions: the base tokens of each token. A base token that is no token itself is left out.
        has_strings: the trie also has what may be left of a token after structure, which masks need.
    """

    def __init__(self, expansions: Sequence[str], has_strings: bool = False) -> None:
        self.expansions = list(expansions)
        self._library = library()
        lengths = (ctypes.c_uint32 * len(self.expansions))(*map(len, self.expansions))
        codes = codes_of("".join(self.expansions))
        self.trie = self._library.trie_new(codes, lengths, len(self.expansions), has_strings)
        if not self.trie:
            raise MemoryError("the tokenizer has run out of memory")
        weakref.finalize(self, self._library.trie_free, self.trie)

    def encode(self, base: str) -> list[int]:
        """Base tokens to token ids."""
        ids: list[int] = self.cut(codes_of(base)).tolist()
        return ids

    def cut(self, codes: bytes) -> np.ndarray:
        """As ``encode`` for the numbers of base tokens; the ids are uint32."""
        ids = np.empty(len(codes) // 2, dtype=np.uint32)
        count = self._library.trie_cut(self.trie, codes, len(ids), ids.ctypes.data)
        return ids[:count]

    def decode(self, tokens: Iterable[int]) -> str:
        """Token ids to base tokens."""
        return "".join(map(self.expansions.__getitem__, tokens))

    def begins_longer_token(self, base: str) -> bool:
        """Whether some token begins with these base tokens and has more."""
        return bool(self._library.trie_continues(self.trie, codes_of(base), len(base)))


class Engine:
    """A grammar and tokens at work.

    Args:
        grammar: what ``compile.compile_schema`` returned, or the same read back from a file.
        tokens: the base tokens of the ids after those of the base tokens themselves.

    Raises:
        SchemaError: no finite value is valid under the grammar.
    """

    def __init__(self, grammar: dict[str, Any], tokens: Sequence[str] = ()) -> None:
        self.grammar = grammar
        self.base_size = FIRST_LITERAL + len(grammar["literals"])
        self.segmenter = Segmenter([*map(chr, range(self.base_size)), *tokens], has_strings=True)
        self.library = library()
        numbers = grammar_numbers(grammar)
        problem = ctypes.c_int()
        self.pointer = self.library.engine_new(
            numbers.tobytes(), len(numbers), self.segmenter.trie, ctypes.byref(problem)
        )
        if not self.pointer:
            _check(problem.value)
            if problem.value == NO_FINITE_VALUE:
                raise SchemaError("no finite value is valid under this schema")
            raise ValueError("not a grammar, or a larger one than the tokenizer takes")
        weakref.finalize(self, self.library.engine_free, self.pointer)
        self._accepted = (ctypes.c_uint64 * 8)()
        self._masks: dict[int, bytes] = {}
        self._legal = np.empty(len(self.segmenter.expansions), dtype=bool)  # what a call fills in
        self._legal_address = self._legal.ctypes.data
        self._decoded = (ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t())
        self._decoded_at = [ctypes.addressof(each) for each in self._decoded]

    def encode(self, text: bytes) -> list[int] | None:
        """Token ids of a document's JSON text in UTF-8; None: it is not valid."""
        ids = ctypes.POINTER(ctypes.c_uint32)()
        count = self.library.engine_encode(self.pointer, text, len(text), ctypes.byref(ids))
        if count < 0:
            _check(NO_MEMORY if count == -2 else 0)
            return None
        return array("I", ctypes.string_at(ids, 4 * count)).tolist()

    def write(
        self, text: bytes, node: int = 0, depth: int = 0, matcher: Matcher | None = None
    ) -> tuple[int, str]:
        """The alternatives of a node, as a bit mask, that accept a value, and its base tokens.

        Args:
            text: JSON in UTF-8.
            depth: levels of arrays and objects around the value.
            matcher: which takes the value in its mode, and is of no more use; None: one that is not strict.

        Returns:
            The mask is 0 where the value is not valid.
        """
        machine = matcher.pointer if matcher else None
        result = self.library.engine_write(
            self.pointer, text, len(text), node, depth, machine, self._accepted
        )
        if _check(result) != DONE:
            return 0, ""
        return int.from_bytes(self._accepted, "little"), _base(self.library, self.pointer)

    def read(
        self, base: str, checks_graph: bool = True, behind: Matcher | None = None
    ) -> tuple[int, str, int]:
        """Base tokens to JSON.

        Args:
            checks_graph: jobs must need jobs that are there, without cycles, where the grammar asks for that.
            behind: a lenient matcher that has read the beginning of the document, up to a position outside a number:
                the base tokens and the JSON are the rest.

        Returns:
            DONE, OPEN (they are cut off) or FAILED; the JSON, cut off as well if they are; and how many base tokens
            were read: up to the end of the document, or up to one that no valid document has.
        """
        json, length, consumed = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
        result = self.library.engine_read(
            self.pointer,
            behind.pointer if behind else None,
            codes_of(base),
            len(base),
            checks_graph,
            *map(ctypes.byref, (json, length, consumed)),
        )
        text = ctypes.string_at(json, length.value) if _check(result) in (DONE, OPEN) else b""
        # cut off, it may end inside a character
        return result, text.decode("utf-8", "strict" if result == DONE else "ignore"), consumed.value

    def decode(self, ids: bytes | Sequence[int]) -> tuple[int, str, int]:
        """As ``read`` for token ids (bytes: of 32 bits); it says how many were read; 3: the last reaches further."""
        if not isinstance(ids, bytes):
            ids = _ids(ids)
        result = self.library.engine_decode(self.pointer, ids, len(ids) // 4, *self._decoded_at)
        json, length, consumed = self._decoded
        text = ctypes.string_at(json, length.value) if _check(result) == DONE else b""
        return result, text.decode("utf-8"), consumed.value

    @property
    def error_at(self) -> int:
        """Where in its text the last ``write`` has failed, in bytes."""
        return int(self.library.engine_error_at(self.pointer))

    def masks_of(self, tokens: Sequence[int]) -> list[bytes]:
        """Which tokens are legal in the position of each token of a document: bits, the first token in the highest."""
        ids = array("I", tokens)
        numbers = array("I", bytes(4 * len(ids)))
        legal = self.library.engine_masks_of(self.pointer, ids.tobytes(), len(ids), numbers.buffer_info()[0])
        assert _check(legal) == len(ids), "a token that is not legal in its position"
        masks = {number: self._masks.get(number) or self._mask(number) for number in set(numbers)}
        if len(self._masks) > MAX_MASKS:
            self._masks.clear()
        self._masks |= masks
        return list(map(masks.__getitem__, numbers))

    def _mask(self, number: int) -> bytes:
        size = -(-len(self.segmenter.expansions) // 8)
        return ctypes.string_at(self.library.engine_mask(self.pointer, number), size)

    def matcher(self, is_strict: bool = False) -> Matcher:
        """A matcher before the first base token of a document, which may leave out what GitHub accepts and its
        language service complains of."""
        return self.matcher_in(STRICT if is_strict else LENIENT)

    def matcher_in(self, mode: int) -> Matcher:
        """A matcher of some mode before the first base token of a document.

        Args:
            mode: LENIENT or STRICT, see ``matcher``; GENERATING: strict, and no name is used before its definition;
                PROMPT: lenient until ``Matcher.generate``.
        """
        return Matcher(self, self.library.machine_new(self.pointer, mode))


class Matcher:
    """A position in a document that is being written."""

    def __init__(self, engine: Engine, pointer: int) -> None:
        self.engine, self._library = engine, engine.library
        if not pointer:
            raise MemoryError("the tokenizer has run out of memory")
        self.pointer = pointer

    def __del__(self) -> None:
        self._library.machine_free(self.pointer)

    def copy(self) -> Matcher:
        return Matcher(self.engine, self._library.machine_copy(self.pointer))

    @property
    def is_complete(self) -> bool:
        """Whether the document is complete, so that nothing may follow."""
        return bool(self._library.machine_is_closed(self.pointer))

    @property
    def fields(self) -> int:
        """Keys with the beginning of a value that were read."""
        return int(self._library.machine_fields(self.pointer))

    def advance(self, base: str) -> bool:
        """Reads base tokens, all or, where no valid document has them here, none."""
        return bool(_check(self._library.machine_advance(self.pointer, codes_of(base), len(base), False)))

    def allows(self, base: str) -> bool:
        """Whether some valid document goes on with these base tokens."""
        return bool(_check(self._library.machine_advance(self.pointer, codes_of(base), len(base), True)))

    def advance_token(self, token: int, is_trial: bool = False) -> bool:
        """As ``advance`` for a token; with ``is_trial`` as ``allows``."""
        return token >= 0 and bool(_check(self._library.machine_advance_token(self.pointer, token, is_trial)))

    def generate(self) -> bool:
        """Goes from the mode PROMPT to GENERATING; False where what is on top, or all of it, can only end in lenient
        mode: then nothing changes."""
        return bool(_check(self._library.machine_generate(self.pointer)))

    def advance_tokens(self, ids: array[int]) -> int:
        """Reads token ids ("I") as far as they are legal; returns how many."""
        return int(_check(self._library.machine_advance_tokens(self.pointer, ids.tobytes(), len(ids))))

    def write(self, text: bytes, node: int = 0) -> bool:
        """Reads the JSON of a document, or of a value of a node, from its beginning.

        Args:
            text: which may be cut off between two of its parts.

        Returns: whether some valid document begins so; if not, the matcher is of no more use.
        """
        result = self._library.engine_write(
            self.engine.pointer, text, len(text), node, 0, self.pointer, self.engine._accepted
        )
        return _check(result) != FAILED

    def written(self) -> str:
        """The base tokens that the last ``write`` has read."""
        return _base(self._library, self.engine.pointer)

    def complete(self) -> str:
        """The fewest base tokens that make a whole, valid document of what has been read."""
        result = _check(self._library.machine_complete(self.pointer))
        assert result == DONE
        return _base(self._library, self.engine.pointer)

    def closing(self) -> list[int]:
        """The same as token ids."""
        ids = ctypes.POINTER(ctypes.c_uint32)()
        count = self._library.machine_close(self.pointer, ctypes.byref(ids))
        assert count != -1
        return ids[: _check(count + 1 if count < 0 else count)]

    def legal(self) -> np.ndarray:
        """Which tokens some valid document goes on with: bool (vocab_size,)."""
        _check(self._library.machine_legal(self.pointer, self.engine._legal_address))
        return self.engine._legal.copy()

    def frames(self) -> list[tuple[str, int, int | str]]:
        """What this position is in, from the document inwards: the kind of each part, its node, and the length of an
        array or the key whose value is being read."""
        numbers = (ctypes.c_uint64 * (3 * (MAX_DEPTH + 3)))()
        count = _check(self._library.machine_frames(self.pointer, numbers))
        names = iter(_base(self._library, self.engine.pointer).split(END))
        literals = self.engine.grammar["literals"]
        frames: list[tuple[str, int, int | str]] = []
        for index in range(count):
            kind, node, detail = numbers[3 * index : 3 * index + 3]
            name: int | str = detail
            if KINDS[kind] == "object" and index + 1 < count:
                name = (
                    literals[detail - 1]
                    if detail
                    else next(names).encode("latin-1").decode("utf-8", "replace")
                )
            frames.append((KINDS[kind], node, name))
        return frames


KINDS = ("value", "scalar", "array", "object", "key")


# ---- the library ----


@cache
def library() -> ctypes.CDLL:
    """The compiled engine, which keeps Python's lock: it is not made for two threads.

    Raises:
        UserError: there is none of this version.
    """
    return _declared(load_library(SOURCE, "_engine", "engine_version", ctypes.PyDLL))


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "trie_new": (pointer, [ctypes.c_char_p, pointer, number, ctypes.c_int]),
        "trie_free": (None, [pointer]),
        "trie_cut": (size, [pointer, ctypes.c_char_p, size, pointer]),
        "trie_continues": (ctypes.c_int, [pointer, ctypes.c_char_p, size]),
        "engine_new": (pointer, [ctypes.c_char_p, size, pointer, pointer]),
        "engine_free": (None, [pointer]),
        "engine_write": (
            ctypes.c_int,
            [pointer, ctypes.c_char_p, size, number, number, pointer, pointer],
        ),
        "engine_error_at": (ctypes.c_uint64, [pointer]),
        "engine_codes": (pointer, [pointer, pointer]),
        "engine_encode": (ctypes.c_int64, [pointer, ctypes.c_char_p, size, pointer]),
        "engine_read": (
            ctypes.c_int,
            [pointer, pointer, ctypes.c_char_p, size, ctypes.c_int, pointer, pointer, pointer],
        ),
        "engine_decode": (ctypes.c_int, [pointer, ctypes.c_char_p, size, pointer, pointer, pointer]),
        "machine_advance_tokens": (ctypes.c_int64, [pointer, ctypes.c_char_p, size]),
        "engine_masks_of": (ctypes.c_int64, [pointer, ctypes.c_char_p, size, pointer]),
        "engine_mask": (pointer, [pointer, number]),
        "machine_new": (pointer, [pointer, ctypes.c_int]),
        "machine_generate": (ctypes.c_int, [pointer]),
        "machine_copy": (pointer, [pointer]),
        "machine_free": (None, [pointer]),
        "machine_is_closed": (ctypes.c_int, [pointer]),
        "machine_fields": (ctypes.c_uint64, [pointer]),
        "machine_advance": (ctypes.c_int, [pointer, ctypes.c_char_p, size, ctypes.c_int]),
        "machine_advance_token": (ctypes.c_int, [pointer, number, ctypes.c_int]),
        "machine_complete": (ctypes.c_int, [pointer]),
        "machine_close": (ctypes.c_int64, [pointer, pointer]),
        "machine_legal": (ctypes.c_int, [pointer, pointer]),
        "machine_frames": (ctypes.c_int, [pointer, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found
