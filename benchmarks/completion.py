"""What our model's completions are worth beside what a user would take instead.

    python benchmarks/completion.py --corpus FOLDER --cuts 1000 [--tokens 6144000 --megabytes 8 --seeds 0]

Held-out workflows are cut at the beginning of random lines, as `nanochat-tct evaluate --completion` does it (see
nanochat_tct/evaluation/completion.py for what is right, and measures.py for the measures), and continued by:

- lines: the most frequent continuation of the last three lines in all training documents; where they were never seen
  together, or for more suggestions, of the last two, of the last one, and the most frequent lines of all;
- bpe: a model of byte-level BPE on the YAML text, with the same beam search over lines, without a grammar;
- free: our tokens without the constraint: trained and used as if no token were illegal;
- ours.

The three models have the same shape and vocabulary size and train on the same number of tokens, so with the same FLOPs.
All learn from the same owners' documents, and the vocabularies too; the measured workflows are of other owners, without
near-copies. Everything is compared as the YAML that `to_yaml` writes. Weights and finished runs stay, and a repeated
command does only what is missing.
"""

import argparse
import functools
import hashlib
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.byte_pairs import END, BytePairs
from benchmarks.learning import VOCAB_SIZE, Corpus, add_model_arguments, config_of, settings_of
from benchmarks.small_runs import FinishedRuns, add_arguments, train
from nanochat_tct.documents import to_yaml
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.evaluation.completion import (
    BLOCK_TOKENS,
    NUM_SUGGESTIONS,
    Block,
    ModelSuggester,
    Suggester,
    choose_cuts,
    evaluate_completion,
)
from nanochat_tct.evaluation.measures import normal_line
from nanochat_tct.generation.completer import Completer, Completion
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.insertion import Insertion, Written
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.generation.search import LEAST_PROBABILITY, Beginning, Search
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import TokenizerError
from nanochat_tct.tokenizer.token_trie import TokenTrie
from nanochat_tct.tokenizer.tokenizer import Tokenizer, TokenMatcher
from nanochat_tct.training.config import resolve

VARIANTS = ("lines", "bpe", "free", "ours")
DATA = {
    "bpe": "bpe-yaml",
    "free": "line",
    "ours": "line",
}  # and the variant of learning.py that they train on
MEASURES = {
    "right": "first guess",
    "among_five": "among five",
    "first_token": "first token",
    "similarity": "edit similarity",
    "bleu": "BLEU",
    "keystrokes_saved": "keystrokes saved",
    "accepted": "GitHub accepts",
}
UNUSABLE = " " * 80 + "\0"  # a line, in whatever block it stands
MOST_LINES = 100  # that the counts of lines go on for


