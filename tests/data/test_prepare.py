"""The preparation job as a whole, on real Ray."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from nanochat_tct.data import encoded_parts
from nanochat_tct.data import prepare as prepare_module
from nanochat_tct.data.config import PrepareConfig
from nanochat_tct.data.parts import plan_parts
from nanochat_tct.data.prepare import prepare
from nanochat_tct.data.sources import find_sources
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows
from nanochat_tct.documents import to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.commands import Finished, assert_user_error, flags, full_disk, run_cli
from tests.support.object_storage import BUCKET, NowAndThen, ObjectStorage

pytestmark = pytest.mark.processes
COUNT = 300  # of good workflows in the folder that most tests prepare
EXPORT: dict[str, Any] = {"export_pt": True, "context_size": 64}


def workflow(index: int) -> dict[str, Any]:
    steps = [
        {"uses": "actions/checkout@v4"},
        *({"run": f"make {n}\necho {index}\n"} for n in range(index % 7)),
    ]
    return {
        "name": f"Build {index}",
        "on": {"push": {"branches": ["main"]}},
        "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": steps}},
    }


def write_workflows(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        if index % 2:
            (folder / f"{index:05}.json").write_text(to_json(workflow(index)))
        else:
            (folder / f"{index:05}.yml").write_text(to_yaml(workflow(index)))


def sha256s(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def run(given: object, output: Path, **settings: Any) -> TokenStore:
    return prepare(PrepareConfig(input=[str(given)], output=str(output), **settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good workflows, a copy of one, and some that are bad each in its way."""
    folder = tmp_path_factory.mktemp("prepare") / "in"
    write_workflows(folder, COUNT)
    (folder / "copy.yml").write_text(to_yaml(workflow(3)))
    (folder / "bad.yml").write_text("a: [")
    (folder / "two.yml").write_text("a: b\n---\nc: d\n")
    (folder / "no-jobs.json").write_text('{"on": "push"}')
    (folder / "latin1.yml").write_bytes(b"name: caf\xe9\n")
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    (folder / "bomb.yml").write_text(bomb)
    (folder / "deep.json").write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path, ray_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "out"
    run(folder, output, **EXPORT, concurrency=2)
    return output


def test_every_document_is_taken_in_or_rejected_with_its_reason(prepared: Path, folder: Path) -> None:
    store = TokenStore.open(prepared)
    tokenizer = load_tokenizer()
    rows = store.documents.to_pylist()
    assert len(rows) == COUNT
    for index, row in enumerate(rows):
        name = row["source"].removeprefix(f"{folder}/")
        assert name[:5] == f"{index:05}", "documents come in the order of their names"
        tokens = store.token_range(row["start"], row["length"]).tolist()
        assert tokenizer.decode_value(tokens) == workflow(index)
    rejected = pa.parquet.read_table(prepared / "rejected.parquet").to_pylist()
    reasons = {Path(row["source"]).name: row["reason"] for row in rejected}
    assert reasons == {
        "bad.yml": "yaml-syntax",
        "two.yml": "several-documents",
        "no-jobs.json": "schema",
        "latin1.yml": "not-utf8",
        "bomb.yml": "alias-expansion",
        "deep.json": "too-deep",
    }
    assert all(row["message"] for row in rejected)
    assert store.manifest["counts"]["duplicates"] == 1


