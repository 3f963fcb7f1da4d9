"""How fast `prepare` is, how much memory it takes, and what Ray costs on top of the work itself.

    python benchmarks/prepare.py --count 100000
    python benchmarks/prepare.py --input FOLDER

Runs the job as a user does, in a process of its own. Then does the same reading, parsing and encoding in plain
processes, as many as there are CPUs, each with its share of the same parts and nothing else to do. Ray's share
is the part of the job's time that this bare loop does not need: of the whole command, with starting and ending
Ray in it, of the time in which the job runs, and of the CPU time of all its processes (which says the most when
something else runs on the machine).
"""

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from nanochat_tct.data.encode import encode_raw
from nanochat_tct.data.mask_table import MaskSender
from nanochat_tct.data.parts import plan_parts, read_part
from nanochat_tct.data.sources import find_sources
from nanochat_tct.data.store import TokenStore
from nanochat_tct.documents import DEFAULT_LIMITS
from nanochat_tct.tokenizer import load_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--count", type=int, help="make this many synthetic workflows (JSON files) first")
    group.add_argument("--input", help="take the workflows of this folder")
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="processes of the bare loop")
    parser.add_argument("--repeat", type=int, default=1, help="times to measure; the best of each counts")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON only")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        given = arguments.input
        if given is None:
            given = f"{folder}/in"
            synthesize = [
                "synthesize",
                "--count",
                str(arguments.count),
                "--output",
                given,
                "--format",
                "json",
            ]
            subprocess.run(
                [sys.executable, "-m", "nanochat_tct.cli", *synthesize], check=True, stdout=sys.stderr
            )
        runs = [
            {
                **time_prepare(given, Path(folder) / f"out{index}"),
                **time_bare_loop(given, arguments.cpus),
            }
            for index in range(arguments.repeat)
        ]
    best: dict[str, Any] = {
        **runs[0],
        "prepare_seconds": min(run["prepare_seconds"] for run in runs),
        "running_seconds": min(run["running_seconds"] for run in runs),
        "bare_seconds": min(run["bare_seconds"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }
    best["documents_per_second"] = best["documents"] / best["prepare_seconds"]
    best["bare_documents_per_second"] = best["documents"] / best["bare_seconds"]
    best["ray_share"] = 1 - best["bare_seconds"] / best["prepare_seconds"]
    best["ray_share_running"] = 1 - best["bare_seconds"] / best["running_seconds"]
    best["ray_share_cpu"] = 1 - best["bare_cpu_seconds"] / best["prepare_cpu_seconds"]
    best["cpus"] = arguments.cpus
    if arguments.json:
        print(json.dumps(best))
        return
    print(
        f"{best['documents']:,} documents, {best['json_bytes']:,} bytes of compact JSON, {best['tokens']:,} tokens\n"
        f"prepare     {best['prepare_seconds']:.1f} s, {best['documents_per_second']:,.0f} documents/s, "
        f"at most {best['peak_bytes'] / 2**30:.2f} GiB resident in one process ({best['peak_process']})\n"
        f"bare loop   {best['bare_seconds']:.1f} s, {best['bare_documents_per_second']:,.0f} documents/s, "
        f"in {best['cpus']} processes\n"
        f"Ray's share {100 * best['ray_share']:.0f}% of the whole command; "
        f"{100 * best['ray_share_running']:.0f}% of the {best['running_seconds']:.1f} s after Ray started; "
        f"{100 * best['ray_share_cpu']:.0f}% of {best['prepare_cpu_seconds']:.0f} CPU seconds\n"
        + json.dumps(best)
    )


def time_prepare(given: str, output: Path) -> dict[str, Any]:
    """Runs `nanochat-tct prepare`; its seconds from start to exit, and the peak memory of its processes."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "nanochat_tct.cli", "prepare", "--input", given, "--output", str(output)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    watcher = ProcessWatcher(process.pid)
    printed, _ = process.communicate()
    code = process.returncode
    seconds = time.perf_counter() - begin
    watcher.stop()
    if code != 0:
        raise SystemExit(f"prepare ended with exit code {code}")
    print(printed, file=sys.stderr)
    summary = re.search(r"in ([0-9.]+) s .* of which ([0-9.]+) s to start Ray", printed)
    assert summary, "prepare prints its times"
    counts = TokenStore.open(output).manifest["counts"]
    peak_process, peak_bytes = max(watcher.peaks.values(), key=lambda peak: peak[1])
    return {
        "documents": counts["documents"] + counts["duplicates"] + counts["rejected"],
        "rejected": counts["rejected"],
        "json_bytes": counts["json_bytes"],
        "tokens": counts["tokens"],
        "prepare_seconds": seconds,
        "prepare_cpu_seconds": sum(watcher.cpu_seconds.values()),
        "running_seconds": float(summary[1]) - float(summary[2]),
        "peak_bytes": peak_bytes,
        "peak_process": peak_process,
    }


def time_bare_loop(given: str, processes: int) -> dict[str, float]:
    """Seconds for the same reading, parsing and encoding, from the first document to the last."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    cpu_seconds = context.Queue()
    workers = [
        context.Process(target=_bare_worker, args=(given, index, processes, barrier, cpu_seconds))
        for index in range(processes)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - begin
    total = sum(cpu_seconds.get() for _ in workers)
    for worker in workers:
        worker.join()
    return {"bare_seconds": seconds, "bare_cpu_seconds": total}


def _bare_worker(given: str, index: int, processes: int, barrier: Any, cpu_seconds: Any) -> None:
    tokenizer = load_tokenizer()
    parts = plan_parts(find_sources([given]))[index::processes]
    barrier.wait()
    begin = time.process_time()
    for part in parts:
        sender = MaskSender()
        for raw in read_part(part, DEFAULT_LIMITS):
            encode_raw(raw, tokenizer, DEFAULT_LIMITS, sender)
    cpu_seconds.put(time.process_time() - begin)
    barrier.wait()


class ProcessWatcher:
    """Looks at a process and all that come from it, ten times a second: their memory and CPU time (Linux)."""

    def __init__(self, process: int) -> None:
        self.peaks: dict[int, tuple[str, int]] = {}  # process -> (its name, bytes)
        self.cpu_seconds: dict[int, float] = {}
        self._process = process
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        family = {self._process}
        while not self._stopped.wait(0.1):
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    lines = (path / "status").read_text().splitlines()
                    times = (path / "stat").read_text().rpartition(")")[2].split()
                except OSError:  # it ended just now
                    continue
                status = dict(line.split(":", 1) for line in lines if ":" in line)
                process, parent = int(status["Pid"]), int(status["PPid"])
                if process in family or parent in family:
                    family.add(process)
                    peak = int(status.get("VmHWM", "0 kB").split()[0]) * 1024
                    if peak:  # none is told of a process that has just ended
                        self.peaks[process] = (status["Name"].strip(), peak)
                    # user and system, in clock ticks
                    self.cpu_seconds[process] = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
