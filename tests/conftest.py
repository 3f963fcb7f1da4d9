"""Fixtures that every test file can ask for."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.object_storage import ObjectStorage, object_storage

# Before anything imports Ray or W&B: tests talk to nobody.
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
)  # clusters of several nodes are on loopback too
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

# The same examples in every run, so that nobody's change is refused for what it did not touch. New ones are looked
# for with `pytest --hypothesis-profile=explore`.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("fixed")


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


@pytest.fixture(scope="session")
def invalid_corpus(corpus_dir: Path) -> Any:
    """Files that are no valid workflow, mostly: same columns."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(corpus_dir / "invalid.parquet")


@pytest.fixture(scope="session")
def ray_session() -> Any:
    """Ray in this process, started once for the whole run of pytest."""
    from nanochat_tct.ray_session import start_ray

    start_ray(num_cpus=2)
    import ray

    yield ray
    ray.shutdown()


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """An S3 server on loopback with an empty bucket, for this process and those it starts."""
    with object_storage() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NANOCHAT_TCT_CACHE", str(tmp_path / "cache"))
        yield server
