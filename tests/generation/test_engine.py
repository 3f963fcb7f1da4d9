"""Sampling: scores, legality, seeds, the limit of tokens, windows of documents longer than the context."""

import numpy as np
import pytest
import torch

from nanochat_tct.errors import UserError
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import (
    MAX_ROWS,
    Generated,
    continue_prompts,
    window_start,
)
from nanochat_tct.generation.prompt import Prompt, encode_prompt
from nanochat_tct.generation.sampling import draw, masked_log_probs
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.models import CONFIG, tiled, untrained_model

TOKENIZER = load_tokenizer()


@pytest.fixture(scope="module")
def model() -> GPT:
    return untrained_model()


def generate(
    model: GPT, num_samples: int, prompt: list[int] | None = None, **sampling: float
) -> list[Generated]:
    config = SamplingConfig(**sampling)  # type: ignore[arg-type]
    generated = dict(continue_prompts(model, TOKENIZER, [Prompt(prompt or [])] * num_samples, config))
    assert sorted(generated) == list(range(num_samples))
    return [generated[index] for index in range(num_samples)]


def draw_many(
    logits: list[float], temperature: float, top_p: float, allowed: range, count: int = 2000
) -> np.ndarray:
    """Share of each token among draws."""
    legal = torch.zeros(1, len(logits), dtype=torch.bool)
    legal[0, list(allowed)] = True
    log_probs = masked_log_probs(torch.tensor([logits], dtype=torch.float32), legal)
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    one_by_one = [draw(log_probs, each, temperature, top_p).item() for each in uniform.split(1)]
    together = draw(log_probs.expand(count, -1), uniform, temperature, top_p)
    assert one_by_one == together.tolist()
    return np.bincount(one_by_one, minlength=len(logits)) / count


PROBABILITIES = np.array([0.4, 0.3, 0.2, 0.1])
LOGITS = np.log(PROBABILITIES).tolist()


def test_draws_follow_the_distribution() -> None:
    np.testing.assert_allclose(draw_many(LOGITS, 1.0, 1.0, range(4)), PROBABILITIES, atol=0.03)


def test_temperature_sharpens() -> None:
    expected = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    np.testing.assert_allclose(draw_many(LOGITS, 0.5, 1.0, range(4)), expected, atol=0.03)


def test_a_refused_token_leaves_its_share_to_the_rest_in_proportion() -> None:
    expected = np.array([0, 0.3, 0.2, 0.1]) / 0.6
    np.testing.assert_allclose(draw_many(LOGITS, 1.0, 1.0, range(1, 4)), expected, atol=0.03)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1e-9, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.95, 4), (1.0, 4)]
)
def test_top_p_keeps_the_smallest_set_of_that_share(top_p: float, kept: int) -> None:
    shares = draw_many(LOGITS, 1.0, top_p, range(4), count=500)
    assert (shares > 0).tolist() == [index < kept for index in range(4)]


def test_the_nucleus_is_that_of_the_legal_tokens() -> None:
    assert draw_many(LOGITS, 1.0, 0.5, range(2, 4), count=50).tolist() == [0, 0, 1, 0]


def test_equal_probabilities_and_top_p() -> None:
    shares = draw_many([0.0] * 10, 1.0, 0.35, range(10), count=500)
    assert (shares > 0).sum() == 4