class LineCounts:
    """Suggests the lines that most often followed the last ones of a text in some documents.

    Args:
        texts: the documents as YAML.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.followers: dict[tuple[str, ...], Counter[str]] = {}
        for text in texts:
            lines = self.lines_of(text)
            for at, line in enumerate(lines):
                for length in range(min(3, at) + 1):
                    self.followers.setdefault(tuple(lines[at - length : at]), Counter())[line] += 1
        self.best: dict[tuple[str, ...], list[Completion]] = {}

    @staticmethod
    def lines_of(text: str) -> list[str]:
        return [sys.intern(normal_line(line)) for line in text.split("\n") if line.strip()]

    def after(self, lines: Sequence[str]) -> list[Completion]:
        """The most frequent lines after some others, best first; equally frequent ones by their text."""
        found: list[Completion] = []
        for length in range(min(3, len(lines)), -1, -1):
            context = tuple(lines[len(lines) - length :])
            if context not in self.best:
                counts = self.followers.get(context, Counter())
                ordered = sorted(counts, key=lambda line: (-counts[line], line))
                total = max(1, counts.total())
                best = [Completion(line, counts[line] / total) for line in ordered[:NUM_SUGGESTIONS]]
                self.best[context] = best
            known = {each.text for each in found}
            found += [each for each in self.best[context] if each.text not in known]
        return found[:NUM_SUGGESTIONS]

    def next_lines(self, before: str) -> list[Completion]:
        return self.after(self.lines_of(before))

    def continuations(self, befores: Sequence[str], blocks: Sequence[Block]) -> Iterator[str]:
        for before, block in zip(befores, blocks, strict=True):
            lines, new = self.lines_of(before), []
            while len(new) < MOST_LINES and not block.is_over(new):
                new.append(self.after([*lines[-3:], *new[-3:]])[0].text)
            yield "\n".join(new)


class TextMatcher:
    """Allows all tokens of a text, of which the first one has to begin a new line."""

    def __init__(self, expansions: Sequence[str]) -> None:
        self.is_complete = False
        self.first = np.array([text.startswith("\n") for text in expansions])
        self.all = np.arange(len(expansions)) > 0  # 0 is padding
        self.is_first = False

    def expect(self, *beginnings: str) -> None:
        self.is_first = True

    def legal(self) -> np.ndarray:
        return (self.first if self.is_first else self.all).copy()

    def fitting(self) -> np.ndarray:
        return self.legal()

    def unfinished(self) -> list[int]:
        return []

    def closing(self) -> None:
        return None

    def copy(self) -> "TextMatcher":
        return copy(self)

    def advance(self, token: int) -> None:
        self.is_first, self.is_complete = False, token == END

    def after(self, token: int) -> "TextMatcher":
        matcher = self.copy()
        matcher.advance(token)
        return matcher


class TextTokenizer:
    """Byte pairs, as the engine and the search for completions see a tokenizer.

    Attributes:
        expansions: the bytes of each token, one character a byte.
        trie: the same as a tree.
    """

    def __init__(self, byte_pairs: BytePairs) -> None:
        self.byte_pairs = byte_pairs
        byte_of = bytes_of_letters()
        padding, end, *tokens = byte_pairs.expansions()
        self.expansions = [padding, end, *("".join(byte_of[letter] for letter in token) for token in tokens)]
        self.trie = TokenTrie(self.expansions)

    def vocab_size(self) -> int:
        return len(self.expansions)

    def matcher(self, tokens: Sequence[int] = ()) -> TextMatcher:
        return TextMatcher(self.expansions)

    def heal(self, tokens: list[int]) -> tuple[list[int], str]:
        return tokens, ""

    def encode(self, before: str) -> list[int]:
        """The tokens of a text without its last line break, which the next token begins with."""
        return self.byte_pairs.encode(before.removesuffix("\n"))

    def text_after(self, tokens: Sequence[int]) -> str:
        """The complete lines after the first line break, and a last one if the text ends."""
        text = "".join(self.expansions[token] for token in tokens if token != END)
        text = text.encode("latin-1").decode("utf-8", "replace").partition("\n")[2]
        return text + "\n" if END in tokens else text.rpartition("\n")[0]


def bytes_of_letters() -> dict[str, str]:
    """The byte (as a character below 256) that each letter of byte-level BPE stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): chr(byte) for byte in printable}
    return letters | {chr(256 + index): chr(byte) for index, byte in enumerate(others)}


class TextSearch(Search):
    """Searches for the next line of a text."""

    def write(self, base: str) -> Written | None:
        text = base.lstrip("\n")
        line, found, _ = text.partition("\n")
        line, ended, _ = line.partition("\1")
        readable = line.encode("latin-1").decode("utf-8", "replace")
        return Written(readable, bool(line.strip()) and bool(found or ended), False)


