import random
from collections import Counter

import numpy as np

from nanochat_tct.tokenizer import learn
from nanochat_tct.tokenizer.engine import ARRAY, END, PAD, Segmenter, codes_of

BASE = [chr(code) for code in range(266)]
LINES = {"pip install numpy\n": 30, "pip install torch\n": 30, "python -m pytest\n": 25, "make all\n": 3}


def pieces(tokens: list[str], text: str) -> list[str]:
    segmenter = Segmenter([*BASE, *tokens])
    return [segmenter.expansions[token] for token in segmenter.encode(text)]


def test_keeps_the_tokens_that_save_most() -> None:
    documents = [("", line) for line, count in LINES.items() for _ in range(count)]
    tokens = learn.learn_tokens(documents, 266, 266 + 30)
    assert len(set(tokens) - set(BASE)) == len(tokens) == 30
    assert set(tokens[:4]) == set(LINES)
    assert all(pieces(tokens, line) == [line] for line in list(LINES)[:3])
    assert tokens == learn.learn_tokens(reversed(documents), 266, 266 + 30)


def test_what_many_groups_have_is_worth_more_than_what_one_group_repeats() -> None:
    one = [("one", "internal-registry\n")] * 40
    many = [(f"group {number}", "actions/checkout\n") for number in range(30)]
    assert learn.learn_tokens([*one, *many], 266, 286)[0] == "actions/checkout\n"
    in_one_group = [("", base) for _, base in [*one, *many]]
    assert learn.learn_tokens(in_one_group, 266, 286)[0] == "internal-registry\n"


def test_what_does_not_repeat_yields_no_tokens() -> None:
    assert learn.learn_tokens([("a", "abc"), ("b", "xyz")], 266, 300) == []
    assert learn.learn_tokens([("a", "")], 266, 300) == []


def test_uses_are_sums_over_groups_of_a_power_of_each_count() -> None:
    choose = random.Random(0)
    pairs = [(choose.randrange(20), choose.randrange(4)) for _ in range(90)]
    counts = Counter(pairs)
    keys, groups = np.array(pairs).T
    found, uses = learn._uses(keys, groups)
    expected = {
        key: sum(counts[key, group] ** learn.POWER for group in range(4))
        for key in range(20)
        if sum(counts[key, group] for group in range(4)) > 1
    }
    assert found.tolist() == list(expected)
    assert np.allclose(uses, list(expected.values()))


def test_words_and_structure() -> None:
    words = [
        "name",
        END,
        ARRAY,
        "echo",
        " hello",
        "  ",
        "x",
        "12",
        "-",
        " $",
        "\n    ",
        "if",
        "\n\n",
        "é".encode().decode("latin-1"),
    ]
    starts = learn._starts_word(np.frombuffer(codes_of("".join(words)), np.uint16))
    assert np.flatnonzero(starts).tolist() == np.cumsum([0, *map(len, words)]).tolist()


def test_documents_are_read_in_turns_from_each_group() -> None:
    documents = [("a", "11"), ("a", "22"), ("a", "33"), ("b", "444"), ("c", "5")]
    text = learn._in_turns(documents)
    assert text.groups.tolist() == [0, 1, 2, 0, 0]
    whole = text.codes.tobytes().decode("utf-16-le")
    assert sorted(whole.split(chr(PAD))[:-1]) == sorted(base for _, base in documents)
    assert text.first(1).groups.tolist() == [0]
    assert text.first(3).groups.tolist() == [0]
    assert text.first(4).groups.tolist() == [0, 1]
    assert text.first(10**9).codes.tolist() == text.codes.tolist()
