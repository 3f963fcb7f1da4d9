"""A table of what GitHub's own parser and language service say about generated, synthetic and real workflows.

    npm install --prefix DIR @actions/workflow-parser @actions/languageservice vscode-languageserver-textdocument
    python benchmarks/github.py --node-modules DIR/node_modules --count 1000 --checkpoint RUN --real FOLDER

Models with random weights, at the temperature 1, show the effect of the language alone. They generate with the built-in
vocabulary, whose language is GitHub's, and with the earlier one ("builtin-1": SchemaStore's JSON Schema of workflows).
--checkpoint and --old-checkpoint name a trained model for each. The columns "check" are the verdicts of `nanochat-tct
check`; the exit code is 1 if it and GitHub's parser disagree about a workflow. --cuts completes real workflows that
GitHub accepts, each cut off before a random line, with the trained model at random temperatures.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat_tct.check import check_text, find_files
from nanochat_tct.documents import to_yaml
from nanochat_tct.generation.completer import Completer
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.generate import load, untrained
from nanochat_tct.generation.prompt import Prompt, encode_prompt
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer

JUDGE = Path(__file__).with_name("github_judge.mjs")
PROBLEMS = 5  # that are printed of each row


def sampled(model: Any, tokenizer: Any, count: int, temperature: float, max_tokens: int) -> list[str]:
    """Workflows of a model, as YAML."""
    sampling = SamplingConfig(temperature, max_tokens=max_tokens)
    return [
        sample.text
        for sample in Completer.from_model(model, tokenizer).generate([Prompt()] * count, sampling)
    ]


def spread(folder: str, count: int) -> list[str]:
    """Files of a folder, at even distances."""
    files = list(find_files([folder]))
    chosen = files[:: max(1, len(files) // count)][:count]
    return [Path(file).read_bytes().decode("utf-8", "replace") for file in chosen]


def completed(model: Any, tokenizer: Any, texts: list[str], arguments: argparse.Namespace) -> list[str]:
    """Workflows that begin as one of the texts does, each cut off before a random line."""
    choose = random.Random(arguments.seed)
    completer, results = Completer.from_model(model, tokenizer), []
    for index, text in enumerate(texts):
        lines = text.splitlines(keepends=True)
        prompt = encode_prompt("".join(lines[: choose.randrange(len(lines))]), tokenizer)
        sampling = SamplingConfig(
            choose.choice(arguments.temperatures),
            seed=index,
            max_tokens=len(prompt.tokens) + arguments.cut_tokens,
        )
        results += [sample.text for sample in completer.generate([prompt], sampling)]
    return results


def rows(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name and workflows of each row."""
    count = arguments.count
    if arguments.real:
        yield "real workflows", spread(arguments.real, count)
    yield "synthesize", [to_yaml(synthesize(index, arguments.seed)) for index in range(count)]
    for name, about in (("builtin-1", "old schema"), ("builtin", "GitHub's language")):
        tokenizer = load_tokenizer(name)
        model = untrained(tokenizer, arguments.seed)
        yield f"random weights, {about}", sampled(model, tokenizer, count, 1.0, arguments.random_tokens)
    for checkpoint, about in (
        (arguments.old_checkpoint, "old schema"),
        (arguments.checkpoint, "GitHub's language"),
    ):
        if checkpoint:
            model, tokenizer, _ = load(checkpoint, None, "auto")
            for temperature in arguments.temperatures:
                texts = sampled(model, tokenizer, count, temperature, arguments.max_tokens)
                yield f"trained, {about}, T = {temperature:g}", texts
            if checkpoint == arguments.checkpoint and arguments.cuts:
                texts = spread(arguments.real, arguments.cuts)
                verdicts = judged(texts, arguments.node_modules)
                fine = [text for text, verdict in zip(texts, verdicts, strict=True) if not verdict["parser"]]
                yield "real workflows, cut and completed", completed(model, tokenizer, fine, arguments)


def judged(texts: list[str], node_modules: Path) -> list[dict[str, Any]]:
    """The verdicts of GitHub's packages."""
    node = shutil.which("node")
    if node is None:
        raise SystemExit("node is not installed: GitHub's packages need it")
    lines = [json.dumps({"name": f"{index}.yml", "text": text}) for index, text in enumerate(texts)]
    done = subprocess.run(
        [node, str(JUDGE), str(node_modules)],
        input="".join(line + "\n" for line in lines),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(verdicts) == len(texts), "the judge has not answered for each workflow"
    return verdicts


def share(flags: list[bool]) -> str:
    return f"{sum(flags) / len(flags):.1%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with GitHub's npm packages")
    parser.add_argument("--count", type=int, default=300, help="workflows of each row")
    parser.add_argument("--checkpoint", help="a model of the built-in vocabulary")
    parser.add_argument("--old-checkpoint", help="a model of the vocabulary before it")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--max-tokens", type=int, default=2048, help="of a trained model's workflows")
    parser.add_argument("--random-tokens", type=int, default=256, help="of a random model's workflows")
    parser.add_argument("--real", help="folder of real workflows")
    parser.add_argument(
        "--cuts", type=int, default=0, help="real workflows to cut and complete; needs --real"
    )
    parser.add_argument("--cut-tokens", type=int, default=256, help="tokens that a completion may add")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not (arguments.node_modules / "@actions" / "workflow-parser").is_dir():
        parser.error(f"{arguments.node_modules} has no @actions/workflow-parser: npm install it, see --help")

    checker: Any = load_tokenizer()
    differs = 0
    columns = [
        "GitHub's parser accepts",
        "its service: no error",
        "nor warning",
        "check: no error",
        "nor warning",
    ]
    print(f"| | workflows | {' | '.join(columns)} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    complaints: list[str] = []
    for name, texts in rows(arguments):
        verdicts = judged(texts, arguments.node_modules)
        ours = [check_text(name, text.encode("utf-8"), checker) for text in texts]
        accepted = [not verdict["parser"] for verdict in verdicts]
        no_error = [not verdict["parser"] and not verdict["errors"] for verdict in verdicts]
        quiet = [fine and not verdict["warnings"] for fine, verdict in zip(no_error, verdicts, strict=True)]
        ours_accepted = [all(each.severity != "error" for each in found) for found in ours]
        figures = map(share, (accepted, no_error, quiet, ours_accepted, [not found for found in ours]))
        print(f"| {name} | {len(texts)} | {' | '.join(figures)} |", flush=True)
        shown = 0
        for text, verdict, found, theirs, own in zip(
            texts, verdicts, ours, accepted, ours_accepted, strict=True
        ):
            differs += theirs != own
            if (theirs != own or (not theirs and name.endswith("language"))) and shown < PROBLEMS:
                shown += 1
                complaints.append(f"{name}: GitHub {verdict['parser'][:1]}, ours {found[:1]}\n{text}")
    print("\n".join(complaints))
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
