"""The ``nanochat-tct`` command: runs a job by name; a user's mistake becomes one line and exit code 2."""

import importlib
import importlib.metadata
import sys

from nanochat_tct.config import suggest
from nanochat_tct.errors import UserError, exit_code

# name: (function, one line for --help); a job's module is imported only when the job runs
COMMANDS = {
    "prepare": ("nanochat_tct.data.prepare:command", "turn workflow files into a token store"),
    "synthesize": ("nanochat_tct.synthetic.synthesize:command", "write synthetic workflows"),
    "train": ("nanochat_tct.training.launch:command", "train a model on a token store"),
    "tune": ("nanochat_tct.tuning.tune:command", "find the best model that a budget buys"),
    "evaluate": ("nanochat_tct.evaluation.evaluate:command", "measure a checkpoint: bits per byte, validity"),
    "generate": (
        "nanochat_tct.generation.generate:command",
        "write workflows, or complete half-written ones",
    ),
    "tokenize": ("nanochat_tct.evaluation.tokens:command", "show the tokens of a workflow"),
    "train-tokenizer": (
        "nanochat_tct.data.train_tokenizer:command",
        "learn a vocabulary file from workflows",
    ),
    "doctor": ("nanochat_tct.doctor:command", "check that this machine is set up"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one job. Returns the exit code: 0 for success, 2 for bad usage or bad input."""
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: _run(arguments))


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: nanochat-tct COMMAND [flags]      (COMMAND --help lists them; --version)\n")
        for name, (_, summary) in COMMANDS.items():
            print(f"  {name:<16} {summary}")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"nanochat-tct {importlib.metadata.version('nanochat-tct')}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}{suggest(name, COMMANDS)} (see nanochat-tct --help)")
    module, function = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(module), function)(rest)


if __name__ == "__main__":
    sys.exit(main())
