"""Which tokenizer lets a model learn most from the same computation: validation bits per byte.

    python benchmarks/learning.py --corpus FOLDER

Trains the same small model (preset demo, vocabulary of 8,192) on the same number of tokens of the same documents,
cut into tokens in several ways:

- line: our tokenizer, whose tokens run over whole lines and the structure before them;
- word: the same, but no token reaches beyond a word;
- mixed: as line, but nine merges in ten stay inside words, and none is dropped again for a longer one;
- bpe: byte-level BPE on compact JSON, of Hugging Face `tokenizers` (pip install tokenizers==0.23.3);
- superword: BPE the second half of whose merges may cross words (SuperBPE); superword90: the last tenth.

Vocabularies are learned from the training documents only. Bits per byte are taken over documents of other owners,
without near-copies of training documents: nats of all their tokens / ln 2 / bytes of their compact JSON. A BPE
document ends with a token that counts; ours end where their grammar ends. FOLDER holds workflows.parquet with the
columns `repo`, `path` and `text`.

With --masks, tokens that the grammar forbids at a place are left out of its softmax, in training and evaluation (ours
only). With --optimizer muon tokens learn from what they are made of, those of BPE too, unless --no-parts is given.

The same number of tokens is the same computation, but not the same text: fewer tokens a document read more of them.
With --megabytes all train on the same documents, so many megabytes of compact JSON, again and again where the tokens
suffice: then computation and data are the same. The flags of shape and training are those of `train`.

A run that the output file already holds is not repeated.
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks import held_out
from benchmarks.byte_pairs import END, BytePairs
from nanochat_tct.data.sampler import WindowSampler
from nanochat_tct.data.windows import Windows, targets_of
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.evaluation.loss import sum_nats
from nanochat_tct.model import gpt
from nanochat_tct.model.soft_capped_loss import Legal
from nanochat_tct.tokenizer import learn
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary, workflow_schema
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.optim import make_optimizers, set_learning_rate
from nanochat_tct.training.token_parts import TokenParts, parts_of

VOCAB_SIZE = 8192
EVAL_BATCH_SIZE = 16  # windows
MAX_VALIDATION_DOCUMENTS = 400
# How each of our vocabularies is learned: names of learn.py that differ from the shipped one's.
VARIANTS: dict[str, dict[str, Any]] = {
    "word": {"PIECE": learn.WORD},  # tokens are learned inside pieces, so that none reaches beyond a word
    "mixed": {"WORD_SHARE": 0.9, "CANDIDATES": 1.0},
    "line": {},
}
# The peers, and how much of their merges stays inside words.
PEERS = {"bpe": 1.0, "superword": 0.5, "superword90": 0.9}


@dataclass(frozen=True)
class Settings:
    """What runs have in common that are compared with each other."""

    tokens: int
    megabytes: float | None
    preset: str
    context_size: int | None
    n_layer: int | None
    n_head: int | None
    n_embd: int | None
    batch_size: int
    learning_rate: float | None
    optimizer: str
    validation_documents: int

    def config(self, seed: int) -> TrainConfig:
        names = ("preset", "context_size", "n_layer", "n_head", "n_embd", "batch_size")
        given = {name: getattr(self, name) for name in (*names, "learning_rate", "optimizer")}
        config = resolve(TrainConfig(num_workers=1, seed=seed, **given), VOCAB_SIZE)
        assert config.context_size is not None
        iters = self.tokens // (self.batch_size * config.context_size)
        return resolve(TrainConfig(num_workers=1, seed=seed, max_iters=iters, **given), VOCAB_SIZE)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default=os.environ.get("NANOCHAT_TCT_CORPUS"), help="folder")
    parser.add_argument(
        "--variants", default="bpe,superword,line", help=f"of: {', '.join([*PEERS, *VARIANTS])}"
    )
    parser.add_argument("--seeds", default="0,1,2", help="of weights and order of windows")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="to train on, of all windows")
    parser.add_argument("--megabytes", type=float, help="of compact JSON to train on; none: all there are")
    parser.add_argument("--preset", default="demo")
    for name in ("context-size", "n-layer", "n-head", "n-embd"):
        parser.add_argument(f"--{name}", type=int, help="none: the preset's")
    parser.add_argument("--batch-size", type=int, default=16, help="windows of an iter")
    parser.add_argument("--learning-rate", type=float, help="none: as train has it")
    parser.add_argument("--validation-documents", type=int, default=MAX_VALIDATION_DOCUMENTS)
    parser.add_argument("--masks", action="store_true", help="leave out tokens that the grammar forbids")
    parser.add_argument("--optimizer", default=TrainConfig.optimizer, help="as of train")
    parser.add_argument("--no-parts", action="store_true", help="tokens learn for themselves alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cache", default="runs/learning", help="folder of vocabularies and encoded documents"
    )
    parser.add_argument("--output", default="results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Makes the runs that are not in the output file yet, and prints the table of all that are."""
    variants = arguments.variants.split(",")
    if not set(variants) <= {*PEERS, *VARIANTS}:
        raise UserError(f"--variants {arguments.variants}: each is one of {', '.join([*PEERS, *VARIANTS])}")
    if arguments.masks and not set(variants) <= set(VARIANTS):
        raise UserError(f"--masks is for our own variants, not for {', '.join(PEERS)}")
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in fields(Settings)})
    output = Path(arguments.output)
    results = json.loads(output.read_text()) if output.exists() else []
    corpus = Corpus(arguments.corpus, Path(arguments.cache))
    for seed in map(int, arguments.seeds.split(",")):
        for variant in variants:
            name = variant + "+masks" * arguments.masks + "-parts" * arguments.no_parts
            key = {"name": name, "seed": seed, "settings": asdict(settings)}
            if any(key.items() <= run.items() for run in results):
                continue
            encoded = corpus.encoded(variant).part(settings.megabytes, settings.validation_documents)
            if arguments.masks:
                encoded = corpus.masked(variant, encoded)
            parts = None if arguments.no_parts else corpus.parts(variant)
            run = {**key, **train(encoded, parts, settings.config(seed))}
            results.append(run)
            output.write_text(json.dumps(results, indent=1) + "\n")
            print(
                f"{name} seed {seed}: {run['bits_per_byte']:.4f} bits per byte, "
                f"{run['bits_per_token']:.3f} bits a token, {run['tokens_per_document']:.0f} tokens a document, "
                f"{run['epochs']:.2f} epochs, {run['tokens_per_second']:.0f} tokens/s, "
                f"{run['train_seconds'] + run['eval_seconds']:.0f} s",
                flush=True,
            )
    print(table([run for run in results if run["settings"] == asdict(settings)]))


