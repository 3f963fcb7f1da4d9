"""What a sweep leaves behind: its trials and ledger as Parquet, its outcome as JSON.

A sweep's folder:

    ledger.jsonl       every reserve, charge and settlement; the truth about money (tuning/ledger.py)
    trials.parquet     a row for each trial (Trial)
    entries.parquet    the ledger's charges (Entry), for reports
    curves.parquet     the loss of each trial as it fell (Point)
    outcome.json       budget, choice, predicted and actual (Outcome)
    best.yaml          the final run's settings; `train --config` takes it
    report/            index.html and pictures
    runs/, logs/       checkpoints, TensorBoard and W&B of each trial

Where it is in object storage see tuning/remote_sweep.py.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from nanochat_tct.storage.files import replacing, write_atomic

if TYPE_CHECKING:
    from nanochat_tct.tuning.ledger import Account, Ledger

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


def values_of(settings: dict[str, Any]) -> dict[str, Any]:
    """A trial's values of all that a sweep can vary; None for what `train` derives from its rate and length."""
    config, varied = settings["config"], settings.get("varied", {})
    values = {name: config[name] for name in VARIABLE if name in config}
    if settings.get("derives_weight_decay"):
        values["weight_decay"] = None
    batch = config["batch_size"] * config["gradient_accumulation"] * config["num_workers"]
    shares = {name: varied.get(name) for name in ("warmup_share", "min_lr_share")}
    return {**values, "global_batch": batch, **shares}


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
    standard_error: float | None = (
        None  # of bits_per_byte as an estimate of the whole validation split; 0: it is of that
    )
    whole_split: float | None = (
        None  # bits per byte on what Outcome.actual_share says, once the final run is done
    )
    whole_split_error: float | None = None  # its standard error; 0 on the whole split
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
    """What a sweep was given, and what came of it."""

    unit: Unit
    budget: float
    spent: float
    hourly_usd: float | None  # price of a GPU (of a process without GPU)
    size: str | None = None  # of the final run, once chosen
    learning_rate: float | None = None
    varied: dict[str, Any] = field(default_factory=dict)  # the chosen values of what else was varied
    predicted: tuple[float, float, float] | None = None  # bits per byte on the whole split: low, middle, high
    actual: float | None = None  # bits per byte of the final run, as `evaluate` measures it
    checkpoint: str | None = None
    decision: str = ""  # two sentences: what was chosen, and why
    # Files of earlier versions have none of what follows.
    actual_share: float | None = None  # of the validation split that `actual` was measured on
    actual_error: float | None = None  # standard error of `actual` as an estimate of the whole split
    trial_share: float | None = None  # of the validation split that trials are measured on
    final_tokens: dict[str, int] = field(default_factory=dict)  # size -> length of a final run, at equal cost
    use_gpu: bool = True  # a worker is a GPU, not a process


Row = TypeVar("Row", Trial, Entry, Point)


def write_rows(rows: Iterable[Row], path: str | Path, kind: type[Row]) -> None:
    """Write trials or entries as Parquet; a reader sees the old file or the new one, never half of it."""
    hints = get_type_hints(kind)
    import pyarrow as pa  # here, as `tune --help` needs none of it
    import pyarrow.parquet

    schema = pa.schema([pa.field(name, _arrow_type(hint)) for name, hint in hints.items()])
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema)
    with replacing(Path(path), sync=False) as partial:
        pyarrow.parquet.write_table(table, partial)


def read_rows(path: str | Path, kind: type[Row]) -> list[Row]:
    """What `write_rows` wrote."""
    import pyarrow.parquet

    return [kind(**row) for row in pyarrow.parquet.read_table(path).to_pylist()]


def write_outcome(outcome: Outcome, folder: str | Path) -> None:
    """Write outcome.json, whole or not at all."""
    content = json.dumps(dataclasses.asdict(outcome), indent=2) + "\n"
    write_atomic(Path(folder) / OUTCOME, content, sync=False)


def read_outcome(folder: str | Path) -> Outcome:
    """What `write_outcome` wrote."""
    values: dict[str, Any] = json.loads((Path(folder) / OUTCOME).read_text())
    if values["predicted"] is not None:
        values["predicted"] = tuple(values["predicted"])
    return Outcome(**values)


