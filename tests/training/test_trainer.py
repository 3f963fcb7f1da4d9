"""The loop: what it computes, and that nothing which happens to it changes that."""

import dataclasses
import functools
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import write_store
from nanochat_tct.data.windows import MaskedRows, Windows, targets_of
from nanochat_tct.errors import UserError
from nanochat_tct.model.accounting import flops_per_token
from nanochat_tct.model.checkpoint import find_checkpoint, latest_checkpoint, load_checkpoint
from nanochat_tct.model.config import PRESETS
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import TokenMask, masks_on
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training import trainer
from nanochat_tct.training.config import ResolvedConfig, TrainConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker
from nanochat_tct.training.micro_batch import MicroSteps
from nanochat_tct.training.optim import set_learning_rate
from nanochat_tct.training.plan import describe, make_plan
from nanochat_tct.training.trainer import Reporter
from tests.support.commands import full_disk
from tests.support.models import untrained_model
from tests.support.workers import (
    CPU,
    batches,
    changed,
    checkpoint_of,
    losses,
    small_config,
    small_store,
    small_workflows,
    train_alone,
    train_together,
)


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ResolvedConfig]:
    """A run that nothing happens to, trained once for each set of settings; tests only read it."""

    @functools.cache
    def run(**settings: Any) -> ResolvedConfig:
        config = small_config(data_dir, tmp_path_factory.mktemp("undisturbed"), **settings)
        train_alone(config)
        return config

    return run


def assert_equal_weights(one: ResolvedConfig, other: ResolvedConfig) -> None:
    weights, others = checkpoint_of(one).weights(), checkpoint_of(other).weights()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []


