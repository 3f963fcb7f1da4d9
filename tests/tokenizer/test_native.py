"""The tokenizer's C code gives what its Python code gives, or leaves it to that."""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.documents import DocumentError, read_document, to_json
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import TokenizerError, native
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.grammar import ARRAY, ARRAY_END, END, MAX_DEPTH, NULL, OBJECT_END, Grammar
from nanochat_tct.tokenizer.segment import Segmenter
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tokenizer.vocabulary import BUILTIN, load_vocabulary, save_vocabulary
from tests.support.schemas import SCHEMAS, values

built = pytest.mark.skipif(bool(native.missing), reason=f"the C code is not built here: {native.missing}")
WORKFLOWS = [synthesize(index, seed=3) for index in range(150)]
MORE_SCHEMAS: dict[str, Any] = {
    "arrays": {
        "oneOf": [
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            {"type": "array", "items": {"type": ["string", "boolean"]}, "maxItems": 2},
            {"type": "array", "items": {"type": "array", "items": {"type": "null"}}, "minItems": 1},
        ]
    },
    "counts": {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}, "b": {"type": "number", "minimum": 0}},
        "additionalProperties": {"type": ["string", "null"]},
        "minProperties": 2,
        "maxProperties": 3,
    },
    "many keys": {
        "type": "object",
        "properties": {f"k{index}": {"type": "integer"} for index in range(130)} | {"a": {}, "b": {}},
        "required": ["k1", "k64", "k129"],
        "additionalProperties": False,
    },
    "numbers": {"type": ["number", "string"], "pattern": "^[0-9]", "minimum": -5, "exclusiveMaximum": 1e6},
    "text or member": {"anyOf": [{"enum": ["a", "ab", 'q"\\\n', "é"]}, {"type": "null"}]},
    "text": {"type": "string"},
}
ALL_SCHEMAS = {**SCHEMAS, **MORE_SCHEMAS}


def in_python(path: Path = BUILTIN) -> Tokenizer:
    tokenizer = Tokenizer(path)
    tokenizer.codec = None
    return tokenizer


QUICK, SLOW = Tokenizer(), in_python()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Tokenizer, Tokenizer]]:
    """For a schema, with and without C: a vocabulary of parts of the base tokens of a few documents."""
    folder = tmp_path_factory.mktemp("vocabularies")

    @cache
    def pair(name: str) -> tuple[Tokenizer, Tokenizer]:
        compiled = json.loads(json.dumps(compile_schema(ALL_SCHEMAS[name])[0]))
        grammar = Grammar(compiled)
        choose = random.Random(name)
        tokens: set[str] = set()
        for value in [*EXAMPLES, *({"k1": 1, "k64": index, "k129": 2} for index in range(3))]:
            try:
                base = grammar.write(value)
            except TokenizerError:
                continue
            for _ in range(20):
                start = choose.randrange(len(base))
                tokens.add(base[start : start + choose.randrange(2, 8)])
        path = folder / f"{len(list(folder.iterdir()))}.json"
        save_vocabulary(path, compiled, sorted(token for token in tokens if len(token) > 1))
        return Tokenizer(path), in_python(path)

    return pair


EXAMPLES: list[Any] = [
    *(None, True, 3, -2.5, "a", "ab", "cb", "é", 'q"\\\n', "12"),
    *([1, 2], [1, 2, 3], ["a", True], [[None], []], ["x"], []),
    {"a": 1},
    {"a": 1, "b": 2.5},
    {"a": 1, "b": "x", "c": None},
    {"b": True, "c": [1, {"d": ""}], "ab": 3},
    {"a": "text", "b": "x"},
    {"a": "count", "b": 1},
]


def outcome(work: Callable[[Any], Any], given: Any) -> Any:
    try:
        return work(given)
    except TokenizerError as error:
        return str(error)


def check_encode(quick: Tokenizer, slow: Tokenizer, text: str) -> list[int] | None:
    """The ids, which are the same from C and from Python, or None where both refuse the document."""
    assert quick.codec is not None
    expected, found = outcome(slow.encode, text), quick.codec.encode(text)
    assert outcome(quick.encode, text) == expected
    if isinstance(expected, str):
        assert found is None
        return None
    assert found == expected  # and not None: what is valid goes the quick way
    return found


def check_decode(quick: Tokenizer, slow: Tokenizer, tokens: Any) -> bool:
    """Whether the ids begin with a document; C and Python agree."""
    assert quick.codec is not None
    expected, found = outcome(slow.decode, tokens), quick.codec.decode(tokens)
    assert outcome(quick.decode, tokens) == expected
    assert found == (None if isinstance(expected, str) else expected)
    return found is not None


