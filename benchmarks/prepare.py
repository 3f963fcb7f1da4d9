"""What `prepare` costs by the number of documents, and what opening such a store costs a worker of training.

    python benchmarks/prepare.py --documents 20000 100000 1000000 [--masks] [--keep FOLDER]

The input is Parquet with a column `text`: synthetic workflows, each with a number in its name, so that none is a
duplicate. Prints for each size documents per second beside a floor measured in the same run (reading, checking and
encoding alone, in one process, times the CPUs), CPU microseconds a document, and the largest resident memory of the
command, of a task and of Ray's own processes. Then a new process opens the store and reads a first batch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet

from nanochat_tct.data.encode import encode_raw
from nanochat_tct.data.mask_table import MaskSender
from nanochat_tct.data.parts import RawDocument
from nanochat_tct.documents import DEFAULT_LIMITS, to_json
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer

DISTINCT = 5_000  # synthetic workflows; more documents repeat them under other names
ROWS_OF_A_GROUP = 10_000
ROWS_OF_A_FILE = 100_000
FLOOR_DOCUMENTS = 2_000
DOCUMENTS_OF_A_REPOSITORY = 3
REPOSITORIES_OF_AN_OWNER = 4
OPEN = """
import json, sys, time
from pathlib import Path
from nanochat_tct.data.sampler import WindowSampler
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows

def memory(name):
    return int(Path("/proc/self/status").read_text().split(name)[1].split()[1]) >> 10

before, begin, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
store = TokenStore.open(sys.argv[1], verify=False)
training, validation = (Windows(store, split, 512) for split in ("train", "val"))
opened, cpu = time.perf_counter() - begin, time.process_time() - cpu
training.get_masked(WindowSampler(len(training), 0).indices(0, 64))
print(json.dumps([opened, cpu, time.perf_counter() - begin - opened, memory("VmHWM") - before, len(training)]))
"""


def main() -> None:
    """Parse the arguments, and measure each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[20_000])
    parser.add_argument("--masks", action="store_true", help="also find the legal tokens, which takes longer")
    parser.add_argument("--keep", type=Path, help="a folder for input and stores; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        values = [synthesize(index, seed=1) for index in range(DISTINCT)]
        for count in options.documents:
            if not (folder / f"in-{count}").exists():
                write_input(folder / f"in-{count}", values, count)
        floor = encoding_alone(values, options.masks)
        print(f"floor: {floor:,.0f} documents per CPU second, {floor * os.cpu_count():,.0f}/s on all CPUs")
        for count in options.documents:
            measure(folder / f"in-{count}", folder / f"out-{count}", count, floor, options.masks)


def write_input(folder: Path, values: list[dict[str, object]], count: int) -> None:
    """Write `count` different workflows as Parquet, a group of rows at a time."""
    folder.mkdir(parents=True)
    schema = pa.schema([("text", pa.string()), ("repo", pa.string())])
    for first_of_file in range(0, count, ROWS_OF_A_FILE):
        end_of_file = min(count, first_of_file + ROWS_OF_A_FILE)
        with pa.parquet.ParquetWriter(folder / f"{first_of_file:09}.parquet", schema) as writer:
            for first in range(first_of_file, end_of_file, ROWS_OF_A_GROUP):
                writer.write_table(
                    pa.table(rows(values, first, min(end_of_file, first + ROWS_OF_A_GROUP)), schema)
                )


def rows(values: list[dict[str, object]], first: int, stop: int) -> dict[str, list[str]]:
    """The columns of some rows."""
    texts, repos = [], []
    for index in range(first, stop):
        value = values[index % len(values)]
        texts.append(to_json({**value, "name": f"{value.get('name', 'CI')} {index}"}))
        repo = index // DOCUMENTS_OF_A_REPOSITORY
        repos.append(f"owner-{repo // REPOSITORIES_OF_AN_OWNER}/repository-{repo}")
    return {"text": texts, "repo": repos}


def encoding_alone(values: list[dict[str, object]], with_masks: bool) -> float:
    """Documents per CPU second of what a task does with a document."""
    tokenizer, sender = load_tokenizer(), MaskSender() if with_masks else None
    columns = rows(values, 0, FLOOR_DOCUMENTS)
    raws = [
        RawDocument("x", repo, text, "auto")
        for text, repo in zip(columns["text"], columns["repo"], strict=True)
    ]
    begin = time.process_time()
    assert not [raw for raw in raws if encode_raw(raw, tokenizer, DEFAULT_LIMITS, sender).reason]
    return len(raws) / (time.process_time() - begin)


def measure(given: Path, output: Path, count: int, floor: float, with_masks: bool) -> None:
    """Prepare one folder, open the store, and print what both took."""
    shutil.rmtree(output, ignore_errors=True)
    masks = [] if with_masks else ["--no-masks"]
    command = [
        sys.executable,
        "-m",
        "nanochat_tct.cli",
        "prepare",
        "--input",
        given,
        "--output",
        output,
        *masks,
    ]
    begin = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    usage = watch(process)
    seconds = time.monotonic() - begin
    printed = process.stdout.read()
    assert process.returncode == 0, printed
    started = float(printed.split("of which ")[1].split(" s to start Ray")[0])
    rate = count / (seconds - started)
    cpu = {role: 1e6 * of_role["seconds"] / count for role, of_role in usage.items()}
    memory = {role: round(of_role["bytes"]) >> 20 for role, of_role in usage.items()}
    print(
        f"{count:,} documents: {seconds:.1f} s, {started:.1f} s of them to start Ray; {rate:,.0f} documents/s, "
        f"{rate / floor / os.cpu_count():.2f} of the floor\n"
        f"  CPU us a document  {', '.join(f'{role} {value:.0f}' for role, value in cpu.items())}\n"
        f"  largest, MiB       {', '.join(f'{role} {value:,}' for role, value in memory.items())}",
        flush=True,
    )
    result = subprocess.run([sys.executable, "-c", OPEN, output], stdout=subprocess.PIPE, check=True)
    opened, cpu_seconds, first, grown, windows = json.loads(result.stdout)
    print(
        f"  opened in {opened:.2f} s ({cpu_seconds:.2f} CPU s), first batch after {first:.2f} s more, "
        f"{grown:,} MiB of memory; {windows:,} windows for training",
        flush=True,
    )


def watch(process: psutil.Popen) -> dict[str, dict[str, float]]:
    """The largest resident memory, and the CPU seconds of all processes, by role, until the command ends."""
    usage = {role: {"bytes": 0.0, "seconds": 0.0} for role in ("command", "tasks", "Ray")}
    seconds: dict[int, tuple[str, float]] = {}
    while process.poll() is None:
        for child in [process, *process.children(recursive=True)]:
            try:
                name, memory, times = child.name(), child.memory_info().rss, child.cpu_times()
            except psutil.Error:  # it has ended
                continue
            role = "command" if child == process else "tasks" if name.startswith("ray::") else "Ray"
            usage[role]["bytes"] = max(usage[role]["bytes"], memory)
            seconds[child.pid] = (role, times.user + times.system)
        time.sleep(0.25)
    for role, spent in seconds.values():
        usage[role]["seconds"] += spent
    return usage


if __name__ == "__main__":
    main()
