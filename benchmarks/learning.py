"""Which tokenizer lets a model learn most from the same computation: validation bits per byte.

    python benchmarks/learning.py --corpus FOLDER

Trains the same small model (preset demo, vocabulary of 8,192) on the same number of tokens of the same documents,
cut into tokens in several ways:

- line: our tokenizer, whose tokens run over whole lines and the structure before them;
- word: the same, but no token reaches beyond a word;
- bpe: byte-level BPE on compact JSON, of Hugging Face `tokenizers` (pip install tokenizers).

Vocabularies are learned from the training repositories only. Bits per byte are taken over documents of other
repositories: nats of all their tokens / ln 2 / bytes of their compact JSON. A BPE document ends with a token that
counts; ours end where their grammar ends. FOLDER holds workflows.parquet with the columns `repo` and `text`.

With --masks, tokens that the grammar forbids at a place are left out of its softmax, in training and evaluation (ours
only). With --canonical so are tokens that cannot follow the one before: the longest match would have cut otherwise.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from torch import Tensor

from nanochat_tct.data.documents import DocumentError, Limits
from nanochat_tct.data.encode import parse_raw
from nanochat_tct.data.sampler import WindowSampler
from nanochat_tct.data.sources import find_sources, plan_parts, read_part
from nanochat_tct.data.store_writer import StoreSettings, split_of
from nanochat_tct.data.windows import Windows, targets_of
from nanochat_tct.errors import UserError
from nanochat_tct.model import gpt
from nanochat_tct.model.soft_capped_loss import soft_capped_nats
from nanochat_tct.tokenizer import TokenizerError, learn
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary, workflow_schema
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.optimizer import make_optimizers, set_learning_rate

VOCAB_SIZE = 8192
BATCH_SIZE = 16  # windows
WARMUP_ITERS = 25  # as the demo
VARIANTS = ("bpe", "word", "line")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default=os.environ.get("NANOCHAT_TCT_CORPUS"), help="folder")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of: line, word, bpe")
    parser.add_argument("--seeds", default="0,1,2", help="of weights and order of windows")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="to train on, of all windows")
    parser.add_argument("--validation-documents", type=int, default=400)
    parser.add_argument("--masks", action="store_true", help="leave out tokens that the grammar forbids")
    parser.add_argument("--canonical", action="store_true", help="leave out what a longer match excludes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cache", default="runs/learning", help="folder of vocabularies and encoded documents"
    )
    parser.add_argument("--output", default="results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        compare(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def compare(arguments: argparse.Namespace) -> None:
    """Makes the runs that are not in the output file yet, and prints the table of all that are."""
    variants = arguments.variants.split(",")
    if not set(variants) <= set(VARIANTS):
        raise UserError(f"--variants {arguments.variants}: each is one of {', '.join(VARIANTS)}")
    if (arguments.masks or arguments.canonical) and "bpe" in variants:
        raise UserError("--masks and --canonical are for the variants line and word")
    output = Path(arguments.output)
    results = json.loads(output.read_text()) if output.exists() else []
    corpus = Corpus(arguments.corpus, Path(arguments.cache), arguments.validation_documents)
    for variant in variants:
        name = variant + "+masks" * arguments.masks + "+canonical" * arguments.canonical
        for seed in map(int, arguments.seeds.split(",")):
            if any(
                (run["name"], run["seed"], run["tokens"]) == (name, seed, arguments.tokens) for run in results
            ):
                continue
            encoded = corpus.encoded(variant)
            legal = None
            if arguments.masks or arguments.canonical:
                needed = targets_of_run(encoded, seed, arguments.tokens) if arguments.masks else None
                legal = corpus.legal(variant, arguments.canonical, needed)
            run = {"name": name, "seed": seed, **train(encoded, legal, seed, arguments.tokens)}
            results.append(run)
            output.write_text(json.dumps(results, indent=1) + "\n")
            print(
                f"{name} seed {seed}: {run['bits_per_byte']:.4f} bits per byte, "
                f"{run['bits_per_token']:.3f} bits a token, {run['tokens_per_document']:.0f} tokens a document, "
                f"{run['tokens_per_second']:.0f} tokens/s, {run['train_seconds'] + run['eval_seconds']:.0f} s",
                flush=True,
            )
    print(table([run for run in results if run["tokens"] == arguments.tokens]))


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
    """A workflow: its repository, its compact JSON, and the split that its repository belongs to."""

    repo: str
    text: str
    split: str  # train or val


class Encoded:
    """All documents as tokens of one variant: what `Windows` needs of a token store, in memory.

    Attributes:
        tokens: integers (num_tokens,) of all documents, one after the other.
        documents: a row a document: start, length, json_bytes, split.
    """

    def __init__(self, tokens: np.ndarray, documents: pa.Table, pad_token: int) -> None:
        self.tokens, self.documents, self.pad_token = tokens, documents, pad_token
        self.vocab_size = VOCAB_SIZE

    def split(self, name: str) -> pa.Table:
        return self.documents.filter(pa.compute.equal(self.documents.column("split"), name))


class Corpus:
    """The documents of a folder, and what is made of them; all of it is kept in the cache folder.

    Args:
        folder: holds workflows.parquet; not read when the documents are in the cache.
        cache: belongs to this corpus and this version of the tokenizer; delete it when either changes.
        num_validation: documents of the validation repositories that are measured on, chosen by hash.
    """

    def __init__(self, folder: str | None, cache: Path, num_validation: int) -> None:
        self.folder, self.cache, self.num_validation = folder, cache, num_validation
        cache.mkdir(parents=True, exist_ok=True)
        self._documents: list[Document] = []
        self._encoded: dict[str, Encoded] = {}

    def documents(self) -> list[Document]:
        """All documents that are trained on, then those that are measured on."""
        if self._documents:
            return self._documents
        path = self.cache / "documents.jsonl"
        if not path.exists():
            if not self.folder:
                raise UserError("--corpus: name a folder with workflows.parquet, or set NANOCHAT_TCT_CORPUS")
            lines = (json.dumps([repo, text]) + "\n" for repo, text in read_corpus(self.folder))
            partial_path = path.with_suffix(".partial")
            with open(partial_path, "w") as file:
                file.writelines(lines)
            partial_path.replace(path)
        settings = StoreSettings(train_split=0.8)
        splits: dict[str, list[Document]] = {"train": [], "val": []}
        with open(path) as file:
            for repo, text in map(json.loads, file):
                split = split_of(repo, b"", settings)
                splits[split].append(Document(repo, text, split))
        by_hash = sorted(splits["val"], key=lambda document: hashlib.sha256(document.text.encode()).digest())
        self._documents = splits["train"] + by_hash[: self.num_validation]
        print(
            f"{len(splits['train'])} documents of {len({document.repo for document in splits['train']})} "
            f"repositories to train on; {len(by_hash[: self.num_validation])} of {len(by_hash)} documents of "
            f"{len({document.repo for document in splits['val']})} other repositories to measure on",
            flush=True,
        )
        return self._documents

    def encoded(self, variant: str) -> Encoded:
        """All documents as tokens of a variant."""
        if variant in self._encoded:
            return self._encoded[variant]
        path = self.cache / f"{variant}-{self.num_validation}.npz"
        documents = self.documents()
        if not path.exists():
            started = time.monotonic()
            sequences = list(self._encode_bpe() if variant == "bpe" else self._encode_typed(variant))
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
        pad_token = 0 if variant == "bpe" else self.tokenizer(variant).pad_token()
        self._encoded[variant] = Encoded(tokens, rows, pad_token)
        return self._encoded[variant]

    def tokenizer(self, variant: str) -> Tokenizer:
        """Our tokenizer with tokens of lines or of words, learned from the training documents."""
        path = self.cache / f"{variant}.json"
        if not path.exists():
            pieces = learn.WORD if variant == "word" else learn.PIECE
            training = (
                (document.repo, json.loads(document.text))
                for document in self.documents()
                if document.split == "train"
            )
            # Tokens are learned inside pieces: where these are words, no token reaches beyond one.
            with mock.patch.object(learn, "PIECE", pieces):
                train_vocabulary(training, workflow_schema(), VOCAB_SIZE, path)
        return Tokenizer(path)

    def legal(self, variant: str, canonical: bool, needed: np.ndarray | None) -> "Legal":
        """What is legal at each place of the documents; checked on the tokens that stand there.

        Args:
            canonical: what the longest match excludes is not.
            needed: places, bool (num_tokens,), where what the grammar forbids is not; None: it does not matter.
        """
        encoded, tokenizer = self.encoded(variant), self.tokenizer(variant)
        follows = None
        if canonical:
            follows = followers(tokenizer.segmenter.expansions)
            tokens = encoded.tokens.astype(np.int64)
            inside = np.ones(len(tokens) - 1, dtype=bool)  # pairs of neighbours in one document
            inside[encoded.documents.column("start").to_numpy()[1:] - 1] = False
            assert follows.numpy()[tokens[:-1][inside], tokens[1:][inside]].all(), "a real token is masked"
            print(f"{variant}: {1 - follows[:-1].float().mean():.1%} of all pairs cannot be", flush=True)
        if needed is None:
            return Legal(follows, None, None)
        digest = hashlib.sha256(needed.tobytes()).hexdigest()[:12]
        path = self.cache / f"{variant}-masks-{digest}.npz"
        if not path.exists():
            started = time.monotonic()
            table, ids = grammar_masks(tokenizer, encoded, needed)
            np.savez(path, masks=table, ids=ids)
            print(
                f"{variant}: {len(table)} different masks found in {time.monotonic() - started:.0f} s",
                flush=True,
            )
        with np.load(path) as arrays:
            packed, ids = arrays["masks"], arrays["ids"]
        unpacked = np.unpackbits(packed, axis=1, count=VOCAB_SIZE).view(bool)
        sizes = unpacked.sum(axis=1)[ids[needed]]
        print(
            f"{variant}: {sizes.mean():.0f} tokens are legal at a place (median {np.median(sizes):.0f})",
            flush=True,
        )
        return Legal(follows, torch.from_numpy(unpacked), Encoded(ids, encoded.documents, -1))

    def _encode_typed(self, variant: str) -> Iterator[Sequence[int]]:
        tokenizer = self.tokenizer(variant)
        return (tokenizer.encode(document.text) for document in self.documents())

    def _encode_bpe(self) -> Iterator[Sequence[int]]:
        """Byte-level BPE, as GPT-2's: id 0 is padding, id 1 ends a document."""
        try:
            import tokenizers
        except ImportError:
            raise UserError("the variant bpe needs Hugging Face tokenizers: pip install tokenizers") from None
        path = self.cache / "bpe.json"
        if path.exists():
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        else:
            tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
            tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = tokenizers.decoders.ByteLevel()
            trainer = tokenizers.trainers.BpeTrainer(
                vocab_size=VOCAB_SIZE,
                special_tokens=["<pad>", "<end>"],
                initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
            training = (document.text for document in self.documents() if document.split == "train")
            tokenizer.train_from_iterator(training, trainer)
            assert tokenizer.get_vocab_size() == VOCAB_SIZE
            tokenizer.save(str(path))
        for document in self.documents():
            tokens = tokenizer.encode(document.text, add_special_tokens=False).ids
            yield [*tokens, 1]


def read_corpus(folder: str) -> Iterator[tuple[str, str]]:
    """Repository and compact JSON of the documents that our grammar takes, each once."""
    grammar = Tokenizer().grammar
    limits = Limits()
    seen = set()
    for part in plan_parts(find_sources([str(Path(folder) / "workflows.parquet")])):
        for raw in read_part(part, limits):
            try:
                value, repo = parse_raw(raw, limits)
                grammar.write(value)
            except (DocumentError, TokenizerError):
                continue
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            if text not in seen:
                seen.add(text)
                yield repo or raw.source, text


# --------------------------------------------------------------------------------------------------------
# Training and measuring


def train(encoded: Encoded, legal: "Legal | None", seed: int, num_tokens: int) -> dict[str, Any]:
    """One run.

    Returns: what is known of it, bits per byte first of all.
    """
    iters = num_tokens // (BATCH_SIZE * gpt_context_size())
    config = resolve(
        TrainConfig(
            max_iters=iters,
            warmup_iters=min(WARMUP_ITERS, iters),
            batch_size=BATCH_SIZE,
            num_workers=1,
            seed=seed,
            optimizer="adamw",
        ),
        VOCAB_SIZE,
    )
    model = gpt.GPT(config.model(), seed)
    optimizers = make_optimizers(model, config, None)
    training = Windows(encoded, "train", config.context_size)
    sampler = WindowSampler(len(training), seed)
    nats_of = partial(batch_nats, model, encoded, "train", legal)
    model.train()
    started = time.monotonic()
    for step in range(iters):
        set_learning_rate(optimizers, step, config)
        nats, num_targets = nats_of(training, sampler.indices(step, BATCH_SIZE))
        (nats / num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 61 == 0:
            print(
                f"  iter {step + 1} | loss {nats.item() / num_targets:.4f} | {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    train_seconds = time.monotonic() - started

    started = time.monotonic()
    validation = Windows(encoded, "val", config.context_size)
    total_nats, total_targets = 0.0, 0
    model.eval()
    with torch.no_grad():
        for first in range(0, len(validation), BATCH_SIZE):
            indices = np.arange(first, min(first + BATCH_SIZE, len(validation)))
            nats, num_targets = batch_nats(model, encoded, "val", legal, validation, indices)
            total_nats += nats.item()
            total_targets += num_targets
    assert total_targets == validation.num_targets, "every token of the validation documents is a target once"
    return {
        "bits_per_byte": total_nats / math.log(2) / validation.num_bytes,
        "bits_per_token": total_nats / math.log(2) / total_targets,
        "tokens": num_tokens,
        "tokens_per_document": total_targets / len(encoded.split("val")),
        "epochs": iters * BATCH_SIZE / len(training),
        "tokens_per_second": iters * BATCH_SIZE * config.model().context_size / train_seconds,
        "train_seconds": train_seconds,
        "eval_seconds": time.monotonic() - started,
    }


def targets_of_run(encoded: Encoded, seed: int, num_tokens: int) -> np.ndarray:
    """Which tokens of the documents a run predicts, in training or evaluation: bool (num_tokens of the documents,)."""
    needed = np.zeros(len(encoded.tokens), dtype=bool)
    for row in encoded.split("val").to_pylist():
        needed[row["start"] : row["start"] + row["length"]] = True
    # Windows cut numbers in the same way as tokens; here the tokens are their own places.
    numbered = Encoded(np.arange(len(encoded.tokens)), encoded.documents, -1)
    windows = Windows(numbered, "train", gpt_context_size())
    tokens = Windows(encoded, "train", gpt_context_size())
    sampler = WindowSampler(len(windows), seed)
    for step in range(num_tokens // (BATCH_SIZE * gpt_context_size())):
        indices = sampler.indices(step, BATCH_SIZE)
        is_target = targets_of(tokens.get(indices), VOCAB_SIZE, encoded.pad_token) >= 0
        needed[windows.get(indices)[:, 1:][is_target]] = True
    return needed


def gpt_context_size() -> int:
    """Of the demo preset, in tokens."""
    return resolve(TrainConfig(), VOCAB_SIZE).model().context_size


def batch_nats(
    model: gpt.GPT,
    encoded: Encoded,
    split: str,
    legal: "Legal | None",
    windows: Windows,
    indices: np.ndarray,
) -> tuple[Tensor, int]:
    """The sum of nats of the targets in some windows, and their number."""
    rows = windows.get(indices)  # (B, T + 1)
    targets = targets_of(rows, VOCAB_SIZE, encoded.pad_token)
    tokens = torch.from_numpy(rows[:, :-1])
    num_targets = int((targets != -1).sum())
    if legal is None:
        return model(tokens, torch.from_numpy(targets)), num_targets
    # The model calls its loss by name; the masked one stands in for it, and knows what is legal in this batch.
    masked = partial(soft_capped_nats, legal_rows=legal.rows(split, indices, rows, targets))
    with mock.patch.object(gpt, "soft_capped_nats", masked):
        return model(tokens, torch.from_numpy(targets)), num_targets


# --------------------------------------------------------------------------------------------------------
# Masks: which tokens can stand at a place at all


class Legal:
    """Which tokens are legal at each place of the documents.

    Args:
        follows: bool (vocab_size, vocab_size), what may come after each token; None: anything.
        masks: bool (num_masks, vocab_size), or None: anything.
        mask_ids: an `Encoded` whose tokens are numbers of masks, one for each token of the documents.
    """

    def __init__(self, follows: Tensor | None, masks: Tensor | None, mask_ids: Encoded | None) -> None:
        self.follows, self.masks, self.mask_ids = follows, masks, mask_ids
        self._windows: dict[str, Windows] = {}

    def rows(self, split: str, indices: np.ndarray, rows: np.ndarray, targets: np.ndarray) -> Any:
        """A function from a slice of the B * T targets to what is legal there, bool (R, vocab_size)."""
        # After a position token anything may follow that the grammar allows.
        previous = torch.from_numpy(np.where(rows[:, :-1] < VOCAB_SIZE, rows[:, :-1], -1)).flatten()
        ids = None
        if self.mask_ids is not None:
            if split not in self._windows:
                self._windows[split] = Windows(self.mask_ids, split, rows.shape[1] - 1)
            # Cut in the same way as the tokens; where there is no target there is no mask either.
            cut = self._windows[split].get(indices)[:, 1:]
            ids = torch.from_numpy(np.where(targets >= 0, cut, 0)).flatten()

        def of(part: slice) -> Tensor:
            legal: Tensor | None = None
            if self.masks is not None and ids is not None:
                legal = self.masks[ids[part]]
            if self.follows is not None:
                follows = self.follows[previous[part]]  # the last row, of -1, is all True
                legal = follows if legal is None else legal & follows
            assert legal is not None
            return legal

        return of


def grammar_masks(
    tokenizer: Tokenizer, encoded: Encoded, needed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the grammar allows at the needed places of the documents, after all that comes before.

    Returns:
        The different masks, uint8 (num_masks, vocab_size / 8), and for each token of the documents the number of the
        mask of its place, int32 (num_tokens,); 0 where it is not needed.
    """
    # Not every version of the tokenizer has masks.
    from nanochat_tct.tokenizer.cursor import segments_of
    from nanochat_tct.tokenizer.masks import Masks

    expansions = tokenizer.segmenter.expansions
    masks = Masks(tokenizer.walker, expansions)
    segments = [segments_of(text) for text in expansions]
    numbers: dict[bytes, int] = {}  # of each packed mask
    known: dict[
        int, tuple[int, np.ndarray]
    ] = {}  # the same by identity; the mask is kept so that this stays its own
    ids = np.zeros(len(encoded.tokens), dtype=np.int32)
    starts = encoded.documents.column("start").to_pylist()
    lengths = encoded.documents.column("length").to_pylist()
    for start, length in zip(starts, lengths, strict=True):
        places = np.flatnonzero(needed[start : start + length])
        if not len(places):
            continue
        state: Any = tokenizer.walker.start
        for place in range(start, start + int(places[-1]) + 1):
            token = int(encoded.tokens[place])
            if needed[place]:
                mask = masks.legal(state)
                found = known.get(id(mask))
                if found is None:
                    if len(known) > 20_000:
                        known.clear()
                    packed = np.packbits(mask[:VOCAB_SIZE]).tobytes()
                    found = known[id(mask)] = (numbers.setdefault(packed, len(numbers)), mask)
                assert mask[token], "a real token is masked"
                ids[place] = found[0]
            state = tokenizer.walker.advance(state, segments[token])
    table = np.frombuffer(b"".join(numbers), dtype=np.uint8).reshape(len(numbers), VOCAB_SIZE // 8)
    return table, ids


def followers(expansions: Sequence[str]) -> Tensor:
    """What may come after each token when documents are cut into the longest tokens: bool (vocab_size + 1, vocab_size).

    After t, u cannot come when t and a beginning of u (or all of it) are together a token: it would have been taken.
    The last row, for no token before, is all True.
    """
    ids = {text: token for token, text in enumerate(expansions)}
    order = sorted(range(len(expansions)), key=expansions.__getitem__)
    texts = [expansions[token] for token in order]
    first_with: dict[str, int] = {}  # for every beginning of a token: the first and the last that begin so
    last_with: dict[str, int] = {}
    for place, text in enumerate(texts):
        for length in range(1, len(text) + 1):
            first_with.setdefault(text[:length], place)
            last_with[text[:length]] = place
    table = np.ones((len(expansions) + 1, len(expansions)), dtype=bool)
    in_order = np.array(order)
    for longer in expansions:
        for length in range(1, len(longer)):
            token, rest = ids.get(longer[:length]), longer[length:]
            if token is not None and rest in first_with:
                table[token, in_order[first_with[rest] : last_with[rest] + 1]] = False
    return torch.from_numpy(table)


if __name__ == "__main__":
    sys.exit(main())
