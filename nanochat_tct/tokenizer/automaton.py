"""Finite automata over UTF-8 bytes: what a JSON Schema says of a string, decided byte by byte.

Patterns are read as ECMA-262 regular expressions with search semantics, as JSON Schema (draft 7, section 6.3.3)
asks. They are compiled by Thompson's construction to a nondeterministic automaton over code points, whose ranges
are then split into UTF-8 byte ranges, and by subset construction and Moore's partition refinement to a minimal
deterministic one.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nanochat_tct.tokenizer.errors import SchemaError

MAX_CODE_POINT = 0x10FFFF
MAX_STATES = 20_000
MAX_LENGTH = MAX_STATES // 8  # of a string that is limited, in characters
MAX_REPEAT = 1_000
MAX_CLASSES = 256  # combinations of patterns that some key matches
MAX_PATTERN_STEPS = 3_000_000  # members of the sets of states that subset construction goes through

Ranges = tuple[tuple[int, int], ...]  # sorted, disjoint, inclusive code point ranges

DIGITS: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Ranges = (
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)
LINE_ENDS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))


def complement_ranges(ranges: Ranges) -> Ranges:
    """All code points outside the ranges; surrogates are not code points of a text and stay out of both."""
    result: list[tuple[int, int]] = []
    start = 0
    for low, high in (*ranges, (MAX_CODE_POINT + 1, MAX_CODE_POINT + 1)):
        if start < low:
            result.append((start, low - 1))
        start = high + 1
    return tuple(result)


def union_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The ranges sorted, overlapping and touching ones joined."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


# The long names of Unicode's general categories in ECMA-262 by their short ones.
CATEGORIES = {
    "Other": "C",
    "Control": "Cc",
    "cntrl": "Cc",
    "Format": "Cf",
    "Unassigned": "Cn",
    "Private_Use": "Co",
    "Letter": "L",
    "Lowercase_Letter": "Ll",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Titlecase_Letter": "Lt",
    "Uppercase_Letter": "Lu",
    "Mark": "M",
    "Combining_Mark": "M",
    "Spacing_Mark": "Mc",
    "Enclosing_Mark": "Me",
    "Nonspacing_Mark": "Mn",
    "Number": "N",
    "Decimal_Number": "Nd",
    "digit": "Nd",
    "Letter_Number": "Nl",
    "Other_Number": "No",
    "Punctuation": "P",
    "punct": "P",
    "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd",
    "Close_Punctuation": "Pe",
    "Final_Punctuation": "Pf",
    "Initial_Punctuation": "Pi",
    "Other_Punctuation": "Po",
    "Open_Punctuation": "Ps",
    "Symbol": "S",
    "Currency_Symbol": "Sc",
    "Modifier_Symbol": "Sk",
    "Math_Symbol": "Sm",
    "Other_Symbol": "So",
    "Separator": "Z",
    "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp",
    "Space_Separator": "Zs",
}


@functools.cache
def category_ranges(name: str) -> Ranges:
    """The code points of a Unicode general category such as L, Lu or Letter; none for another name."""
    name = CATEGORIES.get(name, name)
    if len(name) not in (1, 2):
        return ()
    codes = (code for code in range(MAX_CODE_POINT + 1) if unicodedata.category(chr(code)).startswith(name))
    return union_ranges((code, code) for code in codes)


LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
ANY_CHARACTER: Ranges = ((0, MAX_CODE_POINT),)
DOT = complement_ranges(LINE_ENDS)


def utf8_ranges(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Splits a code point range into sequences of byte ranges that spell just its UTF-8 encodings.

    What lies above Unicode is a symbol (see ``from_pattern``), one "byte" from 256 on.
    """
    if low > MAX_CODE_POINT:
        yield ((low - MAX_CODE_POINT + 255, high - MAX_CODE_POINT + 255),)
        return
    for first, last in ((low, min(high, 0xD7FF)), (max(low, 0xE000), high)):  # no surrogates
        for lower, upper in ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, MAX_CODE_POINT)):
            start, end = max(first, lower), min(last, upper)
            if start <= end:
                yield from _split_bytes(chr(start).encode("utf-8"), chr(end).encode("utf-8"))


