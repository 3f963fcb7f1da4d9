"""Which recipe learns fastest: the same small model on the same documents, by validation bits per byte.

    python benchmarks/recipe.py --corpus FOLDER --cache FOLDER --recipes "adamw; muon; muon ema=0.9" --seeds 0,1,2

FOLDER of --corpus holds workflows.parquet with the columns `repo`, `path` and `text`; it is encoded once into the
cache. Documents to measure on belong to other owners than those to train on, and are no near-copies of them.
Two regimes: `once` trains on all documents and sees none twice; `many` goes again and again over a few, of
--few-tokens. A recipe is one of RECIPES, and behind it what is changed in it: fields of `Recipe`. A run that the
output file already holds is not repeated, so the same command makes what is missing and prints the table of all runs.

Everything that was tried can be asked for, also what was not kept (docs/LOG.md has the results); `product` is what
`nanochat-tct train` does without flags.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.held_out import store_of
from nanochat_tct.data.sampler import WindowSampler, shuffled
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows, targets_of
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.evaluation.loss import sum_nats
from nanochat_tct.model.gpt import (
    EMBEDDING_STD,
    GPT,
    LOGIT_CAP,
    NUM_POSITION_BUCKETS,
    GPTConfig,
    attend,
    attention_mask,
    linear,
    norm,
    position_bucket_starts,
)
from nanochat_tct.model.presets import PRESETS
from nanochat_tct.model.rotary import rotary_tables, rotate
from nanochat_tct.model.soft_capped_loss import soft_capped_nats
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.optim import Muon, make_optimizers, own_rate, set_learning_rate
from nanochat_tct.training.token_parts import token_parts

PRESET = "demo"
BATCH_SIZE = 8  # windows of an iter
WARMUP = 0.05  # of the run
EVALUATIONS = {"once": 1, "many": 6}  # of a run, evenly spaced


@dataclass(frozen=True)
class Recipe:
    """What is varied. The defaults are the plain recipe."""

    # What `nanochat-tct train --optimizer` does with this value; of the below only dropout counts.
    product: str = ""
    # how weights move
    optimizer: str = "adamw"  # or muon, for the matrices of blocks
    lr: float = 0.01  # of everything that AdamW moves
    matrix_lr: float = 0.01  # of the matrices of blocks
    embedding_lr: float = 1.0  # times lr
    head_lr: float = 1.0  # times lr
    own_lr: float = 1.0  # times that: of what tokens have for themselves beside their parts
    split_qkv: bool = False  # queries, keys and values are orthogonalised apart
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    embedding_decay: float = 1.0  # times weight_decay
    decay_to_zero: bool = False  # weight decay falls with the learning rate
    schedule: str = "cosine"  # or linear, or wsd: constant, then linear over the last `cooldown`
    cooldown: float = 0.4
    min_lr: float = 0.1  # times the peak
    ema: float = 0.0  # decay of the average of weights that is measured
    # what the model is
    mlp: str = "relu2"  # or swiglu, gelu
    tied: bool = False
    value_embeddings: str = ""  # layers: "last", "alternate"; they add a table of values by token
    x0: float = 0.0  # how much of the embedding each block gets again, at first; learned
    residual_scalars: bool = False
    parts: str = ""  # embeddings (in), head (out) or both get a sum over the base tokens of a token
    bigram: int = 0  # rows of a hashed table of pairs of tokens, added to the embedding
    dropout: float = 0.0
    head_dropout: float = 0.0  # before the head
    logit_cap: float = LOGIT_CAP
    # what it sees
    token_dropout: float = 0.0  # of the tokens in a row are not shown
    reshuffle: bool = False  # documents change their order, so rows are packed anew in each epoch


RECIPES: dict[str, Recipe] = {
    "product": Recipe(product="muon"),
    "adamw": Recipe(),
    "parts": Recipe(parts="both"),
    "muon": Recipe(parts="both", optimizer="muon", matrix_lr=0.02),  # product with decay 0.1, in one epoch
}


def parse_recipe(text: str) -> Recipe:
    """`muon dropout=0.3 reshuffle=yes`: a recipe and what is changed in it.

    Raises: UserError for what is not known.
    """
    name, *changes = text.split()
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Recipe)}
    values: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.partition("=")
        try:
            values[key] = value == "yes" if kinds[key] is bool else kinds[key](value)
        except (KeyError, ValueError) as error:
            raise UserError(f"--recipes {text}: {change} is no setting with a value") from error
    if name not in RECIPES:
        raise UserError(f"--recipes {text}: {name} is none of {', '.join(RECIPES)}")
    return dataclasses.replace(RECIPES[name], **values)


# --------------------------------------------------------------------------------------------------------
# The model


class StudyBlock(nn.Module):
    def __init__(self, shape: GPTConfig, recipe: Recipe, has_values: bool) -> None:
        super().__init__()
        self.shape, self.recipe = shape, recipe
        width = shape.n_embd
        self.q, self.k, self.v = (linear(width, width) for _ in range(3))
        self.qkv = linear(width, 3 * width)
        if recipe.split_qkv:
            del self.qkv
        else:
            del self.q, self.k, self.v
        self.proj = linear(width, width)
        hidden = 4 * width
        if recipe.mlp == "swiglu":
            hidden = 8 * width // 3
            self.gate = linear(width, hidden)
        self.fc = linear(width, hidden)
        self.out = linear(hidden, width)
        self.dropout = nn.Dropout(recipe.dropout)
        self.value_scale = nn.Parameter(torch.ones(1)) if has_values else None
        scalars = torch.tensor([1.0, recipe.x0])
        self.scalars = nn.Parameter(scalars) if recipe.x0 or recipe.residual_scalars else None

    def forward(
        self, x: Tensor, x0: Tensor, cos: Tensor, sin: Tensor, mask: Any, values: Tensor | None
    ) -> Tensor:
        if self.scalars is not None:
            x = self.scalars[0] * x + self.scalars[1] * x0
        B, T, C = x.shape
        heads = (B, T, self.shape.n_head, self.shape.head_dim)
        y = norm(x)
        if self.recipe.split_qkv:
            q, k, v = self.q(y).view(heads), self.k(y).view(heads), self.v(y).view(heads)
        else:
            q, k, v = self.qkv(y).view(B, T, 3, *heads[2:]).unbind(2)
        if values is not None:
            assert self.value_scale is not None
            v = v + self.value_scale * values.view(heads)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(B, T, C)))
        y = norm(x)
        if self.recipe.mlp == "swiglu":
            hidden = F.silu(self.gate(y)) * self.fc(y)
        elif self.recipe.mlp == "gelu":
            hidden = F.gelu(self.fc(y))
        else:
            hidden = F.relu(self.fc(y)).square()
        return x + self.dropout(self.out(hidden))


class StudyGPT(nn.Module):
    """The product's model with everything that is tried; with the plain recipe the same mathematics."""

    def __init__(self, shape: GPTConfig, recipe: Recipe, seed: int) -> None:
        super().__init__()
        self.shape, self.recipe = shape, recipe
        width, vocab_size = shape.n_embd, shape.vocab_size
        layers = {"": [], "last": [shape.n_layer - 1], "alternate": range(1, shape.n_layer, 2)}[
            recipe.value_embeddings
        ]
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.position_embedding = nn.Embedding(NUM_POSITION_BUCKETS, width)
        self.blocks = nn.ModuleList(StudyBlock(shape, recipe, i in layers) for i in range(shape.n_layer))
        self.value_embeddings = nn.ModuleDict({str(i): nn.Embedding(vocab_size, width) for i in layers})
        self.bigram = nn.Embedding(recipe.bigram, width) if recipe.bigram else None
        self.head = linear(width, vocab_size)
        self.dropout = nn.Dropout(recipe.dropout)
        self.head_dropout = nn.Dropout(recipe.head_dropout)
        if recipe.parts:
            self.parts = study_parts()
            rows = self.parts.size(1)
            self.part_embedding = nn.Embedding(rows, width) if recipe.parts != "out" else None
            self.part_head = nn.Embedding(rows, width) if recipe.parts != "in" else None
        generator = torch.Generator().manual_seed(seed)
        bound = math.sqrt(3 / width)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if name.endswith((".proj.weight", ".out.weight")) or name.startswith(("bigram", "part_")):
                    parameter.zero_()
                elif name.startswith("value_embeddings") or (
                    name.startswith("blocks") and parameter.dim() == 2
                ):
                    parameter.uniform_(-bound, bound, generator=generator)
                elif "embedding" in name:
                    parameter.normal_(std=EMBEDDING_STD, generator=generator)
                elif name.startswith("head"):
                    parameter.normal_(std=0.001, generator=generator)
        if recipe.tied:
            self.head.weight = self.token_embedding.weight
        self.cos, self.sin = (table[:, None] for table in rotary_tables(shape.context_size, shape.head_dim))
        self.bucket_starts = torch.tensor(position_bucket_starts())

    def forward(self, tokens: Tensor, targets: Tensor, legal: None = None) -> Tensor:
        vocab_size = self.shape.vocab_size
        is_position = tokens >= vocab_size
        ids = tokens.clamp(max=vocab_size - 1)
        bucket = torch.bucketize((tokens - vocab_size).clamp(min=0), self.bucket_starts, right=True) - 1
        table = self.token_embedding.weight
        head = self.head.weight
        if self.recipe.parts and self.part_embedding is not None:
            table = table + torch.sparse.mm(self.parts, self.part_embedding.weight)
        if self.recipe.parts and self.part_head is not None:
            head = head + torch.sparse.mm(self.parts, self.part_head.weight)
        content = F.embedding(ids, table)
        if self.bigram is not None:
            previous = F.pad(tokens, (1, 0))[:, :-1]
            content = content + self.bigram((previous * 36313 + tokens * 27191) % self.recipe.bigram)
        if self.training and self.recipe.token_dropout:
            content = content * (torch.rand(ids.shape) >= self.recipe.token_dropout)[..., None]
        x = torch.where(is_position[..., None], self.position_embedding(bucket), content)
        x = x0 = norm(self.dropout(x))
        mask = attention_mask(tokens, vocab_size)
        T = tokens.size(1)
        for i, block in enumerate(self.blocks):
            values = self.value_embeddings[str(i)](ids) if str(i) in self.value_embeddings else None
            x = block(x, x0, self.cos[:T], self.sin[:T], mask, values)
        x = self.head_dropout(norm(x))
        if self.recipe.tied:
            head = table * self.shape.n_embd**-0.5
        return soft_capped_nats(x.flatten(0, 1), head, targets.flatten(), self.recipe.logit_cap)


