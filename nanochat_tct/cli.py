"""The ``nanochat-tct`` command: runs a job by its name. A user's mistake ends it with one line and exit code 2."""

import importlib
import importlib.metadata
import sys
from typing import Any, NamedTuple

from nanochat_tct.config import parse_arguments, suggest
from nanochat_tct.errors import UserError, exit_code


class Command(NamedTuple):
    """A config dataclass and the job that takes it. The job is imported last, as it may import torch and Ray."""

    config: str  # module:class in this package
    job: str  # module:function
    summary: str


COMMANDS = {
    "check": Command("check:CheckConfig", "check:check", "say whether GitHub accepts workflow files"),
    "prepare": Command(
        "data.config:PrepareConfig", "data.prepare:prepare", "turn workflow files into a token store"
    ),
    "synthesize": Command(
        "synthetic.config:SynthesizeConfig", "synthetic.synthesize:run", "write synthetic workflows"
    ),
    "train": Command(
        "training.config:TrainConfig", "training.launch:train", "train a model on a token store, on Ray"
    ),
    "tune": Command(
        "tuning.config:SweepConfig", "tuning.tune:tune", "find the best model that a budget buys, on Ray"
    ),
    "evaluate": Command(
        "evaluation.config:EvaluateConfig",
        "evaluation.evaluate:evaluate",
        "measure a checkpoint: bits per byte, validity",
    ),
    "generate": Command(
        "generation.config:GenerateConfig",
        "generation.generate:generate",
        "write workflows, or complete half-written ones",
    ),
    "tokenize": Command(
        "evaluation.config:TokenizeConfig", "evaluation.tokens:tokenize", "show the tokens of a workflow"
    ),
    "train-tokenizer": Command(
        "data.config:TrainTokenizerConfig",
        "data.train_tokenizer:train_tokenizer",
        "learn a vocabulary file from workflows",
    ),
    "lsp": Command(
        "editor.config:LspConfig", "editor.config:run", "serve an editor: check and complete as you type"
    ),
    "doctor": Command("doctor:DoctorConfig", "doctor:doctor", "check that this machine is set up"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one job. Returns the exit code: 0 for success, 2 for bad usage or bad input."""
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: _run(arguments))


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: nanochat-tct COMMAND [flags]      (COMMAND --help lists them; --version)\n")
        for name, command in COMMANDS.items():
            print(f"  {name:<16} {command.summary}")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"nanochat-tct {importlib.metadata.version('nanochat-tct')}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}{suggest(name, COMMANDS)} (see nanochat-tct --help)")
    config_class, job, summary = COMMANDS[name]
    config = parse_arguments(_load(config_class), rest, name, summary)
    result = _load(job)(config)
    return result if isinstance(result, int) else 0


def _load(path: str) -> Any:
    """Import `module:name` from this package."""
    module, name = path.split(":")
    return getattr(importlib.import_module(f"nanochat_tct.{module}"), name)


if __name__ == "__main__":
    sys.exit(main())
