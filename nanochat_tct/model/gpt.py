"""The model: a decoder-only transformer in the manner of nanochat, for packed documents and position tokens.

It differs from GPT-2 in these points: rotary embeddings instead of learned positions, RMSNorm without parameters,
normalised queries and keys, keys of half of the heads shifted by a token, no biases, an untied head, relu(x)^2 in the
MLP, zero-initialised output projections (each block starts as the identity), and logits soft-capped to (-15, 15).

A row of tokens holds one or more documents. Each begins with a position token, whose id is
`vocab_size + position`, where position counts the document's tokens before this row. Attention is causal and
never crosses from one document to another.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from nanochat_tct.model import fused
from nanochat_tct.model.config import NUM_POSITION_BUCKETS, GPTConfig, position_bucket_starts
from nanochat_tct.model.loss import TokenMask, soft_capped_nats
from nanochat_tct.model.rotary import rotary_tables, rotate

LOGIT_CAP = 15.0
EMBEDDING_STD = 0.02


# --------------------------------------------------------------------------------------------------------
# Attention


def norm(x: Tensor) -> Tensor:
    """Apply RMSNorm without parameters, in the dtype of x."""
    return F.rms_norm(x, (x.size(-1),)).to(x.dtype)


def attention_mask(tokens: Tensor, vocab_size: int) -> Tensor | None:
    """Return the mask by which each token attends to itself and to the tokens before it in its own document.

    It is computed once per forward pass and shared by all layers. tokens: (B, T) int64.

    Returns:
        A boolean mask (B, 1, T, T), True where attention is allowed; or None if every row is one document, so
        that plain causal attention does. None is only returned on CPU, since on CUDA the check would wait for
        the device.
    """
    starts = tokens >= vocab_size
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(starts[:, 1:].any()):
        return None
    documents = starts.cumsum(dim=1)  # (B, T): the document of the row that a token belongs to
    same_document = documents[:, :, None] == documents[:, None, :]
    return same_document.tril()[:, None]  # (B, 1, T, T)


# Block sizes and launch settings of flex attention's kernels, forward and backward. On an H200 the forward pass takes
# 0.57 and the backward pass 0.9 of the time with torch's defaults.
FLEX_OPTIONS = {
    "fwd_BLOCK_M": 128,
    "fwd_BLOCK_N": 64,
    "fwd_num_stages": 3,
    "fwd_num_warps": 4,
    "bwd_BLOCK_M1": 32,
    "bwd_BLOCK_N1": 64,
    "bwd_BLOCK_M2": 64,
    "bwd_BLOCK_N2": 32,
    "bwd_num_stages": 3,
    "bwd_num_warps": 4,
}
FLEX_HEAD_DIM = 64  # the largest for which these settings fit any GPU's shared memory
FLEX_BLOCK = 128  # queries and keys per block of the mask; torch uses another kernel for shorter rows


def block_mask(tokens: Tensor, vocab_size: int) -> BlockMask:
    """Return `attention_mask` as a block-sparse mask for flex attention, which skips fully masked blocks."""
    B, T = tokens.shape
    documents = (tokens >= vocab_size).cumsum(dim=1)  # (B, T)

    def allowed(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[b, query] == documents[b, key])

    return create_block_mask(allowed, B, None, T, T, str(documents.device), BLOCK_SIZE=FLEX_BLOCK)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | BlockMask | None) -> Tensor:
    """Apply softmax attention to q, k, v (B, n_head, T, head_dim) under a mask (see `attention_mask`)."""
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if isinstance(mask, BlockMask):
        fits = q.size(-1) <= FLEX_HEAD_DIM and q.size(-2) >= FLEX_BLOCK
        options: Any = FLEX_OPTIONS if fits else None
        output = flex_attention(q, k, v, block_mask=mask, kernel_options=options)
        assert isinstance(output, Tensor)
        return output
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


# --------------------------------------------------------------------------------------------------------
# Layers


def linear(in_features: int, out_features: int) -> nn.Linear:
    """Return a projection without bias; `GPT.initialize` fills its weights."""
    # Not skip_init here and below: it imports sympy or torch._dynamo, which takes longer than all else.
    layer = nn.Linear(in_features, out_features, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.empty(out_features, in_features))
    return layer


def embedding(num_embeddings: int, dim: int) -> nn.Embedding:
    """Return a table of embeddings; `GPT.initialize` fills its weights."""
    return nn.Embedding.from_pretrained(torch.empty(num_embeddings, dim), freeze=False)


def of_token_before(x: Tensor, starts: Tensor) -> Tensor:
    """Move each token's vectors (B, T, n_head, head_dim) to the next one; the first of a document gets zeros."""
    return F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1].masked_fill(starts[..., None, None], 0.0)