@pytest.mark.parametrize("windowing", ["stream", "per-document"])
def test_export(prepared: Path, folder: Path, tmp_path: Path, windowing: Any) -> None:
    if windowing == "per-document":
        prepared = tmp_path / "out"
        run(folder, prepared, export_pt=True, context_size=16, windowing=windowing, stride=5)
    store = TokenStore.open(prepared)
    metadata = json.loads((prepared / "metadata.json").read_text())
    for split in ("train", "val"):
        rows = torch.load(prepared / f"{split}.pt", weights_only=True)
        assert rows.dtype == torch.int64
        assert rows.shape == (metadata[f"num_{split}"], metadata["context_size"] + 1)
        stride = metadata["stride"] if windowing == "per-document" else None
        windows = Windows(store, split, metadata["context_size"], windowing, stride)  # type: ignore[arg-type]
        expected = windows.get(np.arange(len(windows)))
        if windowing == "per-document":
            assert rows[:, 0].max() < store.vocab_size
            assert metadata["exported_position_tokens"] == "position"
            expected[:, 0] -= store.vocab_size
        assert np.array_equal(rows.numpy(), expected)
        assert len(rows) > 0
        assert 8192 <= rows.max() < metadata["num_embeddings"] or windowing == "per-document"
        assert rows.max() < metadata["num_embeddings"] < 8192 + 512


