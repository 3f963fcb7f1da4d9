"""The optimizer's groups and the learning rate's way."""

import dataclasses
import math

import pytest
import torch

from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig, own_rate, resolve
from nanochat_tct.training.optim import (
    MUON_LR,
    Muon,
    PartsAdamW,
    WeightAverage,
    exchanged,
    learning_rate,
    make_optimizers,
    orthogonalized,
    set_learning_rate,
)
from nanochat_tct.training.token_parts import SparseMatrix, token_parts


def test_learning_rate_warms_up_and_decays() -> None:
    config = resolve(
        TrainConfig(max_iters=100, warmup_iters=10, lr_decay_iters=90, learning_rate=1.0, min_lr=0.1), 8192
    )
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == pytest.approx(1.0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[88] > 0.1 and rates[89:] == [0.1] * 11  # step 89 is iter 90, as the start line says
    assert rates[49] + rates[50] == pytest.approx(2 * 0.55)  # half-way between iters 11 and 90


@pytest.mark.parametrize(
    ("max_iters", "warmup_iters"), [(1, 0), (1, 1), (2, 0), (2, 1), (10, 0), (10, 9), (10, 10)]
)
def test_a_short_run_reaches_what_its_start_line_announces(max_iters: int, warmup_iters: int) -> None:
    config = resolve(
        TrainConfig(max_iters=max_iters, warmup_iters=warmup_iters, learning_rate=1.0, min_lr=0.1), 8192
    )
    rates = [learning_rate(step, config) for step in range(max_iters + 2)]
    if warmup_iters < max_iters:
        assert rates[max_iters - 1 :] == [0.1] * 3
    if warmup_iters < max_iters - 1:
        assert rates[warmup_iters] == 1.0
    assert all(0.09 < rate <= 1.0 for rate in rates)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_is_moved_by_one_optimizer(optimizer: str) -> None:
    config = resolve(TrainConfig(optimizer=optimizer), 8192)
    model = GPT(config.model())
    optimizers = make_optimizers(model, config, token_parts(load_tokenizer()))
    groups = [group for each in optimizers for group in each.param_groups]
    moved = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, moved)) == sorted(map(id, model.parameters()))
    assert all((group["weight_decay"] > 0) == all(p.dim() >= 2 for p in group["params"]) for group in groups)
    muon = [p for each in optimizers if isinstance(each, Muon) for p in each.param_groups[0]["params"]]
    in_blocks = [p for p in model.blocks.parameters() if p.dim() == 2]
    assert list(map(id, muon)) == (list(map(id, in_blocks)) if optimizer == "muon" else [])


def test_rates_of_all_groups_follow_the_schedule() -> None:
    for n_embd, times in ((96, MUON_LR), (384, 2 * MUON_LR)):
        config = resolve(
            TrainConfig(max_iters=100, warmup_iters=10, learning_rate=0.5, n_embd=n_embd, n_layer=1), 8192
        )
        optimizers = make_optimizers(GPT(config.model()), config, None)
        assert set_learning_rate(optimizers, 10, config) == 0.5
        adamw, muon = optimizers
        set_learning_rate(
            optimizers, 10, dataclasses.replace(config, weight_decay=0.7)
        )  # gone on with another
        assert {group["weight_decay"] for each in optimizers for group in each.param_groups} == {0.7}
        assert {group["lr"] for group in adamw.param_groups} == {0.5}
        assert {group["lr"] for group in muon.param_groups} == {0.5 * times}


