"""Sample workflows token by token under the grammar, with a key-value cache.

A batch always has the same number of rows, each at its own position in its own document. A finished row takes
the next sample. Shapes never change and each sample has its own random stream, so a sample does not depend on
the others in its batch.
"""

import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat_tct.errors import UserError
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.sampling import score_tokens
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.kv_cache import KVCache
from nanochat_tct.tokenizer import Tokenizer, TokenMatcher

NUM_ROWS = 16
MAX_REJECTED = 64  # draws that leave no tokens to end the document, before the shortest ending is taken


@dataclass(frozen=True)
class Generated:
    """The content tokens of one document, including the prompt.

    Attributes:
        is_complete: False only for a document cut off at max_tokens, with a tokenizer that cannot end documents.
        ended_by_limit: max_tokens restricted which tokens could be drawn.
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
    """Continue a prompt num_samples times, on the model's device.

    Args:
        prompt: content tokens of an unfinished document, without a position token; may be empty.
        endings: strings of base tokens, one of which must follow the prompt (``Tokenizer.encode_cut``); empty:
            anything may follow.

    Yields:
        (index of the sample, its tokens) in order of completion: whole documents of at most max_tokens.

    Raises:
        UserError: the shortest whole document has more than max_tokens.
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
    """One sample in progress."""

    def __init__(
        self, index: int, prompt: list[int], endings: tuple[str, ...], matcher: TokenMatcher, seed: int
    ) -> None:
        self.index = index
        self.tokens = list(prompt)
        self.matcher = matcher
        for token in prompt:
            matcher.advance(token)
        matcher.expect(*endings)
        self.random = np.random.default_rng([seed, index])
        self.cache_length = 0  # tokens in its row of the cache
        self.ended_by_limit = False
        self.legal: Future[np.ndarray] | None = None  # the mask of the next token
        self.closing = matcher.closing()  # the shortest ending of the document; None: the tokenizer has none

    @property
    def generated(self) -> tuple[int, Generated]:
        return self.index, Generated(self.tokens, self.matcher.is_complete, self.ended_by_limit)

    def choose(self, logits: np.ndarray, legal: np.ndarray, sampling: SamplingConfig) -> int:
        """Draw a legal token after which the document can still end within max_tokens, and append it."""
        tokens = np.flatnonzero(legal)
        assert len(tokens), "the grammar allows no token here, though the document is not complete"
        scores = score_tokens(logits[tokens], sampling.temperature, sampling.top_p, self.random)
        left = sampling.max_tokens - len(self.tokens)
        # no draw is needed where only the shortest ending fits
        draws = MAX_REJECTED if self.closing is None or left > len(self.closing) else 0
        for _ in range(min(draws, len(tokens))):
            best = int(scores.argmax())
            token = int(tokens[best])
            matcher = self.matcher.after(token)
            closing = matcher.closing()
            if closing is None or len(closing) < left:
                self.matcher, self.closing = matcher, closing
                self.tokens.append(token)
                return token
            self.ended_by_limit = True
            scores[best] = -np.inf
        assert self.closing, "an incomplete document needs tokens to end"
        self.ended_by_limit = True
        token, *self.closing = self.closing
        self.matcher.advance(token)
        self.tokens.append(token)
        return token


