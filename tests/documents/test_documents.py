"""Reading YAML 1.2 and JSON documents, their limits, and writing them back."""

import contextlib
import itertools
import json
import time
from typing import Any

import pytest
import ruamel.yaml
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.documents import (
    DocumentError,
    Limits,
    json_bytes,
    read_document,
    read_workflow,
    to_json,
    to_yaml,
)


def read_value(text: str) -> Any:
    """The value of one YAML snippet."""
    return read_workflow(f"key: {text}\n", "yaml")["key"]


def reason_of(text: str | bytes, format: Any = "yaml", limits: Limits | None = None) -> str:
    with pytest.raises(DocumentError) as caught:
        read_document(text, format, limits or Limits())
        read_workflow(text, format, limits or Limits())
    assert "\n" not in str(caught.value), "the message is one line"
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nULL", "nULL"),
        ("1", 1),
        ("-0", 0),
        ("+12", 12),
        ("010", 10),
        ("0o17", 15),
        ("0xFf", 255),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("3.10", 3.1),
        ("'3.10'", "3.10"),
        ('"3.10"', "3.10"),
        ("1.0", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1e3", -1000.0),
        ("1.5E+2", 150.0),
        ("1e", "1e"),
        (".", "."),
        ("12:30", "12:30"),
        ("1:30:45", "1:30:45"),
        ("2020-01-01", "2020-01-01"),
        ("2001-12-14T21:59:43Z", "2001-12-14T21:59:43Z"),
        ("=", "="),
        ("<<", "<<"),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("!!int '3'", 3),
        ("!!float 3", 3.0),
        ("!!null ''", None),
        ("!!seq [a]", ["a"]),
        ("!!map {a: b}", {"a": "b"}),
        ('{"a":1, b: [x, "y"]}', {"a": 1, "b": ["x", "y"]}),
        ('"\\u00e9\\x41\\t\\/"', "éA\t/"),
        ("１", "１"),
    ],
)
def test_core_schema(text: str, value: Any) -> None:
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)


def test_keys_are_their_text() -> None:
    document = read_document("on: push\ntrue: 1\n3.10: 2\nnull: 3\n1e3: 4\n~: 5\n? a\n: 6\n", "yaml")
    assert list(document) == ["on", "true", "3.10", "null", "1e3", "~", "a"]


@pytest.mark.parametrize("key", ["true", "3.10", "null", "~", "1", "0x1F"])
def test_keys_of_a_workflow_are_texts(key: str) -> None:
    """GitHub's parser fails on others."""
    with pytest.raises(DocumentError, match=f"line 2, column 3: the key {key} is not a text") as caught:
        read_workflow(f"a:\n  {key}: x", "yaml")
    assert caught.value.reason == "bad-key"
    assert read_workflow(f"'{key}': x", "yaml") == {key: "x"}


def test_a_workflow_has_no_merge_keys() -> None:
    text = "a: &a {b: 1}\nc: {<<: *a, b: 2}\n"
    assert read_workflow(text, "yaml") == {"a": {"b": 1}, "c": {"<<": {"b": 1}, "b": 2}}


def test_anchors_and_merges() -> None:
    document = read_document(
        """
base: &base {a: 1, b: 2}
other: &other {b: 3, c: 4}
own-keys-win: {<<: *base, b: 9, d: 5}
own-keys-before: {b: 9, <<: *base}
first-of-a-list-wins: {<<: [*base, *other]}
alias: *base
scalar: &name value
*name : as a key
quoted: {"<<": x}
""",
        "yaml",
    )
    assert to_json(document["own-keys-win"]) == '{"a":1,"b":9,"d":5}'
    assert to_json(document["own-keys-before"]) == '{"b":9,"a":1}'
    assert document["first-of-a-list-wins"] == {"a": 1, "b": 2, "c": 4}
    assert document["alias"] == {"a": 1, "b": 2}
    assert document["value"] == "as a key"
    assert document["quoted"] == {"<<": "x"}