def _split_bytes(low: bytes, high: bytes) -> Iterator[tuple[tuple[int, int], ...]]:
    if len(low) == 1:
        yield ((low[0], high[0]),)
        return
    tail = len(low) - 1
    smallest, largest = b"\x80" * tail, b"\xbf" * tail
    if low[0] == high[0]:
        for rest in _split_bytes(low[1:], high[1:]):
            yield ((low[0], low[0]), *rest)
        return
    first, last = low[0], high[0]
    if low[1:] != smallest:
        for rest in _split_bytes(low[1:], largest):
            yield ((first, first), *rest)
        first += 1
    end = last if high[1:] == largest else last - 1
    if first <= end:
        for rest in _split_bytes(smallest, largest):
            yield ((first, end), *rest)
    if end != last:
        for rest in _split_bytes(smallest, high[1:]):
            yield ((last, last), *rest)


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton over bytes; state 0 is the start. Every state can reach an accepting one.

    Attributes:
        accepting: whether a string may end in the state, for each state.
        edges: for each state, (first byte, last byte, next state), sorted; bytes outside have no next state.
    """

    accepting: tuple[bool, ...]
    edges: tuple[tuple[tuple[int, int, int], ...], ...]
    _hash: int = field(init=False, repr=False, compare=False)
    _shortest: dict[int, bytes | None] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.accepting, self.edges)))

    @functools.cached_property
    def tables(self) -> list[list[int]]:
        """The next state by the byte, for each state; -1 where there is none."""
        tables = []
        for edges in self.edges:
            table = [-1] * 256
            for low, high, target in edges:
                table[low : high + 1] = [target] * (high - low + 1)
            tables.append(table)
        return tables

    def __hash__(self) -> int:
        return self._hash  # types are looked up by their automata, which may be large

    @property
    def is_empty(self) -> bool:
        return not self.edges

    def step(self, state: int, byte: int) -> int:
        """The next state, -1 when no string of the language goes on with this byte."""
        return self.tables[state][byte]

    def accepts(self, text: bytes) -> bool:
        state = 0 if self.edges else -1
        for byte in text:
            if state < 0:
                return False
            state = self.tables[state][byte]
        return state >= 0 and self.accepting[state]

    def shortest(
        self, state: int = 0, excluded: frozenset[bytes] = frozenset(), prefix: bytes = b""
    ) -> bytes | None:
        """The shortest (then smallest) rest from a state such that prefix + rest is not excluded; None if none is."""
        if not self.edges:
            return None
        if state not in self._shortest:
            self._shortest[state] = self._search(state, frozenset(), b"")
        rest = self._shortest[state]
        if rest is not None and prefix + rest in excluded:
            return self._search(state, excluded, prefix)
        return rest

    def _search(self, state: int, excluded: frozenset[bytes], prefix: bytes) -> bytes | None:
        frontier: list[tuple[int, bytes]] = [(state, b"")]
        remaining = len(excluded) + 1  # each state need be kept once more than there are exclusions
        seen = {state: 1}
        while frontier:
            following: list[tuple[int, bytes]] = []
            for here, text in frontier:
                if self.accepting[here] and prefix + text not in excluded:
                    return text
                moves = [
                    (byte, target) for low, high, target in self.edges[here] for byte in range(low, high + 1)
                ]
                # letters first: a completed key or name should look like one
                for byte, target in sorted(moves, key=lambda move: (not 97 <= move[0] <= 122, move[0])):
                    if seen.get(target, 0) < remaining:
                        seen[target] = seen.get(target, 0) + 1
                        following.append((target, text + bytes([byte])))
            frontier = following
        return None

    def strings(self, limit: int) -> list[str] | None:
        """All strings of the language in order of length when they are at most limit, else None."""
        found: list[str] = []
        frontier = [(0, b"")] if self.edges else []
        for _ in range(len(self.edges) + 1):
            following = []
            for state, text in frontier:
                if self.accepting[state]:
                    found.append(text.decode("utf-8"))
                following += [
                    (target, text + bytes([byte]))
                    for low, high, target in self.edges[state]
                    for byte in range(low, high + 1)
                ]
                if len(found) > limit or len(following) > 64 * (limit + 1):
                    return None
            frontier = following
        return None if frontier else found  # a path longer than the number of states is a cycle


def build(start: object, successors: object, is_accepting: object) -> Automaton:
    """Explores a deterministic automaton from its start, drops dead states, and minimises it.

    Args:
        start: a hashable state.
        successors: function of a state to a list of (low, high, state), disjoint byte ranges.
        is_accepting: function of a state to bool.
    """
    return _minimise(*_explore(start, successors, is_accepting))


def _explore(
    start: object, successors: object, is_accepting: object
) -> tuple[list[bool], list[list[tuple[int, int, int]]]]:
    """What ``build`` is given, with states by number, in the order in which they are reached."""
    numbers = {start: 0}
    order = [start]
    edges: list[list[tuple[int, int, int]]] = []
    for state in order:
        row = []
        for low, high, target in successors(state):  # type: ignore[operator]
            if target not in numbers:
                numbers[target] = len(order)
                order.append(target)
                if len(order) > MAX_STATES:
                    raise SchemaError(f"a string constraint needs more than {MAX_STATES} states; simplify it")
            row.append((low, high, numbers[target]))
        edges.append(row)
    return [bool(is_accepting(state)) for state in order], edges  # type: ignore[operator]


def _minimise(accepting: list[bool], edges: list[list[tuple[int, int, int]]]) -> Automaton:
    sources: list[list[int]] = [[] for _ in edges]  # the states with an edge to each state
    for state, row in enumerate(edges):
        for _, _, target in row:
            sources[target].append(state)
    live = list(accepting)
    waiting = [state for state, flag in enumerate(accepting) if flag]
    while waiting:
        for source in sources[waiting.pop()]:
            if not live[source]:
                live[source] = True
                waiting.append(source)
    if not live[0]:
        return EMPTY
    group = _partition(accepting, edges, sources, live)
    # number the groups in breadth-first order from the start, so that equal languages give equal automata
    representative: dict[int, int] = {}
    for state, g in enumerate(group):
        if g >= 0:
            representative.setdefault(g, state)
    numbers, order = {group[0]: 0}, [group[0]]
    rows = []
    for g in order:
        joined = _join((low, high, group[t]) for low, high, t in edges[representative[g]] if live[t])
        for _, _, target in joined:
            if target not in numbers:
                numbers[target] = len(order)
                order.append(target)
        rows.append(tuple((low, high, numbers[target]) for low, high, target in joined))
    return Automaton(tuple(accepting[representative[g]] for g in order), tuple(rows))


def _partition(
    accepting: list[bool], edges: list[list[tuple[int, int, int]]], sources: list[list[int]], live: list[bool]
) -> list[int]:
    """Equal numbers for live states that the same strings lead to acceptance from; -1 for the others.

    Moore's refinement, but a round looks only at states whose targets changed their group in the round before, and
    the largest part of a group that is split keeps the number: a chain of states, as a length limit makes it, takes
    n log n steps and not n squared.
    """
    group = [int(flag) if live[state] else -1 for state, flag in enumerate(accepting)]
    members: dict[int, set[int]] = {}
    for state, number in enumerate(group):
        if number >= 0:
            members.setdefault(number, set()).add(state)
    following = len(edges) + 2  # numbers not given yet

    def signature(state: int) -> object:
        return _join((low, high, group[t]) for low, high, t in edges[state] if live[t])

    touched = {state for state, number in enumerate(group) if number >= 0}
    while touched:
        by_group: dict[int, list[int]] = {}
        for state in sorted(touched):
            by_group.setdefault(group[state], []).append(state)
        splits: list[tuple[int, list[set[int]]]] = []
        for number, states in by_group.items():
            parts: dict[object, set[int]] = {}
            for state in states:
                parts.setdefault(signature(state), set()).add(state)
            if len(states) < len(members[number]):
                # states that nothing has changed for are still alike: one of them speaks for all
                rest = members[number].difference(states)
                parts.setdefault(signature(next(iter(rest))), set()).update(rest)
            if len(parts) > 1:
                splits.append((number, sorted(parts.values(), key=len)))
        touched = set()
        for number, separate in splits:
            members[number] = separate.pop()
            for part in separate:
                members[following] = part
                for state in part:
                    group[state] = following
                    touched.update(source for source in sources[state] if live[source])
                following += 1
    return group


def _join(row: Iterable[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    result: list[tuple[int, int, int]] = []
    for low, high, target in sorted(row):
        if result and result[-1][2] == target and result[-1][1] + 1 == low:
            result[-1] = (result[-1][0], high, target)
        else:
            result.append((low, high, target))
    return tuple(result)


EMPTY = Automaton((), ())


def _pairs(left: Automaton, right: Automaton, both_needed: bool, accept: object) -> Automaton:
    """Product of two automata; state -1 is the dead state of a side."""

    def successors(state: tuple[int, int]) -> list[tuple[int, int, tuple[int, int]]]:
        edges = [
            *(left.edges[state[0]] if state[0] >= 0 else ()),
            *(right.edges[state[1]] if state[1] >= 0 else ()),
        ]
        borders = sorted({low for low, _, _ in edges} | {high + 1 for _, high, _ in edges})
        a = left.tables[state[0]] if state[0] >= 0 else _DEAD
        b = right.tables[state[1]] if state[1] >= 0 else _DEAD
        row: list[tuple[int, int, tuple[int, int]]] = []
        for low, upper in itertools.pairwise(borders):
            target = (a[low], b[low])
            if (target[0] < 0 and target[1] < 0) or (both_needed and min(target) < 0):
                continue
            row.append((low, upper - 1, target))
        return row

    start = (0 if left.edges else -1, 0 if right.edges else -1)
    return build(start, successors, accept)


_DEAD = [-1] * 256


@functools.lru_cache(maxsize=4096)
def union(left: Automaton, right: Automaton) -> Automaton:
    if left.is_empty or right.is_empty:
        return right if left.is_empty else left
    return _pairs(
        left,
        right,
        False,
        lambda s: (s[0] >= 0 and left.accepting[s[0]]) or (s[1] >= 0 and right.accepting[s[1]]),
    )


@functools.lru_cache(maxsize=4096)
def intersection(left: Automaton, right: Automaton) -> Automaton:
    if left.is_empty or right.is_empty:
        return EMPTY
    if ANY_STRING in (left, right):
        return right if left == ANY_STRING else left
    return _pairs(left, right, True, lambda s: left.accepting[s[0]] and right.accepting[s[1]])


@functools.lru_cache(maxsize=4096)
def difference(left: Automaton, right: Automaton) -> Automaton:
    """The strings of left that are not in right; difference(ANY_STRING, x) is the complement of x."""
    if left.is_empty or right.is_empty:
        return left
    return _pairs(
        left,
        right,
        False,
        lambda s: s[0] >= 0 and left.accepting[s[0]] and not (s[1] >= 0 and right.accepting[s[1]]),
    )


def classes_of_keys(patterns: Sequence[Automaton], max_states: int | None = None) -> dict[int, Automaton]:
    """The sets of patterns, as bit masks, that some key matches while it matches no other; with those keys.

    Raises:
        SchemaError: there are more than MAX_CLASSES of them, or more states in all, where that is limited.
    """
    classes = {0: ANY_STRING}
    for index, pattern in enumerate(patterns):
        split = {}
        for matched, names in classes.items():
            split[matched] = difference(names, pattern)
            split[matched | 1 << index] = intersection(names, pattern)
        classes = {matched: split[matched] for matched in sorted(split) if not split[matched].is_empty}
        states = sum(len(names.edges) for names in classes.values())
        if max_states is not None and (len(classes) > MAX_CLASSES or states > max_states):
            raise SchemaError("the patterns of an object's keys overlap in too many ways; simplify them")
    return classes


def from_strings(values: Iterable[str]) -> Automaton:
    """Exactly these strings."""
    encoded = frozenset(value.encode("utf-8") for value in values)

    def successors(state: frozenset[bytes]) -> list[tuple[int, int, frozenset[bytes]]]:
        rests: dict[int, set[bytes]] = {}
        for text in state:
            if text:
                rests.setdefault(text[0], set()).add(text[1:])
        return [(byte, byte, frozenset(rest)) for byte, rest in sorted(rests.items())]

    return build(encoded, successors, lambda state: b"" in state) if encoded else EMPTY


@functools.lru_cache(maxsize=256)
def from_length(minimum: int, maximum: int | None) -> Automaton:
    """Strings of at least minimum and at most maximum code points, neither above MAX_LENGTH."""
    most = minimum if maximum is None else maximum

    def successors(state: tuple[int, int]) -> list[tuple[int, int, tuple[int, int]]]:
        inside, count = state  # the position in a character, and the characters that have begun
        if inside == 0 and count == maximum:
            return []
        begun = min(count + (inside == 0), most)
        return [(low, high, (target, begun)) for low, high, target in ANY_STRING.edges[inside]]

    # the number of characters tells all states apart, so there is nothing to minimise
    accepting, edges = _explore((0, 0), successors, lambda state: state[0] == 0 and state[1] >= minimum)
    return Automaton(tuple(accepting), tuple(map(tuple, edges)))


# ---- regular expressions ------------------------------------------------------------------------------------------


class _Nfa:
    """Thompson's automaton: edges on code point ranges, empty edges, and empty edges guarded by ^ or $."""

    def __init__(self) -> None:
        self.edges: list[list[tuple[Ranges, int]]] = []
        self.empty: list[list[tuple[str, int]]] = []

    def state(self) -> int:
        self.edges.append([])
        self.empty.append([])
        if len(self.edges) > MAX_STATES:
            raise SchemaError("the pattern is too large; simplify it")
        return len(self.edges) - 1

    def link(self, source: int, target: int, guard: str = "") -> None:
        self.empty[source].append((guard, target))


