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
