"""Walking a grammar one base token at a time: what may follow, and the shortest way to the end of the document.

States are immutable and point to their parents, so that trying a token and going back costs nothing. A state is None
once the document is complete.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton, difference, intersection
from nanochat_tct.tokenizer.errors import SchemaError
from nanochat_tct.tokenizer.grammar import (
    ARRAY,
    ARRAY_END,
    END,
    MAX_DEPTH,
    NUMBER,
    OBJECT,
    OBJECT_END,
    AlternativeMasks,
    Grammar,
    Key,
    Node,
)


class Illegal(Exception):
    """A base token that no valid document has at this place."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the node is about to begin."""

    node: Node
    mask: int
    depth: int
    parent: Parent


@dataclass(frozen=True, slots=True)
class Scalar:
    """Inside a text or a number: the alternatives that its bytes so far leave, each with its automaton's state."""

    node: Node
    automata: tuple[tuple[int, Automaton, int], ...]  # bit, automaton, state
    parent: Parent


@dataclass(frozen=True, slots=True)
class Array:
    node: Node
    alive: int
    length: int
    depth: int
    parent: Parent


@dataclass(frozen=True, slots=True)
class Object:
    node: Node
    alive: int
    used: frozenset[str]
    depth: int
    parent: Parent


@dataclass(frozen=True, slots=True)
class AdditionalKey:
    """Inside a key that the schema does not name; classes that remain, each with the state of its automaton."""

    owner: Object
    classes: tuple[tuple[int, Automaton, int], ...]
    text: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """A value without surroundings has ended; the alternatives of its node that accept it."""

    accepted: int


State = Value | Scalar | Array | Object | AdditionalKey | Closed
# Where a finished value goes: the array or object it is in, with the masks of its key (None in an array); None at
# the top of the document; OUTSIDE for a value that is looked at without what is around it.
Parent = tuple[Array | Object | None, AlternativeMasks | None] | None
OUTSIDE: Parent = (None, None)


MAX_AROUND = 10_000  # values whose surroundings' shortest end is kept
SEGMENT = re.compile(r"[\x00-\xff]+|[\u0100-\uffff]")


def segments_of(base: str) -> tuple[str, ...]:
    """Base tokens cut into runs of bytes and single structure tokens."""
    return tuple(SEGMENT.findall(base))


def parent_of(state: State) -> Parent:
    """What is around the innermost value."""
    assert not isinstance(state, Closed)
    return state.owner.parent if isinstance(state, AdditionalKey) else state.parent


def alone(state: State) -> State:
    """The state without what is around its innermost value."""
    if isinstance(state, AdditionalKey):
        return replace(state, owner=replace(state.owner, parent=OUTSIDE))
    assert not isinstance(state, Closed)
    return replace(state, parent=OUTSIDE)


