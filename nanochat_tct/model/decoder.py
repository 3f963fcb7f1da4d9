"""The forward pass of generation: tokens of several documents, with a cache of their keys and values.

The result for a token depends on the earlier tokens of its document alone, bit for bit: neither on other documents in
the call nor on how the document is divided into calls. A library's matrix product does not promise that, since its
order of summation depends on the number of rows. So on CPUs a kernel of the package's own does the work (decoder.c),
and elsewhere PyTorch gets the tokens in tiles of one fixed shape.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.compiled import load_library
from nanochat_tct.model.gpt import GPT, LOGIT_CAP, Block, norm
from nanochat_tct.model.rotary import rotate

SOURCE = Path(__file__).with_name("decoder.c")
TILE = 16  # tokens in each call of PyTorch


class Decoder:
    """A model with a cache of `num_rows` rows, each the beginning of a document.

    Attributes:
        capacity: tokens that a row can hold, the model's context size.
        vocab_size: the first id of position tokens.
        lengths: tokens in each row. A smaller number takes the last tokens of a row back.
        tile: rows in each tensor operation on the device. What follows `extend` keeps to it as well, so that its
            results do not depend on the batch either.
    """

    def __init__(self, model: GPT, num_rows: int) -> None:
        config, weight = model.config, model.head.weight
        self.capacity, self.vocab_size = config.context_size, config.vocab_size
        self.lengths = [0] * num_rows
        self.device = weight.device
        # in a spare row the tiles of PyTorch have their padding
        # Shifted keys (`gpt.Attention`) are kept at the next token's position; those at position 0 stay zero.
        shape = (config.n_layer, num_rows + 1, config.n_head, self.capacity + 1, config.head_dim)
        self.keys = torch.zeros(shape, device=self.device)
        self.values = torch.zeros(shape, device=self.device)
        is_native = self.device.type == "cpu" and weight.dtype == torch.float32
        self._backend = (
            _Native(model, self.keys, self.values) if is_native else _Tiles(model, self.keys, self.values)
        )
        self.tile = 1 if is_native else TILE

    @torch.inference_mode()
    def extend(self, chunks: list[tuple[int, list[int]]]) -> Tensor:
        """Append tokens to rows.

        Args:
            chunks: (row, its next tokens, at least one) for some rows; ids from vocab_size up are position tokens.

        Returns:
            Float32 logits (len(chunks), vocab_size) of the token after each chunk.
        """
        tokens: list[int] = []
        rows: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        for row, chunk in chunks:
            start = self.lengths[row]
            self.lengths[row] += len(chunk)
            assert chunk and self.lengths[row] <= self.capacity
            tokens += chunk
            rows += [row] * len(chunk)
            positions += range(start, self.lengths[row])
            last.append(len(tokens) - 1)
        hidden = self._backend.read(*(torch.tensor(each) for each in (tokens, rows, positions)))
        return self._backend.predict(hidden[last])

    def copy_row(self, source: int, target: int) -> None:
        """Make a row equal to another one."""
        length = self.lengths[target] = self.lengths[source]
        for each in (self.keys, self.values):
            each[:, target, :, : length + 1] = each[:, source, :, : length + 1]


class _Tiles:
    """PyTorch on tiles of TILE tokens."""

    def __init__(self, model: GPT, keys: Tensor, values: Tensor) -> None:
        self.model, self.keys, self.values = model, keys, values

    def read(self, tokens: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Return what the head reads (N, n_embd) after tokens (N,), at positions (N,) of rows (N,) of the cache."""
        spare = self.keys.size(1) - 1
        parts = zip(_tiles(tokens), _tiles(rows, fill=spare), _tiles(positions), strict=True)
        hidden = [self._read(*(part.to(self.keys.device) for part in each)) for each in parts]
        return torch.cat(hidden)[: len(tokens)]

    def _read(self, tokens: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        model = self.model
        x = norm(model.embed(tokens))  # (TILE, n_embd)
        cos, sin = model.rotary_cos[positions][:, None], model.rotary_sin[positions][:, None]
        allowed = torch.arange(self.keys.size(3), device=x.device) <= positions[:, None]  # (TILE, capacity)
        for layer, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            attention = block.attention
            qkv = attention.c_qkv(norm(x)).view(TILE, 3, attention.n_head, attention.head_dim)
            q, k, v = qkv.unbind(1)  # each (TILE, n_head, head_dim)
            q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
            own = attention.n_head - attention.num_shifted
            self.keys[layer, rows, :own, positions] = k[:, :own].to(self.keys.dtype)
            self.keys[layer, rows, own:, positions + 1] = k[:, own:].to(self.keys.dtype)
            self.values[layer, rows, :, positions] = v.to(self.values.dtype)
            keys, values = self.keys[layer, rows].to(q.dtype), self.values[layer, rows].to(q.dtype)
            mask = allowed[:, None, None]
            y = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask)
            x = x + attention.c_proj(y.flatten(1))
            x = x + block.mlp(norm(x))
        return norm(x)

    def predict(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, vocab_size) after hidden (N, n_embd)."""
        logits = torch.cat([self.model.head(part).float() for part in _tiles(hidden)])
        return LOGIT_CAP * torch.tanh(logits[: len(hidden)] / LOGIT_CAP)


def _tiles(x: Tensor, fill: int = 0) -> tuple[Tensor, ...]:
    """Split a tensor into parts of TILE rows, the last one filled up."""
    padding = x.new_full((-len(x) % TILE, *x.shape[1:]), fill)
    return torch.cat([x, padding]).split(TILE)


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("qkv", "attention_out", "up", "down")]


class _Model(ctypes.Structure):
    _sizes = (
        *("n_layer", "n_head", "num_shifted", "n_embd", "vocab_size", "capacity"),
        *("num_rows", "num_buckets", "threads"),
    )
    _addresses = (
        *("token_embedding", "position_embedding", "bucket_starts", "cosines", "sines"),
        *("head", "layers", "keys", "values"),
    )
    _fields_ = [(name, ctypes.c_int64) for name in _sizes] + [(name, ctypes.c_void_p) for name in _addresses]


class _Native:
    """The kernel in decoder.c, on float32 weights in the CPU's memory."""

    def __init__(self, model: GPT, keys: Tensor, values: Tensor) -> None:
        config = model.config
        self.tensors = [model, keys, values]  # whose memory the kernel uses
        layers = [
            _Layer(*map(_address, (b.attention.c_qkv, b.attention.c_proj, b.mlp.c_fc, b.mlp.c_proj)))
            for b in model.blocks
            if isinstance(b, Block)
        ]
        self.layers = (_Layer * config.n_layer)(*layers)
        self.vocab_size = config.vocab_size
        self.model = _Model(
            *(config.n_layer, config.n_head, config.num_shifted, config.n_embd, config.vocab_size),
            *(keys.size(3), keys.size(1), len(model.position_bucket_starts), torch.get_num_threads()),
            *map(_address, (model.token_embedding, model.position_embedding, model.position_bucket_starts)),
            *map(_address, (model.rotary_cos, model.rotary_sin, model.head)),
            *(ctypes.addressof(self.layers), keys.data_ptr(), values.data_ptr()),
        )
        self.library = _library()

    def read(self, tokens: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """See `_Tiles.read`."""
        hidden = torch.empty(len(tokens), int(self.model.n_embd))
        addresses = [each.data_ptr() for each in (tokens, rows, positions)]
        if not self.library.decoder_read(
            ctypes.byref(self.model), *addresses, len(tokens), hidden.data_ptr()
        ):
            raise MemoryError(f"no memory for a forward pass of {len(tokens)} tokens")
        return hidden

    def predict(self, hidden: Tensor) -> Tensor:
        """See `_Tiles.predict`."""
        logits = torch.empty(len(hidden), self.vocab_size)
        self.library.decoder_predict(
            ctypes.byref(self.model), hidden.data_ptr(), len(hidden), LOGIT_CAP, logits.data_ptr()
        )
        return logits


def _address(source: Any) -> int:
    weight: Tensor = source if isinstance(source, Tensor) else source.weight
    assert weight.is_contiguous()
    return weight.data_ptr()


@cache
def _library() -> ctypes.CDLL:
    """The compiled kernel for this CPU."""
    has_avx2 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    found = load_library(SOURCE, "_decoder_avx2" if has_avx2 else "_decoder", "decoder_version")
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    found.decoder_read.argtypes = [pointer, pointer, pointer, pointer, number, pointer]
    found.decoder_predict.argtypes = [pointer, pointer, number, ctypes.c_float, pointer]
    found.decoder_predict.restype = None
    return found
