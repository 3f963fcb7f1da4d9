import itertools
import random
from collections import Counter

import pytest

from nanochat_tct.tokenizer import merges
from nanochat_tct.tokenizer.merges import Merges


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
    assert merges._learn(sequences, weights, 10, 12) == learn_slowly(sequences, weights, 10, 12)


@pytest.mark.parametrize("seed", range(20))
def test_short_and_long_sequences_are_joined_alike_in_order_of_rank(seed: int) -> None:
    choose = random.Random(seed)
    sequences = [[choose.randrange(4) for _ in range(60)] for _ in range(4)]
    pairs = merges._learn(sequences, [1] * 4, 10, 30)
    made = {pair: 10 + rank for rank, pair in enumerate(pairs)}
    for sequence in sequences:
        expected = sequence
        for pair, token in made.items():
            expected = join(expected, pair, token)
        assert merges._apply(sequence, made) == expected
        assert merges._apply_long(sequence, made) == expected


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
        assert "".join(merges.PIECE.findall(base)) == base
        for piece in merges.PIECE.findall(base):
            assert "".join(merges.WORD.findall(piece)) == piece


def test_caches_are_bounded_and_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["pip install numpy\n", "pip install torch\n", "python -m pytest\n"] * 3
    pairs, word_merges = merges.learn(Counter(lines), 256, 300, 0.5)
    base = "".join(lines)
    expected = Merges(256, pairs, word_merges).encode(base)
    monkeypatch.setattr(merges, "MAX_CACHED_PIECES", 2)
    monkeypatch.setattr(merges, "MAX_CACHED_WORDS", 2)
    small = Merges(256, pairs, word_merges)
    for _ in range(3):
        assert small.encode(base) == expected
    assert len(small._pieces) <= 2 and len(small._words) <= 2
    assert small.decode(expected) == base
    assert len(expected) < len(base)
