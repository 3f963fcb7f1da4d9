"""The cost of a model, from its shape: parameters, FLOPs per token, memory; and the peak FLOPs of devices."""

import re
from dataclasses import dataclass

from nanochat_tct.model.config import NUM_POSITION_BUCKETS, GPTConfig


def parameter_count(config: GPTConfig) -> int:
    """Return the number of parameters of `GPT(config)`."""
    embeddings = (config.vocab_size + NUM_POSITION_BUCKETS) * config.n_embd
    return embeddings + matmul_parameter_count(config)


def matmul_parameter_count(config: GPTConfig) -> int:
    """Return the number of parameters in matrix products: blocks and head, without the embeddings."""
    return config.n_layer * block_parameter_count(config) + config.vocab_size * config.n_embd


def block_parameter_count(config: GPTConfig) -> int:
    """Return the number of parameters of one block."""
    attention = 4 * config.n_embd**2
    mlp = 8 * config.n_embd**2
    return attention + mlp


def flops_per_token(config: GPTConfig) -> int:
    """Return the FLOPs of a forward and backward pass per token of a full row.

    This is the count of PaLM (appendix B), as in nanochat: 6 per parameter of a matrix product (2 forward,
    4 backward) and 12 * n_layer * n_embd * context_size for attention. Attention counts in full, although
    causality and document boundaries skip part of it, so that MFU compares with published numbers.
    """
    attention = 12 * config.n_layer * config.n_embd * config.context_size
    return 6 * matmul_parameter_count(config) + attention


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device at the peak, the end of a forward pass."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def memory_bytes(
    config: GPTConfig,
    batch_size: int,
    precision: str = "bf16",
    checkpoint_activations: bool = False,
    num_shards: int = 1,
    optimizer: str = "muon",
    has_average: bool = False,
) -> MemoryEstimate:
    """Estimate the memory of training on one device.

    Args:
        batch_size: rows of context_size tokens in one micro-step on this device.
        precision: "bf16" (autocast: weights, gradients and the residual stream stay float32) or "fp32".
        checkpoint_activations: keep only the inputs of blocks, and the activations of one block at a time.
        num_shards: devices over which FSDP shards weights, gradients and optimizer state; 1 for DDP.
        optimizer: "muon" keeps one moment per parameter of the blocks, "adamw" two per parameter.
        has_average: the optimizer also keeps a mean of each parameter.

    With bf16, the weights include their copies in bf16. The activations are those that autograd keeps, counted
    from the layers in gpt.py (the kernels of fused.py save a quarter). Workspaces of kernels, the allocator's
    slack and the CUDA context (about 0.5 GiB) come on top.
    """
    assert precision in ("bf16", "fp32"), precision
    size = 2 if precision == "bf16" else 4
    parameters = parameter_count(config)
    moments = (8 + 4 * has_average) * parameters
    if optimizer == "muon":
        moments -= 4 * config.n_layer * block_parameter_count(config)
    tokens = batch_size * config.context_size
    # Per token and channel of one block: the residual stream twice in float32; and in working precision the
    # normalised stream twice, q, k, v, rotated q and k, normalised q and k, shifted k, attention's output in its own
    # and in the projection's layout, and the MLP's hidden layer after relu and after squaring (4 wide each).
    stream = 4 * tokens * config.n_embd
    block = 2 * stream + (2 + 3 + 2 + 2 + 1 + 2 + 8) * size * tokens * config.n_embd
    blocks = config.n_layer * stream + block if checkpoint_activations else config.n_layer * block
    mask = batch_size * config.context_size**2
    # Including its gradient, which is computed in the forward pass
    head = 2 * stream + 4 * config.vocab_size * config.n_embd
    bf16_copies = 2 * matmul_parameter_count(config) if precision == "bf16" else 0
    return MemoryEstimate(
        weights=(4 * parameters + bf16_copies) // num_shards,
        gradients=4 * parameters // num_shards,
        optimizer=moments // num_shards,
        activations=blocks + mask + head,
    )


# Dense bf16 matrix FLOPs per second, without sparsity, from the vendors' data sheets; fp16 for devices without bf16.
# The first entry whose words all occur in the device's name applies.
PEAK_FLOPS: list[tuple[str, float]] = [
    ("B200", 2250e12),
    ("GH200", 989e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A40", 149.7e12),
    ("A30", 165e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("T4", 65e12),
    ("V100", 125e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
]


def peak_flops(device_name: str) -> float | None:
    """Return the dense bf16 FLOPs per second of a device by its `torch.cuda.get_device_name`, or None if unlisted."""
    words = set(re.findall(r"[a-z0-9]+", device_name.lower()))
    for name, flops in PEAK_FLOPS:
        if set(name.lower().split()) <= words:
            return flops
    return None
