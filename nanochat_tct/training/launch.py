"""`nanochat-tct train`: plans a run, trains on Ray Train's workers, shows what came of it."""

import dataclasses
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nanochat_tct.config import parse_arguments, to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.ray_session import start_ray, wait_for_gpus, watch_workers
from nanochat_tct.tracking.terminal import Terminal
from nanochat_tct.training import checkpoint, remote_run
from nanochat_tct.training.bundled import prepare_bundled
from nanochat_tct.training.config import ResolvedConfig, TrainConfig
from nanochat_tct.training.driver_channel import DriverChannel
from nanochat_tct.training.plan import Plan, check_settings, make_plan
from nanochat_tct.training.run_folder import write_run_folder
from nanochat_tct.training.sample import print_samples
from nanochat_tct.training.signals import StopSignals

POLL_SECONDS = 0.2  # how often the lines of rank 0 are fetched
RESIZE_SECONDS = 20.0  # how often an elastic run looks for machines that came


def command(argv: list[str]) -> int:
    """Train as the arguments say. Returns the exit code.

    Raises: UserError.
    """
    config = parse_arguments(TrainConfig, argv, "train", "train a model on a token store, on Ray")
    if config.data_dir is None:
        name = check_settings(config).run_name  # nothing is prepared for a run that cannot be
        config = dataclasses.replace(config, data_dir=prepare_bundled(config.tokenizer), run_name=name)
    plan = make_plan(config)
    config = plan.config
    print("\n".join(plan.lines), flush=True)
    with checkpoint.exclusive(plan.run_dir):
        if plan.is_finished:
            assert plan.previous is not None
            step = plan.previous.step
            print(f"run {config.run_name} was finished at iter {step}: nothing to do", flush=True)
        else:
            result = train_on_ray(plan)
            if result["stopped"]:
                step = result["step"]
                print(f"stopped at iter {step} by {result['stopped']}: the same command goes on from there")
                return int(result["exit_code"])
        print_result(plan)
    return 0


def train_on_ray(plan: Plan) -> dict[str, Any]:
    """Run the loop on Ray Train's workers; lost ones are replaced, or done without.

    SIGTERM and Ctrl-C make the workers save and stop. The run is given up when workers were lost more than
    `max_failures` times without a new checkpoint in between.

    Returns: what the loop returned on rank 0; when it was stopped with `exit_code`.
    Raises: UserError of the loop; what else went wrong there as ray.train's TrainingFailedError.
    """
    config = plan.config
    if "RAY_ADDRESS" not in os.environ:
        # Nobody preempts this machine; the watcher would only print a complaint.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    start_ray()
    if config.use_gpu and os.environ.get("RAY_ADDRESS"):
        wait_for_gpus(config.least_workers, config.wait_minutes, functools.partial(print, flush=True))
    from ray.train import WorkerGroupError

    with StopSignals() as signals, lines_of_workers(config.max_iters) as lines:
        while True:
            before = iters_saved(config)
            try:
                result = fit(make_trainer(plan, lines), config, lines, signals)
                break
            except WorkerGroupError as error:
                failures = list(error.worker_failures.values())
                for failure in failures:
                    if isinstance(failure, UserError):
                        raise UserError(str(failure)) from error
                latest = iters_saved(config)
                if latest > before:
                    # Whatever it was: what a worker says of a lost neighbour may look like a mistake of its own, and
                    # a real one comes again before there is anything new.
                    lines.put.remote(
                        f"workers were lost several times, but iter {latest} was reached: going on"
                    )
                    continue
                if not were_lost(failures):
                    raise
                raise UserError(
                    f"workers were lost more than --max-failures {config.max_failures} times in a row; the "
                    f"same command goes on from iter {latest}"
                ) from error
    if "error" in result:
        raise UserError(result["error"])
    return {**result, "exit_code": signals.exit_code if result["stopped"] else 0}


def iters_saved(config: ResolvedConfig) -> int:
    """Iters done at the run's latest checkpoint, wherever the workers wrote it."""
    return checkpoint.latest_step(remote_run.pull(config.run_place))


