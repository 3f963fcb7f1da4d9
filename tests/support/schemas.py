"""Small schemas and documents for the tests of the tokenizer."""

from typing import Any

from hypothesis import strategies as st

SCHEMAS: dict[str, Any] = {
    "anything": True,
    "kinds": {"type": ["null", "boolean", "integer", "string"]},
    "closed": {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"enum": ["x", "y", 3, None]},
            "c": {"$ref": "#/properties/a"},
        },
        "required": ["a"],
        "additionalProperties": False,
    },
    "open": {"properties": {"a": {"type": "string", "minLength": 1, "maxLength": 2}}, "type": "object"},
    "patterned": {
        "type": "object",
        "patternProperties": {"^[ab]": {"type": "number"}, "b$": {"type": ["integer", "string"]}},
        "additionalProperties": {"type": "boolean"},
        "minProperties": 1,
        "maxProperties": 3,
    },
    "exclusive": {
        "allOf": [
            {
                "type": "object",
                "properties": {"a": True, "b": True, "c": True},
                "additionalProperties": False,
            },
            {"not": {"type": "object", "required": ["a", "b"]}},
        ]
    },
    "one of": {
        "type": "object",
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "properties": {"a": True, "b": {"type": "string"}, "c": {"type": "integer"}},
        "dependencies": {"c": ["a"]},
    },
    "told by a value": {
        "type": "object",
        "properties": {"a": {"enum": ["text", "count", "flag"]}, "b": {}},
        "oneOf": [
            {"properties": {"a": {"const": "text"}, "b": {"type": "string"}}, "required": ["a"]},
            {"properties": {"a": {"const": "count"}, "b": {"type": "number"}}, "required": ["a", "b"]},
            {"properties": {"a": {"const": "flag"}, "b": {"type": "boolean"}}, "required": ["a"]},
        ],
    },
    "array": {
        "type": "array",
        "items": {"type": ["string", "array"], "items": {"type": "null"}},
        "minItems": 1,
        "maxItems": 2,
    },
    "arrays of arrays": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "array"}, "maxItems": 2},
    },
    "tree": {
        "oneOf": [
            {"type": "string"},
            {"type": "number"},
            {"type": "object", "additionalProperties": {"$ref": "#"}},
            {"type": "array", "items": {"$ref": "#"}},
        ]
    },
    "if": {
        "type": "object",
        "properties": {"a": {"type": ["string", "integer"]}},
        "if": {"required": ["b"]},
        "then": {"required": ["a"]},
        "else": {"maxProperties": 1},
    },
    "words": {
        "oneOf": [
            {"type": "string", "pattern": "^a"},
            {"type": "string", "pattern": "b$"},
            {"enum": ["c", "ab"]},
        ]
    },
    "names": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-c]$"},
        "additionalProperties": {"type": "integer"},
    },
}

keys = st.sampled_from(["a", "b", "c", "ab", "ba", "d", ""])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.sampled_from(["", "x", "y", "a", "ab", "cb", "text", "count", "flag", "é"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
