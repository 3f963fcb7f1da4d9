"""The model: shapes, what attends to what, position tokens, initial weights, and the modes of training."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.errors import UserError
from nanochat_tct.model import gpt
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.gpt import GPT, attend, attention_mask, block_mask
from tests.support.models import untrained_model

VOCAB = 64
CONFIG = GPTConfig(vocab_size=VOCAB, context_size=32, n_layer=2, n_head=2, n_embd=32)


def random_model(config: GPTConfig = CONFIG) -> GPT:
    return untrained_model(config, std=0.2).eval()


def row(*documents: tuple[int, int], seed: int = 0) -> Tensor:
    """(1, T): one row of documents, each given as (position it starts at, number of content tokens)."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for position, length in documents:
        parts += [torch.tensor([VOCAB + position]), torch.randint(0, VOCAB, (length,), generator=generator)]
    return torch.cat(parts)[None]


def test_shapes_and_dtypes() -> None:
    model = random_model()
    tokens = row((0, 10)).repeat(3, 1)  # (3, 11)
    logits = model(tokens)
    assert logits.shape == (3, 11, VOCAB)
    assert logits.dtype == torch.float32
    assert logits.abs().max() <= gpt.LOGIT_CAP
    nats = model(tokens, tokens.clamp(max=VOCAB - 1))
    assert nats.shape == () and nats.dtype == torch.float32


def test_first_loss_is_that_of_guessing() -> None:
    tokens = row((0, 31))
    nats = GPT(CONFIG)(tokens, tokens.clamp(max=VOCAB - 1)).item()
    assert nats / 32 == pytest.approx(math.log(VOCAB), abs=0.01)


def test_nats_are_the_sum_of_cross_entropies_and_ignore_what_is_no_target() -> None:
    model = random_model()
    tokens = row((0, 15)).repeat(2, 1)
    targets = torch.randint(0, VOCAB, tokens.shape)
    targets[0, 3:9] = -1
    targets[1, 0] = -1
    expected = F.cross_entropy(
        model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    torch.testing.assert_close(model(tokens, targets), expected)
    assert model(tokens, torch.full_like(targets, -1)).item() == 0.0


def test_a_later_token_changes_no_earlier_logits() -> None:
    model = random_model()
    for tokens in (row((0, 20)), row((0, 8), (0, 11))):
        changed = tokens.clone()
        changed[0, 14] = (changed[0, 14] + 1) % VOCAB
        before, after = model(tokens), model(changed)
        assert torch.equal(before[0, :14], after[0, :14])
        assert not torch.equal(before[0, 14:], after[0, 14:])


def test_packed_documents_are_as_if_alone() -> None:
    model = random_model()
    documents = [(40, 7), (0, 3), (0, 12), (0, 0)]
    packed = row(*documents)
    logits = model(packed)[0]
    start = 0
    for position, length in documents:
        alone = packed[:, start : start + 1 + length]
        assert alone[0, 0] == VOCAB + position
        torch.testing.assert_close(logits[start : start + 1 + length], model(alone)[0], rtol=1e-4, atol=1e-4)
        start += 1 + length


def test_rows_of_one_and_of_several_documents_mix_in_a_batch() -> None:
    model = random_model()
    one, several = row((0, 15)), row((0, 4), (0, 10))
    both = model(torch.cat([one, several]))
    torch.testing.assert_close(both[:1], model(one), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1:], model(several), rtol=1e-4, atol=1e-4)


def copying_loss(shifted_keys: bool) -> float:
    """The loss, in nats, of a random text's rotation behind that text, after some training on others."""
    config = GPTConfig(VOCAB, context_size=32, n_layer=1, n_head=2, n_embd=32, shifted_keys=shifted_keys)
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(200):
        text = torch.rand(32, VOCAB, generator=generator).argsort(dim=1)[:, :15]  # no token twice
        begin = torch.randint(0, 15, (32, 1), generator=generator)
        rotated = text.gather(1, (begin + torch.arange(15)) % 15)
        tokens = torch.cat([torch.full((32, 1), VOCAB), text, rotated], dim=1)  # (32, 31)
        targets = tokens[:, 1:].clone()
        targets[:, :16] = -1
        loss = model(tokens[:, :-1], targets) / (targets != -1).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def test_one_layer_copies_by_shifted_keys() -> None:
    without, with_shifted = copying_loss(False), copying_loss(True)
    assert with_shifted < 1 < 3.5 < without, (with_shifted, without)