def test_tiny_temperature_is_finite() -> None:
    assert draw_many([1.0, 3.0, 2.0], 1e-6, 0.9, range(3), count=20).tolist() == [0, 1, 0]


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-310, 1e-30, 1e-29, 1.0, 1e300, 1.7e308])
@pytest.mark.parametrize("top_p", [5e-324, 1e-320, 1e-17, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_extreme_settings(temperature: float, top_p: float, uniform: float) -> None:
    random = torch.Generator().manual_seed(0)
    for logits in (
        torch.tensor([[1.0, 15.0, -15.0, 3.0]]),
        torch.zeros(1, 1),
        torch.randn(1, 8192, generator=random),
        torch.full((3, 7), 1 / 3),
    ):
        legal = torch.ones_like(logits, dtype=torch.bool)
        legal[:, -1] = logits.size(1) == 1
        tokens = draw(
            masked_log_probs(logits, legal), torch.full((len(logits),), uniform), temperature, top_p
        )
        assert legal.gather(1, tokens[:, None]).all()
        if temperature < 1e-20:
            best = logits.masked_fill(~legal, -torch.inf).amax(-1)
            assert torch.equal(logits.gather(1, tokens[:, None])[:, 0], best)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 64}, "seed"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        SamplingConfig(**setting)  # type: ignore[arg-type]


def test_greedy_is_the_legal_maximum_of_the_full_forward_pass(model: GPT) -> None:
    (generated,) = generate(model, 1, temperature=0, max_tokens=60)
    matcher = TOKENIZER.matcher()
    matcher.expect()
    tokens: list[int] = []
    model.eval()
    while not matcher.is_complete and len(tokens) < 20:
        with torch.no_grad():
            logits = model(torch.tensor([[CONFIG.vocab_size, *tokens]]))[0, -1]
        for token in logits.argsort(descending=True).tolist():
            if matcher.allows(token):
                break
        matcher.advance(token)
        tokens.append(token)
    assert generated.tokens[:20] == tokens


@pytest.mark.parametrize("device_tiles", [False, True], ids=["kernel", "tiles"])
def test_same_seed_same_samples_whatever_the_batch(
    model: GPT, device_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device_tiles:
        monkeypatch.setattr("nanochat_tct.generation.engine.Decoder", tiled)
    settings: dict[str, float] = {"seed": 3, "max_tokens": 32}
    many = generate(model, MAX_ROWS + 5, **settings)
    assert many == generate(model, MAX_ROWS + 5, **settings)
    assert generate(model, 1, **settings) == many[:1]
    assert generate(model, 2, **settings) == many[:2]
    assert generate(model, MAX_ROWS + 2, **settings) == many[: MAX_ROWS + 2]
    assert generate(model, 2, seed=4, max_tokens=32) != many[:2]
    assert len({tuple(generated.tokens) for generated in many}) == len(many)


SETTINGS = [(0.0, 1.0), (0.7, 0.9), (1.5, 1.0)]  # of temperature and top-p


@pytest.mark.parametrize(
    ("device_tiles", "temperature", "top_p"),
    [
        *((False, *each) for each in SETTINGS),
        *(pytest.param(True, *each, marks=pytest.mark.slow if each[0] != 0.7 else ()) for each in SETTINGS),
    ],
)
def test_samples_do_not_depend_on_the_batch(
    model: GPT, device_tiles: bool, temperature: float, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens and log-probabilities are the same bits in batches of 1, 2 and 5, also where windows restart."""
    if device_tiles:
        monkeypatch.setattr("nanochat_tct.generation.engine.Decoder", tiled)
    prompt = TOKENIZER.encode_prefix({"name": "CI", "on": {"push": {"branches": ["ma"]}}})
    settings = {"temperature": temperature, "top_p": top_p, "max_tokens": 2 * CONFIG.context_size + 5}
    for seed, start in enumerate([prompt, []]):
        most = generate(model, 5, start, seed=seed, **settings)
        for size in (1, 2):
            assert generate(model, size, start, seed=seed, **settings) == most[:size]


def test_several_prompts_go_on_as_each_does_alone(model: GPT) -> None:
    texts = ["name: a\non: pu", "", "on: push\njobs:\n  build:\n    ", "name: a\non: pu"] * (MAX_ROWS // 3)
    prompts = [encode_prompt(text, TOKENIZER) for text in texts]
    sampling = SamplingConfig(temperature=0, max_tokens=40)
    together = dict(continue_prompts(model, TOKENIZER, prompts, sampling))
    assert sorted(together) == list(range(len(texts)))
    for index in range(4):
        alone = dict(continue_prompts(model, TOKENIZER, [prompts[index]], sampling))
        assert alone[0] == together[index]


def test_without_a_limit_a_document_ends_as_with_one_that_is_far_away(model: GPT) -> None:
    prompt = encode_prompt("on: push\njobs:\n  build:\n    ", TOKENIZER)

    def first_tokens(max_tokens: int | None) -> dict[int, Generated]:
        sampling = SamplingConfig(temperature=0.5, max_tokens=max_tokens)
        return dict(
            continue_prompts(
                model, TOKENIZER, [prompt] * 2, sampling, lambda index, tokens: len(tokens) >= 60
            )
        )

    assert first_tokens(None) == first_tokens(5000)


def test_a_document_stops_where_no_more_of_it_is_needed(model: GPT) -> None:
    sampling = SamplingConfig(temperature=0, max_tokens=200)
    whole = dict(continue_prompts(model, TOKENIZER, [Prompt()] * 2, sampling))
    cut = dict(
        continue_prompts(
            model, TOKENIZER, [Prompt()] * 2, sampling, lambda index, tokens: index == 1 and len(tokens) >= 9
        )
    )
    assert cut[0] == whole[0]
    assert not cut[1].is_complete and not cut[1].ended_by_limit
    assert cut[1].tokens == whole[1].tokens[: len(cut[1].tokens)] and 9 <= len(cut[1].tokens) < 40


def test_log_probabilities_are_those_of_the_legal_tokens(model: GPT) -> None:
    """Temperature and top-p decide what is drawn; what is reported is the model's own probability."""
    for temperature, top_p in ((1.0, 1.0), (0.5, 0.5), (0.0, 1.0)):
        (generated,) = generate(model, 1, temperature=temperature, top_p=top_p, max_tokens=400)
        matcher = TOKENIZER.matcher()
        first = len(generated.tokens) - len(generated.log_probs)
        for token in generated.tokens[:first]:
            matcher.advance(token)
        matcher.expect()
        for index, log_prob in enumerate(generated.log_probs[: CONFIG.context_size - 2 - first]):
            so_far = generated.tokens[: first + index]
            logits = model(torch.tensor([[CONFIG.vocab_size, *so_far]]))[0, -1].masked_fill(
                torch.from_numpy(~matcher.legal()), -torch.inf
            )
            token = generated.tokens[first + index]
            assert log_prob == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-4)
            matcher.advance(token)
        assert generated.log_prob == sum(generated.log_probs)


def text_of(tokens: list[int]) -> str:
    """Base tokens: the same text may be cut into other tokens where the model went on."""
    return TOKENIZER.segmenter.decode(tokens)


def test_the_limit_counts_the_prompt(model: GPT) -> None:
    prompt = TOKENIZER.encode_prefix({"name": "CI"}, False)
    for room in (20, 40):
        for generated in generate(model, 3, prompt, max_tokens=len(prompt) + room):
            assert text_of(generated.tokens).startswith(text_of(prompt))
            assert generated.is_complete and len(generated.tokens) <= len(prompt) + room
    with pytest.raises(UserError, match=f"max_tokens is {len(prompt) + 1}: the shortest workflow"):
        generate(model, 1, prompt, max_tokens=len(prompt) + 1)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 3.0])