def test_output_does_not_depend_on_concurrency(prepared: Path, folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out", **EXPORT, concurrency=1)
    assert sha256s(tmp_path / "out") == sha256s(prepared)


def test_tasks_on_machines_that_do_not_see_the_output(
    prepared: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver writes their tables."""
    written: list[Path] = []
    write = encoded_parts.write
    monkeypatch.setattr(
        encoded_parts, "write", lambda path, content: (written.append(path), write(path, content))
    )
    monkeypatch.setattr(encoded_parts, "RUN", "not where tasks look")
    run(folder, tmp_path / "out", **EXPORT)
    assert len(written) == len(plan_parts(find_sources([str(folder)])))
    assert sha256s(tmp_path / "out") == sha256s(prepared)


def test_a_second_run_does_nothing_unless_something_changed(
    prepared: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(prepared, tmp_path / "out"))
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    run(folder, output, **EXPORT)
    assert "nothing to do" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before

    damaged = bytearray((output / "tokens.bin").read_bytes())
    damaged[100] ^= 1
    (output / "tokens.bin").write_bytes(damaged)
    run(folder, output, **EXPORT)
    assert "nothing to do" not in capsys.readouterr().out
    assert sha256s(output) == sha256s(prepared)

    run(folder, output, context_size=32)
    assert TokenStore.open(output).manifest["settings"]["context_size"] == 32
    assert not (output / "train.pt").exists()
    assert f"{COUNT} (train" in capsys.readouterr().out


def test_other_sources_give_the_same_tokens(prepared: Path, folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.glob("0*"))
    with open(tmp_path / "x.jsonl", "w") as lines:
        for index, file in enumerate(files):
            line = workflow(index) if index % 2 else {"text": file.read_text(), "repo": f"r{index % 9}"}
            lines.write(to_json(line) + "\n")
    rows = [{"text": file.read_text(), "repo": f"r{index % 9}"} for index, file in enumerate(files)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=100)
    expected = hashlib.sha256((prepared / "tokens.bin").read_bytes()).hexdigest()
    for name in ("x.jsonl", "x.parquet"):
        store = run((tmp_path / name).as_uri(), tmp_path / f"{name}-out")
        assert sha256s(tmp_path / f"{name}-out")["tokens.bin"] == expected
        repos: dict[str, set[str]] = {}
        for row in store.documents.to_pylist():
            if row["repo"]:
                repos.setdefault(row["repo"], set()).add(row["split"])
        assert len(repos) == 9
        assert all(len(splits) == 1 for splits in repos.values())


def start(ray_session: Any, folder: Path, output: Path, **changes: object) -> "subprocess.Popen[bytes]":
    """`prepare` in a process of its own that joins the Ray of this test run: starting one takes seconds each time."""
    arguments = flags(input=folder, output=output, **EXPORT, **changes)
    return subprocess.Popen(
        [sys.executable, "-m", "nanochat_tct.cli", "prepare", *arguments],
        env={**os.environ, "RAY_ADDRESS": ray_session.get_runtime_context().gcs_address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(".partial", marks=pytest.mark.slow),
        ".partial/tokens.bin",
        pytest.param(".partial/rejected.parquet", marks=pytest.mark.slow),
        pytest.param(".partial/manifest.json", marks=pytest.mark.slow),
    ],
)
def test_killed_and_run_again(
    prepared: Path, folder: Path, ray_session: Any, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "out"
    process = start(ray_session, folder, output)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        watched = output / moment
        if watched.exists() and (moment != ".partial/tokens.bin" or watched.stat().st_size > 0):
            break
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    printed, _ = process.communicate()
    assert output.exists(), printed.decode()
    if (output / "manifest.json").exists():
        TokenStore.open(output)  # the signal came too late: then all is well
    else:
        with pytest.raises(UserError, match=r"manifest\.json is missing"):
            TokenStore.open(output)
    run(folder, output, **EXPORT)
    assert sha256s(output) == sha256s(prepared)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parts each run in this process encodes."""
    counts: list[int] = []
    work = prepare_module._encoded

    def counted(parts: Any, *arguments: Any) -> Any:
        counts.append(len(parts))
        return work(parts, *arguments)

    monkeypatch.setattr(prepare_module, "_encoded", counted)
    return counts


@pytest.mark.slow
def test_what_was_encoded_before_a_kill_is_not_encoded_again(
    prepared: Path,
    folder: Path,
    ray_session: Any,
    tmp_path: Path,
    encoded: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    process = start(ray_session, folder, output, concurrency=1)
    kept = output / encoded_parts.FOLDER
    deadline = time.monotonic() + 60
    while not (kept / "000002.arrow").exists() and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    whole = sorted(kept.glob("*.arrow"))
    assert len(whole) >= 3
    # As after a machine went down: not on disk to its end.
    whole[-1].write_bytes(whole[-1].read_bytes()[:-20])
    (kept / f"{len(whole):06}.partial").write_bytes(b"half")

    run(folder, output, **EXPORT)
    total = len(plan_parts(find_sources([str(folder)])))
    assert f"going on: {len(whole) - 1} of {total} parts are encoded already" in capsys.readouterr().out
    assert encoded == [total - len(whole) + 1]
    assert sha256s(output) == sha256s(prepared)


def test_of_another_input_nothing_is_kept(ray_session: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = encoded_parts.EncodedParts(output, "one input")
    encoded_parts.write(first.path(0), encoded_parts.serialized(pa.table({"a": [1]})))
    again = encoded_parts.EncodedParts(output, "one input")
    assert again.count == 1 and again.read(0) == pa.table({"a": [1]})
    write_workflows(tmp_path / "in", 4)
    assert len(run(tmp_path / "in", output).documents) == 4
    assert not (output / encoded_parts.FOLDER).exists()


@pytest.mark.parametrize(("limit", "export_pt"), [(15_000, False), (45_000, True)])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    prepared: Path,
    folder: Path,
    tmp_path: Path,
    run_here: Callable[..., Finished],
    limit: int,
    export_pt: bool,
) -> None:
    sizes = {path.name: path.stat().st_size for path in prepared.iterdir()}
    assert sizes["tokens.bin"] > 15_000, "the first limit is met there"
    assert sizes["tokens.bin"] < 45_000 < sizes["train.pt"], "and the second here"
    arguments = flags(input=folder, output=tmp_path / "out", context_size=64, export_pt=export_pt)
    with full_disk(limit):
        result = run_here("prepare", *arguments)
    assert_user_error(result, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_too_many_bad_documents(ray_session: Any, tmp_path: Path) -> None:
    write_workflows(tmp_path / "in", 4)
    for index in range(3):
        (tmp_path / "in" / f"bad{index}.yml").write_text("a: [")
    with pytest.raises(UserError, match=r"3 of 7 documents are bad \(3 yaml-syntax\).*bad0\.yml: line"):
        run(tmp_path / "in", tmp_path / "out", max_rejected=0.4)
    assert not (tmp_path / "out").exists()
    assert len(run(tmp_path / "in", tmp_path / "out", max_rejected=0.5).documents) == 4
    for path in (tmp_path / "in").glob("0*"):
        path.unlink()
    with pytest.raises(UserError, match="none of the 3 documents is usable"):
        run(tmp_path / "in", tmp_path / "out2", max_rejected=1.0)
    assert not (tmp_path / "out2").exists()


def test_from_a_bucket_into_a_bucket(
    storage: ObjectStorage,
    ray_session: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same store as from a folder, though the bucket fails now and then; one that refuses is told in one line."""
    write_workflows(tmp_path / "in", 40)
    expected = run(tmp_path / "in", tmp_path / "out", context_size=64).fingerprint
    client = storage.client()
    lines = "".join(to_json(workflow(index)) + "\n" for index in range(40))
    client.put_object(Bucket=BUCKET, Key="lines.jsonl", Body=lines.encode())
    for path in (tmp_path / "in").iterdir():
        client.upload_file(str(path), BUCKET, f"in/{path.name}")
    storage.refuse = failing = NowAndThen(0.1)
    for number, place in enumerate((storage.uri("in"), storage.uri("lines.jsonl"))):
        output = f"s3://{BUCKET}/out-{number}"
        prepare(PrepareConfig(input=[place], output=output, context_size=64))
        shutil.rmtree(tmp_path / "cache")
        store = TokenStore.open(output)
        assert store.manifest["counts"]["rejected"] == 0, "no document is lost for what the bucket did"
        assert sorted(store.tokens.tolist()) == sorted(TokenStore.open(tmp_path / "out").tokens.tolist())
    assert failing.failed > 0
    capsys.readouterr()
    prepare(PrepareConfig(input=[storage.uri("in")], output=f"s3://{BUCKET}/out-0", context_size=64))
    assert "up to date" in capsys.readouterr().out
    assert len(expected) == 64

    storage.refuse = lambda method, path: 403 if path.endswith("00007.json") else None
    with pytest.raises(UserError, match=r"s3://bucket/in/00007.json: refused \(.*ACCESS_DENIED") as caught:
        prepare(PrepareConfig(input=[storage.uri("in")], output=f"s3://{BUCKET}/out-2", context_size=64))
    assert "\n" not in str(caught.value)
    assert storage.objects("out-2") == {}


@pytest.mark.slow
def test_storage_that_fails_keeps_what_is_encoded(
    storage: ObjectStorage,
    ray_session: Any,
    tmp_path: Path,
    encoded: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While it reads and while it writes; then the same command goes on, and encodes nothing a second time."""
    write_workflows(tmp_path / "in", 320)  # in parts of 32
    run(tmp_path / "in", tmp_path / "out", context_size=64)
    encoded.clear()
    for path in (tmp_path / "in").iterdir():
        storage.client().upload_file(str(path), BUCKET, f"in/{path.name}")
    config = PrepareConfig(
        input=[storage.uri("in")], output=f"s3://{BUCKET}/out", context_size=64, concurrency=1
    )
    for status, reason in ((503, "failed 5 times .* run the same command again later"), (403, "refused")):
        storage.refuse = lambda method, path, status=status: (  # type: ignore[misc]
            status if path.endswith(f"in/{200 if status == 503 else 280:05}.yml") else None
        )
        with pytest.raises(UserError, match=reason):
            prepare(config)
    printed = capsys.readouterr().out
    assert "going on: 6 of 10 parts are encoded already" in printed
    storage.refuse = lambda method, path: 503 if method != "GET" and "out/tokens" in path else None
    with pytest.raises(UserError, match="failed 5 times"):
        prepare(config)
    assert "going on: 8 of 10 parts are encoded already" in capsys.readouterr().out
    storage.refuse = lambda method, path: None
    store = prepare(config)
    assert "prepared before, and brought there now" in capsys.readouterr().out
    assert encoded == [10, 4, 2]
    assert store.fingerprint == TokenStore.open(tmp_path / "out").fingerprint, "as from a folder"
    shutil.rmtree(tmp_path / "cache")
    assert TokenStore.open(config.output).fingerprint == store.fingerprint
    prepare(config)
    assert "is up to date" in capsys.readouterr().out


@pytest.mark.parametrize("is_relative", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_same_input_gives_the_same_bytes_however_it_is_written(
    ray_session: Any, tmp_path: Path, is_relative: bool
) -> None:
    write_workflows(tmp_path / "in", 40)
    (tmp_path / "link").symlink_to("in")
    shutil.copytree(tmp_path / "in", tmp_path / "moved")  # with its times
    run(tmp_path / "in", tmp_path / "out-in")
    if is_relative:  # on a Ray of its own: that of this test run is in another folder
        printed = run_cli("prepare", "--input", "./link/", "--output", "out-link", cwd=tmp_path)
        assert printed.code == 0, printed
    else:
        run(tmp_path / "link", tmp_path / "out-link")
    run(tmp_path / "moved", tmp_path / "out-moved")
    expected = sha256s(tmp_path / "out-in")
    assert sha256s(tmp_path / "out-link") == expected == sha256s(tmp_path / "out-moved")


def test_two_checkouts_are_one_to_train_on_and_one_to_validate_on(
    ray_session: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for repo in ("one", "two"):
        write_workflows(tmp_path / "in" / repo / ".github" / "workflows", 4 if repo == "one" else 3)
        for path in (tmp_path / "in" / repo / ".github" / "workflows").glob("*.json"):
            path.with_suffix(".yml").write_text(f"# {repo}\n" + path.read_text())
        (tmp_path / "in" / repo / ".github" / "workflows" / "own.yml").write_text(
            to_yaml({**workflow(100), "name": f"Only {repo}"})
        )
        (tmp_path / "in" / repo / ".git").mkdir()
    store = run(tmp_path / "in", tmp_path / "out")
    assert set(store.documents.column("split").to_pylist()) == {"train", "val"}
    assert len(store.split("train").column("repo").unique()) == 1
    run(tmp_path / "in", tmp_path / "all", train_split=1.0)
    assert "warning: --train-split 1 leaves nothing to validate on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--input", "missing"], "missing: there is no such file or folder"),
        (["--input", "empty"], "empty: no .json"),
        (["--input", "in", "--context-size", "0"], "context_size is 0"),
        (["--input", "in", "--stride", "4"], "stride is for per-document"),
        (["--input", "in", "--concurrency", "0"], "--concurrency is 0"),
        (["--input", "in", "--train-split", "1.5"], "train_split is 1.5"),
        (["--input", "in", "--colour", "red"], "--colour"),
        (["--input", "in", "--output", "nowhere://bucket/store"], "nowhere://bucket/store: refused"),
        (["--input", "in", "--output", "in"], "holds other files"),
        (["--input", "in", "--output", "in/00000.yml"], "is a file; name a folder"),
        ([], "--input is missing"),
    ],
)
def test_wrong_use_is_one_line(
    run_here: Callable[..., Finished],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_workflows(tmp_path / "in", 2)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    output = [] if "--output" in given else ["--output", "out"]
    assert_user_error(run_here("prepare", *given, *output), message)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_real_corpora(real_workflows: Any, invalid_corpus: Any, ray_session: Any, tmp_path: Path) -> None:
    """Each document of both tables is taken in or rejected with its reason, or has the content of another."""
    for name, table, share in [("workflows", real_workflows, 0.9), ("invalid", invalid_corpus, 0.0)]:
        path = tmp_path / f"{name}.parquet"
        pa.parquet.write_table(table, path, row_group_size=200)
        # without masks: finding them is most of the work, and is tested on documents of its own
        store = run(path, tmp_path / name, max_rejected=1.0, masks=False)
        rejected = pa.parquet.read_table(tmp_path / name / "rejected.parquet").to_pylist()
        sources = store.documents.column("source").to_pylist() + [row["source"] for row in rejected]
        assert len(set(sources)) == len(sources) == len(table) - store.manifest["counts"]["duplicates"]
        assert all(row["reason"] and row["message"] for row in rejected)
        assert len(store.documents) > share * len(table)
