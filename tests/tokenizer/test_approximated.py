"""Schemas with keywords that the types only approximate: nothing valid is refused, and what is accepted is named."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.json_schema_suite import is_named
from benchmarks.schemas import bundled_schemas, validator_of
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.errors import SchemaError, TokenizerError
from tests.support.grammars import Grammar

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_6 = "http://json-schema.org/draft-06/schema#"
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
    *(
        {"a": 1, "b": 2},
        {"a": "a", "b": "a"},
        {"a": 1, "c": 1},
        {"ab": 1},
        {"aXa": 1},
        {"a": {}},
        {"a": {"a": 1}},
    ),
    *(
        {"b": [], "c": None},
        {"a": [], "b": {"a": 5}},
        {"a": {"b": [1, 1]}},
        {"": 1},
        {"a": 1, "b": 1, "c": 1},
    ),
]

TYPES = [
    "string",
    "number",
    "integer",
    "object",
    "array",
    "boolean",
    "null",
    ["string", "number"],
    ["array", "object"],
]
# "(?<=a)" stands for what patterns cannot say
PATTERNS = ["^a", "b$", "(?<=a)X", "^[ab]*$", "(?<!a)b"]


def some_of(keywords: dict[str, Any]) -> Any:
    """Schemas of a few keywords: of many, most contradict one another, and say nothing of any."""
    names = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: keywords[name] for name in chosen}))


LEAVES = st.booleans() | some_of(
    {
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
        "format": st.sampled_from(["email", "made-up"]),
        "dependentRequired": st.dictionaries(
            st.sampled_from("ab"), st.lists(st.sampled_from("abc"), max_size=1), max_size=1
        ),
    },
)


def few(strategy: Any, least: int = 1) -> Any:
    return st.lists(strategy, min_size=least, max_size=2)


def combined(inner: Any) -> Any:
    keys = st.sampled_from("abc")
    return some_of(
        {
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


def of_draft(draft: str | None, schema: Any) -> Any:
    """A schema with the draft named, and with what it says of positions in the draft's own words."""

    def older(schema: Any) -> Any:
        if isinstance(schema, list):
            return [older(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        schema = {key: value if key in ("enum", "const") else older(value) for key, value in schema.items()}
        if isinstance(schema.get("prefixItems"), list):
            rest = schema.pop("items", True)
            schema |= {"items": schema.pop("prefixItems"), "additionalItems": rest}
        # jsonschema 4.26 errs in draft 2019-09: it raises for unevaluatedItems, and takes the keywords of a schema
        # under additionalProperties for the names of evaluated properties
        schema.pop("unevaluatedItems", None)
        schema.pop("unevaluatedProperties", None)
        if draft != DRAFT_2019 and isinstance(schema.get("dependentSchemas"), dict):
            schema["dependencies"] = schema.pop("dependentSchemas")
        return schema

    schema = schema if draft in (None, DRAFT_2020) else older(schema)
    return schema if draft is None else {"$schema": draft, **schema}


SCHEMAS = st.builds(
    lambda draft, schema, definition: of_draft(draft, {**schema, "$defs": {"a": definition}}),
    st.sampled_from([None, DRAFT_2020, DRAFT_2019, DRAFT_7, DRAFT_6]),
    st.recursive(LEAVES, combined, max_leaves=6).filter(lambda schema: isinstance(schema, dict)),
    LEAVES,
)


def judge(schema: Any, values: list[Any]) -> None:
    """Compares the verdicts of grammar and validator on values."""
    validator = validator_of(schema)
    try:
        compiled, unenforced = compile_schema(schema)
        grammar = Grammar(json.loads(json.dumps(compiled)))
    except SchemaError as error:
        if "value is valid" in str(error):
            assert not any(map(validator.is_valid, values)), "falsely empty"
        else:
            assert (
                "multiply out" in str(error)
                or "more than" in str(error)
                or "overlap in too many" in str(error)
            )
        return
    shortest, _ = grammar.read(grammar.after("").complete())
    for value in [*values, shortest]:
        try:
            base = grammar.write(value)
        except TokenizerError:
            assert not validator.is_valid(value), f"refused wrongly: {value}"
            continue
        assert json.dumps(grammar.read(base)[0]) == json.dumps(value)
        if not validator.is_valid(value):
            assert is_named(schema, value, unenforced), (
                f"accepted wrongly and not named: {value}, {unenforced}"
            )


@given(SCHEMAS)
@settings(max_examples=150, deadline=None)
def test_made_up_schemas(schema: Any) -> None:
    judge(schema, VALUES)


NUMBER, ARRAY = {"type": "number"}, {"type": "array"}
EVEN, FIFTH = {**NUMBER, "multipleOf": 2}, {**NUMBER, "multipleOf": 5}
BEHIND = {"pattern": "(?<=a)X"}
CASES: dict[str, Any] = {
    "one of two multiples": {"oneOf": [{**NUMBER, "multipleOf": 5}, {**NUMBER, "multipleOf": 3}]},
    "not a multiple": {**NUMBER, "not": {"multipleOf": 5}},
    "not a whole number": {**NUMBER, "not": {"multipleOf": 1}},
    "if a multiple": {"if": EVEN, "then": {"maximum": 2}, "else": {"minimum": 3}},
    "a multiple twice": {"oneOf": [EVEN, EVEN, {"type": "string"}]},
    "does not contain": {**ARRAY, "not": {"contains": {"const": "latest"}}},
    "contains, one of": {
        "oneOf": [{**ARRAY, "contains": {"const": "a"}}, {**ARRAY, "contains": {"const": "b"}}]
    },
    "if it contains": {
        **ARRAY,
        "if": {"contains": {"const": "a"}},
        "then": {"maxItems": 1},
        "else": {"minItems": 2},
    },
    "contains neither": {
        **ARRAY,
        "not": {"anyOf": [{"contains": {"const": "a"}}, {"contains": {"const": 1}}]},
    },
    "contains what contains": {**ARRAY, "not": {"contains": {**ARRAY, "contains": {"const": 1}}}},
    "contains anything": {**ARRAY, "contains": True, "maxContains": 1},
    "contains nothing": {**ARRAY, "contains": False},
    "contains enough": {**ARRAY, "not": {"contains": {"const": "a"}, "minContains": 2}},
    "contains at most": {**ARRAY, "not": {"contains": {"const": "a"}, "minContains": 0, "maxContains": 1}},
    "may contain": {**ARRAY, "not": {"contains": {"const": "a"}, "minContains": 0}},
    "counts without contains": {**ARRAY, "not": {"minContains": 2, "maxContains": 3}},
    "not unique": {**ARRAY, "not": {"uniqueItems": True}},
    "unique in one of": {"oneOf": [{**ARRAY, "uniqueItems": True}, {**ARRAY, "minItems": 2}]},
    "not by position": {**ARRAY, "not": {"prefixItems": [{"const": "a"}, {"const": 1}]}},
    "not by position, a list": {
        "$schema": DRAFT_7,
        **ARRAY,
        "not": {"items": [{"const": "a"}, {"const": 1}]},
    },
    "one of two positions": {"oneOf": [{**ARRAY, "prefixItems": [EVEN]}, {**ARRAY, "items": NUMBER}]},
    "not with unevaluated items": {**ARRAY, "not": {"prefixItems": [NUMBER], "unevaluatedItems": False}},
    "not a pattern": {"type": "string", "not": BEHIND},
    "one of two patterns": {"oneOf": [{"type": "string", **BEHIND}, {"type": "string", "pattern": "^a"}]},
    "a pattern in names": {"type": "object", "not": {"propertyNames": BEHIND}},
    "long names": {"type": "object", "not": {"propertyNames": {"maxLength": 300}}},
    "patterns of keys": {"type": "object", "not": {"patternProperties": {"(?<=a)X": NUMBER}}},
    "a long text": {"type": "string", "not": {"maxLength": 5000}},
    "not a short text": {"type": "string", "not": {"minLength": 5000}},
    "beyond bounds": {**NUMBER, "not": {"minimum": 1e16}},
    "near zero": {"oneOf": [{**NUMBER, "minimum": 1e-7}, {**NUMBER, "maximum": 0}]},
    "not in an enumeration": {**ARRAY, "not": {"enum": [[1, "a"]]}},
    "an enumeration inside": {"type": "object", "not": {"const": {"a": [1, "a"]}}},
    "formats": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
    "not a format": {"type": "string", "not": {"format": "email"}},
    "not unevaluated": {
        "type": "object",
        "not": {"anyOf": [{"properties": {"a": NUMBER}}], "unevaluatedProperties": False},
    },
    "inside a property": {
        "type": "object",
        "not": {"properties": {"a": {"uniqueItems": True}}, "required": ["a"]},
    },
    "inside an item": {**ARRAY, "not": {"items": {"multipleOf": 5}}},
    "inside additional ones": {"type": "object", "not": {"additionalProperties": {"multipleOf": 5}}},
    "not not": {"not": {"not": {**NUMBER, "multipleOf": 5}}},
    "closed shapes": {
        "oneOf": [
            {"properties": {"a": NUMBER, "b": NUMBER}, "additionalProperties": False},
            {"properties": {"a": NUMBER}, "additionalProperties": False},
        ]
    },
    "what is additional decides": {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "additionalProperties": {"$ref": "#/$defs/n"},
        "not": {"additionalProperties": {"$ref": "#/$defs/n"}},
        "$defs": {"n": NUMBER},
    },
    "itself in a negation": {
        "type": "object",
        "properties": {"a": {"$ref": "#"}},
        "not": {"properties": {"a": {"$ref": "#"}}, "required": ["a", "b"]},
    },
    "beside a reference": {"$ref": "#/$defs/n", "maximum": 3, "$defs": {"n": NUMBER}},
    "beside a reference in draft 7": {
        "$schema": DRAFT_7,
        "$ref": "#/definitions/n",
        "maximum": 3,
        "definitions": {"n": NUMBER},
    },
    "shapes that overlap in many ways": {
        "oneOf": [
            {"properties": {key: {"enum": [i, j]} for j, key in enumerate("abcdefghijklmn") if j != i}}
            for i in range(14)
        ]
    },
    "shapes within shapes": {
        "oneOf": [
            {"$ref": "#/$defs/marked"},
            {"properties": {"b": {"$ref": "#/$defs/marked"}}, "required": ["b"]},
        ],
        "$defs": {
            "list": {
                "type": "object",
                "properties": {"a": {"enum": ["a", "ab"]}, "b": {"$ref": "#/$defs/either"}},
                "required": ["a", "b"],
            },
            "map": {
                "type": "object",
                "properties": {"a": {"const": "b"}, "c": {"$ref": "#/$defs/either"}},
                "required": ["a"],
            },
            "either": {"oneOf": [{"$ref": "#/$defs/list"}, {"$ref": "#/$defs/map"}]},
            "marked": {"allOf": [{"$ref": "#/$defs/either"}, {"properties": {"d": NUMBER}}]},
        },
    },
    "enum and const": {"enum": [1, "a"], "const": "a"},
    "enum and const apart": {"properties": {"a": {"enum": [1, "a"], "const": 2}}, "type": "object"},
    "additional items": {"$schema": DRAFT_7, **ARRAY, "items": [True], "additionalItems": NUMBER},
    "no positions": {"$schema": DRAFT_7, **ARRAY, "items": [], "additionalItems": NUMBER},
    "no prefix": {"$schema": DRAFT_2020, **ARRAY, "prefixItems": [], "items": NUMBER},
    "positions end": {"$schema": DRAFT_2020, **ARRAY, "prefixItems": [NUMBER, False]},
    "nested unevaluated": {
        "allOf": [{"properties": {"a": True}, "unevaluatedProperties": True}],
        "type": "object",
        "unevaluatedProperties": False,
    },
    "patterns of unevaluated keys": {"patternProperties": {"(?<=a)X": True}, "unevaluatedProperties": False},
    "a dynamic reference": {
        "$schema": DRAFT_2020,
        "$id": "https://example.org/root",
        "$ref": "list",
        "$defs": {
            "one": {"$dynamicAnchor": "one", "type": "string"},
            "list": {
                "$id": "list",
                "type": "array",
                "items": {"$dynamicRef": "#one"},
                "$defs": {"one": {"$dynamicAnchor": "one"}},
            },
        },
    },
    "a dynamic reference without a choice": {
        "$schema": DRAFT_2020,
        "$dynamicAnchor": "node",
        "type": "object",
        "properties": {"a": {"$dynamicRef": "#node"}, "b": NUMBER},
        "unevaluatedProperties": False,
    },
    "a recursive reference": {
        "$schema": DRAFT_2019,
        "$recursiveAnchor": True,
        "anyOf": [NUMBER, {"type": "object", "additionalProperties": {"$recursiveRef": "#"}}],
    },
    "newer keywords": {"$schema": DRAFT_4, "const": 1, "contains": False, "if": True, "then": False},
    "newer keywords in draft 7": {"$schema": DRAFT_7, "prefixItems": [False], "unevaluatedProperties": False},
    "whole numbers of draft 4": {"$schema": DRAFT_4, "not": {"type": "integer"}},
    "no number of JSON": {"enum": [float("inf"), 1, [float("nan")], {"a": float("inf")}]},
    "far below": {"oneOf": [{**NUMBER, "maximum": -1e17}, {**NUMBER, "minimum": -1e17}, {"type": "null"}]},
    "just below": {"if": {"exclusiveMaximum": -1e-7}, "then": {"type": "integer"}, "else": NUMBER},
    "zeros": {"enum": [0, [0]]},
    "big numbers": {"enum": [10**17, 2**53 + 1]},
    "not one": {**NUMBER, "not": {"const": 1}},
}


@pytest.mark.parametrize("name", CASES)
def test_kinds_of_approximation(name: str) -> None:
    more = [
        "aX",
        "127.0.0.1",
        2**53 + 1,
        float(2**53),
        1e-8,
        -1e-8,
        0.0,
        -0.0,
        [0.0],
        [{"a": 5}],
        [[1]],
        [["a"]],
    ]
    more += [
        {"a": {"a": 1, "b": 1}},
        {"a": {"a": "x"}},
        {"a": {"a": {}}, "b": 1},
        {"a": [], "b": 1},
        {"c": 1},
    ]
    judge(CASES[name], VALUES + more)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (CASES["one of two multiples"], "/oneOf: rests on what is not enforced"),
        (CASES["shapes that overlap in many ways"], "/oneOf: alternatives that overlap in too many ways"),
        (CASES["shapes within shapes"], "/oneOf: alternatives that nest too deeply"),
        (CASES["additional items"], "/: items of different types by position"),
        (CASES["positions end"], None),
        (CASES["no positions"], None),
        (CASES["enum and const"], None),
        (CASES["nested unevaluated"], None),
        (CASES["a dynamic reference"], "/$defs/list/items: $dynamicRef"),
        (CASES["a dynamic reference without a choice"], None),
        (CASES["a recursive reference"], None),
        (CASES["formats"], "/oneOf: rests on what is not enforced"),
        (CASES["newer keywords in draft 7"], "/: prefixItems is ignored: draft 7 does not have it"),
        ({"type": "string", "format": "email"}, "/: format is an annotation"),
        ({"type": "integer", "format": "int32"}, None),
        (
            {"properties": {"a": {"contentEncoding": "base64"}}},
            "/properties/a: contentEncoding is an annotation",
        ),
        ({"pattern": "^[\\ud800-\\udbff]"}, "a lone surrogate"),
        ({"required": True}, "required: true, which only draft 3 has"),
    ],
)
def test_what_is_named(schema: Any, named: str | None) -> None:
    unenforced = compile_schema(schema)[1]
    assert unenforced == [] if named is None else any(named in line for line in unenforced)


