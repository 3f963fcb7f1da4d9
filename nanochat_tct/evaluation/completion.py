"""How well a model completes workflows that it has not seen: `evaluate --completion`.

Validation documents are written as YAML, cut at the beginning of a random line, and continued. The store holds what the
documents say, not how their authors wrote it; so the text is `to_yaml`'s: block style, no comments, no needless quotes.
That is a normalization, the same for everything that is compared: a suggestion is right if it says the same under the
same keys in the same order, not if it guesses the author's taste in quotes. It also means that a checkpoint and its
store are enough, and that a document counts as unseen by the same rule that kept it out of training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nanochat_tct.check import check_text
from nanochat_tct.documents import to_yaml
from nanochat_tct.documents.positions import Positions
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.measures import compare, normal_line, reliability, with_intervals
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tracking.terminal import with_progress

if TYPE_CHECKING:
    import numpy as np

    from nanochat_tct.data.store import TokenStore
    from nanochat_tct.generation.completer import Completer, Completion

NUM_SUGGESTIONS = 5
BLOCK_TOKENS = 128  # of a continuation of a step or job
CHECK_EVERY = 32  # tokens, whether it has come to the end of the block
KINDS = ("uses", "run", "with", "if", "triggers", "the rest")

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Block:
    """The rest of a step or job, from a cut on.

    Attributes:
        column: of the dash of the step, or of the key of the job; the first later line that is not deeper ends it.
        begins: the cut is before the first line of the step or job.
    """

    column: int
    begins: bool

    def of(self, lines: Sequence[str]) -> list[str]:
        """Those lines of some that follow a cut which belong to the block."""
        end = 0
        if self.begins:
            if not lines or _indent(lines[0]) != self.column:
                return []
            end = 1
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > self.column):
            end += 1
        while end and not lines[end - 1].strip():
            end -= 1
        return list(lines[:end])

    def is_over(self, lines: Sequence[str]) -> bool:
        """Whether the last one of some lines is behind the block."""
        later = lines[1:] if self.begins else lines
        return any(line.strip() and _indent(line) <= self.column for line in later)


@dataclass(frozen=True)
class Cut:
    """A workflow that is cut at the beginning of a line.

    Attributes:
        repository: the workflow's, or the workflow's own name where that is unknown.
        before: the text up to the cut; it ends with a newline.
        after: the author's lines from there on.
        kind: of the first of them, one of KINDS.
        step, job: the ones that this line belongs to.
    """

    repository: str
    before: str
    after: list[str]
    kind: str
    step: Block | None
    job: Block | None


class Suggester(Protocol):
    """What suggests lines, given nothing but the text before a cut."""

    def next_lines(self, before: str) -> list[Completion]:
        """At most NUM_SUGGESTIONS ways in which the text goes on for one line, best first."""
        ...

    def continuations(self, befores: Sequence[str], blocks: Sequence[Block]) -> Iterator[str]:
        """For each text what follows, greedily, at least to the end of its block, in complete lines.

        It ends with a line break if the workflow ends there. The blocks only say how far to go on.
        """
        ...


class ModelSuggester:
    """Suggestions of a `Completer`: its most probable next lines, and for blocks what it generates at temperature 0."""

    def __init__(self, completer: Completer) -> None:
        self.completer = completer

    def next_lines(self, before: str) -> list[Completion]:
        return self.completer.complete(before, n=NUM_SUGGESTIONS)

    def continuations(self, befores: Sequence[str], blocks: Sequence[Block]) -> Iterator[str]:
        completer = self.completer
        prompts = [encode_prompt(before, completer.tokenizer) for before in befores]

        def stops(index: int, tokens: list[int]) -> bool:
            length = len(tokens) - len(prompts[index].tokens)
            if length >= BLOCK_TOKENS:
                return True
            is_checked = length > 0 and length % CHECK_EVERY == 0
            return is_checked and blocks[index].is_over(
                completer.text_after(prompts[index], tokens).split("\n")
            )

        sampling = SamplingConfig(temperature=0, max_tokens=None)
        for sample in completer.generate(prompts, sampling, stops):
            yield completer.text_after(sample.prompt, sample.tokens)


def held_out_cuts(store: TokenStore, tokenizer: Tokenizer, count: int, seed: int) -> list[Cut]:
    """Choose where to cut the validation documents of a store; see `choose_cuts`."""
    documents = store.split("val", ["repo", "source", "start", "length"]).to_pylist()

    def value_of(index: int) -> Any:
        start, length = documents[index]["start"], documents[index]["length"]
        return tokenizer.decode_value(store.token_range(start, length).tolist())

    repositories = [document["repo"] or document["source"] for document in documents]
    return choose_cuts(repositories, value_of, count, seed)


def choose_cuts(
    repositories: Sequence[str], value_of: Callable[[int], Any], count: int, seed: int
) -> list[Cut]:
    """Choose where to cut some workflows.

    Each repository gets a cut before one gets a second, and each of its workflows likewise, so that a repository of a
    thousand workflows does not decide the result. In a workflow each line is as likely as another, save the first one,
    blank ones and comments.

    Args:
        repositories: of each workflow.
        value_of: the workflow of an index.
        count: how many cuts; fewer if there are not as many lines.

    Returns:
        Cuts of a workflow stand one after the other.
    """
    rng = random.Random(seed)
    waiting: dict[str, list[int]] = {}
    for index, repository in enumerate(repositories):
        waiting.setdefault(repository, []).append(index)
    turns = list(waiting.values())
    rng.shuffle(turns)
    for indices in turns:
        rng.shuffle(indices)
    texts: dict[int, _Text] = {}
    chosen: list[tuple[int, int]] = []
    while turns and len(chosen) < count:
        for indices in turns:
            while indices and len(chosen) < count:
                index = indices.pop(0)
                if index not in texts:
                    texts[index] = _Text(value_of(index))
                if line := texts[index].draw(rng):
                    chosen.append((index, line))
                    indices.append(index)
                    break
        turns = [indices for indices in turns if indices]
    return [texts[index].cut(line, repositories[index]) for index, line in sorted(chosen)]


class _Text:
    """A workflow as lines of YAML."""

    def __init__(self, value: Any) -> None:
        text = to_yaml(value)
        self.lines = text.split("\n")[:-1]
        positions = Positions(text)
        self.paths: list[KeyPath] = [()] * len(self.lines)  # of what begins on each line, or goes on there
        starts = {positions.locate(path, of_key=True)[0] - 1: path for path in _paths(value)}
        path: KeyPath = ()
        for number in range(len(self.lines)):
            self.paths[number] = path = starts.get(number, path)
        self.first_lines: dict[KeyPath, int] = {}
        for number, path in enumerate(self.paths):
            for end in range(len(path) + 1):
                self.first_lines.setdefault(path[:end], number)
        self.left = [
            number
            for number, line in enumerate(self.lines)
            if number and line.strip() and not line.lstrip().startswith("#")
        ]

    def draw(self, rng: random.Random) -> int | None:
        """A line that was not drawn before."""
        return self.left.pop(rng.randrange(len(self.left))) if self.left else None

    def cut(self, line: int, repository: str) -> Cut:
        path = self.paths[line]
        is_job = len(path) > 1 and path[0] == "jobs"
        is_step = is_job and len(path) > 3 and path[2] == "steps"
        return Cut(
            repository,
            "".join(f"{each}\n" for each in self.lines[:line]),
            self.lines[line:],
            kind_of(path),
            self.block(path[:4], line) if is_step else None,
            self.block(path[:2], line) if is_job else None,
        )

    def block(self, path: KeyPath, line: int) -> Block:
        first = self.first_lines[path]
        return Block(_indent(self.lines[first]), first == line)


def kind_of(path: KeyPath) -> str:
    """The kind of a line of a workflow, by the path of what it has."""
    if path[:1] == ("on",):
        return "triggers"
    if len(path) > 2 and path[0] == "jobs":
        inner = path[4:] if path[2] == "steps" else path[2:]
        if inner[:1] == ("with",):
            return "with"
        if inner and inner[0] in ("uses", "run", "if") and len(inner) == 1:
            return str(inner[0])
    return "the rest"


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of a document's keys and items, in its order."""
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for name, child in children:
        yield (*path, name)
        yield from _paths(child, (*path, name))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def begins_workflow(text: str, tokenizer: Tokenizer) -> bool:
    """Whether some workflow that GitHub accepts begins with the whole of a text."""
    try:
        prompt = encode_prompt(text, tokenizer)
    except UserError:
        return False
    return not prompt.dropped and not prompt.reason


