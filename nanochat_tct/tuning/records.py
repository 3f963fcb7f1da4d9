"""What a sweep keeps and leaves, as frozen records: trials, charges, outcome, and the notes in its ledger."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

Unit = Literal["usd", "gpu_hours", "flops"]
Purpose = Literal["probe", "sweep", "final", "idle"]
Status = Literal["running", "finished", "stopped", "cut", "failed"]

# What a sweep may vary besides size and learning rate: a trial's cost still follows from its settings.
VARIABLE = (
    *("dropout", "weight_decay", "optimizer", "beta1", "beta2", "grad_clip"),
    *("global_batch", "warmup_share", "min_lr_share"),
)

LEDGER, TRIALS, ENTRIES, CURVES = "ledger.jsonl", "trials.parquet", "entries.parquet", "curves.parquet"
OUTCOME, BEST, REPORT_DIR = "outcome.json", "best.yaml", "report"


class Interval(NamedTuple):
    """A value with the interval that holds the truth with some confidence."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Trial:
    """One training run of a sweep."""

    trial: str  # its name, unique in the sweep
    purpose: Purpose
    size: str  # a preset, or n_embd as text
    n_layer: int
    n_head: int
    n_embd: int
    parameters: int
    learning_rate: float  # peak
    dropout: float  # this and the following: VARIABLE
    weight_decay: float | None  # None: `train` derives it from the rate and length of each trial
    optimizer: str
    beta1: float
    beta2: float
    grad_clip: float
    planned_tokens: int  # over which the learning rate decays
    tokens: int  # trained on
    unique_tokens: int  # of the training split
    epochs: float  # tokens / unique_tokens
    flops: float  # charged, evaluation and repeated work included
    usd: float  # charged; 0 where the budget has no price
    worker_seconds: float  # GPU-seconds (process-seconds without GPU) that it held
    bits_per_byte: float | None  # of the last evaluation
    status: Status  # stopped: diverged or hopeless; cut: its reserve was used up before its end
    started_at: float  # seconds since 1970
    ended_at: float
    # Files of earlier versions have none of what follows.
    standard_error: float | None = None  # of bits_per_byte as an estimate of the split; 0: of all of it
    whole_split: float | None = None  # of a final run that is done: bits per byte on Outcome.actual_share
    whole_split_error: float | None = None  # standard error of whole_split; 0 on the whole split
    global_batch: int | None = None  # windows; this and the next two: VARIABLE
    warmup_share: float | None = None  # of the run; None: as `train` derives it
    min_lr_share: float | None = None  # of the peak; None: as `train` derives it
    seed: int | None = None
    context_size: int | None = None
    checkpoint: str | None = None  # the last one, or its URI
    source: str = ""  # folder of the sweep whose trial this is, where it counts as evidence only

    @property
    def is_measured(self) -> bool:
        """Whether there are bits per byte, and they are a number."""
        return self.bits_per_byte is not None and math.isfinite(self.bits_per_byte) and self.bits_per_byte > 0


def cost(trial: Trial, unit: Unit) -> float:
    """What a trial cost, in the budget's unit."""
    return {"usd": trial.usd, "flops": trial.flops}.get(unit, trial.worker_seconds / 3600)


def tokens_by_size(trials: Sequence[Trial], unit: Unit, money: float) -> dict[str, int]:
    """Size -> tokens of a run for `money`, at the cost of a token of the longest finished trial of that size."""
    finished = [trial for trial in trials if trial.purpose == "sweep" and trial.status == "finished"]
    longest = {trial.size: trial for trial in sorted(finished, key=lambda trial: trial.tokens)}
    return {
        size: max(1, round(trial.tokens * money / cost(trial, unit)))
        for size, trial in longest.items()
        if money > 0 and cost(trial, unit) > 0
    }


def last_final(trials: Sequence[Trial]) -> Trial | None:
    """The final run; of a sweep that was continued the latest, None before there is one."""
    return next((trial for trial in reversed(trials) if trial.purpose == "final"), None)


@dataclass(frozen=True)
class Point:
    """One point of a trial's loss curve; of training or of validation, the other is missing."""

    trial: str
    iter: int
    tokens: int
    training: float | None  # bits per byte of the iter's windows
    validation: float | None  # bits per byte of the validation windows


@dataclass(frozen=True)
class Entry:
    """One charge of the ledger; the sum of their amounts is what was spent."""

    time: float  # seconds since 1970
    purpose: Purpose
    trial: str  # "" for idle time between trials
    kind: str  # start_up, warm_up, train, evaluation, checkpoint, idle, ...
    amount: float  # in the budget's unit
    worker_seconds: float
    flops: float


