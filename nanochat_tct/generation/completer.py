"""Continue texts with one model: the most probable next lines, or whole sampled documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nanochat_tct.documents import to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import Generated, continue_prompts, num_common, unread
from nanochat_tct.generation.generate import load
from nanochat_tct.generation.insertion import Insertion
from nanochat_tct.generation.prompt import Prompt, encode_prompt
from nanochat_tct.generation.search import BEAM, LEAST_PROBABILITY, SAMPLES, Beginning, Search
from nanochat_tct.generation.validity import document_problem
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


@dataclass(frozen=True)
class Sample:
    """One generated workflow, whose values are computed on first use.

    Attributes:
        prompt: the prompt that it continues.
        generated: its tokens and their probabilities.
        tokenizer: the tokenizer of these tokens.
    """

    prompt: Prompt
    generated: Generated
    tokenizer: AnyTokenizer

    @property
    def tokens(self) -> list[int]:
        """Content tokens, including the prompt's."""
        return self.generated.tokens

    @property
    def completed_by(self) -> Literal["model", "limit", "decode_prefix"]:
        """What ended it: "limit": max_tokens; "decode_prefix": the shortest ending, behind tokens that are cut off."""
        if not self.generated.is_complete:
            return "decode_prefix"
        return "limit" if self.generated.ended_by_limit else "model"

    @cached_property
    def value(self) -> Any:
        """The workflow as a JSON value."""
        decode = self.tokenizer.decode if self.generated.is_complete else self.tokenizer.decode_prefix
        return json.loads(decode(self.tokens)[0])

    @property
    def json(self) -> str:
        """The workflow as compact JSON."""
        return to_json(self.value)

    @cached_property
    def rest(self) -> str | None:
        """What follows the prompt's text, with a line break at its end; None: it cannot follow to the letter."""
        return self.prompt.rest(self.json)

    @property
    def text(self) -> str:
        """The workflow as YAML: the prompt's text and its rest, or written anew if it has none."""
        return to_yaml(self.value) if self.rest is None else self.prompt.text + self.rest

    @cached_property
    def problem(self) -> str | None:
        """What GitHub refuses it for; None if it accepts the workflow."""
        return document_problem(self.value, self.tokenizer)

    @property
    def valid(self) -> bool:
        """Whether GitHub accepts it."""
        return self.problem is None


class Completer:
    """Continues texts with one model, and keeps the state of the last text that `complete` was given.

    A call of `complete` whose text differs from that of the call before in its last part only runs the model on that
    part. It is not made for several threads.

    Args:
        checkpoint: a checkpoint, or the folder of a run: its best one.
        tokenizer: the name of one, or a vocabulary file; None: the checkpoint's.
        device: "cpu", "cuda", or "auto".

    Raises:
        UserError: the checkpoint is not usable, the tokenizer is another one, or the device does not exist.
    """

    def __init__(self, checkpoint: str | Path, tokenizer: str | None = None, device: str = "cpu") -> None:
        self._set_up(*load(str(checkpoint), tokenizer, device)[:2])

    @classmethod
    def from_model(cls, model: GPT, tokenizer: AnyTokenizer) -> Completer:
        """Return a completer of a model that is loaded, on its device."""
        completer = cls.__new__(cls)
        completer._set_up(model, tokenizer)
        return completer

    def _set_up(self, model: GPT, tokenizer: AnyTokenizer) -> None:
        assert tokenizer.vocab_size() == model.config.vocab_size
        self.model, self.any_tokenizer = model.eval(), tokenizer
        self.rows = 1 + 2 * (BEAM + SAMPLES)  # row 0 has the document
        self._tokens: list[int] = []  # that row 0 has read
        self._start = -1  # of its window

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, for what only ours can do.

        Raises:
            UserError: it is a wheel's.
        """
        if not isinstance(self.any_tokenizer, Tokenizer):
            name = self.any_tokenizer.name
            raise UserError(f"completions need a built-in tokenizer or a vocabulary file, not {name!r}")
        return self.any_tokenizer

    @cached_property
    def decoder(self) -> Decoder:
        """Of the search for lines."""
        return Decoder(self.model, self.rows)

    @property
    def max_steps(self) -> int:
        """The most tokens of a completion, for which the decoder's window has to have space."""
        return min(MAX_STEPS, self.decoder.capacity // 4)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        stops: Callable[[int, list[int]], bool] | None = None,
    ) -> Iterator[Sample]:
        """Go on with each prompt to a whole document.

        Args:
            prompts: what `encode_prompt` returns; `Prompt()` for a document from scratch. Sample i is a function of
                (weights, prompt, sampling, i), bit for bit.
            stops: given the index of a prompt and all tokens of its document so far, whether no more are needed.

        Yields:
            The samples in the order of their prompts, each as soon as it and all before it are done.

        Raises:
            UserError: the shortest document has more than max_tokens.
        """
        done: dict[int, Generated] = {}
        next_index = 0
        for index, generated in continue_prompts(self.model, self.any_tokenizer, prompts, sampling, stops):
            done[index] = generated
            while next_index in done:
                yield Sample(prompts[next_index], done.pop(next_index), self.any_tokenizer)
                next_index += 1

    def text_after(self, prompt: Prompt, tokens: list[int]) -> str:
        """What a document's tokens have written behind a prompt's text: its complete lines, see `Prompt.rest`.

        Returns:
            It ends with a line break if the document is whole; it is "" if it cannot follow the text to the letter.
        """
        base = self.tokenizer.segmenter.decode(tokens)
        return prompt.rest(self.tokenizer.engine.read(base, checks_graph=False)[1]) or ""

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
            UserError: the position is outside the text, n or max_lines is less than 1, or the tokenizer is a wheel's.
        """
        position = len(text) if position is None else position
        if not 0 <= position <= len(text):
            raise UserError(f"position is {position}: the text has {len(text)} characters")
        if n < 1 or max_lines < 1:
            raise UserError(f"n is {n} and max_lines is {max_lines}: both must be at least 1")
        tokenizer = self.tokenizer
        try:
            prompt = encode_prompt(text[:position], tokenizer, "the text", may_drop=False)
        except UserError:
            return []
        if prompt.is_whole:
            return []
        tokens, taken_back = tokenizer.heal(prompt.tokens)
        lenient = tokenizer.matcher(tokens)
        matcher = lenient.copy()
        matcher.expect(*(taken_back + ending for ending in prompt.endings or ("",)))
        search = self.search(prompt.insertions, n, max_lines, least)
        base = tokenizer.segmenter.decode(tokens)
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
