import json
import re
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.engine import MAX_DEPTH, Matcher
from nanochat_tct.tokenizer.errors import SchemaError, TokenizerError
from nanochat_tct.tokenizer.json_text import Pairs
from tests.support.grammars import Grammar
from tests.support.schemas import SCHEMAS, values

GRAMMARS = {name: Grammar.of(schema) for name, schema in SCHEMAS.items()}
VALIDATORS = {name: Draft7Validator(schema) for name, schema in SCHEMAS.items()}


def same(left: Any, right: Any) -> bool:
    """Equal values, key order kept, 1 and 1.0 apart."""
    return json.dumps(left) == json.dumps(right)


def test_every_test_schema_is_enforced_exactly() -> None:
    assert {name: compile_schema(schema)[1] for name, schema in SCHEMAS.items()} == {
        name: [] for name in SCHEMAS
    }


@settings(max_examples=250)
@given(value=values, cut=st.floats(0, 1))
def test_what_a_validator_accepts_is_written_read_back_and_completed(value: Any, cut: float) -> None:
    for name in SCHEMAS:  # making a value up takes longer than asking a grammar
        note(name)
        check_value(GRAMMARS[name], VALIDATORS[name], value, cut)


def check_value(grammar: Grammar, validator: Any, value: Any, cut: float) -> None:
    pairs = json.loads(json.dumps(value), object_pairs_hook=Pairs)  # written like dictionaries
    if not validator.is_valid(value):
        with pytest.raises(TokenizerError) as error:
            grammar.write(value)
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(error.value))}$"):
            grammar.write(pairs)
        return
    base = grammar.write(value)
    assert grammar.write(pairs) == base
    again, length = grammar.read(base)
    assert same(again, value) and length == len(base)
    assert grammar.read(base + base)[1] == length  # what follows a document is left over
    kept = base[: int(cut * len(base))]
    matcher = grammar.engine.matcher()
    assert all(map(matcher.advance, kept))
    assert matcher.is_complete == (len(kept) == len(base))
    check_completed(grammar, validator, kept, matcher)


def check_completed(grammar: Grammar, validator: Any, begun: str, matcher: Matcher) -> None:
    """What has begun can be completed to a valid document."""
    whole = begun + matcher.complete()
    value, length = grammar.read(whole)
    assert length == len(whole)
    assert validator.is_valid(value)


@settings(max_examples=60)
@given(choices=st.lists(st.integers(0, 10_000), max_size=25))
def test_random_walks_end_in_valid_documents(choices: list[int]) -> None:
    """Only legal tokens are taken; whatever was taken can be completed, so no legal token leads nowhere."""
    for name, grammar in GRAMMARS.items():
        note(name)
        alphabet = [chr(code) for code in [*range(32, 127), 0xC3, 0xA9, *range(257, grammar.base_size)]]
        matcher = grammar.engine.matcher()
        taken = ""
        for choice in choices:
            legal = [token for token in alphabet if matcher.allows(token)]
            taken += legal[choice % len(legal)]
            assert matcher.advance(taken[-1])
            if matcher.is_complete:
                break
        check_completed(grammar, VALIDATORS[name], taken, matcher)


def test_a_schema_of_endless_values_only_is_refused() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    with pytest.raises(SchemaError, match="no finite value"):
        Grammar.of(endless)


def test_shortest_document_has_what_is_required() -> None:
    assert GRAMMARS["closed"].read(GRAMMARS["closed"].after("").complete())[0] == {"a": 0}


@pytest.mark.parametrize(
    ("name", "value", "pointer", "problem"),
    [
        ("closed", {"b": "x"}, "", "missing 'a'"),
        ("closed", {"a": 1, "z": 1}, "", "unknown key 'z'"),
        ("closed", {"a": "1"}, "/a", "a string '1' where a number is expected"),
        ("closed", {"a": 1.5}, "/a", "1.5 is not a number that is allowed here"),
        ("closed", [], "", "an array where an object is expected"),
        ("array", [["x"]], "/0/0", "a string 'x' where null is expected"),
        ("array", [], "", "an array of 0 items where the schema needs at least 1"),
        ("exclusive", {"a": 1, "b": 2}, "", "'a' cannot stand beside 'b'"),
        ("tree", {"a/b~c": [1, {"x": None}]}, "/a~1b~0c/1/x", "null where an object or an array"),
        ("told by a value", {"a": "text", "b": 1}, "/b", "does not fit the other values"),
        ("anything", {"a": "\ud800"}, "/a", "lone surrogate"),
        ("anything", 10**400, "", "an integer has at most 309 digits"),
        ("anything", {"a": {1, 2}}, "/a", "a set is not a JSON value"),
        ("names", {"z": 1}, "", "a key may not be 'z'"),
    ],
)
def test_errors_name_the_place(name: str, value: Any, pointer: str, problem: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        GRAMMARS[name].write(value)
    assert caught.value.pointer == pointer
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_depth_is_limited() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    base = GRAMMARS["anything"].write(value)
    assert same(GRAMMARS["anything"].read(base)[0], value)
    with pytest.raises(TokenizerError, match="nested deeper than 128 levels"):
        GRAMMARS["anything"].write([value])
    for _ in range(2000):
        value = [value]
    with pytest.raises(TokenizerError, match="nested deeper"):
        GRAMMARS["anything"].write(value)


@pytest.mark.parametrize(
    "number", [0, -0.0, 1, 1.0, 1e16, 1.5e-7, 5e-324, 1.7e308 / 1.1, -1e22, 123456789.125, 2**70]
)
def test_numbers_keep_their_kind(number: float) -> None:
    grammar = GRAMMARS["anything"]
    again, _ = grammar.read(grammar.write(number))
    assert repr(again) == repr(number)


def test_ref_siblings_are_ignored_in_draft_7_and_count_since() -> None:
    schema = {"$ref": "#/definitions/text", "maxLength": 1, "definitions": {"text": {"type": "string"}}}
    older = {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
    assert Grammar.of(older).write("long")
    newer = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    for read_as_the_latest in (newer, schema):
        with pytest.raises(TokenizerError):
            Grammar.of(read_as_the_latest).write("long")


WORKFLOW = load_tokenizer()


@pytest.mark.parametrize(
    ("text", "pointer", "twice"),
    [
        ('{"on":"push","jobs":{"a":{"uses":"./b"},"a":{"uses":"./b"}}}', "/jobs", "a"),
        ('{"on":"push","jobs":{"a":{"uses":"./b","uses":"./b"}}}', "/jobs/a", "uses"),
        ('{"on":"push","on":"push","jobs":{"a":{"uses":"./b"}}}', "", "on"),
        ('{"env":{"X":{"y":1,"y":2}},"on":"push","jobs":{"a":{"uses":"./b"}}}', None, "y"),
    ],
)
def test_a_key_that_stands_twice_is_refused_where_it_stands(
    text: str, pointer: str | None, twice: str
) -> None:
    for _ in range(2):  # what was refused is not remembered as good
        with pytest.raises(TokenizerError) as refused:
            WORKFLOW.encode(text)
        if pointer is not None:
            assert refused.value.pointer == pointer
            assert refused.value.problem == f"the key {twice!r} stands twice in one object"


def test_a_tuple_is_not_a_value() -> None:
    with pytest.raises(TokenizerError, match="tuple"):
        WORKFLOW.encode_value((("on", "push"), ("jobs", {"a": {"uses": "./b"}})))
