"""The templates, read from the YAML files of this package and compiled once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat_tct.documents import read_document
from nanochat_tct.synthetic.template import LEXICON, Generator, compile_key, compile_text, compile_value
from nanochat_tct.synthetic.writer import Writer

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Action:
    """An action: its version tags, the commits of its releases, and the names of its inputs and outputs."""

    versions: list[str]
    commits: list[str]
    inputs: frozenset[str]
    outputs: list[str]


@dataclass(frozen=True)
class Axis:
    """A dimension of a matrix: its key, the word for its value in the job's steps, or "", and its values."""

    key: str
    word: str
    values: list[Any]


@dataclass(frozen=True)
class Ecosystem:
    """Steps of one language or tool, in the order of a job.

    Attributes:
        name: its name.
        setup: steps that install the toolchain and the dependencies, after the checkout.
        jobs: for each kind of job (lint, test, build, ...) its own steps.
        axes: dimensions that a matrix may have.
        paths: globs of the files that concern it.
        words: words with fixed values in its workflows.
        env: variables that its workflows set.
        image: a container image that its jobs may run in, or None.
    """

    name: str
    setup: list[Generator]
    jobs: dict[str, list[Generator]]
    axes: list[Axis]
    paths: list[str]
    words: Generator
    env: Generator
    image: Generator | None


@dataclass(frozen=True)
class JobTemplate:
    """A job: the generators of its keys, in order, and of its steps."""

    keys: dict[str, Generator]
    steps: list[Generator]


@dataclass(frozen=True)
class WorkflowTemplate:
    """A workflow: the generators of its keys, and of the names and the parts of its jobs."""

    keys: dict[str, Generator]
    jobs: list[tuple[Generator, JobTemplate]]


def read(name: str) -> Any:
    """Return the value of a YAML file of the templates."""
    return read_document((FOLDER / name).read_bytes(), "yaml")


def compile_keys(template: dict[str, Any]) -> dict[str, Generator]:
    """Return the generators of a mapping's values, by key."""
    return dict(compile_key(key, value) for key, value in template.items())


def compile_workflow(template: dict[str, Any]) -> WorkflowTemplate:
    """Compile a whole workflow."""
    jobs = []
    for name, job in template["jobs"].items():
        keys = compile_keys({key: value for key, value in job.items() if key != "steps"})
        keys = {**{key: keys[key] for key in ("strategy",) if key in keys}, **keys}  # what others refer to
        jobs.append((compile_text(name), JobTemplate(keys, [compile_value(step) for step in job["steps"]])))
    return WorkflowTemplate(compile_keys({k: v for k, v in template.items() if k != "jobs"}), jobs)


def _compile_ecosystem(name: str, template: dict[str, Any]) -> Ecosystem:
    axes = []
    for key, values in template.get("matrix", {}).items():
        key, _, word = key.partition(" = ")
        axes.append(Axis(key, word.strip("‹›"), values))
    return Ecosystem(
        name,
        [compile_value(step) for step in template["setup"]],
        {kind: [compile_value(step) for step in steps] for kind, steps in template["jobs"].items()},
        axes,
        template["paths"],
        compile_value(template.get("words", {})),
        compile_value(template.get("env", {})),
        compile_text(template["images"]) if "images" in template else None,
    )


def _name_words() -> dict[str, Any]:
    """The words that are made from others, or from what there is in the workflow so far."""

    def project(writer: Writer) -> str:
        return str(LEXICON.word(writer, "project"))

    def one_of(references: str, otherwise: str) -> Generator:
        def write(writer: Writer) -> str:
            names = getattr(writer.scope, references)()
            return str(writer.pick(names)) if names else otherwise

        return write

    components = LISTS["component"]
    return {
        "package": lambda writer: project(writer).replace("-", "_"),
        "flat": lambda writer: project(writer).replace("-", ""),
        "pascal": lambda writer: project(writer).title().replace("-", ""),
        "component": lambda writer: writer.pick(LEXICON.word(writer, "components")),
        "anywhere": lambda writer: writer.pick(components),
        "input": one_of("input_references", "github.ref_name"),
        "step output": one_of("step_outputs", "github.run_id"),
        "job output": one_of("job_outputs", "github.sha"),
        "step reference": one_of("step_references", "steps.missing"),  # which is never written
        "job reference": one_of("job_references", "needs.missing"),
        "matrix key": one_of("matrix_references", "github.run_attempt"),
        "needed output": one_of("job_outputs", "needs.missing"),
        "env name": one_of("env_references", "github.repository"),
        "ecosystem path": lambda writer: writer.pick(writer.facts["ecosystem"].paths),
        "ecosystem env": lambda writer: writer.facts["ecosystem"].env(writer),
        "pin": lambda writer: lambda action: reference(writer, action),
    }