def test_line_ends_marks_and_tabs() -> None:
    crlf = (
        "\ufeffon: push\r\nrun: |\r\n  one\r\n  two\r\nfolded: >-\r\n  three\r\n  four\r\nplain: a\r\n  b\r\n"
    )
    expected = {"on": "push", "run": "one\ntwo\n", "folded": "three four", "plain": "a b"}
    assert read_workflow(crlf, "yaml") == expected
    assert read_workflow(crlf.encode(), "auto") == expected
    assert read_workflow("a:\tb\nrun: |\n  x\ty\n", "yaml") == {"a": "b", "run": "x\ty\n"}
    # In YAML 1.2 these do not break lines.
    odd = "a\x85b\u2028c\u2029d"
    assert read_workflow(f'plain: {odd}\nquoted: "{odd}"\nblock: |-\n  {odd}\n', "yaml") == dict.fromkeys(
        ["plain", "quoted", "block"], odd
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Names of anchors hold any character but blanks, commas and brackets.
        ("A: &db:main postgres\nB: *db:main\n", {"A": "postgres", "B": "postgres"}),
        (
            "a: &php8.3 x\nb: &a/b y\nc: &ü z\nd: [*php8.3, *a/b, *ü]",
            dict(zip("abcd", ["x", "y", "z", ["x", "y", "z"]], strict=True)),
        ),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("a: &x\n  b: &y\nc: *x", {"a": {"b": None}, "c": {"b": None}}),
        # A text may begin with '?', '-' or ':' if no blank follows, also in brackets.
        (
            "p: [?foo, -b, :c]\nq: { ?x: y }\nr: ?foo\n",
            {"p": ["?foo", "-b", ":c"], "q": {"?x": "y"}, "r": "?foo"},
        ),
        ("env: {ADDR: :8080, URL: http://a:80/b}", {"env": {"ADDR": ":8080", "URL": "http://a:80/b"}}),
        (
            'a: {"b":1, c:2, d, e:, "f": , g: }',
            {"a": {"b": 1, "c:2": None, "d": None, "e": None, "f": None, "g": None}},
        ),
        ("a: [b: c, ? d : e, 'f':g]", {"a": [{"b": "c"}, {"d": "e"}, {"f": "g"}]}),
        ("a: {\n  ? b\n  : c,\n  two\n  lines: d }", {"a": {"b": "c", "two lines": "d"}}),
        # Separators of other standards are text.
        ('a: "x\\uE000y"\nb: c\u2028d\x85e', {"a": "x\ue000y", "b": "c\u2028d\x85e"}),
        # Tabs separate, and are text; only indentation is of spaces.
        ("a: |\n  \tx\n  y\n", {"a": "\tx\ny\n"}),
        ("a: 1\n\t\n\t# comment\nb: 2\n", {"a": 1, "b": 2}),
        (
            "a: 'b'\t\nc: \"d\"\t# e\nf\t:\tg\nh:\n- \ti: j\n",
            {"a": "b", "c": "d", "f": "g", "h": [{"i": "j"}]},
        ),
        ("a: b\n \tc\n", {"a": "b c"}),
        ("a: 'b\n\n \t c'\n", {"a": "b\nc"}),
        # Two escapes of JSON for one character.
        ('{"n":"\\ud83d\\ude80\\/"}', {"n": "🚀/"}),
        ('a: "one \\\n    two\\\n\n    three \\  \n  four"', {"a": "one two\nthree   four"}),
        # Directives and markers of documents.
        ("%YAML 1.2\n%OTHER x\n# comment\n---\na: b\n... # end\n", {"a": "b"}),
        ("%TAG !t! tag:yaml.org,2002:\n---\na: !t!str 1\n", {"a": "1"}),
        ("a: |\n  ---\n  %x\nb: ---c\n", {"a": "---\n%x\n", "b": "---c"}),
        ("--- # comment\na: b\n", {"a": "b"}),
        # Keys that `?` announces, lists as wide as their mapping.
        ("? a\n: - b\n  - c\n? |\n  d\n: e\nf:\n- - g\n", {"a": ["b", "c"], "d\n": "e", "f": [["g"]]}),
        ("? " + "k" * 2000 + "\n: v\n", {"k" * 2000: "v"}),
        # Values of several lines.
        (
            "a: b\n  - c\n\n  d # comment\ne: >-\n  f\n  g\n\n    h\n  i\n\n",
            {"a": "b - c\nd", "e": "f g\n\n  h\ni"},
        ),
        (
            "a: |+\n  b\n\nc: |2-\n    d\n\ne: |+\n\nf: >\n\n\ng: |",
            {"a": "b\n\n", "c": "  d", "e": "\n", "f": "", "g": ""},
        ),
        ("a: |\n  b", {"a": "b"}),
        # What real workflows do against the letter of the specification, and GitHub reads.
        ("a:\n  b: [\n    c,\n]\nd: 'e\n f'\n", {"a": {"b": ["c"]}, "d": "e f"}),
        # Line ends.
        ("a: b\rc: |\r\n  d\r  e\r\n", {"a": "b", "c": "d\ne\n"}),
        ("a: 'x\ufeff\x7fy'", {"a": "x\ufeff\x7fy"}),
        (
            "a: 1.797e308\nb: -1.7976931348623157e308\nc: 5e-324",
            {"a": 1.797e308, "b": -1.7976931348623157e308, "c": 5e-324},
        ),
    ],
)
def test_yaml_1_2(text: str, value: Any) -> None:
    assert to_json(read_workflow(text, "yaml")) == to_json(value)


