import json
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct import tokenizer as functions
from nanochat_tct.documents import DocumentError, read_workflow
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer

TOKENIZER: Any = load_tokenizer()
SMALL = {
    "on": "push",
    "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": [{"uses": "actions/checkout@v4"}]}},
}
LARGE = {
    "name": "Ünïcode ✓ 日本語 🚀",
    "on": {
        "push": {"branches": ["main", "release/**"], "paths-ignore": ["docs/**"]},
        "pull_request": None,
        "schedule": [{"cron": "0 4 * * 1"}],
        "workflow_dispatch": {
            "inputs": {
                "level": {"type": "choice", "options": ["a", "b"], "default": "a"},
                "count": {"default": 1.0, "type": "number", "description": ""},
            }
        },
    },
    "env": {"EMPTY": "", "ONE": 1, "ONE_POINT": 1.0, "YES": True, "TEN": "3.10"},
    "permissions": "read-all",
    "jobs": {
        "test": {
            "strategy": {
                "matrix": {
                    "os": ["ubuntu-latest", "macos-14"],
                    "include": [{"x": {"deep": [[1], {"y": [None][:0]}]}}],
                }
            },
            "runs-on": "${{ matrix.os }}",
            "timeout-minutes": 12.5,
            "steps": [
                {"run": 'set -e\n\tif true; then\n  echo "$HOME"\nfi\n\n', "shell": "bash"},
                {"uses": "./local", "with": {"nothing": None}},
            ],
        },
        "call": {"needs": ["test"], "uses": "org/repo/.github/workflows/x.yml@main", "secrets": "inherit"},
    },
}


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_exactly_8192_ids_and_padding_never_in_a_document() -> None:
    assert functions.vocab_size() == 8192
    assert functions.pad_token() not in functions.encode(dump(LARGE))


def count_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(count_keys, value.values()))
    return sum(map(count_keys, value)) if isinstance(value, list) else 0


@pytest.mark.parametrize("value", [SMALL, LARGE])
def test_round_trip_keeps_values_and_key_order(value: Any) -> None:
    tokens = functions.encode(dump(value))
    assert functions.decode(tokens) == (dump(value), len(tokens), len(tokens))
    assert functions.decode([*tokens, 5, 6]) == (dump(value), len(tokens), len(tokens) + 2)
    assert TOKENIZER.encode_value(value) == tokens
    assert all(0 <= token < 8192 for token in tokens)


def test_a_common_step_costs_few_tokens() -> None:
    assert len(TOKENIZER.encode_value(SMALL)) <= 8


def test_the_six_functions_of_the_wheel() -> None:
    tokens = functions.encode(dump(LARGE))
    assert functions.extract_window(tokens, 3, 7) == [3, *tokens[3:7]]
    with pytest.raises(TokenizerError, match="no window"):
        functions.extract_window(tokens, 3, len(tokens) + 1)
    assert functions.decode_prefix(tokens) == (dump(LARGE), count_keys(LARGE), True)
    assert functions.decode_prefix([])[0] == '{"on":"branch_protection_rule","jobs":{"a":{"runs-on":true}}}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": {"build": {}}}, "/jobs/build: missing one of 'runs-on', 'uses'"),
        ({"jobs": {"build": {"steps": []}}}, "/jobs/build: missing 'runs-on'"),
        ({"jobs": {"1st": {"runs-on": "x"}}}, "/jobs/1st: '1st' cannot be the id of a job"),
        ({"jobs": {}}, "/jobs: the mapping is empty: a key is missing"),
        ({"on": "pusj"}, "/on: 'pusj' is not among what is allowed here; did you mean 'push'?"),
        ({"on": {"schedule": [{"cron": "61 * * * *"}]}}, "/on/schedule/0/cron: "),
        (
            {"jobs": {"b": {"runs-on": "x", "steps": [{"uses": "a", "run": "b"}]}}},
            "/jobs/b/steps/0/uses: 'uses' cannot stand beside 'run'",
        ),
        (
            {"jobs": {"b": {"runs-on": "x", "steps": [{"uses": "a", "shell": "b"}]}}},
            "/jobs/b/steps/0/shell: 'shell' cannot stand beside 'uses'",
        ),
        ({"nmae": "x"}, "/nmae: unknown key 'nmae'; did you mean 'name'?"),
        (
            {"jobs": {"b": {"runs-on": "x", "timeout-minutes": "5"}}},
            "/jobs/b/timeout-minutes: '5' does not have the form",
        ),
    ],
)
def test_values_outside_the_schema_are_refused_with_the_pointer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        functions.encode(dump({**SMALL, **change}))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nul", '{"on":"push","on":"push","jobs":{}}', "[" * 100_000, '{"on":NaN}', "1e999", "9" * 5000],
)
def test_what_is_not_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        functions.encode(text)
    assert "\n" not in str(caught.value)


