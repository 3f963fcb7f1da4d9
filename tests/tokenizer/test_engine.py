"""The engine on documents of all kinds: what goes in comes out, and what is not JSON or not valid is refused."""

import ctypes
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from nanochat_tct.documents import to_json
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.engine import (
    ARRAY,
    ARRAY_END,
    DONE,
    END,
    MAX_DEPTH,
    NULL,
    OBJECT_END,
    Engine,
    Segmenter,
    grammar_numbers,
    library,
)
from nanochat_tct.tokenizer.errors import SchemaError
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tokenizer.vocabulary import save_vocabulary
from tests.support.grammars import ANY_TEXT, NAMED, NESTED
from tests.support.schemas import SCHEMAS, values

WORKFLOWS = [synthesize(index, seed=3) for index in range(150)]
NUMBERS_IN_A_JOB = {
    "runs-on": "x",
    "timeout-minutes": 1.5,
    "env": {"A": 1e21, "B": -0.25, "é": 12},
    "strategy": {"max-parallel": 3, "matrix": {"a": [1, 2.5, "x", [3, -4]]}},
    "steps": [{"run": "make\n", "timeout-minutes": 120}],
}
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
    "70 shapes": {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": f"k{i}"}, "x": {}}, "required": ["kind"]}
            for i in range(70)
        ]
    },
}
ALL_SCHEMAS = {**SCHEMAS, **MORE_SCHEMAS}


TOKENIZER: Any = load_tokenizer()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """For a schema: a vocabulary of parts of the base tokens of a few documents."""
    folder = tmp_path_factory.mktemp("vocabularies")

    @cache
    def made(name: str) -> Tokenizer:
        compiled = json.loads(json.dumps(compile_schema(ALL_SCHEMAS[name])[0]))
        save_vocabulary(folder / "plain.json", compiled, [])
        plain = Tokenizer(folder / "plain.json")
        choose = random.Random(name)
        tokens: set[str] = set()
        for value in [*EXAMPLES, *({"k1": 1, "k64": index, "k129": 2} for index in range(3))]:
            try:
                base = plain.write(value)
            except TokenizerError:
                continue
            for _ in range(20):
                start = choose.randrange(len(base))
                tokens.add(base[start : start + choose.randrange(2, 8)])
        path = folder / f"{len(list(folder.iterdir()))}.json"
        save_vocabulary(path, compiled, sorted(token for token in tokens if len(token) > 1))
        return Tokenizer(path)

    return made


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