def test_escapes_in_any_order() -> None:
    """Once an escape and then an escaped line end was a SystemError of `re` (python/cpython#101955)."""
    escapes = {
        "x": "x",
        "\\n": "\n",
        '\\"': '"',
        "\\x41": "A",
        "\\u00e9": "é",
        "\\U0001F680": "🚀",
        "\\ud83d\\ude80": "🚀",
        "\\\n  z": "z",
        "\n  y": " y",
    }
    for written in itertools.product(escapes, repeat=3):
        value = "".join(escapes[each] for each in written)
        assert read_workflow(f'a: "{"".join(written)}"\n', "yaml") == {"a": value}, written


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_encodings(encoding: str) -> None:
    for format in ("yaml", "auto"):
        assert read_workflow('a: "é 🚀"\n'.encode(encoding), format) == {"a": "é 🚀"}
    assert read_workflow('{"a": "é"}'.encode(encoding), "json") == {"a": "é"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on: push\njobs: a: b\n", "line 2, column 8: a key with ':' is not allowed here"),
        ("on: push\n\n\tjobs: 1\n", "line 3, column 2: a tab indents this line"),
        ("run: |\n\techo\n", "line 2, column 1: a tab indents the text of a block scalar"),
        ("a:\n  b: c\n d: e\n", "line 3, column 2: wrong indentation"),
        ("a:\n  - b\n  c: d\n", "line 3, column 3: '- ' is missing"),
        ("a: [b,\nc]\n", "line 2, column 1: a line inside brackets must be indented more"),
        ("a: [b\n", "line 2, column 1: the document ends inside brackets"),
        ("a: {b: ${{ c }}}\n", "line 1, column 9: ',' or '}' is missing"),
        ("a: [b,,c]\n", "line 1, column 7: ',' cannot begin a value"),
        ("a: [b,#c\n  d]\n", "line 1, column 7: '#' cannot begin a value"),
        ("a: 'b\n---\n'\n", "line 2, column 1: the document ends inside quotes"),
        ('a: "é\\q"\r\n', "line 1, column 6: '\\\\q' is not an escape"),
        ('a: "\\ud83d"\n', "line 1, column 5: half of a surrogate pair"),
        ("a: b # c\n  d\n", "line 2, column 3: a comment ended the text before it"),
        ("a: b\n  c: d\n", "line 2, column 3: this line continues the text before it"),
        ("a: 'b' c\n", "line 1, column 8: this text follows the end of a value"),
        ("a: 'b'#c\n", "line 1, column 7: this text follows the end of a value"),
        ("a: @b\n", "line 1, column 4: '@' cannot begin a value"),
        ("a\nb: c\n", "line 2, column 1: this line continues the text before it"),
        ("a: b\nc\n", "line 2, column 2: ':' is missing after a key"),
        ("'a\n b': c\n", "line 1, column 1: a key of several lines needs '? '"),
        ("k" * 1025 + ": v", "line 1, column 1: a key of more than 1024 characters needs '? '"),
        ("a: &b &c d\n", "line 1, column 7: a value cannot have two tags or two anchors"),
        ("a: &b x\nc: &d *b\n", "line 2, column 7: an alias cannot have a tag or an anchor"),
        ("a: !t!x y\n", "line 1, column 4: no %TAG directive defines the handle '!t!'"),
        ("%YAML 2.0\n---\na: b\n", "line 1, column 1: the directive '%YAML' takes a version"),
        ("a: b\n%YAML 1.2\n---\n", "line 2, column 1: '%' cannot begin a value"),
        ("a: |x\n", "line 1, column 4: after '|' only an indentation"),
        ("a: |\n    \n  b\n", "line 2, column 1: an empty line before the text of a block scalar"),
        ("a: x\ufeff\n", "line 1, column 5: the character '\\ufeff' is allowed in quotes only"),
        ("a: x\x00\n", "line 1, column 5: the control character '\\x00' is not allowed"),
        ("--- a: b\n", "line 1, column 6: a key with ':' is not allowed here"),
    ],
)
def test_syntax_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_workflow(text, "yaml")
    assert caught.value.reason == "yaml-syntax"
    assert str(caught.value).startswith(message)