def test_muon_is_torch_s_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of matrices of two shapes, one of them twice, against torch.optim.Muon with bf16 taken out."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((24, 8), (8, 16), (24, 8))]
    ours, reference = ([torch.nn.Parameter(each.clone()) for each in start] for _ in range(2))
    optimizers = [
        Muon(ours, lr=0.1, weight_decay=0.1),
        torch.optim.Muon(reference, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        gradients = [torch.randn_like(each) for each in start]
        for weights, optimizer in zip((ours, reference), optimizers, strict=True):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
    for ours_now, reference_now in zip(ours, reference, strict=True):
        torch.testing.assert_close(ours_now, reference_now, rtol=1e-4, atol=1e-5)


def test_orthogonalized() -> None:
    matrices = torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(0))
    for made in (orthogonalized(matrices), orthogonalized(matrices.mT).mT):
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.6 and values.max() < 1.25
    assert not orthogonalized(torch.zeros(1, 4, 4)).any()  # and no division by zero


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_parts_move_tokens_as_if_their_vectors_were_sums(share: float) -> None:
    """Against AdamW on E and P themselves, with W = E + S P made anew in each step; E at a share of P's rate."""
    parts = token_parts(load_tokenizer())
    assert parts is not None
    torch.manual_seed(0)
    of_tokens = dense(parts.of_tokens, parts.num_parts)
    start, wanted = torch.randn(8192, 8), torch.randn(8192, 8)

    table = torch.nn.Parameter(start.clone())
    ours = PartsAdamW([{"params": [table], "has_parts": True}], parts, share, lr=0.1, weight_decay=0.1)
    own = torch.nn.Parameter(start.clone())
    of_parts = torch.nn.Parameter(torch.zeros(parts.num_parts, 8))
    slower = {"params": [own], "lr": 0.1 * share, "weight_decay": 0.1 / share}  # decays as fast
    reference = torch.optim.AdamW([slower, {"params": [of_parts]}], lr=0.1, weight_decay=0.1)
    for _ in range(5):
        (table - wanted).square().sum().backward()
        ours.step()
        ours.zero_grad()
        (own + of_tokens @ of_parts - wanted).square().sum().backward()
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(table, own + of_tokens @ of_parts, rtol=1e-4, atol=1e-4)
    assert (table - start).abs().mean() > 0.3 * share
    assert (ours.param_groups[0]["lr"], ours.param_groups[0]["weight_decay"]) == (0.1, 0.1)


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_device_decides_whether_a_step_is_taken(is_compiled: bool) -> None:
    """As on CUDA: good iters are steps, bad ones leave weights and means alone, even before the first good one."""
    torch.manual_seed(0)
    parts = token_parts(load_tokenizer())
    start = {
        name: torch.randn(shape)
        for name, shape in (("matrix", (8, 16)), ("other", (8, 16)), ("table", (8192, 4)))
    }
    runs = []
    for is_told in (False, True):
        weights = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        table, matrices = weights.pop("table"), list(weights.values())
        adamw = PartsAdamW([{"params": [table], "has_parts": True}], parts, lr=0.1, weight_decay=0.1)
        muon = Muon(matrices, lr=0.1, weight_decay=0.1, is_compiled=is_compiled and is_told)
        muon.warm_up()
        gradients = torch.Generator().manual_seed(1)
        for is_good in (False, True, False, True, False):
            for optimizer in (adamw, muon):
                optimizer.is_good = torch.tensor(is_good) if is_told else None
                for weight in optimizer.param_groups[0]["params"]:
                    gradient = torch.randn(weight.shape, generator=gradients)
                    weight.grad = gradient if is_good else torch.zeros_like(weight)
                if is_good or is_told:
                    optimizer.step()
        runs.append([table, *matrices])
    for expected, weight, before in zip(
        runs[0], runs[1], (start["table"], start["matrix"], start["other"]), strict=True
    ):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
        assert (weight - before).abs().max() > 0.01


def test_tokens_learn_less_for_themselves_the_more_often_they_are_seen() -> None:
    config = resolve(TrainConfig(max_iters=30, lr_decay_iters=20), 8192)
    assert own_rate(config, 40, 8) == 0.25  # four epochs of 40 windows
    assert own_rate(config, 1000, 8) == 1.0  # less than one
    to_overfit = dataclasses.replace(config, train_samples=40)
    assert own_rate(to_overfit, 40, 8) == 1.0


def test_what_tokens_are_made_of() -> None:
    tokenizer = load_tokenizer()
    parts = token_parts(tokenizer)
    assert parts is not None
    matrix = dense(parts.of_tokens, parts.num_parts)
    assert torch.equal(dense(parts.of_parts, 8192), matrix.T)
    assert torch.equal(parts.of_tokens.dense, matrix) and torch.equal(parts.of_parts.dense, matrix.T)
    expansions = tokenizer.segmenter.expansions  # type: ignore[attr-defined]
    some = next(token for token in range(4000, 8192) if len(set(expansions[token])) == 4)
    bag, first, last = matrix[some].chunk(3)
    assert (bag > 0).sum() == 4 and (first > 0).sum() == (last > 0).sum() == 1
    assert bag.sum() == pytest.approx(len(expansions[some]) ** 0.5)
    same_first = next(t for t in range(some + 1, 8192) if expansions[t][0] == expansions[some][0])
    assert torch.equal(matrix[same_first].chunk(3)[1], first)
    assert token_parts(object()) is None  # a tokenizer that cannot be looked into


def dense(matrix: SparseMatrix, num_columns: int) -> torch.Tensor:
    """Entry by entry."""
    ends = [*matrix.starts.tolist()[1:], len(matrix.columns)]
    result = torch.zeros(len(matrix.starts), num_columns)
    for row, (start, end) in enumerate(zip(matrix.starts.tolist(), ends, strict=True)):
        result[row, matrix.columns[start:end]] = matrix.values[start:end]
    return result


@pytest.mark.parametrize(("share", "power"), [(0.4, 3), (1.0, 0)])
def test_the_average_counts_the_weights_of_an_iter_by_a_power_of_its_number(share: float, power: int) -> None:
    weight = torch.nn.Parameter(torch.zeros(5))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    average = WeightAverage([optimizer], share)
    average.exchange()  # before the first step, nothing
    history = []
    for number in range(1, 31):
        weight.grad = torch.randn(5)
        average.iters = number
        optimizer.step()
        history.append(weight.detach().clone())
    average.exchange()
    # Polynomial decay is exactly t (t + 1) ... (t + power - 1), which is t^power for large t.
    counts = [math.prod(range(number, number + power)) for number in range(1, 31)]
    expected = sum(count * each for count, each in zip(counts, history, strict=True)) / sum(counts)
    torch.testing.assert_close(weight.detach(), expected)
    average.exchange()
    assert torch.equal(weight.detach(), history[-1])


def test_exchanged_twice_is_the_same_and_without_an_average_is_what_was_trained() -> None:
    trained, mean = torch.ones(2), torch.zeros(2)
    state = {"state": {"w": {"step": 3, "average": mean}}, "param_groups": []}
    weights, exchanged_state = exchanged({"w": trained}, state, 0.4)
    assert weights["w"] is mean and exchanged_state["state"]["w"]["average"] is trained
    again, _ = exchanged(weights, exchanged_state, 0.4)
    assert again["w"] is trained
    plain, without = exchanged(weights, exchanged_state, 0.0)
    assert plain["w"] is trained and without["state"]["w"] == {"step": 3}
