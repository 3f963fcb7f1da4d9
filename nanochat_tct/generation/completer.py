"""Completions of a workflow that is being written: the most probable next lines, as edits of its text."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nanochat_tct.errors import UserError
from nanochat_tct.generation.engine import window_start
from nanochat_tct.generation.generate import load
from nanochat_tct.generation.insertion import Insertion, Unwritable
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.generation.sampling import masked_log_probs
from nanochat_tct.model.decoder import Decoder
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import Tokenizer as AnyTokenizer
from nanochat_tct.tokenizer.tokenizer import Tokenizer, TokenMatcher

BEAM = 8  # beginnings of completions that are followed at the same time
BRANCHES = 16  # tokens that are tried behind each of them
MAX_STEPS = 64  # tokens of a completion
LEAST_PROBABILITY = 1e-3  # of a beginning that is followed
NEAR = 32  # last tokens of a document that may change as it goes on


@dataclass(frozen=True)
class Completion:
    """What to insert, and how probable it is.

    Attributes:
        text: the rest of the line, or, where nothing is missing there, a line break and the next line.
        probability: that of the model's document going on with just these lines, among all valid documents that go on
            from the text. Those of different completions are of different events; they sum to at most 1.
    """

    text: str
    probability: float


class Beginning:
    """A completion that is not complete: its tokens, their probability, and its row in the decoder."""

    def __init__(
        self, base: str, matcher: TokenMatcher, probability: float, row: int, token: int | None
    ) -> None:
        self.base, self.matcher, self.probability = base, matcher, probability
        self.row, self.token = row, token


class Completer:
    """Completes texts with one model, and keeps what it has read of the last one.

    A call whose text differs from that of the call before in its last part only runs the model on that part.
    It is not made for several threads.

    Args:
        checkpoint: a checkpoint, or the folder of a run: its best one.
        tokenizer: the name of one, or a vocabulary file; None: the checkpoint's.
        device: "cpu", "cuda", or "auto".

    Raises:
        UserError: the checkpoint is not usable, the tokenizer is another one, or the device does not exist.
    """

    def __init__(self, checkpoint: str | Path, tokenizer: str | None = None, device: str = "cpu") -> None:
        model, loaded, _ = load(str(checkpoint), tokenizer, device)
        self._set_up(model, _own(loaded))

    @classmethod
    def from_model(cls, model: GPT, tokenizer: AnyTokenizer) -> Completer:
        """Return a completer of a model that is loaded, on its device.

        Raises:
            UserError: the tokenizer is a wheel's.
        """
        completer = cls.__new__(cls)
        completer._set_up(model, _own(tokenizer))
        return completer

    def _set_up(self, model: GPT, tokenizer: Tokenizer) -> None:
        assert tokenizer.vocab_size() == model.config.vocab_size
        self.model, self.tokenizer = model.eval(), tokenizer
        self.decoder = Decoder(model, 1 + 2 * BEAM)  # row 0 has the document
        self.max_steps = min(MAX_STEPS, self.decoder.capacity // 4)  # for which the window has to have space
        self._tokens: list[int] = []  # that row 0 has read
        self._start = -1  # of its window
        self._matcher = tokenizer.matcher()  # after the first tokens of the document
        self._matched: list[int] = []
        self.first_characters = np.array([ord(text[0]) for text in tokenizer.expansions])  # of each token

    @torch.inference_mode()
    def complete(
        self, text: str, position: int | None = None, n: int = 3, max_lines: int = 1
    ) -> list[Completion]:
        """Return the n most probable ways to go on at a position, the best one first.

        Inserted at the position, each gives a text that begins a valid workflow. What stands behind the position does
        not count yet: a completion is of the text before it.

        Args:
            text: YAML or JSON.
            position: index of a character of the text, before which to insert; None: its end.
            n: at most so many completions; fewer if no others have a probability of 0.1% or more.
            max_lines: lines of a completion; with more than one, each completion ends after so many, or with the
                document.

        Returns:
            No completions if the text before the position does not begin a workflow, or is a whole one.

        Raises:
            UserError: the position is outside the text, or n or max_lines is less than 1.
        """
        position = len(text) if position is None else position
        if not 0 <= position <= len(text):
            raise UserError(f"position is {position}: the text has {len(text)} characters")
        if n < 1 or max_lines < 1:
            raise UserError(f"n is {n} and max_lines is {max_lines}: both must be at least 1")
        before = text[:position].replace("\r\n", "\n")
        try:
            prompt = encode_prompt(before, self.tokenizer, "the text")
        except UserError:
            return []
        if prompt.dropped or prompt.reason or prompt.is_whole:
            return []
        insertions = []
        for reading, value in prompt.readings or [(None, None)]:
            try:
                insertions.append(Insertion(before.removeprefix("\ufeff"), reading, value))
            except Unwritable:
                continue
        tokens, taken_back = self.tokenizer.heal(prompt.tokens)
        matcher = self._matcher_after(tokens)
        matcher.expect(*(taken_back + ending for ending in prompt.endings or ("",)))
        search = self.search(insertions, n, max_lines)
        base = self.tokenizer.segmenter.decode(tokens)
        found = search.run(Beginning(base, matcher, 1.0, 0, None), self.read(tokens))
        newline = "\r\n" if "\r\n" in text else "\n"
        best = sorted(found.items(), key=lambda each: -each[1])[:n]
        return [Completion(each.replace("\n", newline), probability) for each, probability in best]

    def search(self, insertions: list[Insertion], n: int, max_lines: int) -> Search:
        """The search for completions; a benchmark puts another one here."""
        return Search(self, insertions, n, max_lines)

    def _matcher_after(self, tokens: list[int]) -> TokenMatcher:
        """A matcher that has read the document's tokens."""
        stable = tokens[: max(0, len(tokens) - NEAR)]
        if stable[: len(self._matched)] != self._matched:
            self._matcher, self._matched = self.tokenizer.matcher(), []
        for token in stable[len(self._matched) :]:
            self._matcher.advance(token)
        self._matched = stable
        if len(tokens) == len(stable):
            return self.tokenizer.matcher()
        matcher = self._matcher.after(tokens[len(stable)])
        for token in tokens[len(stable) + 1 :]:
            matcher.advance(token)
        return matcher

    def read(self, tokens: list[int]) -> Tensor:
        """Have the decoder read the document, as far as it has not; return the logits (1, vocab_size) behind it."""
        start = window_start(len(tokens) + self.max_steps, self.decoder.capacity)
        pairs = zip(self._tokens, tokens, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        common = min(common, len(tokens) - 1)  # the last one again, for its logits
        is_kept = start == self._start and common >= start
        chunk = tokens[common:] if is_kept else [self.decoder.vocab_size + start, *tokens[start:]]
        self.decoder.lengths[0] = common - start + 1 if is_kept else 0
        self._tokens, self._start = tokens, start
        return self.decoder.extend([(0, chunk)])


def _own(tokenizer: AnyTokenizer) -> Tokenizer:
    """The tokenizer, if it is one of ours."""
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f"completions need a built-in tokenizer or a vocabulary file, not {tokenizer.name!r}")
    return tokenizer


