"""The ``nanochat-tct`` command: runs a job by name; a user's mistake becomes one line and exit code 2."""

import importlib
import importlib.metadata
import sys
from typing import Any, NamedTuple

from nanochat_tct.config import parse_arguments, suggest
from nanochat_tct.errors import UserError, exit_code


class Command(NamedTuple):
    """A config dataclass, and the job that takes one. The job is imported last: it may need torch and Ray."""

    config: str  # module:class, of a module that is imported at once
    job: str  # module:function
    summary: str


COMMANDS = {
    "prepare": Command(
        "nanochat_tct.data.config:PrepareConfig",
        "nanochat_tct.data.prepare:prepare",
        "turn workflow files into a token store",
    ),
    "synthesize": Command(
        "nanochat_tct.synthetic.config:SynthesizeConfig",
        "nanochat_tct.synthetic.synthesize:run",
        "write synthetic workflows",
    ),
    "train": Command(
        "nanochat_tct.training.config:TrainConfig",
        "nanochat_tct.training.launch:train",
        "train a model on a token store, on Ray",
    ),
    "tune": Command(
        "nanochat_tct.tuning.config:SweepConfig",
        "nanochat_tct.tuning.tune:tune",
        "find the best model that a budget buys, on Ray",
    ),
    "evaluate": Command(
        "nanochat_tct.evaluation.config:EvaluateConfig",
        "nanochat_tct.evaluation.evaluate:evaluate",
        "measure a checkpoint: bits per byte, validity",
    ),
    "generate": Command(
        "nanochat_tct.generation.config:GenerateConfig",
        "nanochat_tct.generation.generate:generate",
        "write workflows, or complete half-written ones",
    ),
    "tokenize": Command(
        "nanochat_tct.evaluation.config:TokenizeConfig",
        "nanochat_tct.evaluation.tokens:tokenize",
        "show the tokens of a workflow",
    ),
    "train-tokenizer": Command(
        "nanochat_tct.data.config:TrainTokenizerConfig",
        "nanochat_tct.data.train_tokenizer:train_tokenizer",
        "learn a vocabulary file from workflows",
    ),
    "doctor": Command(
        "nanochat_tct.doctor:DoctorConfig", "nanochat_tct.doctor:doctor", "check that this machine is set up"
    ),
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
    """What `module:name` names."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())