def check_document(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text is taken; then it comes back as Python writes its value."""
    try:
        tokens = tokenizer.encode(text)
    except TokenizerError:
        return False
    expected = json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    assert tokenizer.decode(tokens) == (expected, len(tokens), len(tokens))
    assert tokens == tokenizer.encode_value(json.loads(text))
    return True


def check_decode(tokenizer: Tokenizer, tokens: list[int]) -> bool:
    """Whether the ids begin with a document, which then is encoded as they were cut, or otherwise."""
    try:
        text, consumed, total = tokenizer.decode(tokens)
    except TokenizerError:
        return False
    assert 0 < consumed <= total == len(tokens)
    base = tokenizer.segmenter.decode(tokens[:consumed])
    assert tokenizer.decode(tokenizer.encode(text))[0] == text
    assert (
        len(tokenizer.write(json.loads(text))) <= len(base) + 30
    )  # a number may have been spelled otherwise
    return True


def test_synthetic_workflows() -> None:
    for value in WORKFLOWS:
        text = to_json(value)
        assert check_document(TOKENIZER, text)
        assert check_document(TOKENIZER, json.dumps(value, indent="\t"))


@pytest.mark.parametrize("name", ALL_SCHEMAS)
def test_documents_of_other_grammars(name: str, tokenizers: Any) -> None:
    valid = sum(check_document(tokenizers(name), to_json(value)) for value in EXAMPLES)
    assert valid > 0 or name in ("many keys", "closed", "names", "70 shapes")


# The same examples for all grammars, as making one up takes longer than asking a grammar; the vocabularies are the
# same for all examples.
of_all_grammars = settings(max_examples=150)


@of_all_grammars
@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_any_document_of_other_grammars(
    tokenizers: Any, value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    for name in ALL_SCHEMAS:
        note(name)
        check_document(tokenizers(name), text)


@of_all_grammars
@given(st.lists(st.integers(0, 2**16 - 1), max_size=12))
def test_any_ids_of_other_grammars(tokenizers: Any, numbers: list[int]) -> None:
    for name in ALL_SCHEMAS:
        note(name)
        tokenizer = tokenizers(name)
        check_decode(tokenizer, [number % tokenizer.vocab_size() for number in numbers])


def test_required_keys_beyond_the_first_words_of_bits(tokenizers: Any) -> None:
    tokenizer = tokenizers("many keys")
    whole = {f"k{index}": index for index in range(130)}
    assert check_document(tokenizer, to_json(whole))
    for missing in ("k1", "k64", "k129"):
        assert not check_document(tokenizer, to_json({k: v for k, v in whole.items() if k != missing}))
    assert not check_document(tokenizer, '{"k1":1,"k64":1,"k129":1,"k64":1}')


@pytest.mark.parametrize("value", ['"x"', "1", "2.5", "true", "null"])
@pytest.mark.parametrize("kind", ["text", "count", "flag"])
def test_values_that_decide_between_alternatives(kind: str, value: str, tokenizers: Any) -> None:
    tokenizer = tokenizers("told by a value")
    valid = {"text": ['"x"'], "count": ["1", "2.5"], "flag": ["true"]}[kind]
    for text in (f'{{"a":"{kind}","b":{value}}}', f'{{"b":{value},"a":"{kind}"}}'):
        assert check_document(tokenizer, text) == (value in valid)
    tokens = tokenizer.segmenter.encode(tokenizer.write({"a": kind, "b": json.loads(valid[0])}))
    other = tokenizer.segmenter.encode(tokenizer.write({"a": "text", "b": "x"}))
    base = tokenizer.segmenter.decode(tokens)[:2] + tokenizer.segmenter.decode(other)[2:]
    assert check_decode(tokenizer, list(map(ord, base))) == (kind == "text")


def test_a_known_key_is_no_free_key_in_ids(tokenizers: Any) -> None:
    tokenizer = tokenizers("open")
    for key in "ab":
        tokens = [ord(key), ord(END), ord(NULL), ord(OBJECT_END)]
        assert check_decode(tokenizer, tokens) == (key == "b")


@pytest.mark.parametrize("length", range(5))
def test_counts_of_items_and_keys(length: int, tokenizers: Any) -> None:
    for items in ([1] * length, ["a"] * length, [[]] * length, [1, "a"][:length]):
        check_document(tokenizers("arrays"), to_json(items))
    for keys in (["a1", "ab", "x", "y"], ["b", "c", "d", "e"]):
        value = {key: 1 if set(key) & {"a", "b"} else "t" for key in keys[:length]}
        assert check_document(tokenizers("counts"), to_json(value)) == (length in (2, 3))


NUMBERS = "0 -0 7 -12 1.0 1.50 -0.0 1e5 1E+2 1e-7 0.1e1 12.5e3 5e-324 1.6976931348623157e308 123456789012345678901234"
NUMBERS += (
    " 9007199254740993 0.1 100000000000000000.0 1e16 123456789.123456789012345 1e22 1e23 2.5E-5 9e15 1e-400"
)
NOT_NUMBERS = (
    "01 00.5 -01.5 01e1 1. .5 - +1 1e 1e+ 0x1 1_0 NaN Infinity -Infinity 1e999 -1e400 00 -01 1.e5 ١ nan inf ⁵"
)


@pytest.mark.parametrize("text", [*NUMBERS.split(), "9" * 309, "-" + "9" * 309, "0." + "1" * 300])
def test_numbers_are_written_as_python_writes_them(text: str, tokenizers: Any) -> None:
    assert check_document(tokenizers("anything"), text)
    assert check_document(tokenizers("anything"), f" [{text} ,\n{text}]\r")
    check_document(tokenizers("numbers"), text)


@pytest.mark.parametrize("text", [*NOT_NUMBERS.split(), "9" * 310, "9" * 5000, ""])
def test_what_is_no_number(text: str, tokenizers: Any) -> None:
    assert not check_document(tokenizers("anything"), text)
    assert not check_document(tokenizers("anything"), f"[{text}]" if text else "[1,]")


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


@pytest.mark.parametrize("text", TEXTS)
def test_escapes_and_any_unicode(text: str, tokenizers: Any) -> None:
    for name in ("anything", "text"):
        assert check_document(tokenizers(name), text)
    assert check_document(tokenizers("anything"), f"{{{text}:[{text}]}}")


@pytest.mark.parametrize("text", NOT_TEXTS)
def test_what_is_no_text(text: str, tokenizers: Any) -> None:
    for name in ("anything", "text"):
        assert not check_document(tokenizers(name), text)
    assert not check_document(tokenizers("anything"), f"{{{text}:1}}")


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
    assert not check_document(tokenizers("anything"), text)


def test_space_between_anything(tokenizers: Any) -> None:
    assert check_document(tokenizers("anything"), ' \t\n\r{ "a" : [ 1 , { } , [ ] ] , "b" : null }\n')
    assert not check_document(tokenizers("anything"), "\x0b1")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth(opening: str, tokenizers: Any) -> None:
    closing = "]" if opening == "[" else "}"
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 100_000):
        text = opening * depth + "1" + closing * depth
        assert check_document(tokenizers("anything"), text) == (depth <= MAX_DEPTH)
        assert not check_document(tokenizers("anything"), opening * depth)
    tokenizer = tokenizers("anything")
    tokens = tokenizer.encode("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    array, array_end = [ord(ARRAY)], [ord(ARRAY_END)]
    assert check_decode(tokenizer, tokens)
    assert not check_decode(tokenizer, array * (MAX_DEPTH + 1) + array_end * (MAX_DEPTH + 1))
    assert not check_decode(tokenizer, array * 200_000)


def test_keys_that_stand_twice(tokenizers: Any) -> None:
    tokenizer = tokenizers("anything")
    assert not check_document(tokenizer, r'{"a":1,"\u0061":2}')
    assert check_document(tokenizer, '{"a":{"a":1},"b":{"a":1}}')  # not in one object
    assert check_document(tokenizer, '{"":1,"\\u0000":2}')
    assert not check_document(tokenizers("closed"), '{"a":1,"b":"x","a":1}')
    many = {f"key {index}": index for index in range(1024)}
    assert check_document(tokenizer, to_json(many))
    assert not check_document(tokenizer, to_json(many)[:-1] + ',"key 7":1}')


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_changed_texts(choose: random.Random) -> None:
    text = to_json(choose.choice(WORKFLOWS))
    for _ in range(choose.randrange(3)):
        start = choose.randrange(len(text))
        piece = choose.choice(
            ['"', "\\", "{", "}", "[", "]", ",", ":", "0", "\x00", "\ud800", "é", "null", " "]
        )
        text = text[:start] + piece + text[start + choose.randrange(3) :]
    check_document(TOKENIZER, text)
    check_document(TOKENIZER, text[: choose.randrange(len(text))])


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.booleans())
def test_changed_ids(choose: random.Random, as_tuple: bool) -> None:
    tokens, other = (TOKENIZER.encode_value(choose.choice(WORKFLOWS)) for _ in range(2))
    check_decode(
        TOKENIZER, tokens[: choose.randrange(len(tokens) + 1)] + other[choose.randrange(len(other)) :]
    )
    tokens[choose.randrange(len(tokens))] = choose.choice(
        [choose.randrange(8192), *range(250, 270), 8192, -1]
    )
    check_decode(TOKENIZER, tuple(tokens) if as_tuple else tokens)


@given(st.lists(st.integers(-3, 8195) | st.integers(), max_size=20))
@settings(max_examples=200)
def test_any_ids(tokens: list[int]) -> None:
    check_decode(TOKENIZER, tokens)


def test_surplus_ids_are_left_over_and_a_token_over_the_end_is_refused() -> None:
    text = to_json(WORKFLOWS[0])
    tokens = TOKENIZER.encode(text)
    assert TOKENIZER.decode([*tokens, 5, 256, 8191]) == (text, len(tokens), len(tokens) + 3)
    assert not check_decode(TOKENIZER, [*tokens, 5, 8192])
    beyond = [
        token
        for token in range(8192)
        if TOKENIZER.segmenter.expansions[token][:1] == TOKENIZER.segmenter.decode(tokens)[-1]
    ]
    reached = 0
    for token in beyond:
        reached += check_decode(
            TOKENIZER, [*TOKENIZER.segmenter.encode(TOKENIZER.segmenter.decode(tokens)[:-1]), token]
        )
    assert len(beyond) > 1 and reached == 1


def test_an_error_names_its_place() -> None:
    value = {"on": "push", "jobs": {"build": {"runs-on": "x", "steps": [{"run": "a"}, {"run": ["b"]}]}}}
    with pytest.raises(TokenizerError) as caught:
        TOKENIZER.encode(to_json(value))
    assert caught.value.pointer == "/jobs/build/steps/1/run"
    with pytest.raises(TokenizerError, match="cut off"):
        TOKENIZER.decode(TOKENIZER.encode(to_json(WORKFLOWS[0]))[:-1])


def test_numbers_of_any_length(tokenizers: Any) -> None:
    tokenizer = tokenizers("anything")
    assert tokenizer.decode(tokenizer.encode("0." + "1" * 1000))[0] == repr(float("0." + "1" * 1000))


def test_many_keys_of_any_name(tokenizers: Any) -> None:
    tokenizer = tokenizers("anything")
    text = to_json({f"key {index}": {"a": index} for index in range(30_000)})
    assert check_document(tokenizer, text)
    assert not check_document(tokenizer, text[:-1] + ',"key 7":1}')


def test_more_alternatives_than_a_word_has_bits(tokenizers: Any) -> None:
    for index in range(70):
        assert check_document(tokenizers("70 shapes"), f'{{"kind":"k{index}","x":1}}')
    assert not check_document(tokenizers("70 shapes"), '{"kind":"k70","x":1}')


@pytest.mark.parametrize("seed", range(20))
def test_longest_token_in_each_position(seed: int) -> None:
    """Also where a search comes back from far ahead."""
    choose = random.Random(seed)
    alphabet = "aab" if seed % 2 else "abcdé"
    bytes_of = lambda text: text.encode().decode("latin-1")  # noqa: E731
    tokens = {bytes_of("".join(choose.choices(alphabet, k=choose.randrange(2, 9)))) for _ in range(40)}
    tokens |= {token + END for token in list(tokens)[:5]}
    several = sorted(token for token in tokens if len(token) > 1)
    engine = Engine(compile_schema({"type": "string"})[0], several)
    for _ in range(50):
        text = "".join(choose.choices(alphabet, k=choose.randrange(40)))
        expected = engine.segmenter.encode(bytes_of(text) + END)
        assert engine.encode(json.dumps(text).encode()) == expected
        assert engine.segmenter.decode(expected) == bytes_of(text) + END


@pytest.mark.parametrize("grammar", [NAMED, NESTED, compile_schema(ALL_SCHEMAS["counts"])[0]])
def test_numbers_that_are_no_grammar(grammar: Any) -> None:
    """Whatever a caller gives, the engine refuses it or works."""
    numbers = grammar_numbers(grammar)
    segmenter = Segmenter([*map(chr, range(266 + len(grammar["literals"])))], has_strings=True)
    problem = ctypes.c_int()
    choose = random.Random(0)
    refused = 0
    for round_number in range(500):
        changed = numbers[: choose.randrange(len(numbers))] if round_number % 5 == 0 else numbers[:]
        if round_number % 5:
            place = choose.randrange(len(changed)) if round_number % 2 else choose.randrange(40)
            changed[place] = choose.choice([0, 1, 300, 2**32, 2**63, choose.randrange(20)])
        engine = library().engine_new(changed.tobytes(), len(changed), segmenter.trie, ctypes.byref(problem))
        refused += not engine
        if engine:
            library().engine_free(engine)
    assert refused > 150


# ---- automata that call one another, names and strict mode (format 2) ----


def is_nested(text: str) -> bool:
    """By recursive descent, what the automata of NESTED spell: limits included."""
    place = 0
    longest = 0

    def operand(depth: int) -> bool:
        nonlocal place, longest
        if depth > 4:
            return False
        while True:
            start = place
            if text[place : place + 1] == "(":
                place += 1
                if not operand(depth + 1) or text[place : place + 1] != ")":
                    return False
                place += 1
            elif text[place : place + 1] == "!":
                if not negated(depth + 1):
                    return False
            elif not letters():
                return False
            if depth == 1:
                longest = max(
                    longest,
                    place - start - (text[start] == "(") - (text[place - 1] == ")" and text[start] == "("),
                )
            if text[place : place + 1] != "+":
                return True
            place += 1

    def letters() -> bool:
        nonlocal place
        start = place
        while text[place : place + 1] == "x":
            place += 1
        return place > start

    def negated(depth: int) -> bool:
        nonlocal place
        if depth > 4 or text[place : place + 1] != "!":
            return False
        place += 1
        return negated(depth + 1) if text[place : place + 1] == "!" else letters()

    return operand(1) and place == len(text) and longest <= 12


def test_calls_nest_up_to_their_limits() -> None:
    engine = Engine(NESTED)
    choose = random.Random(0)
    valid = 0
    for _ in range(20_000):
        text = "".join(choose.choices("x(!)+", weights=(4, 2, 1, 2, 1), k=choose.randrange(1, 15)))
        assert bool(engine.write(json.dumps(text).encode())[0]) == is_nested(text), text
        valid += is_nested(text)
    assert valid > 500


def test_masks_and_completions_inside_calls() -> None:
    choose = random.Random(1)
    tokens = sorted({"".join(choose.choices("x(!)+" + END, k=choose.randrange(2, 6))) for _ in range(200)})
    engine = Engine(NESTED, tokens)
    check_walks(engine, choose, walks=60, is_strict=False)


def check_walks(engine: Engine, choose: random.Random, walks: int, is_strict: bool) -> list[str]:
    """Every mask is that of trying all tokens, and every position can be completed; the documents of random walks."""
    documents = []
    for _ in range(walks):
        matcher = engine.matcher(is_strict)
        written = ""
        for _ in range(choose.randrange(1, 40)):
            legal = matcher.legal()
            expected = [matcher.advance_token(token, is_trial=True) for token in range(len(legal))]
            assert legal.tolist() == expected, (written, matcher.frames())
            token = choose.choice([token for token, is_legal in enumerate(expected) if is_legal])
            assert matcher.advance_token(token)
            written += engine.segmenter.expansions[token]
            if matcher.is_complete:
                break
        written += matcher.complete()
        if not matcher.is_complete:
            assert matcher.advance(matcher.complete()) and matcher.is_complete
        result, text, _ = engine.read(written, checks_graph=is_strict)
        assert result == DONE
        documents.append(text)
    return documents


def named_problems(jobs: dict[str, Any], is_strict: bool) -> bool:
    """Whether something is wrong with the names of a document under NAMED."""
    ids: list[str] = [job["id"] for job in jobs.values() if "id" in job]
    if len(set(ids)) < len(ids):
        return True
    seen: dict[str, Any] = {}
    for name, job in jobs.items():
        needed: list[str] = []
        for key, value in job.items():
            if key == "needs":
                if is_strict and (not set(value) <= set(seen) or len(set(value)) < len(value)):
                    return True
                needed = value
            if key == "text" and value and is_strict:
                other, output = value[1:].split(".")
                if other not in needed or output not in {"-": "", **seen[other].get("out", {})}:
                    return True
        seen[name] = job
    left = {name: set(job.get("needs", [])) for name, job in jobs.items()}
    if not all(needs <= set(jobs) for needs in left.values()):
        return True
    while ready := [name for name, needs in left.items() if not needs & set(left)]:
        for name in ready:
            del left[name]
    return bool(left)


def made_up_jobs(choose: random.Random) -> dict[str, Any]:
    jobs: dict[str, Any] = {}
    for name in choose.sample(["a", "b", "c", "ab", "ba"], choose.randrange(1, 4)):
        job: dict[str, Any] = {}
        for key in choose.sample(["id", "needs", "out", "text"], choose.randrange(5)):
            word = choose.choice(["a", "b", "c", "ab"])
            job[key] = {
                "id": word,
                "needs": [choose.choice([*jobs, "a", "b"]) for _ in range(choose.randrange(3))],
                "out": {word: ""},
                "text": choose.choice(["", f"${choose.choice('abc')}.{choose.choice([word, '-'])}"]),
            }[key]
        jobs[name] = job
    return jobs


def test_names_of_documents() -> None:
    engine = Engine(NAMED)
    choose = random.Random(2)
    counts = {True: 0, False: 0}
    for _ in range(6000):
        jobs = made_up_jobs(choose)
        text = to_json(jobs).encode()
        accepted, base = engine.write(text)
        assert bool(accepted) == (not named_problems(jobs, is_strict=False)), jobs
        if accepted:
            assert engine.read(base)[1].encode() == text
            is_fine = not named_problems(jobs, is_strict=True)
            assert engine.matcher(is_strict=True).advance(base) == is_fine, jobs
            counts[is_fine] += 1
    assert min(counts.values()) > 100


@pytest.mark.parametrize("value", [*WORKFLOWS[:20], {"on": "push", "jobs": {"a": NUMBERS_IN_A_JOB}}])
def test_the_rest_of_a_document_is_read_behind_a_matcher(value: Any) -> None:
    engine = load_tokenizer().engine  # type: ignore[attr-defined]
    base = load_tokenizer().write(value)  # type: ignore[attr-defined]
    cuts = [cut for cut, character in enumerate(base) if character > END]
    assert len(cuts) > 5
    for cut in cuts:
        matcher = engine.matcher()
        assert matcher.advance(base[:cut])
        (_, before, _), (result, rest, consumed) = (
            engine.read(base[:cut]),
            engine.read(base[cut:], True, matcher),
        )
        assert (before + rest, result, consumed) == (to_json(value), DONE, len(base) - cut)
        result, rest, consumed = engine.read(base[cut:-1], True, matcher)  # and the matcher stays where it is
        assert (before + rest, consumed) == (engine.read(base[:-1])[1], len(base) - 1 - cut)


@pytest.mark.parametrize("is_strict", [False, True])
def test_masks_with_names(is_strict: bool) -> None:
    choose = random.Random(3)
    plain = Engine(NAMED)
    pieces = set()
    while len(pieces) < 150:
        _, base = plain.write(to_json(made_up_jobs(choose)).encode())
        start = choose.randrange(len(base) + 1)
        pieces.add(base[start : start + choose.randrange(2, 8)])
    engine = Engine(NAMED, sorted(piece for piece in pieces if len(piece) > 1))
    for text in check_walks(engine, choose, walks=80, is_strict=is_strict):
        assert not is_strict or not named_problems(json.loads(text), is_strict), text


def test_keys_that_differ_in_case_only_are_one() -> None:
    engine = Engine(
        {
            **NESTED,
            "ignore_key_case": True,
            "automata": [ANY_TEXT],
            "literals": ["Key"],
            "nodes": [
                {
                    "alternatives": [["object", [], 0, None]],
                    "known": {"Key": [1, [1]]},
                    "patterns": [],
                    "free": {"0": [1, [1]]},
                },
                {"alternatives": [["null"]]},
            ],
        },
        ["Ke", f"KEY{END}", f"a{END}{NULL}A", f"a{END}{NULL}A{END}", f"{NULL}ke", f"ey{END}"],
    )
    for text, valid in (
        ('{"Key":null,"other":null}', True),
        ('{"KEY":null,"other":null}', True),
        ('{"Key":null,"KEY":null}', False),
        ('{"kEY":null,"Key":null}', False),
        ('{"a":null,"b":null,"A":null}', False),
    ):
        assert bool(engine.write(text.encode())[0]) == valid, text
    check_walks(engine, random.Random(4), walks=60, is_strict=False)


def test_deep_and_long_expressions_take_time_in_proportion() -> None:
    engine = Engine({**NESTED, "max_call_depth": 50, "max_call_units": 21_000})
    assert engine.write(json.dumps("(" * 49 + "x" + ")" * 49).encode())[0]
    assert not engine.write(json.dumps("(" * 50 + "x" + ")" * 50).encode())[0]
    assert not engine.write(json.dumps("(" * 100_000).encode())[0]
    assert engine.write(json.dumps("+".join(["x"] * 200_000)).encode())[0]


def test_a_grammar_without_a_strict_document_is_refused() -> None:
    """A vocabulary file may say so; a strict matcher would have nothing to begin with."""
    grammar, _ = compile_schema({"type": "string"})
    (root,) = grammar["nodes"]
    root["lenient"] = list(range(len(root["alternatives"])))
    with pytest.raises(SchemaError, match="no finite value"):
        Engine(grammar)