class _Parser:
    """Recursive descent over an ECMA-262 pattern; builds the automaton fragment by fragment."""

    def __init__(self, pattern: str, symbols: str) -> None:
        self.pattern = pattern
        self.symbols = symbols
        self.position = 0
        self.nfa = _Nfa()

    def fail(self, what: str) -> SchemaError:
        return SchemaError(f"pattern {self.pattern!r}: {what} at position {self.position} cannot be compiled")

    def peek(self) -> str:
        return self.pattern[self.position : self.position + 1]

    def take(self, text: str) -> bool:
        if self.pattern.startswith(text, self.position):
            self.position += len(text)
            return True
        return False

    def alternatives(self) -> tuple[int, int]:
        start, end = self.nfa.state(), self.nfa.state()
        while True:
            first, last = self.sequence()
            self.nfa.link(start, first)
            self.nfa.link(last, end)
            if not self.take("|"):
                return start, end

    def sequence(self) -> tuple[int, int]:
        start = end = self.nfa.state()
        while self.peek() not in ("", "|", ")"):
            first, last = self.repeated()
            self.nfa.link(end, first)
            end = last
        return start, end

    def repeated(self) -> tuple[int, int]:
        begin = self.position
        fragment = self.atom()
        low, high = 1, 1
        if self.take("*"):
            low, high = 0, -1
        elif self.take("+"):
            low, high = 1, -1
        elif self.take("?"):
            low, high = 0, 1
        elif self.peek() == "{":
            bounds = self.bounds()
            if bounds is None:
                return fragment
            low, high = bounds
            if 0 <= high < low:
                raise self.fail("a repetition whose limits are out of order")
        else:
            return fragment
        self.take("?")  # lazy or not, the language is the same
        finish = self.position
        nfa = self.nfa
        start = end = nfa.state()

        def again() -> tuple[int, int]:
            self.position = begin
            return self.atom()

        copies = max(low, high if high > 0 else low)
        if copies > MAX_REPEAT * 3:
            raise self.fail(f"more than {MAX_REPEAT * 3} repetitions")
        stop = nfa.state()
        for index in range(copies):
            first, last = fragment if index == 0 else again()
            if index >= low:
                nfa.link(end, stop)
            nfa.link(end, first)
            end = last
        if high == -1:
            first, last = fragment if copies == 0 else again()
            loop = nfa.state()
            nfa.link(end, loop)
            nfa.link(loop, first)
            nfa.link(last, loop)
            end = loop
        nfa.link(end, stop)
        self.position = finish
        return start, stop

    def bounds(self) -> tuple[int, int] | None:
        close = self.pattern.find("}", self.position)
        parts = self.pattern[self.position + 1 : close].split(",") if close > 0 else []
        if len(parts) not in (1, 2) or not parts[0].isdigit() or not (parts[-1] == "" or parts[-1].isdigit()):
            return None
        self.position = close + 1
        low = int(parts[0])
        return low, (-1 if parts[-1] == "" else int(parts[-1]))

    def atom(self) -> tuple[int, int]:
        nfa = self.nfa
        if self.take("("):
            if self.peek() == "?":
                if self.take("?<") and self.peek() not in "=!":
                    close = self.pattern.find(">", self.position)
                    if close < 0:
                        raise self.fail("a group's name without an end")
                    self.position = close + 1
                elif not self.take("?:"):
                    raise self.fail("a look-around")
            start, end = self.alternatives()
            if not self.take(")"):
                raise self.fail("a missing ')'")
            return start, end
        start, end = nfa.state(), nfa.state()
        for guard in "^$":
            if self.take(guard):
                nfa.link(start, end, guard)
                return start, end
        if self.take("."):
            ranges = DOT
        elif self.take("["):
            ranges = self.character_class()
        elif self.take("\\"):
            ranges = self.escape(in_class=False)
        else:
            character = self.peek()
            if character in "*+?":
                raise self.fail(f"{character!r} with nothing to repeat")
            self.position += 1
            symbol = self.symbols.find(character)
            code = ord(character) if symbol < 0 else MAX_CODE_POINT + 1 + symbol
            ranges = ((code, code),)
        if ranges and all(low >= 0xD800 and high <= 0xDFFF for low, high in ranges):
            # half of a character: an engine that counts in halves finds it in texts, one that counts characters never
            raise self.fail("a lone surrogate")
        nfa.edges[start].append((ranges, end))
        return start, end

    def character_class(self) -> Ranges:
        negated = self.take("^")
        ranges: list[tuple[int, int]] = []
        while not self.take("]"):
            if self.peek() == "":
                raise self.fail("a missing ']'")
            low = self.class_member()
            if self.peek() == "-" and self.pattern[self.position + 1 : self.position + 2] not in ("]", ""):
                self.position += 1
                high = self.class_member()
                if len(low) == 1 and len(high) == 1 and low[0][0] == low[0][1] <= high[0][0] == high[0][1]:
                    ranges.append((low[0][0], high[0][0]))
                    continue
                ranges += [*low, (0x2D, 0x2D), *high]
            else:
                ranges += low
        joined = union_ranges(ranges)
        return complement_ranges(joined) if negated else joined

    def class_member(self) -> Ranges:
        if self.take("\\"):
            return self.escape(in_class=True)
        character = self.peek()
        if character == "":
            raise self.fail("a missing ']'")
        self.position += 1
        return ((ord(character), ord(character)),)

    def escape(self, in_class: bool) -> Ranges:
        character = self.peek()
        if character == "":
            raise self.fail("a lone backslash")
        self.position += 1
        sets = {"d": DIGITS, "w": WORD, "s": SPACE}
        if character.lower() in sets:
            ranges = sets[character.lower()]
            return ranges if character.islower() else complement_ranges(ranges)
        controls = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
        if character in controls:
            return ((controls[character],) * 2,)
        if character == "b" and in_class:
            return ((8, 8),)
        if character == "c" and re.fullmatch("[a-zA-Z]", self.peek()):
            self.position += 1
            return ((ord(self.pattern[self.position - 1]) % 32,) * 2,)
        if character in "xu":
            digits = 2 if character == "x" else 4
            if self.take("{"):
                close = self.pattern.find("}", self.position)
                if close < 0:
                    raise self.fail("an escape without an end")
                text, self.position = self.pattern[self.position : close], close + 1
            else:
                text = self.pattern[self.position : self.position + digits]
                self.position += digits
            if not re.fullmatch("[0-9a-fA-F]{1,8}", text) or int(text, 16) > MAX_CODE_POINT:
                raise self.fail(f"the escape \\{character}{text}")
            code = int(text, 16)
            second = LOW_SURROGATE.match(self.pattern, self.position) if 0xD800 <= code < 0xDC00 else None
            if second:  # the two halves of one character
                self.position = second.end()
                code = 0x10000 + ((code - 0xD800) << 10) + int(second[1], 16) - 0xDC00
            return ((code, code),)
        if character in "pP" and self.take("{"):
            close = self.pattern.find("}", self.position)
            name = self.pattern[self.position : max(close, self.position)]
            ranges = category_ranges(name.removeprefix("General_Category=").removeprefix("gc="))
            if not ranges:
                raise self.fail(f"the property {name!r}")
            self.position = close + 1
            return ranges if character == "p" else complement_ranges(ranges)
        if character.isalnum():
            raise self.fail(f"the escape \\{character}")
        return ((ord(character), ord(character)),)


