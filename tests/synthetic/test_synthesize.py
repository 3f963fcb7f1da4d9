"""Synthetic workflows: the same for the same seed, valid, as large and as varied as real ones; and the command."""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema.formats import FormatOptions
from check_jsonschema.regex_variants import RegexImplementation, RegexVariantName
from check_jsonschema.schema_loader import BuiltinSchemaLoader

from nanochat_tct.check import check_text
from nanochat_tct.documents import read_workflow, to_json, to_yaml
from nanochat_tct.synthetic.config import SynthesizeConfig
from nanochat_tct.synthetic.library import ECOSYSTEMS
from nanochat_tct.synthetic.synthesize import MARKER, synthesize, synthesize_folder
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.commands import Finished, assert_user_error, full_disk

COUNT = 1500
# Of 10,051 real workflows as compact JSON: bytes at these percentiles. Ours may differ by a quarter.
REAL_SIZES = {5: 291, 25: 836, 50: 1929, 75: 3656, 95: 11566, 99: 27277}
# SHA-256 of to_json of workflows 0 to 49 of seeds 0 and 1, a line each: changes only when what is written is meant to.
PINNED = "44d537bd5b293a643d1dfafcd05820f65d0aec8f80e790955f64f9fe111cc130"


@pytest.fixture(scope="module")
def workflows() -> list[dict[str, Any]]:
    """Workflows 0, 1, 2, ... of seed 0."""
    return [synthesize(index, seed=0) for index in range(COUNT)]