def check_document(quick: Tokenizer, slow: Tokenizer, text: str) -> bool:
    tokens = check_encode(quick, slow, text)
    if tokens is None:
        return False
    assert check_decode(quick, slow, tokens)
    return True


@built
def test_synthetic_workflows() -> None:
    for value in WORKFLOWS:
        text = to_json(value)
        assert check_document(QUICK, SLOW, text)
        assert check_document(QUICK, SLOW, json.dumps(value, indent="\t"))
        assert QUICK.codec is not None and QUICK.codec.decode(QUICK.codec.encode(text) or [])[0] == text  # type: ignore[index]


@built
def test_real_workflows(real_workflows: Any, invalid_corpus: Any) -> None:
    texts = real_workflows.column("text").to_pylist()
    valid = 0
    for text in texts + invalid_corpus.column("text").to_pylist():
        try:
            value = read_document(text)
        except DocumentError:
            continue
        valid += check_document(QUICK, SLOW, to_json(value))
    assert valid > 0.9 * len(texts)


@built
@pytest.mark.parametrize("name", ALL_SCHEMAS)
def test_documents_of_other_grammars(name: str, tokenizers: Any) -> None:
    quick, slow = tokenizers(name)
    assert quick.codec is not None
    valid = sum(check_document(quick, slow, to_json(value)) for value in EXAMPLES)
    assert valid > 0 or name in ("many keys", "closed", "names")

    @settings(max_examples=100, deadline=None, database=None)
    @given(values, st.booleans(), st.sampled_from([None, 1]))
    def one(value: Any, ascii_only: bool, indent: int | None) -> None:
        check_document(quick, slow, json.dumps(value, ensure_ascii=ascii_only, indent=indent))

    one()

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.lists(st.integers(0, quick.vocab_size() - 1), max_size=12))
    def any_ids(tokens: list[int]) -> None:
        check_decode(quick, slow, tokens)

    any_ids()


@built
def test_required_keys_beyond_the_first_words_of_bits(tokenizers: Any) -> None:
    quick, slow = tokenizers("many keys")
    whole = {f"k{index}": index for index in range(130)}
    assert check_document(quick, slow, to_json(whole))
    for missing in ("k1", "k64", "k129"):
        assert not check_document(quick, slow, to_json({k: v for k, v in whole.items() if k != missing}))
    assert not check_document(quick, slow, '{"k1":1,"k64":1,"k129":1,"k64":1}')


@built
@pytest.mark.parametrize("value", ['"x"', "1", "2.5", "true", "null"])
@pytest.mark.parametrize("kind", ["text", "count", "flag"])
def test_values_that_decide_between_alternatives(kind: str, value: str, tokenizers: Any) -> None:
    quick, slow = tokenizers("told by a value")
    valid = {"text": ['"x"'], "count": ["1", "2.5"], "flag": ["true"]}[kind]
    for text in (f'{{"a":"{kind}","b":{value}}}', f'{{"b":{value},"a":"{kind}"}}'):
        assert check_document(quick, slow, text) == (value in valid)
    tokens = quick.segmenter.encode(quick.grammar.write({"a": kind, "b": json.loads(valid[0])}))
    other = quick.segmenter.encode(quick.grammar.write({"a": "text", "b": "x"}))
    base = quick.segmenter.decode(tokens)[:2] + quick.segmenter.decode(other)[2:]
    assert check_decode(quick, slow, list(map(ord, base))) == (kind == "text")


@built
def test_a_known_key_is_no_free_key_in_ids(tokenizers: Any) -> None:
    quick, slow = tokenizers("open")
    for key in "ab":
        tokens = [ord(key), ord(END), ord(NULL), ord(OBJECT_END)]
        assert check_decode(quick, slow, tokens) == (key == "b")


@built
@pytest.mark.parametrize("length", range(5))
def test_counts_of_items_and_keys(length: int, tokenizers: Any) -> None:
    for items in ([1] * length, ["a"] * length, [[]] * length, [1, "a"][:length]):
        check_document(*tokenizers("arrays"), to_json(items))
    for keys in (["a1", "ab", "x", "y"], ["b", "c", "d", "e"]):
        value = {key: 1 if set(key) & {"a", "b"} else "t" for key in keys[:length]}
        assert check_document(*tokenizers("counts"), to_json(value)) == (length in (2, 3))