def table(results: list[dict[str, Any]]) -> str:
    """The runs as a Markdown table, one row a variant."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in results:
        by_name.setdefault(run["name"], []).append(run)
    means = {name: statistics.mean(run["bits_per_byte"] for run in runs) for name, runs in by_name.items()}
    lines = [
        "| variant | seeds | tokens a document | bits per byte | min..max | against bpe | tokens/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in by_name.items():
        quality = [run["bits_per_byte"] for run in runs]
        against = f"{means[name] / means['bpe'] - 1:+.1%}" if "bpe" in means else ""
        lines.append(
            f"| {name} | {len(runs)} | {runs[0]['tokens_per_document']:.0f} | {means[name]:.4f} | "
            f"{min(quality):.4f}..{max(quality):.4f} | {against} | "
            f"{statistics.mean(run['tokens_per_second'] for run in runs):.0f} |"
        )
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------
# Documents, vocabularies, tokens


@dataclass(frozen=True)
class Document:
    """A workflow: its repository and its compact JSON."""

    repo: str
    text: str
    split: str  # train or val, by the repository's owner


class Encoded:
    """All documents as tokens of one variant: what `Windows` needs of a token store, in memory.

    Attributes:
        tokens: integers (num_tokens,) of all documents, one after the other.
        documents: a row a document: start, length, json_bytes, split.
        mask_ids, masks: what is legal in the place of each token, as in a store; None: not known.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        documents: pa.Table,
        pad_token: int,
        mask_ids: np.ndarray | None = None,
        masks: np.ndarray | None = None,
    ) -> None:
        self.tokens, self.documents, self.pad_token = tokens, documents, pad_token
        self.mask_ids, self.masks = mask_ids, masks
        self.vocab_size = VOCAB_SIZE

    def part(self, megabytes: float | None, validation_documents: int) -> "Encoded":
        """The same, with so many megabytes to train on, from all over, and so many documents to measure on."""
        sizes, is_training = (
            self.documents.column("json_bytes").to_numpy(),
            np.array([split == "train" for split in self.documents.column("split").to_pylist()]),
        )
        order = np.random.default_rng(0).permutation(np.flatnonzero(is_training))
        is_kept = np.zeros(len(sizes), dtype=bool)
        is_kept[order[np.cumsum(sizes[order]) <= (megabytes or math.inf) * 1e6]] = True
        is_kept[np.flatnonzero(~is_training)[:validation_documents]] = True
        return Encoded(self.tokens, self.documents.filter(pa.array(is_kept)), self.pad_token)

    def split(self, name: str) -> pa.Table:
        return self.documents.filter(pa.compute.equal(self.documents.column("split"), name))