def test_bounds_out_of_reach_still_bound() -> None:
    choose = random.Random(0)
    values = [
        0,
        -0.0,
        1e-5,
        -1e-5,
        1e-4,
        -1e-4,
        5e-324,
        1e15,
        -1e15,
        1e16,
        -1e16,
        10**17,
        -(10**17),
        3,
        -3,
        2e17,
    ]
    for bound in (1e16, -1e16, 1e17, 10**17, -(10**17), 1e-5, -1e-5, 1e-300, -1e-300):
        for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            for schema in ({keyword: bound}, {"not": {keyword: bound}}):
                judge({**NUMBER, **schema}, [*values, choose.uniform(-2, 2) * bound])
    for schema in ({"minimum": 1e16}, {"exclusiveMinimum": 1e-7}):
        with pytest.raises(TokenizerError):
            Grammar(compile_schema({**NUMBER, **schema})[0]).write(0)


def test_a_negation_of_contains_is_exact() -> None:
    grammar = Grammar(compile_schema(CASES["does not contain"])[0])
    for value in ([], ["a"], ["a", 1]):
        assert grammar.write(value)
    for value in (["latest"], ["a", "latest"]):
        with pytest.raises(TokenizerError):
            grammar.write(value)


def test_a_dialect_of_ones_own_is_refused() -> None:
    with pytest.raises(
        SchemaError, match=r"\$schema 'https://example.org/mine' is none of the drafts 4 to 2020-12"
    ):
        compile_schema({"$schema": "https://example.org/mine"})


def test_closed_alternatives_are_told_apart_by_what_only_one_of_them_has() -> None:
    """Each of several closed shapes with optional keys of its own is kept; once every such shape was taken away."""
    shapes = [{"type": "object", "properties": {key: NUMBER}, "additionalProperties": False} for key in "abc"]
    judge({"oneOf": shapes}, VALUES)
    path = next(path for path in bundled_schemas() if path.stem == "bitbucket-pipelines")
    grammar = Grammar(compile_schema(json.loads(path.read_text(encoding="utf-8")))[0])
    assert grammar.write({"pipelines": {"default": [{"step": {"script": ["make test"]}}]}})
