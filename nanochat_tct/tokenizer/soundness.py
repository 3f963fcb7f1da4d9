"""Whether a grammar, as a vocabulary file holds it, is one that the tokenizer can walk.

A file may be cut, edited or made up. Everything that reading and writing rely on is checked once when it is loaded,
so that nothing else has to: numbers of nodes and automata are in range, masks fit, automata are deterministic and
only spell UTF-8, every state of them leads to an end, and counts are small enough to be written out.
"""

from __future__ import annotations

import itertools
import operator
from collections import deque
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton, difference

SCHEMA_KEYS = frozenset(["nodes", "automata", "literals"])
GITHUB_KEYS = frozenset(
    ["ignore_key_case", "graph", "while_open", "implied", "max_call_depth", "max_call_units"]
)
MAX_CALL_DEPTH = 4  # of one automaton
MAX_DEPTH_OF_CALLS = 200
MAX_UNITS = 1 << 28
MAX_KINDS = 60  # of names: a bit each
DEFINITION = {"kind": str, "unique": str, "late": bool, "opens": bool}
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
        is_github = set(grammar) != SCHEMA_KEYS
        described = grammar["automata"]
        automata = [
            _automaton(item, index, is_github, len(described)) for index, item in enumerate(described)
        ]
        _check_calls(automata)
        _check_ends(automata)
        for index, automaton in enumerate(automata):
            _check_unicode(automaton, f"automaton {index}")
        nodes = grammar["nodes"]
        for index, node in enumerate(nodes):
            alternatives = node.get("alternatives") if isinstance(node, dict) else None
            _demand(_is_list(alternatives), f"node {index} has no alternatives")
        for index, node in enumerate(nodes):
            _check_node(node, f"node {index}", nodes, automata, literals)
        _check_counts(nodes)
        if is_github:
            _check_names(grammar)
    except _Problem as problem:
        return str(problem)
    return ""


def counts_problem(nodes: list[dict[str, Any]]) -> str:
    """Why the shortest document of otherwise sound nodes may be too long to be written out; "" where it is not."""
    try:
        _check_counts(nodes)
    except _Problem as problem:
        return str(problem)
    return ""


def _check_counts(nodes: list[dict[str, Any]]) -> None:
    """The items and keys that must be there are few enough to be written out."""
    counts = 1
    for index, node in enumerate(nodes):
        minima = [
            each[-3] if each[0] == "array" else each[-2] for each in node["alternatives"] if len(each) > 2
        ]
        most = max(minima, default=0)
        _demand(most <= MAX_COUNT, f"node {index}: a minimum above {MAX_COUNT}")
        counts *= most if most > 8 else 1
        _demand(counts <= MAX_COUNTS, "the shortest document is too long")


class _Automaton(NamedTuple):
    accepting: list[bool]
    edges: list[tuple[tuple[int, ...], ...]]  # of each state: first byte, last byte, next state
    calls: list[
        tuple[tuple[int, ...], ...]
    ]  # of each state: first byte, last byte, what is called, return state


def _automaton(item: Any, index: int, is_github: bool, count: int) -> _Automaton:
    """An automaton of `count` that is sound by itself."""
    where = f"automaton {index}"
    optional = {"calls", "depth", "names", "strict", "lenient", "requires"} if is_github else set()
    complete = isinstance(item, dict) and {"accepting", "edges"} <= set(item) <= {
        "accepting",
        "edges",
        *optional,
    }
    _demand(complete, f"{where} is not complete")
    accepting, edges = item["accepting"], item["edges"]
    states = len(edges) if _is_list(edges) else 0
    calls, strict = item.get("calls", [[]] * states), item.get("strict", accepting)
    for flags in (accepting, strict):
        _demand(_is_list(flags) and _is_list(edges) and len(flags) == states, f"{where} is cut")
        _demand(set(map(type, flags)) <= {bool}, f"{where}: accepting is not true or false")
    _demand(_is_list(calls) and len(calls) == states, f"{where}: its calls are cut")
    checked = _Automaton(
        accepting,
        _ranges(edges, (states,), f"{where}: an edge"),
        _ranges(calls, (count, states), f"{where}: a call"),
    )
    for edge_row, call_row in zip(checked.edges, checked.calls, strict=True):
        rows = (edge_row, sorted(edge_row + call_row)) if call_row else (edge_row,)
        is_ordered = all(a[1] < b[0] for row in rows for a, b in itertools.pairwise(row))
        _demand(is_ordered, f"{where}: bytes are out of order or range")
    _demand(all(map(operator.le, strict, accepting)), f"{where}: strict mode accepts more")
    lenient, requires = item.get("lenient", []), item.get("requires", [])
    _demand(
        _is_list(lenient) and all(_is_index(state, states) for state in lenient), f"{where}: lenient states"
    )
    pairs = _is_list(requires) and all(_is_list(each) and len(each) == 2 for each in requires)
    named = pairs and all(_is_index(state, states) and isinstance(kind, str) for state, kind in requires)
    _demand(named and isinstance(item.get("names", ""), str), f"{where}: its kinds of names")
    _demand(_is_index(item.get("depth", 0), MAX_CALL_DEPTH + 1), f"{where}: its depth")
    return checked