class TextSuggester(Completer):
    """Suggestions of a model of byte pairs."""

    def __init__(self, model: GPT, tokenizer: TextTokenizer) -> None:
        self.text = tokenizer
        self.tokenizer: Any = tokenizer
        self._set_up(model, self.tokenizer)

    @torch.inference_mode()
    def next_lines(self, before: str) -> list[Completion]:
        tokens = self.text.encode(before)
        matcher: Any = self.text.matcher()
        matcher.expect()
        search = TextSearch(self, [], NUM_SUGGESTIONS, 1, LEAST_PROBABILITY)
        found = search.run(Beginning("", matcher, matcher), self.read(tokens))
        best = sorted(found, key=lambda line: -found[line])[:NUM_SUGGESTIONS]
        return [Completion(line, found[line]) for line in best]

    def continuations(self, befores: Sequence[str], blocks: Sequence[Block]) -> Iterator[str]:
        prompts = [Prompt(self.text.encode(before)) for before in befores]

        def new_text(index: int, tokens: list[int]) -> str:
            return self.text.text_after(tokens[len(prompts[index].tokens) :])

        def stops(index: int, tokens: list[int]) -> bool:
            is_line = "\n" in self.text.expansions[tokens[-1]] and len(tokens) > len(prompts[index].tokens)
            is_long = len(tokens) - len(prompts[index].tokens) >= BLOCK_TOKENS
            return is_long or (is_line and blocks[index].is_over(new_text(index, tokens).split("\n")))

        sampling = SamplingConfig(temperature=0, max_tokens=None)
        for index, sample in enumerate(self.generate(prompts, sampling, stops)):
            yield new_text(index, sample.tokens)


class FreeMatcher(TokenMatcher):
    """Allows all tokens; a token that the grammar forbids ends the document."""

    is_broken = False

    def legal(self) -> np.ndarray:
        # but for the end of the prompt, which its last token takes back
        return (np.arange(self._tokenizer.vocab_size()) > 0) & self.fitting()

    @property
    def is_complete(self) -> bool:
        return self.is_broken or super().is_complete

    def closing(self) -> Any:
        return None

    def advance(self, token: int) -> None:
        try:
            super().advance(token)
        except TokenizerError:
            self.is_broken = True


class FreeTokenizer(Tokenizer):
    """Ours without the constraint."""

    def matcher(self, tokens: Sequence[int] = ()) -> TokenMatcher:
        return FreeMatcher(self, tokens)


class FreeSearch(Search):
    """Searches among all tokens. One that the grammar forbids gives a suggestion that cannot be used."""

    def write(self, base: str) -> Written | None:
        _, _, consumed = self.completer.tokenizer.engine.read(base, checks_graph=False)
        return (
            super().write(base) if consumed == len(base) else Written(base[len(self.document) :], True, False)
        )


