"""Habits of an author that go through a whole workflow: what is named, the order of keys, how conditions are written."""

from typing import Any

from nanochat_tct.synthetic.template import LEXICON
from nanochat_tct.synthetic.writer import Writer

_STEP_ORDERS = [
    (5.0, "name id if continue-on-error timeout-minutes uses with working-directory shell env run"),
    (3.0, "name if id uses with env working-directory shell run timeout-minutes continue-on-error"),
    (1.5, "name uses id if with run working-directory shell env continue-on-error timeout-minutes"),
    (1.0, "id name if uses with run env working-directory shell timeout-minutes continue-on-error"),
    (0.8, "if name id env uses with timeout-minutes continue-on-error shell working-directory run"),
    (1.0, "uses name id with if run shell env working-directory timeout-minutes continue-on-error"),
]
_JOB_ORDERS = [
    (
        4.0,
        "name needs if runs-on environment concurrency timeout-minutes continue-on-error permissions strategy container services outputs defaults env steps",
    ),
    (
        3.0,
        "runs-on name needs if permissions timeout-minutes environment strategy container services concurrency continue-on-error env defaults outputs steps",
    ),
    (
        3.0,
        "name runs-on needs if timeout-minutes permissions strategy env defaults container services outputs environment concurrency continue-on-error steps",
    ),
    (
        1.5,
        "if name needs runs-on strategy permissions outputs timeout-minutes environment env container services defaults concurrency continue-on-error steps",
    ),
    (
        1.5,
        "needs name runs-on if strategy env permissions timeout-minutes environment container services defaults concurrency continue-on-error steps outputs",
    ),
    (
        1.0,
        "name permissions needs if strategy runs-on container services timeout-minutes env environment defaults concurrency continue-on-error outputs steps",
    ),
    (
        1.0,
        "strategy name runs-on timeout-minutes container services needs if permissions environment env defaults concurrency continue-on-error outputs steps",
    ),
]
_CALL_ORDERS = [
    (3.0, "name needs if permissions strategy concurrency uses with secrets"),
    (2.0, "uses needs if permissions strategy concurrency name with secrets"),
    (1.5, "needs if name uses with secrets permissions strategy concurrency"),
    (1.0, "name permissions needs uses if strategy concurrency with secrets"),
]
_WORKFLOW_ORDERS = [
    (8.0, "name run-name on permissions concurrency env defaults jobs"),
    (3.0, "name run-name on env permissions concurrency defaults jobs"),
    (3.5, "name run-name on concurrency permissions env defaults jobs"),
    (1.5, "name run-name on env concurrency defaults permissions jobs"),
    (1.2, "name run-name on defaults permissions env concurrency jobs"),
    (1.2, "name run-name permissions on concurrency env defaults jobs"),
    (0.8, "on name run-name permissions concurrency env defaults jobs"),
    (0.4, "name run-name env on concurrency permissions defaults jobs"),
    (0.4, "name run-name concurrency on permissions env defaults jobs"),
]


class Style:
    """The habits of one author; `writer` makes their choices once, when this is made."""

    __slots__ = (
        "_call_order",
        "_emoji",
        "_job_order",
        "_named_actions",
        "_named_runs",
        "_order",
        "_step_order",
        "_wraps",
        "named_jobs",
    )

    def __init__(self, writer: Writer) -> None:
        self._order = writer.weighted(_WORKFLOW_ORDERS).split()
        self._job_order = writer.weighted(_JOB_ORDERS).split()
        self._call_order = writer.weighted(_CALL_ORDERS).split()
        self._step_order = writer.weighted(_STEP_ORDERS).split()
        self._named_actions = writer.pick((0.1, 0.4, 0.9, 1.0, 1.0, 1.0))
        self._named_runs = writer.pick((0.5, 0.9, 1.0, 1.0, 1.0, 1.0))
        self._wraps = writer.pick((0.0, 0.0, 0.1, 0.5, 1.0, 1.0))
        self._emoji = 0.5 if writer.chance(0.05) else 0.004
        self.named_jobs = writer.pick((0.0, 0.0, 0.0, 0.4, 0.9, 1.0, 1.0))

    def condition(self, writer: Writer, condition: str) -> str:
        """Return the condition, in `${{ }}` or not."""
        if condition.startswith("${{") or not (condition.startswith("!") or writer.chance(self._wraps)):
            return condition
        return "${{ " + condition + " }}"

    def title(self, writer: Writer, name: str) -> str:
        """Return the name, with an emoji before it where the author likes that."""
        return f"{LEXICON.word(writer, 'emoji')} {name}" if writer.chance(self._emoji) else name

    def step(self, writer: Writer, step: dict[str, Any]) -> dict[str, Any]:
        """Return the step with its keys in this author's order, and without its name where the author drops it."""
        if not writer.chance(self._named_actions if "uses" in step else self._named_runs):
            del step["name"]
        elif writer.chance(self._emoji):
            step["name"] = self.title(writer, step["name"])
        if "if" in step:
            step["if"] = self.condition(writer, step["if"])
        return {key: step[key] for key in self._step_order if key in step}

    def job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the job with its keys in this author's order."""
        return {
            key: job[key] for key in (self._call_order if "uses" in job else self._job_order) if key in job
        }

    def workflow(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Return the workflow with its keys in this author's order."""
        return {key: workflow[key] for key in self._order if key in workflow}