def test_loss_falls_and_lines_have_their_format(data_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = train_alone(small_config(data_dir, tmp_path, max_iters=30, cpu_hourly_usd=3600.0), lines)
    assert result["step"] == 30 and result["skipped_iters"] == 0
    assert result["last_evaluation"]["bits_per_byte"] < 0.7 * result["first_evaluation"]["bits_per_byte"]
    number = r"\d+(\.\d+)?"
    pattern = (
        rf"iter \d+ \| loss \d+\.\d{{3}} \| lr 0\.\d{{6}} \| grad_norm \d+\.\d\d \| tokens/sec \d+ \| "
        rf"mfu {number}% \| cost \$\d+\.\d\d \| eta \d+:\d\d:\d\d"
    )
    iters = [line for line in lines if line.startswith("iter ")]
    assert len(iters) == 30 and all(re.fullmatch(pattern, line) for line in iters), iters[0]
    assert result["cost_usd"] > 0.1
    assert lines[0].startswith("eval 0 | bits per byte ")


def test_validation_is_exact_over_the_whole_split(data_dir: Path, tmp_path: Path) -> None:
    config = small_config(data_dir, tmp_path, max_iters=2, eval_iters=0, batch_size=7)
    result = train_alone(config)
    store, tokenizer = TokenStore.open(data_dir), load_tokenizer()
    windows = Windows(store, "val", 32)
    rows, mask_ids, _ = windows.get_masked(np.arange(len(windows)))
    assert mask_ids is not None and store.masks is not None
    legal = TokenMask(torch.from_numpy(mask_ids), masks_on(CPU, store.masks))
    model = GPT(config.model())
    model.load_state_dict(checkpoint_of(config).weights())
    model.eval()
    targets = torch.from_numpy(targets_of(rows, tokenizer.vocab_size(), tokenizer.pad_token()))
    with torch.no_grad():
        nats = float(model(torch.from_numpy(rows[:, :-1]), targets, legal=legal))
    assert int((targets != -1).sum()) == windows.num_targets
    expected = nats / math.log(2) / windows.num_bytes
    assert result["last_evaluation"]["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "average", "stopped_at", "goes_on_at"),
    [("muon", 0.0, 4, 5), ("muon", 0.4, 7, 7), ("adamw", 0.4, 4, 5)],
)  # saved at 4; evaluated at 6: best
def test_resumed_is_undisturbed_bit_for_bit(
    undisturbed: Any,
    data_dir: Path,
    tmp_path: Path,
    optimizer: str,
    average: float,
    stopped_at: int,
    goes_on_at: int,
) -> None:
    settings = {"dropout": 0.2, "gradient_accumulation": 2, "optimizer": optimizer, "weight_average": average}
    whole = undisturbed(**settings)

    class Stop(Exception):
        pass

    def set_learning_rate_or_stop(optimizers: Any, step: int, config: ResolvedConfig) -> float:
        if step == stopped_at:
            raise Stop
        return set_learning_rate(optimizers, step, config)

    broken = small_config(data_dir, tmp_path / "broken", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "set_learning_rate", set_learning_rate_or_stop)
        with pytest.raises(Stop):
            train_alone(broken)
    torch.manual_seed(99)  # whatever else happens in between
    lines: list[str] = []
    train_alone(broken, lines)
    assert lines[0].startswith(f"iter {goes_on_at} "), lines[0]
    assert batches(whole) == batches(broken)
    assert_equal_weights(whole, broken)
    assert losses(whole) == losses(broken)  # and no iter twice in the log


def test_what_is_worse_than_before_training_is_not_the_best(data_dir: Path, tmp_path: Path) -> None:
    """A rate that ruins the model: no evaluation passes that of iter 0, so none is the best, also once resumed."""
    settings: dict[str, Any] = {"learning_rate": 30.0, "min_lr": 30.0, "eval_interval": 1, "warmup_iters": 0}
    settings |= {"max_grad_norm_ratio": 0.0, "save_interval": 1, "lr_decay_iters": 4}
    lines: list[str] = []
    for max_iters in (2, 4):
        result = train_alone(small_config(data_dir, tmp_path, max_iters=max_iters, **settings), lines)
    evaluations = [line for line in lines if line.startswith("eval ")]
    worse = [float(re.findall(r"byte (\S+)", line)[0]) for line in evaluations]
    assert len(worse) == 5 and worse[0] == min(worse), evaluations
    assert not any(line.endswith("best") for line in evaluations), evaluations
    assert result["best"] is None
    run_dir = tmp_path / "checkpoints" / "run"
    assert find_checkpoint(run_dir).path == latest_checkpoint(run_dir)


def stop_at_call(number: int) -> Any:
    """A Reporter's `stop_reason` that has one from its so-manieth call on."""
    calls = iter(range(1, 10**9))
    return lambda: "the budget is spent" if next(calls) >= number else None


@pytest.mark.parametrize("call", [2, 5, 8, 11])  # in the first evaluation, an iter, an evaluation, an iter
def test_a_stop_is_prompt_saves_and_changes_nothing(
    undisturbed: Any, data_dir: Path, tmp_path: Path, call: int
) -> None:
    settings: dict[str, Any] = {"dropout": 0.2, "eval_interval": 3, "max_iters": 6}
    expected = undisturbed(**settings)
    config = small_config(data_dir, tmp_path / "stopped", **settings)
    result = train_alone(config, stop_reason=stop_at_call(call))
    assert result["stopped"] == "the budget is spent" and result["step"] < 6
    assert result["step"] == {2: 0, 5: 2, 8: 3, 11: 5}[call]
    latest = latest_checkpoint(Path(config.run_place))
    assert result["checkpoint"] == (None if latest is None else str(latest))
    assert latest is None or load_checkpoint(latest).step == result["step"]
    again = train_alone(config)
    assert again["stopped"] is None and again["step"] == 6
    assert_equal_weights(expected, config)
    whole, stopped = (read_metrics(Path(each.run_place)) for each in (expected, config))
    for one, other in zip(whole, stopped, strict=True):  # what was cut off was done again
        assert (one["kind"], one["iter"], one["loss"]) == (other["kind"], other["iter"], other["loss"])


def stop_second_rank(rank: int) -> Reporter:
    """Rank 1 wants to stop from its ninth call on; the others are not told."""
    never = 10**9
    return Reporter(say=lambda line: None, stop_reason=stop_at_call(9 if rank == 1 else never))


def test_one_worker_that_wants_to_stop_stops_all(data_dir: Path, tmp_path: Path) -> None:
    settings = {"batch_size": 2, "num_workers": 2, "eval_interval": 100}
    ddp = small_config(data_dir, tmp_path / "ddp", **settings)
    fsdp = small_config(data_dir, tmp_path / "fsdp", parallel="fsdp", **settings)
    train_together([(ddp, stop_second_rank), (fsdp, stop_second_rank)], 2)
    for run in (ddp, fsdp):
        step = find_checkpoint(run.run_place).step
        assert 4 < step < 9 and step == len(losses(run)), step


def test_work_is_charged_before_it_is_done(data_dir: Path, tmp_path: Path) -> None:
    charged: list[tuple[str, float]] = []
    config = small_config(data_dir, tmp_path, max_iters=4, eval_interval=2, save_interval=4, eval_iters=0)

    def refuse(kind: str, flops: float) -> None:
        charged.append((kind, flops))
        if len(charged) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_alone(config, charge=refuse)
    assert [kind for kind, _ in charged] == ["warm_up", "evaluation", "train", "train"]
    assert len(losses(config)) == 1  # the second was not done

    charged.clear()
    train_alone(config, charge=lambda kind, flops: charged.append((kind, flops)))
    kinds = [kind for kind, _ in charged]
    assert kinds[:4] == ["warm_up", "evaluation", "train", "train"]
    assert kinds[-2:] == ["evaluation", "checkpoint"]
    row = flops_per_token(config.model()) * 32
    num_validation_rows = len(Windows(TokenStore.open(data_dir), "val", 32))
    flops = dict(charged)
    assert flops == {
        "warm_up": 5 * row,  # a micro-batch to see whether it fits, and one window
        "train": 4 * row,
        "checkpoint": 0,
        "evaluation": pytest.approx(num_validation_rows * row / 3),
    }


def test_a_damaged_checkpoint_is_passed_over_and_done_again(data_dir: Path, tmp_path: Path) -> None:
    """It is said, and the one before is gone on from. (Each damage of each file: test_checkpoint.py.)"""
    config = small_config(data_dir, tmp_path, max_iters=6, save_interval=4, eval_interval=100)
    train_alone(config)
    whole = checkpoint_of(config).weights()
    for name in ("model.safetensors", "optimizer.pt", "state.json", "manifest.json"):
        file = Path(config.run_place) / "iter_00000006" / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.unlink()  # `whole` is mapped from it
        file.write_bytes(content)
        lines: list[str] = []
        result = train_alone(config, lines)
        assert lines[0].startswith("damaged checkpoint passed over: ") and "iter_00000006" in lines[0]
        assert lines[1].startswith("iter 5 ") and not result["is_finished_before"], name
        weights = checkpoint_of(config).weights()
        assert [key for key in whole if not torch.equal(weights[key], whole[key])] == []


def test_a_finished_run_does_nothing(undisturbed: Any) -> None:
    config = undisturbed()
    files = list(Path(config.run_place).rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in files]
    lines: list[str] = []
    assert train_alone(config, lines)["is_finished_before"]
    assert lines == []
    assert files and before == [path.stat().st_mtime_ns for path in files]


def test_another_run_is_refused_by_name(undisturbed: Any, data_dir: Path, tmp_path: Path) -> None:
    folder = Path(undisturbed().run_place).parents[1]
    for changes, word in (
        ({"n_layer": 3}, "n_layer"),
        ({"batch_size": 5}, "global batch"),
        ({"seed": 1}, "seed"),
        ({"train_samples": 3}, "train_samples"),
        ({"data_dir": small_store(tmp_path / "other", seed=1)}, "data"),
    ):
        with pytest.raises(UserError, match=word):
            small_config(changes.pop("data_dir", data_dir), folder, **changes)
    small_config(data_dir, folder, learning_rate=0.001, max_iters=20, num_workers=2, batch_size=2)
    small_config(data_dir, folder, num_workers=2)  # each accumulates less


def test_gradients_are_of_the_mean_over_all_targets(data_dir: Path, tmp_path: Path) -> None:
    """Micro-batches with very different numbers of targets weigh by targets, not by micro-batch."""
    config = small_config(data_dir, tmp_path, batch_size=2, gradient_accumulation=3, grad_clip=0.0)
    pad = load_tokenizer().pad_token()
    windows = Windows(TokenStore.open(data_dir), "train", 32)
    rows = windows.get(np.arange(6))
    rows[0, 3:] = rows[1, 2:] = rows[4, 30:] = pad  # uneven
    model, reference = (untrained_model(config.model(), std=0.05) for _ in range(2))
    micro = MicroSteps(model, config, Worker(0, 1, CPU), 6, pad)
    _, loss, norm, _ = micro.gradients(micro.load(MaskedRows(rows))).wait()
    targets = torch.from_numpy(targets_of(rows, 8192, pad))
    expected = reference(torch.from_numpy(rows[:, :-1]), targets) / (targets != -1).sum()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-7)
    gradients = [parameter.grad for parameter in reference.parameters() if parameter.grad is not None]
    assert norm == pytest.approx(float(torch.nn.utils.get_total_norm(gradients)), rel=1e-5)


