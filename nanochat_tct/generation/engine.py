"""Sample workflows token by token under the grammar, with a key-value cache.

Each sample is a function of the weights, the prompt, the settings and its index alone, bit for bit: the decoder's
results do not depend on the batch (see decoder.py), what is drawn on the device has one shape, and each sample has its
own random stream.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat_tct.errors import UserError
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.generation.sampling import draw, masked_log_probs
from nanochat_tct.model.decoder import Decoder
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import Tokenizer, TokenMatcher

MAX_ROWS = 16  # samples at the same time
MAX_REJECTED = 64  # draws that leave no tokens to end the document, before the shortest ending is taken


@dataclass(frozen=True)
class Generated:
    """The content tokens of one document, including the prompt.

    Attributes:
        is_complete: False only for a document cut off at max_tokens, with a tokenizer that cannot end documents.
        ended_by_limit: max_tokens restricted which tokens could be drawn.
        log_probs: of the generated tokens, the last ones of `tokens`: the natural logarithm of each one's probability
            among the legal tokens at temperature 1; 0 where grammar or max_tokens left one only. (The model may
            choose the last tokens of the prompt again; then these count as generated.)
    """

    tokens: list[int]
    is_complete: bool
    ended_by_limit: bool = False
    log_probs: tuple[float, ...] = ()

    @property
    def log_prob(self) -> float:
        """The log-probability of everything that was generated."""
        return sum(self.log_probs)


def window_start(length: int, capacity: int) -> int:
    """Return which token the model's window begins with, for the token after `length` tokens of a document.

    A document that outgrows the context is read in a window that moves by half the context at a time, after a
    position token that counts the tokens before.
    """
    half = capacity // 2
    return max(0, -(-(length - capacity + 1) // half)) * half


def unread(tokens: list[int], start: int, num_read: int, decoder: Decoder) -> tuple[int, list[int]]:
    """Return where the window of a document begins, and what a row of the decoder has to read of it.

    Args:
        start: where the row's window begins; -1: the row is empty.
        num_read: tokens of the document that it has read.

    Returns:
        (start of the window, tokens); if the window begins anew, the first one is a position token.
    """
    new_start = window_start(len(tokens), decoder.capacity)
    if new_start == start:
        return start, tokens[num_read:]
    return new_start, [decoder.vocab_size + new_start, *tokens[new_start:]]


def continue_prompts(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    stops: Callable[[int, list[int]], bool] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """Continue each of several prompts once, on the model's device.

    Args:
        prompts: `Prompt()` for a document from scratch.
        stops: given the index of a prompt and all tokens of its document so far, whether no more are needed.

    Yields:
        (index of the prompt, its tokens) in order of completion: whole documents of at most max_tokens.

    Raises:
        UserError: the shortest whole document has more than max_tokens.
    """
    assert tokenizer.vocab_size() == model.config.vocab_size
    was_training = model.training
    model.eval()
    try:
        yield from _Batch(model, tokenizer, prompts, sampling, stops).run()
    finally:
        model.train(was_training)


class _Row:
    """One sample in progress.

    Attributes:
        legal: which tokens may come next, bool (vocab_size,).
        closing: the shortest ending of the document; None: the tokenizer has none.
        logits: (1, vocab_size) of the next token.
    """

    logits: Tensor

    def __init__(
        self,
        index: int,
        prompt: list[int],
        endings: tuple[str, ...],
        matcher: TokenMatcher,
        max_tokens: int,
        seed: int,
        stops: Callable[[int, list[int]], bool] | None,
    ) -> None:
        self.index, self.stops = index, stops
        self.tokens = list(prompt)
        self.log_probs: list[float] = []
        self.matcher = matcher
        for token in prompt:
            matcher.advance(token)
        matcher.expect(*endings)
        self.random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        self.max_tokens = max_tokens
        self.ended_by_limit = False
        self.closing = matcher.closing()
        self.slot = self.num_read = 0  # in the decoder
        self.start = -1

    @property
    def generated(self) -> tuple[int, Generated]:
        log_probs = tuple(self.log_probs)
        return self.index, Generated(self.tokens, self.matcher.is_complete, self.ended_by_limit, log_probs)

    @property
    def is_done(self) -> bool:
        if self.matcher.is_complete or len(self.tokens) >= self.max_tokens:
            return True
        return self.stops is not None and self.stops(self.index, self.tokens)

    def look(self) -> None:
        """Find the legal tokens; take the shortest ending where no other fits, and a token that is the only one."""
        while not self.is_done:
            if self.closing is not None and len(self.tokens) + len(self.closing) >= self.max_tokens:
                self.end()
                return
            self.legal = self.matcher.legal()
            if np.count_nonzero(self.legal) != 1:
                assert self.legal.any(), (
                    "the grammar allows no token here, though the document is not complete"
                )
                return
            if not self.take(int(self.legal.argmax()), 0.0):
                self.end()

    def take(self, token: int, log_prob: float) -> bool:
        """Append a legal token, unless the document cannot end within max_tokens behind it."""
        matcher = self.matcher.after(token)
        closing = matcher.closing()
        if closing is not None and len(self.tokens) + 1 + len(closing) > self.max_tokens:
            self.ended_by_limit = True
            return False
        self.matcher, self.closing = matcher, closing
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        return True

    def end(self) -> None:
        """Append the shortest ending."""
        assert self.closing, "an incomplete document needs tokens to end"
        for token in self.closing:
            self.matcher.advance(token)
        self.tokens += self.closing
        self.log_probs += [0.0] * len(self.closing)
        self.ended_by_limit = True


class _Batch:
    """The rows of a batch and the decoder they share."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        stops: Callable[[int, list[int]], bool] | None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.prompts, self.sampling, self.stops = prompts, sampling, stops

    def new_row(self, index: int) -> _Row:
        prompt, endings, is_open = self.healed(index)
        matcher, max_tokens = self.tokenizer.matcher(), self.sampling.max_tokens
        row = _Row(index, prompt, endings, matcher, max_tokens, self.sampling.seed, self.stops)
        shortest = len(prompt) + len(row.closing or [])
        if is_open and row.closing is not None and shortest > max_tokens:
            raise UserError(
                f"max_tokens is {max_tokens}: the shortest workflow that goes on from here has {shortest} tokens"
            )
        return row

    def healed(self, index: int) -> tuple[list[int], tuple[str, ...], bool]:
        """A prompt without the tokens at its end that the model may choose again, as they may reach from an open prompt
        into what follows; what must follow; and whether the prompt is open."""
        prompt = self.prompts[index]
        if index == 0 or prompt is not self.prompts[index - 1]:
            matcher = self.tokenizer.matcher()
            for token in prompt.tokens:
                matcher.advance(token)
            is_open = not matcher.is_complete
            tokens, taken_back = self.tokenizer.heal(prompt.tokens) if is_open else (prompt.tokens, "")
            self._healed = tokens, tuple(taken_back + ending for ending in prompt.endings or ("",)), is_open
        return self._healed

    def run(self) -> Iterator[tuple[int, Generated]]:
        size = min(len(self.prompts), MAX_ROWS)
        decoder = Decoder(self.model, size + 1)
        prompt: list[int] | None = None  # that a row of its own has read, which others copy
        start = 0
        waiting = iter(range(len(self.prompts)))
        free = list(range(size))
        rows: list[_Row] = []
        while True:
            while free and (index := next(waiting, None)) is not None:
                row = self.new_row(index)
                if row.tokens != prompt:
                    prompt = list(row.tokens)
                    start, window = unread(prompt, -1, 0, decoder)
                    decoder.lengths[size] = 0
                    prompt_logits = decoder.extend([(size, window)])
                row.look()
                if row.is_done:
                    yield row.generated
                    continue
                row.slot, row.start, row.num_read = free.pop(), start, len(prompt)
                row.logits = prompt_logits
                decoder.copy_row(size, row.slot)
                if len(row.tokens) > row.num_read:  # the grammar has left one way to go on
                    row.logits = self.read(decoder, [row])
                rows.append(row)
            if not rows:
                return
            for at in range(0, len(rows), decoder.tile):
                self.choose(rows[at : at + decoder.tile], decoder)
            for row in rows:
                row.look()
                if row.is_done:
                    free.append(row.slot)
                    yield row.generated
            rows = [row for row in rows if not row.is_done]
            if rows:
                for row, logits in zip(rows, self.read(decoder, rows).split(1), strict=True):
                    row.logits = logits

    def read(self, decoder: Decoder, rows: list[_Row]) -> Tensor:
        """Have the decoder read what is new in some rows; return the logits (len(rows), vocab_size) behind it."""
        chunks = []
        for row in rows:
            start, tokens = unread(row.tokens, row.start, row.num_read, decoder)
            if start != row.start:
                decoder.lengths[row.slot] = 0
            row.start, row.num_read = start, len(row.tokens)
            chunks.append((row.slot, tokens))
        return decoder.extend(chunks)

    @torch.inference_mode()
    def choose(self, rows: list[_Row], decoder: Decoder) -> None:
        """Append one token to each row; the tensors have `decoder.tile` rows, whatever their number."""
        logits = torch.zeros(decoder.tile, decoder.vocab_size, device=decoder.device)
        legal = torch.ones(decoder.tile, decoder.vocab_size, dtype=torch.bool)
        for i, row in enumerate(rows):
            logits[i] = row.logits[0]
            legal[i] = torch.from_numpy(row.legal)
        log_probs = masked_log_probs(logits, legal.to(decoder.device))
        left = log_probs  # without the tokens that were rejected
        waiting = dict(enumerate(rows))
        for _ in range(MAX_REJECTED):
            uniform = torch.zeros(decoder.tile)
            for i, row in waiting.items():
                uniform[i] = float(row.random.random(dtype=np.float32))
            drawn = draw(left, uniform.to(decoder.device), self.sampling.temperature, self.sampling.top_p)
            tokens = drawn.tolist()
            chosen = log_probs.gather(1, drawn[:, None])[:, 0].tolist()
            rejected = [i for i, row in waiting.items() if not row.take(tokens[i], chosen[i])]
            if not rejected:
                return
            left = left.clone() if left is log_probs else left
            for i in rejected:
                left[i, tokens[i]] = -torch.inf
            waiting = {i: rows[i] for i in rejected if left[i].amax() > -torch.inf}
            for i in set(rejected) - set(waiting):
                rows[i].end()
            if not waiting:
                return
        for row in waiting.values():
            row.end()
