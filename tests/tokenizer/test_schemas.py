"""Schemas that others wrote: they compile, and what is drawn from them is valid and comes back equal."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.schemas import bundled_schemas, measure, validator_of
from nanochat_tct.tokenizer import numbers
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.errors import SchemaError, TokenizerError
from nanochat_tct.tokenizer.soundness import grammar_problem
from tests.support.grammars import Grammar
from tests.tokenizer.test_approximated import some_of

# Of a failed validation, what is at fault, where it is nothing that the types can say.
EXCUSED = {"uniqueItems"}


@pytest.mark.parametrize("path", bundled_schemas(), ids=lambda path: path.stem)
def test_schemas_of_check_jsonschema(path: Path) -> None:
    if path.stem == "drone-ci":  # refers to a file that check-jsonschema does not carry either
        with pytest.raises(SchemaError, match=r"only references inside the document.*kubernetes-definitions"):
            compile_schema(json.loads(path.read_text()))
        return
    result = measure(path, walks=12)
    assert result.refused == "" and result.walks == result.same == 12
    if not any("uniqueItems" in line for line in result.unenforced):
        assert result.reasons == {} and result.valid == 12


@pytest.mark.parametrize("unit", [1, 0.1, 1e-3])
@pytest.mark.parametrize("exclusive", [False, True])
def test_bounds_of_numbers(unit: float, exclusive: bool) -> None:
    choose = random.Random(0)
    near = [
        0,
        0.0,
        -0.0,
        1,
        -1,
        9,
        10,
        11,
        99,
        100,
        101,
        12.5,
        1e-5,
        -1e-5,
        5e-324,
        1e16,
        -1e16,
        1e300,
        10**20,
    ]
    for _ in range(40):
        bound = choose.choice([0, 1, -1, 9, 10, -100, 123, 4096, choose.randrange(-2000, 2000)]) * unit
        bound = int(bound) if unit == 1 else bound
        least, most = numbers.at_least(bound, exclusive), numbers.at_most(bound, exclusive)
        assert least is not None and most is not None
        samples = [*near, bound, bound + unit, bound - unit, bound * 1.0000001, bound / 1.0000001, bound * 10]
        samples += [choose.uniform(-2, 2) * bound for _ in range(20)]
        for number in samples:
            text = repr(number).encode()
            assert least.accepts(text) == (number > bound or (number == bound and not exclusive)), (
                number,
                bound,
            )
            assert most.accepts(text) == (number < bound or (number == bound and not exclusive)), (
                number,
                bound,
            )


@given(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_bounds_agree_with_comparison(bound: int, number: float) -> None:
    least = numbers.at_least(bound, exclusive=False)
    assert least is not None and least.accepts(repr(number).encode()) == (number >= bound)


def test_bounds_out_of_reach_are_none() -> None:
    assert numbers.at_least(1e-7, False) is None and numbers.at_most(10**16, False) is None


DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DRAFT_2020 = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
EXACT: dict[str, Any] = {
    "bounds": {"type": "integer", "minimum": 1, "maximum": 65535},
    "bounds of draft 4": {**DRAFT_4, "type": "number", "minimum": 0, "exclusiveMinimum": True},
    "fractions": {"type": "number", "exclusiveMinimum": 0.25, "maximum": 1},
    "whole": {"type": "number", "multipleOf": 1},
    "unevaluated": {
        **DRAFT_2020,
        "$defs": {"base": {"properties": {"a": {"type": "integer"}}, "patternProperties": {"^x-": True}}},
        "type": "object",
        "allOf": [{"$ref": "#/$defs/base"}],
        "properties": {"b": True},
        "unevaluatedProperties": False,
    },
    "anchors": {
        **DRAFT_7,
        "$id": "https://example.org/schema",
        "definitions": {"word": {"$id": "#word", "type": "string"}},
        "type": "array",
        "items": {"anyOf": [{"$ref": "#word"}, {"$ref": "https://example.org/schema#/definitions/word"}]},
    },
    "anchor": {**DRAFT_2020, "$defs": {"w": {"$anchor": "w", "type": "integer"}}, "items": {"$ref": "#w"}},
    "values": {"enum": [[], [1, 1], {"a": [True], "b": None}, {"a": {}}, 1e300, "x", 2]},
    "look-ahead": {"type": "string", "pattern": "^(?!ab)[a-c]*$"},
    "look-ahead with an end": {"type": "string", "pattern": "^(?=[a-c]{2}$)(?!aa)a.*$"},
    "categories": {"type": "string", "pattern": "^\\p{Lu}\\P{L}*$"},
    "contradiction": {"type": ["array", "string"], "minItems": 3, "maxItems": 2},
    "ten patterns": {
        "type": "object",
        "patternProperties": {f"^{letter}": {"type": "integer"} for letter in "abcdefghij"},
        "additionalProperties": False,
    },
    "twelve conditions on one key": {
        "type": "object",
        "properties": {"k": {"enum": list(range(12))}},
        "allOf": [
            {
                "if": {"properties": {"k": {"const": i}}, "required": ["k"]},
                "then": {"properties": {"a": {"const": i}}},
            }
            for i in range(12)
        ],
    },
    "arrays told apart": {
        "oneOf": [
            {"properties": {"a": {"type": "array", "items": {"type": "string"}}}, "required": ["a"]},
            {"properties": {"b": {"type": "array", "items": {"type": "string"}}}, "required": ["b"]},
        ],
        "properties": {
            "a": {"type": "array", "items": {"type": "string"}},
            "b": {"type": "array", "items": {"type": "string"}},
        },
        "type": "object",
        "additionalProperties": False,
    },
}
VALUES: list[Any] = [
    *(0, 1, 1.0, -1, 2, 65535, 65536, 0.25, 0.26, 0.2500001, 1e16, 5e-324, -0.0, 1e300, None, True),
    *("", "a", "ab", "ac", "aa", "caab", "abc", "É", "É1", "É1a", "x"),
    *([], [1], [1, 1], ["a"], ["a", "b"], [[], []], ["a", "b", "c"]),
    *({}, {"a": 1}, {"a": 1, "b": 2}, {"c": 1}, {"x-y": 1}, {"a": "1"}, {"j1": 1}, {"j1": "1"}, {"k": 1}),
    *({"a": [True], "b": None}, {"a": [True]}, {"a": {}}, {"a": ["s"]}, {"a": ["s"], "b": ["s"]}),
    *({"b": [1]}, {"b": []}, {"a": [], "b": [1]}, {"k": 3}, {"k": 3, "a": 3}, {"k": 3, "a": 4}, {"a": 4}),
]


@pytest.mark.parametrize("name", EXACT)
def test_what_is_enforced_agrees_with_a_validator(name: str) -> None:
    compiled, unenforced = compile_schema(EXACT[name])
    assert unenforced == []
    grammar, validator = Grammar(compiled), validator_of(EXACT[name])
    for value in VALUES:
        try:
            base = grammar.write(value)
        except TokenizerError:
            assert not validator.is_valid(value), value
            continue
        assert validator.is_valid(value), value
        assert json.dumps(grammar.read(base)[0]) == json.dumps(value)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "number", "minimum": 1e300}, "/: minimum 1e+300"),
        ({"type": "array", "uniqueItems": True}, "/: uniqueItems"),
        ({"properties": {"a": {"pattern": "(?!x)"}}}, "a look-around"),
        ({"frobnicate": 1}, "unknown keyword 'frobnicate'"),
        ({"enum": [[1, 2]]}, "an enumeration of arrays or objects"),
        ({"items": [{"type": "string"}, {"type": "integer"}]}, "items of different types by position"),
        ({**DRAFT_2020, "prefixItems": [{"type": "string"}]}, "items of different types by position"),
        ({"contains": {"type": "string"}}, "contains"),
        ({"type": "integer", "multipleOf": 7}, "multipleOf"),
        ({"patternProperties": {"(?<=a)b": False}}, "a look-around"),
        ({"pattern": "(a*)*\\1"}, "the escape"),
        ({"propertyNames": {"maxLength": 300}}, "propertyNames that may be long"),
        ({"anyOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}, "unevaluatedProperties"),
    ],
)
def test_what_is_not_enforced_is_named(schema: Any, named: str) -> None:
    compiled, unenforced = compile_schema(schema)
    assert any(named in line for line in unenforced)
    assert grammar_problem(compiled) == "" and Grammar(compiled)


def test_an_annotation_of_ones_own_is_told_once() -> None:
    schema = {"hint": 1, "type": "object", "properties": {str(i): {"hint": i} for i in range(50)}}
    assert compile_schema(schema)[1] == ["/: unknown keyword 'hint'"]


def nested(keyword: str, depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {keyword: [schema, {"type": "array"}]}
    return schema


MULTIPLYING = {
    "allOf": [
        {"oneOf": [{"required": [f"a{i}{j}"], "properties": {f"a{i}{j}": {"const": j}}} for j in range(7)]}
        for i in range(9)
    ]
}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"$ref": "#/definitions/missing"}, "points to nothing"),
        ({"$ref": "other.json"}, "only references inside the document"),
        ({"$ref": "#"}, "refers to itself"),
        ({"anyOf": [{"$ref": "#/anyOf/0"}]}, "refers to itself"),
        (False, "no value is valid"),
        ({"type": "object", "required": ["a"], "properties": {"a": False}}, "no value is valid"),
        ([1], "a schema is an object"),
        (MULTIPLYING, "multiply out|alternatives, more than"),
        ({"type": "array", "minItems": 10**9}, "a minimum"),
        ({"items": {"items": {"minItems": 999, "type": "array"}, "minItems": 999, "type": "array"}}, "$"),
        ({"minItems": -1}, "minItems must be a whole number"),
        ({"minItems": "1"}, "minItems must be a whole number"),
        ({"maxLength": 1e400}, "maxLength must be a whole number"),
        ({"properties": []}, "properties must be an object"),
        ({"properties": {"a": 3}}, "a schema is an object, true or false"),
        ({"allOf": {}}, "allOf must be an array"),
        ({"enum": 3}, "enum must be an array"),
        ({"type": ["string", {}]}, "type must be one or more of"),
        ({"pattern": 3}, "pattern must be a string"),
        ({"required": [1]}, "required must be an array of strings"),
        ({"minimum": "0"}, "minimum must be a number"),
        ({"enum": ["\ud800"]}, "lone surrogate"),
        ({"$ref": "#missing"}, "only references inside the document"),
        ({"$ref": 3}, "only references inside the document"),
        ({"const": {1, 2}}, "not a JSON value"),
        (
            {"patternProperties": {f"^(a|b){{{i}}}.*{i}": True for i in range(40)}},
            "overlap in too many ways|too long",
        ),
    ],
)
def test_schemas_that_are_refused(schema: Any, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem) as caught:
        Grammar.of(schema)
        raise SchemaError("")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [50, 2000])
def test_deep_schemas_compile_or_are_refused(depth: int) -> None:
    try:
        compiled, _ = compile_schema(nested("anyOf", depth))
    except SchemaError as error:
        assert "too deeply" in str(error) or "not a JSON value" in str(error)
    else:
        assert Grammar(compiled).write("text")


SUBSCHEMAS = st.recursive(
    st.booleans()
    | some_of(
        {
            "type": st.sampled_from(["string", "integer", "object", "array", ["null", "number"]]),
            "enum": st.lists(st.sampled_from([1, "a", None, [], {"a": 1}, [1, "a"]]), min_size=1, max_size=3),
            "minimum": st.integers(-20, 20),
            "maximum": st.sampled_from([0, 0.5, 3, 100]),
            "minLength": st.integers(0, 3),
            "pattern": st.sampled_from(["^a", "b$", "[0-9]+", "^(?!a)"]),
            "minItems": st.integers(0, 2),
            "maxProperties": st.integers(0, 2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
        },
    ),
    lambda inner: some_of(
        {
            "properties": st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "c$"]), inner, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
        },
    ),
    max_leaves=6,
)


@given(SUBSCHEMAS)
@example({"not": {"maximum": 0}, "if": {"minimum": 0}, "then": False})  # once 0e+00
@settings(max_examples=120)
def test_made_up_schemas_agree_with_a_validator(schema: Any) -> None:
    check_schema(schema)


@pytest.mark.slow
@given(SUBSCHEMAS)
@settings(max_examples=2000)
def test_many_more_schemas_agree_with_a_validator(schema: Any) -> None:
    check_schema(schema)


def check_schema(schema: Any) -> None:
    """Where nothing is named as not enforced, the grammar takes just what a validator takes."""
    try:
        compiled, unenforced = compile_schema(schema)
        grammar = Grammar(compiled)
    except SchemaError:
        return
    shortest, _ = grammar.read(grammar.after("").complete())
    if unenforced:
        return
    validator = validator_of(schema)
    assert validator.is_valid(shortest), shortest
    for value in VALUES:
        try:
            grammar.write(value)
        except TokenizerError:
            assert not validator.is_valid(value), value
        else:
            assert validator.is_valid(value), value