def _ranges(rows: list[Any], sizes: tuple[int, ...], what: str) -> list[tuple[tuple[int, ...], ...]]:
    """Of each row the ranges of bytes, each with numbers below `sizes` behind it; all rows at once: it is quicker."""
    width = 2 + len(sizes)
    _demand(all(_is_list(flat) and len(flat) % width == 0 for flat in rows), f"{what} is cut")
    numbers = list(itertools.chain.from_iterable(rows))
    _demand(set(map(type, numbers)) <= {int}, f"{what} is not made of whole numbers")
    low, high, *behind = (numbers[at::width] for at in range(width))
    in_order = min(low, default=0) >= 0 and max(high, default=0) < 256 and all(map(operator.le, low, high))
    _demand(in_order, f"{what}: bytes are out of order or range")
    for size, found in zip(sizes, behind, strict=True):
        _demand(not found or (min(found) >= 0 and max(found) < size), f"{what} leads to no state")
    return [tuple(zip(*(flat[at::width] for at in range(width)), strict=True)) for flat in rows]


def _check_calls(automata: list[_Automaton]) -> None:
    """What is called can read the byte that it is called at, and calls without a byte between them come to an end."""
    first: list[set[int]] = []
    for automaton in automata:
        ranges = [*automaton.edges[0], *automaton.calls[0]] if automaton.edges else []
        first.append({byte for low, high, *_ in ranges for byte in range(low, high + 1)})
    for number, automaton in enumerate(automata):
        for low, high, callee, _ in itertools.chain.from_iterable(automaton.calls):
            reads = first[callee].issuperset(range(low, high + 1))
            _demand(reads, f"automaton {number}: a call that reads nothing")
    direct = {
        number: {callee for _, _, callee, _ in automaton.calls[0]}
        for number, automaton in enumerate(automata)
        if automaton.calls
    }
    try:
        deque(TopologicalSorter(direct).static_order(), maxlen=0)
    except CycleError as error:
        raise _Problem(f"automaton {error.args[1][0]}: it calls itself at its beginning") from None


def _check_ends(automata: list[_Automaton]) -> None:
    """Every state of every automaton leads to an end: to an accepting state, where calls lead to an end themselves."""
    starts = list(
        itertools.accumulate((len(each.edges) for each in automata), initial=0)
    )  # states of all in a row
    sources: list[list[int]] = [[] for _ in range(starts[-1])]
    returns: dict[
        int, list[tuple[int, int]]
    ] = {}  # states that calls return to: the caller, the state called
    callers: dict[
        int, list[tuple[int, int]]
    ] = {}  # states that are called: the caller, the state returned to
    for start, automaton in zip(starts, automata, strict=False):
        for state, (edge_row, call_row) in enumerate(
            zip(automaton.edges, automaton.calls, strict=True), start
        ):
            for _, _, target in edge_row:
                sources[start + target].append(state)
            for _, _, callee, back in call_row:
                returns.setdefault(start + back, []).append((state, starts[callee]))
                callers.setdefault(starts[callee], []).append((state, start + back))
    live = [False] * starts[-1]
    waiting = [
        state for state, flag in enumerate(flag for each in automata for flag in each.accepting) if flag
    ]
    while waiting:
        state = waiting.pop()
        if live[state]:
            continue
        live[state] = True
        waiting += sources[state]
        for caller, other in (*returns.get(state, ()), *callers.get(state, ())):
            if live[other]:
                waiting.append(caller)
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        _demand(all(live[start:end]), f"automaton {number}: a state leads nowhere")