def test_masked_gradients_know_only_legal_tokens(data_dir: Path, tmp_path: Path) -> None:
    """Also over micro-batches: the head learns nothing of a token that is legal nowhere in them."""
    config = small_config(data_dir, tmp_path, batch_size=2, gradient_accumulation=2, grad_clip=0.0)
    store = TokenStore.open(data_dir)
    assert store.masks is not None
    batch = Windows(store, "train", 32).get_masked(np.arange(4))
    assert batch.mask_ids is not None
    for masks in (None, masks_on(CPU, store.masks)):
        model = GPT(config.model())
        micro = MicroSteps(model, config, Worker(0, 1, CPU), 4, store.pad_token, masks=masks)
        micro.gradients(micro.load(batch))
        assert model.head.weight.grad is not None
        is_learned = (model.head.weight.grad != 0).any(dim=1).numpy()  # (vocab_size,)
        legal = np.unpackbits(store.masks[np.unique(batch.mask_ids)][1:], axis=1).any(axis=0)
        assert (is_learned == (legal if masks is not None else True)).all()


def test_without_masks_it_is_said_once(data_dir: Path, tmp_path: Path) -> None:
    unmasked = tmp_path / "store"
    write_store(unmasked, small_workflows(40), load_tokenizer(), with_masks=False)
    lines: list[str] = []
    train_alone(small_config(unmasked, tmp_path / "without", max_iters=2), lines)
    assert sum("no masks of legal tokens" in line for line in lines) == 1
    lines.clear()
    train_alone(small_config(unmasked, tmp_path / "told", max_iters=2, mask_illegal=False), lines)
    assert not any("masks" in line for line in lines)
    train_alone(small_config(data_dir, tmp_path / "with", max_iters=2), lines)
    assert not any("masks" in line for line in lines)
    with pytest.raises(UserError, match="mask_illegal"):
        small_config(data_dir, tmp_path / "with", mask_illegal=False)