def test_auto_tells_json_from_yaml() -> None:
    assert read_workflow('{"on": "push", "x": 1.0}') == {"on": "push", "x": 1.0}
    assert read_workflow(" {on: push}") == {"on": "push"}
    assert read_workflow("on: push") == {"on": "push"}
    assert reason_of('{"a": 1, "a": 2}', "auto") == "duplicate-key"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "duplicate-key"),
        ("1: a\n'1': b", "duplicate-key"),
        ("x: &x {a: 1}\ny: {<<: *x, <<: *x}", "duplicate-key"),
        ("a: 1\n---\nb: 2", "several-documents"),
        ("a: 1\n---\n", "several-documents"),
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("---\n", "empty"),
        ("- a", "not-a-mapping"),
        ("text", "not-a-mapping"),
        ("a: [1", "yaml-syntax"),
        ("a: b: c", "yaml-syntax"),
        ("a: \x01", "yaml-syntax"),
        ("a: .nan", "bad-number"),
        ("a: -.INF", "bad-number"),
        ("a: 1e999", "bad-number"),
        ("a: " + "9" * 5000, "bad-number"),
        ("a: 0x" + "f" * 5000, "bad-number"),
        ("a: !!python/object/apply:os.system ['true']", "unknown-tag"),
        ("a: !custom x", "unknown-tag"),
        ("a: !!binary aGk=", "unknown-tag"),
        ("a: !!set {x}", "unknown-tag"),
        ("a: !!int x", "unknown-tag"),
        ("!custom k: x", "unknown-tag"),
        ("? [a]\n: b", "bad-key"),
        ("${{ a }}: b\n? {c: d}\n: e", "bad-key"),
        ("? \n: b", "bad-key"),
        ("a: {<<: text}", "bad-merge"),
        ("d: 'e\nf'\n", "yaml-syntax"),
        ('a:\n- b: x\n  c: "e\n  f"\n', "yaml-syntax"),
        ("a: *nothing", "bad-alias"),
        ("a: &a [*a]", "bad-alias"),
        ("a: \ud800", "not-utf8"),
        (b"a: \xff", "not-utf8"),
    ],
)
def test_refused_yaml(text: str | bytes, reason: str) -> None:
    assert reason_of(text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("{", "json-syntax"),
        ("{'a': 1}", "json-syntax"),
        ('{"a": 1} {}', "json-syntax"),
        ("[1]", "not-a-mapping"),
        ("null", "not-a-mapping"),
        ('{"a": {"b": 1, "b": 1}}', "duplicate-key"),
        ('{"a": NaN}', "bad-number"),
        ('{"a": -Infinity}', "bad-number"),
        ('{"a": 1e999}', "bad-number"),
        ('{"a": ' + "9" * 5000 + "}", "bad-number"),
        (b'{"a": "\xff"}', "not-utf8"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "too-deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "too-deep"),
        ('{"a": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}", "too-deep"),
    ],
)
def test_refused_json(text: str | bytes, reason: str) -> None:
    assert reason_of(text, "json") == reason


def test_size_limits() -> None:
    assert reason_of("a: " + "x" * 100, limits=Limits(max_bytes=50)) == "too-large"
    assert reason_of("a: [1, 2, 3]", limits=Limits(max_nodes=4)) == "too-many-nodes"
    assert reason_of('{"a": [1, 2, 3]}', "json", Limits(max_nodes=4)) == "too-many-nodes"
    assert read_workflow("a: [1, 2, 3]", "yaml", Limits(max_nodes=5)) == {"a": [1, 2, 3]}
    assert read_workflow('{"a": [1, 2, 3]}', "json", Limits(max_nodes=5)) == {"a": [1, 2, 3]}


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_depth_limit_is_the_same_for_both_formats(format: Any) -> None:
    def nested(levels: int) -> str:
        return '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"

    assert read_workflow(nested(100), format)
    assert reason_of(nested(101), format) == "too-deep"


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 200_000,
        "a: " + "{" * 200_000,
        "a: " + "{a: " * 100_000,
        "- " * 200_000,
        "? " * 200_000,
        "\n".join("  " * level + "a:" for level in range(500)),
    ],
)
def test_deep_yaml_is_refused_quickly(text: str) -> None:
    assert reason_of(text, limits=Limits(max_bytes=10 << 20)) in ("too-deep", "yaml-syntax", "bad-key")