NUMBERS = "0 -0 7 -12 1.0 1.50 -0.0 1e5 1E+2 1e-7 0.1e1 12.5e3 5e-324 1.6976931348623157e308 123456789012345678901234"
NUMBERS += (
    " 9007199254740993 0.1 100000000000000000.0 1e16 123456789.123456789012345 1e22 1e23 2.5E-5 9e15 1e-400"
)
NOT_NUMBERS = (
    "01 00.5 -01.5 01e1 1. .5 - +1 1e 1e+ 0x1 1_0 NaN Infinity -Infinity 1e999 -1e400 00 -01 1.e5 ١ nan inf ⁵"
)


@built
@pytest.mark.parametrize("text", [*NUMBERS.split(), "9" * 309, "-" + "9" * 309, "0." + "1" * 300])
def test_numbers_are_written_as_python_writes_them(text: str, tokenizers: Any) -> None:
    assert check_document(*tokenizers("anything"), text)
    assert check_document(*tokenizers("anything"), f" [{text} ,\n{text}]\r")
    check_document(*tokenizers("numbers"), text)


@built
@pytest.mark.parametrize("text", [*NOT_NUMBERS.split(), "9" * 310, "9" * 5000, ""])
def test_what_is_no_number(text: str, tokenizers: Any) -> None:
    assert not check_document(*tokenizers("anything"), text)
    assert not check_document(*tokenizers("anything"), f"[{text}]" if text else "[1,]")


@built
def test_a_number_that_is_too_long_for_c_goes_the_way_in_python(tokenizers: Any) -> None:
    quick, slow = tokenizers("anything")
    text = "0." + "1" * 1000
    assert quick.codec.encode(text) is None
    assert quick.encode(text) == slow.encode(text)


TEXTS = [
    *(
        r'"\"\\\/\b\f\n\r\t"',
        r'"\u0000\u001f\u007f"',
        r'"\u00e9\u2713\u65e5"',
        r'"\ud83d\ude00"',
        '"😀é✓\x7f"',
    ),
    r'"\uD83D\uDE80\uffff"',
]
NOT_TEXTS = [
    *(
        r'"\ud83d"',
        r'"\ude00"',
        r'"\ud83d\ud83d"',
        r'"\ud83dx"',
        r'"\ud83d\n"',
        '"\ud83d"',
        r'"\u12"',
        r'"\u12g4"',
    ),
    *(
        '"\n"',
        '"\x00"',
        '"\x1f"',
        r'"\x41"',
        r'"\'"',
        '"',
        '"a',
        '"a\\',
        '"\\u',
        "'a'",
        '"a"b',
        '"\\ud83d\\u',
    ),
]


@built
@pytest.mark.parametrize("text", TEXTS)
def test_escapes_and_any_unicode(text: str, tokenizers: Any) -> None:
    for name in ("anything", "text"):
        assert check_document(*tokenizers(name), text)
    assert check_document(*tokenizers("anything"), f"{{{text}:[{text}]}}")


@built
@pytest.mark.parametrize("text", NOT_TEXTS)
def test_what_is_no_text(text: str, tokenizers: Any) -> None:
    for name in ("anything", "text"):
        assert not check_document(*tokenizers(name), text)
    assert not check_document(*tokenizers("anything"), f"{{{text}:1}}")


@built
@pytest.mark.parametrize(
    "text",
    [
        "[1,]",
        "[,1]",
        "{,}",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":1 "b":2}',
        "[1 2]",
        "nul",
        "nulll",
        "tru",
        "True",
        "[]]",
        "\ufeff1",
        "1\x00",
        "\x001",
        "/**/1",
        " ",
    ],
)
def test_what_is_no_json(text: str, tokenizers: Any) -> None:
    assert not check_document(*tokenizers("anything"), text)


@built
def test_space_between_anything(tokenizers: Any) -> None:
    assert check_document(*tokenizers("anything"), ' \t\n\r{ "a" : [ 1 , { } , [ ] ] , "b" : null }\n')
    assert not check_document(*tokenizers("anything"), "\x0b1")


