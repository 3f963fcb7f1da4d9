"""The author of one workflow: a stream of choices, what was settled so far, and habits."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from nanochat_tct.synthetic.actions import Pins

Item = TypeVar("Item")


class Writer:
    """Makes every choice of workflow `index` of `seed`, so that nothing depends on the workflows around it.

    Only `random.Random.random` is used, whose numbers are the same on every version of Python.

    Attributes:
        known: the words settled for this workflow (see `Lexicon`), by name.
        pins: how this author refers to actions.
    """

    __slots__ = ("known", "pins", "random")

    def __init__(self, index: int, seed: int) -> None:
        digest = hashlib.sha256(f"nanochat-tct workflow {index} of seed {seed}".encode()).digest()
        self.random = random.Random(int.from_bytes(digest[:8], "big")).random
        self.known: dict[str, Any] = {}
        self.pins = Pins(self.random)

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
        """Return a whole number from 1 to most: one and a geometric number more, with about that mean."""
        count, more = 1, 1.0 - 1.0 / mean
        while count < most and self.random() < more:
            count += 1
        return count

    def weighted(self, items: Sequence[tuple[float, Item]]) -> Item:
        """Return one of the items of (weight, item) pairs."""
        mark = self.random() * sum(weight for weight, _ in items)
        for weight, item in items:
            mark -= weight
            if mark < 0:
                return item
        return items[-1][1]

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

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in another order."""
        keyed = sorted((self.random(), position) for position in range(len(items)))
        return [items[position] for _, position in keyed]

    def hexadecimal(self, digits: int) -> str:
        """Return that many hexadecimal digits, as in a commit's name."""
        return "".join([f"{int(self.random() * 16):x}" for _ in range(digits)])

    def forget(self, *names: str) -> None:
        """Let the named words be chosen anew."""
        for name in names:
            self.known.pop(name, None)
