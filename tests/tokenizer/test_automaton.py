import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_tct.tokenizer import automaton
from nanochat_tct.tokenizer.errors import SchemaError

# (ECMA-262 pattern, the same as a Python pattern): JavaScript's "." stops at four line ends, its "$" only at the end
DOT = "[^\n\r\u2028\u2029]"
PATTERNS = [
    (r"^\$\{\{(.|[\r\n])*\}\}$", rf"\A\$\{{\{{({DOT}|[\r\n])*\}}\}}\Z"),
    (r"^.*\$\{\{(.|[\r\n])*\}\}.*$", rf"\A{DOT}*\$\{{\{{({DOT}|[\r\n])*\}}\}}{DOT}*\Z"),
    (r"^[_a-zA-Z][a-zA-Z0-9_-]*$", r"\A[_a-zA-Z][a-zA-Z0-9_-]*\Z"),
    (r"^(.+\/)+(.+)\.(ya?ml)(@.+)?$", rf"\A({DOT}+/)+({DOT}+)\.(ya?ml)(@{DOT}+)?\Z"),
    (r"^\d+(\.\d+|\*)?$", r"\A[0-9]+(\.[0-9]+|\*)?\Z"),
    (r"[^a-c]x|y$", r"[^a-c]x|y\Z"),
    (r"a{2,3}b?", r"a{2,3}b?"),
    (r"(?:ab|c)+?\s", r"(?:ab|c)+?\s"),
    (r"^\ud83d\ude00+a?$", "\\A\U0001f600+a?\\Z"),
    (r"[\ud83d\ude00x]$", "[\U0001f600x]\\Z"),
    (r"[^\ud83c\udf00-\uD83D\uDEFF]$", "[^\U0001f300-\U0001f6ff]\\Z"),
    (r"\cJ\p{Lowercase_Letter}|^\p{digit}$", "\n[abcxyéml]|\\A1\\Z"),
]
PIECES = [
    "$",
    "{",
    "}",
    "a",
    "b",
    "c",
    "x",
    "y",
    "/",
    ".",
    "yml",
    "yaml",
    "@",
    "\n",
    "\r",
    "\u2028",
    "é",
    "1",
    "*",
    "_",
    "-",
    "😀",
    " ",
]


@pytest.mark.parametrize(("pattern", "python"), PATTERNS)
def test_patterns_accept_what_the_regular_expression_finds(pattern: str, python: str) -> None:
    compiled = automaton.from_pattern(pattern)
    choose = random.Random(pattern)
    found = 0
    for _ in range(4000):
        text = "".join(choose.choices(PIECES, k=choose.randrange(9)))
        if choose.random() < 0.3:
            text = "${{" + text + "}}"
        expected = re.search(python, text) is not None
        found += expected
        assert compiled.accepts(text.encode()) == expected, text
    assert 0 < found < 4000  # both answers occurred


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?=a)b",
        r"(a)\1",
        r"\bword",
        "a)",
        "(a",
        "[a",
        "*a",
        "(?<a",
        "[a-",
        "\\u{41",
        "\\u{110000}",
        "\\p{Xyz}",
        "\\ud83d",
        "[\\ud800-\\udbff][\\udc00-\\udfff]",
        "a{2,1}",
        "(" * 3000,
    ],
)
def test_what_cannot_be_compiled_is_named(pattern: str) -> None:
    with pytest.raises(SchemaError, match="cannot be compiled"):
        automaton.from_pattern(pattern)


@given(st.text())
def test_any_string_is_all_of_unicode(text: str) -> None:
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        return
    assert automaton.ANY_STRING.accepts(encoded)


@given(st.binary(max_size=6))
def test_any_string_is_nothing_but_utf8(data: bytes) -> None:
    try:
        data.decode("utf-8")
        expected = True
    except UnicodeDecodeError:
        expected = False
    assert automaton.ANY_STRING.accepts(data) == expected


@given(
    st.sets(st.text(alphabet="abé", max_size=3), max_size=6),
    st.sets(st.text(alphabet="abé", max_size=3), max_size=6),
)
def test_set_algebra(left: set[str], right: set[str]) -> None:
    a, b = automaton.from_strings(left), automaton.from_strings(right)
    assert set(automaton.union(a, b).strings(20) or []) == left | right
    assert set(automaton.intersection(a, b).strings(20) or []) == left & right
    assert set(automaton.difference(a, b).strings(20) or []) == left - right


def test_equal_languages_give_equal_automata() -> None:
    assert automaton.from_pattern("^(a|b)c*$") == automaton.from_pattern("^[ab](c+)?$")
    assert automaton.from_pattern("^(in|ex)clude$") == automaton.from_strings(["exclude", "include"])
    assert automaton.from_pattern(r"^[\s\S]*$") == automaton.ANY_STRING


def test_length_counts_characters_not_bytes() -> None:
    three = automaton.from_length(1, 3)
    assert [three.accepts(text.encode()) for text in ("", "é", "日本語", "日本語日")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("minimum", "maximum"), [(0, None), (0, 0), (0, 2), (3, None), (2, 5), (4, 4)])
def test_a_length_limit_is_the_automaton_of_its_pattern(minimum: int, maximum: int | None) -> None:
    pattern = rf"^[\s\S]{{{minimum},{'' if maximum is None else maximum}}}$"
    assert automaton.from_length(minimum, maximum) == automaton.from_pattern(pattern)


def test_shortest_avoids_what_is_excluded() -> None:
    name = automaton.from_pattern("^[_a-zA-Z][a-zA-Z0-9_-]*$")
    assert name.shortest() == b"a"
    taken = frozenset(bytes([c]) for c in range(256))
    assert name.shortest(excluded=taken) == b"aa"
    assert automaton.from_strings(["x"]).shortest(excluded=frozenset([b"x"])) is None
    assert automaton.from_strings(["xy", "xyz"]).shortest(2, frozenset([b"xy"]), b"xy") == b"z"


def test_look_aheads_at_the_start() -> None:
    named = automaton.from_pattern("^(?!con$)(?![0-9])[a-z0-9]+$")
    assert [named.accepts(text) for text in (b"con", b"cons", b"9a", b"a9", b"")] == [
        False,
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(SchemaError, match="a look-around"):
        automaton.from_pattern("^(?!a)b|c")


def test_a_long_length_limit_is_quick_and_exact() -> None:
    limit = automaton.from_length(3, 2000)
    assert [limit.accepts(b"a" * length) for length in (2, 3, 2000, 2001)] == [False, True, True, False]
    assert limit.accepts("\u00e9".encode() * 2000) and not limit.accepts("\u00e9".encode() * 2001)


def test_patterns_that_would_take_too_long_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"states|too long|too large"):
        automaton.from_pattern("(a|b)*a" + "(a|b)" * 40)
    with pytest.raises(SchemaError, match=r"states|too long|too large"):
        automaton.from_pattern("((a?){300}b?){60}c{999}")
