"""A vocabulary's texts in their order, as a tree."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


class TokenTrie:
    """A vocabulary's texts as a tree in which texts with a common beginning share a node.

    Args:
        texts: of each token.

    Attributes:
        order: the tokens, sorted by their texts.
        root: the node of all of them.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.order = np.array(sorted(range(len(texts)), key=texts.__getitem__))
        self.texts = [texts[token] for token in self.order]
        self.root = TrieNode(self, 0, len(texts), "")

    def beginning_with(self, text: str) -> np.ndarray:
        """The tokens whose texts begin with some text: int64 (N,)."""
        begin, end = (bisect_left(self.texts, each) for each in (text, text + chr(sys.maxunicode)))
        return self.order[begin:end]


@dataclass(eq=False)
class TrieNode:
    """Those tokens of a trie whose texts begin with `text`: `order[begin:end]`."""

    trie: TokenTrie
    begin: int
    end: int
    text: str

    @property
    def is_token(self) -> bool:
        """Whether the text of the first of them is just `text`."""
        return self.trie.texts[self.begin] == self.text

    @cached_property
    def children(self) -> list[TrieNode]:
        """One for each character that may follow, with all that its tokens have in common."""
        texts, found = self.trie.texts, []
        begin = self.begin + self.is_token
        while begin < self.end:
            character = texts[begin][: len(self.text) + 1]
            after = character[:-1] + chr(ord(character[-1]) + 1)
            end = bisect_left(texts, after, begin, self.end)
            found.append(TrieNode(self.trie, begin, end, _common(texts[begin], texts[end - 1])))
            begin = end
        return found

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the children begin and end."""
        return np.array([c.begin for c in self.children]), np.array([c.end for c in self.children])


def _common(first: str, second: str) -> str:
    """What two texts begin with."""
    length = next((at for at, letter in enumerate(first) if not second.startswith(letter, at)), len(first))
    return first[:length]
