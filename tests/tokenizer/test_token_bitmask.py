"""TokenBitmask of legal tokens: against brute force over the vocabulary, and against real workflows."""

import contextlib
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from nanochat_tct.documents import read_workflow
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.engine import END, GENERATING, LENIENT, MAX_DEPTH, STRICT, Matcher
from nanochat_tct.tokenizer.errors import TokenizerError
from tests.support.grammars import Grammar
from tests.support.schemas import SCHEMAS, values

TOKENIZER: Any = load_tokenizer()


def made_up_tokens(grammar: Grammar, documents: list[str], choose: random.Random) -> list[str]:
    """Pieces of documents, cut and joined anywhere."""
    pieces = set()
    for text in documents:
        for _ in range(8):
            start = choose.randrange(len(text))
            pieces.add(text[start : start + choose.randint(2, 12)])
    several = sorted(pieces)
    pieces.update(choose.choice(several) + choose.choice(several) for _ in range(60))
    return sorted(piece for piece in pieces if len(piece) > 1)


@pytest.fixture(scope="module")
def some_values() -> list[Any]:
    found: list[Any] = []

    @settings(max_examples=80)
    @given(values)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_brute_force_over_the_vocabulary_of_small_schemas(name: str, some_values: list[Any]) -> None:
    grammar = Grammar.of(SCHEMAS[name])
    documents: list[str] = []
    for value in some_values:
        with contextlib.suppress(TokenizerError):
            documents.append(grammar.write(value))
    documents.append(grammar.after("").complete())
    choose = random.Random(0)
    grammar = Grammar.of(SCHEMAS[name], made_up_tokens(grammar, documents, choose))
    tokens = grammar.engine.segmenter.expansions
    for text in choose.sample(documents, min(12, len(documents))):
        matcher = grammar.engine.matcher()
        for base in text:
            found = matcher.legal()
            expected = np.array([matcher.allows(token) for token in tokens])
            assert (found == expected).all(), (text, [tokens[i] for i in np.flatnonzero(found != expected)])
            assert matcher.advance(base)
        assert matcher.is_complete and not matcher.legal().any()


def test_a_legal_token_leads_to_a_valid_document_and_an_illegal_one_to_none() -> None:
    """On random walks over the workflow grammar, token by token, from places no document needs to have."""
    choose = random.Random(0)
    checked = 0
    for _ in range(40):
        matcher = TOKENIZER.matcher()
        tokens: list[int] = []
        for _ in range(choose.randint(1, 40)):
            legal = np.flatnonzero(matcher.legal())
            illegal = np.flatnonzero(~matcher.legal())
            for token in choose.sample(illegal.tolist(), 20):
                assert not matcher.allows(token)
            for token in choose.sample(legal.tolist(), min(3, len(legal))):
                whole = [*tokens, token, *matcher.after(token).closing()]
                assert TOKENIZER.encode_value(TOKENIZER.decode_value(whole))
                checked += 1
            tokens.append(int(choose.choice(legal.tolist())))
            matcher.advance(tokens[-1])
            if matcher.is_complete:
                break
    assert checked > 500


def test_keys_of_any_name_come_once() -> None:
    """Also where one token writes a whole key that stood before, or the end of one."""
    texts = TOKENIZER.segmenter.expansions
    ends_key = [token for token, text in enumerate(texts) if text.startswith("version\u0101")]
    assert ends_key
    for before, again in ((["python-version"], False), (["node-version"], True)):
        with_keys = dict.fromkeys(before, "1")
        document = {
            "on": "push",
            "jobs": {"a": {"runs-on": "x", "steps": [{"uses": "a", "with": with_keys}]}},
        }
        matcher = TOKENIZER.matcher()
        for token in TOKENIZER.encode_prefix(document, open_scalar=False):
            matcher.advance(token)
        for byte in b"python-":
            matcher.advance(byte)
        assert [bool(matcher.legal()[token]) for token in ends_key] == [matcher.allows(t) for t in ends_key]
        assert any(matcher.legal()[token] for token in ends_key) == again


def test_ends_of_new_keys_are_legal_however_many_there_were() -> None:
    """One token may write the end of a key of any name: nothing that stands for other keys may be taken for it."""
    jobs = {f"job_{number:03}": {"name": "x", "runs-on": "x"} for number in range(30)}
    tokens = TOKENIZER.encode_value({"on": "push", "jobs": jobs})
    assert {"0\u0101", "1\u0101"} & {TOKENIZER.segmenter.expansions[token] for token in tokens}
    matcher = TOKENIZER.matcher()
    for token in tokens:
        assert matcher.legal()[token]
        matcher.advance(token)


