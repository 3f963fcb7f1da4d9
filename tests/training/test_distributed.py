"""One, two and four workers, copies or slices: the same global batches, the same losses, one kind of checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows
from nanochat_tct.evaluation.loss import batch_sums, evaluation_batches
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import masks_on
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training import trainer
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.distributed import Worker
from nanochat_tct.training.micro_batch import MicroSteps
from tests.support.models import untrained_model
from tests.support.workers import (
    CPU,
    batches,
    changed,
    checkpoint_of,
    expected_batches,
    losses,
    small_config,
    train_alone,
    train_together,
)

pytestmark = pytest.mark.processes
ITERS = 50  # of the slow tests, and for the schedule of learning rates
# Sums over workers are taken in another order, in float32; over 50 iters the difference grows to about 1e-5.
TOLERANCE = 1e-4
BF16_TOLERANCE = 3e-2  # three significant digits, in every activation


def config_of(data_dir: Path, folder: Path, workers: int, parallel: str, **changes: Any) -> ResolvedConfig:
    """A run of a global batch of 8 windows, whatever the number of workers."""
    settings = {"batch_size": 2, "gradient_accumulation": 4 // workers, "num_workers": workers}
    quiet = {"eval_interval": 1000, "save_interval": 1000, "eval_iters": 1}
    run = folder / f"{parallel}{workers}"
    more = {**settings, **quiet, "max_iters": ITERS, "parallel": parallel, **changes}
    return small_config(data_dir, run, **more)


class Watched(MicroSteps):
    """Looks at the types of FSDP's numbers in bf16, where they are in use."""

    def gradients(self, *arguments: Any) -> Any:
        results = super().gradients(*arguments)
        assert isinstance(self.trained, GPT)
        for parameter in self.trained.parameters():
            assert parameter.dtype == torch.float32  # master weights
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32  # as reduced
        used: list[torch.dtype] = []
        block = self.trained.blocks[0]
        hooks = [
            block.attention.register_forward_pre_hook(
                lambda module, inputs: used.extend(tensor.dtype for tensor in inputs[:3])
            ),
            block.mlp.c_fc.register_forward_hook(
                lambda module, inputs, output: used.extend((module.weight.dtype, output.dtype))
            ),
        ]
        with torch.no_grad():
            self.trained(torch.zeros((1, 4), dtype=torch.int64))
        for hook in hooks:
            hook.remove()
        # x, the cosines and sines of places, of which bf16 would leave two digits, and the MLP's weights and output
        bf16, float32 = torch.bfloat16, torch.float32
        assert used == [bf16, float32, float32, bf16, bf16]
        return results


def watch(rank: int) -> None:
    trainer.MicroSteps = Watched  # type: ignore[misc]


def save_only_at_the_end(rank: int) -> None:
    """No evaluation is the best, because a checkpoint lets FSDP forget the weights that it has gathered for it."""
    evaluate = trainer.Trainer.evaluate
    trainer.Trainer.evaluate = (  # type: ignore[method-assign]
        lambda self, can_stop=True: evaluate(self, can_stop) and False
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_several_workers_train_alike(data_dir: Path, tmp_path: Path) -> None:
    short = {"max_iters": 8, "lr_decay_iters": ITERS}
    alone = config_of(data_dir, tmp_path, 1, "ddp", **short)
    train_alone(alone)
    runs = [
        config_of(data_dir, tmp_path / "compiled", 2, parallel, compile=True, **short)
        for parallel in ("ddp", "fsdp")
    ]
    train_together([(run, None) for run in runs], 2)
    for run in runs:
        assert batches(run) == batches(alone)
        np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-3)


