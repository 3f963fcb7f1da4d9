"""What a sweep leaves behind: its trials and ledger as Parquet, its outcome as JSON.

A sweep's folder:

    ledger.jsonl       every reserve, charge and settlement; the truth about money (tuning/ledger.py)
    trials.parquet     a row for each trial (Trial)
    entries.parquet    the ledger's charges (Entry), for reports
    outcome.json       budget, choice, predicted and actual (Outcome)
    best.yaml          the final run's settings; `train --config` takes it
    report/            index.html and pictures
    runs/, logs/       checkpoints, TensorBoard and W&B of each trial

Where it is in object storage see tuning/remote_sweep.py.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet

Unit = Literal["usd", "gpu_hours", "flops"]
Purpose = Literal["probe", "sweep", "final", "idle"]
Status = Literal["running", "finished", "stopped", "cut", "failed"]

# What a sweep may vary besides size and learning rate: a trial's cost still follows from its settings.
VARIABLE = (
    *("dropout", "weight_decay", "optimizer", "beta1", "beta2", "grad_clip"),
    *("global_batch", "warmup_share", "min_lr_share"),
)

LEDGER, TRIALS, ENTRIES, OUTCOME = "ledger.jsonl", "trials.parquet", "entries.parquet", "outcome.json"
BEST, REPORT_DIR = "best.yaml", "report"


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
    # What follows came later: files of earlier versions do not have it.
    global_batch: int | None = None  # windows; this and the next two: VARIABLE
    warmup_share: float | None = None  # of the run; None: as `train` derives it
    min_lr_share: float | None = None  # of the peak; None: as `train` derives it
    seed: int | None = None
    context_size: int | None = None
    checkpoint: str | None = None  # the latest, or its URI
    whole_split: float | None = None  # bits per byte of a final run on the whole validation split
    source: str = ""  # folder of the sweep whose trial this is, where it counts as evidence only


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
    predicted: tuple[float, float, float] | None = None  # bits per byte: low, middle, high
    actual: float | None = None  # bits per byte of the final run on the whole validation split
    checkpoint: str | None = None
    decision: str = ""  # two sentences: what was chosen, and why


Row = TypeVar("Row", Trial, Entry)


def write_rows(rows: Iterable[Row], path: str | Path, kind: type[Row]) -> None:
    """Write trials or entries as Parquet; a reader sees the old file or the new one, never half of it."""
    hints = get_type_hints(kind)
    schema = pa.schema([pa.field(name, _arrow_type(hint)) for name, hint in hints.items()])
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema)
    aside = Path(f"{path}.{os.getpid()}.tmp")
    pyarrow.parquet.write_table(table, aside)
    os.replace(aside, path)


def read_rows(path: str | Path, kind: type[Row]) -> list[Row]:
    """What `write_rows` wrote."""
    return [kind(**row) for row in pyarrow.parquet.read_table(path).to_pylist()]


def write_outcome(outcome: Outcome, folder: str | Path) -> None:
    """Write outcome.json, whole or not at all."""
    path = Path(folder) / OUTCOME
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps(dataclasses.asdict(outcome), indent=2) + "\n")
    os.replace(aside, path)


def read_outcome(folder: str | Path) -> Outcome:
    """What `write_outcome` wrote."""
    values: dict[str, Any] = json.loads((Path(folder) / OUTCOME).read_text())
    if values["predicted"] is not None:
        values["predicted"] = tuple(values["predicted"])
    return Outcome(**values)


def show_value(value: Any) -> str:
    """The value of a setting, as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is Literal:
        return pa.string()
    kind = next(item for item in (get_args(hint) or (hint,)) if item is not type(None))
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[kind]
