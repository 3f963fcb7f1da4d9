"""Half-written documents: base tokens of a value whose right edge is still open."""

from __future__ import annotations

from typing import Any

from nanochat_tct.tokenizer.grammar import ARRAY, END, OBJECT, Grammar, Mismatch, Node


def open_end(grammar: Grammar, value: Any, open_scalar: bool) -> tuple[str, list[tuple[int, str]]]:
    """Base tokens of a value without those that would close its last part.

    Args:
        grammar: the grammar.
        value: a JSON value that may lack what is still to be written after its end.
        open_scalar: leave the last text or number open too.

    Returns:
        The base tokens, and (index, JSON pointer) where each value on the right edge begins.

    Raises:
        TokenizerError: a part before the right edge is not valid, or a key has no place here.
    """
    pieces: list[str] = []
    pointers: list[tuple[int, str]] = []
    try:
        _write(grammar, grammar.root, value, pieces, pointers, "", 1, open_scalar)
    except Mismatch as error:
        raise error.located() from None
    return "".join(pieces), pointers


def _write(
    grammar: Grammar,
    node: Node,
    value: Any,
    pieces: list[str],
    pointers: list[tuple[int, str]],
    pointer: str,
    depth: int,
    open_scalar: bool,
) -> None:
    pointers.append((sum(map(len, pieces)), pointer))
    if value is None:
        return  # a key without a value yet
    if isinstance(value, dict) and node.objects:
        if node.opens:
            pieces.append(OBJECT)
        names = list(value)
        for name in names:
            key = node.key(name)
            try:
                if key is None:
                    raise Mismatch(f"a key may not be {name!r}" if node.free else f"unknown key {name!r}")
                pieces.append(key.prefix)
                if name != names[-1]:
                    grammar.walk_of(key.child)(value[name], pieces.append, depth + 1)
                else:
                    below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
                    # located below through its own path
                    _write(grammar, key.child, value[name], pieces, pointers, below, depth + 1, open_scalar)
            except Mismatch as error:
                error.path.append(name)
                raise
        return
    if isinstance(value, list) and node.arrays:
        if node.opens:
            pieces.append(ARRAY)
        assert node.item is not None
        for index, item in enumerate(value):
            try:
                if index < len(value) - 1:
                    grammar.walk_of(node.item)(item, pieces.append, depth + 1)
                else:
                    _write(
                        grammar,
                        node.item,
                        item,
                        pieces,
                        pointers,
                        f"{pointer}/{index}",
                        depth + 1,
                        open_scalar,
                    )
            except Mismatch as error:
                error.path.append(index)
                raise
        return
    if open_scalar and isinstance(value, str) and node.texts:
        try:
            pieces.append(value.encode("utf-8").decode("latin-1"))
        except UnicodeEncodeError:
            raise Mismatch("a lone surrogate is not Unicode text") from None
        return
    before = len(pieces)
    grammar.walk_of(node)(value, pieces.append, depth)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if open_scalar and is_number and pieces[-1].endswith(END):
        pieces[before:] = ["".join(pieces[before:])[: -len(END)]]
