"""Learns the tokens of a vocabulary: byte-pair merges over base tokens, and of those the ones that save most.

Merges are learned in two stages, inside words and then across words and structure, as in superword tokenization (Liu
et al., "SuperBPE: Space travel for language models", 2025, section 3). Many more are learned than ids are left for:
a merge that only led to a longer one is of no further use. Then, in rounds, the tokens go whose loss costs least when
the text is cut greedily (compare Schmidt et al., "Tokenization is more than compression", 2024, section 3).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter

import numpy as np

from nanochat_tct.tokenizer.engine import PAD, Segmenter
from nanochat_tct.tokenizer.vocabulary import MAX_TOKEN

# Base characters below 0x100 are bytes of text, those above are structure and literals (see engine.c).
WORD = re.compile(
    r" ?[A-Za-z\x80-\xff]+| ?[0-9]{1,3}|\n+ *| ?[^A-Za-z0-9\s\x80-\uffff]+|[\t\r\x0b\x0c ]+|[\u0100-\uffff]|[\s\S]"
)
PIECE = re.compile(
    r"[^\n]*\n* *"
)  # tokens are learned inside these: all up to a line break and its indentation
CANDIDATES = 2.5  # tokens learned by merging, for each that is kept
WORD_SHARE = 0.35  # of the merges, those that stay inside words
ROUNDS = 12

Pairs = list[tuple[int, int]]


def learn_tokens(counts: Counter[str], base_size: int, vocab_size: int) -> list[str]:
    """Chooses the tokens beyond the base tokens.

    Args:
        counts: how often each piece (a string of base tokens) occurs.
        base_size: number of base tokens.
        vocab_size: number of ids to fill.

    Returns:
        At most vocab_size - base_size tokens as strings of base tokens, the most frequent first; fewer when the
        pieces do not repeat enough.
    """
    capacity = vocab_size - base_size
    base = {chr(code) for code in range(base_size) if code != PAD}
    tokens = merge(counts, base_size, round(capacity * CANDIDATES)) - base
    surplus = max(0, len(tokens) - capacity)
    for rounds_left in range(ROUNDS, 0, -1):
        known = sorted(base | tokens)
        segmenter, uses = Segmenter(known), _uses(counts, known)
        losses = {
            token: use * _pieces_without(token, segmenter)
            for token, use in zip(known, uses, strict=True)
            if token in tokens
        }
        by_loss = sorted(tokens, key=lambda token: (losses[token], token))
        drop = max(0, len(tokens) - capacity) if rounds_left == 1 else surplus // ROUNDS
        tokens.difference_update(by_loss[:drop])
    known = sorted(base | tokens)
    uses_of = dict(zip(known, _uses(counts, known), strict=True))
    return sorted(tokens, key=lambda token: (-uses_of[token], token))


def _uses(counts: Counter[str], known: list[str]) -> list[int]:
    """How often each token occurs when the pieces are cut greedily."""
    border = len(known)
    ids = np.array(Segmenter([*known, chr(PAD)]).encode(chr(PAD).join(counts)), dtype=np.int64)
    piece = np.cumsum(ids == border)
    weights = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))
    uses: list[int] = np.bincount(ids, weights[piece], minlength=border).astype(np.int64)[:border].tolist()
    return uses


def _pieces_without(token: str, segmenter: Segmenter) -> int:
    """How many tokens more it takes to write a token with others."""
    (first, *_) = segmenter.encode(token[:-1])  # the longest that is not the token itself
    return len(segmenter.encode(token[len(segmenter.expansions[first]) :]))


def merge(counts: Counter[str], base_size: int, capacity: int) -> set[str]:
    """All tokens that byte-pair merging makes, as strings of base tokens, base tokens included where they are used."""
    expansions = [chr(code) for code in range(base_size)]

    def grow(pairs: Pairs) -> None:
        expansions.extend(expansions[left] + expansions[right] for left, right in pairs)

    split = {piece: WORD.findall(piece) for piece in counts}
    words: Counter[str] = Counter()
    for piece, count in counts.items():
        for word in split[piece]:
            words[word] += count
    grow(
        _learn(
            [list(map(ord, word)) for word in words],
            list(words.values()),
            base_size,
            int(capacity * WORD_SHARE),
        )
    )
    ids = {text: token for token, text in reversed(list(enumerate(expansions)))}
    known = sorted(ids.keys() - {chr(PAD)})
    cut = Segmenter(known).encode
    spelled = {word: [ids[known[index]] for index in cut(word)] for word in words}
    sequences = [[token for word in split[piece] for token in spelled[word]] for piece in counts]
    grow(_learn(sequences, list(counts.values()), len(expansions), capacity - (len(expansions) - base_size)))
    return {text for text in expansions if len(text) <= MAX_TOKEN} - {chr(PAD)}


def _learn(sequences: list[list[int]], weights: list[int], first_id: int, capacity: int) -> Pairs:
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
    while heap and len(pairs) < capacity:
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
