"""Workflows out of a model: always valid, and the command around it."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanochat_tct.cli import main
from nanochat_tct.documents import read_workflow, to_yaml
from nanochat_tct.generation import Completer
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.commands import Finished, assert_user_error, full_disk
from tests.support.models import model_that_knows, save, untrained_model, workflow

TOKENIZER: Any = load_tokenizer()


@pytest.fixture(scope="module")
def model() -> GPT:
    return untrained_model()


@pytest.fixture(scope="module")
def checkpoint(model: GPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("checkpoints") / "run"
    save(model, run_dir)
    return run_dir


@pytest.mark.parametrize("max_tokens", [15, 40, 150])
def test_every_output_of_an_untrained_model_is_valid(model: GPT, max_tokens: int) -> None:
    sampling = SamplingConfig(temperature=1.5, seed=1, max_tokens=max_tokens)
    for sample in Completer.from_model(model, TOKENIZER).generate([Prompt()] * 10, sampling):
        assert sample.valid, sample.problem
        assert len(sample.tokens) <= max_tokens
        assert TOKENIZER.decode_value(TOKENIZER.encode(sample.json)) == sample.value
        assert sample.text == to_yaml(sample.value) and read_workflow(sample.text, "yaml") == sample.value
        assert sample.completed_by in ("model", "limit")
        assert TOKENIZER.decode_value(sample.tokens) == sample.value


def test_continues_a_prompt(model: GPT) -> None:
    partial = {
        "name": "deploy",
        "on": "push",
        "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": [{"run": "make"}]}},
    }
    prompt = Prompt(TOKENIZER.encode_prefix(partial))
    sampling = SamplingConfig(max_tokens=len(prompt.tokens) + 30)
    for sample in Completer.from_model(model, TOKENIZER).generate([prompt] * 4, sampling):
        assert sample.valid
        assert list(sample.value)[:2] == ["name", "on"]
        assert sample.value["name"] == "deploy"
        assert sample.value["jobs"]["a"]["steps"][0]["run"].startswith("make")


def test_a_model_writes_what_it_learned_and_ends_it_by_itself() -> None:
    completer = Completer.from_model(model_that_knows([workflow(1)], TOKENIZER), TOKENIZER)
    prompts = [Prompt(), Prompt(TOKENIZER.encode_prefix({"name": "build 1"}, False))]
    for sample in completer.generate(prompts, SamplingConfig(temperature=0, max_tokens=500)):
        assert sample.completed_by == "model"
        assert sample.value == workflow(1)


# ------------------------------------------------------------------------------------------------
# The command


def test_prints_yaml(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--checkpoint", str(checkpoint), "--max-tokens", "60", "--seed", "2"]
    assert main([*arguments, "--prompt", "name: CI\non: push\n", "--num-samples", "3"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["name"] for document in documents] == ["CI"] * 3
    assert main([*arguments, "--prompt", "name: CI\non: push\n"]) == 0
    alone = capsys.readouterr().out
    assert read_workflow(alone, "yaml")["name"] == "CI"
    assert main([*arguments, "--prompt", '{"name": "CI", "on": "push"}', "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == read_workflow(alone, "yaml")


def test_the_prompt_stays_to_the_letter(checkpoint: Path, tmp_path: Path) -> None:
    prompt = "# ours\nname: 'CI'\n\non: [push]  # always\nenv: &env\n    A: \"b\"\njobs:\n    a:\n        env: *env\n"
    file = tmp_path / "half.yml"
    arguments = ["generate", "--checkpoint", str(checkpoint), "--prompt", str(file), "--num-samples", "4"]
    for text in (
        prompt,
        prompt.replace("\n", "\r\n"),
        prompt + '        runs-on: "u',
        prompt + "        # a job",
    ):
        file.write_bytes(text.encode())
        folder = tmp_path / "written"
        assert main([*arguments, "--max-tokens", "90", "--output", str(folder)]) == 0
        assert main([*arguments, "--max-tokens", "90", "--output", str(folder), "--format", "json"]) == 0
        for index in range(1, 5):
            written = (folder / f"workflow_000{index}.yml").read_bytes().decode()
            assert written.startswith(text) and written.endswith("\r\n" if "\r" in text else "\n")
            value = json.loads((folder / f"workflow_000{index}.json").read_text())
            assert (
                read_workflow(written, "yaml") == value and yaml.safe_load(written)["jobs"] == value["jobs"]
            )


def test_a_json_prompt_is_written_as_yaml(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "generate",
        "--checkpoint",
        str(checkpoint),
        "--max-tokens",
        "60",
        "--prompt",
        '{"name": "a"',
    ]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == to_yaml(read_workflow(captured.out)) and captured.err == ""


def test_what_cannot_follow_the_prompt_is_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(model_that_knows([workflow(1)], TOKENIZER), tmp_path)
    prompt = (
        to_yaml(workflow(1)).partition("make 1")[0].replace("|\n          ", "mak")
    )  # it has several lines
    arguments = ["generate", "--checkpoint", str(checkpoint), "--temperature", "0", "--prompt", prompt]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == to_yaml(workflow(1))
    assert (
        captured.err
        == "workflow 1 cannot go on from the prompt's text to the letter: all of it is written anew\n"
    )


def test_writes_a_file_a_sample(checkpoint: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "partial.yml"
    prompt.write_text("name: from a file\n")
    arguments = ["generate", "--checkpoint", str(checkpoint), "--prompt", str(prompt), "--max-tokens", "40"]
    output = tmp_path / "new" / "folder"
    assert main([*arguments, "--num-samples", "2", "--output", str(output)]) == 0
    files = sorted(output.iterdir())
    assert [file.name for file in files] == ["workflow_0001.yml", "workflow_0002.yml"]
    assert all(read_workflow(file.read_text(), "yaml")["name"].startswith("from a file") for file in files)
    assert main([*arguments, "--format", "json", "--output", str(output)]) == 0
    assert json.loads((output / "workflow_0001.json").read_text()) == read_workflow(
        files[0].read_text(), "yaml"
    )


def test_a_full_disk_is_one_line_that_names_the_file(
    run_here: Callable[..., Finished], checkpoint: Path, tmp_path: Path
) -> None:
    with full_disk(8):
        result = run_here(
            "generate", "--checkpoint", checkpoint, "--max-tokens", 40, "--output", tmp_path / "out"
        )
    assert_user_error(result, f"no space left to write {tmp_path / 'out' / 'workflow_0001.yml'}")
    assert list((tmp_path / "out").iterdir()) == [], "no half a workflow"


def test_an_untrained_model_needs_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--untrained", "--num-samples", "20", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20
    for file in tmp_path.iterdir():
        base = TOKENIZER.write(read_workflow(file.read_text(), "yaml"))
        assert TOKENIZER.engine.matcher(is_strict=True).advance(base), file.read_text()


def test_tells_what_it_left_out_of_the_prompt(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "name: CI\njobs:\n  a:\n    runz"
    assert main(["generate", "--checkpoint", str(checkpoint), "--prompt", prompt, "--max-tokens", "60"]) == 0
    assert "left out of the prompt: 'runz' (/jobs/a: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--temperature", "1e309"], "--temperature must be a number"),
        (["--temperature", "nan"], "--temperature must be a number"),
        (["--top-p", "1e-330"], "top_p is 0.0"),
        (["--seed", "18446744073709551616"], "seed is 18446744073709551616"),
        (["--seed", "1e30"], "seed is 1000000000000000019884624838656"),
        (["--num-samples", "1e-3"], "--num-samples must be a whole number"),
        (["--prompt"], "--prompt: expected one argument"),
        (["--prompt", "--seed", "1"], "--prompt: expected one argument"),
        (["--prompt", "missing"], "no file missing, and the prompt is not the beginning"),
        (["--top-p", "0"], "top_p is 0.0"),
        (["--num-samples", "0"], "--num-samples is 0"),
        (["--max-tokens", "0"], "max_tokens is 0"),
        (["--format", "xml"], "--format must be one of"),
        (["--temprature", "1"], "did you mean --temperature"),
        (["--prompt", "missing.yml"], "no file missing.yml"),
        (["--prompt", "jobs: 5\n"], "the prompt is not the beginning of a workflow: /jobs"),
        (["--prompt", "name: a name of several tokens\n", "--max-tokens", "2"], "--max-tokens is 2"),
        (["--max-tokens", "4"], "max_tokens is 4: the shortest workflow"),
        (["--untrained"], "--checkpoint and --untrained exclude each other"),
        (["--tokenizer", "missing-vocabulary.json"], "missing-vocabulary.json"),
        (["--output", __file__], "is a file"),
    ],
)
def test_wrong_use(
    arguments: list[str], says: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--checkpoint", str(checkpoint), *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and len(captured.err.splitlines()) == 1, captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        (["--prompt", "---"], None),
        (["--prompt", "--"], None),
        (["--prompt", "--- \nname: x"], "x"),
        (["--prompt", "---\nname: x=1\n"], "x=1"),
        (["--prompt=---\nname: x\n"], "x"),
        (["--prompt", ""], None),
        (["--prompt", "# a comment"], None),
        (["--prompt", '{"name":"x\\ud83d'], "x"),
        (["--prompt", "na"], ""),
    ],
)
def test_prompts_as_arguments(
    prompt: list[str], name: str | None, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--max-tokens", "60", "--temperature", "1e-310", "--top-p", "1e-320", "--format", "json"]
    assert main(["generate", "--checkpoint", str(checkpoint), *prompt, *arguments]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert captured.err == ""
    assert name is None or value["name"].startswith(name)


def test_bytes_on_the_command_line_and_on_stdin(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a character, as a shell cuts it off; and text that begins with a dash."""
    arguments = ["generate", "--checkpoint", str(checkpoint), "--format", "json", "--max-tokens", "60"]
    arguments.append("--prompt")
    half = "name: Rel 🚀".encode()[:-2]
    done = subprocess.run([sys.executable, "-m", "nanochat_tct.cli", *arguments, half], capture_output=True)
    assert done.stderr == b"" and json.loads(done.stdout)["name"].startswith("Rel")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(half)))
    assert main([*arguments, "-"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and json.loads(captured.out)["name"].startswith("Rel")
    assert main([*arguments, "- x"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not the beginning of a workflow: the document is a list" in error


def test_a_whole_workflow_comes_back(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = '{"on":"push","jobs":{"a":{"uses":"./a.yml"}}}'
    arguments = ["generate", "--checkpoint", str(checkpoint), "--format", "json", "--prompt", whole]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == whole + "\n"
    assert captured.err == "the prompt is a whole workflow: there is nothing to add\n"


def test_a_last_line_that_is_not_valid_is_gone_on_with(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a:b {x}.yml"
    file.write_text("on: workflow_c\n")
    arguments = ["generate", "--checkpoint", str(checkpoint), "--format", "json", "--max-tokens", "60"]
    assert main([*arguments, "--prompt", str(file)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["on"] == "workflow_call"
    assert captured.err.startswith("the last line of the prompt is taken as not yet complete (/on: ")


def test_wrong_checkpoints(model: GPT, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--checkpoint", str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["generate", "--checkpoint", str(tmp_path)]) == 2
    assert "no usable checkpoint" in capsys.readouterr().err
    save(model, tmp_path / "other", fingerprint="f" * 64)
    assert main(["generate", "--checkpoint", str(tmp_path / "other")]) == 2
    assert "was trained with tokenizer 'builtin' (ffffffffffff)" in capsys.readouterr().err
    assert main(["generate"]) == 2
    assert "--checkpoint is missing" in capsys.readouterr().err


def test_a_checkpoint_of_an_earlier_version_is_used_with_the_vocabulary_of_then(
    model: GPT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = load_tokenizer("builtin-1")
    save(model, tmp_path / "run", earlier.fingerprint)
    prompt = "name: CI\non: push\n"
    arguments = ["generate", "--checkpoint", str(tmp_path / "run"), "--max-tokens", "60", "--prompt", prompt]
    main(arguments)  # the language of then is not GitHub's: the workflow need not be valid
    earlier.encode_value(read_workflow(capsys.readouterr().out, "yaml"))


def test_what_github_warns_of_in_a_prompt_is_kept_and_said_once(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "on: push\njobs:\n  a:\n    if: on ${{ github.ref }} only\n    needs: [b]\n    runs-on: x\n"
    arguments = ["generate", "--checkpoint", str(checkpoint), "--max-tokens", "90", "--prompt", prompt]
    assert main([*arguments, "--num-samples", "3"]) == 0
    out, err = capsys.readouterr()
    assert (
        err
        == "the prompt has something at /jobs/a/if that GitHub accepts with a warning; it stays as it is\n"
    )
    for document in yaml.safe_load_all(out):
        assert document["jobs"]["a"]["if"] == "on ${{ github.ref }} only"
        assert "b" in document["jobs"]
