"""`check`: what it prints of workflow files, and its exit codes."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest

from nanochat_tct.check import CheckConfig, check
from nanochat_tct.errors import UserError
from tests.support.commands import run_cli

RIGHT = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make\n"
COMPLAINED = RIGHT.replace("make", "echo ${{ steps.s.outcome }}")
WRONG = RIGHT.replace("runs-on", "runs_on")


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def write(folder: Path, **files: str | bytes) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_the_command_prints_a_line_a_problem(tmp_path: Path) -> None:
    folder = write(tmp_path, a=RIGHT, b=COMPLAINED, c=WRONG)
    done = run_cli("check", str(folder))
    assert done.code == 1
    assert done.stdout.splitlines() == [
        f"{folder}/b.yml:6:29: warning: no earlier step of this job has the id 's', there are none",
        f"{folder}/c.yml:4:5: error: unknown key 'runs_on'; did you mean 'runs-on'?",
    ]
    assert (
        done.stderr == "3 workflows: 1 that GitHub would refuse, 1 with warnings only, 1 without a problem\n"
    )


@pytest.mark.parametrize(("text", "code"), [(RIGHT, 0), (COMPLAINED, 0), (WRONG, 1)])
def test_the_exit_code_says_whether_github_accepts_all(tmp_path: Path, text: str, code: int) -> None:
    assert check(CheckConfig([str(write(tmp_path, a=RIGHT, b=text))])) == code


def test_warnings_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(CheckConfig([str(write(tmp_path, a=COMPLAINED, b=WRONG))], warnings=False)) == 1
    assert [" error: " in line for line in printed(capsys)] == [True]


def test_json_is_for_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, a=RIGHT, b=COMPLAINED, c=WRONG)
    assert check(CheckConfig([str(folder)], json=True)) == 1
    (line,) = printed(capsys)
    result = json.loads(line)
    problems = result.pop("problems")
    assert result == {"files": 3, "refused": 1, "accepted_with_warnings": 1}
    assert problems[1] == {
        "file": f"{folder}/c.yml",
        "line": 4,
        "column": 5,
        "severity": "error",
        "message": "unknown key 'runs_on'; did you mean 'runs-on'?",
        "pointer": "/jobs/a/runs_on",
    }


def test_a_folder_stands_for_its_workflows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a repository those that GitHub runs, else all of the folder, but not those of tools."""
    write(tmp_path / "repo/.github/workflows", a=WRONG)
    write(tmp_path / "repo/other", b=WRONG)
    write(tmp_path / "plain/deep/er", c=WRONG)
    write(tmp_path / "plain/node_modules/x", d=WRONG)
    (tmp_path / "plain/e.yaml").write_text(WRONG)
    (tmp_path / "plain/f.txt").write_text("not a workflow")
    check(CheckConfig([str(tmp_path / "repo"), str(tmp_path / "plain"), str(tmp_path / "repo/other/b.yml")]))
    files = [line.removeprefix(f"{tmp_path}/").split(":")[0] for line in printed(capsys)]
    assert files == [
        "repo/.github/workflows/a.yml",
        "plain/deep/er/c.yml",
        "plain/e.yaml",
        "repo/other/b.yml",
    ]


def test_many_files_are_checked_by_several_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(
        tmp_path, **{f"w{number:03}": WRONG if number % 7 == 0 else RIGHT for number in range(150)}
    )
    assert check(CheckConfig([str(folder)])) == 1
    assert [line.split(":")[0] for line in printed(capsys)] == [
        f"{folder}/w{number:03}.yml" for number in range(0, 150, 7)
    ]