def poison_second_rank(rank: int, bad_call: int = 4, factor: float = math.nan) -> None:
    """Rank 1's fourth micro-step (the first two are for warming up) gives no number."""
    calls = 0

    class Poisoned(GPT):
        def forward(self, tokens: Any, targets: Any = None, legal: Any = None) -> Any:
            nonlocal calls
            nats = super().forward(tokens, targets, legal)
            calls += self.training
            return nats * factor if self.training and calls == bad_call and rank == 1 else nats

    trainer.GPT = Poisoned  # type: ignore[misc]


def spike_second_rank(rank: int) -> None:
    """Rank 1's 32nd micro-step gives a finite loss whose gradient is a thousand times the usual."""
    poison_second_rank(rank, bad_call=32, factor=2000.0)


def gradient_without_number(rank: int) -> None:
    """Rank 1's fourth micro-step (two are for warming up) has a gradient that is infinite in one place."""
    poison_second_rank(rank, bad_call=0)
    calls = 0

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        gradient = gradient.clone()
        gradient[0] = math.inf if calls == 4 and rank == 1 else gradient[0]
        return gradient

    class Poisoned(GPT):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.head.weight.register_hook(poison)

    trainer.GPT = Poisoned  # type: ignore[misc]


def test_a_bad_number_a_spike_or_an_infinite_gradient_on_one_worker_is_skipped_on_all(
    data_dir: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"num_workers": 2, "batch_size": 2, "eval_interval": 100, "save_interval": 100}
    spike = small_config(data_dir, tmp_path / "spike", max_iters=33, **settings)
    allowed = small_config(data_dir, tmp_path / "allowed", max_iters=33, max_grad_norm_ratio=0.0, **settings)
    infinite = small_config(data_dir, tmp_path / "infinite", max_iters=6, **settings)
    bad = small_config(data_dir, tmp_path / "bad", max_iters=6, **settings)
    jobs = [(spike, spike_second_rank), (allowed, spike_second_rank), (infinite, gradient_without_number)]
    train_together([*jobs, (bad, poison_second_rank)], 2)
    for run, count in ((spike, 1), (allowed, 0), (infinite, 1), (bad, 1)):
        progress = checkpoint_of(run).state["progress"]
        assert progress["skipped_iters"] == count and progress["skipped_in_a_row"] == 0, run.run_place
        is_bad = [run is bad and step == 1 for step in range(progress["step"])]
        assert [not math.isfinite(loss) for loss in losses(run)] == is_bad
        assert all(tensor.isfinite().all() for tensor in checkpoint_of(run).weights().values())
    assert losses(spike)[:30] == losses(allowed)[:30]
    assert losses(spike)[30:] != losses(allowed)[30:]


