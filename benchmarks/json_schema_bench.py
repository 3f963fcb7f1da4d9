"""Run the schema compiler on JSONSchemaBench: real schemas with valid and invalid instances, beside other engines.

    python benchmarks/json_schema_bench.py path/to/jsonschemabench/maskbench/data
    python benchmarks/json_schema_bench.py path/to/jsonschemabench/maskbench/data --sample 1000 --peers

Each schema is compiled in a process of its own, with limits on CPU time and memory, and its instances are written with
the grammar that comes out. What is finished is kept in ``--results``: the same command goes on where it was stopped.

``--peers`` adds llguidance and xgrammar (see peers.py for what must be installed) and the time of masks: at each token
of each valid instance, from the first one after compilation on. All engines then have one byte-level BPE vocabulary,
trained here on valid instances. Ours uses those of its tokens that can be a part of a text, beside the structure and
the keys of a schema, which are tokens of their own.

An invalid instance that our grammar accepts counts as named only if the compiler reports the violated keyword at its
own position as not enforced, as in json_schema_suite.py. Where the jsonschema package contradicts a label (with
patterns as ECMA-262, and formats as annotations), the instance is set aside for all engines.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema.exceptions import _WrappedReferencingError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.json_schema_suite import NAMED, REFUSED, RIGHT, UNNAMED, is_named, notes_of
from benchmarks.peers import Llguidance, Peer, Xgrammar, byte_level_bpe, compact, spread, vocabulary
from benchmarks.schemas import validator_of
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.engine import DONE, Engine

DOUBTED = "label in doubt"
VERDICTS = (RIGHT, NAMED, UNNAMED, REFUSED, DOUBTED)
OURS = "ours"


class Ours:
    """Our engine; ``unenforced`` is what the compiler said of the last schema. It times masks where it has tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self.unenforced: list[str] = []

    def compile_schema(self, schema: Any) -> Engine:
        """Raises UserError: the schema cannot be compiled."""
        compiled, self.unenforced = compile_schema(schema)
        return Engine(compiled, self._tokens)

    def walk(self, engine: Engine, value: Any) -> tuple[bool, list[float]]:
        """Whether a value is accepted, and the CPU seconds that each mask took."""
        tokens = engine.encode(compact(value).encode("utf-8", "surrogatepass"))
        if tokens is None:
            return False, []
        result, text, _ = engine.decode(tokens)
        assert result == DONE and json.loads(text) == value
        if not self._tokens:
            return True, []
        matcher = engine.matcher()
        seconds: list[float] = []
        for token in tokens:
            before = time.thread_time()
            legal = matcher.legal()
            seconds.append(time.thread_time() - before)
            assert legal[token] and matcher.advance_token(token)
        assert matcher.is_complete
        return True, seconds


def as_text(token: str) -> str | None:
    """The bytes of a token of a byte-level BPE, as characters; None: it can be no part of a text in JSON."""
    text = "".join(chr(BYTES[character]) for character in token if character in BYTES)
    return text if len(text) == len(token) > 1 and not {'"', "\\"} & set(text) and min(text) >= " " else None