@functools.lru_cache(maxsize=1024)
def from_pattern(pattern: str, symbols: str = "") -> Automaton:
    """All strings in which the ECMA-262 pattern is found somewhere.

    Args:
        pattern: the regular expression.
        symbols: characters that stand for something else than themselves where the pattern has them outside of
            classes: the first one is the "byte" 256 of the automaton's edges, the next one 257, and so on.

    Raises:
        SchemaError: for look-arounds other than look-aheads at the start of the string, back-references, word
            boundaries and unknown escapes; and where it would take too long.
    """
    ahead = _look_ahead(pattern)
    if ahead is not None:
        negative, condition, rest = ahead
        combine = difference if negative else intersection
        return combine(from_pattern("^" + rest), from_pattern(f"^(?:{condition})"))
    nfa, start, accepting_states = _searching(pattern, symbols)
    byte_edges = _byte_edges(nfa)
    steps = 0

    # the start's closure passes '^'; any other state's does not
    initial = (True, _closure(nfa, [start], "^"))

    @functools.cache
    def closed(member: int) -> frozenset[int]:
        return _closure(nfa, [member], "")

    @functools.cache  # the same few sets follow most characters of most states
    def reached(targets: tuple[int, ...]) -> frozenset[int]:
        return frozenset().union(*map(closed, targets))

    @functools.cache
    def may_end(member: int) -> bool:
        return not accepting_states.isdisjoint(_closure(nfa, [member], "$"))

    def successors(state: tuple[bool, frozenset[int]]) -> list[tuple[int, int, tuple[bool, frozenset[int]]]]:
        nonlocal steps
        moves = [edge for member in state[1] for edge in byte_edges.get(member, ())]
        borders = sorted({low for low, _, _ in moves} | {high + 1 for _, high, _ in moves})
        row = []
        for low, upper in itertools.pairwise(borders):
            targets = [target for first, last, target in moves if first <= low <= last]
            if targets:
                following = reached(tuple(targets))
                steps += len(following) + len(moves)
                if steps > MAX_PATTERN_STEPS:
                    raise SchemaError(f"pattern {pattern[:60]!r}: takes too long to compile; simplify it")
                row.append((low, upper - 1, (False, following)))
        return row

    def accepting(state: tuple[bool, frozenset[int]]) -> bool:
        if state[0]:
            return not accepting_states.isdisjoint(_closure(nfa, state[1], "^$"))
        return any(map(may_end, state[1]))

    return build(initial, successors, accepting)