class Corpus:
    """The documents of a folder, and what is made of them; all of it is kept in the cache folder.

    Args:
        folder: holds workflows.parquet; not read when the documents are in the cache.
        cache: belongs to this corpus and this version of the tokenizer; delete it when either changes.
    """

    def __init__(self, folder: str | None, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        cache.mkdir(parents=True, exist_ok=True)
        self._documents: list[Document] = []
        self._encoded: dict[str, Encoded] = {}

    def documents(self) -> list[Document]:
        """All documents that are trained on, then those that may be measured on, in an order by hash."""
        if self._documents:
            return self._documents
        path = self.cache / "documents.jsonl"
        if not path.exists():
            found = held_out.read_documents(self.folder, Tokenizer())
            partial_path = path.with_suffix(".partial")
            with open(partial_path, "w") as file:
                file.writelines(json.dumps(document) + "\n" for document in found)
            partial_path.replace(path)
        with open(path) as file:
            documents = [held_out.Document(*json.loads(line)) for line in file]
        training = [document for document in documents if not held_out.is_held_out(document.repo)]
        others = [document for document in documents if held_out.is_held_out(document.repo)]
        measured = held_out.without_copies(
            held_out.by_hash(others), training, lambda document: document.compact
        )
        kept = measured[:MAX_VALIDATION_DOCUMENTS]
        self._documents = [Document(document.repo, document.compact, "train") for document in training]
        self._documents += [Document(document.repo, document.compact, "val") for document in kept]
        owners = [{held_out.owner_of(document.repo) for document in part} for part in (training, others)]
        print(
            f"{len(training)} documents of {len(owners[0])} owners to train on; {len(kept)} of {len(others)} documents "
            f"of {len(owners[1])} other owners to measure on, {len(others) - len(measured)} near-copies left out",
            flush=True,
        )
        return self._documents

    def encoded(self, variant: str) -> Encoded:
        """All documents as tokens of a variant."""
        if variant in self._encoded:
            return self._encoded[variant]
        path = self.cache / f"{variant}.npz"
        documents = self.documents()
        if not path.exists():
            started = time.monotonic()
            sequences: list[Sequence[int]]
            if variant in PEERS:
                byte_pairs = self.byte_pairs(variant)
                sequences = [[*byte_pairs.encode(document.text), END] for document in documents]
            else:
                tokenizer = self.tokenizer(variant)
                sequences = [tokenizer.encode(document.text) for document in documents]
            np.savez(
                path,
                tokens=np.concatenate([np.array(sequence, dtype=np.uint16) for sequence in sequences]),
                lengths=np.array([len(sequence) for sequence in sequences]),
            )
            print(f"{variant}: vocabulary and tokens made in {time.monotonic() - started:.0f} s", flush=True)
        with np.load(path) as arrays:
            tokens, lengths = arrays["tokens"], arrays["lengths"]
        rows = pa.table(
            {
                "start": np.cumsum(lengths) - lengths,
                "length": lengths,
                "json_bytes": [len(document.text.encode()) for document in documents],
                "split": [document.split for document in documents],
            }
        )
        pad_token = 0 if variant in PEERS else self.tokenizer(variant).pad_token()
        self._encoded[variant] = Encoded(tokens, rows, pad_token)
        return self._encoded[variant]

    def tokenizer(self, variant: str) -> Tokenizer:
        """Our tokenizer with tokens of lines or of words, learned from the training documents."""
        path = self.cache / f"{variant}.json"
        if not path.exists():
            training = (
                (document.repo, json.loads(document.text))
                for document in self.documents()
                if document.split == "train"
            )
            with mock.patch.multiple(learn, **VARIANTS[variant]) if VARIANTS[variant] else nullcontext():
                train_vocabulary(training, workflow_schema(), VOCAB_SIZE, path)
        return Tokenizer(path)

    def masked(self, variant: str, encoded: Encoded) -> Encoded:
        """The same, with what is legal in the place of each token of its documents."""
        tokenizer = self.tokenizer(variant)
        starts, lengths = (encoded.documents.column(name).to_pylist() for name in ("start", "length"))
        digest = hashlib.sha256(str(starts).encode()).hexdigest()[:12]
        path = self.cache / f"{variant}-masks-{digest}.npz"
        if not path.exists():
            started = time.monotonic()
            numbers = {b"\xff" * (VOCAB_SIZE // 8): 0}
            ids = np.zeros(len(encoded.tokens), dtype=np.int32)
            for start, length in zip(starts, lengths, strict=True):
                masks = tokenizer.masks_of(encoded.tokens[start : start + length].tolist())
                ids[start : start + length] = [numbers.setdefault(mask, len(numbers)) for mask in masks]
            table = np.frombuffer(b"".join(numbers), dtype=np.uint8).reshape(len(numbers), -1)
            np.savez(path, masks=table, ids=ids)
            print(f"{variant}: {len(table)} masks in {time.monotonic() - started:.0f} s", flush=True)
        with np.load(path) as arrays:
            return Encoded(
                encoded.tokens, encoded.documents, encoded.pad_token, arrays["ids"], arrays["masks"]
            )

    def byte_pairs(self, variant: str) -> BytePairs:
        """A peer's vocabulary, learned from the training documents."""
        folder = self.cache / variant
        if not (folder / "words.json").exists():
            training = [document.text for document in self.documents() if document.split == "train"]
            BytePairs.learn(lambda: training, VOCAB_SIZE, PEERS[variant]).save(folder)
        return BytePairs.load(folder)

    def parts(self, variant: str) -> TokenParts:
        """What the tokens of a variant are made of."""
        if variant in PEERS:
            return parts_of(self.byte_pairs(variant).expansions())
        return parts_of(self.tokenizer(variant).segmenter.expansions)


# --------------------------------------------------------------------------------------------------------
# Training and measuring


def train(encoded: Encoded, parts: TokenParts | None, config: TrainConfig) -> dict[str, Any]:
    """One run.

    Returns: what is known of it, bits per byte first of all.
    """
    model = gpt.GPT(config.model(), config.seed)
    optimizers = make_optimizers(model, config, parts)
    training = Windows(encoded, "train", config.context_size)
    sampler = WindowSampler(len(training), config.seed)
    masks = None if encoded.masks is None else torch.from_numpy(encoded.masks)
    model.train()
    started = time.monotonic()
    for step in range(config.max_iters):
        set_learning_rate(optimizers, step, config)
        rows, mask_ids = training.get_masked(sampler.indices(step, config.batch_size))
        targets = targets_of(rows, VOCAB_SIZE, encoded.pad_token)
        num_targets = int((targets != -1).sum())
        legal = None if masks is None or mask_ids is None else Legal(torch.from_numpy(mask_ids), masks)
        nats = model(torch.from_numpy(rows[:, :-1]), torch.from_numpy(targets), legal=legal)
        (nats / num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 100 == 0:
            print(
                f"  iter {step + 1} | loss {nats.item() / num_targets:.4f} | {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    train_seconds = time.monotonic() - started

    started = time.monotonic()
    validation = Windows(encoded, "val", config.context_size)
    starts = range(0, len(validation), EVAL_BATCH_SIZE)
    batches = (
        validation.get_masked(np.arange(first, min(first + EVAL_BATCH_SIZE, len(validation))))
        for first in starts
    )
    model.eval()
    total_nats, total_targets = sum_nats(model, batches, VOCAB_SIZE, encoded.pad_token, masks=masks)
    assert total_targets == validation.num_targets, "every token of the validation documents is a target once"
    return {
        "bits_per_byte": total_nats / math.log(2) / validation.num_bytes,
        "bits_per_token": total_nats / math.log(2) / total_targets,
        "tokens_per_document": total_targets / len(encoded.split("val")),
        "epochs": config.max_iters * config.batch_size / len(training),
        "tokens_per_second": config.max_iters
        * config.batch_size
        * config.model().context_size
        / train_seconds,
        "train_seconds": train_seconds,
        "eval_seconds": time.monotonic() - started,
    }


if __name__ == "__main__":
    sys.exit(main())
