"""Finding workflow files, cutting the input into parts, and reading every document of it once, in order."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from nanochat_tct.data import sources
from nanochat_tct.data.documents import Limits
from nanochat_tct.data.sources import RawDocument, find_sources, plan_parts, read_part, sources_fingerprint
from nanochat_tct.errors import UserError


def put(path: Path, content: str | bytes = "on: push\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_all(*inputs: object, limits: Limits | None = None) -> list[RawDocument]:
    parts = plan_parts(find_sources([str(item) for item in inputs]))
    documents = []
    for part in parts:
        read = list(read_part(part, limits or Limits()))
        assert len(read) <= part.documents
        documents += read
    return documents


def names(folder: Path, documents: list[RawDocument]) -> list[str]:
    return [document.source.removeprefix(f"{folder}/") for document in documents]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [
        "b.yml",
        "a.json",
        "deep/er/c.YAML",
        "notes.txt",
        "deep/README.md",
        ".github/workflows/d.yml",
    ]:
        put(tmp_path / "in" / name)
    return tmp_path / "in"


def test_folder(folder: Path) -> None:
    documents = read_all(folder)
    assert names(folder, documents) == [".github/workflows/d.yml", "a.json", "b.yml", "deep/er/c.YAML"]
    assert [document.format for document in documents] == ["yaml", "json", "yaml", "yaml"]
    assert all(document.text == b"on: push\n" and document.repo is None for document in documents)


def test_files_and_globs_each_file_once(folder: Path) -> None:
    assert names(folder, read_all(folder / "b.yml", folder / "a.json")) == ["a.json", "b.yml"]
    assert names(folder, read_all(f"{folder}/**/*.[yY]*")) == ["b.yml", "deep/er/c.YAML"]
    assert names(folder, read_all(folder, f"{folder}/*.yml", folder / "b.yml")) == names(
        folder, read_all(folder)
    )


def test_git_checkouts(tmp_path: Path) -> None:
    root = tmp_path / "checkouts"
    for repo in ["one", "owner/two"]:
        put(root / repo / ".git" / "config.yml")
        put(root / repo / ".github" / "workflows" / "build.yml")
        put(root / repo / ".github" / "workflows" / "notes.json")
        put(root / repo / ".github" / "dependabot.yml")
        put(root / repo / "src" / "config.yaml")
    put(root / "worktree" / ".git", "gitdir: elsewhere")
    put(root / "worktree" / ".github" / "workflows" / "a.yaml")
    put(root / "loose.yml")
    for given, prefix in [(root, f"{root}/"), (root.as_uri(), f"{root.as_uri()}/")]:
        found = {document.source.removeprefix(prefix): document.repo for document in read_all(given)}
        assert found == {
            "loose.yml": None,
            "one/.github/workflows/build.yml": "one",
            "owner/two/.github/workflows/build.yml": "owner/two",
            "worktree/.github/workflows/a.yaml": "worktree",
        }


def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART_BYTES", 100)
    lines = [json.dumps({"text": "x" * (index % 90)}) for index in range(50)]
    lines[7] = ""
    lines[20] = "y" * 1000  # longer than a part
    lines[30] = "z" * 7000  # longer than the limit
    path = put(tmp_path / "some.jsonl", "\r\n".join(lines))
    for given, final in [(path, ""), (path.as_uri(), "\n"), (path, "\n")]:
        put(path, "\n".join(lines) + final)
        assert len(plan_parts(find_sources([str(given)]))) > 5
        documents = read_all(given, limits=Limits(max_bytes=1000))
        assert [document.source.split("#")[1] for document in documents] == [
            str(index + 1) for index in range(50) if index != 7
        ]
        for document in documents:
            index = int(document.source.split("#")[1]) - 1
            if index == 30:
                assert document.error is not None
                assert document.error.reason == "too-large"
            else:
                assert document.text == lines[index].encode()


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {"text": f"on: push # {index}", "repo": f"r{index % 3}" if index % 5 else None, "path": f"p{index}"}
        for index in range(5000)
    ]
    rows[3]["text"] = None
    path = tmp_path / "some.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2300)
    for given in (path, path.as_uri()):
        assert len(plan_parts(find_sources([str(given)]))) > 8
        documents = read_all(given)
        assert [document.text for document in documents] == [row["text"] or b"" for row in rows]
        assert [document.repo for document in documents] == [row["repo"] for row in rows]
        assert documents[17].source == f"{given}#18:p17"
        assert documents[3].error is not None


def test_parquet_text_types(tmp_path: Path) -> None:
    for kind in [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]:
        table = pa.table({"text": pa.array(["on: push"]).cast(kind)})
        pa.parquet.write_table(table, tmp_path / "x.parquet")
        (document,) = read_all(tmp_path / "x.parquet")
        assert document.text in ("on: push", b"on: push")


def test_remote_folder_and_glob(folder: Path) -> None:
    uri = folder.as_uri()
    found = [document.source for document in read_all(uri)]
    assert found == [f"{uri}/{name}" for name in names(folder, read_all(folder))]
    documents = read_all(f"{uri}/*.json", f"{uri}/b.yml")
    assert [document.source for document in documents] == [f"{uri}/a.json", f"{uri}/b.yml"]
    assert documents[0].text == b"on: push\n"


def test_bad_documents_are_carried_along(tmp_path: Path) -> None:
    put(tmp_path / "big.yml", "x" * 2000)
    gone = put(tmp_path / "gone.yml")
    put(tmp_path / "good.yml")
    parts = plan_parts(find_sources([str(tmp_path)]))
    gone.unlink()
    gone.mkdir()
    documents = [document for part in parts for document in read_part(part, Limits(max_bytes=1000))]
    reasons = [document.error.reason if document.error else None for document in documents]
    assert reasons == ["too-large", "unreadable", None]


def test_a_machine_that_lacks_the_input_says_so(folder: Path) -> None:
    """It must not look as if the documents were bad."""
    for uri in (str(folder), folder.as_uri()):
        parts = plan_parts(find_sources([uri]))
        moved = folder.rename(folder.with_name("elsewhere"))
        with pytest.raises(UserError, match=r"on machine .*/in/.* is not there. Every machine must see"):
            list(read_part(parts[0], Limits()))
        moved.rename(folder)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    put(Path(str(tmp_path) + "/caf\udce9.yml"))
    (document,) = read_all(tmp_path)
    assert document.text == b"on: push\n"
    assert document.source.endswith("/caf\ufffd.yml")
    document.source.encode()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing", "no such file or folder"),
        ("missing/*.yml", "nothing matches"),
        ("empty", "no .json, .yml"),
        ("file:///nowhere/at/all", "no such file or folder"),
        ("text.txt", "must end in"),
        ("nothing://x/y", "nothing"),
        ("bad.parquet", "cannot read"),
        ("other.parquet", "no column `text`"),
        ("numbers.parquet", "no column `text`"),
    ],
)
def test_wrong_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    put(tmp_path / "empty" / "README.md")
    put(tmp_path / "text.txt")
    put(tmp_path / "bad.parquet", "not parquet at all")
    pa.parquet.write_table(pa.table({"other": ["x"]}), tmp_path / "other.parquet")
    pa.parquet.write_table(pa.table({"text": [1]}), tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match=message) as caught:
        plan_parts(find_sources([given]))
    assert "\n" not in str(caught.value)


def test_fingerprint_sees_changes(folder: Path) -> None:
    def fingerprint() -> str:
        return sources_fingerprint(find_sources([str(folder)]))

    seen: list[Any] = [fingerprint()]
    assert fingerprint() == seen[0]
    put(folder / "a.json", "{}")
    seen.append(fingerprint())
    put(folder / "new.yml")
    seen.append(fingerprint())
    (folder / "b.yml").unlink()
    seen.append(fingerprint())
    assert len(set(seen)) == 4