def reference(writer: Writer, name: str) -> str:
    """Return `owner/name@version` as this author refers to the action: by commit or by tag, the same each time."""
    if name not in writer.references:
        action = ACTIONS[name]
        by_commit = writer.habit("commits") < 0.55 or (writer.habit("commits") < 0.63 and writer.chance(0.3))
        choices = action.commits if (by_commit and action.commits) or not action.versions else action.versions
        version = choices[int(writer.habit("age") * len(choices))]
        writer.references[name] = f"{name}@{version}"
    return writer.references[name]


WORDS = read("words.yaml")
LISTS: dict[str, list[str]] = {name: text.split() for name, text in WORDS["lists"].items()}
ACTIONS = {
    name: Action(
        action.get("versions", "").split(),
        list(action.get("commits", {}).values()),
        frozenset(action.get("inputs", "").split()),
        action.get("outputs", "").split(),
    )
    for name, action in read("actions.yaml").items()
}
_JOBS, _HEAD, _SCRIPTS, _TRIGGERS = (
    read(f"{name}.yaml") for name in ("jobs", "workflow", "scripts", "triggers")
)
_STEPS = read("steps.yaml")
KINDS: list[tuple[float, str]] = []
JOB_KINDS: dict[str, list[tuple[float, str]]] = {}
for _kind, _template in _TRIGGERS.pop("kinds").items():
    KINDS.append((_template["weight"], _kind))
    JOB_KINDS[_kind] = [(weight, name) for name, weight in _template["jobs"].items()]
_FILL = _STEPS.pop("fill")
for _phrases in (
    {
        name: (lambda writer, items=items: writer.pick(items))
        for name, items in LISTS.items()
        if name != "component"
    },
    WORDS["phrases"],
    _name_words(),
    _JOBS["words"],
    _HEAD["words"],
    _STEPS,
    {name: template for name, template in _TRIGGERS.items() if name != "triggers"},
    *(read(f"{file}.yaml") for file in ("style", "tools", "settings")),
    {"script name": _SCRIPTS["titles"]},
):
    LEXICON.add({}, _phrases)
LEXICON.add(
    {**WORDS["facts"], "components": lambda writer: writer.sample(LISTS["component"], writer.number(3, 9))},
    {},
)
# How often, where, and which steps fill a job; None stands for a script.
FILL: list[tuple[float, tuple[str, Generator | None]]] = [
    (weight, (position, None if step == "script" else compile_value(step)))
    for weight, position, step in _FILL
]
TRIGGERS = {kind: compile_value(template) for kind, template in _TRIGGERS["triggers"].items()}
HEAD = compile_keys(_HEAD["workflow"])
WORKFLOW_TITLES = {kind: compile_text(title) for kind, title in _HEAD["titles"].items()}
JOB = compile_keys(_JOBS["job"])
JOB_MORE = {kind: compile_keys(template) for kind, template in _JOBS["more"].items()}
JOB_IDS = {kind: compile_text(text) for kind, text in _JOBS["ids"].items()}
JOB_TITLES = {kind: compile_text(text) for kind, text in _JOBS["titles"].items()}
SCRIPTS = {
    name: [compile_value(block) for block in blocks]
    for name, blocks in _SCRIPTS.items()
    if isinstance(blocks, list)
}
SCRIPT_WORDS = {  # what scripts begin with, and ids of their steps
    name: compile_text(text) for name, text in _SCRIPTS.items() if isinstance(text, str)
}
ECOSYSTEMS: list[tuple[float, Ecosystem]] = [
    (template["weight"], _compile_ecosystem(name, template))
    for file in sorted(FOLDER.glob("ecosystems/*.yaml"))
    for name, template in read(f"ecosystems/{file.name}").items()
]
WORKFLOWS = {
    file.stem: compile_workflow(read(f"workflows/{file.name}"))
    for file in sorted(FOLDER.glob("workflows/*.yaml"))
}
