"""The measures of completions, on cases worked out by hand."""

import random

import numpy as np
import pytest

from nanochat_tct.evaluation.measures import (
    SUMS,
    bleu,
    bleu_counts,
    compare,
    edit_distance,
    edit_similarity,
    figures,
    first_token,
    keystrokes,
    normal_line,
    reliability,
    with_intervals,
)


@pytest.mark.parametrize(
    ("suggestion", "author", "expected"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0),
        # precisions 6/7, 5/6, 4/5, 3/4; no brevity penalty
        ("the cat sat on the mat today", "the cat sat on the mat", (3 / 7) ** 0.25),
        # precisions of 1, and e^(1 - 6/5) for being short
        ("the cat sat on the", "the cat sat on the mat", np.exp(-1 / 5)),
        # no 4-gram in common
        ("the cat sat down on it", "the cat sat on the mat", 0.0),
        ("", "the cat", 0.0),
    ],
)
def test_bleu(suggestion: str, author: str, expected: float) -> None:
    assert bleu(np.array(bleu_counts(suggestion, author), dtype=float)) == pytest.approx(expected)


def test_an_ngram_matches_as_often_as_the_author_has_it() -> None:
    """The example of Papineni et al. (2002): the precision is 2/7."""
    counts = bleu_counts("the the the the the the the", "the cat is on the mat")
    assert (counts[0], counts[4]) == (2, 7)


def test_bleu_sums_over_all_cuts_before_it_divides() -> None:
    long = bleu_counts("a b c d e f", "a b c d e f")
    short = bleu_counts("x", "y")
    summed = bleu(np.array(long, dtype=float) + np.array(short))
    assert summed == pytest.approx((6 / 7) ** 0.25)  # the short one has no n-grams of higher orders


def slow_distance(first: str, second: str) -> int:
    """Levenshtein's recurrence as it is defined."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if 0 in (i, j):
                table[i][j] = i + j
            else:
                replaced = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
                table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, replaced)
    return table[-1][-1]


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3
    rng = random.Random(0)
    for _ in range(200):
        first, second = ("".join(rng.choices("abc", k=rng.randrange(9))) for _ in range(2))
        assert edit_distance(first, second) == slow_distance(first, second), (first, second)
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("abcd", "abcx") == 0.75
    assert edit_similarity("abcd", "") == 0.0


def test_lines_are_compared_without_what_the_writer_of_yaml_decides() -> None:
    assert normal_line("      run: |-") == normal_line("      run: |  ") == "      run: |"
    assert normal_line("    - |2+") == "    - |"
    assert normal_line("        echo a |-") == "        echo a |-"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("      - uses: actions/checkout@v4", "      - uses"),
        ("    runs-on: ubuntu-latest", "    runs-on"),
        ("          npm ci", "          npm"),
        ("          ${{ x }}", "          $"),
        ("      - - 1", "      - - 1"),
        ("", ""),
    ],
)
def test_first_token(line: str, expected: str) -> None:
    assert first_token(line) == expected


def measures(*compared: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in figures(np.sum(compared, axis=0)).items()}


def test_a_right_guess_a_later_one_and_none() -> None:
    author = ["    runs-on: ubuntu-latest"]
    right = compare([author, ["    steps:"]], author, True)
    later = compare([["    runs-on: ubuntu-22.04"], ["    runs-on: ubuntu-latest "]], author, False)
    none = compare([], author, None)
    found = measures(right, later, none)
    assert found["right"] == pytest.approx(1 / 3)
    assert found["among_five"] == found["first_token"] == pytest.approx(2 / 3)
    assert found["accepted"] == 1 / 2  # nothing was judged where nothing was suggested
    typed = len("runs-on: ubuntu-latest") + 1
    assert keystrokes(author) == typed
    assert found["keystrokes_saved"] == pytest.approx((typed - 1) / (3 * typed))


def test_the_sixth_suggestion_does_not_count() -> None:
    assert measures(compare([[str(n)] for n in range(6)], ["5"], True))["among_five"] == 0
    assert measures(compare([[str(n)] for n in range(6)], ["4"], True))["among_five"] == 1


def test_a_block_is_right_only_as_a_whole() -> None:
    author = ["      - run: a", "        if: b"]
    assert measures(compare([author], author, True))["right"] == 1
    assert measures(compare([author[:1]], author, True))["right"] == 0
    assert measures(compare([[*author, "        env:"]], author, True))["right"] == 0


def test_intervals_are_over_repositories() -> None:
    right, wrong = compare([["a"]], ["a"], True), compare([["b"]], ["a"], True)
    assert len(right) == len(SUMS)
    alike = with_intervals([right, wrong] * 50, ["one", "two"] * 50)["right"]
    apart = with_intervals([right, wrong] * 50, [str(n) for n in range(100)])["right"]
    assert alike == [0.5, 0.0, 1.0]  # two repositories: it may have been either
    assert apart[0] == 0.5 and 0.38 < apart[1] < 0.43 and 0.57 < apart[2] < 0.62  # +- 1.96 sqrt(0.25 / 100)
    assert with_intervals([right], ["one"])["right"] == [1, 1, 1]
    assert "accepted" not in with_intervals([compare([], ["a"], None)], ["one"])


def test_probabilities_are_compared_with_the_share_that_is_right() -> None:
    probabilities, right = [0.2, 0.25, 0.22, 0.21, 1.0, 0.0], [True, False, False, False, True, False]
    groups = ["one", "one", "two", "two", "one", "two"]
    rows = reliability(list(zip(probabilities, right, groups, strict=True)))
    assert [row["probabilities"] for row in rows] == [[0.0, 0.05], [0.2, 0.3], [0.7, 1.0]]
    assert [row["suggestions"] for row in rows] == [1, 4, 1]
    assert [row["expected"] for row in rows] == pytest.approx([0, 0.22, 1])
    assert [row["right"] for row in rows] == [[0, 0, 0], [0.25, 0, 0.5], [1, 1, 1]]
