"""Sessions of an editor with the server, which runs in a process of its own."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.workspace import PositionCodec

from nanochat_tct.check import check_text
from nanochat_tct.documents import to_yaml
from nanochat_tct.editor.diagnostics import diagnostics
from nanochat_tct.editor.text import EditorText
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from tests.support.commands import REPOSITORY, run_cli, run_python
from tests.support.editor import PATIENCE, URI, Editor, asynchronous, editor

pytestmark = pytest.mark.processes
WRONG = """\
name: é😀 here
on: push
env: {A: "😀 ${{ github.reff }}"}
jobs:
  a:
    runs_on: x
    runs-on: x
    steps:
      - uses: "actions/checkout"
      - run: |
          echo 😀 ${{ needs.other.result }}
"""
# Each step's names are compared with those of all others: minutes of work for the engine, if nothing stops it.
HOSTILE = "on: push\njobs:\n a:\n  runs-on: x\n" + "".join(f"  key{index}: x\n" for index in range(60_000))


def marked(text: str, problem: types.Diagnostic) -> str:
    """The part of a text that a problem is about, by the UTF-16 units that its range counts."""
    line = text.split("\n")[problem.range.start.line].encode("utf-16-le")
    assert problem.range.start.line == problem.range.end.line
    return line[2 * problem.range.start.character : 2 * problem.range.end.character].decode("utf-16-le")


@asynchronous
async def test_problems_are_shown_where_they_are_in_units_of_utf_16() -> None:
    async with editor() as client:
        client.open(WRONG)
        found = await client.problems()
        assert [(marked(WRONG, each), each.code) for each in found] == [
            ("reff", "language-service"),
            ("runs_on", "refused"),
            ("actions/checkout", "language-service"),
            ("other", "language-service"),
        ]
        assert [each.severity for each in found] == [
            types.DiagnosticSeverity.Warning,
            types.DiagnosticSeverity.Error,
            types.DiagnosticSeverity.Warning,
            types.DiagnosticSeverity.Warning,
        ]
        assert {each.source for each in found} == {"nanochat-tct"}
        assert not client.messages


@pytest.mark.parametrize("encoding", ["utf-8", "utf-32"])
@asynchronous
async def test_other_units_that_an_editor_asks_for(encoding: str) -> None:
    async with editor(encodings=[encoding]) as client:
        assert client.capabilities.position_encoding == encoding
        client.open(WRONG)
        first = (await client.problems())[0].range
        line = WRONG.split("\n")[2].encode(encoding.replace("32", "32-le"))
        size = {"utf-8": 1, "utf-32": 4}[encoding]
        assert (
            line[size * first.start.character : size * first.end.character].decode(
                encoding.replace("32", "32-le")
            )
            == "reff"
        )


@asynchronous
async def test_every_version_is_answered_and_the_last_one_stands() -> None:
    async with editor() as client:
        client.open(WRONG)
        for version in range(2, 40):  # faster than they can be checked
            client.change(WRONG.replace("runs_on", f"runs_on{version}"), version)
        client.change("on: push\njobs: {b: {uses: ./.github/workflows/a.yml}}\n", 40)
        assert await client.problems(version=40) == []
        client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI)))
        assert await client.problems() == []


async def _type_every_line(client: Editor, text: str, version: int, tokenizer: Tokenizer) -> int:
    """Write a workflow line by line: at each, the problems are those of check, and completion and hover answer."""
    lines = text.split("\n")
    for count in range(1, len(lines)):
        version += 1
        cut = "\n".join(lines[:count])
        client.change(cut, version)
        line, column = count - 1, len(lines[count - 1].encode("utf-16-le")) // 2
        await client.complete(line, column)
        await client.hover(line, column // 2)
        found = await client.problems(version)
        assert found == diagnostics(tokenizer, EditorText(cut, PositionCodec()))
        expected = check_text("", cut.encode(), tokenizer)
        assert [(each.message, each.range.start.line + 1) for each in found] == [
            (each.message, min(each.line, count)) for each in expected
        ]
    return version


@asynchronous
async def test_a_workflow_that_is_written_line_by_line() -> None:
    tokenizer = Tokenizer()
    async with editor() as client:
        client.open("")
        version = 1
        for index in range(2):
            version = await _type_every_line(client, to_yaml(synthesize(index, 9)), version, tokenizer)
        assert not client.messages


@pytest.mark.timeout(600)
@asynchronous
async def test_real_workflows_that_are_written_line_by_line(corpus: Any) -> None:
    tokenizer = Tokenizer()
    async with editor() as client:
        client.open("")
        version = 1
        for source in corpus.column("text").to_pylist()[::3000]:
            text = "\n".join(re.sub("\r\n?", "\n", source).split("\n")[:60])
            version = await _type_every_line(client, text, version, tokenizer)
        assert not client.messages


@asynchronous
async def test_completion_and_hover_by_positions_of_utf_16() -> None:
    text = "on: push\njobs:\n  b:\n    runs-on: x\n    name: 😀😀 ${{ github.re }}\n"
    line = text.split("\n")[4]
    column = len(line[: line.index("re") + 2].encode("utf-16-le")) // 2
    async with editor() as client:
        client.open(text)
        found = await client.complete(4, column)
        (ref,) = (each for each in found if each.label == "ref")
        assert isinstance(ref.text_edit, types.TextEdit)
        start, end = types.Position(4, column - 2), types.Position(4, column)
        assert ref.text_edit == types.TextEdit(types.Range(start, end), "ref")
        assert "name of the job" in (await client.hover(4, 5) or "")


AUDIT = """\
import os, sys
def note(event, arguments):
    if event == "socket.connect" or (event == "open" and "workflows" in str(arguments[0])):
        os.write(log, f"{event} {arguments}\\n".encode())