class Attention(nn.Module):
    """Causal attention, in which the last `num_shifted` heads look for the token before the one that they read.

    Their keys are those of the token before: a query that finds an earlier occurrence of its own token reads what
    followed it. So one layer can copy from the document, for which two are needed otherwise, that find each other after
    many more tokens (induction heads, Olsson et al. 2022). It is KV shifting attention (Xu et al. 2024) with its
    learned mixture fixed, so that a cache of keys is all that generation needs.
    """

    is_fused = False  # rotate and normalise queries and keys in one kernel (bf16)

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_shifted = config.num_shifted
        self.n_head = config.n_head
        self.head_dim = config.head_dim
        self.c_qkv = linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = linear(config.n_embd, config.n_embd)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | BlockMask | None, starts: Tensor
    ) -> Tensor:
        B, T, C = x.shape
        qkv = self.c_qkv(x).view(B, T, 3, self.n_head, self.head_dim)
        # Rotary attention depends only on differences of positions, so positions may count from the start of the
        # row instead of the start of each document.
        if self.is_fused and qkv.dtype == torch.bfloat16:
            q, k, v = fused.heads(qkv, cos, sin)  # each (B, T, n_head, head_dim)
        else:
            q, k, v = qkv.unbind(2)
            q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if self.num_shifted:
            own, shifted = k.split((self.n_head - self.num_shifted, self.num_shifted), dim=2)
            k = torch.cat((own, of_token_before(shifted, starts)), dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # each (B, n_head, T, head_dim)
        y = attend(q, k, v, mask)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    is_fused = False  # fuse the activation into the matrix products (bf16)

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_fused and x.dtype == torch.bfloat16:
            up, down = self.c_fc.weight.to(x.dtype), self.c_proj.weight.to(x.dtype)
            return fused.relu_squared_mlp(x, up, down)
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | BlockMask | None,
        starts: Tensor,
    ) -> Tensor:
        x = x + self.dropout(self.attention(norm(x), cos, sin, mask, starts))
        return x + self.dropout(self.mlp(norm(x)))


