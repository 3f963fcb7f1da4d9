"""The competitors of benchmarks/completion.py suggest what they should."""

import pytest

from benchmarks.byte_pairs import END, BytePairs
from benchmarks.completion import (
    FreeCompleter,
    FreeTokenizer,
    LineCounts,
    TextSuggester,
    TextTokenizer,
    rows,
)
from nanochat_tct.evaluation.completion import Block, ModelSuggester
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.models import untrained_model

TEXTS = ["a:\n- x\n- y\n- z\n", "b:\n- x\n- y\n- w\n", "c:\n- x\n- y\n- w\n", "b:\n- q\n"]


def test_counts_of_lines_back_off_from_three_lines_to_none() -> None:
    counts = LineCounts(TEXTS)

    def next_lines(before: str) -> list[str]:
        return [each.text for each in counts.next_lines(before)]

    assert next_lines("a:\n- x\n- y\n") == ["- z", "- w", "- x", "- y", "b:"]
    assert next_lines("new:\n- x\n- y\n")[:2] == ["- w", "- z"]
    assert next_lines("never: seen\n")[:3] == ["- x", "- y", "- w"]
    assert next_lines("b:\n")[:2] == ["- q", "- x"]  # as frequent, so in the order of their texts
    assert [each.probability for each in counts.next_lines("c:\n- x\n- y\n")[:2]] == [1, 1 / 3]


def test_counts_of_lines_go_on_to_the_end_of_a_block() -> None:
    counts = LineCounts(["on: push\njobs:\n  a:\n    steps:\n    - run: x\n  b:\n    steps:\n    - run: y\n"])
    (text,) = counts.continuations(["on: push\njobs:\n  a:\n"], [Block(2, False)])
    assert Block(2, False).of(text.split("\n")) == ["    steps:", "    - run: x"]


def test_a_model_of_byte_pairs_goes_on_line_by_line() -> None:
    pytest.importorskip("tokenizers")
    texts = ["name: \u00fcber\non: push\njobs:\n  a: b\n"] * 20
    tokenizer = TextTokenizer(BytePairs.learn(lambda: texts, 264))
    tokens = tokenizer.encode(texts[0])
    assert "".join(tokenizer.expansions[token] for token in tokens).encode("latin-1").decode() == texts[
        0
    ].rstrip("\n")
    assert tokenizer.text_after([*tokens, END]) == "on: push\njobs:\n  a: b\n"
    assert tokenizer.text_after(tokens) == "on: push\njobs:"
    before = "name: \u00fcber\n"
    assert tokens[: len(tokenizer.encode(before))] == tokenizer.encode(before)  # as it is in the whole text

    model = GPT(GPTConfig(vocab_size=264, context_size=48, n_layer=1, n_head=2, n_embd=16))
    suggester = TextSuggester(model, tokenizer)
    assert all("\n" not in each.text and each.text.strip() for each in suggester.next_lines(before))
    assert len(list(suggester.continuations([before, texts[0]], [Block(0, False)] * 2))) == 2


def test_without_the_constraint_an_illegal_token_makes_a_suggestion_unusable() -> None:
    tokenizer = FreeTokenizer()
    suggester = ModelSuggester(FreeCompleter.from_model(untrained_model(), tokenizer))
    before = "on: push\njobs:\n  a:\n    runs-on: x\n"
    (text,) = suggester.continuations([before], [Block(2, False)])
    assert text.endswith("\0")  # random weights seldom draw two legal tokens
    matcher = tokenizer.matcher()
    assert matcher.legal().sum() == tokenizer.vocab_size() - 1
    illegal = int((~load_tokenizer().matcher().legal())[1:].argmax()) + 1
    assert not matcher.is_complete and matcher.after(illegal).is_complete


def test_a_table_has_the_ratio_to_the_best_of_the_others() -> None:
    results = {
        "lines": [{"right": [0.2, 0.1, 0.3]}],
        "bpe": [{"right": [0.1, 0.1, 0.1]}, {"right": [0.2, 0.1, 0.3]}],
        "ours": [{"right": [0.3, 0.2, 0.4]}],
    }
    lines = rows("next line", results, {"first guess": ("right",), "accepted": ("accepted",)}).splitlines()
    assert lines[3] == "| bpe | 15.0% (10% to 10%) |  |"
    assert lines[-1] == "| ours / best of the others | 1.50 |  |"
