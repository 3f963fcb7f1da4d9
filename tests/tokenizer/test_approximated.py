"""Schemas with keywords that the types only approximate: nothing valid is refused, and what is accepted is named."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.json_schema_suite import is_named
from benchmarks.schemas import validator_of
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.cursor import Walker
from nanochat_tct.tokenizer.errors import SchemaError, TokenizerError
from nanochat_tct.tokenizer.grammar import Grammar

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"

SCALARS: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 5, 6, 7, 15, -1, 1.0, 2.5, 0.00001, 1e16, 10**17),
    *("", "a", "b", "ab", "aXa", "latest", "aa", "🚀", "x@y.z"),
]
VALUES: list[Any] = [
    *SCALARS,
    *([], [1], [5], [15], [1, 1], [1, "a"], ["a", 1], ["a", "a"], ["a", "b"], ["latest"], ["a", "latest"]),
    *([[]], [1, 2, 3], [3, 5], [True, 1], [1.0, 1], [None, None], [{}], [{"a": 1}, {"a": 1}], [["a", 1]]),
    *({}, {"a": 1}, {"a": 15}, {"a": "a"}, {"a": [1, 1]}, {"a": [1, "a"]}, {"b": 1}, {"b": "a"}),
    *({"a": 1, "b": 2}, {"a": "a", "b": "a"}, {"a": 1, "c": 1}, {"ab": 1}, {"aXa": 1}, {"a": {}}, {"a": {"a": 1}}),
    *({"b": [], "c": None}, {"a": [], "b": {"a": 5}}, {"a": {"b": [1, 1]}}, {"": 1}, {"a": 1, "b": 1, "c": 1}),
]

TYPES = ["string", "number", "integer", "object", "array", "boolean", "null", ["string", "number"], ["array", "object"]]
# "(?<=a)" stands for what patterns cannot say
PATTERNS = ["^a", "b$", "(?<=a)X", "^[ab]*$", "(?<!a)b"]
LEAVES = st.booleans() | st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(TYPES),
        "enum": st.lists(st.sampled_from(VALUES), min_size=1, max_size=3),
        "const": st.sampled_from(VALUES),
        "multipleOf": st.sampled_from([1, 2, 3, 5, 2.5]),
        "minimum": st.sampled_from([-1, 0, 2.5, 1e16, 0.00001, 3]),
        "exclusiveMaximum": st.sampled_from([0, 3, 1e17, -0.00001, 15]),
        "pattern": st.sampled_from(PATTERNS),
        "minLength": st.sampled_from([1, 2, 3000]),
        "maxLength": st.sampled_from([0, 1, 3000]),
        "uniqueItems": st.booleans(),
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(0, 2),
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "minProperties": st.integers(0, 2),
        "maxProperties": st.integers(0, 2),
        "dependentRequired": st.dictionaries(st.sampled_from("ab"), st.lists(st.sampled_from("abc"), max_size=1), max_size=1),
    },
)


def few(strategy: Any, least: int = 1) -> Any:
    return st.lists(strategy, min_size=least, max_size=2)


def combined(inner: Any) -> Any:
    keys = st.sampled_from("abc")
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES),
            "properties": st.dictionaries(keys, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(PATTERNS), inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": inner,
            "unevaluatedProperties": inner,
            "unevaluatedItems": inner,
            "required": st.lists(keys, max_size=2, unique=True),
            "dependentSchemas": st.dictionaries(keys, inner, max_size=1),
            "items": inner,
            "prefixItems": few(inner, 0),
            "contains": inner,
            "minContains": st.integers(0, 2),
            "maxContains": st.integers(0, 2),
            "uniqueItems": st.just(True),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "anyOf": few(inner),
            "oneOf": few(inner),
            "allOf": few(inner),
            "$ref": st.just("#/$defs/a"),
        },
    )


SCHEMAS = st.builds(
    lambda schema, definition: {**schema, "$defs": {"a": definition}},
    st.recursive(LEAVES, combined, max_leaves=6).filter(lambda schema: isinstance(schema, dict)),
    LEAVES,
)


def judge(schema: Any, values: list[Any]) -> None:
    """Compares the verdicts of grammar and validator on values."""
    validator = validator_of(schema)
    try:
        compiled, unenforced = compile_schema(schema)
        grammar = Grammar(json.loads(json.dumps(compiled)))
        Walker(grammar)
    except SchemaError as error:
        if "value is valid" in str(error):
            assert not any(map(validator.is_valid, values)), "falsely empty"
        else:
            assert "multiply out" in str(error) or "more than" in str(error) or "overlap in too many" in str(error)
        return
    for value in values:
        try:
            base = grammar.write(value)
        except TokenizerError:
            assert not validator.is_valid(value), f"refused wrongly: {value}"
            continue
        assert json.dumps(grammar.read(base)[0]) == json.dumps(value)
        if not validator.is_valid(value):
            assert is_named(schema, value, unenforced), f"accepted wrongly and not named: {value}, {unenforced}"


@given(SCHEMAS)
@settings(max_examples=300, deadline=None)
def test_nothing_valid_is_refused_and_what_is_accepted_wrongly_is_named(schema: Any) -> None:
    judge(schema, VALUES)
