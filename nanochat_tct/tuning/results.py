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

A sweep whose `--output` is in object storage works in a folder of the head. There are a copy of the ledger
(`ledger.jsonl`, `ledger.keeper`), checkpoints in runs/, and, whenever the command ends, all other results.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import replacing, write_atomic
from nanochat_tct.storage.object_storage import RemoteFolder, is_remote, join, local_path
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.tuning.ledger import Account, Ledger
from nanochat_tct.tuning.records import (
    BEST,
    CURVES,
    ENTRIES,
    LEDGER,
    OUTCOME,
    REPORT_DIR,
    TRIALS,
    VARIABLE,
    Choice,
    Entry,
    Evidence,
    Interval,
    Outcome,
    Plan,
    Point,
    Trial,
)

UPLOADED = re.compile(rf"{TRIALS}|{ENTRIES}|{CURVES}|{OUTCOME}|{BEST}|{REPORT_DIR}/[^/]+")


@dataclass(frozen=True)
class Results:
    """All that a sweep has left so far."""

    outcome: Outcome
    trials: list[Trial]  # those of other sweeps, which are evidence only, last
    entries: list[Entry]
    points: list[Point]

    @classmethod
    def of(cls, ledger: Ledger) -> "Results":
        """The results of a sweep by its ledger, whether it runs, was stopped or is done."""
        ledger.refresh()
        points = [
            Point(name, int(step), int(step) * account.settings["iter_tokens"], training, validation)
            for name, account in ledger.accounts.items()
            for step, training, validation in curve_of(name, account)
        ]
        trials = [*trial_rows(ledger), *evidence_rows(ledger)]
        return cls(make_outcome(ledger), trials, list(ledger.entries), points)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """What `write` left in a folder; a table that is missing is empty.

        Raises: UserError when a file is damaged.
        """
        try:
            outcome: dict[str, Any] = json.loads((folder / OUTCOME).read_bytes())
            outcome["predicted"] = outcome["predicted"] and Interval(*outcome["predicted"])
            trials, entries = read_rows(folder / TRIALS, Trial), read_rows(folder / ENTRIES, Entry)
            return cls(Outcome(**outcome), trials, entries, read_rows(folder / CURVES, Point))
        except (ValueError, TypeError, LookupError) as error:  # pyarrow's are ValueErrors
            raise UserError(
                f"the results in {folder} are damaged; {LEDGER} beside them is enough to write them again"
            ) from error

    def write(self, folder: Path) -> None:
        """Write the three tables and outcome.json; readers see the old file or the new one."""
        write_rows(self.trials, folder / TRIALS, Trial)
        write_rows(self.entries, folder / ENTRIES, Entry)
        write_rows(self.points, folder / CURVES, Point)
        write_atomic(
            folder / OUTCOME, json.dumps(dataclasses.asdict(self.outcome), indent=2) + "\n", sync=False
        )


# ----------------------------------------------------------------------------- tables of rows

Row = TypeVar("Row", Trial, Entry, Point)


def write_rows(rows: Iterable[Row], path: Path, kind: type[Row]) -> None:
    """Write a table as Parquet."""
    import pyarrow as pa  # here, as `tune --help` needs none of it
    import pyarrow.parquet

    hints = get_type_hints(kind)
    schema = pa.schema([pa.field(name, _arrow_type(hint)) for name, hint in hints.items()])
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema)
    with replacing(path, sync=False) as partial:
        pyarrow.parquet.write_table(table, partial)


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a table; none where the file is missing."""
    import pyarrow.parquet

    return [kind(**row) for row in pyarrow.parquet.read_table(path).to_pylist()] if path.is_file() else []


def _arrow_type(hint: Any) -> Any:
    import pyarrow as pa

    if get_origin(hint) is Literal:
        return pa.string()
    kind = next(item for item in (get_args(hint) or (hint,)) if item is not type(None))
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[kind]


def curve_of(name: str, account: Account) -> list[list[Any]]:
    """The `loss_curve` of a trial; from its log where it runs, or an earlier version ran it."""
    folder = local_path(join(account.settings["config"]["checkpoint_dir"], name))
    return account.result.get("curve") or loss_curve(folder)


def loss_curve(run_dir: Path) -> list[list[Any]]:
    """Of a run's log: iter, bits per byte in training, and in validation, one of the two missing."""
    entries = read_metrics(run_dir)
    ratios = [entry["bits_per_byte"] / entry["loss"] for entry in entries if entry.get("bits_per_byte")]
    curve: list[list[Any]] = []
    for entry in entries:
        if entry["kind"] == "validation":
            curve.append([entry["iter"], None, float(f"{entry['bits_per_byte']:.5g}")])
        elif ratios:
            curve.append([entry["iter"], float(f"{ratios[0] * entry['loss']:.5g}"), None])
    return curve


