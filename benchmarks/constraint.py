"""Cost and coverage of constrained decoding of workflows: our masks beside llguidance and xgrammar, in one process.

    python benchmarks/constraint.py --corpus $NANOCHAT_TCT_CORPUS --documents 300

The peers (``pip install llguidance==1.9.1 xgrammar==0.2.8 tokenizers``) work on compact JSON with a byte-level BPE of
8,192 tokens, trained here on the same documents. A mask is timed at every token of every document that is accepted.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.held_out import read_documents
from nanochat_tct.documents import to_json
from nanochat_tct.generation.generate import generate_workflows, untrained
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from tests.support.schema import workflow_schema


def some_documents(corpus: Path, number: int) -> list[Any]:
    """Valid real workflows, drawn with a fixed seed."""
    documents = read_documents(corpus, Tokenizer(), shuffle_seed=0)
    return [json.loads(document.compact) for document in islice(documents, number)]


def row(name: str, load: float, seconds: list[float], accepted: int, documents: int, note: str = "") -> None:
    micro = np.array(seconds) * 1e6
    spread = f"{micro.mean():8.1f} {np.median(micro):8.1f} {np.percentile(micro, 99):9.1f}" if seconds else ""
    half = f"{micro[len(micro) // 2 :].mean():8.1f}" if seconds else ""
    print(f"{name:12} {load:8.3f} {spread:28} {half:8} {accepted / documents:9.1%}  {note}", flush=True)


def ours(documents: list[Any], samples: int) -> None:
    started = time.perf_counter()
    tokenizer = Tokenizer()
    load = time.perf_counter() - started
    seconds: list[float] = []
    accepted = 0
    for value in documents:
        matcher = tokenizer.matcher()
        legal = True
        for token in tokenizer.encode_value(value):
            before = time.perf_counter()
            mask = matcher.legal()
            seconds.append(time.perf_counter() - before)
            legal = legal and bool(mask[token])
            matcher.advance(token)
        accepted += legal and matcher.is_complete
    # random documents: a uniform draw among the legal tokens
    valid = 0
    model = untrained(tokenizer, seed=0)
    torch.nn.init.zeros_(model.head.weight)  # every legal token is as probable
    written = generate_workflows(model, tokenizer, num_samples=samples, max_tokens=64)
    valid = sum(sample.valid for sample in written)
    row("ours", load, seconds, accepted, len(documents), f"{valid} of {samples} random samples valid")


def byte_level_bpe(documents: list[Any]) -> Any:
    from tokenizers import Tokenizer as HfTokenizer
    from tokenizers import decoders, models, pre_tokenizers, trainers

    bpe = HfTokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(map(to_json, documents), trainer)
    return bpe


def llguidance(documents: list[Any], bpe: Any, lenient: bool) -> None:
    import llguidance
    from llguidance.hf import from_tokenizer
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>")
    tokenizer = from_tokenizer(fast)
    started = time.perf_counter()
    options = {"whitespace_flexible": False, "lenient": lenient}
    grammar = llguidance.LLMatcher.grammar_from_json_schema(workflow_schema(), defaults=options)
    first = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    if first.is_error():
        raise ValueError(first.get_error())
    load = time.perf_counter() - started
    seconds: list[float] = []
    accepted = 0
    mask = allocate_token_bitmask(1, tokenizer.vocab_size)
    for value in documents:
        matcher = first.deep_copy()
        tokens = bpe.encode(to_json(value)).ids
        taken = 0
        for token in tokens:
            before = time.perf_counter()
            fill_next_token_bitmask(matcher, mask)
            seconds.append(time.perf_counter() - before)
            if not matcher.consume_token(token):
                break
            taken += 1
        accepted += taken == len(tokens) and matcher.is_accepting()
    row("llguidance", load, seconds, accepted, len(documents), "lenient" if lenient else "")


def xgrammar(documents: list[Any], bpe: Any) -> None:
    import xgrammar as xgr

    vocabulary = [text for text, _ in sorted(bpe.get_vocab().items(), key=lambda item: item[1])]
    info = xgr.TokenizerInfo(vocabulary, vocab_type=xgr.VocabType.BYTE_LEVEL, stop_token_ids=[0])
    started = time.perf_counter()
    compiled = xgr.GrammarCompiler(info).compile_json_schema(
        json.dumps(workflow_schema()), any_whitespace=False, strict_mode=False
    )
    load = time.perf_counter() - started
    seconds: list[float] = []
    accepted = 0
    mask = xgr.allocate_token_bitmask(1, info.vocab_size)
    for value in documents:
        matcher = xgr.GrammarMatcher(compiled)
        tokens = bpe.encode(to_json(value)).ids
        for token in tokens:
            before = time.perf_counter()
            matcher.fill_next_token_bitmask(mask)
            seconds.append(time.perf_counter() - before)
            if not matcher.accept_token(token):
                break
        else:
            accepted += matcher.accept_token(0)
    row("xgrammar", load, seconds, accepted, len(documents))


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
    documents = some_documents(arguments.corpus, arguments.documents)
    print(f"{len(documents)} valid workflows; microseconds a mask; the second half is with warm caches")
    print(f"{'':12} {'load, s':>8} {'mean':>8} {'median':>8} {'99%':>9}  {'2nd half':>8} {'accepted':>9}")
    ours(documents, arguments.samples)
    bpe = byte_level_bpe(documents)
    attempt("llguidance", lambda: llguidance(documents, bpe, lenient=False))
    attempt("llguidance", lambda: llguidance(documents, bpe, lenient=True))
    attempt("xgrammar", lambda: xgrammar(documents, bpe))


if __name__ == "__main__":
    main()
