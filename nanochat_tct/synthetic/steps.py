"""The steps of a job: those that its kind begins with, those of its language, then others up to the planned size."""

import re
from functools import partial
from typing import Any

from nanochat_tct.synthetic.library import ACTIONS, SCRIPTS, Ecosystem
from nanochat_tct.synthetic.style import measure, styled
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON, Generator
from nanochat_tct.synthetic.writer import Writer

Step = dict[str, Any]
# Sections of a job, in order: what it begins with, its set-up, its work, what comes after it.
_SECTIONS = ("start", "early", "middle", "end")
_INDENTED = re.compile(r"^ +", re.M)
_OUTPUT_LINE = re.compile(r"""echo "([\w-]+)=[^\n]*>> *"?\$GITHUB_OUTPUT""")
_OUTPUT_BLOCK = re.compile(r"""^{\n +echo "([\w-]+)<<EOF"\n(?: .*\n)*} >> "\$GITHUB_OUTPUT""", re.M)
_SCRIPT_OUTPUT = re.compile(r"core\.setOutput\('([\w-]+)'")


class StepList:
    """The steps of a job while they are written, in sections; `left` is the number of characters for more."""

    def __init__(self, writer: Writer, size: int) -> None:
        self.writer, self.left = writer, size
        self.sections: dict[str, list[Step]] = {section: [] for section in _SECTIONS}
        self._taken: set[str] = set()  # ids and names
        self._outputs: dict[str, tuple[str, list[str]]] = {}  # by id: section and names of outputs

    def add(self, section: str, template: Generator, *, plain: bool = False) -> None:
        """Add a step to the end of a section, unless its template leaves it out or another step has its id or name.

        The step may refer to those before it. A plain step gets nothing that the template does not have. A script has
        an id only if it sets outputs.
        """
        writer, scope = self.writer, self.writer.scope
        writer.forget("it")
        writer.size = self._step_size()
        scope.place = "step"
        if self._outputs:
            before = _SECTIONS[: _SECTIONS.index(section) + 1]
            scope.set_steps(
                {step: names for step, (where, names) in self._outputs.items() if where in before}
            )
        step = template(writer)
        self.left -= 5  # so that filling a job ends
        if step is LEFT_OUT or not ("run" in step or "uses" in step):
            return
        if not plain and section in ("middle", "end") and writer.chance(0.3 * writer.detail**2):
            step = {**LEXICON.word(writer, "script keys" if "run" in step else "action keys"), **step}
        outputs = outputs_of(step) if "id" in step else []
        if "run" in step and not outputs:
            step.pop("id", None)
        taken = {step[key] for key in ("id", "name") if key in step}
        if not self._taken.isdisjoint(taken):
            return
        self._taken |= taken
        if "id" in step:
            self._outputs[step["id"]] = section, outputs
        step = styled(writer, "step", step)
        self.left -= measure(step) - 4
        self.sections[section].append(step)

    def fill(self, ecosystem: Ecosystem, kind: str) -> None:
        """Add steps that set the language up, those of the kind of job, and others up to the planned size."""
        writer, is_small = self.writer, self.left < 300
        if kind not in ("script", "prepare"):
            for template in ecosystem.setup:
                if self.left > 60 and writer.chance(0.35 if is_small else 0.64):
                    self.add("early", template)
            own = ecosystem.jobs.get(kind) or ecosystem.jobs.get("test") or ecosystem.jobs["build"]
            for template in writer.sample(own, 1 + self.left // 1000):
                if self.left > 60 or not self.sections["middle"]:
                    self.add("middle", template)
        middle, end = self.sections["middle"], self.sections["end"]
        while self.left > 70 or not (middle or end):
            section = LEXICON.word(writer, "section")
            if self.left < 230 and not (middle or end):
                self.add("middle", LEXICON.use("small step"))
            elif kind in ("script", "prepare"):
                self.add("middle", LEXICON.use("script step"))
            elif len(self.sections[section]) < 8 or section == "middle":
                self.add(section, LEXICON.use(f"{section} step"))

    def all(self) -> list[Step]:
        """Return the steps in their order."""
        return [step for section in _SECTIONS for step in self.sections[section]]

    def outputs(self) -> list[str]:
        """Return expressions for the outputs of a step that has any, after adding one if there is none."""
        if not any(names for _, names in self._outputs.values()):
            self.add("end", LEXICON.use("output step"), plain=True)
        found = [(step, names) for step, (_, names) in self._outputs.items() if names]
        step, names = self.writer.pick(found) if found else ("", [])
        return [
            f"steps.{step}.outputs.{name}" for name in self.writer.sample(names, self.writer.number(2, 9))
        ]

    def _step_size(self) -> int:
        """Return a length for a script, of which most is shorter than what is left."""
        random = self.writer.random()
        count = sum(map(len, self.sections.values()))
        scale = 0.6 if count < 6 else 1.9  # jobs with many steps have long ones, rather than still more
        wanted = int(scale * (60 + self.left / 45) * 2 ** (5.3 * random**2))
        return max(20, min(wanted, int(0.6 * self.left)))


def outputs_of(step: Step) -> list[str]:
    """Return the known names of a step's outputs."""
    if "run" in step:
        return _outputs_in(step["run"])
    action = str(step["uses"]).split("@")[0]
    if action == "actions/github-script":
        return _outputs_in(step["with"]["script"])
    if action == "dorny/paths-filter":
        return re.findall(r"^([\w-]+):", step["with"]["filters"], re.M)
    return ACTIONS[action].outputs if action in ACTIONS else []


def _outputs_in(script: str) -> list[str]:
    """Return the names of the outputs that a script sets."""
    found = (pattern.findall(script) for pattern in (_OUTPUT_LINE, _OUTPUT_BLOCK, _SCRIPT_OUTPUT))
    return list(dict.fromkeys(name for names in found for name in names))


def _script(writer: Writer, language: str) -> str:
    """Return blocks of the language, one after the other, with about the planned number of characters.

    No block sets an output that one before it has set.
    """
    size, script = writer.size, ""
    outputs: set[str] = set()
    blocks = list(SCRIPTS[language])
    while blocks and len(script) < size:
        if writer.chance(0.5):
            writer.forget("lower", "upper")
        template = writer.pick(blocks)
        if language != "bash":
            blocks.remove(template)  # these blocks declare names: each may be there once
        block = template(writer)
        if block is LEFT_OUT or not outputs.isdisjoint(names := _outputs_in(block)):
            continue
        outputs.update(names)
        if script and size > 250 and writer.chance(0.25):
            script += "\n"
        script += block.rstrip("\n") + "\n"
    if language != "python" and LEXICON.word(writer, "indentation") == 4:
        script = _INDENTED.sub(lambda spaces: spaces[0] * 2, script)
    return script if script.count("\n") > 1 else script[:-1]


LEXICON.add({f"{language} script": partial(_script, language=language) for language in SCRIPTS})