def test_decode_names_what_is_wrong() -> None:
    tokens = functions.encode(dump(SMALL))
    with pytest.raises(TokenizerError, match="cut off"):
        functions.decode(tokens[:-1])
    with pytest.raises(TokenizerError, match="token 1 is 8192"):
        functions.decode([tokens[0], 8192])
    with pytest.raises(TokenizerError, match="token 0 is -1"):
        functions.decode_prefix([-1])
    with pytest.raises(TokenizerError):
        functions.decode([functions.pad_token()])
    with pytest.raises(TokenizerError, match="ends after"):
        TOKENIZER.decode_value([*tokens, 0])


def test_every_prefix_is_completed_to_a_valid_document_that_keeps_it() -> None:
    tokens = TOKENIZER.encode_value(LARGE)
    seen = 0
    for cut in range(len(tokens) + 1):
        completed, fields, is_complete = functions.decode_prefix(tokens[:cut])
        assert is_complete == (cut == len(tokens))
        assert fields >= seen
        seen = fields
        assert functions.encode(completed)
        kept = TOKENIZER.segmenter.decode(tokens[:cut])
        while kept and TOKENIZER.write(json.loads(completed))[: len(kept)] != kept:
            assert "\x80" <= kept[-1] <= "\xff"  # only a character cut in two may be left out
            kept = kept[:-1]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 8191), max_size=40))
def test_any_ids_decode_or_are_refused(tokens: list[int]) -> None:
    completed, _, is_complete = functions.decode_prefix(tokens)
    assert functions.encode(completed)
    try:
        text, consumed, total = functions.decode(tokens)
    except TokenizerError as error:
        assert not is_complete and "\n" not in str(error)
    else:
        assert (text, total) == (completed, len(tokens)) and consumed <= total and is_complete


def test_cursor_allows_what_documents_have_and_stops_at_the_end() -> None:
    tokens = TOKENIZER.encode_value(LARGE)
    matcher = TOKENIZER.matcher()
    for token in tokens:
        assert not matcher.is_complete
        assert matcher.allows(token)
        assert (
            not matcher.allows(8192) and not matcher.allows(-1) and not matcher.allows(TOKENIZER.pad_token())
        )
        matcher.advance(token)
    assert matcher.is_complete and not matcher.allows(tokens[0])
    with pytest.raises(TokenizerError):
        matcher.advance(tokens[0])


def test_a_prompt_is_kept_and_left_open() -> None:
    tokens = TOKENIZER.encode_prefix({"name": "CI", "on": "push", "jobs": {"build": {"runs-on": "ubuntu"}}})
    completed = json.loads(functions.decode_prefix(tokens)[0])
    assert completed == {"name": "CI", "on": "push", "jobs": {"build": {"runs-on": "ubuntu"}}}
    matcher = TOKENIZER.matcher()
    for token in tokens:
        matcher.advance(token)
    assert matcher.allows(ord("-"))  # ubuntu-...
    closed = TOKENIZER.encode_prefix({"on": "push", "jobs": {"b": {"runs-on": "x"}}}, open_scalar=False)
    matcher = TOKENIZER.matcher()
    for token in closed:
        matcher.advance(token)
    assert not matcher.allows(ord("-"))
    waiting = TOKENIZER.encode_prefix({"on": "push", "jobs": {"b": {"runs-on": "x", "steps": None}}})
    assert "steps" in json.loads(functions.decode_prefix(waiting)[0])["jobs"]["b"]
    assert TOKENIZER.encode_prefix(None) == []


def test_a_matcher_begins_behind_the_first_tokens_of_a_document() -> None:
    tokens = TOKENIZER.encode_value(LARGE)
    matcher = TOKENIZER.matcher()
    for count, token in enumerate(tokens):
        behind = TOKENIZER.matcher(tokens[:count])
        assert (behind.legal() == matcher.legal()).all()
        assert behind.closing() == matcher.closing()
        matcher.advance(token)
    assert TOKENIZER.matcher(tokens).is_complete
    for illegal in ([*tokens[:5], TOKENIZER.pad_token()], [*tokens, tokens[-1]], [TOKENIZER.vocab_size()]):
        with pytest.raises(TokenizerError, match=f"has the token {illegal[-1]} at this place"):
            TOKENIZER.matcher(illegal)


def test_healing_gives_back_the_tokens_that_documents_have() -> None:
    """Cut a document's text anywhere: what stays of the prefix's tokens are the document's own first tokens."""
    tokens = TOKENIZER.encode_value(LARGE)
    base = TOKENIZER.segmenter.decode(tokens)
    taken_back = 0
    for cut in range(1, len(base)):
        prefix = TOKENIZER.segmenter.encode(base[:cut])
        kept, rest = TOKENIZER.heal(prefix)
        taken_back += len(prefix) - len(kept)
        assert kept == tokens[: len(kept)]
        assert TOKENIZER.segmenter.decode(kept) + rest == base[:cut]
        matcher = TOKENIZER.matcher()
        for token in kept:
            matcher.advance(token)
        matcher.expect(rest)
        for token in tokens[len(kept) :]:  # the document's own tokens stay legal
            assert matcher.allows(token)
            matcher.advance(token)
        assert matcher.is_complete
    assert taken_back > 100