def test_several_bad_iters_in_a_row_stop_the_run(data_dir: Path, tmp_path: Path, monkeypatch: Any) -> None:
    class Hopeless(GPT):
        def forward(self, tokens: Any, targets: Any = None, legal: Any = None) -> Any:
            return super().forward(tokens, targets, legal) * (math.inf if self.training else 1)

    monkeypatch.setattr(trainer, "GPT", Hopeless)
    with pytest.raises(StoppedTogether, match=r"stopped at iter 5: 5 iters in a row.*learning-rate"):
        train_alone(small_config(data_dir, tmp_path))


@pytest.mark.parametrize("names", [("saving", "bf16"), pytest.param(("compiled",), marks=pytest.mark.slow)])
def test_what_saves_time_or_memory_changes_little(
    names: tuple[str, ...], undisturbed: Any, data_dir: Path, tmp_path: Path
) -> None:
    settings: dict[str, tuple[dict[str, Any], float]] = {
        "saving": ({"checkpoint_activations": True}, 1e-5),
        "bf16": ({"precision": "bf16"}, 2e-2),
        "compiled": ({"compile": True}, 1e-3),
    }
    plain = undisturbed(max_iters=4)
    for name in names:
        changes, tolerance = settings[name]
        other = small_config(data_dir, tmp_path / name, max_iters=4, **changes)
        train_alone(other)
        np.testing.assert_allclose(losses(other), losses(plain), rtol=tolerance, err_msg=name)


