"""A slow, plain interpreter of compiled grammars with calls and names: what the engine is compared with."""

from __future__ import annotations

import functools
from typing import Any

Names = list[tuple[str, str]]  # (name, what it belongs to)


class Reference:
    """Checks values under a grammar.

    Args:
        grammar: as compile.py describes it.
        strict: whether what GitHub's language service complains of is refused too.
    """

    def __init__(self, grammar: dict[str, Any], strict: bool = False) -> None:
        self.nodes, self.automata = grammar["nodes"], grammar["automata"]
        self.strict = strict
        self.graph = grammar.get("graph")
        self.ignore_case = grammar.get("ignore_key_case", False)
        self.max_depth = grammar.get("max_call_depth", 0)
        self.max_units = grammar.get("max_call_units", 0)
        self.implied = grammar.get("implied", {})
        self.while_open = grammar.get("while_open", {})
        self.forward = {kind for node in self.nodes for kind in node.get("closes", ())}
        self.steps = [[self._row(a, state) for state in range(len(a["edges"]))] for a in self.automata]
        self.run = functools.lru_cache(maxsize=1 << 20)(self._run) if not strict else self._run

    @staticmethod
    def _row(automaton: dict[str, Any], state: int) -> list[Any]:
        """For each byte: the next state, or (automaton, return state) of a call, or None."""
        row: list[Any] = [None] * 256
        edges = automaton["edges"][state]
        for low, high, target in zip(edges[::3], edges[1::3], edges[2::3], strict=True):
            row[low : high + 1] = [target] * (high - low + 1)
        calls = automaton["calls"][state] if "calls" in automaton else []
        for low, high, callee, back in zip(calls[::4], calls[1::4], calls[2::4], calls[3::4], strict=True):
            assert row[low : high + 1] == [None] * (high - low + 1)
            row[low : high + 1] = [(callee, back)] * (high - low + 1)
        return row

    def problem(self, value: Any) -> str:
        """Where and why a value is refused; "" if it is accepted."""
        self.names: dict[str, Names] = {}
        self.any_name = dict.fromkeys(self.forward, True)
        self.needs: dict[str, list[str]] = {}
        self.first_problem = ""
        self.owner = ""
        if not self._mask(0, value, "", []) & self._offered(self.nodes[0]):
            return self.first_problem or "/"
        return self._graph_problem()

    def _graph_problem(self) -> str:
        if not self.graph:
            return ""
        if all(self.needs.values()):
            return "no job without needs"
        left = dict(self.needs)
        while ready := [job for job, needs in left.items() if not set(needs) & set(left)]:
            for job in ready:
                if set(left.pop(job)) - set(self.needs):
                    return f"{job} needs a job that does not exist"
        return f"jobs need one another: {', '.join(left)}" if left else ""

    def _offered(self, node: dict[str, Any]) -> int:
        every = (1 << len(node["alternatives"])) - 1
        return every & ~sum(1 << i for i in node.get("lenient", ())) if self.strict else every

    def _mask(self, number: int, value: Any, path: str, late: list[tuple[str, str]]) -> int:
        """The alternatives of a node that take a value, as bits."""
        node = self.nodes[number]
        scopes = {kind: len(self.names.setdefault(kind, [])) for kind in node.get("scope", ())}
        opened = {kind: self.any_name.get(kind, False) for kind in scopes}
        self.any_name |= {kind: kind in self.forward for kind in scopes}
        self.any_name |= dict.fromkeys(node.get("closes", ()), False)
        mask = 0
        if isinstance(value, dict):
            mask = self._object_mask(node, value, path)
        elif isinstance(value, list):
            shapes = [(i, a) for i, a in enumerate(node["alternatives"]) if a[0] == "array"]
            items = (
                [self._mask(node["item"], v, f"{path}/{i}", late) for i, v in enumerate(value)]
                if shapes
                else []
            )
            for i, (_, least, most, narrow) in shapes:
                if least <= len(value) <= (len(value) if most is None else most) and all(
                    m & narrow for m in items
                ):
                    mask |= 1 << i
        else:
            mask = self._scalar_mask(node, value, path, late)
        for kind, length in scopes.items():
            del self.names[kind][length:]
        self.any_name |= opened
        if not mask & self._offered(node) and not self.first_problem:
            self.first_problem = f"{path}: {str(value)[:80]!r}"
        return mask & self._offered(node)

    def _scalar_mask(self, node: dict[str, Any], value: Any, path: str, late: list[tuple[str, str]]) -> int:
        mask = 0
        constant = "null" if value is None else str(value).lower() if isinstance(value, bool) else ""
        for index, (kind, *details) in enumerate(node["alternatives"]):
            if constant:
                taken = kind == constant
            elif isinstance(value, str):
                taken = kind == "enum" and value in details[0]
                taken = taken or (kind == "text" and self.run(details[0], value))
            else:
                taken = kind == "number"  # every number of a document is in the grammar's numbers
            mask |= taken << index
        if isinstance(value, str):
            self._imply(node, value)
        defines = node.get("defines", {}).get("text")
        if mask and defines and isinstance(value, str):
            mask = self._define(defines, value, late, path) and mask
        return mask

    def _imply(self, node: dict[str, Any], text: str) -> None:
        kind = node.get("implies", "")
        names = self.implied.get(kind, {}).get(text, ())
        if names is None:
            self.any_name[kind] = True
        else:
            self.names.setdefault(kind, []).extend((name, "") for name in names)

    def _define(self, defines: dict[str, Any], name: str, late: list[tuple[str, str]], path: str) -> bool:
        kind = defines["kind"]
        if defines["opens"]:
            self.any_name[kind] = True
            return True
        known = self.names.setdefault(kind, [])
        unique = defines["unique"] == "always" or (self.strict and defines["unique"] == "strict")
        if unique and ((name, "") in known or (kind, name) in late):
            self.first_problem = self.first_problem or f"{path}: {name!r} is not unique"
            return False
        if self.graph and kind == self.graph[1]:
            self.needs[self.owner].append(name)
        if defines["late"]:
            late.append((kind, name))
        else:
            known.append((name, self.owner if kind == "output" else ""))
        return True

    def _object_mask(self, node: dict[str, Any], value: dict[str, Any], path: str) -> int:
        shapes = [(i, a) for i, a in enumerate(node["alternatives"]) if a[0] == "object"]
        if not shapes:
            return 0
        alive = [True] * len(shapes)
        late: list[tuple[str, str]] = []
        defines = node.get("defines", {}).get("keys")
        folded = [key.translate(_UPPER) for key in value] if self.ignore_case else []
        if len(set(folded)) < len(folded):
            self.first_problem = self.first_problem or f"{path}: two keys differ only in case"
            return 0
        for key, item in value.items():
            place = node["known"].get(key)
            if place is None:
                matched = sum(bool(self.run(a, key)) << i for i, a in enumerate(node["patterns"]))
                place = node["free"].get(str(matched))
            if place is None:
                self.first_problem = self.first_problem or f"{path}/{key}: unknown key"
                return 0
            child, masks = place
            if key in node["known"]:
                self._imply(node, key)
            new = defines if key not in node["known"] else None
            if new and self.graph and new["kind"] == self.graph[0]:
                self.owner = key
                self.needs[key] = []
            if new and not new["late"]:
                self._define(new, key, late, path)
            found = self._mask(child, item, f"{path}/{key}", late)
            if new and new["late"]:
                self.names.setdefault(new["kind"], []).append((key, ""))
            alive = [flag and bool(found & narrow) for flag, narrow in zip(alive, masks, strict=True)]
        for kind, name in late:
            self.names.setdefault(kind, []).append((name, ""))
        mask = 0
        for flag, (i, (_, required, least, most)) in zip(alive, shapes, strict=True):
            fits = set(required) <= set(value) and least <= len(value) <= (
                len(value) if most is None else most
            )
            mask |= (flag and fits) << i
        return mask

    def _run(self, number: int, text: str) -> bool:
        """Whether an automaton accepts a text."""
        accepting = "strict" if self.strict else "accepting"
        stack: list[tuple[int, int, int]] = []  # (automaton, return state, where the callee's text begins)
        here, state, begin, outermost = number, 0, 0, 0
        depth = self.automata[number].get("depth", 0)
        owner = ""
        data = text.encode("utf-8", "surrogatepass")
        for position in range(len(data) + 1):
            while True:
                automaton = self.automata[here]
                step = self.steps[here][state][data[position]] if position < len(data) else None
                if self.strict and step is not None:
                    targets = [(here, step)] if isinstance(step, int) else [(step[0], 0), (here, step[1])]
                    if not all(self._may_enter(*target) for target in targets):
                        step = None
                if isinstance(step, int):
                    state = step
                    break
                if step is not None:
                    if not stack:
                        outermost = position
                    stack.append((here, step[1], begin))
                    here, state, begin = step[0], 0, position
                    depth += self.automata[here].get("depth", 0)
                    if depth > self.max_depth:
                        return False
                    continue
                if not automaton.get(accepting, automaton["accepting"])[state]:
                    return False
                if self.strict and automaton.get("names"):
                    name = data[begin:position].decode()
                    kind = automaton["names"]
                    if not self._in_scope(kind, name, owner if kind == "output" else ""):
                        return False
                    owner = name
                if not stack:
                    return position == len(data)
                depth -= automaton.get("depth", 0)
                here, state, begin = stack.pop()
                if (
                    not stack
                    and len(data[outermost:position].decode().encode("utf-16-le")) > 2 * self.max_units
                ):
                    return False
        raise AssertionError("the text's end either accepts or refuses")

    def _may_enter(self, number: int, state: int) -> bool:
        automaton = self.automata[number]
        return state not in automaton.get("lenient", ()) and all(
            self._in_scope(kind) for at, kind in automaton.get("requires", ()) if at == state
        )

    def _in_scope(self, kind: str, name: str = "", owner: str = "") -> bool:
        """Whether a name, or any name, of a kind may be used."""
        if self.any_name.get(kind):
            if kind not in self.while_open:
                return True
            kind = self.while_open[kind]
        known = self.names.get(kind, [])
        return (name, owner) in known if name else bool(known)


_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
