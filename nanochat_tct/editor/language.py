"""Ask GitHub's rules what a part of a workflow may hold: keys, values, contexts and functions."""

from __future__ import annotations

from collections.abc import Iterable

from nanochat_tct.editor.cursor import Path
from nanochat_tct.tokenizer.engine import CONSTANTS, END, Matcher
from nanochat_tct.tokenizer.explain import Key, Node
from nanochat_tct.tokenizer.explain_expression import allowed_words
from nanochat_tct.tokenizer.tokenizer import Tokenizer

BOOLEANS = {name: CONSTANTS[name] for name in ("true", "false")}


class Language:
    """The rules of a tokenizer, by path. Like the tokenizer's engine, it must not be used by two threads at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._node = tokenizer.explainer.strict_node

    def find(self, path: Path) -> tuple[Node | None, tuple[str, ...]]:
        """Return the rules of the value at a path, and the path's pattern: `*` for chosen names, without items.

        The rules are None where no key of the path's end exists.
        """
        node: Node | None = self._node(0)
        pattern: list[str] = []
        for part in path:
            if isinstance(part, int):
                node = self._node(node.item) if node and node.item is not None else None
                continue
            key = node.key(part) if node else None
            pattern.append("*" if node and key and part not in node.known else part)
            node = self._node(key.node) if key else None
        return node, tuple(pattern)

    def keys(self, node: Node, siblings: Iterable[str]) -> list[tuple[str, Node, bool]]:
        """Return the keys that may stand beside others: name, rules of the value, and whether the key is required."""
        beside = [key for key in map(node.key, siblings) if key]
        there = {name.lower() for name in siblings}

        def shapes(key: Key | None) -> list[int]:
            every = [*beside, key] if key else beside
            return [shape for shape in node.shapes if all(each.masks[shape] for each in every)]

        required = dict(zip(node.shapes, (set(names) for _, names, *_ in node.objects), strict=True))
        possible = shapes(None)
        found = []
        for name in node.known:
            key = node.key(name)
            if key and name.lower() not in there and (its_shapes := shapes(key)):
                is_required = name in set.intersection(*map(required.__getitem__, possible or its_shapes))
                found.append((name, self._node(key.node), is_required))
        return sorted(found, key=lambda each: not each[2])

    @staticmethod
    def values(node: Node) -> list[str]:
        """Return the values that the rules list."""
        is_text = node.has_texts and node.has_numbers  # where true and false count as texts
        booleans = [] if is_text else [name for name, code in BOOLEANS.items() if code in node.constants]
        return [*node.values, *booleans]

    def takes_scalar(self, node: Node) -> bool:
        """Return whether a value other than a single expression may stand on the key's line."""
        if node.has_numbers or self.values(node):
            return True
        return node.has_texts and self._start(node).allows("x" + END)

    def words(self, node: Node, before: str) -> tuple[list[str], list[str]]:
        """Return the contexts and functions that may follow the beginning of a text."""
        return allowed_words(before, lambda: self._start(node)) if node.has_texts else ([], [])

    def _start(self, node: Node) -> Matcher:
        """Return a matcher that stands before a value."""
        matcher = self.tokenizer.engine.matcher()
        assert matcher.write(b"", node.number)
        return matcher