@pytest.mark.timeout(900)  # twelve processes with four workers, on however few cores
@pytest.mark.parametrize(
    ("counts", "iters"),
    [((2,), 12), pytest.param((2, 4), ITERS, marks=pytest.mark.slow)],
    ids=["two", "four"],
)
def test_any_number_of_workers_trains_alike(
    counts: tuple[int, ...], iters: int, data_dir: Path, tmp_path: Path
) -> None:
    length = {"max_iters": iters, "lr_decay_iters": ITERS, "weight_average": 0.5, "eval_interval": 5}
    alone = config_of(data_dir, tmp_path, 1, "ddp", **length)
    train_alone(alone)
    runs = {"alone": alone}
    for workers in counts:
        for parallel in ("ddp", "fsdp"):
            runs[f"{parallel}{workers}"] = config_of(data_dir, tmp_path, workers, parallel, **length)
        jobs = [(runs[f"{parallel}{workers}"], None) for parallel in ("ddp", "fsdp")]
        if workers == 2:
            # AdamW: Muon makes the rounding of bf16 grow faster than the numbers themselves can tell.
            few = min(iters, 20)
            short = {"max_iters": few, "lr_decay_iters": ITERS, "optimizer": "adamw"}
            half = config_of(data_dir, tmp_path / "bf16", 2, "fsdp", precision="bf16", **short)
            whole = config_of(data_dir, tmp_path / "fp32", 1, "ddp", **short)
            train_alone(whole)
            runs["sliced by one"] = config_of(data_dir, tmp_path, 1, "fsdp", **length)
            jobs.append((half, watch))
        train_together(jobs, workers)
    train_together([(runs["sliced by one"], save_only_at_the_end)], 1)

    assert batches(alone) == expected_batches(data_dir, 32, global_batch=8, iters=iters)
    assert len(set(batches(alone))) == iters
    assert min(losses(alone)) < 0.7 * losses(alone)[0]  # it learns, so that differences could grow
    for name, run in runs.items():
        assert batches(run) == batches(alone), name
        np.testing.assert_allclose(losses(run), losses(alone), rtol=TOLERANCE, err_msg=name)
        saved = checkpoint_of(run)
        for key, weight in checkpoint_of(alone).weights().items():
            torch.testing.assert_close(saved.weights()[key], weight, rtol=0, atol=5e-3, msg=f"{name} {key}")

    assert batches(half) == batches(alone)[:few]
    np.testing.assert_allclose(losses(half), losses(whole), rtol=BF16_TOLERANCE)
    saved = checkpoint_of(half)
    assert {weight.dtype for weight in saved.weights().values()} == {torch.float32}
    for state in saved.optimizer_state()["optimizer"]["state"].values():
        assert {value.dtype for value in state.values() if isinstance(value, torch.Tensor)} == {torch.float32}

    # FSDP's checkpoint in plain PyTorch ...
    sliced = runs[f"fsdp{counts[-1]}"]
    state = checkpoint_of(sliced).state
    assert (state["world_size"], state["global_batch"]) == (counts[-1], 8)
    model = GPT(sliced.model())
    model.load_state_dict(load_file(checkpoint_of(sliced).path / "model.safetensors"))
    store = TokenStore.open(data_dir)
    windows = Windows(store, "val", 32)
    rows = windows.get_masked(np.concatenate(evaluation_batches(len(windows), 8, batch_size=8)))
    masks = masks_on(CPU, store.masks)
    nats, num_targets, *_ = batch_sums(
        model, [rows], 8192, load_tokenizer().pad_token(), masks=masks
    ).tolist()
    evaluation = [entry for entry in read_metrics(Path(sliced.run_place)) if entry["kind"] == "validation"]
    assert evaluation[-1]["loss"] == pytest.approx(nats / num_targets, rel=1e-5)

    # ... under DDP, on another number of workers of either kind, and then alone.
    longer = {"max_iters": iters + 5, "num_workers": 2, "gradient_accumulation": 2}
    on_ddp = changed(sliced, parallel="ddp", **longer)
    on_fsdp = changed(runs[f"ddp{counts[-1]}"], parallel="fsdp", **longer)
    train_together([(on_ddp, None), (on_fsdp, None)], 2)
    train_alone(changed(alone, max_iters=iters + 7))
    for run in (on_ddp, on_fsdp):
        train_alone(changed(run, max_iters=iters + 7, parallel="ddp"))
        assert batches(run) == batches(alone) and len(batches(run)) == iters + 7
        np.testing.assert_allclose(losses(run), losses(alone), rtol=TOLERANCE)


def test_saved_activations_or_not_the_gradient_is_the_same(data_dir: Path, tmp_path: Path) -> None:
    config = small_config(data_dir, tmp_path, grad_clip=0.0)
    rows = Windows(TokenStore.open(data_dir), "train", 32).get_masked(np.arange(4))
    results = []
    for is_saving in (False, True):
        model = untrained_model(config.model(), std=0.05, checkpoint_activations=is_saving)
        inputs: list[int] = []
        model.blocks[0].attention.register_forward_hook(lambda *arguments, inputs=inputs: inputs.append(1))
        micro = MicroSteps(model, config, Worker(0, 1, CPU), 4, load_tokenizer().pad_token())
        _, loss, norm, _ = micro.gradients(micro.load(rows)).wait()
        assert len(inputs) == 1 + is_saving  # computed again for the backward pass
        results.append((loss, norm, [parameter.grad for parameter in model.parameters()]))
    (loss, norm, gradients), (saving_loss, saving_norm, saving_gradients) = results
    assert saving_loss == loss and saving_norm == norm
    for one, other in zip(gradients, saving_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
