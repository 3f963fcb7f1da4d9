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

import contextlib
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from nanochat_tct.tokenizer.automaton import Automaton
from nanochat_tct.tokenizer.grammar import ARRAY_END, END, MAX_DEPTH
from nanochat_tct.tokenizer.matcher import (
    OUTSIDE,
    AdditionalKey,
    Array,
    Closed,
    GrammarMatcher,
    Illegal,
    Object,
    Parent,
    Scalar,
    State,
    Value,
    alone,
    parent_of,
    segments_of,
)

MAX_FRAMES = 4_000
MAX_MASKS = 4_000  # different ones
MAX_PLACES = 50_000
MAX_SURROUNDINGS = 2_000
FEW = 2  # so many strings are read one by one
ELSEWHERE: Parent = (None, None)  # as OUTSIDE, and another object: of a frame inside another one
PLACEHOLDERS = tuple(f"\0{number}" for number in range(4))  # stand for keys of any name
ANY_TEXT = b"\1"  # stands for the beginning of such a key: no string repeats it, and no placeholder begins so
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
        self.inside: list[Ids | list[int]] = []
        self.outside: list[tuple[int, Ids | list[int], Ids | list[int]]] = []


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


class TokenBitmask:
    """The masks of one vocabulary over one grammar.

    Args:
        matcher: moves over the grammar.
        expansions: the base tokens of each token.
    """

    def __init__(self, matcher: GrammarMatcher, expansions: Sequence[str]) -> None:
        self.matcher = matcher
        self.vocab_size = len(expansions)
        strings = list(expansions)
        string_ids = {text: number for number, text in enumerate(strings)}
        for text in expansions:
            for start in range(1, len(text)):
                if max(text[start - 1], text[start]) > "\xff" and text[start:] not in string_ids:
                    string_ids[text[start:]] = len(strings)
                    strings.append(text[start:])
        self.nothing = len(strings)  # the number of the empty string
        string_ids[""] = self.nothing
        strings.append("")
        self.size = len(strings)
        self.segments = [segments_of(text) for text in strings]
        self.longest = max(sum(segment > "\xff" for segment in cut) for cut in self.segments)
        self._cut(strings, string_ids)
        self._all = np.arange(self.nothing, dtype=np.int32)
        self._all_by_head = self._by_head(self._all, self._all)
        self._needed: dict[tuple[int, int], int | None] = {}  # see _most_needed
        self._targets: dict[tuple[int, int], np.ndarray] = {}
        self._tables: dict[int, np.ndarray] = {}
        self._frames: OrderedDict[Hashable, Frame] = OrderedDict()
        self._inner: OrderedDict[Hashable, Found] = OrderedDict()
        self._masks: OrderedDict[Hashable, Mask] = OrderedDict()
        self._contents: OrderedDict[bytes, Mask] = OrderedDict()
        self._surroundings: OrderedDict[tuple[int, int], tuple[Parent, Mask]] = OrderedDict()
        self._packed: OrderedDict[int, bytes] = OrderedDict()
        self._count = 1
        end = np.zeros(self.size, dtype=bool)
        self._never: Mask = (0, end.copy())
        end[self.nothing] = True
        self._end: Mask = (1, end)  # after the document nothing may come

    def _cut(self, strings: list[str], string_ids: dict[str, int]) -> None:
        """Arrays over all strings: how each begins."""
        runs: dict[str, int] = {"": 0}
        # the first base token where it is structure, else -1
        self.heads = np.full(self.size, -1, dtype=np.int32)
        self.tails = np.full(self.size, -1, dtype=np.int32)  # the string after that
        self.runs = np.zeros(self.size, dtype=np.int32)  # the number of the run of bytes that it begins with
        # the string after run and END; -1: END does not follow
        self.ends = np.full(self.size, -1, dtype=np.int32)
        self.pure = np.zeros(self.size, dtype=bool)  # a run of bytes and no more
        for number, (text, cut) in enumerate(zip(strings, self.segments, strict=True)):
            if not cut:
                continue
            run = ""
            if cut[0] > "\xff":
                self.heads[number] = ord(cut[0])
                self.tails[number] = string_ids[text[1:]]
            else:
                run = cut[0]
                self.pure[number] = len(cut) == 1
            self.runs[number] = runs.setdefault(run, len(runs))
            if text[len(run) : len(run) + 1] == END:
                self.ends[number] = string_ids[text[len(run) + 1 :]]
        self._next = [
            (cut[0], string_ids[text[len(cut[0]) :]]) if cut else ("", -1)
            for text, cut in zip(strings, self.segments, strict=True)
        ]
        self.run_texts = [text.encode("latin-1") for text in runs]
        self._run_numbers = {text: number for number, text in enumerate(self.run_texts)}
        self._naming: dict[int, Ids] = {}  # see _strings_naming
        # strings by a key that they may write, not at their beginning
        self._later: dict[str, list[int]] = {}
        # those that may write a key twice, by what has to stand before them
        self._repeating: dict[bytes, list[int]] = {}
        for number, cut in enumerate(self.segments):
            keys = []
            for place, segment in enumerate(cut):
                if segment == END:
                    run = cut[place - 1] if place and cut[place - 1] <= "\xff" else ""
                    keys.append((place - bool(run), run.encode("latin-1")))
            for place, key in keys:
                if place > 0:
                    self._later.setdefault(key.decode("utf-8", "ignore"), []).append(number)
                    first = keys[0][1]
                    if keys[0][0] == 0 and key.endswith(first):
                        self._repeating.setdefault(key[: len(key) - len(first)], []).append(number)
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
        return self._mask_of(state)[1]

    def packed(self, state: State | None) -> bytes:
        """Which tokens may follow, a bit each, the first one in the highest bit; equal masks are mostly one object."""
        number, mask = self._mask_of(state)
        known = self._packed.get(number)
        if known is None:
            bits = np.packbits(mask[: self.vocab_size]).tobytes()
            known = _remember(self._packed, number, bits, MAX_MASKS)
        return known

    def _mask_of(self, state: State | None) -> Mask:
        if state is None:
            return self._end
        if isinstance(state, AdditionalKey | Object):
            general = self._without_names(state)
            if general is not None:
                return self._with_names(state, general)
        key = self._key(state)
        frame = self._frames.get(key)
        if frame is None:
            found = Found()
            self._read(alone(state), self._all, self._all, found)
            frame = _remember(self._frames, key, Frame(found, self.size), MAX_FRAMES)
        parent = parent_of(state)
        around = tuple([self._around(parent, accepted) for accepted, _, _ in frame.outside])
        whole = (key, tuple([mask[0] for mask in around]))
        known = self._masks.get(whole)
        if known is None:
            mask = frame.legal.copy()
            for (_, strings, rests), outer in zip(frame.outside, around, strict=True):
                mask[strings] |= outer[1][rests]
            mask[self.nothing] = True
            known = self._share(whole, mask)
        return known

    def _without_names(self, state: Object | AdditionalKey) -> Object | AdditionalKey | None:
        """The state as if no key of any name had been written or begun; None where it is that already.

        Such keys seldom matter to a string, and are different in each document.
        """
        owner, text = (state.owner, state.text) if isinstance(state, AdditionalKey) else (state, b"")
        node = owner.node
        if not node.free or (
            all(name in node.known or name in PLACEHOLDERS for name in owner.used)
            and (not isinstance(state, AdditionalKey) or text == ANY_TEXT or node.known)
        ):
            return None
        most_needed = self._most_needed(owner)
        if most_needed is None:
            return None
        used = owner.used.intersection(node.known)
        if most_needed:
            used = used.union(PLACEHOLDERS[: min(len(owner.used) - len(used), most_needed)])
        general = Object(node, owner.alive, used, owner.depth, owner.parent)
        if isinstance(state, Object):
            return general
        return AdditionalKey(general, state.classes, text if node.known else ANY_TEXT)

    def _most_needed(self, owner: Object) -> int | None:
        """The most keys that an object must have, if it does not matter which keys of any name it has, else None."""
        key = (id(owner.node), owner.alive)
        if key not in self._needed:
            self._needed[key] = None
            limits = [(minimum, maximum) for _, _, minimum, maximum in owner.node.objects]
            most_needed = max(minimum for minimum, _ in limits)
            if most_needed <= len(PLACEHOLDERS) and all(maximum is None for _, maximum in limits):
                with contextlib.suppress(Illegal):
                    # without a maximum they are the same whatever was written
                    classes = self.matcher.open_key(owner).classes
                    if all(self.matcher.is_always_endless(automaton, here) for _, automaton, here in classes):
                        self._needed[key] = most_needed
        return self._needed[key]

    def _with_names(self, state: Object | AdditionalKey, without: Object | AdditionalKey) -> Mask:
        """The mask of a state, from that of ``_without_names``: strings that have one of its keys are read anew."""
        general = self._mask_of(without)
        owner, text = (state.owner, state.text) if isinstance(state, AdditionalKey) else (state, b"")
        affected: set[int] = set()
        taken: list[Ids] = []
        again = []
        for name in owner.used.difference(owner.node.known):
            if name in self._later:
                again.append(name)
                affected.update(self._later[name])
            encoded = name.encode()
            if encoded.startswith(text) and encoded[len(text) :] in self._run_numbers:
                taken.append(self._strings_naming(self._run_numbers[encoded[len(text) :]]))
        if isinstance(state, AdditionalKey) and text in self._repeating:
            affected.update(self._repeating[text])
            again.append(text.decode("latin-1"))
        if not affected and not any(map(len, taken)):
            return general
        # equal masks of different states have one number: the state tells how the affected strings are read
        key = (
            general[0],
            self._key(without),
            frozenset(again),
            tuple(map(id, taken)),
            text if affected else b"",
        )
        known = self._masks.get(key)
        if known is None:
            mask = general[1].copy()
            mask[list(affected)] = False
            frame = ("names", self._key(state))
            found = self._inner.get(frame)
            if found is None:
                found = Found()
                start = alone(state)
                for string in affected:
                    self._read_one(start, string, string, found)
                _remember(self._inner, frame, found, MAX_FRAMES)
            for part in found.inside:
                mask[part] = True
            for accepted, parts, rests in found.outside:
                mask[parts] |= self._around(owner.parent, accepted)[1][rests]
            for part in taken:
                mask[part] = False
            known = self._share(key, mask)
        return known

    def _strings_naming(self, run: int) -> Ids:
        """The strings that begin with a run of bytes and END: they write a key, if they begin in one."""
        known = self._naming.get(run)
        if known is None:
            known = self._naming[run] = np.flatnonzero((self.runs == run) & (self.ends >= 0))
        return known

    def _share(self, key: Hashable, mask: np.ndarray) -> Mask:
        """Remembers a mask; equal ones have one number."""
        content = hashlib.blake2b(mask.tobytes(), digest_size=16).digest()
        known = self._contents.get(content)
        if known is None:
            self._count += 1
            known = _remember(self._contents, content, (self._count, mask), MAX_MASKS)
        return _remember(self._masks, key, known, MAX_PLACES)

    def _around(self, parent: Parent, accepted: int) -> Mask:
        """The mask of what follows a frame that ends accepted by these alternatives."""
        key = (id(parent), accepted)
        known = self._surroundings.get(key)
        if known is None:
            try:
                mask = self._mask_of(self.matcher.finish(parent, accepted))
            except Illegal:
                mask = self._never
            # the parent is kept so that its identity stays its own
            known = _remember(self._surroundings, key, (parent, mask), MAX_SURROUNDINGS)
        return known[1]

    # ---- frames ----

    def _key(self, state: State) -> Hashable:
        """Equal for states between which no string can tell, what is around them left aside."""
        if isinstance(state, Scalar):
            return (id(state.node), *[(bit, id(automaton), here) for bit, automaton, here in state.automata])
        if isinstance(state, Value):
            return id(state.node), state.mask, self._deep(state.depth)
        if isinstance(state, Array):
            most = max(max(minimum, maximum or 0) for _, minimum, maximum, _ in state.node.arrays) + 1
            return id(state.node), state.alive, min(state.length, most), self._deep(state.depth), "items"
        if isinstance(state, Object):
            return id(state.node), state.alive, state.used, self._deep(state.depth)
        assert isinstance(state, AdditionalKey)
        classes = tuple([(matched, id(automaton), here) for matched, automaton, here in state.classes])
        return self._key(state.owner), classes, state.text

    def _deep(self, depth: int) -> int:
        """The depth where it matters to a string, else 0."""
        return depth if depth + self.longest + 1 >= MAX_DEPTH else 0

    def _read(self, state: State, strings: Ids, rests: Ids, found: Found) -> None:
        """Reads what is left of each string (its rest) from a state inside the frame on."""
        if isinstance(state, Closed):
            found.outside.append((state.accepted, strings, rests))
            return
        if rests is not self._all:
            done = rests == self.nothing
            if done.any():
                found.inside.append(strings[done])
                strings, rests = strings[~done], rests[~done]
        if len(strings) <= FEW:
            for string, rest in zip(strings.tolist(), rests.tolist(), strict=True):
                self._read_one(state, string, rest, found)
            return
        if isinstance(state, Array):
            ends = self.heads[rests] == ord(ARRAY_END)
            if ends.any():
                self._step(state, ARRAY_END, strings[ends], self.tails[rests[ends]], found)
                strings, rests = strings[~ends], rests[~ends]
            if len(strings):
                try:
                    item = self.matcher.reader_of(state, NO_TOKEN)
                except Illegal:
                    return
                self._read_inner(item, strings, rests, found)
            return
        if isinstance(state, Scalar):
            self._read_text(state, strings, rests, found)
            return
        texts, others = self._all_by_head if rests is self._all else self._by_head(strings, rests)
        if len(texts[0]):
            if isinstance(state, Value):
                if state.node.texts:
                    with contextlib.suppress(Illegal):
                        self._read_text(self.matcher.open_text(state), *texts, found)
            else:
                self._read_key(state, *texts, found)
        for head, starting, tails in others:
            self._step(state, head, starting, tails, found)

    def _by_head(self, strings: Ids, rests: Ids) -> tuple[tuple[Ids, Ids], list[tuple[str, Ids, Ids]]]:
        """Strings and rests that begin with bytes or END; and by their first token the others, with what follows it."""
        heads = self.heads[rests]
        order = np.argsort(heads, kind="stable")
        heads, strings, rests = heads[order], strings[order], rests[order]
        start = int(np.searchsorted(heads, 0))  # bytes are -1
        borders = [start, *(np.flatnonzero(np.diff(heads[start:])) + start + 1).tolist(), len(heads)]
        texts, others = (strings[:start], rests[:start]), []
        for left, right in itertools.pairwise(borders):
            if left == right:
                continue
            if heads[left] == ord(END):
                texts = (
                    np.concatenate([texts[0], strings[left:right]]),
                    np.concatenate([texts[1], rests[left:right]]),
                )
            else:
                others.append((chr(heads[left]), strings[left:right], self.tails[rests[left:right]]))
        return texts, others

    def _step(self, state: State, token: str, strings: Ids, rests: Ids, found: Found) -> None:
        try:
            moved = self.matcher.step(state, token)
        except Illegal:
            return
        assert moved is not None  # a frame without surroundings is Closed at its end
        self._read_inner(moved, strings, rests, found)

    def _read_inner(self, state: State, strings: Ids, rests: Ids, found: Found) -> None:
        """As ``_read``, from a frame inside another one on: what it does with the rests is kept for the next time."""
        if isinstance(state, Closed | AdditionalKey) or state.parent is OUTSIDE or len(strings) <= FEW:
            self._read(state, strings, rests, found)
            return
        key = (self._key(state), rests.tobytes())
        inner = self._inner.get(key)
        if inner is None:
            inner = Found()
            self._read(alone(state), np.arange(len(rests), dtype=np.int32), rests, inner)
            _remember(self._inner, key, inner, MAX_FRAMES)
        for places in inner.inside:
            found.inside.append(strings[places])
        for accepted, places, after in inner.outside:
            try:
                moved = self.matcher.finish(state.parent, accepted)
            except Illegal:
                continue
            assert moved is not None
            self._read(moved, strings[places], np.asarray(after, dtype=np.int32), found)

    def _read_one(self, state: State, string: int, rest: int, found: Found) -> None:
        """As ``_read``, for one string."""
        here: State | None = state
        try:
            while rest != self.nothing:
                assert here is not None
                if isinstance(here, Closed):
                    found.outside.append((here.accepted, [string], [rest]))
                    return
                head, tail = self._next[rest]
                here = self.matcher.advance(here, (head,))
                rest = tail
        except Illegal:
            return
        if isinstance(here, Closed):
            found.outside.append((here.accepted, [string], [rest]))
        else:
            found.inside.append([string])

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
                    after = self.matcher.finish(state.parent, mask)
                except Illegal:
                    continue
                assert after is not None
                self._read(after, strings[here], ends[here], found)

    def _read_key(self, state: Object | AdditionalKey, strings: Ids, rests: Ids, found: Found) -> None:
        """Strings that begin with bytes or END where a key that the schema does not name is being written."""
        try:
            here = state if isinstance(state, AdditionalKey) else self.matcher.open_key(state)
        except Illegal:
            return
        runs, ends = self.runs[rests], self.ends[rests]
        taken = [name.encode() for name in here.owner.used.union(here.owner.node.known)]
        beginning = len(here.text)
        taken_runs = [
            self._run_numbers[name[beginning:]]
            for name in taken
            if name.startswith(here.text) and name[beginning:] in self._run_numbers
        ]
        for _, automaton, start in here.classes:
            targets = self._targets_of(automaton, start)
            possible = targets >= 0
            endless = [self.matcher.is_endless(automaton, target) for target in range(len(automaton.edges))]
            doubtful = possible & ~np.array([*endless, False])[targets]
            for run in np.unique(runs[doubtful[runs] & self.pure[rests]]).tolist():
                possible[run] = self._moved(here, self.run_texts[run]) is not None
            inside = self.pure[rests] & possible[runs]
            if inside.any():
                found.inside.append(strings[inside])
            whole = np.array([*automaton.accepting, False])[targets]
            whole[taken_runs] = False
            named = (ends >= 0) & whole[runs]
            if named.any():
                self._read_named(here, strings[named], runs[named], ends[named], found)

    def _read_named(self, state: AdditionalKey, strings: Ids, runs: Ids, ends: Ids, found: Found) -> None:
        """Strings that have a whole key of one class, by the numbers of the keys' last bytes, and then an end.

        The keys differ only in what may not come again, which matters to the few strings that go on in the object.
        """
        moved = self._moved(state, self.run_texts[runs[0]])
        assert moved is not None
        try:
            value = self.matcher.step(moved, END)
        except Illegal:
            return
        assert value is not None and not isinstance(value, Closed) and not isinstance(value, AdditionalKey)
        inner = Found()
        parent = value.parent
        self._read_inner(replace(value, parent=ELSEWHERE), np.arange(len(ends), dtype=np.int32), ends, inner)
        for places in inner.inside:
            found.inside.append(strings[places])
        for accepted, places, after in inner.outside:
            places, after = np.asarray(places), np.asarray(after, dtype=np.int32)
            done = after == self.nothing
            if done.any():
                try:
                    self.matcher.finish(parent, accepted)
                except Illegal:
                    continue
                found.inside.append(strings[places[done]])
            for place, rest in zip(places[~done].tolist(), after[~done].tolist(), strict=True):
                named = self._moved(state, self.run_texts[runs[place]])
                assert named is not None
                opened = self.matcher.step(named, END)
                assert (
                    opened is not None
                    and not isinstance(opened, Closed)
                    and not isinstance(opened, AdditionalKey)
                )
                try:
                    closed = self.matcher.finish(opened.parent, accepted)
                except Illegal:
                    continue
                assert closed is not None
                self._read_one(closed, int(strings[place]), rest, found)

    def _moved(self, state: AdditionalKey, run: bytes) -> AdditionalKey | None:
        try:
            return self.matcher.read_key(state, run)
        except Illegal:
            return None

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


def _remember(cache: OrderedDict[Any, T], key: Hashable, value: T, capacity: int) -> T:
    """Keeps a value, and lets the oldest go where there is no room."""
    cache[key] = value
    if len(cache) > capacity:
        cache.popitem(last=False)
    return value