def test_every_document_ends_within_its_limit(model: GPT, temperature: float) -> None:
    shortest = len(TOKENIZER.matcher().closing() or [])
    for limit in (shortest, shortest + 1, shortest + 5, 40):
        for generated in generate(model, 6, temperature=temperature, max_tokens=limit):
            assert generated.is_complete and len(generated.tokens) <= limit
            TOKENIZER.decode_value(generated.tokens)
            assert generated.ended_by_limit or len(generated.tokens) < limit


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ('{"on":{"push":{"branches":["main"],', '{"on":{"push":{"branches":["main"],"'),
        ('{"on":{"push":{"branches":["main"', '{"on":{"push":{"branches":["main"'),
        ('{"on":{"push":{"branches":["main","', '{"on":{"push":{"branches":["main","'),
        ("on: pu", '{"on":"pu'),
        ("on: [push, pu", '{"on":["push","pu'),
        ("on: push\njobs:\n  a:\n    runs-o", '{"on":"push","jobs":{"a":{"runs-on":'),
        ("name: Set up ", '{"name":"Set up'),
        ("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n    - ", '"steps":[{"'),
    ],
)
def test_what_a_prompt_has_closed_stays_closed(model: GPT, text: str, begins: str) -> None:
    prompt = encode_prompt(text, TOKENIZER)
    config = SamplingConfig(temperature=1.5, max_tokens=60)
    for _, generated in continue_prompts(model, TOKENIZER, [prompt] * 5, config):
        assert begins in TOKENIZER.decode(generated.tokens)[0]
    with pytest.raises(UserError, match="the shortest workflow that goes on from here has"):
        few = SamplingConfig(max_tokens=1)
        list(continue_prompts(model, TOKENIZER, [prompt], few))


