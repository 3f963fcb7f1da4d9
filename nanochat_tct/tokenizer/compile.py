"""Types to a grammar: the numbered nodes, in plain JSON values, that a vocabulary file stores.

A node is what may stand at one place of a document. Its alternatives are numbered (bits of a mask), so that "which
alternatives are still possible" is an integer everywhere. Where several object shapes give one key different types,
the key's node holds the alternatives of all of them, and each shape a mask of its own: the tokens of a value depend
on the node alone, while the masks narrow what is valid.

    {"alternatives": [["null"], ["true"], ["false"], ["number", A], ["text", A], ["enum", [...]],
                      ["array", minimum, maximum, item_mask], ["object", [required], minimum, maximum]],
     "item": node, "known": {key: [node, [mask for each object alternative]]},
     "patterns": [A, ...], "free": {class: [node, [mask for each object alternative]]}}

``A`` is the number of an automaton. A free key's class is the set of patterns that it matches, as a bit mask.

What only GitHub's language has:

- an automaton may call others: ``{"accepting", "edges", "calls": [[low, high, automaton, return state, ...], ...]}``.
  On a byte of a call the other automaton reads from its state 0 on, this byte first; where it accepts and has nothing
  for the next byte, the caller goes on in the return state. ``"depth"`` is what each call adds to the depth of an
  expression (at most ``"max_call_depth"``); it has at most ``"max_call_units"`` UTF-16 units.
- strict mode is for what is generated: ``"strict"`` are an automaton's accepting states then, ``"lenient"`` the states
  that it does not enter, a node's ``"lenient"`` the alternatives that it does not offer. An automaton with ``"names"``
  then spells a name of that kind that is in scope; ``"requires"`` lists states with the kinds of names without which
  they lead to no end.
- a node's ``"defines"`` says which names its texts (``"text"``) or free keys (``"keys"``) define (see
  ``schema.Names``), ``"scope"`` which kinds are forgotten where it ends. Names of kinds that some node ``"closes"`` are
  all legal until such a node begins: they may be defined later. Where ``"while_open"`` has the kind, only names of
  another kind are. A node ``"implies"`` a kind: its enumerated texts and known keys define what ``"implied"`` lists
  for them (null: every name).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from nanochat_tct.tokenizer.automaton import Automaton, classes_of_keys
from nanochat_tct.tokenizer.errors import SchemaError
from nanochat_tct.tokenizer.expressions import Rule, described_rules
from nanochat_tct.tokenizer.github import Language
from nanochat_tct.tokenizer.schema import (
    Alternative,
    Compiler,
    Constant,
    Fields,
    Items,
    Lazy,
    Number,
    Text,
    Type,
    all_of,
)
from nanochat_tct.tokenizer.soundness import counts_problem

MAX_PATTERNS = 8  # patterns of free keys at one place whose combinations are all enumerated
MAX_CLASS_STATES = 5_000  # of the automata of all these combinations
MAX_NODES = 20_000


def compile_schema(schema: Any) -> tuple[dict[str, Any], list[str]]:
    """Compiles a JSON Schema document (draft 4 to 2020-12, references inside the document only).

    Returns:
        The grammar ``{"nodes": [...], "automata": [...], "literals": [...]}``; node 0 is the whole document. And the
        places of the schema that it does not enforce exactly, one line each.

    Raises:
        SchemaError: the schema is malformed, or no value is valid under it.
    """
    try:
        json.dumps(schema, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise SchemaError("the schema has a lone surrogate, which is not Unicode text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is not a JSON value: {error}") from None
    compiler = Compiler(schema)
    return _compile(compiler, ("schema", "")), compiler.unenforced


def compile_github() -> dict[str, Any]:
    """Compiles GitHub's workflow language: a grammar as above, of format 2."""
    language = Language()
    grammar = _compile(language, language.root)
    return {
        **grammar,
        "ignore_key_case": True,
        "graph": ["job", "need"],
        "while_open": {"need": "job"},
        **language.names,
        **language.limits,
    }


def _compile(compiler: Compiler | Language, root: Lazy) -> dict[str, Any]:
    builder = _Builder(compiler)
    try:
        builder.node_of([compiler.allowed(root)])
        for index, alternatives in enumerate(builder.order):  # grows while we walk
            builder.nodes.append(builder.describe(alternatives))
            assert len(builder.nodes) == index + 1
            if index >= MAX_NODES:
                raise SchemaError(f"the schema has more than {MAX_NODES} different places; simplify it")
    except RecursionError:
        raise SchemaError("the schema's references and combinations nest too deeply") from None
    if not builder.nodes[0]["alternatives"]:
        raise SchemaError("no value is valid under this schema")
    literals: dict[str, None] = {}
    for node in builder.nodes:
        literals.update(dict.fromkeys(node.get("known", {})))
        texts = [a for a in node["alternatives"] if a[0] in ("enum", "text")]
        if texts and all(a[0] == "enum" for a in texts):
            literals.update(dict.fromkeys(value for a in texts for value in a[1]))
    problem = counts_problem(builder.nodes)
    if problem:
        raise SchemaError(f"what the schema asks for cannot be written out: {problem}")
    return {"nodes": builder.nodes, "automata": builder.described(), "literals": sorted(literals)}