@cache
def study_parts() -> Tensor:
    """What tokens are made of, sparse (vocab_size, parts), as the product's optimizer has it."""
    parts = token_parts(load_tokenizer("builtin"))
    assert parts is not None
    return parts.of_tokens.dense.to_sparse()


# --------------------------------------------------------------------------------------------------------
# Training


def make_study_optimizers(model: StudyGPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    named = dict(model.named_parameters())  # a tied weight once
    matrices = [p for name, p in named.items() if name.startswith("blocks") and p.dim() == 2]
    scalars = [p for p in named.values() if p.dim() < 2]
    own_head, own_embedding = named.get("head.weight"), named["token_embedding.weight"]
    part_head = named.get("part_head.weight")
    known = {id(p) for p in (*matrices, *scalars, own_head, own_embedding, part_head)}
    embeddings = [p for p in named.values() if id(p) not in known]
    decay, lr = recipe.weight_decay, recipe.lr
    rates: list[tuple[list[Tensor | None], float, float]] = [
        ([own_embedding], lr * recipe.embedding_lr * recipe.own_lr, decay * recipe.embedding_decay),
        ([*embeddings], lr * recipe.embedding_lr, decay * recipe.embedding_decay),
        ([own_head], lr * recipe.head_lr * recipe.own_lr, decay),
        ([part_head], lr * recipe.head_lr, decay),
        ([*scalars], lr, 0.0),
    ]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in params if p is not None], "lr": lr, "weight_decay": weight_decay}
        for params, lr, weight_decay in rates
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if recipe.optimizer == "muon":
        muon = Muon(matrices, lr=recipe.matrix_lr, weight_decay=decay, momentum=recipe.momentum)
        optimizers.append(muon)
    else:
        groups.append({"params": matrices, "lr": recipe.matrix_lr, "weight_decay": decay})
    groups = [group for group in groups if group["params"]]
    optimizers.append(torch.optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2), fused=True))
    return optimizers