def show_value(value: Any) -> str:
    """The value of a setting, as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _arrow_type(hint: Any) -> Any:
    import pyarrow as pa

    if get_origin(hint) is Literal:
        return pa.string()
    kind = next(item for item in (get_args(hint) or (hint,)) if item is not type(None))
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[kind]


def write_records(ledger: "Ledger", folder: Path) -> Outcome:
    """Write the tables and outcome.json of a sweep, done or not. Returns the outcome."""
    ledger.refresh()
    write_rows([*trial_rows(ledger), *evidence_rows(ledger)], folder / TRIALS, Trial)
    write_rows(ledger.entries, folder / ENTRIES, Entry)
    write_rows(curve_points(ledger), folder / CURVES, Point)
    outcome = make_outcome(ledger)
    write_outcome(outcome, folder)
    return outcome


def make_outcome(ledger: "Ledger") -> Outcome:
    """What the sweep was given, and what came of it so far; of several final runs, the last one counts."""
    choice = ledger.notes.get("choice", {})
    accounts = list(ledger.accounts.values())
    final = latest_final(ledger)
    result = final.result if final else {}
    settings = final.settings if final else {}
    total, plan = settings.get("validation_windows"), ledger.notes.get("plan")
    share = plan["windows"] / (plan["whole_windows"] or plan["windows"]) if plan else None
    actual, error, actual_share = result.get("bits_per_byte"), result.get("standard_error"), share
    if result.get("whole_split") is not None:
        actual, error = result["whole_split"], result.get("whole_split_error", 0.0)
        actual_share = settings["whole_windows"] / (total or settings["whole_windows"])
    return Outcome(
        unit=ledger.terms.unit,
        budget=ledger.terms.budget,
        spent=ledger.terms.amount(ledger.spent),
        hourly_usd=ledger.terms.hourly_usd,
        size=choice.get("size"),
        learning_rate=choice.get("learning_rate"),
        varied=choice.get("varied", {}),
        predicted=tuple(choice["predicted"]) if "predicted" in choice else None,
        actual=actual,
        checkpoint=result.get("checkpoint"),
        decision=choice.get("decision", ""),
        actual_share=None if actual is None else actual_share,
        actual_error=error,
        trial_share=share,
        final_tokens=choice.get("tokens", {}),
        use_gpu=any(account.settings["config"]["use_gpu"] for account in accounts),
    )


def latest_final(ledger: "Ledger") -> "Account | None":
    """The final run; of a sweep that was continued the latest, None before there is one."""
    finals = [account for account in ledger.accounts.values() if account.purpose == "final"]
    return finals[-1] if finals else None


def curve_points(ledger: "Ledger") -> list[Point]:
    """The loss curves of all trials that have ended."""
    return [
        Point(name, int(step), int(step) * account.settings["iter_tokens"], training, validation)
        for name, account in ledger.accounts.items()
        for step, training, validation in account.result.get("curve", [])
    ]


def trial_rows(ledger: "Ledger") -> list[Trial]:
    """All trials that were begun, in the order in which they were."""
    return [_row(name, account, ledger) for name, account in ledger.accounts.items()]


def evidence_rows(ledger: "Ledger") -> list[Trial]:
    """The trials of other sweeps that a sweep has read."""
    noted = ledger.notes.get("evidence", {})
    return [Trial(**trial) for trials in noted.values() for trial in trials]


def _row(name: str, account: "Account", ledger: "Ledger") -> Trial:
    settings: dict[str, Any] = account.settings
    config = settings["config"]
    tokens = int(account.result.get("tokens") or 0)
    iters = account.result.get("max_iters") or config["max_iters"]  # a final run's length follows its speed
    return Trial(
        trial=name,
        purpose=account.purpose,
        size=settings["size"],
        n_layer=config["n_layer"],
        n_head=config["n_head"],
        n_embd=config["n_embd"],
        parameters=settings["parameters"],
        learning_rate=config["learning_rate"],
        **values_of(settings),
        planned_tokens=iters * settings["iter_tokens"],
        tokens=tokens,
        unique_tokens=settings["unique_tokens"],
        epochs=tokens / settings["unique_tokens"],
        flops=float(account.flops),
        usd=ledger.terms.usd(account.microseconds),
        worker_seconds=account.microseconds / 1e6,
        bits_per_byte=account.result.get("bits_per_byte"),
        status=account.result.get("status", "running"),
        started_at=account.opened_at,
        ended_at=account.closed_at or ledger.clock(),
        standard_error=account.result.get("standard_error"),
        whole_split=account.result.get("whole_split"),
        whole_split_error=account.result.get("whole_split_error"),
        seed=config["seed"],
        context_size=config["context_size"],
        checkpoint=account.result.get("checkpoint"),
    )
