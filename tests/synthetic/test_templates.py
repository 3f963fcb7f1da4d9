"""The template language, and every template alone: what it writes is valid, and refers only to what exists."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.documents import read_workflow, to_json, to_yaml
from nanochat_tct.synthetic.library import ACTIONS, ECOSYSTEMS, FOLDER, read
from nanochat_tct.synthetic.scope import Scope
from nanochat_tct.synthetic.steps import StepList, outputs_of
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON, Lexicon, compile_member, compile_text
from nanochat_tct.synthetic.workflow import WORKFLOWS, settle, write_template
from nanochat_tct.synthetic.writer import Writer
from nanochat_tct.tokenizer import load_tokenizer

FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))
# What GitHub has retired: commands of a log, runners, and versions of actions.
RETIRED = re.compile(
    r"::set-output|::save-state|::set-env|::add-path|ubuntu-(?:16|18|20)\.04|windows-2019|macos-1[0-3]\b|"
    r"(?:upload|download)-artifact@v[1-3]\b|actions/cache(?:/\w+)?@v[1-3]\b|codeql-action/\w+@v[12]\b"
)
DRAWS = 4  # of each workflow template and each ecosystem


def written(template: Any, count: int = 200) -> set[str]:
    generator = compile_member(template)
    values = (generator(Writer(index, seed=0)) for index in range(count))
    return {"left out" if value is LEFT_OUT else json.dumps(value) for value in values}


def test_text() -> None:
    assert written("plain 100% a || b") == {'"plain 100% a || b"'}
    assert written("a‹b|c‹d|e››f‹|g›") == {f'"a{x}f{y}"' for x in ("b", "cd", "ce") for y in ("", "g")}
    assert written("‹8..10›%") == {'"8%"', '"9%"', '"10%"'}
    assert written("‹a¦b|c›") == {'"a|b"', '"c"'}
    assert written("one\n‹50%›   two\nthree\n") == {r'"one\nthree\n"', r'"one\n  two\nthree\n"'}
    assert written("actions/deploy-pages@‹pin›") <= {
        f'"actions/deploy-pages@{version}"'
        for version in ACTIONS["actions/deploy-pages"].versions + ACTIONS["actions/deploy-pages"].commits
    }
    for wrong in ("‹a|b", "a›"):
        with pytest.raises(AssertionError, match="unbalanced"):
            compile_text(wrong)


def test_values() -> None:
    assert written({"k ‹50%›": {"‹one of›": [1, None, {"‹2×›": True}]}}) == {
        "{}",
        '{"k": 1}',
        '{"k": null}',
        '{"k": true}',
    }
    assert written([1, {"‹50%›": "x"}, {"y ‹50%›": 2}]) == {
        f"[1, {x}{y}]" for x in ("", '"x", ') for y in ("{}", '{"y": 2}')
    }
    assert written({"‹2 of›": [["a"], ["b"]]}) == {'["a"]', '["b"]', '["a", "b"]', '["b", "a"]'}
    assert written({"k ‹100% over 1001›": 1}) == {"{}"}  # a writer's first size is 1000
    assert written({"k ‹100% over 1000›": 1}) == {'{"k": 1}'}


def test_what_does_not_exist_is_not_written() -> None:
    assert written("${{ inputs.missing }}") == {"left out"}
    assert written({"‹one of›": ["${{ inputs.missing }}", "${{ github.sha }}"]}) == {
        '"${{ github.sha }}"',
        "left out",  # after several draws of the other
    }
    assert written({"group": "${{ inputs.missing }}", "other": 1}) == {
        "left out"
    }  # every key without a mark is needed
    assert written({"group ‹100%›": "${{ inputs.missing }}", "other": 1}) == {'{"other": 1}'}


def test_facts_stay_and_phrases_do_not() -> None:
    words = Lexicon()
    words.add({"fact": "‹1..1000000›"}, facts=True)
    words.add({"phrase": "‹1..1000000›", "some-thing": "some-thing"})
    writer = Writer(0, seed=0)
    assert words.word(writer, "fact") == words.word(writer, "fact")
    assert words.word(writer, "phrase") != words.word(writer, "phrase")
    assert (
        words.word(writer, "SOME-THING") == "SOME_THING" and words.word(writer, "Some-thing") == "Some Thing"
    )
    writer.facts["fact"] = "set"
    assert words.word(writer, "fact") == "set"
    with pytest.raises(AssertionError, match="not defined: other"):
        words.word(writer, "other")


@pytest.mark.parametrize(
    ("place", "text", "holds"),
    [
        ("step", "${{ steps.meta.outputs.tags }}", True),
        ("step", "${{ steps.meta.outputs.other }}", False),
        ("step", "${{ steps.meta.outcome }}", True),
        ("job", "${{ steps.meta.outputs.tags }}", False),
        ("step", "${{ needs.build.outputs.version }} ${{ matrix.os }}", True),
        ("step", "${{ needs.other.result }}", False),
        ("step", "${{ needs.build.outputs.other }}", False),
        ("job", "${{ toJson(needs) }}", True),
        ("step", "${{ matrix.python }}", False),
        ("step", "${{ env.REGISTRY }} ${{ env.OTHER }}", False),
        ("step", "${{ github.event.pull_request.number }}", True),
        ("step", "${{ github.event.release.tag_name }}", False),
        ("step", "${{ inputs.version == 'inputs.other' }}", True),
        ("job", "${{ hashFiles('x') }}", False),
        ("step", "echo inputs.other", True),
        ("step.if", "inputs.other", False),
        ("step.if", "inputs.version && always()", True),
        ("job.if", "matrix.os", False),
        ("job", "${{ secrets.TOKEN }}", False),
        ("job.credentials", "${{ secrets.TOKEN }}", True),
    ],
)
def test_scope(place: str, text: str, holds: bool) -> None:
    scope = Scope()
    scope.define("on", {"pull_request": None, "workflow_dispatch": {"inputs": {"version": {}}}})
    scope.define("env", {"REGISTRY": "ghcr.io"})
    scope.outputs = {"build": ["version"], "other": []}
    scope.define("needs", "build")
    scope.define("strategy", {"matrix": {"os": ["linux"]}})
    scope.set_steps({"meta": ["tags"]})
    scope.place = place
    assert scope.holds(text) == holds


def test_outputs_of_steps() -> None:
    script = 'echo "a=1" >> "$GITHUB_OUTPUT"\necho "b=2"\n{\n  echo "c<<EOF"\n  make\n} >> "$GITHUB_OUTPUT"\n'
    assert outputs_of({"run": script}) == ["a", "c"]
    query = {"uses": "actions/github-script@v8", "with": {"script": "core.setOutput('x', 1)"}}
    assert outputs_of(query) == ["x"]
    assert outputs_of({"uses": "./.github/actions/setup"}) == []


def test_every_word_is_defined() -> None:
    for file in FILES:
        for name in re.findall(r"‹([A-Za-z_][\w -]*)›", (FOLDER / file).read_text(encoding="utf-8")):
            if name != "pin" and not name.endswith(" of"):
                LEXICON.use(name)  # an AssertionError names a word that is not


@pytest.mark.parametrize("file", [file for file in FILES if file != "actions.yaml"])
def test_actions_and_their_inputs_exist(file: str) -> None:
    for step in _mappings(read(file)):
        plain = {key.split(" ‹")[0]: value for key, value in step.items()}
        uses = plain.get("uses")
        if (
            isinstance(uses, str)
            and not uses.startswith(("./", "docker://", "‹called›"))
            and "/workflows/" not in uses
        ):
            assert uses.endswith("@‹pin›"), f"{uses}: pinned by @‹pin›"
            for action in uses.removesuffix("@‹pin›").strip("‹›").split("|"):
                settings = plain.get("with", {})
                keys = {key.split(" ‹")[0] for key in settings} if isinstance(settings, dict) else set()
                assert keys <= ACTIONS[action].inputs, f"{action}: {sorted(keys - ACTIONS[action].inputs)}"


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_retired(file: str) -> None:
    assert RETIRED.findall((FOLDER / file).read_text(encoding="utf-8")) == []


def test_actions_are_pinned_to_full_commits_and_tags() -> None:
    for name, action in ACTIONS.items():
        assert action.versions or action.commits, name
        assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in action.commits), name
        assert not any(re.fullmatch("[0-9a-f]{40}", version) for version in action.versions), name


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """For each template its workflows, by a name for their files."""
    drawn: dict[str, dict[str, Any]] = {}
    for index in range(DRAWS):
        for name, template in WORKFLOWS.items():
            drawn[f"{name}-{index}"] = write_template(_writer(index, "python"), template)
        for language in ECOSYSTEMS:
            drawn[f"{language}-{index}"] = _workflow_of_all_steps(index, language)
    return drawn


def test_each_template_alone_is_a_valid_workflow(alone: dict[str, dict[str, Any]]) -> None:
    tokenizer = load_tokenizer()
    for name, workflow in alone.items():
        assert tokenizer.decode_value(tokenizer.encode_value(workflow)) == workflow, name
        assert to_json(read_workflow(to_yaml(workflow), "yaml")) == to_json(workflow), name


# One bash for all scripts: each becomes the body of a function, which is parsed and never called.
PARSE = """while IFS= read -r -d '' script; do
  eval "f() { :
