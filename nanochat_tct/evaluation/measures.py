"""What a suggestion is worth beside the text that the author wrote.

All measures compare lines after the same normalization, `normal_line`. They are those of the field: exact match and
BLEU as in GH-WCOM (Mastropaolo et al., arXiv 2308.16774), BLEU and "schema correct" as in Ansible Wisdom (Pujar et al.,
arXiv 2305.02783), and edit similarity as in CodeXGLUE (Lu et al., arXiv 2102.04664). GH-WCOM puts placeholders where
authors write paths, URLs and versions; nothing is replaced here, so that a version has to be right too.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

_BLOCK_HEADER = re.compile(r"(?<=[:-] )([|>])[-+1-9]+$")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FIRST_TOKEN = re.compile(r"[ ]*(?:- +)*(?:[\w-]+|[^\s\w])?")
ORDERS = 4  # of the n-grams of BLEU
RESAMPLES = 1000
CONFIDENCE = 0.95
BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of probabilities; most suggestions have a low one

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
    """The Levenshtein distance: how many characters have to be inserted, deleted or replaced.

    A column of the table of distances is kept as bits that say where it rises and falls by one from row to row (Myers,
    1999, in the form of Hyyrö, 2003).
    """
    if not first:
        return len(second)
    rows: dict[str, int] = {}  # of each letter, a bit for each position in `first`
    for position, letter in enumerate(first):
        rows[letter] = rows.get(letter, 0) | 1 << position
    every, last = (1 << len(first)) - 1, 1 << len(first) - 1
    rises, falls, distance = every, 0, len(first)
    for letter in second:
        equal = rows.get(letter, 0)
        diagonal = (
            (((equal & rises) + rises) ^ rises) | equal | falls
        )  # no more than the one before the letter
        up, down = falls | ~(diagonal | rises) & every, rises & diagonal  # from the column before
        distance += bool(up & last) - bool(down & last)
        up, down = up << 1 | 1, down << 1
        rises, falls = (down | ~((equal | falls) | up)) & every, up & (equal | falls)
    return distance


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
    totals, resampled = _bootstrap(compared, groups, seed)
    values, drawn = figures(totals), figures(resampled)
    return {
        name: _with_interval(float(value), drawn[name])
        for name, value in values.items()
        if not np.isnan(value)
    }


def reliability(suggestions: Sequence[tuple[float, bool, str]], seed: int = 0) -> list[dict[str, Any]]:
    """Compare the probabilities of suggestions with the share of them that is right.

    Args:
        suggestions: of each its probability, whether it is what the author wrote, and the repository.

    Returns:
        For each bin of probabilities that has suggestions: probabilities, its bounds; suggestions, how many there are;
        expected, their mean probability; right, the share that is right, as [value, low, high] (see `with_intervals`).
    """
    rows = []
    for low, high in itertools.pairwise(BINS):
        inside = [each for each in suggestions if low <= each[0] < high or each[0] == high == 1]
        if inside:
            sums = [np.array([1.0, is_right]) for _, is_right, _ in inside]
            (count, right), resampled = _bootstrap(sums, [group for _, _, group in inside], seed)
            rows.append(
                {
                    "probabilities": [low, high],
                    "suggestions": len(inside),
                    "expected": float(sum(probability for probability, _, _ in inside) / count),
                    "right": _with_interval(right / count, resampled[:, 1] / resampled[:, 0]),
                }
            )
    return rows


def _bootstrap(sums: Sequence[np.ndarray], groups: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the total (N,) of some sums, and those of groups that are drawn with replacement (RESAMPLES, N)."""
    names = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    of_groups = np.zeros((len(names), len(sums[0])))
    np.add.at(of_groups, [names[group] for group in groups], np.array(sums))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    return of_groups.sum(0), drawn @ of_groups


def _with_interval(value: float, resampled: np.ndarray) -> list[float]:
    tail = 50 * (1 - CONFIDENCE)
    return [float(value), *map(float, np.nanpercentile(resampled, [tail, 100 - tail]))]
