"""Sample workflows token by token under the grammar, with a key-value cache.

Each sample is a function of the weights, the prompt, the settings and its index alone, bit for bit: the decoder's
results do not depend on the batch (see decoder.py), what is drawn on the device has one shape, and each sample has its
own random stream.
"""

import math
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


def num_common(before: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how many tokens two documents have in common at their beginning."""
    pairs = zip(before, tokens, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(before), len(tokens)))


def unread(
    decoder: Decoder, row: int, start: int, num_read: int, tokens: list[int], spare: int = 0
) -> tuple[int, list[int]]:
    """Find what a row of the decoder has to read of a document; whatever else it has read is taken back.

    Args:
        start: where the row's window begins; -1: the row is empty.
        num_read: tokens that the row has read, and with which the document begins.
        tokens: of the document.
        spare: how many more the window must have space for.

    Returns:
        (start of the window, tokens), at least one; if the window begins anew, the first one is a position token.
    """
    new_start = window_start(len(tokens) + spare, decoder.capacity)
    num_read = min(num_read, len(tokens) - 1)  # the last one again, for its logits
    if new_start == start and num_read >= start:
        decoder.lengths[row] = num_read - start + 1
        return start, tokens[num_read:]
    decoder.lengths[row] = 0
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
        closing: the shortest ending of the document; None: there is no limit, or the tokenizer has none.
        logits: (1, vocab_size) of the next token.
    """

    logits: Tensor

    def __init__(
        self,
        index: int,
        prompt: list[int],
        matcher: TokenMatcher,
        max_tokens: int | None,
        seed: int,
        stops: Callable[[int, list[int]], bool] | None,
    ) -> None:
        self.index, self.stops = index, stops
        self.tokens = list(prompt)
        self.log_probs: list[float] = []
        self.matcher = matcher
        self.random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        self.max_tokens = math.inf if max_tokens is None else max_tokens
        self.ended_by_limit = self.is_done = False
        self.closing = None if max_tokens is None else matcher.closing()
        self.slot = self.num_read = 0  # in the decoder
        self.start = -1

    @property
    def generated(self) -> tuple[int, Generated]:
        log_probs = tuple(self.log_probs)
        return self.index, Generated(self.tokens, self.matcher.is_complete, self.ended_by_limit, log_probs)

    def ends(self) -> bool:
        """Whether no token may follow, or no more are wanted."""
        if self.matcher.is_complete or len(self.tokens) >= self.max_tokens:
            return True
        return self.stops is not None and self.stops(self.index, self.tokens)

    def look(self) -> None:
        """Find the legal tokens; take the shortest ending where no other fits, and a token that is the only one."""
        while not self.ends():
            if self.closing is not None and len(self.tokens) + len(self.closing) >= self.max_tokens:
                self.end()
                break
            self.legal = self.matcher.legal()
            if np.count_nonzero(self.legal) != 1:
                assert self.legal.any(), (
                    "the grammar allows no token here, though the document is not complete"
                )
                return
            if not self.take(int(self.legal.argmax()), 0.0):
                self.end()
        self.is_done = True

    def take(self, token: int, log_prob: float) -> bool:
        """Append a legal token, unless the document cannot end within max_tokens behind it."""
        if self.closing is None:
            self.matcher.advance(token)
        else:
            matcher = self.matcher.after(token)
            closing = matcher.closing()
            assert closing is not None
            if len(self.tokens) + 1 + len(closing) > self.max_tokens:
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
        if index == 0 or self.prompts[index] is not self.prompts[index - 1]:
            self.healed, self.matcher = self.heal(self.prompts[index])
        max_tokens = self.sampling.max_tokens
        row = _Row(index, self.healed, self.matcher.copy(), max_tokens, self.sampling.seed, self.stops)
        if row.closing is not None and not row.matcher.is_complete:
            shortest = len(row.tokens) + len(row.closing)
            if shortest > row.max_tokens:
                raise UserError(
                    f"max_tokens is {max_tokens}: the shortest workflow that goes on from here has {shortest} tokens"
                )
        return row

    def heal(self, prompt: Prompt) -> tuple[list[int], TokenMatcher]:
        """A prompt's tokens without those at its end that the model may choose again, as they may reach from an open
        prompt into what follows; and a matcher behind them that expects what was taken back."""
        tokens, taken_back = prompt.tokens, ""
        matcher = self.tokenizer.matcher(tokens)
        if not matcher.is_complete:
            tokens, taken_back = self.tokenizer.heal(tokens)
            matcher = self.tokenizer.matcher(tokens)
        matcher.expect(*(taken_back + ending for ending in prompt.endings or ("",)))
        return tokens, matcher

    def run(self) -> Iterator[tuple[int, Generated]]:
        size = min(len(self.prompts), MAX_ROWS)
        decoder = Decoder(self.model, size + 1)
        prompt: list[int] = []  # that a row of its own has read, which others copy
        start = -1
        waiting = iter(range(len(self.prompts)))
        free = list(range(size))
        rows: list[_Row] = []
        while True:
            while free and (index := next(waiting, None)) is not None:
                row = self.new_row(index)
                if row.tokens != prompt or start < 0:
                    num_read, prompt = num_common(prompt, row.tokens), list(row.tokens)
                    start, chunk = unread(decoder, size, start, num_read, prompt)
                    prompt_logits = decoder.extend([(size, chunk)])
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
            row.start, chunk = unread(decoder, row.slot, row.start, row.num_read, row.tokens)
            row.num_read = len(row.tokens)
            chunks.append((row.slot, chunk))
        return decoder.extend(chunks)

    @torch.inference_mode()
    def choose(self, rows: list[_Row], decoder: Decoder) -> None:
        """Append one token to each row; the tensors have `decoder.tile` rows, whatever their number."""
        tile = rows + rows[-1:] * (decoder.tile - len(rows))
        legal = torch.from_numpy(np.stack([row.legal for row in tile])).to(decoder.device)
        log_probs = masked_log_probs(torch.cat([row.logits for row in tile]), legal)
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
