"""A grammar's engine as the tests want it: values to base tokens and back, and positions that stay as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.engine import DONE, Engine, Matcher
from nanochat_tct.tokenizer.explain import Explainer


class Grammar:
    """A compiled grammar, and tokens over it."""

    def __init__(self, compiled: dict[str, Any], tokens: Sequence[str] = ()) -> None:
        self.engine = Engine(json.loads(json.dumps(compiled)), tokens)
        self.explainer = Explainer(self.engine)
        self.base_size = self.engine.base_size

    @classmethod
    def of(cls, schema: Any, tokens: Sequence[str] = ()) -> Grammar:
        return cls(compile_schema(schema)[0], tokens)

    def write(self, value: Any) -> str:
        """The base tokens of a value; TokenizerError where it is not valid."""
        return self.explainer.write(value)

    def read(self, base: str) -> tuple[Any, int]:
        """The value that base tokens begin with, and how many of them it takes; TokenizerError where there is none."""
        result, text, consumed = self.engine.read(base)
        if result != DONE:
            raise self.explainer.read_error(base, consumed, result)
        return json.loads(text), consumed

    def after(self, base: str) -> Matcher:
        """The position after base tokens, which some valid document begins with."""
        matcher = self.engine.matcher()
        assert matcher.advance(base)
        return matcher


# ---- small grammars of format 2: automata that call one another, names and strict mode ----

ANY_TEXT = {"accepting": [True], "edges": [[0, 127, 0]]}


def ranges(characters: str, target: int) -> list[int]:
    return [number for each in sorted(characters) for number in (ord(each), ord(each), target)]


# automaton 0: x, or ( and 1 and ), or ! and 1; then any number of + and another; 1 is the same, called
OPERAND = {
    "accepting": [False, True, False, False],
    "edges": [ranges("(", 2), ranges("+", 0), [], ranges(")", 1)],
    "calls": [[33, 33, 2, 1, 120, 120, 3, 1], [], [33, 33, 1, 3, 40, 40, 1, 3, 120, 120, 1, 3], []],
    "depth": 1,
}
NOT = {
    "accepting": [False, False, True],
    "edges": [ranges("!", 1), [], []],
    "calls": [[], [33, 33, 2, 2, 120, 120, 3, 2], []],
    "depth": 1,
}
LETTER = {"accepting": [False, True], "edges": [ranges("x", 1), ranges("x", 1)]}
NESTED: dict[str, Any] = {
    "nodes": [{"alternatives": [["text", 0]]}],
    "automata": [OPERAND, OPERAND, NOT, LETTER],
    "literals": [],
    "max_call_depth": 4,
    "max_call_units": 12,
}

WORD = {"accepting": [False, True], "edges": [[97, 99, 1], [97, 99, 1]]}
# jobs: {NAME: {"needs": [NAME, ...], "id": ID, "text": TEXT, "out": {NAME: ""}}}, where a text is "", or $ and the
# name of a job that is needed, and behind a dot one of its outputs or -
NAMED: dict[str, Any] = {
    "literals": ["id", "needs", "out", "text"],
    "automata": [
        WORD,
        {**WORD, "names": "job", "requires": [[0, "job"], [1, "job"]]},
        {
            "accepting": [True, False, False, False, True],
            "edges": [ranges("$", 1), [], ranges(".", 3), ranges("-", 4), []],
            "calls": [[], [97, 99, 3, 2], [], [97, 99, 4, 4], []],
            "requires": [[1, "need"]],
        },
        {**WORD, "names": "need"},
        {**WORD, "names": "output", "requires": [[0, "output"], [1, "output"]]},
        {"accepting": [True], "edges": [[]]},
    ],
    "nodes": [
        {
            "alternatives": [["object", [], 1, None]],
            "known": {},
            "patterns": [0],
            "free": {"1": [1, [1]]},
            "defines": {"keys": {"kind": "job", "unique": "", "late": True, "opens": False}},
            "scope": ["id"],
        },
        {
            "alternatives": [["object", [], 0, None]],
            "known": {"needs": [2, [1]], "id": [4, [1]], "text": [5, [1]], "out": [6, [1]]},
            "patterns": [],
            "free": {},
            "scope": ["need"],
        },
        {"alternatives": [["array", 0, None, 1]], "item": 3},
        {
            "alternatives": [["text", 1]],
            "defines": {"text": {"kind": "need", "unique": "strict", "late": False, "opens": False}},
        },
        {
            "alternatives": [["text", 0]],
            "defines": {"text": {"kind": "id", "unique": "always", "late": True, "opens": False}},
        },
        {"alternatives": [["text", 2]]},
        {
            "alternatives": [["object", [], 0, None]],
            "known": {},
            "patterns": [0],
            "free": {"1": [7, [1]]},
            "defines": {"keys": {"kind": "output", "unique": "", "late": False, "opens": False}},
        },
        {"alternatives": [["text", 5]]},
    ],
    "ignore_key_case": True,
    "graph": ["job", "need"],
    "while_open": {},
    "implied": {},
    "max_call_depth": 50,
    "max_call_units": 1000,
}