def upload_results(folder: Path, output: str) -> None:
    """Copy what a sweep leaves behind, besides ledger and checkpoints, to its output if that is a URI."""
    if is_remote(output):
        RemoteFolder(output).upload_matching(folder, UPLOADED)


def measured_on(outcome: Outcome) -> str:
    """What the final run's result was measured on, to stand after "bits per byte"."""
    if outcome.actual_share is None:
        return "on the validation split"
    if outcome.actual_share == 1:
        return "on the whole validation split"
    error = "" if outcome.actual_error is None else f" (standard error {outcome.actual_error:.4f})"
    return f"on {outcome.actual_share:.0%} of the validation split{error}"


def make_outcome(ledger: Ledger) -> Outcome:
    """What the sweep was given, and its result so far; of several final runs, the last one counts."""
    choice, plan, terms = ledger.latest(Choice), ledger.latest(Plan), ledger.terms
    final = latest_final(ledger)
    result = final.result if final else {}
    share = plan.windows / (plan.whole_windows or plan.windows) if plan else None
    actual, error, actual_share = result.get("bits_per_byte"), result.get("standard_error"), share
    if final and result.get("whole_split") is not None:
        actual, error = result["whole_split"], result.get("whole_split_error", 0.0)
        windows = final.settings["whole_windows"]
        actual_share = windows / (final.settings.get("validation_windows") or windows)
    chosen: dict[str, Any] = {}
    if choice is not None:
        names = ("size", "learning_rate", "varied", "predicted", "decision")
        chosen = {name: getattr(choice, name) for name in names} | {"final_tokens": choice.tokens}
    return Outcome(
        unit=terms.unit,
        budget=terms.budget,
        spent=terms.amount(ledger.spent),
        hourly_usd=terms.hourly_usd,
        actual=actual,
        checkpoint=result.get("checkpoint"),
        actual_share=None if actual is None else actual_share,
        actual_error=error,
        trial_share=share,
        use_gpu=any(account.settings["config"]["use_gpu"] for account in ledger.accounts.values()),
        **chosen,
    )


def latest_final(ledger: Ledger) -> Account | None:
    """The final run; of a sweep that was continued the latest, None before there is one."""
    finals = [account for account in ledger.accounts.values() if account.purpose == "final"]
    return finals[-1] if finals else None


def trial_rows(ledger: Ledger) -> list[Trial]:
    """All trials that were begun, in the order in which they were."""
    return [_row(name, account, ledger) for name, account in ledger.accounts.items()]


def evidence_rows(ledger: Ledger) -> list[Trial]:
    """The trials of other sweeps that count in this one."""
    return [trial for evidence in ledger.noted(Evidence) for trial in evidence.trials]


def values_of(settings: dict[str, Any]) -> dict[str, Any]:
    """A trial's values of all that a sweep can vary; None for what `train` derives from its rate and length."""
    config, varied = settings["config"], settings.get("varied", {})
    values = {name: config[name] for name in VARIABLE if name in config}
    if settings.get("derives_weight_decay"):
        values["weight_decay"] = None
    batch = config["batch_size"] * config["gradient_accumulation"] * config["num_workers"]
    shares = {name: varied.get(name) for name in ("warmup_share", "min_lr_share")}
    return {**values, "global_batch": batch, **shares}


def _row(name: str, account: Account, ledger: Ledger) -> Trial:
    settings, config, result = account.settings, account.settings["config"], account.result
    tokens = int(result.get("tokens") or 0)
    iters = result.get("max_iters") or config["max_iters"]  # a final run's length follows its speed
    in_config = ("n_layer", "n_head", "n_embd", "learning_rate", "seed", "context_size")
    in_result = ("bits_per_byte", "standard_error", "whole_split", "whole_split_error", "checkpoint")
    measured: dict[str, Any] = {name: result.get(name) for name in in_result}
    return Trial(
        trial=name,
        purpose=account.purpose,
        size=settings["size"],
        parameters=settings["parameters"],
        **{name: config[name] for name in in_config},
        **values_of(settings),
        planned_tokens=iters * settings["iter_tokens"],
        tokens=tokens,
        unique_tokens=settings["unique_tokens"],
        epochs=tokens / settings["unique_tokens"],
        flops=float(account.flops),
        usd=ledger.terms.usd(account.microseconds),
        worker_seconds=account.microseconds / 1e6,
        status=result.get("status", "running"),
        started_at=account.opened_at,
        ended_at=account.closed_at or ledger.clock(),
        **measured,
    )