PLACES = [
    ('on: push\njobs:\n  a: {runs-on: x, steps: [{run: "\\u00e9 \\t${{ foo }}"}]}\n', 3, 47),
    ("on: push\njobs:\n  a:\n    runs-on: x\n    name: 漢字 😀 ${{ foo }}\n", 5, 20),
    (
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n    - run: |\n\n        one\n          two ${{ foo }}\n",
        9,
        19,
    ),
    ("on: push\njobs:\n  a:\n    runs-on: x\n    name: >-\n      one\n      two ${{ foo }}\n", 7, 15),
    ("on: push\njobs:\n  a:\n    runs-on: x\n    name: 'it''s\n      ${{ foo }}'\n", 6, 11),
    ("on: push\njobs: &a\n  a: &b {runs-on: x, name: '${{ foo }}'}\n", 3, 33),
]


@pytest.mark.parametrize(("text", "line", "column"), PLACES)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_places_are_those_of_the_yaml(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    line: int,
    column: int,
    line_end: str,
    mark: str,
) -> None:
    check(CheckConfig([str(write(tmp_path, a=mark + text.replace("\n", line_end)) / "a.yml")]))
    (found,) = printed(capsys)
    assert found.startswith(f"{tmp_path}/a.yml:{line}:{column}: error: there is no context 'foo'"), found


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (b"a: [1", "2:1", "the document ends inside brackets"),
        (b"on: push\n\tjobs: {}", "2:2", "a tab"),
        (b"\x89PNG\r\n\x1a\n\0\0", "1:1", "not valid UTF-8"),
        (b"", "1:1", "the file holds no value"),
        (b"just a text", "1:1", "the document is a string, not a mapping"),
        (b"on: push\njobs:\n  a:\n    runs-on: x\n    if: !cancelled()", "5:9", "begins with '!' in quotes"),
        (b"on: push\njobs: !x {a: {runs-on: x}}", "2:10", "begins with '!' in quotes"),
        (b"on: push\non: push\njobs: {a: {uses: ./.github/workflows/b.yml}}", "2:1", "stands twice"),
        (b"on: push\n---\non: push", "2:1", "a second document begins"),
        (b"a: " + b"x" * (1 << 20), "1:1", "more than the limit"),
    ],
)
def test_what_is_not_yaml_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, place: str, message: str
) -> None:
    assert check(CheckConfig([str(write(tmp_path, a=text) / "a.yml")])) == 1
    (found,) = printed(capsys)
    assert found.startswith(f"{tmp_path}/a.yml:{place}: error: ") and message in found, found


def test_keys_that_are_wrong_do_not_hide_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = WRONG.replace("on: push", "on: push\nenv: {1: x, a: y, a: z}\non: pull_request")
    assert check(CheckConfig([str(write(tmp_path, a=text) / "a.yml")])) == 1
    assert [line.split(": ", 2)[2] for line in printed(capsys)] == [
        "the key 1 is not a text for GitHub; quote it",
        "the key 'a' stands twice in one mapping",
        "the key 'on' stands twice in one mapping",
        "unknown key 'runs_on'; did you mean 'runs-on'?",
    ]


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WRONG.encode())))
    assert check(CheckConfig(["-"])) == 1
    assert printed(capsys) == ["-:4:5: error: unknown key 'runs_on'; did you mean 'runs-on'?"]


def test_wrong_uses(tmp_path: Path) -> None:
    for given, message in [
        (f"{tmp_path}/none.yml", "none.yml: there is no such file or folder"),
        (str(tmp_path), "no .yml or .yaml file there"),
    ]:
        with pytest.raises(UserError, match=message):
            check(CheckConfig([given]))
    done = run_cli("check")
    assert done.code == 2 and "FILES is missing" in done.stderr


def test_a_hostile_file_takes_linear_time(tmp_path: Path) -> None:
    text = "on: push\njobs:\n" + "".join(
        f"  a{n}:\n    needs: b{n}\n    run-on: ${{{{ c }}}}\n" for n in range(1_500)
    )
    begin = time.process_time()
    assert check(CheckConfig([str(write(tmp_path, a=text) / "a.yml")])) == 1
    assert time.process_time() - begin < 18
