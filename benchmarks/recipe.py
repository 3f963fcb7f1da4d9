"""Compare settings by the validation bits per byte of the same small model after the same documents.

    python benchmarks/recipe.py --corpus FOLDER --tokens 62500 --recipes "product; parts; adamw learning_rate=0.003"
    python benchmarks/recipe.py --corpus FOLDER --tokens 2000000 --few-tokens 200000 --recipes "product dropout=0.1"

A recipe is `product` (what `train` does by default), `adamw` (`train --optimizer adamw`) or `parts` (the same, but
tokens share what their parts learn), followed by settings of `train` that differ. All runs train the preset `demo` on
batches of 8 windows without masks. Documents to measure on belong to other owners than those to train on. With
--few-tokens a run repeats only a few documents, and is evaluated six times on the way. FOLDER holds workflows.parquet
with the columns `repo`, `path` and `text`; its token store is kept in the cache. Finished runs are not repeated.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.held_out import store_of
from benchmarks.small_runs import Documents, FinishedRuns, add_arguments, train
from nanochat_tct.config import parse_arguments
from nanochat_tct.data.sampler import shuffled
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.model.config import PRESETS
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.token_parts import token_parts

PRESET, BATCH_SIZE = "demo", 8
RECIPES = {"product": "muon", "adamw": "adamw", "parts": "adamw"}  # and their optimizers


def config_of(recipe: str, tokens: int, seed: int) -> TrainConfig:
    """The config of `parts learning_rate=0.03`. Raises: UserError."""
    name, *changes = recipe.split()
    if name not in RECIPES or not all("=" in change for change in changes):
        raise UserError(f"--recipes {recipe}: one of {', '.join(RECIPES)}, then settings as dropout=0.1")
    flags = {
        "preset": PRESET,
        "num-workers": 1,
        "batch-size": BATCH_SIZE,
        "max-iters": tokens // (BATCH_SIZE * PRESETS[PRESET].context_size),
        "seed": seed,
        "optimizer": RECIPES[name],
        **{key.replace("_", "-"): value for key, value in (change.split("=", 1) for change in changes)},
    }
    switches = {"true": "--", "false": "--no-"}
    arguments = []
    for flag, value in flags.items():
        arguments += [switches[value] + flag] if value in switches else [f"--{flag}", str(value)]
    return parse_arguments(TrainConfig, arguments, "train", "")


def some_of(documents: pa.Table, tokens: int | None) -> pa.Table:
    """Documents by a fixed shuffle until there are this many tokens; None: all."""
    if tokens is None:
        return documents
    order = shuffled(len(documents), 0, 0)
    lengths = documents.column("length").to_numpy()[order]
    count = int(np.searchsorted(np.cumsum(lengths), tokens)) + 1
    return documents.take(np.sort(order[:count]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser, cache="runs/recipe")
    parser.add_argument("--recipes", default="product; parts; adamw", help="separated by ;")
    parser.add_argument("--tokens", type=int, default=62_500, help="to train on")
    parser.add_argument(
        "--few-tokens", type=int, help="that the repeated documents have; none: all documents"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Make the runs that are not in the output file yet, and print the table of all that are."""
    recipes = [recipe.strip() for recipe in arguments.recipes.split(";")]
    tokenizer, finished = load_tokenizer(), FinishedRuns(arguments.output)
    configs = {
        (recipe, seed): config_of(recipe, arguments.tokens, seed)
        for recipe in recipes
        for seed in map(int, arguments.seeds.split(","))
    }
    names = ("tokens", "few_tokens", "validation_documents")
    settings: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    folder = store_of(arguments.corpus, arguments.cache, arguments.validation_documents, with_masks=False)
    store = TokenStore.open(folder)
    splits = {"train": some_of(store.split("train"), arguments.few_tokens), "val": store.split("val")}
    documents = Documents(store.tokens, splits, store.vocab_size, store.pad_token)
    for (recipe, seed), config in configs.items():
        if not finished.has(recipe, seed, settings):
            evaluations, has_parts = 6 if arguments.few_tokens else 1, recipe.startswith("parts")
            result = train(documents, config, token_parts(tokenizer), evaluations, has_parts)
            finished.add(recipe, seed, settings, result)
    print(finished.table(settings))


if __name__ == "__main__":
    sys.exit(main())
