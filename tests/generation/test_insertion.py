"""The rest of a document as an edit of the text that it begins with: to the letter, and read back as just that."""

import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.documents import read_workflow, to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.generation.insertion import Unwritable
from nanochat_tct.generation.prompt import Prompt, encode_prompt
from nanochat_tct.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer()

JOB = "on: push\njobs:\n  a:\n    runs-on: x\n"
STEPS = JOB + "    steps:\n      - "


def rest_of(text: str, value: Any) -> str | None:
    """What follows a text in a workflow; checked by means of its own."""
    rest = encode_prompt(text, TOKENIZER).rest(to_json(value))
    if rest is not None:
        assert to_json(read_workflow(text + rest)) == to_json(value), (text[-99:], rest)
        assert (text + rest).endswith("\n")
    return rest


def job(**parts: Any) -> dict[str, Any]:
    return {"on": "push", "jobs": {"a": {"runs-on": "x", **parts}}}


def steps(*steps: Any) -> dict[str, Any]:
    return job(steps=list(steps))


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        (JOB, steps({"run": "a\nb\n"}), "    steps:\n      - run: |\n          a\n          b\n"),
        ("env:\n   A: b\n", {"env": {"A": "b", "B": "a\n\nb"}}, "   B: |-\n      a\n\n      b\n"),
        ("env:\n   A: b\n", {"env": {"A": "b", "B": " a\nb\n"}}, "   B: |3\n       a\n      b\n"),
        (STEPS + "run: |", steps({"run": "a\nb\n"}), "\n          a\n          b\n"),
        (STEPS + "run: |\n", steps({"run": "a\nb\n"}), "          a\n          b\n"),
        (STEPS + "run: |\n          a\n", steps({"run": "a\n\nb\n"}), "\n          b\n"),
        (STEPS + "run: |\n          a\n\n", steps({"run": "a\n\nb\n"}), "          b\n"),
        (STEPS + "run: |\n           a\n", steps({"run": "a\nb\n"}, {"id": "x"}), "           b\n      - id: x\n"),
        (STEPS + "run: >-\n          a\n", steps({"run": "a b"}), "          b\n"),
        (STEPS + "run: >\n          a b", steps({"run": "a b c\nd\n"}), " c\n\n          d\n"),
        (STEPS + 'run: "a', steps({"run": 'a\n"b"'}), '\\n\\"b\\""\n'),
        (STEPS + "{ run: a", steps({"run": "a", "env": {"B": "c, d"}}), ', env: {B: "c, d"}}\n'),
        ("on:\n", {"on": "push", "jobs": {}}, "  push\njobs: {}\n"),
        ("on:  # when\n  ", {"on": {"push": None, "fork": None}}, "push:\n  fork:\n"),
        ("on:\n  push:\n", {"on": {"push": None, "fork": None}}, "  fork:\n"),
        ("on:\n  push:\n    ", {"on": {"push": None, "fork": None}}, "\n  fork:\n"),
        ("on: push # no more", {"on": "push", "env": {}}, "\nenv: {}\n"),
        ("on: push", {"on": "push"}, "\n"),
        ("# who\n", {"on": "push"}, "on: push\n"),
        ('{"on": "push", "env": {"A', {"on": "push", "env": {"A": "b\nc"}}, '": "b\\nc"}}\n'),
        ("# x\n{on: push, jobs: {a: {uses: ./a.yml}}}", {"on": "push", "jobs": {"a": {"uses": "./a.yml"}}}, "\n"),
    ],
)  # fmt: skip
def test_the_rest_stands_as_the_file_is_written(text: str, value: Any, rest: str) -> None:
    assert rest_of(text, value) == rest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (STEPS + "run: |\n          a\n", steps({"run": "a"})),  # the header says that a line break ends it
        (STEPS + "run: |\n          a", steps({"run": "a\nb"})),
        (STEPS + "run: |-\n          a", steps({"run": "a\nb\n"})),
        (STEPS + "run: a", steps({"run": "a\nb"})),  # lines need another style from the beginning
        (STEPS + "run: a", steps({"run": "a: b"})),
        (STEPS + "run: |\n          a\n", steps({"run": "a\n\x07b\n"})),  # only double quotes can say that
        (STEPS + "run: >\n          a\n", steps({"run": "a \x7fb\n"})),
        (STEPS + "run: 'a", steps({"run": "a\x07b"})),
        (STEPS + "run: a", steps({"run": "a\x07b"})),
    ],
)
def test_what_needs_another_style_from_the_beginning_cannot_follow(text: str, value: Any) -> None:
    assert rest_of(text, value) is None


