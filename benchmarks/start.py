"""What `train` takes up to its first step, beside a bare start of Ray Train in the same run.

    python benchmarks/start.py [--rounds 3]

The floor is `ray.init` and a TorchTrainer whose loop does nothing, on one worker, and on as many as `train` has. The
contestants take turns, each with a Ray of its own. Printed are the medians of seconds, of CPU seconds of all processes,
and of the number of processes with Python, up to the moment when the loop begins, or the line of iter 1 is printed.
"""

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from nanochat_tct.data.store_writer import write_store
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer

NUM_WORKERS = 2
POLL_SECONDS = 0.05
PR_SET_CHILD_SUBREAPER = 36  # orphaned processes of a Ray become this process's children, and are counted
BEGUN = "the loop begins"
BARE = f"""
import os, sys
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback only
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def loop(config):
    with open(config["output"], "a") as file:
        print("{BEGUN}", file=file)

ray.init(address="local", dashboard_host="127.0.0.1")
folder, num_workers, output = sys.argv[1:]
scaling = ScalingConfig(num_workers=int(num_workers), resources_per_worker={{"CPU": 0.5}})
TorchTrainer(loop, train_loop_config={{"output": output}}, scaling_config=scaling,
             run_config=RunConfig(storage_path=folder)).fit()
"""


def main() -> None:
    """Parse the arguments, let the contestants take turns, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    measured: dict[str, list[tuple[float, float, int]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_store(folder / "store", [synthesize(index, seed=0) for index in range(600)], load_tokenizer())
        for number in range(options.rounds):
            for name, command, begun in contestants(folder, number):
                measured.setdefault(name, []).append(start(command, folder / f"{name} {number}.txt", begun))
                print(f"round {number + 1}, {name}: {measured[name][-1][0]:.1f} s", file=sys.stderr)
    print("| | seconds | CPU seconds | Python processes |\n| --- | --- | --- | --- |")
    for name, rounds in measured.items():
        seconds, cpu_seconds, processes = map(statistics.median, zip(*rounds, strict=True))
        print(f"| {name} | {seconds:.1f} | {cpu_seconds:.1f} | {processes:.0f} |")
    pairs = zip(measured["train"], measured["bare, 1 worker"], strict=True)
    ratios = [(ours[0] / bare[0], ours[1] / bare[1]) for ours, bare in pairs]
    seconds_ratio, cpu_ratio = map(statistics.median, zip(*ratios, strict=True))
    print(
        f"train over bare, 1 worker: {seconds_ratio:.2f} times the seconds, {cpu_ratio:.2f} times the CPU seconds"
    )


def contestants(folder: Path, number: int) -> list[tuple[str, list[str], str]]:
    """A name, the command without its last argument (the file it prints to), and the text printed at the end."""
    runs = str(folder / f"runs-{number}")
    train = [sys.executable, "-m", "nanochat_tct.cli", "train", "--data-dir", str(folder / "store")]
    train += [
        "--max-iters",
        "1",
        "--eval-iters",
        "1",
        "--num-samples",
        "0",
        "--num-workers",
        str(NUM_WORKERS),
    ]
    train += ["--checkpoint-dir", runs, "--log-dir", runs]
    bare = [
        (f"bare, {count} worker{'s' * (count > 1)}", [sys.executable, "-c", BARE, runs, str(count)], BEGUN)
        for count in (1, NUM_WORKERS)
    ]
    return [*bare, ("train", train, "iter 1 |")]


def start(command: list[str], output: Path, begun: str) -> tuple[float, float, int]:
    """Seconds, CPU seconds and processes with Python until `begun` is in the output; returns when all have ended.

    Raises: RuntimeError with the output, if the command ends before that.
    """
    output.touch()
    begin = time.monotonic()
    with open(output, "a") as file:
        is_bare = begun == BEGUN
        process = psutil.Popen(
            [*command, str(output)] if is_bare else command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        )
        seen: dict[int, float] = {}  # CPU seconds of each process, by its id
        python = set()
        while begun not in output.read_text():
            if process.poll() is not None:
                raise RuntimeError(output.read_text())
            look(seen, python)
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - begin
        look(seen, python)
        process.wait()
    while psutil.Process().children(recursive=True):
        for child in psutil.Process().children():
            child.wait()
    return seconds, sum(seen.values()), len(python)


def look(seen: dict[int, float], python: set[int]) -> None:
    """Note the CPU seconds of all processes below this one, and which of them run Python."""
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
            seen[process.pid] = times.user + times.system
            if "python" in process.exe():
                python.add(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


if __name__ == "__main__":
    main()
