"""Learns the tokens of a vocabulary in rounds that first add many, then leave the ones that save most.

Each round cuts the documents as encoding does. A token is worth what its loss would cost there, a pair of neighbours
what its merge would save, and the most valuable of both are the next round's tokens: in the first rounds more each
time, then fewer (compare Schmidt et al., "Tokenization is more than compression", 2024, section 3). While their number
grows, a token is a part of one word, or whole words and structure (compare Liu et al., "SuperBPE: Space travel for
language models", 2025, section 3): tokens that begin or end anywhere save much of the documents that they were learned
from and little of others.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from nanochat_tct.tokenizer.engine import PAD, Segmenter, codes_of
from nanochat_tct.tokenizer.vocabulary import MAX_TOKEN

CANDIDATES = 3  # tokens at the most, for each that is kept
GROWING, SHRINKING = 24, 12  # rounds
GROWTH = 1.2  # of the number of tokens in a round
UNMERGED = 2  # rounds at the end that add nothing, so that each token that is kept was in use
MAX_READ = 16_000_000  # base tokens of documents that are read, and while the number of tokens grows:
MAX_READ_GROWING = 4_000_000
POWER = 0.75  # of how often a group has a token, see learn_tokens
OVERLAP = 0.7  # what a merge saves for each time that its pair occurs: neighbouring pairs are merged together
LETTER, DIGIT, SYMBOL, BLANK, LINE_BREAK, STRUCTURE = range(6)


class Text(NamedTuple):
    """Documents in one array, each with padding behind it."""

    codes: np.ndarray  # base tokens: uint16 (num_codes,)
    groups: np.ndarray  # the group of each document: integers (num_documents,)

    def first(self, num_codes: int) -> Text:
        """The documents at the beginning, until they have as many base tokens."""
        ends = np.flatnonzero(self.codes == PAD) + 1
        count = int(np.searchsorted(ends, num_codes)) + 1
        return Text(self.codes[: ends[:count][-1]], self.groups[:count])


def learn_tokens(documents: Iterable[tuple[str, str]], base_size: int, vocab_size: int) -> list[str]:
    """Chooses the tokens beyond the base tokens.

    A token counts by how often it occurs in one group to the power of 0.75, summed over groups, so that a group that
    repeats itself does not buy tokens for itself alone.

    Args:
        documents: (group, base tokens).
        base_size: number of base tokens.
        vocab_size: number of ids to fill.

    Returns:
        At most vocab_size - base_size tokens as strings of base tokens, the most valuable first; fewer when the
        documents do not repeat enough.
    """
    text = _in_turns(documents).first(MAX_READ)
    capacity = vocab_size - base_size
    largest = capacity * CANDIDATES
    sizes = [
        *(round(largest / GROWTH**rounds) for rounds in reversed(range(GROWING))),
        *(round(capacity * CANDIDATES ** (rounds / SHRINKING)) for rounds in reversed(range(SHRINKING))),
    ]
    base = [chr(code) for code in range(base_size)]
    tokens: list[str] = []
    earlier: dict[str, None] = {}
    sample = text.first(MAX_READ_GROWING)
    starts_word = _starts_word(sample.codes)
    for number, size in enumerate(sizes):
        is_growing = number < GROWING
        worth = _worth(
            sample if is_growing else text,
            [*base, *tokens],
            base_size,
            starts_word if is_growing else None,
            merges=number < len(sizes) - UNMERGED,
            size=size,
        )
        tokens = sorted(worth, key=lambda token: (-worth[token], token))[:size]
        earlier |= dict.fromkeys(tokens)
    unused = sorted(earlier.keys() - set(tokens))  # which fill the ids that little text leaves
    return [*tokens, *unused][:capacity]


def _in_turns(documents: Iterable[tuple[str, str]]) -> Text:
    """The first document of each group, then the second of each, and so on; the order in a group is by hash."""
    groups: dict[str, list[str]] = {}
    for group, base in documents:
        groups.setdefault(group, []).append(base)
    turns = [
        (turn, number, base)
        for number, group in enumerate(sorted(groups))
        for turn, base in enumerate(sorted(groups[group], key=lambda base: sha256(codes_of(base)).digest()))
    ]
    turns.sort(key=lambda each: each[:2])
    codes = codes_of("".join(base + chr(PAD) for _, _, base in turns))
    return Text(np.frombuffer(codes, np.uint16), np.array([number for _, number, _ in turns]))


def _worth(
    text: Text, known: list[str], base_size: int, starts_word: np.ndarray | None, merges: bool, size: int
) -> dict[str, float]:
    """What tokens, and as many as `size` merges of neighbours, save.

    Args:
        starts_word: see _starts_word; None: tokens may begin and end anywhere.
    """
    segmenter = Segmenter(known)
    ids = segmenter.cut(text.codes.tobytes()).astype(np.int64)
    is_padding = ids == PAD
    group = np.repeat(text.groups, np.diff(np.flatnonzero(is_padding), prepend=-1))
    worth = {}
    found, uses = _uses(ids, group)
    for token, use in zip(found.tolist(), uses.tolist(), strict=True):
        if token >= base_size:
            worth[known[token]] = use * _pieces_without(known[token], segmenter)
    if not merges:
        return worth
    is_pair = ~(is_padding[:-1] | is_padding[1:])
    if starts_word is not None:
        lengths = np.array([len(token) for token in known])[ids]
        ends = np.cumsum(lengths)
        starts, ends = (ends - lengths)[:-1], ends[1:]
        words = np.cumsum(starts_word)
        is_inside = words[ends - 1] == words[starts]
        is_pair &= is_inside | (starts_word[starts] & starts_word[ends])
    pairs = (ids[:-1] * len(known) + ids[1:])[is_pair]
    found, uses = _uses(pairs, group[:-1][is_pair])
    best = np.argsort(-uses, kind="stable")[:size]
    for pair, use in zip(found[best].tolist(), uses[best].tolist(), strict=True):
        token = known[pair // len(known)] + known[pair % len(known)]
        if len(token) <= MAX_TOKEN:
            worth.setdefault(token, OVERLAP * use)
    return worth


def _uses(keys: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys that occur twice or more, ascending, and the use of each; keys and groups are integers (n,)."""
    if not len(keys):
        return keys, np.zeros(0)
    num_groups = int(groups.max()) + 1
    both = np.sort(keys * num_groups + groups)
    starts = np.flatnonzero(np.diff(both, prepend=-1))
    counts = np.diff(starts, append=len(both))
    found = both[starts] // num_groups
    starts = np.flatnonzero(np.diff(found, prepend=-1))
    is_repeated = np.add.reduceat(counts, starts) > 1
    return found[starts][is_repeated], np.add.reduceat(counts**POWER, starts)[is_repeated]