# In the weights, in the optimizer, before either.
@pytest.mark.parametrize("limit", [20_000, 800_000, 1_500_000])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    data_dir: Path, tmp_path: Path, limit: int
) -> None:
    config = small_config(data_dir, tmp_path, max_iters=8)
    with full_disk(limit), pytest.raises(StoppedTogether, match="checkpoint of iter 4 cannot be written"):
        train_alone(config)
    run_dir = tmp_path / "checkpoints" / "run"
    assert not list(run_dir.glob(".partial-*")) and not list(run_dir.glob("iter_*"))
    assert train_alone(config)["step"] == 8


def test_per_document_windowing(data_dir: Path, tmp_path: Path) -> None:
    config = small_config(data_dir, tmp_path, windowing="per-document", stride=8, max_iters=3, eval_iters=0)
    assert dataclasses.asdict(config)["stride"] == 8
    assert train_alone(config)["last_evaluation"]["bits_per_byte"] > 0


def test_the_average_is_what_is_evaluated_and_saved_and_training_does_not_change(
    undisturbed: Any, data_dir: Path, tmp_path: Path
) -> None:
    last, averaged = undisturbed(), undisturbed(weight_average=0.5)
    assert losses(averaged) == losses(last)
    weights, others = checkpoint_of(averaged).weights(), checkpoint_of(last).weights()
    states = checkpoint_of(averaged).optimizer_state()["optimizer"]["state"]
    assert weights.keys() == others.keys() == states.keys()
    for name, state in states.items():
        assert torch.equal(state["average"], others[name]), "to go on with"
        assert not torch.equal(weights[name], others[name])
    # A run can be continued with and without an average, also one that had none.
    longer = []
    for run, average in ((averaged, 0.0), (last, 0.5), (last, 0.0)):
        copy = changed(run, checkpoint_dir=str(tmp_path / f"{run.weight_average:g}-{average:g}"))
        shutil.copytree(run.run_place, copy.run_place)
        longer.append(changed(copy, max_iters=run.max_iters + 2, weight_average=average))
        train_alone(longer[-1])
    assert losses(longer[0]) == losses(longer[1]) == losses(longer[2])
    assert_equal_weights(longer[0], longer[2])


def test_a_plan_says_the_weight_decay_and_average_of_several_epochs(data_dir: Path, tmp_path: Path) -> None:
    settings = small_config(data_dir, tmp_path).reopened(
        max_iters=400, lr_decay_iters=None, weight_decay=None, weight_average=None
    )
    plan = make_plan(settings)
    epochs = 400 * plan.config.global_batch / plan.num_windows["train"]
    assert epochs > 10 and plan.config.weight_decay == pytest.approx(1.3 * epochs / (0.01 * 400), rel=0.02)
    assert any(f"weight decay {plan.config.weight_decay:g}; " in line for line in describe(plan))
    assert any(line.endswith("; weights averaged over 40% of the iters") for line in describe(plan))
    assert make_plan(dataclasses.replace(settings, weight_average=0.0)).config.weight_average == 0.0
    assert (
        make_plan(dataclasses.replace(settings, max_iters=20)).config.weight_average == 0.0
    )  # half an epoch


@pytest.mark.slow
def test_the_demo_model_learns_ten_windows_by_heart(tmp_path: Path) -> None:
    """The bar: a training loss under 0.1 within 1,000 iters, of 10 windows of 256 tokens."""
    store = tmp_path / "store"
    write_store(store, [synthesize(index, seed=0) for index in range(40)], load_tokenizer())
    settings = TrainConfig(data_dir=str(store), train_samples=10, max_iters=130, batch_size=5, num_workers=1)
    quiet = changed(settings, eval_iters=1, eval_interval=1000, wandb="off", tensorboard=False)
    config = make_plan(changed(quiet, checkpoint_dir=str(tmp_path), run_name="run")).config
    assert config.model() == PRESETS["demo"]
    train_alone(config)
    assert losses(config)[-1] < 0.1