def make_trainer(plan: Plan, lines: Any) -> Any:
    """Ray's TorchTrainer of the run."""
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from nanochat_tct.training.ray_worker import StoppableTorchConfig, train_worker

    config = plan.config
    is_elastic = config.least_workers < config.num_workers
    return TorchTrainer(
        train_worker,  # type: ignore[arg-type]  # Ray's signature forgets what the function returns
        train_loop_config={"config": to_dict(config), "lines": lines},
        torch_config=StoppableTorchConfig(),
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # declared as of Train V1
            num_workers=(config.least_workers, config.num_workers) if is_elastic else config.num_workers,  # type: ignore[arg-type]
            use_gpu=config.use_gpu,
            resources_per_worker=worker_resources(config, ray.cluster_resources()),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # likewise
            storage_path=config.run_place,
            name="ray",
            failure_config=FailureConfig(max_failures=config.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def fit(trainer: Any, config: ResolvedConfig, lines: Any, signals: StopSignals) -> dict[str, Any]:
    """`trainer.fit()` in a thread, so that this one hears signals and tells the workers of them.

    Ray Train's own answer to Ctrl-C would kill the workers. Another thread tells when they have no place.
    Raises: what fit raises; UserError when there was no place in time; KeyboardInterrupt on the second signal.
    """
    future: Future[Any] = Future()
    is_over = threading.Event()
    resources = trainer.scaling_config.resources_per_worker

    def run() -> None:
        with suppress(InvalidStateError):  # given up meanwhile
            try:
                future.set_result(trainer.fit().return_value)
            except BaseException as error:  # whatever it is, it is raised again below
                future.set_exception(error)

    def watch() -> None:
        try:
            watch_workers(
                config.least_workers, resources, config.wait_minutes, lines.put.remote, is_over.wait
            )
        except UserError as error:
            with suppress(InvalidStateError):  # done meanwhile
                future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    threading.Thread(target=watch, daemon=True).start()
    is_told = False
    try:
        while not wait([future], timeout=POLL_SECONDS).done:
            reason = signals.reason()
            if reason is not None and not is_told:
                lines.stop.remote(reason)
                lines.put.remote(f"{reason}: saving a checkpoint, then the end ({reason} again: at once)")
                is_told = True
        return future.result()
    finally:
        is_over.set()


def were_lost(failures: list[Exception]) -> bool:
    """Some worker went without a mistake of its own; what the others say then is a consequence."""
    from nanochat_tct.training.ray_worker import Preempted, is_loss

    return any(is_loss(failure) or isinstance(failure, Preempted) for failure in failures)


def worker_resources(config: TrainConfig, cluster: dict[str, float]) -> dict[str, float]:
    """What a worker reserves: half a core, or less where that is too much for the machine, and its GPU.

    Less than a core, so that workers and whatever else runs on a small machine never wait for each other;
    a whole one where their number follows from what there is.
    Raises: UserError when they will never be there.
    """
    least, kind = config.least_workers, "GPU" if config.use_gpu else "CPU"
    if config.use_gpu or least < config.num_workers:
        if cluster.get(kind, 0) < least and "RAY_ADDRESS" not in os.environ:
            raise UserError(
                f"--num-workers {least} needs as many {kind}s, and there are {cluster.get(kind, 0):.0f}"
            )
        return {"CPU": 1, "GPU": 1} if config.use_gpu else {"CPU": 1}
    return {"CPU": min(0.5, int(1000 * cluster.get("CPU", 1) / (config.num_workers + 1)) / 1000)}


@contextmanager
def lines_of_workers(max_iters: int) -> Iterator[Any]:
    """Yield an actor whose `put` makes this process print a line or move the bar; a thread fetches them.

    Ray's own way to show what workers print puts their name and process id before each line.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines: Any = ray.remote(DriverChannel).options(num_cpus=0, scheduling_strategy=here).remote()
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
            if (reason := terminal.stop_reason()) is not None:
                lines.stop.remote(
                    reason
                )  # they save a checkpoint, and the error is raised when they are done

    with Terminal(max_iters) as terminal:
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        try:
            yield lines
        finally:
            done.set()
            thread.join()
            ray.kill(lines)


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
