"""One cluster for all tests of this folder: a head and two workers, by the commands of cluster/a100.yaml."""

from collections.abc import Iterator

import pytest

from tests.support.running_cluster import RunningCluster, running_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster("a100", workers=2) as running:
        yield running
