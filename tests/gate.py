"""Compare what this working tree computes with what an earlier commit computes: `make gate`.

    python -m tests.gate                  # against the commit before HEAD
    python -m tests.gate --base v0.1.0    # against any other revision

A refactoring must change none of these; a change that means to names the rows that differ in its commit message.

    vocabulary      fingerprint of the built-in tokenizer
    store           SHA-256 of each file that `prepare` writes
    losses          loss, gradient norm and learning rate of each iter of the demo model on two workers
    weights         SHA-256 of the last checkpoint's weights
    old checkpoint  bits per byte of the earlier commit's checkpoint, and the losses of a run resumed from it
    ledger          the trials of a small sweep in FLOPs: what each was given, what it was charged, how it ended

Both trees are driven through the command line only, each in processes of its own that import that tree. Training
reads the store and the checkpoints that the earlier commit wrote, so that a difference in one row does not show up
in the others.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_WORKFLOWS = 120
TRAIN = [
    *("--context-size", "64", "--batch-size", "4", "--eval-interval", "10", "--save-interval", "10"),
    *("--log-interval", "1", "--eval-iters", "4", "--num-samples", "0", "--wandb", "off", "--no-tensorboard"),
]
SWEEP = [
    *("--budget-flops", "1e11", "--sizes", "1x32", "--num-rates", "1", "--context-size", "32"),
    *("--batch-size", "4", "--wandb", "off", "--no-tensorboard", "--concurrency", "1"),
]
FINGERPRINT = "from nanochat_tct.tokenizer import load_tokenizer; print(load_tokenizer().fingerprint)"
Row = tuple[str, str]


def main() -> int:
    """Print a row for each comparison. Returns the exit code: 1 when anything differs."""
    parser = argparse.ArgumentParser(description="compare the numbers of this tree with an earlier commit's")
    parser.add_argument("--base", default="HEAD~1", help="revision to compare with (default: HEAD~1)")
    parser.add_argument("--keep", metavar="DIR", help="keep everything that both trees write in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gate-") as temporary:
        folder = Path(arguments.keep or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        base = Tree(folder / "base-tree", folder / "base")
        git("worktree", "add", "--detach", "--force", str(base.source), arguments.base)
        try:
            build_native(base.source)
            here = Tree(REPOSITORY, folder / "here")
            workflows = folder / "workflows"
            base.cli("synthesize", "--count", NUM_WORKFLOWS, "--seed", 1, "--output", workflows)
            return compare(rows(base, base, workflows), rows(here, base, workflows))
        finally:
            git("worktree", "remove", "--force", str(base.source))


class Tree:
    """A checkout, the folder for what it writes, and a way to run its commands."""

    def __init__(self, source: Path, output: Path) -> None:
        self.source, self.output = source, output
        output.mkdir(parents=True, exist_ok=True)

    def python(self, *arguments: object) -> str:
        """Standard output of a Python process that imports this checkout; its end is shown when it fails."""
        environment = {**os.environ, "PYTHONPATH": str(self.source), "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, *(str(argument) for argument in arguments)]
        done = subprocess.run(command, cwd=self.source, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        return done.stdout

    def cli(self, *arguments: object) -> str:
        return self.python("-m", "nanochat_tct.cli", *arguments)

    def train(self, store: Path, max_iters: int) -> None:
        """Train, or resume, the run `gate` in this tree's folder."""
        folders = ["--checkpoint-dir", self.run_dir.parent, "--log-dir", self.output / "logs"]
        name = ["--run-name", "gate", "--lr-decay-iters", 30, "--warmup-iters", 2]
        self.cli("train", "--data-dir", store, "--max-iters", max_iters, *TRAIN, *folders, *name)

    @property
    def run_dir(self) -> Path:
        return self.output / "checkpoints" / "gate"


def rows(tree: Tree, base: Tree, workflows: Path) -> list[Row]:
    """Everything that is compared, as (name, value) in a fixed order."""
    print(f"running {tree.source}", flush=True)
    found = [("vocabulary", tree.python("-c", FINGERPRINT).strip())]

    store = tree.output / "store"
    tree.cli("prepare", "--input", workflows, "--output", store, "--context-size", 64)
    files = json.loads((store / "manifest.json").read_text())["files"]
    found += [(f"store {name}", facts["sha256"]) for name, facts in sorted(files.items())]

    tree.train(base.output / "store", 20)
    found += losses(tree.run_dir, "losses")
    found.append(("weights", sha256(sorted(tree.run_dir.glob("iter_*"))[-1] / "model.safetensors")))

    # From here on each tree works on its own copy of the run that the earlier commit wrote.
    old = Tree(tree.source, tree.output / "old")
    shutil.copytree(base.run_dir, old.run_dir, ignore=shutil.ignore_patterns("ray"))
    if tree is base:
        shutil.copytree(base.run_dir, base.output / "written", ignore=shutil.ignore_patterns("ray"))
    else:
        shutil.rmtree(old.run_dir)
        shutil.copytree(base.output / "written", old.run_dir)
    evaluated = old.cli(
        "evaluate", "--checkpoint", old.run_dir, "--data-dir", base.output / "store", "--json"
    )
    found.append(("old checkpoint bits_per_byte", str(json.loads(evaluated)["bits_per_byte"])))
    old.train(base.output / "store", 30)
    found += losses(old.run_dir, "old checkpoint resumed")

    sweep = tree.output / "sweep"
    tree.cli("tune", "--data-dir", base.output / "store", "--output", sweep, *SWEEP)
    return found + trials(sweep / "ledger.jsonl")


def losses(run_dir: Path, name: str) -> list[Row]:
    entries = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    kept = ("loss", "grad_norm", "lr", "bits_per_byte")
    return [
        (
            f"{name} iter {entry['iter']} {entry['kind']}",
            " ".join(f"{entry[key]!r}" for key in kept if key in entry),
        )
        for entry in entries
    ]


def trials(ledger: Path) -> list[Row]:
    """A row for each trial, without what depends on the clock: times, and the seconds that workers were paid for."""
    opened: dict[str, list[Any]] = {}
    charged: dict[str, int] = {}
    ended: dict[str, list[Any]] = {}
    for line in ledger.read_text().splitlines():
        [(operation, entry)] = json.loads(line).items()
        if operation == "open":
            _, name, purpose, workers, settings, *_ = entry
            opened[name] = [purpose, workers, settings["size"], settings["iters"], settings["flops"]]
        elif operation == "charge":
            _, name, _, _, flops = entry
            charged[name] = charged.get(name, 0) + flops
        elif operation == "settle":
            _, name, result = entry
            ended[name] = [result[key] for key in ("status", "iters", "tokens", "bits_per_byte")]
    return [
        (f"ledger {name}", json.dumps([opened[name], charged.get(name), ended.get(name)])) for name in opened
    ]


def compare(before: list[Row], after: list[Row]) -> int:
    old, new = dict(before), dict(after)
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for name in differing:
        print(f"differs  {name}\n  before {old.get(name)}\n  after  {new.get(name)}")
    print(f"{len(old)} rows before, {len(new)} now, {len(differing)} differ")
    return 1 if differing else 0


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def build_native(source: Path) -> None:
    """Build the tokenizer's C code inside a checkout, as an editable installation does."""
    script = (
        ["setup.py"] if (source / "setup.py").exists() else ["-c", "from setuptools import setup; setup()"]
    )
    command = [sys.executable, *script, "build_ext", "--inplace"]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