def test_attention_mask() -> None:
    assert attention_mask(row((5, 6)), VOCAB) is None
    mask = attention_mask(row((5, 1), (0, 2)), VOCAB)
    assert isinstance(mask, Tensor)
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert mask[0, 0].int().tolist() == expected


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_the_same_attention() -> None:
    tokens = torch.cat([row((0, 40), (0, 50), (0, 7)), row((9, 98), (0, 0))])
    q, k, v = torch.randn(3, 2, 2, 100, 16, generator=torch.Generator().manual_seed(0))
    blocks = block_mask(tokens, VOCAB)
    torch.testing.assert_close(attend(q, k, v, blocks), attend(q, k, v, attention_mask(tokens, VOCAB)))


def test_position_buckets() -> None:
    starts = gpt.position_bucket_starts()
    assert starts[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20]
    assert starts[-1] == 2**17
    assert len(starts) == gpt.NUM_POSITION_BUCKETS == 65
    ratios = [after / before for before, after in itertools.pairwise(starts[4:])]
    assert max(ratios) == 1.25


def test_position_tokens_have_embeddings_of_their_own() -> None:
    model = random_model()
    positions = [0, 1, 7, 8, 9, 10, 511, 512, 2**17, 2**17 + 5, 2**20]
    buckets = [0, 1, 7, 8, 8, 9, 31, 32, 64, 64, 64]
    embedded = model.embed(torch.tensor([positions]) + VOCAB)[0]
    torch.testing.assert_close(embedded, model.position_embedding.weight[buckets])
    tokens = torch.tensor([[0, 1, VOCAB - 1]])
    torch.testing.assert_close(model.embed(tokens)[0], model.token_embedding.weight[[0, 1, VOCAB - 1]])


def test_where_a_window_starts_matters() -> None:
    model = random_model()
    assert not torch.allclose(model(row((0, 5))), model(row((512, 5))))


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    first = GPT(CONFIG, seed=5)
    random_state = torch.get_rng_state()
    torch.manual_seed(2)
    again, other = GPT(CONFIG, seed=5), GPT(CONFIG, seed=6)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.head.weight, other.head.weight)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), random_state), "the global random state was used"


def test_what_starts_at_zero() -> None:
    model = GPT(CONFIG)
    zero = {name for name, parameter in model.named_parameters() if not parameter.any()}
    assert zero == {f"blocks.{i}.{part}.c_proj.weight" for i in range(2) for part in ("attention", "mlp")}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not any("bias" in name for name, _ in model.named_parameters())


def test_dropout_only_in_training() -> None:
    config = GPTConfig(vocab_size=VOCAB, context_size=32, n_layer=1, n_head=2, n_embd=32, dropout=0.5)
    model = random_model(config)
    tokens = row((0, 10))
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


def test_bf16_autocast_is_close_and_keeps_float32_gradients() -> None:
    tokens = row((0, 10), (0, 8))
    targets = tokens.clamp(max=VOCAB - 1)
    model = random_model()
    exact = model(tokens, targets)
    with torch.autocast("cpu", torch.bfloat16):
        nats = model(tokens, targets)
        assert model(tokens).dtype == torch.float32
    nats.backward()
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32
        for parameter in model.parameters()
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context_size": 0}, "context_size is 0"),
        ({"context_size": 1}, "context_size is 1"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"n_head": 5}, "n_embd 384 does not divide into n_head 5"),
        ({"n_embd": 6, "n_head": 6}, "even width"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"vocab_size": -3}, "vocab_size is -3"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        GPTConfig(**changes)  # type: ignore[arg-type]
