"""The steps of a job: those of its kind and language, then others up to the planned size."""

import re
from textwrap import indent
from typing import Any

from nanochat_tct.synthetic.author import Author, measure
from nanochat_tct.synthetic.library import ACTIONS, FILL, SCRIPT_WORDS, SCRIPTS, Ecosystem
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON, Generator
from nanochat_tct.synthetic.writer import Writer

Step = dict[str, Any]
_SECTIONS = (
    "start",
    "early",
    "middle",
    "end",
)  # of a job: before its checkout, before its work, its work, after it
_SCRIPTED = ("script", "prepare", "notify")  # kinds of jobs that do not set a language up
_INDENTED = re.compile(r"^ +", re.M)
_OUTPUT_LINE = re.compile(r"""echo "([\w-]+)=[^\n]*>> *"?\$GITHUB_OUTPUT""")
_OUTPUT_BLOCK = re.compile(r"""^{\n +echo "([\w-]+)<<EOF"\n(?: .*\n)*} >> "\$GITHUB_OUTPUT""", re.M)

_SCRIPT_OUTPUT = re.compile(r"core\.setOutput\('([\w-]+)'")


class StepList:
    """The steps of a job while they are written, in sections; `left` is the number of characters for more."""

    def __init__(self, writer: Writer, author: Author, size: int) -> None:
        self.writer, self.author, self.left = writer, author, size
        self.sections: dict[str, list[Step]] = {section: [] for section in _SECTIONS}

    def add(self, section: str, template: Generator | None, *, plain: bool = False) -> None:
        """Add a step to the end of a section: that of the template, or (None) a script.

        A step is left out if an earlier one has its id. A plain step gets nothing that the template does not have.
        """
        writer = self.writer
        writer.forget(("it",))
        steps = writer.scope.steps
        if section in ("start", "early") and self.sections["middle"]:
            writer.scope.steps = {}  # the steps so far come after this one
        writer.scope.place = "step"
        step = template(writer) if template else write_script(writer, self._script_size())
        is_usable = step is not LEFT_OUT and ("run" in step or "uses" in step) and step.get("id") not in steps
        if is_usable:
            step = dict(step)  # a copy, as the template may be a word with a fixed value
            if not plain:
                _decorate(writer, step)
        writer.scope.steps = steps
        if not is_usable:
            self.left -= 5  # so that filling a job ends
            return
        if "id" in step:
            steps[step["id"]] = outputs_of(step)
        step = self.author.step(writer, step)
        self.left -= measure(step) + 1
        self.sections[section].append(step)

    def all(self) -> list[Step]:
        """Return the steps in their order."""
        return [step for section in _SECTIONS for step in self.sections[section]]

    def _script_size(self) -> int:
        """Return the length of a script, of which most is shorter than what is left."""
        random = self.writer.random
        wanted = int(95 * 2 ** (6.6 * random() * (0.55 + 0.45 * random())))
        return max(20, min(wanted, self.left - 60))