class Search:
    """A beam search over tokens for the most probable insertions.

    Different tokens may write the same text, and many tokens end a line: the probability of an insertion is the sum
    over all ways to write it that the search has met. It follows the BEAM most probable beginnings, and ends as soon
    as none of them can come to more than the n-th best insertion has.
    """

    def __init__(self, completer: Completer, insertions: list[Insertion], n: int, max_lines: int) -> None:
        self.completer, self.insertions = completer, insertions
        self.n, self.max_lines = n, max_lines
        self.found: dict[str, float] = {}

    def run(self, document: Beginning, logits: Tensor) -> dict[str, float]:
        """Return insertions and their probabilities.

        Args:
            document: what stands before.
            logits: (1, vocab_size) of the token after it.
        """
        decoder = self.completer.decoder
        beginnings, all_logits = [document], logits
        depth = 0
        while beginnings and depth < self.completer.max_steps:
            following: list[Beginning] = []
            for beginning, row_logits in zip(beginnings, all_logits.split(1), strict=True):
                following += self.branches(beginning, row_logits)
            best = sorted(self.found.values(), reverse=True)
            least = best[self.n - 1] if len(best) >= self.n else 0.0
            following.sort(key=lambda each: -each.probability)
            beginnings = [
                each for each in following[:BEAM] if each.probability > max(least, LEAST_PROBABILITY)
            ]
            if not beginnings:
                break
            depth += 1
            free = [row for row in range(1, 1 + 2 * BEAM) if all(row != each.row for each in beginnings)]
            taken: set[int] = {0}
            chunks = []
            for each in beginnings:
                parent = each.row
                if parent in taken:
                    each.row = free.pop()
                    decoder.copy_row(parent, each.row)
                taken.add(each.row)
            for each in beginnings:
                assert each.token is not None
                chunks.append((each.row, [each.token]))
            all_logits = decoder.extend(chunks)
        return self.found

    def branches(self, beginning: Beginning, logits: Tensor) -> list[Beginning]:
        """Try the most probable tokens behind a beginning; keep what is complete, return what is not."""
        completer = self.completer
        legal = beginning.matcher.legal()
        if not legal.any():
            return []
        tile = torch.zeros(completer.decoder.tile, logits.size(1), device=logits.device)
        tile[0] = logits[0]
        allowed = torch.from_numpy(legal).expand(len(tile), -1).to(logits.device)
        probabilities = masked_log_probs(tile, allowed)[0].exp().cpu()
        top = probabilities.topk(min(BRANCHES, int(legal.sum())))
        following = []
        ends: dict[str, bool] = {}  # first base tokens that complete an insertion by themselves
        for probability, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            if beginning.probability * probability < LEAST_PROBABILITY:
                break
            text = completer.tokenizer.expansions[token]
            first = text[0]
            if first not in ends:
                ends[first] = self.keep_group(beginning, first, probabilities)
            if ends[first]:
                continue
            written = self.write(beginning.base + text)
            if written is None:
                continue
            insertion, is_complete = written
            total = beginning.probability * probability
            if is_complete:
                self.found[insertion] = self.found.get(insertion, 0.0) + total
            else:
                matcher = beginning.matcher.after(token)
                if not matcher.is_complete:
                    following.append(Beginning(beginning.base + text, matcher, total, beginning.row, token))
        return following

    def keep_group(self, beginning: Beginning, first: str, probabilities: Tensor) -> bool:
        """Whether a base token completes an insertion: then all tokens that begin with it do, and count together."""
        written = self.write(beginning.base + first)
        if written is None or not written[1]:
            return False
        total = float(probabilities.numpy()[self.completer.first_characters == ord(first)].sum())
        self.found[written[0]] = self.found.get(written[0], 0.0) + beginning.probability * total
        return True

    def write(self, base: str) -> tuple[str, bool] | None:
        """Return the insertion for a document that begins with base tokens, and whether it is complete; None: it
        cannot be written."""
        _, json_text, consumed = self.completer.tokenizer.engine.read(base, checks_graph=False)
        if consumed != len(base):
            return None
        is_short = False
        for insertion in self.insertions:
            try:
                written = insertion.write(json_text, self.max_lines)
            except Unwritable:
                continue
            if written is not None:
                return written
            is_short = True
        return ("", False) if is_short else None
