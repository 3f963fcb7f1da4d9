"""The templates, read from the YAML files of this package and compiled once."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nanochat_tct.documents import read_document
from nanochat_tct.synthetic.scope import REFERENCES
from nanochat_tct.synthetic.template import LEXICON, Generator, compile_member, compile_text, compile_value
from nanochat_tct.synthetic.writer import Writer

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Action:
    """An action: its version tags, the commits of its releases, and the names of its inputs and outputs."""

    versions: list[str]
    commits: list[str]
    inputs: frozenset[str]
    outputs: list[str]


class Axis(NamedTuple):
    """A dimension of a matrix: its key, the word for its value in the job's steps, or "", and its values."""

    key: str
    word: str
    values: list[Any]


@dataclass(frozen=True)
class Ecosystem:
    """Steps of one language or tool, in the order of a job.

    Attributes:
        title: its name as prose writes it.
        setup: steps that install the toolchain and the dependencies, after the checkout.
        jobs: for each kind of job (lint, test, build, ...) its own steps.
        axes: dimensions that a matrix may have.
        paths: globs of the files that concern it.
        words: words with fixed values in its workflows.
        env: variables that its workflows set.
        image: a container image that its jobs may run in.
    """

    title: str
    setup: list[Generator]
    jobs: dict[str, list[Generator]]
    axes: list[Axis]
    paths: list[str]
    words: Generator
    env: Generator
    image: Generator


@dataclass(frozen=True)
class Part:
    """A workflow or a job: its keys, those first that others refer to, and its jobs or steps."""

    keys: Generator
    jobs: list[tuple[Generator, "Part"]]
    steps: list[Generator]


def read(name: str) -> Any:
    """Return the value of a YAML file of the templates."""
    return read_document((FOLDER / name).read_bytes(), "yaml")


def compile_part(template: dict[str, Any]) -> Part:
    """Compile a workflow or a job."""
    keys = [key for key in template if key not in ("jobs", "like", "steps")]
    keys.sort(key=lambda key: key.split()[0] not in ("on", "needs", "strategy", "container", "services"))
    return Part(
        compile_value({key: template[key] for key in keys}, part=True),
        [(compile_text(name), compile_part(job)) for name, job in template.get("jobs", {}).items()],
        [compile_value(step) for step in template.get("steps", ())],
    )


def _compile_ecosystem(template: dict[str, Any]) -> Ecosystem:
    axes = []
    for text, values in template.get("matrix", {}).items():
        key, _, word = text.partition(" = ")
        axes.append(Axis(key, word.strip("‹›"), values))
    return Ecosystem(
        template["title"],
        [compile_value(step) for step in template["setup"]],
        {kind: [compile_value(step) for step in steps] for kind, steps in template["jobs"].items()},
        axes,
        template["paths"],
        compile_value(template.get("words", {})),
        compile_value(template.get("env", {})),
        compile_text(template.get("images", "‹container_image›")),
    )


def _reference(writer: Writer, word: str) -> str:
    names = writer.scope.names[word]
    return writer.pick(names) if names else "needs.missing"  # which is never written


def _use(writer: Writer, name: str) -> str:
    """Return `owner/name@version` as this author refers to the action: by commit or by tag."""
    action = ACTIONS[name]
    by_commit = writer.random() < LEXICON.word(writer, "by commit")
    choices = action.commits if (by_commit and action.commits) or not action.versions else action.versions
    return f"{name}@{choices[int(LEXICON.word(writer, 'age') * len(choices))]}"


def _components(writer: Writer) -> list[str]:
    """Return the few components that a workflow is about."""
    components = [writer.pick(_COMPONENTS) for _ in range(writer.number(3, 9))]
    for index, component in enumerate(components):
        if writer.chance(0.75 * writer.detail - 0.1):
            components[index] = f"{component}-{writer.pick(_COMPONENTS)}"
    return list(dict.fromkeys(components))


def _project(writer: Writer) -> str:
    return str(LEXICON.word(writer, "project"))


ACTIONS = {
    name: Action(
        action.get("versions", "").split(),
        list(action.get("commits", {}).values()),
        frozenset(action.get("inputs", "").split()),
        action.get("outputs", "").split(),
    )
    for name, action in read("actions.yaml").items()
}
for _file in sorted(FOLDER.glob("*.yaml")):
    if _file.stem not in ("actions", "head", "jobs", "scripts"):
        LEXICON.add(read(_file.name), facts=_file.stem in ("facts", "style"))
_COMPONENTS = read("words.yaml")["anywhere"]["‹one of›"]
LEXICON.add({name: partial(_use, name=name) for name in ACTIONS}, facts=True)
LEXICON.add({"components": _components, "age": lambda writer: writer.random()}, facts=True)
LEXICON.add({word: partial(_reference, word=word) for word in REFERENCES})
LEXICON.add(
    {
        "package": lambda writer: _project(writer).replace("-", "_"),
        "flat": lambda writer: _project(writer).replace("-", ""),
        "pascal": lambda writer: _project(writer).title().replace("-", ""),
        "component": lambda writer: writer.pick(LEXICON.word(writer, "components")),
        "Language": lambda writer: writer.facts["ecosystem"].title,
        "ecosystem path": lambda writer: writer.pick(writer.facts["ecosystem"].paths),
        "ecosystem env": lambda writer: writer.facts["ecosystem"].env(writer),
        "ecosystem image": lambda writer: writer.facts["job ecosystem"].image(writer),
    }
)
# For each language of scripts the blocks that they are made of.
SCRIPTS = {name: [compile_member(block) for block in blocks] for name, blocks in read("scripts.yaml").items()}
ECOSYSTEMS = {
    name: _compile_ecosystem(template)
    for file in sorted(FOLDER.glob("ecosystems/*.yaml"))
    for name, template in read(f"ecosystems/{file.name}").items()
}
