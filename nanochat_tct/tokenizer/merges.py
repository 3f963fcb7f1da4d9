"""Byte-pair merges over base tokens, learned in two stages and applied piece by piece.

Merges inside words come first, then merges across the words and the structure of one piece (a line of text with the
structure before it), as in superword tokenization (Liu et al., "SuperBPE: Space travel for language models", 2025,
section 3). A piece is encoded likewise: the first kind word by word, in order of rank, then the second kind over what
is left. Few distinct words make up many distinct pieces, so most of the work is looked up.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

# Base characters below 0x100 are bytes of text, those above are structure and literals (see grammar.py).
WORD = re.compile(
    r" ?[A-Za-z\x80-\xff]+| ?[0-9]{1,3}|\n+ *| ?[^A-Za-z0-9\s\x80-\uffff]+|[\t\r\x0b\x0c ]+|[\u0100-\uffff]|[\s\S]"
)
# the structure before a line, the line, and its end: a line break with the indentation after it, or END and closers
PIECE = re.compile("[\u0100-\uffff]*[^\n\u0100-\uffff]*(?:\n+ *|\u0101[\u0103\u0105]*)?")
MAX_CACHED_PIECE = 256  # characters
MAX_CACHED_PIECES = 100_000
MAX_CACHED_WORDS = 50_000
NO_MERGE = 1 << 30

Pairs = list[tuple[int, int]]


class Merges:
    """The merges of a vocabulary at work.

    Args:
        base_size: number of base tokens; the token made by merge i has the id base_size + i.
        pairs: the two tokens that each merge joins, in order of rank.
        word_merges: how many of them, the first ones, are applied inside words; the others across them.
    """

    def __init__(self, base_size: int, pairs: Pairs, word_merges: int) -> None:
        self.base_size = base_size
        self.pairs = pairs
        self.word_merges = word_merges
        self.expansions = [chr(code) for code in range(base_size)]
        for left, right in pairs:
            self.expansions.append(self.expansions[left] + self.expansions[right])
        made = {pair: base_size + rank for rank, pair in enumerate(pairs)}
        self._inside = {pair: token for pair, token in made.items() if token < base_size + word_merges}
        self._across = {pair: token for pair, token in made.items() if token >= base_size + word_merges}
        self._words: dict[str, list[int]] = {}
        self._pieces: dict[str, list[int]] = {}

    def encode(self, base: str) -> list[int]:
        """Base tokens to token ids."""
        tokens: list[int] = []
        cache = self._pieces
        for piece in PIECE.findall(base):
            known = cache.get(piece)
            if known is None:
                known = self._encode_piece(piece)
            tokens += known
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Token ids to base tokens."""
        expansions = self.expansions
        return "".join([expansions[token] for token in tokens])

    def _encode_piece(self, piece: str) -> list[int]:
        symbols: list[int] = []
        words = self._words
        for word in WORD.findall(piece):
            known = words.get(word)
            if known is None:
                known = _apply(list(map(ord, word)), self._inside)
                if len(words) >= MAX_CACHED_WORDS:
                    words.clear()
                if len(word) <= MAX_CACHED_PIECE:
                    words[word] = known
            symbols += known
        symbols = _apply(symbols, self._across)
        if len(piece) <= MAX_CACHED_PIECE:
            if len(self._pieces) >= MAX_CACHED_PIECES:
                self._pieces.clear()
            self._pieces[piece] = symbols
        return symbols


def _apply(symbols: list[int], made: dict[tuple[int, int], int]) -> list[int]:
    """Joins the pair of lowest rank, all its places from left to right, until none is left."""
    if len(symbols) > 64:
        return _apply_long(symbols, made)
    get = made.get
    symbols = list(symbols)
    ranks = [get(pair, NO_MERGE) for pair in itertools.pairwise(symbols)]
    while ranks and (best := min(ranks)) != NO_MERGE:
        place = ranks.index(best)
        symbols[place : place + 2] = [best]
        del ranks[place]
        if place < len(ranks):
            ranks[place] = get((best, symbols[place + 1]), NO_MERGE)
        if place:
            ranks[place - 1] = get((symbols[place - 1], best), NO_MERGE)
    return symbols


def _apply_long(symbols: list[int], made: dict[tuple[int, int], int]) -> list[int]:
    """The same in n log n, for long sequences: a heap of (token, place) over a linked list."""
    count = len(symbols)
    symbols = list(symbols)
    following = list(range(1, count + 1))
    before = list(range(-1, count - 1))
    heap = [
        (token, place)
        for place, token in enumerate(map(made.get, itertools.pairwise(symbols)))
        if token is not None
    ]
    heapq.heapify(heap)
    while heap:
        token, place = heapq.heappop(heap)
        right = following[place]
        if symbols[place] < 0 or right >= count or made.get((symbols[place], symbols[right])) != token:
            continue
        symbols[place], symbols[right] = token, -1
        after = following[place] = following[right]
        if after < count:
            before[after] = place
            new = made.get((token, symbols[after]))
            if new is not None:
                heapq.heappush(heap, (new, place))
        left = before[place]
        if left >= 0:
            new = made.get((symbols[left], token))
            if new is not None:
                heapq.heappush(heap, (new, left))
    return [symbol for symbol in symbols if symbol >= 0]


