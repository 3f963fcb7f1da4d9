"""`nanochat-tct train`: plans a run, trains on Ray Train's workers, shows what came of it."""

import dataclasses
import functools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nanochat_tct.config import parse_arguments, to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.ray_session import start_ray, wait_for_gpus
from nanochat_tct.tracking.terminal import Terminal
from nanochat_tct.training import checkpoint, remote_run
from nanochat_tct.training.bundled import prepare_bundled
from nanochat_tct.training.config import TrainConfig, default_run_name
from nanochat_tct.training.loop import Reporter, train
from nanochat_tct.training.nodes import check_nodes
from nanochat_tct.training.parallel import StoppedTogether, Worker
from nanochat_tct.training.plan import Plan, check_settings, make_plan
from nanochat_tct.training.run_folder import write_run_folder
from nanochat_tct.training.sample import print_samples

POLL_SECONDS = 0.2  # how often the lines of rank 0 are fetched


def command(argv: list[str]) -> int:
    """Train as the arguments say. Returns the exit code.

    Raises: UserError.
    """
    config = parse_arguments(TrainConfig, argv, "train", "train a model on a token store, on Ray")
    if config.data_dir is None:
        check_settings(config)  # nothing is prepared for a run that cannot be
        name = config.run_name or default_run_name(config)
        config = dataclasses.replace(config, data_dir=prepare_bundled(config.tokenizer), run_name=name)
    plan = make_plan(config)
    config = plan.config
    print("\n".join(plan.lines), flush=True)
    if plan.is_finished:
        assert plan.previous is not None
        print(f"run {config.run_name} was finished at iter {plan.previous.step}: nothing to do", flush=True)
    else:
        with checkpoint.exclusive(plan.run_dir):
            train_on_ray(plan)
    print_result(plan)
    return 0


