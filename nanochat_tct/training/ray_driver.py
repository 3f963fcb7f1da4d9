"""The driver of a run on Ray Train's workers: starts them, starts them again when some are lost, passes on signals.

Neither Ray nor PyTorch is imported before a function needs it.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from nanochat_tct import ray_compat
from nanochat_tct.config import to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.ray_session import start_ray, wait_for_gpus, watch_workers
from nanochat_tct.threads import in_thread
from nanochat_tct.tracking.terminal import Terminal
from nanochat_tct.training.config import ResolvedConfig, TrainConfig
from nanochat_tct.training.driver_channel import DriverChannel
from nanochat_tct.training.plan import Plan
from nanochat_tct.training.signals import StopSignals

POLL_SECONDS = 0.2  # how often the lines of rank 0 are fetched, and signals are passed on
RESIZE_SECONDS = 20.0  # how often an elastic run looks for machines that came
Result = TypeVar("Result")


class WorkersLost(UserError):
    """Workers were lost more often than `max_failures` without a new checkpoint in between."""


def start_ray_to_train() -> None:
    """Join a cluster, or start Ray here. Raises: UserError as `start_ray` does."""
    if not os.environ.get("RAY_ADDRESS"):
        # Nobody preempts this machine; the watcher would only print a complaint.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    start_ray()


def train_on_ray(plan: Plan) -> dict[str, Any]:
    """Train a run on the workers of Ray Train, on the Ray of this process; lost ones are replaced, or done without.

    SIGTERM and Ctrl-C make the workers save and stop.

    Returns: what `Trainer.run` returned on rank 0; when it was stopped with `exit_code`.
    Raises: UserError of a worker; WorkersLost; what else went wrong there as Ray Train's WorkerGroupError.
    """
    config = plan.config
    if config.use_gpu and os.environ.get("RAY_ADDRESS"):
        wait_for_gpus(config.least_workers, config.wait_minutes, functools.partial(print, flush=True))
    with StopSignals() as signals, driver_channel(config.max_iters) as channel:
        channel.begin.remote(config.num_workers)
        from nanochat_tct.training.ray_worker import train_worker

        def start() -> dict[str, Any]:
            settings = {"config": to_dict(config), "channel": channel}
            trainer = make_trainer(config, train_worker, settings)
            is_passed_on = False

            def poll() -> None:
                nonlocal is_passed_on
                raise_placement_error()
                reason = signals.reason()
                if reason is not None and not is_passed_on:
                    channel.stop.remote(reason)
                    channel.put.remote(
                        f"{reason}: saving a checkpoint, then the end ({reason} again: at once)"
                    )
                    is_passed_on = True

            with watched_placement(trainer, config, channel.put.remote) as raise_placement_error:
                return fit(trainer, poll)

        result = with_retries(start, config, channel.put.remote)
    if "error" in result:
        raise UserError(result["error"])
    return {**result, "exit_code": signals.exit_code}


def with_retries(
    start: Callable[[], Result],
    config: ResolvedConfig,
    say: Callable[[str], None],
) -> Result:
    """Start workers until they end by themselves. Ray Train replaces lost ones `max_failures` times.

    After that they are started once more if there is a new checkpoint: a bug would stop them again before there is
    one, and the error of a worker that lost its neighbour may look like a bug of its own.

    Args:
        start: starts the workers and waits for their end; raises Ray Train's WorkerGroupError.
        say: prints a line.
    Raises: UserError of a worker, after which nothing is started again; WorkersLost; WorkerGroupError for all others.
    """
    from ray.train import WorkerGroupError

    from nanochat_tct.training.ray_worker import Preempted

    while True:
        before = iters_saved(config)
        try:
            return start()
        except WorkerGroupError as error:
            failures = list(error.worker_failures.values())
            for failure in failures:
                if isinstance(failure, UserError):
                    raise failure from error
            latest = iters_saved(config)
            if latest > before:
                say(f"workers were lost several times, but iter {latest} was reached: going on")
                continue
            # What others raise after a loss is a consequence of it.
            if not any(ray_compat.is_lost_worker(each) or isinstance(each, Preempted) for each in failures):
                raise
            raise WorkersLost(
                f"workers were lost more than --max-failures {config.max_failures} times in a row; the "
                f"same command goes on from iter {latest}"
            ) from error


def iters_saved(config: ResolvedConfig) -> int:
    """Iters done at the run's latest checkpoint, wherever the workers wrote it."""
    return checkpoint.latest_step(remote_run.pull(config.run_place))


def make_trainer(
    config: ResolvedConfig,
    worker: Callable[[dict[str, Any]], dict[str, Any]],
    settings: dict[str, Any],
) -> Any:
    """Ray's TorchTrainer of a run.

    Args:
        worker: what each worker calls, with `settings`.
    """
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from nanochat_tct.training.ray_worker import StoppableTorchConfig

    is_elastic = config.least_workers < config.num_workers
    is_local = os.environ.get("RAY_ADDRESS", "") in ("", "local")
    trainer = ray_compat.local_trainer() if is_local else TorchTrainer
    return trainer(
        worker,  # type: ignore[arg-type]  # Ray's signature lacks what the function returns
        train_loop_config=settings,
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


def fit(trainer: Any, poll: Callable[[], None]) -> dict[str, Any]:
    """Run `trainer.fit()` in a thread, while this one polls.

    Python handles signals in the main thread only; Ray Train's own answer to Ctrl-C would kill the workers.

    Args:
        poll: called every POLL_SECONDS.
    Returns: what rank 0 returned.
    Raises: what fit or `poll` raise; KeyboardInterrupt on the second signal.
    """
    future: Future[Any] = in_thread(lambda: trainer.fit().return_value)
    while not wait([future], timeout=POLL_SECONDS).done:
        poll()
    return future.result()


@contextmanager
def watched_placement(
    trainer: Any, config: ResolvedConfig, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Watch in a thread whether the workers get their resources; yield what raises UserError if that took too long."""
    is_over = threading.Event()
    resources, minutes = trainer.scaling_config.resources_per_worker, config.wait_minutes
    watch = in_thread(lambda: watch_workers(config.least_workers, resources, minutes, say, is_over.wait))
    try:
        yield lambda: watch.result() if watch.done() else None
    finally:
        is_over.set()


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
def driver_channel(max_iters: int) -> Iterator[Any]:
    """Yield an actor whose `put` makes this process print a line or move the bar; a thread polls it.

    Ray's own way to show what workers print puts their name and process id before each line.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel: Any = ray.remote(DriverChannel).options(num_cpus=0, scheduling_strategy=here).remote()
    done = threading.Event()

    def fetch() -> None:
        is_last = False
        while not is_last:
            is_last = done.wait(POLL_SECONDS)
            try:
                coming = ray.get(channel.take.remote())
            except ray.exceptions.RayError:
                return  # Ray is going down, and says so itself
            for line in coming:
                if isinstance(line, str):
                    terminal.line(line)
                else:
                    terminal.progress(line)
            if (reason := terminal.stop_reason()) is not None:
                # They save a checkpoint, and the error is raised when they are done.
                channel.stop.remote(reason)

    with Terminal(max_iters) as terminal:
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        try:
            yield channel
        finally:
            done.set()
            thread.join()
            ray.kill(channel)