class _Builder:
    def __init__(self, compiler: Compiler | Language) -> None:
        self.compiler = compiler
        self.order: list[Type] = []
        self.numbers: dict[Type, int] = {}
        self.nodes: list[dict[str, Any]] = []
        self.automata: dict[Automaton | Rule, int] = {}

    def node_of(self, types: list[Type]) -> tuple[int, list[int]]:
        """The node that holds the alternatives of all the types, and each type's mask in it."""
        merged = tuple(dict.fromkeys(a for t in types for a in t))
        if merged not in self.numbers:
            self.numbers[merged] = len(self.order)
            self.order.append(merged)
        masks = [sum(1 << merged.index(a) for a in t) for t in types]
        return self.numbers[merged], masks

    def automaton(self, automaton: Automaton | Rule) -> int:
        return self.automata.setdefault(automaton, len(self.automata))

    def described(self) -> list[dict[str, Any]]:
        """The automata as the grammar has them, those that others call included."""
        if isinstance(self.compiler, Language):
            order = list(self.automata)
            for rule in order:
                for name in rule.callees if isinstance(rule, Rule) else ():
                    callee = self.compiler.expressions.rule(name)
                    if callee not in self.automata:
                        self.automaton(callee)
                        order.append(callee)
            return described_rules(self.automata)
        return [
            {"accepting": list(a.accepting), "edges": [list(sum(row, ())) for row in a.edges]}
            for a in self.automata
            if isinstance(a, Automaton)
        ]

    def describe(self, alternatives: Type) -> dict[str, Any]:
        node: dict[str, Any] = {}
        arrays = [a for a in alternatives if isinstance(a, Items)]
        item_masks: dict[Alternative, int] = {}
        if arrays:
            items = [self.compiler.allowed(a.item) for a in arrays]
            if any(items) and all(isinstance(a, Items) for t in items for a in t):
                # An array is not opened by a token where nothing else may stand, and then an empty one looks like the
                # end of the array that it is in. Beside a second kind, which no mask allows, it is opened.
                items.append((Constant(None),))
            node["item"], masks = self.node_of(items)
            item_masks = dict(zip(arrays, masks, strict=False))
        shapes = [a for a in alternatives if isinstance(a, Fields)]
        if shapes:
            self._describe_keys(node, shapes)
        described: list[list[Any]] = []
        for a in alternatives:
            if isinstance(a, Constant):
                described.append([{None: "null", True: "true", False: "false"}[a.value]])
            elif isinstance(a, Number):
                described.append(["number", self.automaton(a.text)])
            elif isinstance(a, Text):
                described.append(
                    ["text", self.automaton(a.pattern)] if a.values is None else ["enum", list(a.values)]
                )
            elif isinstance(a, Items):
                described.append(["array", a.minimum, a.maximum, item_masks[a]])
            else:
                order = {key: i for i, (key, _) in enumerate(a.known)}
                required = sorted(a.required, key=lambda key: (order.get(key, len(order)), key))
                described.append(["object", required, a.minimum, a.maximum])
        lenient = [index for index, a in enumerate(alternatives) if getattr(a, "lenient", False)]
        if lenient:
            node["lenient"] = lenient
        defines = {
            "text" if isinstance(a, Text) else "keys": a.defines
            for a in alternatives
            if isinstance(a, Text | Fields) and a.defines
        }
        if defines:
            node["defines"] = {where: asdict(names) for where, names in defines.items()}
        for attribute in ("scope", "closes"):
            kinds = {k for a in alternatives if isinstance(a, Items | Fields) for k in getattr(a, attribute)}
            if kinds:
                node[attribute] = sorted(kinds)
        implies = {a.implies for a in alternatives if isinstance(a, Text | Fields) and a.implies}
        if implies:
            (node["implies"],) = implies
        return {"alternatives": described, **node}

    def _describe_keys(self, node: dict[str, Any], shapes: list[Fields]) -> None:
        keys = dict.fromkeys(key for shape in shapes for key, _ in shape.known)
        keys.update(dict.fromkeys(key for shape in shapes for key in sorted(shape.required)))
        node["known"] = {key: list(self._merged([shape.type_of(key) for shape in shapes])) for key in keys}
        patterns: list[Automaton | Rule] = list(
            dict.fromkeys(p for shape in shapes for p, _ in shape.patterns)
        )
        patterns += [s.names for s in shapes if s.names is not None and s.names not in patterns]
        node["patterns"] = [self.automaton(pattern) for pattern in patterns]
        node["free"] = {}
        for matched in (
            range(1 << len(patterns))
            if len(patterns) <= MAX_PATTERNS
            else classes_of_keys([p for p in patterns if isinstance(p, Automaton)], MAX_CLASS_STATES)
        ):
            types: list[Lazy] = []
            for shape in shapes:
                found = [lazy for p, lazy in shape.patterns if matched >> patterns.index(p) & 1]
                allowed = shape.names is None or matched >> patterns.index(shape.names) & 1
                lazy = all_of(found) if found else shape.additional
                types.append(lazy if allowed else ("any", ()))
            child, masks = self._merged(types)
            if any(masks):
                node["free"][str(matched)] = [child, masks]

    def _merged(self, lazies: list[Lazy]) -> tuple[int, list[int]]:
        return self.node_of([self.compiler.allowed(lazy) for lazy in lazies])
