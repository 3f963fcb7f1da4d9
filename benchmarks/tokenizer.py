"""How fast the tokenizer is beside tiktoken's o200k_base, and how many tokens fewer it takes on unseen repositories.

    python benchmarks/tokenizer.py --corpus $NANOCHAT_TCT_CORPUS --o200k FILE
    python benchmarks/tokenizer.py --corpus $NANOCHAT_TCT_CORPUS --o200k FILE --folds

FILE holds the ranks of o200k_base: tiktoken's own file, or `package/dist/ranks/o200k_base.js` of the npm package
js-tiktoken, which carries the same. tiktoken checks them by their SHA-256.

The first form encodes and decodes every valid workflow of the corpus with both tokenizers in turn, in this one process
and one thread, from compact JSON and back; caches are cold in the first run. The second form cuts the corpus into
folds by repository, trains a vocabulary of 8,192 ids on all folds but one, and counts tokens on the one left out.
"""

import argparse
import base64
import gc
import hashlib
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet
import tiktoken

from nanochat_tct.data.documents import DocumentError, read_workflow, to_json
from nanochat_tct.tokenizer import Tokenizer, TokenizerError, load_tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary, workflow_schema

RANKS_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
VOCAB_SIZE = 8192


class Document(NamedTuple):
    repo: str
    text: str  # the YAML as it stands in the repository
    compact: str  # compact JSON


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with workflows.parquet (repo, path, sha1, text)"
    )
    parser.add_argument("--o200k", type=Path, required=True, help="file with the ranks of o200k_base")
    parser.add_argument("--folds", action="store_true", help="count tokens on held-out repositories instead")
    parser.add_argument("--fold-count", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3, help="times to measure; the median counts")
    arguments = parser.parse_args()

    ours, theirs = load_tokenizer(), load_o200k(arguments.o200k)
    documents = read_corpus(arguments.corpus / "workflows.parquet", ours)
    if arguments.folds:
        compare_tokens(documents, theirs, arguments.fold_count)
    else:
        compare_speed([document.compact for document in documents], theirs, arguments.runs)


def load_o200k(path: Path) -> tiktoken.Encoding:
    """tiktoken's encoding from a file with its ranks, put where tiktoken looks before it downloads them."""
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


def read_corpus(path: Path, tokenizer: Tokenizer) -> list[Document]:
    """The workflows that are valid; the others have no tokens of ours to compare."""
    documents, refused = [], 0
    for row in pyarrow.parquet.read_table(path, columns=["repo", "text"]).to_pylist():
        try:
            value = read_workflow(row["text"])
            tokenizer.encode_value(value)
        except (DocumentError, TokenizerError):
            refused += 1
        else:
            documents.append(Document(row["repo"], row["text"], to_json(value)))
    print(f"{len(documents):,} documents, {refused:,} more that are not valid workflows", flush=True)
    return documents


def compare_speed(texts: list[str], theirs: tiktoken.Encoding, runs: int) -> None:
    """Prints MB of compact JSON per second of encoding and of decoding, and how much memory the tokenizer takes."""
    load_tokenizer.__globals__["_load"].cache_clear()  # what read_corpus has warmed
    gc.collect()
    gc.freeze()  # the corpus is the benchmark's, not the tokenizer's: keep the collector away from it
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
    """Adds the speed of one pass, by CPU time, so that other processes on the machine count less."""
    start = time.process_time()
    for item in given:
        work(item)
    speeds.setdefault(name, []).append(megabytes / (time.process_time() - start))


def resident_megabytes() -> float:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def fold_of(repo: str, folds: int) -> int:
    """A repository's fold: by hash, the same whatever else is in the corpus."""
    return int.from_bytes(hashlib.sha256(repo.encode()).digest()[:8], "big") % folds


def compare_tokens(documents: list[Document], theirs: tiktoken.Encoding, folds: int) -> None:
    """Prints tokens a document on each fold, with a vocabulary that was trained on the other folds."""
    schema = workflow_schema()
    total = [0, 0, 0, 0]
    print(
        f"{'fold':>4} {'repos':>6} {'docs':>6} {'ours':>8} {'o200k JSON':>11} {'o200k YAML':>11}  fewer than JSON, YAML"
    )
    for fold in range(folds):
        rest = [d for d in documents if fold_of(d.repo, folds) != fold]
        held_out = [d for d in documents if fold_of(d.repo, folds) == fold]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.json"
            train_vocabulary(((d.repo, json.loads(d.compact)) for d in rest), schema, VOCAB_SIZE, path)
            ours = load_tokenizer(str(path))
        counts = [
            len(held_out),
            sum(len(ours.encode(d.compact)) for d in held_out),
            sum(len(theirs.encode_ordinary(d.compact)) for d in held_out),
            sum(len(theirs.encode_ordinary(d.text)) for d in held_out),
        ]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        print_tokens(str(fold), len({d.repo for d in held_out}), counts)
    print_tokens("all", len({d.repo for d in documents}), total)


def print_tokens(name: str, repos: int, counts: list[int]) -> None:
    number, ours, on_json, on_yaml = counts
    print(
        f"{name:>4} {repos:>6} {number:>6} {ours / number:>8.1f} {on_json / number:>11.1f} {on_yaml / number:>11.1f}"
        f"  {1 - ours / on_json:>15.1%} {1 - ours / on_yaml:>6.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
