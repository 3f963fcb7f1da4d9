"""The search for the most probable lines behind a text, over the tokens that may write them."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nanochat_tct.generation.insertion import Insertion, Unwritable, Written
from nanochat_tct.generation.sampling import masked_log_probs
from nanochat_tct.tokenizer.engine import END, Matcher
from nanochat_tct.tokenizer.token_trie import TrieNode
from nanochat_tct.tokenizer.tokenizer import TokenMatcher

if TYPE_CHECKING:
    from nanochat_tct.generation.completer import Completer

BEAM = 8  # beginnings of insertions that are followed at the same time
SAMPLES = 8  # beginnings that are drawn besides, for texts that an insertion does not show
LEAST_PROBABILITY = 1e-3  # of a completion
LEAST_PART = 1 / 8  # of a completion's probability: what has less is not looked at
PATIENCE = 10  # steps after which no more are drawn if no header was found
MOST_DRAWN = 24  # steps after which no more are drawn
LEAST_DRAWN = 0.04  # of all beginnings that are drawn together; what is less is left out

_ENDING = re.compile(
    r"[^\x00-\x09\x0b-\xff]"
)  # a base token that may end a line: a newline, or no byte at all


class Beginning:
    """An insertion that is not complete.

    Attributes:
        base: the base tokens of the document up to there.
        matcher: after them.
        lenient: the same without `expect`: legal is what some valid document has here, as in training.
        probability: of these tokens behind the text.
        weight: the probability of all those beginnings for which this one stands; more than its own if it was drawn.
        is_hidden: see `Written`.
        row: the decoder's, which has read the tokens except the last one.
        token: the last one; None: it is read.
    """

    def __init__(
        self,
        base: str,
        matcher: TokenMatcher,
        lenient: TokenMatcher,
        probability: float = 1.0,
        weight: float = 1.0,
        is_hidden: bool = False,
        row: int = 0,
        token: int | None = None,
    ) -> None:
        self.base, self.matcher, self.lenient = base, matcher, lenient
        self.probability, self.weight = probability, weight
        self.is_hidden, self.row, self.token = is_hidden, row, token


class Search:
    """A beam search over tokens for the most probable insertions.

    Many tokens write the same insertion, or its beginning. The probability of an insertion is the sum over all of them:
    at each step all tokens with a common beginning count together as soon as that beginning completes an insertion. The
    search follows the BEAM most probable beginnings, and ends as soon as none of them can come to more than the n-th
    best insertion has.

    The header of a block scalar (`run: |`) shows nothing of its text, of which the first line has to be written before
    it is certain that there are more. No single first line may be probable. So behind what the beam follows, SAMPLES
    more beginnings of such texts are drawn, each standing for an equal part of the probability of all the others: the
    probability of a header is an estimate without bias.
    """

    def __init__(
        self, completer: Completer, insertions: list[Insertion], n: int, max_lines: int, least: float
    ) -> None:
        self.completer, self.insertions = completer, insertions
        self.n, self.max_lines = n, max_lines
        self.least = least  # probability of an insertion
        self.least_part = max(LEAST_PROBABILITY, LEAST_PART * least)  # of a beginning that is followed
        self.found: dict[str, float] = {}
        self.found_headers = 0.0  # their probability in all
        self.random = np.random.default_rng(0)

    def run(self, document: Beginning, logits: Tensor) -> dict[str, float]:
        """Return insertions and their probabilities.

        Args:
            document: what stands before.
            logits: (1, vocab_size) of the token after it.
        """
        decoder = self.completer.decoder
        self.document = document.base
        beginnings, all_logits = self.ends_of_text(document, logits)
        for step in range(self.completer.max_steps - len(beginnings)):
            is_drawing = step < (MOST_DRAWN if self.found_headers > LEAST_DRAWN else PATIENCE)
            beginnings = self.following(beginnings, all_logits, is_drawing)
            if not beginnings:
                break
            free = list(set(range(1, self.completer.rows)) - {each.row for each in beginnings})
            taken = {0}
            for each in beginnings:
                if each.row in taken:
                    parent, each.row = each.row, free.pop()
                    decoder.copy_row(parent, each.row)
                taken.add(each.row)
            all_logits = decoder.extend([(b.row, [b.token]) for b in beginnings if b.token is not None])
        return self.found

    def ends_of_text(self, document: Beginning, logits: Tensor) -> tuple[list[Beginning], Tensor]:
        """Find the ways to write what is left of the text, up to the token that reaches its end.

        Args: see `run`.

        Returns:
            The beginnings before these last tokens, with the probability of each way, given that the document has the
            text; and their logits (N, vocab_size).
        """
        decoder = self.completer.decoder
        found, all_logits, at, total = [document], [logits], 0, 0.0
        while at < len(found):
            before = found[at]
            probabilities = self.probabilities([before], all_logits[at])[0].astype(np.float64)
            probabilities *= before.matcher.fitting()
            for token in before.matcher.unfinished():
                if len(found) < BEAM and probabilities[token] > 0:
                    probability = before.probability * float(probabilities[token])
                    base, row = before.base + self.completer.tokenizer.expansions[token], len(found)
                    matchers = before.matcher.after(token), before.lenient.after(token)
                    found.append(Beginning(base, *matchers, probability, probability, row=row))
                    decoder.copy_row(before.row, row)
                    all_logits.append(decoder.extend([(row, [token])]))
                probabilities[token] = 0
            total += before.probability * probabilities.sum()
            at += 1
        if total > 0:
            for each in found:
                each.probability = each.weight = each.probability / total
        return found, torch.cat(all_logits)

    def probabilities(self, beginnings: list[Beginning], logits: Tensor) -> np.ndarray:
        """The probability of each token behind some beginnings, float32 (N, vocab_size), by their logits.

        Tokens that are possible, but not legal, keep what the model gives them: where few tokens are legal, none of
        them becomes probable for that.
        """
        possible = torch.from_numpy(np.stack([each.lenient.legal() for each in beginnings]))
        return masked_log_probs(logits, possible.to(logits.device)).exp_().cpu().numpy()

    def nth_best(self) -> float:
        """The probability of the n-th best insertion, as far as it is found."""
        best = sorted(self.found.values(), reverse=True)
        return best[self.n - 1] if len(best) >= self.n else 0.0

    def following(self, beginnings: list[Beginning], all_logits: Tensor, is_drawing: bool) -> list[Beginning]:
        """Keep what one more token completes, and return the beginnings to follow."""
        probabilities = self.probabilities(beginnings, all_logits)
        steps = [_Step(self, *each) for each in zip(beginnings, probabilities, strict=True)]
        candidates = [
            (step.probability_of(index), step, index) for step in steps for index in step.open_tokens
        ]
        candidates.sort(key=lambda each: -each[0])
        least = max(self.least_part, self.nth_best())
        kept = [(step, index) for probability, step, index in candidates[:BEAM] if probability > least]
        hidden = [step for step in steps if step.is_hidden.any()]
        headers = self.found_headers + sum(float(step.weights @ step.is_hidden) for step in hidden)  # at most
        followed = [step.beginning_after(index, float(step.weights[index])) for step, index in kept]
        for step, index in kept:
            step.is_hidden[index] = False  # none of those that are drawn stands for it
        drawn = self.drawn(hidden) if hidden and is_drawing and headers >= self.least else []
        return [each for each in followed if each is not None] + drawn

    def drawn(self, steps: list[_Step]) -> list[Beginning]:
        """Draw beginnings of texts that an insertion does not show from those that are not followed anyway."""
        weights = np.empty((len(steps), len(steps[0].weights)))
        for step, row in zip(steps, weights, strict=True):
            np.multiply(step.weights, step.is_hidden, out=row)
        summed = weights.cumsum()
        if summed[-1] < LEAST_DRAWN:
            return []
        weight = summed[-1] / SAMPLES
        positions = weight * (self.random.random() + np.arange(SAMPLES))
        picked, counts = np.unique(np.searchsorted(summed, positions, side="right"), return_counts=True)
        found = []
        for index, count in zip(picked.tolist(), counts.tolist(), strict=True):
            step = steps[index // len(steps[0].weights)]
            each = step.drawn(index % len(steps[0].weights), weight * count)
            found += [each] if each is not None else []
        return found

    def add(self, written: Written, probability: float) -> None:
        """Count the probability of a complete insertion."""
        self.found[written.text] = self.found.get(written.text, 0.0) + float(probability)
        if written.is_hidden:
            self.found_headers += float(probability)

    @cached_property
    def read_once(self) -> tuple[int, str, Matcher]:
        """What all insertions have in common: the document's base tokens up to its last key or value, where it is not
        in a number; how many they are, their JSON, and a matcher behind them."""
        engine, base = self.completer.tokenizer.engine, self.document
        length = next((at for at in reversed(range(len(base))) if base[at] > END), 0)
        matcher = engine.matcher()
        assert matcher.advance(base[:length])
        return length, engine.read(base[:length])[1], matcher

    def write(self, base: str) -> Written | None:
        """Return the insertion for a document that begins with base tokens; None: it cannot be written."""
        length, before, matcher = self.read_once
        engine, rest = self.completer.tokenizer.engine, base[length:]
        _, json_text, consumed = engine.read(rest, checks_graph=False, behind=matcher)
        if consumed != len(rest):
            return None
        is_short = False
        for insertion in self.insertions:
            try:
                written = insertion.write(before + json_text, self.max_lines)
            except Unwritable:
                continue
            if written is not None:
                return written
            is_short = True
        return Written("", False, False) if is_short else None


class _Step:
    """The tokens that may follow a beginning, in the order of the trie.

    Attributes:
        weights: (vocab_size,) the probability of each, times the beginning's weight.
        is_hidden: (vocab_size,) whether an insertion with this token may come to be the header of a text.
        open_tokens: those that complete no insertion, and are probable enough to be followed.
    """

    def __init__(self, search: Search, beginning: Beginning, probabilities: np.ndarray) -> None:
        self.search, self.beginning = search, beginning
        self.share = beginning.probability / beginning.weight
        self.trie = search.completer.tokenizer.trie
        probabilities = probabilities * beginning.matcher.legal()
        if unfinished := beginning.matcher.unfinished():
            probabilities[unfinished] = 0  # `ends_of_text` has these
        self.weights = probabilities[self.trie.order].astype(np.float64)
        if beginning.is_hidden and (legal := probabilities.astype(np.float64).sum()) > 0:
            # What is below a header is not suggested, so it may be illegal: the legal tokens stand for all of it.
            self.weights /= legal
            self.share *= legal
        self.weights *= beginning.weight
        self.is_hidden = np.full(len(self.weights), beginning.is_hidden)
        self.open_tokens: list[int] = []
        self.summed = np.zeros(len(self.weights) + 1)  # of the weights before each
        self.weights.cumsum(out=self.summed[1:])
        self.visit(self.trie.root)

    @property
    def least(self) -> float:
        """What is less than this has no part in the result that would count."""
        least = max(self.search.least_part, LEAST_PART * self.search.nth_best())
        return least if self.share == 1 else min(LEAST_DRAWN, least / self.share)

    def probability_of(self, index: int) -> float:
        """The probability of the beginning with a token, given as its index in the order of the trie."""
        return float(self.weights[index]) * self.share

    def beginning_after(self, index: int, weight: float) -> Beginning | None:
        """The beginning with one more token; None if the document ends with it."""
        before, token = self.beginning, int(self.trie.order[index])
        matcher = before.matcher.after(token)
        if matcher.is_complete:
            return None
        base, probability = before.base + self.trie.texts[index], self.probability_of(index)
        lenient, is_hidden = before.lenient.after(token), bool(self.is_hidden[index])
        return Beginning(base, matcher, lenient, probability, weight, is_hidden, before.row, token)

    def write(self, text: str, length: int, is_hidden: bool) -> Written | None:
        """See `Search.write`.

        Args:
            text: what follows the beginning.
            length: of that part of it for which `is_hidden` says what `Written` does.
        """
        if is_hidden and not _ENDING.search(text, length):
            return Written("", False, True)  # a line ends neither at a letter nor in the middle of a scalar
        return self.search.write(self.beginning.base + text)

    def visit(self, node: TrieNode, length: int = 0) -> None:
        """Keep the insertions that are complete with the texts of a node's tokens; find those that are not.

        Args:
            length: of what its parent has of its text.
        """
        weight, least = self.summed[node.end] - self.summed[node.begin], self.least
        if weight < least:
            return
        children = node.children
        begins, ends = node.bounds
        weights = self.summed[ends] - self.summed[begins] if children else np.zeros(0)
        heaviest = int(weights.argmax()) if children else 0
        if children and weights[heaviest] > (1 - 1e-9) * weight:
            self.visit(children[heaviest], length)  # what there is in between can be nothing else
            return
        if node.text:
            written = self.write(node.text, length, bool(self.is_hidden[node.begin]))
            here = slice(node.begin, node.end)
            if written is None or written.is_complete:
                self.is_hidden[here] = False
                if written is not None:
                    self.search.add(written, weight * (1.0 if written.is_hidden else self.share))
                return
            self.is_hidden[here] = written.is_hidden
            if node.is_token and self.weights[node.begin] > 0:
                self.open_tokens.append(node.begin)
        if count := int((weights >= least).sum()):
            for index in np.argsort(-weights)[:count].tolist():
                self.visit(children[index], len(node.text))

    def drawn(self, index: int, weight: float) -> Beginning | None:
        """The beginning with a token that was drawn, if it may still come to be the header of a text.

        Args:
            index: the token, in the order of the trie.
            weight: of those for which it stands.
        """
        written = self.write(self.trie.texts[index], 0, self.beginning.is_hidden)
        if written is None or not written.is_hidden:
            return None
        if written.is_complete:
            self.search.add(written, weight)
            return None
        return self.beginning_after(index, weight)