def _searching(pattern: str, symbols: str) -> tuple[_Nfa, int, frozenset[int]]:
    """An automaton that finds a pattern anywhere: its start, and the states of which a string must reach one."""
    parser = _Parser(pattern, symbols)
    try:
        first, last = parser.alternatives()
    except RecursionError:
        raise parser.fail("groups that nest too deeply") from None
    if parser.position != len(pattern):
        raise parser.fail("an unmatched ')'")
    nfa = parser.nfa
    start, end = nfa.state(), nfa.state()
    before, after = nfa.state(), nfa.state()
    nfa.link(start, first)  # the match begins where the string begins, or after anything
    nfa.edges[start].append((ANY_CHARACTER, before))
    nfa.edges[before].append((ANY_CHARACTER, before))
    nfa.link(before, first)
    nfa.link(last, end)
    nfa.edges[end].append((ANY_CHARACTER, after))
    nfa.edges[after].append((ANY_CHARACTER, after))
    return nfa, start, frozenset([end, after])


def _closure(nfa: _Nfa, states: Iterable[int], guards: str) -> frozenset[int]:
    """The states that are reached from others without a character, past the guards given."""
    found = set(states)
    stack = list(found)
    while stack:
        state = stack.pop()
        empty = nfa.empty[state] if state < len(nfa.empty) else []  # the middle of a character has none
        for guard, target in empty:
            if (guard == "" or guard in guards) and target not in found:
                found.add(target)
                stack.append(target)
    return frozenset(found)