@dataclass(frozen=True)
class Outcome:
    """What a sweep was given, and its result."""

    unit: Unit
    budget: float
    spent: float
    hourly_usd: float | None  # price of a GPU (of a process without GPU)
    size: str | None = None  # of the final run, once chosen
    learning_rate: float | None = None
    varied: dict[str, Any] = field(default_factory=dict)  # the chosen values of what else was varied
    predicted: Interval | None = None  # bits per byte on the whole split
    actual: float | None = None  # bits per byte of the final run, as `evaluate` measures it
    checkpoint: str | None = None
    decision: str = ""  # two sentences: what was chosen, and why
    # Files of earlier versions have none of what follows.
    actual_share: float | None = None  # of the validation split that `actual` was measured on
    actual_error: float | None = None  # standard error of `actual` as an estimate of the whole split
    trial_share: float | None = None  # of the validation split that trials are measured on
    final_tokens: dict[str, int] = field(default_factory=dict)  # size -> length of a final run, at equal cost
    use_gpu: bool = True  # a worker is a GPU, not a process


def show_value(value: Any) -> str:
    """The value of a setting, as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


# ----------------------------------------------------------------------------- notes of the ledger


@dataclass(frozen=True)
class Note:
    """Something that a sweep keeps in its ledger beside its money. The last note of a kind and key counts."""

    keyed_by: ClassVar[str] = ""  # the field that is its key; without one, a sweep has one note of this kind

    @property
    def key(self) -> Any:
        return getattr(self, self.keyed_by) if self.keyed_by else ""


@dataclass(frozen=True)
class Plan(Note):
    """The first trials of a round. All cost the same, so larger models see fewer tokens."""

    keyed_by = "round"

    money: float  # quanta of a trial
    iters: dict[str, int]  # by size
    eval_iters: int  # 0: the whole validation split
    windows: int  # of an evaluation
    whole_windows: int  # of the whole validation split; 0 where each trial is measured on all of it anyway
    round: int = 0
    has_trials: bool = True  # else the budget buys a final run only


@dataclass(frozen=True)
class Centres(Note):
    """The learning rate around which the first trials of each size are spread."""

    rates: dict[str, float]


@dataclass(frozen=True)
class Choice(Note):
    """The final run, as the fit chose it, or the rule where no trial came to its end."""

    size: str
    learning_rate: float
    varied: dict[str, Any]
    decision: str
    predicted: Interval | None = None
    tokens: dict[str, int] = field(default_factory=dict)  # size -> tokens of a final run, at equal cost


@dataclass(frozen=True)
class Duration(Note):
    """Seconds that the forecast gives to the sweep, and to a final run by size."""

    sweep: float
    final: dict[str, float]


@dataclass(frozen=True)
class HalfWay(Note):
    """What a trial had reached half-way."""

    keyed_by = "trial"

    trial: str
    bits_per_byte: float


@dataclass(frozen=True)
class Evidence(Note):
    """The trials of another sweep that count in this one (`--from`)."""

    keyed_by = "source"

    source: str  # its folder or URI
    trials: list[Trial]


@dataclass(frozen=True)
class Head(Note):
    """The machine that started the sweep, for nodes.check_node."""

    host: str
    software: Any


@dataclass(frozen=True)
class Slots(Note):
    """How many trials run at a time."""

    number: int


@dataclass(frozen=True)
class Interrupted(Note):
    """Whether trials should save their checkpoints and stop."""

    is_wanted: bool


KINDS: dict[str, Any] = {kind.__name__: kind for kind in Note.__subclasses__()}


def read_notes(name: str, value: Any) -> list[Note]:
    """The notes of a line in the ledger: `name` is the kind, `value` its fields."""
    if name == "Choice" or name == "choice":
        predicted = value.get("predicted")
        return [Choice(**{**value, "predicted": predicted and Interval(*predicted)})]
    if name == "Evidence":
        return [Evidence(value["source"], [Trial(**trial) for trial in value["trials"]])]
    if name in KINDS:
        return [KINDS[name](**value)]
    # Earlier versions wrote a key of words, and a value of its own form for each.
    word, _, rest = name.partition(" ")
    match word:
        case "plan":
            return [Plan(**value, round=int(rest or 0))]
        case "half-way":
            return [HalfWay(rest, value)]
        case "evidence":
            return [
                Evidence(source, [Trial(**trial) for trial in trials]) for source, trials in value.items()
            ]
        case "forecast":
            return [Duration(**value)]
        case "head":
            return [Head(*value)]
        case "centres" | "slots" | "interrupted":
            return [KINDS[word.capitalize()](value)]
    raise ValueError(f"unknown note {name!r}")
