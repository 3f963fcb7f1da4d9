"""`ray job submit` to a running cluster: real submissions, with the token, as in docs/clusters.md."""

import json
import re
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.data.store import TokenStore
from nanochat_tct.documents import to_json
from nanochat_tct.tuning.records import LEDGER
from tests.support.commands import REPOSITORY, Finished, flags
from tests.support.running_cluster import RunningCluster
from tests.support.workers import small_config, small_run, small_workflows, train_alone
from tests.tuning.sweeps import logged_flops, open_ledger, sweep_arguments

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]  # the first test starts the cluster
UPLOAD_BYTES = 5 << 20


def train(data_dir: Path, folder: Path, **changes: object) -> list[str]:
    """The entry point of a small run, with everything outside the job's own folder."""
    _, *arguments = small_run(data_dir, folder, **changes)
    return ["python", "jobs/train.py", *arguments]


def free_cpus(cluster: RunningCluster) -> float:
    """CPUs that nobody uses."""
    usage = json.loads(cluster.get("/api/cluster_status")[1])["data"]["clusterStatus"]["loadMetricsReport"]
    used, total = usage["usage"]["CPU"]
    return total - used


@pytest.mark.slow
def test_the_job_uses_the_cluster(cluster: RunningCluster, data_dir: Path, tmp_path: Path) -> None:
    """Its lines are shown, its code is what was sent; two workers on this cluster train, and nobody else."""
    result = cluster.submit(*train(data_dir, tmp_path, max_iters=2))
    assert result.code == 0, result.stdout + result.stderr
    assert re.search(r"^iter 2 \| loss", result.stdout, re.MULTILINE), result.stdout
    assert "validation bits per byte:" in result.stdout
    assert (tmp_path / "checkpoints/run/iter_00000002/manifest.json").is_file()
    jobs = json.loads(cluster.get("/api/jobs/")[1])
    assert [job["status"] for job in jobs if job["submission_id"]] == ["SUCCEEDED"]
    # It joined: a Ray of its own would have left no driver in this cluster's list.
    assert next(job["driver_info"] for job in jobs if job["submission_id"]) is not None


@pytest.mark.slow
def test_the_other_jobs_use_the_cluster_too(cluster: RunningCluster, data_dir: Path, tmp_path: Path) -> None:
    """prepare, evaluate, generate; and a sweep that waits for GPUs as training does, and spends nothing."""

    def submit(job: str, **settings: object) -> Finished:
        return cluster.submit("python", f"jobs/{job}.py", *flags(**settings))

    (tmp_path / "in").mkdir()
    for index, value in enumerate(small_workflows(40)):
        (tmp_path / "in" / f"{index}.json").write_text(to_json(value))
    result = submit("prepare", input=tmp_path / "in", output=tmp_path / "store")
    assert result.code == 0, result.stdout + result.stderr
    assert len(TokenStore.open(tmp_path / "store").documents) == 40
    train_alone(small_config(data_dir, tmp_path))
    checkpoint = tmp_path / "checkpoints/run"
    result = submit(
        "evaluate", checkpoint=checkpoint, data_dir=tmp_path / "store", num_samples=1, max_tokens=32
    )
    assert result.code == 0 and "bits per byte" in result.stdout, result.stdout + result.stderr
    result = submit("generate", checkpoint=checkpoint, max_tokens=32, format="json")
    assert result.code == 0 and '"jobs"' in result.stdout, result.stdout + result.stderr
    result = cluster.submit(
        *("python", "jobs/tune.py", *sweep_arguments(tmp_path), "--use-gpu", "--wait-minutes", 0.1)
    )
    assert result.code != 0
    assert "waiting for 1 GPUs; cluster has 0 of 1" in result.stdout, result.stdout
    assert re.search(r"^error: waited 0.1 minutes for 1 GPUs", result.stdout, re.MULTILINE)
    assert open_ledger(tmp_path).spent == 0


@pytest.mark.slow
def test_the_exit_code_tells(cluster: RunningCluster, data_dir: Path, tmp_path: Path) -> None:
    result = cluster.submit(*train(data_dir, tmp_path, max_iters=0))
    assert result.code != 0
    assert re.search(r"^error: --max-iters is 0", result.stdout, re.MULTILINE), result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.slow
def test_gpus_are_waited_for_visibly_and_not_for_ever(
    cluster: RunningCluster, data_dir: Path, tmp_path: Path
) -> None:
    result = cluster.submit(*train(data_dir, tmp_path, use_gpu=True, wait_minutes=0.1))
    assert result.code != 0
    assert "waiting for 2 GPUs; cluster has 0 of 2" in result.stdout, result.stdout
    assert re.search(
        r"^error: waited 0.1 minutes for 2 GPUs; the cluster has 0 of 2.", result.stdout, re.MULTILINE
    )