class GrammarMatcher:
    """Moves over one grammar.

    Attributes:
        start: the state before a document.
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self._costs: dict[tuple[int, int], int] = {}
        self._lives: dict[int, int] = {}
        self._shortest: dict[tuple[int, int], str] = {}
        # the end of what is around a value, see complete
        self._around: dict[tuple[int, int], tuple[Parent, str]] = {}
        self._names: dict[tuple[int, int], Automaton] = {}
        self._endless: dict[int, set[int]] = {}  # states, by the identity of an automaton of ours
        self._always_endless: dict[tuple[int, int], bool] = {}
        # states that every ASCII byte leads back to: there a run of them need not be looked at
        self._plain = {
            (id(automaton), here)
            for automaton in self._automata()
            for here, table in enumerate(automaton.tables)
            if all(target == here for target in table[:128])
        }
        self._find_costs()
        if self._cost(grammar.root, grammar.root.live) >= INFINITE:
            raise SchemaError("no finite value is valid under this schema")
        start = self._begin(Value(grammar.root, grammar.root.live, 1, None))
        self.start: State = start

    def _automata(self) -> list[Automaton]:
        """Those of texts and numbers."""
        return [automaton for node in self.grammar.nodes for _, automaton in (*node.texts, *node.numbers)]

    # ---- steps ----

    def advance(self, state: State, segments: tuple[str, ...]) -> State | None:
        """The state after several base tokens, given as ``segments_of`` cuts them: faster than step by step.

        Raises:
            Illegal: no valid document has them here.
        """
        here: State | None = state
        for segment in segments:
            if here is None:
                raise Illegal
            if len(segment) == 1:
                here = self.step(here, segment)
                continue
            if type(here) is not Scalar:  # the first byte opens a text or a key
                here = self.step(here, segment[0])
                segment = segment[1:]
            if type(here) is Scalar:
                here = self._read_run(here, segment)
                continue
            assert type(here) is AdditionalKey
            here = self.read_key(here, segment.encode("latin-1"))
        return here

    def step(self, state: State, token: str) -> State | None:
        """The state after one base token; None when it ends the document.

        Raises:
            Illegal: no valid document has this token here.
        """
        state = self.reader_of(state, token)
        if type(state) is Scalar:
            return self._step_scalar(state, token)
        if type(state) is Object:
            return self._step_object(state, token)
        if type(state) is AdditionalKey:
            return self._step_key(state, token)
        if type(state) is Value:
            return self._step_value(state, token)
        if type(state) is Closed:
            raise Illegal
        assert type(state) is Array and token == ARRAY_END
        fitting = sum(
            bit for bit, minimum, _, _ in state.node.arrays if state.alive & bit and state.length >= minimum
        )
        return self.finish(state.parent, fitting)

    def reader_of(self, state: State, token: str) -> State:
        """The state that reads a token: the next item in an array that does not end with it, else the state."""
        if type(state) is not Array or token == ARRAY_END:
            return state
        assert state.node.item is not None
        growing = [
            (bit, items)
            for bit, _, maximum, items in state.node.arrays
            if state.alive & bit and (maximum is None or state.length < maximum)
        ]
        mask = 0
        for _, items in growing:
            mask |= items
        if not mask:
            raise Illegal
        alive = sum(bit for bit, _ in growing)
        owner = Array(state.node, alive, state.length, state.depth, state.parent)
        item = self._begin(Value(state.node.item, mask, state.depth + 1, (owner, None)))
        return self.reader_of(item, token)

    def _begin(self, value: Value) -> State:
        """Steps into the value at once where its kind is implied."""
        node = value.node
        if node.opens:
            return value
        if node.objects:
            return self._open_object(value)
        if node.arrays:
            return self._open_array(value)
        if node.numbers:
            return self._open_scalar(value, node.numbers)
        return value

    def _open_object(self, value: Value) -> Object:
        alive = sum(
            bit
            for bit, *_ in value.node.objects
            if value.mask & bit and self._cost(value.node, bit) < INFINITE
        )
        if not alive or value.depth > MAX_DEPTH:
            raise Illegal
        return Object(value.node, alive, frozenset(), value.depth, value.parent)

    def _open_array(self, value: Value) -> Array:
        alive = sum(
            bit
            for bit, *_ in value.node.arrays
            if value.mask & bit and self._cost(value.node, bit) < INFINITE
        )
        if not alive or value.depth > MAX_DEPTH:
            raise Illegal
        return Array(value.node, alive, 0, value.depth, value.parent)

    def open_text(self, value: Value) -> Scalar:
        return self._open_scalar(value, value.node.texts)

    def _open_scalar(self, value: Value, kinds: list[tuple[int, Automaton]]) -> Scalar:
        automata = tuple((bit, automaton, 0) for bit, automaton in kinds if value.mask & bit)
        if not automata:
            raise Illegal
        return Scalar(value.node, automata, value.parent)

    def _step_value(self, state: Value, token: str) -> State | None:
        node = state.node
        if token in node.constants:
            return self.finish(state.parent, node.constants[token] & state.mask)
        if node.opens:
            if token == OBJECT and node.objects:
                return self._open_object(state)
            if token == ARRAY and node.arrays:
                return self._open_array(state)
            if token == NUMBER and node.numbers:
                return self._open_scalar(state, node.numbers)
        if node.texts:
            return self._step_scalar(self.open_text(state), token)
        literal = self.grammar.texts.get(token)
        if literal is not None:
            return self.finish(state.parent, node.literals.get(literal, 0) & state.mask)
        raise Illegal

    def _step_scalar(self, state: Scalar, token: str) -> State | None:
        if token == END:
            accepted = sum(bit for bit, automaton, here in state.automata if automaton.accepting[here])
            return self.finish(state.parent, accepted)
        return self._read_run(state, token)

    def _read_run(self, state: Scalar, run: str) -> Scalar:
        """The state after base tokens inside a text or number; the same object where nothing changes."""
        if run > "\xff":  # structure
            raise Illegal
        if run.isascii():
            for _, automaton, here in state.automata:
                if (id(automaton), here) not in self._plain:
                    break
            else:
                return state
        moved = []
        encoded = run.encode("latin-1")
        for bit, automaton, here in state.automata:
            tables = automaton.tables
            for byte in encoded:
                here = tables[here][byte]
                if here < 0:
                    break
            if here >= 0:
                moved.append((bit, automaton, here))
        if not moved:
            raise Illegal
        automata = tuple(moved)
        return state if automata == state.automata else Scalar(state.node, automata, state.parent)

    def _step_object(self, state: Object, token: str) -> State | None:
        node = state.node
        if token == OBJECT_END:
            satisfied = sum(
                bit
                for bit, required, minimum, _ in node.objects
                if state.alive & bit and len(state.used) >= minimum and state.used.issuperset(required)
            )
            return self.finish(state.parent, satisfied)
        name = self.grammar.texts.get(token)
        if name is not None:
            key = node.known.get(name)
            if key is None or name in state.used:
                raise Illegal
            return self._take_key(state, name, key)
        return self._step_key(self.open_key(state), token)

    def _take_key(self, state: Object, name: str, key: Key) -> State:
        used = state.used | {name}
        alive = 0
        mask = 0
        for index, (bit, required, _, maximum) in enumerate(state.node.objects):
            live = key.masks[index] & self._live(key.child)
            if state.alive & bit and live and (maximum is None or len(used.union(required)) <= maximum):
                alive |= bit
                mask |= live
        if not alive:
            raise Illegal
        owner = Object(state.node, alive, used, state.depth, state.parent)
        return self._begin(Value(key.child, mask, state.depth + 1, (owner, key.narrows)))

    def open_key(self, state: Object) -> AdditionalKey:
        classes = []
        for matched, key in state.node.free.items():
            name = self._name_automaton(state.node, matched)
            if self._takes(state, key) and not name.is_empty:
                classes.append((matched, name, 0))
        if not classes:
            raise Illegal
        return AdditionalKey(state, tuple(classes), b"")

    def _takes(self, state: Object, key: Key) -> bool:
        """Whether an object shape that is still possible can take one more key like this."""
        live = self._live(key.child)
        return any(
            state.alive & bit
            and key.masks[index] & live
            and (maximum is None or len(state.used.union(required)) < maximum)
            for index, (bit, required, _, maximum) in enumerate(state.node.objects)
        )

    def _step_key(self, state: AdditionalKey, token: str) -> State | None:
        owner = state.owner
        if token == END:
            for matched, automaton, here in state.classes:
                if automaton.accepting[here]:
                    name = state.text.decode("utf-8")
                    if name in owner.used or name in owner.node.known:
                        raise Illegal
                    return self._take_key(owner, name, owner.node.free[matched])
            raise Illegal
        if token > "\xff":
            raise Illegal
        return self.read_key(state, token.encode("latin-1"))

    def read_key(self, state: AdditionalKey, run: bytes) -> AdditionalKey:
        """The state after bytes inside a key.

        Raises:
            Illegal: no key that may stand here has them.
        """
        text = state.text + run
        moved = []
        for matched, automaton, here in state.classes:
            tables = automaton.tables
            for byte in run:
                here = tables[here][byte]
                if here < 0:
                    break
            if here >= 0 and self._can_end(state.owner, automaton, here, text):
                moved.append((matched, automaton, here))
        if not moved:
            raise Illegal
        return AdditionalKey(state.owner, tuple(moved), text)

    def _can_end(self, owner: Object, automaton: Automaton, state: int, text: bytes) -> bool:
        """Whether some key goes on from here that is neither taken nor one of the schema's own."""
        if self.is_endless(automaton, state):
            return True
        return automaton.shortest(state, self._excluded(owner), text) is not None

    def _excluded(self, owner: Object) -> frozenset[bytes]:
        return frozenset(name.encode("utf-8") for name in owner.used.union(owner.node.known))

    def is_endless(self, automaton: Automaton, state: int) -> bool:
        """Whether infinitely many strings lead from a state to acceptance: whether it leads to a cycle."""
        known = self._endless.get(id(automaton))
        if known is None:
            # of the states that lead to states of the set, again and again, those that lead to a cycle remain
            known = set(range(len(automaton.edges)))
            size = -1
            while len(known) != size:
                size = len(known)
                known = {
                    here for here in known if any(target in known for _, _, target in automaton.edges[here])
                }
            self._endless[id(automaton)] = known
        return state in known

    def is_always_endless(self, automaton: Automaton, state: int) -> bool:
        """Whether infinitely many strings lead to acceptance from every state that can be reached from this one."""
        known = self._always_endless.get((id(automaton), state))
        if known is None:
            reached = [state]
            for here in reached:
                reached += {target for _, _, target in automaton.edges[here]}.difference(reached)
            known = all(self.is_endless(automaton, here) for here in reached)
            self._always_endless[id(automaton), state] = known
        return known

    def _name_automaton(self, node: Node, matched: int) -> Automaton:
        """The keys that match just the patterns of a class."""
        known = self._names.get((id(node), matched))
        if known is None:
            known = ANY_STRING
            for index, pattern in enumerate(node.patterns):
                known = (intersection if matched >> index & 1 else difference)(known, pattern)
            self._names[id(node), matched] = known
        return known

    def finish(self, parent: Parent, accepted: int) -> State | None:
        """Back in the array or object after a value that some alternatives of its node accept."""
        if not accepted:
            raise Illegal
        if parent is None:
            return None
        owner, masks = parent
        if owner is None:
            return Closed(accepted)
        if type(owner) is Array:
            alive = owner.node.narrow_items(owner.alive, accepted)
            if not alive:
                raise Illegal
            return Array(owner.node, alive, owner.length + 1, owner.depth, owner.parent)
        if masks is not None:
            alive = owner.node.narrow(owner.alive, masks, accepted)
            if not alive:
                raise Illegal
            assert type(owner) is Object
            return Object(owner.node, alive, owner.used, owner.depth, owner.parent)
        return owner

    # ---- the shortest way to the end ----

    def complete(self, state: State | None) -> str:
        """The fewest base tokens that make a whole, valid document of what has been read so far."""
        if state is None:
            return ""
        parent = parent_of(state)
        here: State | None = alone(state)
        parts: list[str] = []
        while type(here) is not Closed:
            assert here is not None
            rest = self._rest(here)
            for token in rest:
                assert here is not None
                here = self.step(here, token)
            parts.append(rest)
        # What is around a value stays the same from one token to the next.
        key = (id(parent), here.accepted)
        known = self._around.get(key)
        if known is None:
            if len(self._around) >= MAX_AROUND:
                self._around.clear()
            known = self._around[key] = (parent, self.complete(self.finish(parent, here.accepted)))
        return "".join(parts) + known[1]

    def _rest(self, state: State) -> str:
        """The tokens that end the innermost open value (or, in a key, the key and its value)."""
        if type(state) is Value:
            return self._shortest_value(state.node, state.mask)
        if type(state) is Scalar:
            rests = [automaton.shortest(here) for _, automaton, here in state.automata]
            return _least([rest for rest in rests if rest is not None]).decode("latin-1") + END
        if type(state) is Array:
            needed = [
                (max(0, minimum - state.length), items)
                for bit, minimum, _, items in state.node.arrays
                if state.alive & bit
            ]
            assert state.node.item is not None
            texts = [
                (self._shortest_value(state.node.item, items) * count if count else "")
                for count, items in needed
            ]
            return min(texts, key=len) + ARRAY_END
        if type(state) is AdditionalKey:
            options = []
            for matched, automaton, here in state.classes:
                rest = automaton.shortest(here, self._excluded(state.owner), state.text)
                if rest is not None:
                    key = state.owner.node.free[matched]
                    mask = self._mask_of(state.owner, key)
                    options.append(rest.decode("latin-1") + END + self._shortest_value(key.child, mask))
            return min(options, key=len)
        assert type(state) is Object
        shapes = [
            self._rest_of_shape(state, index)
            for index, (bit, *_) in enumerate(state.node.objects)
            if state.alive & bit
        ]
        return min((option for option in shapes if option is not None), key=len)

    def _mask_of(self, owner: Object, key: Key) -> int:
        mask = 0
        for index, (bit, *_) in enumerate(owner.node.objects):
            if owner.alive & bit:
                mask |= key.masks[index] & self._live(key.child)
        return mask

    def _rest_of_shape(self, state: Object, index: int) -> str | None:
        """The missing required keys of one shape, and as many more as its minimum asks for."""
        node = state.node
        _, required, minimum, _ = node.objects[index]
        parts: list[str] = []
        used = set(state.used)

        def add(name: str, key: Key, prefix: str) -> bool:
            mask = key.masks[index] & self._live(key.child)
            if mask:
                parts.append(prefix + self._shortest_value(key.child, mask))
                used.add(name)
            return bool(mask)

        for name in required:
            if name not in used and not add(name, node.known[name], node.known[name].prefix):
                return None
        while len(used) < minimum:
            candidates = []
            for name, key in node.known.items():
                mask = key.masks[index] & self._live(key.child)
                if name not in used and mask:
                    candidates.append((self._cost(key.child, mask) + 1, name, key, key.prefix))
            excluded = frozenset(name.encode("utf-8") for name in used.union(node.known))
            for matched, key in node.free.items():
                mask = key.masks[index] & self._live(key.child)
                spelled = self._name_automaton(node, matched).shortest(0, excluded) if mask else None
                if spelled is not None:
                    cost = self._cost(key.child, mask) + len(spelled) + 1
                    candidates.append((cost, spelled.decode("utf-8"), key, spelled.decode("latin-1") + END))
            if not candidates:
                return None
            _, name, key, prefix = min(candidates, key=lambda candidate: candidate[:2])
            add(name, key, prefix)
        return "".join(parts) + OBJECT_END

    def _shortest_value(self, node: Node, mask: int) -> str:
        known = self._shortest.get((id(node), mask))
        if known is None:
            bits = [1 << i for i in range(len(node.alternatives)) if mask >> i & 1]
            best = min(bits, key=lambda bit: self._cost(node, bit))
            known = self._shortest[id(node), mask] = self._shortest_alternative(node, best)
        return known

    def _shortest_alternative(self, node: Node, bit: int) -> str:
        for token, here in node.constants.items():
            if here == bit:
                return token
        for literal, mask in node.literals.items():
            if mask & bit:
                return self.grammar.literals[literal]
        for opening, scalars in ((NUMBER if node.opens else "", node.numbers), ("", node.texts)):
            for here, automaton in scalars:
                if here == bit:
                    text = automaton.shortest()
                    assert text is not None
                    return opening + text.decode("latin-1") + END
        for here, minimum, _, items in node.arrays:
            if here == bit:
                assert node.item is not None
                content = self._shortest_value(node.item, items) * minimum if minimum else ""
                return (ARRAY if node.opens else "") + content + ARRAY_END
        for index, (here, *_) in enumerate(node.objects):
            if here == bit:
                rest = self._rest_of_shape(Object(node, bit, frozenset(), 1, None), index)
                assert rest is not None
                return (OBJECT if node.opens else "") + rest
        raise AssertionError("an alternative without a kind")

    def _live(self, node: Node) -> int:
        """The alternatives of a node that some finite value belongs to."""
        known = self._lives.get(id(node))
        if known is None:
            bits = [1 << i for i in range(len(node.alternatives))]
            known = self._lives[id(node)] = sum(bit for bit in bits if self._cost(node, bit) < INFINITE)
        return known

    def _cost(self, node: Node, mask: int) -> int:
        """Base tokens of the shortest value of any alternative in the mask."""
        costs = self._costs
        return min(
            (costs[id(node), i] for i in range(len(node.alternatives)) if mask >> i & 1), default=INFINITE
        )

    def _find_costs(self) -> None:
        """Least fixed point over all nodes, from below infinity."""
        nodes = self.grammar.nodes
        for node in nodes:
            for index in range(len(node.alternatives)):
                self._costs[id(node), index] = INFINITE
        changed = True
        while changed:
            changed = False
            for node in nodes:
                for index in range(len(node.alternatives)):
                    cost = self._alternative_cost(node, 1 << index)
                    if cost < self._costs[id(node), index]:
                        self._costs[id(node), index] = cost
                        changed = True

    def _alternative_cost(self, node: Node, bit: int) -> int:
        opening = 1 if node.opens else 0
        if bit in node.constants.values() or any(mask & bit for mask in node.literals.values()):
            return 1
        for extra, scalars in ((opening, node.numbers), (0, node.texts)):
            for here, automaton in scalars:
                if here == bit:
                    text = automaton.shortest()
                    return INFINITE if text is None else extra + len(text) + 1
        for here, minimum, _, items in node.arrays:
            if here == bit:
                assert node.item is not None
                return _capped(opening + 1 + (minimum * self._cost(node.item, items) if minimum else 0))
        for index, (here, required, minimum, maximum) in enumerate(node.objects):
            if here != bit:
                continue
            if maximum is not None and maximum < max(minimum, len(required)):
                return INFINITE
            cost = opening + 1
            for name in required:
                key = node.known[name]
                cost += 1 + self._cost(key.child, key.masks[index])
            missing = minimum - len(required)
            if missing > 0:
                optional = [
                    1 + self._cost(key.child, key.masks[index])
                    for name, key in node.known.items()
                    if name not in required and key.masks[index]
                ]
                excluded = frozenset(name.encode("utf-8") for name in node.known)
                for matched, key in node.free.items():
                    names = self._name_automaton(node, matched)
                    name_text = names.shortest(0, excluded) if key.masks[index] else None
                    if name_text is not None:
                        optional += [len(name_text) + 1 + self._cost(key.child, key.masks[index])] * missing
                optional.sort()
                cost += sum(optional[:missing]) if len(optional) >= missing else INFINITE
            return _capped(cost)
        return INFINITE


INFINITE = 1 << 40


def _capped(cost: int) -> int:
    return min(cost, INFINITE)


def _least(texts: list[bytes]) -> bytes:
    return min(texts, key=lambda text: (len(text), text))
