"""Parameters, FLOPs and bytes by formula against the real model."""

import contextlib

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nanochat_tct.model.accounting import flops_per_token, memory_bytes, parameter_count, peak_flops
from nanochat_tct.model.config import PRESETS, GPTConfig
from nanochat_tct.model.gpt import GPT

SMALL = GPTConfig(vocab_size=512, context_size=128, n_layer=3, n_head=4, n_embd=64)


def example(config: GPTConfig, batch_size: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, config.vocab_size, (batch_size, config.context_size + 1))
    tokens[:, 0] = config.vocab_size
    targets = tokens[:, 1:].clone()
    tokens[:, 50] = config.vocab_size  # two documents a row, so that there is a mask
    return tokens[:, :-1], targets


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_count(name: str) -> None:
    config = PRESETS[name]
    counted = sum(parameter.numel() for parameter in GPT(config).parameters())
    assert parameter_count(config) == counted


def test_presets() -> None:
    shapes = {name: (config.n_embd, config.n_layer, config.n_head) for name, config in PRESETS.items()}
    assert shapes["baseline"] == (384, 6, 6)
    assert shapes["small"] == (512, 6, 8) and PRESETS["small"].context_size == 512
    assert shapes["medium"] == (768, 8, 12)
    assert shapes["large"] == (1024, 12, 16)
    assert 1.8e6 < parameter_count(PRESETS["demo"]) < 2.2e6
    assert {config.vocab_size for config in PRESETS.values()} == {8192}


@pytest.mark.parametrize("config", [SMALL, PRESETS["demo"]])
def test_flops_are_those_that_torch_counts(config: GPTConfig) -> None:
    torch.set_num_threads(1)
    tokens, targets = example(config, 2)
    model = GPT(config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, targets).backward()
    assert counter.get_total_flops() / tokens.numel() == pytest.approx(flops_per_token(config), rel=0.001)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_activation_memory_is_about_what_autograd_keeps(precision: str, checkpoint_activations: bool) -> None:
    torch.set_num_threads(1)
    config, batch_size = PRESETS["demo"], 2
    model = GPT(config, checkpoint_activations=checkpoint_activations)
    tokens, targets = example(config, batch_size)
    ours = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # by storage; held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in ours:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model(tokens, targets)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    estimate = memory_bytes(config, batch_size, precision, checkpoint_activations)
    forward_only = estimate.activations
    if precision == "bf16":
        forward_only += estimate.weights - 4 * parameter_count(config)  # bf16 copies of weights are saved too
    if checkpoint_activations:
        assert measured < forward_only  # one block's insides come in the backward pass
    else:
        assert forward_only == pytest.approx(measured, rel=0.15)


def test_memory_of_state() -> None:
    config = PRESETS["large"]
    estimate = memory_bytes(config, 8, "fp32")
    assert estimate.weights == estimate.gradients == 4 * parameter_count(config)
    assert memory_bytes(config, 8, optimizer="adamw").optimizer == 8 * parameter_count(config)
    in_blocks = sum(parameter.numel() for parameter in GPT(PRESETS["demo"]).blocks.parameters())
    demo = [
        memory_bytes(PRESETS["demo"], 8, optimizer=optimizer).optimizer for optimizer in ("adamw", "muon")
    ]
    assert demo[0] - demo[1] == 4 * in_blocks
    assert estimate.total == estimate.weights + estimate.gradients + estimate.optimizer + estimate.activations
    assert memory_bytes(config, 8, num_shards=4).optimizer == estimate.optimizer // 4
    assert (
        memory_bytes(config, 8, checkpoint_activations=True).activations
        < memory_bytes(config, 8).activations / 4
    )


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA A10G", 70),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA Unheard-of 1", None),
        ("cpu", None),
    ],
)
def test_peak_flops(name: str, tera: float | None) -> None:
    assert peak_flops(name) == (None if tera is None else tera * 1e12)