@pytest.mark.slow
def test_a_stopped_job_saves_and_frees_and_goes_on(
    cluster: RunningCluster, data_dir: Path, tmp_path: Path
) -> None:
    """Saved at the iter where it was stopped: no multiple of --save-interval."""
    free = free_cpus(cluster)
    started = cluster.submit(
        *train(data_dir, tmp_path, max_iters=100_000, log_interval=1, save_interval=1000),
        options=("--no-wait", "--submission-id", "stopped"),
    )
    assert started.code == 0, started.stderr
    wait_for(lambda: "iter 3 |" in cluster.ray("job", "logs", "stopped").stdout)
    assert cluster.ray("job", "stop", "stopped").code == 0
    told = cluster.ray("job", "status", "stopped")
    assert "'stopped' was stopped" in told.stdout, told.stdout + told.stderr
    (path,) = (tmp_path / "checkpoints/run").glob("iter_*/manifest.json")
    step = int(path.parent.name.removeprefix("iter_"))
    assert 3 <= step < 1000
    wait_for(lambda: free_cpus(cluster) == free)

    schedule = {"lr_decay_iters": 100_000, "warmup_iters": 200}
    again = cluster.submit(*train(data_dir, tmp_path, max_iters=step + 2, **schedule))
    assert again.code == 0, again.stdout
    assert f"going on from iter {step}" in again.stdout
    assert (tmp_path / f"checkpoints/run/iter_{step + 2:08d}/manifest.json").is_file()


@pytest.mark.slow
def test_a_stopped_sweep_saves_and_goes_on(cluster: RunningCluster, tmp_path: Path) -> None:
    entrypoint = (
        *("python", "jobs/tune.py"),
        *sweep_arguments(tmp_path, sizes=["1x32"], num_rates=1, budget_flops=8e10, concurrency=1),
    )
    free = free_cpus(cluster)
    started = cluster.submit(*entrypoint, options=("--no-wait", "--submission-id", "sweep"))
    assert started.code == 0, started.stderr

    def is_in_final_run() -> bool:
        if not (tmp_path / "sweep" / LEDGER).exists():
            return False
        entries = open_ledger(tmp_path).entries
        return any(entry.purpose == "final" and entry.kind == "train" for entry in entries)

    wait_for(is_in_final_run)
    assert cluster.ray("job", "stop", "sweep").code == 0
    told = cluster.ray("job", "status", "sweep")
    assert "'sweep' was stopped" in told.stdout, told.stdout + told.stderr
    (final,) = (name for name, account in open_ledger(tmp_path).accounts.items() if account.is_open)
    assert list((tmp_path / "sweep" / "runs" / final).glob("iter_*")), "it has saved"
    wait_for(lambda: free_cpus(cluster) == free)

    again = cluster.submit(*entrypoint)
    assert again.code == 0, again.stdout
    ledger = open_ledger(tmp_path)
    assert not any(account.is_open for account in ledger.accounts.values())
    assert ledger.spent <= ledger.terms.capacity
    assert abs(logged_flops(tmp_path) - ledger.spent) <= 0.01 * ledger.spent


def wait_for(condition: Any, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


@pytest.mark.slow
def test_without_the_token_nothing_is_done(cluster: RunningCluster) -> None:
    for token in ("", "wrong", "0" * 64):
        for path in ("/api/jobs/", "/api/cluster_status", "/nodes?view=summary"):
            assert cluster.get(path, token)[0] in (401, 403), path
    assert cluster.get("/api/jobs/")[0] == 200


@pytest.mark.slow
def test_the_token_is_nowhere_else(cluster: RunningCluster) -> None:
    """Not in what the cluster logged while the tests before ran, nor in what it says of its jobs."""
    token = cluster.token.encode()
    assert len(token) == 64
    logs = [path for path in cluster.folder.glob("ray*/**/*") if path.is_file()]
    assert any(path.name == "gcs_server.out" for path in logs), "these are Ray's logs"
    assert len({path.relative_to(cluster.folder).parts[0] for path in logs}) == len(cluster.nodes)
    assert [path for path in logs if token in path.read_bytes()] == []
    assert token.decode() not in cluster.get("/api/jobs/")[1]
    assert token.decode() not in cluster.logs()


def upload(root: Path, target: Path) -> list[str]:
    """What Ray would send of a folder, by Ray's own packaging: the names; the size is that of `target`."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(root), target, include_gitignore=True)
    with zipfile.ZipFile(target) as package:
        return package.namelist()


def test_the_upload_is_small_and_holds_no_secrets(tmp_path: Path) -> None:
    """Of a clone in which somebody has worked: data, checkpoints, a .venv, keys."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
    for name in (".rayignore", ".gitignore"):
        (clone / name).write_bytes((REPOSITORY / name).read_bytes())
    planted = """data/demo/tokens.bin checkpoints/demo/iter_00000100/model.safetensors logs/demo/events
        runs/sweep/ledger.jsonl wandb/run/files/output.log output/1.yml somewhere/model.safetensors
        .venv/bin/python .env .env.local auth_token key.pem cluster/ray.key .netrc
        workflows.parquet nanochat_tct/__pycache__/x.pyc mine/train.jsonl written/workflow_1.yml
        sweeps/demo/ledger.json sweeps/demo/runs/final/optimizer.pt elsewhere/iter_00000100/optimizer.pt
        id_ed25519 .ssh/id_rsa credentials.json .aws/credentials .npmrc .pypirc kubeconfig""".split()
    for name in planted:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(b"secret" * 1000)
    (clone / "linked").mkdir()
    names = upload(clone, tmp_path / "package.zip")
    assert {"jobs/train.py", "nanochat_tct/cli.py", "configs/small.yaml", "constraints.txt"} <= set(names)
    assert "nanochat_tct/tokenizer/github_workflow.json" in names
    assert [name for name in planted if name in names] == []
    assert not [name for name in names if name.startswith((".git/", ".venv", "tests/", "docs/"))]
    assert (tmp_path / "package.zip").stat().st_size < UPLOAD_BYTES