class GPT(nn.Module):
    """The whole model.

    Args:
        config: the model's shape. Dropout applies to the embedding and to the output of each residual branch.
        seed: seed of the initial weights, which do not depend on the global random state.
        checkpoint_activations: keep only the inputs of blocks for the backward pass and recompute the rest.
    """

    rotary_cos: Tensor
    rotary_sin: Tensor
    position_bucket_starts: Tensor

    def __init__(self, config: GPTConfig, seed: int = 0, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = checkpoint_activations
        self.token_embedding = embedding(config.vocab_size, config.n_embd)
        self.position_embedding = embedding(NUM_POSITION_BUCKETS, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.head = linear(config.n_embd, config.vocab_size)
        cos, sin = rotary_tables(config.context_size, config.head_dim)
        self.register_buffer("rotary_cos", cos, persistent=False)  # (context_size, head_dim / 2)
        self.register_buffer("rotary_sin", sin, persistent=False)
        bucket_starts = torch.tensor(position_bucket_starts())
        self.register_buffer(
            "position_bucket_starts", bucket_starts, persistent=False
        )  # (NUM_POSITION_BUCKETS,)
        self.initialize(seed)
        self.make_mask: Callable[[Tensor, int], Tensor | BlockMask | None] = attention_mask

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Fill all weights from a seed. Output projections start at zero, the head close to zero."""
        generator = torch.Generator().manual_seed(seed)
        self.token_embedding.weight.normal_(std=EMBEDDING_STD, generator=generator)
        self.position_embedding.weight.normal_(std=EMBEDDING_STD, generator=generator)
        bound = math.sqrt(3 / self.config.n_embd)  # uniform of standard deviation 1 / sqrt(n_embd)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.c_qkv.weight.uniform_(-bound, bound, generator=generator)
            block.attention.c_proj.weight.zero_()
            block.mlp.c_fc.weight.uniform_(-bound, bound, generator=generator)
            block.mlp.c_proj.weight.zero_()
        self.head.weight.normal_(std=0.001, generator=generator)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed ids (B, T), content or position tokens, as (B, T, n_embd) in autocast's dtype."""
        vocab_size = self.config.vocab_size
        is_position = tokens >= vocab_size
        bucket = (
            torch.bucketize((tokens - vocab_size).clamp(min=0), self.position_bucket_starts, right=True) - 1
        )
        if torch.is_grad_enabled():
            # One look-up in a joint table: with a look-up in each, every content token would add a zero gradient to
            # position 0, and CUDA adds thousands of gradients for one row one after another.
            table = torch.cat([self.token_embedding.weight, self.position_embedding.weight])
            x = F.embedding(torch.where(is_position, vocab_size + bucket, tokens), table)
        else:  # without copying the tables for each generated token
            content = self.token_embedding(tokens.clamp(max=vocab_size - 1))
            x = torch.where(is_position[..., None], self.position_embedding(bucket), content)
        device_type = tokens.device.type
        return x.to(torch.get_autocast_dtype(device_type)) if torch.is_autocast_enabled(device_type) else x

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        legal: TokenMask | None = None,
    ) -> Tensor:
        """Predict the next token at every position.

        Args:
            tokens: (B, T) int64, T <= context_size; ids from vocab_size up are position tokens.
            targets: (B, T) int64; -1 marks a position without a target.
            legal: the tokens that the softmax of each target is over, with mask_ids (B, T); None: all tokens.

        Returns:
            With targets, the summed loss in nats, a float32 scalar. Without, logits (B, T, vocab_size) in float32.
        """
        T = tokens.size(1)
        assert self.config.context_size >= T, f"a row of {T} tokens, context_size {self.config.context_size}"
        cos, sin = self.rotary_cos[:T, None], self.rotary_sin[:T, None]  # (T, 1, head_dim / 2)
        mask = self.make_mask(tokens, self.config.vocab_size)
        # The embedding stays uncompiled: compiled, the order in which its gradient is summed varies.
        x = self.embed(tokens)
        x = self.through_blocks(x, cos, sin, mask, tokens >= self.config.vocab_size)  # (B, T, n_embd)
        if targets is not None:
            if legal is not None:
                legal = TokenMask(legal.mask_ids.flatten(), legal.masks)
            rows, weight = x.flatten(0, 1), self.head.weight
            return soft_capped_nats(rows, weight, targets.flatten(), LOGIT_CAP, legal)
        return LOGIT_CAP * torch.tanh(self.head(x).float() / LOGIT_CAP)

    def through_blocks(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | BlockMask | None, starts: Tensor
    ) -> Tensor:
        """Apply the blocks to embedded tokens; input and output are (B, T, n_embd).

        starts: (B, T) bool, whether a document begins with the token.
        """
        x = norm(self.dropout(x))
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, mask, starts, use_reentrant=False)
            else:
                x = block(x, cos, sin, mask, starts)
        return norm(x)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Call `torch.compile` with these arguments, once for the masks and once for the blocks.

        Compiled together they gave wrong results on an H100 with torch 2.11: flex attention read the documents of a
        mask made in the same graph from memory that held something else. The loss has its own kernels.
        """
        device = self.head.weight.device
        self.through_blocks = torch.compile(self.through_blocks, *args, **kwargs)  # type: ignore[method-assign]
        if device.type == "cuda":  # flex attention has no backward pass on CPU
            self.make_mask = torch.compile(block_mask, *args, **kwargs)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.is_fused = device.type == "cuda"
            block.mlp.is_fused = fused.fits_mlp(device, self.config.n_embd)
