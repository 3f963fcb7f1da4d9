"""What a model costs, from its shape alone: parameters, FLOPs a token, bytes; and what a device can do."""

import re
from dataclasses import dataclass

from nanochat_tct.model.gpt import NUM_POSITION_BUCKETS, GPTConfig


def parameter_count(config: GPTConfig) -> int:
    """All parameters of `GPT(config)`."""
    embeddings = (config.vocab_size + NUM_POSITION_BUCKETS) * config.n_embd
    return embeddings + matmul_parameter_count(config)


def matmul_parameter_count(config: GPTConfig) -> int:
    """The parameters that every token is multiplied by: blocks and head, not the embeddings."""
    return config.n_layer * block_parameter_count(config) + config.vocab_size * config.n_embd


def block_parameter_count(config: GPTConfig) -> int:
    """The parameters of one block, all of them in matrices."""
    attention = 4 * config.n_embd**2
    mlp = 8 * config.n_embd**2
    return attention + mlp


def flops_per_token(config: GPTConfig) -> int:
    """FLOPs of forward and backward pass for one token of a full row.

    The count of PaLM (appendix B), as nanochat uses it: 6 for each parameter of a matrix product (2 forward,
    4 backward) and 12 * n_layer * n_embd * context_size for attention. Attention is counted in full, though
    causality and the borders of documents leave less to do, so that numbers compare with published ones.
    """
    attention = 12 * config.n_layer * config.n_embd * config.context_size
    return 6 * matmul_parameter_count(config) + attention


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device at the end of a forward pass, when most is held."""

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
) -> MemoryEstimate:
    """Estimate of what training holds on one device.

    Args:
        batch_size: rows of context_size tokens in one micro-step on this device.
        precision: "bf16" (autocast: weights, gradients and the residual stream stay float32) or "fp32".
        checkpoint_activations: only the inputs of blocks are kept, and one block's insides at a time.
        num_shards: over how many devices FSDP spreads weights, gradients and optimizer state; 1 for DDP.
        optimizer: "muon" keeps one number for each of the matrices in blocks, "adamw" two for each parameter.

    With bf16, the weights include their copies in that precision. The activations are those that autograd
    keeps, counted from the layers in gpt.py (with the kernels of fused.py it is a quarter less); kernels'
    workspaces, the allocator's slack and CUDA's own context (about 0.5 GiB) come on top.
    """
    assert precision in ("bf16", "fp32"), precision
    size = 2 if precision == "bf16" else 4
    parameters = parameter_count(config)
    moments = 8 * parameters
    if optimizer == "muon":
        moments -= 4 * config.n_layer * block_parameter_count(config)
    tokens = batch_size * config.context_size
    # Of one block, for each token and channel: two float32 places of the stream, and in working precision the
    # normalised stream twice, q, k, v, q and k rotated, q and k normalised, attention's output in its own and
    # in the projection's layout, the MLP's hidden layer after relu and after squaring (4 wide each).
    stream = 4 * tokens * config.n_embd
    block = 2 * stream + (2 + 3 + 2 + 2 + 2 + 8) * size * tokens * config.n_embd
    blocks = config.n_layer * stream + block if checkpoint_activations else config.n_layer * block
    mask = batch_size * config.context_size**2
    head = 2 * stream + 4 * config.vocab_size * config.n_embd  # with its gradient, taken in the forward pass
    bf16_copies = 2 * matmul_parameter_count(config) if precision == "bf16" else 0
    return MemoryEstimate(
        weights=(4 * parameters + bf16_copies) // num_shards,
        gradients=4 * parameters // num_shards,
        optimizer=moments // num_shards,
        activations=blocks + mask + head,
    )


# Dense bf16 matrix FLOPs a second, without sparsity, from the makers' data sheets; fp16 where a device has no
# bf16. The first entry all of whose words are in the device's name counts.
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
    """Dense bf16 FLOPs a second of a device, by the name that `torch.cuda.get_device_name` gives.

    None for one that is not in the table, a CPU for example.
    """
    words = set(re.findall(r"[a-z0-9]+", device_name.lower()))
    for name, flops in PEAK_FLOPS:
        if set(name.lower().split()) <= words:
            return flops
    return None
