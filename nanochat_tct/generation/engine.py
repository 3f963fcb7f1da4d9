"""Sampling workflows token by token, under the grammar, with a key-value cache.

A batch has always the same number of rows, each at its own place in its own document. A row that is done
takes the next sample. Shapes never change and every sample has a random stream of its own, so that a sample
is the same whatever else is sampled with it.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat_tct.errors import UserError
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.kv_cache import KVCache
from nanochat_tct.tokenizer import Cursor, Tokenizer

NUM_ROWS = 16
COLDEST = 1e-300  # below it a quotient of logits is not finite; the noise counts for nothing long before
MAX_REFUSED = 64  # draws that do not leave room to close the document, before the shortest way is taken


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn."""

    temperature: float = 1.0  # 0: always the most probable
    top_p: float = 1.0  # draw among the most probable tokens that together have this share
    seed: int = 0
    max_tokens: int = 2048  # of one document, prompt included

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: it must be 0 or more")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if not 0 <= self.seed < 1 << 64:
            raise UserError(f"seed is {self.seed}: it must be 0 or more, and less than 2^64")


@dataclass(frozen=True)
class Generated:
    """Content tokens of one document, prompt included.

    Attributes:
        is_complete: False only with a tokenizer that cannot tell how to close a document: cut off at max_tokens.
        ended_by_limit: max_tokens decided which tokens could be drawn.
    """

    tokens: list[int]
    is_complete: bool
    ended_by_limit: bool = False


def generate_tokens(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: list[int],
    num_samples: int,
    sampling: SamplingConfig,
    endings: tuple[str, ...] = (),
) -> Iterator[tuple[int, Generated]]:
    """Continue a prompt num_samples times.

    Args:
        model: its weights' device is where the work is done.
        prompt: content tokens of an open document, without a position token; may be empty.
        endings: base tokens, one string of which follows the prompt (``Tokenizer.encode_cut``); none: anything may.

    Yields:
        (index of the sample, its tokens), as they are done: whole documents of at most max_tokens.

    Raises:
        UserError: max_tokens is less than the shortest whole document has.
    """
    assert tokenizer.vocab_size() == model.config.vocab_size
    was_training = model.training
    model.eval()
    try:
        with ThreadPoolExecutor(1) as thread:
            yield from _Batch(model, tokenizer, prompt, endings, sampling, thread).run(num_samples)
    finally:
        model.train(was_training)


class _Row:
    """One sample on its way."""

    def __init__(
        self, index: int, prompt: list[int], endings: tuple[str, ...], cursor: Cursor, seed: int
    ) -> None:
        self.index = index
        self.tokens = list(prompt)
        self.cursor = cursor
        for token in prompt:
            cursor.advance(token)
        cursor.expect(*endings)
        self.random = np.random.default_rng([seed, index])
        self.places_used = 0  # of its row in the cache
        self.ended_by_limit = False
        self.legal: Future[np.ndarray] | None = None  # the mask of the next token
        self.closing = cursor.closing()  # tokens that end the document; None: the tokenizer cannot tell

    def choose(self, logits: np.ndarray, legal: np.ndarray, sampling: SamplingConfig) -> int:
        """Draw a legal token that leaves room to end the document, and move on."""
        tokens = np.flatnonzero(legal)
        assert len(tokens), "the grammar allows no token here, though the document is not complete"
        scores = score_tokens(logits[tokens], sampling.temperature, sampling.top_p, self.random)
        left = sampling.max_tokens - len(self.tokens)
        # where just the shortest way to the end fits, no draw is needed
        draws = MAX_REFUSED if self.closing is None or left > len(self.closing) else 0
        for _ in range(min(draws, len(tokens))):
            place = int(scores.argmax())
            token = int(tokens[place])
            cursor = self.cursor.after(token)
            closing = cursor.closing()
            if closing is None or len(closing) < left:
                self.cursor, self.closing = cursor, closing
                self.tokens.append(token)
                return token
            self.ended_by_limit = True
            scores[place] = -np.inf
        assert self.closing, "a document that is not complete takes tokens to end"
        self.ended_by_limit = True
        token, *self.closing = self.closing
        self.cursor.advance(token)
        self.tokens.append(token)
        return token


