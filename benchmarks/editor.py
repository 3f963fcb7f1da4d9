"""What the language server costs while a workflow of 300 lines is typed: CPU milliseconds on one core.

    python benchmarks/editor.py [--corpus DIR] [--checkpoint DIR]

Each document is cut at some of its lines and in the middle of a word, as it is while somebody writes it. The floor is
reading the text alone, once, with the YAML parser; `check_text` is what `nanochat-tct check` does with it. With a
checkpoint a line of each document is also typed key by key, as an editor asks for suggestions: before its first key,
where the model has to read the document, and after each.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from pygls.workspace import PositionCodec

from nanochat_tct.check import check_text
from nanochat_tct.documents import DocumentError, read_workflow, to_yaml
from nanochat_tct.editor.completion import complete
from nanochat_tct.editor.config import LspConfig
from nanochat_tct.editor.diagnostics import diagnostics
from nanochat_tct.editor.hover import hover
from nanochat_tct.editor.language import Language
from nanochat_tct.editor.text import EditorText
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer.tokenizer import Tokenizer

LINES = (280, 320)
DOCUMENTS = 40
CUTS = 5  # of each document
MOST_KEYS = 30  # of a line that is typed


def documents(corpus: Path | None) -> list[str]:
    """Workflows of about 300 lines: real ones, or synthetic ones one below the other with their jobs renamed."""
    if corpus is not None:
        import pyarrow.parquet

        texts = pyarrow.parquet.read_table(corpus / "workflows.parquet").column("text").to_pylist()
        found = [text for text in texts if LINES[0] <= text.count("\n") <= LINES[1]]
        return random.Random(0).sample(found, min(DOCUMENTS, len(found)))
    made, index = [], 0
    while len(made) < DOCUMENTS:
        workflow, text = {"on": "push", "jobs": {}}, ""
        while text.count("\n") < LINES[0]:
            jobs = synthesize(index, 3)["jobs"]
            index += 1
            workflow["jobs"] |= {f"{name}_{index}": job for name, job in jobs.items() if "needs" not in job}  # type: ignore[operator]
            text = to_yaml(workflow)
        made.append(text)
    return made


def timed(function: Callable[[], object]) -> float:
    """CPU milliseconds, the least of three runs."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return 1000 * min(times)


def read(text: str) -> object:
    try:
        return read_workflow(text, "yaml", complaints=[])
    except DocumentError as error:
        return error


def measured(language: Language, document: EditorText, offset: int) -> dict[str, float]:
    """CPU milliseconds of each answer about one document."""
    text = document.text
    return {
        "reading the YAML": timed(lambda: read(text)),
        "check_text": timed(lambda: check_text("", text.encode(), language.tokenizer)),
        "diagnostics": timed(lambda: diagnostics(language.tokenizer, document)),
        "completion": timed(lambda: complete(language, text, offset)),
        "hover": timed(lambda: hover(language, text, offset)),
    }


def suggesting(checkpoint: str, texts: list[str], rng: random.Random) -> dict[str, list[float]]:
    """CPU milliseconds of suggestions while a line of each document is typed."""
    import torch

    from nanochat_tct.generation import Completer

    torch.set_num_threads(1)
    completer = Completer(checkpoint)
    costs: dict[str, list[float]] = {"suggestion, at first": [], "suggestion, a key": []}
    for text in texts:
        begin = rng.choice([match.end() for match in re.finditer(r"\n *(?=[^ #\n])", text)])
        line = text[begin:].partition("\n")[0]
        for offset in range(begin, begin + min(len(line), MOST_KEYS) + 1):
            before = time.process_time()
            completer.complete(text, offset, least=LspConfig().threshold)
            name = "suggestion, at first" if offset == begin else "suggestion, a key"
            costs[name].append(1000 * (time.process_time() - before))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus", type=Path, help="folder with workflows.parquet; without it: synthetic ones"
    )
    parser.add_argument("--checkpoint", help="whose suggestions are timed, too")
    arguments = parser.parse_args()
    begin = time.process_time()
    language = Language(Tokenizer())
    print(f"loading the rules, once: {1000 * (time.process_time() - begin):.0f} ms")
    rng = random.Random(1)
    costs: dict[str, list[float]] = {}
    texts = [re.sub("\r\n?", "\n", source) for source in documents(arguments.corpus)]
    for text in texts:
        for kind in ["whole", *["cut"] * CUTS]:
            offset = rng.randrange(len(text))
            typed = text if kind == "whole" else text[:offset] + text[text.find("\n", offset) :]
            document = EditorText(typed, PositionCodec())
            for name, milliseconds in measured(language, document, offset).items():
                costs.setdefault(name, []).append(milliseconds)
    if arguments.checkpoint is not None:
        costs |= suggesting(arguments.checkpoint, texts, rng)
    floor = statistics.median(costs["reading the YAML"])
    print(f"{'':<20} {'median ms':>10} {'99% ms':>8} {'most ms':>8} {'x reading':>10}")
    for name, times in costs.items():
        ordered = sorted(times)
        median, high = statistics.median(times), ordered[int(0.99 * len(times))]
        print(f"{name:<20} {median:>10.1f} {high:>8.1f} {ordered[-1]:>8.1f} {median / floor:>10.1f}")


if __name__ == "__main__":
    main()