log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(note)
"""


@asynchronous
async def test_only_open_workflows_are_looked_at_and_nothing_is_sent(tmp_path: Path) -> None:
    other = tmp_path / ".github/workflows/other.yml"
    other.parent.mkdir(parents=True)
    other.write_text(WRONG)
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    log = tmp_path / "audit.log"
    env = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "AUDIT_LOG": str(log)}
    async with editor(env=env) as client:
        assert await client.complete(0, 0, other.as_uri()) == []  # it is on the disk, and not open
        assert await client.hover(0, 0, other.as_uri()) is None
        client.open(WRONG, "file:///repository/compose.yaml")
        client.open(WRONG, "untitled:1", language="github-actions-workflow")
        params = await asyncio.wait_for(client.published.get(), PATIENCE)
        assert params.uri == "untitled:1" and len(params.diagnostics) == 4
        assert await client.complete(0, 0, "file:///repository/compose.yaml") == []
        assert await client.hover(0, 0, "file:///repository/compose.yaml") is None
        assert client.published.empty()
    assert log.read_text() == ""


@asynchronous
async def test_a_hostile_document_costs_its_time_limit_and_no_more() -> None:
    async with editor() as client:
        client.open(HOSTILE, "file:///r/.github/workflows/hostile.yml")
        client.open(WRONG)
        first = await asyncio.wait_for(client.published.get(), PATIENCE)
        second = await asyncio.wait_for(client.published.get(), PATIENCE)
        assert "hostile" in first.uri and "stopped after" in first.diagnostics[0].message
        assert len(second.diagnostics) == 4
        client.change(HOSTILE, 2, "file:///r/.github/workflows/hostile.yml")
        client.change("on: push\n", 3, "file:///r/.github/workflows/hostile.yml")  # which drops the other
        third = await asyncio.wait_for(client.published.get(), PATIENCE)
        assert third.version == 3 and third.diagnostics[0].message == "missing 'jobs'"


@asynchronous
async def test_wrong_input_is_answered_and_the_session_goes_on() -> None:
    async with editor() as client:
        client.open("\ud800 ${{ a\x00")
        assert (await client.problems())[0].severity == types.DiagnosticSeverity.Error
        await client.complete(99, 99)
        await client.hover(99, 99)
        for version, text in enumerate(
            ("a: *b", "&a [*a]", "{" * 5000, "- " * 5000, "\t", "'", "a: |9\n"), 2
        ):
            client.change(text, version)
            assert await client.problems(version)
            await client.complete(0, len(text))
            await client.hover(0, 0)
        client.protocol._send_data({"jsonrpc": "2.0", "method": "textDocument/didChange", "params": {"x": 1}})
        client.protocol._send_data({"jsonrpc": "2.0", "method": "$/nonsense", "params": {}})
        client.change(WRONG, 99)
        assert len(await client.problems(99)) == 4


def message(**content: Any) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", **content}).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def test_it_ends_with_its_editor() -> None:
    """Standard input ends without goodbye; only messages of the protocol are on standard output."""
    begin = message(id=1, method="initialize", params={"capabilities": {}}) + message(
        method="initialized", params={}
    )
    command = [sys.executable, "-m", "nanochat_tct.cli", "lsp"]
    done = subprocess.run(command, input=begin, capture_output=True, timeout=PATIENCE)
    assert done.stdout.startswith(b"Content-Length: ") and done.stderr == b""


def test_neither_torch_nor_ray_is_imported_without_a_checkpoint() -> None:
    code = "import sys, nanochat_tct.editor.server; print({'torch', 'ray', 'pyarrow'} & set(sys.modules))"
    assert run_python("-c", code).stdout == "set()\n"


def test_what_to_install_is_said(tmp_path: Path) -> None:
    (tmp_path / "pygls.py").write_text("raise ModuleNotFoundError('pygls')")
    done = run_cli("lsp", env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    assert done.code == 2
    assert done.stderr.count("\n") == 1 and "pip install 'nanochat-tct[editor]'" in done.stderr


def test_wrong_settings_are_one_line(tmp_path: Path) -> None:
    for arguments, part in (
        (["--checkpoint", tmp_path / "none"], "no such directory"),
        (["--checkpoint", tmp_path], "no usable checkpoint"),
        (["--threshold", 2], "--threshold is a probability"),
    ):
        done = run_cli("lsp", *arguments)
        assert done.code == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and part in done.stderr