class _Batch:
    """The rows and their cache."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        prompt: list[int],
        endings: tuple[str, ...],
        sampling: SamplingConfig,
        thread: ThreadPoolExecutor,
    ) -> None:
        self.model = model
        self.thread = thread
        self.tokenizer = tokenizer
        # tokens that reach from an open prompt into what follows are the model's to choose
        is_open = not _Row(0, prompt, (), tokenizer.cursor(), sampling.seed).cursor.is_complete
        self.prompt, taken_back = tokenizer.heal(prompt) if is_open else (prompt, "")
        self.endings = tuple(taken_back + ending for ending in endings or ("",))
        self.sampling = sampling
        self.device = model.head.weight.device
        self.rows: list[_Row | None] = [None] * NUM_ROWS
        self.cache = self.new_cache(NUM_ROWS)
        # Of the token that comes next in each row.
        self.logits = np.zeros((NUM_ROWS, model.config.vocab_size))
        self.prompt_window: tuple[KVCache, np.ndarray, int] | None = None  # the same for all samples
        first = _Row(0, self.prompt, self.endings, tokenizer.cursor(), sampling.seed)
        if (
            is_open
            and first.closing is not None
            and len(self.prompt) + len(first.closing) > sampling.max_tokens
        ):
            raise UserError(
                f"max_tokens is {sampling.max_tokens}: the shortest workflow that goes on from here has "
                f"{len(self.prompt) + len(first.closing)} tokens"
            )

    def run(self, num_samples: int) -> Iterator[tuple[int, Generated]]:
        waiting = iter(range(num_samples))
        while True:
            for place in range(NUM_ROWS):
                row = self.rows[place]
                if row is not None and not self.is_done(row):
                    continue
                if row is not None:
                    yield row.index, Generated(row.tokens, row.cursor.is_complete, row.ended_by_limit)
                self.rows[place] = None
                for index in waiting:
                    row = _Row(index, self.prompt, self.endings, self.tokenizer.cursor(), self.sampling.seed)
                    if not self.is_done(row):
                        self.rows[place] = row
                        self.start_window(place, row)
                        break
                    yield index, Generated(row.tokens, row.cursor.is_complete, row.ended_by_limit)
            if not any(self.rows):
                return
            self.step()

    def is_done(self, row: _Row) -> bool:
        return row.cursor.is_complete or len(row.tokens) >= self.sampling.max_tokens

    def step(self) -> None:
        """Choose one token in every row and run the model on them."""
        tokens = np.zeros((NUM_ROWS, 1), dtype=np.int64)
        full = []
        for place, row in enumerate(self.rows):
            if row is None:
                self.cache.lengths[place] = 0  # an empty row runs along, always in its first place
                continue
            assert row.legal is not None
            token = row.choose(self.logits[place], row.legal.result(), self.sampling)
            # found while the model runs
            row.legal = self.thread.submit(row.cursor.legal)
            tokens[place] = token
            if row.places_used == self.cache.room:
                self.cache.lengths[place] = 0  # what this step computes in the row is of no use
                full.append(place)
            row.places_used += 1
        self.logits = self.forward(tokens, self.cache)
        for place in full:
            row = self.rows[place]
            if row is not None and not self.is_done(row):
                self.start_window(place, row)

    def start_window(self, place: int, row: _Row) -> None:
        """Fill the cache of a row: with its whole document, or the last part of it, as a training row has it.

        When a document outgrows the context, the window starts again with as much of it as fills half: a
        position token that tells how much came before, and the content.
        """
        room = self.cache.room
        at_prompt = len(row.tokens) == len(self.prompt)
        if self.prompt_window is None or not at_prompt:
            start = 0 if len(row.tokens) < room else len(row.tokens) - room // 2
            window = [self.model.config.vocab_size + start, *row.tokens[start:]]
            cache = self.new_cache(1)
            logits = self.forward(np.array([window], dtype=np.int64), cache)
            window_length = len(window)
        else:
            cache, logits, window_length = self.prompt_window
        if at_prompt:
            self.prompt_window = cache, logits, window_length
        self.cache.copy_row(place, cache)
        row.legal = row.legal or self.thread.submit(row.cursor.legal)
        self.logits[place] = logits[0]
        row.places_used = window_length

    def new_cache(self, num_rows: int) -> KVCache:
        config = self.model.config
        return KVCache(
            config.n_layer, num_rows, config.n_head, config.context_size, config.head_dim, self.device
        )

    @torch.inference_mode()
    def forward(self, tokens: np.ndarray, cache: KVCache) -> np.ndarray:
        """(B, T) tokens to float64 logits (B, vocab_size) of what follows the last of them."""
        logits: Tensor = self.model(torch.from_numpy(tokens).to(self.device), cache=cache)
        return logits[:, -1].double().cpu().numpy()


def score_tokens(
    logits: np.ndarray, temperature: float, top_p: float, random: np.random.Generator
) -> np.ndarray:
    """Scores by whose order tokens are drawn: the highest is a draw, the next one from the rest, and so on.

    Gumbel noise on log-probabilities does that: going through tokens by score is sampling without putting
    back, so where one cannot be taken the next is a draw from the rest. Tokens outside the top_p nucleus come
    after all inside, by probability.

    Args:
        logits: (n,) float64, of the legal tokens.

    Returns:
        (n,) float64.
    """
    if temperature < COLDEST:
        return logits.copy()
    log_weights = logits / temperature
    # For all tokens, so that what is drawn later does not depend on top_p.
    uniform = random.random(len(logits))
    if top_p == 1:
        return log_weights + gumbel(uniform)
    shares = np.exp(log_weights - log_weights.max())
    shares /= shares.sum()
    # Those below the mean of 1 - top_p have less than that together, so they are outside: only the others, mostly few,
    # are put in order. Sorting their shares takes a fifth of the time of sorting their places.
    likely = np.flatnonzero(shares >= min((1 - top_p) / len(shares), shares.max()))
    ordered = np.sort(shares[likely])[::-1]
    count = np.count_nonzero(np.cumsum(ordered) - ordered < top_p)
    least = ordered[count - 1]
    above = likely[shares[likely] > least]
    equal = likely[shares[likely] == least][: count - len(above)]
    inside = np.concatenate([above, equal])
    scores = log_weights - 1e9
    scores[inside] = log_weights[inside] + gumbel(uniform[inside])
    return scores


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Draws of the standard Gumbel distribution, from draws within [0, 1)."""
    noise: np.ndarray = -np.log(-np.log(1 - uniform))
    return noise