$script
}" || { echo "$script" >&2; exit 1; }
done"""


def test_shell_scripts_parse(alone: dict[str, dict[str, Any]]) -> None:
    workflows = [*alone.values(), *(synthesize(index, seed=1) for index in range(60))]
    scripts = {
        re.sub(r"\$\{\{.*?\}\}", "x", step["run"])
        for workflow in workflows
        for job in workflow["jobs"].values()
        for step in job.get("steps", ())
        if "run" in step and step.get("shell", "bash").startswith(("bash", "sh"))
    }
    for extra, code in (("", 0), ("if true; then echo", 1)):
        text = "".join(f"{script}\0" for script in [*sorted(scripts), extra])
        result = subprocess.run(["bash", "-c", PARSE], input=text, text=True, capture_output=True)
        assert result.returncode == code, result.stderr


@pytest.mark.timeout(600)
def test_github_accepts(alone: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    if not os.environ.get("NPM_DIR"):
        pytest.skip(
            "NPM_DIR is not set (a folder where npm has installed @actions/workflow-parser, @actions/languageservice "
            "and vscode-languageserver-textdocument)"
        )
    drawn = {name: workflow for name, workflow in alone.items() if name.endswith("-0")}
    for name, workflow in {
        **drawn,
        **{f"any-{index}": synthesize(index, seed=1) for index in range(40)},
    }.items():
        (tmp_path / f"{name}.yml").write_text(to_yaml(workflow), encoding="utf-8")
    script = Path(__file__).with_name("github.mjs")
    result = subprocess.run(["node", script, tmp_path], text=True, capture_output=True, check=True)
    assert result.stdout == ""


def _writer(index: int, language: str) -> Writer:
    writer = Writer(index, seed=0)
    settle(writer, language)
    return writer


def _workflow_of_all_steps(index: int, language: str) -> dict[str, Any]:
    """A workflow with a job for each kind, of all of the language's steps of this kind; and of the shared steps."""
    writer, ecosystem = _writer(index, language), ECOSYSTEMS[language]
    workflow: dict[str, Any] = {"on": ["push", "pull_request", "workflow_dispatch", "release"], "jobs": {}}
    writer.scope.define("on", workflow["on"])
    shared = [LEXICON.use(f"{section} step") for section in ("start", "early", "middle", "end")] * 12
    for kind, templates in {**ecosystem.jobs, "shared": shared}.items():
        writer.scope.enter_job()
        steps = StepList(writer, 0)
        for template in [*ecosystem.setup, *templates]:
            steps.add("middle", template)
        workflow["jobs"][kind] = {"runs-on": "ubuntu-latest", "steps": steps.all()}
    return workflow


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _mappings(member)