def train_on_ray(plan: Plan) -> dict[str, Any]:
    """Run the loop on `num_workers` Ray Train workers; a lost one is replaced, up to `max_failures` times.

    Returns: what the loop returned on rank 0.
    Raises: UserError of the loop; what else went wrong there as ray.train's TrainingFailedError.
    """
    config = plan.config
    if (
        "RAY_ADDRESS" not in os.environ
    ):  # nobody preempts this machine; the watcher would only print a complaint
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    start_ray()
    if config.use_gpu and os.environ.get("RAY_ADDRESS"):
        wait_for_gpus(config.num_workers, config.wait_minutes, functools.partial(print, flush=True))
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    with lines_of_workers(config.max_iters) as lines:
        trainer = TorchTrainer(
            train_worker,  # type: ignore[arg-type]  # Ray's signature forgets what the function returns
            train_loop_config={"config": to_dict(config), "lines": lines},
            scaling_config=ScalingConfig(
                num_workers=config.num_workers,
                use_gpu=config.use_gpu,
                resources_per_worker=worker_resources(config, ray.cluster_resources()),
            ),
            run_config=RunConfig(  # type: ignore[call-arg]  # declared as of Train V1
                storage_path=config.run_place,
                name="ray",
                failure_config=FailureConfig(max_failures=config.max_failures),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            result = trainer.fit().return_value  # type: ignore[attr-defined]  # likewise
        except SystemExit as ended:  # how Ray Train answers Ctrl-C
            print("the same command goes on from the last checkpoint", file=sys.stderr)
            raise KeyboardInterrupt from ended
        except WorkerGroupError as error:
            for failure in error.worker_failures.values():
                if isinstance(failure, UserError):
                    raise UserError(str(failure)) from error
            if all(
                isinstance(failure, ray.exceptions.RayError) for failure in error.worker_failures.values()
            ):
                latest = checkpoint.latest_checkpoint(plan.run_dir)
                raise UserError(
                    f"workers were lost more than --max-failures {config.max_failures} times; the same command "
                    f"goes on from {latest.name if latest else 'the start'}"
                ) from error
            raise
    if "error" in result:
        raise UserError(result["error"])
    return result


def worker_resources(config: TrainConfig, cluster: dict[str, float]) -> dict[str, float]:
    """What a worker reserves: half a core, or less where that is too much for the machine, and its GPU.

    Less than a core, so that workers and whatever else runs on a small machine never wait for each other.
    Raises: UserError when the GPUs will never be there.
    """
    if config.use_gpu:
        if cluster.get("GPU", 0) < config.num_workers and "RAY_ADDRESS" not in os.environ:
            raise UserError(
                f"--num-workers {config.num_workers} needs as many GPUs, and there are {cluster.get('GPU', 0):.0f}"
            )
        return {"CPU": 1, "GPU": 1}
    return {"CPU": min(0.5, int(1000 * cluster.get("CPU", 1) / (config.num_workers + 1)) / 1000)}


def train_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """The loop on one of Ray Train's workers."""
    import ray.train
    import ray.train.torch

    logging.getLogger().setLevel(logging.WARNING)  # not a line for each report
    config = TrainConfig(**settings["config"])
    context = ray.train.get_context()
    if config.use_gpu:
        device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        # The same number on every start: sums over threads depend on it.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    put = settings["lines"].put.remote
    reporter = Reporter(say=put, report=ray.train.report, progress=put)
    assert config.data_dir is not None
    try:
        check_nodes(config.data_dir, worker)
        return train(config, worker, reporter)
    except StoppedTogether as error:  # an end, not a failure: starting again would not help
        return {"error": str(error)}


@contextmanager
def lines_of_workers(max_iters: int) -> Iterator[Any]:
    """Yield an actor whose `put` makes this process print a line or move the bar; a thread fetches them.

    Ray's own way to show what workers print puts their name and process id before each line.
    """
    import ray

    lines: Any = ray.remote(Lines).options(num_cpus=0).remote()
    done = threading.Event()

    def fetch() -> None:
        is_last = False
        while not is_last:
            is_last = done.wait(POLL_SECONDS)
            try:
                coming = ray.get(lines.take.remote())
            except ray.exceptions.RayError:
                return  # Ray is going down, and says so itself
            for line in coming:
                if isinstance(line, str):
                    terminal.line(line)
                else:
                    terminal.progress(line)

    with Terminal(max_iters) as terminal:
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        try:
            yield lines
        finally:
            done.set()
            thread.join()
            ray.kill(lines)


class Lines:
    """Lines, and numbers for the bar, on their way from rank 0 to the terminal."""

    def __init__(self) -> None:
        self.lines: list[str | dict[str, Any]] = []

    def put(self, line: str | dict[str, Any]) -> None:
        """Add one."""
        self.lines.append(line)

    def take(self) -> list[str | dict[str, Any]]:
        """All that came since the last call."""
        lines, self.lines = self.lines, []
        return lines


def print_result(plan: Plan) -> None:
    """Validation before and after, where the checkpoint is, and what the model writes; the same into its folder."""
    latest = checkpoint.latest_checkpoint(remote_run.pull(plan.config.run_place))
    assert latest is not None
    progress = checkpoint.load_checkpoint(latest, verify=False).state["progress"]
    before, after = progress["first_evaluation"], progress["last_evaluation"]
    print(
        f"validation bits per byte: {before['bits_per_byte']:.4f} before, {after['bits_per_byte']:.4f} after"
    )
    if progress["skipped_iters"]:
        print(f"iters skipped for a loss or gradient that was not finite: {progress['skipped_iters']}")
    best = checkpoint.find_checkpoint(plan.run_dir).path
    print(
        f"checkpoint: {_shown(latest)}" + ("" if best == latest else f" (best: {_shown(best)})"), flush=True
    )
    write_run_folder(plan.run_dir, plan.config, print_samples(plan.run_dir, plan.config))
    remote_run.push_notes(plan.run_dir, plan.config.run_place)


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