def _pieces_without(token: str, segmenter: Segmenter) -> int:
    """How many tokens more it takes to write a token with others."""
    (first, *_) = segmenter.encode(token[:-1])  # the longest that is not the token itself
    return len(segmenter.encode(token[len(segmenter.expansions[first]) :]))


def _starts_word(codes: np.ndarray) -> np.ndarray:
    """Whether a word, number, run of symbols or of white space, or a part of structure starts at each base token, and
    at the end: bool (num_codes + 1,). A space belongs to what is behind it, and indentation to its line break."""
    kinds = np.full(2**16, STRUCTURE, dtype=np.uint8)
    kinds[:PAD] = SYMBOL
    kinds[0x80:PAD] = LETTER  # of UTF-8
    for kind, characters in ((LETTER, bytes(range(65, 91)) + bytes(range(97, 123))), (DIGIT, b"0123456789")):
        kinds[list(characters)] = kind
    kinds[list(b" \t\r\v\f")] = BLANK
    kinds[ord("\n")] = LINE_BREAK
    kind, is_space = kinds[codes], codes == ord(" ")
    is_white = (kind == BLANK) | (kind == LINE_BREAK)
    starts = np.ones(len(codes) + 1, dtype=bool)
    starts[1:-1] = (kind[1:] != kind[:-1]) | (kind[1:] == STRUCTURE)
    starts[2:-1] &= ~(is_space[1:-1] & ~is_white[:-2] & (kind[2:] != STRUCTURE))
    starts[1:-1] &= ~((kind[:-1] == LINE_BREAK) & is_space[1:])
    return starts