def share_of_peak(step: int, iters: int, recipe: Recipe) -> float:
    """The learning rate of an iter, as a share of the peak."""
    warmup = int(WARMUP * iters)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, iters - warmup)
    if recipe.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * progress))
    elif recipe.schedule == "linear":
        fall = 1 - progress
    else:
        fall = min(1.0, (1 - progress) / recipe.cooldown)
    return recipe.min_lr + (1 - recipe.min_lr) * fall


class Documents:
    """Some of a store's documents, without its masks: what `Windows` needs of a store."""

    def __init__(self, store: "TokenStore | Documents", documents: dict[str, pa.Table]) -> None:
        self.tokens, self.vocab_size, self.pad_token = store.tokens, store.vocab_size, store.pad_token
        self.mask_ids = None
        self.documents = documents

    def split(self, name: str) -> pa.Table:
        return self.documents[name]


def choose(documents: pa.Table, tokens: int | None) -> pa.Table:
    """Documents of a split by a fixed shuffle until there are so many tokens; None: all."""
    if tokens is None:
        return documents
    order = shuffled(len(documents), 0, 0)
    lengths = documents.column("length").to_numpy()[order]
    count = int(np.searchsorted(np.cumsum(lengths), tokens)) + 1
    return documents.take(np.sort(order[:count]))


