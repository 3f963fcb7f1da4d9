"""Cost and coverage of constrained decoding of workflows: our masks beside llguidance and xgrammar, in one process.

    python benchmarks/constraint.py --corpus $NANOCHAT_TCT_CORPUS --documents 300

The peers (see peers.py) work on compact JSON with a byte-level BPE of 8,192 tokens, trained here on the same documents.
A mask is timed at every token up to the first that is refused. Ours has two rows: GitHub's language, which is what the
parser accepts, and what `generate` writes, in which the language service of GitHub has nothing to complain of. The
peers' JSON Schema form takes keys in the order of the schema only; beside it, each has a grammar in its own language in
which they stand in any order, and xgrammar its option for that.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.held_out import some_workflows
from benchmarks.peers import AnyOrder, Llguidance, Peer, Repeating, Xgrammar, byte_level_bpe, compact
from nanochat_tct.generation.completer import Completer
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.generate import untrained
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from tests.support.schema import workflow_schema


def row(name: str, load: float, seconds: list[float], accepted: int, documents: int, note: str = "") -> None:
    micro = np.array(seconds) * 1e6
    spread = f"{micro.mean():8.1f} {np.median(micro):8.1f} {np.percentile(micro, 99):9.1f}" if seconds else ""
    half = f"{micro[len(micro) // 2 :].mean():8.1f}" if seconds else ""
    print(f"{name:12} {load:8.3f} {spread:28} {half:8} {accepted / documents:9.1%}  {note}", flush=True)


def ours(documents: list[Any], samples: int) -> None:
    """Print our rows, each with masks that nothing has been computed of before."""
    for generates in (False, True):
        started = time.perf_counter()
        tokenizer = Tokenizer()
        load = time.perf_counter() - started
        seconds: list[float] = []
        accepted = sum(walk(tokenizer, value, generates, seconds) for value in documents)
        note = (
            f"as generated; {valid_samples(tokenizer, samples)}"
            if generates
            else "all that the parser accepts"
        )
        row("ours", load, seconds, accepted, len(documents), note)


def walk(tokenizer: Tokenizer, value: Any, generates: bool, seconds: list[float]) -> bool:
    """Time the masks of a document, up to the first token that is refused. Return whether none is."""
    matcher = tokenizer.matcher()
    if generates:
        matcher.expect()
    for token in tokenizer.encode_value(value):
        before = time.thread_time()
        mask = matcher.legal()
        seconds.append(time.thread_time() - before)
        if not mask[token]:
            return False
        matcher.advance(token)
    return matcher.is_complete


def valid_samples(tokenizer: Tokenizer, samples: int) -> str:
    """How many documents of tokens drawn evenly among the legal ones are valid."""
    model = untrained(tokenizer, seed=0)
    torch.nn.init.zeros_(model.head.weight)  # every legal token is as probable
    sampling = SamplingConfig(max_tokens=64)
    written = Completer.from_model(model, tokenizer).generate([Prompt()] * samples, sampling)
    return f"{sum(sample.valid for sample in written)} of {samples} random samples valid"


def measure(name: str, engine: Peer, compiled: Callable[[], Any], documents: list[Any], note: str) -> None:
    """Print a peer's row."""
    started = time.perf_counter()
    start = compiled()
    load = time.perf_counter() - started
    seconds: list[float] = []
    accepted = 0
    for value in documents:
        whole, times = engine.walk(start, value)
        seconds += times
        accepted += whole
    row(name, load, seconds, accepted, len(documents), note)


def attempt(name: str, run: Callable[[], None]) -> None:
    """Print a peer's row, or its error."""
    try:
        run()
    except Exception as error:  # a peer's error of any kind is its result
        print(f"{name:12} fails: {type(error).__name__}: {str(error).splitlines()[0][:150]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with workflows.parquet")
    parser.add_argument("--documents", type=int, default=300, help="workflows to walk through")
    parser.add_argument("--samples", type=int, default=200, help="random documents to draw")
    arguments = parser.parse_args()
    documents = some_workflows(arguments.corpus, arguments.documents)
    print(f"{len(documents)} valid workflows; microseconds a mask; the second half is with warm caches")
    print(f"{'':12} {'load, s':>8} {'mean':>8} {'median':>8} {'99%':>9}  {'2nd half':>8} {'accepted':>9}")
    ours(documents, arguments.samples)
    schema = workflow_schema()
    # xgrammar's regular expressions have no line break in a class, and a dot that matches it
    plain = json.loads(json.dumps(schema).replace(r"(.|[\r\n])*", ".*"))
    bpe = byte_level_bpe(map(compact, documents))
    strict, lenient = Llguidance(bpe), Llguidance(bpe, lenient=True)
    fixed, free = Xgrammar(bpe), Xgrammar(bpe, any_order=True)
    any_order, repeating = AnyOrder(schema).text, Repeating(schema).text
    for name, engine, compiled, note in (
        ("llguidance", strict, lambda: strict.compile_schema(schema), "keys in the schema's order"),
        ("llguidance", lenient, lambda: lenient.compile_schema(schema), "the same, lenient"),
        (
            "llguidance",
            strict,
            lambda: strict.compile_lark(any_order),
            "keys in any order, as docs/parametric.md",
        ),
        ("xgrammar", fixed, lambda: fixed.compile_schema(plain), "keys in the schema's order"),
        ("xgrammar", free, lambda: free.compile_schema(plain), "keys in any order, none required"),
        ("xgrammar", fixed, lambda: fixed.compile_ebnf(repeating), "the same as its EBNF, keys may repeat"),
    ):
        attempt(name, partial(measure, name, engine, compiled, documents, note))


if __name__ == "__main__":
    main()
