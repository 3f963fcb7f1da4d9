"""On a GPU: what the loop computes is what it computes on a CPU, also compiled, in bf16, resumed, and short of memory.

`make test-gpu` runs these.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import write_store
from nanochat_tct.data.windows import Windows, targets_of
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import continue_prompts
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import TokenMask, masks_on
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import ResolvedConfig, TrainConfig, resolve
from nanochat_tct.training.optim import make_optimizers, step_if
from nanochat_tct.training.token_parts import token_parts
from tests.support.commands import flags, run_cli, run_python
from tests.support.models import untrained_model
from tests.support.workers import CPU, changed, checkpoint_of, losses, small_config, train_alone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("data") / "store"
    write_store(folder, [synthesize(index, seed=0) for index in range(150)], load_tokenizer())
    return folder


def gpu_config(data_dir: Path, folder: Path, **changes: Any) -> ResolvedConfig:
    """A run in which rows hold several documents, on the GPU, in bf16, compiled."""
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 64, "context_size": 256, "batch_size": 4}
    return small_config(data_dir, folder, **{**shape, "use_gpu": True, "compile": True, **changes})


@pytest.mark.parametrize("is_masked", [False, True])
def test_loss_and_gradients_are_those_of_a_cpu(data_dir: Path, is_masked: bool) -> None:
    """float32, compiled, attention by flex; on the CPU by a dense mask."""
    store, tokenizer = TokenStore.open(data_dir), load_tokenizer()
    windows = Windows(store, "train", 256)
    rows, mask_ids, _ = windows.get_masked(np.arange(4))
    assert (rows[:, 1:] >= store.vocab_size).any(), "documents begin inside rows"
    tokens = torch.from_numpy(rows[:, :-1].copy())
    targets = torch.from_numpy(targets_of(rows, store.vocab_size, tokenizer.pad_token()))
    results = []
    for device in (CPU, GPU):
        model = untrained_model(GPTConfig(context_size=256, n_layer=2, n_head=2, n_embd=64), std=0.1)
        model.to(device)
        if device == GPU:
            model.compile()
        masks = masks_on(device, store.masks)
        legal = None
        if is_masked:
            assert mask_ids is not None and masks is not None
            legal = TokenMask(torch.from_numpy(mask_ids).to(device), masks)
        nats = model(tokens.to(device), targets.to(device), legal=legal)
        nats.backward()
        results.append((nats.item(), {name: p.grad.cpu() for name, p in model.named_parameters()}))
    (nats, gradients), (nats_of_gpu, gradients_of_gpu) = results
    assert nats_of_gpu == pytest.approx(nats, rel=1e-4)
    for name, expected in gradients.items():
        error = (gradients_of_gpu[name] - expected).norm() / expected.norm()
        assert error < 5e-3, (name, float(error))


def test_runs_learn_the_same_way(data_dir: Path, tmp_path: Path) -> None:
    runs = {
        "cpu": {"use_gpu": False, "compile": False, "precision": "fp32"},
        "eager": {"compile": False},
        "compiled": {},
        "checkpointed": {"checkpoint_activations": True},
        "accumulated": {"batch_size": 2, "gradient_accumulation": 2},
    }
    curves = {}
    for name, changes in runs.items():
        config = gpu_config(data_dir, tmp_path / name, **changes)
        train_alone(config)
        curves[name] = losses(config)
    assert curves["cpu"][-1] < 0.8 * curves["cpu"][0]
    for name, curve in curves.items():
        np.testing.assert_allclose(curve, curves["cpu"], rtol=3e-2, err_msg=name)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_resumed_is_undisturbed(data_dir: Path, tmp_path: Path, is_compiled: bool) -> None:
    settings = {"compile": is_compiled, "dropout": 0.1}
    whole = gpu_config(data_dir, tmp_path / "whole", **settings)
    train_alone(whole)
    halves = gpu_config(data_dir, tmp_path / "halves", **settings)
    train_alone(changed(halves, max_iters=6))
    train_alone(halves)
    assert losses(halves) == losses(whole)
    for name, expected in checkpoint_of(whole).weights().items():
        assert torch.equal(checkpoint_of(halves).weights()[name], expected), name


@pytest.mark.parametrize("n_layer", [1, 2])
def test_a_gradient_that_is_not_finite_moves_nothing(n_layer: int) -> None:
    """The device decides that, and nobody has waited for it."""
    tokenizer = load_tokenizer()
    config = resolve(TrainConfig(n_layer=n_layer, n_head=1, n_embd=32, context_size=64, compile=True), 8192)
    model = GPT(config.model()).to(GPU)
    optimizers = make_optimizers(model, config, token_parts(tokenizer))
    for value, is_good in ((torch.nan, False), (1.0, True), (torch.inf, False), (1.0, True)):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        step_if(torch.tensor(is_good, device=GPU), optimizers)
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert parameter.isfinite().all() and torch.equal(parameter, old) != is_good


def test_short_of_memory_it_takes_fewer_windows_at_a_time(data_dir: Path, tmp_path: Path) -> None:
    settings = {"batch_size": 64, "compile": False, "max_iters": 3, "n_embd": 256, "n_head": 4}
    plain = gpu_config(data_dir, tmp_path / "plain", **settings)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train_alone(plain)
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    lines: list[str] = []
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
    try:
        short = gpu_config(data_dir, tmp_path / "short", **settings)
        train_alone(short, lines)
        auto = gpu_config(
            data_dir, tmp_path / "auto", **{**settings, "batch_size": "auto", "preset": "small"}
        )
        train_alone(auto, lines)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = [line for line in lines if "memory was full" in line]
    assert len(said) == 2, lines
    assert re.match(
        r"batch_size 64: (32|16|8) windows at a time, (2|4|8) times an iter, as the memory", said[0]
    )
    assert said[1].startswith("--batch-size auto: ")
    np.testing.assert_allclose(losses(short), losses(plain), rtol=1e-2)


def test_several_ways_to_start_it_train_the_same(data_dir: Path, tmp_path: Path) -> None:
    """torchrun with DDP and with FSDP, and Ray Train, compiled, over NCCL: one worker each."""
    alone = gpu_config(data_dir, tmp_path / "alone", max_iters=6)
    train_alone(alone)
    names = """data_dir n_layer n_head n_embd context_size max_iters eval_interval save_interval log_interval
        eval_iters batch_size learning_rate run_name wandb use_gpu compile tensorboard"""
    given = flags(**{name: getattr(alone, name) for name in names.split()}, num_samples=0)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    for way in ("ddp", "fsdp", "ray"):
        folder = tmp_path / way
        place = ["--checkpoint-dir", folder / "checkpoints", "--log-dir", folder / "logs"]
        if way == "ray":
            result = run_cli("train", *given, *place, "--num-workers", 1)
        else:
            script = [*torchrun, "-m", "nanochat_tct.training.torchrun", "--parallel", way]
            result = run_python(*script, *given, *place)
        assert result.code == 0, (way, result.stdout[-2000:], result.stderr[-2000:])
        run = changed(alone, checkpoint_dir=str(folder / "checkpoints"))
        np.testing.assert_allclose(losses(run), losses(alone), rtol=2e-2, err_msg=way)
        assert checkpoint_of(run).weights().keys() == checkpoint_of(alone).weights().keys()


def test_generation_is_that_of_a_cpu() -> None:
    tokenizer = load_tokenizer()
    model = untrained_model(GPTConfig(context_size=128, n_layer=2, n_head=2, n_embd=64), std=0.1)
    written = []
    for device in (CPU, GPU):
        samples = dict(
            continue_prompts(model.to(device), tokenizer, [Prompt()] * 20, SamplingConfig(max_tokens=60))
        )
        assert all(sample.is_complete for sample in samples.values())
        written.append([samples[index].tokens for index in range(20)])
    same = sum(one == other for one, other in zip(*written, strict=True))
    assert same >= 18, f"only {same} of 20 samples are the same"  # a tie of two draws may fall either way
