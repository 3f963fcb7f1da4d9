"""Which tokens may follow, for all tokens at once.

A token is a string of base tokens that may begin inside one value and end inside another. So we ask of a value
without its surroundings (a *frame*): which tokens stay inside it, and which leave it, having written its end, with
some *rest* of the token still to be read outside? The rests of all tokens are strings like tokens, and get numbers
beside theirs: then the answer for a place in a document is the answer for its frame, and for the tokens that leave
it, a look-up of their rests in the answer for the surroundings. Frames are few and come again, so both answers are
kept. The idea of splitting a mask into a part that depends on the innermost rule alone and one that asks the stack
is that of XGrammar (Dong et al., 2024, section 3.1); here the second part is a table look-up too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from nanochat_tct.tokenizer.automaton import Automaton
from nanochat_tct.tokenizer.cursor import (
    OUTSIDE,
    Array,
    Closed,
    FreeKey,
    Illegal,
    Object,
    Parent,
    Scalar,
    State,
    Value,
    Walker,
    segments_of,
)
from nanochat_tct.tokenizer.grammar import ARRAY_END, END, MAX_DEPTH

MAX_FRAMES = 8_000
MAX_MASKS = 4_000
MAX_SURROUNDINGS = 2_000
NO_TOKEN = "\uffff"  # no base token, so an array's item begins with it

Ids = np.ndarray  # int32, numbers of strings
Mask = tuple[int, np.ndarray]  # its number, and bool (number of strings,)
T = TypeVar("T")


class Found:
    """What was found about some strings, read from one frame on.

    Attributes:
        inside: strings that end inside the frame.
        outside: (accepted, strings, rests): strings that end the frame, accepted by those alternatives, and go on.
    """

    def __init__(self) -> None:
        self.inside: list[Ids] = []
        self.outside: list[tuple[int, Ids, Ids]] = []


class Frame:
    """What is kept of a frame."""

    def __init__(self, found: Found, size: int) -> None:
        self.legal = np.zeros(size, dtype=bool)
        for strings in found.inside:
            self.legal[strings] = True
        self.outside: list[tuple[int, Ids, Ids]] = []
        for mask in sorted({accepted for accepted, _, _ in found.outside}):
            parts = [(strings, rests) for accepted, strings, rests in found.outside if accepted == mask]
            strings, rests = (np.concatenate(part) for part in zip(*parts, strict=True))
            self.outside.append((mask, strings, rests))


class Masks:
    """The masks of one vocabulary over one grammar.

    Args:
        walker: moves over the grammar.
        expansions: the base tokens of each token.
    """

    def __init__(self, walker: Walker, expansions: Sequence[str]) -> None:
        self.walker = walker
        self.vocab_size = len(expansions)
        strings = list(expansions)
        numbers = {text: number for number, text in enumerate(strings)}
        for text in expansions:
            for start in range(1, len(text)):
                if text[start - 1] > "\xff" and text[start:] not in numbers:
                    numbers[text[start:]] = len(strings)
                    strings.append(text[start:])
        self.nothing = len(strings)  # the number of the empty string
        numbers[""] = self.nothing
        strings.append("")
        self.size = len(strings)
        self.segments = [segments_of(text) for text in strings]
        self.longest = max(sum(segment > "\xff" for segment in cut) for cut in self.segments)
        self._cut(strings, numbers)
        self._all = np.arange(self.size, dtype=np.int32)
        self._targets: dict[tuple[int, int], np.ndarray] = {}
        self._tables: dict[int, np.ndarray] = {}
        self._frames: OrderedDict[Hashable, Frame] = OrderedDict()
        self._masks: OrderedDict[Hashable, Mask] = OrderedDict()
        self._surroundings: OrderedDict[tuple[int, int], tuple[Parent, Mask]] = OrderedDict()
        self._count = 1
        end = np.zeros(self.size, dtype=bool)
        self._never: Mask = (0, end.copy())
        end[self.nothing] = True
        self._end: Mask = (1, end)  # after the document nothing may come

    def _cut(self, strings: list[str], numbers: dict[str, int]) -> None:
        """Arrays over all strings: how each begins."""
        runs: dict[str, int] = {"": 0}
        self.heads = np.full(self.size, -1, dtype=np.int32)  # the first base token where it is structure, else -1
        self.tails = np.full(self.size, -1, dtype=np.int32)  # the string after that
        self.runs = np.zeros(self.size, dtype=np.int32)  # the number of the run of bytes that it begins with
        self.ends = np.full(self.size, -1, dtype=np.int32)  # the string after run and END; -1: END does not follow
        self.pure = np.zeros(self.size, dtype=bool)  # a run of bytes and no more
        for number, (text, cut) in enumerate(zip(strings, self.segments, strict=True)):
            if not cut:
                continue
            run = ""
            if cut[0] > "\xff":
                self.heads[number] = ord(cut[0])
                self.tails[number] = numbers[text[1:]]
            else:
                run = cut[0]
                self.pure[number] = len(cut) == 1
            self.runs[number] = runs.setdefault(run, len(runs))
            if text[len(run) : len(run) + 1] == END:
                self.ends[number] = numbers[text[len(run) + 1 :]]
        self.run_texts = [text.encode("latin-1") for text in runs]
        # what a string can write as a whole key, in some place
        self.names = {
            segment.encode("latin-1").decode("utf-8", "ignore")
            for cut in self.segments
            for segment, after in zip(cut, cut[1:], strict=False)
            if after == END and segment <= "\xff"
        }
        order = sorted(range(len(self.run_texts)), key=lambda number: -len(self.run_texts[number]))
        self._run_order = np.array(order)
        lengths = np.array([len(self.run_texts[number]) for number in order])
        self._run_bytes = np.zeros((lengths[0], len(order)), dtype=np.int64)
        for row, number in enumerate(order):
            self._run_bytes[: lengths[row], row] = list(self.run_texts[number])
        self._run_counts = [int((lengths > column).sum()) for column in range(lengths[0])]

    # ---- masks ----

    def legal(self, state: State | None) -> np.ndarray:
        """Which strings may follow: bool (size,), of which the first vocab_size are the tokens. Not to be changed."""
        return self._numbered(state)[1]

    def _numbered(self, state: State | None) -> Mask:
        if state is None:
            return self._end
        key = self._key(state)
        frame = self._frames.get(key)
        if frame is None:
            found = Found()
            self._read(self._alone(state), self._all, self._all, found)
            frame = _remember(self._frames, key, Frame(found, self.size), MAX_FRAMES)
        parent = state.owner.parent if type(state) is FreeKey else state.parent
        around = tuple([self._around(parent, accepted) for accepted, _, _ in frame.outside])
        whole = (key, tuple([mask[0] for mask in around]))
        known = self._masks.get(whole)
        if known is None:
            mask = frame.legal.copy()
            for (_, strings, rests), outer in zip(frame.outside, around, strict=True):
                mask[strings] |= outer[1][rests]
            mask[self.nothing] = True
            self._count += 1
            known = _remember(self._masks, whole, (self._count, mask), MAX_MASKS)
        return known

    def _around(self, parent: Parent, accepted: int) -> Mask:
        """The mask of what follows a frame that ends accepted by these alternatives."""
        key = (id(parent), accepted)
        known = self._surroundings.get(key)
        if known is None:
            try:
                mask = self._numbered(self.walker.finish(parent, accepted))
            except Illegal:
                mask = self._never
            # the parent is kept so that its identity stays its own
            known = _remember(self._surroundings, key, (parent, mask), MAX_SURROUNDINGS)
        return known[1]

    # ---- frames ----

    def _key(self, state: State) -> Hashable:
        """Equal for states between which no string can tell, what is around them left aside."""
        kind = type(state)
        if kind is Scalar:
            return (id(state.node), *[(bit, id(automaton), here) for bit, automaton, here in state.automata])
        if kind is Value:
            return id(state.node), state.mask, self._deep(state.depth)
        if kind is Array:
            most = max(max(minimum, maximum or 0) for _, minimum, maximum, _ in state.node.arrays) + 1
            return id(state.node), state.alive, min(state.length, most), self._deep(state.depth), "items"
        if kind is Object:
            counts = any(minimum or maximum is not None for _, _, minimum, maximum in state.node.objects)
            names = state.used.intersection(self.names.union(state.node.known))
            number = len(state.used) if counts else 0
            return id(state.node), state.alive, names, number, self._deep(state.depth)
        assert kind is FreeKey
        classes = tuple([(matched, id(automaton), here) for matched, automaton, here in state.classes])
        if all(self.walker.is_endless(automaton, here) for _, automaton, here in state.classes):
            taken = [name.encode() for name in state.owner.used.union(state.owner.node.known)]
            text: Hashable = frozenset(
                name[len(state.text) :] for name in taken if name.startswith(state.text)
            )
        else:
            text = state.text
        return self._key(state.owner), classes, text

    def _deep(self, depth: int) -> int:
        """The depth where it matters to a string, else 0."""
        return depth if depth + self.longest + 1 >= MAX_DEPTH else 0

    def _alone(self, state: State) -> State:
        if type(state) is FreeKey:
            return replace(state, owner=replace(state.owner, parent=OUTSIDE))
        assert type(state) is not Closed
        return replace(state, parent=OUTSIDE)

    def _read(self, state: State, strings: Ids, rests: Ids, found: Found) -> None:
        """Reads what is left of each string (its rest) from a state inside the frame on."""
        if type(state) is Closed:
            found.outside.append((state.accepted, strings, rests))
            return
        done = rests == self.nothing
        if done.any():
            found.inside.append(strings[done])
            strings, rests = strings[~done], rests[~done]
        if not len(strings):
            return
        if type(state) is Array:
            ends = self.heads[rests] == ord(ARRAY_END)
            if ends.any():
                self._step(state, ARRAY_END, strings[ends], self.tails[rests[ends]], found)
                strings, rests = strings[~ends], rests[~ends]
            if len(strings):
                try:
                    item = self.walker.reader_of(state, NO_TOKEN)
                except Illegal:
                    return
                self._read(item, strings, rests, found)
            return
        if type(state) is Scalar:
            self._read_text(state, strings, rests, found)
            return
        heads = self.heads[rests]
        texts = (heads < 0) | (heads == ord(END))
        if texts.any():
            if type(state) is Value:
                if state.node.texts:
                    try:
                        opened = self.walker.open_text(state)
                    except Illegal:
                        pass
                    else:
                        self._read_text(opened, strings[texts], rests[texts], found)
            else:
                self._read_key(state, strings[texts], rests[texts], found)
        for head in np.unique(heads[~texts]).tolist():
            here = heads == head
            self._step(state, chr(head), strings[here], self.tails[rests[here]], found)

    def _step(self, state: State, token: str, strings: Ids, rests: Ids, found: Found) -> None:
        try:
            moved = self.walker.step(state, token)
        except Illegal:
            return
        assert moved is not None  # a frame without surroundings is Closed at its end
        self._read(moved, strings, rests, found)

    def _read_text(self, state: Scalar, strings: Ids, rests: Ids, found: Found) -> None:
        runs, ends = self.runs[rests], self.ends[rests]
        inside = np.zeros(len(rests), dtype=bool)
        accepted = np.zeros(len(rests), dtype=np.int64)
        for bit, automaton, here in state.automata:
            targets = self._targets_of(automaton, here)[runs]
            inside |= targets >= 0
            accepting = np.array([*automaton.accepting, False])
            accepted |= np.where(accepting[targets], bit, 0)
        inside &= self.pure[rests]
        if inside.any():
            found.inside.append(strings[inside])
        accepted[ends < 0] = 0
        for mask in np.unique(accepted).tolist():
            if mask:
                here = accepted == mask
                try:
                    after = self.walker.finish(state.parent, mask)
                except Illegal:
                    continue
                assert after is not None
                self._read(after, strings[here], ends[here], found)

    def _read_key(self, state: Object | FreeKey, strings: Ids, rests: Ids, found: Found) -> None:
        """Strings that begin with bytes or END where a key that the schema does not name is being written."""
        try:
            here = state if type(state) is FreeKey else self.walker.open_key(state)
        except Illegal:
            return
        runs, ends = self.runs[rests], self.ends[rests]
        endless = np.zeros(len(self.run_texts), dtype=bool)
        possible = np.zeros(len(self.run_texts), dtype=bool)
        whole = np.zeros(len(self.run_texts), dtype=bool)
        for _, automaton, start in here.classes:
            targets = self._targets_of(automaton, start)
            is_endless = [self.walker.is_endless(automaton, target) for target in range(len(automaton.edges))]
            endless |= np.array([*is_endless, False])[targets]
            possible |= targets >= 0
            whole |= np.array([*automaton.accepting, False])[targets]
        for run in np.unique(runs[possible[runs] & ~endless[runs] & self.pure[rests]]).tolist():
            if self._moved(here, self.run_texts[run]) is None:
                possible[run] = False
        inside = self.pure[rests] & possible[runs]
        if inside.any():
            found.inside.append(strings[inside])
        named = (ends >= 0) & whole[runs]
        strings, rests, runs, ends = strings[named], rests[named], runs[named], ends[named]
        for run in np.unique(runs).tolist():
            moved = self._moved(here, self.run_texts[run])
            if moved is not None:
                chosen = runs == run
                self._step(moved, END, strings[chosen], ends[chosen], found)

    def _moved(self, state: FreeKey, run: bytes) -> FreeKey | None:
        here: State | None = state
        try:
            for byte in run:
                assert type(here) is FreeKey
                here = self.walker.step(here, chr(byte))
        except Illegal:
            return None
        assert type(here) is FreeKey
        return here

    def _targets_of(self, automaton: Automaton, start: int) -> np.ndarray:
        """Where each run of bytes leads from a state: int64 (number of runs,); -1 nowhere."""
        known = self._targets.get((id(automaton), start))
        if known is None:
            table = self._tables.get(id(automaton))
            if table is None:
                table = np.array([*automaton.tables, [-1] * 256])
                self._tables[id(automaton)] = table
            states = np.full(len(self.run_texts), start, dtype=np.int64)
            for column, count in enumerate(self._run_counts):
                states[:count] = table[states[:count], self._run_bytes[column, :count]]
            known = np.empty_like(states)
            known[self._run_order] = states
            self._targets[id(automaton), start] = known
        return known


def _remember(cache: OrderedDict[Any, T], key: Hashable, value: T, room: int) -> T:
    """Keeps a value, and lets the oldest go where there is no room."""
    cache[key] = value
    if len(cache) > room:
        cache.popitem(last=False)
    return value