def test_deep_nesting_ends_at_the_limit() -> None:
    tokenizer = load_tokenizer()
    matcher = tokenizer.matcher()
    value: Any = []
    for _ in range(MAX_DEPTH):
        value = [value]
    document = {
        "on": "push",
        "jobs": {"a": {"runs-on": "x", "strategy": {"matrix": {"include": [{"a": value}]}}}},
    }
    with pytest.raises(TokenizerError, match="deeper"):
        tokenizer.encode(json.dumps(document))
    opening = chr(260)
    for token in tokenizer.encode_prefix({"on": "push", "jobs": {"a": {"runs-on": "x"}}}, open_scalar=False):
        matcher.advance(token)
    prefix = {"on": "push", "jobs": {"a": {"runs-on": "x", "strategy": {"matrix": {"include": [{"a": []}]}}}}}
    matcher = tokenizer.matcher()
    for token in tokenizer.encode_prefix(prefix, open_scalar=False):
        matcher.advance(token)
    deep = 0
    while matcher.legal()[ord(opening)]:
        assert matcher.allows(ord(opening))
        matcher.advance(ord(opening))
        deep += 1
        assert deep < MAX_DEPTH
    assert not matcher.allows(ord(opening))
    assert deep > 100


def test_no_token_of_a_real_document_is_masked(corpus: Any) -> None:
    checked = 0
    for text in random.Random(0).sample(corpus.column("text").to_pylist(), 80):
        try:
            value = read_workflow(text, "yaml")
            TOKENIZER.encode_value(value)
        except UserError:
            continue
        checked += 1
        matcher = TOKENIZER.matcher()
        for token in TOKENIZER.encode_value(value):
            assert matcher.legal()[token]
            matcher.advance(token)
        assert matcher.is_complete
        assert not matcher.legal().any()
    assert checked > 60


def test_keys_of_many_letters_are_walked_without_recursion() -> None:
    grammar = Grammar.of(
        {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,200}$"}, "maxProperties": 1}
    )
    assert np.flatnonzero(grammar.after("a" * 200).legal()).tolist() == [ord(END)]


def masked_wrongly(matcher: Matcher, tokens: list[int]) -> list[str]:
    """Those of some tokens that are legal and masked, or illegal and not masked."""
    legal = matcher.legal()
    expansions = TOKENIZER.expansions
    return [
        expansions[token] for token in tokens if legal[token] != matcher.advance_token(token, is_trial=True)
    ]


@pytest.mark.parametrize("mode", [LENIENT, STRICT, GENERATING])
def test_a_mask_knows_the_names_of_its_own_document_only(mode: int) -> None:
    """What is remembered of one key, name or owner must not be taken for another one's."""
    head = '{"on":{"workflow_dispatch":{"inputs":{%s}}},"jobs":{"build":{"runs-on":"x","outputs":{"%s":"1"},'
    tail = '"steps":[{"id":"%s","run":"a"},{"env":{"%s":"${{ env.B }}"},"run":"${{ steps.%s.outcome }}"}]},'
    last = '"test":{"needs":"build","runs-on":"x","steps":[{"run":"${{ needs.build.outputs.%s }}"}]}}}'
    tokens = [token for token, text in enumerate(TOKENIZER.expansions) if "${{" in text or "}}" in text]
    tokens += random.Random(0).sample(range(TOKENIZER.vocab_size()), 100)
    for names in (("a", "(s)"), ("abc", "temurin"), ("a-1", "AWS_REGION"), ("ab", "A B")):
        name, key = names
        document = (head + tail + last) % (f'"{name}":{{}}', name, name, key, name, name)
        matcher = TOKENIZER.engine.matcher_in(mode)
        for token in TOKENIZER.encode(document.replace("${{ env.B }}", "b")):
            assert masked_wrongly(matcher, tokens) == []
            assert matcher.advance_token(token)


def test_what_is_expected_is_written_in_the_tokens_that_a_document_has() -> None:
    """A shorter token than the text has there is never seen in training, so no probability of it means anything."""
    tokens = TOKENIZER.encode_value(
        {"on": "push", "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": [{"run": "make\n"}] * 2}}}
    )
    for index in range(len(tokens) - 1):
        text, following = (TOKENIZER.expansions[token] for token in tokens[index : index + 2])
        matcher = TOKENIZER.matcher()
        for token in tokens[:index]:
            matcher.advance(token)
        possible = np.flatnonzero(matcher.legal())
        matcher.expect(text + following[:1])
        reaching = [
            token for token in possible if TOKENIZER.expansions[token].startswith(text + following[:1])
        ]
        assert matcher.unfinished() == [tokens[index]]
        assert sorted(np.flatnonzero(matcher.legal())) == sorted([tokens[index], *reaching])
        matcher.advance(tokens[index])
        assert matcher.unfinished() == []
        assert all(TOKENIZER.expansions[t].startswith(following[:1]) for t in np.flatnonzero(matcher.legal()))
