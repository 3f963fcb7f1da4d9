"""Completions of a workflow that is being written: the most probable next lines, as edits of its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nanochat_tct.errors import UserError
from nanochat_tct.generation.engine import num_common, unread
from nanochat_tct.generation.generate import load
from nanochat_tct.generation.insertion import Insertion, Unwritable
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.generation.search import BEAM, LEAST_PROBABILITY, SAMPLES, Beginning, Search
from nanochat_tct.model.decoder import Decoder
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import Tokenizer as AnyTokenizer
from nanochat_tct.tokenizer.tokenizer import Tokenizer

MAX_STEPS = 64  # tokens of a completion


@dataclass(frozen=True)
class Completion:
    """What to insert, and how probable it is.

    Attributes:
        text: the rest of the line, or, where nothing is missing there, a line break and the next line.
        probability: that of the model's document going on with just these lines, among all that GitHub accepts and that
            go on from the text, also those that its language service warns of: these are not suggested, and keep their
            share. Those of different completions are of different events; they sum to at most 1.
    """

    text: str
    probability: float


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
        self.rows = 1 + 2 * (BEAM + SAMPLES)  # row 0 has the document
        self.decoder = Decoder(model, self.rows)
        self.max_steps = min(MAX_STEPS, self.decoder.capacity // 4)  # for which the window has to have space
        self._tokens: list[int] = []  # that row 0 has read
        self._start = -1  # of its window

    @torch.inference_mode()
    def complete(
        self,
        text: str,
        position: int | None = None,
        n: int = 3,
        max_lines: int = 1,
        least: float = LEAST_PROBABILITY,
    ) -> list[Completion]:
        """Return the n most probable ways to go on at a position, the best one first.

        Inserted at the position, each gives a text that begins a valid workflow. What stands behind the position does
        not count yet: a completion is of the text before it.

        Args:
            text: YAML or JSON.
            position: index of a character of the text, before which to insert; None: its end.
            n: at most so many completions; fewer if no others are as probable as `least`.
            max_lines: lines of a completion; with more than one, each completion ends after so many, or with the
                document.
            least: the probability that a completion must have, 0.1% or more; a higher one takes less time.

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
        lenient = self.tokenizer.matcher(tokens)
        matcher = lenient.copy()
        matcher.expect(*(taken_back + ending for ending in prompt.endings or ("",)))
        search = self.search(insertions, n, max_lines, least)
        base = self.tokenizer.segmenter.decode(tokens)
        found = search.run(Beginning(base, matcher, lenient), self.read(tokens))
        newline = "\r\n" if "\r\n" in text else "\n"
        completions = [Completion(each.replace("\n", newline), found[each]) for each in found]
        completions.sort(key=lambda each: -each.probability)
        return [each for each in completions[:n] if each.probability >= least]

    def search(self, insertions: list[Insertion], n: int, max_lines: int, least: float) -> Search:
        """The search for completions; a benchmark puts another one here."""
        return Search(self, insertions, n, max_lines, least)

    def read(self, tokens: list[int]) -> Tensor:
        """Have the decoder read the document, as far as it has not; return the logits (1, vocab_size) behind it."""
        num_read = num_common(self._tokens, tokens)
        self._start, chunk = unread(self.decoder, 0, self._start, num_read, tokens, self.max_steps)
        self._tokens = tokens
        return self.decoder.extend([(0, chunk)])


def _own(tokenizer: AnyTokenizer) -> Tokenizer:
    """The tokenizer, if it is one of ours."""
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f"completions need a built-in tokenizer or a vocabulary file, not {tokenizer.name!r}")
    return tokenizer