@pytest.mark.parametrize(
    ("text", "value", "line"),
    [
        ("on:\n  push:\n", {"on": {"push": None, "fork": None}}, "  fork:"),
        (STEPS + "run: |", steps({"run": "a\nb\n"}), "\n          a"),
        (STEPS + "run: |\n          a\n", steps({"run": "a\n\nb\nc\n"}), "\n          b"),
        (STEPS + "run: >-\n          a\n", steps({"run": "a b"}), "          b"),
        (STEPS, steps({"run": "a\nb\n"}), "run: |"),
        ('{"on": "push", "env": {"A": ', {"on": "push", "env": {"A": "b\nc", "B": 1}}, '"b\\nc"'),
    ],
)
def test_the_next_line_alone(text: str, value: Any, line: str) -> None:
    found = []
    for insertion in encode_prompt(text, TOKENIZER).insertions:
        with contextlib.suppress(Unwritable):
            found.append(insertion.write(to_json(value), max_lines=1))
    assert found[0] is not None and found[0].is_complete and found[0].text == line


def test_a_text_that_only_quotes_can_say_is_no_suggestion_while_it_is_written() -> None:
    text = STEPS + "run: |\n          a\n"
    prompt = encode_prompt(text, TOKENIZER)
    json_text = to_json(steps({"run": "a\nb\x07c\nd\n"}))
    beginning = json_text[: json_text.index("nd") + 2]
    assert not prompt.rest(beginning)
    with pytest.raises(Unwritable):
        prompt.insertions[0].write(beginning, max_lines=1)


def test_line_ends_stay_as_they_are() -> None:
    prompt = encode_prompt(b"on: push\r\njobs:\n  a:\r\n    zzz", TOKENIZER)
    assert prompt.text == "on: push\r\njobs:\n  a:\r\n" and prompt.dropped == "zzz"
    rest = prompt.rest(to_json({"on": "push", "jobs": {"a": {"uses": "./a.yml", "with": {"b": 1}}}}))
    assert rest == "    uses: ./a.yml\r\n    with:\r\n      b: 1\r\n"


texts = st.text(st.sampled_from("ab \n:#'\"-|>\\{é\t,*&!%@\x7f\u2028"), max_size=12)
leaves = texts | st.none() | st.booleans() | st.integers(-9, 99) | st.floats(-2, 2, width=16)
documents = st.dictionaries(
    texts.filter(bool),
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.filter(bool), inner, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(documents)
def test_a_document_from_scratch_is_clean_yaml(value: Any) -> None:
    assert Prompt().rest(to_json(value)) == to_yaml(value)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from("ABCDE"), texts | st.integers(), min_size=1), st.data())
def test_the_own_rest_of_any_texts_and_numbers_follows_anywhere(env: Any, data: st.DataObject) -> None:
    value = {"on": "push", "env": env, "jobs": {"a": {"uses": "./a.yml"}}}
    style = data.draw(st.sampled_from(["block", "flow", "json"]))
    text = to_yaml(value) if style == "block" else json.dumps(value, ensure_ascii=style == "json")
    cut = data.draw(st.integers(0, len(text)))
    prompt = encode_prompt(text[:cut], TOKENIZER)
    if prompt.dropped or prompt.reason:
        return  # a half escape that is a whole one of another character
    rest = rest_of(text[:cut], value)
    header = text[:cut].rpartition(": |")[2].partition("\n")[0]
    if text[cut - 1 : cut] != "\\" and "\\" not in text[max(0, cut - 6) : cut] and "+" not in header:
        assert rest is not None, text[:cut]


@pytest.mark.parametrize("count", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_the_own_rest_of_real_workflows_follows_nearly_anywhere(corpus: Any, count: int) -> None:
    """Cut at the beginning of a line, and at any character."""
    choose, written, cuts = random.Random(0), 0, 0
    for index in choose.sample(range(len(corpus)), count):
        text = corpus["text"][index].as_py()
        try:
            value = read_workflow(text)
            TOKENIZER.encode_value(value)
        except UserError:
            continue
        lines = text.splitlines(keepends=True)
        line = len("".join(lines[: choose.randrange(len(lines))]))
        for cut in (line, choose.randrange(len(text))):
            prompt = encode_prompt(text[:cut], TOKENIZER)
            if not prompt.dropped and not prompt.reason:
                assert prompt.text == text[:cut].removeprefix("\ufeff")
                cuts, written = cuts + 1, written + (rest_of(prompt.text, value) is not None)
    assert cuts > count and written >= 0.98 * cuts