def test_any_depth_limit_ends_in_a_document_error() -> None:
    deep = "a: " + "[" * 50_000
    assert reason_of(deep, limits=Limits(max_depth=100_000)) == "too-deep"


@pytest.mark.parametrize(
    "text",
    [
        'a: "' + " " * 500_000 + '\\\n x"',
        'a: "' + "\\" * 500_000 + '"',
        "a: '" + " \n" * 250_000,
        "a: b" + " " * 500_000 + "c",
        "a: " + "&b" * 250_000,
        "a: [" + "'b' " * 100_000,
        "a: |\n" + " \n" * 200_000 + "  b\n",
        "".join("- |\n" + " " * indent + "b\n" for indent in range(1, 900)),
    ],
)
def test_time_grows_with_the_length_only(text: str) -> None:
    """Each ends within a second or so; what is quadratic in the length takes minutes."""
    started = time.process_time()
    with contextlib.suppress(DocumentError):
        read_document(text, "yaml")
    assert time.process_time() - started < 10


def test_alias_bombs_are_refused() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    assert reason_of(laughs) == "alias-expansion"
    long_string = "s: &s " + "x" * 100_000 + "\nl: [" + "*s, " * 1000 + "]\n"
    assert reason_of(long_string) == "alias-expansion"
    merges = "a0: &a0 {x: 1, y: 2}\n"
    merges += "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: *a{i - 1}}}\n" for i in range(1, 30)
    )
    assert reason_of(merges) == "alias-expansion"
    deep = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200))
    assert reason_of(deep) == "too-deep"


