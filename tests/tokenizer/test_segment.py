import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_tct.tokenizer.engine import PAD, Segmenter

EVERY = [chr(code) for code in range(300)]
BASE = [code for code in EVERY if ord(code) != PAD]


def cut_slowly(text: str, tokens: set[str]) -> list[str]:
    """The longest token at each place, looked for from the longest possible on."""
    result = []
    while text:
        longest = next(text[:length] for length in range(len(text), 0, -1) if text[:length] in tokens)
        result.append(longest)
        text = text[len(longest) :]
    return result


@pytest.mark.parametrize("seed", range(40))
def test_takes_the_longest_token_at_each_place(seed: int) -> None:
    choose = random.Random(seed)
    alphabet = "ab(|\n\\ā\u0105é]^-"
    tokens = {"".join(choose.choices(alphabet, k=choose.randrange(2, 7))) for _ in range(60)}
    segmenter = Segmenter([*EVERY, *sorted(tokens)])
    for _ in range(50):
        text = "".join(choose.choices(alphabet, k=30))
        ids = segmenter.encode(text)
        assert [segmenter.expansions[token] for token in ids] == cut_slowly(text, tokens | set(BASE))
        assert segmenter.decode(ids) == text


def test_comes_back_to_the_last_token_that_fits() -> None:
    tokens = ["a", "b", "c", "d", "abcd", "ab"]
    cut = Segmenter(tokens).encode("abcabcdab")
    assert [tokens[index] for index in cut] == ["ab", "c", "abcd", "ab"]


@given(
    st.sets(st.text(st.characters(max_codepoint=0x10F), min_size=2, max_size=5), max_size=20),
    st.text(st.characters(max_codepoint=0x10F)),
)
def test_any_vocabulary_gives_any_text_back(tokens: set[str], text: str) -> None:
    text = text.replace(chr(PAD), "")
    segmenter = Segmenter([*EVERY, *sorted(token for token in tokens if chr(PAD) not in token)])
    assert segmenter.decode(segmenter.encode(text)) == text


def test_long_texts_take_time_in_proportion() -> None:
    segmenter = Segmenter([*EVERY, *["a" * length for length in range(2, 100)]])
    assert len(segmenter.encode("a" * 1_000_000 + "b")) == 10_103
