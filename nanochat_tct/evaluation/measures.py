"""What a suggestion is worth beside the text that the author wrote.

All measures compare lines after the same normalization, `normal_line`. They are those of the field: exact match and
BLEU as in GH-WCOM (Mastropaolo et al., arXiv 2308.16774), BLEU and "schema correct" as in Ansible Wisdom (Pujar et al.,
arXiv 2305.02783), and edit similarity as in CodeXGLUE (Lu et al., arXiv 2102.04664). GH-WCOM puts placeholders where
authors write paths, URLs and versions; nothing is replaced here, so that a version has to be right too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_BLOCK_HEADER = re.compile(r"(?<=[:-] )([|>])[-+1-9]+$")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FIRST_TOKEN = re.compile(r"[ ]*(?:- +)*(?:[\w-]+|[^\s\w])?")
ORDERS = 4  # of the n-grams of BLEU
RESAMPLES = 1000
CONFIDENCE = 0.95

# What is summed over cuts. Everything that is reported follows from these sums.
SUMS = (
    *("cuts", "right", "among_five", "first_token", "similarity"),
    *("saved", "typed", "accepted", "judged"),
    *(f"matches_{order}" for order in range(1, ORDERS + 1)),
    *(f"ngrams_{order}" for order in range(1, ORDERS + 1)),
    *("length", "author_length"),
)


def normal_line(line: str) -> str:
    """A line without white space at its end, and without the indicators of a block scalar (`|-` becomes `|`)."""
    return _BLOCK_HEADER.sub(r"\1", line.rstrip())


def first_token(line: str) -> str:
    """The indentation and dashes of a line with the first word behind them, or the first character that is of none."""
    found = _FIRST_TOKEN.match(line)
    assert found is not None
    return found[0]


def tokens_of(text: str) -> list[str]:
    """The tokens that BLEU counts: words and single punctuation characters."""
    return _TOKEN.findall(text)


def edit_distance(first: str, second: str) -> int:
    """The Levenshtein distance: how many characters have to be inserted, deleted or replaced."""
    letters = np.array([ord(c) for c in second], dtype=np.int64)
    columns = np.arange(len(letters) + 1)
    row = columns
    for index, letter in enumerate(map(ord, first)):
        best = np.empty_like(row)
        best[0] = index + 1
        best[1:] = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        row = np.minimum.accumulate(best - columns) + columns  # insertions, from left to right
    return int(row[-1])


def edit_similarity(first: str, second: str) -> float:
    """1 - edit distance / length of the longer text: 1 for equal texts, 0 for texts that share nothing."""
    longest = max(len(first), len(second))
    return 1.0 if longest == 0 else 1 - edit_distance(first, second) / longest


def bleu_counts(suggestion: str, author: str) -> list[int]:
    """The counts that corpus BLEU sums up: matching n-grams of each order, all n-grams of each, and both lengths.

    An n-gram matches as often as the author has it (Papineni et al., 2002, "clipped" counts).
    """
    ours, theirs = tokens_of(suggestion), tokens_of(author)
    matches, totals = [], []
    for order in range(1, ORDERS + 1):
        counts, allowed = (
            Counter(tuple(each[at : at + order]) for at in range(len(each) - order + 1))
            for each in (ours, theirs)
        )
        matches.append((counts & allowed).total())
        totals.append(counts.total())
    return [*matches, *totals, len(ours), len(theirs)]


def bleu(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU from summed `bleu_counts`.

    Args:
        sums: float (..., 10).

    Returns:
        float (...), from 0 to 1: the geometric mean of the precisions of 1- to 4-grams, times the brevity penalty.
        0 where an order has no match.
    """
    matches, totals = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, author_length = sums[..., -2], sums[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(matches / totals).mean(-1))
        penalty = np.exp(np.minimum(0.0, 1 - author_length / length))
    return np.where((matches > 0).all(-1), precision * penalty, 0.0)


def keystrokes(lines: Sequence[str]) -> int:
    """What typing some lines takes: their characters, and Enter after each; editors indent by themselves."""
    return sum(len(line.strip()) + 1 for line in lines)


def compare(suggestions: Sequence[Sequence[str]], author: Sequence[str], accepted: bool | None) -> np.ndarray:
    """Compare suggestions for one cut with what the author wrote.

    Args:
        suggestions: best first; each is a number of lines. The first one is the first guess; five count at most.
        author: the author's lines.
        accepted: whether GitHub accepts the first guess; None: this cannot be judged here.

    Returns:
        float (len(SUMS),), to be summed over cuts.

    A person who accepts right suggestions sees the first guess, and accepts it with one key if it is what they want;
    otherwise they type the lines. A wrong suggestion costs nothing, and part of one cannot be accepted.
    """
    wanted = [normal_line(line) for line in author]
    guesses = [[normal_line(line) for line in suggestion] for suggestion in suggestions[:5]]
    guess = guesses[0] if guesses else []
    text, wanted_text = "\n".join(guess), "\n".join(wanted)
    is_right = guess == wanted
    has_first = bool(guess) and first_token(guess[0]) == first_token(wanted[0])
    typed = keystrokes(wanted)
    saved = typed - 1 if is_right else 0
    similarity = edit_similarity(text, wanted_text)
    return np.array(
        [
            *(1, is_right, wanted in guesses, has_first, similarity),
            *(saved, typed, bool(accepted), accepted is not None),
            *bleu_counts(text, wanted_text),
        ],
        dtype=np.float64,
    )


def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The measures from sums over cuts.

    Args:
        sums: float (..., len(SUMS)).

    Returns:
        By name, each (...): right, among_five, first_token (shares of cuts), similarity (mean), keystrokes_saved (share
        of those that the lines take), accepted (share of first guesses that were judged), bleu. NaN where there is
        nothing to divide by.
    """
    column = {name: sums[..., index] for index, name in enumerate(SUMS)}
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {
            name: column[name] / column["cuts"]
            for name in ("right", "among_five", "first_token", "similarity")
        }
        return {
            **shares,
            "bleu": bleu(sums[..., -2 * ORDERS - 2 :]),
            "accepted": column["accepted"] / column["judged"],
            "keystrokes_saved": column["saved"] / column["typed"],
        }


def with_intervals(
    compared: Sequence[np.ndarray], groups: Sequence[str], seed: int = 0
) -> dict[str, list[float]]:
    """The measures over some cuts, with intervals of 95% confidence over groups of cuts.

    The intervals are the percentiles of a bootstrap: cuts of one repository are alike, so whole repositories are drawn,
    with replacement.

    Args:
        compared: what `compare` returned for each cut.
        groups: the repository of each.

    Returns:
        By name of the measure: [value, low, high].
    """
    names = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(names), len(SUMS)))
    np.add.at(sums, [names[group] for group in groups], np.array(compared))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    values, resampled = figures(sums.sum(0)), figures(drawn @ sums)
    tail = 50 * (1 - CONFIDENCE)
    return {
        name: [float(value), *map(float, np.nanpercentile(resampled[name], [tail, 100 - tail]))]
        for name, value in values.items()
        if not np.isnan(value)
    }
