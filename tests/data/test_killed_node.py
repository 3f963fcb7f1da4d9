"""A node of the cluster is killed while `prepare` runs: the others do its part, and the store is the same."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.data.store import TOKENS, TokenStore
from nanochat_tct.data.store_writer import PARTIAL
from nanochat_tct.documents import to_json
from tests.support.killed_node import TwoWorkers, two_workers, wait_for

DOCUMENTS, STEPS = 800, 60


def workflow(rng: random.Random) -> dict[str, Any]:
    """Long, and of text that no cache knows, so that there is something to do."""
    steps = [{"run": f"echo {rng.randbytes(20).hex()}"} for _ in range(STEPS)]
    return {"on": "push", "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": steps}}}


def prepare(cluster: TwoWorkers, folder: Path, name: str, is_killed: bool) -> tuple[float, float]:
    """Returns: seconds of the whole command, and of those from the kill to the next part that came."""
    begin = time.monotonic()
    output = folder / name
    process = cluster.command(folder, "prepare", "--input", folder / "in", "--output", output)
    tokens = output / PARTIAL / TOKENS
    further = 0.0

    def size() -> int:
        return tokens.stat().st_size if tokens.exists() else (output / TOKENS).stat().st_size

    try:
        if is_killed:
            wait_for(lambda: tokens.exists() and size() > 0, process, folder)
            before = size()
            cluster.kill_node_of(b"ray::MapBatches")
            further = wait_for(lambda: size() > before, process, folder)
        assert process.wait(300) == 0, (folder / "printed").read_text()[-3000:]
    finally:
        process.kill()
    return time.monotonic() - begin, further


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prepare_goes_on_when_a_node_is_killed(tmp_path: Path) -> None:
    rng = random.Random(0)
    (tmp_path / "in").mkdir()
    for index in range(DOCUMENTS):
        (tmp_path / "in" / f"{index:04}.json").write_text(to_json(workflow(rng)))
    with two_workers() as cluster:
        undisturbed, _ = prepare(cluster, tmp_path, "undisturbed", is_killed=False)
        disturbed, further = prepare(cluster, tmp_path, "disturbed", is_killed=True)
    print(
        f"undisturbed {undisturbed:.1f} s; one of two nodes killed: {disturbed:.1f} s, further after {further:.1f} s"
    )
    stores = [TokenStore.open(tmp_path / name) for name in ("undisturbed", "disturbed")]
    assert stores[0].fingerprint == stores[1].fingerprint
    assert len(stores[1].documents) == DOCUMENTS