def batches(
    documents: Documents, shape: GPTConfig, recipe: Recipe, seed: int, iters: int
) -> Iterator[np.ndarray]:
    if not recipe.reshuffle:
        windows = Windows(documents, "train", shape.context_size)  # type: ignore[arg-type]
        sampler = WindowSampler(len(windows), seed)
        for step in range(iters):
            yield windows.get(sampler.indices(step, BATCH_SIZE))
        return
    rows: list[np.ndarray] = []
    epoch = 0
    for _ in range(iters):
        while sum(map(len, rows)) < BATCH_SIZE:
            table = documents.split("train")
            table = table.take(shuffled(len(table), seed + 1, epoch))
            windows = Windows(Documents(documents, {"train": table}), "train", shape.context_size)  # type: ignore[arg-type]
            rows.append(windows.get(shuffled(len(windows), seed, epoch)))
            epoch += 1
        joined = np.concatenate(rows)
        yield joined[:BATCH_SIZE]
        rows = [joined[BATCH_SIZE:]]


def train(
    documents: Documents, shape: GPTConfig, recipe: Recipe, seed: int, num_tokens: int, evaluations: int
) -> dict[str, Any]:
    """One run. Returns: its bits per byte at the end and on the way, and its time."""
    iters = num_tokens // (BATCH_SIZE * shape.context_size)
    torch.manual_seed(seed)
    model: nn.Module
    if recipe.product:
        config = resolve(
            TrainConfig(
                preset=PRESET,
                max_iters=iters,
                optimizer=recipe.product,
            ),
            shape.vocab_size,
        )
        model = GPT(dataclasses.replace(shape, dropout=recipe.dropout), seed)
        windows = Windows(documents, "train", shape.context_size)  # type: ignore[arg-type]
        own = own_rate(config, len(windows), BATCH_SIZE)
        optimizers = make_optimizers(model, config, token_parts(load_tokenizer("builtin")), own)
    else:
        model = StudyGPT(shape, recipe, seed)
        optimizers = make_study_optimizers(model, recipe)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    decays = [[group["weight_decay"] for group in optimizer.param_groups] for optimizer in optimizers]
    average = [p.detach().clone() for p in model.parameters()] if recipe.ema else []
    validation = Windows(documents, "val", shape.context_size)  # type: ignore[arg-type]
    curve, seconds, train_loss = [], 0.0, 0.0
    started = time.monotonic()
    for step, rows in enumerate(batches(documents, shape, recipe, seed, iters)):
        if recipe.product:
            set_learning_rate(optimizers, step, config)
        else:
            share = share_of_peak(step, iters, recipe)
            for optimizer, lrs, wds in zip(optimizers, peaks, decays, strict=True):
                for group, lr, wd in zip(optimizer.param_groups, lrs, wds, strict=True):
                    group["lr"] = lr * share
                    group["weight_decay"] = wd * (share if recipe.decay_to_zero else 1.0)
        targets = targets_of(rows, shape.vocab_size, documents.pad_token)
        num_targets = int((targets != -1).sum())
        model.train()
        nats = model(torch.from_numpy(rows[:, :-1]), torch.from_numpy(targets))
        (nats / num_targets).backward()
        train_loss = 0.9 * train_loss + 0.1 * nats.item() / num_targets
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if recipe.ema:
            with torch.no_grad():
                decay = min(recipe.ema, (step + 1) / (step + 10))
                for mean, parameter in zip(average, model.parameters(), strict=True):
                    mean.lerp_(parameter, 1 - decay)
        if (step + 1) % max(1, iters // evaluations) == 0 or step + 1 == iters:
            seconds += time.monotonic() - started
            parameters = list(model.parameters())
            trained = [p.detach().clone() for p in parameters]
            with torch.no_grad():
                for parameter, mean in zip(parameters, average, strict=False):
                    parameter.copy_(mean)
            model.eval()
            rows_of = (
                validation.get_masked(np.arange(first, min(first + BATCH_SIZE, len(validation))))
                for first in range(0, len(validation), BATCH_SIZE)
            )
            total, _ = sum_nats(model, rows_of, shape.vocab_size, documents.pad_token)
            with torch.no_grad():
                for parameter, kept in zip(parameters, trained, strict=True):
                    parameter.copy_(kept)
            curve.append([step + 1, round(total / math.log(2) / validation.num_bytes, 5)])
            started = time.monotonic()
    return {
        "bits_per_byte": curve[-1][1],
        "curve": curve,
        "train_loss": round(train_loss, 4),
        "tokens_per_second": round(iters * BATCH_SIZE * shape.context_size / seconds),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default=os.environ.get("NANOCHAT_TCT_CORPUS"), help="folder")
    parser.add_argument("--cache", default="runs/recipe", help="folder of the prepared corpus")
    parser.add_argument("--output", default="recipes.json", help="file of finished runs")
    parser.add_argument("--recipes", default="adamw; muon", help="separated by ;")
    parser.add_argument("--regimes", default="once", help="once, many")
    parser.add_argument("--seeds", default="0", help="of weights and order of windows")
    parser.add_argument("--tokens", default="1000000", help="to train on; several: each")
    parser.add_argument("--few-tokens", type=int, default=40_000, help="that the documents of `many` have")
    parser.add_argument("--validation-documents", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Make the runs that are not in the output file yet, and print the table of all that are."""
    store = TokenStore.open(
        store_of(arguments.corpus, Path(arguments.cache), arguments.validation_documents, with_masks=False)
    )
    validation = store.split("val")
    shape = dataclasses.replace(PRESETS[PRESET], vocab_size=store.vocab_size)
    output = Path(arguments.output)
    for num_tokens in map(int, arguments.tokens.split(",")):
        for regime in arguments.regimes.split(","):
            few = arguments.few_tokens if regime == "many" else None
            documents = Documents(store, {"train": choose(store.split("train"), few), "val": validation})
            for name in arguments.recipes.split("; "):
                recipe = parse_recipe(name)
                for seed in map(int, arguments.seeds.split(",")):
                    key = {
                        "recipe": name,
                        "settings": _digest(recipe),
                        "regime": regime if regime == "once" else f"many, of {few:,}",
                        "tokens": num_tokens,
                        "seed": seed,
                    }
                    if any(key.items() <= run.items() for run in read_runs(output)):
                        continue
                    run = {**key, **train(documents, shape, recipe, seed, num_tokens, EVALUATIONS[regime])}
                    with open(output, "a") as file:
                        file.write(json.dumps(run) + "\n")
                    print(json.dumps(run), flush=True)
    print(table(read_runs(output)))


def read_runs(output: Path) -> list[dict[str, Any]]:
    """The finished runs: one JSON object a line."""
    return [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def _digest(recipe: Recipe) -> str:
    """Tells settings apart; what is at its default does not count, so that new settings change nothing."""
    changed = {k: v for k, v in dataclasses.asdict(recipe).items() if v != getattr(Recipe(), k)}
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]


def table(runs: list[dict[str, Any]]) -> str:
    """The runs as a Markdown table, the best of a regime first."""
    groups: dict[tuple[str, int, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["regime"], run["tokens"], run["recipe"], run["settings"]), []).append(run)
    lines = [
        "| regime | tokens | recipe | seeds | bits per byte | min..max | best on the way | training loss | tokens/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    means = {key: statistics.mean(run["bits_per_byte"] for run in group) for key, group in groups.items()}
    for key in sorted(groups, key=lambda key: (*key[:2], means[key])):
        group = groups[key]
        quality = [run["bits_per_byte"] for run in group]
        lines.append(
            f"| {key[0]} | {key[1]:,} | {key[2]} | {len(group)} | {means[key]:.4f} | "
            f"{min(quality):.4f}..{max(quality):.4f} | "
            f"{statistics.mean(min(value for _, value in run['curve']) for run in group):.4f} | "
            f"{statistics.mean(run['train_loss'] for run in group):.2f} | "
            f"{statistics.mean(run['tokens_per_second'] for run in group):.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