def _check_unicode(automaton: _Automaton, where: str) -> None:
    """The automaton only spells Unicode text, if those that it calls do."""
    problem = f"{where} is not one of Unicode text"
    seen = {(0, 0)}
    waiting = list(seen) if automaton.edges else []
    while waiting:
        state, inside = waiting.pop()
        is_whole = ANY_STRING.accepting[inside]
        _demand(is_whole or not (automaton.accepting[state] or automaton.calls[state]), problem)
        following = {(back, inside) for *_, back in automaton.calls[state]}
        for low, high, target in automaton.edges[state]:
            behind = _behind(inside, low, high)
            _demand(bool(behind), problem)
            following.update((target, each) for each in behind)
        waiting += following - seen
        seen |= following


@cache
def _behind(inside: int, low: int, high: int) -> tuple[int, ...]:
    """The states of ANY_STRING behind a range of bytes in one of its states; none if a byte cannot come there."""
    ways = [edge for edge in ANY_STRING.edges[inside] if edge[0] <= high and low <= edge[1]]
    spelled = sum(min(high, edge[1]) - max(low, edge[0]) + 1 for edge in ways)
    return tuple(edge[2] for edge in ways) if spelled == high - low + 1 else ()


def _check_names(grammar: dict[str, Any]) -> None:
    """What only GitHub's language has in its grammar and nodes: names, their kinds, and limits."""
    _demand(type(grammar["ignore_key_case"]) is bool, "ignore_key_case is not true or false")
    depth, units = grammar["max_call_depth"], grammar["max_call_units"]
    _demand(
        _is_index(depth, MAX_DEPTH_OF_CALLS + 1) and _is_index(units, MAX_UNITS + 1), "the limits of calls"
    )
    graph, while_open, implied = grammar["graph"], grammar["while_open"], grammar["implied"]
    _demand(_are_texts(graph) and len(graph) == 2, "graph is not two kinds of names")
    is_map = isinstance(while_open, dict) and _are_texts(list(while_open.values()))
    _demand(is_map and isinstance(implied, dict), "while_open or implied is no object")
    for lists in implied.values():
        is_map = isinstance(lists, dict) and all(each is None or _are_texts(each) for each in lists.values())
        _demand(is_map, "implied has no lists of names")
    kinds = {*graph, *while_open, *while_open.values(), *implied}
    for automaton in grammar["automata"]:
        kinds |= {automaton.get("names", ""), *(kind for _, kind in automaton.get("requires", []))}
    for index, node in enumerate(grammar["nodes"]):
        where = f"node {index}"
        lenient, defines = node.get("lenient", []), node.get("defines", {})
        fits = _is_list(lenient) and all(_is_index(each, len(node["alternatives"])) for each in lenient)
        _demand(fits, f"{where}: lenient alternatives")
        lists = [node.get("scope", []), node.get("closes", []), [node.get("implies", "")]]
        _demand(all(map(_are_texts, lists)), f"{where}: kinds of names")
        _demand(isinstance(defines, dict) and set(defines) <= {"keys", "text"}, f"{where}: what it defines")
        for names in defines.values():
            fits = (
                isinstance(names, dict) and {key: type(value) for key, value in names.items()} == DEFINITION
            )
            _demand(fits and names["unique"] in ("", "always", "strict"), f"{where}: what it defines")
            kinds.add(names["kind"])
        kinds.update(*lists)
    _demand(len(kinds) <= MAX_KINDS, "too many kinds of names")


def _check_node(
    node: dict[str, Any], where: str, nodes: list[Any], automata: list[_Automaton], literals: set[str]
) -> None:
    alternatives = node["alternatives"]
    kind: Any
    details: list[Any]
    for alternative in alternatives:
        kind, *details = alternative if _is_list(alternative) and alternative else [None]
        _demand(isinstance(kind, str) and DETAILS.get(kind) == len(details), f"{where}: not an alternative")
        if kind in ("number", "text"):
            number = details[0]
            _demand(_is_index(number, len(automata)), f"{where}: no automaton {number!r}")
            if kind == "number":
                from nanochat_tct.tokenizer.schema import NUMBER_TEXT  # patterns are compiled at this import

                accepting, edges, calls = automata[number]
                others = difference(Automaton(tuple(accepting), tuple(edges)), NUMBER_TEXT)
                is_number = others.is_empty and not any(calls)
                _demand(is_number, f"{where}: automaton {number} does not spell numbers")
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
            _demand(type(minimum) is int and minimum >= 0, f"{where}: a minimum that is none")
            fits = maximum is None or (type(maximum) is int and maximum >= minimum)
            _demand(fits, f"{where}: a maximum that is none")
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


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False
