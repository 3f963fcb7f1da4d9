"""Finding workflow files, cutting the input into parts, and reading every document of it once, in order."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from nanochat_tct.data import parts as parts_module
from nanochat_tct.data.parts import RawDocument, plan_parts, read_part
from nanochat_tct.data.sources import find_sources, sources_fingerprint
from nanochat_tct.documents import Limits
from nanochat_tct.errors import UserError
from tests.support.commands import run_python


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


def names(documents: list[RawDocument]) -> list[str]:
    return [document.source for document in documents]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "b.yml a.json deep/er/c.YAML notes.txt deep/README.md .github/workflows/d.yml".split():
        put(tmp_path / "in" / name)
    return tmp_path / "in"


def test_folder(folder: Path) -> None:
    documents = read_all(folder)
    assert names(documents) == [".github/workflows/d.yml", "a.json", "b.yml", "deep/er/c.YAML"]
    assert [document.format for document in documents] == ["yaml", "json", "yaml", "yaml"]
    assert all(document.text == b"on: push\n" and document.repo is None for document in documents)


def test_files_and_globs_each_file_once(folder: Path) -> None:
    assert names(read_all(folder / "b.yml", folder / "a.json")) == ["a.json", "b.yml"]
    assert names(read_all(f"{folder}/**/*.[yY]*")) == [
        ".github/workflows/d.yml",
        "b.yml",
        "deep/er/c.YAML",
    ]
    assert names(read_all(folder, f"{folder}/*.yml", folder / "b.yml")) == names(read_all(folder))


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
    for given in (root, root.as_uri(), f"{root}/**/*.y*ml", f"{root.as_uri()}/**/*.y*ml"):
        found = {document.source: document.repo for document in read_all(given)}
        assert found == {
            "loose.yml": None,
            "one/.github/workflows/build.yml": "one",
            "owner/two/.github/workflows/build.yml": "owner/two",
            "worktree/.github/workflows/a.yaml": "worktree",
        }


def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_BYTES", 100)
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
        assert documents[17].source == "some.parquet#18:p17"
        assert documents[3].error is not None


def test_parquet_text_types(tmp_path: Path) -> None:
    for kind in [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]:
        table = pa.table({"text": pa.array(["on: push"]).cast(kind)})
        pa.parquet.write_table(table, tmp_path / "x.parquet")
        (document,) = read_all(tmp_path / "x.parquet")
        assert document.text in ("on: push", b"on: push")


def test_remote_folder_and_glob(folder: Path) -> None:
    uri = folder.as_uri()
    assert names(read_all(uri)) == names(read_all(folder))
    documents = read_all(f"{uri}/*.json", f"{uri}/b.yml")
    assert names(documents) == ["a.json", "b.yml"]
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
    assert document.source == "caf\ufffd.yml"
    put(Path(str(tmp_path) + "/own\udce9r/na\udce9me/.git/config"))
    put(Path(str(tmp_path) + "/own\udce9r/na\udce9me/.github/workflows/a.yml"))
    assert [document.repo for document in read_all(tmp_path)] == [None, "own\ufffdr/na\ufffdme"]


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


def relation(*inputs: object) -> list[tuple[str, str | None]]:
    return [(document.source, document.repo) for document in read_all(*inputs)]


def test_how_a_path_is_written_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sub = folder / "deep"
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    expected = find_sources(["in"])
    for given in (*"in/ ./in deep/../in link in/. in/**".split(), str(folder), str(folder.parent / "link/")):
        (folder.parent / "deep").mkdir(exist_ok=True)
        found = find_sources([given])
        assert sources_fingerprint(found) == sources_fingerprint(expected), given
    monkeypatch.chdir(folder)
    assert sources_fingerprint(find_sources(["."])) == sources_fingerprint(expected)
    both = find_sources(["b.yml", "deep"])
    assert [source.name for source in both] == ["b.yml", "deep/er/c.YAML"]
    for inputs in (["deep", "b.yml"], [str(sub), "./b.yml", "deep/er/c.YAML"], ["deep/er", "b.yml", "deep"]):
        assert sources_fingerprint(find_sources(inputs)) == sources_fingerprint(both), inputs


def test_globs_find_hidden_folders_but_not_those_of_tools(tmp_path: Path) -> None:
    there = """one/.github/workflows/ci.yml two/.github/workflows/deep/er/ci.yml two/top.yml one/.git.yml
        one/node_modules/x/.github/workflows/no.yml two/.venv/no.yml three/.git/no.yml
        three/.github/workflows/ci.yml three/src/no.yml"""
    for name in there.split():
        put(tmp_path / "repos" / name)
    expected = [
        "one/.git.yml",
        "one/.github/workflows/ci.yml",
        "three/.github/workflows/ci.yml",
        "two/.github/workflows/deep/er/ci.yml",
        "two/top.yml",
    ]
    repos = tmp_path / "repos"
    for given in (f"{repos}/**/*.yml", repos, f"{repos}/*", f"{repos.as_uri()}/**/*.yml", f"{repos}/**"):
        assert names(read_all(given)) == expected, given
    workflows = [("one/.github/workflows/ci.yml", "one"), ("three/.github/workflows/ci.yml", "three")]
    for pattern in (
        "*/.github/workflows/*.yml",
        "*/*/*/*.yml",
        "[ot][!w]*/**/ci.yml",
        "*/.g*/**/workflows/?i.yml",
    ):
        assert [row for row in relation(f"{repos}/{pattern}") if "deep" not in row[0]] == workflows, pattern
    assert names(read_all(f"{repos}/one/node_modules/**/*.yml")) == ["x/.github/workflows/no.yml"]
    (repos / "[x].yml").write_text("on: push")
    assert names(read_all(f"{repos}/[x].yml")) == ["[x].yml"]


GIT_CONFIG = """[core]
\tbare = false
[remote "fork"]
\turl = https://github.com/someone/else.git
[remote "origin"]
\turl = {url}
\tfetch = +refs/heads/*:refs/remotes/origin/*
[branch "main"]
\tremote = origin
"""


@pytest.mark.parametrize(
    ("url", "repo"),
    [
        ("https://github.com/Owner/name.git", "Owner/name"),
        ("https://token@github.com/owner/name/", "owner/name"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("ssh://git@git.example.org:2222/group/sub/name.git", "group/sub/name"),
        ("/srv/git/name.git", "checkout"),
        ("../elsewhere/name", "checkout"),
        ("file:///srv/git/name.git", "checkout"),
    ],
)
def test_one_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, repo: str
) -> None:
    checkout = tmp_path / "checkout"
    put(checkout / ".git" / "config", GIT_CONFIG.format(url=url))
    put(checkout / ".github" / "workflows" / "ci.yml")
    put(checkout / "package.json")
    put(checkout / "sub" / "docker-compose.yml")
    expected = [(".github/workflows/ci.yml", repo)]
    for given in (checkout, f"{checkout}/", checkout.as_uri()):
        assert relation(given) == expected
    assert "is a git checkout: of it .github/workflows is taken" in capsys.readouterr().err
    monkeypatch.chdir(checkout)
    assert relation(".") == expected
    for given in (".github/workflows", ".github/workflows/ci.yml", ".github/workflows/*.yml"):
        assert relation(given) == [("ci.yml", repo)]
    assert relation("sub") == [("docker-compose.yml", None)]
    assert names(read_all("**/*.yml")) == [".github/workflows/ci.yml", "sub/docker-compose.yml"]
    (checkout / ".github/workflows/ci.yml").unlink()
    with pytest.raises(UserError, match=r"of a git checkout only .github/workflows counts.*'./\*\*/\*.yml'"):
        read_all(".")


