"""Base tokens to token ids and back: from left to right, always the longest token of the vocabulary.

The tokens are put into a trie, and the trie into one regular expression whose alternatives exclude each other by
their first character, so that the whole search for the longest match runs inside Python's regex engine: nothing is
cached, and the time is proportional to the text. (Greedy segmentation of a vocabulary that was chosen for it takes
about as few tokens as the shortest one: Uzan et al., "Greed is all you need", 2024.)
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from nanochat_tct.tokenizer.grammar import PAD


class Segmenter:
    """One vocabulary at work.

    Args:
        base_size: number of base tokens; base token i is the character chr(i), and has the id i.
        tokens: the base tokens that each further id stands for, from base_size on.
    """

    def __init__(self, base_size: int, tokens: Sequence[str]) -> None:
        self.base_size = base_size
        self.expansions = [*map(chr, range(base_size)), *tokens]
        self._ids = {text: token for token, text in enumerate(self.expansions)}
        self._sorted = sorted(tokens)
        self._split = longest_match(
            [*tokens, *(chr(code) for code in range(base_size) if code != PAD)]
        ).findall

    def begins_longer_token(self, base: str) -> bool:
        """Whether some token begins with these base tokens and has more."""
        place = bisect.bisect_right(self._sorted, base)
        return place < len(self._sorted) and self._sorted[place].startswith(base)

    def encode(self, base: str) -> list[int]:
        """Base tokens to token ids."""
        return list(map(self._ids.__getitem__, self._split(base)))

    def decode(self, tokens: Iterable[int]) -> str:
        """Token ids to base tokens."""
        return "".join(map(self.expansions.__getitem__, tokens))


def longest_match(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches the longest of the tokens at a place; it is quickest when frequent ones are given first.

    The alternatives at one place are tried in the order of their share in a text, which is guessed from the ranks of
    the tokens that begin there.
    """
    trie: dict[str, Any] = {}
    for rank, token in enumerate(tokens):
        node = trie
        for character in token:
            node = node.setdefault(character, {})
        node[""] = 1 / (rank + 20)  # a token ends here; its share falls about like this (Zipf's law)
    return re.compile(_pattern(trie)[0], re.DOTALL)


def _pattern(node: dict[str, Any]) -> tuple[str, float]:
    """The rest of the tokens below a trie node, longer ones before the end, marked ""; and the share of them all."""
    share = node.get("", 0.0)
    alternatives: list[tuple[str, float]] = []
    last: list[
        tuple[str, float]
    ] = []  # characters that end a token and begin no longer rest: one set of characters
    for character, child in node.items():
        if character == "":
            continue
        text = re.escape(character)
        if len(child) == 1 and "" in child:
            last.append((text, child[""]))
            continue
        while len(child) == 1 and "" not in child:  # a stretch without branches
            ((character, child),) = child.items()
            text += re.escape(character)
        rest, rest_share = _pattern(child)
        alternatives.append((text + rest, rest_share))
    if len(last) > 1:
        last = [("[" + "".join(text for text, _ in last) + "]", sum(share for _, share in last))]
    alternatives = sorted(alternatives + last, key=lambda alternative: -alternative[1])
    share += sum(share for _, share in alternatives)
    if not alternatives:
        return "", share
    joined = "|".join(text for text, _ in alternatives)
    if "" in node:
        return f"(?:{joined}|)", share
    return joined if len(alternatives) == 1 else f"(?:{joined})", share
