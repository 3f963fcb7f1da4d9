"""Fixtures that every test file can ask for."""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.commands import Finished
from tests.support.object_storage import ObjectStorage, object_storage

BEGIN = time.monotonic()
ENVIRONMENT = {
    # Before anything imports Ray or W&B: tests talk to nobody.
    "WANDB_MODE": "offline",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # clusters of several nodes are on loopback too
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",  # thousands of images, made anew for each account of a test
    # Before anything imports torch: several threads for a model this small wait for each other, which takes several
    # times the CPU time where workers of pytest-xdist have all cores.
    "OMP_NUM_THREADS": "1",
}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
# Tests start Python a hundred times; each start would compile the package again.
# Collecting tests rewrites their assertions, half of its time, unless it finds them in the cache.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same examples in every run, so that nobody's change is refused for what it did not touch. New ones are looked
# for with `pytest --hypothesis-profile=explore`.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="skip the tests that have not begun after so many minutes")


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() > BEGIN + 60 * minutes:
        pytest.skip(f"not begun after {minutes:g} minutes")


# Files whose tests share what is made once in a process: a Ray, which ends with the last of the first five, and a
# process that others are forked from. One worker runs them all, in this order.
ON_RAY = tuple(
    f"tests/{file}.py"
    for file in (
        "data/test_prepare",
        "test_doctor",
        "test_security",
        "training/test_ray_metrics",
        "tuning/test_remote_sweep",
    )
)
TOGETHER = ON_RAY + tuple(
    f"tests/{file}.py"
    for file in (
        "training/test_launch",
        "training/test_distributed",
        "training/test_micro_batch",
        "training/test_trainer",
        "training/test_nodes",
        "tuning/test_kills",
    )
)
# Of the other files those that compute for ten seconds and more, longest first: what is left for the end is short, so
# that no worker is alone with a long file there.
LONGEST = tuple(
    f"tests/{file}.py"
    for file in (
        "tuning/test_fit",
        "generation/test_engine",
        "tokenizer/test_schemas",
        "tokenizer/test_approximated",
        "model/test_remote_run",
        "generation/test_completer",
        "tokenizer/test_engine",
        "tuning/test_sweep",
        "tuning/test_report",
        "synthetic/test_synthesize",
        "documents/test_documents",
        "editor/test_completion",
        "test_absurd",
        "test_setup",
        "generation/test_cut_anywhere",
        "editor/test_suggestions",
        "cluster/test_aws",
        "tuning/test_api",
        "evaluation/test_completion",
        "generation/test_generate",
        "data/test_train_tokenizer",
    )
)


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that run together come first, then files with tests of other processes: they take longest and mostly wait,
    so that workers of pytest-xdist fill the time. Then come the files that compute longest."""
    waiting = {item.path for item in items if item.get_closest_marker("processes")}

    def rank(item: pytest.Item) -> tuple[int, int]:
        file = file_of(item)
        if file in TOGETHER:
            return 0, TOGETHER.index(file)
        if item.path in waiting:
            return 1, 0
        return 2, LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """An idle Ray takes a twentieth of a core, so it goes when nothing here needs it any more."""
    if file_of(item) in ON_RAY and (nextitem is None or file_of(nextitem) not in ON_RAY):
        import ray

        ray.shutdown()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which need not be there
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: one more than cores, as some tests mostly wait, and not many, as each takes 1.5 GB of memory."""
    return min((os.cpu_count() or 1) + 1, 6)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays on one worker, where its fixtures are made once; so do those that run together."""
    from xdist.scheduler import LoadFileScheduling

    class ByGroup(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return "together" if file in TOGETHER else file

    config.option.loadscopereorder = False  # in our order, not those with most tests first
    return ByGroup(config, log)


@pytest.fixture(scope="session")
def corpus_dir() -> Path:
    """The folder of real workflows; a test that needs it is skipped where there is none."""
    folder = os.environ.get("NANOCHAT_TCT_CORPUS")
    if not folder:
        pytest.skip("NANOCHAT_TCT_CORPUS is not set (a folder with workflows.parquet and invalid.parquet)")
    return Path(folder)


@pytest.fixture(scope="session")
def corpus(corpus_dir: Path) -> Any:
    """The real workflows as a pyarrow table: repo, path, sha1, text."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(corpus_dir / "workflows.parquet")


WHOLE = pytest.param(None, marks=[pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)])


@pytest.fixture(params=[500, WHOLE], ids=["sample", "all"])
def real_workflows(request: pytest.FixtureRequest, corpus: Any) -> Any:
    """The same table: a sample of it in `make test`, all of it in `make test-slow`."""
    if request.param is None:
        return corpus
    return corpus.take(sorted(random.Random(0).sample(range(len(corpus)), request.param)))


@pytest.fixture(scope="session")
def invalid_corpus(corpus_dir: Path) -> Any:
    """Files that are no valid workflow, mostly: same columns."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(corpus_dir / "invalid.parquet")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store of small workflows, for whoever only reads it."""
    from tests.support.workers import small_store

    return small_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="session")
def ray_session() -> Any:
    """Ray in this process, started once for the whole run of pytest."""
    from nanochat_tct.ray_session import start_ray

    start_ray(num_cpus=2)
    import ray

    yield ray
    ray.shutdown()


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """`nanochat-tct ARGUMENTS` in this process, where everything is imported: `run_cli` starts a Python each time."""
    from nanochat_tct.cli import main

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """An S3 server on loopback with an empty bucket, for this process and those it starts. What fails is tried again
    soon."""
    monkeypatch.setattr("nanochat_tct.storage.object_storage.FIRST_PAUSE_SECONDS", 0.001)
    with object_storage() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NANOCHAT_TCT_CACHE", str(tmp_path / "cache"))
        yield server
