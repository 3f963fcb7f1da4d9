"""The quick way from JSON text to ids and back: native.c, where an installation has built it.

It gives the ids and texts of the Python code, or None where that has to be asked: for what is wrong with a document,
and for a few rare ones. Without a C compiler there is no extension module, and the Python code does everything.
"""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton
from nanochat_tct.tokenizer.grammar import FALSE, NULL, TRUE, Grammar, Key, Node
from nanochat_tct.tokenizer.segment import Segmenter

if TYPE_CHECKING:
    from nanochat_tct.tokenizer._native import Codec

UNBOUNDED = 2**64 - 1
AGAIN = "`python -m pip install --no-deps -e .` builds it"
WHAT_TO_DO = (
    f"install a C compiler and Python's headers (Debian, Ubuntu: apt install gcc python3-dev), then {AGAIN}"
)

_module: Any
try:
    _module = importlib.import_module("nanochat_tct.tokenizer._native")
    missing = ""  # why there is no extension module
except ImportError as error:
    _module, missing = None, str(error)


def make_codec(grammar: Grammar, segmenter: Segmenter) -> Codec | None:
    """The codec of a grammar and a vocabulary.

    Returns:
        None where the extension module is not built, or the grammar is larger than it takes: more than 64 alternatives
        or patterns at one place, 1,024 known keys, 65,534 states of an automaton.
    """
    if _module is None:
        return None
    try:
        codec: Codec = _module.Codec(pack_grammar(grammar, segmenter))
        return codec
    except (OverflowError, ValueError):
        return None


def why_in_python(tokenizer: Any) -> str:
    """Why a tokenizer encodes and decodes in Python, and what to do; "" when it does not."""
    if getattr(tokenizer, "codec", tokenizer) is not None:  # the wheel has none, and needs none
        return ""
    if missing:
        return f"its C code is not built here ({missing}); {WHAT_TO_DO}"
    return "its grammar is larger than its C code takes, or the C code is of another version; " + AGAIN


def pack_grammar(grammar: Grammar, segmenter: Segmenter) -> bytes:
    """Grammar and vocabulary as numbers of 64 bits, in the order in which `load` in native.c takes them.

    Raises:
        OverflowError: a mask has more than 64 bits.
    """
    writer = _Packer(grammar)
    nodes = array("Q")
    for node in grammar.nodes:
        nodes.extend(writer.node(node))
    packed = array("Q", [len(grammar.literals), len(writer.automata), len(grammar.nodes)])
    for text in grammar.literals:
        encoded = text.encode()
        packed.extend([len(encoded), *encoded])
    for automaton in writer.automata:
        packed.extend(_automaton(automaton))
    packed += nodes
    tokens = segmenter.expansions[segmenter.base_size :]
    packed.extend([len(tokens), sum(map(len, tokens))])
    for token in tokens:
        packed.extend([len(token), *map(ord, token)])
    return packed.tobytes()


def _automaton(automaton: Automaton) -> list[int]:
    """States; bytes that lead to the same states from everywhere are one class, which keeps the table small."""
    states = len(automaton.tables)
    if not states:
        return [0, 0]
    columns, classes = np.unique(np.array(automaton.tables), axis=1, return_inverse=True)
    rows = np.column_stack([automaton.accepting, columns + 1])  # 0: no next state
    return [states, columns.shape[1], *classes.ravel().tolist(), *rows.ravel().tolist()]


class _Packer:
    """Writes the nodes of a grammar; collects the automata that they use."""

    def __init__(self, grammar: Grammar) -> None:
        self.index = {id(node): index for index, node in enumerate(grammar.nodes)}
        self.literal = {text: index for index, text in enumerate(grammar.literals)}
        self.automata: dict[Automaton, int] = {}

    def forms(self, forms: Iterable[tuple[int, Automaton]]) -> list[int]:
        packed = [
            number
            for mask, automaton in forms
            for number in (mask, self.automata.setdefault(automaton, len(self.automata)))
        ]
        return [len(packed) // 2, *packed]

    def key(self, key: Key) -> list[int]:
        return [self.index[id(key.child)], *key.masks]

    def node(self, node: Node) -> list[int]:
        constants = [node.constants.get(token, 0) for token in (NULL, TRUE, FALSE)]
        packed = [node.opens, bool(node.texts), *constants, node.any_text]
        packed += self.forms((mask, form) for mask, form in node.texts if form != ANY_STRING)
        packed += self.forms(node.numbers)
        packed.append(len(node.literals))
        for value, mask in node.literals.items():
            packed += [self.literal[value], mask]
        packed.append(len(node.arrays))
        for mask, minimum, maximum, items in node.arrays:
            packed += [mask, minimum, UNBOUNDED if maximum is None else maximum, items]
        if node.item is not None:
            packed.append(self.index[id(node.item)])
        packed += [len(node.known), len(node.objects)]
        known = {name: index for index, name in enumerate(node.known)}
        for mask, required, minimum, maximum in node.objects:
            packed += [mask, minimum, UNBOUNDED if maximum is None else maximum]
            packed += [len(required), *(known[name] for name in required)]
        for name, key in node.known.items():
            packed += [self.literal[name], *self.key(key)]
        packed += self.forms((1 << index, pattern) for index, pattern in enumerate(node.patterns))
        packed.append(len(node.free))
        for matched, key in node.free.items():
            packed += [matched, *self.key(key)]
        return packed