class FreeCompleter(Completer):
    """Completions of a model of our tokens without the constraint."""

    def search(self, insertions: list[Insertion], n: int, max_lines: int, least: float) -> Search:
        return FreeSearch(self, insertions, n, max_lines, least)

    def text_after(self, prompt: Prompt, tokens: list[int]) -> str:
        matcher = FreeMatcher(self.tokenizer)
        for token in tokens:
            matcher.advance(token)
        text = super().text_after(prompt, tokens)
        return f"{text.removesuffix(chr(10))}\n{UNUSABLE}" if matcher.is_broken else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser, cache="runs/completion")
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--cuts", type=int, default=1000, help="of held-out workflows")
    add_model_arguments(parser, tokens=1500 * 4096)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Make the runs that are not in the output file yet, and print the table of all that are."""
    variants = arguments.variants.split(",")
    if not set(variants) <= set(VARIANTS):
        raise UserError(f"--variants {arguments.variants}: each is one of {', '.join(VARIANTS)}")
    settings = {**settings_of(arguments), "cuts": arguments.cuts}
    finished = FinishedRuns(arguments.output)
    corpus = Corpus(arguments.corpus, arguments.cache)
    measured = corpus.measured
    cuts = choose_cuts(
        [document.repo for document in measured],
        lambda index: json.loads(measured[index].compact),
        arguments.cuts,
        seed=0,
    )
    for variant in variants:
        for seed in map(int, arguments.seeds.split(",")):
            if not finished.has(variant, seed, settings) and not (variant == "lines" and seed):
                suggester, about = suggester_of(variant, seed, corpus, arguments)
                print(f"{variant}, seed {seed}: completing {len(cuts)} lines", flush=True)
                result = evaluate_completion(suggester, cuts, corpus.tokenizer())
                finished.add(variant, seed, settings, {**about, "completion": result})
    print(table([run for run in finished.runs if run["settings"] == settings]))


def suggester_of(
    variant: str, seed: int, corpus: Corpus, arguments: argparse.Namespace
) -> tuple[Suggester, dict[str, Any]]:
    """A competitor, trained if it is not yet, and figures about its training."""
    if variant == "lines":
        return LineCounts([to_yaml(json.loads(document.compact)) for document in corpus.training]), {}
    model, about = trained(variant, seed, corpus, arguments)
    if variant == "bpe":
        return TextSuggester(model, TextTokenizer(corpus.byte_pairs(DATA[variant]))), about
    vocabulary = corpus.tokenizer().name
    if variant == "free":
        return ModelSuggester(FreeCompleter.from_model(model, FreeTokenizer(vocabulary))), about
    return ModelSuggester(Completer.from_model(model, corpus.tokenizer())), about


def trained(
    variant: str, seed: int, corpus: Corpus, arguments: argparse.Namespace
) -> tuple[GPT, dict[str, Any]]:
    """A model, from the cache if it is there, and its bits per byte."""
    config = config_of(arguments, seed)
    identity = json.dumps([variant, seed, settings_of(arguments)])
    weights = corpus.cache / "models" / f"{variant}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.pt"
    about = weights.with_suffix(".json")
    if not about.exists():
        documents, parts = corpus.encoded(
            DATA[variant], arguments.megabytes, arguments.validation_documents, variant == "ours"
        )
        about.parent.mkdir(parents=True, exist_ok=True)
        about.write_text(json.dumps(train(documents, config, parts, weights=weights)))
    model = GPT(resolve(config, VOCAB_SIZE).model(), seed)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model, {"bits_per_byte": json.loads(about.read_text())["bits_per_byte"]}


def table(runs: list[dict[str, Any]]) -> str:
    """The runs as Markdown tables, each figure as the mean over seeds, with the interval of the first seed."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_name.setdefault(run["name"], []).append(run["completion"])
    first = next(iter(by_name.values()))[0]
    columns = {title: (measure,) for measure, title in MEASURES.items()}
    parts = ("next_line", "rest_of_step", "rest_of_job")
    tables = [
        rows(
            f"{part.replace('_', ' ')}, {first[part]['cuts']:,} cuts",
            {name: [result[part] for result in results] for name, results in by_name.items()},
            columns,
        )
        for part in parts
        if part in first
    ]
    kinds = {f"{kind} ({row['cuts']})": (kind, "right") for kind, row in first["by_kind"].items()}
    by_kind = {name: [result["by_kind"] for result in results] for name, results in by_name.items()}
    return "\n\n".join([*tables, rows("first guess, next line", by_kind, kinds)])


def rows(title: str, results: dict[str, list[Any]], columns: dict[str, tuple[str, ...]]) -> str:
    """A Markdown table.

    Args:
        results: of each competitor and seed.
        columns: titles, and the keys of their figures in a result.
    """
    lines = [f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    values: dict[str, list[float | None]] = {}
    for name, of_seeds in results.items():
        values[name], cells = [], []
        for keys in columns.values():
            found = [
                functools.reduce(lambda part, key: part.get(key, {}), keys, result) for result in of_seeds
            ]
            value = statistics.mean(each[0] for each in found) if all(found) else None
            values[name].append(value)
            cells.append("" if value is None else f"{value:.1%} ({found[0][1]:.0%} to {found[0][2]:.0%})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    ours = values.pop("ours", [])
    if ours and values:
        bests = [
            max((each or 0.0 for each in column), default=0.0)
            for column in zip(*values.values(), strict=True)
        ]
        ratios = [
            "" if not best or own is None else f"{own / best:.2f}"
            for own, best in zip(ours, bests, strict=True)
        ]
        lines.append(f"| ours / best of the others | {' | '.join(ratios)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