def test_worktrees_and_submodules_have_the_repository_of_their_git_folder(tmp_path: Path) -> None:
    put(tmp_path / "main" / ".git" / "config", GIT_CONFIG.format(url="git@github.com:a/b.git"))
    put(tmp_path / "main" / ".git" / "worktrees" / "w" / "commondir", "../..\n")
    put(tmp_path / "in" / "w" / ".git", f"gitdir: {tmp_path}/main/.git/worktrees/w\n")
    put(tmp_path / "in" / "w" / ".github" / "workflows" / "a.yml")
    put(tmp_path / "in" / "s" / ".git", "gitdir: ../../main/.git\n")
    put(tmp_path / "in" / "s" / ".github" / "workflows" / "a.yml")
    assert [repo for _, repo in relation(tmp_path / "in")] == ["a/b", "a/b"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    put(folder / "real" / "a.yml")
    put(elsewhere / "deep" / "b.yml")
    put(tmp_path / "outside.yml", "name: outside")
    (folder / "a-link").symlink_to("real")  # sorts before what it leads to
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "real" / "loop").symlink_to(folder)
    (elsewhere / "loop").symlink_to(".")
    (elsewhere / "up").symlink_to(tmp_path)
    (folder / "b-file.yml").symlink_to("real/a.yml")
    (folder / "c-file.yml").symlink_to(tmp_path / "outside.yml")
    (folder / "gone.yml").symlink_to("nowhere")
    (folder / "gone").symlink_to("nowhere")
    (folder / "self.yml").symlink_to("self.yml")
    os.mkfifo(folder / "pipe.yml")
    for given in (folder, f"{folder}/**"):
        documents = read_all(given)
        found = {document.source: document.error and str(document.error) for document in documents}
        assert found == {
            "real/a.yml": None,
            "again/deep/b.yml": None,
            "c-file.yml": None,
            "again/up": "a link to a folder that holds the input: not followed",
            "gone": "a link to nothing",
            "gone.yml": "a link to nothing",
            "self.yml": "Too many levels of symbolic links",
            "pipe.yml": "not a regular file",
        }
    with pytest.raises(UserError, match="not a regular file"):
        find_sources([str(folder / "pipe.yml")])
    with pytest.raises(UserError, match="a link to nothing"):
        find_sources([str(folder / "gone.yml")])


def test_folders_that_may_not_be_read_are_named() -> None:
    program = """
import os, sys
from nanochat_tct.documents import Limits
from nanochat_tct.data.parts import plan_parts, read_part
from nanochat_tct.data.sources import find_sources
if os.getuid() == 0: os.setuid(65534)  # root may read everything
for part in plan_parts(find_sources(sys.argv[1:])):
    print([(document.source, str(document.error)) for document in read_part(part, Limits())])
"""
    with tempfile.TemporaryDirectory() as folder:  # those of pytest are closed to others themselves
        Path(folder).chmod(0o755)
        put(Path(folder) / "a.yml")
        closed = put(Path(folder) / "closed" / "b.yml").parent
        closed.chmod(0)
        printed = run_python("-c", program, folder)
        given = run_python("-c", program, closed)
        closed.chmod(0o755)
    expected = [("a.yml", "None"), ("closed", "the folder cannot be read: Permission denied")]
    assert printed.stdout == f"{expected}\n", printed
    assert f"UserError: cannot read the folder {closed}: Permission denied" in given.stderr


def test_a_store_inside_the_input_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "a.yml")
    for name in ("manifest.json", "metadata.json", "tokens.bin", "documents.parquet"):
        put(tmp_path / "store" / name)
    put(tmp_path / "half" / ".partial" / "documents.parquet")
    assert names(read_all(tmp_path)) == ["a.yml"]