@built
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth(opening: str, tokenizers: Any) -> None:
    closing = "]" if opening == "[" else "}"
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 100_000):
        text = opening * depth + "1" + closing * depth
        assert check_document(*tokenizers("anything"), text) == (depth <= MAX_DEPTH)
        assert not check_document(*tokenizers("anything"), opening * depth)
    quick, slow = tokenizers("anything")
    tokens = slow.encode("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    array, array_end = [ord(ARRAY)], [ord(ARRAY_END)]
    assert check_decode(quick, slow, tokens)
    assert not check_decode(quick, slow, array * (MAX_DEPTH + 1) + array_end * (MAX_DEPTH + 1))
    assert not check_decode(quick, slow, array * 200_000)


@built
def test_keys_that_stand_twice(tokenizers: Any) -> None:
    quick, slow = tokenizers("anything")
    assert not check_document(quick, slow, r'{"a":1,"\u0061":2}')
    assert check_document(quick, slow, '{"a":{"a":1},"b":{"a":1}}')  # not in one object
    assert check_document(quick, slow, '{"":1,"\\u0000":2}')
    assert not check_document(*tokenizers("closed"), '{"a":1,"b":"x","a":1}')
    many = {f"key {index}": index for index in range(1024)}
    assert check_document(quick, slow, to_json(many))
    assert not check_document(quick, slow, to_json(many)[:-1] + ',"key 7":1}')


@built
def test_more_keys_than_c_compares_go_the_way_in_python(tokenizers: Any) -> None:
    quick, slow = tokenizers("anything")
    text = to_json({f"key {index}": index for index in range(1025)})
    assert quick.codec.encode(text) is None
    tokens = quick.encode(text)
    assert tokens == slow.encode(text)
    assert quick.codec.decode(tokens) is None
    assert quick.decode(tokens) == (text, len(tokens), len(tokens))


@built
@settings(max_examples=300, deadline=None, database=None)
@given(st.randoms(use_true_random=False))
def test_changed_texts(choose: random.Random) -> None:
    text = to_json(choose.choice(WORKFLOWS))
    for _ in range(choose.randrange(3)):
        start = choose.randrange(len(text))
        piece = choose.choice(
            ['"', "\\", "{", "}", "[", "]", ",", ":", "0", "\x00", "\ud800", "é", "null", " "]
        )
        text = text[:start] + piece + text[start + choose.randrange(3) :]
    check_document(QUICK, SLOW, text)
    check_document(QUICK, SLOW, text[: choose.randrange(len(text))])


@built
@settings(max_examples=300, deadline=None, database=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_changed_ids(choose: random.Random, as_tuple: bool) -> None:
    tokens, other = (SLOW.encode_value(choose.choice(WORKFLOWS)) for _ in range(2))
    check_decode(
        QUICK, SLOW, tokens[: choose.randrange(len(tokens) + 1)] + other[choose.randrange(len(other)) :]
    )
    tokens[choose.randrange(len(tokens))] = choose.choice(
        [choose.randrange(8192), *range(250, 270), 8192, -1]
    )
    check_decode(QUICK, SLOW, tuple(tokens) if as_tuple else tokens)


@built
@given(st.lists(st.integers(-3, 8195) | st.integers(), max_size=20))
@settings(max_examples=200, deadline=None, database=None)
def test_any_ids(tokens: list[int]) -> None:
    check_decode(QUICK, SLOW, tokens)


@built
def test_surplus_ids_are_left_over_and_a_token_over_the_end_is_refused() -> None:
    text = to_json(WORKFLOWS[0])
    tokens = SLOW.encode(text)
    assert QUICK.codec is not None
    assert QUICK.codec.decode([*tokens, 5, 256, 8191]) == (text, len(tokens), len(tokens) + 3)
    assert not check_decode(QUICK, SLOW, [*tokens, 5, 8192])
    beyond = [
        token
        for token in range(8192)
        if QUICK.segmenter.expansions[token][:1] == QUICK.segmenter.decode(tokens)[-1]
    ]
    reached = 0
    for token in beyond:
        reached += check_decode(
            QUICK, SLOW, [*QUICK.segmenter.encode(QUICK.segmenter.decode(tokens)[:-1]), token]
        )
    assert len(beyond) > 1 and reached == 1


@built
def test_ids_that_are_not_a_list_of_ints() -> None:
    text = to_json(WORKFLOWS[0])
    tokens = SLOW.encode(text)
    assert QUICK.codec is not None
    assert QUICK.codec.decode(np.array(tokens)) is None
    assert QUICK.decode(np.array(tokens)) == (text, len(tokens), len(tokens))  # type: ignore[arg-type]
    assert QUICK.codec.decode([*tokens[:-1], float(tokens[-1])]) is None  # type: ignore[list-item]
    assert QUICK.codec.decode([*tokens, True]) == (text, len(tokens), len(tokens) + 1)
    for no_ids in (None, 3, b"{}", "{}"):
        assert QUICK.codec.decode(no_ids) is None  # type: ignore[arg-type]
    for no_text in (None, 3, b"{}", ["{}"]):
        assert QUICK.codec.encode(no_text) is None  # type: ignore[arg-type]


@built
def test_an_error_names_its_place() -> None:
    value = {"on": "push", "jobs": {"build": {"runs-on": "x", "steps": [{"run": "a"}, {"uses": 3}]}}}
    with pytest.raises(TokenizerError) as caught:
        QUICK.encode(to_json(value))
    assert caught.value.pointer == "/jobs/build/steps/1/uses"
    with pytest.raises(TokenizerError, match="cut off"):
        QUICK.decode(SLOW.encode(to_json(WORKFLOWS[0]))[:-1])


@built
@pytest.mark.parametrize("seed", range(30))
def test_longest_token_at_each_place(seed: int) -> None:
    """Also where a search comes back from far ahead."""
    choose = random.Random(seed)
    grammar = Grammar(json.loads(json.dumps(compile_schema({"type": "string"})[0])))
    alphabet = "aab" if seed % 2 else "abcdé"
    bytes_of = lambda text: text.encode().decode("latin-1")  # noqa: E731
    tokens = {bytes_of("".join(choose.choices(alphabet, k=choose.randrange(2, 9)))) for _ in range(40)}
    tokens |= {token + END for token in list(tokens)[:5]}
    segmenter = Segmenter(grammar.base_size, sorted(token for token in tokens if len(token) > 1))
    codec = native.make_codec(grammar, segmenter)
    assert codec is not None
    for _ in range(50):
        text = "".join(choose.choices(alphabet, k=choose.randrange(40)))
        expected = segmenter.encode(bytes_of(text) + END)
        assert codec.encode(json.dumps(text)) == expected
        assert codec.decode(expected) == (json.dumps(text, ensure_ascii=False), len(expected), len(expected))


@built
def test_a_grammar_that_is_too_large_goes_in_python(tmp_path: Path) -> None:
    schema = {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": f"k{i}"}, "x": {}}, "required": ["kind"]}
            for i in range(70)
        ]
    }
    compiled, _ = compile_schema(schema)
    save_vocabulary(tmp_path / "large.json", compiled, [])
    tokenizer = Tokenizer(tmp_path / "large.json")
    assert tokenizer.codec is None
    assert "larger than its C code takes" in native.why_in_python(tokenizer)
    tokens = tokenizer.encode('{"kind":"k69","x":1}')
    assert tokenizer.decode(tokens)[0] == '{"kind":"k69","x":1}'


@built
def test_a_packed_grammar_that_is_damaged() -> None:
    import nanochat_tct.tokenizer._native as module

    content, _ = load_vocabulary(BUILTIN)
    grammar = Grammar(content["grammar"])
    packed = native.pack_grammar(grammar, Segmenter(grammar.base_size, content["tokens"]))
    assert module.Codec(packed).encode(to_json(WORKFLOWS[0])) == SLOW.encode(to_json(WORKFLOWS[0]))
    choose = random.Random(0)
    for size in (0, 7, 8, *(choose.randrange(len(packed) - 7) for _ in range(60))):
        with pytest.raises(ValueError, match="not a grammar"):
            module.Codec(packed[:size])
    with pytest.raises(ValueError, match="not a grammar"):
        module.Codec(packed + bytes(8))
    for _ in range(200):
        offset = 8 * choose.randrange(len(packed) // 8)
        wrong = choose.choice([0, 1, 300, 2**32, 2**63]).to_bytes(8, "little")
        try:
            codec = module.Codec(packed[:offset] + wrong + packed[offset + 8 :])
        except ValueError:
            continue
        codec.encode(to_json(WORKFLOWS[0]))  # of another grammar: any result
        codec.decode(SLOW.encode(to_json(WORKFLOWS[0])))
    with pytest.raises(TypeError):
        module.Codec("text")  # type: ignore[arg-type]


def test_without_the_c_code_python_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_module", None)
    monkeypatch.setattr(native, "missing", "No module named '_native'")
    tokenizer = Tokenizer()
    text = to_json(WORKFLOWS[0])
    tokens = tokenizer.encode(text)
    assert tokenizer.codec is None
    assert tokenizer.decode(tokens) == (text, len(tokens), len(tokens))
    reason = native.why_in_python(tokenizer)
    assert "No module named" in reason and "install a C compiler" in reason
    assert native.why_in_python(object()) == ""  # the wheel