def byte_of_character() -> dict[str, int]:
    """The bytes by the characters that byte-level BPE writes them as: printable ones as they are."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTES = byte_of_character()


def judge(engine: Peer, compiled: Any, schema: Any, test: dict[str, Any]) -> tuple[str, list[float]]:
    """The verdict on one instance, and the CPU seconds of the masks along it."""
    accepted, seconds = engine.walk(compiled, test["data"])
    if accepted == test["valid"]:
        return RIGHT, seconds if accepted else []
    has_formats = '"format":' in compact(schema)  # one is at fault where jsonschema finds nothing else
    try:
        is_valid = validator_of(schema).is_valid(test["data"])
    except _WrappedReferencingError:
        is_valid = test["valid"]
    if is_valid != test["valid"] and not (has_formats and is_valid):
        return DOUBTED, []
    if not accepted:
        return REFUSED, []
    unenforced = engine.unenforced if isinstance(engine, Ours) else []
    if is_valid:
        named = any(note.names("format") for note in notes_of(schema, unenforced))
    else:
        named = is_named(schema, test["data"], unenforced)
    return NAMED if named else UNNAMED, []


def measure(path: Path, engine: Peer, send: Callable[[dict[str, Any]], None]) -> None:
    """Compiles the schema of a file and judges its instances; sends first that it compiles, then all results."""
    content = json.loads(path.read_text(encoding="utf-8"))
    before = time.process_time()
    try:
        compiled = engine.compile_schema(content["schema"])
    except (UserError, ValueError, RuntimeError) as error:
        return send({"outcome": "refused", "error": str(error).splitlines()[0][:300]})
    result: dict[str, Any] = {"outcome": "compiled", "compile": time.process_time() - before}
    verdicts: Counter[str] = Counter()
    wrong: list[str] = []
    masks: list[float] = []
    for index, test in enumerate(content["tests"]):
        verdict, seconds = judge(engine, compiled, content["schema"], test)
        verdicts[verdict] += 1
        masks += [round(each, 7) for each in seconds]
        if verdict not in (RIGHT, NAMED):
            wrong.append(f"{verdict}: {path.stem} / {index}: {compact(test['data'])[:100]}")
    return send(result | {"verdicts": verdicts, "wrong": wrong, "masks": masks})


def limited(path: Path, engine: Peer, cpu_seconds: int, gibibytes: float) -> dict[str, Any]:
    """``measure`` in a process of its own."""
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        resource.setrlimit(resource.RLIMIT_DATA, (int(gibibytes * 2**30),) * 2)
        try:
            measure(path, engine, sender.send)
        except MemoryError:
            sender.send({"outcome": "memory", "error": f"more than {gibibytes} GiB"})

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        found = {}
    child.join()
    if not found:
        late = child.exitcode in (-signal.SIGXCPU, -signal.SIGKILL)
        error = f"more than {cpu_seconds} s" if late else f"exit code {child.exitcode}"
        found = {"outcome": "time" if late else "crash", "error": error}
    return found


def source_of(name: str) -> str:
    """The collection that a file is from."""
    return name.partition("---")[0] if "---" in name else name.partition("_")[0]


def chosen(folder: Path, sample: int | None, seed: int) -> list[Path]:
    """The files, or a sample with as many of each source as there are in proportion, in a random order."""
    paths = sorted(folder.glob("*.json"))
    random.Random(seed).shuffle(paths)
    if sample is None or sample >= len(paths):
        return paths
    by_source: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_source[source_of(path.stem)].append(path)
    shares = {source: max(1, round(sample * len(files) / len(paths))) for source, files in by_source.items()}
    return [path for source, files in sorted(by_source.items()) for path in files[: shares[source]]]


def training_texts(folder: Path, number: int = 3000) -> list[str]:
    """Valid instances that the vocabulary is trained on: the same for each sample."""
    texts: list[str] = []
    for path in chosen(folder, number, seed=0):
        tests = json.loads(path.read_text(encoding="utf-8"))["tests"]
        texts += [compact(test["data"]) for test in tests if test["valid"]][:1]
    return texts


def table(records: list[dict[str, Any]], engine: str) -> list[str]:
    """A row for each source and one for all."""
    rows = [
        f"| {engine} | schemas | compiled | " + " | ".join(VERDICTS) + " | compile ms, median, 99% "
        "| mask µs, mean | median | 99% |",
        "| --- |" + " --- |" * (len(VERDICTS) + 6),
    ]
    sources = sorted({source_of(record["schema"]) for record in records})
    for source in [*sources, "all"]:
        here = [r for r in records if source in ("all", source_of(r["schema"]))]
        compiled = [r for r in here if r["outcome"] == "compiled"]
        verdicts: Counter[str] = Counter()
        for record in compiled:
            verdicts.update(record["verdicts"])
        masks = [each for record in compiled for each in record["masks"]]
        times = np.array([record["compile"] for record in compiled] or [0]) * 1000
        rows.append(
            f"| {source} | {len(here)} | {len(compiled)} | "
            + " | ".join(str(verdicts[verdict]) for verdict in VERDICTS)
            + f" | {np.median(times):.0f}, {np.percentile(times, 99):.0f} | "
            + (" | ".join(f"{each:.1f}" for each in spread(masks)) if masks else " | | ")
            + " |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="the benchmark's folder maskbench/data")
    parser.add_argument(
        "--sample", type=int, help="about so many schemas, spread over the sources; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--peers", action="store_true", help="llguidance and xgrammar as well, and times of masks"
    )
    parser.add_argument("--seconds", type=int, default=60, help="of CPU time for a schema and an engine")
    parser.add_argument("--gibibytes", type=float, default=4, help="of memory for a schema and an engine")
    parser.add_argument("--results", type=Path, default=Path("json_schema_bench.jsonl"))
    arguments = parser.parse_args()
    paths = chosen(arguments.folder, arguments.sample, arguments.seed)
    engines: dict[str, Peer] = {OURS: Ours([])}
    if arguments.peers:
        bpe = byte_level_bpe(training_texts(arguments.folder))
        tokens = [text for token in vocabulary(bpe) if (text := as_text(token)) is not None]
        engines = {OURS: Ours(tokens), "llguidance": Llguidance(bpe), "xgrammar": Xgrammar(bpe)}
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    records = {(record["schema"], record["engine"]): record for record in map(json.loads, lines)}
    with arguments.results.open("a") as output:
        for path in paths:
            for name, engine in engines.items():
                if (path.stem, name) not in records:
                    found = limited(path, engine, arguments.seconds, arguments.gibibytes)
                    records[path.stem, name] = {"schema": path.stem, "engine": name, **found}
                    output.write(json.dumps(records[path.stem, name]) + "\n")
                    output.flush()
    for name in engines:
        own = [records[path.stem, name] for path in paths]
        print("\n".join(table(own, name)) + "\n")
        reasons = Counter(f"{r['outcome']}: {r.get('error', '')}" for r in own if r["outcome"] != "compiled")
        print("\n".join(f"{count} schemas {reason}" for reason, count in reasons.most_common()) + "\n")
    for path in paths:
        record = records[path.stem, OURS]
        if record["outcome"] == "compiled":
            print("\n".join(record["wrong"]), end="\n" if record["wrong"] else "")


if __name__ == "__main__":
    main()
