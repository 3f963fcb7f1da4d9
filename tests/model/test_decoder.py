"""The forward pass of generation: the logits of the model, the same bits however tokens are grouped."""

import random
from collections.abc import Callable

import pytest
import torch

from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.decoder import Decoder
from nanochat_tct.model.gpt import GPT
from tests.support.models import tiled, untrained_model

SHAPES = [
    GPTConfig(vocab_size=50, context_size=40, n_layer=2, n_head=2, n_embd=32),
    GPTConfig(vocab_size=50, context_size=40, n_layer=2, n_head=3, n_embd=42),  # nothing divides into vectors
    GPTConfig(vocab_size=61, context_size=7, n_layer=1, n_head=1, n_embd=2),
]
# For PyTorch on a CPU in place of a GPU: on some CPUs the sums of MKL depend on how a matrix lies in memory, so each
# head's keys begin at a multiple of 64 bytes.
TILED_SHAPES = [
    SHAPES[0],
    GPTConfig(vocab_size=50, context_size=40, n_layer=2, n_head=3, n_embd=48),
    SHAPES[2],
]
NUM_ROWS = 3


def documents(config: GPTConfig) -> torch.Tensor:
    """Rows that fill the context, each after another position token: (NUM_ROWS, context_size)."""
    tokens = torch.randint(
        0, config.vocab_size, (NUM_ROWS, config.context_size), generator=torch.Generator().manual_seed(1)
    )
    tokens[:, 0] = config.vocab_size + torch.tensor([0, 9, 200_000])
    return tokens


@pytest.mark.parametrize("decoder_of", [Decoder, tiled])
@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_the_logits_are_those_of_the_model(
    config: GPTConfig, decoder_of: Callable[[GPT, int], Decoder]
) -> None:
    model = untrained_model(config).eval()
    tokens = documents(config)
    with torch.no_grad():
        expected = model(tokens)[:, -1]
    logits = decoder_of(model, NUM_ROWS).extend([(row, tokens[row].tolist()) for row in range(NUM_ROWS)])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("decoder_of", "config"),
    [(Decoder, config) for config in SHAPES] + [(tiled, config) for config in TILED_SHAPES],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_however_tokens_are_grouped(
    decoder_of: Callable[[GPT, int], Decoder], config: GPTConfig, threads: int
) -> None:
    model = untrained_model(config).eval()
    tokens = documents(config).tolist()
    at_once = decoder_of(model, NUM_ROWS)
    expected = at_once.extend(list(enumerate(tokens)))
    torch.set_num_threads(threads)
    try:
        by_parts = decoder_of(model, NUM_ROWS)
    finally:
        torch.set_num_threads(1)
    draws = random.Random(0)
    logits = [torch.empty(0)] * NUM_ROWS
    while open_rows := [row for row in range(NUM_ROWS) if by_parts.lengths[row] < config.context_size]:
        chunks = []
        for row in draws.sample(open_rows, draws.randint(1, len(open_rows))):
            start = by_parts.lengths[row]
            chunks.append((row, tokens[row][start : start + draws.choice([1, 1, 2, 5, 19])]))
        for (row, _), found in zip(chunks, by_parts.extend(chunks), strict=True):
            logits[row] = found
    assert all(map(torch.equal, logits, expected))
    assert torch.equal(by_parts.keys[:, :NUM_ROWS], at_once.keys[:, :NUM_ROWS])
    assert torch.equal(by_parts.values[:, :NUM_ROWS], at_once.values[:, :NUM_ROWS])


@pytest.mark.parametrize("decoder_of", [Decoder, tiled])
def test_rows_are_copied_and_taken_back(decoder_of: Callable[[GPT, int], Decoder]) -> None:
    model = untrained_model(SHAPES[0]).eval()
    first, second, _ = documents(SHAPES[0]).tolist()
    decoder = decoder_of(model, NUM_ROWS)
    decoder.extend([(0, first[:20]), (1, second)])
    decoder.copy_row(0, 1)
    (expected,) = decoder.extend([(0, first[20:25])])
    (copied,) = decoder.extend([(1, first[20:25])])
    assert torch.equal(copied, expected)
    decoder.extend([(0, second[5:10])])
    decoder.lengths[0] = 20
    (again,) = decoder.extend([(0, first[20:25])])
    assert torch.equal(again, expected)


def test_half_precision_goes_through_the_tiles() -> None:
    model = untrained_model(SHAPES[0]).eval().to(torch.bfloat16)
    tokens = documents(SHAPES[0])[:, :9]
    decoder = Decoder(model, 1)
    assert decoder.tile > 1
    logits = decoder.extend([(0, tokens[0].tolist())])
    with torch.no_grad():
        torch.testing.assert_close(logits, model(tokens[:1])[:, -1], rtol=0.1, atol=0.2)
