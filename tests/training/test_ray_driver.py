"""When the driver of Ray Train's workers starts them again. What it does with real ones: test_launch.py, chaos.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.model.checkpoint import step_directory
from nanochat_tct.training.config import ResolvedConfig, TrainConfig, resolve
from nanochat_tct.training.ray_driver import WorkersLost, with_retries


@pytest.fixture
def config(tmp_path: Path) -> ResolvedConfig:
    return resolve(TrainConfig(checkpoint_dir=str(tmp_path), max_failures=2), 8192)


def lost() -> Exception:
    import ray.exceptions

    return ray.exceptions.ActorDiedError()


def failing(config: ResolvedConfig, *starts: tuple[int, list[Exception]]) -> Callable[[], str]:
    """A start of workers that fails as often: the iter of a checkpoint before, and the workers' errors."""
    from ray.train import WorkerGroupError

    left = list(starts)

    def start() -> str:
        if not left:
            return "done"
        step, failures = left.pop(0)
        step_directory(Path(config.run_place), step).mkdir(parents=True, exist_ok=True)
        raise WorkerGroupError("workers failed", dict(enumerate(failures)))

    return start


def test_workers_start_again_as_long_as_there_are_new_checkpoints(config: ResolvedConfig) -> None:
    from ray.train import WorkerGroupError

    said: list[str] = []
    # With a new checkpoint a mistake of a worker's own may follow from the loss of its neighbour.
    start = failing(config, (5, [lost()]), (10, [ValueError("connection closed")]))
    assert with_retries(start, config, said.append) == "done"
    assert said == [
        f"workers were lost several times, but iter {step} was reached: going on" for step in (5, 10)
    ]

    with pytest.raises(WorkersLost, match=r"more than --max-failures 2 .* goes on from iter 15"):
        with_retries(failing(config, (15, [lost()]), (15, [ValueError("a"), lost()])), config, said.append)
    with pytest.raises(WorkerGroupError):
        with_retries(failing(config, (15, [ValueError("a mistake")])), config, said.append)


def test_what_the_user_can_mend_is_never_tried_again(config: ResolvedConfig) -> None:
    """Whatever the checkpoints say."""
    with pytest.raises(UserError, match=r"^a$"):
        with_retries(failing(config, (5, [lost(), UserError("a")])), config, print)
