"""The state of one workflow while it is written: random choices, words with fixed values, and the scope."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from nanochat_tct.synthetic.scope import Scope

Item = TypeVar("Item")


class Writer:
    """Makes every choice of workflow `index` of `seed`, so that nothing depends on the workflows around it.

    Only `random.Random.random` is used, whose numbers are the same on every version of Python.

    Attributes:
        facts: the values of words that are fixed for this workflow (see `Lexicon`), by name.
        size: the planned size of the part being written, in characters of compact JSON.
        detail: how much the author writes where less would do. 1 is usual; with less, optional keys are rarer.
        scope: what exists in this workflow, for expressions to refer to.
    """

    __slots__ = ("detail", "facts", "random", "scope", "size")

    def __init__(self, index: int, seed: int) -> None:
        digest = hashlib.sha256(f"nanochat-tct workflow {index} of seed {seed}".encode()).digest()
        self.random = random.Random(int.from_bytes(digest[:8], "big")).random
        self.facts: dict[str, Any] = {}
        self.size = 1000
        self.detail = 1.0
        self.scope = Scope()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def number(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[int(self.random() * len(items))]

    def several(self, mean: float, most: int) -> int:
        """Return a whole number from 1 to most, one plus a geometric number, with about the given mean."""
        count, more = 1, 1.0 - 1.0 / max(mean, 1.0)
        while count < most and self.random() < more:
            count += 1
        return count

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """Return count different items (all of them if there are fewer), in their order."""
        chosen: list[Item] = []
        left, wanted = len(items), min(count, len(items))
        for item in items:
            if self.random() * left < wanted:
                chosen.append(item)
                wanted -= 1
            left -= 1
        return chosen

    def forget(self, *names: str) -> None:
        """Let the named words be chosen again."""
        for name in names:
            self.facts.pop(name, None)