class _Batch:
    """The rows of a batch and their cache."""

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
        # the model may choose tokens that reach from an open prompt into what follows
        is_open = not _Row(0, prompt, (), tokenizer.matcher(), sampling.seed).matcher.is_complete
        self.prompt, taken_back = tokenizer.heal(prompt) if is_open else (prompt, "")
        self.endings = tuple(taken_back + ending for ending in endings or ("",))
        self.sampling = sampling
        self.device = model.head.weight.device
        self.rows: list[_Row | None] = [None] * NUM_ROWS
        self.cache = self.new_cache(NUM_ROWS)
        self.logits = np.zeros((NUM_ROWS, model.config.vocab_size))  # of each row's next token
        first = self.new_row(0)
        shortest = len(self.prompt) + len(first.closing or [])
        if is_open and first.closing is not None and shortest > sampling.max_tokens:
            raise UserError(
                f"max_tokens is {sampling.max_tokens}: the shortest workflow that goes on from here has {shortest} "
                "tokens"
            )

    def new_row(self, index: int) -> _Row:
        return _Row(index, self.prompt, self.endings, self.tokenizer.matcher(), self.sampling.seed)

    def run(self, num_samples: int) -> Iterator[tuple[int, Generated]]:
        waiting = iter(range(num_samples))
        while True:
            for slot, row in enumerate(self.rows):
                if row is not None and not self.is_done(row):
                    continue
                if row is not None:
                    yield row.generated
                self.rows[slot] = None
                for index in waiting:
                    row = self.new_row(index)
                    if not self.is_done(row):
                        self.rows[slot] = row
                        self.start_window(slot, row)
                        break
                    yield row.generated
            if not any(self.rows):
                return
            self.step()

    def is_done(self, row: _Row) -> bool:
        return row.matcher.is_complete or len(row.tokens) >= self.sampling.max_tokens

    def step(self) -> None:
        """Choose one token in each row and run the model on them."""
        tokens = np.zeros((NUM_ROWS, 1), dtype=np.int64)
        full = []
        for slot, row in enumerate(self.rows):
            if row is None:
                self.cache.lengths[slot] = 0  # an empty row runs along at position 0
                continue
            assert row.legal is not None
            token = row.choose(self.logits[slot], row.legal.result(), self.sampling)
            row.legal = self.thread.submit(row.matcher.legal)  # computed while the model runs
            tokens[slot] = token
            if row.cache_length == self.cache.capacity:
                self.cache.lengths[slot] = 0  # the row's result of this step is discarded
                full.append(slot)
            row.cache_length += 1
        self.logits = self.forward(tokens, self.cache)
        for slot in full:
            row = self.rows[slot]
            if row is not None and not self.is_done(row):
                self.start_window(slot, row)

    def start_window(self, slot: int, row: _Row) -> None:
        """Fill a row of the cache with its document, or with the end of it."""
        at_prompt = len(row.tokens) == len(self.prompt)
        cache, logits, row.cache_length = self.prompt_window if at_prompt else self.window_of(row.tokens)
        self.cache.copy_row(slot, cache)
        row.legal = row.legal or self.thread.submit(row.matcher.legal)
        self.logits[slot] = logits[0]

    @functools.cached_property
    def prompt_window(self) -> tuple[KVCache, np.ndarray, int]:
        return self.window_of(self.prompt)

    def window_of(self, document: list[int]) -> tuple[KVCache, np.ndarray, int]:
        """Run the model on a document, laid out as in training.

        When a document outgrows the context, the window restarts with the last half context of it, after a
        position token that counts the tokens before.

        Returns: a cache of one row, the logits (1, vocab_size) of the next token, and the length of the window.
        """
        capacity = self.cache.capacity
        start = 0 if len(document) < capacity else len(document) - capacity // 2
        window = [self.model.config.vocab_size + start, *document[start:]]
        cache = self.new_cache(1)
        return cache, self.forward(np.array([window], dtype=np.int64), cache), len(window)

    def new_cache(self, num_rows: int) -> KVCache:
        config = self.model.config
        return KVCache(
            config.n_layer, num_rows, config.n_head, config.context_size, config.head_dim, self.device
        )

    @torch.inference_mode()
    def forward(self, tokens: np.ndarray, cache: KVCache) -> np.ndarray:
        """Return float64 logits (B, vocab_size) of the token after the last of tokens (B, T)."""
        logits: Tensor = self.model(torch.from_numpy(tokens).to(self.device), cache=cache)
        return logits[:, -1].double().cpu().numpy()
