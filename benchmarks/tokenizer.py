"""Speed of the tokenizer beside tiktoken's o200k_base, and its number of tokens for other owners' workflows.

    python benchmarks/tokenizer.py --corpus $NANOCHAT_TCT_CORPUS --o200k FILE
    python benchmarks/tokenizer.py --corpus $NANOCHAT_TCT_CORPUS --o200k FILE --folds

FILE holds the ranks of o200k_base: tiktoken's own file, or `package/dist/ranks/o200k_base.js` of the npm package
js-tiktoken, which carries the same. tiktoken checks them by their SHA-256.

The first form encodes every valid workflow of the corpus from compact JSON and decodes it again, with both tokenizers
in turn, in one thread; caches are cold in the first run. The second form splits the corpus into folds by owner. For
each fold it trains vocabularies of 8,192 ids on the other folds: ours, byte-level BPE, and superword BPE, half of whose
merges may cross words (pip install tokenizers==0.23.3). It counts their tokens and those of o200k_base, a general
vocabulary of 200,019 ids, on the documents of the fold, without near-copies of training documents.
"""

import argparse
import base64
import gc
import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tiktoken

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.byte_pairs import BytePairs
from benchmarks.held_out import Document, fold_of, owner_of, read_documents, without_copies
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary

RANKS_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
VOCAB_SIZE = 8192


COLUMNS = ("ours", "BPE", "superword", "o200k JSON", "o200k YAML")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with workflows.parquet (repo, path, sha1, text)"
    )
    parser.add_argument("--o200k", type=Path, required=True, help="file with the ranks of o200k_base")
    parser.add_argument("--folds", action="store_true", help="count tokens on held-out owners instead")
    parser.add_argument("--fold-count", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3, help="times to measure; the median counts")
    arguments = parser.parse_args()

    ours, theirs = load_tokenizer(), load_o200k(arguments.o200k)
    documents = list(read_documents(arguments.corpus, ours))
    print(f"{len(documents):,} valid workflows", flush=True)
    if arguments.folds:
        compare_tokens(documents, theirs, arguments.fold_count)
    else:
        compare_speed([document.compact for document in documents], theirs, arguments.runs)


def load_o200k(path: Path) -> tiktoken.Encoding:
    """tiktoken's encoding from a file with its ranks, placed in the cache that tiktoken reads before it downloads."""
    content = path.read_text(encoding="utf-8")
    if "bpe_ranks" in content:  # JavaScript: an object with lines "! first-rank token token ..."
        lines = json.loads(content[content.index("{") : content.rindex("}") + 1])["bpe_ranks"].splitlines()
        content = ""
        for _, first, *tokens in (line.split(" ") for line in lines if line):
            content += "".join(f"{token} {rank}\n" for rank, token in enumerate(tokens, int(first)))
    base64.b64decode(content.split(" ", 1)[0], validate=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / hashlib.sha1(RANKS_ADDRESS.encode()).hexdigest()).write_text(content)  # noqa: S324
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        return tiktoken.get_encoding("o200k_base")


def compare_speed(texts: list[str], theirs: tiktoken.Encoding, runs: int) -> None:
    """Print MB of compact JSON per second of encoding and of decoding, and how much memory the tokenizer takes."""
    load_tokenizer.__globals__["_load"].cache_clear()  # reading the corpus has warmed it
    gc.collect()
    gc.freeze()  # keep the garbage collector away from the corpus
    before = resident_megabytes()
    ours = load_tokenizer()
    loaded = resident_megabytes()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    speeds: dict[str, list[float]] = {}
    for _ in range(runs):
        speed(speeds, "encode ours", megabytes, ours.encode, texts)
        speed(speeds, "encode o200k", megabytes, theirs.encode_ordinary, texts)
    encoded = resident_megabytes()
    our_ids, their_ids = (
        [ours.encode(text) for text in texts],
        theirs.encode_ordinary_batch(texts, num_threads=1),
    )
    for _ in range(runs):
        speed(speeds, "decode ours", megabytes, ours.decode, our_ids)
        speed(speeds, "decode o200k", megabytes, theirs.decode, their_ids)
    print(f"{megabytes:.1f} MB of compact JSON; MB/s, the median of {runs} runs (first run)")
    for work in "encode", "decode":
        a, b = speeds[f"{work} ours"], speeds[f"{work} o200k"]
        ratio = statistics.median(a) / statistics.median(b)
        print(
            f"{work}: ours {statistics.median(a):6.2f} ({a[0]:.2f})   "
            f"o200k {statistics.median(b):6.2f} ({b[0]:.2f})   ratio {ratio:.2f} ({a[0] / b[0]:.2f})"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"memory: {loaded - before:.0f} MB to load the tokenizer, {encoded - loaded:.0f} MB more (both tokenizers') "
        f"after encoding; peak of the process with the corpus and o200k {peak:.0f} MB"
    )


def speed(
    speeds: dict[str, list[float]],
    name: str,
    megabytes: float,
    work: Callable[[Any], Any],
    given: Iterable[Any],
) -> None:
    """Add the speed of one pass, by CPU time, which other processes disturb less."""
    start = time.process_time()
    for item in given:
        work(item)
    speeds.setdefault(name, []).append(megabytes / (time.process_time() - start))


def resident_megabytes() -> float:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def compare_tokens(documents: list[Document], theirs: tiktoken.Encoding, folds: int) -> None:
    """Print tokens a document on each fold, with vocabularies that were trained on the other folds."""
    print(
        f"{'fold':>4} {'owners':>6} {'copies':>6} {'docs':>6} " + "".join(f"{name:>11}" for name in COLUMNS)
    )
    rows: list[list[int]] = []
    for fold in range(folds):
        rest = [document for document in documents if fold_of(document.repo, folds) != fold]
        others = [document for document in documents if fold_of(document.repo, folds) == fold]
        held_out = without_copies(others, rest, lambda document: document.compact)
        owners = len({owner_of(document.repo) for document in others})
        counts = count_tokens(rest, held_out, theirs)
        rows.append([owners, len(others) - len(held_out), len(held_out), *counts])
        print_tokens(str(fold), rows[-1])
    total = [sum(column) for column in zip(*rows, strict=True)]
    print_tokens("all", total)
    ours, *peers = total[3:]
    for name, tokens in zip(COLUMNS[1:], peers, strict=True):
        print(f"ours takes {1 - ours / tokens:.1%} fewer than {name}")


def count_tokens(rest: list[Document], held_out: list[Document], theirs: tiktoken.Encoding) -> list[int]:
    """Tokens of the held-out documents in the order of COLUMNS."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.json"
        values = ((owner_of(document.repo), json.loads(document.compact)) for document in rest)
        train_vocabulary(values, None, VOCAB_SIZE, path)
        ours = load_tokenizer(str(path))
    texts = [document.compact for document in rest]
    words, superwords = (BytePairs.learn(lambda: texts, VOCAB_SIZE, share) for share in (1.0, 0.5))
    on_json = (ours.encode, words.encode, superwords.encode, theirs.encode_ordinary)
    return [
        *(sum(len(encode(document.compact)) for document in held_out) for encode in on_json),
        sum(len(theirs.encode_ordinary(document.text)) for document in held_out),
    ]


def print_tokens(name: str, row: list[int]) -> None:
    owners, copies, number, *counts = row
    print(
        f"{name:>4} {owners:>6} {copies:>6} {number:>6} "
        + "".join(f"{count / number:>11.1f}" for count in counts),
        flush=True,
    )


if __name__ == "__main__":
    main()
