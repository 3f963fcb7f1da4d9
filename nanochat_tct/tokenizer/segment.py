"""Base tokens to token ids and back: from left to right, always the longest token of the vocabulary.

The search is that of an Aho-Corasick automaton in Rust, which takes the leftmost longest match: nothing is cached, and
the time is proportional to the text. (Greedy segmentation of a vocabulary that was chosen for it takes about as few
tokens as the shortest one: Uzan et al., "Greed is all you need", 2024.)
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind


class Segmenter:
    """One vocabulary at work.

    Args:
        base_size: number of base tokens; base token i is the character chr(i), and has the id i.
        tokens: the base tokens that each further id stands for, from base_size on.
    """

    def __init__(self, base_size: int, tokens: Sequence[str]) -> None:
        self.base_size = base_size
        self.expansions = [*map(chr, range(base_size)), *tokens]
        self._sorted = sorted(tokens)
        self._cut = longest_match(self.expansions)

    def begins_longer_token(self, base: str) -> bool:
        """Whether some token begins with these base tokens and has more."""
        place = bisect.bisect_right(self._sorted, base)
        return place < len(self._sorted) and self._sorted[place].startswith(base)

    def encode(self, base: str) -> list[int]:
        """Base tokens, without padding, to token ids."""
        return self._cut(base)

    def decode(self, tokens: Iterable[int]) -> str:
        """Token ids to base tokens."""
        return "".join(map(self.expansions.__getitem__, tokens))


def longest_match(tokens: Sequence[str]) -> Callable[[str], list[int]]:
    """A function that cuts a text into the longest token at each place, and gives their places in `tokens`.

    Every character of the text must be a token too: one that is not would be left out.
    """
    # A full DFA is no quicker here: most of its tables lie outside the processor's caches.
    search = AhoCorasick(
        tokens,
        matchkind=MatchKind.LeftmostLongest,
        store_patterns=False,
        implementation=Implementation.ContiguousNFA,
    ).find_matches_as_indexes
    return lambda text: [token for token, _, _ in search(text)]