def write_steps(writer: Writer, author: Author, ecosystem: Ecosystem, kind: str, size: int) -> list[Step]:
    """Return the steps of a job: checkout, set-up, those of its kind, and others until the size is reached."""
    steps = StepList(writer, author, size)
    scripted = kind in _SCRIPTED
    if size > 150 and writer.chance(0.1):
        steps.add("start", LEXICON.use("harden"), plain=True)
    if kind == "notify":
        steps.add("end", LEXICON.use("notify"))
    elif size > 90 and writer.chance(0.75 if scripted else 0.95):
        steps.add("start", LEXICON.use("checkout"), plain=True)
    if kind == "prepare" and writer.chance(0.35):
        steps.add("middle", LEXICON.use("changes"))
    if not scripted:
        for template in ecosystem.setup:
            if steps.left > 60 and writer.chance(0.35 if size < 300 else 0.72):
                steps.add("early", template)
        own = ecosystem.jobs.get(kind) or ecosystem.jobs.get("test") or ecosystem.jobs["build"]
        for template in writer.sample(own, max(1, min(len(own), steps.left // 130))):
            if steps.left > 60 or not steps.sections["middle"]:
                steps.add("middle", template)
    while steps.left > 70 or not any(steps.sections.values()):
        if steps.left < 230 and not (steps.sections["middle"] or steps.sections["end"]):
            steps.add("middle", LEXICON.use("command step"))
        elif scripted:
            steps.add("middle", None)
        else:
            section, fill = writer.weighted(FILL)
            if len(steps.sections[section]) < 8 or section == "middle":
                steps.add(section, fill)
    return steps.all()


def write_script(writer: Writer, size: int) -> Step:
    """Return a step with a script of about `size` characters, in one of four languages."""
    language = writer.random()
    name = LEXICON.word(writer, "script name")
    if language < 0.08 and size > 120:
        settings = {"github-token": LEXICON.word(writer, "token")} if writer.chance(0.4) else {}
        settings["script"] = _blocks(writer, 3 * size, "javascript", 0.2)
        return {"name": name, "uses": LEXICON.word(writer, "pin")("actions/github-script"), "with": settings}
    step: Step = {"name": name}
    if writer.chance(0.66):
        step["id"] = SCRIPT_WORDS["ids"](writer)
    if size > 100 and writer.chance(0.25):
        step["env"] = LEXICON.word(writer, "variables")
    if language < 0.09:
        return {**step, "shell": "pwsh", "run": _blocks(writer, size, "powershell")}
    if language < 0.096:
        return {**step, "shell": "python", "run": _blocks(writer, size, "python")}
    return {**step, "run": _blocks(writer, size, "bash")}


def outputs_of(step: Step) -> list[str]:
    """Return the known names of a step's outputs."""
    if "run" in step:
        return list(dict.fromkeys(_OUTPUT_LINE.findall(step["run"]) + _OUTPUT_BLOCK.findall(step["run"])))
    action = str(step["uses"]).split("@")[0]
    if action == "actions/github-script":
        return list(dict.fromkeys(_SCRIPT_OUTPUT.findall(step["with"]["script"])))
    if action == "dorny/paths-filter":
        return re.findall(r"^([\w-]+):", step["with"]["filters"], re.M)
    return ACTIONS[action].outputs if action in ACTIONS else []


def _blocks(writer: Writer, size: int, language: str, gaps: float = 0.25) -> str:
    """Return blocks of the language, one after the other, with about `size` characters."""
    parts: list[str] = []
    length = 0
    if language == "bash" and size > 150 and writer.chance(0.3):
        parts.append(SCRIPT_WORDS["begin"](writer) + "\n")
    if language == "python":
        parts.append(SCRIPT_WORDS["imports"](writer) + "\n")
    library = SCRIPTS[language]
    others = iter(writer.shuffled(library)) if language != "bash" else None  # whose blocks declare names
    for _ in range(1 + size // 8):
        template = next(others, None) if others else writer.pick(library)
        if template is None:
            break
        if writer.chance(0.5):
            writer.forget(("lower", "upper"))
        block = template(writer)
        if block is LEFT_OUT:
            continue
        if language == "bash" and "<<" not in block and writer.chance(0.15):
            test = LEXICON.word(writer, "test")
            block = f"if [ {test} ]; then\n{indent(block.rstrip(), '  ')}\nfi\n"
        if parts and size > 250 and writer.chance(gaps):
            remark = language == "bash" and writer.chance(0.3)
            block = "\n" + (f"# {LEXICON.word(writer, 'remark')}\n" if remark else "") + block
        parts.append(block if block.endswith("\n") else block + "\n")
        length += len(block) + 1
        if length >= size:
            break
    script = "".join(parts) or "true\n"
    if language != "python" and writer.habit("indent") < 0.45:  # by four columns, not two
        script = _INDENTED.sub(lambda spaces: spaces[0] * 2, script)
    return script if script.count("\n") > 1 else script[:-1]


def _decorate(writer: Writer, step: Step) -> None:
    """Add keys that any step may have to some steps."""
    if not writer.chance(0.32):
        return
    if "if" not in step and writer.chance(0.55):
        step.update(LEXICON.word(writer, "some condition"))
    if "run" not in step:
        return
    if "env" not in step and writer.chance(0.33):
        step["env"] = LEXICON.word(writer, "variables")
    if writer.chance(0.24):
        step["timeout-minutes"] = writer.pick((1, 2, 5, 10, 15, 20, 30, 45))
    if writer.chance(0.16):
        step["continue-on-error"] = True
    if "working-directory" not in step and writer.chance(0.3):
        step["working-directory"] = LEXICON.word(writer, "workdir")
    if "shell" not in step and writer.chance(0.25):
        step["shell"] = writer.pick(("bash",) * 12 + ("sh", "bash -euxo pipefail {0}"))