ODD_CHARACTERS = (
    "ab :#-?!&*|>'\"%@`{}[],\t\n\r\\$=~<0123456789.eExo_yn\x00\x07\x7f\x85\ufeff\u2028\u00e9\U0001f600"
)
NOT_STRINGS = """yes no on off y n true null ~ 1e3 0o7 0777 0x1F 12:30 1:2:3.4 2020-01-01 3.10 1_000
    .5 1. +1 -1 .inf .nan << = --- ... - ? : -a ?a :a a:b a: #a"""
ODD_STRINGS = st.one_of(
    st.text(),
    st.text(alphabet=st.sampled_from(ODD_CHARACTERS)),
    st.text(alphabet=st.sampled_from("a \t\n"), max_size=12),
    st.sampled_from(NOT_STRINGS.split()),
    st.sampled_from(["", " ", "a #b", "a: b", "---a", "- b", "key: |", "x" * 2000, "\u00fc" * 600]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), ODD_STRINGS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ODD_STRINGS, inner, max_size=4)),
)


DOCUMENTS = st.dictionaries(ODD_STRINGS, VALUES, max_size=4)


def check_read_back(value: dict[str, Any]) -> None:
    text = to_yaml(value)
    assert to_json(read_workflow(text, "yaml")) == to_json(value)  # compares types and key order too
    assert to_json(read_workflow(to_json(value), "json")) == to_json(value)
    value.pop("on", None)
    assert to_json(yaml.load(to_yaml(value), Loader=yaml.CSafeLoader)) == to_json(value)
    assert to_json(yaml.safe_load(to_yaml(value))) == to_json(value)


@settings(max_examples=100)
@given(DOCUMENTS)
def test_what_is_written_reads_back_equal_and_is_yaml_1_1_too(value: dict[str, Any]) -> None:
    check_read_back(value)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(DOCUMENTS)
def test_many_more_documents_read_back_equal(value: dict[str, Any]) -> None:
    check_read_back(value)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_another_reader_of_yaml_1_2_agrees(value: dict[str, Any]) -> None:
    assert to_json(ruamel.yaml.YAML(typ="safe", pure=True).load(to_yaml(value))) == to_json(value)


def test_to_yaml_is_clean() -> None:
    value = {
        "name": "Build: all",
        "on": {"push": None, "schedule": [{"cron": "0 0 * * *"}]},
        "env": {
            "YES": "yes",
            "VERSION": "3.10",
            "N": 1,
            "F": 1.0,
            "E": 1e22,
            "EMPTY": "",
            "NONE": {},
            "L": [],
        },
        "jobs": {
            "a-b": {
                "steps": [
                    {"run": "one\n  two\n"},
                    {"run": "no\nend"},
                    {"run": " indented\n\n\n"},
                    ["x", ["y"]],
                ]
            }
        },
        "if": "${{ always() }} && it's",
    }
    assert (
        to_yaml(value)
        == """\
name: 'Build: all'
on:
  push:
  schedule:
    - cron: 0 0 * * *
env:
  'YES': 'yes'
  VERSION: '3.10'
  'N': 1
  F: 1.0
  E: 1.0e+22
  EMPTY: ''
  NONE: {}
  L: []
jobs:
  a-b:
    steps:
      - run: |
          one
            two
      - run: |-
          no
          end
      - run: |2+
           indented


      - - x
        - - 'y'
if: ${{ always() }} && it's
"""
    )


def test_lone_surrogates_live_in_json_only() -> None:
    value = read_workflow('{"a": "\\ud800"}', "json")
    assert json.loads(json_bytes(value).decode("utf-8", "surrogatepass")) == value
    with pytest.raises(DocumentError) as caught:
        to_yaml(value)
    assert caught.value.reason == "not-yaml"


def test_real_corpus_reads_back_equal(real_workflows: Any) -> None:
    accepted = 0
    for text in real_workflows.column("text").to_pylist():
        try:
            value = read_workflow(text, "yaml")
        except DocumentError:
            continue
        accepted += 1
        assert to_json(read_workflow(to_yaml(value), "yaml")) == to_json(value)
    assert accepted > 0.99 * len(real_workflows)