def learn(counts: Counter[str], base_size: int, vocab_size: int, word_share: float) -> tuple[Pairs, int]:
    """Learns merges from pieces.

    Args:
        counts: how often each piece (a string of base tokens) occurs.
        base_size: number of base tokens.
        vocab_size: number of ids to fill.
        word_share: the share of the merges that stay inside words.

    Returns:
        The pairs in order of rank, and how many of them stay inside words.
    """
    room = vocab_size - base_size
    words: Counter[str] = Counter()
    for piece, count in counts.items():
        for word in WORD.findall(piece):
            words[word] += count
    inside = _learn(
        [list(map(ord, word)) for word in words], list(words.values()), base_size, int(room * word_share)
    )
    merged = Merges(base_size, inside, len(inside))
    sequences = [merged._encode_piece(piece) for piece in counts]
    first = base_size + len(inside)
    across = _learn(sequences, list(counts.values()), first, room - len(inside))
    return inside + across, len(inside)


def _learn(sequences: list[list[int]], weights: list[int], first_id: int, room: int) -> Pairs:
    """Greedy pair merging over weighted sequences, kept up to date place by place."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    total = int(lengths.sum()) + len(sequences)
    symbols = np.full(total + 1, -1, dtype=np.int64)  # -1 stands between sequences and at merged-away places
    weight = np.zeros(total + 1, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths + 1)])[:-1]
    flat = np.fromiter(
        (symbol for sequence in sequences for symbol in sequence), dtype=np.int64, count=lengths.sum()
    )
    places = np.arange(lengths.sum()) + np.repeat(np.arange(len(sequences)), lengths)
    symbols[places] = flat
    weight[places] = np.repeat(np.array(weights, dtype=np.int64), lengths)
    del starts, flat, places
    following = np.arange(1, total + 2, dtype=np.int64)
    before = np.arange(-1, total, dtype=np.int64)
    merging = np.zeros(total + 1, dtype=bool)

    where: dict[int, list[np.ndarray]] = {}
    counts: dict[int, int] = {}

    def add(keys: np.ndarray, places: np.ndarray, sign: int) -> None:
        """Counts pairs up or down; where they are is only ever added to (stale places are dropped when met)."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        borders = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
        sums = np.add.reduceat(weight[places], borders[:-1])
        firsts = keys[borders[:-1]].tolist()
        for key, start, stop, amount in zip(firsts, borders, borders[1:], sums.tolist(), strict=False):
            counts[key] = counts.get(key, 0) + sign * amount
            if sign > 0:
                where.setdefault(key, []).append(places[start:stop])
                heapq.heappush(heap, (-counts[key], key))

    heap: list[tuple[int, int]] = []
    here = np.flatnonzero((symbols[:-1] >= 0) & (symbols[1:] >= 0))
    add((symbols[here] << 20) | symbols[here + 1], here, 1)
    pairs: Pairs = []
    while heap and len(pairs) < room:
        negative, key = heapq.heappop(heap)
        if counts.get(key, 0) != -negative:
            if counts.get(key, 0) > 0:
                heapq.heappush(heap, (-counts[key], key))
            continue
        if -negative < 2:
            break
        left, right = key >> 20, key & 0xFFFFF
        new = first_id + len(pairs)
        pairs.append((left, right))
        at = np.unique(np.concatenate(where.pop(key)))  # sorted
        at = at[(symbols[at] == left) & (symbols[following[at]] == right)]
        if left == right:  # in a run of equal symbols every second place is a pair, from the left
            kept, taken = [], -1
            for place in at.tolist():
                if place != taken:
                    kept.append(place)
                    taken = int(following[place])
            at = np.array(kept, dtype=np.int64)
        second = following[at]
        after = following[second]
        ahead = before[at]
        merging[at] = True
        has_ahead = symbols[ahead] >= 0
        has_after = (symbols[after] >= 0) & ~merging[
            after
        ]  # between two merges the pair is counted by the second
        merging[at] = False
        add((symbols[ahead[has_ahead]] << 20) | left, at[has_ahead], -1)
        add((right << 20) | symbols[after[has_after]], at[has_after], -1)
        symbols[at] = new
        symbols[second] = -1
        following[at] = after
        before[after] = at
        ahead = before[at]  # of a merge that follows another one: that other one
        add((symbols[ahead[has_ahead]] << 20) | new, ahead[has_ahead], 1)
        add((new << 20) | symbols[after[has_after]], at[has_after], 1)
        counts.pop(key, None)
    return pairs
