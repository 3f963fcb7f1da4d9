import itertools
import random
from collections import Counter

import pytest

from nanochat_tct.tokenizer import learn
from nanochat_tct.tokenizer.engine import Segmenter


def learn_slowly(
    sequences: list[list[int]], weights: list[int], first_id: int, room: int
) -> list[tuple[int, int]]:
    """Byte-pair merging as in the textbook: count all pairs anew for each merge."""
    pairs: list[tuple[int, int]] = []
    while len(pairs) < room:
        counts: Counter[tuple[int, int]] = Counter()
        for sequence, weight in zip(sequences, weights, strict=True):
            for pair in itertools.pairwise(sequence):
                counts[pair] += weight
        if not counts or max(counts.values()) < 2:
            return pairs
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        sequences = [join(sequence, best, first_id + len(pairs)) for sequence in sequences]
        pairs.append(best)
    return pairs


def join(sequence: list[int], pair: tuple[int, int], token: int) -> list[int]:
    joined: list[int] = []
    index = 0
    while index < len(sequence):
        if tuple(sequence[index : index + 2]) == pair:
            joined.append(token)
            index += 2
        else:
            joined.append(sequence[index])
            index += 1
    return joined


@pytest.mark.parametrize("seed", range(60))
def test_learns_the_same_merges_as_the_textbook(seed: int) -> None:
    choose = random.Random(seed)
    sequences = [[choose.randrange(3) for _ in range(choose.randrange(1, 16))] for _ in range(6)]
    weights = [choose.randrange(1, 4) for _ in sequences]
    assert learn._learn(sequences, weights, 10, 12) == learn_slowly(sequences, weights, 10, 12)


def test_pieces_and_words_partition_every_text() -> None:
    choose = random.Random(0)
    alphabet = [
        *map(chr, range(256)),
        "\u0101",
        "\u0102",
        "\u0103",
        "\u0105",
        "\u0110",
        "\uffff",
        "\n",
        "\n",
        " ",
        " ",
    ]
    for _ in range(500):
        base = "".join(choose.choices(alphabet, k=40))
        assert "".join(learn.PIECE.findall(base)) == base
        for piece in learn.PIECE.findall(base):
            assert "".join(learn.WORD.findall(piece)) == piece


def test_keeps_the_tokens_that_save_most() -> None:
    counts = Counter(
        {"pip install numpy\n": 30, "pip install torch\n": 30, "python -m pytest\n": 25, "make all\n": 3}
    )
    tokens = learn.learn_tokens(counts, 266, 266 + 30)
    assert len(tokens) == 30
    segmenter = Segmenter([*map(chr, range(266)), *tokens])
    assert [len(segmenter.encode(line)) for line in list(counts)[:3]] == [1, 1, 1]
    assert tokens == learn.learn_tokens(Counter(dict(reversed(counts.items()))), 266, 266 + 30)


def test_pruning_is_better_than_the_first_merges() -> None:
    counts = Counter(
        {f"echo {'ab' * (i % 5)}{i * 7919 % 97} && make -j{i % 3}\n": 1 + i % 4 for i in range(400)}
    )
    text = "".join(piece * count for piece, count in counts.items())
    first = sorted(learn.merge(counts, 266, 60) - {chr(code) for code in range(266)})
    kept = learn.learn_tokens(counts, 266, 266 + len(first))
    assert len(Segmenter([*map(chr, range(266)), *kept]).encode(text)) < len(
        Segmenter([*map(chr, range(266)), *first]).encode(text)
    )
