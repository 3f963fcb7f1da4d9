"""`nanochat-tct train`, and what every start of a run has in common, on Ray and under torchrun."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from nanochat_tct.config import parse_arguments
from nanochat_tct.data.prepare import PrepareConfig, prepare
from nanochat_tct.errors import UserError
from nanochat_tct.model.checkpoint import exclusive
from nanochat_tct.synthetic.synthesize import SynthesizeConfig, synthesize_folder
from nanochat_tct.training.config import BUNDLED_STORE, TrainConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker, broadcast
from nanochat_tct.training.plan import Plan, check_settings, make_plan
from nanochat_tct.training.ray_driver import train_on_ray
from nanochat_tct.training.run_folder import finish

BUNDLED_COUNT = 2500  # workflows: a little more than the demo trains on
BUNDLED_SPLIT = 0.95  # 125 are enough to measure by, and an evaluation of them is short
BUNDLED_WORKFLOWS = "data/demo-workflows"
DRIVER = Worker(0, 1, torch.device("cpu"))


def command(argv: list[str]) -> int:
    """Train on Ray as the arguments say. Returns the exit code.

    Raises: UserError.
    """
    config = parse_arguments(TrainConfig, argv, "train", "train a model on a token store, on Ray")
    if config.data_dir is None:
        name = check_settings(config).run_name  # nothing is prepared for a run that cannot be
        config = dataclasses.replace(config, data_dir=prepare_bundled(config.tokenizer), run_name=name)
    return launch(make_plan(config), train_on_ray)


def launch(plan: Plan, train: Callable[[Plan], dict[str, Any]], process: Worker = DRIVER) -> int:
    """Train a run from where it stands to its end, alone in its folder. Returns the exit code.

    Args:
        train: starts workers, or is one; returns what `Trainer.run` does, and `exit_code` for a run that was stopped.
        process: this one of those that call this together; the first holds the folder and prints.
    Raises: UserError.
    """

    def say(line: str) -> None:
        if process.is_first:
            print(line, flush=True)

    say("\n".join(plan.lines))
    with held_folder(plan.run_dir, process):
        if plan.is_finished:
            say(f"run {plan.config.run_name} was finished at iter {plan.step}: nothing to do")
        else:
            result = train(plan)
            if result["stopped"]:
                say(
                    f"stopped at iter {result['step']} by {result['stopped']}: the same command goes on from there"
                )
                return int(result["exit_code"])
        if process.is_first:
            finish(plan.run_dir, plan.config)
    return 0


@contextmanager
def held_folder(run_dir: Path, process: Worker) -> Iterator[None]:
    """Hold the run's folder on the first of the processes that start a run together.

    Raises: StoppedTogether, on every process, when another job holds it.
    """
    problem = None
    with ExitStack() as stack:
        if process.is_first:
            try:
                stack.enter_context(exclusive(run_dir))
            except UserError as error:
                problem = str(error)
        problem = broadcast(problem, process)
        if problem is not None:
            raise StoppedTogether(problem)
        yield


def prepare_bundled(tokenizer: str) -> str:
    """Write and prepare the synthetic workflows, unless that was done before. Returns the store's folder."""
    print(f"no --data-dir: taking {BUNDLED_COUNT:,} synthetic workflows, in {BUNDLED_WORKFLOWS}", flush=True)
    synthesize_folder(SynthesizeConfig(count=BUNDLED_COUNT, output=BUNDLED_WORKFLOWS))
    prepare(
        PrepareConfig(
            input=[BUNDLED_WORKFLOWS], output=BUNDLED_STORE, train_split=BUNDLED_SPLIT, tokenizer=tokenizer
        )
    )
    return BUNDLED_STORE