def is_accepted(text: str, judge: Tokenizer) -> bool:
    """Whether `check` finds no error in a workflow."""
    return all(each.severity != "error" for each in check_text("", text.encode(), judge))


def evaluate_completion(
    suggester: Suggester,
    cuts: Sequence[Cut],
    judge: Tokenizer,
    with_blocks: bool = True,
) -> dict[str, Any]:
    """Compare what a suggester says at some cuts with what the authors wrote.

    Args:
        judge: the tokenizer whose language the documents are in.
        with_blocks: have the rest of steps and jobs completed too.

    Returns:
        cuts, repositories: numbers; next_line, rest_of_step, rest_of_job: see `with_intervals`, and `cuts`; by_kind:
        the same as next_line for each kind of line, a kind without cuts left out; reliability: of all suggestions for
        next lines, see `measures.reliability`.

        `accepted` means of a next line: the text up to its end begins a workflow that GitHub accepts; of a block, among
        those cuts where something is suggested and the text up to the end of the author's is a workflow that GitHub
        accepts: so it is up to the end of what is suggested, or, where BLOCK_TOKENS ended that inside the block, it
        begins one with the lines that were complete by then. What cannot follow the text to the letter is no
        suggestion.
    """
    compared: dict[str, list[tuple[str, np.ndarray]]] = {}

    def add(
        name: str, cut: Cut, guesses: Sequence[Sequence[str]], author: list[str], accepted: bool | None
    ) -> None:
        compared.setdefault(name, []).append((cut.repository, compare(guesses, author, accepted)))

    in_jobs = [cut for cut in cuts if with_blocks and cut.job is not None]
    suggested: list[tuple[float, bool, str]] = []  # probability, whether it is right, repository
    for cut in with_progress(cuts, len(cuts), "completing line {} of {}"):
        found = suggester.next_lines(cut.before)
        guesses, wanted = [each.text for each in found], normal_line(cut.after[0])
        suggested += [(each.probability, normal_line(each.text) == wanted, cut.repository) for each in found]
        accepted = begins_workflow(cut.before + guesses[0] + "\n", judge) if guesses else None
        for name in ("next_line", cut.kind):
            add(name, cut, [[guess] for guess in guesses], cut.after[:1], accepted)
    blocks = [cut.job for cut in in_jobs if cut.job is not None]
    continued = suggester.continuations([cut.before for cut in in_jobs], blocks)
    for cut, text in zip(
        in_jobs, with_progress(continued, len(in_jobs), "completing job {} of {}"), strict=True
    ):
        lines = text.removesuffix("\n").split("\n")
        for name, block in (("rest_of_step", cut.step), ("rest_of_job", cut.job)):
            if block is not None:
                guess, author = block.of(lines), block.of(cut.after)
                whole = cut.before + "\n".join(guess) + "\n"
                is_ended = text.endswith("\n") or block.is_over(lines)
                accepts = is_accepted if is_ended else begins_workflow
                is_judged = bool(guess) and is_accepted(cut.before + "\n".join(author) + "\n", judge)
                add(name, cut, [guess], author, accepts(whole, judge) if is_judged else None)
    results: dict[str, dict[str, Any]] = {}
    for name, rows in compared.items():
        measured = with_intervals([row for _, row in rows], [repository for repository, _ in rows])
        if name in ("rest_of_step", "rest_of_job"):
            del measured["among_five"]  # there is one continuation
        results[name] = {"cuts": len(rows), **measured}
    return {
        "cuts": len(cuts),
        "repositories": len({cut.repository for cut in cuts}),
        **{name: results[name] for name in ("next_line", "rest_of_step", "rest_of_job") if name in results},
        "by_kind": {name: results[name] for name in KINDS if name in results},
        "reliability": reliability(suggested),
    }