@pytest.mark.parametrize(
    "text",
    [
        "outputs: {a: '${{ steps.check.outputs.version_changed }}'}, st",
        "outputs: {a: '${{ steps.check.outputs.version_changed }}'}, steps: [",
        "steps: [{if: inputs.none, run: ",
        'steps: [{if: inputs.none, run: "x',
    ],
)
def test_a_token_may_reach_beyond_a_text_that_is_complained_of(model: GPT, text: str) -> None:
    """Where the prompt goes on behind such a text, the last tokens that it has are chosen again, as everywhere."""
    text = f"on: push\njobs: {{a: {{runs-on: x, {text}"
    prompt = encode_prompt(text, TOKENIZER)
    assert not prompt.dropped
    sampling = SamplingConfig(max_tokens=len(prompt.tokens) + 60)
    for _, generated in continue_prompts(model, TOKENIZER, [prompt] * 4, sampling):
        assert TOKENIZER.decode(generated.tokens)[2] == len(generated.tokens)
        assert TOKENIZER.decode(generated.tokens)[0].startswith('{"on":"push","jobs":{"a":{"runs-on":"x",')


def test_a_whole_document_as_prompt_comes_back(model: GPT) -> None:
    prompt = TOKENIZER.encode('{"on":"push","jobs":{"a":{"uses":"./.github/workflows/a.yml"}}}')
    assert generate(model, 2, prompt) == [Generated(prompt, True)] * 2


def test_documents_outgrow_the_context(model: GPT) -> None:
    """Sampled tokens are those that the windows give when each is computed afresh."""
    prompt = TOKENIZER.encode_prefix({"jobs": {"build": {"runs-on": "x", "steps": [{"run": "echo " * 100}]}}})
    room = CONFIG.context_size
    (generated,) = generate(model, 1, prompt[:40], temperature=0, max_tokens=60 + 2 * room)
    assert len(generated.tokens) > 2 * room
    written = len(TOKENIZER.segmenter.decode(prompt[:40]))
    # the last token of the prompt may have been written by others
    first = next(n for n in range(39, 50) if len(TOKENIZER.segmenter.decode(generated.tokens[:n])) >= written)
    matcher = TOKENIZER.matcher()
    model.eval()
    for place, token in enumerate(generated.tokens):
        if place == first:
            matcher.expect()
        start = window_start(place, room)
        if first <= place < first + room:  # far from the limit
            window = torch.tensor([[CONFIG.vocab_size + start, *generated.tokens[start:place]]])
            with torch.no_grad():
                logits = model(window)[0, -1]
            best = next(t for t in logits.argsort(descending=True).tolist() if matcher.allows(t))
            assert token == best, place
        matcher.advance(token)


def test_a_prompt_longer_than_the_context(model: GPT) -> None:
    prompt = TOKENIZER.encode_prefix({"jobs": {"build": {"runs-on": "x", "steps": [{"run": "abc " * 200}]}}})
    assert len(prompt) > CONFIG.context_size
    for generated in generate(model, 2, prompt, max_tokens=len(prompt) + 20):
        assert text_of(generated.tokens).startswith(text_of(prompt))


def test_the_mode_of_the_model_is_put_back(model: GPT) -> None:
    for was_training in (True, False):
        model.train(was_training)
        generate(model, 1, max_tokens=30)
        assert model.training == was_training


@pytest.mark.parametrize("capacity", [2, 3, 4, 7, 48])
def test_windows_hold_half_a_context_at_least_and_move_seldom(capacity: int) -> None:
    starts = [window_start(length, capacity) for length in range(5 * capacity)]
    for length, start in enumerate(starts):
        assert 0 <= start <= length
        assert length - start + 1 <= capacity  # with the position token
        assert start == 0 if length < capacity else length - start >= capacity - 1 - capacity // 2
    assert len(set(starts)) <= 2 + 5 * capacity // (capacity // 2)