def test_what_is_expected_cannot_be_left() -> None:
    kept, rest = TOKENIZER.heal(TOKENIZER.encode_prefix({"name": "CI", "on": "pu" + "sh"}, open_scalar=False))
    matcher = TOKENIZER.matcher()
    for token in kept:
        matcher.advance(token)
    matcher.expect(rest)
    written = TOKENIZER.segmenter.decode(kept)
    while len(written) < len(TOKENIZER.segmenter.decode(kept) + rest):
        legal = [token for token in range(8192) if matcher.allows(token)]
        matcher.advance(legal[-1])
        written += TOKENIZER.segmenter.expansions[legal[-1]]
    assert written.startswith(TOKENIZER.segmenter.decode(kept) + rest)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"on": "push", "jbos": {}}, ""),
        ({"on": "push", "jobs": {"b": {"runs-on": "x", "uses": "y"}}}, "/jobs/b"),
        ({"on": {"push": {"branchs": ["a"]}}}, "/on/push"),
        ({"on": {"pusj": None}}, "/on"),
        ([], ""),
    ],
)
def test_a_prompt_that_cannot_become_valid_is_refused_with_the_place(value: Any, pointer: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        TOKENIZER.encode_prefix(value)
    assert caught.value.pointer.startswith(pointer)


def test_tokens_are_described_for_people() -> None:
    shown = "".join(TOKENIZER.describe(token) for token in TOKENIZER.encode_value(SMALL))
    assert "‹runs-on›" in shown and "actions/checkout@v4" in shown
    assert all(isinstance(TOKENIZER.describe(token), str) for token in range(8192))


def test_loads_again_without_making_anything_anew() -> None:
    assert load_tokenizer() is load_tokenizer("builtin")
    assert TOKENIZER.name == "builtin" and len(TOKENIZER.fingerprint) == 64


@pytest.mark.parametrize("number", [1.797e308, -sys.float_info.max, 1.7e308, 1e308, 5e-324, 2**1023, -0.0])
def test_every_finite_float_is_a_number(number: float) -> None:
    value = {**SMALL, "env": {"A": number}}
    assert json.dumps(TOKENIZER.decode_value(TOKENIZER.encode_value(value))) == json.dumps(value)


def test_real_workflows_come_back_equal_in_order_and_kind(real_workflows: Any) -> None:
    """Every document: equal back again, or refused with a pointer that exists in it; few cannot be read."""
    texts = real_workflows.column("text").to_pylist()
    unreadable = 0
    for text in texts:
        try:
            value = read_workflow(text, "yaml")
        except DocumentError:
            unreadable += 1
            continue
        try:
            tokens = TOKENIZER.encode_value(value)
        except TokenizerError as error:
            here = value
            for part in error.pointer.split("/")[1:]:
                here = (
                    here[int(part)]
                    if isinstance(here, list)
                    else here[part.replace("~1", "/").replace("~0", "~")]
                )
            continue
        assert json.dumps(TOKENIZER.decode_value(tokens)) == json.dumps(value)
    assert unreadable <= 0.004 * len(texts)


def test_accepts_just_what_the_workflow_schema_accepts(real_workflows: Any, invalid_corpus: Any) -> None:
    """Against check-jsonschema's own machinery, document by document."""
    from tests.support.schema import is_valid_workflow

    tokenizer: Any = load_tokenizer("builtin-1")  # whose language is that schema
    disagreements = []
    for text in real_workflows.column("text").to_pylist() + invalid_corpus.column("text").to_pylist():
        try:
            value = read_workflow(text, "yaml")
        except DocumentError:
            continue
        try:
            tokenizer.encode_value(value)
            accepted = True
        except TokenizerError:
            accepted = False
        if accepted != is_valid_workflow(value):
            disagreements.append(text[:200])
    assert disagreements == []


@pytest.mark.parametrize(
    ("count", "cuts"),
    [(60, 3), pytest.param(None, 20, marks=[pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)])],
)
def test_cuts_of_real_workflows_are_kept_and_completed(corpus: Any, count: int | None, cuts: int) -> None:
    choose = random.Random(0)
    segmenter = TOKENIZER.segmenter
    checked = 0
    texts = corpus.column("text").to_pylist()
    texts = texts if count is None else choose.sample(texts, count)
    for text in texts:
        try:
            tokens = TOKENIZER.encode_value(read_workflow(text, "yaml"))
        except (DocumentError, TokenizerError):
            continue
        for _ in range(cuts):
            kept = tokens[: choose.randrange(len(tokens))]
            completed, _, _ = functions.decode_prefix(kept)
            base = segmenter.decode(kept)
            # a character that is cut in two is left out: up to three bytes
            written = segmenter.decode(functions.encode(completed))
            assert written.startswith(base) or any(
                base[-back] > "\x7f" and written.startswith(base[:-back]) for back in (1, 2, 3)
            )
            checked += 1
    assert checked > 0.9 * cuts * len(texts)
