"""Whether a grammar, as a vocabulary file holds it, is one that the tokenizer can walk.

A file may be cut, edited or made up. Everything that reading and writing rely on is checked once when it is loaded,
so that nothing else has to: numbers of nodes and automata are in range, masks fit, automata are deterministic and
only spell UTF-8, every state of them leads to an end, and counts are small enough to be written out.
"""

from __future__ import annotations

from typing import Any

from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton, difference
from nanochat_tct.tokenizer.schema import NUMBER_TEXT

MAX_COUNT = 1000  # items or keys that must be there: the shortest document has them all
MAX_COUNTS = 10**6  # the same, arrays within arrays multiplied
DETAILS = {"null": 0, "true": 0, "false": 0, "number": 1, "text": 1, "enum": 1, "array": 3, "object": 3}


class _Problem(Exception):
    pass


def grammar_problem(grammar: dict[str, Any]) -> str:
    """What is wrong with a grammar; "" when nothing is. Its literals are known to be a list of strings."""
    try:
        literals = set(grammar["literals"])
        _demand(len(literals) == len(grammar["literals"]), "a literal stands twice")
        _demand(all(map(_is_text, literals)), "a literal is not Unicode text")
        _demand(_is_list(grammar["automata"]) and _is_list(grammar["nodes"]), "nodes or automata are no list")
        _demand(bool(grammar["nodes"]), "there are no nodes")
        automata = [_automaton(item, index) for index, item in enumerate(grammar["automata"])]
        nodes = grammar["nodes"]
        for index, node in enumerate(nodes):
            alternatives = node.get("alternatives") if isinstance(node, dict) else None
            _demand(_is_list(alternatives), f"node {index} has no alternatives")
        counts = 1
        for index, node in enumerate(nodes):
            counts *= _check_node(node, f"node {index}", nodes, automata, literals)
            _demand(counts <= MAX_COUNTS, "the shortest document is too long")
    except _Problem as problem:
        return str(problem)
    return ""


def _automaton(item: Any, index: int) -> Automaton:
    where = f"automaton {index}"
    _demand(isinstance(item, dict) and set(item) == {"accepting", "edges"}, f"{where} is not complete")
    accepting, edges = item["accepting"], item["edges"]
    _demand(_is_list(accepting) and _is_list(edges) and len(accepting) == len(edges), f"{where} is cut")
    _demand(all(type(flag) is bool for flag in accepting), f"{where}: accepting is not true or false")
    rows = []
    for flat in edges:
        _demand(_is_list(flat) and len(flat) % 3 == 0, f"{where}: an edge is cut")
        _demand(all(type(number) is int for number in flat), f"{where}: an edge is not made of whole numbers")
        row = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
        last = -1
        for low, high, target in row:
            _demand(last < low <= high < 256, f"{where}: bytes are out of order or range")
            _demand(0 <= target < len(edges), f"{where}: an edge leads to no state")
            last = high
        rows.append(row)
    sources: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for _, _, target in row:
            sources[target].append(state)
    waiting = [state for state, flag in enumerate(accepting) if flag]
    live = set(waiting)
    while waiting:
        fresh = set(sources[waiting.pop()]) - live
        live |= fresh
        waiting += fresh
    _demand(len(live) == len(rows), f"{where}: a state leads nowhere")
    found = Automaton(tuple(accepting), tuple(rows))
    _demand(difference(found, ANY_STRING).is_empty, f"{where} is not one of Unicode text")
    return found


def _check_node(
    node: dict[str, Any], where: str, nodes: list[Any], automata: list[Automaton], literals: set[str]
) -> int:
    """Returns the most items or keys that the node demands, where they are many."""
    alternatives = node["alternatives"]
    most = 1
    kind: Any
    details: list[Any]
    for alternative in alternatives:
        kind, *details = alternative if _is_list(alternative) and alternative else [None]
        _demand(isinstance(kind, str) and DETAILS.get(kind) == len(details), f"{where}: not an alternative")
        if kind in ("number", "text"):
            number = details[0]
            _demand(_is_index(number, len(automata)), f"{where}: no automaton {number!r}")
            _demand(
                kind == "text" or difference(automata[number], NUMBER_TEXT).is_empty,
                f"{where}: automaton {number} does not spell numbers",
            )
        elif kind == "enum":
            _demand(_is_list(details[0]) and bool(details[0]), f"{where}: an enumeration without values")
            _demand(all(map(_is_text, details[0])), f"{where}: an enumeration of what is no text")
        elif kind in ("array", "object"):
            shape: list[Any] = details if kind == "object" else [[], *details[:2]]
            required, minimum, maximum = shape
            _demand(
                _is_list(required) and all(map(_is_text, required)), f"{where}: required is no list of keys"
            )
            _demand(len(set(required)) == len(required), f"{where}: a key is required twice")
            _demand(
                _is_index(minimum, MAX_COUNT + 1), f"{where}: a minimum that is none, or above {MAX_COUNT}"
            )
            fits = maximum is None or (type(maximum) is int and maximum >= minimum)
            _demand(fits, f"{where}: a maximum that is none")
            most = max(most, minimum if minimum > 8 else 1)
    kinds = [alternative[0] for alternative in alternatives]
    if "text" not in kinds:
        spelled = {value for kind, *details in alternatives if kind == "enum" for value in details[0]}
        _demand(spelled <= literals, f"{where}: a value is no literal")
    if "array" in kinds:
        _demand(_is_index(node.get("item"), len(nodes)), f"{where}: no node of its items")
        for kind, *details in alternatives:
            _demand(
                kind != "array" or _is_mask(details[2], nodes[node["item"]]), f"{where}: a mask is too wide"
            )
    if "object" in kinds:
        _check_keys(node, where, nodes, len(automata), literals)
    return most


def _check_keys(
    node: dict[str, Any], where: str, nodes: list[Any], number_of_automata: int, literals: set[str]
) -> None:
    shapes = [details for kind, *details in node["alternatives"] if kind == "object"]
    known, patterns, free = node.get("known"), node.get("patterns"), node.get("free")
    _demand(
        isinstance(known, dict) and isinstance(free, dict) and _is_list(patterns),
        f"{where}: keys are missing",
    )
    assert known is not None and free is not None and patterns is not None
    _demand(set(known) <= literals, f"{where}: a key is no literal")
    _demand(all(set(shape[0]) <= set(known) for shape in shapes), f"{where}: a required key is not known")
    _demand(all(_is_index(number, number_of_automata) for number in patterns), f"{where}: no such automaton")
    for matched in free:
        proper = (
            matched.isdecimal() and matched.isascii() and len(matched) <= 20 and str(int(matched)) == matched
        )
        _demand(proper and int(matched) < 1 << len(patterns), f"{where}: keys of no pattern")
    for target in (*known.values(), *free.values()):
        _demand(
            _is_list(target) and len(target) == 2 and _is_index(target[0], len(nodes)),
            f"{where}: no such node",
        )
        masks = target[1]
        _demand(_is_list(masks) and len(masks) == len(shapes), f"{where}: not one mask for each shape")
        _demand(all(_is_mask(mask, nodes[target[0]]) for mask in masks), f"{where}: a mask is too wide")


def _demand(condition: bool, problem: str) -> None:
    if not condition:
        raise _Problem(problem)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_index(value: Any, size: int) -> bool:
    return type(value) is int and 0 <= value < size


def _is_mask(value: Any, node: dict[str, Any]) -> bool:
    return _is_index(value, 1 << len(node["alternatives"]))


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False
