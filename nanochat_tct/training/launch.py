"""`nanochat-tct train`, and what every start of a run has in common, on Ray and under torchrun."""

import dataclasses
import importlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from nanochat_tct.data.config import PrepareConfig
from nanochat_tct.model.checkpoint import exclusive
from nanochat_tct.synthetic.config import SynthesizeConfig
from nanochat_tct.training.config import BUNDLED_STORE, TrainConfig
from nanochat_tct.training.plan import Plan, check_settings, describe, make_plan

BUNDLED_COUNT = 2500  # workflows: a little more than the demo trains on
BUNDLED_SPLIT = 0.95  # 125 are enough to measure by, and an evaluation of them is short
BUNDLED_WORKFLOWS = "data/demo-workflows"


def train(config: TrainConfig) -> int:
    """Train on Ray. Returns the exit code.

    Raises: UserError.
    """
    if config.data_dir is None:
        name = check_settings(config).run_name  # nothing is prepared for a run that cannot be
        config = dataclasses.replace(config, data_dir=prepare_bundled(config.tokenizer), run_name=name)
    plan = make_plan(config)
    from nanochat_tct.training.ray_driver import start_ray_to_train, train_on_ray

    def get_ready() -> None:
        """Start Ray and import PyTorch, which both takes seconds."""
        importing = threading.Thread(target=importlib.import_module, args=("torch",))
        importing.start()
        start_ray_to_train()  # in the main thread, where Python handles signals
        importing.join()

    return launch(plan, train_on_ray, get_ready=get_ready)


def launch(
    plan: Plan,
    train: Callable[[Plan], dict[str, Any]],
    is_first: bool = True,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
    get_ready: Callable[[], None] = lambda: None,
) -> int:
    """Train a run from where it stands to its end, alone in its folder. Returns the exit code.

    Args:
        train: starts workers, or is one; returns what `Trainer.run` does, and `exit_code` for a run that was stopped.
        is_first: whether this is the first of the processes that call this together; that one holds the folder and
            prints.
        together: a context that raises a UserError of any of them on all.
        get_ready: called before the plan of a run is printed that is not finished.
    Raises: UserError, on all of them when another job holds the folder.
    """

    def say(line: str) -> None:
        if is_first:
            print(line, flush=True)

    with ExitStack() as held:
        with together():
            if is_first:
                held.enter_context(exclusive(plan.run_dir))
        if not plan.is_finished:
            get_ready()
        if is_first:
            say("\n".join(describe(plan)))
        if plan.is_finished:
            say(f"run {plan.config.run_name} was finished at iter {plan.step}: nothing to do")
        else:
            result = train(plan)
            if result["stopped"]:
                step, reason = result["step"], result["stopped"]
                say(f"stopped at iter {step} by {reason}: the same command goes on from there")
                return int(result["exit_code"])
        if is_first:
            from nanochat_tct.training.run_folder import finish

            finish(plan.run_dir, plan.config)
    return 0


def prepare_bundled(tokenizer: str) -> str:
    """Write and prepare the synthetic workflows, unless that was done before. Returns the store's folder."""
    from nanochat_tct.data.prepare import prepare
    from nanochat_tct.synthetic.synthesize import synthesize_folder

    print(f"no --data-dir: taking {BUNDLED_COUNT:,} synthetic workflows, in {BUNDLED_WORKFLOWS}", flush=True)
    synthesize_folder(SynthesizeConfig(count=BUNDLED_COUNT, output=BUNDLED_WORKFLOWS))
    prepare(
        PrepareConfig(
            input=[BUNDLED_WORKFLOWS], output=BUNDLED_STORE, train_split=BUNDLED_SPLIT, tokenizer=tokenizer
        )
    )
    return BUNDLED_STORE