def _look_ahead(pattern: str) -> tuple[bool, str, str] | None:
    """(whether negative, condition, rest) of a pattern ``^(?!condition)rest`` or ``^(?=condition)rest``, else None."""
    if not pattern.startswith(("^(?!", "^(?=")):
        return None
    level, in_class, position, end = 0, False, 1, 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            level += 1
        elif character == ")":
            level -= 1
            if level == 0 and not end:
                end = position
        elif character == "|" and level == 0:
            return None  # the look-ahead belongs to one alternative only
        position += 1
    if not end or pattern[end + 1 : end + 2] in tuple("*+?{"):
        return None
    return pattern[2:4] == "?!", pattern[4:end], pattern[end + 1 :]


def _byte_edges(nfa: _Nfa) -> dict[int, list[tuple[int, int, int]]]:
    """The automaton's edges as byte edges; states for the middles of multi-byte characters come after its own."""
    result: dict[int, list[tuple[int, int, int]]] = {}
    fresh = len(nfa.edges)
    middles: dict[tuple[object, int], int] = {}  # (rest of the byte ranges, target) -> state: shared tails
    for state, edges in enumerate(nfa.edges):
        for ranges, target in edges:
            for low, high in ranges:
                for sequence in utf8_ranges(low, high):
                    here = state
                    for index, (first, last) in enumerate(sequence):
                        rest = sequence[index + 1 :]
                        if not rest:
                            following = target
                        else:
                            known = middles.get((rest, target))
                            following = fresh if known is None else known
                            if known is None:
                                middles[(rest, target)] = fresh
                                fresh += 1
                        row = result.setdefault(here, [])
                        if (first, last, following) not in row:
                            row.append((first, last, following))
                        if rest and known is not None:
                            break
                        here = following
    return result


ANY_STRING = from_pattern("")