def jobs_of(workflows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for workflow in workflows:
        yield from workflow["jobs"].values()


def steps_of(workflows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for job in jobs_of(workflows):
        yield from job.get("steps", [])


def test_the_same_workflows_on_every_machine() -> None:
    digest = hashlib.sha256()
    for seed in (0, 1):
        for index in range(50):
            digest.update(to_json(synthesize(index, seed)).encode() + b"\n")
    assert digest.hexdigest() == PINNED


def test_a_workflow_depends_on_nothing_but_index_and_seed(workflows: list[dict[str, Any]]) -> None:
    for index in (1234, 7, 1499):
        assert to_json(synthesize(index, seed=0)) == to_json(workflows[index])  # whatever was made before
    assert synthesize(7, seed=1) != workflows[7]


def test_no_two_concurrency_groups_are_the_same(workflows: list[dict[str, Any]]) -> None:
    for workflow in (*workflows, synthesize(463, seed=31)):  # the last one had two
        parts = [
            part["concurrency"] for part in (workflow, *workflow["jobs"].values()) if "concurrency" in part
        ]
        groups = [part["group"] if isinstance(part, dict) else part for part in parts]
        assert len(groups) == len(set(groups)), groups  # GitHub's service calls two the same a deadlock


def test_valid_under_the_schema(workflows: list[dict[str, Any]]) -> None:
    regex = RegexImplementation(RegexVariantName.default)
    validator = BuiltinSchemaLoader("vendor.github-workflows").get_validator(
        "", {}, FormatOptions(regex_impl=regex), regex, fill_defaults=False
    )
    for index, workflow in enumerate(workflows[:320]):
        errors = [error.message for error in validator.iter_errors(workflow)]
        assert not errors, (index, errors[:1])


def test_sizes_spread_as_real_ones_do(workflows: list[dict[str, Any]]) -> None:
    sizes = sorted(len(to_json(workflow).encode()) for workflow in workflows)
    for percentile, real in REAL_SIZES.items():
        size = sizes[len(sizes) * percentile // 100]
        assert 0.75 * real <= size <= 1.25 * real, (percentile, size, real)


def test_structure_is_like_real_ones(workflows: list[dict[str, Any]]) -> None:
    jobs, steps = list(jobs_of(workflows)), list(steps_of(workflows))
    assert 1.6 <= len(jobs) / len(workflows) <= 2.8  # really 2.2
    assert 6 <= len(steps) / len(workflows) <= 13  # really 9.5
    assert 0.4 <= sum("uses" in step for step in steps) / len(steps) <= 0.6  # really 0.52
    assert (
        0.2 <= sum(len(step.get("run", "")) for step in steps) / sum(map(len, map(to_json, workflows))) <= 0.4
    )
    pinned = [step["uses"] for step in steps if "@" in step.get("uses", "")]
    assert 0.35 <= sum(len(uses.split("@")[1]) == 40 for uses in pinned) / len(pinned) <= 0.62  # really half
    not_ascii = sum(not to_json(workflow).isascii() for workflow in workflows) / len(workflows)
    assert 0.02 <= not_ascii <= 0.15  # really 0.09


def test_job_and_step_references_exist(workflows: list[dict[str, Any]]) -> None:
    for workflow in workflows:
        for name, job in workflow["jobs"].items():
            needs = job.get("needs", [])
            for needed in [needs] if isinstance(needs, str) else needs:
                assert needed in workflow["jobs"] and needed != name


def test_nothing_is_complained_of(workflows: list[dict[str, Any]]) -> None:
    for index, workflow in enumerate(workflows[:100]):
        assert check_text(f"{index}.yml", to_yaml(workflow).encode(), load_tokenizer()) == []


EVENTS = """push push:null pull_request schedule release workflow_run issues merge_group workflow_call
    workflow_dispatch workflow_dispatch:null repository_dispatch issue_comment"""


def test_every_feature_occurs(workflows: list[dict[str, Any]]) -> None:
    some = workflows[:500]
    jobs, steps = list(jobs_of(some)), list(steps_of(some))
    scripts = [step["run"] for step in steps if "run" in step]
    events: Counter[str] = Counter()
    inputs: Counter[str] = Counter()
    values: Counter[type] = Counter()
    for workflow in some:
        on = workflow["on"]
        events.update([on] if isinstance(on, str) else list(on))
        if isinstance(on, dict):
            events.update(f"{name}:null" for name, event in on.items() if event is None)
            for event in filter(None, (on.get("workflow_dispatch"), on.get("workflow_call"))):
                inputs.update(item["type"] for item in event.get("inputs", {}).values())
                events.update(f"call:{key}" for key in event)
            events.update(f"filter:{key}" for name in ("push", "pull_request") for key in on.get(name) or {})
        _count_types(workflow, values)
    matrices = [job["strategy"]["matrix"] for job in jobs if "strategy" in job]
    found = {
        "events": events.keys() >= set(EVENTS.split()),
        "reusable workflows": events.keys() >= {"call:inputs", "call:secrets", "call:outputs"},
        "inputs of every type": inputs.keys() == {"string", "boolean", "number", "choice", "environment"},
        "filters": events.keys() >= {"filter:paths", "filter:paths-ignore", "filter:tags", "filter:types"},
        "on as text, list and mapping": {type(workflow["on"]) for workflow in some} == {str, list, dict},
        "values": values.keys() >= {str, int, float, bool, type(None), dict, list},
        "calls": {job["uses"].startswith("./") for job in jobs if "uses" in job} == {True, False},
        "inherited secrets": any(job.get("secrets") == "inherit" for job in jobs),
        "matrices": {"include", "exclude", "os"}
        <= {key for m in matrices if isinstance(m, dict) for key in m},
        "matrix from an expression": any("fromJSON" in to_json(matrix) for matrix in matrices),
        "services": any("services" in job for job in jobs),
        "containers": {type(job["container"]) for job in jobs if "container" in job} == {str, dict},
        "environments": {type(job["environment"]) for job in jobs if "environment" in job} == {str, dict},
        "outputs": any("outputs" in job for job in jobs),
        "needs": {type(job["needs"]) for job in jobs if "needs" in job} == {str, list},
        "conditions": any("if" in job for job in jobs) and any("if" in step for step in steps),
        "permissions": {type(workflow.get("permissions")) for workflow in some} >= {str, dict},
        "concurrency": {type(workflow.get("concurrency")) for workflow in some} >= {str, dict},
        "defaults": any("defaults" in workflow for workflow in some),
        "timeouts": any("timeout-minutes" in job for job in jobs),
        "continue-on-error": any("continue-on-error" in step for step in steps),
        "pinned commits": any(len(step["uses"].split("@")[-1]) == 40 for step in steps if "uses" in step),
        "local actions": any(step.get("uses", "").startswith("./") for step in steps),
        "shells": {step["shell"] for step in steps if "shell" in step} >= {"bash", "pwsh", "python"},
        "bash": all(
            any(part in script for script in scripts) for part in ("; then", "done", "<<", "() {", "case ")
        ),
        "long scripts": max(map(len, scripts)) > 2000,
        "github-script": any("script" in step.get("with", {}) for step in steps),
        "unnamed workflows and steps": any("name" not in w for w in some)
        and any("name" not in s for s in steps),
        "key orders": len({tuple(workflow) for workflow in some}) > 20,
        "actions": len({step["uses"].split("@")[0] for step in steps if "uses" in step}) > 250,
    }
    assert [feature for feature, occurs in found.items() if not occurs] == []
    assert len(ECOSYSTEMS) >= 33


def _count_types(value: Any, types: Counter[type]) -> None:
    types[type(value)] += 1
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _count_types(member, types)


def test_crons_and_identifiers_are_plausible(workflows: list[dict[str, Any]]) -> None:
    field = r"(\*|\d+|[A-Z]{3}|\d+-\d+|\d+(,\d+)+)(/\d+)?"
    for workflow in workflows:
        on = workflow["on"]
        for item in on.get("schedule", []) if isinstance(on, dict) else []:
            assert re.fullmatch(rf"{field}( {field}){{4}}", item["cron"]), item
    for step in steps_of(workflows):
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", step.get("id", "x")), step
        assert re.fullmatch(r"\./\S+|docker://\S+|[\w.-]+(/[\w.-]+)+@\S+", step.get("uses", "./x")), step


def test_hardly_any_duplicates(workflows: list[dict[str, Any]]) -> None:
    distinct = len({to_json(workflow) for workflow in workflows})
    assert distinct >= 0.995 * len(workflows)


def test_yaml_reads_back_equal(workflows: list[dict[str, Any]]) -> None:
    for workflow in workflows[:60]:
        assert to_json(read_workflow(to_yaml(workflow), "yaml")) == to_json(workflow)


def test_no_template_marks_are_left(workflows: list[dict[str, Any]]) -> None:
    assert not any(mark in to_json(workflow) for workflow in workflows for mark in "‹›¦×")


def test_scripts_set_an_output_once_and_call_what_they_define(workflows: list[dict[str, Any]]) -> None:
    scripts = [step["run"] for step in steps_of(workflows) if "GITHUB_OUTPUT" in step.get("run", "")]
    for script in scripts:
        # Branches of a condition, which are indented, may set the same one.
        outputs = re.findall(r"""^echo "([\w-]+)=.*GITHUB_OUTPUT""", script, re.M)
        assert len(outputs) == len(set(outputs)), script
    functions = [
        (name, script)
        for script in (step.get("run", "") for step in steps_of(workflows))
        for name in re.findall(r"^(?:function )?(\w[\w-]*)(?:\(\))? {$", script, re.M)
    ]
    assert len(functions) > 20
    assert [name for name, script in functions if not re.search(rf"^{name} ", script, re.M)] == []


def test_only_boolean_inputs_are_taken_for_true_or_false(workflows: list[dict[str, Any]]) -> None:
    compared = re.compile(r"""inputs\.([\w-]+)(?: }}\\")? [!=]?= (?:true|false|'true'|\\"true)""")
    found = 0
    for workflow in workflows:
        events = workflow["on"].values() if isinstance(workflow["on"], dict) else ()
        called = [event["inputs"] for event in events if isinstance(event, dict) and "inputs" in event]
        inputs = {name: each for inputs in called for name, each in inputs.items()}
        for name in compared.findall(to_json(workflow)):
            found += 1
            assert inputs[name]["type"] == "boolean", (name, inputs[name])
    assert found > 20


# ----------------------------------------------------------------------------- the command


def test_command_writes_the_workflows(run_here: Callable[..., Finished], tmp_path: Path) -> None:
    output = tmp_path / "workflows"
    result = run_here("synthesize", "--count", 12, "--output", output, "--seed", 5)
    assert result.code == 0, result.stderr
    files = sorted(path for path in output.iterdir() if path.suffix == ".json")
    assert [path.name for path in files] == [f"workflow-{index:06d}.json" for index in range(12)]
    assert [path.read_text(encoding="utf-8") for path in files] == [
        to_json(synthesize(i, 5)) for i in range(12)
    ]
    num_bytes = sum(path.stat().st_size for path in files)
    assert result.stdout.startswith(f"12 workflows, {num_bytes:,} bytes of JSON, seed 5: written to ")

    before = files[0].stat().st_mtime_ns
    again = run_here("synthesize", "--count", 12, "--output", output, "--seed", 5)
    assert "already in" in again.stdout and files[0].stat().st_mtime_ns == before

    other = run_here("synthesize", "--count", 3, "--output", output, "--format", "yaml")
    assert other.code == 0
    assert sorted(path.name for path in output.glob("workflow*")) == [
        f"workflow-00000{i}.yaml" for i in range(3)
    ]
    assert to_json(read_workflow((output / "workflow-000002.yaml").read_bytes(), "yaml")) == to_json(
        synthesize(2, 0)
    )


def test_many_go_to_sub_folders_and_a_killed_run_can_go_on(tmp_path: Path) -> None:
    config = SynthesizeConfig(count=1002, output=str(tmp_path / "many"))
    synthesize_folder(config)
    files = {path.relative_to(tmp_path / "many"): path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert len(files) == 1002 and Path("001/workflow-001001.json") in files

    marker = tmp_path / "many" / MARKER  # as a killed run leaves it: not ended, and not all files there
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "bytes": None}))
    (tmp_path / "many" / "000" / "workflow-000500.json").unlink()
    _, is_new = synthesize_folder(dataclasses.replace(config, concurrency=2))  # two processes: the same files
    assert is_new
    assert files == {
        path.relative_to(tmp_path / "many"): path.read_bytes() for path in tmp_path.rglob("*.json")
    }


@pytest.mark.parametrize("stranger", ["notes.txt", "workflow-000099.json"])
def test_another_folder_is_left_alone(
    run_here: Callable[..., Finished], tmp_path: Path, stranger: str
) -> None:
    run_here("synthesize", "--count", 2, "--output", tmp_path)
    (tmp_path / stranger).write_text("mine")
    result = run_here("synthesize", "--count", 3, "--output", tmp_path)
    assert_user_error(result, str(tmp_path), "empty folder")
    assert (tmp_path / stranger).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--count", "0", "--output", "x"], ["--count is 0"]),
        (["--output", "x"], ["--count"]),
        (["--count", "3"], ["--output"]),
        (["--count", "3", "--output", "x", "--format", "toml"], ["toml"]),
        (["--count", "3", "--output", "x", "--sead", "1"], ["--sead", "--seed"]),
    ],
)
def test_wrong_use_is_one_line(
    run_here: Callable[..., Finished],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_user_error(run_here("synthesize", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_that_names_the_output(
    run_here: Callable[..., Finished], tmp_path: Path
) -> None:
    with full_disk(250):
        result = run_here("synthesize", "--count", 20, "--output", tmp_path / "made")
    assert_user_error(result, f"no space left to write {tmp_path / 'made'}")
